//! What an addition did, and what it left as it was: [`AddReport`], [`OtherChunking`].

use serde::Serialize;

use super::reader::options_digest;
use crate::chunk::Chunking;
use crate::files::FileEntry;
use crate::ingest::{IngestOptions, Skipped, Warning};
use crate::state::Totals;

/// What [`add()`](super::add()) did.
#[derive(Debug, Clone, Default)]
pub struct AddReport {
    /// Files that are new in the index.
    pub files_added: usize,
    /// Files whose content replaced an older one, or that were read or cut otherwise before.
    pub files_updated: usize,
    /// Those of them whose content is the same.
    pub files_recut: usize,
    /// Files that were as they are in the index.
    pub files_unchanged: usize,
    /// Files removed from the index because they have vanished or can no longer be indexed.
    pub files_removed: usize,
    /// Documents added.
    pub documents: u64,
    /// Passages added.
    pub passages: u64,
    /// What was not indexed.
    pub skipped: Vec<Skipped>,
    /// What was indexed, but not quite as it stands.
    pub warnings: Vec<Warning>,
    /// What is in the index now.
    pub totals: Totals,
    /// How the index cuts documents now.
    pub chunking: Chunking,
    /// How it cut them before, if that is different.
    pub chunking_before: Option<Chunking>,
    /// What is in the index and cut otherwise: it was not added again.
    pub other_chunking: OtherChunking,
    /// Wall-clock time.
    pub milliseconds: f64,
}

/// What is in an index and was not cut as the index cuts now, because it was added before that changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct OtherChunking {
    /// Files.
    pub files: usize,
    /// Documents in them.
    pub documents: u64,
    /// Files beside these of which nobody knows: they were added by a version that recorded a digest
    /// of its options and no more, and it is not that of the defaults.
    pub unrecorded_files: usize,
}

impl OtherChunking {
    /// Those of these files, where the index cuts so.
    pub(crate) fn among<'a>(
        files: impl IntoIterator<Item = &'a FileEntry>,
        chunking: Chunking,
    ) -> Self {
        let digest = options_digest(&IngestOptions::default(), chunking);
        let mut other = Self::default();
        for entry in files {
            match entry.chunking {
                Some(own) if own == chunking => {}
                None if entry.options == digest => {}
                Some(_) => {
                    other.files += 1;
                    other.documents += entry.totals.documents;
                }
                None => other.unrecorded_files += 1,
            }
        }
        other
    }
}
