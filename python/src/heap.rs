//! Room on the heap of the C library, in huge pages.
//!
//! The interpreter asks the C library for all that is larger than 512 bytes: most code objects, and the tables of dicts. Its heap
//! grows by 132 KiB at a time, and a page of 4 KiB comes as it is touched. Here it grows by [`ROOM`] at once, before any of that
//! is touched, and the system is told that a page of it is a huge one.
//!
//! It grows as every program makes it grow: what is allocated at its end, and freed, is room there. What is so large the GNU C
//! library maps apart, until as much was freed once; from then on it comes from the heap, and twice as much is left at the end
//! when it is free. Where a library does otherwise, or was told to, what is allocated lies elsewhere, and that is all.
//!
//! Source: M_MMAP_THRESHOLD and M_TRIM_THRESHOLD in mallopt(3), which says when they adjust themselves.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::huge::{HUGE, advise_huge};

/// By so much the heap grows.
const ROOM: usize = 8 << 20;

/// No room is to be made.
const OFF: usize = usize::MAX;

/// Where the heap ended when it was looked at last.
static END: AtomicUsize = AtomicUsize::new(OFF);

/// Has [`make_room`] make room from now on, or not.
pub(crate) fn keep_room(is_kept: bool) {
    END.store(if is_kept { heap_end() } else { OFF }, Ordering::Relaxed);
}

/// Makes room if the heap has grown, for it will grow again.
#[inline]
pub(crate) fn make_room() {
    let end = END.load(Ordering::Relaxed);
    if end != OFF && end < heap_end() {
        grow();
    }
}

/// Where the heap ends; 0 if that is not known.
#[inline]
fn heap_end() -> usize {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it moves nothing.
    return unsafe { libc::sbrk(0) }.addr();
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    0
}

#[cold]
fn grow() {
    // What is freed of the first one makes the second one come from the heap.
    for _ in 0..2 {
        let end = heap_end();
        // The compiler would leave out what is freed without having been used.
        // SAFETY: it may be of any size.
        let room = black_box(unsafe { libc::malloc(ROOM) });
        let ends = room.addr().saturating_add(ROOM);
        let is_new = room.addr() < end && end < ends && ends <= heap_end();
        if is_new {
            let (first, last) = (room.addr().next_multiple_of(HUGE), heap_end() / HUGE * HUGE);
            advise_huge(room.with_addr(first), last.saturating_sub(first));
        }
        // SAFETY: nobody else knows of it.
        unsafe { libc::free(room) };
        if is_new {
            break;
        }
    }
    END.store(heap_end(), Ordering::Relaxed);
}
