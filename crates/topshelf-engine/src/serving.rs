//! [`ServedModels`]: a fixed set of models under their names.
//!
//! A server loads nothing because a request names it: a client that could name any address or file would have the
//! server fetch it. So its engine knows these models and no others ([`Engine::serving`]).

use std::sync::Arc;

use topshelf_core::{DEFAULT_RERANKER, Embedder as _};
use topshelf_models::BiEncoder;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::models::LoadedReranker;
use crate::names::LOCAL;

/// What is to be served.
#[derive(Debug, Clone, Default)]
pub struct ServedNames {
    /// Rerankers, the default one first.
    pub rerankers: Vec<String>,
    /// Bi-encoders, the default one first.
    pub bi_encoders: Vec<String>,
    /// Further names, each with the model that it means.
    pub aliases: Vec<(String, String)>,
    /// What a name that is none of these means.
    pub unknown: UnknownName,
}

/// What a name means that no model has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UnknownName {
    /// It is an error.
    #[default]
    Reject,
    /// The default model answers.
    UseDefault,
}

/// A model with the names that mean it.
#[derive(Clone)]
pub struct Served<M> {
    /// The names that may be shown, the one that it has itself first.
    pub names: Vec<String>,
    /// The names by which it was asked for, which mean it too: paths may be among them.
    given: Vec<String>,
    /// The model.
    pub model: M,
}

/// Models that are served.
#[derive(Clone)]
pub struct ServedModels {
    /// Rerankers, the default one first.
    pub rerankers: Vec<Served<LoadedReranker>>,
    /// Bi-encoders, the default one first.
    pub bi_encoders: Vec<Served<Arc<BiEncoder>>>,
    unknown: UnknownName,
}

impl ServedModels {
    /// Loads them.
    ///
    /// # Errors
    ///
    /// As [`Engine::reranker`] and [`Engine::bi_encoder`].
    pub fn load(engine: &Engine, wanted: &ServedNames) -> Result<Self> {
        let mut own =
            Self { rerankers: Vec::new(), bi_encoders: Vec::new(), unknown: wanted.unknown };
        for name in &wanted.rerankers {
            let model = engine.reranker(name)?;
            let identity = model.model.identity();
            let names = names(engine, &identity.name, name, &wanted.aliases);
            let mut known = own.rerankers.iter_mut();
            match known.find(|other| other.model.model.identity() == identity) {
                Some(known) => known.add(names, name),
                None => own.rerankers.push(Served { names, given: vec![name.clone()], model }),
            }
        }
        for name in &wanted.bi_encoders {
            let model = engine.bi_encoder(name)?;
            let names = names(engine, &model.identity().name, name, &wanted.aliases);
            let mut known = own.bi_encoders.iter_mut();
            match known.find(|other| Arc::ptr_eq(&other.model, &model)) {
                Some(known) => known.add(names, name),
                None => own.bi_encoders.push(Served { names, given: vec![name.clone()], model }),
            }
        }
        Ok(own)
    }

    /// The reranker of that name.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotServed`].
    pub fn reranker(&self, name: &str) -> Result<&LoadedReranker> {
        self.find(&self.rerankers, Some(name), "reranker")
    }

    /// The bi-encoder of that name; the default one without a name.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotServed`].
    pub fn bi_encoder(&self, name: Option<&str>) -> Result<&Arc<BiEncoder>> {
        self.find(&self.bi_encoders, name, "bi-encoder")
    }

    fn find<'m, M>(
        &self,
        models: &'m [Served<M>],
        name: Option<&str>,
        role: &'static str,
    ) -> Result<&'m M> {
        let has_name = |own: &&Served<M>| {
            let mut all = own.names.iter().chain(&own.given);
            name.is_none_or(|name| all.any(|own| own == name))
        };
        let default = || models.first().filter(|_| self.unknown == UnknownName::UseDefault);
        let found = models.iter().find(has_name).or_else(default);
        found.map(|own| &own.model).ok_or_else(|| EngineError::NotServed {
            role,
            name: name.unwrap_or("default").chars().take(100).collect(),
            known: models.iter().map(|own| own.names[0].as_str()).collect::<Vec<_>>().join(", "),
        })
    }
}

impl<M> Served<M> {
    /// Adds the names of the same model that was asked for once more.
    fn add(&mut self, names: Vec<String>, given: &str) {
        for name in names {
            if !self.names.contains(&name) {
                self.names.push(name);
            }
        }
        self.given.push(given.to_owned());
    }
}

/// The names to show of a model that is called `name` and was asked for as `given`.
fn names(engine: &Engine, name: &str, given: &str, aliases: &[(String, String)]) -> Vec<String> {
    let known = engine.store().ok().and_then(|store| store.find(name).ok());
    let mut all = vec![name.to_owned()];
    all.extend(known.into_iter().flat_map(|folder| folder.spec.aliases));
    all.extend((name == DEFAULT_RERANKER).then(|| LOCAL.to_owned()));
    let own = aliases.iter().filter(|(_, model)| model == given || model == name);
    all.extend(own.map(|(alias, _)| alias.clone()));
    let mut seen = std::collections::HashSet::new();
    all.retain(|name| seen.insert(name.clone()));
    all
}
