//! [`StoredTokens`]: late interaction over the vectors that the index keeps.
//!
//! Only the query is encoded; then a hundred passages take less than a millisecond. A passage whose
//! vectors are not there (it is not in the index, or its text is another) is encoded as without an
//! index, so that every passage has its score.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use topshelf_core::{
    Blame, EmbedKind, Error as CoreError, Grain, ModelIdentity, Passage, PassageFailure, Query,
    RerankOutcome, RerankScore, Reranker, Result, Scale, TokenEmbedder, TokenMatch, TokenVectors,
};
use topshelf_kernels::attention::{pack_keys, packed_keys_len};
use topshelf_kernels::max_sim;
use topshelf_kernels::max_sim::f16::max_sim_f16;
use topshelf_kernels::max_sim::residual::{Vectors, max_sim_residual};
use topshelf_kernels::max_sim::rounded::{Queries, Scratch, max_sim_i8};

use super::TextHash;
use super::codebook::Codebook;
use super::file::{Stored, TokenFile};
use crate::index::Index;

/// The name of this stage in errors.
const STAGE: &str = "rerank";

/// A late-interaction model and the vectors that an index has of it.
pub struct StoredTokens<M> {
    index: Index,
    model: Arc<M>,
    identity: ModelIdentity,
}

/// A query's vectors and what scoring them needs.
struct Asked<'a> {
    queries: &'a TokenVectors,
    rounded: Option<Queries>,
    best: Vec<f32>,
    wide: Vec<f32>,
    scratch: Scratch,
}

impl<M: TokenEmbedder + Reranker> StoredTokens<M> {
    pub(crate) fn new(index: Index, model: Arc<M>) -> Self {
        let mut identity = TokenEmbedder::identity(model.as_ref()).clone();
        if let Some(info) = &index.settings().token_vectors {
            // Another codebook gives other scores.
            let codebook = index.inner.state.tokens.codebook.as_ref().map_or(0, |own| own.crc32);
            let name = info.tier.name();
            identity.fingerprint = format!("{}+{name}-{codebook:08x}", identity.fingerprint);
            identity.engine = format!("stored {name} vectors, {}", identity.engine);
        }
        Self { index, model, identity }
    }

    /// Where a text's vectors are.
    fn find(&self, text: &str) -> Option<(&TokenFile, usize)> {
        let hash = TextHash::of(text);
        let files = self.index.inner.token_files.iter();
        files.rev().find_map(|file| Some((file, file.find(hash)?)))
    }
}

impl<'a> Asked<'a> {
    fn new(queries: &'a TokenVectors, codebook: Option<&Codebook>) -> Self {
        let rounded = |book: &Codebook| Queries::new(&queries.values, book.dimension, &book.mean);
        let fits = |book: &&Codebook| book.dimension == queries.dimension;
        Self {
            queries,
            rounded: codebook.filter(fits).map(rounded),
            best: vec![0.0; queries.count()],
            wide: Vec::new(),
            scratch: Scratch::default(),
        }
    }

    /// MaxSim with stored vectors; `None` where what is stored is damaged.
    fn of_stored(&mut self, codebook: Option<&Codebook>, stored: &Stored<'_>) -> Option<f32> {
        let Self { queries, rounded, best, wide, scratch } = self;
        let dimension = queries.dimension;
        let numbers = stored.vectors * dimension;
        let (Some(book), Some(rounded)) = (codebook, rounded.as_ref()) else {
            let fits = stored.halves.len() == numbers;
            return fits
                .then(|| max_sim_f16(&queries.values, dimension, stored.halves, wide, best));
        };
        let Some(view) = book.view() else {
            let Stored { integers, scales, stretches, .. } = *stored;
            let fits = integers.len() == numbers;
            return fits.then(|| max_sim_i8(rounded, integers, scales, stretches, scratch, best));
        };
        let rows = view.centroids.len() / dimension;
        let known = stored.ids.iter().all(|id| usize::from(*id) < rows);
        let fits = stored.codes.len() == view.bits.packed_len(numbers) && known;
        let Stored { ids, stretches, codes: packed, .. } = *stored;
        let vectors = Vectors { ids, stretches, packed };
        fits.then(|| max_sim_residual(rounded, &view, &vectors, scratch, best))
    }

    /// MaxSim with vectors that were encoded now.
    fn of_fresh(&mut self, vectors: &TokenVectors) -> f32 {
        let (count, dimension) = (vectors.count(), vectors.dimension);
        self.wide.resize(packed_keys_len(count, dimension).max(self.wide.len()), 0.0);
        let packed = &mut self.wide[..packed_keys_len(count, dimension)];
        pack_keys(&vectors.values, dimension, count, dimension, packed);
        max_sim(&self.queries.values, dimension, packed, count, &mut self.best)
    }

    fn outcome(&self, score: f32, truncated_tokens: usize) -> RerankOutcome {
        if !score.is_finite() {
            let reason = "it has no token with a vector".to_owned();
            return Err(PassageFailure { reason });
        }
        let query_truncated_tokens = self.queries.truncated_tokens;
        Ok(RerankScore { truncated_tokens, query_truncated_tokens, ..RerankScore::new(score) })
    }
}

#[async_trait]
impl<M: TokenEmbedder + Reranker + 'static> Reranker for StoredTokens<M> {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn scale(&self) -> Scale {
        Scale::MaxSim
    }

    /// A call costs the query's encoding; the passages cost nearly nothing.
    fn grain(&self) -> Grain {
        Grain::Call
    }

    fn count_tokens(&self, text: &str) -> usize {
        self.model.count_tokens(text)
    }

    async fn score(&self, query: &Query, passages: &[Arc<Passage>]) -> Result<Vec<RerankOutcome>> {
        let queries = self.model.embed_tokens(EmbedKind::Query, &[query.text()]).await?;
        let [queries] = queries.as_slice() else {
            let reason = format!("{} answers for one query", queries.len());
            return Err(CoreError::stage(STAGE, Blame::Failure, reason));
        };
        let texts: Vec<String> = passages.iter().map(|passage| passage.model_text()).collect();
        let mut outcomes: Vec<Option<RerankOutcome>> = vec![None; texts.len()];
        let mut missing = Vec::new();
        {
            let codebook = self.index.inner.codebook.as_deref();
            let mut asked = Asked::new(queries, codebook);
            for (place, (text, outcome)) in texts.iter().zip(&mut outcomes).enumerate() {
                let stored = self.find(text).map(|(file, row)| file.passage(row));
                let score = stored
                    .as_ref()
                    .and_then(|own| Some((own.cut, asked.of_stored(codebook, own)?)));
                match score {
                    Some((cut, score)) => *outcome = Some(asked.outcome(score, cut)),
                    None => missing.push(place),
                }
            }
        }
        if !missing.is_empty() {
            let texts: Vec<&str> = missing.iter().map(|&place| texts[place].as_str()).collect();
            let fresh = self.model.embed_tokens(EmbedKind::Passage, &texts).await?;
            let mut asked = Asked::new(queries, None);
            for (&place, vectors) in missing.iter().zip(&fresh) {
                let score = asked.of_fresh(vectors);
                outcomes[place] = Some(asked.outcome(score, vectors.truncated_tokens));
            }
        }
        let unread = || Err(PassageFailure { reason: "it was not read".to_owned() });
        Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(unread)).collect())
    }

    async fn explain(&self, query: &Query, passage: &Arc<Passage>) -> Result<Vec<TokenMatch>> {
        self.model.explain(query, passage).await
    }
}

impl<M> fmt::Debug for StoredTokens<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredTokens").field("identity", &self.identity).finish_non_exhaustive()
    }
}
