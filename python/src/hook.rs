//! What the import hook does most: finds a module in a folder, and takes its code object from the .pyinit.
//!
//! Both functions do what the methods of importlib do whose place they take, and leave everything rare to them: whatever is
//! not a source with a current initializer, and every derived class. A method that is not written in Python has no frame, so that a traceback
//! shows what it shows without the hook.
//!
//! Source: `FileFinder.find_spec` and `SourceLoader.get_code` of CPython `Lib/importlib/_bootstrap_external.py`.

use std::cell::RefCell;
use std::ffi::{c_char, c_int};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::call::PyCallArgs;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyFloat, PyList, PySet, PyString};

use crate::cache::{self, Header, Naming};
use crate::convert::own_magic;
use crate::execute::{execute_unstarted, is_fast};

// Public functions that pyo3-ffi does not declare.
unsafe extern "C" {
    fn PyInstanceMethod_New(callable: *mut ffi::PyObject) -> *mut ffi::PyObject;
    fn PySys_Audit(event: *const c_char, format: *const c_char, ...) -> c_int;

}

/// Calls a function of ours that a debugger or a profiler need not see: importlib's, which they skip, has no such call.
pub(crate) fn call_untraced<'py>(
    function: &Bound<'py, PyAny>,
    args: impl PyCallArgs<'py>,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: we are attached, and so is this thread again when the call returns.
    unsafe { ffi::PyThreadState_EnterTracing(ffi::PyThreadState_Get()) };
    let result = function.call1(args);
    // SAFETY: as above; what was entered is left once.
    unsafe { ffi::PyThreadState_LeaveTracing(ffi::PyThreadState_Get()) };
    result
}

/// Makes a method of a function that is not written in Python.
#[pyfunction]
#[pyo3(signature = (function, /))]
pub(crate) fn method<'py>(function: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: we are attached, and it gives a new reference or NULL.
    unsafe { Bound::from_owned_ptr_or_err(function.py(), PyInstanceMethod_New(function.as_ptr())) }
}

static HITS: AtomicUsize = AtomicUsize::new(0);
static MISSES: AtomicUsize = AtomicUsize::new(0);

/// How many code objects were taken from initializers, and how many were not.
#[pyfunction]
pub(crate) fn counts() -> (usize, usize) {
    (HITS.load(Ordering::Relaxed), MISSES.load(Ordering::Relaxed))
}

/// What the hook needs of this interpreter, of which there is one: pyo3 loads no module into a second.
pub(crate) struct Hook {
    sys: Py<PyDict>,
    imp: Py<PyModule>,
    module_spec: Py<PyAny>,
    /// `SourceFileLoader.get_code` and `FileFinder.find_spec`, as they were.
    pub(crate) base_get_code: Py<PyAny>,
    base_find_spec: Py<PyAny>,
    /// Of these classes themselves, and of none that is derived from them, the methods are ours.
    loader: Py<PyAny>,
    finder: Py<PyAny>,
    /// Of `rehydrate._hook`.
    missed: Py<PyAny>,
    writes: Py<PyAny>,
    pub(crate) bundle_loader: Py<PyAny>,
    pub(crate) warn: Py<PyAny>,
    /// `importlib._bootstrap._verbose_message`, if the interpreter was started with -v.
    verbose: Option<Py<PyAny>>,
    is_very_verbose: bool,
    /// Whether paths that are not ASCII are UTF-8 to the system too.
    is_utf8: bool,
}

static HOOK: PyOnceLock<Hook> = PyOnceLock::new();

impl Hook {
    pub(crate) fn get(py: Python<'_>) -> PyResult<&Self> {
        HOOK.get_or_try_init(py, || Self::new(py))
    }

    fn new(py: Python<'_>) -> PyResult<Self> {
        let sys = py.import("sys")?;
        let bootstrap = py.import("_frozen_importlib")?;
        let external = py.import("_frozen_importlib_external")?;
        let own = py.import("rehydrate._hook")?;
        let verbosity: i32 = sys.getattr("flags")?.getattr("verbose")?.extract()?;
        let verbose = match verbosity {
            0 => None,
            _ => Some(bootstrap.getattr("_verbose_message")?.unbind()),
        };
        let encoding: String = sys.call_method0("getfilesystemencoding")?.extract()?;
        Ok(Self {
            sys: sys.dict().unbind(),
            imp: py.import("_imp")?.unbind(),
            module_spec: bootstrap.getattr("ModuleSpec")?.unbind(),
            base_get_code: own.getattr("base_get_code")?.unbind(),
            base_find_spec: own.getattr("base_find_spec")?.unbind(),
            loader: external.getattr("SourceFileLoader")?.unbind(),
            finder: external.getattr("FileFinder")?.unbind(),
            missed: own.getattr("missed")?.unbind(),
            writes: own.getattr("writes")?.unbind(),
            bundle_loader: own.getattr("BundleLoader")?.unbind(),
            warn: own.getattr("_warn")?.unbind(),
            verbose,
            is_very_verbose: verbosity > 1,
            is_utf8: encoding == "utf-8",
        })
    }

    /// A path as the system takes it, if it is the same text.
    pub(crate) fn path<'a>(&self, path: &'a Bound<'_, PyString>) -> Option<&'a str> {
        path.to_str().ok().filter(|path| self.is_utf8 || path.is_ascii())
    }
}

// --- Finding ---

/// `FileFinder.find_spec(finder, fullname)`.
#[pyfunction]
#[pyo3(signature = (finder, fullname, target=None))]
pub(crate) fn find_spec<'py>(
    finder: &Bound<'py, PyAny>,
    fullname: &Bound<'py, PyString>,
    target: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = finder.py();
    let hook = Hook::get(py)?;
    match found(hook, finder, fullname)? {
        Found::Spec(spec) => Ok(spec),
        Found::Nothing => Ok(py.None().into_bound(py)),
        Found::Other => hook.base_find_spec.bind(py).call1((finder, fullname, target)),
    }
}

enum Found<'py> {
    /// A source.
    Spec(Bound<'py, PyAny>),
    Nothing,
    /// An extension, a .pyc without its source, a part of a namespace package, a name we do not take.
    Other,
}

fn found<'py>(hook: &Hook, finder: &Bound<'py, PyAny>, fullname: &Bound<'py, PyString>) -> PyResult<Found<'py>> {
    let py = finder.py();
    let folder = finder.getattr(intern!(py, "path"))?.cast_into::<PyString>()?;
    let (Some(folder), Some(name)) = (hook.path(&folder), hook.path(fullname)) else { return Ok(Found::Other) };
    if hook.is_very_verbose || !folder.starts_with('/') || !finder.get_type().is(hook.finder.bind(py)) {
        return Ok(Found::Other);
    }
    let names = names(finder, folder)?;
    let folder = folder.trim_end_matches('/');
    let tail = name.rsplit_once('.').map_or(name, |(_, tail)| tail);
    let loaders = finder.getattr(intern!(py, "_loaders"))?.cast_into::<PyList>()?;
    let is_folder = names.contains(tail)?;
    if is_folder {
        let base = format!("{folder}/{tail}");
        for pair in &loaders {
            let (suffix, class): (Bound<'py, PyString>, Bound<'py, PyAny>) = pair.extract()?;
            let path = format!("{base}/__init__{}", suffix.to_str()?);
            if is_file(&path) {
                return spec(hook, fullname, class, &path, Some(&base));
            }
        }
    }
    for pair in &loaders {
        let (suffix, class): (Bound<'py, PyString>, Bound<'py, PyAny>) = pair.extract()?;
        let file = format!("{tail}{}", suffix.to_str()?);
        if names.contains(&file)? {
            let path = format!("{folder}/{file}");
            if is_file(&path) {
                return spec(hook, fullname, class, &path, None);
            }
        }
    }
    // A part of a namespace package, or a file that only looks like a folder.
    Ok(if is_folder { Found::Other } else { Found::Nothing })
}

/// The names in a folder, listed anew if the folder changed.
fn names<'py>(finder: &Bound<'py, PyAny>, folder: &str) -> PyResult<Bound<'py, PySet>> {
    let py = finder.py();
    let seen = intern!(py, "_path_mtime");
    let mtime = fs::metadata(folder).map_or(-1.0, |metadata| cache::mtime(&metadata));
    if finder.getattr(seen)?.extract::<f64>()? != mtime {
        finder.call_method0(intern!(py, "_fill_cache"))?;
        finder.setattr(seen, PyFloat::new(py, mtime))?;
    }
    Ok(finder.getattr(intern!(py, "_path_cache"))?.cast_into::<PySet>()?)
}

fn is_file(path: &str) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
}

/// What `spec_from_file_location` makes; of a source alone.
fn spec<'py>(
    hook: &Hook,
    fullname: &Bound<'py, PyString>,
    class: Bound<'py, PyAny>,
    path: &str,
    package: Option<&str>,
) -> PyResult<Found<'py>> {
    let py = fullname.py();
    if !class.is(hook.loader.bind(py)) {
        return Ok(Found::Other);
    }
    let location = PyString::new(py, path);
    let loader = class.call1((fullname, &location))?;
    spec_of(hook, fullname, loader, path, location, package).map(Found::Spec)
}

/// A spec as `spec_from_file_location` makes it.
pub(crate) fn spec_of<'py>(
    hook: &Hook,
    fullname: &Bound<'py, PyString>,
    loader: Bound<'py, PyAny>,
    path: &str,
    location: Bound<'py, PyString>,
    package: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = fullname.py();
    let stem = Naming::of(hook.sys.bind(py))?.and_then(|naming| naming.stem(path));
    let origin = PyDict::new(py);
    origin.set_item(intern!(py, "origin"), location)?;
    let spec = hook.module_spec.bind(py).call((fullname, loader), Some(&origin))?;
    spec.setattr(intern!(py, "has_location"), true)?;
    if let Some(package) = package {
        spec.setattr(intern!(py, "submodule_search_locations"), PyList::new(py, [package])?)?;
    }
    // Else it finds out itself when it is asked.
    if let Some(stem) = stem {
        spec.setattr(intern!(py, "cached"), stem + "pyc")?;
    }
    Ok(spec)
}

// --- Loading ---

/// `SourceLoader.get_code(loader, fullname)`.
#[pyfunction]
#[pyo3(signature = (loader, fullname))]
pub(crate) fn get_code<'py>(loader: &Bound<'py, PyAny>, fullname: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = loader.py();
    let hook = Hook::get(py)?;
    let cache = BUFFER.take();
    let mut cache = Cache { bytes: cache, len: 0 };
    let state = cached(hook, loader, fullname, &mut cache);
    cache.put_back();
    let why = match state? {
        State::Current(code) => {
            HITS.fetch_add(1, Ordering::Relaxed);
            return Ok(code);
        }
        State::Damaged(why) => Some(why),
        State::Absent => None,
        State::NotOurs => return hook.base_get_code.bind(py).call1((loader, fullname)),
    };
    MISSES.fetch_add(1, Ordering::Relaxed);
    let code = hook.base_get_code.bind(py).call1((loader, fullname))?;
    call_untraced(hook.missed.bind(py), (loader, why))?;
    Ok(code)
}

thread_local! {
    /// Room for the next file. It is taken while it is in use: a finalizer that runs meanwhile may import too.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Larger buffers are not kept.
const KEPT: usize = 1 << 20;

/// A file that was read.
struct Cache {
    bytes: Vec<u8>,
    len: usize,
}

impl Cache {
    fn put_back(self) {
        if self.bytes.len() <= KEPT {
            BUFFER.set(self.bytes);
        }
    }
}

/// What became of an initializer.
enum State<'py> {
    /// This is what it builds.
    Current(Bound<'py, PyAny>),
    /// There is none, or one of another source.
    Absent,
    /// Whether there is one is not for us to say.
    NotOurs,
    /// Why it cannot be used, for people.
    Damaged(String),
}

fn cached<'py>(
    hook: &Hook,
    loader: &Bound<'py, PyAny>,
    fullname: &Bound<'py, PyAny>,
    cache: &mut Cache,
) -> PyResult<State<'py>> {
    let py = loader.py();
    if !loader.get_type().is(hook.loader.bind(py)) || !is_fast(py)? {
        return Ok(State::NotOurs);
    }
    let Ok(filename) = loader.getattr(intern!(py, "path"))?.cast_into::<PyString>() else { return Ok(State::NotOurs) };
    // Importlib says what it thinks of another name.
    if !loader.getattr(intern!(py, "name"))?.eq(fullname)? {
        return Ok(State::NotOurs);
    }
    let Some(source) = hook.path(&filename) else { return Ok(State::NotOurs) };
    let Some(naming) = Naming::of(hook.sys.bind(py))? else { return Ok(State::NotOurs) };
    let Some(stem) = naming.stem(source) else { return Ok(State::NotOurs) };
    let Ok(metadata) = fs::metadata(source) else { return Ok(State::NotOurs) };
    let pyc = format!("{stem}pyc");
    let path = stem + "pyinit";
    audit_open(py, &path)?;
    // A file is read, not mapped: what was verified must not change. Most are small, and reading them is as fast.
    match cache::read(Path::new(&path), &mut cache.bytes) {
        Ok(len) => cache.len = len,
        Err(_) => return Ok(State::Absent),
    }
    let bytes = &cache.bytes[..cache.len];
    let Some(header) = Header::read(bytes) else {
        return Ok(State::Damaged(format!("the file ends inside its header (at byte {:#x})", bytes.len())));
    };
    let magic = u16::from_le_bytes([header.magic[0], header.magic[1]]);
    if header.magic[2..] != *b"\r\n" || magic != own_magic(py) {
        let own = own_magic(py);
        return Ok(State::Damaged(format!("its magic number is {magic}, this interpreter's {own} (at byte 0x0)")));
    }
    let is_current = match header.flags {
        0 => header.matches(&metadata),
        0b01 | 0b11 => is_hash_current(hook, loader, &filename, &header)?,
        flags => return Ok(State::Damaged(format!("header flags {flags:#x} are unknown (at byte 0x4)"))),
    };
    if !is_current {
        return Ok(State::Absent);
    }
    // Importlib would write the .pyc again: so it shall.
    if !Path::new(&pyc).exists() && call_untraced(hook.writes.bind(py), (pyc,))?.is_truthy()? {
        return Ok(State::Absent);
    }
    match execute_unstarted(py, bytes, Some(&filename)) {
        Ok(code) => {
            if let Some(verbose) = &hook.verbose {
                verbose.bind(py).call1(("{} matches {}", &path, &filename))?;
            }
            Ok(State::Current(code))
        }
        Err(error) if error.is_instance_of::<PyValueError>(py) => Ok(State::Damaged(error.value(py).to_string())),
        Err(error) => Err(error),
    }
}

/// Whether a cache that goes by the source's hash is to be believed: by `--check-hash-based-pycs`, its own flag, and the
/// hash.
pub(crate) fn is_hash_current(
    hook: &Hook,
    loader: &Bound<'_, PyAny>,
    filename: &Bound<'_, PyString>,
    header: &Header,
) -> PyResult<bool> {
    let py = loader.py();
    let imp = hook.imp.bind(py);
    let policy: String = imp.getattr(intern!(py, "check_hash_based_pycs"))?.extract()?;
    let is_checked = match &*policy {
        "never" => false,
        "always" => true,
        _ => header.flags & 0b10 != 0,
    };
    if !is_checked {
        return Ok(true);
    }
    let source = match loader.call_method1(intern!(py, "get_data"), (filename,)) {
        Ok(source) => source,
        // Importlib will meet it too.
        Err(error) if error.is_instance_of::<PyOSError>(py) => return Ok(false),
        Err(error) => return Err(error),
    };
    let hash = imp.call_method1(intern!(py, "source_hash"), (u32::from_le_bytes(header.magic), source))?;
    Ok(hash.cast::<PyBytes>()?.as_bytes() == header.rest)
}

/// Says what opening the file in Python would say: PEP 578.
pub(crate) fn audit_open(py: Python<'_>, path: &str) -> PyResult<()> {
    let path = PyString::new(py, path);
    // SAFETY: we are attached; the format takes an object, a text and an int.
    let status = unsafe { PySys_Audit(c"open".as_ptr(), c"Osi".as_ptr(), path.as_ptr(), c"rb".as_ptr(), 0 as c_int) };
    if status < 0 { Err(PyErr::fetch(py)) } else { Ok(()) }
}
