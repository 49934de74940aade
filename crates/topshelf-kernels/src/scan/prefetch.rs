//! Asks for memory before it is needed.
//!
//! A scan reads several rows side by side, which the hardware's prefetcher does not
//! recognise as one long read. On x86-64 it is told; elsewhere stable Rust has no
//! way to say it, and the call does nothing.

/// How far ahead, in bytes. Measured on AMD EPYC (Zen 5): 1 KiB is too late
/// (20 to 24 GB/s for int8), 4 and 8 KiB are alike (24 to 29).
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 4096;

/// Starts to load as many bytes as `block` has, from `AHEAD` bytes behind its
/// beginning, into the caches.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn prefetch_after<T>(block: &[T]) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    const CACHE_LINE: usize = 64;

    let start = block.as_ptr().cast::<i8>().wrapping_add(AHEAD);
    for offset in (0..size_of_val(block)).step_by(CACHE_LINE) {
        #[allow(unsafe_code)]
        // SAFETY: a prefetch is a hint, which reads no value and faults at no address,
        // those behind the last row included; SSE is in the baseline of x86-64.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(offset));
        }
    }
}

/// Does nothing on this architecture.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(super) fn prefetch_after<T>(_block: &[T]) {}
