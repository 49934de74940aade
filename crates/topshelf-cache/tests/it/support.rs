//! A reranker that counts its work, and what both files of tests need.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use topshelf_cache::{CacheOptions, CachedReranker, ScoreCache};
use topshelf_core::{
    Call, ModelIdentity, Passage, PassageFailure, Query, RerankOutcome, RerankScore, Reranker,
    Result, Scale, Usage,
};

/// Scores a passage by a number that follows from its text and the query; refuses `bad`. Spends a call
/// for each pair.
pub(crate) struct Counting {
    pub(crate) identity: ModelIdentity,
    /// For a call.
    pub(crate) takes: Duration,
    /// Pairs scored.
    pub(crate) pairs: Arc<AtomicUsize>,
}

impl Counting {
    pub(crate) fn new() -> Self {
        let identity = ModelIdentity {
            name: "counting".into(),
            fingerprint: "f".into(),
            engine: "test".into(),
        };
        Self { identity, takes: Duration::ZERO, pairs: Arc::default() }
    }
}

/// The right score of a pair: any number will do that another pair does not have.
pub(crate) fn right_score(query: &str, text: &str) -> f32 {
    crc32fast::hash(format!("{query}\n{text}").as_bytes()) as f32
}

#[async_trait]
impl Reranker for Counting {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn scale(&self) -> Scale {
        Scale::Logit
    }

    async fn score(
        &self,
        call: &Call,
        query: &Query,
        passages: &[Arc<Passage>],
    ) -> Result<Vec<RerankOutcome>> {
        self.pairs.fetch_add(passages.len(), Ordering::SeqCst);
        call.spend(Usage { calls: passages.len() as u64, ..Usage::default() });
        std::thread::sleep(self.takes);
        Ok(passages
            .iter()
            .map(|passage| {
                if passage.text == "bad" {
                    return Err(PassageFailure { reason: "bad".into() });
                }
                Ok(RerankScore {
                    truncated_tokens: passage.text.len(),
                    ..RerankScore::new(right_score(query.text(), &passage.text))
                })
            })
            .collect())
    }
}

pub(crate) fn in_memory() -> Arc<ScoreCache> {
    Arc::new(ScoreCache::open(&CacheOptions::default()).0)
}

pub(crate) fn with_cache(reranker: Counting, cache: &Arc<ScoreCache>) -> CachedReranker {
    CachedReranker::new(Arc::new(reranker), Arc::clone(cache))
}

pub(crate) fn passages(texts: impl IntoIterator<Item = String>) -> Vec<Arc<Passage>> {
    texts.into_iter().map(|text| Arc::new(Passage::standalone(&text, "", &text))).collect()
}

/// Texts of those numbers.
pub(crate) fn numbered(numbers: impl IntoIterator<Item = usize>) -> Vec<Arc<Passage>> {
    passages(numbers.into_iter().map(|number| format!("passage {number}")))
}

pub(crate) fn ask(
    reranker: &dyn Reranker,
    query: &str,
    passages: &[Arc<Passage>],
) -> Vec<RerankOutcome> {
    let query = Query::new(query).unwrap();
    pollster::block_on(reranker.score(&Call::new(), &query, passages)).unwrap()
}

/// Asks and holds every score to the right one; answers how many were known.
pub(crate) fn ask_and_check(
    reranker: &dyn Reranker,
    query: &str,
    passages: &[Arc<Passage>],
) -> usize {
    let outcomes = ask(reranker, query, passages);
    assert_eq!(outcomes.len(), passages.len());
    for (outcome, passage) in outcomes.iter().zip(passages) {
        let scored = outcome.as_ref().unwrap();
        assert_eq!(scored.score.to_bits(), right_score(query, &passage.text).to_bits());
        assert_eq!(scored.truncated_tokens, passage.text.len());
    }
    outcomes.iter().filter(|outcome| outcome.as_ref().unwrap().cached).count()
}
