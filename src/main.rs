//! The command line of rehydrate.

use std::process::ExitCode;

fn main() -> ExitCode {
    rehydrate::cli::main(std::env::args_os()).into()
}
