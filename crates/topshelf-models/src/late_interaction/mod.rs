//! [`LateInteraction`]: a text to one vector a token, and query against passage by MaxSim.
//!
//! ```text
//! vector = project(state) / norm
//! score  = Σᵢ maxⱼ q[i]·d[j]
//! ```
//!
//! (Khattab and Zaharia, "ColBERT: Efficient and Effective Passage Search via Contextualized Late
//! Interaction over BERT", 2020, sections 3.2 and 3.3.) Queries and passages have markers behind the
//! first special token. A query is cut and padded to a fixed number of tokens with mask tokens,
//! which have vectors of their own ("query expansion"); in most checkpoints they attend to the
//! query and are not attended to. Punctuation of a passage is read and gets no vector.
//!
//! The score is at most the number of query vectors, monotone in relevance, and comparable only
//! between passages of one query. A text's vectors depend on that text alone, to the bit (see
//! [`crate::encoder`]), so they can be stored: encoded beforehand, a hundred passages take less than
//! a millisecond.

mod work;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use topshelf_core::{
    Call, EmbedKind, ModelIdentity, Passage, Query, RerankOutcome, Reranker, Scale, TokenEmbedder,
    TokenMatch, TokenVectors,
};
use topshelf_kernels::l2_normalise;

use self::work::{Embedding, Explaining, Scoring};
use crate::encoder::Output;
use crate::engine::Settings;
use crate::error::{ModelError, Result};
use crate::golden;
use crate::loaded::Loaded;
use crate::projection::Projection;
use crate::queue::{Queue, QueueStats};
use crate::spec::{Expansion, Family, ModelFolder, TokenSettings};
use crate::store::Store;
use crate::tokenise::Assembled;

/// The name of this stage in errors.
const STAGE: &str = "rerank";

/// A late-interaction model in memory. Clones share it.
///
/// ```
/// # use topshelf_models::{LateInteraction, Store};
/// # fn main() -> topshelf_models::Result<()> {
/// # Store::open_default()?.find_or_pull("colbert", &())?;
/// let model = LateInteraction::load("colbert")?;
/// let scores = model.score(
///     "How long does a flea live?",
///     &["An adult flea lives for about a hundred days.", "Dogs sleep for half of the day."],
/// )?;
/// assert!(scores[0] > scores[1]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct LateInteraction {
    model: Arc<Late>,
    queue: Arc<Queue>,
}

/// What the model's thread needs.
struct Late {
    loaded: Loaded,
    projection: Projection,
    settings: TokenSettings,
    query_marker: Option<u32>,
    passage_marker: Option<u32>,
    /// Pads queries, where they are expanded.
    mask: Option<u32>,
    /// Ids that get no vector in passages, ascending.
    skip: Vec<u32>,
}

impl LateInteraction {
    /// The model of that name or alias from the user's store, or of that folder. Nothing is
    /// downloaded.
    ///
    /// # Errors
    ///
    /// Those of [`Store::find`] and of [`Self::from_folder`].
    pub fn load(name: &str) -> Result<Self> {
        Self::from_folder(&Store::open_default()?.find(name)?)
    }

    /// The model in that folder.
    ///
    /// # Errors
    ///
    /// [`ModelError::WrongFamily`] if it is no late-interaction model; [`ModelError::Damaged`],
    /// [`ModelError::Unsupported`] and [`ModelError::Io`] if its files cannot be used;
    /// [`ModelError::Golden`] if it does not give its golden scores;
    /// [`ModelError::Setting`] for an environment variable whose value means nothing.
    pub fn from_folder(folder: &ModelFolder) -> Result<Self> {
        Self::from_folder_with(folder, Settings::from_env()?)
    }

    /// The model in that folder, on that engine, whatever the environment says.
    ///
    /// # Errors
    ///
    /// As [`Self::from_folder`].
    pub fn from_folder_with(folder: &ModelFolder, settings: Settings) -> Result<Self> {
        let loaded = Loaded::open(folder, Family::LateInteraction, settings)?;
        let late = Late::of(folder, loaded)?;
        let queue = late.loaded.queue(Output::Hidden)?;
        let own = Self { model: Arc::new(late), queue: Arc::new(queue) };
        golden::check(folder, own.engine(), |golden| {
            Ok(own.score(&golden.query, &[&golden.passage])?[0])
        })?;
        Ok(own)
    }

    /// The MaxSim of the query with each document.
    ///
    /// # Errors
    ///
    /// [`ModelError::Tokenise`] and [`ModelError::Inference`], the latter also for a vector that
    /// has no direction.
    pub fn score<D: AsRef<str>>(&self, query: &str, documents: &[D]) -> Result<Vec<f32>> {
        let documents = documents.iter().map(|document| document.as_ref().to_owned()).collect();
        let outcomes = self.queue.run_blocking(Scoring::new(&self.model, query, documents))?;
        let scores = outcomes.into_iter().enumerate().map(|(index, outcome)| match outcome {
            Ok(scored) => Ok(scored.score),
            Err(failure) => Err(self.model.loaded.failed(format!("document {index}: {failure}"))),
        });
        scores.collect()
    }

    /// The vectors of each text.
    ///
    /// # Errors
    ///
    /// As [`Self::score`].
    pub fn embed<T: AsRef<str>>(&self, kind: EmbedKind, texts: &[T]) -> Result<Vec<TokenVectors>> {
        self.queue.run_blocking(Embedding::new(&self.model, kind, texts))
    }

    /// What computes the vectors: engine, version, precision, instruction set.
    pub fn engine(&self) -> &str {
        self.model.loaded.encoder.engine()
    }

    /// The length of its vectors.
    pub fn dimension(&self) -> usize {
        self.model.projection.outputs()
    }

    /// What waits for it and what it did so far.
    pub fn queue(&self) -> Arc<QueueStats> {
        Arc::clone(self.queue.stats())
    }
}

impl Late {
    fn of(folder: &ModelFolder, loaded: Loaded) -> Result<Self> {
        let unsupported = |reason: String| {
            let dir = folder.dir.clone();
            ModelError::Unsupported { dir, reason }
        };
        let states = loaded.width(folder, Output::Hidden, None)?;
        let projection = Projection::load(folder, states)?;
        let spec = &loaded.spec;
        if let Some(dimension) = spec.dimension.filter(|own| *own != projection.outputs()) {
            return Err(unsupported(format!(
                "its vectors have {} numbers, and {dimension} are right for it",
                projection.outputs()
            )));
        }
        let settings = spec.tokens.clone().ok_or_else(|| {
            unsupported("how long its queries and passages are is not known".to_owned())
        })?;
        let marker = |token: &str| match token {
            "" => Ok(None),
            token => loaded.tokenizer.id_of(token).map(Some).ok_or_else(|| {
                unsupported(format!("its tokenizer has no token \"{token}\", which is its marker"))
            }),
        };
        let (query_marker, passage_marker) =
            (marker(&spec.query_prefix)?, marker(&spec.passage_prefix)?);
        let mask = match settings.expansion {
            Expansion::None => None,
            _ => Some(mask(&loaded).ok_or_else(|| {
                unsupported("its tokenizer has no mask token to expand queries with".to_owned())
            })?),
        };
        let least = loaded.tokenizer.single_special() + 2;
        if settings.query_tokens < least || settings.passage_tokens < least {
            return Err(unsupported(format!(
                "queries of {} and passages of {} tokens leave no room for text",
                settings.query_tokens, settings.passage_tokens
            )));
        }
        let mut skip: Vec<u32> =
            settings.skip.iter().filter_map(|token| loaded.tokenizer.id_of(token)).collect();
        skip.sort_unstable();
        Ok(Self { loaded, projection, settings, query_marker, passage_marker, mask, skip })
    }

    /// The most tokens of such a text.
    fn limit(&self, kind: EmbedKind) -> usize {
        match kind {
            EmbedKind::Query => self.settings.query_tokens,
            EmbedKind::Passage => self.settings.passage_tokens,
        }
    }

    /// The ids of texts. Only passages come again.
    fn tokenise(&self, kind: EmbedKind, texts: &[String]) -> Vec<Result<Vec<u32>>> {
        match kind {
            EmbedKind::Query => self.loaded.tokenizer.tokenise_all(texts),
            EmbedKind::Passage => self.loaded.tokenizer.tokenise_documents(texts),
        }
    }

    /// The sequence of a text.
    fn read(&self, kind: EmbedKind, ids: &[u32]) -> Assembled {
        let marker = match kind {
            EmbedKind::Query => self.query_marker,
            EmbedKind::Passage => self.passage_marker,
        };
        let limit = self.limit(kind);
        let mut assembled = self.loaded.tokenizer.marked(marker, ids, limit);
        if let (EmbedKind::Query, Some(mask)) = (kind, self.mask) {
            let sequence = &mut assembled.sequence;
            let added = limit.saturating_sub(sequence.len());
            let type_id = sequence.type_ids.last().copied().unwrap_or_default();
            sequence.ids.resize(sequence.ids.len() + added, mask);
            sequence.type_ids.resize(sequence.ids.len(), type_id);
            if self.settings.expansion == Expansion::Unattended {
                sequence.unattended = added;
            }
        }
        assembled
    }

    /// Whether a token of such a text has a vector.
    fn has_vector(&self, kind: EmbedKind, id: u32) -> bool {
        kind == EmbedKind::Query || self.skip.binary_search(&id).is_err()
    }

    /// The vectors of a sequence of these ids from its states; none where one has no direction.
    fn vectors(&self, kind: EmbedKind, ids: &[u32], states: &[f32]) -> Option<TokenVectors> {
        let width = states.len() / ids.len();
        let mut kept = Vec::with_capacity(states.len());
        for (state, &id) in states.chunks_exact(width).zip(ids) {
            if self.has_vector(kind, id) {
                kept.extend_from_slice(state);
            }
        }
        let mut values = self.projection.apply(&kept);
        let dimension = self.projection.outputs();
        for vector in values.chunks_exact_mut(dimension) {
            let norm = l2_normalise(vector);
            if !norm.is_finite() || norm == 0.0 {
                return None;
            }
        }
        Some(TokenVectors { dimension, values, truncated_tokens: 0 })
    }
}

fn mask(loaded: &Loaded) -> Option<u32> {
    ["[MASK]", "<mask>"].iter().find_map(|token| loaded.tokenizer.id_of(token))
}

#[async_trait]
impl Reranker for LateInteraction {
    fn identity(&self) -> &ModelIdentity {
        &self.model.loaded.identity
    }

    fn scale(&self) -> Scale {
        Scale::MaxSim
    }

    fn max_tokens(&self) -> Option<usize> {
        Some(self.model.settings.passage_tokens + self.model.settings.query_tokens)
    }

    fn count_tokens(&self, text: &str) -> usize {
        // As for the cross-encoder: never too few.
        let tokens = self.model.loaded.tokenizer.tokenise(text);
        tokens.map_or_else(|_| text.chars().count(), |ids| ids.len())
    }

    async fn score(
        &self,
        call: &Call,
        query: &Query,
        passages: &[Arc<Passage>],
    ) -> topshelf_core::Result<Vec<RerankOutcome>> {
        let documents = passages.iter().map(|passage| passage.model_text()).collect();
        let scoring = Scoring::new(&self.model, query.text(), documents);
        let outcomes = self.queue.run(call, scoring).await;
        outcomes.map_err(|error| error.into_stage(STAGE))
    }

    async fn explain(
        &self,
        call: &Call,
        query: &Query,
        passage: &Arc<Passage>,
    ) -> topshelf_core::Result<Vec<TokenMatch>> {
        let explaining = Explaining::new(&self.model, query.text(), passage.model_text());
        let matches = self.queue.run(call, explaining).await;
        matches.map_err(|error| error.into_stage(STAGE))
    }
}

#[async_trait]
impl TokenEmbedder for LateInteraction {
    fn identity(&self) -> &ModelIdentity {
        &self.model.loaded.identity
    }

    fn dimension(&self) -> usize {
        self.dimension()
    }

    async fn embed_tokens(
        &self,
        call: &Call,
        kind: EmbedKind,
        texts: &[&str],
    ) -> topshelf_core::Result<Vec<TokenVectors>> {
        let vectors = self.queue.run(call, Embedding::new(&self.model, kind, texts)).await;
        vectors.map_err(|error| error.into_stage(STAGE))
    }
}

impl fmt::Debug for LateInteraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let identity = &self.model.loaded.identity;
        f.debug_struct("LateInteraction").field("identity", identity).finish_non_exhaustive()
    }
}
