//! [`CrossEncoder`]: reads query and passage together and answers one logit for the pair.
//!
//! The score is the model's raw output (Nogueira and Cho, "Passage Re-ranking with BERT",
//! 2019, with one output instead of two): unbounded, monotone in relevance, and comparable only
//! between passages of one model. [`topshelf_core::score::sigmoid`] maps it to 0 to 1.
//!
//! A pair's score depends on that pair alone, to the bit (see [`crate::encoder`]), so scores can
//! be cached and lists can be split.
//!
//! All requests wait in one queue (`src/queue`) and share the calls of the engine. The blocking
//! methods wait for their turn; as a [`Reranker`] it is async, and dropping the future withdraws the
//! work.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use topshelf_core::{
    Call, ModelIdentity, Passage, PassageFailure, Query, RerankOutcome, RerankScore, Reranker,
    Scale,
};

use crate::encoder::{Output, Sequence};
use crate::engine::Settings;
use crate::error::Result;
use crate::golden;
use crate::loaded::Loaded;
use crate::portions::Portions;
use crate::queue::{Piecework, Queue, QueueStats, Sequences};
use crate::spec::{Family, ModelFolder};
use crate::store::Store;
use crate::token_cache::TokenCacheCounts;

/// The name of this stage in errors.
const STAGE: &str = "rerank";

/// A cross-encoder in memory. Clones share it.
///
/// ```
/// # use topshelf_models::{CrossEncoder, Store};
/// # fn main() -> topshelf_models::Result<()> {
/// # Store::open_default()?.find_or_pull("cross-encoder/ms-marco-MiniLM-L12-v2", &())?;
/// let model = CrossEncoder::load("cross-encoder/ms-marco-MiniLM-L12-v2")?;
///
/// let query = "How long does a flea live?";
/// let scores = model.predict(&[
///     (query, "An adult flea lives for about a hundred days."),
///     (query, "Dogs sleep for half of the day."),
/// ])?;
/// assert!(scores[0] > scores[1]);
///
/// let documents = ["Dogs sleep for half of the day.", "An adult flea lives for about a hundred days."];
/// let best = &model.rank(query, &documents, Some(1))?[0];
/// assert_eq!((best.index, best.text), (1, documents[1]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct CrossEncoder {
    model: Arc<Loaded>,
    queue: Arc<Queue>,
}

/// One document of [`CrossEncoder::rank`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked<'a> {
    /// Its place in the input, from 0.
    pub index: usize,
    /// The logit.
    pub score: f32,
    /// Its text.
    pub text: &'a str,
}

/// A pair's score, and what of the pair the model did not read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// The logit.
    pub score: f32,
    /// Tokens of the document beyond the model's window.
    pub truncated_tokens: usize,
    /// Tokens of the query beyond half of the model's window.
    pub query_truncated_tokens: usize,
}

/// Texts, each once, and the pairs to score as places in them.
#[derive(Default)]
struct Pairs {
    queries: Vec<String>,
    documents: Vec<String>,
    /// Query and document.
    places: Vec<(usize, usize)>,
}

impl Pairs {
    /// One query with each document.
    fn of_query<D: AsRef<str>>(query: &str, documents: impl IntoIterator<Item = D>) -> Self {
        let documents: Vec<String> =
            documents.into_iter().map(|document| document.as_ref().to_owned()).collect();
        let places = (0..documents.len()).map(|document| (0, document)).collect();
        Self { queries: vec![query.to_owned()], documents, places }
    }

    /// Any pairs; a text that stands in several is tokenised once.
    fn of_pairs<Q: AsRef<str>, D: AsRef<str>>(pairs: &[(Q, D)]) -> Self {
        let mut own = Self::default();
        let (mut queries, mut documents) = (HashMap::new(), HashMap::new());
        for (query, document) in pairs {
            let query = place(query.as_ref(), &mut queries, &mut own.queries);
            let document = place(document.as_ref(), &mut documents, &mut own.documents);
            own.places.push((query, document));
        }
        own
    }
}

/// The place of `text` in `texts`, appended if it is new.
fn place<'t>(text: &'t str, known: &mut HashMap<&'t str, usize>, texts: &mut Vec<String>) -> usize {
    *known.entry(text).or_insert_with(|| {
        texts.push(text.to_owned());
        texts.len() - 1
    })
}

impl CrossEncoder {
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
    /// [`crate::ModelError::WrongFamily`] if it is no cross-encoder;
    /// [`crate::ModelError::Damaged`], [`crate::ModelError::Unsupported`] and
    /// [`crate::ModelError::Io`] if its files cannot be used;
    /// [`crate::ModelError::Golden`] if it does not give its golden scores;
    /// [`crate::ModelError::Setting`] for an environment variable whose value means nothing.
    pub fn from_folder(folder: &ModelFolder) -> Result<Self> {
        Self::from_folder_with(folder, Settings::from_env()?)
    }

    /// The model in that folder, on that engine, whatever the environment says.
    ///
    /// # Errors
    ///
    /// As [`Self::from_folder`].
    pub fn from_folder_with(folder: &ModelFolder, settings: Settings) -> Result<Self> {
        let model = Loaded::open(folder, Family::CrossEncoder, settings)?;
        model.width(folder, Output::Logits, Some(1))?;
        let queue = model.queue(Output::Logits)?;
        let own = Self { model: Arc::new(model), queue: Arc::new(queue) };
        golden::check(folder, own.model.encoder.engine(), |golden| {
            Ok(own.predict(&[(&golden.query, &golden.passage)])?[0])
        })?;
        Ok(own)
    }

    /// The logit of each (query, document) pair, in the order of the pairs.
    ///
    /// # Errors
    ///
    /// [`crate::ModelError::Tokenise`] and [`crate::ModelError::Inference`]; the latter also for
    /// a score that is not a finite number.
    pub fn predict<Q: AsRef<str>, D: AsRef<str>>(&self, pairs: &[(Q, D)]) -> Result<Vec<f32>> {
        Ok(self.predict_scored(pairs)?.into_iter().map(|scored| scored.score).collect())
    }

    /// [`Self::predict`], with what did not fit into the model's window.
    ///
    /// # Errors
    ///
    /// As [`Self::predict`].
    pub fn predict_scored<Q: AsRef<str>, D: AsRef<str>>(
        &self,
        pairs: &[(Q, D)],
    ) -> Result<Vec<Scored>> {
        self.all_or_nothing(Pairs::of_pairs(pairs))
    }

    /// The documents by descending score, equal scores in their given order; the best `top_n` of
    /// them if that is given.
    ///
    /// # Errors
    ///
    /// As [`Self::predict`].
    pub fn rank<'d, D: AsRef<str>>(
        &self,
        query: &str,
        documents: &'d [D],
        top_n: Option<usize>,
    ) -> Result<Vec<Ranked<'d>>> {
        let scores = self.all_or_nothing(Pairs::of_query(query, documents))?;
        let mut ranked: Vec<Ranked<'d>> = scores
            .into_iter()
            .zip(documents)
            .enumerate()
            .map(|(index, (scored, text))| Ranked {
                index,
                score: scored.score,
                text: text.as_ref(),
            })
            .collect();
        ranked.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.index.cmp(&b.index)));
        ranked.truncate(top_n.unwrap_or(usize::MAX));
        Ok(ranked)
    }

    /// The number of tokens the model reads of one pair, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.model.tokenizer.max_tokens()
    }

    /// What computes the scores: engine, version, precision, instruction set.
    pub fn engine(&self) -> &str {
        self.model.encoder.engine()
    }

    /// How often a document's tokens were still there from an earlier call.
    pub fn token_cache(&self) -> TokenCacheCounts {
        self.model.tokenizer.cache_counts()
    }

    /// What waits for it and what it did so far.
    pub fn queue(&self) -> Arc<QueueStats> {
        Arc::clone(self.queue.stats())
    }

    fn all_or_nothing(&self, pairs: Pairs) -> Result<Vec<Scored>> {
        let outcomes = self.queue.run_blocking(Scoring::new(&self.model, pairs))?;
        outcomes
            .into_iter()
            .enumerate()
            .map(|(index, outcome)| {
                outcome.map_err(|failure| self.model.failed(format!("pair {index}: {failure}")))
            })
            .collect()
    }
}

/// One pair's score, or why it has none.
type Outcome = std::result::Result<Scored, PassageFailure>;

/// Pairs on their way to scores. A document that cannot be tokenised and a score that is not a
/// number fail alone.
struct Scoring {
    model: Arc<Loaded>,
    queries: Portions,
    documents: Portions,
    places: Vec<(usize, usize)>,
    outcomes: Vec<Outcome>,
    /// The place of each sequence's outcome.
    of_sequence: Vec<usize>,
}

impl Scoring {
    fn new(model: &Arc<Loaded>, pairs: Pairs) -> Self {
        let Pairs { queries, documents, places } = pairs;
        Self {
            model: Arc::clone(model),
            queries: Portions::of(queries),
            documents: Portions::of(documents),
            places,
            outcomes: Vec::new(),
            of_sequence: Vec::new(),
        }
    }
}

impl Piecework for Scoring {
    type Answer = Vec<Outcome>;

    fn guess(&self) -> usize {
        let (queries, documents) = (self.queries.texts(), self.documents.texts());
        let bytes =
            |&(query, document): &(usize, usize)| queries[query].len() + documents[document].len();
        self.places.iter().map(|pair| self.model.tokenizer.guess(bytes(pair))).sum()
    }

    fn read(&mut self, room: &mut usize) -> Result<Option<Sequences>> {
        let tokenizer = &self.model.tokenizer;
        let is_read = self.queries.read(room, |texts| tokenizer.tokenise_all(texts))
            && self.documents.read(room, |texts| tokenizer.tokenise_documents(texts));
        if !is_read {
            return Ok(None);
        }
        let queries = self.queries.take_ids().into_iter().collect::<Result<Vec<_>>>()?;
        let documents = self.documents.take_ids();
        let mut all: Vec<Sequence> = Vec::with_capacity(self.places.len());
        for &(query, document) in &self.places {
            self.outcomes.push(match &documents[document] {
                Ok(ids) => {
                    let assembled = tokenizer.pair(&queries[query], ids);
                    all.push(assembled.sequence);
                    self.of_sequence.push(self.outcomes.len());
                    Ok(Scored {
                        score: f32::NAN,
                        truncated_tokens: assembled.truncated_tokens,
                        query_truncated_tokens: assembled.query_truncated_tokens,
                    })
                }
                Err(error) => Err(PassageFailure { reason: error.to_string() }),
            });
        }
        Ok(Some(Sequences { all, leading: 0 }))
    }

    fn take(&mut self, index: usize, _sequence: &Sequence, rows: &[f32]) -> Result<()> {
        let outcome = &mut self.outcomes[self.of_sequence[index]];
        if rows[0].is_finite() {
            if let Ok(scored) = outcome {
                scored.score = rows[0];
            }
        } else {
            let reason = format!("the model gave {} instead of a score", rows[0]);
            *outcome = Err(PassageFailure { reason });
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<Outcome>> {
        Ok(self.outcomes)
    }
}

#[async_trait]
impl Reranker for CrossEncoder {
    fn identity(&self) -> &ModelIdentity {
        &self.model.identity
    }

    fn scale(&self) -> Scale {
        Scale::Logit
    }

    fn max_tokens(&self) -> Option<usize> {
        Some(self.max_tokens())
    }

    fn count_tokens(&self, text: &str) -> usize {
        // The tokenizers in use cannot fail on text; one that did would count each character,
        // which is never too few.
        self.model.tokenizer.tokenise(text).map_or_else(|_| text.chars().count(), |ids| ids.len())
    }

    async fn score(
        &self,
        call: &Call,
        query: &Query,
        passages: &[Arc<Passage>],
    ) -> topshelf_core::Result<Vec<RerankOutcome>> {
        let texts = passages.iter().map(|passage| passage.model_text());
        let scoring = Scoring::new(&self.model, Pairs::of_query(query.text(), texts));
        let outcomes = self.queue.run(call, scoring).await;
        let outcomes = outcomes.map_err(|error| error.into_stage(STAGE))?;
        let outcome = |scored: Scored| RerankScore {
            truncated_tokens: scored.truncated_tokens,
            query_truncated_tokens: scored.query_truncated_tokens,
            ..RerankScore::new(scored.score)
        };
        Ok(outcomes.into_iter().map(|scored| scored.map(outcome)).collect())
    }
}

impl fmt::Debug for CrossEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CrossEncoder")
            .field("identity", &self.model.identity)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::task::{Context, Waker};

    use super::*;
    use crate::catalogue::Catalogue;
    use crate::encoder::{Encoder, TokenBatch};
    use crate::tokenise::TextTokenizer;

    /// Scores a pair by its document's first token, NaN for token 5, one pair a call.
    #[derive(Default)]
    struct Fake {
        calls: Arc<AtomicUsize>,
        /// Told at the beginning of each call, which then waits for the other end.
        gate: Option<Mutex<(Sender<()>, Receiver<()>)>>,
    }

    impl Encoder for Fake {
        fn engine(&self) -> &'static str {
            "fake"
        }

        fn width(&self, _want: Output) -> Option<usize> {
            Some(1)
        }

        fn token_budget(&self) -> usize {
            1
        }

        fn encode(&self, batch: &TokenBatch, _want: Output) -> Result<Vec<f32>> {
            self.calls.fetch_add(1, Ordering::SeqCst);
            if let Some(gate) = &self.gate {
                let gate = gate.lock().unwrap();
                // Errors once the test has let go of its ends: then nothing waits any more.
                let _ = gate.0.send(());
                let _ = gate.1.recv();
            }
            Ok((0..batch.len())
                .map(|index| match batch.sequence(index).0[1] {
                    5 => f32::NAN,
                    id => id as f32,
                })
                .collect())
        }
    }

    fn model(encoder: Fake) -> CrossEncoder {
        let spec = Catalogue::builtin().default_for(Family::CrossEncoder).unwrap().clone();
        let dir = tempfile::tempdir().unwrap();
        let json = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"}, "decoder": null,
            "post_processor": null, "model": {"type": "WordLevel", "unk_token": "[UNK]",
                "vocab": {"[UNK]": 3, "q": 4, "bad": 5, "six": 6, "seven": 7}}}"#;
        std::fs::write(dir.path().join("tokenizer.json"), json).unwrap();
        let folder =
            ModelFolder { spec: spec.clone(), dir: dir.path().into(), fingerprint: String::new() };
        let model = Loaded {
            identity: ModelIdentity {
                name: spec.name.clone(),
                fingerprint: String::new(),
                engine: String::new(),
            },
            spec,
            tokenizer: TextTokenizer::load(&folder).unwrap(),
            encoder: Arc::new(encoder),
        };
        let queue = model.queue(Output::Logits).unwrap();
        CrossEncoder { model: Arc::new(model), queue: Arc::new(queue) }
    }

    fn passages(texts: &[&str]) -> Vec<Arc<Passage>> {
        texts.iter().map(|text| Arc::new(Passage::standalone(*text, "", *text))).collect()
    }

    #[test]
    fn a_score_that_is_not_a_number_fails_alone() {
        let model = model(Fake::default());
        let (call, query) = (Call::new(), Query::new("q").unwrap());
        let passages = passages(&["six", "bad", "seven"]);
        let outcomes =
            pollster::block_on(Reranker::score(&model, &call, &query, &passages)).unwrap();
        assert_eq!(outcomes[0].as_ref().unwrap().score.to_bits(), 6_f32.to_bits());
        assert_eq!(outcomes[2].as_ref().unwrap().score.to_bits(), 7_f32.to_bits());
        assert!(outcomes[1].as_ref().unwrap_err().reason.contains("NaN"));
        let error = model.predict(&[("q", "six"), ("q", "bad")]).unwrap_err();
        assert!(error.to_string().contains("pair 1"), "{error}");
    }

    #[test]
    fn dropping_the_future_withdraws_the_rest_of_the_work() {
        let (started, has_started) = channel();
        let (release, released) = channel();
        let calls = Arc::new(AtomicUsize::new(0));
        let gate = Some(Mutex::new((started, released)));
        let model = model(Fake { calls: Arc::clone(&calls), gate });
        let (call, query) = (Call::new(), Query::new("q").unwrap());
        let passages = passages(&["six"; 20]);
        let mut future = Reranker::score(&model, &call, &query, &passages);
        assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        has_started.recv().unwrap();
        drop(future);
        drop(release);
        assert_eq!(model.predict(&[("q", "seven")]).unwrap(), [7.0]);
        assert_eq!(calls.load(Ordering::SeqCst), 2); // the one under way, and this one
    }
}
