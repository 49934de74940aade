//! Writing token vectors: [`TokenWriter`], the writer's part for them.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use topshelf_core::TokenVectors;

use super::codebook::{Codebook, Coder, Fit};
use super::file::{FULL, Shape, TokenFile, TokenFileBuilder};
use super::spill::Spill;
use super::{TextHash, Tier, TokenVectorInfo};
use crate::error::{IndexError, Result};

/// Small files beyond which they are written as few.
const MAX_SMALL: usize = 16;

/// Files are rewritten when removed passages are more than one in this many.
const REMOVED_SHARE: usize = 3;

/// The files of token vectors, as the state names them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct TokenState {
    pub(crate) files: Vec<TokenFileEntry>,
    /// Keys of removed passages that are still in a file, ascending.
    pub(crate) removed: Vec<Range<u64>>,
    pub(crate) codebook: Option<CodebookFile>,
    /// How well the codebook meets the vectors that were there when it was learnt.
    pub(crate) learnt: Fit,
    /// And those that came later.
    pub(crate) added: Fit,
}

/// A file of token vectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TokenFileEntry {
    pub(crate) name: String,
    pub(crate) passages: usize,
    pub(crate) vectors: usize,
    /// Of codes.
    pub(crate) bytes: usize,
    /// Centroids that its lists are of; 0 without lists.
    #[serde(default)]
    pub(crate) centroids: usize,
    /// Bytes of its lists.
    #[serde(default)]
    pub(crate) lists: usize,
}

/// The file of a codebook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CodebookFile {
    pub(crate) name: String,
    pub(crate) crc32: u32,
}

impl TokenState {
    /// All that it counts.
    pub(crate) fn counts(&self) -> impl Iterator<Item = u64> {
        let of_file = |file: &TokenFileEntry| {
            [file.passages, file.vectors, file.bytes, file.centroids, file.lists]
                .map(|count| count as u64)
        };
        let fits = [self.learnt.vectors, self.added.vectors];
        self.files.iter().flat_map(of_file).chain(fits)
    }

    /// Whether a file is named.
    pub(crate) fn names(&self, name: &str) -> bool {
        self.files.iter().any(|file| file.name == name)
            || self.codebook.as_ref().is_some_and(|own| own.name == name)
    }

    /// Whether the passage with that key is no more; the ranges ascend.
    pub(crate) fn is_removed(&self, key: u64) -> bool {
        let after = self.removed.partition_point(|range| range.start <= key);
        after > 0 && self.removed[after - 1].contains(&key)
    }

    /// Maps the files.
    pub(crate) fn open(&self, dir: &Path, info: &TokenVectorInfo) -> Result<Vec<TokenFile>> {
        let open = |entry: &TokenFileEntry| {
            let shape = Shape {
                tier: info.tier,
                dimension: info.stored_dimension(),
                passages: entry.passages,
                vectors: entry.vectors,
                bytes: entry.bytes,
                centroids: entry.centroids,
                lists: entry.lists,
            };
            TokenFile::open(&dir.join(&entry.name), shape)
        };
        self.files.iter().map(open).collect()
    }

    /// Reads the codebook, if there is one.
    pub(crate) fn open_codebook(
        &self,
        dir: &Path,
        info: &TokenVectorInfo,
    ) -> Result<Option<Arc<Codebook>>> {
        let open = |own: &CodebookFile| {
            Codebook::open(&dir.join(&own.name), own.crc32, info).map(Arc::new)
        };
        self.codebook.as_ref().map(open).transpose()
    }
}

/// Collects the token vectors of a writer's session.
pub(crate) struct TokenWriter {
    dir: PathBuf,
    /// The number of the commit that is being prepared: new files bear it.
    generation: u64,
    info: TokenVectorInfo,
    pub(crate) state: TokenState,
    coder: Option<Coder>,
    builder: TokenFileBuilder,
    spill: Option<Spill>,
}

impl TokenWriter {
    pub(crate) fn open(
        dir: &Path,
        generation: u64,
        info: &TokenVectorInfo,
        state: &TokenState,
    ) -> Result<Self> {
        let dimension = info.stored_dimension();
        if info.tier != Tier::F16 && !dimension.is_multiple_of(4) {
            return Err(IndexError::TokenDimension { dimension });
        }
        let coder = state.open_codebook(dir, info)?.map(|book| book.coder(info.tier));
        let centroids = coder.as_ref().map_or(0, Coder::count);
        Ok(Self {
            dir: dir.to_owned(),
            generation,
            info: info.clone(),
            state: state.clone(),
            coder,
            builder: TokenFileBuilder::new(info.tier, dimension, centroids),
            spill: None,
        })
    }

    /// Adds the vectors of a passage; keys ascend.
    pub(crate) fn push(&mut self, key: u64, text: &str, vectors: &TokenVectors) -> Result<()> {
        let hash = TextHash::of(text);
        // An index of format 2 has f16 without a codebook, and keeps it so.
        if self.coder.is_none() && self.state.files.is_empty() {
            let path = self.dir.join("tokens-waiting.tmp");
            let spill = match &mut self.spill {
                Some(spill) => spill,
                None => self.spill.insert(Spill::create(&path, self.info.dimension)?),
            };
            return spill.push(key, hash, vectors);
        }
        let fit = self.builder.push((key, hash), vectors, self.coder.as_ref());
        self.state.added.add(fit);
        self.flush_if_full()
    }

    /// Learns the codebook if it is time, writes what is left and rewrites what is in many pieces.
    pub(crate) fn finish(&mut self, passages: u64) -> Result<()> {
        if let Some(mut spill) = self.spill.take() {
            self.learn(&mut spill)?;
        }
        self.flush()?;
        self.state.removed.sort_unstable_by_key(|range| range.start);
        self.compact(passages)
    }

    fn learn(&mut self, spill: &mut Spill) -> Result<()> {
        let total = spill.vectors();
        if total == 0 {
            return Ok(());
        }
        let book = Codebook::learn(&spill.sample()?, total, &self.info);
        let bytes = book.to_bytes();
        let name = format!("tokens-codebook-{:08}.cbk", self.generation);
        let path = self.dir.join(&name);
        let write = || {
            std::fs::write(&path, &bytes)?;
            std::fs::File::open(&path)?.sync_all()
        };
        write().map_err(IndexError::io("cannot write", &path))?;
        self.state.codebook = Some(CodebookFile { name, crc32: crc32fast::hash(&bytes) });
        let coder = Arc::new(book).coder(self.info.tier);
        self.builder = self.empty(coder.count());
        let mut fit = Fit::default();
        spill.read(|waiting| {
            let place = (waiting.key, waiting.hash);
            fit.add(self.builder.push(place, &waiting.vectors, Some(&coder)));
            self.flush_if_full()
        })?;
        self.coder = Some(coder);
        self.state.learnt = fit;
        Ok(())
    }

    fn empty(&self, centroids: usize) -> TokenFileBuilder {
        TokenFileBuilder::new(self.info.tier, self.info.stored_dimension(), centroids)
    }

    fn flush_if_full(&mut self) -> Result<()> {
        if self.builder.bytes() >= FULL { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        if self.builder.passages() == 0 {
            return Ok(());
        }
        let empty = self.empty(self.builder.centroids());
        let full = std::mem::replace(&mut self.builder, empty);
        let names = (0..).map(|n| format!("tokens-{n:03}-{:08}.tok", self.generation));
        let name = names.into_iter().find(|name| !self.dir.join(name).exists()).unwrap_or_default();
        let Shape { passages, vectors, bytes, centroids, lists, .. } =
            full.write(&self.dir.join(&name))?;
        let entry = TokenFileEntry { name, passages, vectors, bytes, centroids, lists };
        self.state.files.push(entry);
        Ok(())
    }

    /// Rewrites files when many are small or much was removed.
    fn compact(&mut self, passages: u64) -> Result<()> {
        let rows: usize = self.state.files.iter().map(|file| file.passages).sum();
        let gone = rows.saturating_sub(passages as usize);
        let much = gone * REMOVED_SHARE > rows;
        let is_small = |file: &TokenFileEntry| file.bytes < FULL / 2;
        let small = self.state.files.iter().filter(|file| is_small(file)).count();
        if small <= MAX_SMALL && !much {
            return Ok(());
        }
        let all = self.state.open(&self.dir, &self.info)?;
        let entries = std::mem::take(&mut self.state.files);
        let removed = self.state.removed.clone();
        for (entry, file) in entries.into_iter().zip(&all) {
            if !much && !is_small(&entry) {
                self.flush()?; // keys ascend within a file only
                self.state.files.push(entry);
                continue;
            }
            for (row, key) in file.keys().iter().enumerate() {
                if !removed.iter().any(|range| range.contains(key)) {
                    self.builder.push_stored(file, row);
                    self.flush_if_full()?;
                }
            }
        }
        if much {
            self.state.removed.clear();
        }
        self.flush()
    }
}
