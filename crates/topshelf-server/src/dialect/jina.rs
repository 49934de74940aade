//! Jina's rerank.
//!
//! Source: the fields of Jina's API as integrations document them (autumn 2026). Documents come back
//! unless the request says otherwise. Images are no text and are refused.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use topshelf_core::{ListedDocument, SetupPatch};
use utoipa::ToSchema;

use super::{Dialect, TextOrObject, at_least_one, of_body, ran, with_status};
use crate::app::{self, App, told};
use crate::error::{Result, ServeError};
use crate::rerank::{self, Asked, Number, Overlong};

/// A request.
#[derive(Debug, Deserialize, ToSchema)]
pub struct JinaRerank {
    /// The model, by its name or alias; the server's default if that is not said.
    pub model: Option<String>,
    /// What the documents should answer.
    pub query: TextOrObject,
    /// Their texts.
    pub documents: Vec<TextOrObject>,
    /// How many results; all if that is not said.
    #[schema(minimum = 1)]
    pub top_n: Option<usize>,
    /// Whether results carry their documents.
    pub return_documents: Option<bool>,
    /// Tokens of a document that are read, at most.
    #[schema(minimum = 1)]
    pub max_doc_length: Option<usize>,
    /// Whether vectors are wanted: there are none here.
    pub return_embeddings: Option<bool>,
    /// Whether texts may be cut.
    pub truncation: Option<bool>,
}

/// An answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct JinaReranked {
    /// The model that answered.
    pub model: String,
    /// `list`.
    pub object: &'static str,
    /// What was read.
    pub usage: TotalTokens,
    /// Best first.
    pub results: Vec<JinaResult>,
}

/// Tokens that were read.
#[derive(Debug, Serialize, ToSchema)]
pub struct TotalTokens {
    /// Of all pairs.
    pub total_tokens: usize,
}

/// A document's place.
#[derive(Debug, Serialize, ToSchema)]
pub struct JinaResult {
    /// Its place in the request, from 0.
    pub index: usize,
    /// How relevant it is.
    pub relevance_score: f32,
    /// Its text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<JinaDocument>,
}

/// A document.
#[derive(Debug, Serialize, ToSchema)]
pub struct JinaDocument {
    /// Its text.
    pub text: String,
}

/// An error, as Jina and Voyage write it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Detail {
    /// What is wrong.
    pub detail: String,
}

/// Jina's rerank.
#[utoipa::path(
    post, path = "/jina/v1/rerank", tag = "compatible",
    request_body = JinaRerank,
    responses(
        (status = 200, description = "The documents, best first", body = JinaReranked),
        (status = "4XX", description = "What is wrong with the request", body = Detail),
        (status = "5XX", description = "What broke", body = Detail),
    )
)]
pub(crate) async fn rerank(State(app): State<Arc<App>>, request: Request) -> Response {
    of_body(&app, request, Dialect::Jina, reranked).await
}

/// With a body that has been read.
pub(super) async fn reranked(app: &Arc<App>, head: &Parts, body: &[u8]) -> Result<Response> {
    let asked: JinaRerank = app::parse(body)?;
    if asked.return_embeddings == Some(true) {
        return Err(ServeError::WrongField {
            field: "return_embeddings".to_owned(),
            reason: "there are no vectors here; leave it out, and ask /v1/embeddings".to_owned(),
        });
    }
    let with_texts = asked.return_documents.unwrap_or(true);
    let deadline = app::deadline(&head.headers)?;
    let asked = Asked {
        query: asked.query.into_text(),
        documents: asked.documents.into_iter().map(ListedDocument::from).collect(),
        patch: SetupPatch { rerank: asked.model, deadline, ..SetupPatch::default() },
        top: asked.top_n,
        overlong: Overlong::of_truncation(asked.truncation),
        tokens_per_document: at_least_one("max_doc_length", asked.max_doc_length)?,
        count_tokens: true,
    };
    let ordered = rerank::run(app, &app::call(head), asked).await?;
    let results = ordered.numbered(Number::Relevance).map(|(scored, number)| JinaResult {
        index: scored.index,
        relevance_score: number,
        document: with_texts
            .then(|| JinaDocument { text: ordered.documents[scored.index].text.clone() }),
    });
    let body = JinaReranked {
        model: ordered.model.clone(),
        object: "list",
        usage: TotalTokens { total_tokens: ordered.tokens },
        results: results.collect(),
    };
    Ok(told(ran(&ordered, ordered.warnings()), Json(body)))
}

/// The error in Jina's words, where it has words for it.
pub(super) fn error(error: &ServeError) -> Response {
    let status = match error {
        ServeError::UnknownModel { .. } | ServeError::NoDocuments => 400,
        other => other.status().as_u16(),
    };
    let detail = match error {
        ServeError::UnknownModel { .. } => format!("INPUT_MODEL_NOT_FOUND: {error}"),
        ServeError::NoKey => format!("AUTH_MISSING_API_KEY: {error}"),
        ServeError::WrongKey => format!("AUTH_INVALID_API_KEY: {error}"),
        other => other.to_string(),
    };
    with_status(status, Detail { detail })
}
