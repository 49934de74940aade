//! MaxSim over vectors of 8 bits, in integers.
//!
//! ```text
//! d[j] ≈ norm(j) · mean + scale(j) · codes(d[j])
//! q[i]·d[j] ≈ norm(j) · q[i]·mean + scale(j) · scale(q[i]) · Σ codes(q[i]) · codes(d[j])
//! ```
//!
//! Token vectors of one model lie close together (of answerai-colbert-small-v1, the mean of all has
//! a length of 0.90), and MaxSim tells passages apart by what is left. So that is what codes are of:
//! the mean's part is exact, and rounding costs a seventh of what it costs without. `norm(j)` makes
//! what is stored a unit vector again, as the one before was. (Of msmarco-dl19's scores, over BM25's
//! top 100, the standard deviation of the error is 0.0125 without mean and norm, 0.0027 with the mean,
//! 0.0009 with both.)
//!
//! Queries are rounded to u8 around 128, each vector with its own scale
//! ([`quantise_centred_rows`]); codes of documents are s8. Their
//! scales are kept as binary16, their norms as binary16 of what they differ from 1.
//!
//! **Layout.** Whole blocks of 32 vectors, `block[dimension / 4][32][4]`, then the vectors that are
//! left in a narrower block of the same form: no padding. Dimensions are whole fours.

#![allow(unsafe_code)]

use crate::attention::{BLOCK, edge};
use crate::gemm::lanes;
use crate::gemm::tile::{cover, dot_tile, in_tiles};
use crate::isa::{Isa, Supported};
use crate::max_sim::f16::to_f32;
use crate::rows::{CENTRE, quantise_centred_rows};
use crate::simd::{self, LANES, Operation, Simd};

/// Query vectors of 8 bits, made once for all documents.
#[derive(Debug, Clone, PartialEq)]
pub struct Queries {
    dimension: usize,
    codes: Vec<u8>,
    scales: Vec<f32>,
    /// Each vector's product with the mean, over its scale.
    offsets: Vec<f32>,
}

impl Queries {
    /// Rounds rows of `dimension` numbers, to be compared with documents whose vectors have this mean.
    ///
    /// # Panics
    ///
    /// If the dimension is not one of whole fours or not the mean's, or the rows are not whole.
    pub fn new(rows: &[f32], dimension: usize, mean: &[f32]) -> Self {
        assert_eq!(mean.len(), dimension, "a mean of the same dimension");
        assert!(dimension > 0 && dimension.is_multiple_of(4), "a dimension of whole fours");
        assert!(rows.len().is_multiple_of(dimension), "whole rows");
        let count = rows.len() / dimension;
        let (mut codes, mut scales) = (vec![0; rows.len()], vec![0.0; count]);
        quantise_centred_rows((rows, dimension), dimension, &mut codes, &mut scales);
        let offset = |(row, &scale): (&[f32], &f32)| {
            let product: f32 = row.iter().zip(mean).map(|(q, m)| q * m).sum();
            if scale > 0.0 { product / scale } else { 0.0 }
        };
        let offsets = rows.chunks_exact(dimension).zip(&scales).map(offset).collect();
        Self { dimension, codes, scales, offsets }
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
    /// The sum of each vector's codes, its scale and its norm; padded to whole blocks.
    sums: Vec<i32>,
    scales: Vec<f32>,
    norms: Vec<f32>,
}

impl Scratch {
    /// Sets norms from what they differ from 1 by, and scales to `scale` of each norm.
    fn set(&mut self, stretches: &[u16], scale: impl Fn(usize, f32) -> f32) {
        let room = stretches.len().next_multiple_of(BLOCK);
        self.sums.resize(room, 0);
        self.norms.clear();
        self.norms.extend(stretches.iter().map(|&stretch| 1.0 + to_f32(stretch)));
        self.norms.resize(room, 0.0);
        self.scales.clear();
        self.scales.extend(self.norms.iter().enumerate().map(|(j, &norm)| scale(j, norm)));
    }
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

/// MaxSim of the queries and a document of `scales.len()` vectors, packed by [`pack`]; `scales` and
/// `stretches` are binary16, the latter being what a norm differs from 1 by. `best` is filled with each query vector's largest product, -∞ where the document has no vector; the answer
/// is their sum.
///
/// # Panics
///
/// Where lengths do not fit each other, or `TOPSHELF_ISA` is wrong (see [`Isa::detect`]).
pub fn max_sim_i8(
    queries: &Queries,
    packed: &[i8],
    scales: &[u16],
    stretches: &[u16],
    scratch: &mut Scratch,
    best: &mut [f32],
) -> f32 {
    on(Supported::detected(), queries, packed, (scales, stretches), scratch, best)
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
    (scales, stretches): (&[u16], &[u16]),
    scratch: &mut Scratch,
    best: &mut [f32],
) -> f32 {
    on(Supported::checked(isa), queries, packed, (scales, stretches), scratch, best)
}

fn on(
    supported: Supported,
    queries: &Queries,
    packed: &[i8],
    (scales, stretches): (&[u16], &[u16]),
    scratch: &mut Scratch,
    best: &mut [f32],
) -> f32 {
    let (count, dimension) = (scales.len(), queries.dimension);
    assert_eq!(stretches.len(), count, "a norm for each vector");
    assert_eq!(packed.len(), count * dimension, "codes for each vector");
    let whole = count / BLOCK * BLOCK;
    let (blocks, rest) = packed.split_at(whole * dimension);
    scratch.codes.resize((BLOCK * dimension).max(scratch.codes.len()), 0);
    widen(rest, count - whole, &mut scratch.codes[..BLOCK * dimension]);
    scratch.set(stretches, |j, _| scales.get(j).map_or(0.0, |&scale| to_f32(scale)));
    let Scratch { codes, sums, scales, norms } = scratch;
    let tail = &codes[..BLOCK * dimension];
    run(supported, MaxSim { queries, blocks, tail, sums, scales, norms, count, best })
}

/// A document whose codes lie in `scratch` in whole blocks, all with one scale beside their norms.
pub(super) fn of_scratch(
    supported: Supported,
    queries: &Queries,
    stretches: &[u16],
    scale: f32,
    scratch: &mut Scratch,
    best: &mut [f32],
) -> f32 {
    scratch.set(stretches, |_, norm| scale * norm);
    let Scratch { codes, sums, scales, norms } = scratch;
    let blocks = &codes[..norms.len() * queries.dimension];
    let count = stretches.len();
    run(supported, MaxSim { queries, blocks, tail: &[], sums, scales, norms, count, best })
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
    norms: &'a [f32],
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
        let offsets: &[f32; ROWS] = self.queries.offsets[row..].first_chunk().expect("ROWS rows");
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
                let norm = s.load(lanes(self.norms, at));
                let shift = s.mul_i32(zero, s.load_i32(lanes(self.sums, at)));
                let edge = s.load(edge(self.count.saturating_sub(at).min(LANES)));
                for ((best, sums), &offset) in best.iter_mut().zip(&sums).zip(offsets) {
                    let product = s.to_f32(s.sub_i32(s.dot_sum(sums[u]), shift));
                    let of_mean = s.fma(s.splat(offset), norm, edge);
                    *best = s.max(*best, s.fma(product, scale, of_mean));
                }
            }
        }
        for (place, best) in self.best[row..].iter_mut().zip(best) {
            *place = s.largest(best);
        }
    }
}
