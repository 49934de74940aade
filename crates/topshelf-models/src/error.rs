//! What can go wrong with a model.

use std::path::PathBuf;

use topshelf_core::{Blame, Error as CoreError};

/// The result of anything done with models.
pub type Result<T, E = ModelError> = std::result::Result<T, E>;

/// An error of the store or of a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The name is neither in the catalogue nor a folder.
    #[error(
        "no model is called \"{name}\"{hint}; a model is named as in the catalogue, or by a folder with \
             model.onnx or model.safetensors and tokenizer.json"
    )]
    UnknownModel {
        /// The name asked for.
        name: String,
        /// A near name, as ` (did you mean "…"?)`, or nothing.
        hint: String,
    },

    /// A catalogue cannot be used.
    #[error("the model catalogue cannot be used: {reason}")]
    Catalogue {
        /// What is wrong with it.
        reason: String,
    },

    /// No folder for the model store is known.
    #[error("there is no home folder to keep models in; set TOPSHELF_HOME to a folder")]
    NoHome,

    /// The model is known but its files are not on this machine.
    #[error("the model \"{name}\" is not on this machine")]
    NotPulled {
        /// The model.
        name: String,
    },

    /// A model of another family was asked to do this.
    #[error("\"{name}\" is a {found} model, but a {wanted} is needed here")]
    WrongFamily {
        /// The model.
        name: String,
        /// What it is.
        found: String,
        /// What is needed.
        wanted: String,
    },

    /// A file of the model is not what the catalogue says.
    #[error("the file {} of \"{name}\" is damaged: {reason}", path.display())]
    Damaged {
        /// The model.
        name: String,
        /// The file.
        path: PathBuf,
        /// What differs.
        reason: String,
    },

    /// The files are whole but cannot be run.
    #[error("the model in {} cannot be used: {reason}", dir.display())]
    Unsupported {
        /// The model's folder.
        dir: PathBuf,
        /// Why, and what would work.
        reason: String,
    },

    /// An environment variable holds a value that means nothing.
    #[error("{variable} is \"{value}\"; unset it, or set it to one of: {known}")]
    Setting {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// The values that mean something.
        known: &'static str,
    },

    /// The model's output on its golden pair is wrong.
    #[error(
        "\"{name}\" is refused: on its golden pair it answers {got:.4} where {expected:.4} \
             (±{tolerance}) is right; weights, tokenizer or settings do not belong together"
    )]
    Golden {
        /// The model.
        name: String,
        /// What it answered.
        got: f32,
        /// What is right.
        expected: f32,
        /// How far off it may be.
        tolerance: f32,
    },

    /// A source did not give the files.
    #[error("\"{name}\" could not be pulled from {from}: {reason}")]
    Pull {
        /// The model.
        name: String,
        /// The source.
        from: String,
        /// What happened, and what to do.
        reason: String,
    },

    /// Reading or writing the store failed.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was being done, as `cannot read`.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },

    /// Tokenising failed.
    #[error("the tokenizer of \"{name}\" failed: {reason}")]
    Tokenise {
        /// The model.
        name: String,
        /// What it says.
        reason: String,
    },

    /// The runtime failed on an input.
    #[error("running \"{name}\" failed: {reason}")]
    Inference {
        /// The model.
        name: String,
        /// What it says.
        reason: String,
    },

    /// A query of which the model's vocabulary has no token.
    #[error("\"{name}\" knows no token of the query; use words of its language ({language})")]
    UnknownTokens {
        /// The model.
        name: String,
        /// Its languages.
        language: String,
    },
}

impl ModelError {
    /// Whose fault it is: the caller's where asking for another model, pulling it or mending
    /// the given files helps, a failure otherwise.
    pub fn blame(&self) -> Blame {
        match self {
            Self::UnknownModel { .. }
            | Self::Catalogue { .. }
            | Self::NoHome
            | Self::NotPulled { .. }
            | Self::WrongFamily { .. }
            | Self::Damaged { .. }
            | Self::Unsupported { .. }
            | Self::Setting { .. }
            | Self::Golden { .. }
            | Self::UnknownTokens { .. } => Blame::Caller,
            Self::Pull { .. }
            | Self::Io { .. }
            | Self::Tokenise { .. }
            | Self::Inference { .. } => Blame::Failure,
        }
    }

    /// This error as one of the named stage.
    pub(crate) fn into_stage(self, stage: &str) -> CoreError {
        let blame = self.blame();
        CoreError::stage(stage, blame, self)
    }
}
