//! [`OpenIndex`]: an index that is searched as of its last commit while it changes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use topshelf_index::{
    AddOptions, AddReport, GivenDocument, Index, IndexError, Models, Totals, Writer,
};
use topshelf_models::{BiEncoder, LateInteraction};

use crate::engine::Engine;
use crate::error::Result;

/// An index with its models in memory, changed by one caller at a time.
pub struct OpenIndex {
    dir: PathBuf,
    /// As of the last commit that was seen.
    now: RwLock<Index>,
    embedder: Option<Arc<BiEncoder>>,
    tokens: Option<Arc<LateInteraction>>,
    /// Held by the one who changes it.
    changing: Mutex<()>,
}

impl Engine {
    /// Opens an index and loads the models that it was made with.
    ///
    /// # Errors
    ///
    /// [`crate::EngineError::Index`], [`crate::EngineError::Model`].
    pub fn index(&self, dir: impl AsRef<Path>) -> Result<OpenIndex> {
        let dir = dir.as_ref();
        let index = Index::open(dir)?;
        let settings = index.settings();
        let embedder = settings.embedder.as_ref();
        let embedder = embedder.map(|own| self.bi_encoder(&own.identity.name)).transpose()?;
        let tokens = settings.token_vectors.as_ref();
        let tokens = tokens.map(|own| self.late_interaction(&own.identity.name)).transpose()?;
        let (dir, now, changing) = (dir.to_owned(), RwLock::new(index), Mutex::new(()));
        Ok(OpenIndex { dir, now, embedder, tokens, changing })
    }
}

impl OpenIndex {
    /// The index as of the last commit that was seen.
    pub fn now(&self) -> Index {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The bi-encoder of its vectors, if it has some.
    pub fn embedder(&self) -> Option<&Arc<BiEncoder>> {
        self.embedder.as_ref()
    }

    /// Sees what was committed since, by this process or another.
    ///
    /// # Errors
    ///
    /// [`crate::EngineError::Index`]; what is seen is then as before.
    pub fn reload(&self) -> Result<()> {
        let fresh = Index::open(&self.dir)?;
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// Adds documents, replacing those of the same ids, and makes them visible. Blocks.
    ///
    /// # Errors
    ///
    /// [`crate::EngineError::Index`].
    pub fn add(&self, documents: Vec<GivenDocument>, options: &AddOptions) -> Result<AddReport> {
        let _changing = self.begin();
        let models = Models {
            embedder: self.embedder.as_deref().map(|own| own as _),
            tokens: self.tokens.as_deref().map(|own| own as _),
        };
        let writer = Writer::open(&self.dir)?;
        let report = topshelf_index::add_documents(writer, documents, models, options)?;
        self.reload()?;
        Ok(report)
    }

    /// Removes documents; answers the ids that are not there, and what is left. Blocks.
    ///
    /// # Errors
    ///
    /// [`crate::EngineError::Index`].
    pub fn remove(&self, ids: &[String]) -> Result<(Vec<String>, Totals)> {
        let _changing = self.begin();
        let removed = topshelf_index::remove_documents(Writer::open(&self.dir)?, ids)?;
        self.reload()?;
        Ok(removed)
    }

    fn begin(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an error of an index is about the request. The state that the index is in is not the doing of whoever
/// sends a request to a program that has it open.
pub fn is_about_the_request(error: &IndexError) -> bool {
    matches!(
        error,
        IndexError::Locked { .. }
            | IndexError::Embed { .. }
            | IndexError::NoVectors
            | IndexError::NoTokenVectors
    )
}
