//! What can go wrong with an index.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use tantivy::TantivyError;
use tantivy::directory::error::OpenReadError;
use topshelf_core::{Blame, Error as CoreError};

use crate::state::TEXT_DIR;

/// The result of anything done with an index.
pub type Result<T, E = IndexError> = std::result::Result<T, E>;

/// An error of the index.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// There is no index in the folder.
    #[error("there is no index in {}", dir.display())]
    Missing {
        /// The folder.
        dir: PathBuf,
    },

    /// The folder holds something else than an index.
    #[error("{} is not an index of Topshelf's but has files in it; give an empty or a new folder", dir.display())]
    NotAnIndex {
        /// The folder.
        dir: PathBuf,
    },

    /// The index was written by another version of Topshelf.
    #[error("the index in {} has format {found}, this program reads formats 1 to {supported}; \
             build it again in another folder (the old one is left as it is)", dir.display())]
    Format {
        /// The folder.
        dir: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format that this version reads.
        supported: u32,
    },

    /// Another process is changing the index.
    #[error("another process is changing the index in {}; wait until it has finished \
             (searching is possible meanwhile)", dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
    },

    /// A file of the index is missing or not what it should be.
    #[error("the index is damaged at {}: {reason}; build it anew in another folder, \
             or bring the file back from a copy", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// The index was made with another bi-encoder.
    #[error(
        "the index was made with the bi-encoder \"{expected}\" and cannot be used with \
             \"{given}\": vectors of different models do not compare; use {expected} or build a new \
             index"
    )]
    EmbedderMismatch {
        /// The model the index was made with.
        expected: String,
        /// The model given.
        given: String,
    },

    /// The index has no vectors.
    #[error(
        "the index has no vectors, so only bm25 can search it; \
             build a new one with a bi-encoder for dense and hybrid retrieval"
    )]
    NoVectors,

    /// The index has no token vectors.
    #[error(
        "the index has no token vectors, so colbert cannot search it; build a new one with them"
    )]
    NoTokenVectors,

    /// The token vectors of the index were made with another model.
    #[error(
        "the token vectors of the index were made with \"{expected}\" and cannot be used with \
             \"{given}\": vectors of different models do not compare; use {expected} or build a \
             new index"
    )]
    TokenModelMismatch {
        /// The model they were made with.
        expected: String,
        /// The model given.
        given: String,
    },

    /// Token vectors whose length the kernels of the smaller tiers cannot take.
    #[error(
        "token vectors of {dimension} numbers can be kept as f16 only, since {dimension} is not a \
             multiple of 4"
    )]
    TokenDimension {
        /// Numbers of a vector.
        dimension: usize,
    },

    /// A setting that was fixed when the index was made is asked to differ.
    #[error(
        "the index was made with {setting} {expected}; it cannot be changed to {given}: \
             build a new index for that"
    )]
    SettingFixed {
        /// The setting.
        setting: &'static str,
        /// Its value in the index.
        expected: String,
        /// The value asked for.
        given: String,
    },

    /// A number out of the bounds of its setting.
    #[error("{setting} of {given} {unit}; {} to {} {unit} are accepted", accepted.start(), accepted.end())]
    OutOfBounds {
        /// The setting.
        setting: &'static str,
        /// Its value.
        given: usize,
        /// The values that it may have.
        accepted: RangeInclusive<usize>,
        /// What is counted.
        unit: &'static str,
    },

    /// A path to add does not exist.
    #[error("there is no file or folder {}; nothing was changed", path.display())]
    NoSuchPath {
        /// The path.
        path: PathBuf,
    },

    /// Nothing in the index came from this path.
    #[error("nothing in the index came from {}", path.display())]
    NotIndexed {
        /// The path.
        path: PathBuf,
    },

    /// The user interrupted the work.
    #[error("interrupted; the index is as it was before")]
    Interrupted,

    /// The embedder failed while documents were being added.
    #[error("{source}; the index is as it was before")]
    Embed {
        /// Its error.
        source: CoreError,
    },

    /// Reading or writing failed.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was being done, as `cannot write`.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },

    /// The search library failed.
    #[error("the text index failed: {source}")]
    Tantivy {
        /// Its error.
        #[from]
        source: tantivy::TantivyError,
    },

    /// A search ended without a result.
    #[error("the search failed: {reason}")]
    Search {
        /// Why.
        reason: String,
    },

    /// The approximate nearest-neighbour library failed.
    #[error("the neighbour graph failed: {reason}")]
    Graph {
        /// What it says.
        reason: String,
    },
}

impl IndexError {
    /// Whose fault it is: the caller's where other arguments or another folder help.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Missing { .. }
            | Self::NotAnIndex { .. }
            | Self::Format { .. }
            | Self::Locked { .. }
            | Self::Damaged { .. }
            | Self::EmbedderMismatch { .. }
            | Self::NoVectors
            | Self::NoTokenVectors
            | Self::TokenModelMismatch { .. }
            | Self::TokenDimension { .. }
            | Self::SettingFixed { .. }
            | Self::OutOfBounds { .. }
            | Self::NoSuchPath { .. }
            | Self::NotIndexed { .. } => Blame::Caller,
            Self::Embed { source } => source.blame(),
            Self::Interrupted
            | Self::Io { .. }
            | Self::Tantivy { .. }
            | Self::Search { .. }
            | Self::Graph { .. } => Blame::Failure,
        }
    }

    /// For `map_err` when tantivy opens the index in `dir`: its files are then to blame unless
    /// the system refused to read them.
    pub(crate) fn opening(dir: &Path) -> impl FnOnce(TantivyError) -> Self {
        let dir = dir.to_owned();
        move |source| {
            let refused = match &source {
                TantivyError::LockFailure(..) => return Self::Locked { dir },
                TantivyError::OpenReadError(OpenReadError::IoError { io_error, .. })
                | TantivyError::IoError(io_error) => io_error.raw_os_error().is_some(),
                TantivyError::OpenReadError(_) | TantivyError::DataCorruption(_) => false,
                _ => true,
            };
            if refused {
                return Self::Tantivy { source };
            }
            Self::Damaged { path: dir.join(TEXT_DIR), reason: source.to_string() }
        }
    }

    /// This error as one of the named retriever.
    pub(crate) fn into_stage(self, stage: &str) -> CoreError {
        let blame = self.blame();
        CoreError::stage(stage, blame, self)
    }

    /// For `map_err` after a call of the file system.
    pub(crate) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}
