//! What differs inside the CPythons that are known: the layout of objects, and where the interpreter keeps its numbers.
//!
//! Nothing here is believed: [`crate::probe`] compares what we make with what the interpreter makes before any of it is used.
//!
//! Sources: CPython 3.11 to 3.15 `Include/cpython/code.h`, `unicodeobject.h`, `bytesobject.h`, `tupleobject.h`;
//! `Include/internal/pycore_interp.h`, `pycore_interp_structs.h`; `Include/opcode_ids.h`.

use std::ops::Range;

use pyo3::ffi::{Py_hash_t, Py_ssize_t, PyObject, PyTypeObject};

use crate::offsets::Sections;

/// The numbers of the version that this is built for.
pub(crate) struct Version {
    /// The second number of the version.
    minor: u8,
    /// The first opcode that only a running interpreter puts into bytecode.
    pub(crate) first_instrumented: u16,
    /// The one that a tracing compiler puts there, if it is below.
    pub(crate) enter_executor: Option<u8>,
    /// A counter of an inline cache that looks like such an opcode, both bytes.
    pub(crate) counter: Option<u16>,
    /// Where in the state of the interpreter to look for the version of the next function; all of it is inside the state.
    pub(crate) next_version: Option<Range<usize>>,
    /// Where to look for the set of active code watchers.
    pub(crate) watchers: Option<Range<usize>>,
    /// Where to look for how many objects there are that the collector has not seen.
    pub(crate) collectable: Range<usize>,
    /// Where the interpreter's own table of its layout says what.
    pub(crate) sections: Option<Sections>,
}

#[cfg(Py_3_15)]
pub(crate) const VERSION: Version = Version {
    minor: 15,
    first_instrumented: 233,
    enter_executor: None,
    counter: Some(0xfff6),
    next_version: Some(0x2000..0x8000),
    watchers: Some(0x2000..0x8000),
    collectable: 0..0x4000,
    sections: Some(Sections { code: 47, object: 58, tuple: 68, bytes: 86, text: 89 }),
};

#[cfg(all(Py_3_14, not(Py_3_15)))]
pub(crate) const VERSION: Version = Version {
    minor: 14,
    first_instrumented: 234,
    enter_executor: None,
    counter: Some(0xfffc),
    next_version: Some(0x2000..0x8000),
    watchers: Some(0x2000..0x8000),
    collectable: 0..0x4000,
    sections: Some(Sections { code: 39, object: 50, tuple: 56, bytes: 74, text: 77 }),
};

#[cfg(all(Py_3_13, not(Py_3_14)))]
pub(crate) const VERSION: Version = Version {
    minor: 13,
    first_instrumented: 236,
    enter_executor: Some(70),
    counter: None,
    next_version: Some(0x2000..0x8000),
    watchers: Some(0x2000..0x8000),
    collectable: 0..0x4000,
    sections: Some(Sections { code: 34, object: 44, tuple: 50, bytes: 64, text: 67 }),
};

/// Where the version of the next function stands is no part of the interpreter's state; 0 lets the first call number it.
#[cfg(all(Py_3_12, not(Py_3_13)))]
pub(crate) const VERSION: Version = Version {
    minor: 12,
    first_instrumented: 237,
    enter_executor: None,
    counter: None,
    next_version: None,
    watchers: Some(0x40000..0x48000),
    collectable: 0..0x1000,
    sections: None,
};

/// It instruments nothing, knows no watchers and numbers no functions when it makes them.
#[cfg(not(Py_3_12))]
pub(crate) const VERSION: Version = Version {
    minor: 11,
    first_instrumented: 256,
    enter_executor: None,
    counter: None,
    next_version: None,
    watchers: None,
    collectable: 0..0x1000,
    sections: None,
};

/// The version that this is built for.
pub(crate) const PYTHON: Option<rehydrate::Python> = rehydrate::Python::new(VERSION.minor);

/// What every object begins with.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Head {
    pub(crate) refcnt: u64,
    pub(crate) ty: *mut PyTypeObject,
    /// Of a str its length, of others the number of items.
    pub(crate) size: Py_ssize_t,
}

/// A str of ASCII; its text and a zero follow.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct AsciiStr {
    pub(crate) head: Head,
    hash: Py_hash_t,
    pub(crate) state: u32,
    #[cfg(not(Py_3_12))]
    wstr: *mut u8,
}

/// Bytes; they and a zero follow.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Bytes {
    pub(crate) head: Head,
    hash: Py_hash_t,
}

/// A tuple that is not tracked, with what the collector keeps in front of it; its items follow.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Tuple {
    pub(crate) gc: [usize; 2],
    pub(crate) head: Head,
    #[cfg(Py_3_14)]
    hash: Py_hash_t,
}

/// A code object; its bytecode follows.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct CodeObject {
    pub(crate) head: Head,
    pub(crate) consts: *mut PyObject,
    pub(crate) names: *mut PyObject,
    pub(crate) exceptiontable: *mut PyObject,
    pub(crate) flags: i32,
    #[cfg(not(Py_3_12))]
    warmup: i16,
    #[cfg(not(Py_3_12))]
    linearray_entry_size: i16,
    pub(crate) argcount: i32,
    pub(crate) posonlyargcount: i32,
    pub(crate) kwonlyargcount: i32,
    pub(crate) stacksize: i32,
    pub(crate) firstlineno: i32,
    pub(crate) nlocalsplus: i32,
    #[cfg(Py_3_12)]
    pub(crate) framesize: i32,
    pub(crate) nlocals: i32,
    #[cfg(not(Py_3_12))]
    pub(crate) nplaincellvars: i32,
    pub(crate) ncellvars: i32,
    pub(crate) nfreevars: i32,
    #[cfg(Py_3_12)]
    pub(crate) version: u32,
    pub(crate) localsplusnames: *mut PyObject,
    pub(crate) localspluskinds: *mut PyObject,
    pub(crate) filename: *mut PyObject,
    pub(crate) name: *mut PyObject,
    pub(crate) qualname: *mut PyObject,
    pub(crate) linetable: *mut PyObject,
    weakreflist: *mut PyObject,
    #[cfg(Py_3_13)]
    executors: *mut PyObject,
    /// Before 3.12, `_co_code`, and then `_co_linearray`.
    cached: *mut PyObject,
    #[cfg(Py_3_12)]
    instrumentation_version: u64,
    monitoring: *mut PyObject,
    /// Only a free-threaded build sets it.
    #[cfg(Py_3_14)]
    pub(crate) unique_id: Py_ssize_t,
    pub(crate) firsttraceable: i32,
    extra: *mut PyObject,
}

/// What the bytes of a structure are, to compare two of them.
pub(crate) fn bytes_of<T>(value: &T) -> &[u8] {
    // SAFETY: a `T` of this module holds integers and pointers alone; its padding is zeroed by whoever compares.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}
