//! Sixteen lanes in two registers of AVX2, with the int8 product of AVX-VNNI: `vpdpbusd`, which
//! multiplies u8 by s8 and adds four products to an i32 without an intermediate that could
//! saturate.

#![allow(unsafe_code)]
#![allow(clippy::wildcard_imports)] // the intrinsics are named as Intel names them

use std::arch::x86_64::*;

use super::avx2::lanes_of_avx2;
use super::{LANES, Operation, Simd};

/// Proof of AVX2, FMA and AVX-VNNI: made in [`enter`] only.
#[derive(Clone, Copy)]
pub(crate) struct AvxVnni(());

#[target_feature(enable = "avx2,fma,avxvnni")]
pub(crate) fn enter<O: Operation>(operation: O) -> O::Output {
    operation.run(AvxVnni(()))
}

// SAFETY, for every block below: as in `super::avx2`.
impl Simd for AvxVnni {
    lanes_of_avx2!();

    type Dot = [__m256i; 2];
    type Codes = __m256i;
    type Weights = [__m256i; 2];

    const TILE_I8: (usize, usize) = (6, 1);

    #[inline(always)]
    fn dot_zero(self) -> Self::Dot {
        unsafe { [_mm256_setzero_si256(); 2] }
    }
    #[inline(always)]
    fn dot_start(self, sums: Self::I) -> Self::Dot {
        sums
    }
    #[inline(always)]
    fn dot_codes(self, codes: [u8; 4]) -> Self::Codes {
        unsafe { _mm256_set1_epi32(i32::from_le_bytes(codes)) }
    }
    #[inline(always)]
    fn dot_weights(self, weights: &[i8; 4 * LANES]) -> Self::Weights {
        unsafe {
            [
                _mm256_loadu_si256(weights.as_ptr().cast()),
                _mm256_loadu_si256(weights[32..].as_ptr().cast()),
            ]
        }
    }
    #[inline(always)]
    fn dot(self, sum: Self::Dot, codes: Self::Codes, weights: Self::Weights) -> Self::Dot {
        unsafe {
            [
                _mm256_dpbusd_avx_epi32(sum[0], codes, weights[0]),
                _mm256_dpbusd_avx_epi32(sum[1], codes, weights[1]),
            ]
        }
    }
    #[inline(always)]
    fn dot_sum(self, sum: Self::Dot) -> Self::I {
        sum
    }
}
