//! Memory for the interpreter's objects that is there before it is touched.
//!
//! An import touches much new memory, a page at a time, and for each the system is asked: in a virtual machine that takes as
//! long as to make several objects. The interpreter allocates its small objects from arenas (of 1 MiB), and lets
//! others say where these come from. Ours come from where they came from, with all their pages at once.
//!
//! Invariant: an arena is freed by who would have freed it without us, so that it may be older than the change, or outlast it.

use std::ffi::c_void;
use std::sync::OnceLock;

use pyo3::ffi;
use pyo3::prelude::*;

/// What the interpreter had. It belongs to the process.
struct Arenas(ffi::PyObjectArenaAllocator);

// SAFETY: it is never changed, and what it points to is for every thread that holds the GIL.
unsafe impl Send for Arenas {}
// SAFETY: as above.
unsafe impl Sync for Arenas {}

static BEFORE: OnceLock<Arenas> = OnceLock::new();

/// Has new arenas come with all their pages, or, with `false`, as before.
#[pyfunction]
#[pyo3(signature = (populates, /))]
pub(crate) fn populate_arenas(_py: Python<'_>, populates: bool) {
    let Arenas(before) = BEFORE.get_or_init(|| {
        let mut before = ffi::PyObjectArenaAllocator { ctx: std::ptr::null_mut(), alloc: None, free: None };
        // SAFETY: the GIL is held.
        unsafe { ffi::PyObject_GetArenaAllocator(&raw mut before) };
        Arenas(before)
    });
    let alloc = if populates { Some(populated as _) } else { before.alloc };
    let mut arenas = ffi::PyObjectArenaAllocator { ctx: before.ctx, alloc, free: before.free };
    // SAFETY: the GIL is held; what allocates gives what `free` takes, as before.
    unsafe { ffi::PyObject_SetArenaAllocator(&raw mut arenas) };
}

extern "C" fn populated(ctx: *mut c_void, size: usize) -> *mut c_void {
    let Some(alloc) = BEFORE.get().and_then(|Arenas(before)| before.alloc) else { return std::ptr::null_mut() };
    let arena = alloc(ctx, size);
    #[cfg(target_os = "linux")]
    if !arena.is_null() {
        // SAFETY: it fills pages of memory that nobody uses yet. A system that cannot leaves it as it is.
        unsafe { libc::madvise(arena, size, libc::MADV_POPULATE_WRITE) };
    }
    arena
}
