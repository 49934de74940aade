//! eˣ for the activations that need it, and 2ˣ for softmax.
//!
//! x = n·ln 2 + f with |f| ≤ ½ln 2 (ln 2 in two parts, so that the difference is exact: Cody and
//! Waite, 1980); e^f by a polynomial of degree 6 (its Taylor series, whose remainder is below
//! 1.3e-7 there); 2ⁿ by its exponent bits. x is clamped to -87..=88, where the result is a normal
//! f32: below, 1.6e-38 stands for everything smaller. Relative error at most 3e-7. NaN stays NaN.

use crate::simd::Simd;

/// ln 2, its upper bits, which n·`LN2_UPPER` keeps exact.
const LN2_UPPER: f32 = 0.693_359_4;
/// The rest of ln 2.
const LN2_LOWER: f32 = -2.121_944_4e-4;

/// 1/6!, 1/5!, ..., 1/0!.
const TAYLOR: [f32; 7] =
    [0.001_388_888_9, 0.008_333_334, 0.041_666_668, 0.166_666_67, 0.5, 1.0, 1.0];

#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    let x = s.max(s.splat(-87.0), s.min(s.splat(88.0), x));
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let f = s.fma(n, s.splat(-LN2_LOWER), s.fma(n, s.splat(-LN2_UPPER), x));
    let mut p = s.splat(TAYLOR[0]);
    for &coefficient in &TAYLOR[1..] {
        p = s.fma(p, f, s.splat(coefficient));
    }
    s.mul(p, s.pow2(n))
}

/// A polynomial for 2^f, |f| ≤ ½, the constant first: fitted by reweighted least squares towards the
/// smallest relative error, which is 7.5e-8 before rounding.
const EXP2: [f32; 6] =
    [1.000_000_1, 0.693_146_94, 0.240_221_2, 0.055_507_13, 0.009_675_541, 0.001_327_647_2];

/// The same, within 2.7e-6: for weights that are rounded to 16 bits.
const COARSE_EXP2: [f32; 5] =
    [0.999_999_3, 0.693_121_8, 0.240_247_44, 0.055_917_863, 0.009_570_098];

/// 2ˣ for x ≤ 0, within 2.5e-7 of it; below -126.5, where the result would not be a normal f32, 0.
/// NaN stays NaN.
#[inline(always)]
pub(crate) fn exp2_of_nonpositive<S: Simd>(s: S, x: S::F) -> S::F {
    let x = s.max(s.splat(-127.0), x);
    let n = s.round(x);
    s.mul(polynomial(s, s.sub(x, n), &EXP2), s.pow2(n))
}

/// 2ˣ for x ≤ 0, within 2.8e-6 of it; what is below 2⁻¹²⁶ may be 0. NaN stays NaN.
#[inline(always)]
pub(crate) fn coarse_exp2_of_nonpositive<S: Simd>(s: S, x: S::F) -> S::F {
    let [n, f] = s.split_nonpositive(x);
    s.times_pow2(polynomial(s, f, &COARSE_EXP2), n)
}

/// `Σ_i coefficients[i] · xⁱ`.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::F, coefficients: &[f32; N]) -> S::F {
    let mut p = s.splat(coefficients[N - 1]);
    for &coefficient in coefficients[..N - 1].iter().rev() {
        p = s.fma(p, x, s.splat(coefficient));
    }
    p
}
