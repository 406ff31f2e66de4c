use clap::Args;

use super::batch::{Failure, each};
use super::files::{InputFile, Output, OutputArgs, SOURCES, find};
use super::{CompileOptions, Inputs, LazyArgs};
use rehydrate::{Input, Python, Source};

/// Compile .pyc files into initializers or lazy containers
///
/// NAME.pyc gives NAME.pyinit beside it; so does a bare marshal dump. A line for each input says where its initializer is, and its size.
///
/// With --format lazy it gives NAME.pylazy: the container that was proposed as "New PYC format", whose code objects and
/// constants are built when they are first needed. It takes .pyc files of modules; --profile, --optimize and --start-code
/// say nothing there, and --sharing none has no sense.
#[derive(Debug, Args)]
#[command(
    mut_arg("inputs", |inputs| inputs.help(".pyc, marshal dump, folder, or - for standard input")),
    after_help = "\
Examples:
  rehydrate compile module.pyc                     writes module.pyinit
  rehydrate compile __pycache__ --out-dir build    writes build/__pycache__/...
  rehydrate compile --python 3.13 dump.marshal     a bare dump names no version
  rehydrate compile - < module.pyc > module.pyinit
  rehydrate compile --format lazy module.pyc       writes module.pylazy

Exit status:
  0  all are compiled
  1  an input is refused
  2  wrong usage, or a file cannot be read or written"
)]
pub(super) struct Compile {
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    options: CompileOptions,
    #[command(flatten)]
    lazy: LazyArgs,
}

impl Compile {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Inputs { inputs, python, jobs } = self.inputs;
        let inputs = find(&inputs, SOURCES)?;
        let outputs = self.output.plan(&inputs, |_| Ok(if self.lazy.is_lazy() { "pylazy" } else { "pyinit" }))?;
        let inputs: Vec<(InputFile, Output)> = inputs.into_iter().zip(outputs).collect();
        let (options, lazy) = (self.options.options(), self.lazy.options(self.options)?);
        each(&inputs, jobs, "compiled", |input, output| {
            let file = input.read()?;
            let source = source(&file, python.python)?;
            let compiled = match lazy {
                Some(options) => rehydrate::dehydrate(&source, options)?,
                None => rehydrate::compile(&source, options)?.encode()?,
            };
            output.write_of(input, &compiled)?;
            Ok(output.said_of(input, format_args!("{} of {} bytes", compiled.len(), file.len())))
        })
    }
}

/// A .pyc or a dump; an initializer is refused.
fn source(file: &[u8], python: Option<Python>) -> Result<Source<'_>, Failure> {
    match Input::read(file, python)? {
        Input::Source(source) => Ok(source),
        Input::Initializer(_) => Err(Failure::Refused("is an initializer already".to_owned())),
        Input::Lazy(_) => Err(Failure::Refused("is a lazy container already".to_owned())),
    }
}
