//! What is served: [`Served`] is the engine behind the server's seam.

use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Result;
use topshelf::engine::open_index::is_about_the_request;
use topshelf::engine::resolve;
use topshelf::engine::serving::{Served as ServedModel, ServedModels, ServedNames, UnknownName};
use topshelf::{
    AddOptions, BiEncoder, Call, CascadeStep, Embedder, Engine, EngineError, Family, GivenDocument,
    OpenIndex, Passage, Pipeline, Query, QueueStats, SecondStage, Setup, SetupPatch, UnprovenGate,
};
use topshelf_server::answer::Notice;
use topshelf_server::{
    AddedDocuments, Document, IndexCard, ModelCard, ModelRole, QueueFigures, RemovedDocuments,
    ServeError, Shelf,
};

use crate::args::{DEFAULT_EMBEDDER, DEFAULT_RERANKER, ServeArguments};
use crate::commands::pipelines::{self, NamedProfile};

/// The name of this stage in errors.
const INDEX_STAGE: &str = "index";

/// What a server serves. A reload puts another [`Loaded`] in the place of the one that is there; requests
/// under way go on with theirs.
pub(super) struct Served {
    arguments: Arc<ServeArguments>,
    /// Its scores, prices and budget outlive a reload.
    engine: Engine,
    loaded: RwLock<Arc<Loaded>>,
}

/// Models and indexes that are in memory.
struct Loaded {
    /// Knows the served models and no others.
    engine: Engine,
    models: ServedModels,
    /// Each under its name, the default one first.
    indexes: Vec<(String, OpenIndex)>,
    profile: Option<NamedProfile>,
    /// What the server's own flags change.
    patch: SetupPatch,
    is_writable: bool,
}

impl Served {
    pub(super) fn open(arguments: ServeArguments) -> Result<Self> {
        let engine = pipelines::engine(&arguments.spending, arguments.cache.score_cache())?;
        let loaded = RwLock::new(Arc::new(Loaded::open(&engine, &arguments)?));
        Ok(Self { arguments: Arc::new(arguments), engine, loaded })
    }

    /// The engine that the models were loaded with; it may load others.
    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    fn loaded(&self) -> Arc<Loaded> {
        Arc::clone(&self.loaded.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Scores a few pairs with each reranker that runs here, so that the first request takes no longer
    /// than the others.
    pub(super) fn warm(&self) {
        let text = "a text to begin with ".repeat(12);
        let passage = |n: u32| Arc::new(Passage::standalone(n.to_string(), "", &text));
        let passages: Vec<Arc<Passage>> = (0..4).map(passage).collect();
        let Ok(query) = Query::new("a query to begin with") else { return };
        let loaded = self.loaded();
        let local = loaded.models.rerankers.iter().filter(|own| own.model.queue.is_some());
        for own in local {
            // The first request reports one that cannot.
            let _ = pollster::block_on(own.model.model.score(&Call::new(), &query, &passages));
        }
    }

    /// A line for each thing that is served.
    pub(super) fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for card in Shelf::models(self) {
            lines.push(format!("serving {} ({}) on {}", card.name, card.family, card.engine));
        }
        for card in Shelf::indexes(self) {
            let IndexCard { name, documents, passages, .. } = card;
            lines.push(format!("serving index {name}: {documents} documents, {passages} passages"));
        }
        lines
    }
}

impl Loaded {
    fn open(engine: &Engine, arguments: &ServeArguments) -> Result<Self> {
        let profile = NamedProfile::open(&arguments.profile)?;
        let tuned_profile = profile.as_ref().map(|own| &own.profile);
        let tuned = tuned_profile.map(|own| &own.setup);
        let open = |(name, dir): &(String, _)| Ok((name.clone(), engine.index(dir)?));
        let indexes = arguments.index.iter().map(open).collect::<Result<Vec<_>>>()?;
        let wanted = ServedNames {
            rerankers: rerankers(arguments, tuned),
            bi_encoders: bi_encoders(engine, arguments, &indexes),
            aliases: arguments.alias.clone(),
            unknown: if arguments.any_model {
                UnknownName::UseDefault
            } else {
                UnknownName::Reject
            },
        };
        let models = ServedModels::load(engine, &wanted)?;
        let patch = SetupPatch {
            rerank: arguments.rerank.first().cloned(),
            deadline: arguments.deadline,
            ..SetupPatch::default()
        };
        // What every request would be refused for is said before there is any.
        resolve(tuned_profile, &[&patch], UnprovenGate::Reject)?;
        let engine = engine.serving(models.clone());
        let is_writable = arguments.writable;
        Ok(Self { engine, models, indexes, profile, patch, is_writable })
    }

    fn index(&self, name: Option<&str>) -> Result<&(String, OpenIndex), ServeError> {
        let first = self.indexes.first().ok_or(ServeError::NoIndex)?;
        let Some(name) = name else { return Ok(first) };
        let found = self.indexes.iter().find(|(own, _)| own == name);
        found.ok_or_else(|| ServeError::UnknownIndex {
            index: name.to_owned(),
            known: self.indexes.iter().map(|(own, _)| own.clone()).collect(),
        })
    }

    /// The index, if it may be changed.
    fn writable(&self, name: Option<&str>) -> Result<&(String, OpenIndex), ServeError> {
        let own = self.index(name)?;
        if !self.is_writable {
            return Err(ServeError::ReadOnly { index: own.0.clone() });
        }
        Ok(own)
    }

    fn card(&self, (name, index): &(String, OpenIndex)) -> IndexCard {
        let index = index.now();
        let (settings, totals) = (index.settings(), index.totals());
        IndexCard {
            name: name.clone(),
            documents: totals.documents,
            passages: totals.passages,
            embedder: settings.embedder.as_ref().map(|own| own.identity.name.clone()),
            token_vectors: settings.token_vectors.as_ref().map(|own| own.identity.name.clone()),
            generation: index.generation(),
            writable: self.is_writable,
        }
    }
}

impl Shelf for Served {
    fn models(&self) -> Vec<ModelCard> {
        let loaded = self.loaded();
        let rerankers = loaded.models.rerankers.iter().map(|own| {
            let (model, identity) = (&own.model.model, own.model.model.identity());
            ModelCard {
                name: identity.name.clone(),
                aliases: own.names[1..].to_vec(),
                role: ModelRole::Reranker,
                family: own.model.family.to_string(),
                fingerprint: identity.fingerprint.clone(),
                engine: identity.engine.clone(),
                max_tokens: model.max_tokens(),
                dimension: None,
            }
        });
        let embedders = loaded.models.bi_encoders.iter().map(|own| {
            let identity = own.model.identity();
            ModelCard {
                name: identity.name.clone(),
                aliases: own.names[1..].to_vec(),
                role: ModelRole::Embedder,
                family: Family::BiEncoder.to_string(),
                fingerprint: identity.fingerprint.clone(),
                engine: identity.engine.clone(),
                max_tokens: Some(own.model.max_tokens()),
                dimension: Some(own.model.dimension()),
            }
        });
        rerankers.chain(embedders).collect()
    }

    fn indexes(&self) -> Vec<IndexCard> {
        let loaded = self.loaded();
        loaded.indexes.iter().map(|own| loaded.card(own)).collect()
    }

    fn queues(&self) -> Vec<QueueFigures> {
        let loaded = self.loaded();
        let rerankers = loaded.models.rerankers.iter();
        let rerankers =
            rerankers.filter_map(|own| Some(figures(&own.names[0], own.model.queue.as_ref()?)));
        let of_encoder =
            |own: &ServedModel<Arc<BiEncoder>>| figures(&own.names[0], &own.model.queue());
        rerankers.chain(loaded.models.bi_encoders.iter().map(of_encoder)).collect()
    }

    fn profile(&self) -> Option<String> {
        self.loaded().profile.as_ref().map(NamedProfile::name)
    }

    fn setup(&self, patch: &SetupPatch) -> Result<Setup, ServeError> {
        let loaded = self.loaded();
        let profile = loaded.profile.as_ref().map(|own| &own.profile);
        // Who names a gate in a request takes it without proof; the report says what it did.
        let proof = if patch.gate.is_some() { UnprovenGate::Accept } else { UnprovenGate::Reject };
        resolve(profile, &[&loaded.patch, patch], proof).map_err(refused)
    }

    fn second_stage(&self, setup: &Setup) -> Result<Option<SecondStage>, ServeError> {
        self.loaded().engine.second_stage(setup, None).map_err(refused)
    }

    fn pipeline(&self, index: Option<&str>, setup: &Setup) -> Result<Pipeline, ServeError> {
        let loaded = self.loaded();
        let (_, index) = loaded.index(index)?;
        loaded.engine.pipeline(&index.now(), setup).map_err(refused)
    }

    fn embedder(&self, model: Option<&str>) -> Result<Arc<dyn Embedder>, ServeError> {
        let loaded = self.loaded();
        let model = loaded.models.bi_encoder(model).map_err(refused)?;
        Ok(Arc::clone(model) as Arc<dyn Embedder>)
    }

    fn add(
        &self,
        index: Option<&str>,
        documents: Vec<Document>,
    ) -> Result<AddedDocuments, ServeError> {
        let loaded = self.loaded();
        let own = loaded.writable(index)?;
        let given = documents.into_iter().map(|document| {
            let Document { id, title, text, metadata } = document;
            GivenDocument { id, title, text, metadata }
        });
        let report = own.1.add(given.collect(), &AddOptions::default()).map_err(refused)?;
        let skipped = report.skipped.iter().map(|skipped| Notice {
            path: skipped.path.display().to_string(),
            message: skipped.reason.to_string(),
        });
        Ok(AddedDocuments {
            added: report.files_added,
            replaced: report.files_updated,
            unchanged: report.files_unchanged,
            skipped: skipped.collect(),
            index: loaded.card(own),
        })
    }

    fn remove(&self, index: Option<&str>, ids: &[String]) -> Result<RemovedDocuments, ServeError> {
        let loaded = self.loaded();
        let own = loaded.writable(index)?;
        let (unknown, _) = own.1.remove(ids).map_err(refused)?;
        let removed = ids.len() - unknown.len();
        Ok(RemovedDocuments { removed, unknown, index: loaded.card(own) })
    }

    fn reload(&self) -> Result<(), ServeError> {
        let options =
            pipelines::engine_options(&self.arguments.spending, self.arguments.cache.score_cache());
        let fresh = self.engine.afresh(&options).map_err(anyhow::Error::from);
        let fresh = fresh.and_then(|engine| Loaded::open(&engine, &self.arguments));
        let fresh = fresh.map_err(|error| ServeError::Failed { reason: format!("{error:#}") })?;
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        Ok(())
    }
}

/// The rerankers to serve: those that the flags name, else the profile's with those that stand in for them, else
/// the default one.
fn rerankers(arguments: &ServeArguments, tuned: Option<&Setup>) -> Vec<String> {
    let tuned = tuned.and_then(|setup| setup.second_stage.as_ref());
    let of_profile = tuned.into_iter().flat_map(|second| second.cascade.iter());
    let names: Vec<&str> = if arguments.rerank.is_empty() {
        of_profile.flat_map(CascadeStep::names).collect()
    } else {
        arguments.rerank.iter().flat_map(|name| name.split(',')).map(str::trim).collect()
    };
    let mut unique: Vec<String> = Vec::new();
    for name in names {
        if !name.is_empty() && !unique.iter().any(|own| own == name) {
            unique.push(name.to_owned());
        }
    }
    if unique.is_empty() { vec![DEFAULT_RERANKER.to_owned()] } else { unique }
}

/// The bi-encoders: those that the flags name and those of the indexes, else the default one if it is here.
fn bi_encoders(
    engine: &Engine,
    arguments: &ServeArguments,
    indexes: &[(String, OpenIndex)],
) -> Vec<String> {
    let of_indexes = indexes.iter().filter_map(|(_, index)| index.embedder());
    let of_indexes = of_indexes.map(|model| model.identity().name.clone());
    let names: Vec<String> = arguments.embed.iter().cloned().chain(of_indexes).collect();
    let is_here = || engine.store().is_ok_and(|store| store.find(DEFAULT_EMBEDDER).is_ok());
    if names.is_empty() && indexes.is_empty() && is_here() {
        return vec![DEFAULT_EMBEDDER.to_owned()];
    }
    names
}

fn figures(model: &str, queue: &QueueStats) -> QueueFigures {
    let counts = queue.counts();
    QueueFigures {
        model: model.to_owned(),
        waiting: counts.waiting,
        calls: counts.calls,
        tokens: counts.tokens,
        busy: counts.busy,
        waited: counts.waited,
        answered: counts.answered,
        withdrawn: counts.withdrawn,
    }
}

/// What the engine refuses, in the server's words.
fn refused(error: EngineError) -> ServeError {
    match error {
        EngineError::Core(error) => error.into(),
        EngineError::NotServed { name, known, .. } => ServeError::UnknownModel {
            model: name,
            known: known.split(", ").map(str::to_owned).collect(),
        },
        EngineError::Index(error) => {
            // The index is the server's: no request is to blame for the state that it is in.
            let blame =
                if is_about_the_request(&error) { error.blame() } else { topshelf::Blame::Failure };
            topshelf::Error::stage(INDEX_STAGE, blame, error).into()
        }
        other => {
            let blame = other.blame();
            topshelf::Error::stage("engine", blame, other).into()
        }
    }
}
