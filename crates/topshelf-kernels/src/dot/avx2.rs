//! Inner products with AVX2.
//!
//! f32: the 32 partial sums are four registers of eight.
//!
//! int8: widened to i16, then `vpmaddwd` multiplies and adds neighbours in i32: at
//! most 2 · 128² = 32,768, far from its only overflow (two products of −32,768).
//! The shorter way, `vpmaddubsw`, is not used: it saturates at i16, and
//! 2 · 255 · 127 exceeds that.

#![allow(unsafe_code)]
#![allow(clippy::wildcard_imports)] // the intrinsics are named as Intel names them

use std::arch::x86_64::*;

use super::{LANES, padded};

/// f32 products of `query` with each row.
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn dots_f32<const R: usize>(query: &[f32], rows: [&[f32]; R]) -> [f32; R] {
    let mut sums = [[_mm256_setzero_ps(); 4]; R];
    let (chunks, tail) = query.as_chunks::<LANES>();
    let row_chunks = rows.map(|row| &row.as_chunks::<LANES>().0[..chunks.len()]);
    for (i, chunk) in chunks.iter().enumerate() {
        let q = load(chunk);
        for (sums, row) in sums.iter_mut().zip(&row_chunks) {
            add_products(sums, q, load(&row[i]));
        }
    }
    if !tail.is_empty() {
        let q = load(&padded(tail));
        for (sums, row) in sums.iter_mut().zip(&rows) {
            add_products(sums, q, load(&padded(&row[query.len() - tail.len()..])));
        }
    }
    let mut dots = [0.0; R];
    for (dot, [a, b, c, d]) in dots.iter_mut().zip(&sums) {
        let sixteen = [_mm256_add_ps(*a, *c), _mm256_add_ps(*b, *d)];
        *dot = fold(_mm256_add_ps(sixteen[0], sixteen[1]));
    }
    dots
}

#[target_feature(enable = "avx2")]
#[inline]
fn add_products(sums: &mut [__m256; 4], q: [__m256; 4], x: [__m256; 4]) {
    for ((sum, q), x) in sums.iter_mut().zip(q).zip(x) {
        *sum = _mm256_add_ps(*sum, _mm256_mul_ps(q, x));
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn load(chunk: &[f32; LANES]) -> [__m256; 4] {
    let eights = chunk.as_chunks::<8>().0;
    let mut registers = [_mm256_setzero_ps(); 4];
    for (register, eight) in registers.iter_mut().zip(eights) {
        // SAFETY: `eight` spans the 32 bytes that are read; `loadu` takes any alignment.
        *register = unsafe { _mm256_loadu_ps(eight.as_ptr()) };
    }
    registers
}

/// Adds the upper half to the lower, 8 → 4 → 2 → 1.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn fold(eight: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    let one = _mm_add_ss(two, _mm_shuffle_ps::<1>(two, two));
    _mm_cvtss_f32(one)
}

/// int8 products of `query` with each row.
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn dots_i8<const R: usize>(query: &[i8], rows: [&[i8]; R]) -> [i32; R] {
    let mut sums = [_mm256_setzero_si256(); R];
    let (chunks, tail) = query.as_chunks::<16>();
    let row_chunks = rows.map(|row| &row.as_chunks::<16>().0[..chunks.len()]);
    for (i, chunk) in chunks.iter().enumerate() {
        let q = widen(chunk);
        for (sum, row) in sums.iter_mut().zip(&row_chunks) {
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(q, widen(&row[i])));
        }
    }
    if !tail.is_empty() {
        let q = widen(&padded(tail));
        for (sum, row) in sums.iter_mut().zip(&rows) {
            let x = widen(&padded(&row[query.len() - tail.len()..]));
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(q, x));
        }
    }
    let mut dots = [0; R];
    for (dot, sum) in dots.iter_mut().zip(&sums) {
        *dot = sum_i32(*sum);
    }
    dots
}

#[target_feature(enable = "avx2")]
#[inline]
fn widen(chunk: &[i8; 16]) -> __m256i {
    // SAFETY: `chunk` spans the 16 bytes that are read; `loadu` takes any alignment.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(chunk.as_ptr().cast()) })
}

/// The sum of the eight lanes, modulo 2³².
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn sum_i32(eight: __m256i) -> i32 {
    let four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256::<1>(eight));
    let two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    let one = _mm_add_epi32(two, _mm_shuffle_epi32::<1>(two));
    _mm_cvtsi128_si32(one)
}
