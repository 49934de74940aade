//! `POST /topshelf/v1/rerank`: documents of the request, with all that no vendor has.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use topshelf_core::{ListedDocument, OnFailure, SetupPatch, Survivors, TokenVectorUse};
use utoipa::ToSchema;

use crate::answer::{SecondStageRan, Span};
use crate::app::{self, App, answer, told};
use crate::dialect::{Dialect, ran};
use crate::error::{Result, ServeError};
use crate::json;
use crate::rerank::{self, Asked, Ordered, Overlong};

/// The most steps of a cascade after the first.
const STEPS: usize = 4;

/// A more expensive reranker for the best of the one before.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SurvivorsRequest {
    /// Its name.
    pub model: String,
    /// How many it reads.
    #[schema(minimum = 1)]
    pub keep: usize,
}

/// A request. Other vendors' names of a field are taken, too.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RerankRequest {
    /// What the documents should answer.
    pub query: String,
    /// The documents; also `texts` or `input`.
    #[serde(alias = "texts", alias = "input")]
    pub documents: Vec<DocumentGiven>,
    /// How many results, all if that is not said; also `top_k`.
    #[serde(alias = "top_k")]
    #[schema(minimum = 1)]
    pub top_n: Option<usize>,
    /// Whether results carry their documents; also `return_text` or `return_input`.
    #[serde(default, alias = "return_text", alias = "return_input")]
    pub return_documents: bool,
    /// Whether a text that is longer than the model reads is an error.
    #[serde(default)]
    pub refuse_overlong: bool,
    /// By what, and how.
    #[serde(flatten)]
    pub reranking: RerankingRequest,
}

/// How candidates are reordered; what is absent is as the server was started.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct RerankingRequest {
    /// The reranker's name or alias, or `none`.
    pub model: Option<String>,
    /// More expensive rerankers for the best of the one before.
    #[serde(default, deserialize_with = "json::objects")]
    pub then: Vec<SurvivorsRequest>,
    /// What is read of documents longer than the reranker's window: `windows` or `head`.
    pub long_documents: Option<String>,
    /// Windows of a long document that are read, at most.
    #[schema(minimum = 1)]
    pub windows: Option<usize>,
    /// Tokens of a window, at most.
    #[schema(minimum = 1)]
    pub window_tokens: Option<usize>,
    /// What the rerank score counts beside the first stage's, 0 to 1.
    #[schema(minimum = 0.0, maximum = 1.0)]
    pub blend: Option<f32>,
    /// How the rerank score is brought to 0..1 for the blend: `min-max` or `probability`.
    pub blend_score: Option<String>,
    /// Results below this probability are withheld.
    #[schema(minimum = 0.0, maximum = 1.0)]
    pub min_relevance: Option<f32>,
    /// Skips reranking where the first stage is clear: `margin:dense:3>=0.05`, or `none`.
    pub gate: Option<String>,
    /// Whether late interaction encodes the candidates of an index that has their token vectors.
    pub encode_again: Option<bool>,
    /// The best order there is after so many milliseconds.
    #[schema(exclusive_minimum = 0.0, maximum = 86_400_000.0)]
    pub deadline_ms: Option<f64>,
    /// Whether it is an error if no reranker answers.
    pub strict: Option<bool>,
}

/// A document: a text, or a text with a title.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text, or an object with the field text")]
pub enum DocumentGiven {
    /// A text.
    Text(String),
    /// A text with a title.
    Titled(#[serde(deserialize_with = "json::object")] TitledText),
}

/// A text with a title.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct TitledText {
    /// Read before the text.
    #[serde(default)]
    pub title: String,
    /// The text.
    pub text: String,
}

/// An answer.
#[derive(Debug, Serialize, JsonSchema, ToSchema)]
pub struct RerankAnswer {
    /// Best first.
    pub results: Vec<RankedDocument>,
    /// The last reranker.
    pub model: String,
    /// What its scores mean: `logit`, `maxsim`, `probability`, `rank`.
    pub scale: String,
    /// What ran.
    pub second_stage: SecondStageRan,
    /// What was not scored, not read to the end, or answered by another.
    pub warnings: Vec<String>,
    /// How long the stages took.
    pub milliseconds: f64,
}

/// One document of an answer.
#[derive(Debug, Serialize, JsonSchema, ToSchema)]
pub struct RankedDocument {
    /// Its place in the request, from 0.
    pub index: usize,
    /// The model's own score; absent for one that could not be scored.
    pub score: Option<f32>,
    /// The probability that it is relevant; absent where the score has none.
    pub relevance_score: Option<f32>,
    /// The bytes of its text on which the score rests; absent where that is all of it.
    pub span: Option<Span>,
    /// Its text, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
}

impl From<DocumentGiven> for ListedDocument {
    fn from(given: DocumentGiven) -> Self {
        match given {
            DocumentGiven::Text(text) => text.into(),
            DocumentGiven::Titled(TitledText { title, text }) => Self { title, text },
        }
    }
}

impl RerankingRequest {
    /// What it changes; a deadline of the request's head counts unless the body has one.
    ///
    /// # Errors
    ///
    /// [`ServeError::WrongField`] for a word or a number that means nothing.
    pub(crate) fn patch(self, of_head: Option<Duration>) -> Result<SetupPatch> {
        if self.then.len() > STEPS {
            let reason =
                format!("{} steps are more than the {STEPS} that are taken", self.then.len());
            return Err(ServeError::WrongField { field: "then".to_owned(), reason });
        }
        let deadline =
            self.deadline_ms.map(|number| app::milliseconds("deadline_ms", number)).transpose()?;
        let then = self.then.into_iter();
        Ok(SetupPatch {
            rerank: self.model,
            then: then.map(|own| Survivors { model: own.model, keep: own.keep }).collect(),
            long_documents: word("long_documents", self.long_documents.as_deref())?,
            windows: self.windows,
            window_tokens: self.window_tokens,
            blend: share("blend", self.blend)?,
            blend_score: word("blend_score", self.blend_score.as_deref())?,
            min_relevance: share("min_relevance", self.min_relevance)?,
            gate: word("gate", self.gate.as_deref())?,
            token_vectors: self
                .encode_again
                .map(|again| if again { TokenVectorUse::Encode } else { TokenVectorUse::Stored }),
            deadline: deadline.or(of_head),
            on_failure: self
                .strict
                .map(|strict| if strict { OnFailure::Fail } else { OnFailure::KeepOrder }),
            ..SetupPatch::default()
        })
    }
}

/// A word of a request as what it stands for.
///
/// # Errors
///
/// [`ServeError::WrongField`] with the words that there are.
pub(crate) fn word<T>(field: &str, word: Option<&str>) -> Result<Option<T>>
where
    T: FromStr<Err = topshelf_core::Error>,
{
    let read = |word: &str| word.parse::<T>();
    word.map(read).transpose().map_err(|error| {
        let (field, reason) = (field.to_owned(), error.to_string());
        ServeError::WrongField { field, reason }
    })
}

/// A number from 0 to 1.
fn share(field: &str, number: Option<f32>) -> Result<Option<f32>> {
    match number {
        Some(number) if !(0.0..=1.0).contains(&number) => {
            let (field, reason) = (field.to_owned(), format!("{number} is not from 0 to 1"));
            Err(ServeError::WrongField { field, reason })
        }
        other => Ok(other),
    }
}

/// Orders the documents of the request.
#[utoipa::path(
    post, path = "/topshelf/v1/rerank", tag = "rerank",
    request_body = RerankRequest,
    responses(
        (status = 200, description = "The documents, best first", body = RerankAnswer),
        (status = "4XX", description = "What is wrong with the request", body = super::ErrorAnswer),
        (status = "5XX", description = "What broke", body = super::ErrorAnswer),
    )
)]
pub(crate) async fn rerank(State(app): State<Arc<App>>, request: Request) -> Response {
    answer(Dialect::Native, ordered(&app, request).await)
}

async fn ordered(app: &Arc<App>, request: Request) -> Result<Response> {
    let (head, body) = request.into_parts();
    let of_head = app::deadline(&head.headers)?;
    let asked: RerankRequest = app.read(body).await?;
    let with_texts = asked.return_documents;
    let asked = Asked {
        query: asked.query,
        documents: asked.documents.into_iter().map(ListedDocument::from).collect(),
        patch: asked.reranking.patch(of_head)?,
        top: asked.top_n,
        overlong: if asked.refuse_overlong { Overlong::Refuse } else { Overlong::Cut },
        ..Asked::default()
    };
    let ordered = rerank::run(app, &app::call(&head), asked).await?;
    let body = RerankAnswer::of(&ordered, with_texts);
    Ok(told(ran(&ordered, Vec::new()), Json(body)))
}

impl RerankAnswer {
    fn of(ordered: &Ordered, with_texts: bool) -> Self {
        let results = ordered.results.iter().map(|scored| RankedDocument {
            index: scored.index,
            score: scored.score,
            relevance_score: scored.relevance,
            span: scored.span.as_ref().map(Span::from),
            document: with_texts.then(|| ordered.documents[scored.index].text.clone()),
        });
        Self {
            results: results.collect(),
            model: ordered.model.clone(),
            scale: ordered.scale.to_string(),
            second_stage: SecondStageRan::from(&ordered.report),
            warnings: ordered.warnings(),
            milliseconds: ordered.took.as_secs_f64() * 1e3,
        }
    }
}
