//! What each command does, and the few things that several of them do.

mod cache;
mod collection;
mod compare;
mod demo;
mod eval;
mod index;
mod judge;
mod models;
mod reordering;
mod rerank;
mod search;
mod second_stage;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use serde::Serialize;
use topshelf::{BiEncoder, Bm25Options, Fusion, Index, Normalisation, Pipeline, PipelineBuilder};

use crate::args::{Arguments, Command, FirstStage, FusionName, RetrieverName};

/// Runs the command.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    topshelf::Isa::detect().map_err(|error| crate::exit::usage(error.to_string()))?;
    match arguments.command {
        Command::Models(command) => models::run(command),
        Command::Index(command) => index::run(command),
        Command::Search(arguments) => search::run(&arguments),
        Command::Rerank(arguments) => rerank::run(&arguments),
        Command::Cache(command) => cache::run(command),
        Command::Judge(arguments) => judge::run(&arguments),
        Command::Eval(arguments) => eval::run(&arguments),
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

/// Adds the named first stage over an index to a pipeline. The bi-encoder is loaded by the name
/// that the index was made with.
fn with_first_stage(
    builder: PipelineBuilder,
    index: &Index,
    name: RetrieverName,
    options: &FirstStage,
) -> Result<PipelineBuilder> {
    let bm25 = Bm25Options { k1: options.k1, b: options.b, title_weight: options.title_weight };
    let builder = builder.fusion(fusion(options));
    Ok(match name {
        RetrieverName::Bm25 => builder.retriever(index.bm25(bm25)),
        RetrieverName::Dense => builder.retriever(index.dense(embedder_of(index)?)?),
        RetrieverName::Hybrid => {
            builder.retriever(index.bm25(bm25)).retriever(index.dense(embedder_of(index)?)?)
        }
    })
}

/// The bi-encoder that an index was made with.
fn embedder_of(index: &Index) -> Result<Arc<BiEncoder>> {
    let settings = index.settings();
    let name = settings.embedder.as_ref().map(|embedder| embedder.identity.name.as_str());
    Ok(Arc::new(BiEncoder::load(name.ok_or(topshelf::IndexError::NoVectors)?)?))
}

fn fusion(options: &FirstStage) -> Fusion {
    let weighted =
        |normalisation| Fusion::Weighted { normalisation, weights: options.weights.clone() };
    match options.fusion {
        FusionName::Rrf => Fusion::Rrf { k: options.rrf_k },
        FusionName::MinMax => weighted(Normalisation::MinMax),
        FusionName::ZScore => weighted(Normalisation::ZScore),
    }
}

/// A pipeline with nothing but depth and top.
fn pipeline(depth: usize, top: usize) -> PipelineBuilder {
    Pipeline::builder().depth(depth).top(top)
}

/// The folder for what can be made again: `$TOPSHELF_HOME/cache`, or the platform's.
fn cache_dir() -> Result<PathBuf> {
    topshelf::Store::open_default()?
        .root()
        .parent()
        .map(|home| home.join("cache"))
        .context("the model store has no parent folder")
}

/// A flag that Ctrl-C sets. The second Ctrl-C ends the program at once, which an index survives
/// as it survives a crash.
fn interrupt_flag() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&flag);
    ctrlc::set_handler(move || {
        if set.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\nstopping; the index stays as it was (Ctrl-C again to stop at once)");
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(flag)
}

/// A path as a person wrote it.
fn display(path: &Path) -> String {
    path.display().to_string()
}
