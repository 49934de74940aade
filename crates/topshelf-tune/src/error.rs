//! What can go wrong in tuning, and with a profile.

use std::path::PathBuf;

use topshelf_core::Blame;
use topshelf_eval::EvalError;

/// The result of tuning.
pub type Result<T, E = TuneError> = std::result::Result<T, E>;

/// An error of tuning or of a profile.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TuneError {
    /// Too few judged queries to fit and to measure.
    #[error(
        "there are {queries} judged queries, and tuning wants at least {least}: half of them to \
         choose by and half to measure with; judge more"
    )]
    TooFewQueries {
        /// Judged queries.
        queries: usize,
        /// The least.
        least: usize,
    },

    /// Nothing was retrieved for any judged query.
    #[error("no stage found anything for any of the judged queries; is it the right index?")]
    NothingFound,

    /// No setup is fast enough.
    #[error(
        "nothing is within {budget} ms: the fastest, {fastest}, takes {takes:.1} ms for 19 queries \
         of 20; give more time, or a smaller model"
    )]
    OverBudget {
        /// What was allowed.
        budget: f64,
        /// The fastest setup.
        fastest: String,
        /// What it takes.
        takes: f64,
    },

    /// A profile that cannot be read.
    #[error("cannot read the profile {}: {source}", path.display())]
    ReadProfile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },

    /// A profile that cannot be written.
    #[error("cannot write the profile {}: {source}", path.display())]
    WriteProfile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },

    /// A profile with something in it that means nothing.
    #[error("the profile {} cannot be used: {reason}", path.display())]
    BadProfile {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },

    /// A stage or a policy.
    #[error(transparent)]
    Core(#[from] topshelf_core::Error),

    /// Judgments, runs and measures.
    #[error(transparent)]
    Eval(#[from] EvalError),
}

impl TuneError {
    /// Whose fault this error is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::TooFewQueries { .. }
            | Self::NothingFound
            | Self::OverBudget { .. }
            | Self::ReadProfile { .. }
            | Self::BadProfile { .. }
            // Judgments and runs are the caller's files.
            | Self::Eval(_) => Blame::Caller,
            Self::WriteProfile { .. } => Blame::Failure,
            Self::Core(error) => error.blame(),
        }
    }
}
