//! Memory for the interpreter's objects that is there before it is touched.
//!
//! The interpreter allocates its small objects from arenas (of 1 MiB), and lets others say where these come from. Ours lie next
//! to each other in huge pages; where the system gives none, an arena comes with all its small pages at once.
//!
//! Invariant: each arena is freed as it was allocated, whoever allocates at the time: it may be older than a change, or outlast it.

use std::collections::BTreeSet;
use std::ffi::c_void;
use std::ptr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use pyo3::ffi::{self, PyObjectArenaAllocator};
use pyo3::prelude::*;

use crate::huge::{HUGE, map_huge, populate, unmap};

/// What the interpreter had, and our own arenas. It belongs to the process.
struct Arenas {
    before: PyObjectArenaAllocator,
    /// Interpreters that have a GIL each allocate at once.
    ours: Mutex<Ours>,
}

struct Ours {
    /// The addresses of those in use.
    used: BTreeSet<usize>,
    /// Where the rest of a huge page begins; where the next one would, if there is none.
    rest: *mut c_void,
}

// SAFETY: what the interpreter had is never changed, and what it points to is for every thread that holds a GIL. The rest is
// memory that nobody else knows of.
unsafe impl Send for Arenas {}
// SAFETY: as above.
unsafe impl Sync for Arenas {}

static ARENAS: OnceLock<Arenas> = OnceLock::new();

impl Arenas {
    fn ours(&self) -> MutexGuard<'_, Ours> {
        self.ours.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has new arenas lie in huge pages, or, with `false`, come from where they came from before.
pub(crate) fn be_huge(_py: Python<'_>, are_huge: bool) {
    let arenas = ARENAS.get_or_init(|| {
        let mut before = PyObjectArenaAllocator { ctx: ptr::null_mut(), alloc: None, free: None };
        // SAFETY: the GIL is held.
        unsafe { ffi::PyObject_GetArenaAllocator(&raw mut before) };
        let ours = Ours { used: BTreeSet::new(), rest: ptr::null_mut() };
        Arenas { before, ours: Mutex::new(ours) }
    });
    let alloc = if are_huge { Some(alloc as _) } else { arenas.before.alloc };
    let mut allocator = PyObjectArenaAllocator { ctx: arenas.before.ctx, alloc, free: Some(free) };
    // SAFETY: the GIL is held; what frees takes what any of them allocates.
    unsafe { ffi::PyObject_SetArenaAllocator(&raw mut allocator) };
}

impl Ours {
    /// An arena, if its size is a part of a huge page and there is memory.
    fn alloc(&mut self, size: usize) -> Option<*mut c_void> {
        if size == 0 || !HUGE.is_multiple_of(size) {
            return None;
        }
        // Arenas are of one size; one of another would not lie across the end of the page.
        let has_rest = !self.rest.addr().is_multiple_of(HUGE) && self.rest.addr().is_multiple_of(size);
        let arena = if has_rest { self.rest } else { map_huge(1) };
        if arena.is_null() {
            return None;
        }
        self.rest = arena.wrapping_byte_add(size);
        self.used.insert(arena.addr());
        Some(arena)
    }
}

extern "C" fn alloc(ctx: *mut c_void, size: usize) -> *mut c_void {
    let Some(arenas) = ARENAS.get() else { return ptr::null_mut() };
    let ours = arenas.ours().alloc(size);
    let Some(arena) = ours else { return arenas.before.alloc.map_or(ptr::null_mut(), |alloc| alloc(ctx, size)) };
    populate(arena, size);
    arena
}

extern "C" fn free(ctx: *mut c_void, arena: *mut c_void, size: usize) {
    let Some(arenas) = ARENAS.get() else { return };
    let is_ours = arenas.ours().used.remove(&arena.addr());
    if is_ours {
        // SAFETY: it is a part of a huge page, and the interpreter does not use it any more.
        unsafe { unmap(arena, size) };
    } else if let Some(free) = arenas.before.free {
        free(ctx, arena, size);
    }
}
