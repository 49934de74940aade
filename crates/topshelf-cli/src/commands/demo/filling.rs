//! The demo's index: filled in portions, each of them committed, so that an interruption loses no
//! more than one.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::Result;
use topshelf::chunk::ChunkOptions;
use topshelf::ingest::{SourceFile, walk};
use topshelf::{
    AddEvent, AddOptions, BiEncoder, Embedder, FileEntry, Index, IndexError, Models, Settings,
    Writer,
};

use crate::progress::Forecast;
use crate::table;

/// Bytes of a portion. More cost more when they are lost, fewer mean more commits.
const PORTION: u64 = 200_000;

/// An index that is being filled.
pub(super) struct Filling<'a> {
    dir: &'a Path,
    embedder: &'a BiEncoder,
    options: AddOptions,
}

impl<'a> Filling<'a> {
    /// Of the index in `dir`, whose documents are named by their paths below `base`.
    pub(super) fn new(dir: &'a Path, base: &Path, embedder: &'a BiEncoder) -> Self {
        let options = AddOptions {
            chunk: Some(ChunkOptions::default()),
            relative_to: Some(base.to_owned()),
            ..AddOptions::default()
        };
        Self { dir, embedder, options }
    }

    /// The files below `paths` that the index does not have as they are now.
    pub(super) fn missing(&self, paths: &[PathBuf]) -> Result<Vec<SourceFile>> {
        let entries = match Index::open(self.dir) {
            Ok(index) => index.files()?,
            Err(IndexError::Missing { .. }) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let known: HashMap<&str, &FileEntry> =
            entries.iter().map(|entry| (entry.path.as_str(), entry)).collect();
        let is_missing = |source: &SourceFile| {
            let path = std::fs::canonicalize(&source.path).unwrap_or_else(|_| source.path.clone());
            let entry = path.to_str().and_then(|path| known.get(path));
            entry.is_none_or(|entry| !self.options.is_up_to_date(entry, source))
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

    /// Brings the index up to date with `paths`, names what was not indexed, and removes what came
    /// from below `base` and is not below `paths` any more. Costs little after [`Self::add`].
    pub(super) fn settle(
        &self,
        base: &Path,
        paths: &[PathBuf],
        forecast: &Forecast,
    ) -> Result<Index> {
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
        let is_stale = |path: &PathBuf| {
            path.starts_with(base) && !paths.iter().any(|kept| path.starts_with(kept))
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
