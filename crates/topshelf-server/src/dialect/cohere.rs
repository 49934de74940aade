//! Cohere's rerank, versions 1 and 2.
//!
//! Source: Cohere's OpenAPI specification (August 2026) and its error sentences as clients quote them.
//! Version 2 takes strings only and refuses fields that it does not know; version 1 also takes objects,
//! of which `rank_fields` are read in their order.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use topshelf_core::{Error as CoreError, ListedDocument, MAX_QUERY_CHARS, SetupPatch};
use utoipa::ToSchema;

use super::{Dialect, at_least_one, of_body, ran, refuse_empty, with_status};
use crate::app::{self, App, answer, told};
use crate::error::{Result, ServeError};
use crate::rerank::{self, Asked, Number, Ordered};

/// Documents times chunks have to stay below that.
const MOST_CHUNKS: usize = 10_000;

/// What is said of a list of fields that is empty.
const NO_FIELDS: &str = "it must either contain at least one field or be omitted";

/// The greatest number that stands for a priority, which is the lowest one.
const LOWEST_PRIORITY: u16 = 999;

/// A request of version 2.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CohereRerankV2 {
    /// The model, by its name or alias.
    pub model: String,
    /// What the documents should answer.
    pub query: String,
    /// Their texts.
    pub documents: Vec<String>,
    /// How many results; all if that is not said.
    #[schema(minimum = 1)]
    pub top_n: Option<usize>,
    /// Tokens of a document that are read, at most.
    #[schema(minimum = 1)]
    pub max_tokens_per_doc: Option<usize>,
    /// Taken because a proxy sends it; version 2 returns no documents.
    pub return_documents: Option<bool>,
    /// Taken for compatibility: requests are served by their deadlines.
    #[schema(minimum = 0, maximum = 999)]
    pub priority: Option<u16>,
}

/// A request of version 1.
#[derive(Debug, Deserialize, ToSchema)]
pub struct CohereRerankV1 {
    /// The model, by its name or alias; the server's default if that is not said.
    pub model: Option<String>,
    /// What the documents should answer.
    pub query: String,
    /// Texts, or objects of which `rank_fields` are read.
    pub documents: Vec<CohereDocument>,
    /// How many results; all if that is not said.
    #[schema(minimum = 1)]
    pub top_n: Option<usize>,
    /// The fields of an object that are read, in that order; `text` if that is not said.
    pub rank_fields: Option<Vec<String>>,
    /// Whether results carry their documents.
    #[serde(default)]
    pub return_documents: bool,
    /// Taken for the limit that comes with it: of a long document the best windows are read.
    #[schema(minimum = 1)]
    pub max_chunks_per_doc: Option<usize>,
    /// Tokens of a document that are read, at most.
    #[schema(minimum = 1)]
    pub max_tokens_per_doc: Option<usize>,
}

/// A document of version 1.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text, or an object")]
pub enum CohereDocument {
    /// A text.
    Text(String),
    /// Fields.
    #[schema(value_type = Object)]
    Fields(Map<String, Value>),
}

/// An answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct CohereReranked {
    /// Names the answer.
    pub id: String,
    /// Best first.
    pub results: Vec<CohereResult>,
    /// What it took.
    pub meta: CohereMeta,
    /// Version 1 only, which clients of other vendors call as well: the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// A document's place.
#[derive(Debug, Serialize, ToSchema)]
pub struct CohereResult {
    /// Its place in the request, from 0.
    pub index: usize,
    /// How relevant it is, 0 to 1 where the model's scores are probabilities.
    pub relevance_score: f32,
    /// The document; version 1 only, and if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub document: Option<Value>,
}

/// What an answer took.
#[derive(Debug, Serialize, ToSchema)]
pub struct CohereMeta {
    /// Which version of the dialect.
    pub api_version: CohereVersion,
    /// Billed by nobody here.
    pub billed_units: CohereUnits,
    /// What is to be said of the answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The version of the dialect.
#[derive(Debug, Serialize, ToSchema)]
pub struct CohereVersion {
    /// `1` or `2`.
    pub version: &'static str,
    /// Whether it is going away.
    pub is_deprecated: bool,
    /// Whether it may change.
    pub is_experimental: bool,
}

/// What Cohere would count.
#[derive(Debug, Serialize, ToSchema)]
pub struct CohereUnits {
    /// One for each hundred documents.
    pub search_units: usize,
}

/// An error.
#[derive(Debug, Serialize, ToSchema)]
pub struct CohereError {
    /// What is wrong.
    pub message: String,
}

/// Cohere's rerank, version 2.
#[utoipa::path(
    post, path = "/v2/rerank", tag = "compatible",
    request_body = CohereRerankV2,
    responses(
        (status = 200, description = "The documents, best first", body = CohereReranked),
        (status = "4XX", description = "What is wrong with the request", body = CohereError),
        (status = "5XX", description = "What broke", body = CohereError),
    )
)]
pub(crate) async fn v2(State(app): State<Arc<App>>, request: Request) -> Response {
    answer(Dialect::Cohere, rerank_v2(&app, request).await)
}

async fn rerank_v2(app: &Arc<App>, request: Request) -> Result<Response> {
    let (head, body) = request.into_parts();
    let asked: CohereRerankV2 = app.read(body).await?;
    if let Some(priority) = asked.priority.filter(|priority| *priority > LOWEST_PRIORITY) {
        let reason = format!("{priority} is not from 0 to {LOWEST_PRIORITY}");
        return Err(ServeError::WrongField { field: "priority".to_owned(), reason });
    }
    let documents: Vec<ListedDocument> =
        asked.documents.into_iter().map(ListedDocument::from).collect();
    refuse_empty(&documents)?;
    let asked = Asked {
        query: asked.query,
        documents,
        patch: patch(Some(asked.model), &head.headers)?,
        top: asked.top_n,
        tokens_per_document: at_least_one("max_tokens_per_doc", asked.max_tokens_per_doc)?,
        ..Asked::default()
    };
    let ordered = rerank::run(app, &app::call(&head), asked).await?;
    Ok(reranked(&ordered, "2", None))
}

/// `POST /cohere/v1/rerank`.
pub(super) async fn v1(State(app): State<Arc<App>>, request: Request) -> Response {
    of_body(&app, request, Dialect::Cohere, reranked_v1).await
}

/// Version 1, with a body that has been read.
pub(super) async fn reranked_v1(app: &Arc<App>, head: &Parts, body: &[u8]) -> Result<Response> {
    let asked: CohereRerankV1 = app::parse(body)?;
    let most = asked.max_chunks_per_doc.unwrap_or(1).saturating_mul(asked.documents.len());
    if most >= MOST_CHUNKS && asked.max_chunks_per_doc.is_some() {
        return Err(ServeError::TooManyDocuments { given: most, limit: MOST_CHUNKS - 1 });
    }
    let fields = asked.rank_fields.unwrap_or_else(|| vec!["text".to_owned()]);
    if fields.is_empty() {
        return Err(ServeError::WrongField {
            field: "rank_fields".to_owned(),
            reason: NO_FIELDS.to_owned(),
        });
    }
    let documents: Vec<ListedDocument> =
        asked.documents.iter().map(|document| document.read(&fields)).collect();
    refuse_empty(&documents)?;
    let returned = asked.return_documents.then_some(asked.documents);
    let asked = Asked {
        query: asked.query,
        documents,
        patch: patch(asked.model, &head.headers)?,
        top: asked.top_n,
        tokens_per_document: at_least_one("max_tokens_per_doc", asked.max_tokens_per_doc)?,
        ..Asked::default()
    };
    let ordered = rerank::run(app, &app::call(head), asked).await?;
    Ok(reranked(&ordered, "1", returned.as_deref()))
}

impl CohereDocument {
    /// The text of it that is read.
    fn read(&self, fields: &[String]) -> ListedDocument {
        let text = match self {
            Self::Text(text) => text.clone(),
            Self::Fields(own) => {
                let values = fields.iter().filter_map(|name| own.get(name));
                let texts = values.map(|value| match value {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                });
                texts.collect::<Vec<_>>().join("\n")
            }
        };
        text.into()
    }

    /// As results carry it.
    fn returned(&self) -> Value {
        match self {
            Self::Text(text) => serde_json::json!({ "text": text }),
            Self::Fields(fields) => Value::Object(fields.clone()),
        }
    }
}

fn patch(model: Option<String>, headers: &HeaderMap) -> Result<SetupPatch> {
    let deadline = app::deadline(headers)?;
    Ok(SetupPatch { rerank: model, deadline, ..SetupPatch::default() })
}

fn reranked(
    ordered: &Ordered,
    version: &'static str,
    documents: Option<&[CohereDocument]>,
) -> Response {
    let results = ordered.numbered(Number::Relevance).map(|(scored, number)| CohereResult {
        index: scored.index,
        relevance_score: number,
        document: documents.map(|documents| documents[scored.index].returned()),
    });
    let body = CohereReranked {
        id: app::random_id(),
        results: results.collect(),
        meta: CohereMeta {
            api_version: CohereVersion { version, is_deprecated: false, is_experimental: false },
            billed_units: CohereUnits { search_units: ordered.documents.len().div_ceil(100) },
            warnings: ordered.warnings(),
        },
        model: (version == "1").then(|| ordered.model.clone()),
    };
    told(ran(ordered, Vec::new()), Json(body))
}

/// The error in Cohere's words, where it has words for it.
pub(super) fn error(error: &ServeError) -> Response {
    let (status, message) = match error {
        ServeError::NoDocuments => {
            (400, "invalid request: list of documents must not be empty".to_owned())
        }
        ServeError::EmptyDocument { index } => {
            (400, format!("invalid request: document at index {index} cannot be empty"))
        }
        ServeError::Core(CoreError::EmptyQuery) => {
            (400, "invalid request: query must not be empty or be only whitespace".to_owned())
        }
        ServeError::Core(CoreError::QueryTooLong { .. }) => {
            (400, format!("invalid request: query must have at most {MAX_QUERY_CHARS} characters"))
        }
        ServeError::WrongField { reason, .. } if reason == NO_FIELDS => {
            (400, format!("invalid request: rank_fields cannot be empty, {NO_FIELDS}"))
        }
        ServeError::TooManyDocuments { limit, .. } => (
            400,
            format!(
                "invalid request: number of total max chunks (number of documents * max chunks \
                 per doc) must be less than {}",
                limit + 1
            ),
        ),
        ServeError::UnknownField { field, known } => {
            (422, format!("unknown field: parameter '{field}' is not a valid field. {known}"))
        }
        ServeError::UnknownModel { model, known } => (
            404,
            format!(
                "model '{model}' not found, make sure the correct model ID was used and that you \
                 have access to the model. There are: {}",
                known.join(", ")
            ),
        ),
        ServeError::NoKey => (401, "no api key supplied".to_owned()),
        ServeError::WrongKey => (401, "invalid api token".to_owned()),
        other => {
            let status = other.status();
            let is_invalid = matches!(status.as_u16(), 400 | 413 | 422);
            let prefix = if is_invalid { "invalid request: " } else { "" };
            (status.as_u16(), format!("{prefix}{other}"))
        }
    };
    with_status(status, CohereError { message })
}
