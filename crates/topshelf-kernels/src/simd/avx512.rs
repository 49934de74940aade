//! Sixteen lanes in one register of AVX-512. int8: `vpdpbusd` multiplies u8 by s8 and adds four
//! products to an i32 without an intermediate that could saturate.

#![allow(unsafe_code)]
#![allow(clippy::wildcard_imports)] // the intrinsics are named as Intel names them

use std::arch::x86_64::*;

use super::{LANES, Operation, Simd};

/// Proof of AVX-512 F, BW, DQ, VL and VNNI, and of BF16 where it says so: made in [`enter`] and
/// [`enter_bf16`] only.
#[derive(Clone, Copy)]
pub(crate) struct Avx512<const BF16: bool>(());

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(crate) fn enter<O: Operation>(operation: O) -> O::Output {
    operation.run(Avx512::<false>(()))
}

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")]
pub(crate) fn enter_bf16<O: Operation>(operation: O) -> O::Output {
    operation.run(Avx512::<true>(()))
}

// SAFETY, for every block below: `self` proves that the CPU has the instruction (see the head of
// `super`), and references to arrays span exactly what is read or written, at any alignment.
impl<const BF16: bool> Simd for Avx512<BF16> {
    type F = __m512;
    type I = __m512i;
    type Dot = __m512i;
    type Codes = __m512i;
    type Weights = __m512i;

    const TILE_F32: (usize, usize) = (12, 2);
    const TILE_I8: (usize, usize) = (12, 2);

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F {
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, v: Self::F, out: &mut [f32; LANES]) {
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    fn pow2(self, n: Self::F) -> Self::F {
        unsafe {
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        }
    }
    #[inline(always)]
    fn split_nonpositive(self, x: Self::F) -> [Self::F; 2] {
        unsafe {
            // Of -∞ f is 0.
            const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
            let f = _mm512_reduce_ps::<NEAREST>(x);
            [_mm512_sub_ps(x, f), f]
        }
    }
    #[inline(always)]
    fn times_pow2(self, p: Self::F, n: Self::F) -> Self::F {
        unsafe { _mm512_scalef_ps(p, n) }
    }
    #[inline(always)]
    fn store_u8(self, v: Self::F, out: &mut [u8; LANES]) {
        unsafe {
            let integers = _mm512_max_epi32(_mm512_cvtps_epi32(v), _mm512_setzero_si512());
            _mm_storeu_si128(out.as_mut_ptr().cast(), _mm512_cvtusepi32_epi8(integers));
        }
    }
    #[inline(always)]
    fn store_u16(self, v: [Self::F; 2], out: &mut [u8; 4 * LANES]) {
        unsafe {
            // The eight bytes of each quarter to its start, then the quarters together.
            let order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, -1, -1, -1, -1, -1, -1, -1, -1);
            let order = _mm512_broadcast_i32x4(order);
            let first = _mm512_shuffle_epi8(_mm512_cvtps_epi32(v[0]), order);
            let second = _mm512_shuffle_epi8(_mm512_cvtps_epi32(v[1]), order);
            let eights = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
            let bytes = _mm512_permutex2var_epi64(first, eights, second);
            _mm512_storeu_si512(out.as_mut_ptr().cast(), bytes);
        }
    }
    #[inline(always)]
    fn load_i32(self, x: &[i32; LANES]) -> Self::I {
        unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
    }
    #[inline(always)]
    fn load_pairs(self, x: &[u16; 2 * LANES]) -> Self::I {
        unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
    }
    #[inline(always)]
    fn dot_bf16(self, sum: Self::F, a: Self::I, b: Self::I) -> Self::F {
        if BF16 {
            // SAFETY: `BF16` is true only in what `enter_bf16` makes.
            // The integer register is taken for one of bf16, bit for bit.
            let pairs = |x| unsafe { std::mem::transmute::<__m512i, __m512bh>(x) };
            return unsafe { _mm512_dpbf16_ps(sum, pairs(a), pairs(b)) };
        }
        let [a0, a1] = self.widen_bf16(a);
        let [b0, b1] = self.widen_bf16(b);
        self.fma(a1, b1, self.fma(a0, b0, sum))
    }
    #[inline(always)]
    fn splat_i32(self, x: i32) -> Self::I {
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    fn sub_i32(self, a: Self::I, b: Self::I) -> Self::I {
        unsafe { _mm512_sub_epi32(a, b) }
    }
    #[inline(always)]
    fn mul_i32(self, a: Self::I, b: Self::I) -> Self::I {
        unsafe { _mm512_mullo_epi32(a, b) }
    }
    #[inline(always)]
    fn to_f32(self, a: Self::I) -> Self::F {
        unsafe { _mm512_cvtepi32_ps(a) }
    }
    #[inline(always)]
    fn widen_bf16(self, a: Self::I) -> [Self::F; 2] {
        unsafe {
            let upper = _mm512_and_si512(a, _mm512_set1_epi32(0xffff_0000_u32 as i32));
            [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(a)), _mm512_castsi512_ps(upper)]
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
        unsafe {
            let lower = _mm512_castps512_ps256(v);
            super::avx2::sum_of_eight(_mm256_add_ps(lower, _mm512_extractf32x8_ps::<1>(v)))
        }
    }
    #[inline(always)]
    fn largest(self, v: Self::F) -> f32 {
        unsafe { _mm512_reduce_max_ps(v) }
    }
    #[inline(always)]
    fn smallest(self, v: Self::F) -> f32 {
        unsafe { _mm512_reduce_min_ps(v) }
    }
    #[inline(always)]
    fn transpose(self, rows: [Self::F; LANES]) -> [Self::F; LANES] {
        unsafe {
            // Quarters of 4 x 4 within the registers' four parts, then the parts.
            let mut quarters = [_mm512_setzero_ps(); LANES];
            for i in (0..LANES).step_by(4) {
                let [a, b, c, d] = [rows[i], rows[i + 1], rows[i + 2], rows[i + 3]];
                let (ab0, ab1) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
                let (cd0, cd1) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
                quarters[i] = _mm512_shuffle_ps::<0x44>(ab0, cd0);
                quarters[i + 1] = _mm512_shuffle_ps::<0xee>(ab0, cd0);
                quarters[i + 2] = _mm512_shuffle_ps::<0x44>(ab1, cd1);
                quarters[i + 3] = _mm512_shuffle_ps::<0xee>(ab1, cd1);
            }
            let mut columns = quarters;
            for i in 0..4 {
                let [a, b, c, d] =
                    [quarters[i], quarters[4 + i], quarters[8 + i], quarters[12 + i]];
                let (ab02, ab13) =
                    (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
                let (cd02, cd13) =
                    (_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xdd>(c, d));
                columns[i] = _mm512_shuffle_f32x4::<0x88>(ab02, cd02);
                columns[4 + i] = _mm512_shuffle_f32x4::<0x88>(ab13, cd13);
                columns[8 + i] = _mm512_shuffle_f32x4::<0xdd>(ab02, cd02);
                columns[12 + i] = _mm512_shuffle_f32x4::<0xdd>(ab13, cd13);
            }
            columns
        }
    }
    #[inline(always)]
    fn dot_zero(self) -> Self::Dot {
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    fn dot_start(self, sums: Self::I) -> Self::Dot {
        sums
    }
    #[inline(always)]
    fn dot_codes(self, codes: [u8; 4]) -> Self::Codes {
        unsafe { _mm512_set1_epi32(i32::from_le_bytes(codes)) }
    }
    #[inline(always)]
    fn dot_weights(self, weights: &[i8; 4 * LANES]) -> Self::Weights {
        unsafe { _mm512_loadu_si512(weights.as_ptr().cast()) }
    }
    #[inline(always)]
    fn dot(self, sum: Self::Dot, codes: Self::Codes, weights: Self::Weights) -> Self::Dot {
        unsafe { _mm512_dpbusd_epi32(sum, codes, weights) }
    }
    #[inline(always)]
    fn dot_sum(self, sum: Self::Dot) -> Self::I {
        sum
    }
}
