//! What can go wrong with a request: [`ServeError`].
//!
//! [`ServeError::status`] is the one map to HTTP status. How the body looks, and where a vendor uses
//! another status for the same fault, is its dialect's (see [`crate::dialect`]).
//!
//! | status | when |
//! | --- | --- |
//! | 400 | the body is not JSON, or an instruction in it means nothing |
//! | 401 | a key is wanted, and there is none or a wrong one |
//! | 403 | the index is not to be changed; a web page of another origin asks |
//! | 404, 405 | no such route, model, index; not by that method |
//! | 408 | the body did not come in time |
//! | 413 | the body, or the number of documents, is over the limit |
//! | 422 | the body is JSON, but not what this route takes |
//! | 429 | more than this key may ask for, or than can be done in time; `Retry-After` says when |
//! | 500 | something broke |
//! | 503 | the server is shutting down |
//! | 504 | no retriever answered before the deadline |

use std::time::Duration;

use axum::http::StatusCode;
use topshelf_core::{Blame, Error as CoreError};

use crate::shelf::{ModelCard, ModelRole};

/// The result of serving something.
pub type Result<T, E = ServeError> = std::result::Result<T, E>;

/// What is wrong with a request, or went wrong with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The body is not JSON.
    #[error("the body is not JSON: {reason}")]
    NotJson {
        /// What the parser says.
        reason: String,
    },

    /// A field that has to be there is not.
    #[error("the field \"{field}\" is missing")]
    MissingField {
        /// The field, with the path to it.
        field: String,
    },

    /// A field that this route does not know.
    #[error("there is no field \"{field}\"; {known}")]
    UnknownField {
        /// The field, with the path to it.
        field: String,
        /// Which fields there are, as a sentence.
        known: String,
    },

    /// A field's value is of the wrong kind or out of range.
    #[error("the field \"{field}\" cannot be used: {reason}")]
    WrongField {
        /// The field, with the path to it.
        field: String,
        /// What is wrong with it.
        reason: String,
    },

    /// There is nothing to rerank.
    #[error("there are no documents; give at least one")]
    NoDocuments,

    /// There is nothing to make vectors of.
    #[error("there are no texts; give at least one")]
    NoTexts,

    /// A document without text.
    #[error("document {index} is empty; leave it out or give it a text")]
    EmptyDocument {
        /// Its place, from 0.
        index: usize,
    },

    /// A text that is empty.
    #[error("text {index} is empty; leave it out")]
    EmptyText {
        /// Its place, from 0.
        index: usize,
    },

    /// More documents than are taken at once.
    #[error("{given} documents are more than the {limit} that are taken at once; send fewer")]
    TooManyDocuments {
        /// Documents given.
        given: usize,
        /// The most that is taken.
        limit: usize,
    },

    /// A text is longer than the model reads, and the client said that nothing may be cut.
    #[error(
        "{what} is longer than the model reads, by {tokens} tokens, and the request says that \
         nothing may be cut; allow it, or shorten the text"
    )]
    TooLong {
        /// The query, or which document.
        what: String,
        /// Tokens that do not fit.
        tokens: usize,
    },

    /// The body is longer than is taken.
    #[error(
        "the body is longer than the {limit} bytes that are taken; send fewer documents at once"
    )]
    BodyTooLarge {
        /// The most that is taken.
        limit: usize,
    },

    /// The body did not come in time, or broke off.
    #[error("the body did not arrive: {reason}")]
    BodyNotRead {
        /// Why.
        reason: String,
    },

    /// No model of that name is served.
    #[error("model '{model}' is not served here; there are: {}", listed(known))]
    UnknownModel {
        /// The name asked for.
        model: String,
        /// The names there are.
        known: Vec<String>,
    },

    /// No index of that name is served.
    #[error("index '{index}' is not served here; there are: {}", listed(known))]
    UnknownIndex {
        /// The name asked for.
        index: String,
        /// The names there are.
        known: Vec<String>,
    },

    /// No index is served at all.
    #[error("no index is served here, and this request needs one")]
    NoIndex,

    /// The index is not to be changed by requests.
    #[error("index '{index}' is served read-only: it can be searched, and not changed")]
    ReadOnly {
        /// Its name.
        index: String,
    },

    /// A web page of another origin asks.
    #[error(
        "web pages of {origin} may not ask here; the server's own pages may, and those of the origins that it allows"
    )]
    ForeignOrigin {
        /// Where the page is from.
        origin: String,
    },

    /// There is no key in the request.
    #[error("a key is needed: send it as 'Authorization: Bearer KEY'")]
    NoKey,

    /// The key is none of the server's.
    #[error("the key is not known here")]
    WrongKey,

    /// The key is good for asking only.
    #[error(
        "the key \"{key}\" may ask, and change nothing; changes need a key that was made for them"
    )]
    MayNotChange {
        /// Its name.
        key: String,
    },

    /// The key has used up what it may ask for.
    #[error("this key may not ask for more at the moment; try again in {} s", whole_seconds(*retry_after))]
    RateLimited {
        /// When it may again.
        retry_after: Duration,
    },

    /// There is more to do than can be done in time.
    #[error("the server has more to do than it can in time; try again in {} s", whole_seconds(*retry_after))]
    Overloaded {
        /// When there is likely to be room.
        retry_after: Duration,
    },

    /// The server is going away.
    #[error("the server is shutting down; ask another")]
    ShuttingDown,

    /// There is no such route.
    #[error("there is no {path} here; /openapi.json lists what there is")]
    NoRoute {
        /// The path asked for.
        path: String,
    },

    /// The route is there, but not for that method.
    #[error("{path} is not for {method}")]
    WrongMethod {
        /// The path asked for.
        path: String,
        /// The method it was asked with.
        method: String,
    },

    /// A stage of the pipeline.
    #[error(transparent)]
    Core(#[from] CoreError),

    /// What no caller can mend.
    #[error("{reason}")]
    Failed {
        /// What broke.
        reason: String,
    },
}

/// Names in a sentence.
fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// A time to wait as it is said to clients, in the sentence and in `Retry-After`: never too short.
pub(crate) fn whole_seconds(time: Duration) -> u64 {
    time.as_secs_f64().ceil().max(1.0) as u64
}

impl ServeError {
    /// The error for a model name that is not among these.
    pub fn unknown_model(model: &str, cards: &[ModelCard], role: ModelRole) -> Self {
        let of_role = cards.iter().filter(|card| card.role == role);
        Self::UnknownModel {
            model: model.to_owned(),
            known: of_role.map(|card| card.name.clone()).collect(),
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotJson { .. } => StatusCode::BAD_REQUEST,
            Self::MissingField { .. }
            | Self::UnknownField { .. }
            | Self::WrongField { .. }
            | Self::NoDocuments
            | Self::NoTexts
            | Self::EmptyDocument { .. }
            | Self::EmptyText { .. }
            | Self::TooLong { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyDocuments { .. } | Self::BodyTooLarge { .. } => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Self::BodyNotRead { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::UnknownModel { .. }
            | Self::UnknownIndex { .. }
            | Self::NoIndex
            | Self::NoRoute { .. } => StatusCode::NOT_FOUND,
            Self::WrongMethod { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::ReadOnly { .. } | Self::ForeignOrigin { .. } | Self::MayNotChange { .. } => {
                StatusCode::FORBIDDEN
            }
            Self::NoKey | Self::WrongKey => StatusCode::UNAUTHORIZED,
            Self::RateLimited { .. } | Self::Overloaded { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            Self::Core(error) if error.is_too_late() => StatusCode::GATEWAY_TIMEOUT,
            Self::Core(error) => match error.blame() {
                Blame::Caller => StatusCode::UNPROCESSABLE_ENTITY,
                Blame::Failure => StatusCode::INTERNAL_SERVER_ERROR,
            },
            Self::Failed { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// When it is worth trying again, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } | Self::Overloaded { retry_after } => {
                Some(*retry_after)
            }
            Self::ShuttingDown => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// A short name for metrics and for the native routes' `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotJson { .. } => "not_json",
            Self::MissingField { .. } => "missing_field",
            Self::UnknownField { .. } => "unknown_field",
            Self::WrongField { .. } => "wrong_field",
            Self::NoDocuments | Self::NoTexts => "no_documents",
            Self::EmptyDocument { .. } | Self::EmptyText { .. } => "empty_document",
            Self::TooManyDocuments { .. } => "too_many_documents",
            Self::TooLong { .. } => "too_long",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::BodyNotRead { .. } => "body_not_read",
            Self::UnknownModel { .. } => "unknown_model",
            Self::UnknownIndex { .. } | Self::NoIndex => "unknown_index",
            Self::ReadOnly { .. } => "read_only",
            Self::ForeignOrigin { .. } => "foreign_origin",
            Self::NoKey => "no_key",
            Self::WrongKey => "wrong_key",
            Self::MayNotChange { .. } => "may_not_change",
            Self::RateLimited { .. } => "rate_limited",
            Self::Overloaded { .. } => "overloaded",
            Self::ShuttingDown => "shutting_down",
            Self::NoRoute { .. } => "no_route",
            Self::WrongMethod { .. } => "wrong_method",
            Self::Core(error) if error.is_too_late() => "too_late",
            Self::Core(error) => match error.blame() {
                Blame::Caller => "cannot_be_answered",
                Blame::Failure => "failed",
            },
            Self::Failed { .. } => "failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use topshelf_core::Usage;

    use super::*;

    #[test]
    fn nothing_in_time_is_a_timeout_whatever_was_spent() {
        let late = || CoreError::TooLate { stage: "dense".to_owned(), milliseconds: 30.0 };
        let usage = Usage { calls: 1, ..Usage::default() };
        for error in [late(), late().after_spending(usage)] {
            let error = ServeError::from(error);
            assert_eq!((error.status(), error.kind()), (StatusCode::GATEWAY_TIMEOUT, "too_late"));
        }
        let failed = ServeError::from(CoreError::stage("dense", Blame::Failure, "it broke"));
        assert_eq!(failed.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
