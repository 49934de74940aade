//! The seam between the server and what it serves: [`Shelf`].
//!
//! A request is a [`SetupPatch`], a change to the setup that the server was started with; the shelf answers the
//! pipeline that they make together, of stages that are in memory.
//! A shelf loads nothing because a request names it: a name that it does not serve is
//! [`crate::ServeError::UnknownModel`], since a client that could name any address or file would have the
//! server fetch it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use topshelf_core::{Embedder, Metadata, Pipeline, SecondStage, Setup, SetupPatch};
use utoipa::ToSchema;

use crate::error::Result;

/// What a server serves.
#[async_trait]
pub trait Shelf: Send + Sync + 'static {
    /// The models, rerankers first, each family's default before the others.
    fn models(&self) -> Vec<ModelCard>;

    /// The indexes, the default one first.
    fn indexes(&self) -> Vec<IndexCard>;

    /// What waits for each model that runs here.
    fn queues(&self) -> Vec<QueueFigures>;

    /// The tuned pipeline that requests get unless they say otherwise.
    fn profile(&self) -> Option<String>;

    /// The setup of a request: what the server was started with, and the patch laid over it.
    ///
    /// # Errors
    ///
    /// [`crate::ServeError::Core`] for numbers that mean nothing and for what cannot be combined.
    fn setup(&self, patch: &SetupPatch) -> Result<Setup>;

    /// What reorders candidates that come with the request; `None` where nothing is reranked.
    ///
    /// # Errors
    ///
    /// [`crate::ServeError::UnknownModel`].
    fn second_stage(&self, setup: &Setup) -> Result<Option<SecondStage>>;

    /// The whole pipeline over an index; over the default one without a name.
    ///
    /// # Errors
    ///
    /// As [`Self::second_stage`]; [`crate::ServeError::UnknownIndex`]; [`crate::ServeError::Core`] for a retriever
    /// that the index does not have.
    fn pipeline(&self, index: Option<&str>, setup: &Setup) -> Result<Pipeline>;

    /// The bi-encoder of that name; the default one without a name.
    ///
    /// # Errors
    ///
    /// [`crate::ServeError::UnknownModel`].
    fn embedder(&self, model: Option<&str>) -> Result<Arc<dyn Embedder>>;

    /// Adds documents to an index, replacing those of the same ids, and makes them visible. Blocks.
    ///
    /// # Errors
    ///
    /// [`crate::ServeError::UnknownIndex`], [`crate::ServeError::ReadOnly`]; [`crate::ServeError::Core`] for what fails.
    fn add(&self, index: Option<&str>, documents: Vec<Document>) -> Result<AddedDocuments>;

    /// Removes documents from an index. Ids that it does not have are counted as such. Blocks.
    ///
    /// # Errors
    ///
    /// As [`Self::add`].
    fn remove(&self, index: Option<&str>, ids: &[String]) -> Result<RemovedDocuments>;

    /// Reads configuration, indexes and models anew; requests under way go on with what they have.
    /// Blocks.
    ///
    /// # Errors
    ///
    /// What cannot be loaded; everything is then as it was.
    fn reload(&self) -> Result<()>;
}

/// What waits for a model, and what it has done since it was loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueFigures {
    /// The model.
    pub model: String,
    /// Requests that wait for their turn.
    pub waiting: usize,
    /// Calls of the engine.
    pub calls: u64,
    /// Tokens in these.
    pub tokens: u64,
    /// Time in these.
    pub busy: Duration,
    /// Time that all requests together waited for their first call.
    pub waited: Duration,
    /// Requests that were answered.
    pub answered: u64,
    /// Requests whose callers went away.
    pub withdrawn: u64,
}

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ModelRole {
    /// Orders documents.
    Reranker,
    /// Makes vectors.
    Embedder,
}

/// A model that is served.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, ToSchema)]
pub struct ModelCard {
    /// The name to ask for.
    pub name: String,
    /// Other names that mean it.
    pub aliases: Vec<String>,
    /// What it is for.
    pub role: ModelRole,
    /// `cross-encoder`, `bi-encoder`, `late-interaction`, `service`, `language-model`.
    pub family: String,
    /// What of it decides its answers, as a hash.
    pub fingerprint: String,
    /// What computes it.
    pub engine: String,
    /// Tokens that it reads of a pair or a text; absent where there is no limit.
    pub max_tokens: Option<usize>,
    /// The length of its vectors; absent for a reranker.
    pub dimension: Option<usize>,
}

/// An index that is served.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, ToSchema)]
pub struct IndexCard {
    /// The name to ask for.
    pub name: String,
    /// Documents in it.
    pub documents: u64,
    /// Passages in it.
    pub passages: u64,
    /// The bi-encoder; absent for an index of words alone.
    pub embedder: Option<String>,
    /// The late-interaction model whose token vectors it has; absent where it has none.
    pub token_vectors: Option<String>,
    /// Commits so far: another number means other content.
    pub generation: u64,
    /// Whether documents can be added and removed here.
    pub writable: bool,
}

/// A document to be indexed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Its id: adding another document of that id replaces it.
    #[schema(min_length = 1)]
    pub id: String,
    /// Its title.
    #[serde(default)]
    pub title: String,
    /// Its text; Markdown headings are read as such.
    pub text: String,
    /// Fields to filter by.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub metadata: Metadata,
}

/// What adding did.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, ToSchema)]
pub struct AddedDocuments {
    /// Documents that are new.
    pub added: usize,
    /// Documents that replaced one of the same id.
    pub replaced: usize,
    /// Documents that were there, word for word.
    pub unchanged: usize,
    /// What was not indexed, and why.
    pub skipped: Vec<crate::answer::Notice>,
    /// The index as it is now.
    pub index: IndexCard,
}

/// What removing did.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, ToSchema)]
pub struct RemovedDocuments {
    /// Documents removed.
    pub removed: usize,
    /// Ids that the index does not have.
    pub unknown: Vec<String>,
    /// The index as it is now.
    pub index: IndexCard,
}
