//! vLLM's `/score` and `/rerank`, and Infinity's rerank (`/infinity/rerank`), which is nearly the same, but
//! for a document that is a string. llama.cpp, too, answers in these shapes, with the model's own scores:
//! its clients say `raw_scores`, or make a probability of one.
//!
//! Source: the servers' documentation and code (autumn 2026). There a pair that is longer than the model
//! reads is an error; here the best windows of a long document are read, and a header says what was not.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use topshelf_core::{ListedDocument, SetupPatch};
use utoipa::ToSchema;

use super::{Dialect, OneOrMany, TextOrObject, of_body, ran, with_status};
use crate::app::{self, App, Ran, answer, told};
use crate::error::{Result, ServeError};
use crate::rerank::{self, Asked, Number};

/// A request to rerank.
#[derive(Debug, Deserialize, ToSchema)]
pub struct VllmRerank {
    /// The model, by its name or alias; the server's default if that is not said.
    pub model: Option<String>,
    /// What the documents should answer.
    pub query: TextOrObject,
    /// Their texts.
    pub documents: Vec<TextOrObject>,
    /// How many results; 0 for all.
    pub top_n: Option<usize>,
    /// Any number: a text that does not fit is cut at the model's window.
    pub truncate_prompt_tokens: Option<i64>,
    /// Whether results carry their documents; vLLM's always do, Infinity's if asked.
    pub return_documents: Option<bool>,
    /// Whether scores come as the model gives them, as Infinity has it.
    #[serde(default)]
    pub raw_scores: bool,
    /// Whether scores are probabilities, as vLLM has it.
    pub use_activation: Option<bool>,
}

impl VllmRerank {
    fn in_words(self, headers: &HeaderMap) -> Result<Asked> {
        let deadline = app::deadline(headers)?;
        Ok(Asked {
            query: self.query.into_text(),
            documents: self.documents.into_iter().map(ListedDocument::from).collect(),
            patch: SetupPatch { rerank: self.model, deadline, ..SetupPatch::default() },
            top: self.top_n.filter(|top| *top > 0),
            count_tokens: true,
            ..Asked::default()
        })
    }

    /// Which number a result has.
    fn number(&self) -> Number {
        Number::raw_if(self.raw_scores || self.use_activation == Some(false))
    }
}

/// An answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct VllmReranked {
    /// Names the answer.
    pub id: String,
    /// `rerank`.
    pub object: &'static str,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// The model that answered.
    pub model: String,
    /// What was read.
    pub usage: VllmUsage,
    /// Best first.
    pub results: Vec<VllmResult>,
}

/// Tokens that were read.
#[derive(Debug, Serialize, ToSchema)]
pub struct VllmUsage {
    /// Of all pairs.
    pub prompt_tokens: usize,
    /// The same.
    pub total_tokens: usize,
}

/// A document's place.
#[derive(Debug, Serialize, ToSchema)]
pub struct VllmResult {
    /// Its place in the request, from 0.
    pub index: usize,
    /// The document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<VllmDocument>,
    /// How relevant it is.
    pub relevance_score: f32,
}

/// A document.
#[derive(Debug, Serialize, ToSchema)]
pub struct VllmDocument {
    /// Its text.
    pub text: String,
}

/// An answer as Infinity gives it.
#[derive(Debug, Serialize, ToSchema)]
pub struct InfinityReranked {
    /// `rerank`.
    pub object: &'static str,
    /// Best first.
    pub results: Vec<InfinityResult>,
    /// The model that answered.
    pub model: String,
    /// What was read.
    pub usage: VllmUsage,
    /// Names the answer.
    pub id: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
}

/// A document's place, as Infinity gives it.
#[derive(Debug, Serialize, ToSchema)]
pub struct InfinityResult {
    /// How relevant it is.
    pub relevance_score: f32,
    /// Its place in the request, from 0.
    pub index: usize,
    /// Its text, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
}

/// A request for scores: one text with others, or texts pair by pair.
#[derive(Debug, Deserialize, ToSchema)]
pub struct VllmScore {
    /// The model, by its name or alias; the server's default if that is not said.
    pub model: Option<String>,
    /// One text, or as many as there are of the other; also `queries` or `data_1`.
    #[serde(alias = "queries", alias = "data_1")]
    pub text_1: OneOrMany,
    /// The other texts; also `documents`, `items` or `data_2`.
    #[serde(alias = "documents", alias = "items", alias = "data_2")]
    pub text_2: OneOrMany,
    /// Any number: a text that does not fit is cut at the model's window.
    pub truncate_prompt_tokens: Option<i64>,
    /// Whether scores are probabilities; they are unless it is false.
    pub use_activation: Option<bool>,
}

/// Scores.
#[derive(Debug, Serialize, ToSchema)]
pub struct VllmScores {
    /// Names the answer.
    pub id: String,
    /// `list`.
    pub object: &'static str,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// The model that answered.
    pub model: String,
    /// In the order of the request.
    pub data: Vec<VllmScored>,
    /// What was read.
    pub usage: VllmUsage,
}

/// A pair's score.
#[derive(Debug, Serialize, ToSchema)]
pub struct VllmScored {
    /// Its place in the request, from 0.
    pub index: usize,
    /// `score`.
    pub object: &'static str,
    /// How relevant one text is to the other.
    pub score: f32,
}

/// An error, as vLLM and OpenAI write it.
#[derive(Debug, Serialize, ToSchema)]
pub struct OpenAiError {
    /// What is wrong.
    pub error: OpenAiErrorTold,
}

/// What is wrong.
#[derive(Debug, Serialize, ToSchema)]
pub struct OpenAiErrorTold {
    /// What is wrong, in a sentence.
    pub message: String,
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The field concerned.
    pub param: Option<String>,
    /// The status.
    pub code: u16,
}

/// vLLM's rerank, and Infinity's and llama.cpp's.
#[utoipa::path(
    post, path = "/vllm/v1/rerank", tag = "compatible",
    request_body = VllmRerank,
    responses(
        (status = 200, description = "The documents, best first", body = VllmReranked),
        (status = "4XX", description = "What is wrong with the request", body = OpenAiError),
        (status = "5XX", description = "What broke", body = OpenAiError),
    )
)]
pub(crate) async fn rerank(State(app): State<Arc<App>>, request: Request) -> Response {
    of_body(&app, request, Dialect::Vllm, reranked).await
}

/// With a body that has been read.
pub(super) async fn reranked(app: &Arc<App>, head: &Parts, body: &[u8]) -> Result<Response> {
    let asked: VllmRerank = app::parse(body)?;
    let with_texts = asked.return_documents.unwrap_or(true);
    let number = asked.number();
    let ordered = rerank::run(app, &app::call(head), asked.in_words(&head.headers)?).await?;
    let results = ordered.numbered(number).map(|(scored, relevance_score)| VllmResult {
        index: scored.index,
        document: with_texts
            .then(|| VllmDocument { text: ordered.documents[scored.index].text.clone() }),
        relevance_score,
    });
    let body = VllmReranked {
        id: format!("rerank-{}", app::random_id()),
        object: "rerank",
        created: now(),
        model: ordered.model.clone(),
        usage: VllmUsage { prompt_tokens: ordered.tokens, total_tokens: ordered.tokens },
        results: results.collect(),
    };
    Ok(told(ran(&ordered, ordered.warnings()), Json(body)))
}

/// vLLM's score.
#[utoipa::path(
    post, path = "/v1/score", tag = "compatible",
    request_body = VllmScore,
    responses(
        (status = 200, description = "A score for each pair", body = VllmScores),
        (status = "4XX", description = "What is wrong with the request", body = OpenAiError),
        (status = "5XX", description = "What broke", body = OpenAiError),
    )
)]
pub(crate) async fn score(State(app): State<Arc<App>>, request: Request) -> Response {
    answer(Dialect::Vllm, scored(&app, request).await)
}

async fn scored(app: &Arc<App>, request: Request) -> Result<Response> {
    let start = Instant::now();
    let (head, body) = request.into_parts();
    let deadline = app::deadline(&head.headers)?;
    let asked: VllmScore = app.read(body).await?;
    let number = Number::raw_if(asked.use_activation == Some(false));
    let (left, right) = (asked.text_1.into_vec(), asked.text_2.into_vec());
    if left.len() != 1 && left.len() != right.len() {
        return Err(ServeError::WrongField {
            field: "text_1".to_owned(),
            reason: format!(
                "it has {} texts and text_2 {}; give one, or as many",
                left.len(),
                right.len()
            ),
        });
    }
    let (given, limit) = (right.len(), app.options.limits.documents);
    if given > limit {
        return Err(ServeError::TooManyDocuments { given, limit });
    }
    let patch = SetupPatch { rerank: asked.model, deadline, ..SetupPatch::default() };
    let group = |query: String, documents: Vec<String>| Asked {
        query,
        documents: documents.into_iter().map(ListedDocument::from).collect(),
        patch: patch.clone(),
        count_tokens: true,
        ..Asked::default()
    };
    let groups: Vec<Asked> = if left.len() == 1 {
        left.into_iter().map(|query| group(query, right.clone())).collect()
    } else {
        left.into_iter().zip(right).map(|(query, text)| group(query, vec![text])).collect()
    };
    if groups.is_empty() {
        return Err(ServeError::NoDocuments);
    }
    let (mut scores, mut tokens, mut warnings) = (Vec::new(), 0, Vec::new());
    let mut model = String::new();
    for asked in groups {
        let ordered = rerank::run(app, &app::call(&head), asked).await?;
        let mut own = vec![0.0; ordered.documents.len()];
        for (scored, score) in ordered.numbered(number) {
            own[scored.index] = score;
        }
        scores.extend(own);
        // There may be many groups, and they make no order; so only the pairs are counted.
        app.metrics.reranked(&ordered.report);
        tokens += ordered.tokens;
        warnings.extend(ordered.warnings());
        model = ordered.model;
    }
    let data = scores.into_iter().enumerate();
    let data = data.map(|(index, score)| VllmScored { index, object: "score", score });
    let body = VllmScores {
        id: format!("score-{}", app::random_id()),
        object: "list",
        created: now(),
        model: model.clone(),
        data: data.collect(),
        usage: VllmUsage { prompt_tokens: tokens, total_tokens: tokens },
    };
    Ok(told(Ran { model, took: start.elapsed(), warnings, ..Ran::default() }, Json(body)))
}

/// `POST /infinity/rerank`.
pub(super) async fn infinity(State(app): State<Arc<App>>, request: Request) -> Response {
    answer(Dialect::Vllm, reranked_as_infinity(&app, request).await)
}

async fn reranked_as_infinity(app: &Arc<App>, request: Request) -> Result<Response> {
    let (head, body) = request.into_parts();
    let asked: VllmRerank = app.read(body).await?;
    let (with_texts, number) = (asked.return_documents == Some(true), asked.number());
    let ordered = rerank::run(app, &app::call(&head), asked.in_words(&head.headers)?).await?;
    let results = ordered.numbered(number).map(|(scored, relevance_score)| InfinityResult {
        relevance_score,
        index: scored.index,
        document: with_texts.then(|| ordered.documents[scored.index].text.clone()),
    });
    let body = InfinityReranked {
        object: "rerank",
        results: results.collect(),
        model: ordered.model.clone(),
        usage: VllmUsage { prompt_tokens: ordered.tokens, total_tokens: ordered.tokens },
        id: format!("infinity-{}", app::random_id()),
        created: now(),
    };
    Ok(told(ran(&ordered, ordered.warnings()), Json(body)))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The error in the shape that vLLM has from OpenAI.
pub(super) fn error(error: &ServeError) -> Response {
    let status = match error.status().as_u16() {
        422 | 413 => 400,
        other => other,
    };
    let kind = match status {
        401 => "AuthenticationError",
        404 => "NotFoundError",
        429 => "RateLimitError",
        503 => "ServiceUnavailableError",
        500.. => "InternalServerError",
        _ => "BadRequestError",
    };
    with_status(status, of(error, kind, status))
}

/// The body of an error.
pub(super) fn of(error: &ServeError, kind: &'static str, code: u16) -> OpenAiError {
    let param = match error {
        ServeError::MissingField { field }
        | ServeError::UnknownField { field, .. }
        | ServeError::WrongField { field, .. } => Some(field.clone()),
        ServeError::UnknownModel { .. } => Some("model".to_owned()),
        ServeError::TooLong { .. } => Some("input_tokens".to_owned()),
        _ => None,
    };
    OpenAiError { error: OpenAiErrorTold { message: error.to_string(), kind, param, code } }
}
