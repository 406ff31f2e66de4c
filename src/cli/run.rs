use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::batch::{Failure, each};
use super::files::{InputFile, Output};
use super::{CompileOptions, PythonArg};
use rehydrate::{Heap, Input, ObjectId, Options, Python, lazy, marshal, repr};

/// Execute an initializer and show the objects it builds
///
/// rehydrate's own machine executes it. A .pyc or a dump is compiled first. Shared objects are shown once, by id. A lazy
/// container (.pylazy) is hydrated.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rehydrate run module.pyinit
  rehydrate run module.pyinit --emit json | jq .
  rehydrate run module.pyinit --emit pyc -o module.pyc    for CPython to load
  rehydrate run --trace module.pylazy    what is built when, and by what

Exit status:
  0  executed
  1  the input is refused
  2  wrong usage, or a file cannot be read or written")]
pub(super) struct Run {
    /// .pyinit, .pylazy, .pyc, marshal dump, or - for standard input
    input: PathBuf,
    #[command(flatten)]
    python: PythonArg,
    #[command(flatten)]
    options: CompileOptions,
    /// What to write of the objects
    #[arg(long, value_enum, default_value_t)]
    emit: Emit,
    /// Of a lazy container: say first which code objects and constants are hydrated when, and who needed them
    #[arg(long)]
    trace: bool,
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
        let output = match (self.output, self.emit) {
            (Some(path), _) => Output::named(path),
            (None, Emit::Repr | Emit::Json) => Output::Stdout,
            (None, Emit::Marshal | Emit::Pyc) => Output::piped()?,
        };
        let (python, options) = (self.python.python, self.options.options());
        let input = (InputFile::named(self.input), output);
        each(&[input], None, "executed", |input, output| {
            output.write_of(input, &execute(&input.read()?, python, options, self.emit, self.trace)?)?;
            Ok(String::new())
        })
    }
}

fn execute(file: &[u8], python: Option<Python>, options: Options, emit: Emit, trace: bool) -> Result<Vec<u8>, Failure> {
    let initializer = match Input::read(file, python)? {
        Input::Source(source) => rehydrate::compile(&source, options)?,
        Input::Initializer(initializer) => initializer,
        Input::Lazy(container) => {
            let mut machine = lazy::Machine::new(&container).traced();
            machine.hydrate_all()?;
            let trace = if trace { lazy::trace(&machine)?.into_bytes() } else { Vec::new() };
            let (heap, root) = machine.finish();
            return Ok([trace, emitted(&heap, root, container.header().bytes(), emit)?].concat());
        }
    };
    if trace {
        return Err(Failure::Refused("is no lazy container: --trace shows when those build what".to_owned()));
    }
    let header = initializer.header_bytes();
    let verified = rehydrate::verify(initializer.image)?;
    let (heap, root) = rehydrate::run(&verified);
    if verified.starts_code() {
        _ = writeln!(anstream::stderr(), "START_CODE would now execute this code object as the module's code");
    }
    emitted(&heap, root, header, emit)
}

fn emitted(heap: &Heap<'_>, root: ObjectId, header: &[u8], emit: Emit) -> Result<Vec<u8>, Failure> {
    Ok(match emit {
        Emit::Repr => repr::text(heap, root).into_bytes(),
        Emit::Json => format!("{}\n", repr::json(heap, root)).into_bytes(),
        Emit::Marshal => marshal::write(heap, root)?,
        Emit::Pyc if header.is_empty() => {
            return Err(Failure::Refused("a bare dump has no .pyc header to write".to_owned()));
        }
        Emit::Pyc => [header, &marshal::write(heap, root)?].concat(),
    })
}
