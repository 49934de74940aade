//! MaxSim over vectors of 8 bits, in integers.
//!
//! ```text
//! q[i]·d[j] ≈ scale(q[i]) · scale(d[j]) · Σ codes(q[i]) · codes(d[j])      exact but for the scales
//! ```
//!
//! Queries are rounded to u8 around 128, each vector with its own scale
//! ([`quantise_centred_rows`](crate::rows::quantise_centred_rows)); documents are s8, each vector
//! with its own scale.
//!
//! **Layout.** Whole blocks of 32 vectors, `block[dimension / 4][32][4]`, then the vectors that are
//! left in a narrower block of the same form: no padding. Dimensions are whole fours.

#![allow(unsafe_code)]

use crate::attention::{BLOCK, edge};
use crate::gemm::lanes;
use crate::gemm::tile::{cover, dot_tile, in_tiles};
use crate::isa::{Isa, Supported};
use crate::rows::{CENTRE, quantise_centred_rows};
use crate::simd::{self, LANES, Operation, Simd};

/// Query vectors of 8 bits, made once for all documents.
#[derive(Debug, Clone, PartialEq)]
pub struct Queries {
    dimension: usize,
    codes: Vec<u8>,
    scales: Vec<f32>,
}

impl Queries {
    /// Rounds rows of `dimension` numbers.
    ///
    /// # Panics
    ///
    /// If the dimension is not one of whole fours, or the rows are not whole.
    pub fn new(rows: &[f32], dimension: usize) -> Self {
        assert!(dimension > 0 && dimension.is_multiple_of(4), "a dimension of whole fours");
        assert!(rows.len().is_multiple_of(dimension), "whole rows");
        let count = rows.len() / dimension;
        let (mut codes, mut scales) = (vec![0; rows.len()], vec![0.0; count]);
        quantise_centred_rows((rows, dimension), dimension, &mut codes, &mut scales);
        Self { dimension, codes, scales }
    }

    /// The number of vectors.
    pub fn count(&self) -> usize {
        self.scales.len()
    }

    /// The length of each.
    pub fn dimension(&self) -> usize {
        self.dimension
    }
}

/// Buffers that are used again from call to call.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The codes of what has to be laid out anew: whole blocks.
    pub(super) codes: Vec<i8>,
    /// The sum of each vector's codes, and its scale; padded to whole blocks.
    sums: Vec<i32>,
    scales: Vec<f32>,
}

/// Packs rows of `dimension` codes.
///
/// # Panics
///
/// If the dimension is not one of whole fours, or `packed` has not a place for each code.
pub fn pack<T: Copy>(rows: &[T], dimension: usize, packed: &mut [T]) {
    assert!(dimension > 0 && dimension.is_multiple_of(4), "a dimension of whole fours");
    assert_eq!(packed.len(), rows.len(), "a place for each code");
    let blocks = rows.chunks(BLOCK * dimension).zip(packed.chunks_mut(BLOCK * dimension));
    for (rows, block) in blocks {
        let width = rows.len() / dimension;
        for (vector, row) in rows.chunks_exact(dimension).enumerate() {
            for (four, codes) in row.chunks_exact(4).enumerate() {
                block[(four * width + vector) * 4..][..4].copy_from_slice(codes);
            }
        }
    }
}

/// MaxSim of the queries and a document of `scales.len()` vectors, packed by [`pack`]. `best` is
/// filled with each query vector's largest product, -∞ where the document has no vector; the answer
/// is their sum.
///
/// # Panics
///
/// Where lengths do not fit each other, or `TOPSHELF_ISA` is wrong (see [`Isa::detect`]).
pub fn max_sim_i8(
    queries: &Queries,
    packed: &[i8],
    scales: &[f32],
    scratch: &mut Scratch,
    best: &mut [f32],
) -> f32 {
    on(Supported::detected(), queries, packed, scales, scratch, best)
}

/// [`max_sim_i8`] on the given instruction set.
///
/// # Panics
///
/// As [`max_sim_i8`], and where this machine lacks `isa`.
pub fn max_sim_i8_with(
    isa: Isa,
    queries: &Queries,
    packed: &[i8],
    scales: &[f32],
    scratch: &mut Scratch,
    best: &mut [f32],
) -> f32 {
    on(Supported::checked(isa), queries, packed, scales, scratch, best)
}

fn on(
    supported: Supported,
    queries: &Queries,
    packed: &[i8],
    scales: &[f32],
    scratch: &mut Scratch,
    best: &mut [f32],
) -> f32 {
    let (count, dimension) = (scales.len(), queries.dimension);
    assert_eq!(packed.len(), count * dimension, "codes for each vector");
    let whole = count / BLOCK * BLOCK;
    let (blocks, rest) = packed.split_at(whole * dimension);
    scratch.codes.resize((BLOCK * dimension).max(scratch.codes.len()), 0);
    widen(rest, count - whole, &mut scratch.codes[..BLOCK * dimension]);
    let scale_room = count.next_multiple_of(BLOCK);
    scratch.scales.clear();
    scratch.scales.extend_from_slice(scales);
    scratch.scales.resize(scale_room, 0.0);
    let Scratch { codes, sums, scales } = scratch;
    sums.resize(scale_room, 0);
    let tail = &codes[..BLOCK * dimension];
    run(supported, MaxSim { queries, blocks, tail, sums, scales, count, best })
}

/// A document whose codes lie in `scratch` in whole blocks, all with one scale.
pub(super) fn of_scratch(
    supported: Supported,
    queries: &Queries,
    count: usize,
    scale: f32,
    scratch: &mut Scratch,
    best: &mut [f32],
) -> f32 {
    let room = count.next_multiple_of(BLOCK);
    let Scratch { codes, sums, scales } = scratch;
    scales.clear();
    scales.resize(room, scale);
    sums.resize(room, 0);
    let blocks = &codes[..room * queries.dimension];
    run(supported, MaxSim { queries, blocks, tail: &[], sums, scales, count, best })
}

fn run(supported: Supported, operation: MaxSim<'_>) -> f32 {
    assert_eq!(operation.queries.count(), operation.best.len(), "a place for each query vector");
    simd::run(supported, operation)
}

/// Lays a block of `width` vectors out as one of 32.
pub(super) fn widen(narrow: &[i8], width: usize, block: &mut [i8]) {
    if width == 0 {
        return;
    }
    for (narrow, wide) in narrow.chunks_exact(4 * width).zip(block.chunks_exact_mut(4 * BLOCK)) {
        wide[..4 * width].copy_from_slice(narrow);
        wide[4 * width..].fill(0);
    }
}

struct MaxSim<'a> {
    queries: &'a Queries,
    /// Whole blocks, where they lie.
    blocks: &'a [i8],
    /// The block behind them.
    tail: &'a [i8],
    sums: &'a mut [i32],
    scales: &'a [f32],
    count: usize,
    best: &'a mut [f32],
}

impl Operation for MaxSim<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) -> f32 {
        self.add_up_codes(s);
        in_tiles!(S::TILE_I8, self.best.len(), |row, ROWS, UNITS| {
            self.rows::<S, ROWS, UNITS>(s, row);
        });
        for (best, scale) in self.best.iter_mut().zip(&self.queries.scales) {
            *best *= scale;
        }
        self.best.iter().sum()
    }
}

impl MaxSim<'_> {
    /// The block that begins with vector `first`.
    #[inline(always)]
    fn block(&self, first: usize) -> &[i8] {
        let length = BLOCK * self.queries.dimension;
        self.blocks
            .get(first * self.queries.dimension..)
            .filter(|rest| rest.len() >= length)
            .unwrap_or(self.tail)
    }

    /// The sum of each vector's codes: its product with ones.
    #[inline(always)]
    fn add_up_codes<S: Simd>(&mut self, s: S) {
        let one = (1 + S::CODE_SHIFT) as u8;
        let ones = [one; 4];
        let fours = self.queries.dimension / 4;
        for first in (0..self.count).step_by(LANES) {
            let block = self.block(first / BLOCK * BLOCK);
            assert!(block.len() >= BLOCK * self.queries.dimension, "a whole block");
            // SAFETY: the block is whole; a step of 0 reads the same four codes each time.
            let [[sum]] = unsafe {
                let weights = block.as_ptr().add(first % BLOCK * 4);
                let zero = [[s.dot_zero(); 1]; 1];
                dot_tile::<S, 1, 1, 0>(s, (ones.as_ptr(), 0), (weights, BLOCK), fours, zero)
            };
            let mut sums = [0.0; LANES];
            s.store(s.to_f32(s.dot_sum(sum)), &mut sums);
            for (place, sum) in self.sums[first..first + LANES].iter_mut().zip(sums) {
                *place = sum as i32; // below 2²⁴, so exact
            }
        }
    }

    #[inline(always)]
    fn rows<S: Simd, const ROWS: usize, const UNITS: usize>(&mut self, s: S, row: usize) {
        let dimension = self.queries.dimension;
        let zero = s.splat_i32(i32::from(CENTRE) - S::CODE_SHIFT);
        let mut best = [s.splat(f32::NEG_INFINITY); ROWS];
        for first in (0..self.count).step_by(UNITS * LANES) {
            let block = self.block(first / BLOCK * BLOCK);
            assert!(block.len() >= BLOCK * dimension, "a whole block");
            // SAFETY: the block is whole, and `row + ROWS` is at most the number of queries, each
            // of which has `dimension` codes.
            let sums = unsafe {
                let codes = self.queries.codes.as_ptr().add(row * dimension);
                let weights = block.as_ptr().add(first % BLOCK * 4);
                let zero = [[s.dot_zero(); UNITS]; ROWS];
                let fours = dimension / 4;
                dot_tile::<S, ROWS, UNITS, 4>(s, (codes, dimension), (weights, BLOCK), fours, zero)
            };
            for u in 0..UNITS {
                let at = first + u * LANES;
                let scale = s.load(lanes(self.scales, at));
                let shift = s.mul_i32(zero, s.load_i32(lanes(self.sums, at)));
                let edge = s.load(edge(self.count.saturating_sub(at).min(LANES)));
                for (best, sums) in best.iter_mut().zip(&sums) {
                    let product = s.to_f32(s.sub_i32(s.dot_sum(sums[u]), shift));
                    *best = s.max(*best, s.fma(product, scale, edge));
                }
            }
        }
        for (place, best) in self.best[row..].iter_mut().zip(best) {
            *place = s.largest(best);
        }
    }
}
