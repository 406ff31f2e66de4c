use std::fs::File;
use std::io::Read;

use clap::Args;

use super::Inputs;
use super::batch::{Failure, each};
use super::files::{INITIALIZERS, InputFile, Output, OutputArgs, find};
use rehydrate::{Input, Python, image, lazy};

/// Turn compiled files back into what they came from
///
/// That is a .pyc or a dump, identical byte for byte, unless it was compiled with --no-source-flags; then --canonical writes a dump of
/// equal objects, and a lazy container becomes a .pyc of equal objects without it. NAME.pyinit and NAME.pylazy give NAME.pyc,
/// or NAME.marshal if it came from a bare dump.
#[derive(Debug, Args)]
#[command(
    mut_arg("inputs", |inputs| inputs.help(".pyinit, .pylazy, folder, or - for standard input")),
    after_help = "\
Examples:
  rehydrate decompile module.pyinit                writes module.pyc
  rehydrate decompile build --out-dir back         writes back/build/...
  rehydrate decompile - < module.pyinit > module.pyc

Exit status:
  0  all are turned back
  1  an input is refused
  2  wrong usage, or a file cannot be read or written"
)]
pub(super) struct Decompile {
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    output: OutputArgs,
    /// Write the canonical dump of the objects instead of the identical one
    #[arg(long)]
    canonical: bool,
}

impl Decompile {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Inputs { inputs, python, jobs } = self.inputs;
        let inputs = find(&inputs, INITIALIZERS)?;
        let outputs = self.output.plan(&inputs, extension)?;
        let inputs: Vec<(InputFile, Output)> = inputs.into_iter().zip(outputs).collect();
        each(&inputs, jobs, "decompiled", |input, output| decompile(input, output, python.python, self.canonical))
    }
}

/// A file that cannot be read is reported when its turn comes.
fn extension(input: &InputFile) -> Result<&'static str, Failure> {
    let mut start = [0; image::MAGIC.len()];
    // What is read from a pipe would be missed later.
    let is_bare = input.path.is_file()
        && File::open(&input.path).and_then(|mut file| file.read_exact(&mut start)).is_ok()
        && start == image::MAGIC;
    Ok(if is_bare { "marshal" } else { "pyc" })
}

fn decompile(input: &InputFile, output: &Output, python: Option<Python>, canonical: bool) -> Result<String, Failure> {
    let file = input.read()?;
    let initializer = match Input::read(&file, python)? {
        Input::Initializer(initializer) => initializer,
        Input::Lazy(container) => {
            let decompiled = if canonical {
                let (heap, root) = lazy::hydrate(&container)?;
                [container.header().bytes(), &rehydrate::write_canonical(&heap, root)?].concat()
            } else {
                rehydrate::turn_back(&container)?
            };
            output.write_of(input, &decompiled)?;
            return Ok(output.said_of(input, format_args!("{} of {} bytes", decompiled.len(), file.len())));
        }
        Input::Source(_) => return Err(Failure::Refused("is a marshal dump already".to_owned())),
    };
    let decompiled = if canonical {
        let header = initializer.header_bytes();
        let verified = rehydrate::verify(initializer.image)?;
        let (heap, root) = rehydrate::run(&verified);
        [header, &rehydrate::write_canonical(&heap, root)?].concat()
    } else {
        rehydrate::decompile(initializer)?
    };
    output.write_of(input, &decompiled)?;
    Ok(output.said_of(input, format_args!("{} of {} bytes", decompiled.len(), file.len())))
}
