//! Judged queries and the index that they are asked of: what `eval` and `tune` share.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use topshelf::chunk::Chunking;
use topshelf::eval::{BeirFolder, Qrels};
use topshelf::tune::Unit;
use topshelf::{
    AddOptions, BiEncoder, Embedder, Engine, Index, Models, Precision, Settings, Writer,
};

use super::collection::Judged;
use super::index::add_with_progress;
use super::judge::by_model;
use super::{cache_dir, display, interrupt_flag, token_model};
use crate::args::CollectionOptions;
use crate::exit::usage;

/// A collection, or one's own judgments with the index that they are of.
pub(super) struct Folder {
    /// As it was named.
    pub(super) name: String,
    pub(super) beir: BeirFolder,
    options: CollectionOptions,
    /// One's own; that of a collection is made when it is needed.
    own: Option<Index>,
}

/// The queries of a split with their judgments.
pub(super) struct JudgedQueries {
    pub(super) queries: Vec<Judged>,
    pub(super) qrels: Qrels,
    /// What was odd about them.
    pub(super) warnings: Vec<String>,
}

impl Folder {
    pub(super) fn open(options: &CollectionOptions) -> Result<Self> {
        let (name, beir, own) = match (&options.own, &options.index, &options.data) {
            (Some(own), Some(index), _) => {
                (own, BeirFolder::open_judgments(own)?, Some(Index::open(index)?))
            }
            (_, _, Some(data)) => (data, BeirFolder::open(data)?, None),
            _ => {
                return Err(usage(
                    "give --data DIR for a collection, or --own DIR with --index DIR for your own",
                ));
            }
        };
        Ok(Self { name: display(name), beir, options: options.clone(), own })
    }

    pub(super) fn topics(&self, split: &str) -> Result<JudgedQueries> {
        let topics = self.beir.topics(split)?;
        let mut warnings: Vec<String> = topics.warnings.iter().map(ToString::to_string).collect();
        warnings.extend(topics.without_text.iter().map(|query| {
            format!("query {query} has judgments but no text; it counts as unanswered")
        }));
        warnings.extend(self.judge_of(split)?.map(|judge| judge.warning()));
        let queries = topics.topics.into_iter().map(|t| Judged { id: t.id, text: t.text });
        Ok(JudgedQueries { queries: queries.collect(), qrels: topics.qrels, warnings })
    }

    /// What is known of the model that judged a split, if one did.
    fn judge_of(&self, split: &str) -> Result<Option<by_model::Record>> {
        let own = self.own.is_some() && split == by_model::SPLIT;
        if own { by_model::record_of(self.beir.root()) } else { Ok(None) }
    }

    /// Refuses to measure a model by its own judgments.
    pub(super) fn check_judge<'a>(
        &self,
        split: &str,
        rerankers: impl IntoIterator<Item = &'a str>,
    ) -> Result<()> {
        self.judge_of(split)?.map_or(Ok(()), |judge| judge.check(rerankers))
    }

    /// Whether the index has no vectors, so that only words can be looked up.
    pub(super) fn words_only(&self) -> bool {
        self.own.as_ref().is_some_and(|index| index.settings().embedder.is_none())
    }

    /// Whether judgments are of the passages of an index of one's own, whose ids end in `#` and a
    /// number, or of documents.
    pub(super) fn unit(&self, qrels: &Qrels) -> Result<Unit> {
        if self.own.is_none() {
            return Ok(Unit::Document);
        }
        let is_passage = |id: &str| {
            let place = id.rsplit_once('#').map(|(_, place)| place);
            place
                .is_some_and(|place| !place.is_empty() && place.bytes().all(|b| b.is_ascii_digit()))
        };
        let mut ids = qrels.iter().flat_map(|(_, documents)| documents.keys());
        let passages = ids.next().is_some_and(|id| is_passage(id));
        if let Some(other) = ids.find(|id| is_passage(id) != passages) {
            return Err(usage(format!(
                "some judgments are of passages and some of whole documents, {other} among the \
                 second kind met; keep them in folders of their own"
            )));
        }
        Ok(if passages { Unit::Passage } else { Unit::Document })
    }

    /// The index; a collection's has vectors if they are wanted.
    pub(super) fn index(&self, engine: &Engine, embeds: bool) -> Result<Index> {
        if let Some(own) = &self.own {
            return Ok(own.clone());
        }
        let embedder = if embeds { Some(engine.bi_encoder(&self.options.embed)?) } else { None };
        self.collection_index(engine, embedder.as_deref())
    }

    /// The index of a collection, one passage a document: made the first time, kept for the next.
    fn collection_index(&self, engine: &Engine, embedder: Option<&BiEncoder>) -> Result<Index> {
        let embedder = embedder.map(|embedder| embedder as &dyn Embedder);
        let tokens = token_model(engine, &self.options.tokens, None)?;
        let settings = Settings {
            language: self.options.language,
            precision: Precision::from(self.options.vectors),
            embedder: embedder.and_then(|e| Settings::with_embedder(e).embedder),
            token_vectors: tokens.as_ref().map(|(info, _)| info.clone()),
            chunking: Chunking::Whole,
            ..Settings::default()
        };
        let corpus = self.beir.root().join("corpus.jsonl");
        let dir = match &self.options.index {
            Some(dir) => dir.clone(),
            None => kept_index(&corpus, &settings)?,
        };
        let writer = Writer::create_or_open(&dir, &settings)?;
        let options = AddOptions {
            // Said again for an index of an older version, which does not remember it.
            chunking: Some(Chunking::Whole),
            interrupt: Some(interrupt_flag()?),
            ..AddOptions::default()
        };
        let models =
            Models { embedder, tokens: tokens.as_ref().map(|(_, model)| model.as_ref() as _) };
        let report = add_with_progress(writer, &[corpus], models, &options)?;
        if report.totals.documents == 0 {
            return Err(usage(format!("{} holds no document", display(self.beir.root()))));
        }
        Ok(Index::open(&dir)?)
    }
}

/// A folder of the cache for this corpus under these settings.
fn kept_index(corpus: &Path, settings: &Settings) -> Result<PathBuf> {
    let corpus = std::fs::canonicalize(corpus)
        .with_context(|| format!("cannot find {}", corpus.display()))?;
    let mut hasher = DefaultHasher::new();
    corpus.hash(&mut hasher);
    // Without `chunking`, which is the same for every collection: indexes of older versions are found.
    let Settings { language, precision, embedder, token_vectors, graph_from, .. } = settings;
    let settings = format!(
        "Settings {{ language: {language:?}, precision: {precision:?}, embedder: {embedder:?}, \
         token_vectors: {token_vectors:?}, graph_from: {graph_from:?} }}"
    );
    settings.hash(&mut hasher);
    let name = corpus.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    Ok(cache_dir()?.join("eval").join(format!("{name}-{:016x}", hasher.finish())))
}
