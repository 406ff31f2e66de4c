use clap::Args;

use super::batch::{Failure, each};
use super::files::{ALL, find};
use super::{CompileOptions, Inputs, LazyArgs};
use rehydrate::bundle::{self, Bundle, ModuleKind};

/// Take inputs through every stage and check the result
///
/// Reads the file, writes it back, compiles it, encodes and decodes the initializer, verifies and runs it, compares what
/// that built with what was read, turns it back and compares the bytes. Says which step failed, and why. A .pyinit is
/// checked from decoding on, a .pylazy from opening on. With --format lazy, .pyc files go through the lazy container:
/// dehydrated, opened, hydrated, compared, turned back. Of a bundle (.pybundle) the table and every module are verified and
/// executed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rehydrate verify module.pyc
  rehydrate verify /usr/lib/python3.13 --sharing identity
  rehydrate verify /usr/lib/python3.13 --format lazy --lazy-layout draft

Exit status:
  0  all is well
  1  a step fails
  2  wrong usage, or a file cannot be read")]
pub(super) struct Verify {
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    options: CompileOptions,
    #[command(flatten)]
    lazy: LazyArgs,
}

impl Verify {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Inputs { inputs, python, jobs } = self.inputs;
        let inputs: Vec<_> = find(&inputs, ALL)?.into_iter().map(|input| (input, ())).collect();
        let (options, lazy) = (self.options.options(), self.lazy.options(self.options)?);
        each(&inputs, jobs, "ok", |input, ()| {
            let file = input.read()?;
            match lazy {
                _ if file.starts_with(&bundle::MAGIC) => check_bundle(&file)?,
                Some(lazy) => rehydrate::check_lazy(&file, python.python, lazy)?,
                None => rehydrate::check(&file, python.python, options)?,
            }
            Ok(format!("{}: ok\n", input.name()))
        })
    }
}

/// Executes every module of a bundle, and finds each by its name.
fn check_bundle(file: &[u8]) -> Result<(), Failure> {
    let bundle = Bundle::open(file)?;
    let table = bundle.table()?;
    for module in bundle.modules() {
        let module = module?;
        if module.kind != ModuleKind::Extension {
            rehydrate::run(&bundle.verified(&module, &table)?);
        }
        if bundle.find(module.name)?.is_none_or(|found| (found.at, found.path) != (module.at, module.path)) {
            return Err(Failure::Refused(format!("module {} is not found by its name", module.name)));
        }
    }
    Ok(())
}
