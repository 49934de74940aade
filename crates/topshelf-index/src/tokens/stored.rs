//! [`StoredTokens`]: late interaction over the vectors that the index keeps.
//!
//! Only the query is encoded; then a hundred passages take less than a millisecond. A passage whose
//! vectors are not there (it is not in the index, or its text is another) is encoded as without an
//! index, so that every passage has its score.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use topshelf_core::{
    Blame, Call, EmbedKind, Error as CoreError, Grain, ModelIdentity, Passage, PassageFailure,
    Query, RerankOutcome, RerankScore, Reranker, Result, Scale, TokenEmbedder, TokenMatch,
};

use super::asked::Asked;
use super::file::TokenFile;
use super::{TextHash, Tier};
use crate::index::Index;

/// The name of this stage in errors.
const STAGE: &str = "rerank";

/// A late-interaction model and the vectors that an index has of it.
pub struct StoredTokens<M> {
    index: Index,
    model: Arc<M>,
    identity: ModelIdentity,
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

/// A score, or why there is none.
fn outcome(score: f32, truncated_tokens: usize, query_truncated_tokens: usize) -> RerankOutcome {
    if !score.is_finite() {
        let reason = "it has no token with a vector".to_owned();
        return Err(PassageFailure { reason });
    }
    Ok(RerankScore { truncated_tokens, query_truncated_tokens, ..RerankScore::new(score) })
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

    async fn score(
        &self,
        call: &Call,
        query: &Query,
        passages: &[Arc<Passage>],
    ) -> Result<Vec<RerankOutcome>> {
        let queries = self.model.embed_tokens(call, EmbedKind::Query, &[query.text()]).await?;
        let [queries] = queries.as_slice() else {
            let reason = format!("{} answers for one query", queries.len());
            return Err(CoreError::stage(STAGE, Blame::Failure, reason));
        };
        let texts: Vec<String> = passages.iter().map(|passage| passage.model_text()).collect();
        let mut outcomes: Vec<Option<RerankOutcome>> = vec![None; texts.len()];
        let mut missing = Vec::new();
        let cut_of_query = queries.truncated_tokens;
        let asked = || {
            let info = self.index.settings().token_vectors.as_ref();
            let tier = info.map_or(Tier::F16, |info| info.tier);
            Asked::new(queries, self.index.inner.codebook.as_deref(), tier)
        };
        {
            let mut asked = asked();
            for (place, (text, own)) in texts.iter().zip(&mut outcomes).enumerate() {
                let stored = self.find(text).map(|(file, row)| file.passage(row));
                let score = stored.as_ref().and_then(|own| Some((own.cut, asked.of_stored(own)?)));
                match score {
                    Some((cut, score)) => *own = Some(outcome(score, cut, cut_of_query)),
                    None => missing.push(place),
                }
            }
        }
        if !missing.is_empty() {
            let texts: Vec<&str> = missing.iter().map(|&place| texts[place].as_str()).collect();
            let fresh = self.model.embed_tokens(call, EmbedKind::Passage, &texts).await?;
            let mut asked = asked();
            for (&place, vectors) in missing.iter().zip(&fresh) {
                let score = asked.of_fresh(vectors);
                outcomes[place] = Some(outcome(score, vectors.truncated_tokens, cut_of_query));
            }
        }
        let unread = || Err(PassageFailure { reason: "it was not read".to_owned() });
        Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(unread)).collect())
    }

    async fn explain(
        &self,
        call: &Call,
        query: &Query,
        passage: &Arc<Passage>,
    ) -> Result<Vec<TokenMatch>> {
        self.model.explain(call, query, passage).await
    }
}

impl<M> fmt::Debug for StoredTokens<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredTokens").field("identity", &self.identity).finish_non_exhaustive()
    }
}
