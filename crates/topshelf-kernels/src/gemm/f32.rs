//! f32 matrix product: `out = act(A · Wᵀ + bias)`, A `[rows, inputs]`, W `[outputs, inputs]`.
//!
//! Each element is one chain of fused multiply-adds over the inputs in ascending order
//! (`tile.rs`); its error is at most inputs · 2⁻²⁴ · Σ|a·w| to first order.
//!
//! **Layout.** Panels of 32 outputs as in [`super::i8`]: `panel[input][output]`.

#![allow(unsafe_code)]

use super::activation::Activation;
use super::i8::{PANEL, padded_outputs};
use super::tile::{cover, in_tiles, tile};
use super::{Target, lanes};
use crate::isa::{Isa, Supported};
use crate::simd::{self, LANES, Operation, Simd};

/// Rows of f32.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// The number of rows.
    pub count: usize,
    /// Row r begins at `values[r * stride]`.
    pub values: &'a [f32],
    /// From one row to the next.
    pub stride: usize,
}

/// Packed weights of `outputs` x `inputs`.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    /// Rows of the unpacked matrix.
    pub outputs: usize,
    /// Columns of the unpacked matrix.
    pub inputs: usize,
    /// [`packed_len`] values from [`pack`].
    pub values: &'a [f32],
    /// What is added to each output, padded to whole panels.
    pub bias: &'a [f32],
}

/// The number of values that [`pack`] writes.
pub const fn packed_len(outputs: usize, inputs: usize) -> usize {
    padded_outputs(outputs) * inputs
}

/// Packs a row-major matrix `[outputs, inputs]` into panels.
///
/// # Panics
///
/// If a slice has the wrong length: `packed_len` values.
pub fn pack(weights: &[f32], outputs: usize, inputs: usize, values: &mut [f32]) {
    assert_eq!(weights.len(), outputs * inputs, "a matrix of {outputs} x {inputs}");
    assert_eq!(values.len(), packed_len(outputs, inputs), "packed_len values");
    values.fill(0.0);
    for (output, row) in weights.chunks_exact(inputs.max(1)).enumerate() {
        let panel = &mut values[output / PANEL * PANEL * inputs..][..PANEL * inputs];
        for (input, &value) in row.iter().enumerate() {
            panel[input * PANEL + output % PANEL] = value;
        }
    }
}

/// The product; row r of the result begins at `out[r * stride]`.
///
/// # Panics
///
/// Where lengths do not fit each other, or `TOPSHELF_ISA` is wrong (see [`Isa::detect`]).
pub fn gemm_f32(
    rows: Rows<'_>,
    weights: &Weights<'_>,
    activation: Activation,
    out: &mut [f32],
    stride: usize,
) {
    on(Supported::detected(), rows, weights, activation, out, stride);
}

/// [`gemm_f32`] on the given instruction set.
///
/// # Panics
///
/// As [`gemm_f32`], and where this machine lacks `isa`.
pub fn gemm_f32_with(
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
    assert!(rows.stride >= weights.inputs, "rows must not overlap");
    assert!(
        count == 0 || rows.values.len() >= (count - 1) * rows.stride + weights.inputs,
        "values for each row"
    );
    assert_eq!(weights.values.len(), packed_len(weights.outputs, weights.inputs), "packed values");
    assert_eq!(weights.bias.len(), padded_outputs(weights.outputs), "a bias for each output");
    assert!(stride >= weights.outputs, "rows of the result must not overlap");
    assert!(
        count == 0 || out.len() >= (count - 1) * stride + weights.outputs,
        "room for the result"
    );
    simd::run(supported, Gemm { rows, weights, activation, out, stride });
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
        let inputs = self.weights.inputs;
        // SAFETY: `on` has checked that there are `inputs` values for each row and, for each of
        // them, a panel's width of weights; `row + ROWS` is at most the number of rows.
        let sums = unsafe {
            let a = self.rows.values.as_ptr().add(row * self.rows.stride);
            let b = self.weights.values.as_ptr().add(panel * inputs * PANEL + unit * LANES);
            let zero = [[s.splat(0.0); UNITS]; ROWS];
            tile::<S, ROWS, UNITS>(s, (a, self.rows.stride), (b, PANEL), inputs, zero)
        };
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
