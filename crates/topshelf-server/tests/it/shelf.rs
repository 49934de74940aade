//! [`FakeShelf`]: what the tests serve. It turns a request's setup into the core's own stages, as the program
//! does; only the models and the indexes behind them are fakes.

use std::sync::{Arc, Mutex};

use topshelf_core::{
    Blame, CascadeStep, Embedder, Error, FirstStageSetup, Pipeline, Reranker, Retriever,
    RetrieverKind, Retrievers, SecondStage, SecondStageSetup, Setup, SetupPatch, Windowed,
};
use topshelf_server::{
    AddedDocuments, Document, IndexCard, ModelCard, ModelRole, QueueFigures, RemovedDocuments,
    Result, ServeError, Shelf,
};

use super::animals::{self, FakeEmbedder, FakeIndex};
use super::rerankers;

/// Models and indexes in memory.
pub(crate) struct FakeShelf {
    rerankers: Vec<(ModelCard, Arc<dyn Reranker>)>,
    embedder: Option<Arc<FakeEmbedder>>,
    indexes: Mutex<Vec<FakeIndex>>,
    /// What a reload answers.
    reload: fn() -> Result<()>,
}

impl FakeShelf {
    /// All the rerankers, the bi-encoder, the index that can be changed and the one that cannot.
    pub(crate) fn full() -> Self {
        Self {
            rerankers: rerankers::served(),
            embedder: Some(Arc::new(FakeEmbedder::new())),
            indexes: Mutex::new(vec![animals::animals(), animals::archive()]),
            reload: || Ok(()),
        }
    }

    /// Nothing at all.
    pub(crate) fn empty() -> Self {
        Self { rerankers: Vec::new(), embedder: None, indexes: Mutex::default(), reload: || Ok(()) }
    }

    /// [`Self::full`], of which nothing can be loaded again.
    pub(crate) fn damaged() -> Self {
        let fail = || Err(ServeError::Failed { reason: "animals: it is damaged".to_owned() });
        Self { reload: fail, ..Self::full() }
    }

    fn reranker(&self, name: &str) -> Result<Arc<dyn Reranker>> {
        let is_it = |card: &ModelCard| card.name == name || card.aliases.iter().any(|a| a == name);
        let found = self.rerankers.iter().find(|(card, _)| is_it(card));
        let found = found.map(|(_, reranker)| Arc::clone(reranker));
        found.ok_or_else(|| ServeError::unknown_model(name, &self.models(), ModelRole::Reranker))
    }

    /// What the server was started with: words alone, reranked by the first reranker there is.
    fn setup(&self) -> Setup {
        let second_stage = self.rerankers.first().map(|(card, _)| SecondStageSetup {
            cascade: CascadeStep::of(&card.name).into(),
            ..SecondStageSetup::default()
        });
        let retriever = Some(Retrievers::BM25);
        let first_stage = FirstStageSetup { retriever, ..FirstStageSetup::default() };
        Setup { first_stage, second_stage, ..Setup::default() }
    }

    /// The index of that name, or the first.
    fn with_index<T>(
        &self,
        name: Option<&str>,
        work: impl FnOnce(&mut FakeIndex) -> Result<T>,
    ) -> Result<T> {
        let mut indexes = self.indexes.lock().expect("no test panics while it holds the lock");
        let known = indexes.iter().map(|index| index.name().to_owned()).collect();
        let is_it = |index: &&mut FakeIndex| name.is_none_or(|name| index.name() == name);
        match indexes.iter_mut().find(is_it) {
            Some(index) => work(index),
            None => Err(name.map_or(ServeError::NoIndex, |name| ServeError::UnknownIndex {
                index: name.to_owned(),
                known,
            })),
        }
    }
}

impl Shelf for FakeShelf {
    fn models(&self) -> Vec<ModelCard> {
        let rerankers = self.rerankers.iter().map(|(card, _)| card.clone());
        rerankers.chain(self.embedder.iter().map(|own| own.card())).collect()
    }

    fn indexes(&self) -> Vec<IndexCard> {
        self.indexes.lock().expect("no panic").iter().map(FakeIndex::card).collect()
    }

    fn queues(&self) -> Vec<QueueFigures> {
        Vec::new()
    }

    fn profile(&self) -> Option<String> {
        None
    }

    fn setup(&self, patch: &SetupPatch) -> Result<Setup> {
        Ok(self.setup().with(patch)?)
    }

    fn second_stage(&self, setup: &Setup) -> Result<Option<SecondStage>> {
        let windows = setup.second_stage.as_ref().and_then(|own| own.windows);
        setup.second_stage(|name| {
            let reranker = self.reranker(name)?;
            Ok(match windows {
                Some(windows) => Arc::new(Windowed::new(reranker, windows)?),
                None => reranker,
            })
        })
    }

    fn pipeline(&self, index: Option<&str>, setup: &Setup) -> Result<Pipeline> {
        let index = self.with_index(index, |index| Ok(index.clone()))?;
        let retriever = |kind| -> Result<Arc<dyn Retriever>> {
            match kind {
                RetrieverKind::Bm25 => Ok(Arc::new(index.by_words(setup.first_stage.bm25))),
                RetrieverKind::Dense => Ok(Arc::new(index.by_letters())),
                RetrieverKind::Colbert => {
                    let reason = "the index has no token vectors";
                    Err(Error::stage("index", Blame::Caller, reason).into())
                }
            }
        };
        setup.pipeline(retriever, self.second_stage(setup)?)
    }

    fn embedder(&self, model: Option<&str>) -> Result<Arc<dyn Embedder>> {
        let is_it = |card: &ModelCard| {
            model.is_none_or(|name| card.name == name || card.aliases.iter().any(|a| a == name))
        };
        match &self.embedder {
            Some(embedder) if is_it(&embedder.card()) => Ok(Arc::clone(embedder) as _),
            _ => {
                let name = model.unwrap_or("default");
                Err(ServeError::unknown_model(name, &self.models(), ModelRole::Embedder))
            }
        }
    }

    fn add(&self, index: Option<&str>, documents: Vec<Document>) -> Result<AddedDocuments> {
        self.with_index(index, |index| index.add(documents))
    }

    fn remove(&self, index: Option<&str>, ids: &[String]) -> Result<RemovedDocuments> {
        self.with_index(index, |index| index.remove(ids))
    }

    fn reload(&self) -> Result<()> {
        (self.reload)()
    }
}
