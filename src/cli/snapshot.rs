use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use clap::{Args, ValueEnum};
use similar::udiff::UnifiedHunkHeader;
use similar::{Algorithm, DiffOp, DiffTag, capture_diff_slices, capture_diff_slices_by_key, group_diff_ops};

use super::batch::{Failure, each};
use super::files::{ALL, InputFile, Output, find};
use super::{CompileOptions, Inputs};
use rehydrate::{Options, Python, snapshot};

/// Hold what is emitted against reviewed files; show what changed
///
/// NAME.snap in the folder DIR has the listing of the input NAME, without its header and source section; for an input of a
/// folder, NAME is the path inside it, `__` for each `/`. The files are those of the Rust crate insta. What is new, or has
/// changed, is written beside its snapshot as NAME.snap.new: `cargo insta review` takes it up where DIR is inside a cargo
/// package; elsewhere --update accepts all.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rehydrate snapshot build --dir snaps --update   accept what is emitted now
  rehydrate snapshot build --dir snaps            show what changed, for review
  rehydrate snapshot build --dir snaps --check    the same, writing nothing

Exit status:
  0  all are as their snapshots say; with --update, they are now
  1  one has changed or has no snapshot, or an input is refused
  2  wrong usage, or a file cannot be read or written")]
pub(super) struct Snapshot {
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    options: CompileOptions,
    /// Where the snapshots are
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    mode: ModeArgs,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
struct ModeArgs {
    /// Write nothing; say what has changed
    #[arg(long)]
    check: bool,
    /// Accept what has changed or is new
    #[arg(long)]
    update: bool,
}

/// What becomes of a listing that is not what its snapshot says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Review,
    Check,
    Update,
}

impl Snapshot {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Inputs { inputs, python, jobs } = self.inputs;
        let inputs = plan(find(&inputs, ALL)?, &self.dir)?;
        let mode = match self.mode {
            ModeArgs { check: true, .. } => Mode::Check,
            ModeArgs { update: true, .. } => Mode::Update,
            _ => Mode::Review,
        };
        let work = Work {
            python: python.python,
            options: self.options.options(),
            expression: expression(self.options),
            mode,
            is_painted: AutoStream::choice(&io::stdout()) != ColorChoice::Never,
        };
        let done = if mode == Mode::Update { "accepted" } else { "as their snapshots say" };
        let outcome = each(&inputs, jobs, done, |input, path| work.hold(input, path));
        if !outcome.as_ref().is_err_and(Failure::is_broken_pipe) {
            name_orphans(&self.dir, &inputs)?;
        }
        outcome
    }
}

/// The snapshot of each input.
///
/// # Errors
/// Two inputs with one snapshot; a DIR that is no folder.
fn plan(inputs: Vec<InputFile>, dir: &Path) -> Result<Vec<(InputFile, PathBuf)>, Failure> {
    if dir.exists() && !dir.is_dir() {
        return Err(Failure::Usage(format!("--dir {}: is not a folder", dir.display())));
    }
    let mut taken: HashMap<String, String> = HashMap::new();
    let mut planned = Vec::with_capacity(inputs.len());
    for input in inputs {
        // As insta names its files.
        let name = input.inside.to_string_lossy().replace(['/', '\\'], "__");
        let path = dir.join(format!("{name}.snap"));
        if let Some(other) = taken.insert(name, input.name()) {
            let why = format!("{other} and {} would both have the snapshot {}", input.name(), path.display());
            return Err(Failure::Usage(why));
        }
        planned.push((input, path));
    }
    Ok(planned)
}

/// The command that gives the listing, with the options that are not the default.
fn expression(options: CompileOptions) -> String {
    let mut expression = "rehydrate snapshot".to_owned();
    push_value(&mut expression, "sharing", options.sharing);
    push_value(&mut expression, "profile", options.profile);
    push_value(&mut expression, "optimize", options.optimize);
    let flags = [
        ("start-code", options.start_code),
        ("strip-caches", options.strip_caches),
        ("keep-caches", options.keep_caches),
    ];
    for (flag, _) in flags.iter().filter(|(_, is_set)| *is_set) {
        expression.push_str(" --");
        expression.push_str(flag);
    }
    expression
}

fn push_value<T: ValueEnum + Default>(expression: &mut String, option: &str, value: T) {
    let [name, default] = [value, T::default()].map(|value| value.to_possible_value().expect("no value is skipped"));
    if name.get_name() != default.get_name() {
        expression.push_str(&format!(" --{option} {}", name.get_name()));
    }
}

struct Work {
    python: Option<Python>,
    options: Options,
    expression: String,
    mode: Mode,
    is_painted: bool,
}

impl Work {
    /// Holds the listing of one input against its snapshot.
    fn hold(&self, input: &InputFile, path: &Path) -> Result<String, Failure> {
        let text = snapshot::text(&input.read()?, self.python, self.options)?;
        let (text, kept) = (snapshot::normal(&text), kept(path)?);
        let kept = kept.as_deref().map(snapshot::contents);
        let (name, pending) = (path.display(), with_new(path));
        if kept.as_ref() == Some(&text) {
            if self.mode != Mode::Check {
                remove(&pending)?;
            }
            return Ok(String::new());
        }
        let source = input.inside.to_string_lossy().replace('\\', "/");
        let file = snapshot::file(&source, &self.expression, &text);
        let beside = match self.mode {
            Mode::Update => {
                Output::File(path.to_owned()).write(file.as_bytes())?;
                remove(&pending)?;
                return Ok(format!("{name}: {}\n", if kept.is_some() { "updated" } else { "new" }));
            }
            Mode::Review => {
                Output::File(pending.clone()).write(file.as_bytes())?;
                format!(", for review in {}", pending.display())
            }
            Mode::Check => String::new(),
        };
        Err(Failure::No(match kept {
            Some(kept) => format!("{name}: changed{beside}\n{}", self.difference(path, &kept, &text)),
            None => format!("{name}: missing{beside}\n"),
        }))
    }

    /// A unified diff, painted on a terminal.
    fn difference(&self, path: &Path, old: &str, new: &str) -> String {
        let [file, hunk, deleted, inserted] = if self.is_painted { PAINTS } else { [Style::new(); 4] };
        let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
        let name = path.display();
        let mut out = format!("{file}--- {name}{file:#}\n{file}+++ {name}.new{file:#}\n");
        for ops in group_diff_ops(compared(&old, &new), CONTEXT) {
            out.push_str(&format!("{hunk}{}{hunk:#}\n", UnifiedHunkHeader::new(&ops)));
            for op in ops {
                let (tag, before, after) = op.as_tag_tuple();
                if tag == DiffTag::Equal {
                    push_lines(&mut out, Style::new(), ' ', &new[after]);
                    continue;
                }
                push_lines(&mut out, deleted, '-', &old[before]);
                push_lines(&mut out, inserted, '+', &new[after]);
            }
        }
        out
    }
}

/// Of the names of the files, where a part begins, what is no more, what is new.
const PAINTS: [Style; 4] =
    [Style::new().bold(), AnsiColor::Cyan.on_default(), AnsiColor::Red.on_default(), AnsiColor::Green.on_default()];

/// Lines around a change.
const CONTEXT: usize = 3;

fn push_lines(out: &mut String, paint: Style, sign: char, lines: &[&str]) {
    for line in lines {
        out.push_str(&format!("{paint}{sign}{line}{paint:#}\n"));
    }
}

/// What of one listing is in the other. One more instruction moves all rows behind it, which says nothing, so rows are
/// compared without offset and depth, unless they differ in nothing else.
fn compared(old: &[&str], new: &[&str]) -> Vec<DiffOp> {
    let ops = capture_diff_slices_by_key(Algorithm::Myers, old, new, |line| instruction(line));
    let is_equal = ops.iter().all(|op| op.tag() == DiffTag::Equal);
    if is_equal { capture_diff_slices(Algorithm::Myers, old, new) } else { ops }
}

/// A row's instruction with its operand, and its value: what depends on no other row.
///
/// A value may itself look like a note; whatever is cut off then still stands in the operand of the row that made it.
fn instruction(row: &str) -> (&str, &str) {
    let row = without_number(row);
    match row.rsplit_once("  ; ") {
        Some((instruction, note)) => (instruction.trim_end(), without_number(note)),
        None => (row, ""),
    }
}

fn without_number(text: &str) -> &str {
    text.trim_start().trim_start_matches(|c: char| c.is_ascii_digit())
}

/// The snapshot as it is, if there is one.
fn kept(path: &Path) -> Result<Option<String>, Failure> {
    match fs::read(path) {
        // What is not text is no listing, and so has changed.
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::Io(path.display().to_string(), error)),
    }
}

/// Where insta looks for what is to be reviewed.
fn with_new(path: &Path) -> PathBuf {
    path.with_extension("snap.new")
}

/// Removes what was to be reviewed, if anything was.
fn remove(pending: &Path) -> Result<(), Failure> {
    match fs::remove_file(pending) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::Io(pending.display().to_string(), error)),
        _ => Ok(()),
    }
}

/// Most orphans that are named.
const MAX_NAMED: usize = 10;

/// Names the snapshots of which there is no input: one may have been left out, or is gone.
fn name_orphans(dir: &Path, inputs: &[(InputFile, PathBuf)]) -> Result<(), Failure> {
    let failed = |error| Failure::Io(dir.display().to_string(), error);
    let held: HashSet<_> = inputs.iter().filter_map(|(_, path)| path.file_name()).collect();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    let mut orphans = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        let is_snapshot = Path::new(&name).extension().is_some_and(|extension| extension == "snap");
        if is_snapshot && !held.contains(&*name) {
            orphans.push(name.to_string_lossy().into_owned());
        }
    }
    if !orphans.is_empty() {
        orphans.sort();
        let more = if orphans.len() > MAX_NAMED { ", ..." } else { "" };
        let (dir, n_orphans) = (dir.display(), orphans.len());
        orphans.truncate(MAX_NAMED);
        let named = orphans.join(", ");
        // If standard error is closed there is nobody to tell.
        _ = writeln!(io::stderr(), "{dir}: {n_orphans} not of these inputs: {named}{more}");
    }
    Ok(())
}
