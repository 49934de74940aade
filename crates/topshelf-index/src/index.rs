//! One whole index as it was at a commit: [`Index`].
//!
//! Opening reads the state, opens tantivy's searcher and maps the vector files; it costs
//! milliseconds whatever the size. Later commits do not show in an open index; open it again.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use serde::Serialize;
use tantivy::directory::error::OpenReadError;
use tantivy::index::SegmentComponent;
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{
    DocAddress, DocSet, ReloadPolicy, Searcher, TERMINATED, TantivyDocument, TantivyError, Term,
};
use topshelf_core::{Bm25Options, Call, Embedder, Filter, Passage, Reranker, TokenEmbedder};
use topshelf_kernels::mapped::MappedFile;

use crate::add::OtherChunking;
use crate::bm25::Bm25Retriever;
use crate::dense::DenseRetriever;
use crate::error::{IndexError, Result};
use crate::files::{FileEntry, FileTable};
use crate::graph::Graph;
use crate::mask::Mask;
use crate::pool::Pool;
use crate::reading;
use crate::state::{Fields, Settings, State, TEXT_DIR, Totals};
use crate::tokens::codebook::{Codebook, Fit};
use crate::tokens::file::{Shape, TokenFile};
use crate::tokens::{LateOptions, LateRetriever, StoredTokens};
use crate::vectors::Vectors;

/// An open index. Cheap to clone; safe to use from many threads.
#[derive(Clone)]
pub struct Index {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) dir: PathBuf,
    /// See [`Index::instance`].
    instance: u64,
    pub(crate) state: State,
    pub(crate) searcher: Searcher,
    pub(crate) fields: Fields,
    pub(crate) vectors: Vec<Vectors>,
    pub(crate) graph: Option<Graph>,
    pub(crate) token_files: Vec<TokenFile>,
    pub(crate) codebook: Option<Arc<Codebook>>,
    /// The file table, held so that a later commit does not take it away.
    files: Option<MappedFile>,
    /// What recent filters let through.
    masks: Mutex<HashMap<String, Arc<Mask>>>,
    /// The threads of the retrievers, from the first search on.
    pool: OnceLock<Pool>,
}

/// Indexes that were opened by this process.
static INSTANCES: AtomicU64 = AtomicU64::new(0);

/// What is in an index.
#[derive(Debug, Clone, Serialize)]
pub struct Stats {
    /// The folder.
    pub dir: PathBuf,
    /// The format of its files.
    pub format: u32,
    /// Commits so far.
    pub generation: u64,
    /// What it remembers of how it was made.
    pub settings: Settings,
    /// Files that documents came from.
    pub files: usize,
    /// Documents, passages and terms.
    pub totals: Totals,
    /// Vectors on disk, those of removed passages included.
    pub vectors: usize,
    /// Vectors of removed passages still on disk.
    pub removed_vectors: usize,
    /// Vectors in the neighbour graph; 0 where every search scans all vectors.
    pub graph_vectors: usize,
    /// What is kept of tokens, if anything is.
    pub tokens: Option<TokenStats>,
    /// What is cut otherwise than the settings say.
    pub other_chunking: OtherChunking,
    /// Bytes of the whole folder.
    pub bytes: u64,
}

/// The token vectors of an index.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TokenStats {
    /// Vectors on disk, those of removed passages included.
    pub vectors: u64,
    /// Bytes that each takes, on the average: its numbers, its scale or centroid, and its share of
    /// what is noted of its passage.
    pub bytes_per_vector: f64,
    /// Centroids by which passages are found, and against which the small tiers are stored; 0 in
    /// f16 and int8 of format 2.
    pub centroids: usize,
    /// How well these meet the vectors that they were learnt from.
    pub learnt: Fit,
    /// And those that were added later.
    pub added: Fit,
}

impl TokenStats {
    /// How many times worse vectors that were added later are met; `None` where there are none.
    pub fn drift(&self) -> Option<f64> {
        let measured = self.added.vectors > 0 && self.learnt.mean() > 0.0;
        measured.then(|| self.added.mean() / self.learnt.mean())
    }
}

/// Why tantivy cannot read the files that its `meta.json` names: a writer may have removed one since.
fn gone_or_damaged(dir: &Path, error: TantivyError) -> IndexError {
    match error {
        TantivyError::OpenReadError(OpenReadError::FileDoesNotExist(name)) => {
            IndexError::io("cannot open", dir.join(TEXT_DIR).join(name))(ErrorKind::NotFound.into())
        }
        error => IndexError::opening(dir)(error),
    }
}

impl Index {
    /// Opens the index in `dir` as of its last commit.
    ///
    /// # Errors
    ///
    /// [`IndexError::Missing`], [`IndexError::NotAnIndex`], [`IndexError::Format`],
    /// [`IndexError::Damaged`], [`IndexError::Io`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        // A commit between reading the state and mapping its files may remove them; the state
        // read next names those that took their place.
        const TRIES: usize = 5;
        let dir = dir.as_ref();
        let mut tries = 1;
        loop {
            match Self::open_once(dir) {
                Err(IndexError::Io { source, .. })
                    if source.kind() == ErrorKind::NotFound && tries < TRIES =>
                {
                    tries += 1;
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                Err(IndexError::Io { path, source, .. })
                    if source.kind() == ErrorKind::NotFound =>
                {
                    return Err(IndexError::Damaged { path, reason: "it is missing".to_owned() });
                }
                other => return other,
            }
        }
    }

    fn open_once(dir: &Path) -> Result<Self> {
        State::check_folder(dir)?;
        let text = reading::open(dir)?;
        let reader =
            text.reader_builder().reload_policy(ReloadPolicy::Manual).num_warming_threads(0);
        let mut state = State::of(dir, &text)?;
        // Format 2 has them in the order of their removal.
        state.tokens.removed.sort_unstable_by_key(|range| range.start);
        let (schema, fields) = Fields::schema();
        if text.schema() != schema {
            let path = dir.join(TEXT_DIR).join("meta.json");
            let reason = "its fields are not those of an index".to_owned();
            return Err(IndexError::Damaged { path, reason });
        }
        let reader: tantivy::IndexReader =
            reader.try_into().map_err(|error| gone_or_damaged(dir, error))?;
        let searcher = reader.searcher();
        if State::of(dir, &text)?.generation != state.generation {
            // A commit came in between: the searcher may be of the later one.
            return Self::open_once(dir);
        }
        let dimension = state.settings.embedder.as_ref().map_or(0, |e| e.dimension);
        let vectors = state
            .vectors
            .iter()
            .map(|file| Vectors::open(&dir.join(&file.name), dimension, file.rows))
            .collect::<Result<Vec<_>>>()?;
        let graph = match &state.graph {
            Some(graph) => Some(Graph::open(&dir.join(&graph.name), dimension, graph.bytes)?),
            None => None,
        };
        let (token_files, codebook) = match &state.settings.token_vectors {
            Some(info) => (state.tokens.open(dir, info)?, state.tokens.open_codebook(dir, info)?),
            None => (Vec::new(), None),
        };
        let files = match state.files.as_str() {
            "" => None,
            name => {
                let path = dir.join(name);
                Some(MappedFile::open(&path).map_err(IndexError::io("cannot open", path))?)
            }
        };
        let inner = Inner {
            dir: dir.to_owned(),
            instance: INSTANCES.fetch_add(1, Ordering::Relaxed),
            state,
            searcher,
            fields,
            vectors,
            graph,
            token_files,
            codebook,
            files,
            masks: Mutex::default(),
            pool: OnceLock::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A number that no other index has which this process has opened; clones have the same one.
    pub fn instance(&self) -> u64 {
        self.inner.instance
    }

    /// The first stage by words.
    pub fn bm25(&self, options: Bm25Options) -> Bm25Retriever {
        Bm25Retriever::new(self.clone(), options)
    }

    /// The first stage by meaning, with the bi-encoder the index was made with.
    ///
    /// # Errors
    ///
    /// [`IndexError::NoVectors`], [`IndexError::EmbedderMismatch`].
    pub fn dense(&self, embedder: Arc<dyn Embedder>) -> Result<DenseRetriever> {
        let own = self.inner.state.settings.embedder.as_ref().ok_or(IndexError::NoVectors)?;
        if own.identity.fingerprint != embedder.identity().fingerprint {
            return Err(IndexError::EmbedderMismatch {
                expected: own.identity.name.clone(),
                given: embedder.identity().name.clone(),
            });
        }
        Ok(DenseRetriever::new(self.clone(), embedder))
    }

    /// Late interaction over the stored token vectors; `None` where there are none of this model.
    pub fn stored_tokens<M: TokenEmbedder + Reranker>(
        &self,
        model: Arc<M>,
    ) -> Option<StoredTokens<M>> {
        let own = self.inner.state.settings.token_vectors.as_ref()?;
        let given = TokenEmbedder::identity(model.as_ref());
        let same = own.identity.fingerprint == given.fingerprint;
        same.then(|| StoredTokens::new(self.clone(), model))
    }

    /// The first stage by tokens, with the late-interaction model of the stored vectors.
    ///
    /// # Errors
    ///
    /// [`IndexError::NoTokenVectors`], [`IndexError::TokenModelMismatch`].
    pub fn late_interaction(
        &self,
        model: Arc<dyn TokenEmbedder>,
        options: LateOptions,
    ) -> Result<LateRetriever> {
        let own = self.inner.state.settings.token_vectors.as_ref();
        let own = own.ok_or(IndexError::NoTokenVectors)?;
        let given = model.identity();
        if own.identity.fingerprint != given.fingerprint {
            return Err(IndexError::TokenModelMismatch {
                expected: own.identity.name.clone(),
                given: given.name.clone(),
            });
        }
        Ok(LateRetriever::new(self.clone(), model, own.tier, options))
    }

    /// The passages of a document, in no particular order; none if it is not in the index.
    ///
    /// # Errors
    ///
    /// [`IndexError::Damaged`], [`IndexError::Tantivy`].
    pub fn document(&self, id: &str) -> Result<Vec<Arc<Passage>>> {
        let term = Term::from_field_text(self.inner.fields.document, id);
        self.addresses(self.inner.fields.document, &term)?
            .into_iter()
            .map(|address| self.passage(address))
            .collect()
    }

    /// What the index remembers of how it was made.
    pub fn settings(&self) -> &Settings {
        &self.inner.state.settings
    }

    /// Commits so far: another number means other content.
    pub fn generation(&self) -> u64 {
        self.inner.state.generation
    }

    /// How many documents and passages are in it.
    pub fn totals(&self) -> Totals {
        self.inner.state.totals
    }

    /// What is in it, file by file and byte by byte.
    ///
    /// # Errors
    ///
    /// [`IndexError::Damaged`] if the file table cannot be read.
    pub fn stats(&self) -> Result<Stats> {
        let inner = &*self.inner;
        let vectors = inner.vectors.iter().map(Vectors::len).sum();
        let files = self.files()?;
        Ok(Stats {
            dir: inner.dir.clone(),
            format: inner.state.format,
            generation: inner.state.generation,
            settings: inner.state.settings.clone(),
            files: files.len(),
            totals: inner.state.totals,
            vectors,
            removed_vectors: vectors.saturating_sub(if vectors == 0 {
                0
            } else {
                inner.state.totals.passages as usize
            }),
            graph_vectors: inner.graph.as_ref().map_or(0, Graph::len),
            tokens: self.token_stats(),
            other_chunking: OtherChunking::among(&files, inner.state.settings.chunking),
            bytes: folder_bytes(&inner.dir),
        })
    }

    fn token_stats(&self) -> Option<TokenStats> {
        let inner = &*self.inner;
        inner.state.settings.token_vectors.as_ref()?;
        let shapes = || inner.token_files.iter().map(TokenFile::shape);
        let vectors = shapes().map(|shape| shape.vectors as u64).sum::<u64>();
        let bytes: usize = shapes().map(Shape::len).sum();
        let codebook = inner.codebook.as_ref();
        let centroids = codebook.map_or(0, |book| book.count());
        let bytes_per_vector = if vectors == 0 { 0.0 } else { bytes as f64 / vectors as f64 };
        let (learnt, added) = (inner.state.tokens.learnt, inner.state.tokens.added);
        Some(TokenStats { vectors, bytes_per_vector, centroids, learnt, added })
    }

    /// The files that documents came from, in the order of their paths.
    ///
    /// # Errors
    ///
    /// [`IndexError::Damaged`] if the file table cannot be read.
    pub fn files(&self) -> Result<Vec<FileEntry>> {
        let content = self.inner.files.as_ref().map(MappedFile::bytes);
        let table = FileTable::load(&self.inner.dir, &self.inner.state, content)?;
        Ok(table.into_entries())
    }

    /// Reads every file of the index and compares its checksum; then compares what the state, the
    /// texts and the file table say of the whole.
    ///
    /// # Errors
    ///
    /// [`IndexError::Damaged`] names the first file that is not as it was written.
    pub fn verify(&self) -> Result<()> {
        let files = self.files()?;
        for vectors in &self.inner.vectors {
            vectors.verify()?;
        }
        for tokens in &self.inner.token_files {
            tokens.verify()?;
        }
        if let (Some(graph), Some(file)) = (&self.inner.graph, &self.inner.state.graph) {
            graph.verify(file.crc32)?;
        }
        let dir = &self.inner.dir;
        let damaged = |name: &Path, reason: &str| {
            let path = dir.join(TEXT_DIR).join(name);
            Err(IndexError::Damaged { path, reason: reason.to_owned() })
        };
        // Not tantivy's own check: it passes over files that its list of files lacks.
        let text = self.inner.searcher.index();
        let meta = text.load_metas().map_err(IndexError::opening(dir))?;
        let without_deletions: HashSet<PathBuf> = meta
            .segments
            .iter()
            .filter(|segment| !segment.has_deletes())
            .map(|segment| segment.relative_path(SegmentComponent::Delete))
            .collect();
        for name in meta.list_segment_files() {
            if without_deletions.contains(&name) {
                continue;
            }
            let checked = text.directory().validate_checksum(&name);
            if !checked.map_err(|error| IndexError::opening(dir)(error.into()))? {
                return damaged(&name, "its checksum does not match its content");
            }
        }
        let mut totals = Totals::default();
        for file in &files {
            totals.add(file.totals);
        }
        let state = &self.inner.state;
        if totals != state.totals || self.inner.searcher.num_docs() != totals.passages {
            return damaged(Path::new("meta.json"), "its figures are not those of the other files");
        }
        Ok(())
    }

    /// The passage at an address of tantivy's.
    pub(crate) fn passage(&self, address: DocAddress) -> Result<Arc<Passage>> {
        self.inner.passage(address).map(Arc::new)
    }

    /// The passage with that key.
    pub(crate) fn passage_by_key(&self, key: u64) -> Result<Option<Arc<Passage>>> {
        let term = Term::from_field_u64(self.inner.fields.key, key);
        let addresses = self.addresses(self.inner.fields.key, &term)?;
        addresses.first().map(|address| self.passage(*address)).transpose()
    }

    /// Where the passages with that term are.
    fn addresses(&self, field: Field, term: &Term) -> Result<Vec<DocAddress>> {
        let mut addresses = Vec::new();
        for (ordinal, segment) in self.inner.searcher.segment_readers().iter().enumerate() {
            let postings = segment
                .inverted_index(field)?
                .read_postings(term, IndexRecordOption::Basic)
                .map_err(tantivy::TantivyError::from)?;
            let Some(mut postings) = postings else { continue };
            while postings.doc() != TERMINATED {
                if !segment.is_deleted(postings.doc()) {
                    addresses.push(DocAddress::new(ordinal as u32, postings.doc()));
                }
                postings.advance();
            }
        }
        Ok(addresses)
    }

    /// What the filter lets through; remembered for the next queries.
    pub(crate) fn mask(&self, filter: &Filter) -> Result<Arc<Mask>> {
        const REMEMBERED: usize = 32;
        let name = filter.to_string();
        let lock = || self.inner.masks.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(mask) = lock().get(&name) {
            return Ok(Arc::clone(mask));
        }
        let mask = Arc::new(Mask::of(filter, &self.inner)?);
        let mut masks = lock();
        if masks.len() >= REMEMBERED {
            masks.clear();
        }
        masks.insert(name, Arc::clone(&mask));
        Ok(mask)
    }
}

impl Index {
    /// Runs a search on the threads of the index, as a part of the call.
    pub(crate) async fn search<T: Send + 'static>(
        &self,
        stage: &str,
        call: &Call,
        search: impl FnOnce() -> topshelf_core::Result<T> + Send + 'static,
    ) -> topshelf_core::Result<T> {
        let pool = self.pool().map_err(|error| error.into_stage(stage))?;
        pool.run(call, search).await.map_err(|error| error.into_stage(stage))?
    }

    fn pool(&self) -> Result<&Pool> {
        if let Some(pool) = self.inner.pool.get() {
            return Ok(pool);
        }
        // Of two that start at once, one is not needed and ends.
        let started = Pool::start()?;
        Ok(self.inner.pool.get_or_init(|| started))
    }
}

impl Inner {
    /// The passage at an address of tantivy's.
    pub(crate) fn passage(&self, address: DocAddress) -> Result<Passage> {
        let document: TantivyDocument = self.searcher.doc(address)?;
        let stored = document.get_first(self.fields.passage);
        let json = stored.as_ref().and_then(tantivy::schema::Value::as_str).unwrap_or_default();
        serde_json::from_str(json).map_err(|error| IndexError::Damaged {
            path: self.dir.join(TEXT_DIR),
            reason: format!("a stored passage cannot be read ({error})"),
        })
    }
}

/// Bytes of all files below a folder.
fn folder_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
