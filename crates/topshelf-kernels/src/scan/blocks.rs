//! The loop of a scan: the rows in blocks of R, and the last ones by one.

use super::prefetch::prefetch_after;

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
        prefetch_after(values);
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
