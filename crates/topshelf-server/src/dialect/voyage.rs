//! Voyage's rerank.
//!
//! Source: Voyage's reference of the reranker and its page on error codes (autumn 2026).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use topshelf_core::{ListedDocument, SetupPatch};
use utoipa::ToSchema;

use super::jina::{Detail, TotalTokens};
use super::{Dialect, of_body, ran, with_status};
use crate::app::{self, App, told};
use crate::error::{Result, ServeError};
use crate::rerank::{self, Asked, Number, Overlong};

/// A request.
#[derive(Debug, Deserialize, ToSchema)]
pub struct VoyageRerank {
    /// What the documents should answer.
    pub query: String,
    /// Their texts.
    pub documents: Vec<String>,
    /// The model, by its name or alias; the server's default if that is not said.
    pub model: Option<String>,
    /// How many results; all if that is not said.
    #[schema(minimum = 1)]
    pub top_k: Option<usize>,
    /// Whether results carry their documents.
    pub return_documents: Option<bool>,
    /// Whether texts may be cut.
    pub truncation: Option<bool>,
}

/// An answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct VoyageReranked {
    /// `list`.
    pub object: &'static str,
    /// Best first.
    pub data: Vec<VoyageResult>,
    /// The model that answered.
    pub model: String,
    /// What was read.
    pub usage: TotalTokens,
}

/// A document's place.
#[derive(Debug, Serialize, ToSchema)]
pub struct VoyageResult {
    /// Its place in the request, from 0.
    pub index: usize,
    /// How relevant it is.
    pub relevance_score: f32,
    /// Its text, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
}

/// Voyage's rerank.
#[utoipa::path(
    post, path = "/voyage/v1/rerank", tag = "compatible",
    request_body = VoyageRerank,
    responses(
        (status = 200, description = "The documents, best first", body = VoyageReranked),
        (status = "4XX", description = "What is wrong with the request", body = Detail),
        (status = "5XX", description = "What broke", body = Detail),
    )
)]
pub(crate) async fn rerank(State(app): State<Arc<App>>, request: Request) -> Response {
    of_body(&app, request, Dialect::Voyage, reranked).await
}

/// With a body that has been read.
pub(super) async fn reranked(app: &Arc<App>, head: &Parts, body: &[u8]) -> Result<Response> {
    let asked: VoyageRerank = app::parse(body)?;
    let with_texts = asked.return_documents == Some(true);
    let deadline = app::deadline(&head.headers)?;
    let asked = Asked {
        query: asked.query,
        documents: asked.documents.into_iter().map(ListedDocument::from).collect(),
        patch: SetupPatch { rerank: asked.model, deadline, ..SetupPatch::default() },
        top: asked.top_k,
        overlong: Overlong::of_truncation(asked.truncation),
        count_tokens: true,
        ..Asked::default()
    };
    let ordered = rerank::run(app, &app::call(head), asked).await?;
    let data = ordered.numbered(Number::Relevance).map(|(scored, number)| VoyageResult {
        index: scored.index,
        relevance_score: number,
        document: with_texts.then(|| ordered.documents[scored.index].text.clone()),
    });
    let body = VoyageReranked {
        object: "list",
        data: data.collect(),
        model: ordered.model.clone(),
        usage: TotalTokens { total_tokens: ordered.tokens },
    };
    Ok(told(ran(&ordered, ordered.warnings()), Json(body)))
}

/// The error in Voyage's shape.
pub(super) fn error(error: &ServeError) -> Response {
    let status = match error {
        // A body that is no request is malformed (422); a request that means nothing is invalid.
        ServeError::NoDocuments
        | ServeError::EmptyDocument { .. }
        | ServeError::TooManyDocuments { .. }
        | ServeError::TooLong { .. }
        | ServeError::UnknownModel { .. }
        | ServeError::Core(_)
            if error.status().is_client_error() =>
        {
            400
        }
        other => other.status().as_u16(),
    };
    with_status(status, Detail { detail: error.to_string() })
}
