//! The first stage by tokens: [`LateRetriever`].
//!
//! ```text
//! estimate(q, d) = Σᵢ max(missing(i), max over probed c near d of q[i]·c)
//! score(q, d)    = Σᵢ maxⱼ q[i]·d[j]             of the best estimates only, on what is stored
//! ```
//!
//! Each query vector probes the centroids that are nearest to it, and a passage's estimate is made of
//! the probed centroids in whose lists it is. What a query vector did not find in a passage counts as
//! much as the best centroid that it did not probe, `missing(i)`: the passage has nothing better.
//! (Scheerer et al., "WARP: An Efficient Engine for Multi-Vector Retrieval", 2025, section 4.2, which
//! estimates with vectors where this does with centroids; lists of passages and the exact scores
//! behind them are from Santhanam et al., "PLAID", 2022.) Estimates are sums of 8-bit gains over
//! `missing`, one byte for each query vector and passage.
//!
//! Where few passages take part, because the index is small or a filter lets few through, every one
//! of them is scored; so is every passage of a file without lists. Either way the scores are those of
//! [`StoredTokens`](super::StoredTokens), to the bit.

use std::sync::Arc;

use async_trait::async_trait;
use topshelf_core::{
    Blame, Call, EmbedKind, Error as CoreError, Query, Ranking, Retriever, Scale, TokenEmbedder,
    TokenVectors,
};
use topshelf_kernels::top_k;

use super::Tier;
use super::asked::Asked;
use super::file::TokenFile;
use super::kmeans::Centroids;
use crate::error::{IndexError, Result};
use crate::index::Index;

/// The name of this stage.
const STAGE: &str = "colbert";

/// Query vectors whose gains lie together.
const TOGETHER: usize = 32;

/// How much is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LateOptions {
    /// Centroids that each query vector probes.
    pub probes: usize,
    /// Passages with the best estimates that are scored; twice the depth, if that is more.
    pub candidates: usize,
    /// Up to so many passages, every one is scored.
    pub scan_up_to: usize,
}

impl Default for LateOptions {
    /// What the figures of docs/decisions/0010 chose.
    fn default() -> Self {
        Self { probes: 16, candidates: 512, scan_up_to: 1024 }
    }
}

impl LateOptions {
    /// Every passage is scored, whatever their number.
    pub fn exact() -> Self {
        Self { scan_up_to: usize::MAX, ..Self::default() }
    }
}

/// Late interaction over all passages of an index.
pub struct LateRetriever {
    model: Arc<dyn TokenEmbedder>,
    late: Arc<Late>,
}

/// What its threads need.
struct Late {
    index: Index,
    options: LateOptions,
    tier: Tier,
    /// Their directions.
    centroids: Option<Centroids>,
}

/// A passage's place: its file and its row there.
type Place = (usize, usize);

impl LateRetriever {
    /// The model must be that of the index's token vectors.
    pub(crate) fn new(
        index: Index,
        model: Arc<dyn TokenEmbedder>,
        tier: Tier,
        options: LateOptions,
    ) -> Self {
        let book = index.inner.codebook.as_ref();
        let centroids = book.filter(|book| book.count() > 0).map(|book| book.directions());
        Self { model, late: Arc::new(Late { index, options, tier, centroids }) }
    }
}

impl Late {
    /// The best `depth` passages for a query with these vectors.
    fn ranking(
        &self,
        query: &Query,
        queries: &TokenVectors,
        depth: usize,
    ) -> topshelf_core::Result<Ranking> {
        let stage = |error: IndexError| error.into_stage(STAGE);
        let found = self.search(query, queries, depth).map_err(stage)?;
        let mut passages = Vec::with_capacity(found.len());
        for (key, score) in found {
            let passage = self.index.passage_by_key(key).map_err(stage)?;
            let passage = passage.ok_or_else(|| {
                stage(IndexError::Damaged {
                    path: self.index.inner.dir.clone(),
                    reason: format!("the token vectors with key {key} have no passage"),
                })
            })?;
            passages.push((passage, score));
        }
        Ranking::new(STAGE, Scale::MaxSim, passages)
    }

    /// The best `depth` keys with their scores.
    fn search(
        &self,
        query: &Query,
        queries: &TokenVectors,
        depth: usize,
    ) -> Result<Vec<(u64, f32)>> {
        let inner = &*self.index.inner;
        let mask = query.filter().map(|filter| self.index.mask(filter)).transpose()?;
        let passages = inner.state.totals.passages as usize;
        let passing = mask.as_ref().map_or(passages, |mask| mask.passing());
        let keep = |key: u64| {
            !inner.state.tokens.is_removed(key)
                && mask.as_ref().is_none_or(|mask| mask.passes_key(key))
        };
        let asked = self.asked(queries);
        let wanted = self.options.candidates.max(depth.saturating_mul(2));
        let files = &inner.token_files;
        let estimator = self
            .centroids
            .as_ref()
            .filter(|_| passing > self.options.scan_up_to.max(wanted))
            .map(|centroids| Estimator::new(&asked, centroids, self.options.probes));
        let (mut places, mut estimates) = (Vec::new(), Vec::new());
        for (n, file) in files.iter().enumerate() {
            let keys = file.keys();
            match estimator.as_ref().and_then(|estimator| estimator.of(file)) {
                Some(own) => {
                    let best = top_k(&own, wanted, |row| keep(keys[row]));
                    let best = best.into_iter();
                    estimates.extend(best.map(|(row, estimate)| (estimate, keys[row], (n, row))));
                }
                None => places
                    .extend((0..keys.len()).filter(|row| keep(keys[*row])).map(|row| (n, row))),
            }
        }
        estimates.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        places.extend(estimates.into_iter().take(wanted).map(|(.., place)| place));
        let mut found = self.score(queries, &places)?;
        found.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        found.truncate(depth);
        Ok(found)
    }

    fn asked<'a>(&'a self, queries: &'a TokenVectors) -> Asked<'a> {
        Asked::new(queries, self.index.inner.codebook.as_deref(), self.tier)
    }

    /// Each passage's key and score; passages without a vector have none.
    fn score(&self, queries: &TokenVectors, places: &[Place]) -> Result<Vec<(u64, f32)>> {
        let mut asked = self.asked(queries);
        let mut found = Vec::with_capacity(places.len());
        for &(file, row) in places {
            let file = &self.index.inner.token_files[file];
            let score = asked.of_stored(&file.passage(row));
            let score =
                score.ok_or_else(|| file.damaged("its codes are not those of its vectors"))?;
            if score.is_finite() {
                found.push((file.keys()[row], score));
            }
        }
        Ok(found)
    }
}

/// What the centroids say of passages.
struct Estimator {
    /// The centroids that a query vector probes, ascending.
    probed: Vec<usize>,
    /// What each of them gains each query vector over what it counts where it finds nothing.
    gains: Vec<u8>,
    /// Bytes of one of them.
    width: usize,
}

impl Estimator {
    fn new(asked: &Asked<'_>, centroids: &Centroids, probes: usize) -> Self {
        let products = centroids.products(asked.values());
        let width = asked.count().next_multiple_of(TOGETHER);
        let mut is_probed = vec![false; centroids.count()];
        let mut missing = Vec::with_capacity(asked.count());
        for row in products.chunks_exact(centroids.count()) {
            let mut best = top_k(row, probes.saturating_add(1), |_| true);
            let first_not = if best.len() > probes { best.pop() } else { best.last().copied() };
            missing.push(first_not.map_or(0.0, |(_, product)| product));
            for (centroid, _) in best {
                is_probed[centroid] = true;
            }
        }
        let probed: Vec<usize> =
            (0..centroids.count()).filter(|centroid| is_probed[*centroid]).collect();
        let gain = |centroid: usize, query: usize| {
            products[query * centroids.count() + centroid] - missing[query]
        };
        let all = probed.iter().flat_map(|&own| (0..asked.count()).map(move |query| (own, query)));
        let largest = all.map(|(own, query)| gain(own, query)).fold(0.0, f32::max);
        let scale = if largest > 0.0 { 255.0 / largest } else { 0.0 };
        let mut gains = vec![0; probed.len() * width];
        for (row, &own) in gains.chunks_exact_mut(width).zip(&probed) {
            for (query, place) in row[..asked.count()].iter_mut().enumerate() {
                *place = (scale * gain(own, query)).round_ties_even() as u8; // below 0 is 0
            }
        }
        Self { probed, gains, width }
    }

    /// The estimate of each passage of a file, in units of its own; `None` for a file without lists.
    fn of(&self, file: &TokenFile) -> Option<Vec<f32>> {
        if !file.has_lists() {
            return None;
        }
        let mut best = vec![0_u8; file.keys().len() * self.width];
        for (&centroid, gains) in self.probed.iter().zip(self.gains.chunks_exact(self.width)) {
            let gains = gains.as_chunks::<TOGETHER>().0;
            for row in file.near(centroid)? {
                let own = best[row * self.width..][..self.width].as_chunks_mut::<TOGETHER>().0;
                for (own, gains) in own.iter_mut().zip(gains) {
                    for (own, gain) in own.iter_mut().zip(gains) {
                        *own = (*own).max(*gain);
                    }
                }
            }
        }
        let sum = |own: &[u8]| own.iter().map(|gain| u32::from(*gain)).sum::<u32>() as f32;
        Some(best.chunks_exact(self.width).map(sum).collect())
    }
}

#[async_trait]
impl Retriever for LateRetriever {
    fn name(&self) -> &str {
        STAGE
    }

    async fn retrieve(
        &self,
        call: &Call,
        query: &Query,
        depth: usize,
    ) -> topshelf_core::Result<Ranking> {
        let mut queries = self.model.embed_tokens(call, EmbedKind::Query, &[query.text()]).await?;
        let (Some(own), 0) = (queries.pop(), queries.len()) else {
            let reason = "there is not one answer for one query";
            return Err(CoreError::stage(STAGE, Blame::Failure, reason));
        };
        let index = &self.late.index;
        if let Some(info) = &index.settings().token_vectors {
            info.check(1, std::slice::from_ref(&own))?;
        }
        let (late, query) = (Arc::clone(&self.late), query.clone());
        index.search(STAGE, call, move || late.ranking(&query, &own, depth)).await
    }
}
