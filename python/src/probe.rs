//! Finds out, when the first initializer is loaded, whether objects may be made without asking the interpreter.
//!
//! Two objects of each kind are made by the interpreter. The head of the first is what ours begin with; one that we make
//! with the values of the second must be like the second, byte for byte. Where something differs, or is not found, code
//! objects are made by the interpreter's own constructor. Before that, [`crate::offsets`] asks what the interpreter says of itself.

use std::ffi::{CStr, c_int, c_long, c_void};
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use rehydrate::Python as Version;
use rehydrate::caches;
use rehydrate::python::{CodeNumbers, Derived, count_kinds};

use crate::layout::{AsciiStr, Bytes, CodeObject, Tuple, VERSION, bytes_of};
use crate::make::{CodeFields, Heads};
use crate::offsets;
use crate::readable::Readable;

/// So many tuples of a process are not counted for the collector, which has nothing to find in them: those of what a program
/// imports as it starts, and keeps. If it frees them, garbage waits for as many allocations more, once.
const UNCOUNTED: usize = 100_000;

/// What was found out.
pub(crate) struct Probed {
    /// The Python that this is.
    pub(crate) python: Version,
    /// The heads of objects, if ours are like the interpreter's.
    pub(crate) heads: Result<Heads, &'static str>,
    /// Why code objects are made by the interpreter's constructor all the same.
    pub(crate) refused: Option<&'static str>,
    /// Where the interpreter keeps the version of the next function, if it has one.
    pub(crate) next_version: *mut u32,
    /// Where the interpreter keeps which code watchers there are, if it has any.
    watchers: *const u8,
    /// Where the interpreter counts what the collector may have to look at.
    collectable: Vec<*mut c_int>,
    /// So many more tuples are not counted.
    uncounted: AtomicUsize,
    pub(crate) readable: Readable,
    pub(crate) intern: Intern,
}

/// What interns a str, for ever or as long as it is used.
#[derive(Clone, Copy)]
pub(crate) struct Intern {
    immortal: Option<unsafe extern "C" fn(*mut ffi::PyInterpreterState, *mut *mut PyObject)>,
    mortal: Option<unsafe extern "C" fn(*mut ffi::PyInterpreterState, *mut *mut PyObject)>,
}

impl Intern {
    fn find() -> Self {
        // SAFETY: CPython 3.13 to 3.15 exports functions of this type under these names.
        unsafe {
            Self {
                immortal: std::mem::transmute::<*mut c_void, Option<_>>(symbol(c"_PyUnicode_InternImmortal")),
                mortal: std::mem::transmute::<*mut c_void, Option<_>>(symbol(c"_PyUnicode_InternMortal")),
            }
        }
    }

    /// Interns a str for ever, if this version can; else as long as it is used. Takes a reference and gives one.
    ///
    /// # Safety
    /// The GIL is held, and the object is a str.
    pub(crate) unsafe fn for_ever(self, object: *mut PyObject) -> *mut PyObject {
        // SAFETY: the caller says so.
        unsafe { Self::call(self.immortal, object) }
    }

    /// Interns a str as long as it is used. Takes a reference and gives one.
    ///
    /// # Safety
    /// As [`Self::for_ever`].
    pub(crate) unsafe fn while_used(self, object: *mut PyObject) -> *mut PyObject {
        // SAFETY: the caller says so.
        unsafe { Self::call(self.mortal, object) }
    }

    unsafe fn call(
        function: Option<unsafe extern "C" fn(*mut ffi::PyInterpreterState, *mut *mut PyObject)>,
        mut object: *mut PyObject,
    ) -> *mut PyObject {
        // SAFETY: the caller says so.
        unsafe {
            match function {
                Some(intern) => intern(ffi::PyInterpreterState_Get(), &raw mut object),
                None => ffi::PyUnicode_InternInPlace(&raw mut object),
            }
        }
        object
    }
}

pub(crate) fn symbol(name: &CStr) -> *mut c_void {
    // SAFETY: the name ends in a zero.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
}

unsafe extern "C" {
    #[cfg_attr(Py_3_12, link_name = "PyUnstable_Code_NewWithPosOnlyArgs")]
    pub(crate) fn PyCode_NewWithPosOnlyArgs(
        argcount: c_int,
        posonlyargcount: c_int,
        kwonlyargcount: c_int,
        nlocals: c_int,
        stacksize: c_int,
        flags: c_int,
        code: *mut PyObject,
        consts: *mut PyObject,
        names: *mut PyObject,
        varnames: *mut PyObject,
        freevars: *mut PyObject,
        cellvars: *mut PyObject,
        filename: *mut PyObject,
        name: *mut PyObject,
        qualname: *mut PyObject,
        firstlineno: c_int,
        linetable: *mut PyObject,
        exceptiontable: *mut PyObject,
    ) -> *mut PyObject;
    fn PyImport_GetMagicNumber() -> c_long;
}

#[cfg(Py_3_12)]
unsafe extern "C" {
    fn PyCode_AddWatcher(callback: unsafe extern "C" fn(c_int, *mut PyObject) -> c_int) -> c_int;
    fn PyCode_ClearWatcher(id: c_int) -> c_int;
}

impl Probed {
    /// Asks the interpreter.
    ///
    /// # Errors
    /// If it is none that is known, or has no memory.
    pub(crate) fn new(py: Python<'_>) -> PyResult<Self> {
        // SAFETY: the GIL is held.
        let magic = unsafe { PyImport_GetMagicNumber() };
        let python = Version::from_magic(magic as u16)
            .map_err(|error| pyo3::exceptions::PyImportError::new_err(error.to_string()))?;
        let heads = match () {
            () if cfg!(Py_GIL_DISABLED) => Err("objects of a free-threaded build are laid out in another way"),
            () if cfg!(not(target_pointer_width = "64")) => Err("pointers are not of 64 bits"),
            () => match offsets::disagreement() {
                Some(why) => Err(why),
                None => heads(py, python)?,
            },
        };
        let leaves_out_positions = matches!(heads, Ok((_, false)));
        let heads = heads.map(|(heads, _)| heads);
        let mut probed = Self {
            python,
            heads,
            refused: None,
            next_version: ptr::null_mut(),
            watchers: ptr::null(),
            collectable: Vec::new(),
            uncounted: AtomicUsize::new(UNCOUNTED),
            readable: Readable::new(python),
            intern: Intern::find(),
        };
        if leaves_out_positions {
            probed.refused = Some("the interpreter leaves positions out of line tables");
        }
        if probed.heads.is_ok() {
            probed.collectable = find_collectable(VERSION.collectable)?;
            if probed.collectable.is_empty() {
                probed.heads = Err("where the interpreter counts what may be collected was not found");
            }
        }
        if let Some(range) = VERSION.next_version {
            match find_next_version(range)? {
                Some(found) => probed.next_version = found,
                None => probed.refused = Some("where the interpreter numbers functions was not found"),
            }
        }
        #[cfg(Py_3_12)]
        if let Some(range) = VERSION.watchers {
            match find_watchers(range) {
                Some(found) => probed.watchers = found,
                None => probed.refused = Some("where the interpreter keeps its code watchers was not found"),
            }
        }
        if cfg!(Py_3_13) && (probed.intern.immortal.is_none() || probed.intern.mortal.is_none()) {
            probed.refused = Some("the interpreter does not export what interns a str");
        }
        if cfg!(Py_3_12) && !interns_for_ever(probed.intern)? {
            probed.refused = Some("names are not immortal");
        }
        Ok(probed)
    }

    /// Has the interpreter count tuples that were made without it, all but the first ones: see [`UNCOUNTED`]. It counts each that is
    /// freed, and would never collect.
    pub(crate) fn count_tuples(&self, n: usize) {
        // The GIL is held.
        let uncounted = self.uncounted.load(Ordering::Relaxed);
        self.uncounted.store(uncounted.saturating_sub(n), Ordering::Relaxed);
        let n = c_int::try_from(n.saturating_sub(uncounted)).unwrap_or(c_int::MAX);
        for place in &self.collectable {
            // SAFETY: the GIL is held; it lies in the state of the interpreter, which outlives the module.
            unsafe { **place = (**place).saturating_add(n) };
        }
    }

    /// Why code objects are to be made by the interpreter's constructor, if they are.
    #[inline]
    pub(crate) fn refuses_direct(&self) -> Option<&'static str> {
        if let Err(why) = self.heads {
            return Some(why);
        }
        // SAFETY: it lies in the state of the interpreter, which outlives the module.
        if !self.watchers.is_null() && unsafe { *self.watchers } != 0 {
            return Some("a code watcher is active");
        }
        self.refused
    }
}

/// Whether an object is never freed.
///
/// # Safety
/// It is an object.
#[inline]
pub(crate) unsafe fn is_immortal(object: *mut PyObject) -> bool {
    // SAFETY: the caller says so. Source: CPython 3.12 to 3.15, `_Py_IsImmortal`.
    cfg!(Py_3_12) && unsafe { object.cast::<u32>().read().cast_signed() } < 0
}

fn interns_for_ever(intern: Intern) -> PyResult<bool> {
    // SAFETY: the GIL is held; the text is UTF-8.
    unsafe {
        let name = new(ffi::PyUnicode_FromStringAndSize(c"_rehydrate_probe".as_ptr(), 16))?;
        let name = intern.for_ever(name);
        let is = is_immortal(name);
        ffi::Py_DECREF(name);
        Ok(is)
    }
}

/// The object, or the error that is set.
fn new(object: *mut PyObject) -> PyResult<*mut PyObject> {
    if object.is_null() {
        // SAFETY: the GIL is held, as all of this module is called under it.
        return Err(PyErr::fetch(unsafe { Python::assume_attached() }));
    }
    Ok(object)
}

/// The heads, and whether the interpreter takes line tables as they are.
fn heads(py: Python<'_>, python: Version) -> PyResult<Result<(Heads, bool), &'static str>> {
    let object = |object: *mut PyObject| -> PyResult<Bound<'_, PyAny>> {
        // SAFETY: a new reference, or null.
        unsafe { Bound::from_owned_ptr_or_err(py, object) }
    };
    let text = |text: &CStr| object(unsafe { ffi::PyUnicode_FromString(text.as_ptr()) });
    let bytes =
        |bytes: &[u8]| object(unsafe { ffi::PyBytes_FromStringAndSize(bytes.as_ptr().cast(), bytes.len() as isize) });
    // SAFETY (of all that reads a head): the object is of the kind, and at least as long in any CPython of this version.
    let ascii_of = |object: &Bound<'_, PyAny>| unsafe { object.as_ptr().cast::<AsciiStr>().read() };
    let bytes_head_of = |object: &Bound<'_, PyAny>| unsafe { object.as_ptr().cast::<Bytes>().read() };
    let tuple_of = |object: &Bound<'_, PyAny>| unsafe { object.as_ptr().byte_sub(16).cast::<Tuple>().read() };

    let (a_text, b_text) = (text(c"rehydrate.a")?, text(c"rehydrate.probe")?);
    let (a_bytes, b_bytes) = (bytes(b"\x01\x02\x03")?, bytes(b"\x04\x05")?);
    let (a_tuple, b_tuple) = (untracked(&[&a_text, &a_bytes])?, untracked(&[&b_text])?);
    let a = constructed(py, python, &PROBES[0])?;
    let b = constructed(py, python, &PROBES[1])?;
    // SAFETY: code objects are at least as long.
    let (a_code, b_code) = unsafe { (read_code(&a.code), read_code(&b.code)) };
    #[cfg(Py_3_12)]
    let frame_size = a_code.framesize - a_code.nlocalsplus - a_code.stacksize;

    let mut heads = Heads {
        ascii: ascii_of(&a_text),
        bytes: bytes_head_of(&a_bytes),
        tuple: tuple_of(&a_tuple),
        code: a_code,
        #[cfg(Py_3_12)]
        frame_size,
    };
    for head in [&mut heads.ascii.head, &mut heads.bytes.head, &mut heads.tuple.head, &mut heads.code.head] {
        // One reference; from 3.14 on, flags stand above their number.
        head.refcnt = head.refcnt >> 32 << 32 | 1;
    }
    // SAFETY: the GIL is held; what is made is dropped as what it is, if it is like the interpreter's.
    unsafe {
        let made = object(heads.ascii(b"rehydrate.probe"))?;
        if !same_ascii(&ascii_of(&made), &ascii_of(&b_text)) || !made.eq(&b_text)? {
            std::mem::forget(made);
            return Ok(Err("str are laid out in another way"));
        }
        let made = object(heads.bytes(b"\x04\x05"))?;
        if bytes_of(&bytes_head_of(&made))[8..] != bytes_of(&bytes_head_of(&b_bytes))[8..] || !made.eq(&b_bytes)? {
            std::mem::forget(made);
            return Ok(Err("bytes are laid out in another way"));
        }
        let (made, items) = heads.tuple(1);
        let made = object(made)?;
        items.write(b_text.clone().into_ptr());
        if !same_tuple(&tuple_of(&made), &tuple_of(&b_tuple)) || !made.eq(&b_tuple)? {
            std::mem::forget(made);
            return Ok(Err("tuples are laid out in another way"));
        }
    }
    let keeps_positions = b_code.linetable == b.tables[0].as_ptr();
    Ok(b.is_like_ours(&heads, b_code, python).map(|()| (heads, keeps_positions)))
}

fn untracked<'py>(items: &[&Bound<'py, PyAny>]) -> PyResult<Bound<'py, PyAny>> {
    let tuple = pyo3::types::PyTuple::new(items[0].py(), items)?;
    // SAFETY: it is an object that the collector knows.
    unsafe { ffi::PyObject_GC_UnTrack(tuple.as_ptr().cast()) };
    Ok(tuple.into_any())
}

/// # Safety
/// It is a code object, of a version whose code objects are at least as long as ours.
unsafe fn read_code(code: &Bound<'_, PyAny>) -> CodeObject {
    // SAFETY: the caller says so.
    unsafe { code.as_ptr().cast::<CodeObject>().read() }
}

/// What a code object is made of.
struct Probe {
    numbers: [i32; 6],
    first_line: i32,
    variables: [&'static CStr; 3],
    cell: &'static CStr,
    free: &'static [&'static CStr],
    /// Instructions that have no caches, ahead of the first that is traced.
    n_before: usize,
    tables: [&'static [u8]; 2],
    texts: [&'static CStr; 3],
}

/// All fields differ.
const PROBES: [Probe; 2] = [
    Probe {
        numbers: [2, 1, 1, 3, 5, 0x3],
        first_line: 17,
        variables: [c"a", c"b", c"c"],
        cell: c"d",
        free: &[],
        n_before: 1,
        tables: [b"\x80\x00\xd8\x08", b"\x82\x01"],
        texts: [c"a.py", c"f", c"C.f"],
    },
    Probe {
        numbers: [1, 0, 2, 3, 11, 0x13],
        first_line: 4711,
        variables: [c"p", c"q", c"r"],
        cell: c"s",
        free: &[c"t", c"u"],
        n_before: 2,
        tables: [b"\x80\x00\xd8\x08\x0c", b"\x82\x01\x05"],
        texts: [c"b.py", c"g", c"D.g"],
    },
];

/// A code object that the interpreter made, and what it was made of.
struct Constructed<'py> {
    code: Bound<'py, PyAny>,
    probe: &'static Probe,
    bytecode: Vec<u8>,
    names: Bound<'py, PyAny>,
    consts: Bound<'py, PyAny>,
    texts: [Bound<'py, PyAny>; 3],
    tables: [Bound<'py, PyAny>; 2],
}

fn constructed<'py>(py: Python<'py>, python: Version, probe: &'static Probe) -> PyResult<Constructed<'py>> {
    // SAFETY: the GIL is held; each call gives a new reference, or null.
    let object = |object: *mut PyObject| unsafe { Bound::from_owned_ptr_or_err(py, object) };
    let text = |text: &CStr| object(unsafe { ffi::PyUnicode_InternFromString(text.as_ptr()) });
    let bytes =
        |bytes: &[u8]| object(unsafe { ffi::PyBytes_FromStringAndSize(bytes.as_ptr().cast(), bytes.len() as isize) });
    let tuple = |texts: &[&CStr]| -> PyResult<Bound<'py, PyAny>> {
        let texts: Vec<_> = texts.iter().map(|name| text(name)).collect::<PyResult<_>>()?;
        Ok(pyo3::types::PyTuple::new(py, texts)?.into_any())
    };
    // Some without caches, the first that is traced, and one of each that has caches.
    let resume = python.resume().expect("every version that is known here has it");
    let units = caches::units(python).expect("every version that is known here has caches");
    let short = (1..=255u8).find(|opcode| units[usize::from(*opcode)] == 1 && *opcode != resume);
    let mut bytecode = [short.expect("not every instruction has caches"), 0].repeat(probe.n_before);
    bytecode.extend([resume, 0]);
    bytecode.resize(bytecode.len() + 2 * usize::from(units[usize::from(resume)].max(1) - 1), 0);
    for opcode in (1..=255u8).filter(|opcode| units[usize::from(*opcode)] > 1 && *opcode != resume) {
        bytecode.extend([opcode, 0]);
        bytecode.resize(bytecode.len() + 2 * usize::from(units[usize::from(opcode)] - 1), 0);
    }
    let code = bytes(&bytecode)?;
    let names = tuple(&[c"x", probe.variables[0]])?;
    let consts = pyo3::types::PyTuple::new(py, [py.None(), py.None()])?.into_any();
    let texts = [text(probe.texts[0])?, text(probe.texts[1])?, text(probe.texts[2])?];
    let tables = [bytes(probe.tables[0])?, bytes(probe.tables[1])?];
    let (varnames, free, cell) = (tuple(&probe.variables)?, tuple(probe.free)?, tuple(&[probe.cell])?);
    let [argcount, posonly, kwonly, nlocals, stacksize, flags] = probe.numbers;
    // SAFETY: all objects are of the types that it takes.
    let made = object(unsafe {
        PyCode_NewWithPosOnlyArgs(
            argcount,
            posonly,
            kwonly,
            nlocals,
            stacksize,
            flags,
            code.as_ptr(),
            consts.as_ptr(),
            names.as_ptr(),
            varnames.as_ptr(),
            free.as_ptr(),
            cell.as_ptr(),
            texts[0].as_ptr(),
            texts[1].as_ptr(),
            texts[2].as_ptr(),
            probe.first_line,
            tables[0].as_ptr(),
            tables[1].as_ptr(),
        )
    })?;
    Ok(Constructed { code: made, probe, bytecode, names, consts, texts, tables })
}

impl Constructed<'_> {
    /// Whether one that we make has the same bytes.
    fn is_like_ours(&self, heads: &Heads, theirs: CodeObject, python: Version) -> Result<(), &'static str> {
        const DIFFERS: Result<(), &str> = Err("code objects are laid out in another way");
        let mut quickened = Vec::new();
        if !caches::quicken(python, &self.bytecode, &mut quickened) {
            return Err("the probe's bytecode is not quickened");
        }
        let [arg_count, pos_only_arg_count, kw_only_arg_count, _, stack_size, flags] = self.probe.numbers;
        let first_line_no = self.probe.first_line;
        let numbers =
            CodeNumbers { arg_count, pos_only_arg_count, kw_only_arg_count, stack_size, flags, first_line_no };
        let n_variables = 4 + self.probe.free.len();
        let kinds: Vec<u8> = [0x20, 0x20, 0x20, 0x40].into_iter().chain(self.probe.free.iter().map(|_| 0x80)).collect();
        let fields = CodeFields {
            numbers,
            derived: Derived { kinds: count_kinds(&kinds), first_traceable: self.probe.n_before as u32 },
            n_variables: n_variables as i32,
            #[cfg(not(Py_3_12))]
            n_plain_cells: 1,
            #[cfg(Py_3_12)]
            version: theirs.version,
            consts: self.consts.as_ptr(),
            names: self.names.as_ptr(),
            // The constructor makes these itself; a line table only if it leaves positions out.
            linetable: theirs.linetable,
            localsplusnames: theirs.localsplusnames,
            localspluskinds: theirs.localspluskinds,
            filename: self.texts[0].as_ptr(),
            name: self.texts[1].as_ptr(),
            qualname: self.texts[2].as_ptr(),
            exceptiontable: self.tables[1].as_ptr(),
            bytecode: &quickened,
        };
        // SAFETY: the GIL is held. What is made is not dropped as an object: it has no references of its own.
        unsafe {
            let made = heads.code(fields).cast::<CodeObject>();
            if made.is_null() {
                return Err("there was no memory for a code object");
            }
            let ours = made.read();
            let is_like = same_code(&ours, &theirs);
            let code = |code: *const CodeObject| {
                std::slice::from_raw_parts(code.add(1).cast::<u8>(), self.bytecode.len()).to_vec()
            };
            let is_like = is_like && code(made) == code(self.code.as_ptr().cast());
            ffi::PyObject_Free(made.cast());
            if !is_like {
                return DIFFERS;
            }
        }
        // Everything else is where we think it is, so these are, too.
        // SAFETY: as said.
        unsafe {
            let is_tuple = ffi::PyTuple_CheckExact(theirs.localsplusnames) != 0
                && ffi::PyTuple_Size(theirs.localsplusnames) == n_variables as isize;
            let is_bytes = ffi::PyBytes_CheckExact(theirs.localspluskinds) != 0
                && ffi::PyBytes_Size(theirs.localspluskinds) == n_variables as isize;
            let is_table = ffi::PyBytes_CheckExact(theirs.linetable) != 0;
            if is_tuple && is_bytes && is_table { Ok(()) } else { DIFFERS }
        }
    }
}

/// Whether two heads of str are the same, but for their references and the bits of their state that nobody sets.
fn same_ascii(a: &AsciiStr, b: &AsciiStr) -> bool {
    let state = std::mem::offset_of!(AsciiStr, state);
    let (a, b) = (bytes_of(a), bytes_of(b));
    // Eight bits are used.
    a[8..=state] == b[8..=state]
}

/// Whether two heads of tuples are the same, but for their references.
fn same_tuple(a: &Tuple, b: &Tuple) -> bool {
    let references = std::mem::offset_of!(Tuple, head);
    let (a, b) = (bytes_of(a), bytes_of(b));
    a[..references] == b[..references] && a[references + 8..] == b[references + 8..]
}

/// Whether two code objects are the same, but for their references and what nobody sets.
fn same_code(a: &CodeObject, b: &CodeObject) -> bool {
    // Between the first instruction that is traced and what comes behind it there is padding.
    let padding = std::mem::offset_of!(CodeObject, firsttraceable) + 4;
    #[cfg(Py_3_14)]
    let unset = std::mem::offset_of!(CodeObject, unique_id)..padding - 4;
    #[cfg(not(Py_3_14))]
    let unset = padding..padding;
    let (a, b) = (bytes_of(a), bytes_of(b));
    // The number of references comes first.
    a[8..unset.start] == b[8..unset.start]
        && a[unset.end..padding] == b[unset.end..padding]
        && a[padding + 4..] == b[padding + 4..]
}

/// The interpreter's state from the begin of a range on, which lies in it.
fn state(range: &Range<usize>) -> *mut u8 {
    // SAFETY: the GIL is held.
    unsafe { ffi::PyInterpreterState_Get().cast::<u8>().add(range.start) }
}

/// The numbers that grow by as many objects as are allocated for the collector, and shrink when these are freed: how many of
/// the young ones there are, and in 3.14.0 of all.
fn find_collectable(range: Range<usize>) -> PyResult<Vec<*mut c_int>> {
    let state = state(&range).cast::<c_int>();
    // SAFETY: the GIL is held; the places lie in the interpreter's state.
    let numbers =
        || -> Vec<c_int> { (0..range.len() / size_of::<c_int>()).map(|at| unsafe { state.add(at).read() }).collect() };
    let mut found: Option<Vec<usize>> = None;
    for n in [5, 3, 7] {
        let (before, mut made) = (numbers(), Vec::new());
        // SAFETY: the GIL is held. What is made is freed as memory: nobody sees it.
        let during = unsafe {
            let was_enabled = ffi::PyGC_Disable();
            made.resize_with(n as usize, || ffi::PyObject_GC_New::<PyObject>(&raw mut ffi::PySet_Type));
            let during = numbers();
            made.iter().filter(|object| !object.is_null()).for_each(|object| ffi::PyObject_GC_Del(object.cast()));
            if was_enabled != 0 {
                ffi::PyGC_Enable();
            }
            during
        };
        if made.iter().any(|object| object.is_null()) {
            // SAFETY: the GIL is held.
            return Err(PyErr::fetch(unsafe { Python::assume_attached() }));
        }
        let after = numbers();
        let counts = |at: &usize| during[*at] == before[*at].wrapping_add(n) && after[*at] == before[*at];
        found = Some(found.unwrap_or_else(|| (0..before.len()).collect()).into_iter().filter(counts).collect());
    }
    let found = found.filter(|found| found.len() <= 2).unwrap_or_default();
    // SAFETY: as above.
    Ok(found.into_iter().map(|at| unsafe { state.add(at) }).collect())
}

/// The version that the interpreter gives to the next function: the number that is always one above that of the newest code
/// object.
fn find_next_version(range: Range<usize>) -> PyResult<Option<*mut u32>> {
    #[cfg(Py_3_12)]
    {
        let state = state(&range).cast::<u32>();
        let newest = || -> PyResult<u32> {
            // SAFETY: the GIL is held.
            unsafe {
                let code = new(ffi::PyCode_NewEmpty(c"probe".as_ptr(), c"probe".as_ptr(), 1).cast())?;
                let version = code.cast::<CodeObject>().read().version;
                ffi::Py_DECREF(code);
                Ok(version)
            }
        };
        // SAFETY: the GIL is held; the places lie in the interpreter's state.
        let follows = |version: u32| {
            move |at: &usize| version != 0 && unsafe { state.add(*at).read() } == version.wrapping_add(1)
        };
        let mut found: Vec<usize> = (0..range.len() / size_of::<u32>()).filter(follows(newest()?)).collect();
        for _ in 0..3 {
            found.retain(follows(newest()?));
        }
        if let [at] = found[..] {
            // SAFETY: as above.
            return Ok(Some(unsafe { state.add(at) }));
        }
    }
    let _ = range;
    Ok(None)
}

/// The byte that has a bit for each code watcher: the one that gets that of a first watcher, and then that of a second.
#[cfg(Py_3_12)]
fn find_watchers(range: Range<usize>) -> Option<*const u8> {
    unsafe extern "C" fn nothing(_: c_int, _: *mut PyObject) -> c_int {
        0
    }
    let state = state(&range);
    // SAFETY: the GIL is held; the range lies in the interpreter's state.
    let (add, read) = unsafe { (|| PyCode_AddWatcher(nothing), |at: usize| state.add(at).read()) };
    let before: Vec<u8> = (0..range.len()).map(read).collect();
    // Both at once: where the interpreter keeps the address of a watcher, a byte may look like the bit of one, but not of both.
    let first = add();
    let has_first = |at: &usize| u32::from(before[*at]) ^ u32::from(read(*at)) == 1 << first;
    let mut found: Vec<usize> = if first < 0 { Vec::new() } else { (0..before.len()).filter(has_first).collect() };
    let second = add();
    found.retain(|at| second >= 0 && u32::from(before[*at]) ^ u32::from(read(*at)) == 1 << first | 1 << second);
    for id in [first, second] {
        // SAFETY: the GIL is held. The error is that there is no room for one more.
        unsafe {
            if id < 0 {
                ffi::PyErr_Clear();
            } else {
                PyCode_ClearWatcher(id);
            }
        }
    }
    found.retain(|at| read(*at) == before[*at]);
    match found[..] {
        // SAFETY: as above.
        [at] => Some(unsafe { state.add(at).cast_const() }),
        _ => None,
    }
}
