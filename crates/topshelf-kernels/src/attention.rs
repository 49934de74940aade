//! Scaled dot-product attention of one head over sequences without padding:
//!
//! ```text
//! out[i] = Σⱼ pᵢⱼ · v[j]      pᵢⱼ = exp(c·(sᵢⱼ - maxⱼ sᵢⱼ)) / Σⱼ …      sᵢⱼ = q[i]·k[j] + bias[i][j]
//! ```
//!
//! (Vaswani et al., "Attention Is All You Need", 2017, equation 1.) j runs over the keys that row i
//! may see: all of its sequence, or those at most `window` places away.
//!
//! A tile of rows is taken through at once: its scores against all keys (the only scores in
//! memory, `[tile, keys]`), softmax in f32, then the weighted sum of values.
//!
//! **Keys in pieces.** A sequence's keys may lie in several buffers, since several threads make
//! them. Every piece but a sequence's last holds a multiple of [`BLOCK`] keys; then all sums are
//! cut and added in the same order wherever the pieces are cut, and a row's result has the same
//! bits. Nor does it depend on how rows are cut into tiles.
//!
//! **Layout.** Keys come transposed, in blocks of 32: `block[head][dimension][key]`
//! ([`pack_keys`]). Values are read as the product wrote them, row by row.

#![allow(unsafe_code)]

use crate::gemm::exp::exp;
use crate::gemm::tile::tile;
use crate::isa::{Isa, Supported};
use crate::simd::{self, LANES, Operation, Simd};

/// Keys of a block.
pub const BLOCK: usize = 32;

/// Values are read in vectors of sixteen: so many floats behind the last value must be readable.
pub const OVERREAD: usize = LANES;

/// The most rows of a tile: scratch space is needed for so many.
pub const TILE_ROWS: usize = 12;

/// Some keys of a sequence, with their values, for one head.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// The number of keys; a multiple of [`BLOCK`] unless it is the sequence's last piece.
    pub count: usize,
    /// Blocks of keys from [`pack_keys`], of this head: block b begins at `b * key_stride`.
    pub keys: &'a [f32],
    /// From one block to the next.
    pub key_stride: usize,
    /// Value j begins at `j * value_stride`; [`OVERREAD`] more floats follow the last one.
    pub values: &'a [f32],
    /// From one value to the next.
    pub value_stride: usize,
}

/// Rows of queries of one head, all of one sequence.
#[derive(Debug, Clone, Copy)]
pub struct Queries<'a> {
    /// The number of rows.
    pub count: usize,
    /// The first row's place in its sequence.
    pub first: usize,
    /// The length of a query.
    pub dimension: usize,
    /// Query i begins at `i * stride`.
    pub values: &'a [f32],
    /// From one query to the next.
    pub stride: usize,
    /// c: what scores are multiplied by before the exponential.
    pub scale: f32,
    /// Keys farther away than that are not seen.
    pub window: Option<usize>,
    /// Added to the scores: row i, key j at `i * keys + j`, where `keys` is the sequence's length.
    pub bias: Option<&'a [f32]>,
}

/// The floats of scratch space for a sequence of that length.
pub const fn scratch_len(keys: usize) -> usize {
    TILE_ROWS * keys.next_multiple_of(BLOCK)
}

/// The floats that [`pack_keys`] writes for so many keys of all heads together.
pub const fn packed_keys_len(count: usize, hidden: usize) -> usize {
    count.next_multiple_of(BLOCK) * hidden
}

/// Transposes `count` keys, the first at `rows[0]`, `hidden` long (all heads side by side), into
/// blocks. Keys that fill up the last block are 0.
///
/// # Panics
///
/// If a slice is too short.
pub fn pack_keys(rows: &[f32], stride: usize, count: usize, hidden: usize, blocks: &mut [f32]) {
    for (b, block) in
        blocks[..packed_keys_len(count, hidden)].chunks_exact_mut(BLOCK * hidden).enumerate()
    {
        let in_block = BLOCK.min(count - b * BLOCK);
        if in_block < BLOCK {
            block.fill(0.0);
        }
        for j in 0..in_block {
            let row = &rows[(b * BLOCK + j) * stride..][..hidden];
            for (place, &value) in block[j..].iter_mut().step_by(BLOCK).zip(row) {
                *place = value;
            }
        }
    }
}

/// Attention of one head; row i of the result begins at `out[i * out_stride]`. `scratch` has
/// [`scratch_len`] floats.
///
/// # Panics
///
/// Where lengths do not fit each other, or `TOPSHELF_ISA` is wrong (see [`Isa::detect`]).
pub fn attend(
    queries: &Queries<'_>,
    pieces: &[Piece<'_>],
    scratch: &mut [f32],
    out: &mut [f32],
    out_stride: usize,
) {
    on(Supported::detected(), queries, pieces, scratch, out, out_stride);
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
    scratch: &mut [f32],
    out: &mut [f32],
    out_stride: usize,
) {
    on(Supported::checked(isa), queries, pieces, scratch, out, out_stride);
}

fn on(
    supported: Supported,
    queries: &Queries<'_>,
    pieces: &[Piece<'_>],
    scratch: &mut [f32],
    out: &mut [f32],
    out_stride: usize,
) {
    let (count, dimension) = (queries.count, queries.dimension);
    if count == 0 {
        return;
    }
    let keys: usize = pieces.iter().map(|piece| piece.count).sum();
    assert!(keys > 0 && queries.first + count <= keys, "queries are of the keys' sequence");
    assert!(queries.values.len() >= (count - 1) * queries.stride + dimension, "queries");
    assert!(out.len() >= (count - 1) * out_stride + dimension, "room for the result");
    assert!(scratch.len() >= scratch_len(keys), "scratch space");
    assert!(queries.bias.is_none_or(|bias| bias.len() >= count * keys), "bias for each pair");
    for (i, piece) in pieces.iter().enumerate() {
        assert!(
            i + 1 == pieces.len() || piece.count.is_multiple_of(BLOCK),
            "only the last piece ends within a block"
        );
        let blocks = piece.count.div_ceil(BLOCK);
        assert!(
            blocks == 0 || piece.keys.len() >= (blocks - 1) * piece.key_stride + BLOCK * dimension,
            "keys of each block"
        );
        assert!(
            piece.count == 0
                || piece.values.len()
                    >= (piece.count - 1) * piece.value_stride + dimension + OVERREAD,
            "values for each key, and what is read beyond them"
        );
    }
    simd::run(supported, Attend { queries, pieces, keys, scratch, out, out_stride });
}

struct Attend<'a> {
    queries: &'a Queries<'a>,
    pieces: &'a [Piece<'a>],
    /// All keys of the sequence.
    keys: usize,
    scratch: &'a mut [f32],
    out: &'a mut [f32],
    out_stride: usize,
}

impl Operation for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let mut row = 0;
        macro_rules! tiles {
            ($rows:literal, $units:literal) => {
                while row + $rows <= self.queries.count {
                    self.rows::<S, $rows, $units>(s, row);
                    row += $rows;
                }
            };
        }
        match S::TILE_F32 {
            (12, 2) => {
                tiles!(12, 2);
                tiles!(6, 2);
                tiles!(3, 2);
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

impl Attend<'_> {
    /// Takes `ROWS` rows through.
    #[inline(always)]
    fn rows<S: Simd, const ROWS: usize, const UNITS: usize>(&mut self, s: S, row: usize) {
        let seen = self.seen(row, row + ROWS);
        self.scores::<S, ROWS, UNITS>(s, row, seen.clone());
        let stride = self.keys.next_multiple_of(BLOCK);
        let mut inverse = [0.0; ROWS];
        for (r, inverse) in inverse.iter_mut().enumerate() {
            let of_row = self.seen(row + r, row + r + 1);
            let scores = &mut self.scratch[r * stride..][..stride];
            if let Some(bias) = self.queries.bias {
                let bias = &bias[(row + r) * self.keys..][..self.keys];
                for (score, bias) in scores.iter_mut().zip(bias) {
                    *score += bias;
                }
            }
            *inverse = 1.0 / softmax(s, scores, seen.clone(), of_row, self.queries.scale);
        }
        self.weighted_sum::<S, ROWS, UNITS>(s, row, seen, inverse);
    }

    /// The keys that the rows `from..to` see.
    #[inline(always)]
    fn seen(&self, from: usize, to: usize) -> std::ops::Range<usize> {
        match self.queries.window {
            None => 0..self.keys,
            Some(window) => {
                let first = self.queries.first;
                (first + from).saturating_sub(window)..(first + to + window).min(self.keys)
            }
        }
    }

    /// `scratch[r][j] = q[row + r]·k[j]` for the blocks that hold seen keys.
    #[inline(always)]
    fn scores<S: Simd, const ROWS: usize, const UNITS: usize>(
        &mut self,
        s: S,
        row: usize,
        seen: std::ops::Range<usize>,
    ) {
        let (dimension, q_stride) = (self.queries.dimension, self.queries.stride);
        let stride = self.keys.next_multiple_of(BLOCK);
        let mut base = 0;
        for piece in self.pieces {
            for b in 0..piece.count.div_ceil(BLOCK) {
                let first = base + b * BLOCK;
                if first >= seen.end || first + BLOCK <= seen.start {
                    continue;
                }
                for unit in (0..BLOCK / LANES).step_by(UNITS) {
                    // SAFETY: `on` has checked queries and blocks of keys; `row + ROWS` is at most
                    // the number of queries.
                    let sums = unsafe {
                        let q = self.queries.values.as_ptr().add(row * q_stride);
                        let k = piece.keys.as_ptr().add(b * piece.key_stride + unit * LANES);
                        let zero = [[s.splat(0.0); UNITS]; ROWS];
                        tile::<S, ROWS, UNITS>(s, (q, q_stride), (k, BLOCK), dimension, zero)
                    };
                    for (r, sums) in sums.iter().enumerate() {
                        for (u, &sum) in sums.iter().enumerate() {
                            let at = r * stride + first + (unit + u) * LANES;
                            let place = &mut self.scratch[at..at + LANES];
                            s.store(sum, place.try_into().expect("sixteen scores"));
                        }
                    }
                }
            }
            base += piece.count;
        }
    }

    /// `out[row + r] = inverse[r] · Σⱼ scratch[r][j] · v[j]`.
    #[inline(always)]
    fn weighted_sum<S: Simd, const ROWS: usize, const UNITS: usize>(
        &mut self,
        s: S,
        row: usize,
        seen: std::ops::Range<usize>,
        inverse: [f32; ROWS],
    ) {
        let dimension = self.queries.dimension;
        let stride = self.keys.next_multiple_of(BLOCK);
        for column in (0..dimension).step_by(UNITS * LANES) {
            // The last vectors of an odd number may lie beyond what is readable.
            if UNITS == 1 || dimension - column > LANES {
                let sums = self.value_sums::<S, ROWS, UNITS>(s, column, stride, &seen);
                self.write(s, row, column, &sums, inverse);
            } else {
                let sums = self.value_sums::<S, ROWS, 1>(s, column, stride, &seen);
                self.write(s, row, column, &sums, inverse);
            }
        }
    }

    #[inline(always)]
    fn value_sums<S: Simd, const ROWS: usize, const UNITS: usize>(
        &self,
        s: S,
        column: usize,
        stride: usize,
        seen: &std::ops::Range<usize>,
    ) -> [[S::F; UNITS]; ROWS] {
        let mut sums = [[s.splat(0.0); UNITS]; ROWS];
        let mut base = 0;
        for piece in self.pieces {
            let from = seen.start.clamp(base, base + piece.count);
            let to = seen.end.clamp(base, base + piece.count);
            // SAFETY: scores stand in the scratch space for all seen keys, and `on` has checked
            // that values can be read up to `OVERREAD` beyond their end.
            unsafe {
                let p = self.scratch.as_ptr().add(from);
                let v = piece.values.as_ptr().wrapping_add((from - base) * piece.value_stride + column);
                sums = tile::<S, ROWS, UNITS>(s, (p, stride), (v, piece.value_stride), to - from, sums);
            }
            base += piece.count;
        }
        sums
    }

    #[inline(always)]
    fn write<S: Simd, const ROWS: usize, const UNITS: usize>(
        &mut self,
        s: S,
        row: usize,
        column: usize,
        sums: &[[S::F; UNITS]; ROWS],
        inverse: [f32; ROWS],
    ) {
        for (r, sums) in sums.iter().enumerate() {
            let out = &mut self.out[(row + r) * self.out_stride..];
            for (u, &sum) in sums.iter().enumerate() {
                let value = s.mul(sum, s.splat(inverse[r]));
                let first = column + u * LANES;
                crate::gemm::store_part(s, value, out, first, self.queries.dimension);
            }
        }
    }
}

/// Replaces the scores of the keys `row` by exp(c·(score - max)) and those of the other keys of
/// `tile` by 0; answers the sum, of sixteen partial sums.
#[inline(always)]
fn softmax<S: Simd>(
    s: S,
    scores: &mut [f32],
    tile: std::ops::Range<usize>,
    row: std::ops::Range<usize>,
    scale: f32,
) -> f32 {
    let chunks = tile.start / LANES..tile.end.div_ceil(LANES);
    let scores = &mut scores.as_chunks_mut::<LANES>().0[chunks.clone()];
    let whole = |c: usize| {
        let first = (chunks.start + c) * LANES;
        first >= row.start && first + LANES <= row.end
    };
    let outside = |c: usize, i: usize| !row.contains(&((chunks.start + c) * LANES + i));
    let mut max = s.splat(f32::NEG_INFINITY);
    for (c, chunk) in scores.iter_mut().enumerate() {
        if !whole(c) {
            for (i, score) in chunk.iter_mut().enumerate() {
                if outside(c, i) {
                    *score = f32::NEG_INFINITY;
                }
            }
        }
        max = s.max(max, s.load(chunk));
    }
    let shift = s.splat(s.largest(max));
    let scale = s.splat(scale);
    let mut sum = s.splat(0.0);
    for (c, chunk) in scores.iter_mut().enumerate() {
        let value = exp(s, s.mul(s.sub(s.load(chunk), shift), scale));
        s.store(value, chunk);
        if !whole(c) {
            for (i, score) in chunk.iter_mut().enumerate() {
                if outside(c, i) {
                    *score = 0.0;
                }
            }
        }
        sum = s.add(sum, s.load(chunk));
    }
    s.sum(sum)
}
