//! What `eval`, `eval --compare` and `demo` answer.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::{IndexTotals, UsageTold};

/// What `eval` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct EvalAnswer {
    /// The collection, or the run file.
    pub(crate) data: String,
    /// Judged queries.
    pub(crate) queries: usize,
    /// Candidates for each query; absent for a run that was only measured.
    pub(crate) depth: Option<usize>,
    /// The bi-encoder, if one took part.
    pub(crate) embedder: Option<String>,
    /// The cross-encoder, if one took part.
    pub(crate) reranker: Option<String>,
    /// The first measure, in which differences are told.
    pub(crate) measure: String,
    /// What was compared.
    pub(crate) systems: Vec<SystemMeasured>,
    /// What reranking changed, for each reranked system against the same without.
    pub(crate) differences: Vec<SystemDifference>,
    /// What was odd in qrels and runs.
    pub(crate) warnings: Vec<String>,
    /// The profile that took part.
    pub(crate) profile: Option<String>,
}

/// One system's figures.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SystemMeasured {
    /// Its name.
    pub(crate) name: String,
    /// The mean of each measure over all judged queries.
    pub(crate) measures: BTreeMap<String, f64>,
    /// Time for a query; absent where a run file was measured.
    pub(crate) latency_ms: Option<LatencyMs>,
    /// The first measure of each judged query.
    pub(crate) per_query: BTreeMap<String, f64>,
    /// What its second stage did; absent for a system without one.
    pub(crate) second_stage: Option<SecondStageMeasured>,
}

/// What a second stage did to the order of the first, over all queries.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SecondStageMeasured {
    /// Milliseconds of each part, in the order in which they ran.
    pub(crate) latency: Vec<StageLatency>,
    /// Pairs scored, mean of a query.
    pub(crate) pairs: f64,
    /// Passages that were longer than the reranker reads, mean of a query.
    pub(crate) truncated: f64,
    /// Candidates that were not reached before the deadline, mean of a query.
    pub(crate) unscored: f64,
    /// What all queries together took of models and services that are paid by use; absent where nothing
    /// was.
    pub(crate) usage: Option<UsageTold>,
    /// Queries of which nothing was reranked.
    pub(crate) skipped: usize,
    /// Each measure of the candidates as the first stage ordered them.
    pub(crate) before: BTreeMap<String, f64>,
    /// Each measure of the same candidates in the best order that the judgments know.
    pub(crate) ceiling: BTreeMap<String, f64>,
    /// The cut of `moves`.
    pub(crate) k: usize,
    /// What came into the first `k` and what went out.
    pub(crate) moves: Moves,
    /// How many queries gained and lost in the first measure.
    pub(crate) queries: QueriesChanged,
    /// The queries that lost most.
    pub(crate) losers: Vec<Loser>,
    /// Recall at each of some depths, before and after.
    pub(crate) recall: Vec<RecallAt>,
    /// How the rerank score holds as a probability; absent for scores that have none.
    pub(crate) calibration: Option<Calibrated>,
    /// What the gate's signal does at other thresholds; empty for a system without a gate, and where
    /// the same system without it was not measured.
    pub(crate) gate: Vec<GateAt>,
}

/// Recall at a depth.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RecallAt {
    /// The depth.
    pub(crate) k: usize,
    /// Of the candidates as the first stage ordered them.
    pub(crate) before: f64,
    /// Of the answer.
    pub(crate) after: f64,
}

/// How a probability holds.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Calibrated {
    /// How it is made of the score.
    pub(crate) by: String,
    /// Expected calibration error, 0 to 1.
    pub(crate) error: f64,
    /// Pairs; those that nobody judged count as not relevant.
    pub(crate) pairs: usize,
    /// Pairs, mean probability, share relevant; from low to high.
    pub(crate) bins: Vec<(usize, f64, f64)>,
}

/// What a gate does at a threshold.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct GateAt {
    /// From here on reranking is skipped.
    pub(crate) threshold: f32,
    /// The share of queries that skips it.
    pub(crate) skipped: f64,
    /// The first measure.
    pub(crate) mean: f64,
    /// The first measure where as many queries skip at random.
    pub(crate) mean_at_random: f64,
}

/// The time of one part.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StageLatency {
    /// `bm25`, `dense`, `rerank`.
    pub(crate) stage: String,
    /// The median.
    pub(crate) p50: f64,
    /// One query in twenty takes longer.
    pub(crate) p95: f64,
}

/// How documents moved at a cut.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Moves {
    /// Relevant, brought in.
    pub(crate) promoted: usize,
    /// Relevant, pushed out.
    pub(crate) demoted: usize,
    /// Relevant, in both times, now higher.
    pub(crate) raised: usize,
    /// Relevant, in both times, now lower.
    pub(crate) lowered: usize,
    /// Relevant, in both times, at the same place.
    pub(crate) kept: usize,
    /// All documents that are new, relevant or not.
    pub(crate) exchanged: usize,
}

/// How many queries gained and lost.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct QueriesChanged {
    /// Gained.
    pub(crate) better: usize,
    /// Lost.
    pub(crate) worse: usize,
    /// Neither.
    pub(crate) same: usize,
}

impl QueriesChanged {
    /// All that were asked, each once.
    pub(crate) fn all(&self) -> usize {
        self.better + self.worse + self.same
    }
}

/// A query that lost by reranking.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Loser {
    /// Its id.
    pub(crate) query: String,
    /// Its text.
    pub(crate) text: String,
    /// The first measure before.
    pub(crate) before: f64,
    /// And after.
    pub(crate) after: f64,
    /// Relevant documents that fell, and what stands first now if it is not relevant.
    pub(crate) documents: Vec<LoserDocument>,
}

/// A document of a query that lost.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LoserDocument {
    /// Its id.
    pub(crate) id: String,
    /// Its grade; absent if nobody judged it.
    pub(crate) grade: Option<i32>,
    /// Its place before, from 1.
    pub(crate) before: usize,
    /// Its place after; absent if it is not in the answer.
    pub(crate) after: Option<usize>,
    /// The beginning of its text.
    pub(crate) text: String,
}

/// Milliseconds for a query.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LatencyMs {
    /// The median.
    pub(crate) p50: f64,
    /// One query in twenty takes longer.
    pub(crate) p95: f64,
    /// One query in a hundred takes longer.
    pub(crate) p99: f64,
    /// The mean.
    pub(crate) mean: f64,
}

/// What reranking changed.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SystemDifference {
    /// The reranked system.
    pub(crate) system: String,
    /// The system without reranking.
    pub(crate) baseline: String,
    /// The measure.
    pub(crate) measure: String,
    /// Mean difference over the queries.
    pub(crate) mean: f64,
    /// Lower end of the bootstrap 95 percent interval.
    pub(crate) low: f64,
    /// Upper end.
    pub(crate) high: f64,
    /// Two-sided p of the paired randomisation test.
    pub(crate) p: f64,
    /// `helps`, `hurts`, or `cannot be told apart`.
    pub(crate) verdict: String,
}

/// What `eval --compare` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct EvalCompared {
    /// What was measured the first time.
    pub(crate) before: String,
    /// And the second time.
    pub(crate) after: String,
    /// The measure in which differences are told.
    pub(crate) measure: String,
    /// The systems that both have.
    pub(crate) systems: Vec<SystemChange>,
    /// Systems that only the first has.
    pub(crate) only_before: Vec<String>,
    /// Systems that only the second has.
    pub(crate) only_after: Vec<String>,
}

/// How a system changed.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SystemChange {
    /// Its name.
    pub(crate) name: String,
    /// Each measure that both have.
    pub(crate) measures: BTreeMap<String, FigureChange>,
    /// The median time of a query in milliseconds; absent where one has none.
    pub(crate) p50_ms: Option<FigureChange>,
    /// Mean difference over the queries.
    pub(crate) mean: f64,
    /// Lower end of the bootstrap 95 percent interval.
    pub(crate) low: f64,
    /// Upper end.
    pub(crate) high: f64,
    /// Two-sided p of the paired randomisation test.
    pub(crate) p: f64,
    /// Queries that gained.
    pub(crate) better: usize,
    /// Queries that lost.
    pub(crate) worse: usize,
    /// `better`, `worse`, or `cannot be told apart`.
    pub(crate) verdict: String,
}

/// A figure before and after.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FigureChange {
    /// Before.
    pub(crate) before: f64,
    /// After.
    pub(crate) after: f64,
}

/// What `demo` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DemoAnswer {
    /// What was indexed, in words; with `--folder` the folder.
    pub(crate) collection: String,
    /// Packages whose documentation was indexed; 0 with `--folder`.
    pub(crate) packages: usize,
    /// Packages of Cargo.lock that are not in cargo's registry folder.
    pub(crate) packages_missing: usize,
    /// Documents and passages.
    pub(crate) totals: IndexTotals,
    /// The figures; absent with `--folder` and where no judged question can be answered.
    pub(crate) evaluation: Option<EvalAnswer>,
    /// Questions that an earlier run had measured, with the times of then.
    pub(crate) resumed: usize,
    /// One query before and after reranking.
    pub(crate) example: DemoExample,
}

/// One query before and after reranking.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DemoExample {
    /// The query.
    pub(crate) query: String,
    /// Passages that it was asked of.
    pub(crate) passages: u64,
    /// Candidates that were reranked.
    pub(crate) candidates: usize,
    /// Tokens that the reranker read.
    pub(crate) tokens: u64,
    /// What each stage took.
    pub(crate) stages: Vec<DemoStage>,
    /// The first places after reranking.
    pub(crate) hits: Vec<DemoMove>,
    /// What changed and why, in sentences.
    pub(crate) conclusion: Vec<String>,
}

/// The time of one stage.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DemoStage {
    /// `bm25`, `dense`, `hybrid`, `rerank`.
    pub(crate) stage: String,
    /// How long it took.
    pub(crate) milliseconds: f64,
}

/// A passage's place before and after.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DemoMove {
    /// The passage's id.
    pub(crate) id: String,
    /// Its place by words, from 1; absent where BM25 did not find it.
    pub(crate) by_words: Option<usize>,
    /// Its place by meaning, from 1; absent where the bi-encoder did not find it.
    pub(crate) by_meaning: Option<usize>,
    /// Its place before reranking, from 1.
    pub(crate) before: usize,
    /// Its place after.
    pub(crate) after: usize,
    /// Its cross-encoder score.
    pub(crate) score: f32,
    /// The probability that it is relevant, as the reranker's score has it.
    pub(crate) relevance: Option<f32>,
    /// Whether it was judged to answer; absent for a query without judgments.
    pub(crate) relevant: Option<bool>,
    /// The beginning of its text.
    pub(crate) text: String,
}
