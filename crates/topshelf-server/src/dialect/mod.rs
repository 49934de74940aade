//! The dialects that existing clients speak: which route is whose, and how each writes an error.
//!
//! | route | dialect |
//! | --- | --- |
//! | `POST /v2/rerank` | Cohere, strict: an unknown field is an error |
//! | `POST /v1/rerank` | Cohere v1, Jina or Voyage, by the body ([`shared`]) |
//! | `POST /rerank` | text-embeddings-inference with `texts`; vLLM with `documents` |
//! | `POST /embed`, `GET /info` | text-embeddings-inference |
//! | `POST /score`, `/v1/score` | vLLM |
//! | `POST /v1/embeddings` | OpenAI |
//!
//! A prefix says whose it is where the path does not: `/cohere/v1/rerank`, `/cohere/v2/rerank`,
//! `/jina/v1/rerank`, `/voyage/v1/rerank`, `/tei/rerank`, `/tei/embed`, `/vllm/rerank`,
//! `/vllm/v1/rerank`, `/vllm/v1/score`, `/infinity/rerank`, `/openai/v1/embeddings`.
//!
//! Each file has one vendor's shapes and sentences; the work is [`crate::rerank`]'s.

pub mod cohere;
pub mod jina;
pub mod openai;
pub mod shared;
pub mod tei;
pub mod vllm;
pub mod voyage;

use std::sync::Arc;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use topshelf_core::ListedDocument;
use utoipa::ToSchema;

use crate::app::{App, Ran, answer};
use crate::error::{Result, ServeError, whole_seconds};
use crate::json;
use crate::native;
use crate::rerank::Ordered;

/// Whose shapes a request and its answer have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// The project's own.
    Native,
    /// Cohere.
    Cohere,
    /// Jina.
    Jina,
    /// Voyage.
    Voyage,
    /// text-embeddings-inference.
    Tei,
    /// vLLM, and Infinity, which writes the same errors.
    Vllm,
    /// OpenAI.
    OpenAi,
}

impl Dialect {
    /// The dialect in which errors of a path are told, before its handler is known.
    pub fn of_path(path: &str) -> Self {
        let first = path.split('/').nth(1).unwrap_or_default();
        match (first, path) {
            ("cohere", _) | (_, "/v1/rerank" | "/v2/rerank") => Self::Cohere,
            ("jina", _) => Self::Jina,
            ("voyage", _) => Self::Voyage,
            ("tei" | "embed" | "info", _) | (_, "/rerank") => Self::Tei,
            ("vllm" | "infinity" | "score", _) | (_, "/v1/score") => Self::Vllm,
            ("openai", _) | (_, "/v1/embeddings") => Self::OpenAi,
            _ => Self::Native,
        }
    }

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Cohere => "cohere",
            Self::Jina => "jina",
            Self::Voyage => "voyage",
            Self::Tei => "tei",
            Self::Vllm => "vllm",
            Self::OpenAi => "openai",
        }
    }

    /// The error as this dialect writes it, with `Retry-After` where it is worth trying again.
    pub fn error(self, error: &ServeError) -> Response {
        let mut response = match self {
            Self::Native => native::error(error),
            Self::Cohere => cohere::error(error),
            Self::Jina => jina::error(error),
            Self::Voyage => voyage::error(error),
            Self::Tei => tei::error(error),
            Self::Vllm => vllm::error(error),
            Self::OpenAi => openai::error(error),
        };
        if let Some(after) = error.retry_after() {
            response.headers_mut().insert(RETRY_AFTER, whole_seconds(after).into());
        }
        response.extensions_mut().insert(error.kind());
        response
    }
}

/// The routes of all dialects.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v2/rerank", post(cohere::v2))
        .route("/cohere/v2/rerank", post(cohere::v2))
        .route("/cohere/v1/rerank", post(cohere::v1))
        .route("/v1/rerank", post(shared::v1_rerank))
        .route("/jina/v1/rerank", post(jina::rerank))
        .route("/voyage/v1/rerank", post(voyage::rerank))
        .route("/rerank", post(shared::rerank))
        .route("/tei/rerank", post(tei::rerank))
        .route("/embed", post(tei::embed))
        .route("/tei/embed", post(tei::embed))
        .route("/info", get(tei::info))
        .route("/tei/info", get(tei::info))
        .route("/vllm/rerank", post(vllm::rerank))
        .route("/vllm/v1/rerank", post(vllm::rerank))
        .route("/vllm/v2/rerank", post(vllm::rerank))
        .route("/infinity/rerank", post(vllm::infinity))
        .route("/score", post(vllm::score))
        .route("/v1/score", post(vllm::score))
        .route("/vllm/score", post(vllm::score))
        .route("/vllm/v1/score", post(vllm::score))
        .route("/v1/embeddings", post(openai::embeddings))
        .route("/openai/v1/embeddings", post(openai::embeddings))
}

/// The answer of a handler that is given the head and the whole body.
async fn of_body(
    app: &Arc<App>,
    request: Request,
    dialect: Dialect,
    handle: impl AsyncFnOnce(&Arc<App>, &Parts, &[u8]) -> Result<Response>,
) -> Response {
    let (head, body) = request.into_parts();
    let result = match app.body(body).await {
        Ok(body) => handle(app, &head, &body).await,
        Err(error) => Err(error),
    };
    answer(dialect, result)
}

/// A body with a status.
fn with_status(status: u16, body: impl serde::Serialize) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, Json(body)).into_response()
}

/// What is told beside an answer. Warnings go into headers where the dialect has no place for them.
pub(crate) fn ran(ordered: &Ordered, warnings: Vec<String>) -> Ran {
    let is_answered = ordered.report.skipped.is_none();
    Ran {
        model: if is_answered { ordered.model.clone() } else { String::new() },
        took: ordered.took,
        warnings,
        retrievers: Vec::new(),
        second_stage: Some(ordered.report.clone()),
        before: ordered.results.iter().map(|scored| scored.index).collect(),
        relevance: ordered.results.first().and_then(|scored| scored.relevance),
    }
}

/// A text, or an object with one.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text, or an object with the field text")]
pub enum TextOrObject {
    /// A text.
    Text(String),
    /// An object with a text.
    Object(#[serde(deserialize_with = "json::object")] TextObject),
}

/// An object with a text.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct TextObject {
    /// The text.
    pub text: String,
}

impl TextOrObject {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) | Self::Object(TextObject { text }) => text,
        }
    }
}

impl From<TextOrObject> for ListedDocument {
    fn from(document: TextOrObject) -> Self {
        document.into_text().into()
    }
}

/// One text or several.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text, or a list of texts")]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

/// A number that means nothing below 1.
fn at_least_one(field: &str, number: Option<usize>) -> Result<Option<usize>> {
    if number == Some(0) {
        let reason = "use 1 or more".to_owned();
        return Err(ServeError::WrongField { field: field.to_owned(), reason });
    }
    Ok(number)
}

/// Some vendors refuse documents without text; which do, say so by this.
fn refuse_empty(documents: &[ListedDocument]) -> Result<()> {
    match documents.iter().position(|given| given.text.trim().is_empty()) {
        Some(index) => Err(ServeError::EmptyDocument { index }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_in_which_dialect_its_errors_are() {
        for (path, dialect) in [
            ("/v2/rerank", Dialect::Cohere),
            ("/v1/rerank", Dialect::Cohere),
            ("/jina/v1/rerank", Dialect::Jina),
            ("/voyage/v1/rerank", Dialect::Voyage),
            ("/rerank", Dialect::Tei),
            ("/embed", Dialect::Tei),
            ("/tei/rerank", Dialect::Tei),
            ("/v1/score", Dialect::Vllm),
            ("/vllm/v1/rerank", Dialect::Vllm),
            ("/v1/embeddings", Dialect::OpenAi),
            ("/v1/search", Dialect::Native),
            ("/topshelf/v1/rerank", Dialect::Native),
            ("", Dialect::Native),
        ] {
            assert_eq!(Dialect::of_path(path), dialect, "{path}");
        }
    }
}
