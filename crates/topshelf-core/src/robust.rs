//! The default blend: what the reranker's score counts where nobody has chosen a weight.
//!
//! | what the second stage sees | the reranker counts |
//! | --- | --- |
//! | candidates in an order without scores, such as a list that was given | 1 |
//! | a query of more than [`LONG_QUERY`] tokens, for a cross-encoder | 0: it is not asked |
//! | late interaction among the retrievers | .5 |
//! | several retrievers, fused | .7 |
//! | one retriever | .9 |
//!
//! The first row that fits counts. The more evidence the first stage has, the more of its order is kept;
//! cross-encoders are trained on questions of a dozen tokens and fail on queries that are passages or have much
//! around the question. docs/decisions/0013-default-blend.md has the figures.

use std::collections::HashSet;

use crate::blend::{Blend, BlendScore};
use crate::fuse;
use crate::passage::Query;
use crate::ranking::Ranking;
use crate::score::Scale;
use crate::stage::Reranker;

/// Tokens of a query, as the reranker counts them, beyond which a cross-encoder is not asked.
pub const LONG_QUERY: usize = 40;

/// What the default rule says of one query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Robust {
    /// The reranker's score alone.
    Alone,
    /// A blend.
    Blend(Blend),
    /// The query has that many tokens, which are too many.
    LongQuery(usize),
}

impl Robust {
    /// Looks at a query, its candidates and the last reranker.
    pub(crate) fn of(query: &Query, candidates: &Ranking, reranker: &dyn Reranker) -> Self {
        let is_fused = candidates.stage() == fuse::STAGE;
        if candidates.scale() == Scale::Rank && !is_fused {
            return Self::Alone;
        }
        // No token is longer than the text, so short queries need not be counted.
        if reranker.scale() == Scale::Logit && query.text().len() > LONG_QUERY {
            let tokens = reranker.count_tokens(query.text());
            if tokens > LONG_QUERY {
                return Self::LongQuery(tokens);
            }
        }
        let signals = || candidates.hits().iter().flat_map(|hit| &hit.signals);
        let weight = if signals().any(|signal| signal.scale == Scale::MaxSim) {
            0.5
        } else if is_fused
            || signals().map(|own| own.stage.as_str()).collect::<HashSet<_>>().len() > 1
        {
            0.7
        } else {
            0.9
        };
        Self::Blend(Blend { weight, rerank: BlendScore::MinMax })
    }
}
