use std::io::IsTerminal;

use clap::Args;

use super::Inputs;
use super::batch::{Failure, each};
use super::files::{InputFile, Output, SOURCES, find};
use rehydrate::{Input, Python};

/// Rewrite .pyc files and dumps in canonical form, so that equal modules have equal bytes
///
/// What CPython writes depends on the process that compiled: reference flags on reference counts, the order of sets on
/// hashes, interned strings on what was imported before. The canonical dump depends on the objects alone; CPython loads
/// it as an equal graph. A .pyc keeps its header, and stays loadable.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rehydrate normalize --in-place __pycache__     rewrite every .pyc of a folder
  rehydrate normalize --check __pycache__        exit with 1 if one would change
  rehydrate normalize module.pyc -o canonical.pyc

Exit status: 0 all are canonical now; 1 an input is refused, or --check found one that would change;
2 wrong usage, or a file cannot be read or written.")]
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
        let stdout = match &output {
            Some(path) => path.as_os_str() == "-",
            None if in_place || check => false,
            None if std::io::stdout().is_terminal() => {
                return Err(Failure::Usage("say where to write: -o FILE, --in-place, or --check".to_owned()));
            }
            None => true,
        };
        let place = |input: &InputFile| match &output {
            _ if stdout => Output::Stdout,
            Some(path) => Output::File(path.clone()),
            None => Output::File(input.path.clone()),
        };
        let inputs: Vec<_> = inputs.into_iter().map(|input| (place(&input), input)).map(|(a, b)| (b, a)).collect();
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
        Input::Initializer(_) => {
            let why = "is an initializer: decompile --canonical writes its canonical dump";
            return Err(Failure::No(why.to_owned()));
        }
    };
    if check {
        return if canonical == file {
            Ok(format!("{}: canonical\n", input.name()))
        } else {
            Err(Failure::No("would change".to_owned()))
        };
    }
    if in_place && canonical == file {
        return Ok(format!("{}: unchanged\n", input.name()));
    }
    output.write(&canonical)?;
    Ok(match output {
        Output::Stdout => String::new(),
        Output::File(path) => {
            format!("{} -> {} ({} of {} bytes)\n", input.name(), path.display(), canonical.len(), file.len())
        }
    })
}
