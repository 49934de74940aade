//! What answers look like in JSON: hits, and what ran.
//!
//! `topshelf search --json` and `POST /v1/search` answer with the same objects. Fields are only ever
//! added.

use schemars::JsonSchema;
use serde::Serialize;
use topshelf_core::context::{LeftOut, LeftOutReason};
use topshelf_core::report::Skipped;
use topshelf_core::second_stage::RERANK_STAGE;
use topshelf_core::{
    Context, Hit, Message, Metadata, Report, RetrieverOutcome, RetrieverReport, Source,
};
use utoipa::ToSchema;

/// One result.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, ToSchema)]
pub struct SearchHit {
    /// Its place, from 1.
    pub rank: usize,
    /// The passage's id.
    pub id: String,
    /// The document's id: its path or the record's own.
    pub document: String,
    /// The document's title.
    pub title: String,
    /// The headings above the passage, outermost first.
    pub headings: Vec<String>,
    /// The passage.
    pub text: String,
    /// Where it stands in the document's decoded text, in bytes.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// The document's own fields.
    #[schema(value_type = Object)]
    pub metadata: Metadata,
    /// The score by which it stands here.
    pub score: f32,
    /// What the score means: `bm25`, `cosine`, `rank`, `normalised`, `logit`. Not the same for all results
    /// where a reranker did not read all of them.
    pub scale: String,
    /// The probability that it is relevant, from the calibrated rerank score; absent where no
    /// reranker read the passage.
    pub relevance_score: Option<f32>,
    /// Whether the last reranker read it.
    pub reranked: bool,
    /// The bytes of `text` on which the rerank score rests; absent where that is all of it.
    pub span: Option<Span>,
    /// What every stage said of it, first stage first.
    pub signals: Vec<StageSignal>,
    /// With `--explain` and late interaction: which token answered which token of the query.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<TokenAnswer>,
}

/// A token of the query and the one of the passage that answers it best.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, ToSchema)]
pub struct TokenAnswer {
    /// The query's, as the model's vocabulary writes it.
    pub query: String,
    /// The passage's.
    pub passage: String,
    /// The bytes that it stands for in what the model reads: title and headings, a line break, the
    /// text; absent for a marker of the model's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
    /// What it adds to the score.
    pub similarity: f32,
}

/// Bytes of a text.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, ToSchema)]
pub struct Span {
    /// The first.
    pub start: usize,
    /// The one behind the last.
    pub end: usize,
}

/// What one stage said of a result.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, ToSchema)]
pub struct StageSignal {
    /// `bm25`, `dense`, `fused`, `rerank`.
    pub stage: String,
    /// What its score means.
    pub scale: String,
    /// Its score.
    pub score: f32,
    /// The place it gave the passage, from 1.
    pub rank: usize,
}

/// An LLM prompt.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, ToSchema)]
pub struct PromptAnswer {
    /// As one text.
    pub text: String,
    /// As chat messages.
    pub messages: Vec<ChatMessage>,
    /// The passages in it, under the numbers to cite.
    pub sources: Vec<PromptSource>,
    /// Tokens of the sources, four bytes counted as one.
    pub tokens: usize,
    /// Results that are not in it, and why.
    pub left_out: Vec<Notice>,
}

/// A chat message.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, ToSchema)]
pub struct ChatMessage {
    /// `system` or `user`.
    pub role: String,
    /// What is said.
    pub content: String,
}

/// A numbered source of a prompt.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, ToSchema)]
pub struct PromptSource {
    /// The number to cite.
    pub number: usize,
    /// The passage's id.
    pub id: String,
    /// The document's id.
    pub document: String,
    /// Whether the text was cut to fit.
    pub cut: bool,
}

/// What ran for a query.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, ToSchema)]
pub struct RunReport {
    /// The retrievers.
    pub retrievers: Vec<RetrieverRan>,
    /// How their rankings became one; absent for one retriever.
    pub fusion: Option<String>,
    /// The last reranker that ran; absent with `--rerank none` and where reranking was skipped.
    pub reranker: Option<RerankerRan>,
    /// The second stage; absent with `--rerank none`.
    pub second_stage: Option<SecondStageRan>,
    /// From query to answer.
    pub milliseconds: f64,
    /// The profile that took part.
    pub profile: Option<String>,
    /// What a reader has to know: what was skipped, cut, left unread or withheld, and what failed.
    pub notes: Vec<String>,
}

/// What a retriever did.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, ToSchema)]
pub struct RetrieverRan {
    /// `bm25`, `dense` or `colbert`.
    pub name: String,
    /// `found`, or why it has no part in the candidates: `nothing_to_look_up`, `failed`, `too_late`.
    pub outcome: String,
    /// Passages it found.
    pub found: usize,
    /// Why it had nothing to look up, or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long it took, or was waited for.
    pub milliseconds: f64,
}

/// What the second stage did.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, ToSchema)]
pub struct SecondStageRan {
    /// What the gate saw; absent without one.
    pub gate: Option<GateSaw>,
    /// Why nothing was reranked: `clear` (by the gate), `no_weight` (in the blend), `long_query` (by the default
    /// blend) or `failed` (no reranker answered); absent where reranking took place.
    pub skipped: Option<String>,
    /// The rerankers, in the order in which they ran.
    pub rerankers: Vec<RerankerRan>,
    /// Those that were asked and failed; another may have stood in for them.
    pub failures: Vec<RerankerFailed>,
    /// How the rerank score and the first stage's became one; absent without a blend.
    pub blend: Option<String>,
    /// What the rerank score counts, if that follows from the default rule and not from a choice.
    pub default_weight: Option<f32>,
    /// How scores became probabilities.
    pub calibration: String,
    /// What `--min-relevance` withheld; absent without it.
    pub threshold: Option<ThresholdWithheld>,
    /// What `--deadline` left unread; absent without it.
    pub deadline: Option<DeadlineKept>,
}

/// A reranker that was asked and did not answer, or not all of it in time.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, ToSchema)]
pub struct RerankerFailed {
    /// The model.
    pub model: String,
    /// Why; what its service said last, if that is why it was late.
    pub reason: String,
    /// What was spent on it all the same; absent where nothing was.
    pub usage: Option<UsageTold>,
    /// How long it was waited for.
    pub milliseconds: f64,
}

/// What the gate saw.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, ToSchema)]
pub struct GateSaw {
    /// The signal.
    pub signal: String,
    /// Its value; absent where these candidates do not have it.
    pub value: Option<f32>,
    /// From here on the first stage counts as clear.
    pub threshold: f32,
    /// Whether it did.
    pub clear: bool,
}

/// What a threshold withheld.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, ToSchema)]
pub struct ThresholdWithheld {
    /// The least probability of a result.
    pub min_relevance: f32,
    /// Candidates below it.
    pub below: usize,
    /// Candidates without a score.
    pub unscored: usize,
}

/// How a deadline was kept.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, ToSchema)]
pub struct DeadlineKept {
    /// What was allowed, in milliseconds.
    pub allowed: f64,
    /// Candidates that were not scored because of it; they keep the first stage's order.
    pub unscored: usize,
}

/// What a reranker did.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, ToSchema)]
pub struct RerankerRan {
    /// The model.
    pub model: String,
    /// Its fingerprint.
    pub fingerprint: String,
    /// What computed the scores: engine, version, precision, instruction set; and where the ONNX
    /// runtime was fallen back to, why.
    pub engine: String,
    /// What its scores mean: `logit`, `max_sim`, `probability`, `rank`, `service`.
    pub scale: String,
    /// Pairs scored.
    pub pairs: usize,
    /// Those of them whose score was in the cache.
    pub cached: usize,
    /// Candidates that were not reached before the deadline.
    pub unscored: usize,
    /// Candidates that could not enter the top any more.
    pub spared: usize,
    /// Tokens of the query it did not read.
    pub query_truncated_tokens: usize,
    /// Passages it did not read to the end.
    pub truncated: usize,
    /// Passages it could not score, and why; they stand behind the others.
    pub failed: Vec<Notice>,
    /// What was asked of a language model or a service; absent for other rerankers, and where all scores
    /// were known.
    pub usage: Option<UsageTold>,
    /// How long it took.
    pub milliseconds: f64,
}

/// What was asked of models and services that are paid by use.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, ToSchema)]
pub struct UsageTold {
    /// Calls that were answered.
    pub calls: u64,
    /// Tokens that were read.
    pub input_tokens: u64,
    /// Tokens that were written.
    pub output_tokens: u64,
    /// Searches, as some rerank services count.
    pub searches: u64,
    /// Answers that had to be repaired: an order that was not one of all passages, each once.
    pub repaired: u64,
    /// What it cost, in USD; absent where no price is known.
    pub cost: Option<f64>,
}

/// A file and what is to be said of it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, ToSchema)]
pub struct Notice {
    /// The file.
    pub path: String,
    /// What is to be said.
    pub message: String,
}

impl From<&std::ops::Range<usize>> for Span {
    fn from(range: &std::ops::Range<usize>) -> Self {
        Self { start: range.start, end: range.end }
    }
}

impl UsageTold {
    /// In a few words.
    pub fn in_words(&self) -> String {
        self.counts().to_string()
    }

    /// The mean of so many queries in a few words: money where prices are known, what is counted where
    /// not.
    pub fn of_each(&self, queries: usize) -> String {
        let queries = queries.max(1) as f64;
        if let Some(cost) = self.cost {
            let each = cost / queries;
            return format!("{each:.6} USD a query, {:.2} a thousand", each * 1e3);
        }
        let counted = [
            (self.calls, "calls"),
            (self.input_tokens, "tokens read"),
            (self.output_tokens, "written"),
            (self.searches, "searches"),
        ];
        let counted = counted.into_iter().filter(|(count, _)| *count > 0);
        let told: Vec<String> =
            counted.map(|(count, what)| format!("{:.1} {what}", count as f64 / queries)).collect();
        format!("{} a query", told.join(", "))
    }

    /// As the library counts it.
    fn counts(&self) -> topshelf_core::Usage {
        let Self { calls, input_tokens, output_tokens, searches, repaired, cost } = *self;
        let cost = cost.map(|dollars| (dollars * 1e9).round() as u64);
        topshelf_core::Usage { calls, input_tokens, output_tokens, searches, repaired, cost }
    }

    /// What was used, if anything was.
    pub fn of(usage: topshelf_core::Usage) -> Option<Self> {
        let topshelf_core::Usage { calls, input_tokens, output_tokens, searches, repaired, cost } =
            usage;
        let cost = cost.map(|nano| nano as f64 / 1e9);
        let told = Self { calls, input_tokens, output_tokens, searches, repaired, cost };
        (!usage.is_none()).then_some(told)
    }
}

impl From<&Report> for RunReport {
    fn from(report: &Report) -> Self {
        Self {
            retrievers: report.retrievers.iter().map(RetrieverRan::from).collect(),
            fusion: report.fusion.clone(),
            reranker: report
                .second_stage
                .as_ref()
                .and_then(|stage| stage.rerankers.last())
                .map(RerankerRan::from),
            second_stage: report.second_stage.as_ref().map(SecondStageRan::from),
            milliseconds: report.milliseconds,
            profile: None,
            notes: report.notes().iter().map(ToString::to_string).collect(),
        }
    }
}

impl From<&RetrieverReport> for RetrieverRan {
    fn from(report: &RetrieverReport) -> Self {
        let (outcome, reason) = match &report.outcome {
            RetrieverOutcome::Found { .. } => ("found", None),
            RetrieverOutcome::NothingToLookUp { reason } => ("nothing_to_look_up", Some(reason)),
            RetrieverOutcome::Failed { reason } => ("failed", Some(reason)),
            RetrieverOutcome::TooLate => ("too_late", None),
        };
        Self {
            name: report.name.clone(),
            outcome: outcome.to_owned(),
            found: report.found(),
            reason: reason.cloned(),
            milliseconds: report.milliseconds,
        }
    }
}

impl From<&topshelf_core::SecondStageReport> for SecondStageRan {
    fn from(report: &topshelf_core::SecondStageReport) -> Self {
        Self {
            gate: report.gate.as_ref().map(|gate| GateSaw {
                signal: gate.signal.clone(),
                value: gate.value,
                threshold: gate.threshold,
                clear: gate.clear,
            }),
            skipped: report.skipped.map(|skipped| match skipped {
                Skipped::Clear => "clear".to_owned(),
                Skipped::NoWeight => "no_weight".to_owned(),
                Skipped::LongQuery { .. } => "long_query".to_owned(),
                Skipped::Failed => "failed".to_owned(),
            }),
            rerankers: report.rerankers.iter().map(RerankerRan::from).collect(),
            failures: report
                .failures
                .iter()
                .map(|failure| RerankerFailed {
                    model: failure.model.clone(),
                    reason: failure.reason.clone(),
                    usage: UsageTold::of(failure.usage),
                    milliseconds: failure.milliseconds,
                })
                .collect(),
            blend: report.blend.clone(),
            default_weight: report.default_weight,
            calibration: report.calibration.clone(),
            threshold: report.threshold.as_ref().map(|threshold| ThresholdWithheld {
                min_relevance: threshold.min_relevance,
                below: threshold.below,
                unscored: threshold.unscored,
            }),
            deadline: report.deadline.as_ref().map(|deadline| DeadlineKept {
                allowed: deadline.allowed,
                unscored: deadline.unscored,
            }),
        }
    }
}

impl RerankerRan {
    /// A reranker that had nothing to do.
    pub fn idle(reranker: &dyn topshelf_core::Reranker) -> Self {
        let identity = reranker.identity();
        Self {
            model: identity.name.clone(),
            fingerprint: identity.fingerprint.clone(),
            engine: identity.engine.clone(),
            scale: reranker.scale().to_string(),
            pairs: 0,
            cached: 0,
            unscored: 0,
            spared: 0,
            query_truncated_tokens: 0,
            truncated: 0,
            failed: Vec::new(),
            usage: None,
            milliseconds: 0.0,
        }
    }
}

impl From<&topshelf_core::RerankReport> for RerankerRan {
    fn from(report: &topshelf_core::RerankReport) -> Self {
        Self {
            model: report.model.clone(),
            fingerprint: report.fingerprint.clone(),
            engine: report.engine.clone(),
            scale: report.scale.to_string(),
            pairs: report.pairs,
            cached: report.cached,
            unscored: report.unscored,
            spared: report.spared,
            query_truncated_tokens: report.query_truncated_tokens,
            truncated: report.truncated.len(),
            failed: report
                .failed
                .iter()
                .map(|failed| Notice {
                    path: failed.passage.clone(),
                    message: failed.reason.clone(),
                })
                .collect(),
            usage: UsageTold::of(report.usage),
            milliseconds: report.milliseconds,
        }
    }
}

impl SearchHit {
    /// A hit at a place; `scale` is that of the ranking it stands in.
    pub fn new(rank: usize, hit: &Hit, scale: topshelf_core::Scale) -> Self {
        let passage = &hit.passage;
        // One that the last stage has not scored stands with what an earlier one said.
        let scale = hit.signals.last().map_or(scale, |last| last.scale);
        Self {
            rank,
            id: passage.id.clone(),
            document: passage.document.clone(),
            title: passage.title.clone(),
            headings: passage.headings.clone(),
            text: passage.text.clone(),
            start: passage.range.start,
            end: passage.range.end,
            metadata: passage.metadata.clone(),
            score: hit.score,
            scale: scale.to_string(),
            relevance_score: hit.relevance,
            reranked: hit.signal(RERANK_STAGE).is_some(),
            span: hit.span.as_ref().map(Span::from),
            signals: hit
                .signals
                .iter()
                .map(|signal| StageSignal {
                    stage: signal.stage.clone(),
                    scale: signal.scale.to_string(),
                    score: signal.score,
                    rank: signal.rank,
                })
                .collect(),
            matches: Vec::new(),
        }
    }

    /// With what is known of its tokens.
    #[must_use]
    pub fn with_matches(mut self, matches: &[topshelf_core::TokenMatch]) -> Self {
        let answer = |found: &topshelf_core::TokenMatch| TokenAnswer {
            query: found.query.clone(),
            passage: found.passage.clone(),
            span: (!found.span.is_empty()).then(|| Span::from(&found.span)),
            similarity: found.similarity,
        };
        self.matches = matches.iter().map(answer).collect();
        self
    }
}

impl From<&Context> for PromptAnswer {
    fn from(context: &Context) -> Self {
        let message = |message: Message| ChatMessage {
            role: message.role.name().to_owned(),
            content: message.content,
        };
        let left_out = |out: &LeftOut| Notice {
            path: out.passage.clone(),
            message: match out.reason {
                LeftOutReason::NearDuplicate { of } => format!("repeats source {of}"),
                LeftOutReason::Budget { tokens } => {
                    format!("its {tokens} tokens do not fit into the budget")
                }
            },
        };
        Self {
            text: context.prompt(),
            messages: context.messages().into_iter().map(message).collect(),
            sources: context.sources.iter().map(PromptSource::from).collect(),
            tokens: context.tokens,
            left_out: context.left_out.iter().map(left_out).collect(),
        }
    }
}

impl From<&Source> for PromptSource {
    fn from(source: &Source) -> Self {
        Self {
            number: source.number,
            id: source.passage.clone(),
            document: source.document.clone(),
            cut: source.cut,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use topshelf_core::{Passage, Ranking, Scale};

    use super::*;

    #[test]
    fn a_score_has_the_scale_of_the_stage_that_gave_it() {
        let passage = |id: &str| Arc::new(Passage::standalone(id, "", id));
        let found = [(passage("a"), 7.0), (passage("b"), 5.0)];
        let ranking = Ranking::new("bm25", Scale::Bm25, found).unwrap();
        let ranking = ranking.rescored(RERANK_STAGE, Scale::Logit, &[None, Some(-1.5)]).unwrap();
        let hits: Vec<SearchHit> =
            ranking.hits().iter().map(|hit| SearchHit::new(1, hit, ranking.scale())).collect();
        let told = |hit: &SearchHit| (hit.id.clone(), hit.score, hit.scale.clone(), hit.reranked);
        assert_eq!(told(&hits[0]), ("b".to_owned(), -1.5, "logit".to_owned(), true));
        assert_eq!(told(&hits[1]), ("a".to_owned(), 7.0, "bm25".to_owned(), false));
    }
}
