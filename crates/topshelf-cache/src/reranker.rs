//! [`CachedReranker`]: a reranker that asks the score cache first.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use futures_channel::oneshot;
use topshelf_core::{
    Call, Grain, ModelIdentity, Passage, Query, RerankOutcome, RerankScore, Reranker, Result,
    Scale, TokenMatch,
};

use crate::cache::ScoreCache;
use crate::entry::Entry;
use crate::flight::{Boarded, Joined};
use crate::key::{PairKey, PairKeys, Tag};

/// A reranker with a [`ScoreCache`] in front of it. Several may share one cache. Whoever asks for a pair
/// first pays for it; a pair that is known, or that another call is scoring, spends nothing.
#[derive(Clone)]
pub struct CachedReranker {
    inner: Arc<dyn Reranker>,
    cache: Arc<ScoreCache>,
}

/// What pairs are scored for.
#[derive(Clone, Copy)]
struct Task<'a> {
    call: &'a Call,
    query: &'a Query,
    tag: Tag,
}

impl CachedReranker {
    /// Puts the cache in front of the reranker.
    pub fn new(inner: Arc<dyn Reranker>, cache: Arc<ScoreCache>) -> Self {
        Self { inner, cache }
    }

    /// Scores the pairs of `wanted` that nobody else is scoring, and says which others are under way.
    async fn score_missing(
        &self,
        task: Task<'_>,
        wanted: &[(PairKey, Arc<Passage>)],
        found: &mut HashMap<PairKey, RerankOutcome>,
    ) -> Result<Vec<(PairKey, Arc<Passage>, Joined)>> {
        let flights = self.cache.flights();
        let (boarded, flight) =
            flights.board(wanted.iter().map(|(key, _)| *key), |key| self.cache.in_memory(key));
        let (mut own, mut joined) = (Vec::new(), Vec::new());
        for ((key, passage), boarded) in wanted.iter().zip(boarded) {
            match boarded {
                Boarded::Known(entry) => {
                    found.insert(*key, Ok(entry.into()));
                }
                Boarded::Joined(receiver) => joined.push((*key, Arc::clone(passage), receiver)),
                Boarded::Own => own.push(Arc::clone(passage)),
            }
        }
        self.cache.count(own.len(), joined.len());
        if !own.is_empty() {
            let outcomes = self.inner.score(task.call, task.query, &own).await?;
            if outcomes.len() != own.len() {
                let stage = self.inner.identity().name.clone();
                let (expected, got) = (own.len(), outcomes.len());
                return Err(topshelf_core::Error::ScoreCount { stage, expected, got });
            }
            let scored = flight.pairs().iter().zip(&outcomes);
            let entries = scored.clone().filter_map(|(key, outcome)| {
                // A failure may pass; it is not kept.
                let scored: RerankScore = *outcome.as_ref().ok()?;
                scored.score.is_finite().then(|| (*key, Entry::from(scored)))
            });
            self.cache.insert(task.tag, entries);
            found.extend(scored.map(|(key, outcome)| (*key, outcome.clone())));
            flight.land(&outcomes);
        }
        Ok(joined)
    }
}

#[async_trait]
impl Reranker for CachedReranker {
    fn identity(&self) -> &ModelIdentity {
        self.inner.identity()
    }

    fn scale(&self) -> Scale {
        self.inner.scale()
    }

    fn grain(&self) -> Grain {
        self.inner.grain()
    }

    fn max_tokens(&self) -> Option<usize> {
        self.inner.max_tokens()
    }

    fn count_tokens(&self, text: &str) -> usize {
        self.inner.count_tokens(text)
    }

    async fn explain(
        &self,
        call: &Call,
        query: &Query,
        passage: &Arc<Passage>,
    ) -> Result<Vec<TokenMatch>> {
        self.inner.explain(call, query, passage).await
    }

    async fn score(
        &self,
        call: &Call,
        query: &Query,
        passages: &[Arc<Passage>],
    ) -> Result<Vec<RerankOutcome>> {
        let keys = PairKeys::new(self.inner.identity(), query);
        let tag = keys.tag();
        let keys: Vec<PairKey> =
            passages.iter().map(|passage| keys.of(&passage.model_text())).collect();
        let mut found: HashMap<PairKey, RerankOutcome> = self
            .cache
            .look_up(tag, &keys)
            .await
            .into_iter()
            .map(|(key, entry)| (key, Ok(entry.into())))
            .collect();
        // Each missing pair once, though passages may repeat.
        let mut wanted: Vec<(PairKey, Arc<Passage>)> = Vec::new();
        let mut seen = HashSet::new();
        for (key, passage) in keys.iter().zip(passages) {
            if !found.contains_key(key) && seen.insert(*key) {
                wanted.push((*key, Arc::clone(passage)));
            }
        }
        let task = Task { call, query, tag };
        while !wanted.is_empty() {
            let joined = self.score_missing(task, &wanted, &mut found).await?;
            wanted = Vec::new();
            for (key, passage, receiver) in joined {
                match receiver.await {
                    Ok(outcome) => {
                        let outcome = outcome.map(|scored| RerankScore { cached: true, ..scored });
                        found.insert(key, outcome);
                    }
                    // Its caller failed or went away; it is ours now.
                    Err(oneshot::Canceled) => wanted.push((key, passage)),
                }
            }
        }
        Ok(keys.iter().map(|key| found[key].clone()).collect())
    }
}
