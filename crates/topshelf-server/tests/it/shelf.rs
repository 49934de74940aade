//! [`FakeShelf`]: what the tests serve. It turns a request's words into the core's own stages, as the program
//! does; only the models and the indexes behind them are fakes.

use std::sync::{Arc, Mutex};

use topshelf_core::{
    Blend, BlendScore, Embedder, Fusion, Gate, Normalisation, OnFailure, Pipeline, Policy,
    Reranker, SecondStage,
};
use topshelf_server::{
    AddedDocuments, Document, IndexCard, ModelCard, ModelRole, QueueFigures, RemovedDocuments,
    Reranking, Result, Retrieval, ServeError, Shelf,
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

    /// The rerankers of a step: names with commas between them stand in for one another.
    fn step(&self, names: &str) -> Result<Vec<Arc<dyn Reranker>>> {
        names.split(',').map(|name| self.reranker(name)).collect()
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

fn wrong(field: &str, reason: impl Into<String>) -> ServeError {
    ServeError::WrongField { field: field.to_owned(), reason: reason.into() }
}

/// `margin:bm25:2>=1`, or `none`.
fn gate(words: &str) -> Result<Option<Gate>> {
    if words == "none" {
        return Ok(None);
    }
    let parts = words.split_once(">=");
    let (signal, threshold) = parts.ok_or_else(|| wrong("gate", "give a signal and a value"))?;
    let threshold = threshold.parse().map_err(|_| wrong("gate", "expected a number after >="))?;
    Ok(Some(Gate { signal: signal.parse()?, threshold }))
}

fn policy(words: &Reranking) -> Result<Policy> {
    let blend = |weight| Blend::new(weight, BlendScore::MinMax);
    Ok(Policy {
        gate: words.gate.as_deref().map(gate).transpose()?.flatten(),
        blend: words.blend.map(blend).transpose()?,
        min_relevance: words.min_relevance,
        deadline: words.deadline,
        on_failure: if words.strict == Some(true) { OnFailure::Fail } else { OnFailure::KeepOrder },
        ..Policy::default()
    })
}

fn fusion(words: &Retrieval) -> Result<Fusion> {
    let weighted =
        |normalisation| Fusion::Weighted { normalisation, weights: words.weights.clone() };
    match words.fusion.as_deref() {
        None | Some("rrf") => Ok(Fusion::Rrf { k: words.rrf_k.unwrap_or(60.0) }),
        Some("min-max") => Ok(weighted(Normalisation::MinMax)),
        Some("z-score") => Ok(weighted(Normalisation::ZScore)),
        Some(other) => Err(wrong("fusion", format!("there is no {other}"))),
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

    fn second_stage(&self, words: &Reranking) -> Result<Option<SecondStage>> {
        let default = self.rerankers.first().map_or("none", |(card, _)| card.name.as_str());
        let names = words.rerank.as_deref().unwrap_or(default);
        if names == "none" {
            return Ok(None);
        }
        let mut stage: Option<SecondStage> = None;
        for reranker in self.step(names)? {
            stage = Some(match stage {
                None => SecondStage::of(reranker),
                Some(stage) => stage.or_of(reranker),
            });
        }
        let mut stage = stage.expect("a list of names has one");
        for survivors in &words.then {
            let mut step = self.step(&survivors.model)?.into_iter();
            let first = step.next().expect("a list of names has one");
            stage = step.fold(stage.then_of(first, survivors.keep, None)?, SecondStage::or_of);
        }
        Ok(Some(stage.with_policy(policy(words)?)?))
    }

    fn pipeline(&self, first: &Retrieval, second: &Reranking, top: usize) -> Result<Pipeline> {
        let index = self.with_index(first.index.as_deref(), |index| Ok(index.clone()))?;
        let builder = Pipeline::builder().top(top).fusion(fusion(first)?);
        let builder = match first.retriever.as_deref() {
            None | Some("bm25") => builder.retriever(index.by_words()),
            Some("dense") => builder.retriever(index.by_letters()),
            Some("hybrid") => builder.retriever(index.by_words()).retriever(index.by_letters()),
            Some(other) => return Err(wrong("retriever", format!("there is no {other}"))),
        };
        let builder = builder.depth(first.depth.unwrap_or(100));
        let builder = match self.second_stage(second)? {
            Some(stage) => builder.second_stage(stage),
            None => builder,
        };
        Ok(builder.build()?)
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
