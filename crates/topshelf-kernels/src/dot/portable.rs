//! Inner products in plain Rust, in the order that [`super`] fixes: what runs where
//! no vector code fits, and what defines the bits of all the others.

use super::LANES;

/// f32 products of `query` with each row.
#[inline]
pub(crate) fn dots_f32<const R: usize>(query: &[f32], rows: [&[f32]; R]) -> [f32; R] {
    rows.map(|row| {
        let mut sums = [0.0_f32; LANES];
        let (query_chunks, query_tail) = query.as_chunks::<LANES>();
        let (row_chunks, row_tail) = row.as_chunks::<LANES>();
        for (q, x) in query_chunks.iter().zip(row_chunks) {
            for ((sum, q), x) in sums.iter_mut().zip(q).zip(x) {
                *sum += q * x;
            }
        }
        for ((sum, q), x) in sums.iter_mut().zip(query_tail).zip(row_tail) {
            *sum += q * x;
        }
        let mut width = LANES;
        while width > 1 {
            width /= 2;
            let (lower, upper) = sums.split_at_mut(width);
            for (sum, other) in lower.iter_mut().zip(upper) {
                *sum += *other;
            }
        }
        sums[0]
    })
}

/// int8 products of `query` with each row.
#[inline]
pub(crate) fn dots_i8<const R: usize>(query: &[i8], rows: [&[i8]; R]) -> [i32; R] {
    rows.map(|row| {
        query.iter().zip(row).map(|(&q, &x)| i32::from(q) * i32::from(x)).fold(0, i32::wrapping_add)
    })
}
