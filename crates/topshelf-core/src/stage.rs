//! The seams: [`Retriever`], [`Reranker`], [`Embedder`] and [`TokenEmbedder`].
//!
//! They are async, because half of their implementations are network calls and all of them must
//! honour a caller who goes away: dropping a future withdraws its work. The traits need no
//! particular runtime; `pollster::block_on` runs them in a script.
//!
//! Every method that works takes the [`Call`] that it works for: until when the answer is wanted, whether
//! anybody still waits, and the account on which it spends. An `Arc` of a stage is a stage.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::call::Call;
use crate::context::estimate_tokens;
use crate::error::Result;
use crate::passage::{Passage, Query};
use crate::ranking::Ranking;
use crate::score::Scale;

/// Which model it is, to the byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelIdentity {
    /// The name under which it was loaded.
    pub name: String,
    /// A hash over the weights, the tokenizer and the settings that change what it computes.
    /// Two models with the same fingerprint give the same scores and vectors.
    pub fingerprint: String,
    /// What computes it: engine, version, precision, instruction set. Scores of two engines on the
    /// same model differ in their last digits.
    #[serde(default)]
    pub engine: String,
}

/// The first stage: finds candidates.
#[async_trait]
pub trait Retriever: Send + Sync {
    /// The stage's name in signals and reports: `bm25`, `dense`.
    fn name(&self) -> &str;

    /// The best `depth` passages for the query, fewer if fewer match at all. Passages that do
    /// not satisfy the query's filter do not take part.
    ///
    /// # Errors
    ///
    /// [`crate::Error::NothingToLookUp`] if the query leaves this retriever nothing to search
    /// for, [`crate::Error::Stage`] for what fails inside it.
    async fn retrieve(&self, call: &Call, query: &Query, depth: usize) -> Result<Ranking>;
}

/// A score from a reranker.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RerankScore {
    /// On the reranker's scale.
    pub score: f32,
    /// Tokens of the passage that did not fit into the model's window and were not read.
    pub truncated_tokens: usize,
    /// Tokens of the query that were not read, which happens only to very long queries.
    pub query_truncated_tokens: usize,
    /// Whether it was known and nothing had to be computed for it.
    pub cached: bool,
    /// The bytes of the passage's text, from and to, on which the score rests, where that is not all
    /// of it.
    pub span: Option<(usize, usize)>,
}

impl RerankScore {
    /// A score of a passage that was read whole.
    pub fn new(score: f32) -> Self {
        Self { score, truncated_tokens: 0, query_truncated_tokens: 0, cached: false, span: None }
    }
}

/// Why one passage has no score while its neighbours have theirs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct PassageFailure {
    /// What went wrong with this passage.
    pub reason: String,
}

/// One passage's score, or why it has none.
pub type RerankOutcome = std::result::Result<RerankScore, PassageFailure>;

/// How a reranker may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Grain {
    /// Pair by pair: a part of the passages takes a part of the time.
    #[default]
    Pair,
    /// Scores are of pairs, but a call takes what it takes, however few passages are in it: a service.
    Call,
    /// A score says something beside those of the same call only, as an order of all passages does: it
    /// cannot be kept, and there is none of a part of a passage.
    List,
}

/// The second stage: scores (query, passage) pairs. It does not sort; only [`Ranking`] does.
#[async_trait]
pub trait Reranker: Send + Sync {
    /// Which model scores.
    fn identity(&self) -> &ModelIdentity;

    /// The scale of the scores.
    fn scale(&self) -> Scale;

    /// How it may be asked.
    fn grain(&self) -> Grain {
        Grain::default()
    }

    /// The tokens that it reads of a pair, query and markers included; `None` where there is no
    /// limit, or none that is known.
    fn max_tokens(&self) -> Option<usize> {
        None
    }

    /// The number of tokens of `text` without special tokens; an estimate unless the reranker knows.
    fn count_tokens(&self, text: &str) -> usize {
        estimate_tokens(text)
    }

    /// One outcome for each passage, in the order of the passages. What is paid by use is spent on the
    /// call; scores that were known spend nothing.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Stage`] if nothing could be scored; a single bad passage fails alone.
    async fn score(
        &self,
        call: &Call,
        query: &Query,
        passages: &[Arc<Passage>],
    ) -> Result<Vec<RerankOutcome>>;

    /// Which part of the passage answered which part of the query, where the score is made of such;
    /// empty where it is not. It costs about as much as scoring the passage.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Stage`] if the passage cannot be read.
    async fn explain(
        &self,
        call: &Call,
        query: &Query,
        passage: &Arc<Passage>,
    ) -> Result<Vec<TokenMatch>> {
        let _ = (call, query, passage);
        Ok(Vec::new())
    }
}

/// A token of the query and the token of the passage that answers it best.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenMatch {
    /// The query's token, as the model's vocabulary writes it.
    pub query: String,
    /// The passage's token.
    pub passage: String,
    /// The bytes of the passage's [`model_text`](Passage::model_text) that this token stands for;
    /// empty for the model's own markers.
    pub span: Range<usize>,
    /// Their inner product: what it adds to the score.
    pub similarity: f32,
}

/// Queries and passages may be encoded differently (instructions, prefixes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EmbedKind {
    /// What is asked.
    Query,
    /// What is searched.
    Passage,
}

/// A bi-encoder: text to a vector of unit length.
#[async_trait]
pub trait Embedder: Send + Sync {
    /// Which model embeds.
    fn identity(&self) -> &ModelIdentity;

    /// The length of its vectors.
    fn dimension(&self) -> usize;

    /// The number of tokens the model reads of one text, special tokens included.
    fn max_tokens(&self) -> usize;

    /// The number of tokens of `text` without special tokens.
    fn count_tokens(&self, text: &str) -> usize;

    /// One vector of [`Self::dimension`] numbers and L2 norm 1 for each text. A text that is
    /// longer than the model's window is read up to there.
    ///
    /// # Errors
    ///
    /// [`crate::Error::NothingToLookUp`] for a query of which the model knows no token,
    /// [`crate::Error::Stage`] for what fails inside the model.
    async fn embed(&self, call: &Call, kind: EmbedKind, texts: &[&str]) -> Result<Vec<Vec<f32>>>;
}

/// The vectors of one text's tokens.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TokenVectors {
    /// The length of each.
    pub dimension: usize,
    /// Vector after vector, each of L2 norm 1.
    pub values: Vec<f32>,
    /// Tokens of the text that did not fit into the model's window and have none.
    pub truncated_tokens: usize,
}

impl TokenVectors {
    /// The number of vectors.
    pub fn count(&self) -> usize {
        self.values.len().checked_div(self.dimension).unwrap_or_default()
    }
}

/// A late-interaction model: text to a vector for each token.
#[async_trait]
pub trait TokenEmbedder: Send + Sync {
    /// Which model embeds.
    fn identity(&self) -> &ModelIdentity;

    /// The length of its vectors.
    fn dimension(&self) -> usize;

    /// The vectors of each text.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Stage`] for what fails inside the model.
    async fn embed_tokens(
        &self,
        call: &Call,
        kind: EmbedKind,
        texts: &[&str],
    ) -> Result<Vec<TokenVectors>>;
}

#[async_trait]
impl<R: Retriever + ?Sized> Retriever for Arc<R> {
    fn name(&self) -> &str {
        self.as_ref().name()
    }

    async fn retrieve(&self, call: &Call, query: &Query, depth: usize) -> Result<Ranking> {
        self.as_ref().retrieve(call, query, depth).await
    }
}

#[async_trait]
impl<R: Reranker + ?Sized> Reranker for Arc<R> {
    fn identity(&self) -> &ModelIdentity {
        self.as_ref().identity()
    }

    fn scale(&self) -> Scale {
        self.as_ref().scale()
    }

    fn grain(&self) -> Grain {
        self.as_ref().grain()
    }

    fn max_tokens(&self) -> Option<usize> {
        self.as_ref().max_tokens()
    }

    fn count_tokens(&self, text: &str) -> usize {
        self.as_ref().count_tokens(text)
    }

    async fn score(
        &self,
        call: &Call,
        query: &Query,
        passages: &[Arc<Passage>],
    ) -> Result<Vec<RerankOutcome>> {
        self.as_ref().score(call, query, passages).await
    }

    async fn explain(
        &self,
        call: &Call,
        query: &Query,
        passage: &Arc<Passage>,
    ) -> Result<Vec<TokenMatch>> {
        self.as_ref().explain(call, query, passage).await
    }
}

#[async_trait]
impl<E: Embedder + ?Sized> Embedder for Arc<E> {
    fn identity(&self) -> &ModelIdentity {
        self.as_ref().identity()
    }

    fn dimension(&self) -> usize {
        self.as_ref().dimension()
    }

    fn max_tokens(&self) -> usize {
        self.as_ref().max_tokens()
    }

    fn count_tokens(&self, text: &str) -> usize {
        self.as_ref().count_tokens(text)
    }

    async fn embed(&self, call: &Call, kind: EmbedKind, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        self.as_ref().embed(call, kind, texts).await
    }
}

#[async_trait]
impl<E: TokenEmbedder + ?Sized> TokenEmbedder for Arc<E> {
    fn identity(&self) -> &ModelIdentity {
        self.as_ref().identity()
    }

    fn dimension(&self) -> usize {
        self.as_ref().dimension()
    }

    async fn embed_tokens(
        &self,
        call: &Call,
        kind: EmbedKind,
        texts: &[&str],
    ) -> Result<Vec<TokenVectors>> {
        self.as_ref().embed_tokens(call, kind, texts).await
    }
}
