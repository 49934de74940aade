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

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use topshelf_core::{
    EmbedKind, ModelIdentity, Passage, PassageFailure, Query, RerankOutcome, RerankScore, Reranker,
    Scale, TokenEmbedder, TokenMatch, TokenVectors,
};
use topshelf_kernels::attention::{pack_keys, packed_keys_len};
use topshelf_kernels::{l2_normalise, max_sim};

use crate::batch;
use crate::encoder::{Output, Sequence};
use crate::engine::Settings;
use crate::error::{ModelError, Result};
use crate::golden;
use crate::loaded::Loaded;
use crate::projection::Projection;
use crate::spec::{Expansion, Family, ModelFolder, TokenSettings};
use crate::store::Store;
use crate::worker::{Ticket, Worker};

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
    worker: Arc<Worker>,
}

/// What the worker's thread needs.
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

/// A text's tokens as the model reads them.
struct Read {
    sequence: Sequence,
    truncated_tokens: usize,
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
        let worker = Worker::start(&late.loaded.spec.name)?;
        let own = Self { model: Arc::new(late), worker: Arc::new(worker) };
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
        let model = Arc::clone(&self.model);
        let query = query.to_owned();
        let documents: Vec<String> =
            documents.iter().map(|document| document.as_ref().to_owned()).collect();
        let outcomes =
            self.worker.run_blocking(move |ticket| score(&model, &query, &documents, ticket))?;
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
        let texts = texts.iter().map(|text| text.as_ref().to_owned()).collect();
        self.worker.run_blocking(self.work(kind, texts))
    }

    /// What computes the vectors: engine, version, precision, instruction set.
    pub fn engine(&self) -> &str {
        self.model.loaded.encoder.engine()
    }

    /// The length of its vectors.
    pub fn dimension(&self) -> usize {
        self.model.projection.outputs()
    }

    fn work(
        &self,
        kind: EmbedKind,
        texts: Vec<String>,
    ) -> impl FnOnce(&Ticket<'_>) -> Result<Vec<TokenVectors>> + Send + use<> {
        let model = Arc::clone(&self.model);
        move |ticket| {
            let mut all = vec![TokenVectors::default(); texts.len()];
            let failures = embed(&model, kind, &texts, ticket, |index, vectors| {
                all[index] = vectors;
            })?;
            match failures.into_iter().next() {
                Some((index, reason)) => {
                    Err(model.loaded.failed(format!("text {index}: {reason}")))
                }
                None => Ok(all),
            }
        }
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

    /// The sequence of a text.
    fn read(&self, kind: EmbedKind, ids: &[u32]) -> Read {
        let (marker, limit) = match kind {
            EmbedKind::Query => (self.query_marker, self.settings.query_tokens),
            EmbedKind::Passage => (self.passage_marker, self.settings.passage_tokens),
        };
        let assembled = self.loaded.tokenizer.marked(marker, ids, limit);
        let mut sequence = assembled.sequence;
        if let (EmbedKind::Query, Some(mask)) = (kind, self.mask) {
            let added = limit.saturating_sub(sequence.len());
            let type_id = sequence.type_ids.last().copied().unwrap_or_default();
            sequence.ids.resize(sequence.ids.len() + added, mask);
            sequence.type_ids.resize(sequence.ids.len(), type_id);
            if self.settings.expansion == Expansion::Unattended {
                sequence.unattended = added;
            }
        }
        Read { sequence, truncated_tokens: assembled.truncated_tokens }
    }

    /// Whether a token of such a text has a vector.
    fn has_vector(&self, kind: EmbedKind, id: u32) -> bool {
        kind == EmbedKind::Query || self.skip.binary_search(&id).is_err()
    }

    /// The vectors of a sequence from its states; none where one has no direction.
    fn vectors(&self, kind: EmbedKind, read: &Read, states: &[f32]) -> Option<TokenVectors> {
        let width = states.len() / read.sequence.len();
        let mut kept = Vec::with_capacity(states.len());
        for (state, &id) in states.chunks_exact(width).zip(&read.sequence.ids) {
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
        Some(TokenVectors { dimension, values, truncated_tokens: read.truncated_tokens })
    }
}

fn mask(loaded: &Loaded) -> Option<u32> {
    ["[MASK]", "<mask>"].iter().find_map(|token| loaded.tokenizer.id_of(token))
}

/// Embeds all texts on the worker's thread and hands over the vectors of each as they come. The
/// answer is which texts failed, and why.
fn embed(
    model: &Late,
    kind: EmbedKind,
    texts: &[String],
    ticket: &Ticket<'_>,
    mut each: impl FnMut(usize, TokenVectors),
) -> Result<Vec<(usize, String)>> {
    let tokenizer = &model.loaded.tokenizer;
    let ids = match kind {
        EmbedKind::Query => tokenizer.tokenise_all(texts),
        EmbedKind::Passage => tokenizer.tokenise_documents(texts),
    };
    let mut failures = Vec::new();
    let (mut reads, mut of_read) = (Vec::new(), Vec::new());
    for (index, ids) in ids.into_iter().enumerate() {
        match ids {
            Ok(ids) => {
                reads.push(model.read(kind, &ids));
                of_read.push(index);
            }
            Err(error) => failures.push((index, error.to_string())),
        }
    }
    let sequences: Vec<Sequence> =
        reads.iter_mut().map(|read| std::mem::take(&mut read.sequence)).collect();
    let encoder = model.loaded.encoder.as_ref();
    batch::encode_all(encoder, &sequences, Output::Hidden, ticket, |place, states| {
        let read = Read {
            sequence: sequences[place].clone(),
            truncated_tokens: reads[place].truncated_tokens,
        };
        match model.vectors(kind, &read, states) {
            Some(vectors) => each(of_read[place], vectors),
            None => failures.push((of_read[place], "it has a vector without a direction".into())),
        }
    })?;
    Ok(failures)
}

/// Scores all documents on the worker's thread. One that cannot be read fails alone.
fn score(
    model: &Late,
    query: &str,
    documents: &[String],
    ticket: &Ticket<'_>,
) -> Result<Vec<RerankOutcome>> {
    let mut queries = TokenVectors::default();
    let failed = embed(model, EmbedKind::Query, &[query.to_owned()], ticket, |_, vectors| {
        queries = vectors;
    })?;
    if let Some((_, reason)) = failed.into_iter().next() {
        return Err(model.loaded.failed(format!("the query: {reason}")));
    }
    let unread = || Err(PassageFailure { reason: "it was not read".to_owned() });
    let mut outcomes: Vec<RerankOutcome> = documents.iter().map(|_| unread()).collect();
    let (mut packed, mut best) = (Vec::new(), vec![0.0; queries.count()]);
    let failures = embed(model, EmbedKind::Passage, documents, ticket, |index, vectors| {
        let (count, dimension) = (vectors.count(), vectors.dimension);
        packed.resize(packed_keys_len(count, dimension), 0.0);
        pack_keys(&vectors.values, dimension, count, dimension, &mut packed);
        outcomes[index] = outcome(
            max_sim(&queries.values, dimension, &packed, count, &mut best),
            vectors.truncated_tokens,
            queries.truncated_tokens,
        );
    })?;
    for (index, reason) in failures {
        outcomes[index] = Err(PassageFailure { reason });
    }
    Ok(outcomes)
}

fn outcome(score: f32, truncated_tokens: usize, query_truncated_tokens: usize) -> RerankOutcome {
    if !score.is_finite() {
        let reason = "it has no token with a vector".to_owned();
        return Err(PassageFailure { reason });
    }
    Ok(RerankScore { truncated_tokens, query_truncated_tokens, ..RerankScore::new(score) })
}

/// For each query vector the passage's vector that answers it best, on the worker's thread.
fn explain(
    model: &Late,
    query: &str,
    passage: &str,
    ticket: &Ticket<'_>,
) -> Result<Vec<TokenMatch>> {
    let tokenizer = &model.loaded.tokenizer;
    let mut vectors = [TokenVectors::default(), TokenVectors::default()];
    let kinds = [(EmbedKind::Query, query), (EmbedKind::Passage, passage)];
    for ((kind, text), own) in kinds.into_iter().zip(&mut vectors) {
        let failed = embed(model, kind, &[text.to_owned()], ticket, |_, found| *own = found)?;
        if let Some((_, reason)) = failed.into_iter().next() {
            return Err(model.loaded.failed(reason));
        }
    }
    let [queries, passages] = vectors;
    let of_query = model.read(EmbedKind::Query, &tokenizer.tokenise(query)?).sequence.ids;
    let of_passage = model.read(EmbedKind::Passage, &tokenizer.tokenise(passage)?);
    let mut spans = tokenizer.spans(passage)?;
    spans.truncate(spans.len() - of_passage.truncated_tokens);
    let before = tokenizer.single_start() + usize::from(model.passage_marker.is_some());
    let kept: Vec<usize> = (0..of_passage.sequence.len())
        .filter(|&place| model.has_vector(EmbedKind::Passage, of_passage.sequence.ids[place]))
        .collect();
    let matches =
        queries.values.chunks_exact(queries.dimension).zip(of_query).filter_map(|(vector, id)| {
            let similar = |other: &[f32]| vector.iter().zip(other).map(|(q, d)| q * d).sum::<f32>();
            let all = passages.values.chunks_exact(passages.dimension).map(similar).enumerate();
            let (best, similarity) = all.max_by(|a, b| a.1.total_cmp(&b.1))?;
            let place = kept[best];
            let span = place.checked_sub(before).and_then(|place| spans.get(place).cloned());
            Some(TokenMatch {
                query: tokenizer.token(id),
                passage: tokenizer.token(of_passage.sequence.ids[place]),
                span: span.unwrap_or_default(),
                similarity,
            })
        });
    Ok(matches.collect())
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
        query: &Query,
        passages: &[Arc<Passage>],
    ) -> topshelf_core::Result<Vec<RerankOutcome>> {
        let model = Arc::clone(&self.model);
        let query = query.text().to_owned();
        let documents: Vec<String> = passages.iter().map(|passage| passage.model_text()).collect();
        let work = move |ticket: &Ticket<'_>| score(&model, &query, &documents, ticket);
        self.worker.run(work).await.map_err(|error| error.into_stage(STAGE))
    }

    async fn explain(
        &self,
        query: &Query,
        passage: &Arc<Passage>,
    ) -> topshelf_core::Result<Vec<TokenMatch>> {
        let model = Arc::clone(&self.model);
        let (query, passage) = (query.text().to_owned(), passage.model_text());
        let work = move |ticket: &Ticket<'_>| explain(&model, &query, &passage, ticket);
        self.worker.run(work).await.map_err(|error| error.into_stage(STAGE))
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
        kind: EmbedKind,
        texts: &[&str],
    ) -> topshelf_core::Result<Vec<TokenVectors>> {
        let work = self.work(kind, texts.iter().map(|&text| text.to_owned()).collect());
        self.worker.run(work).await.map_err(|error| error.into_stage(STAGE))
    }
}

impl fmt::Debug for LateInteraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let identity = &self.model.loaded.identity;
        f.debug_struct("LateInteraction").field("identity", identity).finish_non_exhaustive()
    }
}
