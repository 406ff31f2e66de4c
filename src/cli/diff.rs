use std::io::Write;
use std::path::PathBuf;

use anstyle::AnsiColor;
use clap::Args;

use super::batch::Failure;
use super::files::InputFile;
use super::{Format, PythonArg};
use rehydrate::Error;
use rehydrate::diff::{Operand, Palette, diff};

/// Say what differs between two inputs, object by object
///
/// Values come first: constants, names, numbers, bytecode, each with its path. Then what Python code cannot see: interned
/// marks, which equal objects are one, the order in sets, reference flags and type codes. A .pyinit or .pylazy is turned
/// back first; if it was compiled with --no-source-flags, its objects alone are compared.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rehydrate diff old/module.pyc new/module.pyc
  rehydrate diff module.pyc module.pyinit    do they hold the same?
  rehydrate diff a.pyc - --format json < b.pyc | jq .equal_objects

Exit status:
  0  equal
  1  different, be it in the header or in flags alone
  2  wrong usage, or an input is refused or cannot be read")]
pub(super) struct Diff {
    /// .pyc, marshal dump, .pyinit, .pylazy, or - for standard input
    #[arg(value_name = "A")]
    a: PathBuf,
    /// What to compare it with; one of the two can be -
    #[arg(value_name = "B")]
    b: PathBuf,
    #[command(flatten)]
    python: PythonArg,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// List so many of the differences; all are counted
    #[arg(long, value_name = "N", default_value_t = 50)]
    top: usize,
}

const PALETTE: Palette =
    Palette { path: AnsiColor::Cyan.on_default(), a: AnsiColor::Red.on_default(), b: AnsiColor::Green.on_default() };

impl Diff {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (a, b) = (InputFile::named(self.a), InputFile::named(self.b));
        if a.is_stdin() && b.is_stdin() {
            return Err(Failure::Usage("- is named twice, and standard input can be read once".to_owned()));
        }
        let (file_a, file_b) = (a.read()?, b.read()?);
        let python = self.python.python;
        let (open_a, open_b) =
            (opened(&a, Operand::open(&file_a, python))?, opened(&b, Operand::open(&file_b, python))?);
        let found = diff(&opened(&a, open_a.side())?, &opened(&b, open_b.side())?, self.top);
        let text = match self.format {
            Format::Text => found.painted(PALETTE).to_string(),
            Format::Json => {
                let mut json = found.json();
                if let Some(json) = json.as_object_mut() {
                    json.shift_insert(0, "a".to_owned(), a.name().into());
                    json.shift_insert(1, "b".to_owned(), b.name().into());
                }
                format!("{json}\n")
            }
        };
        let mut stdout = anstream::stdout().lock();
        let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::stdout);
        match written {
            // Whoever read the output has seen enough: the answer is the same.
            Err(failure) if !failure.is_broken_pipe() => Err(failure),
            _ if found.is_equal() => Ok(()),
            _ => Err(Failure::Reported(1)),
        }
    }
}

/// What is refused is trouble here: 1 says that both were compared.
fn opened<T>(input: &InputFile, opened: rehydrate::Result<T>) -> Result<T, Failure> {
    opened.map_err(|error: Error| Failure::Usage(format!("{}: {error}", input.name())))
}
