//! `topshelf index`, and how an index keeps vectors.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use topshelf::chunk::ChunkOptions;

use super::{DEFAULT_TOKEN_MODEL, Format};

#[derive(Debug, Subcommand)]
pub(crate) enum IndexCommand {
    /// Add files and folders. Add them again to update: unchanged files cost nothing.
    #[command(after_help = "\
Examples:
  topshelf index add docs/ README.md --index docs.index
  topshelf index add docs/ --index docs.index --sync      also remove what has vanished
  topshelf index add corpus.jsonl --index c.index --whole one passage for each record
  topshelf index add notes/ --index n.index --embed none  words only, no model needed
  topshelf index add docs/ --index docs.index --chunk 128 shorter passages, now and later

Markdown, HTML, plain text and source code, PDF (its text), JSONL and CSV are read; .gitignore
is respected. What cannot be read is named and does not stop the rest. Ctrl-C leaves the index
as it was.

An index cuts documents as it did before unless --chunk, --overlap or --whole say otherwise. Then it
does so from then on: files among PATHS are cut again even if they are unchanged, others stay as they
are until they are added again.")]
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
    /// Tokens of a passage, at most: 16 to 1000000 (default: the index's own, or 256). The index
    /// remembers it; another value is for what is added from then on.
    #[arg(long, value_name = "TOKENS", value_parser = chunk_tokens)]
    pub(crate) chunk: Option<usize>,
    /// Tokens that neighbouring passages of one section share, half of `--chunk` at most (default:
    /// the index's own, or 32).
    #[arg(long, value_name = "TOKENS", value_parser = overlap_tokens)]
    pub(crate) overlap: Option<usize>,
    /// Do not cut documents: one passage each. The index remembers this, too.
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

fn chunk_tokens(text: &str) -> Result<usize, String> {
    let (least, most) = (ChunkOptions::MIN_TOKENS, ChunkOptions::MAX_TOKENS);
    let tokens = text.parse().ok().filter(|tokens| (least..=most).contains(tokens));
    tokens.ok_or_else(|| format!("a passage has {least} to {most} tokens"))
}

fn overlap_tokens(text: &str) -> Result<usize, String> {
    let most = ChunkOptions::MAX_TOKENS / 2;
    let tokens = text.parse().ok().filter(|tokens| *tokens <= most);
    tokens.ok_or_else(|| {
        format!("passages share 0 to {most} tokens, and no more than half of what --chunk says")
    })
}

pub(super) fn language(name: &str) -> Result<topshelf::Language, String> {
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
