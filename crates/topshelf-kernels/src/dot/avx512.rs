//! Inner products with AVX-512.
//!
//! f32: the 32 partial sums are two registers of sixteen.
//!
//! int8: `vpdpbusd` of AVX-512 VNNI on rows offset by 128, as [`super::avx_vnni`]
//! explains; 64 bytes at a time.

#![allow(unsafe_code)]
#![allow(clippy::wildcard_imports)] // the intrinsics are named as Intel names them

use std::arch::x86_64::*;

use super::{LANES, avx2, padded};

/// f32 products of `query` with each row.
#[target_feature(enable = "avx512f,avx512dq")]
#[inline]
pub(crate) fn dots_f32<const R: usize>(query: &[f32], rows: [&[f32]; R]) -> [f32; R] {
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    let (chunks, tail) = query.as_chunks::<LANES>();
    let row_chunks = rows.map(|row| &row.as_chunks::<LANES>().0[..chunks.len()]);
    for (i, chunk) in chunks.iter().enumerate() {
        let q = load_f32(chunk);
        for (sums, row) in sums.iter_mut().zip(&row_chunks) {
            add_products(sums, q, load_f32(&row[i]));
        }
    }
    if !tail.is_empty() {
        let q = load_f32(&padded(tail));
        for (sums, row) in sums.iter_mut().zip(&rows) {
            add_products(sums, q, load_f32(&padded(&row[query.len() - tail.len()..])));
        }
    }
    let mut dots = [0.0; R];
    for (dot, [a, b]) in dots.iter_mut().zip(&sums) {
        let sixteen = _mm512_add_ps(*a, *b);
        *dot = avx2::fold(_mm256_add_ps(
            _mm512_castps512_ps256(sixteen),
            _mm512_extractf32x8_ps::<1>(sixteen),
        ));
    }
    dots
}

#[target_feature(enable = "avx512f")]
#[inline]
fn add_products(sums: &mut [__m512; 2], q: [__m512; 2], x: [__m512; 2]) {
    for ((sum, q), x) in sums.iter_mut().zip(q).zip(x) {
        *sum = _mm512_add_ps(*sum, _mm512_mul_ps(q, x));
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_f32(chunk: &[f32; LANES]) -> [__m512; 2] {
    let sixteens = chunk.as_chunks::<16>().0;
    let mut registers = [_mm512_setzero_ps(); 2];
    for (register, sixteen) in registers.iter_mut().zip(sixteens) {
        // SAFETY: `sixteen` spans the 64 bytes that are read; `loadu` takes any alignment.
        *register = unsafe { _mm512_loadu_ps(sixteen.as_ptr()) };
    }
    registers
}

/// int8 products of `query` with each row.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
pub(crate) fn dots_i8<const R: usize>(query: &[i8], rows: [&[i8]; R]) -> [i32; R] {
    let offset = _mm512_set1_epi8(i8::MIN); // 0x80: 128 where read as unsigned
    let mut excess = _mm512_setzero_si512();
    let mut sums = [_mm512_setzero_si512(); R];
    let (chunks, tail) = query.as_chunks::<64>();
    let row_chunks = rows.map(|row| &row.as_chunks::<64>().0[..chunks.len()]);
    for (i, chunk) in chunks.iter().enumerate() {
        let q = load_i8(chunk);
        excess = _mm512_dpbusd_epi32(excess, offset, q);
        for (sum, row) in sums.iter_mut().zip(&row_chunks) {
            *sum = _mm512_dpbusd_epi32(*sum, _mm512_xor_si512(load_i8(&row[i]), offset), q);
        }
    }
    if !tail.is_empty() {
        let q = load_i8(&padded(tail));
        excess = _mm512_dpbusd_epi32(excess, offset, q);
        for (sum, row) in sums.iter_mut().zip(&rows) {
            let x = load_i8(&padded(&row[query.len() - tail.len()..]));
            *sum = _mm512_dpbusd_epi32(*sum, _mm512_xor_si512(x, offset), q);
        }
    }
    let mut dots = [0; R];
    for (dot, sum) in dots.iter_mut().zip(&sums) {
        *dot = _mm512_reduce_add_epi32(_mm512_sub_epi32(*sum, excess));
    }
    dots
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_i8(chunk: &[i8; 64]) -> __m512i {
    // SAFETY: `chunk` spans the 64 bytes that are read; `loadu` takes any alignment.
    unsafe { _mm512_loadu_si512(chunk.as_ptr().cast()) }
}
