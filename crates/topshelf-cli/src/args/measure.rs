//! What works with judged queries: `topshelf judge`, `eval`, `tune` and `demo`.

use std::path::PathBuf;

use clap::Args;

use super::index::{TokenVectorOptions, VectorPrecision, language};
use super::stages::{CacheOption, FirstStage, ProfileOption, SecondStageOptions, SpendingOptions};
use super::values::{not_negative, percent, positive, time};
use super::{DEFAULT_EMBEDDER, DEFAULT_RERANKER, Format};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  topshelf judge --index docs.index --queries questions.txt --out judgments/
  topshelf judge --index docs.index --out judgments/            go on where you stopped
  topshelf judge --clicks clicks.jsonl --out judgments/         from a log instead of by hand
  topshelf judge --index docs.index --out judgments/ --by qwen2.5:7b --endpoint http://localhost:11434/v1
  topshelf eval --own judgments/ --index docs.index             measure with them

Queries are one a line, or records with a text. A line of a log has a query, a passage or document,
and one of \"clicked\": true, \"thumb\": \"up\" or \"down\", \"grade\": 0, 1 or 2. The folder holds
queries.jsonl and qrels/test.tsv and can be judged further at any time.")]
pub(crate) struct JudgeArguments {
    /// The folder of the judgments; made if it is not there.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// The index whose passages are judged.
    #[arg(long, value_name = "DIR")]
    pub(crate) index: Option<PathBuf>,
    /// Queries to add.
    #[arg(long, value_name = "FILE", conflicts_with = "clicks")]
    pub(crate) queries: Option<PathBuf>,
    /// Take the judgments from this log of clicks and thumbs.
    #[arg(long, value_name = "LOG", conflicts_with = "index")]
    pub(crate) clicks: Option<PathBuf>,
    /// Let this LLM judge first, into the split `llm`; judge some pairs by hand before or after, and
    /// its agreement with you is told.
    #[arg(long, value_name = "MODEL", conflicts_with = "clicks")]
    pub(crate) by: Option<String>,
    /// Where that LLM is: an OpenAI-compatible endpoint such as http://localhost:11434/v1 [default:
    /// $TOPSHELF_LLM_ENDPOINT; a key is taken from $TOPSHELF_LLM_KEY].
    #[arg(long, value_name = "URL", requires = "by")]
    pub(crate) endpoint: Option<String>,
    /// Results of each stage that are judged.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = positive)]
    pub(crate) pool: usize,
    /// Candidates that the cross-encoder orders for its part of the pool.
    #[arg(long, default_value_t = 50)]
    pub(crate) depth: usize,
    /// The cross-encoder whose results are pooled, too; `none` for none.
    #[arg(long, value_name = "MODEL", default_value = DEFAULT_RERANKER)]
    pub(crate) rerank: String,
    #[command(flatten)]
    pub(crate) spending: SpendingOptions,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  topshelf eval --data scifact/
  topshelf eval --data scifact/ --systems bm25,hybrid,hybrid+rerank --save-runs runs/
  topshelf eval --data msmarco/ --candidates bm25-top100.trec     rerank a run of your own
  topshelf eval --run my.trec --qrels qrels/test.tsv              measure a run, nothing else
  topshelf eval --data scifact/ --blend 0.6 --deadline 200ms --depth 30    with policies
  topshelf eval --own judgments/ --index docs.index               your own index and judgments
  topshelf eval --data scifact/ --report scifact.html             one page, with charts
  topshelf eval --compare before.json after.json --max-drop 0.01  what changed; for CI

A collection is a folder in BEIR's layout: corpus.jsonl (_id, title, text), queries.jsonl
(_id, text) and qrels/SPLIT.tsv (query-id, corpus-id, score).")]
pub(crate) struct EvalArguments {
    #[command(flatten)]
    pub(crate) collection: CollectionOptions,
    /// What to compare: bm25, dense, hybrid, colbert, hybrid-colbert, each also as NAME+rerank, and that with +blend, +gate
    /// and a deadline such as @100ms behind it [default: bm25,dense,hybrid,hybrid+rerank, or candidates,candidates+rerank
    /// with --candidates, and the last also with the policies that are given].
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) systems: Vec<String>,
    /// Take the candidates from this TREC run instead of retrieving them.
    #[arg(long, value_name = "RUN", requires = "data", conflicts_with = "run")]
    pub(crate) candidates: Option<PathBuf>,
    /// Measure this TREC run.
    #[arg(
        long,
        value_name = "RUN",
        requires = "qrels",
        conflicts_with_all = ["data", "own", "index"]
    )]
    pub(crate) run: Option<PathBuf>,
    /// The judgments for --run: BEIR's three columns or TREC's four.
    #[arg(long, value_name = "FILE", requires = "run")]
    pub(crate) qrels: Option<PathBuf>,
    /// Say what changed between two answers that `eval --json` gave.
    #[arg(
        long,
        num_args = 2,
        value_names = ["BEFORE", "AFTER"],
        conflicts_with_all = ["data", "run", "own"]
    )]
    pub(crate) compare: Vec<PathBuf>,
    /// Exit with 1 where a system lost more than this in the first measure.
    #[arg(long, value_name = "LOSS", value_parser = not_negative, requires = "compare")]
    pub(crate) max_drop: Option<f32>,
    /// Candidates for each query [default: 100].
    #[arg(long)]
    pub(crate) depth: Option<usize>,
    #[command(flatten)]
    pub(crate) second_stage: SecondStageOptions,
    #[command(flatten)]
    pub(crate) profile: ProfileOption,
    #[command(flatten)]
    pub(crate) first_stage: FirstStage,
    /// Measures; unless given nDCG@10, recall@5, 10, 20 and 100, success@1, 3 and 10, MRR@10, MAP.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) measures: Vec<String>,
    /// Judgments from this grade on count as relevant in the measures that know only relevant
    /// or not.
    #[arg(long, value_name = "GRADE", default_value_t = 1)]
    pub(crate) relevance_level: i32,
    /// Write the answer as one web page, with charts.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["compare", "run"])]
    pub(crate) report: Option<PathBuf>,
    /// Write each system's ranking as a TREC run into this folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) save_runs: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) format: Format,
}

/// Judged queries and the index that they are asked of; shared by `eval` and `tune`.
#[derive(Debug, Args, Clone)]
pub(crate) struct CollectionOptions {
    /// The collection.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Your own judgments, as `judge` makes them, of the passages or documents of --index.
    #[arg(long, value_name = "DIR", requires = "index", conflicts_with = "data")]
    pub(crate) own: Option<PathBuf>,
    /// Which judgments: qrels/SPLIT.tsv.
    #[arg(long, default_value = "test")]
    pub(crate) split: String,
    /// The bi-encoder.
    #[arg(long, value_name = "MODEL", default_value = DEFAULT_EMBEDDER)]
    pub(crate) embed: String,
    /// Stemming and stop words for BM25.
    #[arg(long, value_parser = language, default_value = "english")]
    pub(crate) language: topshelf::Language,
    /// How vectors are stored.
    #[arg(long, value_enum, default_value = "int8")]
    pub(crate) vectors: VectorPrecision,
    #[command(flatten)]
    pub(crate) tokens: TokenVectorOptions,
    /// Where the index of the collection is kept for the next time (default: a folder of
    /// Topshelf's cache named after the collection's content).
    #[arg(long, value_name = "DIR")]
    pub(crate) index: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  topshelf tune --data my-collection/
  topshelf tune --own judgments/ --index docs.index --budget 150ms
  topshelf tune --data scifact/ --train train --split test --depth 50 --report tuned.html
  topshelf tune --data my-collection/ --rerank small-model,large-model      and cascades of them

Half of the judged queries choose depth, fusion, blend, gate and cascade, and the other half measures
what was chosen: no figure comes from queries that it was fitted on. The profile that is written is
what search, rerank and eval use in the folder where it lies.")]
pub(crate) struct TuneArguments {
    #[command(flatten)]
    pub(crate) collection: CollectionOptions,
    /// Choose by the judgments of this split, and measure with all of --split.
    #[arg(long, value_name = "SPLIT")]
    pub(crate) train: Option<String>,
    /// Queries that are used at most, drawn evenly; time is spent on each.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) queries: Option<usize>,
    /// What may be spent: a time within which 19 of 20 queries are answered, such as 150ms, for the
    /// best there is within it; or a share of the best that may be lost, such as 1%, for the fastest.
    #[arg(long, value_name = "BUDGET", default_value = "1%", value_parser = budget)]
    pub(crate) budget: topshelf::tune::Budget,
    /// Rerankers that may take part, cheapest first.
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "MODELS",
        default_value = DEFAULT_RERANKER
    )]
    pub(crate) rerank: Vec<String>,
    /// Candidates at most; fewer are tried, too.
    #[arg(long, default_value_t = 100, value_parser = positive)]
    pub(crate) depth: usize,
    /// The share of the measure that a gate may lose.
    #[arg(long, value_name = "SHARE", default_value = "1%", value_parser = percent)]
    pub(crate) gate_loss: f64,
    /// The share of queries that it has to save.
    #[arg(long, value_name = "SHARE", default_value = "20%", value_parser = percent)]
    pub(crate) gate_saves: f64,
    /// The share of passages of which the early stop of a cascade may be wrong.
    #[arg(long, value_name = "SHARE", default_value = "5%", value_parser = percent)]
    pub(crate) risk: f64,
    /// What is tuned for.
    #[arg(long, value_name = "NAME", default_value = "nDCG@10")]
    pub(crate) measure: String,
    /// Judgments from this grade on count as relevant where only that counts.
    #[arg(long, value_name = "GRADE", default_value_t = 1)]
    pub(crate) relevance_level: i32,
    /// Write the answer as one web page, with charts.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Where the profile is written.
    #[arg(long, value_name = "FILE", default_value = "topshelf.toml")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) cache: CacheOption,
    #[command(flatten)]
    pub(crate) spending: SpendingOptions,
    #[command(flatten)]
    pub(crate) format: Format,
}

fn budget(text: &str) -> Result<topshelf::tune::Budget, String> {
    use topshelf::tune::Budget;
    if text.ends_with('%') {
        return Ok(Budget::Loss(percent(text)?));
    }
    match time(text) {
        Ok(time) => Ok(Budget::Milliseconds(time.as_secs_f64() * 1e3)),
        Err(_) => Err("give a time such as 150ms, or a share such as 1%".to_owned()),
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  topshelf demo
  topshelf demo --query 'how do I get random numbers?'            a question of your own
  topshelf demo --folder docs/ --query 'how do I log in?'         your own files
  topshelf demo --full                                            all documentation, 100 candidates

The first answer is there after seconds. Ctrl-C is safe at any time: the same command goes on from there.")]
pub(crate) struct DemoArguments {
    /// Show this question before and after reranking instead of the built-in one.
    #[arg(long)]
    pub(crate) query: Option<String>,
    /// Ask --query of the documents in this folder; nothing is measured, since nobody has judged them.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["full", "cargo_home"])]
    pub(crate) folder: Option<PathBuf>,
    /// Index changelogs and docs beside the READMEs, and rerank 100 candidates instead of 30.
    #[arg(long)]
    pub(crate) full: bool,
    /// Where the demo's index is kept (default: a folder of Topshelf's cache). What was measured is
    /// kept beside it.
    #[arg(long, value_name = "DIR")]
    pub(crate) index: Option<PathBuf>,
    /// Cargo's home folder (default: $CARGO_HOME or ~/.cargo).
    #[arg(long, value_name = "DIR")]
    pub(crate) cargo_home: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) format: Format,
}
