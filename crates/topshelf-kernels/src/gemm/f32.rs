//! f32 matrix product: `out = act(A · Wᵀ + bias)`, A `[rows, inputs]`, W `[outputs, inputs]`.
//!
//! Each element is one chain of fused multiply-adds over the inputs in ascending order
//! ([`super::tile`]); its error is at most inputs · 2⁻²⁴ · Σ|a·w| to first order.
//!
//! **Layout.** Panels of 32 outputs as in [`super::i8`]: `panel[input][output]`.

#![allow(unsafe_code)]

use super::activation::Activation;
use super::i8::{PANEL, padded_outputs};
use super::tile::tile;
use super::{lanes, store_part};
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
    assert!(count == 0 || out.len() >= (count - 1) * stride + weights.outputs, "room for the result");
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
    fn run<S: Simd>(mut self, s: S) {
        for panel in 0..self.weights.bias.len() / PANEL {
            let mut row = 0;
            macro_rules! tiles {
                ($rows:literal, $units:literal) => {
                    while row + $rows <= self.rows.count {
                        for unit in (0..PANEL / LANES).step_by($units) {
                            self.tile::<S, $rows, $units>(s, row, panel, unit);
                        }
                        row += $rows;
                    }
                };
            }
            match S::TILE_F32 {
                (12, 2) => {
                    tiles!(12, 2);
                    tiles!(8, 2);
                    tiles!(4, 2);
                    tiles!(2, 2);
                    tiles!(1, 2);
                }
                (6, 1) => {
                    tiles!(6, 1);
                    tiles!(3, 1);
                    tiles!(1, 1);
                }
                _ => {
                    tiles!(4, 1);
                    tiles!(1, 1);
                }
            }
        }
    }
}

impl Gemm<'_, '_> {
    #[inline(always)]
    fn tile<S: Simd, const ROWS: usize, const UNITS: usize>(
        &mut self,
        s: S,
        row: usize,
        panel: usize,
        unit: usize,
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
        for u in 0..UNITS {
            let first = panel * PANEL + (unit + u) * LANES;
            let bias = s.load(lanes(self.weights.bias, first));
            for (r, sums) in sums.iter().enumerate() {
                let value = self.activation.apply(s, s.add(sums[u], bias));
                let out = &mut self.out[(row + r) * self.stride..];
                store_part(s, value, out, first, self.weights.outputs);
            }
        }
    }
}
