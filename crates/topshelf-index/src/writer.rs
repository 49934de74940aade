//! Changing an index: [`Writer`].
//!
//! One process at a time holds the writer. Nothing it does shows before [`Writer::commit`], and
//! dropping it leaves the index as it was (see [`crate::state`] for why a crash does, too).

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::ops::Range;
use std::path::{Path, PathBuf};

use tantivy::schema::IndexRecordOption;
use tantivy::tokenizer::{PreTokenizedString, Token};
use tantivy::{DocAddress, DocSet, IndexWriter, Searcher, TERMINATED, TantivyDocument, Term};
use topshelf_core::{Passage, TokenVectors};

use crate::analyse::Analyser;
use crate::chunk::Chunking;
use crate::error::{IndexError, Result};
use crate::files::{FileEntry, FileTable};
use crate::graph::{Graph, REBUILD_SHARE};
use crate::mask::facts_of;
use crate::state::{
    FORMAT, Fields, GraphFile, LOCK_FILE, Settings, State, TEXT_DIR, Totals, VectorFile,
    is_state_file,
};
use crate::tokens::TokenVectorInfo;
use crate::tokens::writer::TokenWriter;
use crate::vectors::{VectorWriter, Vectors};

/// Memory that tantivy may fill with postings before it writes a segment.
const TEXT_BUDGET: usize = 96 << 20;

/// Rows of a vector file, at most.
const FILE_ROWS: usize = 1 << 18;

/// Vector files beyond which they are rewritten as few.
const MAX_FILES: usize = 16;

/// The vectors are rewritten when removed ones are more than one in this many.
const REMOVED_SHARE: usize = 3;

/// The one who may change an index.
pub struct Writer {
    dir: PathBuf,
    text: IndexWriter,
    /// The index as it was when the writer was opened.
    before: Searcher,
    fields: Fields,
    state: State,
    files: FileTable,
    analyser: Analyser,
    vectors: Option<VectorWriter>,
    tokens: Option<TokenWriter>,
    /// Files removed or replaced in this session.
    gone: HashSet<String>,
    /// Ids of documents added in this session.
    added: HashSet<String>,
    /// Whether a setting that may change has been given another value.
    reconfigured: bool,
    /// Released last, when tantivy's writer has let go of its files.
    _lock: File,
}

impl Writer {
    /// Opens the index in `dir` for changing it, or makes one with the given settings. An index that
    /// is there gets the given `graph_from` and keeps its own `chunking`.
    ///
    /// # Errors
    ///
    /// [`IndexError::OutOfBounds`] for settings that no index can have, [`IndexError::Locked`],
    /// [`IndexError::SettingFixed`] and
    /// [`IndexError::EmbedderMismatch`] if the index there has other settings,
    /// [`IndexError::NotAnIndex`], [`IndexError::Format`], [`IndexError::Damaged`],
    /// [`IndexError::Io`].
    pub fn create_or_open(dir: &Path, settings: &Settings) -> Result<Self> {
        settings.check()?;
        match State::check_folder(dir) {
            Ok(()) => {}
            Err(IndexError::Missing { .. }) => {
                fs::create_dir_all(dir).map_err(IndexError::io("cannot make the folder", dir))?;
                let lock = lock(dir)?;
                // Another process may have made it before the lock was ours.
                if let Err(IndexError::Missing { .. }) = State::check_folder(dir) {
                    create(dir, settings)?;
                }
                drop(lock);
            }
            Err(error) => return Err(error),
        }
        let mut writer = Self::open(dir)?;
        check_settings(&writer.state.settings, settings)?;
        writer.reconfigured = writer.state.settings.graph_from != settings.graph_from;
        writer.state.settings.graph_from = settings.graph_from;
        Ok(writer)
    }

    /// Opens an index that is there.
    ///
    /// # Errors
    ///
    /// As [`Self::create_or_open`], and [`IndexError::Missing`].
    pub fn open(dir: &Path) -> Result<Self> {
        State::check_folder(dir)?;
        let lock = lock(dir)?;
        let open = || -> tantivy::Result<_> {
            let index = tantivy::Index::open_in_dir(dir.join(TEXT_DIR))?;
            let before = index.reader()?.searcher();
            let text = index.writer_with_num_threads(1, TEXT_BUDGET)?;
            Ok((index, before, text))
        };
        let (index, before, text) = open().map_err(IndexError::opening(dir))?;
        let state = State::of(dir, &index)?;
        let (_, fields) = Fields::schema();
        let files = FileTable::load(dir, &state, None)?;
        let vectors = state
            .settings
            .embedder
            .as_ref()
            .map(|embedder| VectorWriter::new(state.settings.precision, embedder.dimension));
        let next = state.generation + 1;
        let tokens = state.settings.token_vectors.as_ref();
        let tokens =
            tokens.map(|info| TokenWriter::open(dir, next, info, &state.tokens)).transpose()?;
        let writer = Self {
            dir: dir.to_owned(),
            text,
            before,
            fields,
            analyser: Analyser::new(state.settings.language),
            state,
            files,
            vectors,
            tokens,
            gone: HashSet::new(),
            added: HashSet::new(),
            reconfigured: false,
            _lock: lock,
        };
        writer.remove_leftovers();
        // A killed commit leaves files of deletions under names that the next commit takes again.
        writer.text.garbage_collect_files().wait()?;
        Ok(writer)
    }

    /// What the index remembers of how it was made.
    pub fn settings(&self) -> &Settings {
        &self.state.settings
    }

    /// What is in it, changes of this writer included.
    pub fn totals(&self) -> Totals {
        self.state.totals
    }

    /// Cuts documents so from now on.
    ///
    /// # Errors
    ///
    /// [`IndexError::OutOfBounds`].
    pub(crate) fn set_chunking(&mut self, chunking: Chunking) -> Result<()> {
        chunking.check()?;
        self.reconfigured |= self.state.settings.chunking != chunking;
        self.state.settings.chunking = chunking;
        Ok(())
    }

    pub(crate) fn files(&self) -> &FileTable {
        &self.files
    }

    /// Whether a setting differs from that of the last commit.
    pub(crate) fn is_reconfigured(&self) -> bool {
        self.reconfigured
    }

    /// The key that the next passage will get.
    pub(crate) fn next_key(&self) -> u64 {
        self.state.next_key
    }

    /// Whether another file of the index has a document of that id.
    pub(crate) fn has_document(&self, id: &str, file: &str) -> Result<bool> {
        if self.added.contains(id) {
            return Ok(true);
        }
        let term = Term::from_field_text(self.fields.document, id);
        for (ordinal, segment) in self.before.segment_readers().iter().enumerate() {
            let postings = segment
                .inverted_index(self.fields.document)?
                .read_postings(&term, IndexRecordOption::Basic)
                .map_err(tantivy::TantivyError::from)?;
            let Some(mut postings) = postings else { continue };
            while postings.doc() != TERMINATED {
                let doc = postings.doc();
                if !segment.is_deleted(doc) {
                    let owner = self.owner(DocAddress::new(ordinal as u32, doc))?;
                    if owner != file && !self.gone.contains(&owner) {
                        return Ok(true);
                    }
                }
                postings.advance();
            }
        }
        Ok(false)
    }

    /// The file of the passage at an address.
    fn owner(&self, address: DocAddress) -> Result<String> {
        let document: TantivyDocument = self.before.doc(address)?;
        let file = document.get_first(self.fields.file);
        Ok(file.as_ref().and_then(tantivy::schema::Value::as_str).unwrap_or_default().to_owned())
    }

    /// Notes that a document of that id belongs to this session.
    pub(crate) fn note_document(&mut self, id: &str) {
        self.added.insert(id.to_owned());
    }

    /// Removes all that came from a file. Whether anything had.
    pub(crate) fn remove_file(&mut self, path: &str) -> bool {
        let Some(entry) = self.files.remove(path) else { return false };
        self.text.delete_term(Term::from_field_text(self.fields.file, path));
        self.state.totals.subtract(entry.totals);
        if !entry.keys.is_empty() && self.vectors.is_some() {
            self.state.removed.push(entry.keys.clone());
        }
        if let Some(tokens) = self.tokens.as_mut().filter(|_| !entry.keys.is_empty()) {
            tokens.state.removed.push(entry.keys);
        }
        self.gone.insert(path.to_owned());
        true
    }

    /// Adds a passage of the named file; its vector is needed if the index has vectors, and those of
    /// its tokens if it has those.
    /// Answers the passage's terms in title and text.
    pub(crate) fn add_passage(
        &mut self,
        file: &str,
        passage: &Passage,
        vector: Option<&[f32]>,
        tokens: Option<&TokenVectors>,
    ) -> Result<(u64, u64)> {
        let key = self.state.next_key;
        self.state.next_key += 1;
        if let (Some(writer), Some(vector)) = (&mut self.vectors, vector) {
            writer.push(key, vector);
        }
        if let (Some(writer), Some(tokens)) = (&mut self.tokens, tokens) {
            writer.push(key, &passage.model_text(), tokens)?;
        }
        let mut heading = passage.title.clone();
        for part in &passage.headings {
            if *part != passage.title {
                heading.push('\n');
                heading.push_str(part);
            }
        }
        let title = self.analyser.terms(&heading);
        let text = self.analyser.terms(&passage.text);
        let counts = (title.len() as u64, text.len() as u64);
        let stored = serde_json::to_string(passage).unwrap_or_default(); // plain data serialises
        let mut document = TantivyDocument::new();
        document.add_u64(self.fields.key, key);
        document.add_text(self.fields.file, file);
        document.add_text(self.fields.document, &passage.document);
        document.add_pre_tokenized_text(self.fields.title, as_terms(title));
        document.add_pre_tokenized_text(self.fields.text, as_terms(text));
        document.add_u64(self.fields.title_terms, counts.0);
        document.add_u64(self.fields.text_terms, counts.1);
        document.add_bytes(self.fields.facts, &facts_of(passage));
        document.add_text(self.fields.passage, stored);
        self.text.add_document(document)?;
        if self.vectors.as_ref().is_some_and(|vectors| vectors.rows() >= FILE_ROWS) {
            self.flush_vectors()?;
        }
        Ok(counts)
    }

    /// Records a file whose passages have been added, or an unchanged one with its new time.
    pub(crate) fn record_file(&mut self, entry: FileEntry, is_new: bool) {
        if is_new {
            self.state.totals.add(entry.totals);
        }
        self.files.insert(entry);
    }

    /// Makes all changes visible at once.
    ///
    /// # Errors
    ///
    /// [`IndexError::Io`], [`IndexError::Tantivy`], [`IndexError::Graph`]; the index is then as
    /// it was before.
    pub fn commit(mut self) -> Result<Totals> {
        self.state.generation += 1;
        self.flush_vectors()?;
        self.state.removed.sort_unstable_by_key(|range| range.start);
        self.compact_vectors()?;
        self.update_graph()?;
        if let Some(tokens) = &mut self.tokens {
            tokens.finish(self.state.totals.passages)?;
            self.state.tokens = tokens.state.clone();
        }
        self.state.format = FORMAT;
        self.state.files = self.name("files", "json");
        self.state.files_crc32 = Some(self.files.save(&self.dir.join(&self.state.files))?);
        sync_folder(&self.dir)?;
        let payload = serde_json::to_string(&self.state).unwrap_or_default(); // plain data
        let mut commit = self.text.prepare_commit()?;
        commit.set_payload(&payload);
        commit.commit()?;
        self.remove_leftovers();
        let totals = self.state.totals;
        // The commit stands whether or not segments can be merged; the next one tries again.
        let _ = self.text.wait_merging_threads();
        Ok(totals)
    }

    /// A name that no earlier commit has used.
    fn name(&self, kind: &str, extension: &str) -> String {
        let generation = self.state.generation;
        format!("{kind}-{generation:08}.{extension}")
    }

    fn flush_vectors(&mut self) -> Result<()> {
        let Some(writer) = &mut self.vectors else { return Ok(()) };
        if writer.rows() == 0 {
            return Ok(());
        }
        let dimension = self.state.settings.embedder.as_ref().map_or(0, |e| e.dimension);
        let full =
            std::mem::replace(writer, VectorWriter::new(self.state.settings.precision, dimension));
        let name = self.new_vector_name();
        full.write(&self.dir.join(&name))?;
        self.state.vectors.push(VectorFile { name, rows: full.rows() });
        Ok(())
    }

    /// Names must be new even if an earlier flush came before the generation was counted up.
    fn new_vector_name(&self) -> String {
        let mut n = 0;
        loop {
            let name = self.name(&format!("vectors-{n:03}"), "vec");
            if !self.dir.join(&name).exists() {
                return name;
            }
            n += 1;
        }
    }

    fn open_vectors(&self, dimension: usize) -> Result<Vec<Vectors>> {
        let files = self.state.vectors.iter();
        files.map(|file| Vectors::open(&self.dir.join(&file.name), dimension, file.rows)).collect()
    }

    /// Rewrites the vector files when they are many or hold much that was removed.
    fn compact_vectors(&mut self) -> Result<()> {
        let Some(embedder) = &self.state.settings.embedder else { return Ok(()) };
        let dimension = embedder.dimension;
        let rows: usize = self.state.vectors.iter().map(|file| file.rows).sum();
        let removed = rows.saturating_sub(self.state.totals.passages as usize);
        if self.state.vectors.len() <= MAX_FILES && removed * REMOVED_SHARE <= rows {
            return Ok(());
        }
        let old = self.open_vectors(dimension)?;
        let removed = self.state.removed.clone();
        let mut ranges = removed.iter().peekable();
        self.state.vectors.clear();
        for file in &old {
            for (row, key) in file.keys().iter().enumerate() {
                while ranges.next_if(|range| range.end <= *key).is_some() {}
                if ranges.peek().is_some_and(|range| range.contains(key)) {
                    continue;
                }
                if let Some(writer) = &mut self.vectors {
                    writer.push_stored(file, row);
                    if writer.rows() >= FILE_ROWS {
                        self.flush_vectors()?;
                    }
                }
            }
        }
        self.flush_vectors()?;
        // The graph still has the removed ones that it covers and must pass them over.
        let covered = self.state.graph.as_ref().map_or(0, |graph| graph.up_to);
        self.state.removed.retain(|range| range.start < covered);
        Ok(())
    }

    /// Forgets removed keys of which no vector is left; for when there is no graph that has
    /// more than the files.
    fn prune_removed(&mut self, vectors: &[Vectors]) {
        let left = |file: &Vectors, range: &Range<u64>| {
            file.row_from(range.start) < file.row_from(range.end)
        };
        self.state.removed.retain(|range| vectors.iter().any(|file| left(file, range)));
    }

    /// Builds the neighbour graph, or brings it up to date, where the index is large enough.
    fn update_graph(&mut self) -> Result<()> {
        let Some(embedder) = &self.state.settings.embedder else { return Ok(()) };
        let dimension = embedder.dimension;
        let passages = self.state.totals.passages;
        let vectors = self.open_vectors(dimension)?;
        if passages < self.state.settings.graph_from {
            self.state.graph = None;
            self.prune_removed(&vectors);
            return Ok(());
        }
        let (base, from) = match &self.state.graph {
            // Too much of the graph is of removed passages: build it anew.
            Some(graph) if graph.rows > 2 * passages => (None, 0),
            Some(graph) => (Some(self.dir.join(&graph.name)), graph.up_to),
            None => (None, 0),
        };
        let outside: usize = vectors.iter().map(|file| file.len() - file.row_from(from)).sum();
        if base.is_some() && outside * REBUILD_SHARE <= passages as usize {
            return Ok(());
        }
        let name = self.name("graph", "hnsw");
        let path = self.dir.join(&name);
        Graph::build(base.as_deref(), &vectors, from, dimension, &path)?;
        let bytes = fs::read(&path).map_err(IndexError::io("cannot read", &path))?;
        if base.is_none() {
            self.prune_removed(&vectors);
        }
        let before = self.state.graph.as_ref().filter(|_| base.is_some()).map_or(0, |g| g.rows);
        self.state.graph = Some(GraphFile {
            name,
            up_to: self.state.next_key,
            rows: before + outside as u64,
            bytes: bytes.len() as u64,
            crc32: crc32fast::hash(&bytes),
        });
        Ok(())
    }

    /// Removes what an interrupted writer or an earlier commit left: files that the state does
    /// not name. One that cannot be removed now will be next time.
    fn remove_leftovers(&self) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let named = name == self.state.files
                || self.state.vectors.iter().any(|file| file.name == name)
                || self.state.tokens.names(name)
                || self.state.graph.as_ref().is_some_and(|graph| graph.name == name);
            if is_state_file(name) && !named {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Terms as tantivy takes them.
fn as_terms(terms: Vec<String>) -> PreTokenizedString {
    let tokens = terms
        .into_iter()
        .enumerate()
        .map(|(position, text)| Token { position, text, ..Token::default() })
        .collect();
    PreTokenizedString { text: String::new(), tokens }
}

/// Takes the lock that makes this process the one writer.
fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK_FILE);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(IndexError::io("cannot open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(IndexError::Locked { dir: dir.to_owned() }),
        Err(TryLockError::Error(error)) => Err(IndexError::io("cannot lock", &path)(error)),
    }
}

/// Makes an empty index. What an interrupted attempt left is taken up or overwritten.
fn create(dir: &Path, settings: &Settings) -> Result<()> {
    let text_dir = dir.join(TEXT_DIR);
    fs::create_dir_all(&text_dir).map_err(IndexError::io("cannot make the folder", &text_dir))?;
    let (schema, _) = Fields::schema();
    let directory =
        tantivy::directory::MmapDirectory::open(&text_dir).map_err(tantivy::TantivyError::from)?;
    let index = tantivy::Index::open_or_create(directory, schema)?;
    let mut writer: IndexWriter = index.writer_with_num_threads(1, TEXT_BUDGET)?;
    let payload = serde_json::to_string(&State::new(settings.clone())).unwrap_or_default();
    let mut commit = writer.prepare_commit()?;
    commit.set_payload(&payload);
    commit.commit()?;
    writer.wait_merging_threads()?;
    Ok(())
}

/// Refuses settings that differ from those the index was made with.
fn check_settings(own: &Settings, given: &Settings) -> Result<()> {
    let fixed = |setting, expected: &str, given: &str| {
        Err(IndexError::SettingFixed {
            setting,
            expected: expected.to_owned(),
            given: given.to_owned(),
        })
    };
    if own.language != given.language {
        return fixed("the language", own.language.name(), given.language.name());
    }
    if own.precision != given.precision {
        return fixed("vectors of", own.precision.name(), given.precision.name());
    }
    match (&own.token_vectors, &given.token_vectors) {
        (own, given) if own == given => {}
        (Some(own), Some(given)) if own.identity.fingerprint != given.identity.fingerprint => {
            return fixed("token vectors of", &own.identity.name, &given.identity.name);
        }
        (own, given) => {
            let name = |info: &Option<TokenVectorInfo>| {
                info.as_ref().map_or("none", |info| info.tier.name())
            };
            if name(own) != name(given) {
                return fixed("token vectors of", name(own), name(given));
            }
            let numbers = |info: &Option<TokenVectorInfo>| {
                let length = info.as_ref().map_or(0, TokenVectorInfo::stored_dimension);
                format!("{length} numbers")
            };
            if numbers(own) != numbers(given) {
                return fixed("token vectors of", &numbers(own), &numbers(given));
            }
        }
    }
    match (&own.embedder, &given.embedder) {
        (Some(own), Some(given)) if own.identity.fingerprint != given.identity.fingerprint => {
            Err(IndexError::EmbedderMismatch {
                expected: own.identity.name.clone(),
                given: given.identity.name.clone(),
            })
        }
        (Some(own), None) => fixed("the bi-encoder", &own.identity.name, "none"),
        (None, Some(given)) => fixed("the bi-encoder", "none", &given.identity.name),
        _ => Ok(()),
    }
}

/// Makes the names of new files last; a no-op where folders cannot be synced.
fn sync_folder(dir: &Path) -> Result<()> {
    if cfg!(unix) {
        let sync = || File::open(dir)?.sync_all();
        sync().map_err(IndexError::io("cannot sync", dir))?;
    }
    Ok(())
}
