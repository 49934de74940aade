//! The demo's index: filled in portions, each of them committed, so that an interruption loses no
//! more than one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::Result;
use topshelf::chunk::Chunking;
use topshelf::ingest::{SourceFile, walk};
use topshelf::{
    AddEvent, AddOptions, BiEncoder, Embedder, FileEntry, Index, IndexError, Models, Settings,
    Writer,
};

use crate::commands::display;
use crate::exit::usage;
use crate::progress::Forecast;
use crate::table;

/// Bytes of a portion. More cost more when they are lost, fewer mean more commits.
const PORTION: u64 = 200_000;

/// An index that is being filled.
pub(super) struct Filling<'a> {
    dir: &'a Path,
    /// The canonical folder that the documents come from.
    base: PathBuf,
    /// Whether a person named the index.
    is_given: bool,
    embedder: &'a BiEncoder,
    options: AddOptions,
}

impl<'a> Filling<'a> {
    /// Of the index in `dir`, whose documents are named by their paths below `base`.
    ///
    /// # Errors
    ///
    /// If the index would lie in the folder that it indexes, and so be a part of what it indexes.
    pub(super) fn new(
        dir: &'a Path,
        base: &Path,
        is_given: bool,
        embedder: &'a BiEncoder,
    ) -> Result<Self> {
        let absolute = std::path::absolute(dir)?;
        let existing = absolute.ancestors().find(|ancestor| ancestor.exists());
        let base_path = canonical(base);
        if existing.is_some_and(|existing| canonical(existing).starts_with(&base_path)) {
            return Err(usage(format!(
                "the index {} cannot lie in the folder that it indexes; name another place with --index",
                display(dir)
            )));
        }
        let options = AddOptions {
            chunking: Some(Chunking::default()),
            relative_to: Some(base.to_owned()),
            ..AddOptions::default()
        };
        Ok(Self { dir, base: base_path, is_given, embedder, options })
    }

    /// The files below `paths` that the index does not have as they are now.
    ///
    /// # Errors
    ///
    /// An index that holds documents from outside `base` is somebody's own, and is left alone.
    pub(super) fn missing(&self, paths: &[PathBuf]) -> Result<Vec<SourceFile>> {
        let (settings, entries) = match Index::open(self.dir) {
            Ok(index) => (index.settings().clone(), index.files()?),
            Err(IndexError::Missing { .. }) => (Settings::default(), Vec::new()),
            Err(error) => return Err(error.into()),
        };
        if self.is_given
            && let Some(other) =
                entries.iter().find(|entry| !Path::new(&entry.path).starts_with(&self.base))
        {
            return Err(usage(format!(
                "the index {} also holds other documents ({}); name a new folder with --index, or none",
                display(self.dir),
                other.path
            )));
        }
        let known: HashMap<&str, &FileEntry> =
            entries.iter().map(|entry| (entry.path.as_str(), entry)).collect();
        let is_missing = |source: &SourceFile| {
            let entry = canonical(&source.path).to_str().and_then(|path| known.get(path).copied());
            entry.is_none_or(|entry| !self.options.is_up_to_date(&settings, entry, source))
        };
        // What cannot be read is named when all is brought up to date.
        let found = walk(paths, &self.options.ingest).into_iter().flatten();
        Ok(found.filter(is_missing).collect())
    }

    /// Adds files in portions.
    pub(super) fn add(&self, files: &[SourceFile], forecast: &mut Forecast) -> Result<()> {
        for portion in portions(files) {
            let paths: Vec<PathBuf> = portion.iter().map(|file| file.path.clone()).collect();
            let bytes = portion.iter().map(|file| file.bytes).sum();
            // Text is a part of a file's bytes; what it lacks is added with the file.
            let mut counted: u64 = 0;
            let options = AddOptions { sync: false, ..self.options.clone() };
            topshelf::add(self.writer()?, &paths, self.models(), &options, &mut |event| {
                if let AddEvent::Document { bytes: text, .. } = event {
                    let text = text.min(u64::saturating_sub(bytes, counted));
                    counted += text;
                    forecast.add(text);
                }
            })?;
            forecast.add(bytes - counted);
        }
        Ok(())
    }

    /// Brings the index up to date with `paths`, names what was not indexed, and removes whatever else
    /// it holds. Costs little after [`Self::add`].
    pub(super) fn settle(&self, paths: &[PathBuf], forecast: &Forecast) -> Result<Index> {
        let options = AddOptions { sync: true, ..self.options.clone() };
        topshelf::add(self.writer()?, paths, self.models(), &options, &mut |event| {
            let notice = match event {
                AddEvent::Skipped(skipped) => format!("skipped: {skipped}"),
                AddEvent::Warning(warning) => format!("warning: {warning}"),
                _ => return,
            };
            forecast.line(&table::plain(&notice)); // names of files are a stranger's text
        })?;
        let entries = Index::open(self.dir)?.files()?;
        let (mut present, mut unread) = (HashSet::new(), Vec::new());
        for found in walk(paths, &self.options.ingest) {
            match found {
                Ok(file) => drop(present.insert(canonical(&file.path))),
                Err(skipped) => unread.push(canonical(&skipped.path)),
            }
        }
        // What is below a folder that could not be listed may still be there.
        let is_stale = |path: &PathBuf| {
            !present.contains(path) && !unread.iter().any(|unread| path.starts_with(unread))
        };
        let stale: Vec<PathBuf> =
            entries.into_iter().map(|entry| entry.path.into()).filter(is_stale).collect();
        if !stale.is_empty() {
            topshelf::remove(Writer::open(self.dir)?, &stale)?;
        }
        Ok(Index::open(self.dir)?)
    }

    fn writer(&self) -> Result<Writer> {
        Ok(Writer::create_or_open(self.dir, &Settings::with_embedder(self.embedder))?)
    }

    fn models(&self) -> Models<'_> {
        Models { embedder: Some(self.embedder as &dyn Embedder), tokens: None }
    }
}

/// The path under which an index knows a file.
fn canonical(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Files in their order, each portion as long as it has fewer bytes than [`PORTION`].
fn portions(files: &[SourceFile]) -> Vec<&[SourceFile]> {
    let mut bounds: BTreeMap<u64, usize> = BTreeMap::new();
    let mut sum = 0;
    for (place, file) in files.iter().enumerate() {
        bounds.insert(sum / PORTION, place + 1);
        sum += file.bytes;
    }
    let mut start = 0;
    let cut = |end: usize| {
        let portion = &files[start..end];
        start = end;
        portion
    };
    bounds.into_values().map(cut).collect()
}

#[cfg(test)]
mod tests {
    use topshelf::ingest::Format;

    use super::*;

    #[test]
    fn portions_hold_every_file_once_and_a_large_file_is_one() {
        let file = |bytes| SourceFile {
            path: PathBuf::from("a"),
            id: "a".to_owned(),
            bytes,
            modified: None,
            format: Format::Text,
        };
        let lengths = |sizes: &[u64]| -> Vec<usize> {
            let files: Vec<SourceFile> = sizes.iter().map(|bytes| file(*bytes)).collect();
            portions(&files).iter().map(|portion| portion.len()).collect()
        };
        assert_eq!(lengths(&[]), [0; 0]);
        assert_eq!(lengths(&[1, 2, 3]), [3]);
        assert_eq!(lengths(&[PORTION / 2, PORTION / 2, 10, 10]), [2, 2]);
        assert_eq!(lengths(&[5 * PORTION, 10, 10]), [1, 2]);
    }
}
