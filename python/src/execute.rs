//! Executes initializers into objects of the interpreter, in the pass that verifies them.
//!
//! Invariant: an object of the verifier's stack is a reference to it, which the verifier releases or hands on; but from 3.12 on,
//! names are immortal.

use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::ptr;

use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyString};
use rehydrate::bundle::Bundle;
use rehydrate::common::{self, CommonConst};
use rehydrate::isa::{Instruction, Intrinsic, Op, Section};
use rehydrate::python::{Field, KindCounts, Python as Version, count_kinds};
use rehydrate::verify::{
    Checked, CodeStep, Commons, Executor, Fill, Items, NameRun, Step, TableOrigin, TableStep, Values,
};
use rehydrate::{Image, Initializer, Object, caches, verify, vm};

use crate::effort::{Effort, TOO_MANY, TOO_MUCH, TOO_OFTEN};
use crate::heap::make_room;
use crate::layout::{AsciiStr, CodeObject, PYTHON};
use crate::make::{CodeFields, Heads};
use crate::names::{MAX_BYTES, MAX_NAMES, Names};
use crate::prefetch::prefetch_all;
use crate::probe::{Probed, PyCode_NewWithPosOnlyArgs, is_immortal};
use crate::readable::looks_strange;

/// What the executors of an interpreter share. PyO3 lets one interpreter of a process import the module.
struct Shared {
    probed: Probed,
    /// Of which no borrow lasts while the interpreter can run code.
    names: UnsafeCell<Names>,
    common: UnsafeCell<Common>,
    /// What the tests ask for.
    forced: UnsafeCell<Option<Path>>,
}

// SAFETY: it is used under the GIL alone; where there is none, nothing of it is.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

static SHARED: PyOnceLock<Shared> = PyOnceLock::new();

/// How code objects are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    /// Their fields are written where the interpreter keeps them.
    Direct,
    /// By the interpreter's constructor.
    Constructor,
    /// By `marshal`, from a dump that our machine writes.
    Marshal,
}

impl Path {
    const ALL: [(Self, &str); 3] =
        [(Self::Direct, "direct"), (Self::Constructor, "constructor"), (Self::Marshal, "marshal")];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(path, _)| *path == self).map_or("", |(_, name)| name)
    }
}

/// Values that every initializer can load: references that are kept, or null for what was not needed yet.
struct Common {
    ints: [*mut PyObject; 256],
    chars: [*mut PyObject; 256],
    bytes: [*mut PyObject; 256],
    names: [*mut PyObject; common::NAMES.len()],
    empty_tuple: *mut PyObject,
    empty_str: *mut PyObject,
    empty_bytes: *mut PyObject,
    minus_one: *mut PyObject,
    /// As they are from 3.12 on.
    are_immortal: AreImmortal,
}

impl Shared {
    fn get(py: Python<'_>) -> PyResult<&'static Self> {
        match SHARED.get(py) {
            Some(shared) => Ok(shared),
            None => Self::first(py),
        }
    }

    #[cold]
    fn first(py: Python<'_>) -> PyResult<&'static Self> {
        // Not inside of the cell: a finalizer that runs meanwhile may come here, too. Who comes late drops its own.
        let new = Self::new(py)?;
        Ok(SHARED.get_or_init(py, || new))
    }

    fn new(py: Python<'_>) -> PyResult<Self> {
        let probed = Probed::new(py)?;
        let null = ptr::null_mut();
        // SAFETY: the GIL is held; these give references to what always exists, or null.
        let mut common = unsafe {
            Common {
                ints: [null; 256],
                chars: [null; 256],
                bytes: [null; 256],
                names: [null; common::NAMES.len()],
                empty_tuple: ffi::PyTuple_New(0),
                empty_str: ffi::PyUnicode_FromStringAndSize(c"".as_ptr(), 0),
                empty_bytes: ffi::PyBytes_FromStringAndSize(c"".as_ptr(), 0),
                minus_one: ffi::PyLong_FromLong(-1),
                are_immortal: AreImmortal(true),
            }
        };
        let singletons = [common.empty_tuple, common.empty_str, common.empty_bytes, common.minus_one];
        // SAFETY: these always exist.
        let constants =
            unsafe { [ffi::Py_None(), ffi::Py_True(), ffi::Py_False(), ffi::Py_Ellipsis(), ffi::PyExc_StopIteration] };
        // SAFETY: objects, or null.
        let is = |object: &*mut PyObject| !object.is_null() && unsafe { is_immortal(*object) };
        common.are_immortal.0 = singletons.iter().chain(&constants).all(is);
        Ok(Self {
            probed,
            names: UnsafeCell::new(Names::new()),
            common: UnsafeCell::new(common),
            forced: UnsafeCell::new(None),
        })
    }

    /// How code objects are made now, and why not in the fastest way.
    fn path(&self) -> (Path, Option<&'static str>) {
        // SAFETY: under the GIL, and for no longer than this.
        if let Some(forced) = unsafe { *self.forced.get() } {
            return (forced, Some("it was asked for"));
        }
        match (&self.probed.heads, self.probed.refuses_direct()) {
            (_, None) => (Path::Direct, None),
            (Ok(_), why) => (Path::Constructor, why),
            // The constructor loses kinds of variables, and where to mend them is not known.
            (Err(_), why) => (Path::Marshal, why),
        }
    }
}

/// Why a stream gives no objects: one pointer, so that what succeeds is returned in a register.
pub(crate) struct Failure(Box<Why>);

enum Why {
    /// It is refused.
    Refused(rehydrate::Error),
    /// The interpreter says so.
    Raised(PyErr),
    /// The interpreter's constructor cannot make one of its code objects as it is.
    NotConstructible,
}

impl Failure {
    #[cold]
    fn new(why: Why) -> Self {
        Self(Box::new(why))
    }
}

impl From<rehydrate::Error> for Failure {
    fn from(error: rehydrate::Error) -> Self {
        Self::new(Why::Refused(error))
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self::new(Why::Raised(error))
    }
}

type Outcome<T = ()> = Result<T, Failure>;

/// Executes an initializer: a bare container, or a whole .pyinit. What has the filename that the container states gets
/// `filename` instead.
///
/// # Errors
/// ValueError for a stream that is refused, or of another Python.
pub(crate) fn execute<'py>(
    py: Python<'py>,
    stream: &[u8],
    filename: Option<&Bound<'py, PyString>>,
) -> PyResult<Bound<'py, PyAny>> {
    match made(py, stream, filename)? {
        (image, code, true) => start(py, &image, code),
        (_, result, false) => Ok(result),
    }
}

/// As [`execute`], but runs nothing: what ends in START_CODE gives the code object that it would start.
///
/// # Errors
/// As [`execute`].
pub(crate) fn execute_unstarted<'py>(
    py: Python<'py>,
    stream: &[u8],
    filename: Option<&Bound<'py, PyString>>,
) -> PyResult<Bound<'py, PyAny>> {
    made(py, stream, filename).map(|(_, result, _)| result)
}

/// What an initializer makes, and whether it is a code object that is to be started.
fn made<'py, 's>(
    py: Python<'py>,
    stream: &'s [u8],
    filename: Option<&Bound<'py, PyString>>,
) -> PyResult<(Image<'s>, Bound<'py, PyAny>, bool)> {
    let shared = Shared::get(py)?;
    let refused = |error: rehydrate::Error| PyValueError::new_err(error.to_string());
    prefetch_all(stream);
    let initializer = Initializer::read(stream).map_err(refused)?;
    let image = &initializer.image;
    if image.magic != shared.probed.python.magic() {
        let why = format!(
            "an initializer of magic number {} ({}), and this Python has {} ({})",
            image.magic,
            image.python().map_err(refused)?,
            shared.probed.python.magic(),
            shared.probed.python,
        );
        return Err(PyValueError::new_err(why));
    }
    let (result, starts) = built(py, shared, image, None, filename)?;
    Ok((initializer.image, result, starts))
}

/// What an image makes, against the table of its bundle if it is of one, and whether it is to be started.
fn built<'py>(
    py: Python<'py>,
    shared: &'static Shared,
    image: &Image<'_>,
    of: Option<(&Bundle<'_>, &BundleValues)>,
    filename: Option<&Bound<'py, PyString>>,
) -> PyResult<(Bound<'py, PyAny>, bool)> {
    make_room();
    let (path, _) = shared.path();
    if path == Path::Marshal {
        return through_marshal(py, image, of, filename);
    }
    let values = of.map(|(_, values)| values);
    let commons = values.map(|values| &values.commons);
    let executed = match &shared.probed.heads {
        Ok(heads) if path == Path::Direct => {
            verify::execute_with(image, commons, Machine::<true>::new(py, shared, *heads, image, values, filename))
        }
        Ok(heads) => {
            verify::execute_with(image, commons, Machine::<false>::new(py, shared, *heads, image, values, filename))
        }
        Err(_) => Err(Failure::new(Why::NotConstructible)),
    };
    match executed.map_err(|failure| *failure.0) {
        // SAFETY: a reference that the machine gave up.
        Ok((result, starts)) => Ok((unsafe { Bound::from_owned_ptr(py, result) }, starts)),
        Err(Why::Refused(error)) => Err(PyValueError::new_err(error.to_string())),
        Err(Why::Raised(error)) => Err(error),
        Err(Why::NotConstructible) => through_marshal(py, image, of, filename),
    }
}

/// The values that the initializers of a bundle load from its table, behind those that all initializers can load.
pub(crate) struct BundleValues {
    commons: Commons,
    /// The tuple that holds those of the table.
    tuple: *mut PyObject,
    names: Vec<*mut PyObject>,
    consts: Vec<*mut PyObject>,
}

// SAFETY: they are used, and dropped, under the GIL alone.
unsafe impl Send for BundleValues {}
// SAFETY: as above.
unsafe impl Sync for BundleValues {}

impl Drop for BundleValues {
    fn drop(&mut self) {
        let built_in = self.names.iter().take(common::NAMES.len()).chain(self.consts.iter().take(common::CONSTS.len()));
        for object in built_in.chain([&self.tuple]) {
            // SAFETY: references that it holds; a bundle is dropped under the GIL.
            unsafe { ffi::Py_XDECREF(*object) };
        }
    }
}

/// Whether an initializer is executed faster than `marshal` reads a dump.
pub(crate) fn is_fast(py: Python<'_>) -> PyResult<bool> {
    Ok(Shared::get(py)?.path().0 != Path::Marshal)
}

/// Why this interpreter cannot use bundles, if it cannot.
pub(crate) fn refuses_bundles(py: Python<'_>) -> PyResult<Option<&'static str>> {
    Ok(Shared::get(py)?.probed.heads.as_ref().err().copied())
}

/// Builds the table of a bundle.
///
/// # Errors
/// ValueError for one that is refused.
pub(crate) fn build_table(py: Python<'_>, bundle: &Bundle<'_>) -> PyResult<BundleValues> {
    let shared = Shared::get(py)?;
    let refused = |error: rehydrate::Error| PyValueError::new_err(error.to_string());
    let image = &bundle.table_image().map_err(refused)?;
    let heads = shared.probed.heads.as_ref().map_err(|why| PyValueError::new_err(*why))?;
    let machine = Machine::<false>::new(py, shared, *heads, image, None, None);
    let executed = verify::execute_table(image, bundle.n_names(), machine).map_err(|failure| *failure.0);
    let (tuple, commons) = executed.map_err(|why| match why {
        Why::Refused(error) => refused(error),
        Why::Raised(error) => error,
        Why::NotConstructible => PyValueError::new_err("the table of the bundle holds a code object"),
    })?;
    let mut machine = Machine::<false>::new(py, shared, *heads, image, None, None);
    let mut load =
        |op, n: usize| (0..n as u32).map(|oparg| machine.common(Instruction { op, oparg }).0).collect::<Vec<_>>();
    let names = load(Op::LoadCommonName, common::NAMES.len());
    let consts = load(Op::LoadCommonConst, common::CONSTS.len());
    let n_consts = commons.n_consts();
    let mut values = BundleValues { commons, tuple, names, consts };
    bundle.check_table(n_consts).map_err(refused)?;
    if values.names.iter().chain(&values.consts).any(|object| object.is_null()) {
        return Err(PyErr::take(py).unwrap_or_else(|| PyMemoryError::new_err(())));
    }
    // SAFETY: the verifier says that it is a tuple of so many.
    let item = |at: usize| unsafe { ffi::PyTuple_GetItem(tuple, at as isize) };
    let n_names = bundle.n_names();
    values.names.extend((0..n_names).map(item));
    values.consts.extend((n_names..n_names + bundle.n_consts()).map(item));
    // SAFETY: objects.
    if cfg!(Py_3_12) && !values.names.iter().all(|name| unsafe { is_immortal(*name) }) {
        return Err(PyValueError::new_err("there are too many names for those of its table to be kept for ever"));
    }
    Ok(values)
}

/// Builds a code object of a bundle.
///
/// # Errors
/// ValueError for one that is refused.
pub(crate) fn execute_bundled<'py>(
    py: Python<'py>,
    bundle: &Bundle<'_>,
    values: &BundleValues,
    image: &Image<'_>,
    filename: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyAny>> {
    built(py, Shared::get(py)?, image, Some((bundle, values)), Some(filename)).map(|(result, _)| result)
}

/// Executes a code object in a new module, and gives the module.
fn start<'py>(py: Python<'py>, image: &Image<'_>, code: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let module = pyo3::types::PyModule::new(py, &image.module)?;
    let globals = module.dict();
    globals.set_item("__builtins__", py.import("builtins")?)?;
    globals.set_item("__file__", code.getattr("co_filename")?)?;
    // SAFETY: the verifier says that it is a code object; the others are dicts.
    unsafe {
        let result = ffi::PyEval_EvalCode(code.as_ptr(), globals.as_ptr(), globals.as_ptr());
        Bound::from_owned_ptr_or_err(py, result)?;
    }
    Ok(module.into_any())
}

/// What our machine makes of an initializer, written as a dump and read by `marshal`.
fn through_marshal<'py>(
    py: Python<'py>,
    image: &Image<'_>,
    of: Option<(&Bundle<'_>, &BundleValues)>,
    filename: Option<&Bound<'py, PyString>>,
) -> PyResult<(Bound<'py, PyAny>, bool)> {
    let refused = |error: rehydrate::Error| PyValueError::new_err(error.to_string());
    let table = of.map(|(bundle, _)| bundle.table()).transpose().map_err(refused)?;
    let verified = verify::verify_with(image.clone(), table.as_ref()).map_err(refused)?;
    let (heap, root) = vm::run(&verified);
    Effort::of(image).allow_all(&heap).map_err(PyValueError::new_err)?;
    for code in heap.codes() {
        // `marshal` looks at none of this.
        let bytes = |field| match heap[code.object(field)] {
            Object::Bytes(bytes) => bytes,
            _ => unreachable!("the verifier says that it is bytes"),
        };
        check_sound(heap.python(), bytes(Field::Code))
            .and_then(|()| check_kinds(count_kinds(bytes(Field::LocalsPlusKinds))))
            .map_err(PyValueError::new_err)?;
    }
    let dump = rehydrate::marshal::write(&heap, root).map_err(refused)?;
    let result = py.import("marshal")?.call_method1("loads", (PyBytes::new(py, &dump),))?;
    if let Some(filename) = filename
        && result.get_type().name()? == "code"
    {
        py.import("_imp")?.call_method1("_fix_co_filename", (&result, filename))?;
    }
    Ok((result, verified.starts_code()))
}

/// Which path is active and why, and what is kept.
pub(crate) fn status(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let shared = Shared::get(py)?;
    let (path, why) = shared.path();
    // SAFETY: under the GIL, and for no longer than this.
    let (n_names, n_bytes) = unsafe { (*shared.names.get()).size() };
    let status = PyDict::new(py);
    status.set_item("python", shared.probed.python.to_string())?;
    status.set_item("path", path.name())?;
    status.set_item("reason", why)?;
    let names = PyDict::new(py);
    names.set_item("count", n_names)?;
    names.set_item("bytes", n_bytes)?;
    names.set_item("max_count", MAX_NAMES)?;
    names.set_item("max_bytes", MAX_BYTES)?;
    names.set_item("immortal", cfg!(Py_3_12))?;
    status.set_item("names", names)?;
    Ok(status)
}

/// Makes code objects in this way from now on, or in the fastest one that is possible: for tests and benchmarks.
///
/// # Errors
/// ValueError for what is not the name of a way, or is not possible.
pub(crate) fn force_path(py: Python<'_>, name: Option<&str>) -> PyResult<()> {
    let shared = Shared::get(py)?;
    let path = match name {
        None => None,
        Some(name) => {
            let path = Path::ALL.iter().find(|(_, spelled)| *spelled == name).map(|(path, _)| *path);
            let is_possible = match path {
                None => false,
                Some(Path::Direct) => shared.probed.refuses_direct().is_none(),
                Some(Path::Constructor) => shared.probed.heads.is_ok(),
                Some(Path::Marshal) => true,
            };
            Some(path.filter(|_| is_possible).ok_or_else(|| PyValueError::new_err("no such path here"))?)
        }
    };
    // SAFETY: under the GIL, and for no longer than this.
    unsafe { *shared.forced.get() = path };
    Ok(())
}

/// Executes one initializer. `DIRECT` says how code objects are made.
struct Machine<'m, const DIRECT: bool> {
    py: Python<'m>,
    shared: &'static Shared,
    heads: Heads,
    /// So many tuples were made without the interpreter.
    n_tuples: usize,
    /// The values of the table of its bundle.
    values: Option<&'m BundleValues>,
    /// By section: the tables that have numbers.
    tables: [Vec<*mut PyObject>; Section::ALL.len()],
    scratch: Vec<u8>,
    effort: Effort,
    /// Where the image's bytecode begins, and that no unit of it, from there on, looks like an opcode of a running interpreter.
    bytecode_start: usize,
    has_plain_bytecode: bool,
    /// The filename that the container states, and the one that takes its place.
    stated_filename: &'m str,
    filename: Option<*mut PyObject>,
    /// A str whose text is the stated filename. It is kept: another could take its place in memory.
    replaced: Option<Bound<'m, PyAny>>,
}

impl<const DIRECT: bool> Drop for Machine<'_, DIRECT> {
    fn drop(&mut self) {
        self.shared.probed.count_tuples(self.n_tuples);
        // SAFETY: the machine holds these references.
        self.tables.iter().flatten().for_each(|table| unsafe { ffi::Py_DECREF(*table) });
    }
}

impl<'m, const DIRECT: bool> Machine<'m, DIRECT> {
    fn new(
        py: Python<'m>,
        shared: &'static Shared,
        heads: Heads,
        image: &'m Image<'_>,
        values: Option<&'m BundleValues>,
        filename: Option<&Bound<'m, PyString>>,
    ) -> Self {
        let bytecode = image.section(Section::Bytecode);
        Self {
            py,
            shared,
            heads,
            n_tuples: 0,
            values,
            tables: Default::default(),
            scratch: Vec::new(),
            effort: Effort::of(image),
            bytecode_start: bytecode.as_ptr().addr(),
            has_plain_bytecode: !looks_strange(bytecode),
            stated_filename: &image.filename,
            // The stream's own is interned, as marshal's is, so it stays where it is the same.
            filename: filename
                .filter(|filename| filename.to_string_lossy() != image.filename)
                .map(|filename| filename.as_ptr()),
            replaced: None,
        }
    }

    #[cold]
    fn raised(&self) -> Failure {
        Failure::new(Why::Raised(PyErr::take(self.py).unwrap_or_else(|| PyMemoryError::new_err(()))))
    }

    /// What was made; null is an error.
    #[inline(always)]
    fn made(&self, object: *mut PyObject) -> Outcome<*mut PyObject> {
        if object.is_null() { Err(self.raised()) } else { Ok(object) }
    }

    /// A new reference to what every initializer of its bundle, or every one at all, can load; and whether it is immortal. Null if
    /// there is no memory.
    fn common(&mut self, Instruction { op, oparg }: Instruction) -> (*mut PyObject, bool) {
        let n = oparg as usize;
        if let Some(values) = self.values {
            let (object, is_immortal) = match op {
                Op::LoadCommonName => (values.names.get(n), cfg!(Py_3_12)),
                Op::LoadCommonConst => (values.consts.get(n), false),
                _ => (None, false),
            };
            if let Some(object) = object {
                if !is_immortal {
                    // SAFETY: an object.
                    unsafe { ffi::Py_INCREF(*object) };
                }
                return (*object, is_immortal);
            }
        }
        // SAFETY: the GIL is held; nothing here runs code, so the borrow is the only one.
        unsafe {
            let common = &mut *self.shared.common.get();
            let object = match op {
                Op::LoadInt => common.are_immortal.kept(&mut common.ints[n], || ffi::PyLong_FromLong(n as _)),
                Op::LoadChar => {
                    let intern = self.shared.probed.intern;
                    let is_name = n < 128 && (n as u8 as char).is_ascii_alphanumeric() || n == usize::from(b'_');
                    common.are_immortal.kept(&mut common.chars[n], || match ffi::PyUnicode_FromOrdinal(n as _) {
                        char if char.is_null() || !is_name => char,
                        char => intern.for_ever(char),
                    })
                }
                Op::LoadCommonName => {
                    let intern = self.shared.probed.intern;
                    common.are_immortal.kept(&mut common.names[n], || {
                        let text = common::NAMES[n];
                        match ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast(), text.len() as isize) {
                            name if name.is_null() => name,
                            name => intern.for_ever(name),
                        }
                    })
                }
                _ => match common::CONSTS[n].0 {
                    CommonConst::None => ffi::Py_None(),
                    CommonConst::True => ffi::Py_True(),
                    CommonConst::False => ffi::Py_False(),
                    CommonConst::Ellipsis => ffi::Py_Ellipsis(),
                    CommonConst::StopIteration => ffi::PyExc_StopIteration,
                    CommonConst::EmptyTuple => common.empty_tuple,
                    CommonConst::EmptyStr => common.empty_str,
                    CommonConst::EmptyBytes => common.empty_bytes,
                    CommonConst::MinusOne => common.minus_one,
                    // There may be several.
                    CommonConst::EmptyFrozenSet => return (ffi::PyFrozenSet_New(ptr::null_mut()), false),
                },
            };
            if !common.are_immortal.0 {
                ffi::Py_XINCREF(object);
            }
            (object, common.are_immortal.0)
        }
    }

    /// A new reference to a str of ASCII, not interned.
    #[inline(always)]
    fn ascii(&self, text: &[u8]) -> *mut PyObject {
        // SAFETY: the GIL is held; the text is ASCII.
        unsafe {
            match text.len() {
                ..2 => ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast(), text.len() as isize),
                _ => self.heads.ascii(text),
            }
        }
    }

    /// A new reference to a str that is not all ASCII.
    fn wide(text: &[u8]) -> *mut PyObject {
        // SAFETY: the GIL is held.
        unsafe { ffi::PyUnicode_DecodeUTF8(text.as_ptr().cast(), text.len() as isize, c"surrogatepass".as_ptr()) }
    }

    /// A new reference to a str.
    #[inline(always)]
    fn string(&self, text: &[u8], wide: bool, interned: bool) -> *mut PyObject {
        let object = if wide { Self::wide(text) } else { self.ascii(text) };
        match interned && !object.is_null() {
            // SAFETY: a str.
            true => unsafe { self.shared.probed.intern.while_used(object) },
            false => object,
        }
    }

    /// A new reference to bytes.
    #[inline(always)]
    fn bytes(&self, bytes: &[u8]) -> *mut PyObject {
        // SAFETY: the GIL is held; nothing here runs code.
        unsafe {
            match bytes {
                [] | [_] => {
                    let common = &mut *self.shared.common.get();
                    let object = match bytes {
                        [byte] => common.are_immortal.kept(&mut common.bytes[usize::from(*byte)], || {
                            ffi::PyBytes_FromStringAndSize(bytes.as_ptr().cast(), 1)
                        }),
                        _ => common.empty_bytes,
                    };
                    ffi::Py_XINCREF(object);
                    object
                }
                _ => self.heads.bytes(bytes),
            }
        }
    }

    /// A tuple of values on top of the stack.
    fn top_tuple(&mut self, items: Values<'_, *mut PyObject>, holds_collectable: bool) -> *mut PyObject {
        let n = items.iter().len();
        // SAFETY: the GIL is held. Until its items are written, nobody sees the tuple: the collector does not run between.
        unsafe {
            let (tuple, places) = match n {
                0 => return ffi::Py_NewRef((*self.shared.common.get()).empty_tuple),
                _ => self.heads.tuple(n),
            };
            if !tuple.is_null() {
                self.n_tuples += 1;
                items.iter().enumerate().for_each(|(at, object)| places.add(at).write(object));
                if holds_collectable {
                    ffi::PyObject_GC_Track(tuple.cast());
                }
            }
            tuple
        }
    }

    fn list(items: Values<'_, *mut PyObject>) -> *mut PyObject {
        // SAFETY: the GIL is held; a new list takes over the references.
        unsafe {
            let list = ffi::PyList_New(items.iter().len() as isize);
            if !list.is_null() {
                items.iter().enumerate().for_each(|(at, object)| ffi::PyList_SET_ITEM(list, at as isize, object));
            }
            list
        }
    }

    /// A container that takes references of its own to the values, so many at a time; theirs are given up.
    fn filled<const N: usize>(
        container: *mut PyObject,
        values: Values<'_, *mut PyObject>,
        add: impl FnMut([*mut PyObject; N]) -> c_int,
    ) -> *mut PyObject {
        match !container.is_null() && fill(values, add) {
            true => container,
            false => {
                // SAFETY: a reference that nobody else has, or null.
                unsafe { ffi::Py_XDECREF(container) };
                ptr::null_mut()
            }
        }
    }

    /// Refuses items and keys that CPython would hash, or compare, for too long.
    fn check_hashes(&mut self, objects: impl Iterator<Item = *mut PyObject>) -> Outcome {
        // SAFETY: the GIL is held; the verifier says that they have hashes.
        match unsafe { self.effort.allows_hashes(objects) } {
            true => Ok(()),
            false => Err(refuse(TOO_OFTEN)),
        }
    }

    fn intrinsic(&self, intrinsic: Intrinsic, values: Values<'_, *mut PyObject>) -> *mut PyObject {
        let mut parts = values.iter();
        let mut next = || parts.next().unwrap_or(ptr::null_mut());
        // SAFETY: the verifier says how many operands there are, and of which types.
        let made = unsafe {
            match intrinsic {
                Intrinsic::MakeComplex => {
                    let (real, imag) = (ffi::PyFloat_AsDouble(next()), ffi::PyFloat_AsDouble(next()));
                    ffi::PyComplex_FromDoubles(real, imag)
                }
                Intrinsic::MakeFrozenSet => ffi::PyFrozenSet_New(next()),
                Intrinsic::MakeFrozenDict => frozen_dict(self.py, next()),
            }
        };
        Self::without(made, values)
    }

    /// What was made of values without their references, which are given up.
    fn without(made: *mut PyObject, values: Values<'_, *mut PyObject>) -> *mut PyObject {
        if !made.is_null() {
            // SAFETY: references that were on the stack.
            values.iter().for_each(|value| unsafe { ffi::Py_DECREF(value) });
        }
        made
    }

    /// A new reference to a table of a code object.
    #[inline(always)]
    fn table(&mut self, section: Section, table: &TableStep<'_, *mut PyObject>) -> *mut PyObject {
        // Branches, of which most can be foreseen, are faster than a jump to one of four places.
        if table.origin == TableOrigin::Once {
            return self.bytes(table.bytes);
        }
        if let TableOrigin::Earlier(number) = table.origin {
            // SAFETY: an object.
            return unsafe { ffi::Py_NewRef(self.tables[section as usize][number]) };
        }
        if let TableOrigin::Object(object) = table.origin {
            // SAFETY: an object.
            return unsafe { ffi::Py_NewRef(object) };
        }
        let object = self.bytes(table.bytes);
        if !object.is_null() {
            // SAFETY: an object.
            self.tables[section as usize].push(unsafe { ffi::Py_NewRef(object) });
        }
        object
    }

    /// New references to kinds, line table and exception table of a code object; null for what there is no memory for.
    #[inline(always)]
    fn tables(&mut self, code: &CodeStep<'_, *mut PyObject>) -> [*mut PyObject; 3] {
        let [_, kinds, line_table, exception_table] = code.tables else {
            unreachable!("so many have code objects of these versions")
        };
        [
            self.table(Section::Kinds, kinds),
            self.table(Section::LineTables, line_table),
            self.table(Section::ExceptionTables, exception_table),
        ]
    }

    /// Refuses quickened bytecode that CPython cannot read, compare or free safely.
    #[inline(always)]
    fn check_readable(&self, quickened: &[u8]) -> Outcome {
        // It is a part of the section. All before it is whole units, too, which is not taken for granted here.
        let is_aligned = quickened.as_ptr().addr().wrapping_sub(self.bytecode_start).is_multiple_of(2);
        match is_aligned && self.has_plain_bytecode && self.shared.probed.readable.ends(quickened) {
            true => Ok(()),
            false => self.check_strange(quickened),
        }
    }

    #[cold]
    fn check_strange(&self, quickened: &[u8]) -> Outcome {
        match self.shared.probed.readable.accepts(quickened) {
            true => Ok(()),
            false => check_sound(self.shared.probed.python, quickened).map_err(refuse),
        }
    }

    /// A code object that is not made in the fastest way, or whose bytecode is to be quickened.
    #[cold]
    fn any_code(&mut self, code: &CodeStep<'_, *mut PyObject>) -> Outcome<*mut PyObject> {
        let python = self.shared.probed.python;
        let [bytecode, kinds, ..] = code.tables else { unreachable!("every version has bytecode and kinds") };
        match bytecode.is_quickened {
            true => self.check_readable(bytecode.bytes)?,
            false => check_sound(python, bytecode.bytes).map_err(refuse)?,
        }
        check_kinds(code.derived.kinds).map_err(refuse)?;
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let is_direct = DIRECT && code.is_interned && is_small(code);
        let is_direct = is_direct && (bytecode.is_quickened || caches::quicken(python, bytecode.bytes, &mut scratch));
        let tables = self.tables(code);
        let made = match is_direct {
            true => self.direct(code, tables, if bytecode.is_quickened { bytecode.bytes } else { &scratch }),
            false => {
                let made = self.construct(code, tables, kinds.bytes);
                drop_tables(tables);
                if made.as_ref().is_ok_and(|made| !made.is_null()) {
                    // SAFETY: references that are taken over.
                    code.operands.iter().for_each(|operand| unsafe { ffi::Py_DECREF(*operand) });
                }
                made
            }
        };
        self.scratch = scratch;
        self.made(made?)
    }

    /// A code object whose fields are written where the interpreter keeps them; null if there is no memory. Its bytecode is sound.
    #[inline(always)]
    fn direct(
        &mut self,
        code: &CodeStep<'_, *mut PyObject>,
        tables: [*mut PyObject; 3],
        quickened: &[u8],
    ) -> Outcome<*mut PyObject> {
        let (operands, [kinds, line_table, exception_table]) = (operands(code), tables);
        let filename = self.filename(operands.filename);
        if kinds.is_null() || line_table.is_null() || exception_table.is_null() {
            drop_tables(tables);
            return Ok(ptr::null_mut());
        }
        // SAFETY: the GIL is held; the verifier says what the objects are.
        unsafe {
            let made = self.heads.code(CodeFields {
                numbers: code.numbers,
                derived: code.derived,
                n_variables: (*operands.variables.cast::<ffi::PyVarObject>()).ob_size as i32,
                #[cfg(not(Py_3_12))]
                n_plain_cells: bytes_of(kinds).iter().filter(|kind| *kind & 0x60 == 0x40).count() as i32,
                #[cfg(Py_3_12)]
                version: self.next_version(),
                consts: operands.consts,
                names: operands.names,
                localsplusnames: operands.variables,
                localspluskinds: kinds,
                filename,
                name: operands.name,
                qualname: operands.qualname,
                linetable: line_table,
                exceptiontable: exception_table,
                bytecode: quickened,
            });
            if made.is_null() {
                drop_tables(tables);
            } else if filename != operands.filename {
                ffi::Py_INCREF(filename);
                ffi::Py_DECREF(operands.filename);
            }
            Ok(made)
        }
    }

    /// The version of a new function, as `init_code` of CPython's `Objects/codeobject.c` takes it.
    #[cfg(Py_3_12)]
    #[inline(always)]
    fn next_version(&self) -> u32 {
        let next = self.shared.probed.next_version;
        if next.is_null() {
            return 0;
        }
        // SAFETY: it lies in the state of the interpreter, and the GIL is held.
        unsafe {
            let version = *next;
            if version != 0 {
                *next = version.wrapping_add(1);
            }
            version
        }
    }

    /// The filename of a code object: another, if its own is the one that the container states.
    #[inline(always)]
    fn filename(&mut self, own: *mut PyObject) -> *mut PyObject {
        let Some(filename) = self.filename else { return own };
        let is_replaced = self.replaced.as_ref().is_some_and(|replaced| replaced.as_ptr() == own);
        if is_replaced || self.is_stated(own) { filename } else { own }
    }

    #[cold]
    fn is_stated(&mut self, filename: *mut PyObject) -> bool {
        // SAFETY: the verifier says that it is a str.
        let text = unsafe { Bound::from_borrowed_ptr(self.py, filename) };
        let is_stated = text.cast::<PyString>().is_ok_and(|text| text.to_string_lossy() == self.stated_filename);
        if is_stated {
            self.replaced = Some(text);
        }
        is_stated
    }

    /// A code object of the interpreter's constructor, with the kinds of variables that it loses. It holds references of its
    /// own, to operands and tables.
    #[cold]
    fn construct(
        &mut self,
        code: &CodeStep<'_, *mut PyObject>,
        tables: [*mut PyObject; 3],
        kinds: &[u8],
    ) -> Outcome<*mut PyObject> {
        if tables.iter().any(|table| table.is_null()) {
            return Ok(ptr::null_mut());
        }
        let (parts, [kinds_object, line_table, exception_table]) = (operands(code), tables);
        // SAFETY: the GIL is held, and these are tuples.
        let is_allowed = unsafe {
            // It interns each name.
            let n_names = ffi::PyTuple_GET_SIZE(parts.names) + ffi::PyTuple_GET_SIZE(parts.variables);
            self.effort.take(n_names.unsigned_abs() as u64) && self.effort.allows_constants(parts.consts)
        };
        if !is_allowed {
            return Err(refuse(TOO_OFTEN));
        }
        let KindCounts { n_locals, n_cells, n_free, .. } = code.derived.kinds;
        // The constructor compares each local variable with each cell; `marshal` does not.
        let n_pairs = u64::from(n_locals) * u64::from(n_cells);
        // It makes tuples of the variables; `marshal` takes that which all share.
        if n_pairs > MAX_PAIRS || !self.effort.take(n_pairs) || !self.effort.allows_items(kinds.len()) {
            return Err(Failure::new(Why::NotConstructible));
        }
        // The constructor quickens bytecode that it is given quickened into the same.
        let bytecode = self.made(self.bytes(code.tables[0].bytes))?;
        // SAFETY: a reference that nobody else holds.
        let bytecode = unsafe { Bound::from_owned_ptr(self.py, bytecode) };
        let filename = self.filename(parts.filename);
        let numbers = code.numbers;
        let [n_locals, n_cells, n_free] = [n_locals, n_cells, n_free].map(u32::cast_signed);
        let py = self.py;
        // SAFETY: the verifier says what the objects are; the tuples are as long as the kinds.
        unsafe {
            let of = |is: fn(u8) -> bool| {
                // Of most code objects, all variables are local, and nothing else.
                if kinds.iter().all(|kind| is(*kind)) {
                    return Ok(Bound::from_borrowed_ptr(py, parts.variables));
                }
                let chosen = kinds.iter().enumerate().filter(|(_, kind)| is(**kind));
                let names = chosen
                    .map(|(at, _)| Bound::from_borrowed_ptr(py, ffi::PyTuple_GetItem(parts.variables, at as isize)));
                pyo3::types::PyTuple::new(py, names.collect::<Vec<_>>()).map(Bound::into_any)
            };
            let (locals, cells, free) =
                (of(|kind| kind & 0x20 != 0)?, of(|kind| kind & 0x40 != 0)?, of(|kind| kind & 0xe0 == 0x80)?);
            let made = PyCode_NewWithPosOnlyArgs(
                numbers.arg_count,
                numbers.pos_only_arg_count,
                numbers.kw_only_arg_count,
                n_locals,
                numbers.stack_size,
                numbers.flags,
                bytecode.as_ptr(),
                parts.consts,
                parts.names,
                locals.as_ptr(),
                free.as_ptr(),
                cells.as_ptr(),
                filename,
                parts.name,
                parts.qualname,
                numbers.first_line_no,
                line_table,
                exception_table,
            );
            if made.is_null() {
                return Ok(made);
            }
            let made = Bound::from_owned_ptr(py, made);
            let head = made.as_ptr().cast::<CodeObject>();
            let same_names = Bound::from_borrowed_ptr(py, (*head).localsplusnames)
                .eq(Bound::from_borrowed_ptr(py, parts.variables))?;
            let same_numbers = ((*head).nlocals, (*head).ncellvars, (*head).nfreevars) == (n_locals, n_cells, n_free);
            if !same_names || !same_numbers {
                // Its variables stand in an order that the constructor does not make, or two of them are one to it: CPython
                // would write as many names as there are kinds where there is room for those that it counted.
                return Err(Failure::new(Why::NotConstructible));
            }
            if bytes_of((*head).localspluskinds) != kinds {
                let theirs = std::mem::replace(&mut (*head).localspluskinds, ffi::Py_NewRef(kinds_object));
                ffi::Py_DECREF(theirs);
            }
            Ok(made.into_ptr())
        }
    }
}

/// The operands of a code object.
struct CodeOperands {
    names: *mut PyObject,
    consts: *mut PyObject,
    variables: *mut PyObject,
    name: *mut PyObject,
    qualname: *mut PyObject,
    filename: *mut PyObject,
}

#[inline(always)]
fn operands(code: &CodeStep<'_, *mut PyObject>) -> CodeOperands {
    let &[names, consts, variables, name, qualname, filename] = code.operands else {
        unreachable!("so many have code objects of these versions")
    };
    CodeOperands { names, consts, variables, name, qualname, filename }
}

/// Gives up references to tables, or null.
#[cold]
fn drop_tables(tables: [*mut PyObject; 3]) {
    // SAFETY: the caller has them.
    tables.into_iter().for_each(|table| unsafe { ffi::Py_XDECREF(table) });
}

/// Gives values to `add`, so many at a time, which takes references of its own: theirs are given up, if all are added.
fn fill<const N: usize>(values: Values<'_, *mut PyObject>, mut add: impl FnMut([*mut PyObject; N]) -> c_int) -> bool {
    let mut rest = values.iter();
    while rest.len() >= N {
        if add(std::array::from_fn(|_| rest.next().unwrap_or(ptr::null_mut()))) != 0 {
            return false;
        }
    }
    // SAFETY: references that were on the stack.
    values.iter().for_each(|value| unsafe { ffi::Py_DECREF(value) });
    true
}

/// Whether the size of its frame can be counted.
#[inline(always)]
fn is_small(code: &CodeStep<'_, *mut PyObject>) -> bool {
    code.numbers.stack_size < 1 << 24
}

/// Most pairs of a local variable and a cell of one code object that the interpreter's constructor is asked for.
const MAX_PAIRS: u64 = 1 << 20;

#[cold]
fn refuse(why: &'static str) -> Failure {
    Failure::new(Why::Raised(PyValueError::new_err(why)))
}

/// Refuses bytecode that CPython cannot read, compare or free safely.
#[cold]
fn check_sound(python: Version, bytecode: &[u8]) -> Result<(), &'static str> {
    match caches::is_sound(python, bytecode) {
        true => Ok(()),
        false => Err("bytecode with an instruction that this Python cannot read back, or that ends inside its caches"),
    }
}

/// Refuses a variable that CPython counts once, and then finds twice: there is no room for it in `co_freevars`.
#[inline(always)]
fn check_kinds(kinds: KindCounts) -> Result<(), &'static str> {
    match kinds.has_ambiguous {
        true => Err("a variable that is free, and local or a cell"),
        false => Ok(()),
    }
}

unsafe extern "C" {
    fn _PyLong_FromByteArray(bytes: *const u8, n: usize, little_endian: c_int, is_signed: c_int) -> *mut PyObject;
}

/// Whether all of some objects are immortal.
struct AreImmortal(bool);

impl AreImmortal {
    /// What is kept, made if it was not needed yet.
    fn kept(&mut self, place: &mut *mut PyObject, make: impl FnOnce() -> *mut PyObject) -> *mut PyObject {
        if place.is_null() {
            *place = make();
            // SAFETY: an object, if it is not null.
            self.0 &= place.is_null() || unsafe { is_immortal(*place) };
        }
        *place
    }
}

/// # Safety
/// It is a bytes object that lives as long as the bytes are used.
unsafe fn bytes_of<'a>(object: *mut PyObject) -> &'a [u8] {
    // SAFETY: the caller says so.
    unsafe { std::slice::from_raw_parts(ffi::PyBytes_AS_STRING(object).cast(), ffi::PyBytes_Size(object) as usize) }
}

fn frozen_dict(py: Python<'_>, dict: *mut PyObject) -> *mut PyObject {
    // SAFETY: an object.
    let dict = unsafe { Bound::from_borrowed_ptr(py, dict) };
    let made = py.import("builtins").and_then(|builtins| builtins.getattr("frozendict")?.call1((dict,)));
    match made {
        Ok(made) => made.into_ptr(),
        Err(error) => {
            error.restore(py);
            ptr::null_mut()
        }
    }
}

impl<'v, const DIRECT: bool> Executor<'v> for Machine<'_, DIRECT> {
    type Object = *mut PyObject;
    type Error = Failure;

    const PYTHON: Option<Version> = PYTHON;

    /// As deep as in a marshal dump: CPython's functions that hash and intern recurse.
    const MAX_DEPTH: u16 = 2000;

    const NAMES_ARE_IMMORTAL: bool = cfg!(Py_3_12);

    #[inline(always)]
    fn expect(&self, hash: u32) {
        // SAFETY: under the GIL; the borrow ends at once.
        unsafe { &*self.shared.names.get() }.reader().expect(hash);
    }

    #[inline]
    fn known_names(&mut self, run: &mut NameRun<'v>, known: &mut Vec<*mut PyObject>) {
        let (hashes, lens, texts) = run.parts();
        let first = known.len();
        // SAFETY: under the GIL; the borrow ends with the look.
        let n_bytes = unsafe { &*self.shared.names.get() }.reader().find_all(hashes, lens, texts, known);
        let found = &known[first..];
        run.skip(found.len(), n_bytes);
        if !Self::NAMES_ARE_IMMORTAL {
            found.iter().for_each(|name| Self::retain(*name));
        }
    }

    #[inline(always)]
    fn known_common_name(&mut self, number: u32) -> Option<*mut PyObject> {
        let name = *self.values?.names.get(number as usize)?;
        if !Self::NAMES_ARE_IMMORTAL {
            Self::retain(name);
        }
        Some(name)
    }

    #[inline]
    fn known_name(&mut self, text: &'v [u8], hash: u32) -> Option<*mut PyObject> {
        // SAFETY: under the GIL; the borrow ends with the look.
        let known = unsafe { &*self.shared.names.get() }.reader().get(hash, text)?;
        if !Self::NAMES_ARE_IMMORTAL {
            Self::retain(known);
        }
        Some(known)
    }

    #[cold]
    fn new_name(&mut self, name: Checked<&'v [u8]>, hash: u32) -> Outcome<(*mut PyObject, bool)> {
        let (text, names) = (name.get(), self.shared.names.get());
        // SAFETY: under the GIL; the borrow ends before anything is made.
        let Some(place) = (unsafe { (*names).place_for(hash, text) }) else {
            return Ok((self.made(self.string(text, false, true))?, false));
        };
        let object = self.made(self.ascii(text))?;
        // SAFETY: a str, to which the table takes a reference. To intern it runs no code.
        unsafe {
            let object = self.shared.probed.intern.for_ever(object);
            if Self::NAMES_ARE_IMMORTAL && !is_immortal(object) {
                return Ok((object, false));
            }
            let is_kept = (*names).insert(place, hash, text, object);
            if !Self::NAMES_ARE_IMMORTAL && is_kept {
                Self::retain(object);
            }
            Ok((object, Self::NAMES_ARE_IMMORTAL))
        }
    }

    #[inline]
    fn load(&mut self, instruction: Checked<Instruction>) -> Outcome<(*mut PyObject, bool)> {
        let (object, is_immortal) = self.common(instruction.get());
        Ok((self.made(object)?, is_immortal))
    }

    #[inline(always)]
    fn tuple<const NEAR: bool>(&mut self, items: &mut Items<'_, 'v, Self, NEAR>) -> Outcome<Option<*mut PyObject>> {
        let n = items.n();
        // SAFETY: the GIL is held. Until its items are written, nobody sees the tuple: the collector does not run between.
        unsafe {
            if n == 0 {
                return Ok(Some(ffi::Py_NewRef((*self.shared.common.get()).empty_tuple)));
            }
            let (tuple, places) = self.heads.tuple(n);
            if tuple.is_null() {
                return Err(self.raised());
            }
            // There is room for so many.
            if !items.write_to(std::slice::from_raw_parts_mut(places.cast(), n)) {
                Heads::discard_tuple(tuple);
                return Ok(None);
            }
            self.n_tuples += 1;
            if items.hold_collectable() {
                ffi::PyObject_GC_Track(tuple.cast());
            }
            Ok(Some(tuple))
        }
    }

    #[inline(always)]
    fn code(&mut self, code: &Checked<CodeStep<'_, *mut PyObject>>) -> Outcome<*mut PyObject> {
        let [bytecode, ..] = code.tables else { unreachable!("every version has bytecode") };
        let is_copy = matches!(bytecode.origin, TableOrigin::Earlier(_) | TableOrigin::Object(_));
        if is_copy && !self.effort.take(bytecode.bytes.len() as u64) {
            return Err(refuse(TOO_MUCH));
        }
        if !(DIRECT && code.is_interned && bytecode.is_quickened && is_small(code)) {
            // A copy: the original would have to stand in memory for it, on the fast path, too.
            let (Ok(operands), Ok(tables)) = (<[_; 6]>::try_from(code.operands), <[_; 4]>::try_from(code.tables))
            else {
                unreachable!("so many have code objects of these versions")
            };
            return self.any_code(&CodeStep { operands: &operands, tables: &tables, ..**code });
        }
        self.check_readable(bytecode.bytes)?;
        check_kinds(code.derived.kinds).map_err(refuse)?;
        let tables = self.tables(code);
        let made = self.direct(code, tables, bytecode.bytes)?;
        self.made(made)
    }

    #[inline(always)]
    fn value(&mut self, step: Checked<Step<'v, '_, *mut PyObject>>) -> Outcome<*mut PyObject> {
        // SAFETY: the GIL is held; the verifier says what the operands are.
        let made = unsafe {
            match step.get() {
                Step::Str { text, wide, interned } => self.string(text, wide, interned),
                Step::Bytes(bytes) => self.bytes(bytes),
                Step::Float(bits) => ffi::PyFloat_FromDouble(f64::from_bits(bits)),
                Step::Long(bytes) => _PyLong_FromByteArray(bytes.as_ptr(), bytes.len(), 1, 1),
                Step::Tuple { items, holds_collectable } => self.top_tuple(items, holds_collectable),
                Step::List(items) => Self::list(items),
                Step::Set(items) => {
                    self.check_hashes(items.iter())?;
                    let set = ffi::PySet_New(ptr::null_mut());
                    Self::filled(set, items, |[item]| ffi::PySet_Add(set, item))
                }
                Step::Map(pairs) => {
                    self.check_hashes(pairs.iter().step_by(2))?;
                    let dict = ffi::PyDict_New();
                    Self::filled(dict, pairs, |[key, value]| ffi::PyDict_SetItem(dict, key, value))
                }
                Step::Slice(parts) => {
                    let mut each = parts.iter();
                    let [start, stop, step] = std::array::from_fn(|_| each.next().unwrap_or(ptr::null_mut()));
                    Self::without(ffi::PySlice_New(start, stop, step), parts)
                }
                Step::Intrinsic(intrinsic, values) => {
                    if intrinsic == Intrinsic::MakeFrozenSet {
                        let n_items = values.iter().map(|tuple| ffi::PyTuple_GET_SIZE(tuple).cast_unsigned()).sum();
                        if !self.effort.allows_items(n_items) {
                            return Err(refuse(TOO_MANY));
                        }
                        self.check_hashes(values.iter())?;
                    }
                    self.intrinsic(intrinsic, values)
                }
            }
        };
        self.made(made)
    }

    fn fill(&mut self, step: Checked<Fill<'_, *mut PyObject>>) -> Outcome {
        if let Fill::Add(_, pairs) = step.get() {
            self.check_hashes(pairs.iter().step_by(2))?;
        }
        // SAFETY: the GIL is held; the verifier says that they are a list and a dict.
        let is_filled = unsafe {
            match step.get() {
                Fill::Append(list, items) => fill(items, |[item]| ffi::PyList_Append(list, item)),
                Fill::Add(dict, pairs) => fill(pairs, |[key, value]| ffi::PyDict_SetItem(dict, key, value)),
            }
        };
        if is_filled { Ok(()) } else { Err(self.raised()) }
    }

    #[inline(always)]
    fn retain(object: *mut PyObject) {
        // SAFETY: an object, and the GIL is held.
        unsafe { ffi::Py_INCREF(object) };
    }

    #[inline(always)]
    fn release(object: *mut PyObject) {
        // SAFETY: a reference that is the verifier's, and the GIL is held.
        unsafe { ffi::Py_DECREF(object) };
    }
}

const _: () = assert!(size_of::<AsciiStr>() == if cfg!(Py_3_12) { 40 } else { 48 });
