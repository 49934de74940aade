//! text-embeddings-inference: `/rerank`, `/embed`, `/info`.
//!
//! Source: its version 1.9.3. Types and statuses of errors are those of the code, not of its OpenAPI
//! document, which differ.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use topshelf_core::{Blame, Call, EmbedKind, Embedder, ListedDocument, SetupPatch};
use utoipa::ToSchema;

use super::{Dialect, OneOrMany, of_body, ran, with_status};
use crate::app::{self, App, Ran, answer, told};
use crate::error::{Result, ServeError};
use crate::rerank::{self, Asked, Number, Overlong};
use crate::shelf::ModelRole;

/// What `/info` says of a model that reads texts of any length: the largest number that every client can hold.
const NO_LIMIT: usize = i32::MAX as usize;

/// A request to rerank.
#[derive(Debug, Deserialize, ToSchema)]
pub struct TeiRerank {
    /// What the texts should answer.
    pub query: String,
    /// The texts.
    pub texts: Vec<String>,
    /// Whether texts may be cut; they may if that is not said.
    pub truncate: Option<bool>,
    /// At which end: `Right` or `right`, the only one here.
    pub truncation_direction: Option<String>,
    /// Whether scores come as the model gives them.
    #[serde(default)]
    pub raw_scores: bool,
    /// Whether results carry their texts.
    #[serde(default)]
    pub return_text: bool,
}

/// An answer: best first.
#[derive(Debug, Serialize, ToSchema)]
pub struct TeiRanks(pub Vec<TeiRank>);

/// A text's place.
#[derive(Debug, Serialize, ToSchema)]
pub struct TeiRank {
    /// Its place in the request, from 0.
    pub index: usize,
    /// The text, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// How relevant it is.
    pub score: f32,
}

/// A request for vectors.
#[derive(Debug, Deserialize, ToSchema)]
pub struct TeiEmbed {
    /// The texts.
    pub inputs: OneOrMany,
    /// Whether vectors have length 1: they always have.
    pub normalize: Option<bool>,
    /// `query` for questions; passages otherwise.
    pub prompt_name: Option<String>,
    /// Whether texts may be cut; they may if that is not said.
    pub truncate: Option<bool>,
}

/// What `/info` answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct TeiInfo {
    /// The default reranker.
    pub model_id: String,
    /// Its fingerprint.
    pub model_sha: Option<String>,
    /// `{"reranker": {}}`.
    #[schema(value_type = Object)]
    pub model_type: serde_json::Value,
    /// What computes it.
    pub model_dtype: String,
    /// Tokens that it reads of a pair.
    pub max_input_length: usize,
    /// Texts of a request, at most.
    pub max_client_batch_size: usize,
    /// The server's version.
    pub version: &'static str,
}

/// An error.
#[derive(Debug, Serialize, ToSchema)]
pub struct TeiError {
    /// What is wrong.
    pub error: String,
    /// Its kind.
    pub error_type: &'static str,
}

/// `POST /tei/rerank`.
pub(super) async fn rerank(State(app): State<Arc<App>>, request: Request) -> Response {
    of_body(&app, request, Dialect::Tei, reranked).await
}

/// With a body that has been read.
pub(super) async fn reranked(app: &Arc<App>, head: &Parts, body: &[u8]) -> Result<Response> {
    let asked: TeiRerank = app::parse(body)?;
    right_only(asked.truncation_direction.as_deref())?;
    let (number, with_texts) = (Number::raw_if(asked.raw_scores), asked.return_text);
    let deadline = app::deadline(&head.headers)?;
    let asked = Asked {
        query: asked.query,
        documents: asked.texts.into_iter().map(ListedDocument::from).collect(),
        patch: SetupPatch { deadline, ..SetupPatch::default() },
        overlong: Overlong::of_truncation(asked.truncate),
        ..Asked::default()
    };
    let ordered = rerank::run(app, &app::call(head), asked).await?;
    let ranks = ordered
        .numbered(number)
        .map(|(scored, score)| TeiRank {
            index: scored.index,
            text: with_texts.then(|| ordered.documents[scored.index].text.clone()),
            score,
        })
        .collect();
    Ok(told(ran(&ordered, ordered.warnings()), Json(TeiRanks(ranks))))
}

fn right_only(direction: Option<&str>) -> Result<()> {
    match direction {
        None | Some("right" | "Right") => Ok(()),
        Some(other) => Err(ServeError::WrongField {
            field: "truncation_direction".to_owned(),
            reason: format!("{other} is not done here; texts are cut at the right"),
        }),
    }
}

/// text-embeddings-inference's vectors.
#[utoipa::path(
    post, path = "/embed", tag = "compatible",
    request_body = TeiEmbed,
    responses(
        (status = 200, description = "A vector for each text", body = [Vec<f32>]),
        (status = 401, description = "No key, or a wrong one"),
        (status = "4XX", description = "What is wrong with the request", body = TeiError),
        (status = "5XX", description = "What broke", body = TeiError),
    )
)]
pub(crate) async fn embed(State(app): State<Arc<App>>, request: Request) -> Response {
    answer(Dialect::Tei, embedded(&app, request).await)
}

async fn embedded(app: &App, request: Request) -> Result<Response> {
    let (head, body) = request.into_parts();
    let asked: TeiEmbed = app.read(body).await?;
    if asked.normalize == Some(false) {
        return Err(ServeError::WrongField {
            field: "normalize".to_owned(),
            reason: "vectors have length 1 here; leave it out".to_owned(),
        });
    }
    let kind = match asked.prompt_name.as_deref() {
        Some("query") => EmbedKind::Query,
        _ => EmbedKind::Passage,
    };
    let texts = asked.inputs.into_vec();
    let start = Instant::now();
    let embedder = app.shelf.embedder(None)?;
    if asked.truncate == Some(false) {
        refuse_overlong(embedder.as_ref(), &texts)?;
    }
    let vectors = vectors(
        app,
        &app::call(&head),
        EmbedTask { embedder: embedder.as_ref(), kind, texts: &texts },
    )
    .await?;
    let model = embedder.identity().name.clone();
    let ran = Ran { model, took: start.elapsed(), ..Ran::default() };
    Ok(told(ran, Json(vectors)))
}

fn refuse_overlong(embedder: &dyn Embedder, texts: &[String]) -> Result<()> {
    let room = embedder.max_tokens().saturating_sub(2);
    for (place, text) in texts.iter().enumerate() {
        let tokens = embedder.count_tokens(text);
        if tokens > room {
            let what = format!("text {place}");
            return Err(ServeError::TooLong { what, tokens: tokens - room });
        }
    }
    Ok(())
}

/// Texts, and what makes vectors of them.
pub(super) struct EmbedTask<'a> {
    pub(super) embedder: &'a dyn Embedder,
    pub(super) kind: EmbedKind,
    pub(super) texts: &'a [String],
}

/// The vectors of some texts, if these may come in.
pub(super) async fn vectors(
    app: &App,
    call: &Call,
    EmbedTask { embedder, kind, texts }: EmbedTask<'_>,
) -> Result<Vec<Vec<f32>>> {
    let (given, limit) = (texts.len(), app.options.limits.documents);
    if given == 0 {
        return Err(ServeError::NoTexts);
    }
    if given > limit {
        return Err(ServeError::TooManyDocuments { given, limit });
    }
    if let Some(index) = texts.iter().position(|text| text.trim().is_empty()) {
        return Err(ServeError::EmptyText { index });
    }
    let work = texts.iter().map(|text| text.len().min(rerank::LONGEST) as u64).sum();
    let permit = app.admission.admit(work)?;
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let vectors = embedder.embed(call, kind, &texts).await?;
    permit.finish();
    Ok(vectors)
}

/// What the default model is.
#[utoipa::path(
    get, path = "/info", tag = "compatible",
    responses(
        (status = 200, description = "The default reranker", body = TeiInfo),
        (status = 401, description = "No key, or a wrong one"),
        (status = "4XX", description = "There is none", body = TeiError),
    )
)]
pub(crate) async fn info(State(app): State<Arc<App>>) -> Response {
    let cards = app.shelf.models();
    let Some(card) = cards.into_iter().find(|card| card.role == ModelRole::Reranker) else {
        return error(&ServeError::unknown_model("default", &[], ModelRole::Reranker));
    };
    let info = TeiInfo {
        model_id: card.name,
        model_sha: Some(card.fingerprint),
        model_type: serde_json::json!({ "reranker": {} }),
        model_dtype: card.engine,
        max_input_length: card.max_tokens.unwrap_or(NO_LIMIT),
        max_client_batch_size: app.options.limits.documents,
        version: env!("CARGO_PKG_VERSION"),
    };
    Json(info).into_response()
}

/// The error with TEI's type and status.
pub(super) fn error(error: &ServeError) -> Response {
    let (status, error_type) = match error {
        // TEI answers a wrong key with nothing at all.
        ServeError::NoKey | ServeError::WrongKey => {
            return axum::http::StatusCode::UNAUTHORIZED.into_response();
        }
        ServeError::NoDocuments | ServeError::NoTexts => (400, "Empty"),
        ServeError::Overloaded { .. } | ServeError::RateLimited { .. } => (429, "Overloaded"),
        ServeError::ShuttingDown => (503, "Unhealthy"),
        ServeError::BodyTooLarge { .. } => (413, "Validation"),
        ServeError::NoRoute { .. } => (404, "Validation"),
        ServeError::ForeignOrigin { .. } => (403, "Validation"),
        ServeError::WrongMethod { .. } => (405, "Validation"),
        ServeError::BodyNotRead { .. } => (408, "Validation"),
        ServeError::Core(core) if core.blame() == Blame::Failure => (424, "Backend"),
        ServeError::Failed { .. } => (424, "Backend"),
        _ => (422, "Validation"),
    };
    let message = match error {
        ServeError::NoDocuments => "`texts` cannot be empty".to_owned(),
        ServeError::NoTexts => "`inputs` cannot be empty".to_owned(),
        ServeError::TooManyDocuments { given, limit } => {
            format!("batch size {given} > maximum allowed batch size {limit}")
        }
        other => other.to_string(),
    };
    with_status(status, TeiError { error: message, error_type })
}
