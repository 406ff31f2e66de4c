use clap::{Args, ValueEnum};

use super::batch::{Failure, print};
use rehydrate::reference;

/// Print the instruction set: opcodes, operands, stack effects
///
/// With what each does. Printed from the table that the compiler, the verifier and the machine use.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rehydrate isa
  rehydrate isa --format c > rehydrate_isa.h

Exit status:
  0  always
  2  wrong usage")]
pub(super) struct Isa {
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: IsaFormat,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum IsaFormat {
    /// For people
    #[default]
    Text,
    /// A JSON document
    Json,
    /// A table for documents
    Markdown,
    /// A C header
    C,
}

impl Isa {
    pub(super) fn run(self) -> Result<(), Failure> {
        print(&match self.format {
            IsaFormat::Text => reference::text(),
            IsaFormat::Json => format!("{:#}\n", reference::json()),
            IsaFormat::Markdown => reference::markdown(),
            IsaFormat::C => reference::c_header(),
        })
    }
}
