//! Attention of one block, in f32 or in integers: the keys and values that the threads hand each
//! other, and how queries attend to them.
//!
//! It is in integers where products are, unless a head's dimension is not one of whole fours.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use smallvec::SmallVec;
use topshelf_kernels::attention::{
    BLOCK, OVERREAD, Piece, Queries, attend, int8, pack_keys, pack_values, scratch_len,
};
use topshelf_kernels::rows::quantise_centred_rows;

use super::architecture::Positions;
use super::buffer::Buffer;
use super::forward::Pass;
use super::model::Block;
use super::packed::Precision;
use super::plan::{Group, Part, Share, Span};
use super::relative::{self, HeadRows};

/// Keys and values of one share in one block.
#[derive(Debug, Default)]
pub(crate) struct KeyValues {
    /// The keys, span by span in blocks.
    blocks: Buffer<f32>,
    /// The values, span by span and head by head, and what attention reads beyond.
    values: Buffer<f32>,
    /// The keys as they are, `[rows, hidden]`, where relative positions read them.
    keys: Buffer<f32>,
    /// What stands for blocks and values where attention is in integers.
    rounded: Rounded,
}

/// Keys and values in 8 bits.
#[derive(Debug, Default)]
struct Rounded {
    /// The keys, span by span in blocks.
    blocks: Buffer<i8>,
    /// The sums of their codes.
    sums: Buffer<i32>,
    /// The values, span by span and head by head.
    values: Buffer<i8>,
    /// The scale of each row of keys.
    key_scales: Buffer<f32>,
    /// The scale of each row of values.
    value_scales: Buffer<f32>,
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

/// What is needed for one part at a time.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    scores: Buffer<f32>,
    bias: Buffer<f32>,
    relative: relative::Scratch,
    /// In integers: codes of a part's queries, keys or values.
    codes: Buffer<u8>,
    query_scales: Buffer<f32>,
    /// The scales of all of a sequence's keys and values.
    scales: int8::Scales,
    weights: Buffer<u8>,
}

/// What attention of one block reads, beside the queries.
pub(crate) struct Attended<'a> {
    pub(crate) block: &'a Block,
    pub(crate) window: Option<usize>,
    pub(crate) group: &'a Group,
    /// The member's turn.
    pub(crate) turn: usize,
}

/// A sequence's keys lie in so many buffers at most, unless many threads share it.
const USUAL_PIECES: usize = 4;

/// Queries of a part, and all keys and values of its sequence.
struct OfPart<'a> {
    attended: &'a Attended<'a>,
    part: &'a Part,
    /// The queries, `[rows, hidden]`.
    query: &'a [f32],
    /// As they are shared out.
    keys: &'a [(RwLockReadGuard<'a, KeyValues>, &'a Span)],
}

impl Pass<'_> {
    fn heads(&self) -> usize {
        self.model.architecture.heads
    }

    /// The length of a head's queries, keys and values.
    fn dimension(&self) -> usize {
        self.hidden() / self.heads()
    }

    fn in_integers(&self) -> bool {
        self.model.precision == Precision::Int8 && self.dimension().is_multiple_of(4)
    }

    /// Stores the keys and values of a part, side by side in each row, as attention reads them.
    pub(super) fn store_part(
        &self,
        part: &Part,
        key_value: &[f32],
        share: &Share,
        with_keys: bool,
        scratch: &mut Scratch,
        own: &mut KeyValues,
    ) {
        if part.keys == 0 {
            return;
        }
        if self.in_integers() {
            self.round_part(part, key_value, share, &mut scratch.codes, &mut own.rounded);
        } else {
            self.pack_part(part, key_value, share, own);
        }
        if with_keys {
            let hidden = self.hidden();
            let keys = own.keys.at_least(share.rows * hidden);
            let keys = keys[part.row * hidden..].chunks_exact_mut(hidden);
            for (key, row) in keys.zip(key_value.chunks_exact(2 * hidden)) {
                key.copy_from_slice(&row[..hidden]);
            }
        }
    }

    fn pack_part(&self, part: &Part, key_value: &[f32], share: &Share, own: &mut KeyValues) {
        let hidden = self.hidden();
        let blocks = own.blocks.at_least(share.blocks * BLOCK * hidden);
        let values = own.values.at_least(share.rows * hidden + OVERREAD);
        let blocks = &mut blocks[part.block * BLOCK * hidden..];
        pack_keys(key_value, 2 * hidden, part.keys, hidden, blocks);
        let span = part.of_span;
        let values = &mut values[span.row * hidden..][..span.keys * hidden];
        let at = part.first - span.first..part.first - span.first + part.keys;
        let shape = (self.heads(), self.dimension());
        pack_values(&key_value[hidden..], 2 * hidden, at, shape, values);
    }

    fn round_part(
        &self,
        part: &Part,
        key_value: &[f32],
        share: &Share,
        codes: &mut Buffer<u8>,
        own: &mut Rounded,
    ) {
        let (hidden, heads) = (self.hidden(), self.heads());
        let (shape, span) = ((heads, self.dimension()), part.of_span);
        let rows = part.row..part.row + part.keys;
        let codes = codes.at_least(part.keys * hidden);

        let scales = &mut own.key_scales.at_least(share.rows)[rows.clone()];
        quantise_centred_rows((key_value, 2 * hidden), hidden, codes, scales);
        let blocks = own.blocks.at_least(share.blocks * BLOCK * hidden);
        let sums = own.sums.at_least(share.blocks * BLOCK * heads);
        let first = part.block * BLOCK;
        int8::pack_keys(codes, shape, &mut blocks[first * hidden..], &mut sums[first * heads..]);

        let scales = &mut own.value_scales.at_least(share.rows)[rows];
        quantise_centred_rows((&key_value[hidden..], 2 * hidden), hidden, codes, scales);
        let a_key = int8::packed_values_len(BLOCK, heads, self.dimension()) / BLOCK;
        let values = own.values.at_least(share.blocks * BLOCK * a_key);
        let values = &mut values[span.block * BLOCK * a_key..];
        int8::pack_values(codes, shape, part.first - span.first, span.keys, values);
    }

    /// Attention of the rows of one part, all heads side by side, to `out`.
    pub(super) fn attend_part(
        &self,
        attended: &Attended<'_>,
        part: &Part,
        query: &[f32],
        scratch: &mut Scratch,
        out: &mut [f32],
    ) {
        let keys_of: SmallVec<[(RwLockReadGuard<'_, KeyValues>, &Span); USUAL_PIECES]> = attended
            .group
            .pieces(part.sequence)
            .filter(|(_, span)| span.keys > 0)
            .map(|(share, span)| (self.shared.read(attended.turn, share), span))
            .collect();
        let keys: usize = keys_of.iter().map(|(_, span)| span.keys).sum();
        let query = &query[..part.count * self.hidden()];
        let of = OfPart { attended, part, query, keys: &keys_of };
        scratch.scores.at_least(scratch_len(keys));
        if self.in_integers() {
            self.round_queries(&of, scratch);
            scratch.weights.at_least(int8::weights_len(keys));
        }
        for head in 0..self.heads() {
            if let Some(tables) = &attended.block.relative {
                self.bias(tables, &of, head, scratch);
            }
            if self.in_integers() {
                self.attend_rounded(&of, head, scratch, out);
            } else {
                self.attend_head(&of, head, scratch, out);
            }
        }
    }

    /// What scores are multiplied by.
    fn scale(&self) -> f32 {
        match self.model.architecture.positions {
            Positions::Relative(of) => of.scale(self.dimension()),
            _ => 1.0 / (self.dimension() as f32).sqrt(),
        }
    }

    /// What relative positions add to a head's scores, to `scratch.bias`.
    fn bias(&self, tables: &relative::Tables, of: &OfPart<'_>, head: usize, scratch: &mut Scratch) {
        let (hidden, column) = (self.hidden(), head * self.dimension());
        let Part { count, first, .. } = *of.part;
        let queries = HeadRows { count, first, values: &of.query[column..], stride: hidden };
        let keys = of.keys.iter().map(|(own, span)| HeadRows {
            count: span.keys,
            first: span.first,
            values: &own.keys[span.row * hidden + column..],
            stride: hidden,
        });
        let (rows, bias) = (&mut scratch.relative, &mut scratch.bias);
        tables.bias(&self.model.image, head, queries, keys, rows, bias);
    }

    fn attend_head(&self, of: &OfPart<'_>, head: usize, scratch: &mut Scratch, out: &mut [f32]) {
        let (hidden, column) = (self.hidden(), head * self.dimension());
        let pieces: SmallVec<[Piece<'_>; USUAL_PIECES]> = of
            .keys
            .iter()
            .map(|(own, span)| Piece {
                count: span.keys,
                keys: &own.blocks[span.block * BLOCK * hidden + column * BLOCK..],
                key_stride: BLOCK * hidden,
                values: &own.values[span.row * hidden + column * span.keys..],
            })
            .collect();
        let queries = Queries {
            count: of.part.count,
            first: of.part.first,
            dimension: self.dimension(),
            values: &of.query[column..],
            stride: hidden,
            scale: self.scale(),
            window: of.attended.window,
            bias: of.attended.block.relative.is_some().then_some(&scratch.bias[..]),
        };
        attend(&queries, &pieces, &mut scratch.scores, &mut out[column..], hidden);
    }

    /// Rounds a part's queries, and collects the scales of the keys and values they attend to.
    fn round_queries(&self, of: &OfPart<'_>, scratch: &mut Scratch) {
        let hidden = self.hidden();
        let codes = scratch.codes.at_least(of.query.len());
        let scales = scratch.query_scales.at_least(of.part.count);
        quantise_centred_rows((of.query, hidden), hidden, codes, scales);
        scratch.scales.clear();
        for (own, span) in of.keys {
            let rows = span.row..span.row + span.keys;
            let Rounded { key_scales, value_scales, .. } = &own.rounded;
            scratch.scales.extend(&key_scales[rows.clone()], &value_scales[rows]);
        }
        scratch.scales.finish();
    }

    fn attend_rounded(&self, of: &OfPart<'_>, head: usize, scratch: &mut Scratch, out: &mut [f32]) {
        let (hidden, column) = (self.hidden(), head * self.dimension());
        let pieces: SmallVec<[int8::Piece<'_>; USUAL_PIECES]> =
            of.keys.iter().map(|(own, span)| self.rounded_piece(own, span, head)).collect();
        let queries = int8::Queries {
            count: of.part.count,
            first: of.part.first,
            dimension: self.dimension(),
            codes: &scratch.codes[column..],
            stride: hidden,
            scales: &scratch.query_scales[..of.part.count],
            scale: self.scale(),
            window: of.attended.window,
            bias: of.attended.block.relative.is_some().then_some(&scratch.bias[..]),
        };
        let room = (&mut scratch.scores[..], &mut scratch.weights[..]);
        int8::attend(&queries, &pieces, &scratch.scales, room, &mut out[column..], hidden);
    }

    /// A head's part of a span's keys and values in 8 bits.
    fn rounded_piece<'k>(&self, own: &'k KeyValues, span: &Span, head: usize) -> int8::Piece<'k> {
        let (hidden, heads, dimension) = (self.hidden(), self.heads(), self.dimension());
        let Rounded { blocks, sums, values, .. } = &own.rounded;
        let first = span.block * BLOCK;
        let a_key = int8::packed_values_len(BLOCK, heads, dimension) / BLOCK;
        let of_head = int8::packed_values_len(span.keys, 1, dimension);
        int8::Piece {
            count: span.keys,
            keys: &blocks[first * hidden + head * dimension * BLOCK..],
            key_stride: BLOCK * hidden,
            sums: &sums[first * heads + head * BLOCK..],
            sum_stride: BLOCK * heads,
            values: &values[first * a_key + head * of_head..][..of_head],
        }
    }
}
