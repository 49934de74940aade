//! Attention in integers, for encoders whose products are in int8: scores from queries and keys of
//! 8 bits, and the weighted sum from weights of 16 bits and values of 8.
//!
//! Each row of queries, keys and values, all heads together, is rounded with a scale of its own
//! ([`quantise_centred_rows`](crate::rows::quantise_centred_rows)). Then
//!
//! ```text
//! sᵢⱼ = scale(q[i]) · scale(k[j]) · Σ_d q[i][d]·k[j][d]          exact but for the two scales
//! eᵢⱼ = exp(c·(sᵢⱼ - maxⱼ sᵢⱼ))                                  in f32
//! uᵢⱼ = round(eᵢⱼ · scale(v[j]) / step)                          16 bits; step = maxⱼ scale(v[j]) / 65535
//! out[i] = step · Σⱼ uᵢⱼ·v[j] / Σⱼ eᵢⱼ
//! ```
//!
//! A key's scale of values becomes part of its weight, so the sums are over integers and their order
//! does not matter. A weight's two bytes are multiplied apart: 256·Σ + Σ; in the scratch space they
//! lie `[row][key / 4][lower, upper][4]`. A query's scale is kept out of its scores and becomes part
//! of c, unless there is a bias to be added to them.
//!
//! **Layout.** Keys lie in blocks of 32 as in f32, four elements of a key together:
//! `block[head][dimension / 4][key][4]`, with the sum of each key's codes in each head,
//! `block[head][key]`. Values of a piece: `[head][panel][key / 4][32][4]`, a panel being 32 elements
//! of the head's dimension, the last one filled up with zeros. Keys and values that fill up the last
//! block are 0.

#![allow(unsafe_code)]

use super::{BLOCK, LANES, Operation, Simd, TILE_ROWS, finish, highest, seen, vectors};
use crate::gemm::exp::coarse_exp2_of_nonpositive;
use crate::gemm::tile::{cover, dot_tile, in_tiles};
use crate::gemm::{Target, lanes};
use crate::isa::{Isa, Supported};
use crate::rows::CENTRE;
use crate::simd;

/// Elements of a head's dimension that lie together in the values' layout.
const PANEL: usize = 32;

/// The largest weight; an exponential may be beyond 1 by a rounding error.
const LARGEST: f32 = 65_535.0;

/// Some keys of a sequence, with their values, for one head.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// The number of keys; a multiple of [`BLOCK`] unless it is the sequence's last piece.
    pub count: usize,
    /// Blocks of keys from [`pack_keys`], of this head: block b begins at `b * key_stride`.
    pub keys: &'a [i8],
    /// From one block to the next.
    pub key_stride: usize,
    /// The sums of the keys' codes, of this head: those of block b begin at `b * sum_stride`.
    pub sums: &'a [i32],
    /// From one block's sums to the next.
    pub sum_stride: usize,
    /// The values of this head from [`pack_values`].
    pub values: &'a [i8],
}

/// Rows of queries of one head, all of one sequence.
#[derive(Debug, Clone, Copy)]
pub struct Queries<'a> {
    /// The number of rows.
    pub count: usize,
    /// The first row's place in its sequence.
    pub first: usize,
    /// The length of a query: a multiple of 4.
    pub dimension: usize,
    /// Query i's codes begin at `i * stride`.
    pub codes: &'a [u8],
    /// From one query to the next.
    pub stride: usize,
    /// The scale of each query's codes.
    pub scales: &'a [f32],
    /// c: what scores are multiplied by before the exponential.
    pub scale: f32,
    /// Keys farther away than that are not seen.
    pub window: Option<usize>,
    /// Added to the scores: row i, key j at `i * keys + j`, where `keys` is the sequence's length.
    pub bias: Option<&'a [f32]>,
}

/// The scales of a sequence's keys and values, for all heads; the buffers are used again.
#[derive(Debug, Clone, Default)]
pub struct Scales {
    /// The number of keys.
    count: usize,
    /// Filled up to whole blocks with zeros.
    keys: Vec<f32>,
    /// The values' scales, first as they are, then divided by the step.
    weights: Vec<f32>,
    /// The largest of the values' scales / 65535.
    step: f32,
}

impl Scales {
    /// Begins a sequence.
    pub fn clear(&mut self) {
        self.count = 0;
        self.keys.clear();
        self.weights.clear();
    }

    /// The next keys' scales and those of their values.
    ///
    /// # Panics
    ///
    /// If they are not as many.
    pub fn extend(&mut self, keys: &[f32], values: &[f32]) {
        assert_eq!(keys.len(), values.len(), "a value for each key");
        self.count += keys.len();
        self.keys.extend_from_slice(keys);
        self.weights.extend_from_slice(values);
    }

    /// Ends the sequence.
    pub fn finish(&mut self) {
        let padded = self.count.next_multiple_of(BLOCK);
        self.keys.resize(padded, 0.0);
        self.weights.resize(padded, 0.0);
        // NaN, which `max` would pass over, must reach the result: it is in the sum.
        let odd = self.weights.iter().sum::<f32>() * 0.0;
        self.step = self.weights.iter().copied().fold(0.0, f32::max) / LARGEST + odd;
        if self.step < f32::MIN_POSITIVE {
            self.step = 0.0;
            self.weights.fill(0.0);
        } else {
            let inverse = 1.0 / self.step;
            for weight in &mut self.weights {
                *weight *= inverse;
            }
        }
    }
}

/// The codes that [`pack_keys`] writes for so many keys of all heads together.
pub const fn packed_keys_len(count: usize, hidden: usize) -> usize {
    count.next_multiple_of(BLOCK) * hidden
}

/// The codes that [`pack_values`] writes into for so many keys of all heads together.
pub const fn packed_values_len(count: usize, heads: usize, dimension: usize) -> usize {
    count.next_multiple_of(BLOCK) * heads * dimension.next_multiple_of(PANEL)
}

/// The bytes of scratch space for weights, for a sequence of that length; as many floats as
/// [`super::scratch_len`] are needed besides.
pub const fn weights_len(keys: usize) -> usize {
    2 * TILE_ROWS * keys.next_multiple_of(BLOCK)
}

/// Packs rows of keys, `heads` times `dimension` codes each, one behind the other, into blocks, and
/// sums up each key's codes in each head.
///
/// # Panics
///
/// If a slice is too short, or the dimension is not a multiple of 4.
pub fn pack_keys(
    rows: &[u8],
    (heads, dimension): (usize, usize),
    blocks: &mut [i8],
    sums: &mut [i32],
) {
    assert!(dimension > 0 && dimension.is_multiple_of(4), "a dimension of whole fours");
    let hidden = heads * dimension;
    assert!(rows.len().is_multiple_of(hidden), "whole rows");
    let count = rows.len() / hidden;
    let blocks = &mut blocks[..packed_keys_len(count, hidden)];
    let sums = &mut sums[..count.next_multiple_of(BLOCK) * heads];
    simd::run(Supported::detected(), PackKeys { rows, heads, dimension, blocks, sums });
}

struct PackKeys<'a> {
    rows: &'a [u8],
    heads: usize,
    dimension: usize,
    blocks: &'a mut [i8],
    sums: &'a mut [i32],
}

/// Four codes around the centre as four signed ones.
#[inline(always)]
fn signed(four: [u8; 4]) -> u32 {
    u32::from_ne_bytes(four) ^ u32::from_ne_bytes([CENTRE; 4])
}

/// A word as its four codes.
#[inline(always)]
fn bytes(word: u32) -> [i8; 4] {
    let [a, b, c, d] = word.to_ne_bytes();
    [a.cast_signed(), b.cast_signed(), c.cast_signed(), d.cast_signed()]
}

impl Operation for PackKeys<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let hidden = self.heads * self.dimension;
        let words = hidden / 4;
        let count = self.rows.len() / hidden;
        let ones = s.dot_codes([(S::CODE_SHIFT + 1) as u8; 4]);
        let blocks = self.blocks.chunks_exact_mut(BLOCK * hidden);
        for (b, (block, sums)) in
            blocks.zip(self.sums.chunks_exact_mut(BLOCK * self.heads)).enumerate()
        {
            for half in (0..BLOCK).step_by(LANES) {
                for word in (0..words).step_by(LANES) {
                    let width = LANES.min(words - word);
                    let mut square = [[0_u32; LANES]; LANES];
                    for (j, row) in (b * BLOCK + half..count).zip(&mut square) {
                        let codes = &self.rows[j * hidden + word * 4..][..width * 4];
                        for (to, &four) in row.iter_mut().zip(codes.as_chunks::<4>().0) {
                            *to = signed(four);
                        }
                    }
                    let mut columns = [s.splat(0.0); LANES];
                    for (column, row) in columns.iter_mut().zip(&square) {
                        let mut values = [0.0; LANES];
                        for (value, &word) in values.iter_mut().zip(row) {
                            *value = f32::from_bits(word);
                        }
                        *column = s.load(&values);
                    }
                    for (i, column) in s.transpose(columns).into_iter().enumerate().take(width) {
                        let mut keys = [0.0; LANES];
                        s.store(column, &mut keys);
                        let place = &mut block[((word + i) * BLOCK + half) * 4..][..4 * LANES];
                        for (to, key) in place.as_chunks_mut::<4>().0.iter_mut().zip(keys) {
                            *to = bytes(key.to_bits());
                        }
                    }
                }
                let heads = block.chunks_exact(BLOCK * self.dimension);
                for (head, sums) in heads.zip(sums.chunks_exact_mut(BLOCK)) {
                    let mut sum = s.dot_zero();
                    for fours in head.chunks_exact(BLOCK * 4) {
                        let codes = fours[half * 4..].first_chunk().expect("sixteen keys");
                        sum = s.dot(sum, ones, s.dot_weights(codes));
                    }
                    let mut of_keys = [0.0; LANES];
                    s.store(s.to_f32(s.dot_sum(sum)), &mut of_keys);
                    for (to, sum) in sums[half..half + LANES].iter_mut().zip(of_keys) {
                        *to = sum as i32;
                    }
                }
            }
        }
    }
}

/// Packs rows of values, `heads` times `dimension` codes each, one behind the other, into the layout
/// of a piece of `count` keys, of which the first one's place is `first`, a multiple of 4. What is
/// left of the last four keys is filled with zeros.
///
/// # Panics
///
/// If a slice is too short.
pub fn pack_values(
    rows: &[u8],
    (heads, dimension): (usize, usize),
    first: usize,
    count: usize,
    values: &mut [i8],
) {
    let hidden = heads * dimension;
    assert!(hidden > 0 && rows.len().is_multiple_of(hidden), "whole rows");
    assert!(first.is_multiple_of(4) && first + rows.len() / hidden <= count, "keys of the piece");
    let values = &mut values[..packed_values_len(count, heads, dimension)];
    simd::run(Supported::detected(), PackValues { rows, heads, dimension, first, count, values });
}

struct PackValues<'a> {
    rows: &'a [u8],
    heads: usize,
    dimension: usize,
    first: usize,
    count: usize,
    values: &'a mut [i8],
}

impl Operation for PackValues<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { rows, heads, dimension, first, count, values } = self;
        let padded = count.next_multiple_of(BLOCK);
        let panels = dimension.div_ceil(PANEL);
        let last = first + rows.len() / (heads * dimension) == count;
        for (four, rows) in rows.chunks(4 * heads * dimension).enumerate() {
            for head in 0..heads {
                for panel in 0..panels {
                    let column = head * dimension + panel * PANEL;
                    let width = PANEL.min(dimension - panel * PANEL);
                    let mut codes = [[CENTRE; PANEL]; 4];
                    for (codes, row) in codes.iter_mut().zip(rows.chunks_exact(heads * dimension)) {
                        codes[..width].copy_from_slice(&row[column..column + width]);
                    }
                    let place = ((head * panels + panel) * padded + first + 4 * four) * PANEL;
                    let place = &mut values[place..][..4 * PANEL];
                    for (d, to) in place.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                        let four = [codes[0][d], codes[1][d], codes[2][d], codes[3][d]];
                        *to = bytes(signed(four));
                    }
                }
            }
        }
        if last {
            let filled = count.next_multiple_of(4);
            for panel in values.chunks_exact_mut(padded * PANEL) {
                panel[filled * PANEL..].fill(0);
            }
        }
    }
}

/// Attention of one head; row i of the result begins at `out[i * out_stride]`. `scratch` has
/// [`super::scratch_len`] floats and [`weights_len`] bytes.
///
/// # Panics
///
/// Where lengths do not fit each other, or `TOPSHELF_ISA` is wrong (see [`Isa::detect`]).
pub fn attend(
    queries: &Queries<'_>,
    pieces: &[Piece<'_>],
    scales: &Scales,
    scratch: (&mut [f32], &mut [u8]),
    out: &mut [f32],
    out_stride: usize,
) {
    on(Supported::detected(), queries, pieces, scales, scratch, out, out_stride);
}

/// [`attend`] on the given instruction set.
///
/// # Panics
///
/// As [`attend`], and where this machine lacks `isa`.
pub fn attend_with(
    isa: Isa,
    queries: &Queries<'_>,
    pieces: &[Piece<'_>],
    scales: &Scales,
    scratch: (&mut [f32], &mut [u8]),
    out: &mut [f32],
    out_stride: usize,
) {
    on(Supported::checked(isa), queries, pieces, scales, scratch, out, out_stride);
}

fn on(
    supported: Supported,
    queries: &Queries<'_>,
    pieces: &[Piece<'_>],
    scales: &Scales,
    (scratch, weights): (&mut [f32], &mut [u8]),
    out: &mut [f32],
    out_stride: usize,
) {
    let (count, dimension) = (queries.count, queries.dimension);
    if count == 0 {
        return;
    }
    let keys: usize = pieces.iter().map(|piece| piece.count).sum();
    let padded = keys.next_multiple_of(BLOCK);
    assert!(dimension > 0 && dimension.is_multiple_of(4), "a dimension of whole fours");
    let reach = queries.window.map_or(usize::MAX, |window| keys.saturating_add(window));
    assert!(keys > 0 && queries.first + count <= reach, "each query sees a key");
    assert!(queries.codes.len() >= (count - 1) * queries.stride + dimension, "queries");
    assert!(queries.scales.len() >= count, "a scale for each query");
    assert!(scales.count == keys && scales.keys.len() == padded, "a scale for each key");
    assert!(out.len() >= (count - 1) * out_stride + dimension, "room for the result");
    assert!(scratch.len() >= super::scratch_len(keys), "scratch space");
    assert!(weights.len() >= weights_len(keys), "scratch space for weights");
    assert!(queries.bias.is_none_or(|bias| bias.len() >= count * keys), "bias for each pair");
    for (i, piece) in pieces.iter().enumerate() {
        assert!(
            i + 1 == pieces.len() || piece.count.is_multiple_of(BLOCK),
            "only the last piece ends within a block"
        );
        let blocks = piece.count.div_ceil(BLOCK);
        assert!(
            blocks == 0
                || (piece.keys.len() >= (blocks - 1) * piece.key_stride + BLOCK * dimension
                    && piece.sums.len() >= (blocks - 1) * piece.sum_stride + BLOCK),
            "keys of each block"
        );
        assert!(
            piece.values.len() >= packed_values_len(piece.count, 1, dimension),
            "values for each key"
        );
    }
    simd::run(supported, Attend { queries, pieces, scales, scratch, weights, out, out_stride });
}

struct Attend<'a> {
    queries: &'a Queries<'a>,
    pieces: &'a [Piece<'a>],
    scales: &'a Scales,
    /// Scores, `[tile, keys]`.
    scratch: &'a mut [f32],
    /// The weights, `[tile, keys]`.
    weights: &'a mut [u8],
    out: &'a mut [f32],
    out_stride: usize,
}

impl Operation for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        in_tiles!(S::TILE_I8, self.queries.count, |row, ROWS, UNITS| {
            self.rows::<S, ROWS, UNITS>(s, row);
        });
    }
}

impl Attend<'_> {
    /// From one row of scores or weights to the next.
    fn stride(&self) -> usize {
        self.scales.keys.len()
    }

    /// Takes `ROWS` rows through.
    #[inline(always)]
    fn rows<S: Simd, const ROWS: usize, const UNITS: usize>(&mut self, s: S, row: usize) {
        let (queries, keys) = (self.queries, self.scales.count);
        let seen = |rows| seen(queries.window, queries.first, keys, rows);
        let mut of_tile = seen(row..row + ROWS);
        // From a whole block on, since weights are stored by two vectors.
        of_tile.start = of_tile.start / BLOCK * BLOCK;
        self.scores::<S, ROWS, UNITS>(s, row, &of_tile);
        let stride = self.stride();
        for r in 0..ROWS {
            let scores = &mut self.scratch[r * stride..][..stride];
            let bias = queries.bias.map(|bias| &bias[(row + r) * keys..][..keys]);
            if bias.is_some() {
                for score in &mut *scores {
                    *score *= queries.scales[row + r];
                }
            }
            finish(s, scores, bias, &of_tile, &seen(row + r..row + r + 1));
        }
        let chunks = vectors(&of_tile);
        let factors = self.softmax::<S, ROWS>(s, row, &chunks);
        self.weighted_sum::<S, ROWS, UNITS>(s, row, &chunks, factors);
    }

    /// `scratch[r][j] = q[row + r]·k[j]` for the blocks that hold seen keys, but for the query's scale.
    #[inline(always)]
    fn scores<S: Simd, const ROWS: usize, const UNITS: usize>(
        &mut self,
        s: S,
        row: usize,
        seen: &std::ops::Range<usize>,
    ) {
        let (dimension, q_stride) = (self.queries.dimension, self.queries.stride);
        let stride = self.stride();
        // Codes are around the centre; what the set has not taken off them itself is taken off here.
        let shift = s.splat_i32(S::CODE_SHIFT - i32::from(CENTRE));
        assert!(ROWS * stride <= self.scratch.len(), "scratch");
        let scores = self.scratch.as_mut_ptr();
        let mut base = 0;
        for piece in self.pieces {
            for b in 0..piece.count.div_ceil(BLOCK) {
                let first = base + b * BLOCK;
                if first >= seen.end || first + BLOCK <= seen.start {
                    continue;
                }
                for unit in (0..BLOCK / LANES).step_by(UNITS) {
                    let of_block = &piece.sums[b * piece.sum_stride + unit * LANES..];
                    let first = first + unit * LANES;
                    let mut start = [s.dot_zero(); UNITS];
                    let mut scales = [s.splat(0.0); UNITS];
                    for u in 0..UNITS {
                        let sums = s.load_i32(lanes(of_block, u * LANES));
                        start[u] = s.dot_start(s.mul_i32(shift, sums));
                        scales[u] = s.load(lanes(&self.scales.keys, first + u * LANES));
                    }
                    // SAFETY: `on` has checked queries and blocks of keys; `row + ROWS` is at most
                    // the number of queries.
                    let sums = unsafe {
                        let q = self.queries.codes.as_ptr().add(row * q_stride);
                        let k = piece.keys.as_ptr().add(b * piece.key_stride + unit * LANES * 4);
                        let (fours, start) = (dimension / 4, [start; ROWS]);
                        dot_tile::<S, ROWS, UNITS, 4>(s, (q, q_stride), (k, BLOCK), fours, start)
                    };
                    for (r, sums) in sums.iter().enumerate() {
                        for u in 0..UNITS {
                            let score = s.mul(s.to_f32(s.dot_sum(sums[u])), scales[u]);
                            // SAFETY: asserted above; a row ends with a whole block.
                            unsafe {
                                let place = scores.add(r * stride + first + u * LANES);
                                s.store(score, &mut *place.cast());
                            }
                        }
                    }
                }
            }
            base += piece.count;
        }
    }

    /// What a row's scores are multiplied by before the exponential.
    fn scale_of_scores(&self, row: usize) -> f32 {
        let queries = self.queries;
        let of_query = match (queries.bias, queries.scales[row]) {
            (Some(_), _) => 1.0,
            // Not 0, which -∞ would not survive.
            (None, 0.0) => f32::MIN_POSITIVE,
            (None, scale) => scale,
        };
        queries.scale * of_query
    }

    /// Turns the scores of `ROWS` rows into weights; answers what each row's sum is multiplied by.
    #[inline(always)]
    fn softmax<S: Simd, const ROWS: usize>(
        &mut self,
        s: S,
        row: usize,
        chunks: &std::ops::Range<usize>,
    ) -> [f32; ROWS] {
        let stride = self.stride();
        assert!(ROWS * stride <= self.scratch.len() && chunks.end * LANES <= stride, "scratch");
        assert!(2 * ROWS * stride <= self.weights.len(), "scratch for weights");
        assert!(self.scales.weights.len() == stride, "a scale for each key");
        let (scores, of_values) = (self.scratch.as_ptr(), self.scales.weights.as_ptr());
        let weights = self.weights.as_mut_ptr();
        // SAFETY: asserted above.
        let max = unsafe { highest::<S, ROWS>(s, scores, stride, chunks.clone()) };
        // exp(c·(x - max)) = 2^(a·x - a·max) with a = c·log₂ e.
        let mut sums = [1.0; LANES];
        for (r, max) in max.into_iter().enumerate() {
            let scale = self.scale_of_scores(row + r) * std::f32::consts::LOG2_E;
            let shift = s.splat(-scale * s.largest(max));
            let mut sum = s.splat(0.0);
            for first in chunks.clone().step_by(2) {
                let mut pair = [s.splat(0.0); 2];
                for (chunk, weight) in (first..chunks.end).zip(&mut pair) {
                    let key = chunk * LANES;
                    // SAFETY: asserted above.
                    let (scores, of_values) = unsafe {
                        (&*scores.add(r * stride + key).cast(), &*of_values.add(key).cast())
                    };
                    let value = s.fma(s.load(scores), s.splat(scale), shift);
                    let value = coarse_exp2_of_nonpositive(s, value);
                    sum = s.add(sum, value);
                    *weight = s.mul(value, s.load(of_values));
                }
                // SAFETY: asserted above; a row is of whole blocks, which are pairs of vectors.
                let place = unsafe { &mut *weights.add(2 * (r * stride + first * LANES)).cast() };
                s.store_u16(pair, place);
            }
            sums[r] = s.sum(sum);
        }
        let mut factors = [0.0; LANES];
        s.store(s.div(s.splat(self.scales.step), s.load(&sums)), &mut factors);
        *factors.first_chunk().expect("at most sixteen rows")
    }

    /// `out[row + r] = factors[r] · Σⱼ weights[r][j] · v[j]`.
    #[inline(always)]
    fn weighted_sum<S: Simd, const ROWS: usize, const UNITS: usize>(
        &mut self,
        s: S,
        row: usize,
        chunks: &std::ops::Range<usize>,
        factors: [f32; ROWS],
    ) {
        let dimension = self.queries.dimension;
        for column in (0..dimension).step_by(UNITS * LANES) {
            let lower = self.value_sums::<S, ROWS, UNITS>(s, 0, column, chunks);
            let upper = self.value_sums::<S, ROWS, UNITS>(s, 4, column, chunks);
            let start = row * self.out_stride + column;
            let end = row * self.out_stride + dimension;
            let target = Target::new(self.out, start, end, (ROWS, self.out_stride));
            for r in 0..ROWS {
                let factor = s.splat(factors[r]);
                for u in 0..UNITS {
                    let sum = s.fma(upper[r][u], s.splat(256.0), lower[r][u]);
                    // SAFETY: `target` was made for so many rows.
                    unsafe { target.store(s, r, u, s.mul(sum, factor)) };
                }
            }
        }
    }

    /// `Σⱼ byte[r][j] · v[j]` for the lower bytes of the weights, or from `byte` 4 on the upper ones.
    #[inline(always)]
    fn value_sums<S: Simd, const ROWS: usize, const UNITS: usize>(
        &self,
        s: S,
        byte: usize,
        column: usize,
        chunks: &std::ops::Range<usize>,
    ) -> [[S::F; UNITS]; ROWS] {
        let stride = self.stride();
        let mut sums = [[s.dot_zero(); UNITS]; ROWS];
        // What a set that shifts codes takes off the sums.
        let mut shifted = [[s.dot_zero(); UNITS]; 1];
        let ones = [(S::CODE_SHIFT + 1) as u8; 4];
        let mut base = 0;
        for piece in self.pieces {
            let padded = piece.count.next_multiple_of(BLOCK);
            let from = (chunks.start * LANES).clamp(base, base + padded);
            let to = (chunks.end * LANES).clamp(base, base + padded);
            // SAFETY: weights stand there for all seen keys and those that fill up their vectors,
            // and `on` has checked that there are values for whole blocks of keys.
            unsafe {
                let weights = self.weights.as_ptr().add(2 * from + byte);
                let panel = column / PANEL * padded * PANEL + (from - base) * PANEL;
                let values = piece.values.as_ptr().add(panel + column % PANEL * 4);
                let fours = (to - from) / 4;
                let (weights, values) = ((weights, 2 * stride), (values, PANEL));
                sums = dot_tile::<S, ROWS, UNITS, 8>(s, weights, values, fours, sums);
                if S::CODE_SHIFT != 0 {
                    for four in 0..fours {
                        let ones = (ones.as_ptr(), 0);
                        let values = (values.0.add(four * PANEL * 4), PANEL);
                        shifted = dot_tile::<S, 1, UNITS, 4>(s, ones, values, 1, shifted);
                    }
                }
            }
            base += piece.count;
        }
        let mut products = [[s.splat(0.0); UNITS]; ROWS];
        for r in 0..ROWS {
            for u in 0..UNITS {
                let sum = s.dot_sum(sums[r][u]);
                products[r][u] = s.to_f32(if S::CODE_SHIFT == 0 {
                    sum
                } else {
                    let shift = s.mul_i32(s.splat_i32(-S::CODE_SHIFT), s.dot_sum(shifted[0][u]));
                    s.sub_i32(sum, shift)
                });
            }
        }
        products
    }
}
