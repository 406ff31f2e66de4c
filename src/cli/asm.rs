use std::path::PathBuf;

use clap::Args;

use super::batch::Failure;
use super::files::{OutputArgs, find};

/// Assemble a listing into the initializer that it lists
///
/// Reads what disasm prints, as it is or edited, into the bytes of a .pyinit. Comments (from ; on), offsets and stack
/// depths are ignored.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rehydrate disasm module.pyinit > module.txt
  rehydrate asm module.txt -o module.pyinit

Exit status: 0 assembled; 1 the listing is refused; 2 wrong usage, or a file cannot be read or written.")]
pub(super) struct Asm {
    /// What disasm printed, or - for standard input
    listing: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

impl Asm {
    pub(super) fn run(self) -> Result<(), Failure> {
        let inputs = find(std::slice::from_ref(&self.listing), &[])?;
        let outputs = self.output.plan(&inputs, |_| Ok("pyinit"))?;
        for (input, output) in inputs.iter().zip(&outputs) {
            let refused = |why: &str| Failure::No(format!("{}: {why}", input.name()));
            let text = String::from_utf8(input.read()?).map_err(|_| refused("the listing is not UTF-8"))?;
            let file = rehydrate::assemble(&text).map_err(|error| refused(&error.to_string()))?;
            output.write(&file)?;
        }
        Ok(())
    }
}
