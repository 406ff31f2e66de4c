//! The command line: a file for each subcommand, with its options and its `run`.

mod asm;
mod batch;
mod bundle;
mod compile;
mod decompile;
mod diff;
mod disasm;
mod explain;
mod files;
mod isa;
mod lazy_report;
pub mod modules;
mod normalize;
mod run;
mod show;
mod snapshot;
mod stats;
mod verify;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use batch::Failure;
use rehydrate::lazy::Layout;
use rehydrate::{End, Input, LazyOptions, Optimize, Options, Profile, Python, Sharing, Source};

/// Compile CPython .pyc files and marshal dumps into bytecode that constructs their objects.
///
/// A .pyc file is a marshal dump: a private language whose only program is "build these objects". rehydrate compiles it
/// into a module initializer, a sequence of instructions that builds the objects, with shared ones left on the stack and
/// copied; lists it, verifies it, runs it, and turns it back into the identical file.
#[derive(Debug, Parser)]
#[command(
    version,
    arg_required_else_help = true,
    after_help = "\
An INPUT is a .pyc of CPython 3.6 to 3.15 or of the Erg compiler, a bare marshal dump (with --python), a .pyinit, \
a .pylazy, or - for standard input (show, disasm and verify also take a .pybundle); its content tells which. A folder stands for the .pyc, .marshal, .pyinit and .pylazy \
files below it that the command takes.

The Python package has these commands, too (`python -m rehydrate`); its compile also takes sources and folders of \
sources, in the manner of compileall, and its bundle compiles what has no current .pyc.

Examples:
  rehydrate disasm module.pyc             list the initializer of a module
  rehydrate compile __pycache__           compile each NAME.pyc to NAME.pyinit
  rehydrate run module.pyinit             execute it and show its objects
  rehydrate verify /usr/lib/python3.13    check every file in every stage

Exit status:
  0  yes
  1  an input is refused, or a check fails
  2  wrong usage, or a file cannot be read or written"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Compile(compile::Compile),
    Decompile(decompile::Decompile),
    Run(run::Run),
    Disasm(disasm::Disasm),
    Explain(explain::Explain),
    Asm(asm::Asm),
    Bundle(bundle::Bundle),
    Isa(isa::Isa),
    LazyReport(lazy_report::LazyReport),
    Show(show::Show),
    Diff(diff::Diff),
    Stats(stats::Stats),
    Snapshot(snapshot::Snapshot),
    Normalize(normalize::Normalize),
    Verify(verify::Verify),
}

/// Does what a command line says, the name of the program first, and gives the exit status.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    match Cli::try_parse_from(args) {
        Ok(cli) => cli.run(),
        Err(error) => {
            // Where nobody reads it, there is nobody to tell.
            let _ = error.print();
            u8::try_from(error.exit_code()).unwrap_or(2)
        }
    }
}

impl Cli {
    fn run(self) -> u8 {
        let outcome = match self.command {
            Command::Compile(command) => command.run(),
            Command::Decompile(command) => command.run(),
            Command::Run(command) => command.run(),
            Command::Disasm(command) => command.run(),
            Command::Explain(command) => command.run(),
            Command::Asm(command) => command.run(),
            Command::Bundle(command) => command.run(),
            Command::Isa(command) => command.run(),
            Command::LazyReport(command) => command.run(),
            Command::Show(command) => command.run(),
            Command::Diff(command) => command.run(),
            Command::Stats(command) => command.run(),
            Command::Snapshot(command) => command.run(),
            Command::Normalize(command) => command.run(),
            Command::Verify(command) => command.run(),
        };
        match outcome {
            Ok(()) => 0,
            // Whoever read the output has seen enough.
            Err(failure) if failure.is_broken_pipe() => 0,
            Err(failure) => {
                failure.report();
                failure.status()
            }
        }
    }
}

/// The inputs of a command.
#[derive(Debug, Args)]
struct Inputs {
    /// .pyc, marshal dump, .pyinit, .pylazy, folder, or - for standard input
    #[arg(value_name = "INPUT", required = true)]
    inputs: Vec<PathBuf>,

    #[command(flatten)]
    python: PythonArg,

    /// Work on so many files at a time [default: the number of cores]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
}

/// The version of bare dumps.
#[derive(Debug, Args, Clone, Copy)]
struct PythonArg {
    /// The Python that wrote a bare marshal dump; a .pyc says it itself
    #[arg(long, value_name = "3.X")]
    python: Option<Python>,
}

/// How to compile, for the commands that compile a .pyc on the way.
#[derive(Debug, Args, Clone, Copy)]
struct CompileOptions {
    /// Which objects become one
    #[arg(long, value_enum, default_value_t)]
    sharing: SharingArg,

    /// Which instructions to use
    #[arg(long, value_enum, default_value_t)]
    profile: ProfileArg,

    /// What decisions are to be good at, where the profile leaves a choice
    #[arg(long, value_enum, default_value_t)]
    optimize: OptimizeArg,

    /// End by executing the module's code instead of returning it
    #[arg(long)]
    start_code: bool,

    /// Leave the inline caches of bytecode out, as compact does; they come back exactly
    #[arg(long, conflicts_with = "keep_caches")]
    strip_caches: bool,

    /// Keep the inline caches of bytecode, as core and load do
    #[arg(long)]
    keep_caches: bool,

    /// Leave out what turns the initializer back into the identical file
    #[arg(long)]
    no_source_flags: bool,
}

impl CompileOptions {
    fn options(self) -> Options {
        Options {
            sharing: match self.sharing {
                SharingArg::Structural => Sharing::Structural,
                SharingArg::Identity => Sharing::Identity,
                SharingArg::None => Sharing::None,
            },
            profile: match self.profile {
                ProfileArg::Core => Profile::Core,
                ProfileArg::Compact => Profile::Compact,
                ProfileArg::Load => Profile::Load,
            },
            optimize: match self.optimize {
                OptimizeArg::Size => Optimize::Size,
                OptimizeArg::Speed => Optimize::Speed,
            },
            end: if self.start_code { End::Start } else { End::Return },
            strip_caches: match (self.strip_caches, self.keep_caches) {
                (true, _) => Some(true),
                (_, true) => Some(false),
                _ => None,
            },
            source_flags: !self.no_source_flags,
        }
    }
}

/// Which file to compile to.
#[derive(Debug, Args, Clone, Copy)]
struct LazyArgs {
    /// What to compile to
    #[arg(long, value_enum, default_value_t)]
    format: CompiledFormat,

    /// How a lazy container is laid out, with --format lazy [default: compact]
    #[arg(long, value_enum)]
    lazy_layout: Option<LayoutArg>,
}

impl LazyArgs {
    fn is_lazy(self) -> bool {
        self.format == CompiledFormat::Lazy
    }

    /// How to dehydrate, if that is what to do.
    ///
    /// # Errors
    /// A layout of what is not lazy.
    fn options(self, compile: CompileOptions) -> Result<Option<LazyOptions>, Failure> {
        if !self.is_lazy() && self.lazy_layout.is_some() {
            return Err(Failure::Usage("--lazy-layout goes with --format lazy".to_owned()));
        }
        let Options { sharing, strip_caches, source_flags, .. } = compile.options();
        let layout = self.lazy_layout.unwrap_or_default().layout();
        Ok(self.is_lazy().then_some(LazyOptions { layout, sharing, strip_caches, source_flags }))
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum CompiledFormat {
    /// An initializer, which builds all objects in one go
    #[default]
    Init,
    /// A lazy container, whose constants and code objects are built when they are first needed
    Lazy,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum LayoutArg {
    /// That of the published draft, version 0: aligned 32-bit numbers
    Draft,
    /// Ours, version 1: numbers of variable length, no padding, bytecode without its inline caches
    #[default]
    Compact,
}

impl LayoutArg {
    fn layout(self) -> Layout {
        match self {
            Self::Draft => Layout::Draft,
            Self::Compact => Layout::Compact,
        }
    }
}

/// What a lazy container was turned back into.
fn turned_back(file: &[u8]) -> Result<Source<'_>, Failure> {
    match Input::read(file, None)? {
        Input::Source(source) => Ok(source),
        Input::Initializer(_) | Input::Lazy(_) => Err(Failure::Refused("turns back into no dump".to_owned())),
    }
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum SharingArg {
    /// Equal immutable objects; code objects and mutable ones never
    #[default]
    Structural,
    /// Those that the dump shares, no more and no less
    Identity,
    /// None: immutable objects are built anew at each use, for comparison
    None,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum ProfileArg {
    /// Those that faster-cpython/ideas issue 566 names, and stock CPython's
    Core,
    /// Also rehydrate's own, where they pay: the smallest files
    #[default]
    Compact,
    /// Those that load fastest inside CPython: names in batches, with their hashes, and bytecode as it is in memory
    Load,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum OptimizeArg {
    /// Few bytes: also make a short value again where that is shorter than a copy
    Size,
    /// Little time
    #[default]
    Speed,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// One JSON document an input, each on a line of its own
    Json,
}
