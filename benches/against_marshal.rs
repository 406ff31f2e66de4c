//! Times this crate against an interpreter's own `marshal`, both in one run, on the same bytes, one thread each.
//!
//! `marshal::read` stands against `loads`, a whole `compile` against `loads` and `dumps`. The passes take turns, so that
//! a machine that slows down slows both; the clock is the monotonic one on both sides.

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::Instant;

use clap::Parser;
use rehydrate::{Input, Options, Python, compile, marshal};
use walkdir::WalkDir;

/// The interpreter's side.
const SCRIPT: &str = include_str!("marshal_times.py");

/// Files of which `--memory` shows the peak.
const N_LARGEST: usize = 10;

/// Children a file gets in `--memory`; the median counts. Odd.
const N_CHILDREN: usize = 5;

const EXAMPLES: &str = "\
Examples:
  cargo bench --bench against_marshal
  cargo bench --bench against_marshal -- --python python3.12 --python python3.13 --rounds 15
  cargo bench --bench against_marshal -- --memory --python python3.13 folder/of/pyc

Exit status: 0, or 2 if something could not be run or read.";

/// Times `marshal::read` and `compile` against the `marshal` module of CPython.
#[derive(Parser)]
#[command(name = "against_marshal", bin_name = "cargo bench --bench against_marshal --", after_help = EXAMPLES)]
struct Cli {
    /// Interpreter to measure against; can be given more than once
    #[arg(long = "python", value_name = "PYTHON", default_value = "python3")]
    pythons: Vec<PathBuf>,
    /// Rounds that count; one before them does not
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Show instead the peak memory of compiling each of the ten largest files
    #[arg(long, conflicts_with = "rounds")]
    memory: bool,
    /// Where to look for .pyc files of each interpreter [default: its standard library]
    #[arg(value_name = "FOLDER")]
    folders: Vec<PathBuf>,
    /// Compile one file and print the peak memory of this process: what `--memory` runs
    #[arg(long, value_name = "FILE", hide = true)]
    one: Option<PathBuf>,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match run(&Cli::parse(), &mut io::stdout().lock()) {
        Err(error) if !is_broken_pipe(&*error) => {
            eprintln!("against_marshal: {error}");
            ExitCode::from(2)
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Whether whoever read our results has seen enough.
fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn run(cli: &Cli, out: &mut impl Write) -> Result<()> {
    if let Some(path) = &cli.one {
        let file = fs::read(path)?;
        black_box(compile_whole(&file)?);
        writeln!(out, "{}", own_peak()?)?;
        return Ok(());
    }
    // A wrong name shows before anything takes its time.
    let interpreters: Result<Vec<Interpreter>> = cli.pythons.iter().map(|program| Interpreter::ask(program)).collect();
    let interpreters = interpreters?;
    match cli.memory {
        true => writeln!(out, "{:8} {:>10} {:>11} {:>9}  file", "python", "input B", "peak B", "peak/input")?,
        false => writeln!(
            out,
            "{:8} {:>6} {:>6}  {:24} {:>9} {:>7} {:>9} {:>7} {:>8} {:>7}",
            "python", "files", "MB", "ours / theirs", "theirs s", "MB/s", "ours s", "MB/s", "min/min", "median"
        )?,
    }
    for interpreter in &interpreters {
        let files = interpreter.files(&cli.folders)?;
        match cli.memory {
            true => show_memory(interpreter, files, out)?,
            false => show_times(interpreter, &files, cli.rounds, out)?,
        }
        out.flush()?;
    }
    Ok(())
}

/// A CPython whose dumps we read.
struct Interpreter {
    program: PathBuf,
    version: String,
    magic: u16,
    python: Python,
    library: PathBuf,
}

impl Interpreter {
    fn ask(program: &Path) -> Result<Self> {
        let said = script(program).arg("about").stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let said = said.map_err(|error| format!("cannot run {}: {error}", program.display()))?;
        let text = String::from_utf8(said.stdout)?;
        let lines: Vec<&str> = text.lines().collect();
        let [version, magic, library] = lines[..] else {
            return Err(format!("{} does not answer as Python 3 would ({})", program.display(), said.status).into());
        };
        let magic = magic.parse()?;
        let python =
            Python::from_magic(magic).map_err(|error| format!("{} is Python {version}: {error}", program.display()))?;
        Ok(Self { program: program.to_owned(), version: version.to_owned(), magic, python, library: library.into() })
    }

    /// The .pyc files that it wrote: below `folders`, or of its standard library.
    fn files(&self, folders: &[PathBuf]) -> Result<Vec<File>> {
        if !folders.is_empty() {
            return self.some(find(folders.iter(), self.magic, |_| true)?);
        }
        let skipped = ["site-packages", "dist-packages"];
        let enters = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            !skipped.contains(&&*name) && !name.contains(".opt-")
        };
        let mut files = find([&self.library].into_iter(), self.magic, enters)?;
        let entries = WalkDir::new(&self.library).into_iter().filter_entry(|entry| enters(entry.path())).flatten();
        let n_sources = entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "py")).count();
        // A distribution that ships no .pyc has those of the modules that were ever imported.
        if 2 * files.len() < n_sources {
            eprintln!("Python {}: few .pyc in {}, compiling it", self.version, self.library.display());
            let folder = tempfile::tempdir()?;
            let status = script(&self.program).arg("compile").arg(folder.path()).stdin(Stdio::null()).status()?;
            if !status.success() {
                return Err(format!("{} could not compile its library ({status})", self.program.display()).into());
            }
            files = find([folder.path()].into_iter(), self.magic, |_| true)?;
        }
        self.some(files)
    }

    fn some(&self, files: Vec<File>) -> Result<Vec<File>> {
        if files.is_empty() {
            return Err(format!("no .pyc of Python {} (magic {}) found", self.version, self.magic).into());
        }
        Ok(files)
    }
}

fn script(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["-I", "-c", SCRIPT]);
    command
}

/// A .pyc in memory.
struct File {
    path: PathBuf,
    bytes: Vec<u8>,
    /// Where its dump begins.
    dump: usize,
}

impl File {
    fn marshal(&self) -> &[u8] {
        &self.bytes[self.dump..]
    }
}

/// Reads the .pyc files with a magic number, in the order of their names. What our reader refuses is left out, aloud.
fn find(
    folders: impl Iterator<Item = impl AsRef<Path>>,
    magic: u16,
    enters: impl Fn(&Path) -> bool,
) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for folder in folders {
        for entry in WalkDir::new(folder).sort_by_file_name().into_iter().filter_entry(|entry| enters(entry.path())) {
            let entry = entry?;
            let path = entry.path();
            if !entry.file_type().is_file() || path.extension().is_none_or(|extension| extension != "pyc") {
                continue;
            }
            let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
            if !bytes.starts_with(&magic.to_le_bytes()) {
                continue;
            }
            match Input::read(&bytes, None) {
                Ok(Input::Source(source)) => {
                    let dump = bytes.len() - source.marshal.len();
                    files.push(File { path: path.to_owned(), bytes, dump });
                }
                Ok(Input::Initializer(_) | Input::Lazy(_)) => {}
                Err(error) => eprintln!("left out: {}: {error}", path.display()),
            }
        }
    }
    Ok(files)
}

/// From the bytes of a .pyc to those of its initializer.
fn compile_whole(file: &[u8]) -> Result<Vec<u8>> {
    match Input::read(file, None)? {
        Input::Source(source) => Ok(compile(&source, Options::default())?.encode()?),
        Input::Initializer(_) | Input::Lazy(_) => Err("an initializer is no source".into()),
    }
}

/// The interpreter, with the files in its memory.
struct Marshal {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Marshal {
    fn start(program: &Path, files: &[File]) -> Result<Self> {
        let mut child = script(program).arg("times").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            unreachable!("both are piped")
        };
        let mut marshal = Self { child, stdin, stdout: BufReader::new(stdout) };
        let taken = files.iter().try_for_each(|file| marshal.take(file.marshal()));
        taken.map_err(|error| format!("the interpreter takes no files: {error}"))?;
        Ok(marshal)
    }

    fn take(&mut self, dump: &[u8]) -> io::Result<()> {
        writeln!(self.stdin, "take {}", dump.len())?;
        self.stdin.write_all(dump)
    }

    /// Seconds of one pass.
    fn pass(&mut self, name: &str) -> Result<f64> {
        let mut answer = String::new();
        // If it is gone, so is its answer; why, it says itself on standard error.
        let _ = writeln!(self.stdin, "{name}");
        self.stdout.read_line(&mut answer)?;
        answer.trim().parse().map_err(|_| format!("the interpreter failed in {name}").into())
    }
}

impl Drop for Marshal {
    fn drop(&mut self) {
        // It waits for a command, and has nothing to lose; an error means that it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Seconds of the same work on both sides, in one round.
#[derive(Clone, Copy)]
struct Pair {
    theirs: f64,
    ours: f64,
}

fn show_times(interpreter: &Interpreter, files: &[File], rounds: u16, out: &mut impl Write) -> Result<()> {
    let mut marshal = Marshal::start(&interpreter.program, files)?;
    let (mut reads, mut compiles) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let mut pair = |theirs: &str, ours: &dyn Fn(&[File]) -> Result<()>| -> Result<Pair> {
            // Whoever comes second finds colder caches: take turns.
            let early = if round % 2 == 0 { Some(marshal.pass(theirs)?) } else { None };
            let start = Instant::now();
            ours(files)?;
            let ours = start.elapsed().as_secs_f64();
            Ok(Pair { theirs: early.map_or_else(|| marshal.pass(theirs), Ok)?, ours })
        };
        let read = pair("loads", &|files| read_all(files, interpreter.python))?;
        let compile = pair("loads+dumps", &compile_all)?;
        // The first one warms up.
        if round > 0 {
            reads.push(read);
            compiles.push(compile);
        }
    }
    let megabytes = files.iter().map(|file| file.marshal().len()).sum::<usize>() as f64 / 1e6;
    for (name, pairs) in [("read / loads", reads), ("compile / (loads+dumps)", compiles)] {
        let column = |number: fn(&Pair) -> f64| pairs.iter().map(number).collect::<Vec<f64>>();
        let (theirs, ours) = (column(|pair| pair.theirs), column(|pair| pair.ours));
        let (min_ratio, ratio) = (min(&ours) / min(&theirs), median(column(|pair| pair.ours / pair.theirs)));
        let (theirs, ours) = (median(theirs), median(ours));
        writeln!(
            out,
            "{:8} {:6} {megabytes:6.1}  {name:24} {theirs:9.4} {:7.1} {ours:9.4} {:7.1} {min_ratio:8.3} {ratio:7.3}",
            interpreter.version,
            files.len(),
            megabytes / theirs,
            megabytes / ours,
        )?;
    }
    Ok(())
}

fn read_all(files: &[File], python: Python) -> Result<()> {
    for file in files {
        black_box(marshal::read(file.marshal(), python)?);
    }
    Ok(())
}

fn compile_all(files: &[File]) -> Result<()> {
    for file in files {
        black_box(compile_whole(&file.bytes).map_err(|error| format!("{}: {error}", file.path.display()))?);
    }
    Ok(())
}

fn min(numbers: &[f64]) -> f64 {
    numbers.iter().copied().fold(f64::INFINITY, f64::min)
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let half = numbers.len() / 2;
    if numbers.len() % 2 == 1 { numbers[half] } else { (numbers[half - 1] + numbers[half]) / 2.0 }
}

/// Each file is compiled by a process of its own: this one again, with `--one`. What it takes before it has any input
/// is that of the smallest file, and is taken off.
fn show_memory(interpreter: &Interpreter, mut files: Vec<File>, out: &mut impl Write) -> Result<()> {
    // The files of a temporary library are gone by now, so a child reads a copy.
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("one.pyc");
    let peak = |file: &File| -> Result<f64> {
        fs::write(&copy, &file.bytes)?;
        let peaks: Result<Vec<f64>> = (0..N_CHILDREN).map(|_| child_peak(&copy)).collect();
        Ok(median(peaks?))
    };
    files.sort_by_key(|file| std::cmp::Reverse(file.bytes.len()));
    let base = peak(files.last().ok_or("no files")?)?;
    for file in files.iter().take(N_LARGEST) {
        let (len, peak) = (file.bytes.len(), peak(file)? - base);
        let per_byte = peak / len as f64;
        let (version, path) = (&interpreter.version, file.path.display());
        writeln!(out, "{version:8} {len:10} {peak:11.0} {per_byte:10.1}  {path}")?;
    }
    Ok(())
}

fn child_peak(path: &Path) -> Result<f64> {
    let said = Command::new(std::env::current_exe()?).arg("--one").arg(path).stderr(Stdio::inherit()).output()?;
    if !said.status.success() {
        return Err(format!("{} could not be compiled ({})", path.display(), said.status).into());
    }
    Ok(String::from_utf8(said.stdout)?.trim().parse()?)
}

/// Most bytes that this process ever had in memory. A counting allocator would need `unsafe`.
///
/// Source: Linux `Documentation/filesystems/proc.rst`, `VmHWM` of `/proc/PID/status`.
fn own_peak() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")
        .map_err(|error| format!("peak memory is only known on Linux: /proc/self/status: {error}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in /proc/self/status")?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1024)
}
