//! bf16 matrix product with f32 sums: `out = act(A · Wᵀ + bias)`, A `[rows, inputs]`,
//! W `[outputs, inputs]`, both rounded to bf16 ([`to_bf16`]).
//!
//! Products of bf16 are exact in f32. With AVX-512 BF16 (`vdpbf16ps`) each step adds two products
//! to the sum, rounding in the instruction's own way (to nearest, subnormal numbers as zero);
//! elsewhere each product is added in turn by a fused multiply-add. Both stay within
//! inputs · 2⁻²³ · Σ|a·w| of the exact sum, but their last bits differ: a score in bf16 is the same
//! on machines of one kind only.
//!
//! **Layout.** Panels of 32 outputs as in [`super::i8`], two inputs of each output together:
//! `panel[input / 2][output][input % 2]`. Inputs are padded to an even number with zeros.

#![allow(unsafe_code)]

use super::activation::Activation;
use super::i8::{PANEL, padded_outputs};
use super::tile::{cover, in_tiles};
use super::{Target, lanes};
use crate::isa::{Isa, Supported};
use crate::simd::{self, LANES, Operation, Simd};

/// Rows of bf16, as their bits.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// The number of rows.
    pub count: usize,
    /// Row r begins at `values[r * stride]`; after an odd number of inputs follows a 0.
    pub values: &'a [u16],
    /// From one row to the next: an even number.
    pub stride: usize,
}

/// Packed weights of `outputs` x `inputs`.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    /// Rows of the unpacked matrix.
    pub outputs: usize,
    /// Columns of the unpacked matrix.
    pub inputs: usize,
    /// [`packed_len`] values from [`pack`], as their bits.
    pub values: &'a [u16],
    /// What is added to each output, padded to whole panels.
    pub bias: &'a [f32],
}

/// The number of values that [`pack`] writes.
pub const fn packed_len(outputs: usize, inputs: usize) -> usize {
    padded_outputs(outputs) * inputs.next_multiple_of(2)
}

/// Rounds to bf16, to nearest, ties to even. NaN stays NaN.
pub fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40; // quiet, so that the cut leaves a NaN
    }
    (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// Rounds a row-major matrix `[outputs, inputs]` to bf16 and packs it into panels.
///
/// # Panics
///
/// If a slice has the wrong length: `packed_len` values.
pub fn pack(weights: &[f32], outputs: usize, inputs: usize, values: &mut [u16]) {
    assert_eq!(weights.len(), outputs * inputs, "a matrix of {outputs} x {inputs}");
    assert_eq!(values.len(), packed_len(outputs, inputs), "packed_len values");
    values.fill(0);
    let panel_len = PANEL * inputs.next_multiple_of(2);
    for (output, row) in weights.chunks_exact(inputs.max(1)).enumerate() {
        let panel = &mut values[output / PANEL * panel_len..][..panel_len];
        for (input, &value) in row.iter().enumerate() {
            panel[(input / 2 * PANEL + output % PANEL) * 2 + input % 2] = to_bf16(value);
        }
    }
}

/// The product; row r of the result begins at `out[r * stride]`.
///
/// # Panics
///
/// Where lengths do not fit each other, or `TOPSHELF_ISA` is wrong (see [`Isa::detect`]).
pub fn gemm_bf16(
    rows: Rows<'_>,
    weights: &Weights<'_>,
    activation: Activation,
    out: &mut [f32],
    stride: usize,
) {
    on(Supported::detected(), rows, weights, activation, out, stride);
}

/// [`gemm_bf16`] on the given instruction set.
///
/// # Panics
///
/// As [`gemm_bf16`], and where this machine lacks `isa`.
pub fn gemm_bf16_with(
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
    let count = rows.count;
    let depth = weights.inputs.next_multiple_of(2);
    assert!(rows.stride.is_multiple_of(2) && rows.stride >= depth, "a stride of whole pairs");
    assert!(
        count == 0 || rows.values.len() >= (count - 1) * rows.stride + depth,
        "values for each row"
    );
    assert_eq!(weights.values.len(), packed_len(weights.outputs, weights.inputs), "packed values");
    assert_eq!(weights.bias.len(), padded_outputs(weights.outputs), "a bias for each output");
    assert!(stride >= weights.outputs, "rows of the result must not overlap");
    assert!(
        count == 0 || out.len() >= (count - 1) * stride + weights.outputs,
        "room for the result"
    );
    simd::run_bf16(supported, Gemm { rows, weights, activation, out, stride });
}

struct Gemm<'a, 'w> {
    rows: Rows<'a>,
    weights: &'a Weights<'w>,
    activation: Activation,
    out: &'a mut [f32],
    stride: usize,
}

impl Operation for Gemm<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // Monomorphic in the activation, so that there is no branch for each element.
        match self.activation {
            Activation::Identity => self.all(s, Activation::Identity),
            Activation::Gelu => self.all(s, Activation::Gelu),
            other => self.all(s, other),
        }
    }
}

impl Gemm<'_, '_> {
    #[inline(always)]
    fn all<S: Simd>(mut self, s: S, activation: Activation) {
        for panel in 0..self.weights.bias.len() / PANEL {
            in_tiles!(S::TILE_F32, self.rows.count, |row, ROWS, UNITS| {
                for unit in (0..PANEL / LANES).step_by(UNITS) {
                    self.tile::<S, ROWS, UNITS>(s, row, panel, unit, activation);
                }
            });
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const ROWS: usize, const UNITS: usize>(
        &mut self,
        s: S,
        row: usize,
        panel: usize,
        unit: usize,
        activation: Activation,
    ) {
        let pairs = self.weights.inputs.div_ceil(2);
        let mut sums = [[s.splat(0.0); UNITS]; ROWS];
        // SAFETY: `on` has checked that there are `pairs` pairs of values for each row and, for
        // each of them, a panel's width of pairs of weights; `row + ROWS` is at most the number
        // of rows. Reads of pairs are of four bytes at any alignment.
        unsafe {
            let mut a = self.rows.values.as_ptr().add(row * self.rows.stride);
            let mut b =
                self.weights.values.as_ptr().add((panel * pairs * PANEL + unit * LANES) * 2);
            for _ in 0..pairs {
                let columns: [S::I; UNITS] = std::array::from_fn(|u| {
                    s.load_pairs(&*b.add(u * LANES * 2).cast::<[u16; 2 * LANES]>())
                });
                for (r, sums) in sums.iter_mut().enumerate() {
                    let pair = a.add(r * self.rows.stride).cast::<i32>().read_unaligned();
                    let pair = s.splat_i32(pair);
                    for (sum, &column) in sums.iter_mut().zip(&columns) {
                        *sum = s.dot_bf16(*sum, pair, column);
                    }
                }
                a = a.add(2);
                b = b.add(PANEL * 2);
            }
        }
        let first = panel * PANEL + unit * LANES;
        let mut bias = [s.splat(0.0); UNITS];
        for (u, bias) in bias.iter_mut().enumerate() {
            *bias = s.load(lanes(self.weights.bias, first + u * LANES));
        }
        let end = row * self.stride + self.weights.outputs;
        let start = row * self.stride + first;
        let target = Target::new(self.out, start, end, (ROWS, self.stride));
        // SAFETY: `target` was made for so many rows, and `out` is still borrowed.
        unsafe {
            for (r, sums) in sums.iter().enumerate() {
                for u in 0..UNITS {
                    target.store(s, r, u, s.add(sums[u], bias[u]));
                }
            }
            target.activate::<S, ROWS, UNITS>(s, activation);
        }
    }
}
