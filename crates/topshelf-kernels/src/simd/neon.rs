//! Sixteen lanes in four registers of NEON.
//!
//! int8: NEON multiplies s8 by s8. The codes, u8, are therefore shifted by 128 (their upper bit
//! flipped), and the caller shifts the zero point along ([`Simd::CODE_SHIFT`]): exact. `sdot`
//! adds four products to an i32; a CPU without it (before Armv8.2: Cortex-A72 and older) widens
//! products to i16 (128² = 16,384 fits) with `smull` and adds neighbours to i32 with `sadalp`. For
//! that, the four bytes of a column are sorted into two pairs, so that what is added to a lane
//! belongs to one column. Both ways give the same sums.

#![allow(unsafe_code)]
#![allow(clippy::wildcard_imports)] // the intrinsics are named as Arm names them

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use super::{LANES, Operation, Simd};

/// Proof of NEON, and of `sdot` where it says so: made in [`enter`] and [`enter_sdot`] only.
#[derive(Clone, Copy)]
pub(crate) struct Neon<const SDOT: bool>(());

#[target_feature(enable = "neon")]
pub(crate) fn enter<O: Operation>(operation: O) -> O::Output {
    if is_aarch64_feature_detected!("dotprod") {
        // SAFETY: the CPU has just said that it has it.
        return unsafe { enter_sdot(operation) };
    }
    operation.run(Neon::<false>(()))
}

#[target_feature(enable = "neon,dotprod")]
fn enter_sdot<O: Operation>(operation: O) -> O::Output {
    operation.run(Neon::<true>(()))
}

/// Adds the products of four bytes each to the lanes of `sum`. (`vdotq_s32` is not stable Rust.)
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn sdot(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: arithmetic on registers; the function requires the instruction.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// Thirty-two bytes in two registers.
///
/// # Safety
///
/// The CPU has NEON.
#[inline(always)]
unsafe fn two_of(bytes: &[u8; 32]) -> [uint8x16_t; 2] {
    unsafe { [vld1q_u8(bytes.as_ptr()), vld1q_u8(bytes[16..].as_ptr())] }
}

/// Adds what the table says of the bits of `mask` in each byte.
///
/// # Safety
///
/// The CPU has NEON.
#[inline(always)]
unsafe fn add_looked_up(
    table: &[i8; 16],
    codes: [uint8x16_t; 4],
    mask: u8,
    numbers: &mut [i8; 64],
) {
    unsafe {
        let (table, mask) = (vld1q_s8(table.as_ptr()), vdupq_n_u8(mask));
        for (codes, numbers) in codes.into_iter().zip(numbers.as_chunks_mut::<16>().0) {
            let values = vqtbl1q_s8(table, vandq_u8(codes, mask));
            let place = numbers.as_mut_ptr();
            vst1q_s8(place, vqaddq_s8(vld1q_s8(place), values));
        }
    }
}

/// The first two bytes of each four, then the last two of each.
///
/// # Safety
///
/// The CPU has NEON.
#[inline(always)]
unsafe fn first_pairs_first(x: int8x16_t) -> int8x16_t {
    const ORDER: [u8; 16] = [0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15];
    unsafe { vqtbl1q_s8(x, vld1q_u8(ORDER.as_ptr())) }
}

// SAFETY, for every block below: `self` proves that the CPU has the instruction (see the head of
// `super`), and references to arrays span exactly what is read or written, at any alignment.
impl<const SDOT: bool> Simd for Neon<SDOT> {
    type F = [float32x4_t; 4];
    type I = [int32x4_t; 4];
    type Dot = [int32x4_t; 4];
    type Codes = int8x16_t;
    type Weights = [int8x16_t; 4];

    const TILE_F32: (usize, usize) = (6, 1);
    // Without `sdot` there are products waiting in registers beside the sums.
    const TILE_I8: (usize, usize) = if SDOT { (6, 1) } else { (4, 1) };
    const CODE_SHIFT: i32 = 128;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        unsafe { [vdupq_n_f32(x); 4] }
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F {
        unsafe { four!(|i| vld1q_f32(x.as_ptr().add(4 * i))) }
    }
    #[inline(always)]
    fn store(self, v: Self::F, out: &mut [f32; LANES]) {
        unsafe {
            four!(|i| vst1q_f32(out.as_mut_ptr().add(4 * i), v[i]));
        }
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        unsafe { four!(|i| vaddq_f32(a[i], b[i])) }
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        unsafe { four!(|i| vsubq_f32(a[i], b[i])) }
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        unsafe { four!(|i| vmulq_f32(a[i], b[i])) }
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        unsafe { four!(|i| vdivq_f32(a[i], b[i])) }
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        unsafe { four!(|i| vfmaq_f32(c[i], a[i], b[i])) }
    }
    // `fmin` and `fmax` order the two zeros and pass on a NaN of `a`; a comparison does neither,
    // like the instructions of x86.
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        unsafe { four!(|i| vbslq_f32(vcltq_f32(a[i], b[i]), a[i], b[i])) }
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        unsafe { four!(|i| vbslq_f32(vcgtq_f32(a[i], b[i]), a[i], b[i])) }
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        unsafe { four!(|i| vrndnq_f32(a[i])) }
    }
    #[inline(always)]
    fn pow2(self, n: Self::F) -> Self::F {
        unsafe {
            four!(|i| {
                let biased = vaddq_s32(vcvtq_s32_f32(n[i]), vdupq_n_s32(127));
                vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
            })
        }
    }
    #[inline(always)]
    fn store_u8(self, v: Self::F, out: &mut [u8; LANES]) {
        unsafe {
            let [a, b, c, d] = four!(|i| vqmovun_s32(vcvtnq_s32_f32(v[i])));
            let lower = vqmovn_u16(vcombine_u16(a, b));
            let upper = vqmovn_u16(vcombine_u16(c, d));
            vst1q_u8(out.as_mut_ptr(), vcombine_u8(lower, upper));
        }
    }
    #[inline(always)]
    fn store_u16(self, v: [Self::F; 2], out: &mut [u8; 4 * LANES]) {
        const ORDER: [u8; 16] = [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15];
        unsafe {
            let order = vld1q_u8(ORDER.as_ptr());
            for (v, out) in v.into_iter().zip(out.as_chunks_mut::<{ 2 * LANES }>().0) {
                let [a, b, c, d] = four!(|i| vmovn_u32(vcvtnq_u32_f32(v[i])));
                let first = vreinterpretq_u8_u16(vcombine_u16(a, b));
                let second = vreinterpretq_u8_u16(vcombine_u16(c, d));
                vst1q_u8(out.as_mut_ptr(), vqtbl1q_u8(first, order));
                vst1q_u8(out[16..].as_mut_ptr(), vqtbl1q_u8(second, order));
            }
        }
    }
    #[inline(always)]
    fn load_i32(self, x: &[i32; LANES]) -> Self::I {
        unsafe { four!(|i| vld1q_s32(x.as_ptr().add(4 * i))) }
    }
    #[inline(always)]
    fn load_pairs(self, x: &[u16; 2 * LANES]) -> Self::I {
        unsafe { four!(|i| vreinterpretq_s32_u16(vld1q_u16(x.as_ptr().add(8 * i)))) }
    }
    #[inline(always)]
    fn splat_i32(self, x: i32) -> Self::I {
        unsafe { [vdupq_n_s32(x); 4] }
    }
    #[inline(always)]
    fn sub_i32(self, a: Self::I, b: Self::I) -> Self::I {
        unsafe { four!(|i| vsubq_s32(a[i], b[i])) }
    }
    #[inline(always)]
    fn mul_i32(self, a: Self::I, b: Self::I) -> Self::I {
        unsafe { four!(|i| vmulq_s32(a[i], b[i])) }
    }
    #[inline(always)]
    fn to_f32(self, a: Self::I) -> Self::F {
        unsafe { four!(|i| vcvtq_f32_s32(a[i])) }
    }
    #[inline(always)]
    fn widen_bf16(self, a: Self::I) -> [Self::F; 2] {
        unsafe {
            let upper = vdupq_n_s32(0xffff_0000_u32 as i32);
            [
                four!(|i| vreinterpretq_f32_s32(vshlq_n_s32::<16>(a[i]))),
                four!(|i| vreinterpretq_f32_s32(vandq_s32(a[i], upper))),
            ]
        }
    }
    #[inline(always)]
    fn sum(self, [a, b, c, d]: Self::F) -> f32 {
        unsafe {
            let four = vaddq_f32(vaddq_f32(a, c), vaddq_f32(b, d));
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        }
    }
    #[inline(always)]
    fn add_of_16(self, table: &[i8; 16], codes: &[u8; 32], numbers: &mut [i8; 64]) {
        unsafe {
            let low = two_of(codes);
            let high = [vshrq_n_u8::<4>(low[0]), vshrq_n_u8::<4>(low[1])];
            add_looked_up(table, [low[0], low[1], high[0], high[1]], 15, numbers);
        }
    }
    #[inline(always)]
    fn add_of_4(self, table: &[i8; 16], codes: &[u8; 16], numbers: &mut [i8; 64]) {
        unsafe {
            let codes = vld1q_u8(codes.as_ptr());
            let shifted =
                [codes, vshrq_n_u8::<2>(codes), vshrq_n_u8::<4>(codes), vshrq_n_u8::<6>(codes)];
            add_looked_up(table, shifted, 3, numbers);
        }
    }
    #[inline(always)]
    fn largest(self, [a, b, c, d]: Self::F) -> f32 {
        unsafe { vmaxvq_f32(vmaxq_f32(vmaxq_f32(a, b), vmaxq_f32(c, d))) }
    }
    #[inline(always)]
    fn smallest(self, [a, b, c, d]: Self::F) -> f32 {
        unsafe { vminvq_f32(vminq_f32(vminq_f32(a, b), vminq_f32(c, d))) }
    }
    #[inline(always)]
    fn transpose(self, rows: [Self::F; LANES]) -> [Self::F; LANES] {
        unsafe {
            let mut columns = rows;
            // Squares of 4 x 4, each within four registers.
            for i in 0..4 {
                for j in 0..4 {
                    let [a, b, c, d] = four!(|k| vreinterpretq_f64_f32(rows[4 * i + k][j]));
                    // Of two rows each: columns 0 and 1 together, then columns 2 and 3.
                    let [ab0, ab1] = [vzip1q_f64(a, b), vzip2q_f64(a, b)];
                    let [cd0, cd1] = [vzip1q_f64(c, d), vzip2q_f64(c, d)];
                    for (k, (ab, cd)) in [(ab0, cd0), (ab1, cd1)].into_iter().enumerate() {
                        let (ab, cd) = (vreinterpretq_f32_f64(ab), vreinterpretq_f32_f64(cd));
                        columns[4 * j + 2 * k][i] = vuzp1q_f32(ab, cd);
                        columns[4 * j + 2 * k + 1][i] = vuzp2q_f32(ab, cd);
                    }
                }
            }
            columns
        }
    }
    #[inline(always)]
    fn dot_zero(self) -> Self::Dot {
        self.splat_i32(0)
    }
    #[inline(always)]
    fn dot_start(self, sums: Self::I) -> Self::Dot {
        sums
    }
    #[inline(always)]
    fn dot_codes(self, codes: [u8; 4]) -> Self::Codes {
        unsafe {
            // Flipped before they are spread: that leaves the vector units alone.
            let shifted = u32::from_le_bytes(codes) ^ 0x8080_8080;
            let codes = vreinterpretq_s8_u32(vdupq_n_u32(shifted));
            if SDOT { codes } else { first_pairs_first(codes) }
        }
    }
    #[inline(always)]
    fn dot_weights(self, weights: &[i8; 4 * LANES]) -> Self::Weights {
        unsafe {
            let four_columns: Self::Weights = four!(|i| vld1q_s8(weights.as_ptr().add(16 * i)));
            if SDOT { four_columns } else { four!(|i| first_pairs_first(four_columns[i])) }
        }
    }
    #[inline(always)]
    fn dot(self, sum: Self::Dot, codes: Self::Codes, weights: Self::Weights) -> Self::Dot {
        if SDOT {
            // SAFETY: `SDOT` is true only in what `enter_sdot` makes.
            return unsafe { four!(|i| sdot(sum[i], codes, weights[i])) };
        }
        unsafe {
            four!(|i| {
                let first = vmull_s8(vget_low_s8(codes), vget_low_s8(weights[i]));
                let second = vmull_high_s8(codes, weights[i]);
                vpadalq_s16(vpadalq_s16(sum[i], first), second)
            })
        }
    }
    #[inline(always)]
    fn dot_sum(self, sum: Self::Dot) -> Self::I {
        sum
    }
}
