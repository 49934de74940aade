//! What is served: [`Served`] loads models and indexes, and turns a request's words into stages.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use anyhow::Result;
use topshelf::tune::setup::Reranking as Described;
use topshelf::{
    Call, Embedder, Passage, Pipeline, Profile, Query, QueueStats, Reranker, ScoreCache,
    SecondStage, Store, WindowOptions,
};
use topshelf_server::{
    AddedDocuments, Document, IndexCard, ModelCard, ModelRole, QueueFigures, RemovedDocuments,
    Reranking, Retrieval, ServeError, Shelf, Survivors,
};

use super::index::ServedIndex;
use crate::args::{
    DEFAULT_EMBEDDER, DEFAULT_RERANKER, FirstStage, FusionName, RetrieverName, SecondStageOptions,
    ServeArguments,
};
use crate::commands::chosen::{self, Chosen};
use crate::commands::rerankers::{self, Loaded};
use crate::commands::spending::Spending;
use crate::commands::{Known, cache, with_first_stage};
use crate::exit::usage;

/// What a server serves. A reload puts another [`Loads`] in the place of the one that is there;
/// requests under way go on with theirs.
pub(super) struct Served {
    arguments: Arc<ServeArguments>,
    /// Scores that are kept; they outlive a reload.
    cache: Option<Arc<ScoreCache>>,
    loads: RwLock<Arc<Loads>>,
}

/// Models and indexes that are in memory.
struct Loads {
    arguments: Arc<ServeArguments>,
    /// Rerankers in their order, the default one first.
    rerankers: Vec<ServedReranker>,
    embedders: Vec<ServedEmbedder>,
    indexes: Vec<ServedIndex>,
    /// The pipeline that was tuned, if one takes part.
    profile: Option<(Profile, PathBuf)>,
    /// Stages that were asked for, so that what is known of their pace is kept.
    stages: Mutex<HashMap<String, SecondStage>>,
}

/// A reranker under its names.
struct ServedReranker {
    card: ModelCard,
    /// The name by which it was loaded.
    given: String,
    /// As it was loaded.
    model: Arc<dyn Reranker>,
    /// Behind windows and cache.
    ready: Arc<dyn Reranker>,
    /// What waits for it, if it runs here.
    queue: Option<Arc<QueueStats>>,
}

struct ServedEmbedder {
    card: ModelCard,
    model: Arc<dyn Embedder>,
    queue: Arc<QueueStats>,
}

impl Served {
    pub(super) fn open(arguments: ServeArguments) -> Result<Self> {
        let arguments = Arc::new(arguments);
        let cache = if arguments.cache.no_cache { None } else { cache::open()? };
        let loads = Loads::open(&arguments, cache.as_ref())?;
        Ok(Self { arguments, cache, loads: RwLock::new(Arc::new(loads)) })
    }

    fn loads(&self) -> Arc<Loads> {
        Arc::clone(&self.loads.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Scores a few pairs with each reranker that runs here, so that the first request takes no longer
    /// than the others.
    pub(super) fn warm(&self) {
        let passages: Vec<Arc<Passage>> = (0..4)
            .map(|n| {
                Arc::new(Passage::standalone(n.to_string(), "", "a text to begin with ".repeat(12)))
            })
            .collect();
        let Ok(query) = Query::new("a query to begin with") else { return };
        let loads = self.loads();
        for own in loads.rerankers.iter().filter(|own| own.queue.is_some()) {
            // One that cannot is told by the first request.
            let _ = pollster::block_on(own.model.score(&Call::new(), &query, &passages));
        }
    }

    /// A line for each thing that is served.
    pub(super) fn describe(&self) -> Vec<String> {
        self.loads().describe()
    }
}

impl Loads {
    fn open(arguments: &Arc<ServeArguments>, cache: Option<&Arc<ScoreCache>>) -> Result<Self> {
        let spending = Spending::of(&arguments.spending)?;
        let profile = chosen::open(&arguments.profile)?;
        let mut indexes = Vec::new();
        for (name, dir) in &arguments.index {
            indexes.push(ServedIndex::open(name.clone(), dir, arguments.writable)?);
        }
        let tuned = profile.as_ref().and_then(|(profile, _)| profile.second_stage.as_ref());
        let named = match (arguments.rerank.as_slice(), tuned) {
            ([], Some(tuned)) => names_of(tuned),
            ([], None) => vec![DEFAULT_RERANKER.to_owned()],
            (named, _) => named.to_vec(),
        };
        let mut rerankers = Vec::new();
        for name in named {
            let loaded = rerankers::open(&name, None, &spending)?;
            let ready = loaded.behind(Some(WindowOptions::default()), cache)?;
            let card = reranker_card(&name, &loaded, &arguments.alias)?;
            let Loaded { model, queue, .. } = loaded;
            rerankers.push(ServedReranker { card, given: name, model, ready, queue });
        }
        let embedders = embedders(arguments, &indexes)?;
        let (arguments, stages) = (Arc::clone(arguments), Mutex::default());
        Ok(Self { arguments, rerankers, embedders, indexes, profile, stages })
    }

    fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for card in self.models() {
            lines.push(format!("serving {} ({}) on {}", card.name, card.family, card.engine));
        }
        for card in self.indexes() {
            let IndexCard { name, documents, passages, .. } = card;
            lines.push(format!("serving index {name}: {documents} documents, {passages} passages"));
        }
        lines
    }

    /// The reranker that a request names.
    fn reranker(&self, name: &str) -> Result<&ServedReranker, ServeError> {
        let is_it = |own: &&ServedReranker| {
            own.card.name == name
                || own.given == name
                || own.card.aliases.iter().any(|alias| alias == name)
        };
        let found = self.rerankers.iter().find(is_it);
        let any = || self.rerankers.first().filter(|_| self.arguments.any_model);
        found
            .or_else(any)
            .ok_or_else(|| ServeError::unknown_model(name, &self.models(), ModelRole::Reranker))
    }

    fn index(&self, name: Option<&str>) -> Result<&ServedIndex, ServeError> {
        let first = self.indexes.first().ok_or(ServeError::NoIndex)?;
        let Some(name) = name else { return Ok(first) };
        let found = self.indexes.iter().find(|index| index.name == name);
        found.ok_or_else(|| ServeError::UnknownIndex {
            index: name.to_owned(),
            known: self.indexes.iter().map(|index| index.name.clone()).collect(),
        })
    }

    /// The words of a request as the options of the command line, whose rules they obey.
    fn chosen(&self, reranking: &Reranking) -> Result<Chosen, ServeError> {
        let gate = reranking.gate.as_deref().map(crate::args::gate).transpose();
        let gate = gate.map_err(|reason| wrong("gate", reason))?;
        let then = |own: &Survivors| (own.model.clone(), own.keep);
        // The profile's second stage where nothing else is named.
        let tuned = self.profile.is_some() && self.arguments.rerank.is_empty();
        let default = self.rerankers.first().filter(|_| !tuned).map(|own| own.given.clone());
        let options = SecondStageOptions {
            rerank: reranking.rerank.clone().or(default),
            then: reranking.then.iter().map(then).collect(),
            blend: in_range("blend", reranking.blend)?,
            min_relevance: in_range("min_relevance", reranking.min_relevance)?,
            deadline: reranking.deadline.or(self.arguments.deadline),
            // Who names a gate in a request takes it without proof; the report tells what it did.
            force: gate.is_some(),
            gate,
            strict: reranking.strict.unwrap_or(false),
            ..SecondStageOptions::plain()
        };
        Chosen::with(&options, self.profile.clone())
            .map_err(|error| wrong("the request", error.to_string()))
    }

    /// The second stage of these words. `index` is where candidates come from.
    fn stage(
        &self,
        reranking: &Reranking,
        index: Option<&ServedIndex>,
    ) -> Result<Option<SecondStage>, ServeError> {
        let chosen = self.chosen(reranking)?;
        let Some(described) = &chosen.second_stage else { return Ok(None) };
        let stage = self.known_stage(described, index)?;
        Ok(Some(stage.with_policy(chosen.policy(described))?))
    }

    /// The rerankers of a second stage, with what is known of their pace.
    fn known_stage(
        &self,
        described: &Described,
        index: Option<&ServedIndex>,
    ) -> Result<SecondStage, ServeError> {
        let of_index = index
            .map_or(String::new(), |index| format!("{} {}", index.name, index.now().generation()));
        let key = format!("{of_index} {:?}", described.cascade);
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = stages.get(&key) {
            return Ok(known.clone());
        }
        let stage = described.second_stage(|name| self.ready(name, index))?;
        // Generations come and go; what was known of old ones is no loss.
        if stages.len() > 64 {
            stages.clear();
        }
        stages.insert(key, stage.clone());
        Ok(stage)
    }

    /// A reranker behind windows and cache; over stored token vectors where the index has them.
    fn ready(
        &self,
        name: &str,
        index: Option<&ServedIndex>,
    ) -> Result<Arc<dyn Reranker>, ServeError> {
        let served = self.reranker(name)?;
        if let Some(index) = index
            && let Some(model) = index.tokens()
            && topshelf::TokenEmbedder::identity(model.as_ref()).fingerprint
                == served.card.fingerprint
            && let Some(stored) = index.now().stored_tokens(Arc::clone(model))
        {
            return Ok(Arc::new(stored));
        }
        Ok(Arc::clone(&served.ready))
    }
}

impl Loads {
    fn queues(&self) -> Vec<QueueFigures> {
        let rerankers = self.rerankers.iter().map(|own| (&own.card, own.queue.as_ref()));
        let embedders = self.embedders.iter().map(|own| (&own.card, Some(&own.queue)));
        let figures = rerankers.chain(embedders).filter_map(|(card, queue)| {
            let counts = queue?.counts();
            Some(QueueFigures {
                model: card.name.clone(),
                waiting: counts.waiting,
                calls: counts.calls,
                tokens: counts.tokens,
                busy: counts.busy,
                waited: counts.waited,
                answered: counts.answered,
                withdrawn: counts.withdrawn,
            })
        });
        figures.collect()
    }

    fn models(&self) -> Vec<ModelCard> {
        let rerankers = self.rerankers.iter().map(|own| own.card.clone());
        rerankers.chain(self.embedders.iter().map(|own| own.card.clone())).collect()
    }

    fn indexes(&self) -> Vec<IndexCard> {
        self.indexes.iter().map(ServedIndex::card).collect()
    }

    fn pipeline(
        &self,
        retrieval: &Retrieval,
        reranking: &Reranking,
        top: usize,
    ) -> Result<Pipeline, ServeError> {
        let served = self.index(retrieval.index.as_deref())?;
        let index = served.now();
        let chosen = self.chosen(reranking)?;
        let retriever = retrieval.retriever.as_deref().map(retriever).transpose()?;
        let options = FirstStage {
            fusion: retrieval.fusion.as_deref().map(fusion).transpose()?,
            rrf_k: retrieval.rrf_k,
            weights: retrieval.weights.clone(),
            ..FirstStage::plain()
        };
        let has_vectors = index.settings().embedder.is_some();
        let first = chosen.first_stage(&options, retriever, retrieval.depth, has_vectors);
        let known = Known { embedder: served.embedder(), tokens: served.tokens() };
        let builder = Pipeline::builder().top(top);
        let builder = builder.deadline(chosen.deadline).on_failure(chosen.on_failure);
        let mut builder = with_first_stage(builder, &index, &first, known)
            .map_err(|error| wrong("retriever", error.to_string()))?;
        if let Some(stage) = self.stage(reranking, Some(served))? {
            builder = builder.second_stage(stage);
        }
        Ok(builder.build()?)
    }

    fn embedder(&self, model: Option<&str>) -> Result<Arc<dyn Embedder>, ServeError> {
        let is_it = |own: &&ServedEmbedder| {
            model.is_none_or(|name| {
                own.card.name == name || own.card.aliases.iter().any(|alias| alias == name)
            })
        };
        let found = self.embedders.iter().find(is_it);
        let any = || self.embedders.first().filter(|_| self.arguments.any_model);
        let found = found.or_else(any).ok_or_else(|| {
            let name = model.unwrap_or("default");
            ServeError::unknown_model(name, &self.models(), ModelRole::Embedder)
        })?;
        Ok(Arc::clone(&found.model))
    }
}

impl Shelf for Served {
    fn models(&self) -> Vec<ModelCard> {
        self.loads().models()
    }

    fn indexes(&self) -> Vec<IndexCard> {
        self.loads().indexes()
    }

    fn queues(&self) -> Vec<QueueFigures> {
        self.loads().queues()
    }

    fn profile(&self) -> Option<String> {
        self.loads().profile.as_ref().map(|(_, path)| path.display().to_string())
    }

    fn second_stage(&self, reranking: &Reranking) -> Result<Option<SecondStage>, ServeError> {
        self.loads().stage(reranking, None)
    }

    fn pipeline(
        &self,
        retrieval: &Retrieval,
        reranking: &Reranking,
        top: usize,
    ) -> Result<Pipeline, ServeError> {
        self.loads().pipeline(retrieval, reranking, top)
    }

    fn embedder(&self, model: Option<&str>) -> Result<Arc<dyn Embedder>, ServeError> {
        self.loads().embedder(model)
    }

    fn add(
        &self,
        index: Option<&str>,
        documents: Vec<Document>,
    ) -> Result<AddedDocuments, ServeError> {
        self.loads().index(index)?.add(documents)
    }

    fn remove(&self, index: Option<&str>, ids: &[String]) -> Result<RemovedDocuments, ServeError> {
        self.loads().index(index)?.remove(ids)
    }

    fn reload(&self) -> Result<(), ServeError> {
        let fresh = Loads::open(&self.arguments, self.cache.as_ref());
        let fresh = fresh.map_err(|error| ServeError::Failed { reason: format!("{error:#}") })?;
        *self.loads.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        Ok(())
    }
}

/// The rerankers of a second stage, those that stand in for others included.
fn names_of(described: &Described) -> Vec<String> {
    let names = described.cascade.iter().flat_map(|step| step.model.split(','));
    names.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

fn retriever(name: &str) -> Result<RetrieverName, ServeError> {
    clap::ValueEnum::from_str(name, false).map_err(|_| {
        let reason =
            format!("there is no {name}; there are bm25, dense, hybrid, colbert, hybrid-colbert");
        wrong("retriever", reason)
    })
}

fn fusion(name: &str) -> Result<FusionName, ServeError> {
    clap::ValueEnum::from_str(name, false).map_err(|_| {
        wrong("fusion", format!("there is no {name}; there are rrf, min-max, z-score"))
    })
}

fn wrong(field: &str, reason: String) -> ServeError {
    ServeError::WrongField { field: field.to_owned(), reason }
}

/// A number from 0 to 1.
fn in_range(field: &str, number: Option<f32>) -> Result<Option<f32>, ServeError> {
    match number {
        Some(number) if !(0.0..=1.0).contains(&number) => {
            Err(wrong(field, format!("{number} is not from 0 to 1")))
        }
        other => Ok(other),
    }
}

/// The aliases that were given for a model, and those that the catalogue knows.
fn aliases(given: &str, name: &str, options: &[(String, String)]) -> Vec<String> {
    let known = Store::open_default().ok().and_then(|store| store.find(name).ok());
    let mut all: Vec<String> = known.map(|folder| folder.spec.aliases).unwrap_or_default();
    // The name by which the command line knows the default one.
    all.extend((name == DEFAULT_RERANKER).then(|| rerankers::LOCAL.to_owned()));
    let own = options.iter().filter(|(_, model)| model == given || model == name);
    all.extend(own.map(|(alias, _)| alias.clone()));
    all
}

fn reranker_card(given: &str, loaded: &Loaded, options: &[(String, String)]) -> Result<ModelCard> {
    let identity = loaded.model.identity();
    if identity.name == "none" {
        return Err(usage("`none` is no reranker to serve"));
    }
    Ok(ModelCard {
        name: identity.name.clone(),
        aliases: aliases(given, &identity.name, options),
        role: ModelRole::Reranker,
        family: loaded.family.to_owned(),
        fingerprint: identity.fingerprint.clone(),
        engine: identity.engine.clone(),
        max_tokens: loaded.model.max_tokens(),
        dimension: None,
    })
}

/// The bi-encoders: those that were named, else those of the indexes, else the default one if it is here.
fn embedders(arguments: &ServeArguments, indexes: &[ServedIndex]) -> Result<Vec<ServedEmbedder>> {
    let mut all: Vec<ServedEmbedder> = Vec::new();
    let mut push = |given: &str, model: Arc<topshelf::BiEncoder>| {
        let identity = Embedder::identity(model.as_ref()).clone();
        if all.iter().any(|own| own.card.name == identity.name) {
            return;
        }
        let card = ModelCard {
            aliases: aliases(given, &identity.name, &arguments.alias),
            name: identity.name,
            role: ModelRole::Embedder,
            family: topshelf::Family::BiEncoder.to_string(),
            fingerprint: identity.fingerprint,
            engine: identity.engine,
            max_tokens: Some(model.max_tokens()),
            dimension: Some(Embedder::dimension(model.as_ref())),
        };
        let queue = model.queue();
        all.push(ServedEmbedder { card, model, queue });
    };
    for name in &arguments.embed {
        push(name, Arc::new(topshelf::BiEncoder::load(name)?));
    }
    for index in indexes {
        if let Some(model) = index.embedder() {
            push(&Embedder::identity(model.as_ref()).name.clone(), Arc::clone(model));
        }
    }
    if arguments.embed.is_empty() && indexes.is_empty() {
        let store = Store::open_default()?;
        if let Ok(folder) = store.find(DEFAULT_EMBEDDER) {
            push(DEFAULT_EMBEDDER, Arc::new(topshelf::BiEncoder::from_folder(&folder)?));
        }
    }
    Ok(all)
}
