//! The project's own routes.
//!
//! | route | does | in |
//! | --- | --- | --- |
//! | `POST /v1/search` | retrieve, rerank, and a prompt if wanted; streamed if wanted | [`search`] |
//! | `POST /topshelf/v1/rerank` | rerank documents of the request, with all that no vendor has | [`rerank`] |
//! | `POST /v1/context` | a prompt from passages of the request | [`context`] |
//! | `POST`, `DELETE /v1/documents` | change an index | [`documents`] |
//! | `GET /v1/index`, `POST /v1/index/reload` | what is served, and read it anew | [`documents`] |
//! | `GET /v1/models` | the models | [`documents`] |
//! | `GET /healthz`, `/readyz` | whether it lives, whether it takes requests | [`health`] |
//! | `GET /metrics` | figures for operators | [`health`] |
//!
//! Errors are `{"error": {"type", "message", "field"?}}`.

pub mod context;
pub mod documents;
pub mod health;
pub mod rerank;
pub mod search;

use std::sync::Arc;

use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::error::ServeError;

/// An error of the native routes.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorAnswer {
    /// What is wrong.
    pub error: ErrorTold,
}

/// What is wrong with a request, or went wrong with it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorTold {
    /// Its kind: `missing_field`, `unknown_model`, `overloaded` and so on.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// What was violated, and what to do.
    pub message: String,
}

/// Where documents are added and removed.
pub(crate) const DOCUMENTS: &str = "/v1/documents";

/// Where models and indexes are read anew.
pub(crate) const RELOAD: &str = "/v1/index/reload";

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/search", post(search::search))
        .route("/topshelf/v1/rerank", post(rerank::rerank))
        .route("/v1/context", post(context::context))
        .route(DOCUMENTS, post(documents::add).delete(documents::remove))
        .route("/v1/index", get(documents::indexes))
        .route(RELOAD, post(documents::reload))
        .route("/v1/models", get(documents::models))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
}

/// The error as the native routes write it.
pub(crate) fn error(error: &ServeError) -> Response {
    use axum::response::IntoResponse as _;
    let told = ErrorTold { kind: error.kind(), message: error.to_string() };
    (error.status(), Json(ErrorAnswer { error: told })).into_response()
}
