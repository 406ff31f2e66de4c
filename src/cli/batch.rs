//! Works on many inputs: in parallel, in order, past bad ones.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;

use super::files::InputFile;
use rehydrate::Error;

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(super) enum Failure {
    /// An input is refused, or a check fails.
    Refused(String),
    /// The answer is no, and this is the result to print.
    No(String),
    /// A file cannot be read or written.
    Io(String, io::Error),
    /// What was asked for makes no sense.
    Usage(String),
    /// Reported already; the exit status.
    Reported(u8),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error.to_string())
    }
}

impl Failure {
    pub(super) fn stdout(error: io::Error) -> Self {
        Self::Io("<stdout>".to_owned(), error)
    }

    pub(super) fn status(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::No(_) => 1,
            Self::Io(..) | Self::Usage(_) => 2,
            Self::Reported(status) => *status,
        }
    }

    pub(super) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Io(_, error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Says it on standard error.
    pub(super) fn report(&self) {
        match self {
            Self::Refused(why) | Self::No(why) | Self::Usage(why) => complain(why),
            Self::Io(file, error) => complain(&format_args!("{file}: {error}")),
            Self::Reported(_) => {}
        }
    }
}

const ERROR: Style = AnsiColor::Red.on_default().bold();

pub(super) fn complain(why: &dyn Display) {
    // If standard error is closed there is nobody to tell.
    _ = writeln!(anstream::stderr(), "{ERROR}error:{ERROR:#} {why}");
}

/// Files in one go: enough for every core, few enough that their texts fit in memory.
const CHUNK_PER_JOB: usize = 16;

/// Does `work` for every input, on `jobs` threads, and prints what it says in the order of the inputs. `summary` is
/// printed at the end if there are several: what was done to how many.
///
/// # Errors
/// [`Failure::Reported`] with the largest status of those that failed; a broken pipe.
pub(super) fn each<T: Sync>(
    inputs: &[(InputFile, T)],
    jobs: Option<u16>,
    summary: &str,
    work: impl Fn(&InputFile, &T) -> Result<String, Failure> + Sync,
) -> Result<(), Failure> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(jobs.map_or(0, |jobs| usize::from(jobs).min(inputs.len())))
        .build()
        .map_err(|error| Failure::Usage(error.to_string()))?;
    let bar = progress(inputs.len());
    let (mut status, mut n_failed) = (0, 0);
    for chunk in inputs.chunks(CHUNK_PER_JOB * pool.current_num_threads()) {
        let results: Vec<Result<String, Failure>> = pool.install(|| {
            let one = |(input, with): &(InputFile, T)| {
                let result = work(input, with);
                bar.inc(1);
                result
            };
            chunk.par_iter().map(one).collect()
        });
        bar.suspend(|| {
            for ((input, _), result) in chunk.iter().zip(results) {
                match result {
                    Ok(text) => print(&text)?,
                    Err(failure) if failure.is_broken_pipe() => return Err(failure),
                    Err(failure) => {
                        status = status.max(failure.status());
                        n_failed += 1;
                        match failure {
                            Failure::No(text) => print(&text)?,
                            Failure::Refused(why) => complain(&format_args!("{}: {why}", input.name())),
                            other => other.report(),
                        }
                    }
                }
            }
            Ok(())
        })?;
    }
    bar.finish_and_clear();
    if inputs.len() > 1 {
        let failed = if n_failed > 0 { format!(", {n_failed} not") } else { String::new() };
        _ = writeln!(anstream::stderr(), "{} files, {} {summary}{failed}", inputs.len(), inputs.len() - n_failed);
    }
    if status == 0 { Ok(()) } else { Err(Failure::Reported(status)) }
}

pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::stdout)
}

pub(super) fn progress(n_files: usize) -> ProgressBar {
    if n_files < 2 || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} files, {eta} left").expect("the template is fixed");
    ProgressBar::new(n_files as u64).with_style(style)
}
