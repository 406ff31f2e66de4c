use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use clap::Args;
use rayon::prelude::*;

use super::batch::{Failure, complain, progress};
use super::files::Output;
use super::modules::{FoundModule, FoundModules};
use rehydrate::bundle::ModuleKind;
use rehydrate::bundler::{BundleOptions, Part, bundle};
use rehydrate::{Initializer, Input, Python, Source, pyc, run, verify};

/// Put many modules into one file, from which Python imports them
///
/// A PATH is a package (a folder with an __init__.py), a folder of modules and packages, a .py or an extension module. The
/// code of each module is taken from its .pyc in __pycache__, or from the .pyinit there; it has to be current (`python -m
/// rehydrate bundle` compiles what is not). Values that two modules or more need stand once, in a table that a process builds
/// once. Of extension modules, beside one source at least, the bundle says where they lie. rehydrate.install(bundles=["app.pybundle"]) imports from it.
///
/// Folders that lie beside the bundle or below are found from there, so that both can be moved; others keep their path. The
/// bundle can be read as any new file, whoever may read the sources.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rehydrate bundle app -o app.pybundle
  rehydrate bundle /usr/lib/python3.13 app -o all.pybundle --unchecked
  rehydrate show app.pybundle        lists its modules
  rehydrate disasm app.pybundle --module app.main

Exit status:
  0  all modules are in the bundle
  1  some have no current .pyc, are refused, or cannot be read; the others, if
     there are any, make a bundle
  2  wrong usage, no sources of modules, or the bundle cannot be written")]
pub(super) struct Bundle {
    /// Package, folder of modules, .py or extension module
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,

    /// Write here
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,

    /// Take the modules without a look at their sources, which may be missing [default: a source has to have the time and
    /// size, or the hash, that its .pyc states]
    #[arg(long)]
    unchecked: bool,

    /// Take what -O (1) or -OO (2) compiled
    #[arg(long, value_name = "LEVEL", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..3))]
    level: u8,

    /// Share what so many modules need [default: 2, or one in 200 of the modules]. A process builds all that is shared: where
    /// it imports a small part of a large bundle, a larger number is faster
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    shared_by: Option<u32>,

    /// The Python whose .pyc files are taken, if there are those of several
    #[arg(long, value_name = "3.X")]
    python: Option<Python>,
}

impl Bundle {
    pub(super) fn run(self) -> Result<(), Failure> {
        let found = FoundModules::find(&self.paths).map_err(|error| Failure::Usage(error.to_string()))?;
        found.unreadable.iter().for_each(|why| complain(why));
        let (sources, extensions) = found.apart();
        let tag = match self.python {
            Some(python) => format!("cpython-3{}", python.minor()),
            None => only_tag(&sources)?,
        };
        let level = if self.level == 0 { String::new() } else { format!(".opt-{}", self.level) };
        let bar = progress(sources.len());
        let read = |module: &FoundModule| {
            let code = cached(&module.file, &format!("{tag}{level}"));
            bar.inc(1);
            code
        };
        let files: Vec<Result<Vec<u8>, String>> = sources.par_iter().copied().map(read).collect();
        bar.finish_and_clear();
        let mut n_failed = found.unreadable.len();
        let mut fail = |module: &FoundModule, why: &str| {
            n_failed += 1;
            complain(&format_args!("{}: {why}", module.file.display()));
        };
        let mut parts = Vec::new();
        let made: Vec<_> = files.par_iter().map(|file| file.as_ref().map(|file| Decompiled::new(file))).collect();
        for (module, file) in sources.iter().zip(&made) {
            match file.as_ref().map_err(|why| (*why).clone()).and_then(|made| made.part(module)) {
                Ok(part) => parts.push(part),
                Err(why) => fail(module, &why),
            }
        }
        if parts.is_empty() {
            return Err(Failure::Refused("none of the modules can be bundled".to_owned()));
        }
        let n = parts.len() + extensions.len();
        let options = BundleOptions {
            unchecked: self.unchecked,
            level: self.level,
            shared_by: self.shared_by.map(|n| n as usize),
        };
        let folders = found.folders_for(&self.output).map_err(|error| Failure::Usage(error.to_string()))?;
        let bundled = bundle(parts, &extensions, &folders, options)?;
        Output::named(self.output.clone()).write(&bundled.file)?;
        let (names, consts) = (bundled.n_names, bundled.n_consts);
        _ = writeln!(
            anstream::stderr(),
            "{n} {} -> {} ({} bytes; they share {names} names and {consts} constants){}",
            if n == 1 { "module" } else { "modules" },
            self.output.display(),
            bundled.file.len(),
            if n_failed > 0 { format!(", {n_failed} not") } else { String::new() },
        );
        if n_failed == 0 { Ok(()) } else { Err(Failure::Reported(1)) }
    }
}

/// A .pyc, or what a .pyinit makes.
struct Decompiled<'a> {
    file: &'a [u8],
    /// Of a .pyinit.
    dump: Option<Result<Vec<u8>, String>>,
}

impl<'a> Decompiled<'a> {
    fn new(file: &'a [u8]) -> Self {
        let dump = || {
            let initializer = Initializer::read(file)?;
            let header = initializer.header_bytes().to_vec();
            let verified = verify(initializer.image)?;
            let (heap, root) = run(&verified);
            Ok([header, rehydrate::marshal::write(&heap, root)?].concat())
        };
        let is_initializer = file.get(16..20) == Some(&rehydrate::image::MAGIC);
        Self { file, dump: is_initializer.then(|| dump().map_err(|error: rehydrate::Error| error.to_string())) }
    }

    fn part(&self, module: &FoundModule) -> Result<Part<'_>, String> {
        let file = match &self.dump {
            None => self.file,
            Some(Ok(dump)) => dump,
            Some(Err(why)) => return Err(why.clone()),
        };
        part(module, file)
    }
}

/// A module to bundle, of its .pyc.
fn part<'a>(module: &FoundModule, pyc: &'a [u8]) -> Result<Part<'a>, String> {
    match Input::read(pyc, None) {
        Ok(Input::Source(Source { header: Some(header), dump, .. })) => Ok(Part {
            name: module.name.clone(),
            is_package: module.kind == ModuleKind::Package,
            folder: module.folder,
            path: module.path.clone(),
            header,
            heap: dump.heap,
            root: dump.root,
        }),
        Ok(_) => Err("its compiled code is no .pyc".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// The tag of the caches, if they are of one Python.
fn only_tag(sources: &[&FoundModule]) -> Result<String, Failure> {
    let folders: BTreeSet<&Path> = sources.iter().filter_map(|module| module.file.parent()).collect();
    let mut tags = BTreeSet::new();
    for entry in folders.iter().filter_map(|folder| fs::read_dir(folder.join("__pycache__")).ok()).flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let tag = name.split('.').find(|part| part.starts_with("cpython-3"));
        if let Some(tag) = tag.filter(|_| name.ends_with(".pyc") || name.ends_with(".pyinit")) {
            tags.insert(tag.to_owned());
        }
    }
    match tags.len() {
        0 => Err(Failure::Refused("no .pyc is there: compile first, or use `python -m rehydrate bundle`".to_owned())),
        1 => Ok(tags.pop_first().unwrap_or_default()),
        _ => {
            let tags: Vec<_> = tags.into_iter().collect();
            Err(Failure::Usage(format!("there are .pyc of {}: say which with --python", tags.join(", "))))
        }
    }
}

/// The .pyc of a source, or its .pyinit, if it is current.
fn cached(source: &Path, tag: &str) -> Result<Vec<u8>, String> {
    let folder = source.parent().unwrap_or(source).join("__pycache__");
    let stem = source.file_stem().unwrap_or_default().to_string_lossy();
    let mut why = format!("no {stem}.{tag}.pyc is in {}", folder.display());
    for extension in ["pyc", "pyinit"] {
        let path = folder.join(format!("{stem}.{tag}.{extension}"));
        match fs::read(&path) {
            Ok(file) if is_current(source, &file) => return Ok(file),
            Ok(_) => why = format!("{} is of another state of the source", path.display()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => why = format!("{}: {error}", path.display()),
        }
    }
    Err(why)
}

/// Whether a cache is of a source as it is now, as far as its time and size tell.
fn is_current(source: &Path, file: &[u8]) -> bool {
    let header = pyc::Header::candidates(file).ok().and_then(|headers| headers.into_iter().next());
    match (header.map(pyc::Header::source), fs::metadata(source)) {
        (Some(pyc::Source::Timestamp { seconds, size }), Ok(metadata)) => {
            let time = metadata.modified().ok().map(|time| match time.duration_since(UNIX_EPOCH) {
                Ok(since) => since.as_secs() as u32,
                Err(before) => (before.duration().as_secs() as u32).wrapping_neg(),
            });
            time == Some(seconds) && size.is_none_or(|size| size == metadata.len() as u32)
        }
        // A hash is compared when it is imported; what is no .pyc is refused with a better reason.
        _ => true,
    }
}
