//! `POST /v1/context`: a prompt from passages of the request, for those who retrieve elsewhere.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use topshelf_core::context::estimate_tokens;
use topshelf_core::{Context, ContextOptions, Passage, Query, Ranking, Scale};
use utoipa::ToSchema;

use crate::answer::PromptAnswer;
use crate::app::{App, answer};
use crate::dialect::Dialect;
use crate::error::{Result, ServeError};
use crate::json;

/// How a prompt is made.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PromptOptions {
    /// Tokens that the sources may take, four bytes counted as one; 3000 if that is not said.
    #[schema(minimum = 1)]
    pub budget: Option<usize>,
    /// The instruction before the sources.
    pub system: Option<String>,
    /// A minijinja template for sources and question.
    pub template: Option<String>,
    /// Jaccard coefficient from which a passage repeats another and is left out; 0.8 if that is not said.
    #[schema(minimum = 0.0)]
    pub near_duplicate: Option<f64>,
}

/// A request.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ContextRequest {
    /// The question.
    #[schema(min_length = 1)]
    pub query: String,
    /// The passages, best first.
    #[serde(deserialize_with = "json::objects")]
    pub passages: Vec<PassageGiven>,
    /// How the prompt is made.
    #[serde(default, deserialize_with = "json::object")]
    pub prompt: PromptOptions,
}

/// A passage of a request.
#[derive(Debug, Deserialize, ToSchema)]
pub struct PassageGiven {
    /// Its id, by which the answer names it; its place if that is not said.
    pub id: Option<String>,
    /// The document it is of; its id if that is not said.
    pub document: Option<String>,
    /// The document's title.
    #[serde(default)]
    pub title: String,
    /// The headings above it, outermost first.
    #[serde(default)]
    pub headings: Vec<String>,
    /// Its text.
    pub text: String,
}

impl PromptOptions {
    /// What is said here, and the rest as usual.
    ///
    /// # Errors
    ///
    /// [`ServeError::WrongField`] for a budget of 0 and a coefficient below 0.
    pub(crate) fn over(self, usual: ContextOptions) -> Result<ContextOptions> {
        let near_duplicate = self.near_duplicate.unwrap_or(usual.near_duplicate);
        if self.budget == Some(0) {
            let reason = "give 1 token or more".to_owned();
            return Err(ServeError::WrongField { field: "prompt.budget".to_owned(), reason });
        }
        if near_duplicate < 0.0 {
            let reason = format!("{near_duplicate} is not a number of 0 or more");
            return Err(ServeError::WrongField {
                field: "prompt.near_duplicate".to_owned(),
                reason,
            });
        }
        Ok(ContextOptions {
            token_budget: self.budget.unwrap_or(usual.token_budget),
            near_duplicate,
            system: self.system.or(usual.system),
            template: self.template.or(usual.template),
        })
    }
}

/// Packs passages into a prompt.
#[utoipa::path(
    post, path = "/v1/context", tag = "search",
    request_body = ContextRequest,
    responses(
        (status = 200, description = "The prompt, and what is in it", body = PromptAnswer),
        (status = "4XX", description = "What is wrong with the request", body = super::ErrorAnswer),
    )
)]
pub(crate) async fn context(State(app): State<Arc<App>>, request: Request) -> Response {
    answer(Dialect::Native, packed(&app, request).await)
}

async fn packed(app: &App, request: Request) -> Result<Response> {
    let request: ContextRequest = app.read(request.into_body()).await?;
    let query = Query::new(&request.query)?;
    let (given, limit) = (request.passages.len(), app.options.limits.documents);
    if given > limit {
        return Err(ServeError::TooManyDocuments { given, limit });
    }
    let options = request.prompt.over(ContextOptions::default())?;
    let mut ids = HashSet::new();
    for (place, given) in request.passages.iter().enumerate() {
        let id = given.id.clone().unwrap_or_else(|| place.to_string());
        if ids.contains(&id) {
            let (field, reason) =
                (format!("passages[{place}].id"), format!("\"{id}\" is there twice"));
            return Err(ServeError::WrongField { field, reason });
        }
        ids.insert(id);
    }
    let passages = request.passages.into_iter().enumerate().map(|(place, given)| {
        let id = given.id.unwrap_or_else(|| place.to_string());
        let mut passage = Passage::standalone(id, given.title, given.text);
        passage.document = given.document.unwrap_or(passage.document);
        passage.headings = given.headings;
        (Arc::new(passage), -(place as f32))
    });
    let ranking = Ranking::new("given", Scale::Rank, passages)?;
    let context = Context::pack(query.text(), &ranking, &options, &estimate_tokens)?;
    Ok(Json(PromptAnswer::from(&context)).into_response())
}
