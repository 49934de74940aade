//! The forward pass: ids to hidden states, for one thread's share of the rows.
//!
//! Everything but attention works on rows alone, so a thread takes its own rows through a whole
//! block without looking left or right. Only keys and values are read by others. A thread writes
//! those of block n into one of two buffers, waits at the barrier, and attends; while a slower
//! thread still reads them, it may already write those of block n + 1 into the other buffer. So
//! there is one barrier for each block.
//!
//! ```text
//! norm after:   a = attention(x)         x = norm(x + a)   x = norm(x + perceptron(x))
//! norm before:  a = attention(norm(x))   x = x + a         x = x + perceptron(norm(x))
//! ```
//!
//! Within a block a thread takes its rows in chunks of about [`CHUNK_ROWS`], each through all of the
//! way up to the barrier and all of the way behind it, so that what one step writes the next one
//! finds in the cache.
//!
//! **The first token only.** Where only the first token's state is wanted, the last block computes
//! keys and values for all rows, and everything else for first rows only.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use smallvec::SmallVec;
use topshelf_kernels::attention::{
    BLOCK, OVERREAD, Piece, Queries, attend, int8, pack_keys, pack_values, scratch_len,
};
use topshelf_kernels::gemm::Activation;
use topshelf_kernels::rows::quantise_centred_rows;

use super::architecture::{NormPlace, Positions};
use super::model::{Block, Model, function};
use super::packed::{Operand, Precision};
use super::plan::{Chunks, Group, Part, Share, Span};
use super::relative::{self, HeadRows};
use super::team::{Barrier, Broken};
use crate::encoder::TokenBatch;

/// Rows that are taken through at once: enough that weights are read seldom, few enough that the
/// perceptron's inner states, the widest, stay in the second cache (see docs/decisions).
const CHUNK_ROWS: usize = 96;

/// Keys and values of one share in one block.
#[derive(Debug, Default)]
pub(crate) struct KeyValues {
    /// The keys, span by span in blocks.
    blocks: Vec<f32>,
    /// The values, span by span and head by head, and what attention reads beyond.
    values: Vec<f32>,
    /// The keys as they are, `[rows, hidden]`, where relative positions read them.
    keys: Vec<f32>,
    /// What stands for blocks and values where attention is in integers.
    rounded: Rounded,
}

/// Keys and values in 8 bits.
#[derive(Debug, Default)]
struct Rounded {
    /// The keys, span by span in blocks.
    blocks: Vec<i8>,
    /// The sums of their codes.
    sums: Vec<f32>,
    /// The values, span by span and head by head.
    values: Vec<i8>,
    /// The scale of each row of keys.
    key_scales: Vec<f32>,
    /// The scale of each row of values.
    value_scales: Vec<f32>,
}

/// The two buffers of each thread, read by all.
pub(crate) struct Shared {
    pub(crate) buffers: [Vec<RwLock<KeyValues>>; 2],
}

impl Shared {
    pub(crate) fn new(threads: usize) -> Self {
        Self { buffers: [(); 2].map(|()| (0..threads).map(|_| RwLock::default()).collect()) }
    }

    fn read(&self, turn: usize, share: usize) -> RwLockReadGuard<'_, KeyValues> {
        self.buffers[turn % 2][share].read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What of the last states is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Each sequence's first.
    First,
    /// All.
    All,
}

/// A thread's own buffers; they grow to what is needed once and are used again.
#[derive(Debug, Default)]
pub(crate) struct Member {
    /// Hidden states, `[rows, hidden]`.
    x: Vec<f32>,
    query: Vec<f32>,
    /// The rows that are computed, span by span, and cut into chunks.
    spans: Vec<Span>,
    chunks: Chunks,
    scratch: Scratch,
    /// Blocks begun in this call, of all groups: it tells which of the two buffers is written, and
    /// goes on from group to group, since others may still read the last block of the one before.
    turn: usize,
    /// The wanted states of all groups, in the order of the rows.
    pub(crate) out: Vec<f32>,
}

/// What is needed for one chunk at a time.
#[derive(Debug, Default)]
struct Scratch {
    /// What goes into a product where blocks normalise before.
    normed: Vec<f32>,
    operand: Operand,
    key_value: Vec<f32>,
    /// The heads' outputs, side by side.
    heads: Vec<f32>,
    /// Attention's or the perceptron's answer, `[rows, hidden]`.
    answer: Vec<f32>,
    /// The perceptron's inner states.
    inner: Vec<f32>,
    gate: Vec<f32>,
    scores: Vec<f32>,
    bias: Vec<f32>,
    relative: relative::Scratch,
    /// For attention in integers: codes of a part's queries, keys or values, the queries' scales,
    /// the scales of all of a sequence's keys, and room for weights.
    codes: Vec<u8>,
    query_scales: Vec<f32>,
    scales: int8::Scales,
    weights: Vec<u8>,
}

/// A sequence's keys lie in so many buffers at most, unless many threads share it.
const USUAL_PIECES: usize = 4;

/// What attention of one block reads, beside the queries.
struct Attended<'a> {
    block: &'a Block,
    window: Option<usize>,
    group: &'a Group,
    /// The member's turn.
    turn: usize,
}

/// One thread's part in one call.
pub(crate) struct Pass<'a> {
    pub(crate) model: &'a Model,
    pub(crate) batch: &'a TokenBatch,
    pub(crate) shared: &'a Shared,
    pub(crate) barrier: &'a Barrier,
    pub(crate) wanted: Wanted,
    /// Which share of each group is this thread's.
    pub(crate) share: usize,
}

impl Member {
    /// Before a call: nothing is there of the last one.
    pub(crate) fn start(&mut self) {
        self.out.clear();
        self.turn = 0;
    }
}

impl Pass<'_> {
    /// Takes this thread's share of the group through the model, and appends the wanted states to
    /// `member.out`.
    pub(crate) fn run(&self, group: &Group, member: &mut Member) -> Result<(), Broken> {
        let share = &group.shares[self.share];
        member.spans.clear();
        member.spans.extend(&share.spans);
        member.chunks.cut(&member.spans, CHUNK_ROWS);
        self.embed(share, member);
        let last = self.model.blocks.len().wrapping_sub(1);
        for (i, block) in self.model.blocks.iter().enumerate() {
            let first_only = i == last && self.wanted == Wanted::First;
            self.keys_and_values(i, block, share, !first_only, member);
            if first_only {
                self.keep_first_rows(member);
                self.queries_of_first_rows(i, block, member);
            }
            self.barrier.wait()?;
            let attended = Attended {
                block,
                window: self.model.architecture.blocks[i].window,
                group,
                turn: member.turn,
            };
            for chunk in 0..member.chunks.count() {
                self.attention(&attended, chunk, member);
                self.perceptron(block, chunk, member);
            }
            member.turn += 1;
        }
        if last == usize::MAX && self.wanted == Wanted::First {
            self.keep_first_rows(member);
        }
        if let Some(norm) = &self.model.final_norm {
            norm.apply(&self.model.image, &mut member.x, &[]);
        }
        member.out.extend_from_slice(&member.x);
        Ok(())
    }

    fn hidden(&self) -> usize {
        self.model.architecture.hidden
    }

    fn heads(&self) -> usize {
        self.model.architecture.heads
    }

    /// The length of a head's queries, keys and values.
    fn dimension(&self) -> usize {
        self.hidden() / self.heads()
    }

    /// Whether attention is in integers.
    fn in_integers(&self) -> bool {
        self.model.precision == Precision::Int8 && self.dimension().is_multiple_of(4)
    }

    /// The first hidden states.
    fn embed(&self, share: &Share, member: &mut Member) {
        let (image, embeddings) = (&self.model.image, &self.model.embeddings);
        let width = embeddings.width;
        let Member { x, scratch, .. } = member;
        let rows = if embeddings.projection.is_some() { &mut scratch.inner } else { &mut *x };
        rows.clear();
        rows.resize(share.rows * width, 0.0);
        for span in &share.spans {
            let (ids, type_ids) = self.batch.sequence(span.sequence);
            for i in 0..span.count {
                let place = span.first + i;
                let row = &mut rows[(span.row + i) * width..][..width];
                embeddings.word.add_row(image, ids[place] as usize, row);
                if let (Some(table), Positions::Absolute { offset }) =
                    (&embeddings.position, self.model.architecture.positions)
                {
                    table.add_row(image, offset + place, row);
                }
                if let Some(table) = &embeddings.token_type {
                    table.add_row(image, type_ids[place] as usize, row);
                }
            }
        }
        if let Some(norm) = &embeddings.norm {
            norm.apply(image, rows, &[]);
        }
        if let Some(projection) = &embeddings.projection {
            let Scratch { inner, operand, .. } = scratch;
            operand.set(self.model.precision, inner, width);
            x.clear();
            x.resize(share.rows * self.hidden(), 0.0);
            projection.apply(image, operand, inner, Activation::Identity, x);
        }
    }

    /// What attention's products of a chunk read: its states, or their norm.
    fn attention_input<'m>(
        &self,
        block: &Block,
        x: &'m [f32],
        normed: &'m mut Vec<f32>,
    ) -> &'m [f32] {
        match (&block.attention_norm, self.model.architecture.norm) {
            (Some(norm), NormPlace::Before) => {
                normed.clear();
                normed.extend_from_slice(x);
                norm.apply(&self.model.image, normed, &[]);
                normed
            }
            _ => x,
        }
    }

    /// Keys and values of all rows of the share, for all threads to read; and this thread's own
    /// queries, if they are wanted already.
    fn keys_and_values(
        &self,
        i: usize,
        block: &Block,
        share: &Share,
        and_queries: bool,
        member: &mut Member,
    ) {
        let hidden = self.hidden();
        let mut own = self.shared.buffers[member.turn % 2][self.share]
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        for chunk in 0..member.chunks.count() {
            let Member { x, query, chunks, scratch, .. } = &mut *member;
            let Scratch { normed, operand, key_value, codes, .. } = scratch;
            let rows = chunks.rows(chunk);
            let x = &x[rows.start * hidden..rows.end * hidden];
            let input = self.attention_input(block, x, normed);
            operand.set(self.model.precision, input, hidden);
            let key_value = at_least(key_value, rows.len() * 2 * hidden);
            let image = &self.model.image;
            block.key_value.apply(image, operand, input, Activation::Identity, key_value);
            for part in chunks.parts(chunk) {
                let first = part.row - rows.start;
                let key_value = &mut key_value[first * 2 * hidden..][..part.count * 2 * hidden];
                if let Some(rotary) = self.model.rotary.get(i) {
                    for (r, row) in key_value.chunks_exact_mut(2 * hidden).enumerate() {
                        rotary.turn(&mut row[..hidden], part.first + r);
                    }
                }
                if self.in_integers() {
                    self.round_part(part, key_value, share, codes, &mut own.rounded);
                } else {
                    self.pack_part(part, key_value, share, &mut own);
                }
                if block.relative.is_some() {
                    let keys = at_least(&mut own.keys, share.rows * hidden);
                    let keys = keys[part.row * hidden..].chunks_exact_mut(hidden);
                    for (key, row) in keys.zip(key_value.chunks_exact(2 * hidden)) {
                        key.copy_from_slice(&row[..hidden]);
                    }
                }
            }
            if and_queries {
                self.queries(i, block, chunks.parts(chunk), (operand, input), query);
            }
        }
    }

    /// Sorts keys and values of a part, side by side in each row, into what attention reads.
    fn pack_part(&self, part: &Part, key_value: &[f32], share: &Share, own: &mut KeyValues) {
        let hidden = self.hidden();
        let blocks = at_least(&mut own.blocks, share.blocks * BLOCK * hidden);
        let values = at_least(&mut own.values, share.rows * hidden + OVERREAD);
        let blocks = &mut blocks[part.block * BLOCK * hidden..];
        pack_keys(key_value, 2 * hidden, part.count, hidden, blocks);
        let span = part.of_span;
        let values = &mut values[span.row * hidden..][..span.count * hidden];
        let at = part.first - span.first..part.first - span.first + part.count;
        let shape = (self.heads(), self.dimension());
        pack_values(&key_value[hidden..], 2 * hidden, at, shape, values);
    }

    /// The same where attention is in integers.
    fn round_part(
        &self,
        part: &Part,
        key_value: &[f32],
        share: &Share,
        codes: &mut Vec<u8>,
        own: &mut Rounded,
    ) {
        let (hidden, heads) = (self.hidden(), self.heads());
        let (shape, span) = ((heads, self.dimension()), part.of_span);
        let codes = at_least(codes, part.count * hidden);

        let scales = at_least(&mut own.key_scales, share.rows);
        let scales = &mut scales[part.row..part.row + part.count];
        quantise_centred_rows((key_value, 2 * hidden), hidden, codes, scales);
        let blocks = at_least(&mut own.blocks, share.blocks * BLOCK * hidden);
        let sums = at_least(&mut own.sums, share.blocks * BLOCK * heads);
        let first = part.block * BLOCK;
        int8::pack_keys(codes, shape, &mut blocks[first * hidden..], &mut sums[first * heads..]);

        let scales = at_least(&mut own.value_scales, share.rows);
        let scales = &mut scales[part.row..part.row + part.count];
        quantise_centred_rows((&key_value[hidden..], 2 * hidden), hidden, codes, scales);
        let a_key = int8::packed_values_len(BLOCK, heads, self.dimension()) / BLOCK;
        let values = at_least(&mut own.values, share.blocks * BLOCK * a_key);
        let values = &mut values[span.block * BLOCK * a_key..];
        int8::pack_values(codes, shape, part.first - span.first, span.count, values);
    }

    /// Drops all rows but each sequence's first.
    fn keep_first_rows(&self, member: &mut Member) {
        let hidden = self.hidden();
        member.spans.retain(|span| span.first == 0);
        for (kept, span) in member.spans.iter_mut().enumerate() {
            let from = span.row * hidden;
            member.x.copy_within(from..from + hidden, kept * hidden);
            span.row = kept;
            span.count = 1;
        }
        member.x.truncate(member.spans.len() * hidden);
        member.chunks.cut(&member.spans, CHUNK_ROWS);
    }

    /// Queries of the rows that are left.
    fn queries_of_first_rows(&self, i: usize, block: &Block, member: &mut Member) {
        let hidden = self.hidden();
        let Member { x, query, chunks, scratch, .. } = member;
        let Scratch { normed, operand, .. } = scratch;
        for chunk in 0..chunks.count() {
            let rows = chunks.rows(chunk);
            let x = &x[rows.start * hidden..rows.end * hidden];
            let input = self.attention_input(block, x, normed);
            operand.set(self.model.precision, input, hidden);
            self.queries(i, block, chunks.parts(chunk), (operand, input), query);
        }
    }

    /// Queries of a chunk of these parts, from its input.
    fn queries(
        &self,
        i: usize,
        block: &Block,
        parts: &[Part],
        (operand, input): (&Operand, &[f32]),
        query: &mut Vec<f32>,
    ) {
        let hidden = self.hidden();
        let start = parts[0].row * hidden;
        let query = &mut at_least(query, start + input.len())[start..];
        block.query.apply(&self.model.image, operand, input, Activation::Identity, query);
        if let Some(rotary) = self.model.rotary.get(i) {
            for part in parts {
                let own = query[(part.row - parts[0].row) * hidden..].chunks_exact_mut(hidden);
                for (r, row) in own.take(part.count).enumerate() {
                    rotary.turn(row, part.first + r);
                }
            }
        }
    }

    /// `x = norm(x + attention)`, or `x + attention`, for a chunk.
    fn attention(&self, attended: &Attended<'_>, chunk: usize, member: &mut Member) {
        let block = attended.block;
        let hidden = self.hidden();
        let rows = member.chunks.rows(chunk);
        let length = rows.len() * hidden;
        at_least(&mut member.scratch.heads, length);
        for part in member.chunks.parts(chunk) {
            let query = &member.query[part.row * hidden..];
            let at = (part.row - rows.start) * hidden;
            self.attend_part(attended, part, query, at, &mut member.scratch);
        }
        let Scratch { heads, operand, answer, .. } = &mut member.scratch;
        let (heads, answer) = (&heads[..length], at_least(answer, length));
        let image = &self.model.image;
        operand.set(self.model.precision, heads, hidden);
        block.attention_output.apply(image, operand, heads, Activation::Identity, answer);
        let x = &mut member.x[rows.start * hidden..rows.end * hidden];
        match (&block.attention_norm, self.model.architecture.norm) {
            (Some(norm), NormPlace::After) => norm.apply(image, x, answer),
            _ => add(x, answer),
        }
    }

    /// The heads' outputs for the rows of one part of a chunk, to `scratch.heads` from `at` on.
    fn attend_part(
        &self,
        attended: &Attended<'_>,
        part: &Part,
        query: &[f32],
        at: usize,
        scratch: &mut Scratch,
    ) {
        let (hidden, heads, dimension) = (self.hidden(), self.heads(), self.dimension());
        let scale = match self.model.architecture.positions {
            Positions::Relative(of) => of.scale(dimension),
            _ => 1.0 / (dimension as f32).sqrt(),
        };
        let keys_of: SmallVec<[(RwLockReadGuard<'_, KeyValues>, &Span); USUAL_PIECES]> = attended
            .group
            .pieces(part.sequence)
            .map(|(share, span)| (self.shared.read(attended.turn, share), span))
            .collect();
        let keys: usize = keys_of.iter().map(|(_, span)| span.count).sum();
        at_least(&mut scratch.scores, scratch_len(keys));
        if self.in_integers() {
            let rows = &query[..part.count * hidden];
            let codes = at_least(&mut scratch.codes, rows.len());
            let scales = at_least(&mut scratch.query_scales, part.count);
            quantise_centred_rows((rows, hidden), hidden, codes, scales);
            at_least(&mut scratch.weights, int8::weights_len(keys));
            scratch.scales.clear();
            for (own, span) in &keys_of {
                let rows = span.row..span.row + span.count;
                let Rounded { key_scales, value_scales, .. } = &own.rounded;
                scratch.scales.extend(&key_scales[rows.clone()], &value_scales[rows]);
            }
            scratch.scales.finish();
        }
        for head in 0..heads {
            let column = head * dimension;
            let values = &query[column..];
            if let Some(tables) = &attended.block.relative {
                let (count, first) = (part.count, part.first);
                let queries = HeadRows { count, first, values, stride: hidden };
                let keys = keys_of.iter().map(|(own, span)| HeadRows {
                    count: span.count,
                    first: span.first,
                    values: &own.keys[span.row * hidden + column..],
                    stride: hidden,
                });
                let (rows, bias) = (&mut scratch.relative, &mut scratch.bias);
                tables.bias(&self.model.image, head, queries, keys, rows, bias);
            }
            let Scratch { bias, codes, query_scales, scales, scores, weights, .. } = scratch;
            let bias = attended.block.relative.is_some().then_some(&bias[..]);
            let out = &mut scratch.heads[at + column..];
            let Part { count, first, .. } = *part;
            let (stride, window) = (hidden, attended.window);
            if self.in_integers() {
                let pieces: SmallVec<[int8::Piece<'_>; USUAL_PIECES]> =
                    keys_of.iter().map(|(own, span)| self.rounded_piece(own, span, head)).collect();
                let scales_of = &query_scales[..count];
                let codes = &codes[column..];
                let queries = int8::Queries {
                    count,
                    first,
                    dimension,
                    codes,
                    stride,
                    scales: scales_of,
                    scale,
                    window,
                    bias,
                };
                int8::attend(&queries, &pieces, scales, (scores, weights), out, hidden);
            } else {
                let pieces: SmallVec<[Piece<'_>; USUAL_PIECES]> = keys_of
                    .iter()
                    .map(|(own, span)| Piece {
                        count: span.count,
                        keys: &own.blocks[span.block * BLOCK * hidden + column * BLOCK..],
                        key_stride: BLOCK * hidden,
                        values: &own.values[span.row * hidden + column * span.count..],
                    })
                    .collect();
                let queries =
                    Queries { count, first, dimension, values, stride, scale, window, bias };
                attend(&queries, &pieces, scores, out, hidden);
            }
        }
    }

    /// A head's part of a span's keys and values in 8 bits.
    fn rounded_piece<'k>(&self, own: &'k KeyValues, span: &Span, head: usize) -> int8::Piece<'k> {
        let (hidden, heads, dimension) = (self.hidden(), self.heads(), self.dimension());
        let Rounded { blocks, sums, values, .. } = &own.rounded;
        let first = span.block * BLOCK;
        let a_key = int8::packed_values_len(BLOCK, heads, dimension) / BLOCK;
        let of_head = int8::packed_values_len(span.count, 1, dimension);
        int8::Piece {
            count: span.count,
            keys: &blocks[first * hidden + head * dimension * BLOCK..],
            key_stride: BLOCK * hidden,
            sums: &sums[first * heads + head * BLOCK..],
            sum_stride: BLOCK * heads,
            values: &values[first * a_key + head * of_head..][..of_head],
        }
    }

    /// `x = norm(x + perceptron(x))`, or `x + perceptron(norm(x))`, for a chunk.
    fn perceptron(&self, block: &Block, chunk: usize, member: &mut Member) {
        let (hidden, inner_width) = (self.hidden(), self.model.architecture.intermediate);
        let (image, precision) = (&self.model.image, self.model.precision);
        let activation = function(self.model.architecture.activation);
        let rows = member.chunks.rows(chunk);
        let x = &mut member.x[rows.start * hidden..rows.end * hidden];
        let Scratch { normed, operand, answer, inner, gate, .. } = &mut member.scratch;
        let input = match self.model.architecture.norm {
            NormPlace::After => &*x,
            NormPlace::Before => {
                normed.clear();
                normed.extend_from_slice(x);
                block.perceptron_norm.apply(image, normed, &[]);
                &*normed
            }
        };
        operand.set(precision, input, hidden);
        let inner = at_least(inner, rows.len() * inner_width);
        block.up.apply(image, operand, input, activation, inner);
        if let Some(linear) = &block.gate {
            let gate = at_least(gate, rows.len() * inner_width);
            linear.apply(image, operand, input, Activation::Identity, gate);
            for (inner, gate) in inner.iter_mut().zip(gate) {
                *inner *= *gate;
            }
        }
        operand.set(precision, inner, inner_width);
        let answer = at_least(answer, rows.len() * hidden);
        block.down.apply(image, operand, inner, Activation::Identity, answer);
        match self.model.architecture.norm {
            NormPlace::After => block.perceptron_norm.apply(image, x, answer),
            NormPlace::Before => add(x, answer),
        }
    }
}

/// The first `length` elements of a buffer that grows to what is asked for and never shrinks, so
/// that nothing is filled again from call to call.
fn at_least<T: Clone + Default>(buffer: &mut Vec<T>, length: usize) -> &mut [T] {
    if buffer.len() < length {
        buffer.resize(length, T::default());
    }
    &mut buffer[..length]
}

fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
