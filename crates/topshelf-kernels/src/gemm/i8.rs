//! int8 x int8 matrix product with everything that follows it in the same pass:
//! `out = act(dequantise(A · Wᵀ) + bias)`.
//!
//! A is `[rows, inputs]` in u8 with a scale and a zero point for each row
//! ([`crate::rows::quantise_u8_row`]), W is `[outputs, inputs]` in s8 with a scale for each output:
//!
//! ```text
//! out[r][o] = act( sₐ[r]·s_w[o] · (Σᵢ a[r][i]·w[o][i] - zₐ[r]·Σᵢ w[o][i]) + bias[o] )
//! ```
//!
//! The integer part is exact (inputs ≤ 65,536: 255 · 128 · 65,536 is below 2³¹), so a row's result
//! does not depend on how rows are cut into tiles, nor, but for portable code, on the instruction
//! set.
//!
//! **Layout.** [`pack`] puts 32 outputs into a panel; inside it four inputs of each of the 32
//! outputs follow each other, as the four-way dot product wants them:
//! `panel[input / 4][output][input % 4]`. A panel is walked from front to back once for each tile
//! of rows. Outputs are padded to whole panels and inputs to fours, with zeros.

#![allow(unsafe_code)]

use super::activation::{Activation, Coarse};
use super::tile::{cover, dot_tile, in_tiles};
use super::{Target, lanes};
use crate::isa::{Isa, Supported};
use crate::prefetch::prefetch;
use crate::simd::{self, LANES, Operation, Simd};

/// So much of the next panel is asked for in advance. A longer one would push out what is worked
/// on; the hardware's prefetcher follows once it is under way.
const AHEAD: usize = 16 * 1024;

/// Outputs of a panel.
pub const PANEL: usize = 32;

/// Quantised rows.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// `rows` times `stride` codes; the codes between the number of inputs and the stride are 0.
    pub codes: &'a [u8],
    /// From one row to the next: a multiple of 4.
    pub stride: usize,
    /// One scale for each row.
    pub scales: &'a [f32],
    /// The code that stands for 0, for each row.
    pub zeros: &'a [i32],
}

/// Packed weights of `outputs` x `inputs`.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    /// Rows of the unpacked matrix.
    pub outputs: usize,
    /// Columns of the unpacked matrix.
    pub inputs: usize,
    /// [`packed_len`] codes from [`pack`].
    pub codes: &'a [i8],
    /// The scale of each output, padded to whole panels.
    pub scales: &'a [f32],
    /// The sum of the codes of each output, padded to whole panels.
    pub sums: &'a [i32],
    /// What is added to each output, padded to whole panels.
    pub bias: &'a [f32],
}

/// The outputs with the padding of the last panel.
pub const fn padded_outputs(outputs: usize) -> usize {
    outputs.next_multiple_of(PANEL)
}

/// The number of codes that [`pack`] writes.
pub const fn packed_len(outputs: usize, inputs: usize) -> usize {
    padded_outputs(outputs) * inputs.next_multiple_of(4)
}

/// Packs a row-major matrix `[outputs, inputs]` into panels and sums up each output's codes.
///
/// # Panics
///
/// If a slice has the wrong length: `packed_len` codes, `padded_outputs` sums.
pub fn pack(weights: &[i8], outputs: usize, inputs: usize, codes: &mut [i8], sums: &mut [i32]) {
    assert_eq!(weights.len(), outputs * inputs, "a matrix of {outputs} x {inputs}");
    assert_eq!(codes.len(), packed_len(outputs, inputs), "packed_len codes");
    assert_eq!(sums.len(), padded_outputs(outputs), "padded_outputs sums");
    codes.fill(0);
    sums.fill(0);
    let panel_len = PANEL * inputs.next_multiple_of(4);
    for (output, row) in weights.chunks_exact(inputs.max(1)).enumerate() {
        let panel = &mut codes[output / PANEL * panel_len..][..panel_len];
        for (input, &code) in row.iter().enumerate() {
            panel[(input / 4 * PANEL + output % PANEL) * 4 + input % 4] = code;
        }
        sums[output] = row.iter().map(|&code| i32::from(code)).sum();
    }
}

/// The product; see the [module](self). Row r of the result begins at `out[r * stride]`.
///
/// # Panics
///
/// Where lengths do not fit each other, or `TOPSHELF_ISA` is wrong (see [`Isa::detect`]).
pub fn gemm_i8(
    rows: Rows<'_>,
    weights: &Weights<'_>,
    activation: Activation,
    out: &mut [f32],
    stride: usize,
) {
    on(Supported::detected(), rows, weights, activation, out, stride);
}

/// [`gemm_i8`] on the given instruction set.
///
/// # Panics
///
/// As [`gemm_i8`], and where this machine lacks `isa`.
pub fn gemm_i8_with(
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
    let count = rows.scales.len();
    let depth = weights.inputs.next_multiple_of(4);
    assert!(rows.stride.is_multiple_of(4) && rows.stride >= depth, "a stride of whole fours");
    assert!(
        count == 0 || rows.codes.len() >= (count - 1) * rows.stride + depth,
        "codes for each row"
    );
    assert_eq!(rows.zeros.len(), count, "a zero point for each row");
    assert_eq!(weights.codes.len(), packed_len(weights.outputs, weights.inputs), "packed codes");
    let padded = padded_outputs(weights.outputs);
    assert_eq!(weights.scales.len(), padded, "a scale for each output");
    assert_eq!(weights.sums.len(), padded, "a sum for each output");
    assert_eq!(weights.bias.len(), padded, "a bias for each output");
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
        // Monomorphic in the activation, so that the tile's epilogue has no branch.
        match self.activation {
            Activation::Identity => self.all(s, Coarse(Activation::Identity)),
            Activation::Gelu => self.all(s, Coarse(Activation::Gelu)),
            other => self.all(s, Coarse(other)),
        }
    }
}

impl Gemm<'_, '_> {
    #[inline(always)]
    fn all<S: Simd>(mut self, s: S, activation: Coarse) {
        let count = self.rows.scales.len();
        for panel in 0..self.weights.sums.len() / PANEL {
            in_tiles!(S::TILE_I8, count, |row, ROWS, UNITS| {
                self.prefetch_part(panel + 1, row, ROWS);
                for unit in (0..PANEL / LANES).step_by(UNITS) {
                    self.tile::<S, ROWS, UNITS>(s, row, panel, unit, activation);
                }
            });
        }
    }

    /// Asks for the part of a panel that falls to these rows, so that it is there when the last of
    /// all rows is done: weights of many layers come from the slowest cache or from memory.
    #[inline(always)]
    fn prefetch_part(&self, panel: usize, row: usize, rows: usize) {
        let bytes = PANEL * self.weights.inputs.next_multiple_of(4);
        let count = self.rows.scales.len();
        let ahead = bytes.min(AHEAD);
        let (from, to) = (row * ahead / count, (row + rows) * ahead / count);
        let start = self.weights.codes.as_ptr().wrapping_add(panel * bytes + from);
        prefetch(start, to - from);
    }

    /// `ROWS` rows by `UNITS` vectors of outputs, from vector `unit` of the panel on.
    #[inline(always)]
    fn tile<S: Simd, const ROWS: usize, const UNITS: usize>(
        &mut self,
        s: S,
        row: usize,
        panel: usize,
        unit: usize,
        activation: Coarse,
    ) {
        let fours = self.weights.inputs.div_ceil(4);
        // SAFETY: `on` has checked that the codes hold `fours` groups of four for each row and
        // for each column of each panel; `row + ROWS` is at most the number of rows.
        let sums = unsafe {
            let codes = self.rows.codes.as_ptr().add(row * self.rows.stride);
            let weights =
                self.weights.codes.as_ptr().add((panel * fours * PANEL + unit * LANES) * 4);
            let zero = [[s.dot_zero(); UNITS]; ROWS];
            dot_tile::<S, ROWS, UNITS, 4>(
                s,
                (codes, self.rows.stride),
                (weights, PANEL),
                fours,
                zero,
            )
        };
        // What follows may index the sums by variables, which only memory can be: it gets a copy, so
        // that the sums of the loop above stay in registers.
        let mut products = [[s.splat_i32(0); UNITS]; ROWS];
        for r in 0..ROWS {
            for u in 0..UNITS {
                products[r][u] = s.dot_sum(sums[r][u]);
            }
        }
        let first = panel * PANEL + unit * LANES;
        let (mut scales, mut bias) = ([s.splat(0.0); UNITS], [s.splat(0.0); UNITS]);
        let mut column_sums = [s.splat_i32(0); UNITS];
        for u in 0..UNITS {
            let first = first + u * LANES;
            scales[u] = s.load(lanes(self.weights.scales, first));
            bias[u] = s.load(lanes(self.weights.bias, first));
            column_sums[u] = s.load_i32(lanes(self.weights.sums, first));
        }
        let row_scales: &[f32; ROWS] = self.rows.scales[row..].first_chunk().expect("ROWS rows");
        let zeros: &[i32; ROWS] = self.rows.zeros[row..].first_chunk().expect("ROWS rows");
        let end = row * self.stride + self.weights.outputs;
        let start = row * self.stride + first;
        let target = Target::new(self.out, start, end, (ROWS, self.stride));
        // SAFETY: `target` was made for so many rows, and `out` is still borrowed.
        unsafe {
            for (r, products) in products.iter().enumerate() {
                let zero = s.splat_i32(zeros[r] - S::CODE_SHIFT);
                let row_scale = s.splat(row_scales[r]);
                for u in 0..UNITS {
                    let shift = s.mul_i32(zero, column_sums[u]);
                    let product = s.to_f32(s.sub_i32(products[u], shift));
                    target.store(s, r, u, s.fma(product, s.mul(row_scale, scales[u]), bias[u]));
                }
            }
            target.activate::<S, ROWS, UNITS>(s, activation);
        }
    }
}
