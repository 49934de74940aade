//! What ran for one query: [`Report`].
//!
//! Nothing degrades in silence: what was skipped, cut, left unread or withheld stands here with its
//! count and its reason. Times are wall-clock milliseconds.

use serde::{Deserialize, Serialize};

use crate::gate::GateReport;
use crate::language_model::Usage;
use crate::score::Scale;
use crate::stage::ModelIdentity;

/// What ran for one query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The retrievers, in their order.
    pub retrievers: Vec<RetrieverReport>,
    /// The fusion, if there was more than one retriever.
    pub fusion: Option<String>,
    /// The second stage, if there was one.
    pub second_stage: Option<SecondStageReport>,
    /// From query to answer.
    pub milliseconds: f64,
}

/// What one retriever did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetrieverReport {
    /// Its name.
    pub name: String,
    /// Passages it found.
    pub found: usize,
    /// How long it took.
    pub milliseconds: f64,
}

/// What the second stage did for one query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SecondStageReport {
    /// What the gate saw, if there is one.
    pub gate: Option<GateReport>,
    /// Why nothing was reranked, if nothing was.
    pub skipped: Option<Skipped>,
    /// The rerankers that ran, in their order.
    pub rerankers: Vec<RerankReport>,
    /// Those that were asked and failed, in their order.
    pub failures: Vec<RerankFailure>,
    /// The blend, if there is one.
    pub blend: Option<String>,
    /// The weight of the rerank score, if the default rule chose it.
    pub default_weight: Option<f32>,
    /// How scores became probabilities.
    pub calibration: String,
    /// What the threshold withheld, if there is one.
    pub threshold: Option<ThresholdReport>,
    /// What the deadline left unread, if there is one.
    pub deadline: Option<DeadlineReport>,
}

/// Why nothing was reranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skipped {
    /// The gate found the first stage clear.
    Clear,
    /// The blend gives the reranker no weight: on the queries it was fitted on, reranking hurt.
    NoWeight,
    /// By the default rule, since the query has many tokens.
    LongQuery {
        /// The query's tokens, as the reranker counts them.
        tokens: usize,
    },
    /// Every reranker failed.
    Failed,
}

/// A reranker that was asked and did not answer, or not all of it in time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RerankFailure {
    /// The model.
    pub model: String,
    /// Why.
    pub reason: String,
    /// What was spent on it all the same.
    pub usage: Usage,
    /// How long it was waited for.
    pub milliseconds: f64,
}

impl SecondStageReport {
    /// The reranker whose scores decided: the last one that scored anything, which after a failover is
    /// the one that stood in. `None` where no passage has a score.
    pub fn answered_by(&self) -> Option<&RerankReport> {
        self.rerankers.iter().rev().find(|ran| ran.pairs > 0)
    }

    /// What was asked of models that are paid by use, of those that failed too.
    pub fn usage(&self) -> Usage {
        let ran = self.rerankers.iter().map(|ran| ran.usage);
        let mut all = Usage::default();
        ran.chain(self.failures.iter().map(|failed| failed.usage)).for_each(|usage| all += usage);
        all
    }
}

/// What one reranker did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RerankReport {
    /// The model.
    pub model: String,
    /// Its fingerprint.
    pub fingerprint: String,
    /// What computed it.
    pub engine: String,
    /// The scale of its scores.
    pub scale: Scale,
    /// The name of its signals: `rerank`, or `rerank-1` for the first of a cascade.
    pub stage: String,
    /// Pairs it scored.
    pub pairs: usize,
    /// Those of them whose score was known already.
    pub cached: usize,
    /// Candidates it was to score and did not reach before the deadline.
    pub unscored: usize,
    /// Candidates that could not enter the top any more and were not scored.
    pub spared: usize,
    /// Tokens of the query that it did not read.
    pub query_truncated_tokens: usize,
    /// Passages of which it did not read all.
    pub truncated: Vec<Truncated>,
    /// Passages it could not score; they stand behind the others in the order they had.
    pub failed: Vec<Failed>,
    /// What was asked of models that are paid by use.
    pub usage: Usage,
    /// Whether it is another model than the one that the setup was made with.
    #[serde(default)]
    pub is_changed: bool,
    /// How long it took.
    pub milliseconds: f64,
}

impl RerankReport {
    /// Which model it was.
    pub fn identity(&self) -> ModelIdentity {
        let Self { model, fingerprint, engine, .. } = self;
        ModelIdentity {
            name: model.clone(),
            fingerprint: fingerprint.clone(),
            engine: engine.clone(),
        }
    }
}

/// A passage that did not fit into the reranker's window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truncated {
    /// The passage's id.
    pub passage: String,
    /// Tokens that were not read.
    pub tokens: usize,
}

/// A passage without a score from the reranker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The passage's id.
    pub passage: String,
    /// Why.
    pub reason: String,
}

/// What a threshold withheld.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ThresholdReport {
    /// The least probability of a result.
    pub min_relevance: f32,
    /// Candidates below it.
    pub below: usize,
    /// Candidates without a score, of which nothing is known.
    pub unscored: usize,
}

/// How a deadline was kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadlineReport {
    /// What was allowed, in milliseconds.
    pub allowed: f64,
    /// Candidates that were not scored because of it.
    pub unscored: usize,
}
