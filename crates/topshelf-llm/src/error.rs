//! What can go wrong with a language model that reranks.

use topshelf_core::{Blame, Error as CoreError};

/// The result of asking one.
pub type Result<T, E = LlmError> = std::result::Result<T, E>;

/// An error of a reranker that is made of a language model.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LlmError {
    /// A model that cannot tell a relevant passage from another, asked in this way.
    #[error(
        "{model} cannot rank with the template {template}: of its golden pair the relevant passage \
             scores {relevant:.2} and the other {other:.2}, which should lie at least {margin} apart; \
             it is too small, or was trained on another template"
    )]
    Golden {
        /// The model.
        model: String,
        /// The template's name.
        template: &'static str,
        /// The score of the relevant passage.
        relevant: f32,
        /// The score of the other one.
        other: f32,
        /// How far apart they should be.
        margin: f32,
    },

    /// A golden pair that could not be scored.
    #[error("{model} gives no score for the golden pair of the template {template}: {reason}")]
    NoGolden {
        /// The model.
        model: String,
        /// The template's name.
        template: &'static str,
        /// Why not.
        reason: String,
    },

    /// A name of a strategy that there is not.
    #[error(
        "\"{name}\" is no way to ask a language model; there are {}",
        crate::strategy::NAMES.join(", ")
    )]
    Strategy {
        /// As it was given.
        name: String,
    },
}

impl LlmError {
    /// As the error of a stage of the pipeline.
    pub fn into_stage(self) -> CoreError {
        CoreError::stage(crate::STAGE, Blame::Caller, self)
    }
}
