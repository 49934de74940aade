//! `topshelf serve` and `keys`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::stages::{CacheOption, ProfileOption, SpendingOptions};
use super::values::{deadline, percent, time};

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
    #[arg(long, value_name = "TIME", value_parser = deadline)]
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
    /// Send traces to the OpenTelemetry collector at this address, such as http://localhost:4318, by OTLP
    /// over HTTP.
    #[arg(long, value_name = "URL")]
    pub(crate) traces: Option<String>,
    /// The share of requests that are traced, where a request does not say it of itself.
    #[arg(long, value_name = "SHARE", default_value = "100%", value_parser = percent)]
    pub(crate) traces_share: f64,
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
        /// It may also add and remove documents, where the server lets anybody, and have models and indexes
        /// read anew.
        #[arg(long)]
        may_change: bool,
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
