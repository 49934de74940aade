//! Documents that come from no file, as a program hands them over: [`add_documents`].
//!
//! Each is a file of its own in the index's table, under a path that no file has. So one of the same id
//! replaces it, one that is the same word for word costs nothing, and everything else that holds of
//! files holds of them. They are read as records of a JSONL file are.

use std::time::Instant;

use sha2::{Digest, Sha256};
use topshelf_core::Metadata;

use super::reader::hex;
use super::{AddOptions, AddReport, Models, Reader, Told, begin, write_and_commit};
use crate::error::Result;
use crate::ingest::{Document, prose};
use crate::state::Totals;
use crate::writer::Writer;

/// What stands before the id in the table of files. Paths of files are absolute.
const SCHEME: &str = "document:";

/// A document that comes from no file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GivenDocument {
    /// Its id.
    pub id: String,
    /// Its title; empty where it has none.
    pub title: String,
    /// Its text.
    pub text: String,
    /// Its own fields.
    pub metadata: Metadata,
}

impl GivenDocument {
    /// The path under which it stands in the table of files.
    pub(super) fn path(&self) -> String {
        format!("{SCHEME}{}", self.id)
    }

    /// A hash of all of it.
    pub(super) fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        let metadata = serde_json::to_string(&self.metadata).unwrap_or_default(); // plain data
        for part in [&self.title, &self.text, &metadata] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hex(&hasher.finalize())
    }
}

impl From<GivenDocument> for Document {
    fn from(given: GivenDocument) -> Self {
        let GivenDocument { id, title, text, metadata } = given;
        Self { id, title, metadata, blocks: prose(&text), text, warnings: Vec::new() }
    }
}

/// Adds documents, or brings those of the same ids up to date, and commits.
///
/// # Errors
///
/// As [`add`](super::add()), paths aside. After any of them the index is as it was.
pub fn add_documents(
    mut writer: Writer,
    documents: Vec<GivenDocument>,
    models: Models<'_>,
    options: &AddOptions,
) -> Result<AddReport> {
    let start = Instant::now();
    let report = begin(&mut writer, models, options)?;
    let known = writer.files().clone();
    let take = |reader: &Reader<'_>| reader.take_all(documents);
    let mut silent = |_: super::AddEvent<'_>| {};
    let told = Told { report, on_event: &mut silent, start };
    write_and_commit(writer, &known, models, options, take, told)
}

/// Removes documents that [`add_documents`] added, and commits if there were any. Answers the ids that
/// the index does not have, and what is left.
///
/// # Errors
///
/// Those of [`Writer::commit`].
pub fn remove_documents(mut writer: Writer, ids: &[String]) -> Result<(Vec<String>, Totals)> {
    let gone = |id: &&String| !writer.remove_file(&format!("{SCHEME}{id}"));
    let unknown: Vec<String> = ids.iter().filter(gone).cloned().collect();
    let totals = if unknown.len() < ids.len() { writer.commit()? } else { writer.totals() };
    Ok((unknown, totals))
}
