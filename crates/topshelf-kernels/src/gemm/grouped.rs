//! int8 x int8 matrix product with a scale for each group of 64 inputs:
//! `out = act(A · Wᵀ + bias)`, where both are rounded group by group.
//!
//! [`super::i8`] has one scale for a whole row. The activations of language models have a few numbers
//! that are hundreds of times larger than the others, beside which one scale would round all else to
//! nothing; so both sides get one for each [`GROUP`]:
//!
//! ```text
//! out[r][o] = act( bias[o] + Σ_g sₐ[r][g]·s_w[o][g] · Σ_{i in g} (a[r][i] - 128)·w[o][i] )
//! ```
//!
//! A is in u8 around 128, the codes of [`quantise`]: `round(x / s) + 128`, s = max|x| / 127. The sums
//! within a group are exact; groups are added in f32 in ascending order, in one chain for each element,
//! so a row's result does not depend on the other rows.
//!
//! **Layout.** That of [`super::i8`] with the inputs padded to whole groups; scales and sums of codes
//! are `[panel][group][32]`.

#![allow(unsafe_code)]

use super::activation::{Activation, Apply};
use super::i8::{PANEL, packed_len, padded_outputs};
use super::tile::{cover, dot_tile};
use super::{Target, lanes};
use crate::isa::{Isa, Supported};
use crate::simd::{self, LANES, Operation, Simd};

/// Inputs that share a scale.
pub const GROUP: usize = 64;

/// The code that stands for 0.
const ZERO: i32 = 128;

/// Rows of activations.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// `rows` times the padded inputs.
    pub codes: &'a [u8],
    /// `rows` times the groups.
    pub scales: &'a [f32],
}

/// Packed weights of `outputs` x `inputs`.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    /// Rows of the unpacked matrix.
    pub outputs: usize,
    /// Columns of the unpacked matrix.
    pub inputs: usize,
    /// [`codes_len`] codes from [`pack`].
    pub codes: &'a [i8],
    /// [`scales_len`] scales.
    pub scales: &'a [f32],
    /// As many sums of codes.
    pub sums: &'a [i32],
    /// What is added to each output, padded to whole panels.
    pub bias: &'a [f32],
}

impl Weights<'_> {
    /// The panels of a range as a matrix of their own.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    #[must_use]
    pub fn panels(&self, range: std::ops::Range<usize>) -> Self {
        let (width, groups) = (padded_inputs(self.inputs), groups(self.inputs));
        let of = |size: usize| range.start * size..range.end * size;
        Self {
            outputs: (range.end * PANEL).min(self.outputs) - range.start * PANEL,
            inputs: self.inputs,
            codes: &self.codes[of(PANEL * width)],
            scales: &self.scales[of(PANEL * groups)],
            sums: &self.sums[of(PANEL * groups)],
            bias: &self.bias[of(PANEL)],
        }
    }
}

/// The groups of so many inputs.
pub const fn groups(inputs: usize) -> usize {
    inputs.div_ceil(GROUP)
}

/// The inputs with the padding of the last group.
pub const fn padded_inputs(inputs: usize) -> usize {
    inputs.next_multiple_of(GROUP)
}

/// The codes that [`pack`] writes.
pub const fn codes_len(outputs: usize, inputs: usize) -> usize {
    packed_len(outputs, padded_inputs(inputs))
}

/// The scales, and the sums, that [`pack`] writes.
pub const fn scales_len(outputs: usize, inputs: usize) -> usize {
    padded_outputs(outputs) * groups(inputs)
}

/// Rounds the rows `[_, inputs]` of a matrix, the first of which is output `first`, into their places.
///
/// # Panics
///
/// If a slice has the wrong length.
pub fn pack(
    rows: &[f32],
    inputs: usize,
    first: usize,
    codes: &mut [i8],
    scales: &mut [f32],
    sums: &mut [i32],
) {
    let (width, groups) = (padded_inputs(inputs), groups(inputs));
    for (row, output) in rows.chunks_exact(inputs).zip(first..) {
        let (panel, column) = (output / PANEL, output % PANEL);
        let panel_codes = &mut codes[panel * PANEL * width..][..PANEL * width];
        for (g, group) in row.chunks(GROUP).enumerate() {
            let largest = group.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
            let (scale, per) =
                if largest > 0.0 { (largest / 127.0, 127.0 / largest) } else { (0.0, 0.0) };
            let mut sum = 0;
            for (x, i) in group.iter().zip(g * GROUP..) {
                let code = (x * per).round_ties_even() as i8;
                panel_codes[(i / 4 * PANEL + column) * 4 + i % 4] = code;
                sum += i32::from(code);
            }
            let place = (panel * groups + g) * PANEL + column;
            scales[place] = scale;
            sums[place] = sum;
        }
    }
}

/// Rounds rows of `width` numbers: codes and one scale for each group. Codes of the padding stand for 0.
///
/// # Panics
///
/// If a slice has the wrong length, or `TOPSHELF_ISA` is wrong.
pub fn quantise(rows: &[f32], width: usize, codes: &mut [u8], scales: &mut [f32]) {
    let count = rows.len() / width.max(1);
    assert_eq!(rows.len(), count * width, "whole rows");
    assert_eq!(codes.len(), count * padded_inputs(width), "codes for each row");
    assert_eq!(scales.len(), count * groups(width), "a scale for each group");
    simd::run(Supported::detected(), Quantise { rows, width, codes, scales });
}

struct Quantise<'a> {
    rows: &'a [f32],
    width: usize,
    codes: &'a mut [u8],
    scales: &'a mut [f32],
}

impl Operation for Quantise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { rows, width, codes, scales } = self;
        let rows = rows.chunks_exact(width);
        let codes = codes.chunks_exact_mut(padded_inputs(width));
        for ((row, codes), scales) in rows.zip(codes).zip(scales.chunks_exact_mut(groups(width))) {
            let groups = row.chunks(GROUP).zip(codes.chunks_exact_mut(GROUP));
            for ((group, codes), scale) in groups.zip(scales) {
                let mut padded = [0.0; GROUP];
                padded[..group.len()].copy_from_slice(group);
                let zero = s.splat(0.0);
                let mut largest = zero;
                for first in (0..GROUP).step_by(LANES) {
                    let x = s.load(lanes(&padded, first));
                    largest = s.max(largest, s.max(x, s.sub(zero, x)));
                }
                let largest = s.largest(largest);
                let per = if largest > 0.0 { 127.0 / largest } else { 0.0 };
                *scale = largest / 127.0;
                let per = s.splat(per);
                let middle = s.splat(ZERO as f32);
                for first in (0..GROUP).step_by(LANES) {
                    let x = s.fma(s.load(lanes(&padded, first)), per, middle);
                    let out = &mut codes[first..first + LANES];
                    s.store_u8(x, out.try_into().expect("sixteen codes"));
                }
            }
        }
    }
}

/// The product; see the [module](self). Row r of the result begins at `out[r * stride]`.
///
/// # Panics
///
/// Where lengths do not fit each other, or `TOPSHELF_ISA` is wrong (see [`Isa::detect`]).
pub fn gemm_grouped(
    rows: Rows<'_>,
    weights: &Weights<'_>,
    activation: Activation,
    out: &mut [f32],
    stride: usize,
) {
    on(Supported::detected(), rows, weights, activation, out, stride);
}

/// [`gemm_grouped`] on the given instruction set.
///
/// # Panics
///
/// As [`gemm_grouped`], and where this machine lacks `isa`.
pub fn gemm_grouped_with(
    isa: Isa,
    rows: Rows<'_>,
    weights: &Weights<'_>,
    activation: Activation,
    out: &mut [f32],
    stride: usize,
) {
    on(Supported::checked(isa), rows, weights, activation, out, stride);
}

fn on(
    supported: Supported,
    rows: Rows<'_>,
    weights: &Weights<'_>,
    activation: Activation,
    out: &mut [f32],
    stride: usize,
) {
    let (width, groups) = (padded_inputs(weights.inputs), groups(weights.inputs));
    let count = rows.scales.len() / groups.max(1);
    assert_eq!(rows.scales.len(), count * groups, "a scale for each group");
    assert_eq!(rows.codes.len(), count * width, "codes for each row");
    assert_eq!(weights.codes.len(), codes_len(weights.outputs, weights.inputs), "packed codes");
    let scales = scales_len(weights.outputs, weights.inputs);
    assert_eq!(weights.scales.len(), scales, "a scale for each group of each output");
    assert_eq!(weights.sums.len(), scales, "a sum for each group of each output");
    assert_eq!(weights.bias.len(), padded_outputs(weights.outputs), "a bias for each output");
    assert!(stride >= weights.outputs, "rows of the result must not overlap");
    assert!(
        count == 0 || out.len() >= (count - 1) * stride + weights.outputs,
        "room for the result"
    );
    simd::run(supported, Gemm { rows, weights, activation, out, stride, count });
}

struct Gemm<'a, 'w> {
    rows: Rows<'a>,
    weights: &'a Weights<'w>,
    activation: Activation,
    out: &'a mut [f32],
    stride: usize,
    count: usize,
}

impl Operation for Gemm<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        for panel in 0..self.weights.bias.len() / PANEL {
            // Sums in integers and in f32 both have to stay in registers: half of the usual tile.
            match S::TILE_I8 {
                (12, 2) => cover!(self.count, [1, 2, 4, 6], |row, ROWS| {
                    self.tile::<S, ROWS, 2>(s, row, panel, 0);
                }),
                (6, 1) => cover!(self.count, [1, 2, 4], |row, ROWS| {
                    for unit in 0..PANEL / LANES {
                        self.tile::<S, ROWS, 1>(s, row, panel, unit);
                    }
                }),
                _ => cover!(self.count, [1, 2], |row, ROWS| {
                    for unit in 0..PANEL / LANES {
                        self.tile::<S, ROWS, 1>(s, row, panel, unit);
                    }
                }),
            }
        }
    }
}

impl Gemm<'_, '_> {
    /// `ROWS` rows by `UNITS` vectors of outputs, from vector `unit` of the panel on.
    #[inline(always)]
    fn tile<S: Simd, const ROWS: usize, const UNITS: usize>(
        &mut self,
        s: S,
        row: usize,
        panel: usize,
        unit: usize,
    ) {
        const FOURS: usize = GROUP / 4;
        let weights = self.weights;
        let (width, groups) = (padded_inputs(weights.inputs), groups(weights.inputs));
        let first = panel * PANEL + unit * LANES;
        let mut total = [[s.splat(0.0); UNITS]; ROWS];
        for total in &mut total {
            for (u, total) in total.iter_mut().enumerate() {
                *total = s.load(lanes(weights.bias, first + u * LANES));
            }
        }
        let zero = s.splat_i32(S::CODE_SHIFT - ZERO);
        for g in 0..groups {
            let place = (panel * groups + g) * PANEL + unit * LANES;
            let mut start = [s.dot_zero(); UNITS];
            for (u, start) in start.iter_mut().enumerate() {
                let sums = s.load_i32(lanes(weights.sums, place + u * LANES));
                *start = s.dot_start(s.mul_i32(zero, sums));
            }
            // SAFETY: `on` has checked that there are `width` codes for each row and for each column
            // of each panel; `row + ROWS` is at most the number of rows.
            let sums = unsafe {
                let codes = self.rows.codes.as_ptr().add(row * width + g * GROUP);
                let packed = weights
                    .codes
                    .as_ptr()
                    .add(((panel * width / 4 + g * FOURS) * PANEL + unit * LANES) * 4);
                dot_tile::<S, ROWS, UNITS, 4>(
                    s,
                    (codes, width),
                    (packed, PANEL),
                    FOURS,
                    [start; ROWS],
                )
            };
            let mut scales = [s.splat(0.0); UNITS];
            for (u, scale) in scales.iter_mut().enumerate() {
                *scale = s.load(lanes(weights.scales, place + u * LANES));
            }
            for r in 0..ROWS {
                let own = s.splat(self.rows.scales[(row + r) * groups + g]);
                for u in 0..UNITS {
                    let product = s.to_f32(s.dot_sum(sums[r][u]));
                    total[r][u] = s.fma(product, s.mul(own, scales[u]), total[r][u]);
                }
            }
        }
        let end = row * self.stride + weights.outputs;
        let start = row * self.stride + first;
        let target = Target::new(self.out, start, end, (ROWS, self.stride));
        // SAFETY: `target` was made for so many rows, and `out` is still borrowed.
        unsafe {
            for (r, total) in total.iter().enumerate() {
                for (u, &total) in total.iter().enumerate() {
                    target.store(s, r, u, total);
                }
            }
            if !self.activation.is_identity() {
                target.activate::<S, ROWS, UNITS>(s, self.activation);
            }
        }
    }
}
