//! Times the lazy container against the initializer of the same module, in one run, one thread.
//!
//! Eager is what a loader does today: decode the initializer, verify it, run it. Against it stand opening the container and
//! hydrating the module's own code object, and opening it and hydrating everything. All three take turns, so that a machine
//! that slows down slows all of them.

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use rehydrate::lazy::{Alternative, Container, Layout, Machine};
use rehydrate::{Initializer, Input, LazyOptions, Options, compile, dehydrate};
use walkdir::WalkDir;

const EXAMPLES: &str = "\
Examples:
  cargo bench --bench lazy -- /usr/lib/python3.13/__pycache__/_pydecimal.cpython-313.pyc
  cargo bench --bench lazy -- --largest 5 --layout draft folder/of/pyc
  cargo bench --bench lazy -- --sizes folder/of/pyc

Exit status: 0, or 2 if something could not be read or compiled.";

/// Times opening and hydrating lazy containers against initializers.
#[derive(Parser)]
#[command(name = "lazy", bin_name = "cargo bench --bench lazy --", after_help = EXAMPLES)]
struct Cli {
    /// .pyc files, and folders of such
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Of all files, take so many of the largest
    #[arg(long, value_name = "N", default_value_t = 1)]
    largest: usize,
    /// Rounds that count; one before them does not
    #[arg(long, value_name = "N", default_value_t = 201, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// How containers are laid out
    #[arg(long, value_enum, default_value_t)]
    layout: LayoutArg,
    /// Show instead what all files take in both layouts, and what they would with EXTENDED_ARG
    #[arg(long, conflicts_with_all = ["rounds", "largest", "layout"])]
    sizes: bool,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum LayoutArg {
    Draft,
    #[default]
    Compact,
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match run(&Cli::parse(), &mut io::stdout().lock()) {
        Err(error) => {
            eprintln!("lazy: {error}");
            ExitCode::from(2)
        }
        Ok(()) => ExitCode::SUCCESS,
    }
}

fn run(cli: &Cli, out: &mut impl Write) -> Result<()> {
    let mut files = find(&cli.paths)?;
    if cli.sizes {
        return show_sizes(&files, out);
    }
    files.sort_by_key(|(path, size)| (std::cmp::Reverse(*size), path.clone()));
    let layout = match cli.layout {
        LayoutArg::Draft => Layout::Draft,
        LayoutArg::Compact => Layout::Compact,
    };
    writeln!(
        out,
        "{:>10} {:>10} {:>8} {:>8} {:>10} {:>8} {:>8}  file",
        "eager us", "top us", "min/min", "median", "all us", "min/min", "median"
    )?;
    for (path, _) in files.iter().take(cli.largest) {
        let named = |error: rehydrate::Error| format!("{}: {error}", path.display());
        let times = times(&fs::read(path)?, layout, cli.rounds).map_err(named)?;
        let column = |number: fn(&Round) -> f64| times.iter().map(number).collect::<Vec<f64>>();
        let (eager, top, all) =
            (min(&column(|round| round.eager)), min(&column(|round| round.top)), min(&column(|round| round.all)));
        writeln!(
            out,
            "{:10.1} {:10.1} {:8.1} {:8.1} {:10.1} {:8.3} {:8.3}  {}",
            1e6 * eager,
            1e6 * top,
            eager / top,
            median(column(|round| round.eager / round.top)),
            1e6 * all,
            all / eager,
            median(column(|round| round.all / round.eager)),
            path.display(),
        )?;
        out.flush()?;
    }
    Ok(())
}

/// .pyc files, with their sizes.
fn find(paths: &[PathBuf]) -> Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    for path in paths {
        for entry in WalkDir::new(path).sort_by_file_name() {
            let entry = entry?;
            if entry.file_type().is_file() && entry.path().extension().is_some_and(|extension| extension == "pyc") {
                files.push((entry.path().to_owned(), entry.metadata()?.len()));
            }
        }
    }
    if files.is_empty() { Err("no .pyc file is there".into()) } else { Ok(files) }
}

/// Seconds of each way, in one round.
struct Round {
    eager: f64,
    top: f64,
    all: f64,
}

fn times(file: &[u8], layout: Layout, rounds: u16) -> rehydrate::Result<Vec<Round>> {
    let Input::Source(source) = Input::read(file, None)? else { panic!("a .pyc is a source") };
    // Loading needs no source section.
    let options = Options { source_flags: false, ..Options::default() };
    let initializer = compile(&source, options)?.encode()?;
    let container = dehydrate(&source, LazyOptions { layout, source_flags: false, ..LazyOptions::default() })?;
    let mut times = Vec::new();
    for round in 0..=rounds {
        let mut seconds = [0.0; 3];
        // Whoever comes second finds colder caches: take turns.
        for way in (0..3).map(|way| (way + usize::from(round)) % 3) {
            let start = Instant::now();
            match way {
                0 => eager(&initializer)?,
                1 => top(&container)?,
                _ => all(&container)?,
            }
            seconds[way] = start.elapsed().as_secs_f64();
        }
        let [eager, top, all] = seconds;
        // The first one warms up.
        if round > 0 {
            times.push(Round { eager, top, all });
        }
    }
    Ok(times)
}

fn eager(file: &[u8]) -> rehydrate::Result<()> {
    let verified = rehydrate::verify(Initializer::read(file)?.image)?;
    black_box(rehydrate::run(&verified));
    Ok(())
}

fn top(file: &[u8]) -> rehydrate::Result<()> {
    let container = Container::open(file)?;
    let mut machine = Machine::new(&container);
    machine.hydrate(0)?;
    black_box(machine.heap().len());
    Ok(())
}

fn all(file: &[u8]) -> rehydrate::Result<()> {
    let container = Container::open(file)?;
    black_box(rehydrate::lazy::hydrate(&container)?);
    Ok(())
}

fn show_sizes(files: &[(PathBuf, u64)], out: &mut impl Write) -> Result<()> {
    let (mut marshal, mut sizes, mut sum) = (0, [0; 4], Alternative::default());
    for (path, _) in files {
        let mut one = |path: &Path| -> Result<()> {
            let file = fs::read(path)?;
            let Input::Source(source) = Input::read(&file, None)? else { return Ok(()) };
            marshal += source.marshal.len();
            let layouts = [Layout::Draft, Layout::Compact];
            for (size, (layout, strips)) in
                sizes.iter_mut().zip(layouts.into_iter().flat_map(|layout| [(layout, false), (layout, true)]))
            {
                let options =
                    LazyOptions { layout, strip_caches: Some(strips), source_flags: false, ..LazyOptions::default() };
                let file = dehydrate(&source, options)?;
                let container = Container::open(&file)?;
                *size += container.payload_len();
                if layout == Layout::Draft && !strips {
                    let Alternative { longer_bytecode, redirects, lists } = Alternative::of(&container)?;
                    sum.longer_bytecode += longer_bytecode;
                    sum.redirects += redirects;
                    sum.lists += lists;
                }
            }
            Ok(())
        };
        one(path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let share = |size: usize| 100.0 * size as f64 / marshal as f64;
    writeln!(out, "{:40} {marshal:>10}", format!("marshal, {} files", files.len()))?;
    let names = ["draft", "draft, without caches", "compact, with caches", "compact"];
    for (name, size) in names.into_iter().zip(sizes) {
        writeln!(out, "{name:40} {size:>10} {:6.2} %", share(size))?;
    }
    let Alternative { longer_bytecode, redirects, lists } = sum;
    for (name, size) in [
        ("draft: redirects", redirects),
        ("instead: lists of names and constants", lists),
        ("instead: bytecode with EXTENDED_ARG", longer_bytecode),
    ] {
        writeln!(out, "{name:40} {size:>10} {:6.2} %", share(size))?;
    }
    Ok(())
}

fn min(numbers: &[f64]) -> f64 {
    numbers.iter().copied().fold(f64::INFINITY, f64::min)
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
