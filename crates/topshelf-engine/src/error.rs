//! [`EngineError`]: whatever can go wrong between a description of a pipeline and its answer.

use std::path::PathBuf;

use topshelf_core::{Blame, Error};
use topshelf_index::IndexError;
use topshelf_llm::LlmError;
use topshelf_models::ModelError;
use topshelf_remote::RemoteError;
use topshelf_tune::TuneError;

/// The result of the engine.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

/// An error of the engine or of anything it puts together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A setup, a query or a stage.
    #[error(transparent)]
    Core(#[from] Error),

    /// An index.
    #[error(transparent)]
    Index(#[from] IndexError),

    /// A model of this machine.
    #[error(transparent)]
    Model(#[from] ModelError),

    /// A service.
    #[error(transparent)]
    Remote(#[from] RemoteError),

    /// A language model as a reranker.
    #[error(transparent)]
    Llm(#[from] LlmError),

    /// A profile, or tuning.
    #[error(transparent)]
    Tune(#[from] TuneError),

    /// A file of prices that cannot be used.
    #[error("the prices in {} cannot be used: {reason}", path.display())]
    Prices {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },

    /// A limit of spending for a model whose price is not known.
    #[error("the price of \"{model}\" is not known, so what is spent on it cannot be limited")]
    UnknownPrice {
        /// The model, as prices name it.
        model: String,
    },

    /// A variable of the environment that cannot be used.
    #[error("{variable} cannot be used: {reason}; {expected}")]
    Variable {
        /// Its name.
        variable: &'static str,
        /// What is wrong with its value, without secrets.
        reason: String,
        /// What it may be.
        expected: &'static str,
    },

    /// A gate that nothing has shown to pay.
    #[error(
        "nothing has shown that this gate pays: on many collections no such number tells when reranking can be \
         skipped"
    )]
    UnprovenGate,

    /// A name that an engine with a fixed set of models does not know.
    #[error("the {role} \"{name}\" is not served; there are {known}")]
    NotServed {
        /// `reranker` or `bi-encoder`.
        role: &'static str,
        /// The name.
        name: String,
        /// The names that there are.
        known: String,
    },

    /// A model that an index asks for since it has changed, and that is not in memory.
    #[error(
        "the index needs the model \"{model}\", which was not loaded with it; have everything read again"
    )]
    NotLoaded {
        /// The model.
        model: String,
    },

    /// The name that means no reranking, where a reranker is needed.
    #[error("\"none\" is not a reranker")]
    NoneIsNoReranker,
}

impl EngineError {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Core(error) => error.blame(),
            Self::Index(error) => error.blame(),
            Self::Model(error) => error.blame(),
            Self::Remote(error) => error.blame(),
            Self::Tune(error) => error.blame(),
            Self::NotLoaded { .. } => Blame::Failure,
            Self::Llm(_)
            | Self::Prices { .. }
            | Self::UnknownPrice { .. }
            | Self::Variable { .. }
            | Self::UnprovenGate
            | Self::NotServed { .. }
            | Self::NoneIsNoReranker => Blame::Caller,
        }
    }
}
