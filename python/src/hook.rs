//! What the import hook does most: finds a module in a folder, and takes its code object from the .pyinit.
//!
//! Both functions do what the methods of importlib do whose place they take, and leave everything rare to them: what importlib
//! has no loader for, whatever is not a source with a current initializer, and every derived class. A method that is not written in Python has no frame, so that a traceback
//! shows what it shows without the hook.
//!
//! Source: `FileFinder.find_spec` and `SourceLoader.get_code` of CPython `Lib/importlib/_bootstrap_external.py`.

use std::cell::RefCell;
use std::ffi::{c_char, c_int};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::call::PyCallArgs;
use pyo3::exceptions::{PyOSError, PyRecursionError, PyRuntimeError, PyValueError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyCode, PyDict, PyFloat, PyList, PySet, PyString, PyTuple};

use crate::cache::{self, Header, Naming};
use crate::convert::own_magic;
use crate::execute::{execute_unstarted, is_fast};

// Public functions that pyo3-ffi does not declare.
unsafe extern "C" {
    fn PyMethod_New(function: *mut ffi::PyObject, instance: *mut ffi::PyObject) -> *mut ffi::PyObject;
    fn PySys_Audit(event: *const c_char, format: *const c_char, ...) -> c_int;
}

/// Calls a function of ours that a debugger or a profiler need not see: importlib's, which they skip, has no such call.
fn call_untraced<'py>(function: &Bound<'py, PyAny>, args: impl PyCallArgs<'py>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: we are attached, and so is this thread again when the call returns.
    unsafe { ffi::PyThreadState_EnterTracing(ffi::PyThreadState_Get()) };
    let result = function.call1(args);
    // SAFETY: as above; what was entered is left once.
    unsafe { ffi::PyThreadState_LeaveTracing(ffi::PyThreadState_Get()) };
    result
}

/// A method that is a function of ours. As one written in Python it is itself when it is asked of its class, so that who takes
/// it from there can put it back.
#[pyclass(frozen, module = "rehydrate._native")]
pub(crate) struct Method {
    function: Py<PyAny>,
    /// The method whose place it takes.
    #[pyo3(get)]
    replaced: Py<PyAny>,
}

#[pymethods]
impl Method {
    #[new]
    #[pyo3(signature = (function, replaced, /))]
    fn new(function: Py<PyAny>, replaced: Py<PyAny>) -> Self {
        Self { function, replaced }
    }

    fn __get__<'py>(
        slf: &Bound<'py, Self>,
        instance: &Bound<'py, PyAny>,
        _class: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if instance.is_none() {
            return Ok(slf.clone().into_any());
        }
        // SAFETY: we are attached, and it gives a new reference or NULL.
        unsafe {
            let bound = PyMethod_New(slf.get().function.as_ptr(), instance.as_ptr());
            Bound::from_owned_ptr_or_err(slf.py(), bound)
        }
    }

    #[pyo3(signature = (*args, **kwargs))]
    fn __call__<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.function.bind(args.py()).call(args, kwargs)
    }

    /// What it has not itself it has of the method that it replaces: its name and signature, for two.
    fn __getattr__<'py>(&self, py: Python<'py>, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
        self.replaced.bind(py).getattr(name)
    }
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
    /// Importlib's loaders of what is not a source: extension modules, and a .pyc alone.
    pub(crate) extension_loader: Py<PyAny>,
    sourceless_loader: Py<PyAny>,
    /// What the names of extension modules end with.
    extension_suffixes: Vec<String>,
    /// How the loader reads: [`READS`], as they were.
    reads: [Py<PyAny>; READS.len()],
    /// `rehydrate._hook`.
    own: Py<PyModule>,
    pub(crate) bundle_loader: Py<PyAny>,
    /// `importlib._bootstrap._verbose_message`, if the interpreter was started with -v.
    verbose: Option<Py<PyAny>>,
    is_very_verbose: bool,
    /// Whether paths that are not ASCII are UTF-8 to the system too.
    is_utf8: bool,
}

/// The methods of loaders that the hook does without.
const READS: [&str; 3] = ["get_filename", "path_stats", "get_data"];

static HOOK: PyOnceLock<Hook> = PyOnceLock::new();

impl Hook {
    pub(crate) fn get(py: Python<'_>) -> PyResult<&Self> {
        HOOK.get(py).ok_or_else(|| PyRuntimeError::new_err("rehydrate._hook was not imported"))
    }

    fn new<'py>(own: &Bound<'py, PyModule>) -> PyResult<Self> {
        let py = own.py();
        let sys = py.import("sys")?;
        let bootstrap = py.import("_frozen_importlib")?;
        let external = py.import("_frozen_importlib_external")?;
        let verbosity: i32 = sys.getattr("flags")?.getattr("verbose")?.extract()?;
        let verbose = match verbosity {
            0 => None,
            _ => Some(bootstrap.getattr("_verbose_message")?.unbind()),
        };
        let loader = external.getattr("SourceFileLoader")?;
        let [filename, stats, data] = READS.map(|name| loader.getattr(name));
        let imp = py.import("_imp")?;
        let encoding: String = sys.call_method0("getfilesystemencoding")?.extract()?;
        Ok(Self {
            sys: sys.dict().unbind(),
            extension_suffixes: imp.call_method0("extension_suffixes")?.extract()?,
            imp: imp.unbind(),
            module_spec: bootstrap.getattr("ModuleSpec")?.unbind(),
            base_get_code: own.getattr("base_get_code")?.unbind(),
            base_find_spec: own.getattr("base_find_spec")?.unbind(),
            reads: [filename?.unbind(), stats?.unbind(), data?.unbind()],
            loader: loader.unbind(),
            finder: external.getattr("FileFinder")?.unbind(),
            extension_loader: external.getattr("ExtensionFileLoader")?.unbind(),
            sourceless_loader: external.getattr("SourcelessFileLoader")?.unbind(),
            own: own.clone().unbind(),
            bundle_loader: own.getattr("BundleLoader")?.unbind(),
            verbose,
            is_very_verbose: verbosity > 1,
            is_utf8: encoding == "utf-8",
        })
    }

    /// Whether a loader reads as importlib does: nobody gave it, or its class, another way.
    pub(crate) fn reads_as_importlib(&self, loader: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = loader.py();
        let names = [intern!(py, READS[0]), intern!(py, READS[1]), intern!(py, READS[2])];
        let (class, own) = (self.loader.bind(py), loader.getattr(intern!(py, "__dict__"))?);
        for (name, method) in names.into_iter().zip(&self.reads) {
            if !class.getattr_opt(name)?.is_some_and(|now| now.is(method)) || own.contains(name)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a file of this name is the extension module of this name, and of this interpreter.
    pub(crate) fn is_extension(&self, file: &str, fullname: &str) -> bool {
        let tail = fullname.rsplit_once('.').map_or(fullname, |(_, tail)| tail);
        file.strip_prefix(tail).is_some_and(|suffix| self.extension_suffixes.iter().any(|own| own == suffix))
    }

    /// Calls a function of `rehydrate._hook`, for what is rare.
    pub(crate) fn call_own<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        args: impl PyCallArgs<'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        call_untraced(&self.own.bind(py).getattr(name)?, args)
    }

    /// A path as the system takes it, if it is the same text.
    pub(crate) fn path<'a>(&self, path: &'a Bound<'_, PyString>) -> Option<&'a str> {
        path.to_str().ok().filter(|path| self.is_utf8 || path.is_ascii())
    }
}

/// Takes what the hook needs of `rehydrate._hook`, once a process: before there is a hook, as an import in between would need it.
#[pyfunction]
#[pyo3(signature = (own, /))]
pub(crate) fn prepare(own: &Bound<'_, PyModule>) -> PyResult<()> {
    if HOOK.get(own.py()).is_none() {
        let hook = Hook::new(own)?;
        _ = HOOK.set(own.py(), hook);
    }
    Ok(())
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
    Spec(Bound<'py, PyAny>),
    Nothing,
    /// What has a loader that is not importlib's, a part of a namespace package, a name we do not take.
    Other,
}

fn found<'py>(hook: &Hook, finder: &Bound<'py, PyAny>, fullname: &Bound<'py, PyString>) -> PyResult<Found<'py>> {
    let py = finder.py();
    let Ok(folder) = finder.getattr(intern!(py, "path"))?.cast_into::<PyString>() else { return Ok(Found::Other) };
    let (Some(folder), Some(name)) = (hook.path(&folder), hook.path(fullname)) else { return Ok(Found::Other) };
    if hook.is_very_verbose || !folder.starts_with('/') || !finder.get_type().is(hook.finder.bind(py)) {
        return Ok(Found::Other);
    }
    let names = names(finder, folder)?;
    let folder = folder.trim_end_matches('/');
    let tail = name.rsplit_once('.').map_or(name, |(_, tail)| tail);
    let Ok(loaders) = finder.getattr(intern!(py, "_loaders"))?.cast_into::<PyList>() else { return Ok(Found::Other) };
    let is_folder = names.contains(tail)?;
    if is_folder {
        let base = format!("{folder}/{tail}");
        for pair in &loaders {
            let (suffix, class): (Bound<'py, PyString>, Bound<'py, PyAny>) = pair.extract()?;
            let path = format!("{base}/__init__{}", suffix.to_str()?);
            if is_file(py, &path) {
                return spec(hook, fullname, class, &path, Some(&base));
            }
        }
    }
    for pair in &loaders {
        let (suffix, class): (Bound<'py, PyString>, Bound<'py, PyAny>) = pair.extract()?;
        let file = format!("{tail}{}", suffix.to_str()?);
        if names.contains(&file)? {
            let path = format!("{folder}/{file}");
            if is_file(py, &path) {
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
    let mtime = stat(py, folder).map_or(-1.0, |metadata| cache::mtime(&metadata));
    if finder.getattr(seen)?.extract::<f64>()? != mtime {
        finder.call_method0(intern!(py, "_fill_cache"))?;
        finder.setattr(seen, PyFloat::new(py, mtime))?;
    }
    Ok(finder.getattr(intern!(py, "_path_cache"))?.cast_into::<PySet>()?)
}

/// What the file system says of a path, which may take its time: other threads go on meanwhile.
pub(crate) fn stat(py: Python<'_>, path: &str) -> Option<fs::Metadata> {
    py.detach(|| fs::metadata(path)).ok()
}

pub(crate) fn is_file(py: Python<'_>, path: &str) -> bool {
    stat(py, path).is_some_and(|metadata| metadata.is_file())
}

/// What `spec_from_file_location` makes, if the loader is one of importlib's.
fn spec<'py>(
    hook: &Hook,
    fullname: &Bound<'py, PyString>,
    class: Bound<'py, PyAny>,
    path: &str,
    package: Option<&str>,
) -> PyResult<Found<'py>> {
    let py = fullname.py();
    if ![&hook.loader, &hook.extension_loader, &hook.sourceless_loader].iter().any(|loader| class.is(loader)) {
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
    let naming = if path.ends_with(".py") { Naming::of(hook.sys.bind(py))? } else { None };
    let stem = naming.and_then(|naming| naming.stem(path));
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
    hook.call_own(py, "missed", (loader, why))?;
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
    if !loader.get_type().is(hook.loader.bind(py)) || !is_fast(py)? || !hook.reads_as_importlib(loader)? {
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
    let Some(metadata) = stat(py, source) else { return Ok(State::NotOurs) };
    let pyc = format!("{stem}pyc");
    let path = stem + "pyinit";
    match audit_open(py, &path) {
        Err(error) if error.is_instance_of::<PyOSError>(py) => return Ok(State::Absent),
        audited => audited?,
    }
    // A file is read, not mapped: what was verified must not change. Most are small, and reading them is as fast.
    match py.detach(|| cache::read(Path::new(&path), &mut cache.bytes)) {
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
        // Where nobody asks for the source, the .pyc is believed, and who compiled that anew wants to see it.
        0b01 | 0b11 => match is_hash_current(hook, loader, &filename, &header)? {
            None => cache::begins_with(Path::new(&pyc), &bytes[..Header::LEN]),
            Some(is_current) => is_current,
        },
        flags => return Ok(State::Damaged(format!("header flags {flags:#x} are unknown (at byte 0x4)"))),
    };
    if !is_current {
        return Ok(State::Absent);
    }
    // Importlib would write the .pyc again: so it shall.
    if stat(py, &pyc).is_none() && hook.call_own(py, "writes", (pyc,))?.is_truthy()? {
        return Ok(State::Absent);
    }
    match execute_unstarted(py, bytes, Some(&filename)) {
        Ok(code) if code.is_instance_of::<PyCode>() => {
            if let Some(verbose) = &hook.verbose {
                verbose.bind(py).call1(("{} matches {}", &path, &filename))?;
                verbose.bind(py).call1(("code object from {!r}", &path))?;
            }
            Ok(State::Current(code))
        }
        Ok(_) => Ok(State::Damaged("it makes no code object".to_owned())),
        Err(error) if is_damage(py, &error) => Ok(State::Damaged(error.value(py).to_string())),
        Err(error) => Err(error),
    }
}

/// Whether an error says that an initializer is refused: what nests too deep for the interpreter to compare is, too.
pub(crate) fn is_damage(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyValueError>(py) || error.is_instance_of::<PyRecursionError>(py)
}

/// Whether a cache that goes by the source's hash is of the source as it is; nothing if nobody is to ask, by
/// `--check-hash-based-pycs` and its own flag.
pub(crate) fn is_hash_current(
    hook: &Hook,
    loader: &Bound<'_, PyAny>,
    filename: &Bound<'_, PyString>,
    header: &Header,
) -> PyResult<Option<bool>> {
    let py = loader.py();
    let imp = hook.imp.bind(py);
    let policy: String = imp.getattr(intern!(py, "check_hash_based_pycs"))?.extract()?;
    let is_checked = match &*policy {
        "never" => false,
        "always" => true,
        _ => header.flags & 0b10 != 0,
    };
    if !is_checked {
        return Ok(None);
    }
    let source = match loader.call_method1(intern!(py, "get_data"), (filename,)) {
        Ok(source) => source,
        // Importlib will meet it too.
        Err(error) if error.is_instance_of::<PyOSError>(py) => return Ok(Some(false)),
        Err(error) => return Err(error),
    };
    let hash = imp.call_method1(intern!(py, "source_hash"), (u32::from_le_bytes(header.magic), source))?;
    Ok(Some(hash.cast::<PyBytes>()?.as_bytes() == header.rest))
}

/// With which Python opens a file to read it.
const OPEN_FLAGS: c_int = if cfg!(unix) { libc::O_RDONLY | libc::O_CLOEXEC } else { 0 };

/// Says what opening the file in Python would say: PEP 578.
pub(crate) fn audit_open(py: Python<'_>, path: &str) -> PyResult<()> {
    let path = PyString::new(py, path);
    // SAFETY: we are attached; the format takes an object, a text and an int.
    let status = unsafe { PySys_Audit(c"open".as_ptr(), c"Osi".as_ptr(), path.as_ptr(), c"r".as_ptr(), OPEN_FLAGS) };
    if status < 0 { Err(PyErr::fetch(py)) } else { Ok(()) }
}
