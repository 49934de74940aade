//! An index that is served: read as of its last commit, and changed by one request at a time.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use anyhow::Result;
use topshelf::{
    AddOptions, BiEncoder, Embedder, GivenDocument, Index, IndexError, LateInteraction, Models,
    Writer,
};
use topshelf_server::answer::Notice;
use topshelf_server::{AddedDocuments, Document, IndexCard, RemovedDocuments, ServeError};

use crate::commands::embedder_of;

/// The name of this stage in errors.
const STAGE: &str = "index";

/// An index under its name.
pub(super) struct ServedIndex {
    pub(super) name: String,
    dir: PathBuf,
    writable: bool,
    /// As of the last commit that was seen.
    now: RwLock<Index>,
    embedder: Option<Arc<BiEncoder>>,
    tokens: Option<Arc<LateInteraction>>,
    /// Held by the one who changes it.
    changing: Mutex<()>,
}

impl ServedIndex {
    pub(super) fn open(name: String, dir: &Path, writable: bool) -> Result<Self> {
        let index = Index::open(dir)?;
        let embedder = match &index.settings().embedder {
            Some(_) => Some(embedder_of(&index)?),
            None => None,
        };
        let tokens = index.settings().token_vectors.as_ref();
        let tokens = tokens.map(|own| LateInteraction::load(&own.identity.name)).transpose()?;
        Ok(Self {
            name,
            dir: dir.to_owned(),
            writable,
            now: RwLock::new(index),
            embedder,
            tokens: tokens.map(Arc::new),
            changing: Mutex::new(()),
        })
    }

    /// The index as it is now.
    pub(super) fn now(&self) -> Index {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its bi-encoder, if it has vectors.
    pub(super) fn embedder(&self) -> Option<&Arc<BiEncoder>> {
        self.embedder.as_ref()
    }

    /// The model of its token vectors, if it has some.
    pub(super) fn tokens(&self) -> Option<&Arc<LateInteraction>> {
        self.tokens.as_ref()
    }

    /// Opens what was committed since.
    fn reload(&self) -> Result<(), IndexError> {
        let fresh = Index::open(&self.dir)?;
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    pub(super) fn card(&self) -> IndexCard {
        let index = self.now();
        let settings = index.settings();
        let totals = index.totals();
        IndexCard {
            name: self.name.clone(),
            documents: totals.documents,
            passages: totals.passages,
            embedder: settings.embedder.as_ref().map(|own| own.identity.name.clone()),
            token_vectors: settings.token_vectors.as_ref().map(|own| own.identity.name.clone()),
            generation: index.generation(),
            writable: self.writable,
        }
    }

    pub(super) fn add(&self, documents: Vec<Document>) -> Result<AddedDocuments, ServeError> {
        let _changing = self.begin()?;
        let given = documents.into_iter().map(|document| {
            let Document { id, title, text, metadata } = document;
            GivenDocument { id, title, text, metadata }
        });
        let models = Models {
            embedder: self.embedder.as_deref().map(|own| own as &dyn Embedder),
            tokens: self.tokens.as_deref().map(|own| own as _),
        };
        let writer = Writer::open(&self.dir).map_err(failed)?;
        let report =
            topshelf::add_documents(writer, given.collect(), models, &AddOptions::default());
        let report = report.map_err(failed)?;
        self.reload().map_err(failed)?;
        let skipped = report.skipped.iter().map(|skipped| Notice {
            path: skipped.path.display().to_string(),
            message: skipped.reason.to_string(),
        });
        Ok(AddedDocuments {
            added: report.files_added,
            replaced: report.files_updated,
            unchanged: report.files_unchanged,
            skipped: skipped.collect(),
            index: self.card(),
        })
    }

    pub(super) fn remove(&self, ids: &[String]) -> Result<RemovedDocuments, ServeError> {
        let _changing = self.begin()?;
        let writer = Writer::open(&self.dir).map_err(failed)?;
        let (unknown, _) = topshelf::remove_documents(writer, ids).map_err(failed)?;
        self.reload().map_err(failed)?;
        let removed = ids.len() - unknown.len();
        Ok(RemovedDocuments { removed, unknown, index: self.card() })
    }

    fn begin(&self) -> Result<std::sync::MutexGuard<'_, ()>, ServeError> {
        if !self.writable {
            return Err(ServeError::ReadOnly { index: self.name.clone() });
        }
        Ok(self.changing.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What an index says, as a stage's error.
fn failed(error: IndexError) -> ServeError {
    let blame = match error {
        IndexError::Locked { .. } | IndexError::Embed { .. } => error.blame(),
        // The index is the server's: no request is to blame for the state that it is in.
        _ => topshelf::Blame::Failure,
    };
    topshelf::Error::stage(STAGE, blame, error).into()
}
