//! Test collections in the layout of BEIR (Thakur et al. 2021):
//!
//! ```text
//! FOLDER/corpus.jsonl      {"_id": "d1", "title": "...", "text": "...", ...}   one a line
//! FOLDER/queries.jsonl     {"_id": "q1", "text": "..."}                        one a line
//! FOLDER/qrels/SPLIT.tsv   query-id <tab> corpus-id <tab> score
//! ```
//!
//! Ids may be strings or whole numbers; a title may be missing or null. All other fields of a
//! document are kept as its metadata; the members of an object named `metadata`, which many BEIR
//! corpora have, are lifted beside them (a field of the document's own wins over a member of the
//! same name).
//!
//! The corpus is streamed: [`CorpusReader`] holds one line at a time, whatever the size of the
//! file. It therefore does not look for ids that occur twice; whoever stores documents by id sees
//! them. Queries are few and are checked.
//!
//! Errors name the file and the line.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{EvalError, Result};
use crate::lines::{self, Lines};
use crate::qrels::{Qrels, QrelsWarning};

type Part = (&'static str, fn(&Path) -> bool);

/// What a collection is made of, the documents first, and how it is seen to be there.
const PARTS: [Part; 3] =
    [("corpus.jsonl", Path::is_file), ("queries.jsonl", Path::is_file), ("qrels", Path::is_dir)];

/// A folder in BEIR's layout.
#[derive(Debug, Clone)]
pub struct BeirFolder {
    root: PathBuf,
}

/// A document of the corpus.
#[derive(Debug, Clone, PartialEq)]
pub struct CorpusDocument {
    /// Its id, as the qrels name it.
    pub id: String,
    /// Its title; empty where it has none.
    pub title: String,
    /// Its text; may be empty.
    pub text: String,
    /// All its other fields.
    pub metadata: Map<String, Value>,
}

/// A query to be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its id, as the qrels name it.
    pub id: String,
    /// What is asked.
    pub text: String,
}

/// The judged queries of a split with their judgments.
#[derive(Debug, Clone)]
pub struct Topics {
    /// The queries that have judgments in the split, in the order of `queries.jsonl`.
    pub topics: Vec<Topic>,
    /// The judgments of the split, including those of queries without a text.
    pub qrels: Qrels,
    /// What was odd in the qrels file.
    pub warnings: Vec<QrelsWarning>,
    /// Judged queries that `queries.jsonl` does not have, sorted by id. They cannot be asked,
    /// and an evaluation against [`Topics::qrels`] counts them 0.
    pub without_text: Vec<String>,
}

impl BeirFolder {
    /// Opens a folder, looking that `corpus.jsonl`, `queries.jsonl` and `qrels/` are there.
    ///
    /// # Errors
    /// One of them is missing.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        Self::with(root.into(), &PARTS)
    }

    /// Opens a folder of judgments: `queries.jsonl` and `qrels/`, of documents that lie elsewhere.
    ///
    /// # Errors
    /// One of them is missing.
    pub fn open_judgments(root: impl Into<PathBuf>) -> Result<Self> {
        Self::with(root.into(), &PARTS[1..])
    }

    fn with(root: PathBuf, parts: &[Part]) -> Result<Self> {
        for (name, is_there) in parts {
            if !is_there(&root.join(name)) {
                let folder = root.display().to_string();
                return Err(EvalError::NotBeir { folder, missing: (*name).to_owned() });
            }
        }
        Ok(Self { root })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The splits there are, sorted: the names of `qrels/*.tsv`.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn splits(&self) -> Result<Vec<String>> {
        let folder = self.root.join("qrels");
        let failed = |e| EvalError::io(folder.display().to_string(), e);
        let mut splits = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|e| e == "tsv")
                && let Some(stem) = path.file_stem()
            {
                splits.push(stem.to_string_lossy().into_owned());
            }
        }
        splits.sort();
        Ok(splits)
    }

    /// The documents, one at a time.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn corpus(&self) -> Result<CorpusReader<BufReader<File>>> {
        let path = self.root.join("corpus.jsonl");
        Ok(CorpusReader::new(lines::open(&path)?, path.display().to_string()))
    }

    /// The judged queries of `split` and their judgments.
    ///
    /// # Errors
    /// There is no such split, a line cannot be parsed, a query id occurs twice, or no judged
    /// query has a text.
    pub fn topics(&self, split: &str) -> Result<Topics> {
        let splits = self.splits()?;
        if !splits.iter().any(|name| name == split) {
            return Err(EvalError::NoSuchSplit {
                folder: self.root.display().to_string(),
                split: split.to_owned(),
                available: splits.join(", "),
            });
        }
        let file = Qrels::open(self.root.join("qrels").join(format!("{split}.tsv")))?;
        let path = self.root.join("queries.jsonl");
        let mut topics = read_queries(lines::open(&path)?, path.display().to_string())?;
        topics.retain(|topic| file.qrels.documents(&topic.id).is_some());

        let with_text: HashSet<&str> = topics.iter().map(|topic| topic.id.as_str()).collect();
        let without_text: Vec<String> = file
            .qrels
            .queries()
            .filter(|query| !with_text.contains(query))
            .map(str::to_owned)
            .collect();
        match without_text.first() {
            Some(example) if topics.is_empty() => Err(EvalError::NoTopics {
                folder: self.root.display().to_string(),
                split: split.to_owned(),
                example: example.clone(),
            }),
            _ => Ok(Topics { topics, qrels: file.qrels, warnings: file.warnings, without_text }),
        }
    }
}

/// The documents of a `corpus.jsonl`, one at a time; an iterator of results. After a line that
/// cannot be used it goes on with the next one, so that a caller may count faults instead of
/// stopping; after a failure of the file itself it ends.
///
/// ```
/// use topshelf_eval::CorpusReader;
/// let jsonl = r#"{"_id": "d1", "text": "Fleas jump.", "year": 2020}"#;
/// let document = CorpusReader::new(jsonl.as_bytes(), "corpus.jsonl").next().unwrap()?;
/// assert_eq!((document.id.as_str(), document.title.as_str()), ("d1", ""));
/// assert_eq!(document.metadata["year"], 2020);
/// # Ok::<(), topshelf_eval::EvalError>(())
/// ```
pub struct CorpusReader<R> {
    lines: Lines<R>,
    ended: bool,
}

impl<R: BufRead> CorpusReader<R> {
    /// Reads documents from `reader`; `file` names it in errors.
    pub fn new(reader: R, file: impl Into<String>) -> Self {
        Self { lines: Lines::new(reader, file), ended: false }
    }

    fn read(&mut self) -> Result<Option<CorpusDocument>> {
        let Some((number, line)) = self.lines.next_line()? else { return Ok(None) };
        match serde_json::from_str::<DocumentLine>(line) {
            Ok(document) => Ok(Some(document.into())),
            Err(error) => {
                let reason = json_reason(&error);
                Err(EvalError::line(self.lines.file(), number, reason))
            }
        }
    }
}

impl<R: BufRead> Iterator for CorpusReader<R> {
    type Item = Result<CorpusDocument>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.read().transpose();
        self.ended = matches!(item, None | Some(Err(EvalError::Io { .. })));
        item
    }
}

fn read_queries(reader: impl BufRead, file: impl Into<String>) -> Result<Vec<Topic>> {
    let mut lines = Lines::new(reader, file);
    let file = lines.file().to_owned();
    let mut topics = Vec::new();
    let mut first_lines: HashMap<String, usize> = HashMap::new();
    while let Some((number, line)) = lines.next_line()? {
        let QueryLine { id: Id(id), text } = serde_json::from_str(line)
            .map_err(|error| EvalError::line(&file, number, json_reason(&error)))?;
        if let Some(first_line) = first_lines.insert(id.clone(), number) {
            return Err(EvalError::DuplicateQuery { file, line: number, first_line, query: id });
        }
        topics.push(Topic { id, text });
    }
    Ok(topics)
}

/// What serde_json says, without its "line 1", which would be taken for a line of the file.
fn json_reason(error: &serde_json::Error) -> String {
    let said = error.to_string();
    let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(reason, _)| reason);
    match error.column() {
        0 => said.to_owned(),
        column => format!("{said} (column {column})"),
    }
}

#[derive(Deserialize)]
struct DocumentLine {
    #[serde(rename = "_id")]
    id: Id,
    #[serde(default)]
    title: Option<String>,
    text: String,
    #[serde(flatten)]
    other: Map<String, Value>,
}

impl From<DocumentLine> for CorpusDocument {
    fn from(line: DocumentLine) -> Self {
        let mut metadata = line.other;
        if let Some(Value::Object(_)) = metadata.get("metadata")
            && let Some(Value::Object(nested)) = metadata.remove("metadata")
        {
            for (name, value) in nested {
                metadata.entry(name).or_insert(value);
            }
        }
        Self { id: line.id.0, title: line.title.unwrap_or_default(), text: line.text, metadata }
    }
}

#[derive(Deserialize)]
struct QueryLine {
    #[serde(rename = "_id")]
    id: Id,
    text: String,
}

/// An id, written as a string or a whole number.
#[derive(Deserialize)]
#[serde(try_from = "Value")]
struct Id(String);

impl TryFrom<Value> for Id {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::String(id) if !id.trim().is_empty() => Ok(Self(id)),
            Value::Number(id) if id.is_u64() || id.is_i64() => Ok(Self(id.to_string())),
            other => Err(format!("_id must be a string that is not empty, but is {other}")),
        }
    }
}
