//! Models by their names. Each is loaded once and stays until the engine goes.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use topshelf_core::{LanguageModel, Reranker};
use topshelf_models::{
    BiEncoder, CrossEncoder, Family, LateInteraction, LocalModel, ModelFolder, QueueStats,
};
use topshelf_remote::{HostedReranker, RemoteModel};

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::names::{LanguageModelName, RerankerName};

/// A reranker in memory, or a service that is ready to be asked.
#[derive(Clone)]
pub struct LoadedReranker {
    /// The reranker itself, without cache and windows.
    pub model: Arc<dyn Reranker>,
    /// What kind it is.
    pub family: RerankerFamily,
    /// What waits for it, if it runs on a queue of this process.
    pub queue: Option<Arc<QueueStats>>,
    /// The same as a late-interaction model, if it is one.
    pub(crate) late: Option<Arc<LateInteraction>>,
}

/// The kinds of rerankers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RerankerFamily {
    /// Reads query and passage together.
    CrossEncoder,
    /// Compares the vectors of their tokens.
    LateInteraction,
    /// Asks an LLM.
    LanguageModel,
    /// Asks a rerank service.
    Service,
}

impl RerankerFamily {
    /// Its name in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CrossEncoder => "cross-encoder",
            Self::LateInteraction => "late-interaction",
            Self::LanguageModel => "language-model",
            Self::Service => "service",
        }
    }
}

impl fmt::Display for RerankerFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The models of an engine.
#[derive(Default)]
pub(crate) struct Models(Mutex<Loaded>);

/// Models by the names they were asked for with, and by what they are: two names may mean the same one.
#[derive(Default)]
struct Loaded {
    rerankers: HashMap<String, LoadedReranker>,
    cross_encoders: Named<CrossEncoder>,
    bi_encoders: Named<BiEncoder>,
    late: Named<LateInteraction>,
    language_models: HashMap<String, Arc<dyn LanguageModel>>,
}

struct Named<T> {
    by_name: HashMap<String, Arc<T>>,
    by_fingerprint: HashMap<String, Arc<T>>,
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self { by_name: HashMap::new(), by_fingerprint: HashMap::new() }
    }
}

impl<T> Named<T> {
    /// The model of that name, loaded by `load` unless it is there. `find` says where it lies.
    fn get(
        &mut self,
        name: &str,
        find: impl FnOnce() -> Result<ModelFolder>,
        load: impl FnOnce(&ModelFolder) -> Result<T>,
    ) -> Result<Arc<T>> {
        if let Some(known) = self.by_name.get(name) {
            return Ok(Arc::clone(known));
        }
        let folder = find()?;
        let model = match self.by_fingerprint.get(&folder.fingerprint) {
            Some(known) => Arc::clone(known),
            None => Arc::new(load(&folder)?),
        };
        self.by_fingerprint.insert(folder.fingerprint, Arc::clone(&model));
        self.by_name.insert(name.to_owned(), Arc::clone(&model));
        Ok(model)
    }
}

impl Models {
    fn lock(&self) -> MutexGuard<'_, Loaded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// The reranker of that name; see [`crate::names`].
    ///
    /// # Errors
    ///
    /// [`crate::EngineError::Model`] for one that is not there or is none, [`crate::EngineError::Remote`] for a
    /// service without an address or key, [`crate::EngineError::UnknownPrice`],
    /// [`crate::EngineError::NotServed`].
    pub fn reranker(&self, name: &str) -> Result<LoadedReranker> {
        if let Some(served) = self.served() {
            return served.reranker(name).cloned();
        }
        if let Some(known) = self.models().lock().rerankers.get(name) {
            return Ok(known.clone());
        }
        let loaded = match RerankerName::parse(name)? {
            RerankerName::LanguageModel(strategy, model) => {
                let model = strategy.reranker(self.named_language_model(&model)?);
                LoadedReranker::unqueued(model, RerankerFamily::LanguageModel)
            }
            RerankerName::Service(target) => {
                let model = HostedReranker::new(target, self.spending().meter(name)?)?;
                LoadedReranker::unqueued(Arc::new(model), RerankerFamily::Service)
            }
            RerankerName::Model(model) => self.local_reranker(model)?,
        };
        self.models().lock().rerankers.insert(name.to_owned(), loaded.clone());
        Ok(loaded)
    }

    fn local_reranker(&self, name: &str) -> Result<LoadedReranker> {
        let folder = self.store()?.find(name)?;
        Ok(match folder.spec.family {
            Family::LateInteraction => {
                let model = self.late_interaction(name)?;
                let queue = Some(model.queue());
                let late = Some(Arc::clone(&model));
                LoadedReranker { model, family: RerankerFamily::LateInteraction, queue, late }
            }
            // `from_folder` rejects anything but a cross-encoder.
            Family::CrossEncoder | Family::BiEncoder | Family::LanguageModel => {
                let load = |folder: &ModelFolder| Ok(CrossEncoder::from_folder(folder)?);
                let model = self.models().lock().cross_encoders.get(name, || Ok(folder), load)?;
                let queue = Some(model.queue());
                LoadedReranker { model, family: RerankerFamily::CrossEncoder, queue, late: None }
            }
        })
    }

    /// The bi-encoder of that name.
    ///
    /// # Errors
    ///
    /// [`crate::EngineError::Model`], [`crate::EngineError::NotLoaded`].
    pub fn bi_encoder(&self, name: &str) -> Result<Arc<BiEncoder>> {
        let find = || self.find(name);
        let load = |folder: &ModelFolder| Ok(BiEncoder::from_folder(folder)?);
        self.models().lock().bi_encoders.get(name, find, load)
    }

    /// The late-interaction model of that name.
    ///
    /// # Errors
    ///
    /// [`crate::EngineError::Model`], [`crate::EngineError::NotLoaded`].
    pub fn late_interaction(&self, name: &str) -> Result<Arc<LateInteraction>> {
        let find = || self.find(name);
        let load = |folder: &ModelFolder| Ok(LateInteraction::from_folder(folder)?);
        self.models().lock().late.get(name, find, load)
    }

    /// The model of that name in the store. An engine with a fixed set of models loads no others, also where an
    /// index that has changed meanwhile asks for one.
    fn find(&self, name: &str) -> Result<ModelFolder> {
        if self.served().is_some() {
            return Err(EngineError::NotLoaded { model: name.to_owned() });
        }
        Ok(self.store()?.find(name)?)
    }

    /// The language model of that name: `MODEL@PLACE`, or a model or file of this machine.
    ///
    /// # Errors
    ///
    /// [`crate::EngineError::Model`], [`crate::EngineError::Remote`], [`crate::EngineError::UnknownPrice`].
    pub fn language_model(&self, name: &str) -> Result<Arc<dyn LanguageModel>> {
        self.named_language_model(&LanguageModelName::parse(name)?)
    }

    fn named_language_model(&self, name: &LanguageModelName<'_>) -> Result<Arc<dyn LanguageModel>> {
        if let Some(known) = self.models().lock().language_models.get(name.name) {
            return Ok(Arc::clone(known));
        }
        let path = Path::new(name.model);
        let is_gguf = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf"));
        let model: Arc<dyn LanguageModel> = match &name.place {
            Some(place) => {
                let meter = self.spending().meter(name.name)?;
                Arc::new(RemoteModel::new(name.model, place, meter)?)
            }
            None if is_gguf => {
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                Arc::new(LocalModel::open(&name, path)?)
            }
            None => Arc::new(LocalModel::from_folder(&self.store()?.find(name.model)?)?),
        };
        let known = Arc::clone(&model);
        self.models().lock().language_models.insert(name.name.to_owned(), known);
        Ok(model)
    }
}

impl LoadedReranker {
    fn unqueued(model: Arc<dyn Reranker>, family: RerankerFamily) -> Self {
        Self { model, family, queue: None, late: None }
    }
}
