//! What can go wrong with a model that answers over HTTP.

use std::time::Duration;

use topshelf_core::{Blame, Error as CoreError};

/// The result of a call.
pub type Result<T, E = RemoteError> = std::result::Result<T, E>;

/// An error of a call. None of them holds a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// No address, or one that is none.
    #[error("\"{endpoint}\" is no endpoint; give one such as http://localhost:8080/v1")]
    Endpoint {
        /// As it was given.
        endpoint: String,
    },

    /// A service that wants a key, and there is none.
    #[error("{service} wants a key: set {variable}, or {variable}_FILE to a file that holds it")]
    NoKey {
        /// The service.
        service: String,
        /// The variable that it is read from.
        variable: String,
    },

    /// A file that should hold a key.
    #[error("the key cannot be read from {path}, which {variable}_FILE names: {reason}")]
    KeyFile {
        /// The variable, without `_FILE`.
        variable: String,
        /// The file.
        path: String,
        /// Why not.
        reason: String,
    },

    /// A service that failed so often that it is left alone for a while.
    #[error(
        "{endpoint} failed {failures} times in a row and is not asked again for {seconds:.0} s; \
             the last time: {reason}"
    )]
    LeftAlone {
        /// The address.
        endpoint: String,
        /// How often.
        failures: u32,
        /// For how much longer.
        seconds: f64,
        /// What it said last.
        reason: String,
    },

    /// A call that might have cost more than is left.
    #[error(
        "the budget of {allowed:.4} USD would be passed: {spent:.4} are spent, and the next call may cost \
             {next:.4}"
    )]
    Budget {
        /// USD that may be spent.
        allowed: f64,
        /// USD that are.
        spent: f64,
        /// USD that the call might have cost.
        next: f64,
    },

    /// Nobody waits for the answer any more.
    #[error("the caller went away")]
    Gone,

    /// Nobody answers there.
    #[error("{endpoint} cannot be reached after {tries} tries: {reason}")]
    Unreachable {
        /// The address.
        endpoint: String,
        /// How often it was tried.
        tries: usize,
        /// What the last one said.
        reason: String,
    },

    /// It took too long.
    #[error("{endpoint} did not answer within {limit:?}; is the model still loading?")]
    TimedOut {
        /// The address.
        endpoint: String,
        /// How long it was waited for.
        limit: Duration,
    },

    /// The service says no, and would again.
    #[error("{endpoint} answers {status}: {reason}{}", hint(*status))]
    Refused {
        /// The address.
        endpoint: String,
        /// The HTTP status.
        status: u16,
        /// What it says.
        reason: String,
    },

    /// The answer is none.
    #[error("{endpoint} answers something that is not expected: {reason}")]
    Unexpected {
        /// The address.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Whether a status says that trying again may help.
pub(crate) fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 409 | 429 | 500..=599)
}

fn hint(status: u16) -> &'static str {
    match status {
        401 | 403 => "; is the key set, and the right one?",
        404 => {
            "; is the address right (that of a chat endpoint ends in /v1), and the model's name?"
        }
        _ => "",
    }
}

impl RemoteError {
    /// As the error of a stage of the pipeline.
    pub fn into_stage(self, stage: &str) -> CoreError {
        CoreError::stage(stage, self.blame(), self)
    }

    /// Whether it may pass by itself: the service is down, slow or asked too much.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => true,
            Self::Refused { status, .. } => is_transient(*status),
            _ => false,
        }
    }

    /// Whether the service may have done its work, and charges for it, though there is no answer.
    pub(crate) fn is_after_work(&self) -> bool {
        matches!(self, Self::TimedOut { .. } | Self::Unexpected { .. })
    }

    /// Whose fault this error is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Endpoint { .. }
            | Self::NoKey { .. }
            | Self::KeyFile { .. }
            | Self::Budget { .. }
            | Self::Refused { .. } => Blame::Caller,
            Self::LeftAlone { .. }
            | Self::Gone
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Unexpected { .. } => Blame::Failure,
        }
    }
}
