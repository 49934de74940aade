//! What the commands answer with `--json`: one object each.
//!
//! The schemas in docs/schema are generated from these types; a test (`schemas.rs`) holds the two
//! together. Fields are only ever added.

pub(crate) mod tuned;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use topshelf::report::Skipped;
use topshelf::second_stage::RERANK_STAGE;
use topshelf::{Hit, Metadata, Report};

/// What `models list` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ModelsList {
    /// The folder of the model store.
    pub(crate) store: String,
    /// The known models.
    pub(crate) models: Vec<ListedModel>,
}

/// One line of `models list`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ListedModel {
    /// The name by which it is loaded.
    pub(crate) name: String,
    /// Shorter names.
    pub(crate) aliases: Vec<String>,
    /// `cross-encoder`, `bi-encoder` or `late-interaction`.
    pub(crate) family: String,
    /// SPDX expression.
    pub(crate) licence: String,
    /// Whether its files are on this machine.
    pub(crate) pulled: bool,
    /// Bytes of its files.
    pub(crate) bytes: u64,
    /// One sentence.
    pub(crate) description: String,
}

/// What `models show` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ModelShown {
    /// The model.
    #[serde(flatten)]
    pub(crate) model: ListedModel,
    /// Languages as ISO 639-1 codes, or `multilingual`.
    pub(crate) language: String,
    /// The longest sequence it reads, in tokens.
    pub(crate) max_tokens: usize,
    /// The length of a bi-encoder's vectors.
    pub(crate) dimension: Option<usize>,
    /// How a bi-encoder makes one vector of a sequence: `cls` or `mean`.
    pub(crate) pooling: Option<String>,
    /// Written before a query.
    pub(crate) query_prefix: String,
    /// Written before a passage.
    pub(crate) passage_prefix: String,
    /// Where its files lie; absent if they are not on this machine.
    pub(crate) folder: Option<String>,
    /// SHA-256 over weights, tokenizer and settings; absent if it is not on this machine.
    pub(crate) fingerprint: Option<String>,
    /// Its files.
    pub(crate) files: Vec<ModelFile>,
    /// Where it can be had, preferred first.
    pub(crate) sources: Vec<String>,
}

/// A file of a model.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ModelFile {
    /// Its name.
    pub(crate) name: String,
    /// Its length.
    pub(crate) bytes: u64,
    /// Of its content, in hex.
    pub(crate) sha256: String,
}

/// What `models pull` and `models verify` answer.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ModelsDone {
    /// The models, in the order they were asked for.
    pub(crate) models: Vec<ModelDone>,
}

/// One model of `models pull` or `models verify`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ModelDone {
    /// Its name.
    pub(crate) name: String,
    /// Where its files lie.
    pub(crate) folder: String,
    /// SHA-256 over weights, tokenizer and settings.
    pub(crate) fingerprint: String,
}

/// What `index add` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct IndexAdded {
    /// Files that are new in the index.
    pub(crate) files_added: usize,
    /// Files whose content replaced an older one.
    pub(crate) files_updated: usize,
    /// Files that were as they are in the index.
    pub(crate) files_unchanged: usize,
    /// Files removed because they have vanished.
    pub(crate) files_removed: usize,
    /// Documents added.
    pub(crate) documents: u64,
    /// Passages added.
    pub(crate) passages: u64,
    /// What was not indexed, and why.
    pub(crate) skipped: Vec<Notice>,
    /// What was indexed, but not quite as it stands.
    pub(crate) warnings: Vec<Notice>,
    /// The index as it is now.
    pub(crate) totals: IndexTotals,
    /// How long it took.
    pub(crate) milliseconds: f64,
}

/// A file and what is to be said of it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Notice {
    /// The file.
    pub(crate) path: String,
    /// What is to be said.
    pub(crate) message: String,
}

/// Sums over an index.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct IndexTotals {
    /// Documents.
    pub(crate) documents: u64,
    /// Passages.
    pub(crate) passages: u64,
}

/// What `index remove` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct IndexRemoved {
    /// Files removed from the index.
    pub(crate) files_removed: usize,
    /// The index as it is now.
    pub(crate) totals: IndexTotals,
}

/// What `index stats` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct IndexStats {
    /// The folder.
    pub(crate) index: String,
    /// The format of its files.
    pub(crate) format: u32,
    /// Files that documents came from.
    pub(crate) files: usize,
    /// Documents and passages.
    pub(crate) totals: IndexTotals,
    /// Bytes of the whole folder.
    pub(crate) bytes: u64,
    /// Stemming and stop words.
    pub(crate) language: String,
    /// The bi-encoder; absent for an index of words alone.
    pub(crate) embedder: Option<String>,
    /// `int8` or `f32`.
    pub(crate) vectors: String,
    /// Vectors of removed passages still on disk.
    pub(crate) removed_vectors: usize,
    /// Vectors in the neighbour graph; 0 where every search looks at all vectors.
    pub(crate) graph_vectors: usize,
    /// What is kept of tokens for late interaction; absent where nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_vectors: Option<TokenVectorsKept>,
    /// With `--files`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) listing: Option<Vec<IndexedFile>>,
    /// With `--check`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) check: Option<IndexCheck>,
}

/// The token vectors of an index.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TokenVectorsKept {
    /// The late-interaction model.
    pub(crate) model: String,
    /// `f16`, `int8`, `4bit` or `2bit`.
    pub(crate) tier: String,
    /// The length of a vector.
    pub(crate) dimension: usize,
    /// How many, those of removed passages included.
    pub(crate) vectors: u64,
    /// Bytes on disk for each.
    pub(crate) bytes_per_vector: f64,
    /// Centroids by which passages are found, and against which 4bit and 2bit are stored; 0 in indexes
    /// that have none yet.
    pub(crate) centroids: usize,
    /// How many times worse the centroids meet what was added after they were learnt; absent where
    /// nothing was. Far above 1, a new index is better.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) drift: Option<f64>,
}

impl TokenVectorsKept {
    /// One line for a person.
    pub(crate) fn describe(&self) -> String {
        let Self { model, tier, vectors, bytes_per_vector, centroids, drift, .. } = self;
        let mut text = format!("{vectors} of {model} as {tier}, {bytes_per_vector:.1} bytes each");
        if *centroids > 0 {
            let _ = write!(text, ", with {centroids} centroids"); // a string takes all
        }
        if let Some(drift) = drift {
            let _ = write!(text, "; what was added later is met {drift:.2} times as badly");
        }
        text
    }
}

/// A file in the index.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct IndexedFile {
    /// Its path as it was added.
    pub(crate) id: String,
    /// Its absolute path.
    pub(crate) path: String,
    /// Documents from it.
    pub(crate) documents: u64,
    /// Passages from it.
    pub(crate) passages: u64,
}

/// What `index stats --check` found; damage is an error instead.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct IndexCheck {
    /// Every checksum matched.
    pub(crate) checksums: bool,
    /// Recall of approximate against exact dense search; absent where every search is exact.
    pub(crate) recall: Option<GraphRecall>,
}

/// Recall of approximate dense search.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct GraphRecall {
    /// Stored vectors that were searched for.
    pub(crate) queries: usize,
    /// Neighbours compared.
    pub(crate) depth: usize,
    /// Mean share found, 0 to 1.
    pub(crate) mean: f64,
    /// The worst query's share.
    pub(crate) worst: f64,
}

/// What `search` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SearchAnswer {
    /// The query.
    pub(crate) query: String,
    /// The results, best first; empty with `--prompt`, where the sources are in `prompt`.
    pub(crate) hits: Vec<SearchHit>,
    /// With `--prompt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt: Option<PromptAnswer>,
    /// What ran.
    pub(crate) report: RunReport,
}

/// One result.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SearchHit {
    /// Its place, from 1.
    pub(crate) rank: usize,
    /// The passage's id.
    pub(crate) id: String,
    /// The document's id: its path or the record's own.
    pub(crate) document: String,
    /// The document's title.
    pub(crate) title: String,
    /// The headings above the passage, outermost first.
    pub(crate) headings: Vec<String>,
    /// The passage.
    pub(crate) text: String,
    /// Where it stands in the document's decoded text, in bytes.
    pub(crate) start: usize,
    /// Where it ends.
    pub(crate) end: usize,
    /// The document's own fields.
    pub(crate) metadata: Metadata,
    /// The score by which it stands here.
    pub(crate) score: f32,
    /// What the score means: `bm25`, `cosine`, `rank`, `normalised`, `logit`.
    pub(crate) scale: String,
    /// The probability that it is relevant, from the calibrated rerank score; absent where no
    /// reranker read the passage.
    pub(crate) relevance_score: Option<f32>,
    /// Whether the last reranker read it.
    pub(crate) reranked: bool,
    /// The bytes of `text` on which the rerank score rests; absent where that is all of it.
    pub(crate) span: Option<Span>,
    /// What every stage said of it, first stage first.
    pub(crate) signals: Vec<StageSignal>,
    /// With `--explain` and late interaction: which token answered which token of the query.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) matches: Vec<TokenAnswer>,
}

/// A token of the query and the one of the passage that answers it best.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TokenAnswer {
    /// The query's, as the model's vocabulary writes it.
    pub(crate) query: String,
    /// The passage's.
    pub(crate) passage: String,
    /// The bytes that it stands for in what the model reads: title and headings, a line break, the
    /// text; absent for a marker of the model's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) span: Option<Span>,
    /// What it adds to the score.
    pub(crate) similarity: f32,
}

/// Bytes of a text.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Span {
    /// The first.
    pub(crate) start: usize,
    /// The one behind the last.
    pub(crate) end: usize,
}

impl From<&std::ops::Range<usize>> for Span {
    fn from(range: &std::ops::Range<usize>) -> Self {
        Self { start: range.start, end: range.end }
    }
}

/// What one stage said of a result.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StageSignal {
    /// `bm25`, `dense`, `fused`, `rerank`.
    pub(crate) stage: String,
    /// What its score means.
    pub(crate) scale: String,
    /// Its score.
    pub(crate) score: f32,
    /// The place it gave the passage, from 1.
    pub(crate) rank: usize,
}

/// An LLM prompt.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PromptAnswer {
    /// As one text.
    pub(crate) text: String,
    /// As chat messages.
    pub(crate) messages: Vec<ChatMessage>,
    /// The passages in it, under the numbers to cite.
    pub(crate) sources: Vec<PromptSource>,
    /// Tokens of the sources, four bytes counted as one.
    pub(crate) tokens: usize,
    /// Results that are not in it, and why.
    pub(crate) left_out: Vec<Notice>,
}

/// A chat message.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ChatMessage {
    /// `system` or `user`.
    pub(crate) role: String,
    /// What is said.
    pub(crate) content: String,
}

/// What `ask` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AskAnswer {
    /// The question.
    pub(crate) question: String,
    /// What the model wrote; empty where nothing was found to answer from.
    pub(crate) answer: String,
    /// The model.
    pub(crate) model: String,
    /// The passages that it was given, under the numbers to cite.
    pub(crate) sources: Vec<PromptSource>,
    /// The numbers of sources that the answer cites, in its order.
    pub(crate) cited: Vec<usize>,
    /// Numbers that the answer cites and that are of no source.
    pub(crate) unknown_citations: Vec<usize>,
    /// What the answer took; absent where the model was not asked.
    pub(crate) usage: Option<UsageTold>,
    /// What ran to find the passages.
    pub(crate) report: RunReport,
}

/// A numbered source of a prompt.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PromptSource {
    /// The number to cite.
    pub(crate) number: usize,
    /// The passage's id.
    pub(crate) id: String,
    /// The document's id.
    pub(crate) document: String,
    /// Whether the text was cut to fit.
    pub(crate) cut: bool,
}

/// What ran for a query.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RunReport {
    /// The retrievers.
    pub(crate) retrievers: Vec<RetrieverRan>,
    /// How their rankings became one; absent for one retriever.
    pub(crate) fusion: Option<String>,
    /// The last reranker that ran; absent with `--rerank none` and where reranking was skipped.
    pub(crate) reranker: Option<RerankerRan>,
    /// The second stage; absent with `--rerank none`.
    pub(crate) second_stage: Option<SecondStageRan>,
    /// From query to answer.
    pub(crate) milliseconds: f64,
    /// The profile that took part.
    pub(crate) profile: Option<String>,
}

/// What a retriever did.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RetrieverRan {
    /// `bm25` or `dense`.
    pub(crate) name: String,
    /// Passages it found.
    pub(crate) found: usize,
    /// How long it took.
    pub(crate) milliseconds: f64,
}

/// What the second stage did.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SecondStageRan {
    /// What the gate saw; absent without one.
    pub(crate) gate: Option<GateSaw>,
    /// Why nothing was reranked: `clear` (by the gate), `no_weight` (in the blend) or `failed` (no
    /// reranker answered); absent where reranking took place.
    pub(crate) skipped: Option<String>,
    /// The rerankers, in the order in which they ran.
    pub(crate) rerankers: Vec<RerankerRan>,
    /// Those that were asked and failed; another may have stood in for them.
    pub(crate) failures: Vec<RerankerFailed>,
    /// How the rerank score and the first stage's became one; absent without a blend.
    pub(crate) blend: Option<String>,
    /// How scores became probabilities.
    pub(crate) calibration: String,
    /// What `--min-relevance` withheld; absent without it.
    pub(crate) threshold: Option<ThresholdWithheld>,
    /// What `--deadline` left unread; absent without it.
    pub(crate) deadline: Option<DeadlineKept>,
}

/// A reranker that was asked and did not answer.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RerankerFailed {
    /// The model.
    pub(crate) model: String,
    /// Why.
    pub(crate) reason: String,
    /// How long it was waited for.
    pub(crate) milliseconds: f64,
}

/// What the gate saw.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct GateSaw {
    /// The signal.
    pub(crate) signal: String,
    /// Its value; absent where these candidates do not have it.
    pub(crate) value: Option<f32>,
    /// From here on the first stage counts as clear.
    pub(crate) threshold: f32,
    /// Whether it did.
    pub(crate) clear: bool,
}

/// What a threshold withheld.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ThresholdWithheld {
    /// The least probability of a result.
    pub(crate) min_relevance: f32,
    /// Candidates below it.
    pub(crate) below: usize,
    /// Candidates without a score.
    pub(crate) unscored: usize,
}

/// How a deadline was kept.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DeadlineKept {
    /// What was allowed, in milliseconds.
    pub(crate) allowed: f64,
    /// Candidates that were not scored because of it; they keep the first stage's order.
    pub(crate) unscored: usize,
}

/// What a reranker did.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RerankerRan {
    /// The model.
    pub(crate) model: String,
    /// Its fingerprint.
    pub(crate) fingerprint: String,
    /// What computed the scores: engine, version, precision, instruction set; and where the ONNX
    /// runtime was fallen back to, why.
    pub(crate) engine: String,
    /// Pairs scored.
    pub(crate) pairs: usize,
    /// Those of them whose score was in the cache.
    pub(crate) cached: usize,
    /// Candidates that were not reached before the deadline.
    pub(crate) unscored: usize,
    /// Candidates that could not enter the top any more.
    pub(crate) spared: usize,
    /// Tokens of the query it did not read.
    pub(crate) query_truncated_tokens: usize,
    /// Passages it did not read to the end.
    pub(crate) truncated: usize,
    /// Passages it could not score, and why; they stand behind the others.
    pub(crate) failed: Vec<Notice>,
    /// What was asked of a language model or a service; absent for other rerankers, and where all scores
    /// were known.
    pub(crate) usage: Option<UsageTold>,
    /// How long it took.
    pub(crate) milliseconds: f64,
}

/// What was asked of models and services that are paid by use.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct UsageTold {
    /// Calls that were answered.
    pub(crate) calls: u64,
    /// Tokens that were read.
    pub(crate) input_tokens: u64,
    /// Tokens that were written.
    pub(crate) output_tokens: u64,
    /// Searches, as some rerank services count.
    pub(crate) searches: u64,
    /// Answers that had to be repaired: an order that was not one of all passages, each once.
    pub(crate) repaired: u64,
    /// What it cost, in USD; absent where no price is known.
    pub(crate) cost: Option<f64>,
}

impl UsageTold {
    /// In a few words.
    pub(crate) fn in_words(&self) -> String {
        let mut words = vec![format!("{} calls", self.calls)];
        let counted = [
            (self.input_tokens, "tokens read"),
            (self.output_tokens, "written"),
            (self.searches, "searches"),
            (self.repaired, "answers repaired"),
        ];
        let counted = counted.into_iter().filter(|(count, _)| *count > 0);
        words.extend(counted.map(|(count, what)| format!("{count} {what}")));
        words.extend(self.cost.map(|cost| format!("{cost:.6} USD")));
        words.join(", ")
    }

    pub(crate) fn of(usage: topshelf::Usage) -> Option<Self> {
        let topshelf::Usage { calls, input_tokens, output_tokens, searches, repaired, cost } =
            usage;
        let cost = cost.map(|nano| nano as f64 / 1e9);
        let told = Self { calls, input_tokens, output_tokens, searches, repaired, cost };
        (!usage.is_none()).then_some(told)
    }
}

/// What `rerank` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RerankAnswer {
    /// The query.
    pub(crate) query: String,
    /// The documents, best first.
    pub(crate) results: Vec<RerankResult>,
    /// The last reranker; with 0 pairs where reranking was skipped.
    pub(crate) reranker: RerankerRan,
    /// What ran.
    pub(crate) second_stage: SecondStageRan,
    /// The profile that took part.
    pub(crate) profile: Option<String>,
}

/// One reranked document.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RerankResult {
    /// Its place, from 1.
    pub(crate) rank: usize,
    /// Its line among the documents, from 0.
    pub(crate) index: usize,
    /// Its own id, if it had one.
    pub(crate) id: Option<String>,
    /// The model's raw output; absent for a document it could not score.
    pub(crate) score: Option<f32>,
    /// The probability that it is relevant: the calibrated score.
    pub(crate) relevance_score: Option<f32>,
    /// The bytes of `text` on which the score rests; absent where that is all of it.
    pub(crate) span: Option<Span>,
    /// The document.
    pub(crate) text: String,
}

/// What `cache stats` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ScoreCacheStats {
    /// The file.
    pub(crate) path: String,
    /// Scores in it.
    pub(crate) entries: u64,
    /// Its bytes.
    pub(crate) bytes: u64,
    /// What it may take, in bytes; 0 where it is switched off.
    pub(crate) limit: u64,
    /// The tier that machines share; absent where none is set.
    pub(crate) shared: Option<SharedCacheStats>,
}

/// The tier of the score cache that machines share.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SharedCacheStats {
    /// Its nodes, without user and password.
    pub(crate) nodes: Vec<String>,
    /// Why it cannot be used; absent where it answers.
    pub(crate) trouble: Option<String>,
}

/// What `cache clear` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ScoreCacheCleared {
    /// The file.
    pub(crate) path: String,
    /// Bytes that it had.
    pub(crate) bytes: u64,
}

/// What `judge` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct JudgeAnswer {
    /// Where they are.
    pub(crate) folder: String,
    /// Queries in it.
    pub(crate) queries: usize,
    /// Judged pairs in it.
    pub(crate) judgments: usize,
    /// Those of them that are new.
    pub(crate) added: usize,
    /// Lines of a log that say nothing: shown and not clicked.
    pub(crate) ignored: usize,
    /// What a model judged; absent without `--by`.
    pub(crate) by_model: Option<JudgedByModel>,
}

/// What a model judged.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct JudgedByModel {
    /// Its name.
    pub(crate) model: String,
    /// The split where its judgments are, beside those of a person.
    pub(crate) split: String,
    /// Pairs that it judged and no person did.
    pub(crate) pairs: usize,
    /// Answers in which there was no grade.
    pub(crate) unreadable: usize,
    /// Tokens read and written.
    pub(crate) tokens: u64,
    /// How far it agrees with a person; absent where no person has judged.
    pub(crate) agreement: Option<Agreed>,
}

/// How far a model agrees with a person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Agreed {
    /// Pairs that both judged.
    pub(crate) pairs: usize,
    /// The share with equal grades, 0 to 1.
    pub(crate) equal: f64,
    /// Cohen's kappa of the grades.
    pub(crate) kappa: f64,
    /// Cohen's kappa of relevant or not.
    pub(crate) kappa_relevant: f64,
}

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
    /// Packages whose documentation was indexed.
    pub(crate) packages: usize,
    /// Packages of Cargo.lock that are not in cargo's registry folder.
    pub(crate) packages_missing: usize,
    /// Documents and passages.
    pub(crate) totals: IndexTotals,
    /// The figures.
    pub(crate) evaluation: EvalAnswer,
    /// One query before and after reranking.
    pub(crate) example: DemoExample,
}

/// One query before and after reranking.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DemoExample {
    /// The query.
    pub(crate) query: String,
    /// The first places after reranking.
    pub(crate) hits: Vec<DemoMove>,
}

/// A passage's place before and after.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DemoMove {
    /// The passage's id.
    pub(crate) id: String,
    /// Its place before reranking, from 1.
    pub(crate) before: usize,
    /// Its place after.
    pub(crate) after: usize,
    /// Its cross-encoder score.
    pub(crate) score: f32,
    /// Whether it was judged to answer; absent for a query without judgments.
    pub(crate) relevant: Option<bool>,
    /// The beginning of its text.
    pub(crate) text: String,
}

impl From<&topshelf::Totals> for IndexTotals {
    fn from(totals: &topshelf::Totals) -> Self {
        Self { documents: totals.documents, passages: totals.passages }
    }
}

impl From<&Report> for RunReport {
    fn from(report: &Report) -> Self {
        Self {
            retrievers: report
                .retrievers
                .iter()
                .map(|ran| RetrieverRan {
                    name: ran.name.clone(),
                    found: ran.found,
                    milliseconds: ran.milliseconds,
                })
                .collect(),
            fusion: report.fusion.clone(),
            reranker: report
                .second_stage
                .as_ref()
                .and_then(|stage| stage.rerankers.last())
                .map(RerankerRan::from),
            second_stage: report.second_stage.as_ref().map(SecondStageRan::from),
            milliseconds: report.milliseconds,
            profile: None,
        }
    }
}

impl From<&topshelf::SecondStageReport> for SecondStageRan {
    fn from(report: &topshelf::SecondStageReport) -> Self {
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
                Skipped::Failed => "failed".to_owned(),
            }),
            rerankers: report.rerankers.iter().map(RerankerRan::from).collect(),
            failures: report
                .failures
                .iter()
                .map(|failure| RerankerFailed {
                    model: failure.model.clone(),
                    reason: failure.reason.clone(),
                    milliseconds: failure.milliseconds,
                })
                .collect(),
            blend: report.blend.clone(),
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
    pub(crate) fn idle(identity: &topshelf::ModelIdentity) -> Self {
        Self {
            model: identity.name.clone(),
            fingerprint: identity.fingerprint.clone(),
            engine: identity.engine.clone(),
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

impl From<&topshelf::RerankReport> for RerankerRan {
    fn from(report: &topshelf::RerankReport) -> Self {
        Self {
            model: report.model.clone(),
            fingerprint: report.fingerprint.clone(),
            engine: report.engine.clone(),
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
    pub(crate) fn new(rank: usize, hit: &Hit, scale: topshelf::Scale) -> Self {
        let passage = &hit.passage;
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
    pub(crate) fn with_matches(mut self, matches: &[topshelf::TokenMatch]) -> Self {
        let answer = |found: &topshelf::TokenMatch| TokenAnswer {
            query: found.query.clone(),
            passage: found.passage.clone(),
            span: (!found.span.is_empty()).then(|| Span::from(&found.span)),
            similarity: found.similarity,
        };
        self.matches = matches.iter().map(answer).collect();
        self
    }
}
