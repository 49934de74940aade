//! The loop of a scan: the rows in blocks of R, and the last ones by one.

use crate::prefetch::prefetch;

/// How far ahead the rows are asked for, in bytes. Measured on AMD EPYC (Zen 5): 1 KiB is too late
/// (20 to 24 GB/s for int8), 4 and 8 KiB are alike (24 to 29).
const AHEAD: usize = 4096;

/// Calls `put(i, dot)` for each row i of `dim` values, in ascending order, with the
/// products that `block` gives for R rows and `single` for the remaining ones.
///
/// Inlined, so that the closures are compiled into the caller and with its
/// instruction set. `dim` is not 0.
#[inline(always)]
#[allow(clippy::inline_always)] // see above: without it each block would be two calls
pub(super) fn each_row<T, D, const R: usize>(
    rows: &[T],
    dim: usize,
    block: impl Fn([&[T]; R]) -> [D; R],
    single: impl Fn([&[T]; 1]) -> [D; 1],
    mut put: impl FnMut(usize, D),
) {
    let mut index = 0;
    let blocks = rows.chunks_exact(R * dim);
    let rest = blocks.remainder();
    for values in blocks {
        prefetch(values.as_ptr().wrapping_byte_add(AHEAD), size_of_val(values));
        for dot in block(std::array::from_fn(|r| &values[r * dim..(r + 1) * dim])) {
            put(index, dot);
            index += 1;
        }
    }
    for row in rest.chunks_exact(dim) {
        let [dot] = single([row]);
        put(index, dot);
        index += 1;
    }
}
