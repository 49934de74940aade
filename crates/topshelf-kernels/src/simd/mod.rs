//! Sixteen lanes on every instruction set: [`Simd`], and how an operation is run with it.
//!
//! The kernels of the encoder are written once, over this trait, and compiled for each
//! instruction set. A vector is always sixteen f32 or i32, whatever the registers hold (one
//! register of AVX-512, two of AVX2, four of NEON, an array in portable code), so that sums are
//! split into the same partial sums everywhere.
//!
//! **Same bits.** Every set but `portable` has a fused multiply-add, and all kernels that use it
//! add in the same order, so they give the same bits on AVX2, AVX-512 and NEON. Portable code
//! rounds product and sum one after the other; its results differ from theirs in the last bits.
//! The exception is the bf16 product of AVX-512 BF16, which rounds in its own way
//! ([`crate::gemm_bf16`]).
//!
//! **How it is sound.** A value of an implementing type is the proof that the CPU has the
//! instructions: it is made only in that module's `enter`, which [`run`] calls only on a
//! [`Supported`] set. That is why the methods are safe. They are `inline(always)`, so that they
//! end up inside `enter`, which is compiled for the set; an [`Operation`] must be too.

/// `[f(0), f(1)]`: for each of two registers. (A closure would be a function of its own, which is not
/// compiled for the instruction set; where it is not inlined, each instruction becomes a call.)
#[cfg(target_arch = "x86_64")]
macro_rules! two {
    (|$i:ident| $value:expr) => {
        each!(|$i| $value, 0, 1)
    };
}

/// `[f(0), f(1), f(2), f(3)]`: for each of four registers.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! four {
    (|$i:ident| $value:expr) => {
        each!(|$i| $value, 0, 1, 2, 3)
    };
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! each {
    (|$i:ident| $value:expr, $($number:literal),*) => {
        [$({
            let $i = $number;
            $value
        }),*]
    };
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx_vnni;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod portable;

use crate::isa::{Supported, on_isa};

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// The vectors of one instruction set.
pub(crate) trait Simd: Copy {
    /// Sixteen f32.
    type F: Copy;
    /// Sixteen i32.
    type I: Copy;
    /// Sums of int8 products for sixteen columns, as the set collects them.
    type Dot: Copy;
    /// Four u8 codes of one row, spread out for [`Simd::dot`].
    type Codes: Copy;
    /// Four int8 weights of each of sixteen columns.
    type Weights: Copy;

    /// The register tile of an f32 product: rows, and vectors of columns.
    const TILE_F32: (usize, usize);
    /// The register tile of an int8 product.
    const TILE_I8: (usize, usize);
    /// What [`Simd::dot`] takes off each code before it multiplies it: a set whose int8 product
    /// is signed on both sides shifts the codes, and the caller the zero point.
    const CODE_SHIFT: i32 = 0;

    fn splat(self, x: f32) -> Self::F;
    fn load(self, x: &[f32; LANES]) -> Self::F;
    fn store(self, v: Self::F, out: &mut [f32; LANES]);
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`, rounded once except in portable code.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The smaller; NaN where `b` is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// The larger; NaN where `b` is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    /// `2^n` for integers n in -126..=127, given as f32; 0 for -127.
    fn pow2(self, n: Self::F) -> Self::F;
    /// x ≤ 0 as n + f, where n is an integer and |f| ≤ ½. Below -127 n is any number not above that.
    #[inline(always)]
    fn split_nonpositive(self, x: Self::F) -> [Self::F; 2] {
        let x = self.max(self.splat(-127.0), x);
        let n = self.round(x);
        [n, self.sub(x, n)]
    }
    /// `p · 2^n` for p in ½..=2 and integers n ≤ 0; what is below 2⁻¹²⁶ may be replaced by 0.
    #[inline(always)]
    fn times_pow2(self, p: Self::F, n: Self::F) -> Self::F {
        self.mul(p, self.pow2(n))
    }
    /// Rounded to the nearest integer, ties to even, and clamped to 0..=255. Numbers lie within
    /// ±2³¹.
    fn store_u8(self, v: Self::F, out: &mut [u8; LANES]);

    /// Rounded to the nearest integer, ties to even; of each four lanes first the lower bytes, then
    /// the upper ones. Numbers round to 0..=65535; what others give is unspecified.
    fn store_u16(self, v: [Self::F; 2], out: &mut [u8; 4 * LANES]);

    fn load_i32(self, x: &[i32; LANES]) -> Self::I;
    fn splat_i32(self, x: i32) -> Self::I;
    fn sub_i32(self, a: Self::I, b: Self::I) -> Self::I;
    fn mul_i32(self, a: Self::I, b: Self::I) -> Self::I;
    /// Rounded to nearest, ties to even.
    fn to_f32(self, a: Self::I) -> Self::F;
    /// The two bf16 in each lane's bits, the lower first, as f32.
    fn widen_bf16(self, a: Self::I) -> [Self::F; 2];

    /// Thirty-two 16-bit numbers in pairs, each lane holding two, the first in the lower half.
    fn load_pairs(self, x: &[u16; 2 * LANES]) -> Self::I;
    /// Adds `a₀·b₀ + a₁·b₁` of the pairs of bf16 in each lane.
    #[inline(always)]
    fn dot_bf16(self, sum: Self::F, a: Self::I, b: Self::I) -> Self::F {
        let [a0, a1] = self.widen_bf16(a);
        let [b0, b1] = self.widen_bf16(b);
        self.fma(a1, b1, self.fma(a0, b0, sum))
    }

    fn dot_zero(self) -> Self::Dot;
    /// Each column's sum, to begin with.
    fn dot_start(self, sums: Self::I) -> Self::Dot;
    fn dot_codes(self, codes: [u8; 4]) -> Self::Codes;
    fn dot_weights(self, weights: &[i8; 4 * LANES]) -> Self::Weights;
    /// Adds `Σ codes[j] · weights[4 · column + j]` for j in 0..4 to each column's sum: exact.
    fn dot(self, sum: Self::Dot, codes: Self::Codes, weights: Self::Weights) -> Self::Dot;
    fn dot_sum(self, sum: Self::Dot) -> Self::I;

    /// Adds `table[code]` to each of 64 numbers, kept within -128..=127: byte k of the codes has that
    /// of number k in its lower half and that of number k + 32 in its upper.
    #[inline(always)]
    fn add_of_16(self, table: &[i8; 16], codes: &[u8; 2 * LANES], numbers: &mut [i8; 4 * LANES]) {
        for (k, &byte) in codes.iter().enumerate() {
            for (place, code) in [(k, byte & 15), (k + 2 * LANES, byte >> 4)] {
                numbers[place] = numbers[place].saturating_add(table[usize::from(code)]);
            }
        }
    }

    /// The same for codes of two bits: byte k has those of the numbers k, k + 16, k + 32, k + 48.
    #[inline(always)]
    fn add_of_4(self, table: &[i8; 16], codes: &[u8; LANES], numbers: &mut [i8; 4 * LANES]) {
        for (k, &byte) in codes.iter().enumerate() {
            for i in 0..4 {
                let number = &mut numbers[k + i * LANES];
                *number = number.saturating_add(table[usize::from(byte >> (2 * i) & 3)]);
            }
        }
    }

    /// The sum of the lanes: 16 → 8 → 4 → 2 → 1, the upper half added to the lower.
    #[inline(always)]
    fn sum(self, v: Self::F) -> f32 {
        let mut x = [0.0; LANES];
        self.store(v, &mut x);
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                x[i] += x[i + half];
            }
            half /= 2;
        }
        x[0]
    }

    /// Sixteen rows of sixteen to sixteen columns.
    #[inline(always)]
    fn transpose(self, rows: [Self::F; LANES]) -> [Self::F; LANES] {
        let mut from = [[0.0; LANES]; LANES];
        for (row, out) in rows.into_iter().zip(&mut from) {
            self.store(row, out);
        }
        std::array::from_fn(|i| self.load(&std::array::from_fn(|j| from[j][i])))
    }

    /// The largest lane. No lane is NaN.
    #[inline(always)]
    fn largest(self, v: Self::F) -> f32 {
        let mut x = [0.0; LANES];
        self.store(v, &mut x);
        x.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a })
    }

    /// The smallest lane. No lane is NaN.
    #[inline(always)]
    fn smallest(self, v: Self::F) -> f32 {
        let mut x = [0.0; LANES];
        self.store(v, &mut x);
        x.iter().fold(f32::INFINITY, |a, &b| if b < a { b } else { a })
    }
}

/// Something that is computed with a [`Simd`].
pub(crate) trait Operation {
    type Output;

    /// Has to be `inline(always)`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs the operation on that instruction set.
pub(crate) fn run<O: Operation>(supported: Supported, operation: O) -> O::Output {
    on_isa!(supported, enter(operation))
}

/// [`run`] for products of bf16: with their own instruction where AVX-512 runs and the CPU has it.
pub(crate) fn run_bf16<O: Operation>(supported: Supported, operation: O) -> O::Output {
    #[cfg(target_arch = "x86_64")]
    if supported.isa() == crate::isa::Isa::Avx512Vnni && is_x86_feature_detected!("avx512bf16") {
        #[allow(unsafe_code)]
        // SAFETY: the CPU has just said that it has them.
        return unsafe { avx512::enter_bf16(operation) };
    }
    run(supported, operation)
}
