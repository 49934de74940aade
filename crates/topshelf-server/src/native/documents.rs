//! What is served, and how an index is changed: `/v1/models`, `/v1/index`, `/v1/documents`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ErrorAnswer;
use crate::app::{App, answer};
use crate::dialect::Dialect;
use crate::error::{Result, ServeError};
use crate::json;
use crate::shelf::{AddedDocuments, Document, IndexCard, ModelCard, RemovedDocuments};

/// Documents for an index.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddRequest {
    /// The index; the server's first if that is not said.
    pub index: Option<String>,
    /// The documents; one whose id is there replaces the other.
    #[serde(deserialize_with = "json::objects")]
    pub documents: Vec<Document>,
}

/// Documents to be removed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveRequest {
    /// The index; the server's first if that is not said.
    pub index: Option<String>,
    /// The documents' ids.
    pub ids: Vec<String>,
}

/// What `GET /v1/models` answers: OpenAI's list, with what else is known of each.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelList {
    /// `list`.
    pub object: &'static str,
    /// The models.
    pub data: Vec<ModelListed>,
}

/// A model of the list.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelListed {
    /// The name to ask for.
    pub id: String,
    /// `model`.
    pub object: &'static str,
    /// `topshelf`.
    pub owned_by: &'static str,
    /// What is known of it.
    #[serde(flatten)]
    pub card: ModelCard,
}

/// What `GET /v1/index` answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct IndexList {
    /// The indexes, the default one first.
    pub indexes: Vec<IndexCard>,
}

/// The models that are served.
#[utoipa::path(
    get, path = "/v1/models", tag = "server",
    responses(
        (status = 200, description = "The models", body = ModelList),
        (status = "4XX", description = "No key, or a wrong one", body = ErrorAnswer),
    )
)]
pub(crate) async fn models(State(app): State<Arc<App>>) -> Response {
    let listed = |card: ModelCard| ModelListed {
        id: card.name.clone(),
        object: "model",
        owned_by: "topshelf",
        card,
    };
    let data = app.shelf.models().into_iter().map(listed).collect();
    Json(ModelList { object: "list", data }).into_response()
}

/// The indexes that are served.
#[utoipa::path(
    get, path = "/v1/index", tag = "index",
    responses(
        (status = 200, description = "The indexes", body = IndexList),
        (status = "4XX", description = "No key, or a wrong one", body = ErrorAnswer),
    )
)]
pub(crate) async fn indexes(State(app): State<Arc<App>>) -> Response {
    Json(IndexList { indexes: app.shelf.indexes() }).into_response()
}

/// Reads configuration, models and indexes anew.
#[utoipa::path(
    post, path = "/v1/index/reload", tag = "index",
    responses(
        (status = 200, description = "The indexes as they are now", body = IndexList),
        (status = "4XX", description = "No key, or a wrong one", body = ErrorAnswer),
        (status = "5XX", description = "What could not be loaded; all is as it was", body = ErrorAnswer),
    )
)]
pub(crate) async fn reload(State(app): State<Arc<App>>) -> Response {
    let reloaded = blocking(&app, App::reload).await;
    let listed =
        reloaded.map(|()| Json(IndexList { indexes: app.shelf.indexes() }).into_response());
    answer(Dialect::Native, listed)
}

/// Adds documents to an index, or replaces those of the same ids.
#[utoipa::path(
    post, path = "/v1/documents", tag = "index",
    request_body = AddRequest,
    responses(
        (status = 200, description = "What was added", body = AddedDocuments),
        (status = "4XX", description = "What is wrong with the request", body = ErrorAnswer),
        (status = "5XX", description = "What broke; the index is as it was", body = ErrorAnswer),
    )
)]
pub(crate) async fn add(State(app): State<Arc<App>>, request: Request) -> Response {
    answer(Dialect::Native, added(&app, request).await)
}

/// Removes documents from an index.
#[utoipa::path(
    delete, path = "/v1/documents", tag = "index",
    request_body = RemoveRequest,
    responses(
        (status = 200, description = "What was removed", body = RemovedDocuments),
        (status = "4XX", description = "What is wrong with the request", body = ErrorAnswer),
        (status = "5XX", description = "What broke; the index is as it was", body = ErrorAnswer),
    )
)]
pub(crate) async fn remove(State(app): State<Arc<App>>, request: Request) -> Response {
    answer(Dialect::Native, removed(&app, request).await)
}

async fn added(app: &Arc<App>, request: Request) -> Result<Response> {
    let AddRequest { index, documents } = app.read(request.into_body()).await?;
    let limit = app.options.limits.documents;
    if documents.len() > limit {
        return Err(ServeError::TooManyDocuments { given: documents.len(), limit });
    }
    if documents.is_empty() {
        return Err(ServeError::NoDocuments);
    }
    if let Some(index) = documents.iter().position(|document| document.id.trim().is_empty()) {
        let reason = "an id has at least one letter".to_owned();
        return Err(ServeError::WrongField { field: format!("documents[{index}].id"), reason });
    }
    let done = blocking(app, move |app| app.shelf.add(index.as_deref(), documents)).await?;
    Ok(Json(done).into_response())
}

async fn removed(app: &Arc<App>, request: Request) -> Result<Response> {
    let RemoveRequest { index, ids } = app.read(request.into_body()).await?;
    let done = blocking(app, move |app| app.shelf.remove(index.as_deref(), &ids)).await?;
    Ok(Json(done).into_response())
}

/// Works on a thread that may block. What was begun is brought to its end even if the
/// client goes away: half of a change is worth less than a whole one.
async fn blocking<T: Send + 'static>(
    app: &Arc<App>,
    work: impl FnOnce(&App) -> Result<T> + Send + 'static,
) -> Result<T> {
    let app = Arc::clone(app);
    let done = tokio::task::spawn_blocking(move || work(&app)).await;
    done.unwrap_or_else(|error| {
        tracing::error!(%error, "a change of an index broke off");
        let reason = "the change broke off; the server's log says why".to_owned();
        Err(ServeError::Failed { reason })
    })
}
