//! Holds what the interpreter says of its own layout, for the debuggers of other processes, against ours.
//!
//! From 3.13 on `_PyRuntime` begins with a table of numbers of 64 bits, written by the compiler of the interpreter. It does not
//! name every field that we use: [`crate::probe`] compares whole objects besides.
//!
//! Source: CPython 3.13 `Include/internal/pycore_runtime.h`, 3.14 and 3.15 `Include/internal/pycore_debug_offsets.h`,
//! `_Py_DebugOffsets`.

use std::mem::offset_of;

use pyo3::ffi;

use crate::layout::{AsciiStr, Bytes, CodeObject, Head, Tuple, VERSION};
use crate::probe::symbol;

/// Which number of the table each of its sections begins with.
pub(crate) struct Sections {
    pub(crate) code: usize,
    pub(crate) object: usize,
    pub(crate) tuple: usize,
    pub(crate) bytes: usize,
    pub(crate) text: usize,
}

/// A number of the table, and what it is to be.
pub(crate) struct Offset {
    pub(crate) name: &'static str,
    /// Which number it is.
    pub(crate) at: usize,
    pub(crate) ours: u64,
    pub(crate) theirs: u64,
}

impl Offset {
    fn agrees(&self) -> bool {
        if self.name == STATE { self.theirs >= self.ours } else { self.theirs == self.ours }
    }
}

/// The number that need only be large enough.
const STATE: &str = "the size of an interpreter's state";

/// What the table says of all that we use: nothing before 3.13.
///
/// # Errors
/// If the interpreter does not export it.
pub(crate) fn offsets() -> Result<Vec<Offset>, &'static str> {
    let Some(Sections { code, object, tuple, bytes, text }) = VERSION.sections else { return Ok(Vec::new()) };
    let theirs = symbol(c"_PyRuntime").cast::<u64>();
    if theirs.is_null() {
        return Err("the interpreter does not say where it keeps what");
    }
    // Where the interpreter's numbers are looked for is to be inside its state.
    let searched = [VERSION.next_version, VERSION.watchers, Some(VERSION.collectable)];
    let searched = searched.into_iter().flatten().map(|range| range.end).max();
    // SAFETY: it does not change.
    let version = unsafe { ffi::Py_Version };
    let ours = [
        ("the cookie", 0, u64::from_ne_bytes(*b"xdebugpy") as usize),
        ("its version", 1, version as usize),
        ("that it is free-threaded", 2, 0),
        (STATE, 6, searched.unwrap_or(0)),
        // One byte of bytecode, and padding.
        ("the size of a code object", code, size_of::<CodeObject>() + 8),
        ("co_filename", code + 1, offset_of!(CodeObject, filename)),
        ("co_name", code + 2, offset_of!(CodeObject, name)),
        ("co_qualname", code + 3, offset_of!(CodeObject, qualname)),
        ("co_linetable", code + 4, offset_of!(CodeObject, linetable)),
        ("co_firstlineno", code + 5, offset_of!(CodeObject, firstlineno)),
        ("co_argcount", code + 6, offset_of!(CodeObject, argcount)),
        ("co_localsplusnames", code + 7, offset_of!(CodeObject, localsplusnames)),
        ("co_localspluskinds", code + 8, offset_of!(CodeObject, localspluskinds)),
        ("co_code_adaptive", code + 9, size_of::<CodeObject>()),
        ("the size of an object", object, offset_of!(Head, size)),
        ("ob_type", object + 1, offset_of!(Head, ty)),
        // What the collector keeps in front of a tuple is no part of it.
        ("ob_item of a tuple", tuple + 1, size_of::<Tuple>() - offset_of!(Tuple, head)),
        ("ob_size of a tuple", tuple + 2, offset_of!(Head, size)),
        ("ob_size of bytes", bytes + 1, offset_of!(Head, size)),
        ("ob_sval of bytes", bytes + 2, size_of::<Bytes>()),
        ("the state of a str", text + 1, offset_of!(AsciiStr, state)),
        ("the length of a str", text + 2, offset_of!(Head, size)),
        ("the size of an ASCII str", text + 3, size_of::<AsciiStr>()),
    ];
    let offset = |(name, at, ours): (_, usize, usize)| {
        // SAFETY: the table of this version is longer, and what it stands in much more so.
        Offset { name, at, ours: ours as u64, theirs: unsafe { theirs.add(at).read() } }
    };
    Ok(ours.into_iter().map(offset).collect())
}

/// Why objects are not to be made without asking the interpreter, if the table says so.
pub(crate) fn disagreement() -> Option<&'static str> {
    let offsets = match offsets() {
        Ok(offsets) => offsets,
        Err(why) => return Some(why),
    };
    let differing = offsets.iter().find(|offset| !offset.agrees())?;
    // Said once a process.
    Some(format!("what the interpreter says of its layout is not what is known: {}", differing.name).leak())
}
