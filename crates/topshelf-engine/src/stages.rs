//! Names and setups to stages and pipelines.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use topshelf_cache::CachedReranker;
use topshelf_core::{
    FirstStageSetup, Grain, Pipeline, Reranker, Retriever, RetrieverKind, Retrievers, SecondStage,
    SecondStageSetup, Setup, TokenVectorUse, WindowOptions, Windowed,
};
use topshelf_index::{Index, IndexError, LateOptions, Settings};

use crate::engine::{Engine, ScoreCacheUse};
use crate::error::{EngineError, Result};
use crate::models::LoadedReranker;

/// Second stages that were asked for, so that what is known of their rerankers' pace is kept.
#[derive(Default)]
pub(crate) struct Stages(Mutex<HashMap<String, SecondStage>>);

/// The most second stages that are kept: generations of an index come and go, and what was known of old ones is
/// no loss.
const MOST: usize = 64;

impl Stages {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, SecondStage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The retrievers that an index has something for.
pub fn retrievers_of(settings: &Settings) -> Retrievers {
    let mut there = Retrievers::BM25;
    if settings.embedder.is_some() {
        there = there.with(RetrieverKind::Dense);
    }
    if settings.token_vectors.is_some() {
        there = there.with(RetrieverKind::Colbert);
    }
    there
}

impl Engine {
    /// The whole pipeline over an index.
    ///
    /// # Errors
    ///
    /// As [`Setup::check`], [`Self::retriever`] and [`Self::reranker`].
    pub fn pipeline(&self, index: &Index, setup: &Setup) -> Result<Pipeline> {
        let first_stage = setup.first_stage.decided(retrievers_of(index.settings()));
        let setup = Setup { first_stage, ..setup.clone() };
        setup.check()?;
        let retriever = |kind| self.retriever(index, kind, &setup.first_stage);
        let second = self.second_stage(&setup, Some(index))?;
        setup.pipeline(retriever, second)
    }

    /// One retriever over an index.
    ///
    /// # Errors
    ///
    /// [`EngineError::Index`] where the index has nothing for it, [`EngineError::Model`] where its model is not
    /// there.
    pub fn retriever(
        &self,
        index: &Index,
        kind: RetrieverKind,
        setup: &FirstStageSetup,
    ) -> Result<Arc<dyn Retriever>> {
        let settings = index.settings();
        Ok(match kind {
            RetrieverKind::Bm25 => Arc::new(index.bm25(setup.bm25)),
            RetrieverKind::Dense => {
                let own = settings.embedder.as_ref().ok_or(IndexError::NoVectors)?;
                Arc::new(index.dense(self.bi_encoder(&own.identity.name)?)?)
            }
            RetrieverKind::Colbert => {
                let own = settings.token_vectors.as_ref().ok_or(IndexError::NoTokenVectors)?;
                let model = self.late_interaction(&own.identity.name)?;
                Arc::new(index.late_interaction(model, LateOptions::default())?)
            }
        })
    }

    /// The second stage of a setup; `None` where nothing is reranked. `index` is where candidates come from,
    /// which may have their token vectors.
    ///
    /// # Errors
    ///
    /// As [`Self::reranker`], and numbers that mean nothing.
    pub fn second_stage(
        &self,
        setup: &Setup,
        index: Option<&Index>,
    ) -> Result<Option<SecondStage>> {
        let Some(second) = &setup.second_stage else { return Ok(None) };
        let key = key(second, index)?;
        if let Some(known) = self.stages().lock().get(&key) {
            return Ok(Some(known.clone().with_policy(setup.policy())?));
        }
        let index = index.filter(|_| second.token_vectors == TokenVectorUse::Stored);
        let stage = second.rerankers(|name| {
            self.wrapped(&self.reranker(name)?, second.windows, index, ScoreCacheUse::Use)
        })?;
        let mut stages = self.stages().lock();
        if stages.len() >= MOST {
            stages.clear();
        }
        stages.insert(key, stage.clone());
        Ok(Some(stage.with_policy(setup.policy())?))
    }

    /// A reranker with what stands around it in a pipeline: stored token vectors where the index has those of the
    /// model, else the score cache and windows of long documents.
    ///
    /// # Errors
    ///
    /// [`EngineError::Core`] for windows that mean nothing.
    pub fn wrapped(
        &self,
        loaded: &LoadedReranker,
        windows: Option<WindowOptions>,
        index: Option<&Index>,
        cache: ScoreCacheUse,
    ) -> Result<Arc<dyn Reranker>> {
        if let (Some(late), Some(index)) = (&loaded.late, index)
            && let Some(stored) = index.stored_tokens(Arc::clone(late))
        {
            // Scoring stored vectors takes less than looking their score up.
            return Ok(Arc::new(stored));
        }
        let model = Arc::clone(&loaded.model);
        if model.grain() == Grain::List {
            return Ok(model);
        }
        // The cache is inside the windows, and so keeps the score of each.
        let model = match self.cache().filter(|_| cache == ScoreCacheUse::Use) {
            Some(cache) => Arc::new(CachedReranker::new(model, Arc::clone(cache))),
            None => model,
        };
        Ok(match windows {
            Some(windows) => Arc::new(Windowed::new(model, windows)?),
            None => model,
        })
    }
}

/// What decides on the rerankers of a second stage, as a text.
fn key(second: &SecondStageSetup, index: Option<&Index>) -> Result<String> {
    let SecondStageSetup { cascade, windows, token_vectors, .. } = second;
    // Names as they are read: what a request writes between them does not count.
    let cascade: Vec<_> = cascade
        .iter()
        .map(|step| {
            let names: Vec<&str> = step.names().collect();
            (names, step.keep, step.early_stop, &step.fingerprint)
        })
        .collect();
    // Vectors are those of one index as it was opened.
    let tokens = index.filter(|index| index.settings().token_vectors.is_some());
    let tokens = tokens.map(Index::instance);
    serde_json::to_string(&(cascade, windows, token_vectors, tokens)).map_err(|error| {
        let blame = topshelf_core::Blame::Failure;
        EngineError::Core(topshelf_core::Error::stage("rerank", blame, error))
    })
}
