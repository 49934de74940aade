//! What happens to one row of hidden states between two matrix products: layer norm, and rounding
//! to the type that the next product reads.
//!
//! Sums over a row are 64 partial sums (`CHAINS` vectors of sixteen), added up vector to vector
//! and then 16 → 8 → 4 → 2 → 1.

use crate::isa::{Isa, Supported};
use crate::simd::{self, LANES, Operation, Simd};

/// Layer norm of each row, in place, after adding `residual` where there is one (Ba, Kiros and
/// Hinton, "Layer Normalization", 2016):
///
/// ```text
/// x = row + residual      row = (x - mean x) / √(var x + ε) · weight + bias
/// ```
///
/// The variance is the mean of (x - mean x)², in a second pass. A row is as long as `weight`.
///
/// # Panics
///
/// Where lengths do not fit (an empty `bias` or `residual` stands for none), or `TOPSHELF_ISA` is
/// wrong.
pub fn layer_norm(rows: &mut [f32], residual: &[f32], weight: &[f32], bias: &[f32], epsilon: f32) {
    layer_norm_on(Supported::detected(), rows, residual, weight, bias, epsilon);
}

/// [`layer_norm`] on the given instruction set.
///
/// # Panics
///
/// As [`layer_norm`], and where this machine lacks `isa`.
pub fn layer_norm_with(
    isa: Isa,
    rows: &mut [f32],
    residual: &[f32],
    weight: &[f32],
    bias: &[f32],
    epsilon: f32,
) {
    layer_norm_on(Supported::checked(isa), rows, residual, weight, bias, epsilon);
}

fn layer_norm_on(
    supported: Supported,
    rows: &mut [f32],
    residual: &[f32],
    weight: &[f32],
    bias: &[f32],
    epsilon: f32,
) {
    assert!(
        weight.is_empty() && rows.is_empty() || rows.len().is_multiple_of(weight.len()),
        "whole rows"
    );
    assert!(bias.is_empty() || bias.len() == weight.len(), "a bias for each weight");
    assert!(residual.is_empty() || residual.len() == rows.len(), "a residual for each element");
    if !rows.is_empty() {
        simd::run(supported, LayerNorm { rows, residual, weight, bias, epsilon });
    }
}

struct LayerNorm<'a> {
    rows: &'a mut [f32],
    residual: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    epsilon: f32,
}

impl Operation for LayerNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { rows, residual, weight, bias, epsilon } = self;
        let width = weight.len();
        for (i, row) in rows.chunks_exact_mut(width).enumerate() {
            let residual = residual.get(i * width..(i + 1) * width).unwrap_or(&[]);
            layer_norm_row(s, row, residual, (weight, bias), epsilon);
        }
    }
}

#[inline(always)]
fn layer_norm_row<S: Simd>(
    s: S,
    row: &mut [f32],
    residual: &[f32],
    (weight, bias): (&[f32], &[f32]),
    epsilon: f32,
) {
    let length = row.len() as f32;
    if !residual.is_empty() {
        let (chunks, tail) = row.as_chunks_mut::<LANES>();
        let (others, other_tail) = residual.as_chunks::<LANES>();
        for (chunk, other) in chunks.iter_mut().zip(others) {
            s.store(s.add(s.load(chunk), s.load(other)), chunk);
        }
        for (x, other) in tail.iter_mut().zip(other_tail) {
            *x += other;
        }
    }
    let mut sums = [s.splat(0.0); CHAINS];
    chains!(s, row, 0.0, |x, sum| *sum = s.add(*sum, x), sums);
    let mean = s.sum(total(s, sums)) / length;
    let centre = s.splat(mean);
    let mut squares = [s.splat(0.0); CHAINS];
    chains!(
        s,
        row,
        mean,
        |x, sum| {
            let centred = s.sub(x, centre);
            *sum = s.fma(centred, centred, *sum);
        },
        squares
    );
    let deviation = (s.sum(total(s, squares)) / length + epsilon).sqrt();
    let inverse = s.splat(1.0 / deviation);
    let (chunks, tail) = row.as_chunks_mut::<LANES>();
    let (weights, weight_tail) = weight.as_chunks::<LANES>();
    let (biases, bias_tail) = bias.as_chunks::<LANES>();
    for (i, (chunk, weight)) in chunks.iter_mut().zip(weights).enumerate() {
        let normal = s.mul(s.sub(s.load(chunk), centre), inverse);
        let shift = biases.get(i).map_or(s.splat(0.0), |bias| s.load(bias));
        s.store(s.fma(normal, s.load(weight), shift), chunk);
    }
    if !tail.is_empty() {
        let normal = s.mul(s.sub(padded(s, tail, 0.0), centre), inverse);
        let shift = padded(s, bias_tail, 0.0);
        let value = s.fma(normal, padded(s, weight_tail, 0.0), shift);
        let mut out = [0.0; LANES];
        s.store(value, &mut out);
        tail.copy_from_slice(&out[..tail.len()]);
    }
}

/// Sums of a row are collected in so many vectors, since each step of a sum waits for the one
/// before it: vectors 0, 4, 8, ... go to the first, 1, 5, 9, ... to the second, and so on; those
/// that do not fill up a round, to the first.
const CHAINS: usize = 4;

/// Takes each vector of the row, the last one filled up with `$fill`, to its chain.
macro_rules! chains {
    ($s:ident, $row:expr, $fill:expr, |$x:ident, $chain:ident| $step:expr, $chains:ident) => {{
        let (rounds, rest) = $row.as_chunks::<{ CHAINS * LANES }>();
        for round in rounds {
            for (i, chunk) in round.as_chunks::<LANES>().0.iter().enumerate() {
                let $x = $s.load(chunk);
                let $chain = &mut $chains[i];
                $step;
            }
        }
        let (chunks, tail) = rest.as_chunks::<LANES>();
        for chunk in chunks {
            let $x = $s.load(chunk);
            let $chain = &mut $chains[0];
            $step;
        }
        if !tail.is_empty() {
            let $x = padded($s, tail, $fill);
            let $chain = &mut $chains[0];
            $step;
        }
    }};
}
use chains;

/// The chains added up.
#[inline(always)]
fn total<S: Simd>(s: S, chains: [S::F; CHAINS]) -> S::F {
    let [a, b, c, d] = chains;
    s.add(s.add(a, b), s.add(c, d))
}

/// Less than sixteen elements, filled up.
#[inline(always)]
pub(crate) fn padded<S: Simd>(s: S, part: &[f32], fill: f32) -> S::F {
    let mut whole = [fill; LANES];
    whole[..part.len()].copy_from_slice(part);
    s.load(&whole)
}

/// Rounds a row to u8 with its own scale and zero point, as ONNX's DynamicQuantizeLinear does for
/// a tensor, and fills `codes` up with zeros:
///
/// ```text
/// scale = (max(x, 0) - min(x, 0)) / 255      zero = round(-min(x, 0) / scale)
/// code = clamp(round(x / scale + zero), 0, 255)      x ≈ scale · (code - zero)
/// ```
///
/// x / scale is computed as x · (1 / scale). Ties go to the even number. A row of zeros has scale
/// and zero point 0. The scale of a row with an infinity or NaN is NaN, and so is all that is
/// computed with the row. Answers (scale, zero).
///
/// # Panics
///
/// If `codes` is shorter than `row`, or `TOPSHELF_ISA` is wrong.
pub fn quantise_u8_row(row: &[f32], codes: &mut [u8]) -> (f32, i32) {
    quantise_row_on(Supported::detected(), row, codes)
}

/// [`quantise_u8_row`] on the given instruction set.
///
/// # Panics
///
/// As [`quantise_u8_row`], and where this machine lacks `isa`.
pub fn quantise_u8_row_with(isa: Isa, row: &[f32], codes: &mut [u8]) -> (f32, i32) {
    quantise_row_on(Supported::checked(isa), row, codes)
}

fn quantise_row_on(supported: Supported, row: &[f32], codes: &mut [u8]) -> (f32, i32) {
    if row.is_empty() {
        codes.fill(0);
        return (0.0, 0);
    }
    let (mut scale, mut zero) = ([0.0], [0]);
    let stride = codes.len();
    quantise_on(supported, row, row.len(), (codes, stride), &mut scale, &mut zero);
    (scale[0], zero[0])
}

/// [`quantise_u8_row`] for each row of `width` elements: its codes go to `codes[row * stride]` and
/// behind it, its scale and zero point to `scales[row]` and `zeros[row]`.
///
/// # Panics
///
/// Where lengths do not fit each other, or `TOPSHELF_ISA` is wrong.
pub fn quantise_u8_rows(
    rows: &[f32],
    width: usize,
    (codes, stride): (&mut [u8], usize),
    scales: &mut [f32],
    zeros: &mut [i32],
) {
    quantise_on(Supported::detected(), rows, width, (codes, stride), scales, zeros);
}

fn quantise_on(
    supported: Supported,
    rows: &[f32],
    width: usize,
    (codes, stride): (&mut [u8], usize),
    scales: &mut [f32],
    zeros: &mut [i32],
) {
    assert!(width > 0 && rows.len().is_multiple_of(width), "whole rows");
    assert!(stride >= width, "a code for each element");
    let count = rows.len() / width;
    assert!(codes.len() == count * stride, "a stride of codes for each row");
    assert!(scales.len() == count && zeros.len() == count, "a scale and a zero for each row");
    simd::run(supported, Quantise { rows, width, codes, stride, scales, zeros });
}

struct Quantise<'a> {
    rows: &'a [f32],
    width: usize,
    codes: &'a mut [u8],
    stride: usize,
    scales: &'a mut [f32],
    zeros: &'a mut [i32],
}

impl Operation for Quantise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let rows = self.rows.chunks_exact(self.width);
        let codes = self.codes.chunks_exact_mut(self.stride);
        let to = self.scales.iter_mut().zip(self.zeros);
        for ((row, codes), (scale, zero)) in rows.zip(codes).zip(to) {
            (*scale, *zero) = quantise_row(s, row, codes);
        }
    }
}

/// (smallest, largest, 0 or, where there is an infinity or NaN, NaN) of a row and 0.
#[inline(always)]
fn range<S: Simd>(s: S, row: &[f32]) -> (f32, f32, f32) {
    let none = s.splat(0.0);
    let mut found = [(none, none, none); CHAINS];
    chains!(
        s,
        row,
        0.0,
        |x, found| {
            found.0 = s.min(x, found.0);
            found.1 = s.max(x, found.1);
            found.2 = s.fma(x, none, found.2);
        },
        found
    );
    let [mut of_row, others @ ..] = found;
    for (lower, upper, odd) in others {
        of_row = (s.min(lower, of_row.0), s.max(upper, of_row.1), s.add(odd, of_row.2));
    }
    (s.smallest(of_row.0), s.largest(of_row.1), s.sum(of_row.2))
}

#[inline(always)]
fn quantise_row<S: Simd>(s: S, row: &[f32], codes: &mut [u8]) -> (f32, i32) {
    let (lower, upper, odd) = range(s, row);
    let scale = (upper - lower) / 255.0 + odd;
    if scale < f32::MIN_POSITIVE {
        codes.fill(0);
        return (0.0, 0);
    }
    let inverse = 1.0 / scale;
    let zero = (-lower * inverse).round_ties_even();
    write_codes(s, row, inverse, zero, codes);
    (scale, zero as i32)
}

/// `round(x · inverse + shift)` for each x of the row, and zeros behind.
#[inline(always)]
fn write_codes<S: Simd>(s: S, row: &[f32], inverse: f32, shift: f32, codes: &mut [u8]) {
    let (inverse, shift) = (s.splat(inverse), s.splat(shift));
    let (chunks, tail) = row.as_chunks::<LANES>();
    for (chunk, codes) in chunks.iter().zip(codes.as_chunks_mut::<LANES>().0) {
        s.store_u8(s.fma(s.load(chunk), inverse, shift), codes);
    }
    let mut last = [0; LANES];
    s.store_u8(s.fma(padded(s, tail, 0.0), inverse, shift), &mut last);
    let written = row.len() - tail.len();
    codes[written..row.len()].copy_from_slice(&last[..tail.len()]);
    codes[row.len()..].fill(0);
}

/// The code that stands for 0 in [`quantise_centred_rows`].
pub const CENTRE: u8 = 128;

/// Rounds rows to u8 around [`CENTRE`], each with its own scale: `x ≈ scale · (code - 128)`, with
/// `scale = max |x| / 127`. Row r is `rows[r * stride..][..width]`, its codes go to
/// `codes[r * width]` and behind it, its scale to `scales[r]`; there are as many rows as scales. A
/// row of zeros has scale 0; that of a row with an infinity or NaN is NaN.
///
/// # Panics
///
/// Where lengths do not fit each other, or `TOPSHELF_ISA` is wrong.
pub fn quantise_centred_rows(
    (rows, stride): (&[f32], usize),
    width: usize,
    codes: &mut [u8],
    scales: &mut [f32],
) {
    let count = scales.len();
    assert!(width > 0 && stride >= width, "rows must not overlap");
    assert!(count == 0 || rows.len() >= (count - 1) * stride + width, "whole rows");
    assert_eq!(codes.len(), count * width, "a code for each element");
    let supported = Supported::detected();
    simd::run(supported, QuantiseCentred { rows, stride, width, codes, scales });
}

struct QuantiseCentred<'a> {
    rows: &'a [f32],
    stride: usize,
    width: usize,
    codes: &'a mut [u8],
    scales: &'a mut [f32],
}

impl Operation for QuantiseCentred<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let to = self.codes.chunks_exact_mut(self.width).zip(self.scales);
        for (r, (codes, to)) in to.enumerate() {
            let row = &self.rows[r * self.stride..][..self.width];
            let (lower, upper, odd) = range(s, row);
            let scale = upper.max(-lower) / 127.0 + odd;
            if scale < f32::MIN_POSITIVE {
                codes.fill(CENTRE);
                *to = 0.0;
            } else {
                write_codes(s, row, 1.0 / scale, f32::from(CENTRE), codes);
                *to = scale;
            }
        }
    }
}
