//! What each command does, and the few things that several of them do.

mod ask;
mod cache;
mod collection;
mod compare;
mod demo;
mod eval;
mod index;
mod judge;
mod judged;
mod matches;
mod models;
mod pipelines;
mod reordering;
mod rerank;
mod search;
mod second_stage;
mod serve;
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
use topshelf::{Engine, EngineOptions, LateInteraction, ScoreCacheUse, TokenVectorInfo};

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
        Command::Serve(arguments) => serve::run(&arguments),
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

/// An engine without kept scores, for commands that measure or index.
fn bare_engine() -> Result<Engine> {
    let options = EngineOptions { score_cache: ScoreCacheUse::Bypass, ..EngineOptions::default() };
    Ok(Engine::open(options)?)
}

/// The model of an index's token vectors and how they are kept: as the options have it, or as the
/// index does.
fn token_model(
    engine: &Engine,
    options: &TokenVectorOptions,
    own: Option<&TokenVectorInfo>,
) -> Result<Option<(TokenVectorInfo, Arc<LateInteraction>)>> {
    let (name, tier) = match (options.token_vectors, own) {
        (Some(tier), _) => (options.token_model.as_str(), tier),
        (None, Some(own)) => (own.identity.name.as_str(), own.tier),
        (None, None) => return Ok(None),
    };
    let model = engine.late_interaction(name)?;
    let info = TokenVectorInfo::of(model.as_ref(), tier);
    // An index that keeps them as long as they are goes on doing so.
    let info = own.map_or(info.clone(), |own| info.reduced_to(own.reduced));
    Ok(Some((info, model)))
}

/// The folder of models, scores and prices: `$TOPSHELF_HOME`, or the platform's.
fn home_dir() -> Result<PathBuf> {
    let store = topshelf::Store::open_default()?;
    store.root().parent().map(Path::to_owned).context("the model store has no parent folder")
}

/// The folder for what can be made again.
fn cache_dir() -> Result<PathBuf> {
    Ok(home_dir()?.join("cache"))
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
