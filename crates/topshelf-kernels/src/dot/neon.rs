//! Inner products with NEON, as every aarch64 CPU has it.
//!
//! f32: the 32 partial sums are eight registers of four.
//!
//! int8: `smull` widens the products to i16 (128² = 16,384 fits) and `sadalp` adds
//! neighbours to i32 lanes: exact.

#![allow(unsafe_code)]
#![allow(clippy::wildcard_imports)] // the intrinsics are named as Arm names them

use std::arch::aarch64::*;

use super::{LANES, padded};

/// f32 products of `query` with each row.
#[target_feature(enable = "neon")]
#[inline]
pub(crate) fn dots_f32<const R: usize>(query: &[f32], rows: [&[f32]; R]) -> [f32; R] {
    let mut sums = [[vdupq_n_f32(0.0); 8]; R];
    let (chunks, tail) = query.as_chunks::<LANES>();
    let row_chunks = rows.map(|row| &row.as_chunks::<LANES>().0[..chunks.len()]);
    for (i, chunk) in chunks.iter().enumerate() {
        for (sums, row) in sums.iter_mut().zip(&row_chunks) {
            add_products(sums, chunk, &row[i]);
        }
    }
    if !tail.is_empty() {
        let chunk = padded(tail);
        for (sums, row) in sums.iter_mut().zip(&rows) {
            add_products(sums, &chunk, &padded(&row[query.len() - tail.len()..]));
        }
    }
    let mut dots = [0.0; R];
    for (dot, sums) in dots.iter_mut().zip(&sums) {
        *dot = fold(sums);
    }
    dots
}

#[target_feature(enable = "neon")]
#[inline]
fn add_products(sums: &mut [float32x4_t; 8], q: &[f32; LANES], x: &[f32; LANES]) {
    let fours = q.as_chunks::<4>().0.iter().zip(x.as_chunks::<4>().0);
    for (sum, (q, x)) in sums.iter_mut().zip(fours) {
        // SAFETY: `q` and `x` span the 16 bytes that are read each, at any alignment.
        let (q, x) = unsafe { (vld1q_f32(q.as_ptr()), vld1q_f32(x.as_ptr())) };
        *sum = vaddq_f32(*sum, vmulq_f32(q, x));
    }
}

/// Adds the upper half to the lower, 32 → 16 → 8 → 4 → 2 → 1.
#[target_feature(enable = "neon")]
#[inline]
fn fold([a, b, c, d, e, f, g, h]: &[float32x4_t; 8]) -> f32 {
    let (a, b, c, d) = (vaddq_f32(*a, *e), vaddq_f32(*b, *f), vaddq_f32(*c, *g), vaddq_f32(*d, *h));
    let four = vaddq_f32(vaddq_f32(a, c), vaddq_f32(b, d));
    let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
}

/// int8 products of `query` with each row.
#[target_feature(enable = "neon")]
#[inline]
pub(crate) fn dots_i8<const R: usize>(query: &[i8], rows: [&[i8]; R]) -> [i32; R] {
    let mut sums = [vdupq_n_s32(0); R];
    let (chunks, tail) = query.as_chunks::<16>();
    let row_chunks = rows.map(|row| &row.as_chunks::<16>().0[..chunks.len()]);
    for (i, chunk) in chunks.iter().enumerate() {
        for (sum, row) in sums.iter_mut().zip(&row_chunks) {
            *sum = add_products_i8(*sum, chunk, &row[i]);
        }
    }
    if !tail.is_empty() {
        let chunk = padded(tail);
        for (sum, row) in sums.iter_mut().zip(&rows) {
            *sum = add_products_i8(*sum, &chunk, &padded(&row[query.len() - tail.len()..]));
        }
    }
    let mut dots = [0; R];
    for (dot, sum) in dots.iter_mut().zip(&sums) {
        *dot = vaddvq_s32(*sum);
    }
    dots
}

#[target_feature(enable = "neon")]
#[inline]
fn add_products_i8(sum: int32x4_t, q: &[i8; 16], x: &[i8; 16]) -> int32x4_t {
    // SAFETY: `q` and `x` span the 16 bytes that are read each, at any alignment.
    let (q, x) = unsafe { (vld1q_s8(q.as_ptr()), vld1q_s8(x.as_ptr())) };
    let lower = vmull_s8(vget_low_s8(q), vget_low_s8(x));
    let upper = vmull_high_s8(q, x);
    vpadalq_s16(vpadalq_s16(sum, lower), upper)
}
