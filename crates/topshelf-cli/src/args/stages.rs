//! How the stages work: what several commands share.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::values::{not_negative, share, time};

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
    /// The best order there is after this time, such as 150ms, counted from the question on. Once one
    /// retriever has found something, the others are waited for until two thirds of it are over; without
    /// reranking, until all of it is.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) deadline: Option<Duration>,
    /// Skip reranking where the first stage is clear, such as margin:dense:3>=0.086. Signals are
    /// margin:STAGE:K, relative-margin:STAGE:K, spread:STAGE:K and agreement:K; `none` for no gate.
    #[arg(long, value_name = "GATE", value_parser = gate)]
    pub(crate) gate: Option<GateOption>,
    /// Encode candidates anew for late interaction, even where the index has their token vectors.
    #[arg(long)]
    pub(crate) encode_anew: bool,
    /// Make it an error if no reranker answers, or a retriever fails or is late, instead of answering
    /// without it and saying why.
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
