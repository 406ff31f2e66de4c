use std::path::PathBuf;

use clap::Args;

use super::batch::{Failure, each};
use super::files::{InputFile, OutputArgs};

/// Assemble a listing into the initializer that it lists
///
/// Reads what disasm prints, as it is or edited, into the bytes of a .pyinit. Comments (from ; on), offsets and stack
/// depths are ignored.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rehydrate disasm module.pyinit > module.txt
  rehydrate asm module.txt -o module.pyinit

Exit status:
  0  assembled
  1  the listing is refused
  2  wrong usage, or a file cannot be read or written")]
pub(super) struct Asm {
    /// What disasm printed, or - for standard input
    listing: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

impl Asm {
    pub(super) fn run(self) -> Result<(), Failure> {
        let inputs = vec![InputFile::named(self.listing)];
        let outputs = self.output.plan(&inputs, |_| Ok("pyinit"))?;
        each(&inputs.into_iter().zip(outputs).collect::<Vec<_>>(), None, "assembled", |input, output| {
            let not_text = |_| Failure::Refused("the listing is not UTF-8".to_owned());
            let text = String::from_utf8(input.read()?).map_err(not_text)?;
            let file = rehydrate::assemble(&text)?;
            output.write_of(input, &file)?;
            Ok(output.said_of(input, format_args!("{} bytes", file.len())))
        })
    }
}
