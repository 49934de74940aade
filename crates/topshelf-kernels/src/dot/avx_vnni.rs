//! Inner products with AVX-VNNI, the 256-bit int8 dot product of CPUs without
//! AVX-512. f32 is as in [`super::avx2`].
//!
//! int8: `vpdpbusd` multiplies *unsigned* by signed bytes and adds four neighbours
//! to an i32 lane, without saturation. The rows are made unsigned by adding 128
//! (an exclusive or with 0x80), which is taken off again:
//!
//! ```text
//! Σ (xᵢ + 128)·qᵢ − Σ 128·qᵢ = Σ xᵢ·qᵢ
//! ```
//!
//! The second sum depends on the query only and is formed by the same instruction,
//! once for all rows of a block. (Moving the sign from one factor to the other
//! instead would fail for −128, whose negation is no int8.)

#![allow(unsafe_code)]
#![allow(clippy::wildcard_imports)] // the intrinsics are named as Intel names them

use std::arch::x86_64::*;

pub(crate) use super::avx2::dots_f32;
use super::avx2::sum_i32;
use super::padded;

/// int8 products of `query` with each row.
#[target_feature(enable = "avx2,avxvnni")]
#[inline]
pub(crate) fn dots_i8<const R: usize>(query: &[i8], rows: [&[i8]; R]) -> [i32; R] {
    let offset = _mm256_set1_epi8(i8::MIN); // 0x80: 128 where read as unsigned
    let mut excess = _mm256_setzero_si256();
    let mut sums = [_mm256_setzero_si256(); R];
    let (chunks, tail) = query.as_chunks::<32>();
    let row_chunks = rows.map(|row| &row.as_chunks::<32>().0[..chunks.len()]);
    for (i, chunk) in chunks.iter().enumerate() {
        let q = load(chunk);
        excess = _mm256_dpbusd_avx_epi32(excess, offset, q);
        for (sum, row) in sums.iter_mut().zip(&row_chunks) {
            *sum = _mm256_dpbusd_avx_epi32(*sum, _mm256_xor_si256(load(&row[i]), offset), q);
        }
    }
    if !tail.is_empty() {
        let q = load(&padded(tail));
        excess = _mm256_dpbusd_avx_epi32(excess, offset, q);
        for (sum, row) in sums.iter_mut().zip(&rows) {
            let x = load(&padded(&row[query.len() - tail.len()..]));
            *sum = _mm256_dpbusd_avx_epi32(*sum, _mm256_xor_si256(x, offset), q);
        }
    }
    let mut dots = [0; R];
    for (dot, sum) in dots.iter_mut().zip(&sums) {
        *dot = sum_i32(_mm256_sub_epi32(*sum, excess));
    }
    dots
}

#[target_feature(enable = "avx2")]
#[inline]
fn load(chunk: &[i8; 32]) -> __m256i {
    // SAFETY: `chunk` spans the 32 bytes that are read; `loadu` takes any alignment.
    unsafe { _mm256_loadu_si256(chunk.as_ptr().cast()) }
}
