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
    /// What came of it.
    pub outcome: RetrieverOutcome,
    /// How long it took, or was waited for.
    pub milliseconds: f64,
}

/// What came of asking a retriever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetrieverOutcome {
    /// It answered.
    Found {
        /// Passages it found.
        passages: usize,
    },
    /// The query leaves it nothing to search for.
    NothingToLookUp {
        /// Why.
        reason: String,
    },
    /// It failed.
    Failed {
        /// Why.
        reason: String,
    },
    /// It had not answered when the time for it was over.
    TooLate,
}

impl RetrieverReport {
    /// Passages it found; 0 if it has not answered.
    pub fn found(&self) -> usize {
        match self.outcome {
            RetrieverOutcome::Found { passages } => passages,
            _ => 0,
        }
    }

    /// Why it has no part in the candidates, in words; `None` if it answered.
    fn why_missing(&self) -> Option<String> {
        let Self { name, outcome, milliseconds } = self;
        match outcome {
            RetrieverOutcome::Found { .. } => None,
            RetrieverOutcome::NothingToLookUp { reason } => {
                Some(format!("{name} has nothing to look up ({reason})"))
            }
            RetrieverOutcome::Failed { reason } => Some(format!("{name} failed: {reason}")),
            RetrieverOutcome::TooLate => {
                Some(format!("{name} did not answer within {milliseconds:.0} ms"))
            }
        }
    }
}

/// What a reader of the results has to know of the first stage without asking: a sentence for each
/// retriever that has no part in the candidates.
///
/// ```
/// use topshelf_core::{RetrieverOutcome, RetrieverReport, report};
/// let ran = |name: &str, outcome| {
///     RetrieverReport { name: name.to_owned(), outcome, milliseconds: 20.0 }
/// };
/// let reports =
///     [ran("bm25", RetrieverOutcome::Found { passages: 3 }), ran("dense", RetrieverOutcome::TooLate)];
/// assert_eq!(
///     report::retrieval_notes(&reports),
///     ["dense did not answer within 20 ms; the candidates are from bm25 alone"]
/// );
/// ```
pub fn retrieval_notes(retrievers: &[RetrieverReport]) -> Vec<String> {
    let answered: Vec<&str> = retrievers
        .iter()
        .filter(|own| matches!(own.outcome, RetrieverOutcome::Found { .. }))
        .map(|own| own.name.as_str())
        .collect();
    let of = match answered.as_slice() {
        [only] => format!("{only} alone"),
        several => several.join(" and "),
    };
    let missing = retrievers.iter().filter_map(RetrieverReport::why_missing);
    missing.map(|why| format!("{why}; the candidates are from {of}")).collect()
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
