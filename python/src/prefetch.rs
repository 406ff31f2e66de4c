//! Has memory in the processor's cache before it is needed.

/// Has the line of memory at an address in the cache soon, if there is one.
#[inline(always)]
pub(crate) fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: to prefetch is harmless, whatever the address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Bytes of a line of memory.
const LINE: usize = 64;

/// Has memory from an address on in the cache soon, as [`prefetch`].
#[inline(always)]
pub(crate) fn prefetch_lines(start: *const u8, n_bytes: usize) {
    // It may begin anywhere in a line, and most is short: no loop that ends nobody knows when.
    prefetch(start);
    prefetch(start.wrapping_add(LINE));
    let mut at = 2 * LINE;
    while at <= n_bytes {
        prefetch(start.wrapping_add(at));
        at += LINE;
    }
}

/// Has bytes in the cache soon. The processor foresees what is read on and on; an initializer is read in a dozen places at once.
pub(crate) fn prefetch_all(bytes: &[u8]) {
    /// What is beyond would drive out what comes first.
    const MOST: usize = 256 << 10;
    let bytes = &bytes[..bytes.len().min(MOST)];
    for lines in bytes.chunks(4 * LINE) {
        (0..4).for_each(|line| prefetch(lines.as_ptr().wrapping_add(line * LINE)));
    }
}
