use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::batch::{Failure, each};
use super::files::InputFile;
use super::{Format, LayoutArg, PythonArg};
use rehydrate::lazy::{Container, Report};
use rehydrate::{Input, LazyOptions, Source};

/// Say what laziness saves when only some code objects run
///
/// FILE has the qualified names of those that ran, one a line; examples/record_executed.py records them during a real
/// import. What they need is hydrated, and counted against all that there is: entries, bytes that are read, objects that are
/// made. Where several code objects have one name, all of them count. A .pyc is dehydrated first.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rehydrate lazy-report module.pyc --executed ran.txt
  python3 examples/record_executed.py textwrap |
      rehydrate lazy-report textwrap.pylazy --executed -

Exit status:
  0  reported
  1  the input is refused
  2  wrong usage, or a file cannot be read")]
pub(super) struct LazyReport {
    /// .pylazy, .pyc, or - for standard input
    input: PathBuf,
    /// The qualified names of the code objects that ran, one a line; - is standard input
    #[arg(long, value_name = "FILE")]
    executed: PathBuf,
    #[command(flatten)]
    python: PythonArg,
    /// How the container of a .pyc is laid out
    #[arg(long, value_enum, default_value_t)]
    lazy_layout: LayoutArg,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl LazyReport {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (input, executed) = (InputFile::named(self.input), InputFile::named(self.executed));
        if input.is_stdin() && executed.is_stdin() {
            return Err(Failure::Usage("- is named twice, and standard input can be read once".to_owned()));
        }
        let executed = String::from_utf8(executed.read()?)
            .map_err(|_| Failure::Refused(format!("{}: the names are not UTF-8", executed.name())))?;
        let names = || executed.lines().map(str::trim_end).filter(|name| !name.is_empty());
        let options = LazyOptions { layout: self.lazy_layout.layout(), ..LazyOptions::default() };
        each(&[(input, ())], None, "reported", |input, ()| {
            let file = input.read()?;
            let report = match Input::read(&file, self.python.python)? {
                Input::Lazy(container) => Report::new(&container, names())?,
                Input::Source(source) => of_source(&source, options, names())?,
                Input::Initializer(_) => {
                    return Err(Failure::Refused("is an initializer, which is not lazy".to_owned()));
                }
            };
            for name in report.unknown() {
                // If standard error is closed there is nobody to tell.
                _ = writeln!(anstream::stderr(), "{}: no code object is called {name}", input.name());
            }
            Ok(match self.format {
                Format::Text => report.to_string(),
                Format::Json => format!("{}\n", report.json()),
            })
        })
    }
}

fn of_source<'n>(
    source: &Source<'_>,
    options: LazyOptions,
    names: impl Iterator<Item = &'n str>,
) -> rehydrate::Result<Report> {
    let file = rehydrate::dehydrate(source, options)?;
    Report::new(&Container::open(&file)?, names)
}
