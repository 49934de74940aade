//! What the commands answer with `--json`: one object each.
//!
//! What a search answers is the server's ([`topshelf_server::answer`]): the same question has the same
//! answer here and there. The schemas in docs/schema are generated from these types; a test (`schemas.rs`) holds the two
//! together. Fields are only ever added.

mod evaluated;
pub(crate) mod tuned;

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use topshelf::OtherChunking;
use topshelf::chunk::Chunking;
pub(crate) use topshelf_server::answer::{
    Notice, PromptAnswer, PromptSource, RerankerRan, RunReport, SearchHit, SecondStageRan, Span,
    UsageTold,
};

pub(crate) use self::evaluated::{
    Calibrated, DemoAnswer, DemoExample, DemoMove, DemoStage, EvalAnswer, EvalCompared,
    FigureChange, GateAt, LatencyMs, Loser, LoserDocument, Moves, QueriesChanged, RecallAt,
    SecondStageMeasured, StageLatency, SystemChange, SystemDifference, SystemMeasured,
};

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
    /// Files whose content replaced an older one, or that were read or cut otherwise before.
    pub(crate) files_updated: usize,
    /// Those of them whose content is the same.
    pub(crate) files_recut: usize,
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
    /// How it cuts documents now.
    pub(crate) chunking: IndexChunking,
    /// How it cut them before; absent if it is the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) chunking_before: Option<IndexChunking>,
    /// What is in it and cut otherwise, because it was not added again.
    pub(crate) other_chunking: IndexOtherChunking,
    /// How long it took.
    pub(crate) milliseconds: f64,
}

/// Sums over an index.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct IndexTotals {
    /// Documents.
    pub(crate) documents: u64,
    /// Passages.
    pub(crate) passages: u64,
}

/// How an index cuts documents.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct IndexChunking {
    /// Whether they are one passage each; the numbers are then absent.
    pub(crate) whole: bool,
    /// Tokens of a passage, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_tokens: Option<usize>,
    /// Tokens that neighbouring passages share, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) overlap_tokens: Option<usize>,
}

/// What is in an index and was not cut as the index cuts now.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct IndexOtherChunking {
    /// Files.
    pub(crate) files: usize,
    /// Documents in them.
    pub(crate) documents: u64,
    /// Files beside these that an older version added with options of which it recorded no more than
    /// a digest.
    pub(crate) unrecorded_files: usize,
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
    /// How documents are cut.
    pub(crate) chunking: IndexChunking,
    /// What is cut otherwise: adding it again cuts it so.
    pub(crate) other_chunking: IndexOtherChunking,
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
    /// What a reader has to know: what was skipped, cut, left unread or withheld, and what failed.
    pub(crate) notes: Vec<String>,
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

impl From<Chunking> for IndexChunking {
    fn from(chunking: Chunking) -> Self {
        let options = chunking.options();
        Self {
            whole: options.is_none(),
            max_tokens: options.map(|options| options.max_tokens),
            overlap_tokens: options.map(|options| options.overlap_tokens),
        }
    }
}

impl From<OtherChunking> for IndexOtherChunking {
    fn from(other: OtherChunking) -> Self {
        let OtherChunking { files, documents, unrecorded_files } = other;
        Self { files, documents, unrecorded_files }
    }
}

impl From<&topshelf::Totals> for IndexTotals {
    fn from(totals: &topshelf::Totals) -> Self {
        Self { documents: totals.documents, passages: totals.passages }
    }
}
