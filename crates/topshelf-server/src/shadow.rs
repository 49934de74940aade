//! Shadow mode: a second reranker on a sample of the traffic, whose answers nobody gets.
//!
//! It tells what another model would change before it is let near anyone: the share of the first ten
//! results that both have, in [`crate::metrics`]. It runs behind the answer and only while nobody else
//! waits, so that it takes nothing from the traffic that it looks at.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use topshelf_core::{Call, Passage, Query, Ranking, Reranker, Scale};
use tracing::Instrument as _;

use crate::app::App;

/// Results that are compared.
const TOP: usize = 10;

/// A second reranker, and of which share of the requests it is asked.
pub struct Shadow {
    reranker: Arc<dyn Reranker>,
    share: f64,
    seen: AtomicU64,
}

impl Shadow {
    /// Asks the reranker in that share of the requests, 0 to 1.
    pub fn new(reranker: Arc<dyn Reranker>, share: f64) -> Self {
        Self { reranker, share, seen: AtomicU64::new(0) }
    }

    /// Whether this request is one of the sample: evenly spread, so that any stretch of the traffic has
    /// its share.
    fn is_due(&self) -> bool {
        let number = self.seen.fetch_add(1, Ordering::Relaxed) as f64;
        (number * self.share).floor() < ((number + 1.0) * self.share).floor()
    }
}

/// Lets the shadow order the passages, if there is one and it is its turn, and notes how far it agrees.
/// `best` are the ids of the answer, best first.
pub(crate) fn look(app: &Arc<App>, query: &Query, passages: Vec<Arc<Passage>>, best: &[&str]) {
    let Some(shadow) = app.options.shadow.as_ref().filter(|shadow| shadow.is_due()) else { return };
    if app.admission.load().requests > 1 {
        return;
    }
    let (app, shadow, query) = (Arc::clone(app), Arc::clone(shadow), query.clone());
    let best: HashSet<String> = best.iter().take(TOP).map(|id| (*id).to_owned()).collect();
    // Not a part of the request, which would last until it has ended.
    let span = tracing::debug_span!(parent: None, "shadow");
    let looking = async move {
        let model = shadow.reranker.identity().name.clone();
        match agreement(shadow.reranker.as_ref(), &query, &passages, &best).await {
            Ok(agreement) => app.metrics.shadowed(&model, agreement),
            Err(error) => tracing::warn!(%model, %error, "the shadow reranker failed"),
        }
    };
    tokio::spawn(looking.instrument(span));
}

/// The share of the best that the reranker has among as many of its own.
async fn agreement(
    reranker: &dyn Reranker,
    query: &Query,
    passages: &[Arc<Passage>],
    best: &HashSet<String>,
) -> topshelf_core::Result<f64> {
    let outcomes = reranker.score(&Call::new(), query, passages).await?;
    let scored = passages
        .iter()
        .zip(&outcomes)
        .filter_map(|(passage, outcome)| Some((Arc::clone(passage), outcome.as_ref().ok()?.score)));
    let ranking = Ranking::new("shadow", Scale::Rank, scored)?.top(best.len());
    let both = ranking.hits().iter().filter(|hit| best.contains(&hit.passage.id)).count();
    Ok(if best.is_empty() { 1.0 } else { both as f64 / best.len() as f64 })
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use topshelf_core::{ModelIdentity, RerankOutcome, RerankScore};

    use super::*;

    /// Scores a passage by its length.
    struct ByLength(ModelIdentity);

    #[async_trait]
    impl Reranker for ByLength {
        fn identity(&self) -> &ModelIdentity {
            &self.0
        }

        fn scale(&self) -> Scale {
            Scale::Logit
        }

        async fn score(
            &self,
            _: &Call,
            _: &Query,
            passages: &[Arc<Passage>],
        ) -> topshelf_core::Result<Vec<RerankOutcome>> {
            Ok(passages.iter().map(|own| Ok(RerankScore::new(own.text.len() as f32))).collect())
        }
    }

    fn by_length() -> ByLength {
        let (name, fingerprint, engine) = ("length".into(), "0".into(), "test".into());
        ByLength(ModelIdentity { name, fingerprint, engine })
    }

    #[test]
    fn a_share_is_spread_evenly() {
        let shadow = Shadow::new(Arc::new(by_length()), 0.25);
        let due: Vec<bool> = (0..8).map(|_| shadow.is_due()).collect();
        assert_eq!(due.iter().filter(|due| **due).count(), 2);
        assert!(due[..4].contains(&true) && due[4..].contains(&true));
    }

    #[tokio::test]
    async fn agreement_is_the_share_of_the_best_that_both_have() {
        let passage = |id: &str, text: &str| Arc::new(Passage::standalone(id, "", text));
        let passages = [passage("a", "x"), passage("b", "xx"), passage("c", "xxx")];
        let query = Query::new("q").unwrap();
        let best = ["a", "c"].into_iter().map(str::to_owned).collect();
        let agreement = agreement(&by_length(), &query, &passages, &best).await.unwrap();
        assert!((agreement - 0.5).abs() < 1e-9);
    }
}
