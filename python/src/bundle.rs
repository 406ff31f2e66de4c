//! Imports modules from a bundle, and makes bundles of what Python code has compiled.
//!
//! A [`Bundle`] is a finder on `sys.meta_path`. It gives specs as importlib does: those of sources have a loader that is
//! derived from `SourceFileLoader` and differs in `get_code`, those of extension modules importlib's own. Source, resources
//! and all else are found by the file system.
//!
//! Invariants:
//! - Whatever is wrong with a bundle, or with a source, importlib goes on as without us.
//! - The table is built when the first module needs it, and one is kept.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use memmap2::Mmap;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyCode, PyList, PyString};
use rehydrate::bundle::{self, Module, ModuleKind};
use rehydrate::bundler::{BundleOptions, Extension, Part};
use rehydrate::cli::modules::{FoundModules, normalized};
use rehydrate::{Input, Source};

use crate::cache::Header;
use crate::convert::{map, own_magic, refused, strip};
use crate::execute::{BundleValues, build_table, execute_bundled, refuses_bundles};
use crate::hook::{Hook, audit_open, is_damage, is_file, is_hash_current, spec_of, stat};

/// A bundle, and the finder of its modules.
#[pyclass(frozen, module = "rehydrate._native")]
pub(crate) struct Bundle {
    mapped: Mmap,
    path: String,
    /// The folder in which it lies, without a slash behind it.
    folder: String,
    table: PyOnceLock<BundleValues>,
    /// Nothing is taken from it any more.
    is_broken: AtomicBool,
    /// Something in it is damaged, and that was said: the first thing stands for all.
    has_warned: AtomicBool,
    hits: AtomicUsize,
}

#[pymethods]
impl Bundle {
    /// Maps a bundle: ValueError says why this interpreter cannot take anything from it, and OSError why it cannot be read.
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let failed = |error: std::io::Error| match error.raw_os_error() {
            Some(number) => PyOSError::new_err((number, strip(&error), path.clone().into_os_string())),
            None => PyValueError::new_err(error.to_string()),
        };
        let absolute = normalized(&path).map_err(failed)?;
        let Some(absolute) = absolute.to_str().map(str::to_owned) else {
            return Err(PyValueError::new_err("the path of the bundle is not UTF-8"));
        };
        audit_open(py, &absolute)?;
        let mapped =
            map(Path::new(&absolute)).map_err(failed)?.ok_or_else(|| PyValueError::new_err("the file is empty"))?;
        let opened = bundle::Bundle::open(&mapped).map_err(refused)?;
        if opened.magic() != own_magic(py) {
            let (magic, own) = (opened.magic(), own_magic(py));
            return Err(PyValueError::new_err(format!("its magic number is {magic}, this interpreter's {own}")));
        }
        let level = py.import("sys")?.getattr("flags")?.getattr("optimize")?.extract::<u8>()?.min(2);
        if opened.level() != level {
            let own = opened.level();
            return Err(PyValueError::new_err(format!(
                "its level of optimization is {own}, this interpreter's {level}"
            )));
        }
        if let Some(why) = refuses_bundles(py)? {
            return Err(PyValueError::new_err(why));
        }
        let folder = absolute.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        Ok(Self {
            mapped,
            path: absolute,
            folder,
            table: PyOnceLock::new(),
            is_broken: AtomicBool::new(false),
            has_warned: AtomicBool::new(false),
            hits: AtomicUsize::new(0),
        })
    }

    #[getter]
    fn path(&self) -> &str {
        &self.path
    }

    /// How many code objects were taken from it.
    #[getter]
    fn hits(&self) -> usize {
        self.hits.load(Ordering::Relaxed)
    }

    /// The names of its modules.
    fn modules(&self) -> PyResult<Vec<String>> {
        let modules =
            self.opened().and_then(|bundle| bundle.modules().map(|module| Ok(module?.name.to_owned())).collect());
        modules.map_err(refused)
    }

    /// What `sys.meta_path` asks: the spec of a module, or None.
    #[pyo3(signature = (fullname, path=None, target=None))]
    fn find_spec<'py>(
        slf: &Bound<'py, Self>,
        fullname: &Bound<'py, PyString>,
        path: Option<&Bound<'py, PyAny>>,
        target: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        _ = target;
        let (py, this) = (slf.py(), slf.get());
        if this.is_broken.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let Ok(name) = fullname.to_str() else { return Ok(None) };
        let module = match this.opened().and_then(|bundle| Ok((bundle.find(name)?, bundle.is_unchecked()))) {
            Ok((Some(module), is_unchecked)) => (module, is_unchecked),
            Ok((None, _)) => return Ok(None),
            Err(error) => {
                this.give_up(py, &error.to_string())?;
                return Ok(None);
            }
        };
        let (module, is_unchecked) = module;
        let hook = Hook::get(py)?;
        let file = this.file(&module);
        let (folder, file_name) = file.rsplit_once('/').unwrap_or(("", &file));
        let is_package = module.kind == ModuleKind::Package;
        if let Some(path) = path
            && !path.is_none()
        {
            // A part of a package that came from elsewhere comes from there too. Where a folder stands before ours,
            // importlib looks there first.
            let around = if is_package { folder.rsplit_once('/').map_or("", |(around, _)| around) } else { folder };
            if !begins_with(path, around)? {
                return Ok(None);
            }
        }
        let is_there = match module.kind {
            ModuleKind::Extension => hook.is_extension(file_name, name) && is_file(py, &file),
            ModuleKind::Source | ModuleKind::Package => is_unchecked || is_possible(py, &file, &module),
        };
        let location = PyString::new(py, &file);
        if !is_there || hook.path(&location).is_none() {
            return Ok(None);
        }
        let loader = if module.kind == ModuleKind::Extension {
            hook.extension_loader.bind(py).call1((fullname, &location))?
        } else {
            let loader = hook.bundle_loader.bind(py).call1((fullname, &location))?;
            loader.setattr(intern!(py, "bundle"), slf)?;
            loader
        };
        spec_of(hook, fullname, loader, &file, location, is_package.then_some(folder)).map(Some)
    }

    fn __repr__(&self) -> String {
        format!("<rehydrate bundle {:?}>", self.path)
    }
}

/// Whether the first folder of a `__path__` is this one. That of a namespace package is not a list, and finds out its
/// folders when it is iterated.
fn begins_with(path: &Bound<'_, PyAny>, folder: &str) -> PyResult<bool> {
    let first = match path.cast_exact::<PyList>() {
        Ok(list) => list.get_item(0).ok(),
        Err(_) => path.try_iter()?.next().transpose()?,
    };
    Ok(first.is_some_and(|first| first.cast::<PyString>().is_ok_and(|first| first.to_str().ok() == Some(folder))))
}

/// Whether a module can be of its source: that is there, and has the time and size, if those decide.
fn is_possible(py: Python<'_>, source: &str, module: &Module<'_>) -> bool {
    let Some(metadata) = stat(py, source) else { return false };
    let header = Header::read(&module.header);
    metadata.is_file() && header.is_some_and(|header| header.flags & 1 != 0 || header.matches(&metadata))
}

impl Bundle {
    fn opened(&self) -> rehydrate::Result<bundle::Bundle<'_>> {
        bundle::Bundle::open(&self.mapped)
    }

    /// Where the file of a module lies.
    fn file(&self, module: &Module<'_>) -> String {
        match (module.folder.starts_with('/'), module.folder) {
            (true, folder) => format!("{}/{}", folder.trim_end_matches('/'), module.path),
            (false, "") => format!("{}/{}", self.folder, module.path),
            (false, folder) => format!("{}/{folder}/{}", self.folder, module.path),
        }
    }

    /// Takes nothing from it any more, and says why.
    #[cold]
    fn give_up(&self, py: Python<'_>, why: &str) -> PyResult<()> {
        self.is_broken.store(true, Ordering::Relaxed);
        self.warn(py, why)
    }

    #[cold]
    fn warn(&self, py: Python<'_>, why: &str) -> PyResult<()> {
        if self.has_warned.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let (of_bundle, stacklevel) = (true, 2);
        Hook::get(py)?.call_own(py, "_warn", (&self.path, why, of_bundle, stacklevel)).map(drop)
    }

    /// The table, which is built when it is needed.
    ///
    /// That is not done inside the cell: a finalizer that runs meanwhile may import from here, and would wait for
    /// itself. Of two tables the first that is ready stays.
    fn table(&self, py: Python<'_>, bundle: &bundle::Bundle<'_>) -> PyResult<&BundleValues> {
        if let Some(values) = self.table.get(py) {
            return Ok(values);
        }
        let values = build_table(py, bundle)?;
        drop(self.table.set(py, values));
        Ok(self.table.get(py).expect("it was set"))
    }

    /// The code object of a module, if it can be had from here.
    fn code<'py>(
        &self,
        hook: &Hook,
        loader: &Bound<'py, PyAny>,
        name: &str,
        filename: &Bound<'py, PyString>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = loader.py();
        let damaged = |error: PyErr| if is_damage(py, &error) { Ok(error.value(py).to_string()) } else { Err(error) };
        let found = self.opened().and_then(|bundle| Ok((bundle, bundle.find(name)?)));
        let (bundle, module) = match found {
            Ok((bundle, Some(module))) => (bundle, module),
            Ok((_, None)) => return Ok(None),
            Err(error) => return self.give_up(py, &error.to_string()).map(|()| None),
        };
        let header = Header::read(&module.header);
        let Some(header) = header.filter(|header| header.magic[..2] == bundle.magic().to_le_bytes()) else {
            return self.warn(py, &format!("the header of module {name} is damaged")).map(|()| None);
        };
        if !bundle.is_unchecked() {
            let Ok(source) = filename.to_str() else { return Ok(None) };
            let is_current = match header.flags {
                0 => stat(py, source).is_some_and(|metadata| header.matches(&metadata)),
                _ => is_hash_current(hook, loader, filename, &header)?.unwrap_or(true),
            };
            if !is_current {
                return Ok(None);
            }
        }
        let values = match self.table(py, &bundle) {
            Ok(values) => values,
            Err(error) => return self.give_up(py, &damaged(error)?).map(|()| None),
        };
        let code = bundle
            .module_image(&module)
            .map_err(refused)
            .and_then(|image| execute_bundled(py, &bundle, values, &image, filename));
        match code {
            Ok(code) if code.is_instance_of::<PyCode>() => {
                self.hits.fetch_add(1, Ordering::Relaxed);
                Ok(Some(code))
            }
            Ok(_) => self.warn(py, &format!("module {name} is no code object")).map(|()| None),
            Err(error) => self.warn(py, &format!("module {name}: {}", damaged(error)?)).map(|()| None),
        }
    }
}

/// `get_code` of the loader of bundles.
#[pyfunction]
pub(crate) fn get_bundled_code<'py>(
    loader: &Bound<'py, PyAny>,
    fullname: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = loader.py();
    let hook = Hook::get(py)?;
    // Importlib says what it thinks of another name.
    if loader.getattr(intern!(py, "name"))?.eq(fullname)?
        && let Ok(bundle) = loader.getattr(intern!(py, "bundle"))?.cast_into::<Bundle>()
        && let Ok(filename) = loader.getattr(intern!(py, "path"))?.cast_into::<PyString>()
        && !bundle.get().is_broken.load(Ordering::Relaxed)
        && hook.reads_as_importlib(loader)?
        && let Some(code) = bundle.get().code(hook, loader, &fullname.extract::<String>()?, &filename)?
    {
        return Ok(code);
    }
    hook.base_get_code.bind(py).call1((loader, fullname))
}

/// The name of a module, whether it is a package, the number of its folder, its path from there, and its file.
type FoundModule = (String, bool, usize, String, OsString);

/// The name of an extension module, the number of its folder, and its path from there.
type FoundExtension = (String, usize, String);

/// Folders, modules with a source and extension modules below them, and what could not be looked into.
type Found = (Vec<String>, Vec<FoundModule>, Vec<FoundExtension>, Vec<String>);

/// Finds the modules that paths name, and the folders below which they lie, as a bundle at `output` holds them.
#[pyfunction]
pub(crate) fn find_modules(paths: Vec<PathBuf>, output: PathBuf) -> PyResult<Found> {
    let found = FoundModules::find(&paths).map_err(|error| PyValueError::new_err(error.to_string()))?;
    let folders = found.folders_for(&output).map_err(|error| PyValueError::new_err(error.to_string()))?;
    let (sources, extensions) = found.apart();
    let sources = sources.into_iter().map(|module| {
        let is_package = module.kind == ModuleKind::Package;
        (module.name.clone(), is_package, module.folder, module.path.clone(), module.file.clone().into_os_string())
    });
    let sources = sources.collect();
    let extensions = extensions.into_iter().map(|Extension { name, folder, path }| (name, folder, path)).collect();
    Ok((folders, sources, extensions, found.unreadable))
}

/// The name of a module, and why it is not in the bundle.
type RefusedModule = (String, String);

/// Makes a bundle of modules: of each its name, whether it is a package, the number of its folder, its path from there, and
/// the bytes of its .pyc; and of extension modules. What is refused is not in it; if that is all modules, there is no bundle.
#[pyfunction]
#[pyo3(signature = (modules, extensions, folders, *, unchecked=false, level=0, shared_by=None))]
pub(crate) fn make_bundle<'py>(
    py: Python<'py>,
    modules: Vec<(String, bool, usize, String, Bound<'py, PyBytes>)>,
    extensions: Vec<FoundExtension>,
    folders: Vec<String>,
    unchecked: bool,
    level: u8,
    shared_by: Option<usize>,
) -> PyResult<(Option<Bound<'py, PyBytes>>, Vec<RefusedModule>)> {
    let mut numbers = modules.iter().map(|module| module.2).chain(extensions.iter().map(|extension| extension.1));
    if level > 2 || numbers.any(|number| number >= folders.len()) {
        return Err(PyValueError::new_err("there is no such level of optimization, or no such folder"));
    }
    let (mut parts, mut failures) = (Vec::new(), Vec::new());
    for (name, is_package, folder, path, pyc) in &modules {
        match Input::read(pyc.as_bytes(), None) {
            Ok(Input::Source(Source { header: Some(header), dump, .. })) => parts.push(Part {
                name: name.clone(),
                is_package: *is_package,
                folder: *folder,
                path: path.clone(),
                header,
                heap: dump.heap,
                root: dump.root,
            }),
            Ok(_) => failures.push((name.clone(), "no .pyc".to_owned())),
            Err(error) => failures.push((name.clone(), error.to_string())),
        }
    }
    if parts.is_empty() {
        return Ok((None, failures));
    }
    let extensions: Vec<_> =
        extensions.into_iter().map(|(name, folder, path)| Extension { name, folder, path }).collect();
    let options = BundleOptions { unchecked, level, shared_by };
    let bundled = rehydrate::bundler::bundle(parts, &extensions, &folders, options).map_err(refused)?;
    Ok((Some(PyBytes::new(py, &bundled.file)), failures))
}
