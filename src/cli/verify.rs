use clap::Args;

use super::batch::{Failure, each};
use super::files::{ALL, find};
use super::{CompileOptions, Inputs};

/// Take inputs through every stage and check the result
///
/// Reads the file, writes it back, compiles it, encodes and decodes the initializer, verifies and runs it, compares what
/// that built with what was read, turns it back and compares the bytes. Says which step failed, and why. A .pyinit is
/// checked from decoding on.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rehydrate verify module.pyc
  rehydrate verify /usr/lib/python3.13 --sharing identity

Exit status:
  0  all is well
  1  a step fails
  2  wrong usage, or a file cannot be read")]
pub(super) struct Verify {
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    options: CompileOptions,
}

impl Verify {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Inputs { inputs, python, jobs } = self.inputs;
        let inputs: Vec<_> = find(&inputs, ALL)?.into_iter().map(|input| (input, ())).collect();
        let options = self.options.options();
        each(&inputs, jobs, "ok", |input, ()| {
            rehydrate::check(&input.read()?, python.python, options)?;
            Ok(format!("{}: ok\n", input.name()))
        })
    }
}
