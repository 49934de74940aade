//! The seam between text and engine: [`Encoder`].
//!
//! An encoder takes sequences of token ids and answers numbers. It knows nothing of queries,
//! passages, prompts or pooling, and nothing in its signature speaks of a file format or of
//! padding: a batch is *ragged*, all tokens of all sequences end to end with the places where
//! each begins, so an engine that never pads can stand behind it as well as one that must.
//!
//! **Same sequence, same bits.** What an encoder answers for a sequence depends on that sequence
//! alone: not on the others in its batch, not on their order, not on the number of threads.
//! Caches of scores and every test of this crate stand on that.
//!
//! | [`Output`] | shape of the answer, row-major f32 |
//! | --- | --- |
//! | `Logits` | `[sequences, width]` |
//! | `Cls` | `[sequences, width]`: the last hidden state of each first token |
//! | `Hidden` | `[tokens, width]`: the last hidden state of every token, sequences end to end |
//!
//! The implementations are [`crate::native`] and, over ONNX files, `crate::onnx`; which sequences
//! run together is decided in `src/batch.rs`.

use crate::error::Result;

/// One sequence as the model reads it, special tokens included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sequence {
    /// Token ids.
    pub ids: Vec<u32>,
    /// For each token the segment it belongs to, as BERT's `token_type_ids`.
    pub type_ids: Vec<u32>,
    /// So many tokens at the end attend to the others and are not attended to, as the mask
    /// tokens by which late interaction expands a query; fewer than all.
    pub unattended: usize,
}

impl Sequence {
    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no token at all.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// Sequences of different lengths, end to end and without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBatch {
    ids: Vec<u32>,
    type_ids: Vec<u32>,
    cu_seqlens: Vec<usize>,
    attended: Vec<usize>,
}

impl Default for TokenBatch {
    fn default() -> Self {
        Self { ids: Vec::new(), type_ids: Vec::new(), cu_seqlens: vec![0], attended: Vec::new() }
    }
}

impl TokenBatch {
    /// Appends a sequence.
    ///
    /// # Panics
    ///
    /// If the sequence has not as many type ids as ids, or has tokens of which none is attended to.
    pub fn push(&mut self, sequence: &Sequence) {
        assert_eq!(sequence.ids.len(), sequence.type_ids.len(), "one type id for each token");
        let attended = sequence.ids.len().checked_sub(sequence.unattended);
        let attended = attended.filter(|&attended| attended > 0 || sequence.is_empty());
        self.attended.push(attended.expect("a token that is attended to"));
        self.ids.extend_from_slice(&sequence.ids);
        self.type_ids.extend_from_slice(&sequence.type_ids);
        self.cu_seqlens.push(self.ids.len());
    }

    /// The number of sequences.
    pub fn len(&self) -> usize {
        self.cu_seqlens.len() - 1
    }

    /// Whether there are no sequences.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ids of all sequences.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The type ids of all sequences.
    pub fn type_ids(&self) -> &[u32] {
        &self.type_ids
    }

    /// Where sequences begin and end: sequence `i` is `cu_seqlens[i]..cu_seqlens[i + 1]`.
    pub fn cu_seqlens(&self) -> &[usize] {
        &self.cu_seqlens
    }

    /// For each sequence how many of its tokens, from the first, are attended to.
    pub fn attended(&self) -> &[usize] {
        &self.attended
    }

    /// Ids and type ids of sequence `index`.
    ///
    /// # Panics
    ///
    /// If there is no such sequence.
    pub fn sequence(&self, index: usize) -> (&[u32], &[u32]) {
        let range = self.cu_seqlens[index]..self.cu_seqlens[index + 1];
        (&self.ids[range.clone()], &self.type_ids[range])
    }
}

impl<'a> FromIterator<&'a Sequence> for TokenBatch {
    fn from_iter<I: IntoIterator<Item = &'a Sequence>>(sequences: I) -> Self {
        let mut batch = Self::default();
        for sequence in sequences {
            batch.push(sequence);
        }
        batch
    }
}

/// What is wanted of an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Output {
    /// The classification head's output, one row a sequence.
    Logits,
    /// The last hidden state of each sequence's first token.
    Cls,
    /// The last hidden state of every token.
    Hidden,
}

/// An engine with a model in it.
pub trait Encoder: Send + Sync {
    /// The engine's name and version. Scores of two engines on one file differ in their last
    /// digits, so what is recorded of a score names the engine.
    fn engine(&self) -> &str;

    /// The length of a row of this output, `None` if the model does not offer it.
    fn width(&self, want: Output) -> Option<usize>;

    /// The number of tokens that make a call of [`Self::encode`] worth its overhead. More than
    /// that in one call gains nothing and delays the caller who wants to stop.
    fn token_budget(&self) -> usize;

    /// Runs the model; the module says what shapes come back. Sequences should come longest
    /// first where there are several: they are shared out in this order.
    ///
    /// # Errors
    ///
    /// [`crate::ModelError::Inference`] if the engine fails, if the model does not offer the
    /// output, or for a sequence without tokens.
    fn encode(&self, batch: &TokenBatch, want: Output) -> Result<Vec<f32>>;
}
