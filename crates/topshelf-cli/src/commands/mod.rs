//! What each command does, and the few things that several of them do.

mod ask;
mod cache;
mod chosen;
mod collection;
mod compare;
mod demo;
mod eval;
mod index;
mod judge;
mod judged;
mod language_model;
mod matches;
mod models;
mod reordering;
mod rerank;
mod rerankers;
mod search;
mod second_stage;
mod serve;
mod spending;
mod system;
mod tune;
mod tuned;

pub(crate) use collection::verdict;
pub(crate) use tuned::without_gain;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use serde::Serialize;
use topshelf::tune::setup::FirstStage;
use topshelf::{
    BiEncoder, Bm25Options, Index, LateInteraction, LateOptions, PipelineBuilder, TokenVectorInfo,
};

use crate::args::{Arguments, Command, TokenVectorOptions};
use crate::say::say;

/// Runs the command.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    topshelf::Isa::detect().map_err(|error| crate::exit::usage(error.to_string()))?;
    match arguments.command {
        Command::Models(command) => models::run(command),
        Command::Index(command) => index::run(command),
        Command::Search(arguments) => search::run(&arguments),
        Command::Ask(arguments) => ask::run(&arguments),
        Command::Serve(arguments) => serve::run(*arguments),
        Command::Keys(command) => serve::keys(command),
        Command::Rerank(arguments) => rerank::run(&arguments),
        Command::Cache(command) => cache::run(command),
        Command::Judge(arguments) => judge::run(&arguments),
        Command::Eval(arguments) => eval::run(&arguments),
        Command::Tune(arguments) => tune::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
    }
}

/// Prints an answer as JSON, on lines of its own.
fn print_json(answer: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(answer).context("cannot write the answer as JSON")?;
    print(&text)
}

/// Prints a text and a line break; a reader that has gone away is no failure.
fn print(text: &str) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{text}")?;
    Ok(())
}

/// Models that are in memory already.
#[derive(Clone, Copy, Default)]
struct Known<'a> {
    embedder: Option<&'a Arc<BiEncoder>>,
    tokens: Option<&'a Arc<LateInteraction>>,
}

impl<'a> Known<'a> {
    /// The bi-encoder, if that is there.
    fn of(embedder: Option<&'a Arc<BiEncoder>>) -> Self {
        Self { embedder, tokens: None }
    }
}

/// Sets depth and retrievers of a first stage over an index. Models are loaded by the names that the
/// index was made with, unless they are here.
fn with_first_stage(
    builder: PipelineBuilder,
    index: &Index,
    first: &FirstStage,
    known: Known<'_>,
) -> Result<PipelineBuilder> {
    let mut builder = builder.depth(first.depth).fusion(first.fusion.clone().unwrap_or_default());
    if first.retriever.by_words() {
        builder = builder.retriever(index.bm25(bm25(first)));
    }
    if first.retriever.by_meaning() {
        let embedder =
            known.embedder.map_or_else(|| embedder_of(index), |own| Ok(Arc::clone(own)))?;
        builder = builder.retriever(index.dense(embedder)?);
    }
    if first.retriever.by_tokens() {
        let model = match known.tokens {
            Some(own) => Arc::clone(own),
            None => Arc::new(token_model_of(index)?),
        };
        builder = builder.retriever(index.late_interaction(model, LateOptions::default())?);
    }
    Ok(builder)
}

/// The numbers of BM25 that a first stage asks for.
fn bm25(first: &FirstStage) -> Bm25Options {
    first.bm25.map_or_else(Bm25Options::default, |own| Bm25Options {
        k1: own.k1,
        b: own.b,
        title_weight: own.title_weight,
    })
}

/// The bi-encoder that an index was made with.
fn embedder_of(index: &Index) -> Result<Arc<BiEncoder>> {
    let settings = index.settings();
    let name = settings.embedder.as_ref().map(|embedder| embedder.identity.name.as_str());
    Ok(Arc::new(BiEncoder::load(name.ok_or(topshelf::IndexError::NoVectors)?)?))
}

/// The model that an index's token vectors were made with.
fn token_model_of(index: &Index) -> Result<LateInteraction> {
    let own = index.settings().token_vectors.as_ref();
    let own = own.ok_or(topshelf::IndexError::NoTokenVectors)?;
    Ok(LateInteraction::load(&own.identity.name)?)
}

/// The model of an index's token vectors and how they are kept: as the options have it, or as the
/// index does.
fn token_model(
    options: &TokenVectorOptions,
    own: Option<&TokenVectorInfo>,
) -> Result<Option<(TokenVectorInfo, LateInteraction)>> {
    let (name, tier) = match (options.token_vectors, own) {
        (Some(tier), _) => (options.token_model.as_str(), tier),
        (None, Some(own)) => (own.identity.name.as_str(), own.tier),
        (None, None) => return Ok(None),
    };
    let model = LateInteraction::load(name)?;
    let info = TokenVectorInfo::of(&model, tier);
    // An index that keeps them as long as they are goes on doing so.
    let info = own.map_or(info.clone(), |own| info.reduced_to(own.reduced));
    Ok(Some((info, model)))
}

/// The folder for what can be made again: `$TOPSHELF_HOME/cache`, or the platform's.
fn cache_dir() -> Result<PathBuf> {
    topshelf::Store::open_default()?
        .root()
        .parent()
        .map(|home| home.join("cache"))
        .context("the model store has no parent folder")
}

/// Whether an index is being written, which is ended in order; anything else ends at once.
static WRITING: AtomicBool = AtomicBool::new(false);

/// A flag that Ctrl-C sets while an index is written. The second Ctrl-C ends the program at once,
/// which an index survives as it survives a crash; so does the first while none is written.
fn interrupt_flag() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&flag);
    ctrlc::set_handler(move || {
        if !WRITING.load(Ordering::Relaxed) || set.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        say!("\nstopping; the index stays as it was (Ctrl-C again to stop at once)");
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(flag)
}

/// Lets Ctrl-C end the program at once, after saying `parting`: for a command that goes on from where
/// it was, because whatever it does is on disk when it is done.
fn exit_on_interrupt(parting: &'static str) -> Result<()> {
    ctrlc::set_handler(move || {
        say!("\n{parting}");
        std::process::exit(130);
    })
    .context("cannot listen for Ctrl-C")
}

/// A path as a person wrote it.
fn display(path: &Path) -> String {
    path.display().to_string()
}
