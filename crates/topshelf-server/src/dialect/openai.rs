//! OpenAI's `/v1/embeddings`.
//!
//! Source: OpenAI's reference (autumn 2026). Its clients ask for base64 unless told otherwise: the
//! numbers as little-endian f32. `input_type` (`query` or `document`), which is Voyage's and Cohere's,
//! says what a text is; a document if nothing is said.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use topshelf_core::EmbedKind;
use utoipa::ToSchema;

use super::vllm::{OpenAiError, VllmUsage, of};
use super::{Dialect, OneOrMany, tei, with_status};
use crate::app::{self, App, Ran, answer, told};
use crate::error::{Result, ServeError};

/// A request.
#[derive(Debug, Deserialize, ToSchema)]
pub struct OpenAiEmbeddings {
    /// The model, by its name or alias; the server's default if that is not said.
    pub model: Option<String>,
    /// The texts.
    pub input: OneOrMany,
    /// `float` or `base64`.
    pub encoding_format: Option<EncodingFormat>,
    /// The length of the vectors, which is the model's own.
    pub dimensions: Option<usize>,
    /// What the texts are.
    pub input_type: Option<InputType>,
}

/// How numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EncodingFormat {
    /// As numbers.
    Float,
    /// As bytes, little-endian f32.
    Base64,
}

/// What a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum InputType {
    /// What is asked.
    Query,
    /// What is searched.
    Document,
}

/// Vectors.
#[derive(Debug, Serialize, ToSchema)]
pub struct OpenAiVectors {
    /// `list`.
    pub object: &'static str,
    /// In the order of the texts.
    pub data: Vec<OpenAiVector>,
    /// The model that answered.
    pub model: String,
    /// What was read.
    pub usage: VllmUsage,
}

/// A vector.
#[derive(Debug, Serialize, ToSchema)]
pub struct OpenAiVector {
    /// `embedding`.
    pub object: &'static str,
    /// The text's place.
    pub index: usize,
    /// The numbers.
    pub embedding: Numbers,
}

/// The numbers of a vector.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Numbers {
    /// As numbers.
    Float(Vec<f32>),
    /// As bytes, little-endian f32.
    Base64(String),
}

/// OpenAI's vectors.
#[utoipa::path(
    post, path = "/v1/embeddings", tag = "compatible",
    request_body = OpenAiEmbeddings,
    responses(
        (status = 200, description = "A vector for each text", body = OpenAiVectors),
        (status = "4XX", description = "What is wrong with the request", body = OpenAiError),
        (status = "5XX", description = "What broke", body = OpenAiError),
    )
)]
pub(crate) async fn embeddings(State(app): State<Arc<App>>, request: Request) -> Response {
    answer(Dialect::OpenAi, embedded(&app, request).await)
}

async fn embedded(app: &App, request: Request) -> Result<Response> {
    let start = Instant::now();
    let (head, body) = request.into_parts();
    let asked: OpenAiEmbeddings = app.read(body).await?;
    let embedder = app.shelf.embedder(asked.model.as_deref())?;
    let own = embedder.dimension();
    if let Some(other) = asked.dimensions.filter(|wanted| *wanted != own) {
        return Err(ServeError::WrongField {
            field: "dimensions".to_owned(),
            reason: format!("the model's vectors have {own} numbers, not {other}"),
        });
    }
    let kind = match asked.input_type {
        Some(InputType::Query) => EmbedKind::Query,
        Some(InputType::Document) | None => EmbedKind::Passage,
    };
    let texts = asked.input.into_vec();
    let vectors = tei::vectors(
        app,
        &app::call(&head),
        tei::EmbedTask { embedder: embedder.as_ref(), kind, texts: &texts },
    )
    .await?;
    let tokens = texts.iter().map(|text| embedder.count_tokens(text)).sum();
    let base64 = asked.encoding_format == Some(EncodingFormat::Base64);
    let data = vectors.into_iter().enumerate().map(|(index, vector)| OpenAiVector {
        object: "embedding",
        index,
        embedding: if base64 {
            let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
            Numbers::Base64(STANDARD.encode(bytes))
        } else {
            Numbers::Float(vector)
        },
    });
    let model = embedder.identity().name.clone();
    let body = OpenAiVectors {
        object: "list",
        data: data.collect(),
        model: model.clone(),
        usage: VllmUsage { prompt_tokens: tokens, total_tokens: tokens },
    };
    Ok(told(Ran { model, took: start.elapsed(), ..Ran::default() }, Json(body)))
}

/// The error in OpenAI's words.
pub(super) fn error(error: &ServeError) -> Response {
    let status = match error.status().as_u16() {
        422 => 400,
        other => other,
    };
    let kind = match status {
        429 => "rate_limit_exceeded",
        500.. => "server_error",
        _ => "invalid_request_error",
    };
    with_status(status, of(error, kind, status))
}
