//! The commands and their options.

mod index;
mod measure;
mod models;
mod search;
mod serve;
mod stages;
mod values;

use clap::{Args, Parser, Subcommand};

pub(crate) use self::index::{AddArguments, IndexCommand, TokenVectorOptions, VectorPrecision};
pub(crate) use self::measure::{
    CollectionOptions, DemoArguments, EvalArguments, JudgeArguments, TuneArguments,
};
pub(crate) use self::models::{ModelsCommand, PullFrom};
pub(crate) use self::search::{AskArguments, RerankArguments, SearchArguments};
pub(crate) use self::serve::{KeysCommand, LogForm, ServeArguments};
pub(crate) use self::stages::{ProfileOption, Retrieval, SecondStageOptions, SpendingOptions};
pub(crate) use self::values::deadline;

pub(crate) use topshelf::DEFAULT_RERANKER;

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
  topshelf demo                                  the whole thing on real text, in a minute
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
