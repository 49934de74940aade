//! What may follow a matrix product, element by element: [`Activation`].
//!
//! | | formula | absolute error |
//! | --- | --- | --- |
//! | `Gelu` | x · Φ(x), Φ the normal distribution function (Hendrycks and Gimpel, 2016) | 1.1e-6 for \|x\| ≤ 10 |
//! | `GeluTanh` | ½x(1 + tanh(√(2/π)(x + 0.044715x³))) | 2e-6 |
//! | `Relu` | max(x, 0) | 0 |
//! | `Silu` | x / (1 + e⁻ˣ) | 2e-6 |
//! | `Tanh` | tanh x | 1e-6 |
//!
//! **In products of int8** `Gelu` is computed by a shorter polynomial, [`Coarse`]: within 2.4e-4 for
//! |x| ≤ 20, where the next product rounds to steps of a hundredth and more.
//!
//! Φ is ½ + x·p(x²/z² - 1) with a polynomial p of degree 12, fitted to (Φ(x) - ½)/x over
//! |x| ≤ z = 3.6·√2 by reweighted least squares towards the smallest absolute error of x·Φ(x);
//! beyond z, where 1 - Φ is under 1.8e-7, x is taken for z. It has no division and no branch.

use super::exp::exp;
use crate::simd::Simd;

/// A function of one number, applied to each element of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x.
    Identity,
    /// x · Φ(x).
    Gelu,
    /// The tanh approximation of GELU.
    GeluTanh,
    /// max(x, 0).
    Relu,
    /// x · σ(x).
    Silu,
    /// tanh x.
    Tanh,
}

/// The coefficients of p, the constant one first.
const P: [f32; 13] = [
    0.138_844_65,
    -0.069_116_145,
    0.050_848_853,
    -0.040_240_273,
    0.031_694_494,
    -0.023_960_529,
    0.017_381_785,
    -0.011_930_305,
    0.006_798_313,
    -0.003_203_086_8,
    0.002_366_944_4,
    -0.001_913_795_5,
    0.000_638_345_84,
];

/// 3.6 · √2.
const EDGE: f32 = 5.091_169;

/// 1 / 3.6² / 2 · 2, so that x² · `PER_EDGE` runs over 0..=2.
const PER_EDGE: f32 = 0.077_160_49;

/// x · Φ(x).
#[inline(always)]
pub(crate) fn gelu<S: Simd>(s: S, x: S::F) -> S::F {
    let clamped = s.max(s.min(x, s.splat(EDGE)), s.splat(-EDGE));
    let t = s.fma(s.mul(clamped, clamped), s.splat(PER_EDGE), s.splat(-1.0));
    let mut p = s.splat(P[12]);
    for &coefficient in P[..12].iter().rev() {
        p = s.fma(p, t, s.splat(coefficient));
    }
    s.mul(x, s.fma(clamped, p, s.splat(0.5)))
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
fn sigmoid<S: Simd>(s: S, x: S::F) -> S::F {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.sub(s.splat(0.0), x))))
}

/// 2σ(2x) - 1.
#[inline(always)]
fn tanh<S: Simd>(s: S, x: S::F) -> S::F {
    s.fma(s.splat(2.0), sigmoid(s, s.add(x, x)), s.splat(-1.0))
}

/// An activation as it is computed behind a product.
pub(crate) trait Apply: Copy {
    /// Whether nothing is to be done.
    fn is_identity(self) -> bool;

    fn apply<S: Simd>(self, s: S, x: S::F) -> S::F;
}

impl Apply for Activation {
    #[inline(always)]
    fn is_identity(self) -> bool {
        self == Self::Identity
    }

    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F) -> S::F {
        match self {
            Self::Identity => x,
            Self::Gelu => gelu(s, x),
            Self::GeluTanh => {
                let cubic = s.fma(s.mul(s.mul(x, x), x), s.splat(0.044_715), x);
                // ½(1 + tanh y) = σ(2y)
                s.mul(x, sigmoid(s, s.mul(s.splat(1.595_769), cubic)))
            }
            Self::Relu => s.max(s.splat(0.0), x),
            Self::Silu => s.mul(x, sigmoid(s, x)),
            Self::Tanh => tanh(s, x),
        }
    }
}

/// For results that will be rounded to 8 bits.
#[derive(Clone, Copy)]
pub(crate) struct Coarse(pub(crate) Activation);

/// Where [`Coarse`] takes Φ for 0 or 1.
const COARSE_EDGE: f32 = 3.9;

/// A polynomial for (Φ(x) - ½)/x in x², the constant first: fitted like `P`, over |x| ≤ 3.9.
const COARSE: [f32; 7] = [
    0.398_085_56,
    -0.064_869_42,
    0.008_913_759,
    -0.000_844_505_85,
    5.123_66e-5,
    -1.770_459_1e-6,
    2.627_073_3e-8,
];

impl Apply for Coarse {
    #[inline(always)]
    fn is_identity(self) -> bool {
        self.0.is_identity()
    }

    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F) -> S::F {
        if self.0 != Activation::Gelu {
            return self.0.apply(s, x);
        }
        let clamped = s.max(s.min(x, s.splat(COARSE_EDGE)), s.splat(-COARSE_EDGE));
        let square = s.mul(clamped, clamped);
        let mut p = s.splat(COARSE[6]);
        for &coefficient in COARSE[..6].iter().rev() {
            p = s.fma(p, square, s.splat(coefficient));
        }
        s.mul(x, s.fma(clamped, p, s.splat(0.5)))
    }
}
