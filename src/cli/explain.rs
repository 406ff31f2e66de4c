use clap::{Args, ValueEnum};

use super::batch::{Failure, each};
use super::files::{EXPLAINED, InputFile, find};
use super::{CompileOptions, Inputs};
use rehydrate::{Explanation, Input, Options, Python};

/// Say of every value who needs it, whether it is shared, and why
///
/// To see whether two functions share a docstring, or any value, give a part of its text to --value. An entry is a value:
/// "objects" says how many objects it becomes, for how many places, and so whether they share it; "needed by" names the
/// places. If the two functions have an entry each, their texts differ, or "apart" says why equal ones are two: code objects,
/// lists, sets and dicts never merge, and interned text does not merge with text that is not interned. With --sharing
/// identity or none, less is shared.
///
/// A place that is the docstring of a function, a class or a module is marked (docstring). "in n4" says that the value is
/// in n4, which has several uses. A use is an item or a field of one value: a tuple that is itself shared uses its item
/// once, for however many places.
///
/// What is decided: load (one instruction brings it), once (it has one use, and is made there), keep (made at its first
/// use, copied from there), hoist (made first, in a slot at the bottom of the stack, and copied or moved from there),
/// rebuild (made at each use), table (stands in the data of code objects).
///
/// Without --value, a value is shown if it has several uses, or if equal ones could have been one and are not.
///
/// In JSON each of "values" has the same: "objects", "uses", "decision", "why", "apart", and its "places", of which each has
/// "code" (the name of the code object), "field", "docstring" (whether it is one), "through" (the "in" above), and "n_more"
/// (how many more places "through" has that are not listed).
#[derive(Debug, Args)]
#[command(
    mut_arg("inputs", |inputs| inputs.help(".pyc, marshal dump, .pylazy (turned back first), folder, or - for standard input")),
    after_help = "\
Examples:
  rehydrate explain module.pyc
  rehydrate explain module.pyc --value 'Return the'    is it shared, and why
  rehydrate explain module.pyc --value '(docstring)'   all docstrings
  rehydrate explain module.pyc --sharing identity      what the dump shares
  rehydrate explain module.pyc --format html > m.html  a page of all values
  rehydrate explain module.pyc --format dot | dot -Tsvg > m.svg

Exit status:
  0  all are explained
  1  an input is refused
  2  wrong usage, or a file cannot be read"
)]
pub(super) struct Explain {
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    options: CompileOptions,
    /// How to print it; dot and html take one input
    #[arg(long, value_enum, default_value_t)]
    format: ExplainFormat,
    /// Show the values with TEXT in their literal, then those with it in a place that needs them, and nothing else. Upper
    /// and lower case differ
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
        let inputs: Vec<_> = find(inputs, EXPLAINED)?.into_iter().map(|input| (input, ())).collect();
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
        let decompiled;
        let source = match Input::read(&file, python)? {
            Input::Source(source) => source,
            Input::Lazy(container) => {
                decompiled = rehydrate::turn_back(&container)?;
                super::turned_back(&decompiled)?
            }
            Input::Initializer(_) => {
                let why = "an initializer does not say why it is as it is: explain takes what it was compiled from";
                return Err(Failure::Refused(why.to_owned()));
            }
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
