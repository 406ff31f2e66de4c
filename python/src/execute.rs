//! Executes initializers into objects of the interpreter, in the pass that verifies them.
//!
//! Invariants:
//! - A slot of the stack holds a reference to its object, but for the names at the bottom, from 3.12 on: those are immortal.
//! - An executor that is dropped gives all its references back.

use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::ptr;

use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyString};
use rehydrate::common::{self, CommonConst};
use rehydrate::isa::{Instruction, Intrinsic, Op, Section};
use rehydrate::python::{Derived, Field, Python as Version, count_kinds};
use rehydrate::verify::{Checked, CodeStep, Executor, Operands, Step, TableOrigin, TableStep};
use rehydrate::{Image, Initializer, caches, verify, vm};

use crate::layout::{AsciiStr, CodeObject, Tuple, VERSION};
use crate::make::{CodeFields, Heads};
use crate::names::{MAX_BYTES, MAX_NAMES, Names};
use crate::probe::{MOST_UNITS, Probed, PyCode_NewWithPosOnlyArgs, is_immortal};

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
}

impl Shared {
    fn get(py: Python<'_>) -> PyResult<&'static Self> {
        // SAFETY: a static is never moved.
        let shared: &Self = SHARED.get_or_try_init(py, || {
            let probed = Probed::new(py)?;
            let null = ptr::null_mut();
            // SAFETY: the GIL is held; these give references to what always exists, or null.
            let common = unsafe {
                Common {
                    ints: [null; 256],
                    chars: [null; 256],
                    bytes: [null; 256],
                    names: [null; common::NAMES.len()],
                    empty_tuple: ffi::PyTuple_New(0),
                    empty_str: ffi::PyUnicode_FromStringAndSize(c"".as_ptr(), 0),
                    empty_bytes: ffi::PyBytes_FromStringAndSize(c"".as_ptr(), 0),
                    minus_one: ffi::PyLong_FromLong(-1),
                }
            };
            Ok::<_, PyErr>(Self {
                probed,
                names: UnsafeCell::new(Names::new()),
                common: UnsafeCell::new(common),
                forced: UnsafeCell::new(None),
            })
        })?;
        Ok(shared)
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
    let (path, _) = shared.path();
    if path == Path::Marshal {
        let (result, starts) = through_marshal(py, image, filename)?;
        return Ok((initializer.image, result, starts));
    }
    let executed = match &shared.probed.heads {
        Ok(heads) if path == Path::Direct => {
            verify::execute(image, Machine::<true>::new(py, shared, *heads, image, filename)).map(Machine::finish)
        }
        Ok(heads) => {
            verify::execute(image, Machine::<false>::new(py, shared, *heads, image, filename)).map(Machine::finish)
        }
        Err(_) => Err(Failure::new(Why::NotConstructible)),
    };
    let (result, starts) = match executed.map_err(|failure| *failure.0) {
        Ok(result) => result,
        Err(Why::Refused(error)) => return Err(refused(error)),
        Err(Why::Raised(error)) => return Err(error),
        Err(Why::NotConstructible) => {
            let (result, starts) = through_marshal(py, image, filename)?;
            return Ok((initializer.image, result, starts));
        }
    };
    // SAFETY: a reference that the machine gave up.
    let result = unsafe { Bound::from_owned_ptr(py, result) };
    Ok((initializer.image, result, starts))
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
    filename: Option<&Bound<'py, PyString>>,
) -> PyResult<(Bound<'py, PyAny>, bool)> {
    let refused = |error: rehydrate::Error| PyValueError::new_err(error.to_string());
    let verified = verify::verify(image.clone()).map_err(refused)?;
    let (heap, root) = vm::run(&verified);
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
    stack: Vec<*mut PyObject>,
    /// So many slots at the bottom hold names that are immortal.
    n_immortal: usize,
    /// The name that was found for the next [`Step::Name`], and its hash.
    found: Option<*mut PyObject>,
    hash: u32,
    /// By section: the tables that have numbers.
    tables: [Vec<*mut PyObject>; Section::ALL.len()],
    scratch: Vec<u8>,
    /// The filename that the container states, and the one that takes its place.
    stated_filename: &'m str,
    filename: Option<*mut PyObject>,
    /// An object whose text is the stated filename.
    replaced: *mut PyObject,
    starts: bool,
}

impl<const DIRECT: bool> Drop for Machine<'_, DIRECT> {
    fn drop(&mut self) {
        // SAFETY: the machine holds these references.
        unsafe {
            for object in &self.stack[self.n_immortal..] {
                ffi::Py_DECREF(*object);
            }
            for table in self.tables.iter().flatten() {
                ffi::Py_DECREF(*table);
            }
        }
    }
}

impl<'m, const DIRECT: bool> Machine<'m, DIRECT> {
    fn new(
        py: Python<'m>,
        shared: &'static Shared,
        heads: Heads,
        image: &'m Image<'_>,
        filename: Option<&Bound<'m, PyString>>,
    ) -> Self {
        Self {
            py,
            shared,
            heads,
            stack: Vec::with_capacity((image.max_stack as usize).min(image.instructions.len() * 4 + 64)),
            n_immortal: 0,
            found: None,
            hash: 0,
            tables: Default::default(),
            scratch: Vec::new(),
            stated_filename: &image.filename,
            // The stream's own is interned as marshal's is, so it stays where it is the same.
            filename: filename
                .filter(|filename| filename.to_string_lossy() != image.filename)
                .map(|filename| filename.as_ptr()),
            replaced: ptr::null_mut(),
            starts: false,
        }
    }

    /// The result, and whether it is to be started.
    fn finish(mut self) -> (*mut PyObject, bool) {
        let result = self.stack.pop().expect("the verifier says that there is a result");
        // An immortal name is worth as much as a reference to it.
        self.n_immortal = self.n_immortal.min(self.stack.len());
        (result, self.starts)
    }

    #[cold]
    fn raised(&self) -> Failure {
        Failure::new(Why::Raised(PyErr::take(self.py).unwrap_or_else(|| PyMemoryError::new_err(()))))
    }

    /// Pushes a new reference; null is an error.
    #[inline(always)]
    fn push(&mut self, object: *mut PyObject) -> Outcome {
        if object.is_null() {
            return Err(self.raised());
        }
        self.stack.push(object);
        Ok(())
    }

    /// The object of a slot that something else is to hold too.
    #[inline(always)]
    fn copied(&self, slot: usize) -> *mut PyObject {
        let object = self.stack[slot];
        if slot >= self.n_immortal {
            // SAFETY: an object.
            unsafe { ffi::Py_INCREF(object) };
        }
        object
    }

    /// The operands, one after the other, taken from the stack as far as they are not copied.
    #[inline(always)]
    fn operands(&mut self, operands: Operands<'_>, mut take: impl FnMut(usize, *mut PyObject)) {
        let base = match operands {
            Operands::Top(n) => {
                let base = self.stack.len() - n;
                self.stack[base..].iter().enumerate().for_each(|(at, object)| take(at, *object));
                base
            }
            Operands::Mixed { base, places } => {
                for (at, place) in places.iter().enumerate() {
                    let object = if place.is_copied() { self.copied(place.slot()) } else { self.stack[place.slot()] };
                    take(at, object);
                }
                base
            }
        };
        self.taken(base);
    }

    /// Forgets the values from `base` on: others have taken the references over.
    #[inline(always)]
    fn taken(&mut self, base: usize) {
        self.stack.truncate(base);
        self.n_immortal = self.n_immortal.min(base);
    }

    /// A new reference to what every initializer can load.
    fn load(&mut self, Instruction { op, oparg }: Instruction) -> *mut PyObject {
        let n = oparg as usize;
        // SAFETY: the GIL is held; nothing here runs code, so the borrow is the only one.
        unsafe {
            let common = &mut *self.shared.common.get();
            let object = match op {
                Op::LoadInt => kept(&mut common.ints[n], || ffi::PyLong_FromLong(n as _)),
                Op::LoadChar => {
                    let intern = self.shared.probed.intern;
                    let is_name = n < 128 && (n as u8 as char).is_ascii_alphanumeric() || n == usize::from(b'_');
                    kept(&mut common.chars[n], || match ffi::PyUnicode_FromOrdinal(n as _) {
                        char if char.is_null() || !is_name => char,
                        char => intern.for_ever(char),
                    })
                }
                Op::LoadCommonName => {
                    let intern = self.shared.probed.intern;
                    kept(&mut common.names[n], || {
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
                    CommonConst::EmptyFrozenSet => return ffi::PyFrozenSet_New(ptr::null_mut()),
                },
            };
            if !object.is_null() {
                ffi::Py_INCREF(object);
            }
            object
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

    fn string(&mut self, text: &[u8], wide: bool, interned: bool) -> Outcome {
        let object = if wide { Self::wide(text) } else { self.ascii(text) };
        let object = match interned && !object.is_null() {
            // SAFETY: a str.
            true => unsafe { self.shared.probed.intern.while_used(object) },
            false => object,
        };
        self.push(object)
    }

    #[inline(always)]
    fn name(&mut self, text: &[u8]) -> Outcome {
        match self.found.take() {
            Some(object) => self.known_name(object),
            None => self.new_name(text),
        }
    }

    /// Pushes a name that is in the table.
    #[inline(always)]
    fn known_name(&mut self, object: *mut PyObject) -> Outcome {
        if cfg!(not(Py_3_12)) {
            // SAFETY: an object.
            unsafe { ffi::Py_INCREF(object) };
        } else if self.n_immortal == self.stack.len() {
            self.n_immortal += 1;
        }
        self.stack.push(object);
        Ok(())
    }

    #[cold]
    fn new_name(&mut self, text: &[u8]) -> Outcome {
        let names = self.shared.names.get();
        // SAFETY: under the GIL; the borrow ends before anything is made.
        if unsafe { (*names).is_full_for(text) } {
            return self.string(text, false, true);
        }
        let object = self.ascii(text);
        if object.is_null() {
            return Err(self.raised());
        }
        // SAFETY: a str, to which the table takes the reference. To intern it runs no code.
        let object = unsafe {
            let object = self.shared.probed.intern.for_ever(object);
            if cfg!(Py_3_12) && !is_immortal(object) {
                return self.push(object);
            }
            (*names).insert(self.hash, text, object);
            object
        };
        self.known_name(object)
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
                        [byte] => kept(&mut common.bytes[usize::from(*byte)], || {
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

    #[inline(always)]
    fn tuple(&mut self, operands: Operands<'_>, holds_collectable: bool) -> Outcome {
        let n = match operands {
            Operands::Top(n) => n,
            Operands::Mixed { places, .. } => places.len(),
        };
        // SAFETY: the GIL is held. Until its items are written, nobody sees the tuple: the collector does not run between.
        unsafe {
            let (tuple, items) = match n {
                0 => {
                    let empty = (*self.shared.common.get()).empty_tuple;
                    return self.push(ffi::Py_NewRef(empty));
                }
                _ if holds_collectable => {
                    let tuple = ffi::PyTuple_New(n as isize);
                    // Where the items of ours begin, too.
                    let head = size_of::<Tuple>() - std::mem::offset_of!(Tuple, head);
                    let items = if tuple.is_null() { ptr::null_mut() } else { tuple.byte_add(head).cast() };
                    (tuple, items)
                }
                _ => self.heads.tuple(n),
            };
            if tuple.is_null() {
                return Err(self.raised());
            }
            self.operands(operands, |at, object| items.add(at).write(object));
            self.stack.push(tuple);
        }
        Ok(())
    }

    /// Takes the topmost values.
    fn split_off(&mut self, n: usize) -> Vec<*mut PyObject> {
        let base = self.stack.len() - n;
        let values = self.stack.split_off(base);
        self.taken(base);
        values
    }

    /// Takes the topmost values: each is given to `add`, and dropped.
    fn drain(&mut self, n: usize, mut add: impl FnMut(&[*mut PyObject]) -> i32, step: usize) -> Outcome {
        let values = self.split_off(n);
        let mut status = 0;
        for values in values.chunks(step) {
            if status == 0 {
                status = add(values);
            }
            // SAFETY: references that were on the stack.
            values.iter().for_each(|value| unsafe { ffi::Py_DECREF(*value) });
        }
        if status == 0 { Ok(()) } else { Err(self.raised()) }
    }

    fn list(&mut self, n: usize) -> Outcome {
        // SAFETY: the GIL is held; a new list takes over the references.
        unsafe {
            let list = ffi::PyList_New(n as isize);
            if list.is_null() {
                return Err(self.raised());
            }
            let base = self.stack.len() - n;
            for at in 0..n {
                ffi::PyList_SET_ITEM(list, at as isize, self.stack[base + at]);
            }
            self.taken(base);
            self.push(list)
        }
    }

    fn set(&mut self, n: usize) -> Outcome {
        // SAFETY: the GIL is held.
        unsafe {
            let set = ffi::PySet_New(ptr::null_mut());
            if set.is_null() {
                return Err(self.raised());
            }
            match self.drain(n, |item| ffi::PySet_Add(set, item[0]), 1) {
                Ok(()) => self.push(set),
                Err(error) => {
                    ffi::Py_DECREF(set);
                    Err(error)
                }
            }
        }
    }

    fn map(&mut self, n: usize) -> Outcome {
        // SAFETY: the GIL is held.
        unsafe {
            let dict = ffi::PyDict_New();
            if dict.is_null() {
                return Err(self.raised());
            }
            match self.drain(2 * n, |pair| ffi::PyDict_SetItem(dict, pair[0], pair[1]), 2) {
                Ok(()) => self.push(dict),
                Err(error) => {
                    ffi::Py_DECREF(dict);
                    Err(error)
                }
            }
        }
    }

    /// Replaces the topmost values by what is made of them.
    fn of_top(&mut self, n: usize, make: impl FnOnce(&[*mut PyObject]) -> *mut PyObject) -> Outcome {
        let values = self.split_off(n);
        let made = make(&values);
        // SAFETY: references that were on the stack.
        values.iter().for_each(|value| unsafe { ffi::Py_DECREF(*value) });
        self.push(made)
    }

    fn intrinsic(&mut self, intrinsic: Intrinsic) -> Outcome {
        match intrinsic {
            // SAFETY: the verifier says that both are floats.
            Intrinsic::MakeComplex => self.of_top(2, |parts| unsafe {
                ffi::PyComplex_FromDoubles(ffi::PyFloat_AsDouble(parts[0]), ffi::PyFloat_AsDouble(parts[1]))
            }),
            // SAFETY: the verifier says that it is a tuple.
            Intrinsic::MakeFrozenSet => self.of_top(1, |tuple| unsafe { ffi::PyFrozenSet_New(tuple[0]) }),
            Intrinsic::MakeFrozenDict => {
                let py = self.py;
                self.of_top(1, |dict| frozen_dict(py, dict[0]))
            }
        }
    }

    /// A new reference to a table of a code object.
    #[inline(always)]
    fn table(&mut self, section: Section, table: &TableStep<'_>) -> *mut PyObject {
        let object = match table.origin {
            TableOrigin::Slot(slot) => self.stack[slot],
            TableOrigin::Earlier(number) => self.tables[section as usize][number],
            TableOrigin::Inline => {
                let object = self.bytes(table.bytes);
                if table.bytes.len() > 1 && !object.is_null() {
                    // SAFETY: an object.
                    self.tables[section as usize].push(unsafe { ffi::Py_NewRef(object) });
                }
                return object;
            }
        };
        // SAFETY: an object.
        unsafe { ffi::Py_NewRef(object) }
    }

    /// The bytes object of bytecode as it stands in marshal.
    fn plain_bytecode(&mut self, table: &TableStep<'_>) -> Outcome<*mut PyObject> {
        self.scratch.clear();
        let bytes = match table.is_quickened {
            true => {
                if !caches::unquicken(self.shared.probed.python, table.bytes, &mut self.scratch) {
                    return Err(refuse("its bytecode is not as CPython quickens it"));
                }
                &self.scratch
            }
            false => table.bytes,
        };
        let object = self.bytes(bytes);
        if object.is_null() { Err(self.raised()) } else { Ok(object) }
    }

    #[inline(always)]
    fn code(&mut self, code: &CodeStep<'_>) -> Outcome {
        let [bytecode, kinds, line_table, exception_table] = code.tables else {
            unreachable!("code objects of these versions have four tables")
        };
        let is_small = code.numbers[Field::StackSize as usize] < 1 << 24;
        let Some(derived) = code.derived.filter(|_| DIRECT && code.is_interned && bytecode.is_quickened && is_small) else {
            return self.any_code(code);
        };
        if !is_readable(&self.shared.probed.reach, bytecode.bytes) {
            check_sound(self.shared.probed.python, bytecode.bytes)?;
        }
        check_kinds(kinds)?;
        // The tables may stand in slots, so they come first.
        let tables = [
            self.table(Section::Kinds, kinds),
            self.table(Section::LineTables, line_table),
            self.table(Section::ExceptionTables, exception_table),
        ];
        let parts = self.parts(code.operands, tables);
        let is_made = !tables.iter().any(|table| table.is_null());
        let made = if is_made { self.direct(code, derived, &parts, bytecode.bytes) } else { ptr::null_mut() };
        if made.is_null() {
            parts.drop();
            return Err(self.raised());
        }
        self.stack.push(made);
        Ok(())
    }

    /// The objects of a code object. Takes them from the stack, and the tables over.
    #[inline(always)]
    fn parts(&mut self, operands: Operands<'_>, tables: [*mut PyObject; 3]) -> CodeParts {
        let mut objects = [ptr::null_mut(); 6];
        self.operands(operands, |at, object| objects[at] = object);
        let [names, consts, variables, name, qualname, filename] = objects;
        let filename = self.filename(filename);
        CodeParts { names, consts, variables, name, qualname, filename, tables }
    }

    /// A code object that is not made in the fastest way, or whose bytecode is to be quickened.
    #[cold]
    fn any_code(&mut self, code: &CodeStep<'_>) -> Outcome {
        let python = self.shared.probed.python;
        let [bytecode, kinds, line_table, exception_table] = code.tables else {
            unreachable!("code objects of these versions have four tables")
        };
        check_sound(python, bytecode.bytes)?;
        check_kinds(kinds)?;
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let is_direct = DIRECT && code.is_interned && code.numbers[Field::StackSize as usize] < 1 << 24;
        let is_direct = is_direct && (bytecode.is_quickened || caches::quicken(python, bytecode.bytes, &mut scratch));
        let plain = if is_direct { ptr::null_mut() } else { self.plain_bytecode(bytecode)? };
        let tables = [
            self.table(Section::Kinds, kinds),
            self.table(Section::LineTables, line_table),
            self.table(Section::ExceptionTables, exception_table),
        ];
        let parts = self.parts(code.operands, tables);
        let made = match is_direct {
            _ if tables.iter().any(|table| table.is_null()) => Ok(ptr::null_mut()),
            true => {
                let quickened = if bytecode.is_quickened { bytecode.bytes } else { &scratch };
                let [n_locals, n_cells, n_free] = count_kinds(kinds.bytes);
                let first_traceable = python.first_traceable(quickened).unwrap_or_default();
                Ok(self.direct(code, [n_locals, n_cells, n_free, first_traceable], &parts, quickened))
            }
            false => self.construct(code, &parts, plain, kinds.bytes),
        };
        self.scratch = scratch;
        // SAFETY: a reference that nobody else holds.
        unsafe { ffi::Py_XDECREF(plain) };
        match made {
            Ok(made) if !made.is_null() && is_direct => self.push(made),
            made => {
                // The constructor holds its own references; of what was not made, none are held.
                parts.drop();
                self.push(made?)
            }
        }
    }

    #[inline(always)]
    fn direct(&self, code: &CodeStep<'_>, derived: Derived, parts: &CodeParts, quickened: &[u8]) -> *mut PyObject {
        // SAFETY: the GIL is held; the verifier says what the objects are, and the bytecode was looked at.
        unsafe {
            let n_variables = (*parts.variables.cast::<ffi::PyVarObject>()).ob_size as i32;
            let fields = CodeFields {
                numbers: code.numbers,
                derived,
                n_variables,
                #[cfg(not(Py_3_12))]
                n_plain_cells: bytes_of(parts.tables[0]).iter().filter(|kind| *kind & 0x60 == 0x40).count() as i32,
                #[cfg(Py_3_12)]
                version: self.next_version(),
                consts: parts.consts,
                names: parts.names,
                localsplusnames: parts.variables,
                localspluskinds: parts.tables[0],
                filename: parts.filename,
                name: parts.name,
                qualname: parts.qualname,
                linetable: parts.tables[1],
                exceptiontable: parts.tables[2],
                bytecode: quickened,
            };
            self.heads.code(&fields)
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

    /// The filename of a code object: another, if its own is the one that the container states. Takes a reference and
    /// gives one.
    #[inline(always)]
    fn filename(&mut self, own: *mut PyObject) -> *mut PyObject {
        let Some(filename) = self.filename else { return own };
        if own != self.replaced {
            // SAFETY: the verifier says that it is a str.
            let text = unsafe { Bound::from_borrowed_ptr(self.py, own) };
            let is_stated = text.cast::<PyString>().is_ok_and(|text| text.to_string_lossy() == self.stated_filename);
            if !is_stated {
                return own;
            }
            self.replaced = own;
        }
        // SAFETY: both are objects.
        unsafe {
            ffi::Py_INCREF(filename);
            ffi::Py_DECREF(own);
        }
        filename
    }

    /// A code object of the interpreter's constructor, with the kinds of variables that it loses.
    #[cold]
    fn construct(
        &mut self,
        code: &CodeStep<'_>,
        parts: &CodeParts,
        bytecode: *mut PyObject,
        kinds: &[u8],
    ) -> Outcome<*mut PyObject> {
        let number = |field: Field| code.numbers[field as usize];
        let py = self.py;
        // SAFETY: the verifier says what the objects are; the tuples are as long as the kinds.
        unsafe {
            let names: Vec<Bound<'_, PyAny>> = (0..kinds.len())
                .map(|at| Bound::from_borrowed_ptr(py, ffi::PyTuple_GetItem(parts.variables, at as isize)))
                .collect();
            let of = |is: fn(u8) -> bool| {
                let names = names.iter().zip(kinds).filter(|(_, kind)| is(**kind)).map(|(name, _)| name);
                pyo3::types::PyTuple::new(py, names.collect::<Vec<_>>())
            };
            let (locals, cells, free) =
                (of(|kind| kind & 0x20 != 0)?, of(|kind| kind & 0x40 != 0)?, of(|kind| kind & 0xe0 == 0x80)?);
            let made = PyCode_NewWithPosOnlyArgs(
                number(Field::ArgCount),
                number(Field::PosOnlyArgCount),
                number(Field::KwOnlyArgCount),
                names.iter().zip(kinds).filter(|(_, kind)| **kind & 0x20 != 0).count() as i32,
                number(Field::StackSize),
                number(Field::Flags),
                bytecode,
                parts.consts,
                parts.names,
                locals.as_ptr(),
                free.as_ptr(),
                cells.as_ptr(),
                parts.filename,
                parts.name,
                parts.qualname,
                number(Field::FirstLineNo),
                parts.tables[1],
                parts.tables[2],
            );
            if made.is_null() {
                return Ok(made);
            }
            let made = Bound::from_owned_ptr(py, made);
            let head = made.as_ptr().cast::<CodeObject>();
            let same_names = Bound::from_borrowed_ptr(py, (*head).localsplusnames)
                .eq(Bound::from_borrowed_ptr(py, parts.variables))?;
            if !same_names {
                // Its variables stand in an order that the constructor does not make.
                return Err(Failure::new(Why::NotConstructible));
            }
            if bytes_of((*head).localspluskinds) != kinds {
                let theirs = std::mem::replace(&mut (*head).localspluskinds, ffi::Py_NewRef(parts.tables[0]));
                ffi::Py_DECREF(theirs);
            }
            Ok(made.into_ptr())
        }
    }
}

/// The objects of a code object.
struct CodeParts {
    names: *mut PyObject,
    consts: *mut PyObject,
    variables: *mut PyObject,
    name: *mut PyObject,
    qualname: *mut PyObject,
    filename: *mut PyObject,
    /// Kinds, line table, exception table.
    tables: [*mut PyObject; 3],
}

impl CodeParts {
    /// Gives all references back.
    #[cold]
    fn drop(self) {
        let Self { names, consts, variables, name, qualname, filename, tables } = self;
        for object in [names, consts, variables, name, qualname, filename].into_iter().chain(tables) {
            // SAFETY: references that it holds.
            unsafe { ffi::Py_XDECREF(object) };
        }
    }
}

#[cold]
fn refuse(why: &'static str) -> Failure {
    Failure::new(Why::Raised(PyValueError::new_err(why)))
}

/// Refuses bytecode that CPython cannot read, compare or free safely.
#[cold]
fn check_sound(python: Version, bytecode: &[u8]) -> Outcome {
    match caches::is_sound(python, bytecode) {
        true => Ok(()),
        false => {
            Err(refuse("bytecode with an instruction that this Python cannot read back, or that ends inside its caches"))
        }
    }
}

/// Refuses a variable that CPython counts once, and then finds twice: there is no room for it in `co_freevars`.
#[inline(always)]
fn check_kinds(kinds: &TableStep<'_>) -> Outcome {
    // An earlier table was looked at when it came first.
    if !matches!(kinds.origin, TableOrigin::Earlier(_))
        && kinds.bytes.iter().any(|kind| *kind & 0x80 != 0 && *kind & 0x60 != 0)
    {
        return Err(refuse("a variable that is free, and local or a cell"));
    }
    Ok(())
}

unsafe extern "C" {
    fn _PyLong_FromByteArray(bytes: *const u8, n: usize, little_endian: c_int, is_signed: c_int) -> *mut PyObject;
}

/// What is kept, made if it was not needed yet.
fn kept(place: &mut *mut PyObject, make: impl FnOnce() -> *mut PyObject) -> *mut PyObject {
    if place.is_null() {
        *place = make();
    }
    *place
}

/// # Safety
/// It is a bytes object that lives as long as the bytes are used.
unsafe fn bytes_of<'a>(object: *mut PyObject) -> &'a [u8] {
    // SAFETY: the caller says so.
    unsafe { std::slice::from_raw_parts(ffi::PyBytes_AS_STRING(object).cast(), ffi::PyBytes_Size(object) as usize) }
}

/// Whether CPython can certainly read, compare and free a code object with this quickened bytecode, by a look at each unit
/// that does not ask which ones are caches: no unit looks like an opcode of a running interpreter, and none so near the end
/// that its caches could go beyond.
#[inline(always)]
fn is_readable(reach: &[u8; 256], quickened: &[u8]) -> bool {
    let (code, []) = quickened.as_chunks::<2>() else { return false };
    // In lanes of 16 bits, all arithmetic: 1 for an opcode of a running interpreter.
    let strange = |unit: &[u8; 2]| {
        let unit = u16::from_le_bytes(*unit);
        let opcode = unit & 0xff;
        let is_instrumented = (opcode + (0x100 - VERSION.first_instrumented)) >> 8;
        let is_other = VERSION.counter.map_or(1, |counter| u16::from(unit != counter));
        is_instrumented & is_other | VERSION.enter_executor.map_or(0, |enter| u16::from(opcode == u16::from(enter)))
    };
    if code.iter().fold(0, |found, unit| found | strange(unit)) != 0 {
        return false;
    }
    match code.last_chunk::<{ MOST_UNITS - 1 }>() {
        // Nothing branches on what stands there.
        Some(tail) => {
            let goes_beyond = |at: usize| usize::from(reach[usize::from(tail[at][0])]) > tail.len() - at;
            !(0..tail.len()).fold(false, |beyond, at| beyond | goes_beyond(at))
        }
        None => code.iter().rev().zip(1u8..).all(|([opcode, _], left)| reach[usize::from(*opcode)] <= left),
    }
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
    type Error = Failure;

    /// As deep as in a marshal dump: CPython's functions that hash and intern recurse.
    const MAX_DEPTH: u16 = 2000;

    #[inline(always)]
    fn knows(&mut self, hash: u32, name: &'v [u8], names: &'v [u8]) -> bool {
        self.hash = hash;
        // SAFETY: under the GIL; the borrow ends with the look.
        self.found = unsafe { (*self.shared.names.get()).get(hash, name, names) };
        self.found.is_some()
    }

    #[inline(always)]
    fn expect(&self, hash: u32) {
        // SAFETY: under the GIL; the borrow ends at once.
        unsafe { (*self.shared.names.get()).expect(hash) };
    }

    #[inline(always)]
    fn step(&mut self, step: Checked<Step<'v, '_>>) -> Outcome {
        match step.get() {
            Step::Load(instruction) => {
                let object = self.load(instruction);
                self.push(object)
            }
            Step::Copy(slot) => {
                let object = self.copied(slot);
                self.push(object)
            }
            Step::Str { text, wide, interned } => self.string(text, wide, interned),
            Step::Name(text) => self.name(text),
            Step::Bytes(bytes) => {
                let object = self.bytes(bytes);
                self.push(object)
            }
            // SAFETY: the GIL is held.
            Step::Float(bits) => self.push(unsafe { ffi::PyFloat_FromDouble(f64::from_bits(bits)) }),
            // SAFETY: the GIL is held.
            Step::Long(bytes) => self.push(unsafe { _PyLong_FromByteArray(bytes.as_ptr(), bytes.len(), 1, 1) }),
            Step::Tuple { operands, holds_collectable } => self.tuple(operands, holds_collectable),
            Step::List(n) => self.list(n),
            Step::Set(n) => self.set(n),
            Step::Map(n) => self.map(n),
            // SAFETY: the GIL is held.
            Step::Slice => self.of_top(3, |parts| unsafe { ffi::PySlice_New(parts[0], parts[1], parts[2]) }),
            Step::Append(slot) => {
                let list = self.stack[slot];
                // SAFETY: the verifier says that it is a list.
                self.drain(1, |item| unsafe { ffi::PyList_Append(list, item[0]) }, 1)
            }
            Step::Add(slot) => {
                let dict = self.stack[slot];
                // SAFETY: the verifier says that it is a dict.
                self.drain(2, |pair| unsafe { ffi::PyDict_SetItem(dict, pair[0], pair[1]) }, 2)
            }
            Step::Intrinsic(intrinsic) => self.intrinsic(intrinsic),
            Step::Code(code) => self.code(&code),
            Step::Return => Ok(()),
            Step::Start => {
                self.starts = true;
                Ok(())
            }
        }
    }
}

const _: () = assert!(size_of::<AsciiStr>() == if cfg!(Py_3_12) { 40 } else { 48 });
