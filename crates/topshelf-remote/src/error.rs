//! What can go wrong with a model that answers over HTTP.

use std::time::Duration;

use topshelf_core::Blame;

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

fn hint(status: u16) -> &'static str {
    match status {
        401 | 403 => "; is the key set, and the right one?",
        404 => "; does the address end in /v1, and is there a model of that name?",
        _ => "",
    }
}

impl RemoteError {
    /// Whose fault this error is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Endpoint { .. } | Self::Refused { .. } => Blame::Caller,
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Unexpected { .. } => {
                Blame::Failure
            }
        }
    }
}
