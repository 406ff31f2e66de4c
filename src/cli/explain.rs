use clap::{Args, ValueEnum};

use super::batch::{Failure, each};
use super::files::{InputFile, SOURCES, find};
use super::{CompileOptions, Inputs};
use rehydrate::{Explanation, Input, Options, Python};

/// Say of every value who needs it, whether it is shared, and why
///
/// A value is shown if it is needed more than once, or if equal ones could have been one and are not: lists, dicts and code
/// objects never are, and the same text interned and not interned is two. What is decided on it: load (one instruction
/// brings it), once (it is needed once), keep (made at its first use, copied from there), hoist (made first, in a slot at
/// the bottom of the stack, and copied), rebuild (made at each use), table (stands in the data of code objects).
///
/// To see why two functions do or do not share a docstring, or any value, give a part of its text to --value: values that
/// are one have one entry, with all places that need it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rehydrate explain module.pyc
  rehydrate explain module.pyc --value 'Return the'    is it shared, and why
  rehydrate explain module.pyc --sharing identity      what the dump shares
  rehydrate explain module.pyc --format html > m.html  a page of all values
  rehydrate explain module.pyc --format dot | dot -Tsvg > m.svg

Exit status:
  0  all are explained
  1  an input is refused
  2  wrong usage, or a file cannot be read")]
pub(super) struct Explain {
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    options: CompileOptions,
    /// How to print it; dot and html take one input
    #[arg(long, value_enum, default_value_t)]
    format: ExplainFormat,
    /// Show the values whose literal contains TEXT, and nothing else; those needed once too
    #[arg(long, value_name = "TEXT")]
    value: Option<String>,
    /// Show at most so many values [default: 20 in text, 150 in dot, all in json and html]
    #[arg(long, value_name = "N")]
    top: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum ExplainFormat {
    /// For people
    #[default]
    Text,
    /// One JSON document an input, each on a line of its own
    Json,
    /// The values and what they are made of, for Graphviz
    Dot,
    /// One page without scripts or pictures from elsewhere: the listing, the stack's height, and the values
    Html,
}

impl Explain {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Inputs { inputs, python, jobs } = &self.inputs;
        let inputs: Vec<_> = find(inputs, SOURCES)?.into_iter().map(|input| (input, ())).collect();
        if matches!(self.format, ExplainFormat::Dot | ExplainFormat::Html) && inputs.len() > 1 {
            let format = self.format.to_possible_value().expect("no format is hidden");
            let why = format!("--format {} takes one input, not {}", format.get_name(), inputs.len());
            return Err(Failure::Usage(why));
        }
        let options = self.options.options();
        let titled = inputs.len() > 1;
        each(&inputs, *jobs, "explained", |input, ()| {
            let explanation = self.shown(input, python.python, options)?;
            Ok(match self.format {
                ExplainFormat::Text if titled => format!("{explanation}\n"),
                ExplainFormat::Text => explanation.to_string(),
                ExplainFormat::Json => format!("{}\n", explanation.json()),
                ExplainFormat::Dot => explanation.dot(),
                ExplainFormat::Html => explanation.html(),
            })
        })
    }

    fn shown(&self, input: &InputFile, python: Option<Python>, options: Options) -> Result<Explanation, Failure> {
        let file = input.read()?;
        let Input::Source(source) = Input::read(&file, python)? else {
            let why = "an initializer does not say why it is as it is: explain takes what it was compiled from";
            return Err(Failure::Refused(why.to_owned()));
        };
        let mut explanation = rehydrate::explain(&source, options)?.with_name(&input.name());
        if let Some(text) = &self.value {
            explanation = explanation.with_value(text);
        }
        if let Some(n) = self.top {
            explanation = explanation.with_top(n);
        }
        Ok(explanation)
    }
}
