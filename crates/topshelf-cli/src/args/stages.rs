//! How the stages work: what several commands share.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use topshelf::{
    BlendScore, Fusion, GateChoice, LongDocuments, OnFailure, Retrievers, ScoreCacheUse,
    SetupPatch, Survivors, TokenVectorUse,
};

use super::values::{deadline, not_negative, share};

/// How the first stage works; shared by `search` and `eval`.
#[derive(Debug, Args, Clone)]
pub(crate) struct FirstStage {
    /// How the rankings of several retrievers become one: rrf (reciprocal rank fusion), min-max or
    /// z-score (weighted sums of normalised scores) [default: rrf].
    #[arg(long, value_name = "HOW")]
    pub(crate) fusion: Option<Fusion>,
    /// The k of reciprocal rank fusion [default: 60].
    #[arg(long, value_name = "K", value_parser = not_negative)]
    pub(crate) rrf_k: Option<f32>,
    /// Weights of the retrievers for min-max and z-score, as `1,0.5`.
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
    /// What these flags change.
    pub(crate) fn patch(&self) -> SetupPatch {
        let Self { fusion, rrf_k, weights, k1, b, title_weight } = self.clone();
        SetupPatch { fusion, rrf_k, weights, k1, b, title_weight, ..SetupPatch::default() }
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

impl CacheOption {
    pub(crate) fn score_cache(self) -> ScoreCacheUse {
        if self.no_cache { ScoreCacheUse::Bypass } else { ScoreCacheUse::Use }
    }
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
    #[arg(long, value_name = "MODEL@KEEP")]
    pub(crate) then: Vec<Survivors>,
    /// What is read of documents that are longer than the reranker's window: their most promising windows,
    /// or their head, as far as the window goes [default: windows].
    #[arg(long, value_name = "HOW")]
    pub(crate) long_documents: Option<LongDocuments>,
    /// Windows of a long document that are read, at most; the best of them counts [default: 4].
    #[arg(long, value_name = "N")]
    pub(crate) windows: Option<usize>,
    /// Tokens of a window, at most [default: 128].
    #[arg(long, value_name = "TOKENS")]
    pub(crate) window_tokens: Option<usize>,
    /// What the rerank score counts, 0 to 1, beside the first stage's score; 1 is the rerank score alone
    /// [default: .7 after several retrievers, .9 after one, .5 where colbert is among them, and queries of
    /// more than 40 tokens are not reranked].
    #[arg(long, value_name = "WEIGHT", value_parser = share)]
    pub(crate) blend: Option<f32>,
    /// How the rerank score is brought to 0..1 for the blend: min-max, over the passages that were scored,
    /// or probability, the calibrated one [default: min-max].
    #[arg(long, value_name = "HOW")]
    pub(crate) blend_score: Option<BlendScore>,
    /// Withhold what is relevant with less than this probability, even if nothing is left.
    #[arg(long, value_name = "P", value_parser = share)]
    pub(crate) min_relevance: Option<f32>,
    /// The best order there is after this time, such as 150ms, counted from the question on. Once one
    /// retriever has found something, the others are waited for until two thirds of it are over; without
    /// reranking, until all of it is.
    #[arg(long, value_name = "TIME", value_parser = deadline)]
    pub(crate) deadline: Option<Duration>,
    /// Skip reranking where the first stage is clear, such as margin:dense:3>=0.086. Signals are
    /// margin:STAGE:K, relative-margin:STAGE:K, spread:STAGE:K and agreement:K; `none` for no gate.
    #[arg(long, value_name = "GATE")]
    pub(crate) gate: Option<GateChoice>,
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
    /// What these flags change.
    pub(crate) fn patch(&self) -> SetupPatch {
        let Self { rerank, then, long_documents, windows, window_tokens, .. } = self.clone();
        let Self { blend, blend_score, min_relevance, deadline, gate, .. } = self.clone();
        SetupPatch {
            rerank,
            then,
            long_documents,
            windows,
            window_tokens,
            blend,
            blend_score,
            min_relevance,
            deadline,
            gate,
            token_vectors: self.encode_anew.then_some(TokenVectorUse::Encode),
            on_failure: self.strict.then_some(OnFailure::Fail),
            ..SetupPatch::default()
        }
    }
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
    /// The first stage: bm25 (words), dense (meaning), colbert (tokens, where the index has their vectors), or
    /// several of them: hybrid is bm25+dense, hybrid-colbert is bm25+colbert, hybrid+colbert is all three
    /// [default: hybrid, or bm25 if the index has no vectors].
    #[arg(long, value_name = "NAMES")]
    pub(crate) retriever: Option<Retrievers>,
    /// Candidates that the first stage fetches and the second reads [default: 100].
    #[arg(long)]
    pub(crate) depth: Option<usize>,
    /// Results [default: 10].
    #[arg(long)]
    pub(crate) top: Option<usize>,
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

impl Retrieval {
    /// What these flags change: those of the first stage, then those of the second.
    pub(crate) fn patches(&self) -> [SetupPatch; 2] {
        let Self { retriever, depth, top, .. } = *self;
        let first = SetupPatch { retriever, depth, top, ..self.first_stage.patch() };
        [first, self.second_stage.patch()]
    }
}
