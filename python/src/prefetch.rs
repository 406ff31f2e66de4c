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

/// Has memory from an address on in the cache soon, as [`prefetch`].
#[inline(always)]
pub(crate) fn prefetch_lines(start: *const u8, n_bytes: usize) {
    /// Bytes of a line of memory.
    const LINE: usize = 64;
    // One more: it may begin anywhere in a line.
    (0..=n_bytes).step_by(LINE).for_each(|at| prefetch(start.wrapping_add(at)));
}

/// Has bytes in the cache soon. The processor foresees what is read on and on; an initializer is read in a dozen places at once.
pub(crate) fn prefetch_all(bytes: &[u8]) {
    /// What is beyond would drive out what comes first.
    const MOST: usize = 256 << 10;
    prefetch_lines(bytes.as_ptr(), bytes.len().min(MOST));
}
