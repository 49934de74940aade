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
use topshelf_core::{EmbedKind, Embedder, Error as CoreError, ModelIdentity, Query};

use crate::batch;
use crate::encoder::{Output, Sequence};
use crate::engine::Settings;
use crate::error::{ModelError, Result};
use crate::golden;
use crate::loaded::Loaded;
use crate::spec::{Family, ModelFolder, Pooling};
use crate::store::Store;
use crate::worker::{Ticket, Worker};

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
    worker: Arc<Worker>,
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
        let worker = Worker::start(&model.spec.name)?;
        let own = Self { model: Arc::new(model), worker: Arc::new(worker), dimension };
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

    fn embed_blocking<T: AsRef<str>>(&self, kind: EmbedKind, texts: &[T]) -> Result<Vec<Vec<f32>>> {
        let texts = texts.iter().map(|text| text.as_ref().to_owned()).collect();
        self.worker.run_blocking(self.work(kind, texts))
    }

    /// What the worker has to do for these texts.
    fn work(
        &self,
        kind: EmbedKind,
        texts: Vec<String>,
    ) -> impl FnOnce(&Ticket<'_>) -> Result<Vec<Vec<f32>>> + Send + use<> {
        let model = Arc::clone(&self.model);
        move |ticket| embed(&model, kind, &texts, ticket)
    }
}

/// Embeds all texts on the worker's thread.
fn embed(
    model: &Loaded,
    kind: EmbedKind,
    texts: &[String],
    ticket: &Ticket<'_>,
) -> Result<Vec<Vec<f32>>> {
    let prefix = match kind {
        EmbedKind::Query => &model.spec.query_prefix,
        EmbedKind::Passage => &model.spec.passage_prefix,
    };
    if kind == EmbedKind::Query {
        for text in texts {
            if model.tokenizer.knows_none(&model.tokenizer.tokenise(text)?) {
                return Err(ModelError::UnknownTokens {
                    name: model.spec.name.clone(),
                    language: model.spec.language.clone(),
                });
            }
        }
    }
    let prefixed: Vec<String> = texts.iter().map(|text| format!("{prefix}{text}")).collect();
    let sequences = model
        .tokenizer
        .tokenise_all(&prefixed)
        .into_iter()
        .map(|ids| Ok(model.tokenizer.single(&ids?).sequence))
        .collect::<Result<Vec<Sequence>>>()?;
    let want = match model.spec.pooling {
        Some(Pooling::Mean) => Output::Hidden,
        Some(Pooling::Cls) | None => Output::Cls,
    };
    let mut vectors = vec![Vec::new(); texts.len()];
    batch::encode_all(model.encoder.as_ref(), &sequences, want, ticket, |index, rows| {
        vectors[index] = unit(&sum_of_rows(rows, sequences[index].len(), want));
    })?;
    match vectors.iter().position(|vector| vector.iter().any(|value| !value.is_finite())) {
        Some(index) => Err(model.failed(format!("text {index} has a vector without a direction"))),
        None => Ok(vectors),
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

    async fn embed(&self, kind: EmbedKind, texts: &[&str]) -> topshelf_core::Result<Vec<Vec<f32>>> {
        let work = self.work(kind, texts.iter().map(|&text| text.to_owned()).collect());
        self.worker.run(work).await.map_err(|error| match error {
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
