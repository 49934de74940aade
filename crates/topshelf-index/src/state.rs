//! What one commit makes visible: `State`, the payload of the tantivy commit.
//!
//! ```text
//! DIR/
//!   text/                    the tantivy index; its meta.json holds the state as payload
//!   files-00000007.json      which files are in the index            (named by the state)
//!   vectors-000-00000007.vec vectors of passages                     (named by the state)
//!   graph-00000007.hnsw      neighbour graph over some vector files  (named by the state)
//!   tokens-000-00000007.tok  token vectors of passages               (named by the state)
//!   tokens-codebook-….cbk    their centroids, mean and reduction     (named by the state)
//!   writer.lock              held by the process that changes the index
//! ```
//!
//! Files beside `text/` are written and synced before the commit that names them and are never
//! changed afterwards. tantivy replaces `meta.json` atomically, so at any moment the folder holds
//! exactly one whole index; what a crash leaves over is removed by the next writer.
//!
//! The payload is JSON; its `settings` say what the index remembers of how it was made, among it how
//! documents are cut: `"chunking": "256/32"`, or `"whole"`.
//!
//! Every passage has a *key*: a number that is given once and never again. The passages of one
//! file have consecutive keys, so what is removed is a few ranges.

use std::fs;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};
use topshelf_core::{Blame, Embedder, Error as CoreError, ModelIdentity};

use crate::analyse::Language;
use crate::chunk::Chunking;
use crate::error::{IndexError, Result};
use crate::tokens::TokenVectorInfo;
use crate::tokens::writer::TokenState;

/// The format that this version writes. The older ones, which it reads too, lack something:
///
/// | format | lacks |
/// | --- | --- |
/// | 3 | how documents are cut, in the settings and in the table of files; what is added is cut with the defaults of that time, [`Chunking::default`] |
/// | 2 | also the lists of passages in files of token vectors |
/// | 1 | also token vectors |
///
/// A commit turns an index of an older format into one of this format.
pub const FORMAT: u32 = 4;

/// The oldest format that it reads.
const OLDEST: u32 = 1;

/// The first format whose settings say how documents are cut.
const WITH_CHUNKING: u32 = 4;

/// The most of anything that is counted; with more, sums would overflow.
const MAX_COUNT: u64 = 1 << 48;

/// The longest vectors that are kept, in numbers.
const MAX_DIMENSION: usize = 1 << 16;

/// The folder of the tantivy index.
pub(crate) const TEXT_DIR: &str = "text";

/// How vectors are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// One byte a dimension and one scale a vector.
    #[default]
    Int8,
    /// Four bytes a dimension.
    F32,
}

impl Precision {
    /// Its name in options: `int8`, `f32`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::F32 => "f32",
        }
    }
}

/// What an index remembers of how it was made. All of it is fixed then but for the last two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// How words become terms.
    pub language: Language,
    /// How vectors are stored.
    pub precision: Precision,
    /// The bi-encoder; `None` for an index without vectors.
    pub embedder: Option<EmbedderInfo>,
    /// The vectors of tokens; `None` for an index without.
    #[serde(default)]
    pub token_vectors: Option<TokenVectorInfo>,
    /// Passages from which the index has a neighbour graph; [`Writer::create_or_open`] changes it.
    ///
    /// [`Writer::create_or_open`]: crate::Writer::create_or_open
    pub graph_from: u64,
    /// How documents are cut. [`AddOptions::chunking`] changes it; an index that is there keeps its
    /// own whatever [`Writer::create_or_open`] is given.
    ///
    /// [`AddOptions::chunking`]: crate::AddOptions::chunking
    /// [`Writer::create_or_open`]: crate::Writer::create_or_open
    #[serde(default)]
    pub chunking: Chunking,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            language: Language::default(),
            precision: Precision::default(),
            embedder: None,
            token_vectors: None,
            graph_from: crate::graph::DEFAULT_FROM,
            chunking: Chunking::default(),
        }
    }
}

impl Settings {
    /// The defaults, with this bi-encoder.
    pub fn with_embedder(embedder: &dyn Embedder) -> Self {
        let embedder =
            EmbedderInfo { identity: embedder.identity().clone(), dimension: embedder.dimension() };
        Self { embedder: Some(embedder), ..Self::default() }
    }

    /// Refuses numbers out of bounds: some would overflow, others ask for all memory.
    pub(crate) fn check(&self) -> Result<()> {
        let dimension = |setting, given, longest| {
            if (1..=longest).contains(&given) {
                return Ok(());
            }
            let (accepted, unit) = (1..=longest, "numbers");
            Err(IndexError::OutOfBounds { setting, given, accepted, unit })
        };
        self.chunking.check()?;
        if let Some(embedder) = &self.embedder {
            dimension("vectors", embedder.dimension, MAX_DIMENSION)?;
        }
        if let Some(tokens) = &self.token_vectors {
            dimension("token vectors", tokens.dimension, MAX_DIMENSION)?;
            if let Some(reduced) = tokens.reduced {
                dimension("reduced token vectors", reduced, tokens.dimension)?;
            }
        }
        Ok(())
    }
}

/// The bi-encoder of an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmbedderInfo {
    /// Which model.
    #[serde(flatten)]
    pub identity: ModelIdentity,
    /// The length of its vectors.
    pub dimension: usize,
}

impl EmbedderInfo {
    /// Refuses what an embedder answered for `texts` texts if it is not one finite vector of
    /// its dimension for each: stored, it would make every later answer wrong.
    pub(crate) fn check(&self, texts: usize, vectors: &[Vec<f32>]) -> topshelf_core::Result<()> {
        let fault = if vectors.len() != texts {
            format!("{} vectors for {texts} texts", vectors.len())
        } else if let Some(odd) = vectors.iter().find(|vector| vector.len() != self.dimension) {
            format!("a vector of {} numbers where {} were expected", odd.len(), self.dimension)
        } else if vectors.iter().flatten().any(|value| !value.is_finite()) {
            "a vector with a number that is not finite".to_owned()
        } else {
            return Ok(());
        };
        let reason = format!("the bi-encoder \"{}\" answered {fault}", self.identity.name);
        Err(CoreError::stage("embed", Blame::Failure, reason))
    }
}

/// A file of vectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VectorFile {
    /// Its name in the index folder.
    pub(crate) name: String,
    /// Vectors in it, removed ones included.
    pub(crate) rows: usize,
}

/// A neighbour graph over the vectors of some files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GraphFile {
    /// Its name in the index folder.
    pub(crate) name: String,
    /// It covers the keys below this; the vectors from there on are scanned.
    pub(crate) up_to: u64,
    /// Vectors in it, removed ones included.
    pub(crate) rows: u64,
    /// Its length.
    pub(crate) bytes: u64,
    /// CRC-32 of its content.
    pub(crate) crc32: u32,
}

/// What one commit makes visible.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// [`FORMAT`] of the version that wrote it.
    pub(crate) format: u32,
    /// Counts commits.
    pub(crate) generation: u64,
    /// What is fixed.
    pub(crate) settings: Settings,
    /// The key of the next passage.
    pub(crate) next_key: u64,
    /// Passages, documents and tokens in the index.
    pub(crate) totals: Totals,
    /// Keys of removed passages whose vectors are still in a file.
    pub(crate) removed: Vec<Range<u64>>,
    /// The name of the file table; empty before the first commit with content.
    pub(crate) files: String,
    /// CRC-32 of the file table; `None` if there is none yet.
    pub(crate) files_crc32: Option<u32>,
    /// The vector files.
    pub(crate) vectors: Vec<VectorFile>,
    /// The neighbour graph, if the index is large enough to have one.
    pub(crate) graph: Option<GraphFile>,
    /// The files of token vectors.
    #[serde(default)]
    pub(crate) tokens: TokenState,
}

/// Sums over all passages in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Documents.
    pub documents: u64,
    /// Passages.
    pub passages: u64,
    /// Terms in titles and headings.
    pub title_terms: u64,
    /// Terms in texts.
    pub text_terms: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, other: Self) {
        self.documents += other.documents;
        self.passages += other.passages;
        self.title_terms += other.title_terms;
        self.text_terms += other.text_terms;
    }

    pub(crate) fn subtract(&mut self, other: Self) {
        self.documents -= other.documents;
        self.passages -= other.passages;
        self.title_terms -= other.title_terms;
        self.text_terms -= other.text_terms;
    }
}

impl State {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            format: FORMAT,
            generation: 0,
            settings,
            next_key: 0,
            totals: Totals::default(),
            removed: Vec::new(),
            files: String::new(),
            files_crc32: None,
            vectors: Vec::new(),
            graph: None,
            tokens: TokenState::default(),
        }
    }

    /// The payload of the last commit in `dir`.
    pub(crate) fn of(dir: &Path, text: &tantivy::Index) -> Result<Self> {
        let meta = dir.join(TEXT_DIR).join("meta.json");
        let payload =
            text.load_metas().map_err(IndexError::opening(dir))?.payload.unwrap_or_default();
        Self::parse(dir, &meta, &payload)
    }

    fn parse(dir: &Path, meta: &Path, payload: &str) -> Result<Self> {
        /// The one field that every format has.
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let damaged = |reason: String| IndexError::Damaged { path: meta.to_owned(), reason };
        let unreadable = |error: serde_json::Error| {
            damaged(format!("its payload is not that of an index ({error})"))
        };
        let head: Head = serde_json::from_str(payload).map_err(unreadable)?;
        if !(OLDEST..=FORMAT).contains(&head.format) {
            let dir = dir.to_owned();
            return Err(IndexError::Format { dir, found: head.format, supported: FORMAT });
        }
        let value: serde_json::Value = serde_json::from_str(payload).map_err(unreadable)?;
        if head.format >= WITH_CHUNKING && value.pointer("/settings/chunking").is_none() {
            return Err(damaged("its settings do not say how documents are cut".to_owned()));
        }
        let state: Self = serde_json::from_str(payload).map_err(unreadable)?;
        let checked = state.settings.check();
        checked.map_err(|error| damaged(format!("its settings are out of bounds ({error})")))?;
        if let Some(count) = state.counts().into_iter().find(|count| *count > MAX_COUNT) {
            return Err(damaged(format!("it counts to {count}, which no index has of anything")));
        }
        Ok(state)
    }

    /// All that it counts.
    fn counts(&self) -> Vec<u64> {
        let Totals { documents, passages, title_terms, text_terms } = self.totals;
        let mut counts =
            vec![self.generation, self.next_key, documents, passages, title_terms, text_terms];
        counts.extend(self.vectors.iter().map(|file| file.rows as u64));
        counts.extend(self.graph.iter().flat_map(|graph| [graph.up_to, graph.rows]));
        counts.extend(self.tokens.counts());
        counts
    }

    /// Refuses folders without an index of this format, before tantivy reads them: its own
    /// message would not say what to do.
    pub(crate) fn check_folder(dir: &Path) -> Result<()> {
        let meta = dir.join(TEXT_DIR).join("meta.json");
        let text = match fs::read_to_string(&meta) {
            Ok(text) => text,
            Err(error) => {
                return Err(match error.kind() {
                    ErrorKind::NotFound => Self::absent(dir, &meta),
                    ErrorKind::NotADirectory => IndexError::NotAnIndex { dir: dir.to_owned() },
                    ErrorKind::InvalidData => {
                        IndexError::Damaged { path: meta, reason: error.to_string() }
                    }
                    _ => IndexError::io("cannot read", &meta)(error),
                });
            }
        };
        let damaged = |reason: String| IndexError::Damaged { path: meta.clone(), reason };
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        match value.get("payload").and_then(serde_json::Value::as_str) {
            Some(payload) => Self::parse(dir, &meta, payload).map(|_| ()),
            None => Err(Self::absent(dir, &meta)),
        }
    }

    /// Why a folder has no state: it never was an index, its very first commit was interrupted
    /// (that comes before any file but tantivy's is written), or its state was lost.
    fn absent(dir: &Path, meta: &Path) -> IndexError {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
        if names.iter().any(|name| is_state_file(&name.to_string_lossy())) {
            let reason = "it does not say what is in the index".to_owned();
            return IndexError::Damaged { path: meta.to_owned(), reason };
        }
        let dir = dir.to_owned();
        if names.iter().all(|name| name == TEXT_DIR || name == LOCK_FILE) {
            IndexError::Missing { dir }
        } else {
            IndexError::NotAnIndex { dir }
        }
    }
}

/// The file whose lock the writing process holds.
pub(crate) const LOCK_FILE: &str = "writer.lock";

/// Whether the name is one that a state may refer to.
pub(crate) fn is_state_file(name: &str) -> bool {
    ["files-", "vectors-", "graph-", "tokens-"].iter().any(|prefix| name.starts_with(prefix))
}

/// The fields of the tantivy index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields {
    /// The passage's key: indexed and as a column.
    pub(crate) key: tantivy::schema::Field,
    /// The canonical path of the file it came from: what is replaced and removed together.
    pub(crate) file: tantivy::schema::Field,
    /// The document's id.
    pub(crate) document: tantivy::schema::Field,
    /// Terms of title and headings.
    pub(crate) title: tantivy::schema::Field,
    /// Terms of the text.
    pub(crate) text: tantivy::schema::Field,
    /// Number of terms in `title`, as a column.
    pub(crate) title_terms: tantivy::schema::Field,
    /// Number of terms in `text`, as a column.
    pub(crate) text_terms: tantivy::schema::Field,
    /// What filters look at, as JSON in a column with a dictionary.
    pub(crate) facts: tantivy::schema::Field,
    /// The passage as JSON, stored.
    pub(crate) passage: tantivy::schema::Field,
}

/// Names of the columns.
pub(crate) mod column {
    pub(crate) const KEY: &str = "key";
    pub(crate) const TITLE_TERMS: &str = "title_terms";
    pub(crate) const TEXT_TERMS: &str = "text_terms";
    pub(crate) const FACTS: &str = "facts";
}

impl Fields {
    pub(crate) fn schema() -> (tantivy::schema::Schema, Self) {
        use tantivy::schema::{
            FAST, INDEXED, IndexRecordOption, STORED, STRING, Schema, TextFieldIndexing,
            TextOptions,
        };
        let terms = TextOptions::default().set_indexing_options(
            TextFieldIndexing::default()
                .set_tokenizer("raw") // texts are added as terms already
                .set_fieldnorms(false) // exact lengths are in the columns
                .set_index_option(IndexRecordOption::WithFreqs),
        );
        let mut schema = Schema::builder();
        let fields = Self {
            key: schema.add_u64_field(column::KEY, INDEXED | FAST),
            file: schema.add_text_field("file", STRING | STORED),
            document: schema.add_text_field("document", STRING),
            title: schema.add_text_field("title", terms.clone()),
            text: schema.add_text_field("text", terms),
            title_terms: schema.add_u64_field(column::TITLE_TERMS, FAST),
            text_terms: schema.add_u64_field(column::TEXT_TERMS, FAST),
            facts: schema.add_bytes_field(column::FACTS, FAST),
            passage: schema.add_text_field("passage", STORED),
        };
        (schema.build(), fields)
    }
}
