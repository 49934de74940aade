//! What happens to one row of hidden states between two matrix products: layer norm, and rounding
//! to the type that the next product reads.
//!
//! Sums over a row are sixteen partial sums (element i goes to sum i mod 16), added up
//! 16 → 8 → 4 → 2 → 1.

use crate::isa::{Isa, Supported};
use crate::simd::{self, LANES, Operation, Simd};

/// Layer norm of `row`, in place, after adding `residual` where there is one (Ba, Kiros and
/// Hinton, "Layer Normalization", 2016):
///
/// ```text
/// x = row + residual      row = (x - mean x) / √(var x + ε) · weight + bias
/// ```
///
/// The variance is the mean of (x - mean x)², in a second pass.
///
/// # Panics
///
/// Where lengths differ (an empty `bias` or `residual` stands for none), or `TOPSHELF_ISA` is
/// wrong.
pub fn layer_norm(row: &mut [f32], residual: &[f32], weight: &[f32], bias: &[f32], epsilon: f32) {
    layer_norm_on(Supported::detected(), row, residual, weight, bias, epsilon);
}

/// [`layer_norm`] on the given instruction set.
///
/// # Panics
///
/// As [`layer_norm`], and where this machine lacks `isa`.
pub fn layer_norm_with(
    isa: Isa,
    row: &mut [f32],
    residual: &[f32],
    weight: &[f32],
    bias: &[f32],
    epsilon: f32,
) {
    layer_norm_on(Supported::checked(isa), row, residual, weight, bias, epsilon);
}

fn layer_norm_on(
    supported: Supported,
    row: &mut [f32],
    residual: &[f32],
    weight: &[f32],
    bias: &[f32],
    epsilon: f32,
) {
    assert_eq!(weight.len(), row.len(), "a weight for each element");
    assert!(bias.is_empty() || bias.len() == row.len(), "a bias for each element");
    assert!(residual.is_empty() || residual.len() == row.len(), "a residual for each element");
    if !row.is_empty() {
        simd::run(supported, LayerNorm { row, residual, weight, bias, epsilon });
    }
}

struct LayerNorm<'a> {
    row: &'a mut [f32],
    residual: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    epsilon: f32,
}

impl Operation for LayerNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { row, residual, weight, bias, epsilon } = self;
        let length = row.len() as f32;
        let mut sum = s.splat(0.0);
        for first in (0..row.len()).step_by(LANES) {
            let mut x = part(s, row, first, 0.0);
            if !residual.is_empty() {
                x = s.add(x, part(s, residual, first, 0.0));
                crate::gemm::store_part(s, x, row, first, row.len());
            }
            sum = s.add(sum, x);
        }
        let mean = s.sum(sum) / length;
        let mut squares = s.splat(0.0);
        for first in (0..row.len()).step_by(LANES) {
            let centred = s.sub(part(s, row, first, mean), s.splat(mean));
            squares = s.fma(centred, centred, squares);
        }
        let deviation = (s.sum(squares) / length + epsilon).sqrt();
        let (mean, inverse) = (s.splat(mean), s.splat(1.0 / deviation));
        for first in (0..row.len()).step_by(LANES) {
            let normal = s.mul(s.sub(part(s, row, first, 0.0), mean), inverse);
            let shift =
                if bias.is_empty() { s.splat(0.0) } else { part(s, bias, first, 0.0) };
            let value = s.fma(normal, part(s, weight, first, 0.0), shift);
            crate::gemm::store_part(s, value, row, first, row.len());
        }
    }
}

/// Sixteen elements from `first` on; `fill` where the row is over.
#[inline(always)]
fn part<S: Simd>(s: S, row: &[f32], first: usize, fill: f32) -> S::F {
    match row[first..].first_chunk::<LANES>() {
        Some(whole) => s.load(whole),
        None => {
            let mut padded = [fill; LANES];
            padded[..row.len() - first].copy_from_slice(&row[first..]);
            s.load(&padded)
        }
    }
}

/// Rounds a row to u8 with its own scale and zero point, as ONNX's DynamicQuantizeLinear does for
/// a tensor, and fills `codes` up with zeros:
///
/// ```text
/// scale = (max(x, 0) - min(x, 0)) / 255      zero = round(-min(x, 0) / scale)
/// code = clamp(round(x / scale) + zero, 0, 255)      x ≈ scale · (code - zero)
/// ```
///
/// x / scale is computed as x · (1 / scale). Ties go to the even number. A row of zeros has scale
/// and zero point 0. Answers (scale, zero).
///
/// # Panics
///
/// If `codes` is shorter than `row`, or `TOPSHELF_ISA` is wrong.
pub fn quantise_u8_row(row: &[f32], codes: &mut [u8]) -> (f32, i32) {
    quantise_on(Supported::detected(), row, codes)
}

/// [`quantise_u8_row`] on the given instruction set.
///
/// # Panics
///
/// As [`quantise_u8_row`], and where this machine lacks `isa`.
pub fn quantise_u8_row_with(isa: Isa, row: &[f32], codes: &mut [u8]) -> (f32, i32) {
    quantise_on(Supported::checked(isa), row, codes)
}

fn quantise_on(supported: Supported, row: &[f32], codes: &mut [u8]) -> (f32, i32) {
    assert!(codes.len() >= row.len(), "a code for each element");
    simd::run(supported, Quantise { row, codes })
}

struct Quantise<'a> {
    row: &'a [f32],
    codes: &'a mut [u8],
}

impl Operation for Quantise<'_> {
    type Output = (f32, i32);

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> (f32, i32) {
        let Self { row, codes } = self;
        let (mut lower, mut upper) = (s.splat(0.0), s.splat(0.0));
        for first in (0..row.len()).step_by(LANES) {
            let x = part(s, row, first, 0.0);
            lower = s.min(lower, x);
            upper = s.max(upper, x);
        }
        let (lower, upper) = (s.smallest(lower), s.largest(upper));
        let scale = (upper - lower) / 255.0;
        if scale < f32::MIN_POSITIVE {
            codes.fill(0);
            return (0.0, 0);
        }
        let inverse = 1.0 / scale;
        let zero = (-lower * inverse).round_ties_even();
        let (inverse, shift) = (s.splat(inverse), s.splat(zero));
        let (none, all) = (s.splat(0.0), s.splat(255.0));
        for first in (0..row.len()).step_by(LANES) {
            let steps = s.round(s.mul(part(s, row, first, 0.0), inverse));
            let code = s.min(s.max(s.add(steps, shift), none), all);
            match codes[first..].first_chunk_mut::<LANES>() {
                Some(whole) => s.store_u8(code, whole),
                None => {
                    let mut bytes = [0; LANES];
                    s.store_u8(code, &mut bytes);
                    let rest = codes.len() - first;
                    codes[first..].copy_from_slice(&bytes[..rest]);
                }
            }
        }
        // Within the last vector the codes of the padding stand for 0, which need not be 0.
        codes[row.len()..].fill(0);
        (scale, zero as i32)
    }
}
