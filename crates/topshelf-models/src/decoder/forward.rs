//! The forward pass of a decoder: [`Decoder`].
//!
//! ```text
//! x = table[ids]
//! for each block:  x += Wₒ · attention(rotated q, k, v of norm(x))
//!                  x += W_down · (silu(W_gate · norm x) ⊙ W_up · norm x)
//! logits = W_head · norm(x)                        norm(x) = x / √(mean x² + ε) ⊙ w
//! ```
//!
//! (Touvron et al., "LLaMA", 2023; Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019;
//! Ainslie et al., "GQA", 2023.) A token attends to itself and those before it; what they answered with,
//! keys and values, is kept ([`Cache`]) and read by what comes later. Sequences that begin alike share
//! the cache of their beginning ([`Prefix`]), cut at a multiple of 32 tokens so that all sums are
//! added in the same order whether or not it is shared: **same tokens, same bits**.
//!
//! Rows of all sequences go through a block together, at most [`ROWS`] a thread at once; a thread takes
//! its rows through all of it, and waits twice a block: until all keys are there, and until they are kept.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use topshelf_kernels::attention::{self, BLOCK, OVERREAD, Piece, Queries};
use topshelf_kernels::gemm::{Activation, grouped};

use super::gguf::Gguf;
use super::weights::{Block, Shape, Weights};
use crate::native::rotary::Rotary;
use crate::native::team::{Barrier, Broken, Team};

/// Rows that a thread takes through a block at once: their activations stay in its cache.
const ROWS: usize = 128;

/// A shared beginning is cut at multiples of this: that of blocks of keys.
pub(crate) const SHARED: usize = BLOCK;

/// Keys and values of a block for the tokens of one sequence.
struct LayerCache {
    /// `[blocks of 32 tokens][kv heads][dimension][32]`.
    keys: Vec<f32>,
    /// `[kv heads][capacity][dimension]`, and what is read beyond.
    values: Vec<f32>,
}

/// Keys and values of all blocks.
struct Cache {
    layers: Vec<RwLock<LayerCache>>,
    capacity: usize,
}

impl Cache {
    fn new(shape: &Shape, capacity: usize) -> Self {
        let capacity = capacity.next_multiple_of(BLOCK).max(BLOCK);
        let layer = || {
            RwLock::new(LayerCache {
                keys: vec![0.0; capacity * shape.kv_width()],
                values: vec![0.0; capacity * shape.kv_width() + OVERREAD],
            })
        };
        Self { layers: (0..shape.blocks).map(|_| layer()).collect(), capacity }
    }

    fn read(&self, layer: usize) -> RwLockReadGuard<'_, LayerCache> {
        self.layers[layer].read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps keys and values of one token: `row` has both, side by side.
    fn keep(&self, layer: &mut LayerCache, shape: &Shape, place: usize, row: &[f32]) {
        let (width, dimension) = (shape.kv_width(), shape.dimension);
        let (keys, values) = row.split_at(width);
        let block = &mut layer.keys[place / BLOCK * width * BLOCK..][..width * BLOCK];
        for (key, lanes) in keys.iter().zip(block.chunks_exact_mut(BLOCK)) {
            lanes[place % BLOCK] = *key;
        }
        for (head, values) in values.chunks_exact(dimension).enumerate() {
            let at = (head * self.capacity + place) * dimension;
            layer.values[at..at + dimension].copy_from_slice(values);
        }
    }

    /// The first `count` tokens for one head.
    fn piece<'a>(
        &self,
        layer: &'a LayerCache,
        shape: &Shape,
        head: usize,
        count: usize,
    ) -> Piece<'a> {
        let dimension = shape.dimension;
        let at = head * self.capacity * dimension;
        Piece {
            count,
            keys: &layer.keys[head * dimension * BLOCK..],
            key_stride: shape.kv_width() * BLOCK,
            values: &layer.values[at..at + count * dimension + OVERREAD],
        }
    }
}

/// The beginning of several sequences: a multiple of [`SHARED`] tokens.
#[derive(Clone)]
pub(crate) struct Prefix {
    cache: Arc<Cache>,
    length: usize,
}

/// A sequence in the making.
pub(crate) struct Sequence {
    prefix: Option<Prefix>,
    cache: Cache,
    /// Tokens that are kept, without the prefix.
    length: usize,
}

impl Sequence {
    /// An empty one that will have up to `capacity` tokens beside the prefix.
    pub(crate) fn new(decoder: &Decoder, prefix: Option<&Prefix>, capacity: usize) -> Self {
        Self { prefix: prefix.cloned(), cache: Cache::new(&decoder.shape, capacity), length: 0 }
    }

    /// The sequence as the beginning of others.
    ///
    /// # Panics
    ///
    /// If it has a prefix of its own, or is cut elsewhere than at [`SHARED`].
    pub(crate) fn into_prefix(self) -> Prefix {
        assert!(self.prefix.is_none() && self.length.is_multiple_of(SHARED), "a whole beginning");
        Prefix { cache: Arc::new(self.cache), length: self.length }
    }

    /// Tokens of the prefix.
    fn before(&self) -> usize {
        self.prefix.as_ref().map_or(0, |prefix| prefix.length)
    }
}

/// A model that is ready to run.
pub(crate) struct Decoder {
    pub(crate) shape: Shape,
    gguf: Gguf,
    weights: Weights,
    rotary: Rotary,
    team: Team,
}

/// A token on its way through the model.
#[derive(Clone, Copy)]
struct Row {
    id: u32,
    sequence: usize,
    /// Its place in the sequence's own part.
    place: usize,
    /// Its place from the beginning.
    position: usize,
    /// Which of the wanted logits are its own.
    wanted: Option<usize>,
}

/// What one thread works with.
#[derive(Default)]
struct Member {
    x: Vec<f32>,
    normed: Vec<f32>,
    codes: Vec<u8>,
    scales: Vec<f32>,
    qkv: Vec<f32>,
    heads: Vec<f32>,
    inner: Vec<f32>,
    gate: Vec<f32>,
    scratch: Vec<f32>,
}

impl Decoder {
    /// The model of a file on so many threads. `content` tells one file's content from another's.
    pub(crate) fn open(
        path: &std::path::Path,
        gguf: Gguf,
        content: &str,
        context: usize,
        threads: usize,
    ) -> Result<Self, String> {
        let shape = Shape::of(&gguf)?;
        let weights = Weights::open(path, &gguf, &shape, content)?;
        let rotary = Rotary::new(shape.rotary_base, shape.dimension, context.min(shape.context));
        let team = Team::start(threads.max(1))?;
        Ok(Self { shape, gguf, weights, rotary, team })
    }

    /// Appends tokens to sequences; answers the logits behind each one's last token, or of none where
    /// `is_wanted` is not. `check` is asked between batches whether to go on.
    pub(crate) fn append<E: From<String>>(
        &self,
        sequences: &mut [Sequence],
        tokens: &[&[u32]],
        is_wanted: bool,
        check: impl Fn() -> Result<(), E>,
    ) -> Result<Vec<Vec<f32>>, E> {
        let mut rows = Vec::new();
        let mut wanted = 0;
        for (i, (sequence, tokens)) in sequences.iter().zip(tokens).enumerate() {
            for (j, &id) in tokens.iter().enumerate() {
                let place = sequence.length + j;
                let position = sequence.before() + place;
                let is_last = is_wanted && j + 1 == tokens.len();
                let own = is_last.then_some(wanted);
                wanted += usize::from(is_last);
                rows.push(Row { id, sequence: i, place, position, wanted: own });
            }
        }
        let mut logits = vec![Vec::new(); wanted];
        for rows in rows.chunks(ROWS * self.team.threads()) {
            check()?;
            self.pass(sequences, rows, &mut logits).map_err(E::from)?;
        }
        for (sequence, tokens) in sequences.iter_mut().zip(tokens) {
            sequence.length += tokens.len();
        }
        Ok(logits)
    }

    /// One batch of rows through all blocks.
    fn pass(
        &self,
        sequences: &[Sequence],
        rows: &[Row],
        logits: &mut [Vec<f32>],
    ) -> Result<(), String> {
        let threads = self.team.threads();
        let own = |share: usize| rows.len() * share / threads..rows.len() * (share + 1) / threads;
        let kept: Vec<RwLock<Vec<f32>>> = (0..threads).map(|_| RwLock::default()).collect();
        let last: Vec<RwLock<Vec<f32>>> = (0..threads).map(|_| RwLock::default()).collect();
        let parts: Vec<Mutex<(Vec<f32>, usize, usize)>> =
            (0..threads).map(|_| Mutex::default()).collect();
        let work = |share: usize, barrier: &Barrier| -> Result<(), Broken> {
            let rows_of = |share: usize| &rows[own(share)];
            let mine = rows_of(share);
            let mut member = Member { x: self.embed(mine), ..Member::default() };
            for (i, block) in self.weights.blocks.iter().enumerate() {
                {
                    let mut kept = kept[share].write().unwrap_or_else(PoisonError::into_inner);
                    self.queries_keys_values(block, mine, &mut member, &mut kept);
                }
                barrier.wait()?;
                self.keep(i, sequences, share, &kept, rows_of);
                barrier.wait()?;
                self.attend(i, block, sequences, mine, &mut member);
                self.perceptron(block, &mut member);
            }
            // The head is shared out by words, not by rows: often there is one row only.
            let hidden = self.shape.hidden;
            {
                let mut last = last[share].write().unwrap_or_else(PoisonError::into_inner);
                for (row, x) in mine.iter().zip(member.x.chunks_exact(hidden)) {
                    if row.wanted.is_some() {
                        last.extend_from_slice(x);
                    }
                }
            }
            barrier.wait()?;
            member.x.clear();
            for last in &last {
                let last = last.read().unwrap_or_else(PoisonError::into_inner);
                member.x.extend_from_slice(&last);
            }
            let count = member.x.len() / hidden;
            if count > 0 {
                member.norm(&self.weights.norm, self.shape.epsilon);
                let panels = Weights::share(&self.weights.head, share, threads);
                let rows = grouped::Rows { codes: &member.codes, scales: &member.scales };
                let mut part = parts[share].lock().unwrap_or_else(PoisonError::into_inner);
                let head = &self.weights.head;
                let (first, outputs) =
                    self.weights.apply_panels(head, panels, rows, count, &mut part.0);
                (part.1, part.2) = (first, outputs);
            }
            Ok(())
        };
        self.team.run(work).map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            format!("it panicked: {}", text.unwrap_or("no message"))
        })?;
        let wanted: Vec<usize> = rows.iter().filter_map(|row| row.wanted).collect();
        for part in parts {
            let (values, _, outputs) = part.into_inner().unwrap_or_else(PoisonError::into_inner);
            for (row, values) in wanted.iter().zip(values.chunks_exact(outputs.max(1))) {
                logits[*row].extend_from_slice(values);
            }
        }
        Ok(())
    }

    fn embed(&self, rows: &[Row]) -> Vec<f32> {
        let hidden = self.shape.hidden;
        let mut x = vec![0.0; rows.len() * hidden];
        for (row, x) in rows.iter().zip(x.chunks_exact_mut(hidden)) {
            self.gguf.row("token_embd.weight", row.id as usize, x);
        }
        x
    }

    /// Queries for the member, keys and values for all.
    fn queries_keys_values(
        &self,
        block: &Block,
        rows: &[Row],
        member: &mut Member,
        kept: &mut Vec<f32>,
    ) {
        let Shape { dimension, epsilon, .. } = self.shape;
        let (queries, kv) = (self.shape.query_width(), self.shape.kv_width());
        let width = queries + 2 * kv;
        member.norm(&block.attention_norm, epsilon);
        member.qkv.resize(rows.len() * width, 0.0);
        let operand = grouped::Rows { codes: &member.codes, scales: &member.scales };
        self.weights.apply(&block.qkv, operand, Activation::Identity, &mut member.qkv);
        kept.clear();
        for (row, qkv) in rows.iter().zip(member.qkv.chunks_exact_mut(width)) {
            if let Some((of_queries, of_keys)) = &block.head_norms {
                let (q, k) = qkv[..queries + kv].split_at_mut(queries);
                q.chunks_exact_mut(dimension).for_each(|head| rms_norm(head, of_queries, epsilon));
                k.chunks_exact_mut(dimension).for_each(|head| rms_norm(head, of_keys, epsilon));
            }
            self.rotary.turn(&mut qkv[..queries + kv], row.position);
            kept.extend_from_slice(&qkv[queries..]);
        }
    }

    /// Puts the keys and values of all rows into the caches; each thread does some sequences.
    fn keep<'r>(
        &self,
        layer: usize,
        sequences: &[Sequence],
        share: usize,
        kept: &[RwLock<Vec<f32>>],
        rows_of: impl Fn(usize) -> &'r [Row],
    ) {
        let (width, threads) = (2 * self.shape.kv_width(), kept.len());
        for (of, kept) in kept.iter().enumerate() {
            let kept = kept.read().unwrap_or_else(PoisonError::into_inner);
            let mut rows = rows_of(of).iter().zip(kept.chunks_exact(width)).peekable();
            while let Some((row, _)) = rows.peek().copied() {
                let sequence = row.sequence;
                let cache = &sequences[sequence].cache;
                let is_mine = sequence % threads == share;
                let mut own = is_mine
                    .then(|| cache.layers[layer].write().unwrap_or_else(PoisonError::into_inner));
                while let Some((row, kept)) = rows.next_if(|(row, _)| row.sequence == sequence) {
                    if let Some(own) = own.as_deref_mut() {
                        cache.keep(own, &self.shape, row.place, kept);
                    }
                }
            }
        }
    }

    /// `x += Wₒ · attention`.
    fn attend(
        &self,
        layer: usize,
        block: &Block,
        sequences: &[Sequence],
        rows: &[Row],
        member: &mut Member,
    ) {
        let shape = &self.shape;
        let (dimension, queries) = (shape.dimension, shape.query_width());
        let width = queries + 2 * shape.kv_width();
        // Heads of queries that read the same keys.
        let group = shape.heads / shape.kv_heads;
        member.heads.resize(rows.len() * queries, 0.0);
        let mut done = 0;
        for of_sequence in rows.chunk_by(|a, b| a.sequence == b.sequence) {
            let sequence = &sequences[of_sequence[0].sequence];
            let own = sequence.cache.read(layer);
            let prefix = sequence.prefix.as_ref();
            let before = prefix.map(|prefix| (prefix.cache.read(layer), prefix));
            for (r, row) in of_sequence.iter().enumerate() {
                let r = done + r;
                let count = row.place + 1;
                let scratch_len = attention::scratch_len(sequence.before() + count);
                if member.scratch.len() < scratch_len {
                    member.scratch.resize(scratch_len, 0.0);
                }
                for head in 0..shape.kv_heads {
                    let first = head * group * dimension;
                    let own = sequence.cache.piece(&own, shape, head, count);
                    let values = &member.qkv[r * width + first..][..group * dimension];
                    let asked = Queries {
                        count: group,
                        first: 0,
                        dimension,
                        values,
                        stride: dimension,
                        scale: 1.0 / (dimension as f32).sqrt(),
                        window: None,
                        bias: None,
                    };
                    let out = &mut member.heads[r * queries + first..][..group * dimension];
                    let scratch = &mut member.scratch;
                    match &before {
                        Some((layer, prefix)) => {
                            let shared = prefix.cache.piece(layer, shape, head, prefix.length);
                            attention::attend(&asked, &[shared, own], scratch, out, dimension);
                        }
                        None => attention::attend(&asked, &[own], scratch, out, dimension),
                    }
                }
            }
            done += of_sequence.len();
        }
        member.round_heads(queries);
        member.normed.resize(member.x.len(), 0.0);
        let operand = grouped::Rows { codes: &member.codes, scales: &member.scales };
        let out = &mut member.normed;
        self.weights.apply(&block.attention_output, operand, Activation::Identity, out);
        add(&mut member.x, &member.normed);
    }

    /// `x += W_down · (silu(W_gate · norm x) ⊙ W_up · norm x)`.
    fn perceptron(&self, block: &Block, member: &mut Member) {
        let (hidden, inner) = (self.shape.hidden, self.shape.intermediate);
        let count = member.x.len() / hidden;
        member.norm(&block.perceptron_norm, self.shape.epsilon);
        member.gate.resize(count * inner, 0.0);
        member.inner.resize(count * inner, 0.0);
        let operand = grouped::Rows { codes: &member.codes, scales: &member.scales };
        self.weights.apply(&block.gate, operand, Activation::Silu, &mut member.gate);
        self.weights.apply(&block.up, operand, Activation::Identity, &mut member.inner);
        for (x, gate) in member.inner.iter_mut().zip(&member.gate) {
            *x *= gate;
        }
        round(&member.inner, inner, &mut member.codes, &mut member.scales);
        member.normed.resize(member.x.len(), 0.0);
        let operand = grouped::Rows { codes: &member.codes, scales: &member.scales };
        self.weights.apply(&block.down, operand, Activation::Identity, &mut member.normed);
        add(&mut member.x, &member.normed);
    }
}

impl Member {
    /// Rounds the norm of x for the next product.
    fn norm(&mut self, weight: &[f32], epsilon: f32) {
        self.normed.clear();
        self.normed.extend_from_slice(&self.x);
        for row in self.normed.chunks_exact_mut(weight.len()) {
            rms_norm(row, weight, epsilon);
        }
        round(&self.normed, weight.len(), &mut self.codes, &mut self.scales);
    }

    fn round_heads(&mut self, width: usize) {
        round(&self.heads, width, &mut self.codes, &mut self.scales);
    }
}

fn round(rows: &[f32], width: usize, codes: &mut Vec<u8>, scales: &mut Vec<f32>) {
    let count = rows.len() / width;
    codes.resize(count * grouped::padded_inputs(width), 0);
    scales.resize(count * grouped::groups(width), 0.0);
    grouped::quantise(rows, width, codes, scales);
}

/// `x / √(mean x² + ε) ⊙ weight`, in sixteen partial sums.
fn rms_norm(row: &mut [f32], weight: &[f32], epsilon: f32) {
    let mut sums = [0.0_f32; 16];
    for chunk in row.chunks(16) {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += x * x;
        }
    }
    let mean = sums.iter().sum::<f32>() / row.len() as f32;
    let inverse = 1.0 / (mean + epsilon).sqrt();
    for (x, weight) in row.iter_mut().zip(weight) {
        *x *= inverse * weight;
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
