//! `topshelf search`, `ask` and `rerank`.

use std::path::PathBuf;

use clap::Args;

use super::Format;
use super::stages::{CacheOption, ProfileOption, Retrieval, SecondStageOptions};

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
    /// Tokens that the sources in the prompt may take, four bytes counted as one [default: 3000].
    #[arg(long, value_name = "TOKENS", requires = "prompt")]
    pub(crate) budget: Option<usize>,
    /// A minijinja template for sources and question, instead of the built-in one.
    #[arg(long, value_name = "FILE", requires = "prompt")]
    pub(crate) template: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) format: Format,
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
    /// Tokens that the sources may take, four bytes counted as one [default: 3000].
    #[arg(long, value_name = "TOKENS")]
    pub(crate) budget: Option<usize>,
    /// A minijinja template for sources and question, instead of the built-in one.
    #[arg(long, value_name = "FILE")]
    pub(crate) template: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) format: Format,
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
