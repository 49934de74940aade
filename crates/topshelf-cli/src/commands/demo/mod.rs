//! `topshelf demo`: the main job on real text that is already on this machine.
//!
//! | for | see |
//! | --- | --- |
//! | the documentation of the packages that this program was built from, and the measurement on it | [`packages`], [`sources`] |
//! | a folder of one's own | [`folder`] |
//! | the index, filled in portions | [`filling`] |
//! | one question before and after reranking, in words | [`story`], [`conclusion`] |
//! | the judged questions | [`questions`] |
//! | asking all of them, and going on after an interruption | [`measurement`], [`journal`] |
//! | what the table says, what to type next | [`verdict`], [`next`] |
//!
//! A first part of the collection is indexed and one question is asked of it, so that there is an
//! answer after seconds. Then the rest is indexed and all questions are asked. Whatever is done is on
//! disk: Ctrl-C ends the program at once, and the next run goes on from there.

mod conclusion;
mod filling;
mod folder;
mod journal;
mod measurement;
mod next;
mod packages;
mod questions;
mod sources;
mod story;
mod verdict;

use std::sync::Arc;

use anyhow::Result;
use topshelf::analyse::Analyser;
use topshelf::pull::PullOptions;
use topshelf::{BiEncoder, Engine, Index, Language, LoadedReranker, ModelError, OnFailure, Setup};

use self::story::Story;
use super::collection::{Candidates, Parts};
use super::models::PullBars;
use super::{bare_engine, exit_on_interrupt, print};
use crate::args::{DEFAULT_EMBEDDER, DEFAULT_RERANKER, DemoArguments};
use crate::exit::usage;

/// Candidates that are reranked.
const DEPTH: usize = 30;

/// Columns of what is printed: the most that are read with ease, and the fewest that are laid out.
const WIDEST: usize = 100;
const NARROWEST: usize = 60;

pub(super) fn run(arguments: &DemoArguments) -> Result<()> {
    exit_on_interrupt("stopped; the same command goes on from here")?;
    match &arguments.folder {
        Some(folder) => folder::run(arguments, folder),
        None => packages::run(arguments),
    }
}

/// Refuses a question that cannot be asked before a minute is spent on the index.
fn refuse_unanswerable(question: &str) -> Result<()> {
    topshelf::Query::new(question)?;
    let mut analyser = Analyser::new(Language::English);
    if analyser.terms(question).is_empty() {
        return Err(usage(
            "the question has no word to look up: the demo reads English, and words such as \"to be or not \
             to be\" are in every document; add a word that the answer would have",
        ));
    }
    Ok(())
}

/// The default models, and the engine that has them in memory.
struct LoadedModels {
    engine: Engine,
    embedder: Arc<BiEncoder>,
    reranker: LoadedReranker,
}

impl LoadedModels {
    /// Loads them, and pulls those that are not on this machine.
    fn load() -> Result<Self> {
        // Without the score cache: a score that is looked up says nothing of what reranking takes.
        let engine = bare_engine()?;
        let store = engine.store()?;
        let names = [DEFAULT_EMBEDDER, DEFAULT_RERANKER];
        let is_absent = |name| matches!(store.find(name), Err(ModelError::NotPulled { .. }));
        if names.into_iter().any(is_absent) {
            // Both lie in one archive, which is downloaded once.
            store.pull_all(&names, &PullOptions::from_env(), &PullBars::default())?;
        }
        let embedder = engine.bi_encoder(DEFAULT_EMBEDDER)?;
        let reranker = engine.reranker(DEFAULT_RERANKER)?;
        Ok(Self { engine, embedder, reranker })
    }

    /// Tokens that they have read.
    fn tokens(&self) -> u64 {
        let of_reranker = self.reranker.queue.as_ref().map_or(0, |own| own.counts().tokens);
        self.embedder.queue().counts().tokens + of_reranker
    }

    /// What the systems over an index are made of.
    fn parts<'a>(&self, index: &'a Index, depth: usize) -> Parts<'a> {
        let mut setup = Setup { on_failure: OnFailure::Fail, ..Setup::default() };
        setup.first_stage.depth = depth;
        setup.top = depth;
        let (engine, candidates) = (self.engine.clone(), Candidates::new());
        Parts { engine, index: Some(index), candidates, setup }
    }
}

/// The columns to print in: those of the terminal, within bounds.
fn width() -> usize {
    let terminal = console::Term::stdout().size_checked();
    terminal.map_or(WIDEST, |(_, columns)| usize::from(columns)).clamp(NARROWEST, WIDEST)
}

/// Prints the story as wide as there is room, and an empty line.
fn print_story(story: &Story) -> Result<()> {
    print(&format!("{}\n", story.as_text(width())))
}
