//! Memory in huge pages: the functions of the system, and the switch.
//!
//! An import touches much new memory, a page of 4 KiB at a time, and for each the system is asked: in a virtual machine that
//! takes as long as to make several objects. A huge page, of 2 MiB, is asked for once. A system that gives none gives small ones.

use std::ffi::c_void;
use std::ptr;

use pyo3::prelude::*;

use crate::{arenas, heap};

/// The size of a huge page of x86-64, and of 64-bit ARM whose small pages are of 4 KiB.
pub(crate) const HUGE: usize = 2 << 20;

/// Has new memory of the interpreter, and of the C library, lie in huge pages, or, with `false`, be as it was before.
#[pyfunction]
#[pyo3(signature = (is_wanted, /))]
pub(crate) fn huge_pages(py: Python<'_>, is_wanted: bool) {
    arenas::be_huge(py, is_wanted);
    heap::keep_room(is_wanted);
}

/// `n` bytes of zeros, in small pages, or null if there is no memory.
pub(crate) fn map(n: usize) -> *mut c_void {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: it maps memory where there is none.
    let start = unsafe { libc::mmap(ptr::null_mut(), n, access, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
    if start == libc::MAP_FAILED { ptr::null_mut() } else { start }
}

/// `n` huge pages of zeros, or null if there is no memory.
pub(crate) fn map_huge(n: usize) -> *mut c_void {
    let Some(size) = n.checked_mul(HUGE).filter(|size| *size < isize::MAX as usize) else { return ptr::null_mut() };
    // Where it begins is up to the system: one more page, and what was not asked for is given back.
    let mapped = map(size + HUGE);
    if mapped.is_null() {
        return mapped;
    }
    let before = mapped.addr().next_multiple_of(HUGE) - mapped.addr();
    // SAFETY: all of it was just mapped, and nobody knows of it.
    unsafe {
        let pages = mapped.byte_add(before);
        unmap(mapped, before);
        unmap(pages.byte_add(size), HUGE - before);
        advise_huge(pages, size);
        pages
    }
}

/// Says that `n` bytes shall come in huge pages when they are touched. A system that does not know the advice leaves it.
pub(crate) fn advise_huge(start: *mut c_void, n: usize) {
    #[cfg(target_os = "linux")]
    // SAFETY: it changes nothing that is there.
    unsafe {
        libc::madvise(start, n, libc::MADV_HUGEPAGE);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (start, n);
}

/// Has all pages there before they are touched. A system that cannot leaves them as they are.
pub(crate) fn populate(start: *mut c_void, n: usize) {
    #[cfg(target_os = "linux")]
    // SAFETY: it changes nothing that is there.
    unsafe {
        libc::madvise(start, n, libc::MADV_POPULATE_WRITE);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (start, n);
}

/// Gives back a part of what [`map`] or [`map_huge`] gave.
///
/// # Safety
/// Nobody uses the `n` bytes any more.
pub(crate) unsafe fn unmap(start: *mut c_void, n: usize) {
    if n > 0 {
        // SAFETY: the caller says so.
        unsafe { libc::munmap(start, n) };
    }
}
