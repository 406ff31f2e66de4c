use std::sync::OnceLock;

use clap::{Args, ValueEnum};

use super::batch::{Failure, each, print};
use super::files::{ALL, InputFile, find};
use super::{CompileOptions, Inputs};
use rehydrate::stats::{Coding, FileStats, Summary, measure, measure_initializer};
use rehydrate::{Input, Options, Python};

/// Measure initializers: size against marshal, sharing, instructions
///
/// The payload, instructions and binary data, stands against the marshal dump: raw, and each file compressed by itself.
/// Percentiles are over files. A .pyinit is measured as it is, against the dump that it turns back into; a .pylazy
/// is turned back, and what that compiles to is measured.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rehydrate stats module.cpython-313.pyc
  rehydrate stats /usr/lib/python3.13 --raw --top 20
  rehydrate stats module.pyc --format json | jq .against_marshal.raw.ratio

Exit status:
  0  all are measured
  1  an input is refused, and left out
  2  wrong usage, or a file cannot be read")]
pub(super) struct Stats {
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    options: CompileOptions,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: StatsFormat,
    /// Do not compress: sizes as they are, in a fraction of the time
    #[arg(long)]
    raw: bool,
    /// Name so many of the files with the largest gains and losses; JSON has all files
    #[arg(long, value_name = "N", default_value_t = 5)]
    top: usize,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum StatsFormat {
    /// For people
    #[default]
    Text,
    /// One JSON document, with a row for each file
    Json,
}

impl Stats {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Inputs { inputs, python, jobs } = self.inputs;
        let inputs: Vec<(InputFile, OnceLock<FileStats>)> =
            find(&inputs, ALL)?.into_iter().map(|input| (input, OnceLock::new())).collect();
        let options = self.options.options();
        let codings = if self.raw { &[Coding::Raw][..] } else { &Coding::ALL };
        let outcome = each(&inputs, jobs, "measured", |input, measured| {
            let stats = of_file(&input.read()?, python.python, options, codings)?;
            measured.set(stats).expect("every input is measured once");
            Ok(String::new())
        });
        let mut summary = Summary::new(self.top);
        for (input, measured) in inputs {
            if let Some(stats) = measured.into_inner() {
                summary.add(input.name(), stats);
            }
        }
        if !summary.is_empty() {
            print(&match self.format {
                StatsFormat::Text => summary.to_string(),
                StatsFormat::Json => format!("{}\n", summary.json()),
            })?;
        }
        outcome
    }
}

fn of_file(file: &[u8], python: Option<Python>, options: Options, codings: &[Coding]) -> Result<FileStats, Failure> {
    Ok(match Input::read(file, python)? {
        Input::Source(source) => measure(&source, options, codings)?,
        Input::Initializer(initializer) => measure_initializer(initializer, codings)?,
        Input::Lazy(container) => {
            let file = rehydrate::turn_back(&container)?;
            measure(&super::turned_back(&file)?, options, codings)?
        }
    })
}
