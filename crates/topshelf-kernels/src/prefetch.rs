//! Asks for memory before it is needed, where the hardware's own prefetcher would be late: it sees
//! one long read, not several side by side, and not what is read after the next jump.
//!
//! On x86-64 the caches are told; elsewhere stable Rust has no way to say it, and the call does
//! nothing.

/// Starts to load the `bytes` bytes from `start` on into the caches. They need not be readable.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn prefetch<T>(start: *const T, bytes: usize) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    const CACHE_LINE: usize = 64;

    for offset in (0..bytes).step_by(CACHE_LINE) {
        #[allow(unsafe_code)]
        // SAFETY: a prefetch is a hint, which reads no value and faults at no address; SSE is in
        // the baseline of x86-64.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(start.cast::<i8>().wrapping_add(offset));
        }
    }
}

/// Does nothing on this architecture.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn prefetch<T>(_start: *const T, _bytes: usize) {}
