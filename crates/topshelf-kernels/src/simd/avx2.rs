//! Sixteen lanes in two registers of AVX2.
//!
//! int8: the one-instruction way, `vpmaddubsw`, adds two products u8 · s8 in 16 bits and
//! saturates (2 · 255 · 127 is above 32,767). So codes and weights are widened to 16 bits first
//! and multiplied by `vpmaddwd`, whose sums of two products are 32 bits wide: exact, for a third
//! more instructions.

#![allow(unsafe_code)]
#![allow(clippy::wildcard_imports)] // the intrinsics are named as Intel names them

use std::arch::x86_64::*;

use super::{LANES, Operation, Simd};

/// Proof of AVX2 and FMA: made in [`enter`] only.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

#[target_feature(enable = "avx2,fma")]
pub(crate) fn enter<O: Operation>(operation: O) -> O::Output {
    operation.run(Avx2(()))
}

/// `((x₀ + x₄) + (x₂ + x₆)) + ((x₁ + x₅) + (x₃ + x₇))`, as [`Simd::sum`] adds.
///
/// # Safety
///
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn sum_of_eight(x: __m256) -> f32 {
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }
}

/// The largest of eight lanes.
///
/// # Safety
///
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn largest_of_eight(x: __m256) -> f32 {
    unsafe {
        let four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }
}

/// The smallest of eight lanes.
///
/// # Safety
///
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn smallest_of_eight(x: __m256) -> f32 {
    unsafe {
        let four = _mm_min_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let two = _mm_min_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_min_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }
}

/// [`Simd::add_of_16`].
///
/// # Safety
///
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn add_of_16(table: &[i8; 16], codes: &[u8; 32], numbers: &mut [i8; 64]) {
    unsafe {
        let codes = _mm256_loadu_si256(codes.as_ptr().cast());
        add_looked_up(table, [codes, _mm256_srli_epi16::<4>(codes)], 15, numbers);
    }
}

/// [`Simd::add_of_4`].
///
/// # Safety
///
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn add_of_4(table: &[i8; 16], codes: &[u8; 16], numbers: &mut [i8; 64]) {
    unsafe {
        let codes = _mm_loadu_si128(codes.as_ptr().cast());
        let lower = _mm256_set_m128i(_mm_srli_epi16::<2>(codes), codes);
        add_looked_up(table, [lower, _mm256_srli_epi16::<4>(lower)], 3, numbers);
    }
}

/// Adds what the table says of the bits of `mask` in each byte.
///
/// # Safety
///
/// The CPU has AVX2.
#[inline(always)]
unsafe fn add_looked_up(table: &[i8; 16], codes: [__m256i; 2], mask: i8, numbers: &mut [i8; 64]) {
    unsafe {
        let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
        let mask = _mm256_set1_epi8(mask);
        for (codes, numbers) in codes.into_iter().zip(numbers.as_chunks_mut::<32>().0) {
            let values = _mm256_shuffle_epi8(table, _mm256_and_si256(codes, mask));
            let place = numbers.as_mut_ptr().cast();
            _mm256_storeu_si256(place, _mm256_adds_epi8(_mm256_loadu_si256(place), values));
        }
    }
}

/// What AVX2 and AVX-VNNI have in common: everything but the int8 product.
macro_rules! lanes_of_avx2 {
    () => {
        type F = [__m256; 2];
        type I = [__m256i; 2];

        const TILE_F32: (usize, usize) = (6, 1);

        #[inline(always)]
        fn splat(self, x: f32) -> Self::F {
            unsafe { [_mm256_set1_ps(x); 2] }
        }
        #[inline(always)]
        fn load(self, x: &[f32; LANES]) -> Self::F {
            unsafe { [_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x[8..].as_ptr())] }
        }
        #[inline(always)]
        fn store(self, v: Self::F, out: &mut [f32; LANES]) {
            unsafe {
                _mm256_storeu_ps(out.as_mut_ptr(), v[0]);
                _mm256_storeu_ps(out[8..].as_mut_ptr(), v[1]);
            }
        }
        #[inline(always)]
        fn add(self, a: Self::F, b: Self::F) -> Self::F {
            unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
        }
        #[inline(always)]
        fn sub(self, a: Self::F, b: Self::F) -> Self::F {
            unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
        }
        #[inline(always)]
        fn mul(self, a: Self::F, b: Self::F) -> Self::F {
            unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
        }
        #[inline(always)]
        fn div(self, a: Self::F, b: Self::F) -> Self::F {
            unsafe { [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])] }
        }
        #[inline(always)]
        fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
            unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
        }
        #[inline(always)]
        fn min(self, a: Self::F, b: Self::F) -> Self::F {
            unsafe { [_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])] }
        }
        #[inline(always)]
        fn max(self, a: Self::F, b: Self::F) -> Self::F {
            unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
        }
        #[inline(always)]
        fn round(self, a: Self::F) -> Self::F {
            const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
            unsafe { [_mm256_round_ps::<NEAREST>(a[0]), _mm256_round_ps::<NEAREST>(a[1])] }
        }
        #[inline(always)]
        fn pow2(self, n: Self::F) -> Self::F {
            unsafe {
                two!(|i| {
                    let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n[i]), _mm256_set1_epi32(127));
                    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
                })
            }
        }
        #[inline(always)]
        fn store_u8(self, v: Self::F, out: &mut [u8; LANES]) {
            unsafe {
                // Packing works within halves of 128 bits: 0-3, 8-11, 4-7, 12-15.
                let shorts = _mm256_packs_epi32(_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1]));
                let shorts = _mm256_permute4x64_epi64::<0b11_01_10_00>(shorts);
                let bytes = _mm_packus_epi16(
                    _mm256_castsi256_si128(shorts),
                    _mm256_extracti128_si256::<1>(shorts),
                );
                _mm_storeu_si128(out.as_mut_ptr().cast(), bytes);
            }
        }
        #[inline(always)]
        fn store_u16(self, v: [Self::F; 2], out: &mut [u8; 4 * LANES]) {
            unsafe {
                let order = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
                let order = _mm256_broadcastsi128_si256(order);
                for (v, out) in v.into_iter().zip(out.as_chunks_mut::<{ 2 * LANES }>().0) {
                    let (a, b) = (_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1]));
                    // As in `store_u8`.
                    let shorts = _mm256_packus_epi32(a, b);
                    let shorts = _mm256_permute4x64_epi64::<0b11_01_10_00>(shorts);
                    let bytes = _mm256_shuffle_epi8(shorts, order);
                    _mm256_storeu_si256(out.as_mut_ptr().cast(), bytes);
                }
            }
        }
        #[inline(always)]
        fn add_of_16(self, table: &[i8; 16], codes: &[u8; 32], numbers: &mut [i8; 64]) {
            unsafe { super::avx2::add_of_16(table, codes, numbers) }
        }
        #[inline(always)]
        fn add_of_4(self, table: &[i8; 16], codes: &[u8; 16], numbers: &mut [i8; 64]) {
            unsafe { super::avx2::add_of_4(table, codes, numbers) }
        }
        #[inline(always)]
        fn sum(self, v: Self::F) -> f32 {
            unsafe { super::avx2::sum_of_eight(_mm256_add_ps(v[0], v[1])) }
        }
        #[inline(always)]
        fn largest(self, v: Self::F) -> f32 {
            unsafe { super::avx2::largest_of_eight(_mm256_max_ps(v[0], v[1])) }
        }
        #[inline(always)]
        fn smallest(self, v: Self::F) -> f32 {
            unsafe { super::avx2::smallest_of_eight(_mm256_min_ps(v[0], v[1])) }
        }
        #[inline(always)]
        fn load_i32(self, x: &[i32; LANES]) -> Self::I {
            unsafe {
                [_mm256_loadu_si256(x.as_ptr().cast()), _mm256_loadu_si256(x[8..].as_ptr().cast())]
            }
        }
        #[inline(always)]
        fn load_pairs(self, x: &[u16; 2 * LANES]) -> Self::I {
            unsafe {
                [
                    _mm256_loadu_si256(x.as_ptr().cast()),
                    _mm256_loadu_si256(x[LANES..].as_ptr().cast()),
                ]
            }
        }
        #[inline(always)]
        fn splat_i32(self, x: i32) -> Self::I {
            unsafe { [_mm256_set1_epi32(x); 2] }
        }
        #[inline(always)]
        fn sub_i32(self, a: Self::I, b: Self::I) -> Self::I {
            unsafe { [_mm256_sub_epi32(a[0], b[0]), _mm256_sub_epi32(a[1], b[1])] }
        }
        #[inline(always)]
        fn mul_i32(self, a: Self::I, b: Self::I) -> Self::I {
            unsafe { [_mm256_mullo_epi32(a[0], b[0]), _mm256_mullo_epi32(a[1], b[1])] }
        }
        #[inline(always)]
        fn to_f32(self, a: Self::I) -> Self::F {
            unsafe { two!(|i| _mm256_cvtepi32_ps(a[i])) }
        }
        #[inline(always)]
        fn widen_bf16(self, a: Self::I) -> [Self::F; 2] {
            unsafe {
                let upper = _mm256_set1_epi32(0xffff_0000_u32 as i32);
                [
                    two!(|i| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(a[i]))),
                    two!(|i| _mm256_castsi256_ps(_mm256_and_si256(a[i], upper))),
                ]
            }
        }
    };
}
pub(crate) use lanes_of_avx2;

// SAFETY, for every block below and in the macro: `self` proves that the CPU has the instruction
// (see the head of `super`), and references to arrays span exactly what is read or written, at
// any alignment.
impl Simd for Avx2 {
    lanes_of_avx2!();

    /// For four columns each, two sums: of the even and of the odd products of pairs.
    type Dot = [__m256i; 4];
    type Codes = __m256i;
    type Weights = [__m256i; 4];

    const TILE_I8: (usize, usize) = (2, 1);

    #[inline(always)]
    fn dot_zero(self) -> Self::Dot {
        unsafe { [_mm256_setzero_si256(); 4] }
    }
    #[inline(always)]
    fn dot_start(self, sums: Self::I) -> Self::Dot {
        unsafe {
            [
                _mm256_cvtepu32_epi64(_mm256_castsi256_si128(sums[0])),
                _mm256_cvtepu32_epi64(_mm256_extracti128_si256::<1>(sums[0])),
                _mm256_cvtepu32_epi64(_mm256_castsi256_si128(sums[1])),
                _mm256_cvtepu32_epi64(_mm256_extracti128_si256::<1>(sums[1])),
            ]
        }
    }
    #[inline(always)]
    fn dot_codes(self, codes: [u8; 4]) -> Self::Codes {
        unsafe {
            let four = _mm_cvtepu8_epi16(_mm_cvtsi32_si128(i32::from_le_bytes(codes)));
            _mm256_broadcastq_epi64(four)
        }
    }
    #[inline(always)]
    fn dot_weights(self, weights: &[i8; 4 * LANES]) -> Self::Weights {
        unsafe {
            four!(|i| {
                let sixteen = _mm_loadu_si128(weights[16 * i..].as_ptr().cast());
                _mm256_cvtepi8_epi16(sixteen)
            })
        }
    }
    #[inline(always)]
    fn dot(self, sum: Self::Dot, codes: Self::Codes, weights: Self::Weights) -> Self::Dot {
        unsafe { four!(|i| _mm256_add_epi32(sum[i], _mm256_madd_epi16(codes, weights[i]))) }
    }
    #[inline(always)]
    fn dot_sum(self, sum: Self::Dot) -> Self::I {
        unsafe {
            // hadd works within halves of 128 bits: columns 0 1 4 5 | 2 3 6 7.
            let order = _mm256_setr_epi32(0, 1, 4, 5, 2, 3, 6, 7);
            [
                _mm256_permutevar8x32_epi32(_mm256_hadd_epi32(sum[0], sum[1]), order),
                _mm256_permutevar8x32_epi32(_mm256_hadd_epi32(sum[2], sum[3]), order),
            ]
        }
    }
}
