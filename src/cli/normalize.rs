use clap::Args;

use super::Inputs;
use super::batch::{Failure, each};
use super::files::{InputFile, Output, SOURCES, find};
use rehydrate::{Input, Python};

/// Rewrite .pyc files and dumps: equal modules get equal bytes
///
/// What CPython writes depends on the process that compiled: reference flags on reference counts, the order of sets on
/// hashes, interned strings on what was imported before. The canonical dump depends on the objects alone; CPython loads
/// it as an equal graph. A .pyc keeps its header, and stays loadable.
#[derive(Debug, Args)]
#[command(
    mut_arg("inputs", |inputs| inputs.help(".pyc, marshal dump, folder, or - for standard input")),
    after_help = "\
Examples:
  rehydrate normalize --in-place __pycache__    rewrites every .pyc of a folder
  rehydrate normalize --check __pycache__       says which would change
  rehydrate normalize module.pyc -o canonical.pyc

Exit status:
  0  all are canonical now
  1  an input is refused, or --check finds one that would change
  2  wrong usage, or a file cannot be read or written"
)]
pub(super) struct Normalize {
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
struct Target {
    /// Write here; - is standard output. For a single input
    #[arg(long, short, value_name = "FILE")]
    output: Option<std::path::PathBuf>,
    /// Replace each input
    #[arg(long)]
    in_place: bool,
    /// Write nothing; say which would change
    #[arg(long)]
    check: bool,
}

impl Normalize {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Inputs { inputs, python, jobs } = self.inputs;
        let inputs = find(&inputs, SOURCES)?;
        let Target { output, in_place, check } = self.target;
        if !in_place && !check && inputs.len() > 1 {
            return Err(Failure::Usage("several inputs need --in-place or --check".to_owned()));
        }
        if in_place && inputs.iter().any(InputFile::is_stdin) {
            return Err(Failure::Usage("standard input cannot be replaced".to_owned()));
        }
        let output = match output {
            Some(path) => Some(Output::named(path)),
            None if in_place || check => None,
            None => Some(Output::piped()?),
        };
        let place = |input: InputFile| {
            let output = output.clone().unwrap_or_else(|| Output::File(input.path.clone()));
            (input, output)
        };
        let inputs: Vec<_> = inputs.into_iter().map(place).collect();
        let done = if check { "canonical" } else { "normalized" };
        each(&inputs, jobs, done, |input, output| normalize(input, output, python.python, check, in_place))
    }
}

fn normalize(
    input: &InputFile,
    output: &Output,
    python: Option<Python>,
    check: bool,
    in_place: bool,
) -> Result<String, Failure> {
    let file = input.read()?;
    let canonical = match Input::read(&file, python)? {
        Input::Source(source) => {
            let header = source.header.map_or(&[][..], |header| header.bytes());
            [header, &rehydrate::write_canonical(&source.dump.heap, source.dump.root)?].concat()
        }
        Input::Initializer(_) | Input::Lazy(_) => {
            let why = "is an initializer: decompile --canonical writes its canonical dump";
            return Err(Failure::Refused(why.to_owned()));
        }
    };
    if check {
        return match canonical == file {
            true => Ok(format!("{}: canonical\n", input.name())),
            false => Err(Failure::No(format!("{}: would change\n", input.name()))),
        };
    }
    if in_place && canonical == file {
        return Ok(format!("{}: unchanged\n", input.name()));
    }
    output.write_of(input, &canonical)?;
    Ok(output.said_of(input, format_args!("{} of {} bytes", canonical.len(), file.len())))
}
