//! [`BiEncoder`]: a text to one vector of length 1, so that the inner product of two is their
//! cosine.
//!
//! ```text
//! vector = pool(hidden states of prefix + text) / norm
//! ```
//!
//! `pool` is the state of the first token or the mean over all tokens (Reimers and Gurevych,
//! "Sentence-BERT", 2019, section 3), as the model was trained; queries and passages have their
//! own prefixes. A text's vector depends on that text alone, to the bit (see
//! [`crate::encoder`]).

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use topshelf_core::{Call, EmbedKind, Embedder, Error as CoreError, ModelIdentity, Query};

use crate::encoder::{Output, Sequence};
use crate::engine::Settings;
use crate::error::{ModelError, Result};
use crate::golden;
use crate::loaded::Loaded;
use crate::portions::Portions;
use crate::queue::{Piecework, Queue, QueueStats, Sequences};
use crate::spec::{Family, ModelFolder, Pooling};
use crate::store::Store;

/// The name of this stage in errors.
const STAGE: &str = "dense";

/// A bi-encoder in memory. Clones share it.
///
/// ```
/// # use topshelf_models::{BiEncoder, Store};
/// # fn main() -> topshelf_models::Result<()> {
/// # Store::open_default()?.find_or_pull("BAAI/bge-small-en-v1.5", &())?;
/// let model = BiEncoder::load("BAAI/bge-small-en-v1.5")?;
/// let query = &model.embed_queries(&["How long does a flea live?"])?[0];
/// let passages = model.embed_passages(&[
///     "An adult flea lives for about a hundred days.",
///     "Dogs sleep for half of the day.",
/// ])?;
/// let cosine = |passage: &[f32]| query.iter().zip(passage).map(|(q, p)| q * p).sum::<f32>();
/// assert!(cosine(&passages[0]) > cosine(&passages[1]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct BiEncoder {
    model: Arc<Loaded>,
    queue: Arc<Queue>,
    dimension: usize,
}

impl BiEncoder {
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
    /// [`ModelError::WrongFamily`] if it is no bi-encoder; [`ModelError::Damaged`],
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
        let model = Loaded::open(folder, Family::BiEncoder, settings)?;
        let dimension = model.width(folder, Output::Hidden, folder.spec.dimension)?;
        let queue = model.queue(wanted(&model))?;
        let own = Self { model: Arc::new(model), queue: Arc::new(queue), dimension };
        golden::check(folder, own.model.encoder.engine(), |golden| {
            let query = own.embed_queries(&[&golden.query])?;
            let passage = own.embed_passages(&[&golden.passage])?;
            Ok(query[0].iter().zip(&passage[0]).map(|(q, p)| q * p).sum())
        })?;
        Ok(own)
    }

    /// The vector of each query, with the model's query prefix.
    ///
    /// # Errors
    ///
    /// [`ModelError::UnknownTokens`] for a query of which the model knows no token;
    /// [`ModelError::Tokenise`] and [`ModelError::Inference`], the latter also for a vector that
    /// has no direction.
    pub fn embed_queries<T: AsRef<str>>(&self, queries: &[T]) -> Result<Vec<Vec<f32>>> {
        self.embed_blocking(EmbedKind::Query, queries)
    }

    /// The vector of each passage, with the model's passage prefix. Of a text that is longer
    /// than the window the beginning is read.
    ///
    /// # Errors
    ///
    /// [`ModelError::Tokenise`] and [`ModelError::Inference`].
    pub fn embed_passages<T: AsRef<str>>(&self, passages: &[T]) -> Result<Vec<Vec<f32>>> {
        self.embed_blocking(EmbedKind::Passage, passages)
    }

    /// What computes the vectors: engine, version, precision, instruction set.
    pub fn engine(&self) -> &str {
        self.model.encoder.engine()
    }

    /// What waits for it and what it did so far.
    pub fn queue(&self) -> Arc<QueueStats> {
        Arc::clone(self.queue.stats())
    }

    fn embed_blocking<T: AsRef<str>>(&self, kind: EmbedKind, texts: &[T]) -> Result<Vec<Vec<f32>>> {
        self.queue.run_blocking(Embedding::new(&self.model, kind, texts))
    }
}

/// What the model's pooling needs.
fn wanted(model: &Loaded) -> Output {
    match model.spec.pooling {
        Some(Pooling::Mean) => Output::Hidden,
        Some(Pooling::Cls) | None => Output::Cls,
    }
}

/// Texts on their way to vectors.
struct Embedding {
    model: Arc<Loaded>,
    /// As they were given, where it matters whether the model knows any word of them.
    queries: Vec<String>,
    prefixed: Portions,
    vectors: Vec<Vec<f32>>,
}

impl Embedding {
    fn new<T: AsRef<str>>(model: &Arc<Loaded>, kind: EmbedKind, texts: &[T]) -> Self {
        let (prefix, queries) = match kind {
            EmbedKind::Query => (&model.spec.query_prefix, texts),
            EmbedKind::Passage => (&model.spec.passage_prefix, &[][..]),
        };
        let prefixed = texts.iter().map(|text| format!("{prefix}{}", text.as_ref())).collect();
        Self {
            model: Arc::clone(model),
            queries: queries.iter().map(|text| text.as_ref().to_owned()).collect(),
            prefixed: Portions::of(prefixed),
            vectors: vec![Vec::new(); texts.len()],
        }
    }
}

impl Piecework for Embedding {
    type Answer = Vec<Vec<f32>>;

    fn guess(&self) -> usize {
        let texts = self.prefixed.texts().iter();
        texts.map(|text| self.model.tokenizer.guess(text.len())).sum()
    }

    fn read(&mut self, room: &mut usize) -> Result<Option<Sequences>> {
        let Loaded { tokenizer, spec, .. } = self.model.as_ref();
        if !self.prefixed.read(room, |texts| tokenizer.tokenise_all(texts)) {
            return Ok(None);
        }
        for text in &self.queries {
            if tokenizer.knows_none(&tokenizer.tokenise(text)?) {
                let (name, language) = (spec.name.clone(), spec.language.clone());
                return Err(ModelError::UnknownTokens { name, language });
            }
        }
        let ids = self.prefixed.take_ids().into_iter();
        let all = ids.map(|ids| Ok(tokenizer.single(&ids?).sequence)).collect::<Result<_>>()?;
        Ok(Some(Sequences { all, leading: 0 }))
    }

    fn take(&mut self, index: usize, sequence: &Sequence, rows: &[f32]) -> Result<()> {
        let vector = unit(&sum_of_rows(rows, sequence.len(), wanted(&self.model)));
        if vector.iter().any(|value| !value.is_finite()) {
            let reason = format!("text {index} has a vector without a direction");
            return Err(self.model.failed(reason));
        }
        self.vectors[index] = vector;
        Ok(())
    }

    fn finish(self) -> Result<Vec<Vec<f32>>> {
        Ok(self.vectors)
    }
}

/// Rows added up: the direction of their mean. One row is itself.
fn sum_of_rows(rows: &[f32], tokens: usize, want: Output) -> Vec<f32> {
    let count = if want == Output::Hidden { tokens } else { 1 };
    let mut sum = vec![0.0; rows.len() / count];
    for row in rows.chunks_exact(sum.len()) {
        for (total, value) in sum.iter_mut().zip(row) {
            *total += value;
        }
    }
    sum
}

/// The vector of length 1 in this direction; not finite if there is none. The squares are added
/// up in f64, so the length is right to the last bits of f32.
fn unit(vector: &[f32]) -> Vec<f32> {
    let norm = vector.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
    vector.iter().map(|&value| (f64::from(value) / norm) as f32).collect()
}

#[async_trait]
impl Embedder for BiEncoder {
    fn identity(&self) -> &ModelIdentity {
        &self.model.identity
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn max_tokens(&self) -> usize {
        self.model.tokenizer.max_tokens()
    }

    fn count_tokens(&self, text: &str) -> usize {
        // The tokenizers in use cannot fail on text; one that did would count each character,
        // which is never too few.
        self.model.tokenizer.tokenise(text).map_or_else(|_| text.chars().count(), |ids| ids.len())
    }

    async fn embed(
        &self,
        call: &Call,
        kind: EmbedKind,
        texts: &[&str],
    ) -> topshelf_core::Result<Vec<Vec<f32>>> {
        let embedding = Embedding::new(&self.model, kind, texts);
        self.queue.run(call, embedding).await.map_err(|error| match error {
            ModelError::UnknownTokens { .. } => CoreError::NothingToLookUp {
                retriever: STAGE.to_owned(),
                query: shown(texts),
                reason: error.to_string(),
            },
            other => other.into_stage(STAGE),
        })
    }
}

/// The queries of a failed call, as far as a message has room.
fn shown(texts: &[&str]) -> String {
    Query::new(texts.join(" ")).map_or_else(|_| String::new(), |query| query.shortened())
}

impl fmt::Debug for BiEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BiEncoder").field("identity", &self.model.identity).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_over_tokens_and_the_length_is_one() {
        let rows = [1.0, 0.0, 3.0, 4.0, -1.0, 4.0];
        assert_eq!(sum_of_rows(&rows, 3, Output::Hidden), [3.0, 8.0]);
        assert_eq!(sum_of_rows(&[3.0, 4.0], 7, Output::Cls), [3.0, 4.0]);
        assert_eq!(unit(&[3.0, 4.0]), [0.6, 0.8]);
        assert!(unit(&[0.0, 0.0]).iter().all(|value| value.is_nan()));
    }
}
