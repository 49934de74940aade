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
//! **The first token only.** Where only the first token's state is wanted, the last block computes
//! keys and values for all rows, and everything else for first rows only.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use topshelf_kernels::attention::{
    BLOCK, OVERREAD, Piece, Queries, attend, pack_keys, packed_keys_len, scratch_len,
};
use topshelf_kernels::gemm::Activation;

use super::architecture::{NormPlace, Positions};
use super::model::{Block, Model, function};
use super::packed::Operand;
use super::plan::{Group, Share, Span};
use super::relative::{self, HeadRows};
use super::team::{Barrier, Broken};
use crate::encoder::TokenBatch;

/// Rows that a perceptron takes at once: its inner states are the widest, and should stay in the
/// cache between the two products.
const PERCEPTRON_ROWS: usize = 48;

/// Keys and values of one share in one block.
#[derive(Debug, Default)]
pub(crate) struct KeyValues {
    /// `[rows, 2 · hidden]`: keys, then values; and what attention reads beyond.
    rows: Vec<f32>,
    /// The keys, span by span in blocks.
    blocks: Vec<f32>,
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
    /// Their norm, where blocks normalise before.
    normed: Vec<f32>,
    operand: Operand,
    query: Vec<f32>,
    /// Attention's or the perceptron's answer, `[rows, hidden]`.
    answer: Vec<f32>,
    /// The perceptron's inner states.
    inner: Vec<f32>,
    gate: Vec<f32>,
    scores: Vec<f32>,
    bias: Vec<f32>,
    relative: relative::Scratch,
    spans: Vec<Span>,
    /// Blocks begun in this call, of all groups: it tells which of the two buffers is written, and
    /// goes on from group to group, since others may still read the last block of the one before.
    turn: usize,
    /// The wanted states of all groups, in the order of the rows.
    pub(crate) out: Vec<f32>,
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
        self.embed(share, member);
        let last = self.model.blocks.len().wrapping_sub(1);
        for (i, block) in self.model.blocks.iter().enumerate() {
            self.keys_and_values(i, block, share, member);
            if i == last && self.wanted == Wanted::First {
                self.keep_first_rows(member);
            }
            self.queries(i, block, member);
            self.barrier.wait()?;
            self.attention(i, block, group, member);
            self.perceptron(block, member);
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

    /// The first hidden states.
    fn embed(&self, share: &Share, member: &mut Member) {
        let (image, embeddings) = (&self.model.image, &self.model.embeddings);
        let width = embeddings.width;
        let rows = if embeddings.projection.is_some() { &mut member.inner } else { &mut member.x };
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
            member.operand.set(self.model.precision, &member.inner, width);
            member.x.resize(share.rows * self.hidden(), 0.0);
            let (operand, from) = (&member.operand, &member.inner);
            projection.apply(image, operand, from, Activation::Identity, &mut member.x);
        }
    }

    /// What attention reads of the hidden states: the states, or their norm.
    fn attention_input<'m>(&self, block: &Block, member: &'m Member) -> &'m [f32] {
        match self.model.architecture.norm {
            NormPlace::Before if block.attention_norm.is_some() => &member.normed,
            _ => &member.x,
        }
    }

    /// Keys and values of all rows of the share, for all threads to read.
    fn keys_and_values(&self, i: usize, block: &Block, share: &Share, member: &mut Member) {
        let hidden = self.hidden();
        let image = &self.model.image;
        if let (Some(norm), NormPlace::Before) =
            (&block.attention_norm, self.model.architecture.norm)
        {
            member.normed.clear();
            member.normed.extend_from_slice(&member.x);
            norm.apply(image, &mut member.normed, &[]);
        }
        let mut operand = std::mem::take(&mut member.operand);
        let input = self.attention_input(block, member);
        operand.set(self.model.precision, input, hidden);
        let mut own = self.shared.buffers[member.turn % 2][self.share]
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let KeyValues { rows, blocks } = &mut *own;
        let length = share.rows * 2 * hidden;
        rows.resize(length + OVERREAD, 0.0);
        let out = &mut rows[..length];
        block.key_value.apply(image, &operand, input, Activation::Identity, out);
        member.operand = operand;
        blocks.resize(share.blocks * BLOCK * hidden, 0.0);
        for span in &share.spans {
            let rows = &mut rows[span.row * 2 * hidden..][..span.count * 2 * hidden];
            if let Some(rotary) = self.model.rotary.get(i) {
                for (r, row) in rows.chunks_exact_mut(2 * hidden).enumerate() {
                    rotary.turn(&mut row[..hidden], span.first + r);
                }
            }
            let blocks = &mut blocks[span.block * BLOCK * hidden..]
                [..packed_keys_len(span.count, hidden)];
            pack_keys(rows, 2 * hidden, span.count, hidden, blocks);
        }
    }

    /// Drops all rows but each sequence's first, together with what goes into the next product.
    fn keep_first_rows(&self, member: &mut Member) {
        let hidden = self.hidden();
        member.spans.retain(|span| span.first == 0);
        for kept in 0..member.spans.len() {
            let from = member.spans[kept].row * hidden;
            member.x.copy_within(from..from + hidden, kept * hidden);
            if !member.normed.is_empty() {
                member.normed.copy_within(from..from + hidden, kept * hidden);
            }
            member.spans[kept].row = kept;
            member.spans[kept].count = 1;
        }
        let length = member.spans.len() * hidden;
        member.x.truncate(length);
        member.normed.truncate(length);
    }

    /// Queries of this thread's remaining rows.
    fn queries(&self, i: usize, block: &Block, member: &mut Member) {
        let hidden = self.hidden();
        let mut operand = std::mem::take(&mut member.operand);
        let mut query = std::mem::take(&mut member.query);
        let input = self.attention_input(block, member);
        operand.set(self.model.precision, input, hidden);
        query.resize(input.len(), 0.0);
        let image = &self.model.image;
        block.query.apply(image, &operand, input, Activation::Identity, &mut query);
        (member.operand, member.query) = (operand, query);
        if let Some(rotary) = self.model.rotary.get(i) {
            for span in &member.spans {
                let rows = member.query[span.row * hidden..].chunks_exact_mut(hidden);
                for (r, row) in rows.take(span.count).enumerate() {
                    rotary.turn(row, span.first + r);
                }
            }
        }
    }

    /// `x = norm(x + attention)`, or `x + attention`.
    fn attention(&self, i: usize, block: &Block, group: &Group, member: &mut Member) {
        let hidden = self.hidden();
        // `answer` holds the heads' outputs first, then their projection.
        member.answer.resize(member.query.len(), 0.0);
        for s in 0..member.spans.len() {
            let span = member.spans[s];
            self.attend_span(i, block, group, &span, member);
        }
        let image = &self.model.image;
        member.operand.set(self.model.precision, &member.answer, hidden);
        member.inner.resize(member.answer.len(), 0.0);
        let (operand, inner) = (&member.operand, &mut member.inner);
        block.attention_output.apply(image, operand, &member.answer, Activation::Identity, inner);
        match (&block.attention_norm, self.model.architecture.norm) {
            (Some(norm), NormPlace::After) => norm.apply(image, &mut member.x, &member.inner),
            _ => add(&mut member.x, &member.inner),
        }
    }

    /// The heads' outputs for the rows of one span.
    fn attend_span(&self, i: usize, block: &Block, group: &Group, span: &Span, m: &mut Member) {
        let architecture = &self.model.architecture;
        let (hidden, heads) = (architecture.hidden, architecture.heads);
        let dimension = hidden / heads;
        let guards: Vec<(RwLockReadGuard<'_, KeyValues>, &Span)> = group
            .pieces(span.sequence)
            .map(|(share, piece)| (self.shared.read(m.turn, share), piece))
            .collect();
        let keys: usize = guards.iter().map(|(_, piece)| piece.count).sum();
        m.scores.resize(m.scores.len().max(scratch_len(keys)), 0.0);
        let scale = match architecture.positions {
            Positions::Relative(of) => of.scale(dimension),
            _ => 1.0 / (dimension as f32).sqrt(),
        };
        let mut pieces = Vec::with_capacity(guards.len());
        for head in 0..heads {
            let column = head * dimension;
            pieces.clear();
            pieces.extend(guards.iter().map(|(own, piece)| Piece {
                count: piece.count,
                keys: &own.blocks[piece.block * BLOCK * hidden + column * BLOCK..],
                key_stride: BLOCK * hidden,
                values: &own.rows[piece.row * 2 * hidden + hidden + column..],
                value_stride: 2 * hidden,
            }));
            let values = &m.query[span.row * hidden + column..];
            if let Some(tables) = &block.relative {
                let queries = HeadRows { count: span.count, values, stride: hidden };
                let keys = guards.iter().map(|(own, piece)| HeadRows {
                    count: piece.count,
                    values: &own.rows[piece.row * 2 * hidden + column..],
                    stride: 2 * hidden,
                });
                let image = &self.model.image;
                let (scratch, bias) = (&mut m.relative, &mut m.bias);
                tables.bias(image, head, queries, span.first, keys, scratch, bias);
            }
            let queries = Queries {
                count: span.count,
                first: span.first,
                dimension,
                values,
                stride: hidden,
                scale,
                window: architecture.blocks[i].window,
                bias: block.relative.is_some().then_some(&m.bias[..]),
            };
            let out = &mut m.answer[span.row * hidden + column..];
            attend(&queries, &pieces, &mut m.scores, out, hidden);
        }
    }

    /// `x = norm(x + perceptron(x))`, or `x + perceptron(norm(x))`.
    fn perceptron(&self, block: &Block, member: &mut Member) {
        let (hidden, inner_width) = (self.hidden(), self.model.architecture.intermediate);
        let (image, precision) = (&self.model.image, self.model.precision);
        let activation = function(self.model.architecture.activation);
        for x in member.x.chunks_mut(PERCEPTRON_ROWS * hidden) {
            let count = x.len() / hidden;
            let input = match self.model.architecture.norm {
                NormPlace::After => &*x,
                NormPlace::Before => {
                    member.normed.clear();
                    member.normed.extend_from_slice(x);
                    block.perceptron_norm.apply(image, &mut member.normed, &[]);
                    &member.normed
                }
            };
            member.operand.set(precision, input, hidden);
            member.inner.resize(count * inner_width, 0.0);
            block.up.apply(image, &member.operand, input, activation, &mut member.inner);
            if let Some(gate) = &block.gate {
                member.gate.resize(count * inner_width, 0.0);
                let out = &mut member.gate;
                gate.apply(image, &member.operand, input, Activation::Identity, out);
                for (inner, gate) in member.inner.iter_mut().zip(&member.gate) {
                    *inner *= gate;
                }
            }
            member.operand.set(precision, &member.inner, inner_width);
            member.answer.resize(count * hidden, 0.0);
            let (operand, answer) = (&member.operand, &mut member.answer);
            block.down.apply(image, operand, &member.inner, Activation::Identity, answer);
            match self.model.architecture.norm {
                NormPlace::After => block.perceptron_norm.apply(image, x, &member.answer),
                NormPlace::Before => add(x, &member.answer),
            }
        }
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
