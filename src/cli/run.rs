use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::batch::Failure;
use super::files::{Output, find};
use super::{CompileOptions, PythonArg};
use rehydrate::{Input, marshal, repr};

/// Execute an initializer in rehydrate's own machine, and show the objects it builds
///
/// A .pyc or a dump is compiled first. Shared objects are shown once, by id.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rehydrate run module.pyinit
  rehydrate run module.pyinit --emit pyc -o module.pyc    a .pyc of the objects, to load in CPython

Exit status: 0; 1 the input is refused; 2 wrong usage, or a file cannot be read or written.")]
pub(super) struct Run {
    /// .pyinit, .pyc, marshal dump, or - for standard input
    input: PathBuf,
    #[command(flatten)]
    python: PythonArg,
    #[command(flatten)]
    options: CompileOptions,
    /// What to write of the objects
    #[arg(long, value_enum, default_value_t)]
    emit: Emit,
    /// Write here; - is standard output, the default
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Emit {
    /// Python text
    #[default]
    Repr,
    /// A marshal dump
    Marshal,
    /// A .pyc: the header that the input has, and a marshal dump
    Pyc,
    /// A JSON document, every object by its id
    Json,
}

impl Run {
    pub(super) fn run(self) -> Result<(), Failure> {
        let inputs = find(std::slice::from_ref(&self.input), &[])?;
        let input = &inputs[0];
        let file = input.read()?;
        let refused = |error| Failure::No(format!("{}: {error}", input.name()));
        let initializer = match Input::read(&file, self.python.python).map_err(refused)? {
            Input::Source(source) => rehydrate::compile(&source, self.options.options()).map_err(refused)?,
            Input::Initializer(initializer) => initializer,
        };
        let header = initializer.header_bytes();
        let verified = rehydrate::verify(initializer.image).map_err(refused)?;
        let (heap, root) = rehydrate::run(&verified);
        if verified.starts_code() {
            _ = writeln!(anstream::stderr(), "START_CODE would now execute this code object as the module's code");
        }
        let bytes = match self.emit {
            Emit::Repr => repr::text(&heap, root).into_bytes(),
            Emit::Json => format!("{}\n", repr::json(&heap, root)).into_bytes(),
            Emit::Marshal => marshal::write(&heap, root).map_err(refused)?,
            Emit::Pyc if header.is_empty() => {
                return Err(Failure::No(format!("{}: a bare dump has no .pyc header to write", input.name())));
            }
            Emit::Pyc => [header, &marshal::write(&heap, root).map_err(refused)?].concat(),
        };
        match self.output {
            Some(path) if path.as_os_str() != "-" => Output::File(path),
            _ => Output::Stdout,
        }
        .write(&bytes)
    }
}
