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

use std::sync::PoisonError;

use topshelf_kernels::gemm::Activation;

use super::architecture::{NormPlace, Positions};
use super::attention::{self, Attended, Shared};
use super::buffer::Buffer;
use super::model::{Block, Model, function};
use super::packed::Operand;
use super::plan::{Chunks, Group, Part, Share, Span};
use super::team::{Barrier, Broken};
use crate::encoder::TokenBatch;

/// Rows that are taken through at once: enough that weights are read seldom, few enough that the
/// perceptron's inner states, the widest, stay in the second cache (see docs/decisions).
const CHUNK_ROWS: usize = 96;

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
    x: Buffer<f32>,
    query: Buffer<f32>,
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
    normed: Buffer<f32>,
    operand: Operand,
    key_value: Buffer<f32>,
    /// The heads' outputs, side by side.
    heads: Buffer<f32>,
    /// Attention's or the perceptron's answer, `[rows, hidden]`.
    answer: Buffer<f32>,
    /// The perceptron's inner states.
    inner: Buffer<f32>,
    gate: Buffer<f32>,
    attention: attention::Scratch,
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

    pub(super) fn hidden(&self) -> usize {
        self.model.architecture.hidden
    }

    /// The first hidden states.
    fn embed(&self, share: &Share, member: &mut Member) {
        let (image, embeddings) = (&self.model.image, &self.model.embeddings);
        let width = embeddings.width;
        let Member { x, scratch, .. } = member;
        let rows = if embeddings.projection.is_some() { &mut scratch.inner } else { &mut *x };
        rows.fill_with_zeros(share.rows * width);
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
            x.fill_with_zeros(share.rows * self.hidden());
            projection.apply(image, operand, inner, Activation::Identity, x);
        }
    }

    /// What attention's products of a chunk read: its states, or their norm.
    fn attention_input<'m>(
        &self,
        block: &Block,
        x: &'m [f32],
        normed: &'m mut Buffer<f32>,
    ) -> &'m [f32] {
        match (&block.attention_norm, self.model.architecture.norm) {
            (Some(norm), NormPlace::Before) => {
                normed.copy_from(x);
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
            let Scratch { normed, operand, key_value, attention, .. } = scratch;
            let rows = chunks.rows(chunk);
            let x = &x[rows.start * hidden..rows.end * hidden];
            let input = self.attention_input(block, x, normed);
            operand.set(self.model.precision, input, hidden);
            let key_value = key_value.at_least(rows.len() * 2 * hidden);
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
                let with_keys = block.relative.is_some();
                self.store_part(part, key_value, share, with_keys, attention, &mut own);
            }
            if and_queries {
                self.queries(i, block, chunks.parts(chunk), (operand, input), query);
            }
        }
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
        member.x.resize(member.spans.len() * hidden);
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
        query: &mut Buffer<f32>,
    ) {
        let hidden = self.hidden();
        let start = parts[0].row * hidden;
        let query = &mut query.at_least(start + input.len())[start..];
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
        let Scratch { heads, operand, answer, attention, .. } = &mut member.scratch;
        let (heads, answer) = (heads.at_least(length), answer.at_least(length));
        for part in member.chunks.parts(chunk) {
            let query = &member.query[part.row * hidden..];
            let out = &mut heads[(part.row - rows.start) * hidden..];
            self.attend_part(attended, part, query, attention, out);
        }
        let image = &self.model.image;
        operand.set(self.model.precision, heads, hidden);
        block.attention_output.apply(image, operand, heads, Activation::Identity, answer);
        let x = &mut member.x[rows.start * hidden..rows.end * hidden];
        match (&block.attention_norm, self.model.architecture.norm) {
            (Some(norm), NormPlace::After) => norm.apply(image, x, answer),
            _ => add(x, answer),
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
                normed.copy_from(x);
                block.perceptron_norm.apply(image, normed, &[]);
                &*normed
            }
        };
        operand.set(precision, input, hidden);
        let inner = inner.at_least(rows.len() * inner_width);
        block.up.apply(image, operand, input, activation, inner);
        if let Some(linear) = &block.gate {
            let gate = gate.at_least(rows.len() * inner_width);
            linear.apply(image, operand, input, Activation::Identity, gate);
            for (inner, gate) in inner.iter_mut().zip(gate) {
                *inner *= *gate;
            }
        }
        operand.set(precision, inner, inner_width);
        let answer = answer.at_least(rows.len() * hidden);
        block.down.apply(image, operand, inner, Activation::Identity, answer);
        match self.model.architecture.norm {
            NormPlace::After => block.perceptron_norm.apply(image, x, answer),
            NormPlace::Before => add(x, answer),
        }
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
