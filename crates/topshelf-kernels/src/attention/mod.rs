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
//! ([`pack_keys`]). Values come head by head, `[head][key][dimension]` ([`pack_values`]): as the
//! product writes them, a head's values lie whole rows apart, which is a power of two or close to
//! one, and they would push each other out of the cache.
//!
//! [`int8`] does the same in integers.

#![allow(unsafe_code)]

pub mod int8;

use crate::gemm::exp::exp2_of_nonpositive;
use crate::gemm::tile::{cover, in_tiles, tile};
use crate::gemm::{Target, lanes};
use crate::isa::{Isa, Supported};
use crate::rows::padded;
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
    /// The values of this head from [`pack_values`]; [`OVERREAD`] more floats follow them.
    pub values: &'a [f32],
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
    let blocks = &mut blocks[..packed_keys_len(count, hidden)];
    assert!(count == 0 || rows.len() >= (count - 1) * stride + hidden, "keys");
    simd::run(Supported::detected(), PackKeys { rows, stride, count, hidden, blocks });
}

struct PackKeys<'a> {
    rows: &'a [f32],
    stride: usize,
    count: usize,
    hidden: usize,
    blocks: &'a mut [f32],
}

impl Operation for PackKeys<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { rows, stride, count, hidden, blocks } = self;
        let zero = s.splat(0.0);
        for (b, block) in blocks.chunks_exact_mut(BLOCK * hidden).enumerate() {
            for half in (0..BLOCK).step_by(LANES) {
                let first = b * BLOCK + half;
                let mut keys: [&[f32]; LANES] = [&[]; LANES];
                for (j, key) in (first..count).zip(&mut keys) {
                    *key = &rows[j * stride..][..hidden];
                }
                for d in (0..hidden).step_by(LANES) {
                    let mut square = [zero; LANES];
                    for (row, key) in square.iter_mut().zip(keys) {
                        *row = match key.get(d..) {
                            Some([]) | None => zero,
                            Some(rest) => match rest.first_chunk() {
                                Some(whole) => s.load(whole),
                                None => padded(s, rest, 0.0),
                            },
                        };
                    }
                    let columns = s.transpose(square);
                    for (i, &column) in columns.iter().enumerate().take(hidden - d) {
                        let place = &mut block[(d + i) * BLOCK + half..][..LANES];
                        s.store(column, place.try_into().expect("sixteen keys"));
                    }
                }
            }
        }
    }
}

/// Sorts the values `keys` of a piece by head, `out[head][key][dimension]`: `rows` holds these
/// values, the first at `rows[0]`, all heads side by side in each; `out` those of the whole piece.
///
/// # Panics
///
/// If a slice is too short.
pub fn pack_values(
    rows: &[f32],
    stride: usize,
    keys: std::ops::Range<usize>,
    (heads, dimension): (usize, usize),
    out: &mut [f32],
) {
    if heads * dimension == 0 {
        return;
    }
    let count = out.len() / (heads * dimension);
    for (row, j) in rows.chunks(stride).zip(keys) {
        for (head, value) in row[..heads * dimension].chunks_exact(dimension).enumerate() {
            out[(head * count + j) * dimension..][..dimension].copy_from_slice(value);
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
    let reach = queries.window.map_or(usize::MAX, |window| keys.saturating_add(window));
    assert!(keys > 0 && queries.first + count <= reach, "each query sees a key");
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
            piece.count == 0 || piece.values.len() >= piece.count * dimension + OVERREAD,
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
        in_tiles!(S::TILE_F32, self.queries.count, |row, ROWS, UNITS| {
            self.rows::<S, ROWS, UNITS>(s, row);
        });
    }
}

impl Attend<'_> {
    /// Takes `ROWS` rows through.
    #[inline(always)]
    fn rows<S: Simd, const ROWS: usize, const UNITS: usize>(&mut self, s: S, row: usize) {
        let (queries, keys) = (self.queries, self.keys);
        let seen = |rows| seen(queries.window, queries.first, keys, rows);
        let of_tile = seen(row..row + ROWS);
        self.scores::<S, ROWS, UNITS>(s, row, of_tile.clone());
        let stride = keys.next_multiple_of(BLOCK);
        for r in 0..ROWS {
            let scores = &mut self.scratch[r * stride..][..stride];
            let bias = queries.bias.map(|bias| &bias[(row + r) * keys..][..keys]);
            finish(s, scores, bias, &of_tile, &seen(row + r..row + r + 1));
        }
        let inverse = self.softmax::<S, ROWS>(s, &of_tile);
        self.weighted_sum::<S, ROWS, UNITS>(s, row, of_tile, inverse);
    }

    /// Replaces the scores of `ROWS` rows by exp(c·(score - max)); answers 1 / their sums.
    #[inline(always)]
    fn softmax<S: Simd, const ROWS: usize>(
        &mut self,
        s: S,
        seen: &std::ops::Range<usize>,
    ) -> [f32; ROWS] {
        let stride = self.keys.next_multiple_of(BLOCK);
        let chunks = vectors(seen);
        assert!(ROWS * stride <= self.scratch.len() && chunks.end * LANES <= stride, "scratch");
        let scores = self.scratch.as_mut_ptr();
        // SAFETY: asserted above.
        let max = unsafe { highest::<S, ROWS>(s, scores, stride, chunks.clone()) };
        // exp(c·(x - max)) = 2^(a·x - a·max) with a = c·log₂ e.
        let scale = self.queries.scale * std::f32::consts::LOG2_E;
        let mut sums = [1.0; LANES];
        for (r, max) in max.into_iter().enumerate() {
            let shift = s.splat(-scale * s.largest(max));
            let mut sum = s.splat(0.0);
            for chunk in chunks.clone() {
                // SAFETY: asserted above.
                let values = unsafe { &mut *scores.add(r * stride + chunk * LANES).cast() };
                let value = s.fma(s.load(values), s.splat(scale), shift);
                let value = exp2_of_nonpositive(s, value);
                s.store(value, values);
                sum = s.add(sum, value);
            }
            sums[r] = s.sum(sum);
        }
        let mut inverse = [0.0; LANES];
        s.store(s.div(s.splat(1.0), s.load(&sums)), &mut inverse);
        *inverse.first_chunk().expect("at most sixteen rows")
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
                    let first = first + unit * LANES;
                    let target = Target::new(self.scratch, first, stride, (ROWS, stride));
                    for (r, sums) in sums.iter().enumerate() {
                        for (u, &sum) in sums.iter().enumerate() {
                            // SAFETY: `target` was made for so many rows.
                            unsafe { target.store(s, r, u, sum) };
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
        let dimension = self.queries.dimension;
        let mut sums = [[s.splat(0.0); UNITS]; ROWS];
        let mut base = 0;
        for piece in self.pieces {
            let from = seen.start.clamp(base, base + piece.count);
            let to = seen.end.clamp(base, base + piece.count);
            // SAFETY: scores stand in the scratch space for all seen keys, and `on` has checked
            // that values can be read up to `OVERREAD` beyond their end.
            unsafe {
                let p = self.scratch.as_ptr().add(from);
                let v = piece.values.as_ptr().wrapping_add((from - base) * dimension + column);
                sums = tile::<S, ROWS, UNITS>(s, (p, stride), (v, dimension), to - from, sums);
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
        let start = row * self.out_stride + column;
        let end = row * self.out_stride + self.queries.dimension;
        let target = Target::new(self.out, start, end, (ROWS, self.out_stride));
        for (r, (sums, inverse)) in sums.iter().zip(inverse).enumerate() {
            for (u, &sum) in sums.iter().enumerate() {
                // SAFETY: `target` was made for so many rows.
                unsafe { target.store(s, r, u, s.mul(sum, s.splat(inverse))) };
            }
        }
    }
}

/// The keys that these rows of a sequence see, counted from `first` on.
#[inline(always)]
fn seen(
    window: Option<usize>,
    first: usize,
    keys: usize,
    rows: std::ops::Range<usize>,
) -> std::ops::Range<usize> {
    match window {
        None => 0..keys,
        Some(window) => {
            (first + rows.start).saturating_sub(window)..(first + rows.end + window).min(keys)
        }
    }
}

/// Adds the bias to a row of scores, and makes those -∞ that its tile sees, but not this row.
#[inline(always)]
fn finish<S: Simd>(
    s: S,
    scores: &mut [f32],
    bias: Option<&[f32]>,
    tile: &std::ops::Range<usize>,
    row: &std::ops::Range<usize>,
) {
    if let Some(bias) = bias {
        for (score, bias) in scores.iter_mut().zip(bias) {
            *score += bias;
        }
    }
    hide(s, scores, tile, row);
}

/// The largest score of each of `ROWS` rows, lane by lane. Row by row within each step, so that one
/// row's arithmetic does not wait for another's.
///
/// # Safety
///
/// `scores` is valid for reads of the vectors `chunks` of rows `stride` apart.
#[inline(always)]
unsafe fn highest<S: Simd, const ROWS: usize>(
    s: S,
    scores: *const f32,
    stride: usize,
    chunks: std::ops::Range<usize>,
) -> [S::F; ROWS] {
    let mut max = [s.splat(f32::NEG_INFINITY); ROWS];
    for chunk in chunks {
        for (r, max) in max.iter_mut().enumerate() {
            // SAFETY: as the caller vouches.
            let values = unsafe { &*scores.add(r * stride + chunk * LANES).cast() };
            *max = s.max(*max, s.load(values));
        }
    }
    max
}

/// The vectors that hold these elements.
#[inline(always)]
fn vectors(elements: &std::ops::Range<usize>) -> std::ops::Range<usize> {
    elements.start / LANES..elements.end.div_ceil(LANES)
}

/// -∞ sixteen times, 0 sixteen times, -∞ sixteen times: what is added to a vector that is seen in
/// part.
static EDGES: [f32; 3 * LANES] = {
    let mut edges = [f32::NEG_INFINITY; 3 * LANES];
    let mut i = LANES;
    while i < 2 * LANES {
        edges[i] = 0.0;
        i += 1;
    }
    edges
};

/// What makes all but the first `seen` of sixteen -∞, when it is added.
pub(crate) fn edge(seen: usize) -> &'static [f32; LANES] {
    lanes(&EDGES, 2 * LANES - seen)
}

/// Makes the scores of the keys that the tile sees, but not this row, -∞.
#[inline(always)]
fn hide<S: Simd>(
    s: S,
    scores: &mut [f32],
    tile: &std::ops::Range<usize>,
    row: &std::ops::Range<usize>,
) {
    let scores = scores.as_chunks_mut::<LANES>().0;
    let (all, seen) = (vectors(tile), vectors(row));
    for chunk in (all.start..seen.start).chain(seen.end..all.end) {
        scores[chunk] = [f32::NEG_INFINITY; LANES];
    }
    let before = row.start % LANES;
    if before > 0 {
        let edge = lanes(&EDGES, LANES - before);
        let first = &mut scores[seen.start];
        s.store(s.add(s.load(first), s.load(edge)), first);
    }
    let within = row.end % LANES;
    if within > 0 {
        let edge = edge(within);
        let last = &mut scores[seen.end - 1];
        s.store(s.add(s.load(last), s.load(edge)), last);
    }
}
