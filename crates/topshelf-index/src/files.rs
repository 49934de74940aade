//! Which files are in an index: [`FileTable`].
//!
//! It is what makes adding again cheap: a file whose size, time and options are as recorded is
//! not even read, one whose content hash is as recorded is not indexed again.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::chunk::Chunking;
use crate::error::{IndexError, Result};
use crate::state::{State, Totals};

/// One file in an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its canonical path.
    pub path: String,
    /// Its path as given when it was added: the start of its documents' ids.
    pub id: String,
    /// Its length.
    pub bytes: u64,
    /// When it was last changed, in nanoseconds since 1970.
    pub modified: i128,
    /// SHA-256 of its content, in hex.
    pub sha256: String,
    /// A digest of the options under which it was read and cut.
    pub options: String,
    /// How it was cut; `None` for what formats 1 to 3 have recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunking: Option<Chunking>,
    /// The keys of its passages.
    pub keys: Range<u64>,
    /// What it contributes.
    pub totals: Totals,
}

/// The files of an index by canonical path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct FileTable {
    entries: BTreeMap<String, FileEntry>,
}

impl FileTable {
    /// Reads the table that a state names, from its content if that is there already.
    pub(crate) fn load(dir: &Path, state: &State, content: Option<&[u8]>) -> Result<Self> {
        if state.files.is_empty() {
            return Ok(Self::default());
        }
        let path = dir.join(&state.files);
        let content = match content {
            Some(content) => Cow::Borrowed(content),
            None => Cow::Owned(fs::read(&path).map_err(|error| match error.kind() {
                ErrorKind::NotFound => {
                    IndexError::Damaged { path: path.clone(), reason: "it is missing".to_owned() }
                }
                _ => IndexError::io("cannot read", &path)(error),
            })?),
        };
        if state.files_crc32.is_some_and(|crc32| crc32 != crc32fast::hash(&content)) {
            let reason = "its checksum does not match its content".to_owned();
            return Err(IndexError::Damaged { path, reason });
        }
        let entries: Vec<FileEntry> = serde_json::from_slice(&content)
            .map_err(|error| IndexError::Damaged { path, reason: error.to_string() })?;
        Ok(Self { entries: entries.into_iter().map(|entry| (entry.path.clone(), entry)).collect() })
    }

    /// Writes and syncs the table; answers the CRC-32 of the file.
    pub(crate) fn save(&self, path: &Path) -> Result<u32> {
        let entries: Vec<&FileEntry> = self.entries.values().collect();
        let write = || -> std::io::Result<u32> {
            let content = serde_json::to_vec(&entries)?;
            let mut file = File::create(path)?;
            file.write_all(&content)?;
            file.sync_all()?;
            Ok(crc32fast::hash(&content))
        };
        write().map_err(IndexError::io("cannot write", path))
    }

    pub(crate) fn get(&self, path: &str) -> Option<&FileEntry> {
        self.entries.get(path)
    }

    pub(crate) fn insert(&mut self, entry: FileEntry) {
        self.entries.insert(entry.path.clone(), entry);
    }

    pub(crate) fn remove(&mut self, path: &str) -> Option<FileEntry> {
        self.entries.remove(path)
    }

    /// The paths equal to `path` or below it.
    pub(crate) fn under(&self, path: &Path) -> Vec<String> {
        let below = |known: &&String| Path::new(known.as_str()).starts_with(path);
        self.entries.keys().filter(below).cloned().collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &FileEntry> {
        self.entries.values()
    }

    pub(crate) fn into_entries(self) -> Vec<FileEntry> {
        self.entries.into_values().collect()
    }
}
