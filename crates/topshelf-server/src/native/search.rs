//! `POST /v1/search`: the whole pipeline over an index.
//!
//! With `"stream": true` the answer comes as server-sent events: `candidates` as soon as the first
//! stage has them, in its order, then `answer` with the reranked ones; `error` if the second stage
//! fails.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::{self, StreamExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use topshelf_core::context::estimate_tokens;
use topshelf_core::report::retrieval_notes;
use topshelf_core::{
    Answer, Call, Candidates, Context, ContextOptions, Filter, Pipeline, Query, Ranking,
    SetupPatch, TokenMatch,
};
use tracing::Instrument as _;
use utoipa::ToSchema;

use super::context::PromptOptions;
use super::rerank::{RerankingRequest, word};
use super::{ErrorAnswer, ErrorTold};
use crate::admission::Permit;
use crate::answer::{PromptAnswer, RunReport, SearchHit};
use crate::app::{self, App, Ran, answer, told};
use crate::dialect::Dialect;
use crate::error::{Result, ServeError};
use crate::json;
use crate::shadow;

/// Bytes of a passage, for the estimate of a search's work before it has found any.
const PASSAGE: u64 = 1000;

/// A request.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchRequest {
    /// What to look for.
    #[schema(min_length = 1)]
    pub query: String,
    /// The index; the server's first if that is not said.
    pub index: Option<String>,
    /// `bm25`, `dense`, `colbert`, or several of them: `hybrid`, `hybrid-colbert`, `bm25+dense+colbert`.
    pub retriever: Option<String>,
    /// `rrf`, `min-max` or `z-score`.
    pub fusion: Option<String>,
    /// The k of reciprocal rank fusion.
    pub rrf_k: Option<f32>,
    /// Weights of the retrievers for the other fusions.
    #[serde(default)]
    pub weights: Vec<f32>,
    /// BM25: how slowly repetitions of a word saturate.
    #[schema(minimum = 0.0)]
    pub k1: Option<f32>,
    /// BM25: how much long passages are held back.
    #[schema(minimum = 0.0, maximum = 1.0)]
    pub b: Option<f32>,
    /// BM25: what a word in title or headings counts, where one in the text counts 1.
    #[schema(minimum = 0.0)]
    pub title_weight: Option<f32>,
    /// Candidates that the first stage fetches and the second reads.
    #[schema(minimum = 1)]
    pub depth: Option<usize>,
    /// How many results, 10 if that is not said; also `top_k`.
    #[serde(alias = "top_k")]
    #[schema(minimum = 1)]
    pub top_n: Option<usize>,
    /// Only passages of documents whose metadata satisfy this: `lang = en AND year >= 2024`.
    pub filter: Option<String>,
    /// Whether to say which token of a passage answered which of the query, where the reranker knows.
    #[serde(default)]
    pub explain: bool,
    /// Whether the candidates come along as the first stage ordered them.
    #[serde(default)]
    pub return_candidates: bool,
    /// A prompt from the results.
    #[serde(default, deserialize_with = "json::optional_object")]
    pub prompt: Option<PromptOptions>,
    /// Whether the first stage's order is sent ahead, as server-sent events.
    #[serde(default)]
    pub stream: bool,
    /// By what candidates are reordered, and how.
    #[serde(flatten)]
    pub reranking: RerankingRequest,
}

/// An answer.
#[derive(Debug, Serialize, JsonSchema, ToSchema)]
pub struct SearchResponse {
    /// The query.
    pub query: String,
    /// The results, best first.
    pub hits: Vec<SearchHit>,
    /// The candidates as the first stage ordered them, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidates: Option<Vec<SearchHit>>,
    /// The prompt, if one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<PromptAnswer>,
    /// What ran.
    pub report: RunReport,
}

/// The first event of a stream.
#[derive(Debug, Serialize, JsonSchema, ToSchema)]
pub struct FirstOrder {
    /// The best candidates, in the first stage's order.
    pub hits: Vec<SearchHit>,
    /// How many candidates there are.
    pub candidates: usize,
}

/// A search that can be run.
struct Search {
    query: Query,
    pipeline: Pipeline,
    request: SearchRequest,
    prompt: Option<ContextOptions>,
    /// Results.
    top: usize,
    permit: Permit,
    /// Begun when the request had been read: a deadline counts from there.
    call: Call,
}

/// Finds passages in an index.
#[utoipa::path(
    post, path = "/v1/search", tag = "search",
    request_body = SearchRequest,
    responses(
        (status = 200, description = "The results, best first", body = SearchResponse),
        (status = "4XX", description = "What is wrong with the request", body = ErrorAnswer),
        (status = "5XX", description = "What broke", body = ErrorAnswer),
    )
)]
pub(crate) async fn search(State(app): State<Arc<App>>, request: Request) -> Response {
    answer(Dialect::Native, found(&app, request).await)
}

async fn found(app: &Arc<App>, request: Request) -> Result<Response> {
    let search = prepare(app, request).await?;
    let candidates = search.pipeline.candidates(&search.call, &search.query).await?;
    if search.request.stream {
        return Ok(streamed(Arc::clone(app), search, candidates));
    }
    let (ran, body) = search.finish(app, candidates).await?;
    Ok(told(ran, Json(body)))
}

async fn prepare(app: &App, request: Request) -> Result<Search> {
    let (head, body) = request.into_parts();
    let of_head = app::deadline(&head.headers)?;
    let mut request: SearchRequest = app.read(body).await?;
    let mut query = Query::new(&request.query)?;
    if let Some(filter) = &request.filter {
        query = query.with_filter(Filter::parse(filter)?);
    }
    app.log_query(&query);
    check_numbers(&request, app.options.limits.documents)?;
    let patch = SetupPatch {
        retriever: word("retriever", request.retriever.as_deref())?,
        fusion: word("fusion", request.fusion.as_deref())?,
        rrf_k: request.rrf_k,
        weights: request.weights.clone(),
        k1: request.k1,
        b: request.b,
        title_weight: request.title_weight,
        depth: request.depth,
        top: request.top_n,
        ..request.reranking.clone().patch(of_head)?
    };
    let setup = app.shelf.setup(&patch)?;
    let prompt = request.prompt.take().map(|own| own.over(setup.context.clone())).transpose()?;
    let pipeline = app.shelf.pipeline(request.index.as_deref(), &setup)?;
    let reads = if pipeline.second_stage().is_some() { setup.first_stage.depth } else { 1 };
    let permit = app.admission.admit((reads as u64).saturating_mul(PASSAGE))?;
    let call = app::call(&head).part();
    Ok(Search { query, pipeline, request, prompt, top: setup.top, permit, call })
}

fn check_numbers(request: &SearchRequest, limit: usize) -> Result<()> {
    let wrong = |field: &str, reason: String| {
        Err(ServeError::WrongField { field: field.to_owned(), reason })
    };
    if let Some(depth) = request.depth.filter(|depth| *depth > limit) {
        return wrong("depth", format!("{depth} is more than the {limit} that are taken"));
    }
    let is_usable = |number: &f32| number.is_finite() && *number >= 0.0;
    if let Some(k) = request.rrf_k.filter(|k| !is_usable(k)) {
        return wrong("rrf_k", format!("{k} is not a number of 0 or more"));
    }
    match request.weights.iter().position(|weight| !is_usable(weight)) {
        Some(place) => wrong("weights", format!("number {place} is not one of 0 or more")),
        None => Ok(()),
    }
}

impl Search {
    async fn finish(self, app: &Arc<App>, candidates: Candidates) -> Result<(Ran, SearchResponse)> {
        let Self { query, pipeline, request, prompt, permit, call, .. } = self;
        let found = pipeline.rerank(&call, &query, candidates).await?;
        let explained = if request.explain {
            explain(&call, &pipeline, &query, &found).await?
        } else {
            Vec::new()
        };
        permit.finish();
        let passages = found.candidates.hits().iter().map(|hit| Arc::clone(&hit.passage)).collect();
        let best: Vec<&str> =
            found.ranking.hits().iter().map(|hit| hit.passage.id.as_str()).collect();
        shadow::look(app, &query, passages, &best);
        let pack =
            |options| Context::pack(query.text(), &found.ranking, &options, &estimate_tokens);
        let prompt = prompt.map(pack).transpose()?;
        let profile = app.shelf.profile();
        let report = RunReport { profile, ..RunReport::from(&found.report) };
        let model = report.reranker.as_ref().map(|ran| ran.model.clone()).unwrap_or_default();
        let took = std::time::Duration::from_secs_f64(found.report.milliseconds / 1e3);
        let body = SearchResponse {
            query: query.text().to_owned(),
            hits: hits(&found.ranking, usize::MAX, &explained),
            candidates: request.return_candidates.then(|| hits(&found.candidates, usize::MAX, &[])),
            prompt: prompt.as_ref().map(PromptAnswer::from),
            report,
        };
        let ran = Ran {
            model,
            took,
            warnings: retrieval_notes(&found.report.retrievers),
            before: places_before(&found),
            relevance: found.ranking.hits().first().and_then(|hit| hit.relevance),
            retrievers: found.report.retrievers,
            second_stage: found.report.second_stage,
        };
        Ok((ran, body))
    }
}

/// The first stage's order now, the rest as it comes. The work is withdrawn with the stream.
fn streamed(app: Arc<App>, search: Search, candidates: Candidates) -> Response {
    let first = FirstOrder {
        hits: hits(&candidates.ranking, search.top, &[]),
        candidates: candidates.ranking.len(),
    };
    let rest = async move {
        match search.finish(&app, candidates).await {
            Ok((ran, body)) => {
                app::note(&app.metrics, &ran, None);
                event("answer", &body)
            }
            Err(error) => {
                app::note(&app.metrics, &Ran::default(), Some(error.kind()));
                let told = ErrorTold { kind: error.kind(), message: error.to_string() };
                event("error", &ErrorAnswer { error: told })
            }
        }
    };
    // The request's span is left with the answer's head, before the stream begins.
    let rest = rest.in_current_span();
    let events = stream::once(async move { event("candidates", &first) }).chain(stream::once(rest));
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

fn event(name: &str, data: &impl Serialize) -> std::result::Result<Event, axum::Error> {
    Event::default().event(name).json_data(data)
}

/// What the reranker that answered says of each hit's tokens, if it looks at tokens.
async fn explain(
    call: &Call,
    pipeline: &Pipeline,
    query: &Query,
    found: &Answer,
) -> Result<Vec<Vec<TokenMatch>>> {
    let Some(reranker) = pipeline.answered_by(found) else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for hit in found.ranking.hits() {
        all.push(reranker.explain(call, query, &hit.passage).await?);
    }
    Ok(all)
}

/// The places, from 0, that the results had among the candidates, best first.
fn places_before(found: &Answer) -> Vec<usize> {
    let candidates = found.candidates.hits().iter().enumerate();
    let places: HashMap<&str, usize> =
        candidates.map(|(place, hit)| (hit.passage.id.as_str(), place)).collect();
    let hits = found.ranking.hits().iter();
    hits.filter_map(|hit| places.get(hit.passage.id.as_str()).copied()).collect()
}

fn hits(ranking: &Ranking, top: usize, explained: &[Vec<TokenMatch>]) -> Vec<SearchHit> {
    let told = |(place, hit)| {
        let matches = explained.get(place).map(Vec::as_slice).unwrap_or_default();
        SearchHit::new(place + 1, hit, ranking.scale()).with_matches(matches)
    };
    ranking.hits().iter().take(top).enumerate().map(told).collect()
}
