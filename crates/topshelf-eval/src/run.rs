//! Runs: what a system answered, as query id, document id and score; TREC run files.
//!
//! A TREC run file has six columns separated by white space, `query Q0 document rank score tag`.
//! The rank and the second column are ignored on reading, as trec_eval ignores them: **the scores
//! make the order**.
//!
//! # The order
//!
//! trec_eval sorts by score descending and breaks ties by document id *descending*, comparing
//! bytes (`form_res_rels.c`, `comp_sim_docno`). Its first 9.0 sources keep scores in a C `float`
//! (`trec_format.h`), and so does the copy inside pytrec_eval: scores that differ only beyond the
//! precision of 32 bits are ties there. Measured with pytrec_eval-terrier 0.5.11: 0.5 ties with
//! 0.5 + 1e-9 and not with 0.5 + 1e-7, 16777216 ties with 16777217, and 5e38 with 1e39 (both
//! become infinite). Later sources of trec_eval have moved to `double`, where none of these tie.
//! The order here is that of `float`, as in pytrec_eval, on which BEIR and ir_measures rest:
//! scores are **kept as 64-bit and compared as 32-bit** numbers. 0.0 and -0.0 tie.
//!
//! (ir_measures' `RR@k` goes another way, through MS MARCO's script: 64-bit scores, ties by
//! document id ascending. It can differ from trec_eval where a tie includes a relevant document.)
//!
//! [`Run::ties`] says how many positions a tie decided.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::{BufRead, BufWriter, Write};
use std::path::Path;

use crate::error::{EvalError, Result};
use crate::lines::{self, Lines};
use crate::qrels::columns;

/// One document of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunDocument {
    /// The document's id.
    pub id: String,
    /// Its score; finite, higher is better.
    pub score: f64,
}

/// A run: for each query its documents in trec_eval's order.
///
/// ```
/// use topshelf_eval::Run;
/// let mut run = Run::new("demo");
/// run.insert("q1", [("a", 0.5), ("b", 2.0), ("c", 0.5)])?;
/// let order: Vec<&str> = run.documents("q1").iter().map(|d| d.id.as_str()).collect();
/// assert_eq!(order, ["b", "c", "a"]);
/// # Ok::<(), topshelf_eval::EvalError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    tag: String,
    queries: BTreeMap<String, Vec<RunDocument>>,
}

/// How far ties decide the top of a run; see [`Run::ties`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ties {
    /// Queries with at least one tied document in the top.
    pub queries: usize,
    /// Documents in the top that share their score with another document of their query.
    pub documents: usize,
}

impl Run {
    /// An empty run; `tag` is the system's name in the last column of a run file.
    pub fn new(tag: impl Into<String>) -> Self {
        Self { tag: tag.into(), queries: BTreeMap::new() }
    }

    /// Reads a TREC run file.
    ///
    /// # Errors
    /// As for [`Run::read`], and when the file cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::read(lines::open(path)?, path.display().to_string())
    }

    /// Reads a run in TREC's six columns; `file` names the input in errors. The tag is that of
    /// the first line. An input without lines is an empty run: a system that found nothing.
    ///
    /// # Errors
    /// With the line: not six columns, a score that is no finite number, a document given twice
    /// for a query, bytes that are not UTF-8.
    pub fn read(reader: impl BufRead, file: impl Into<String>) -> Result<Self> {
        let mut lines = Lines::new(reader, file);
        let file = lines.file().to_owned();
        let mut tag = None;
        let mut queries: BTreeMap<String, BTreeMap<String, (f64, usize)>> = BTreeMap::new();

        while let Some((number, line)) = lines.next_line()? {
            let [query, _, document, _, written, system] =
                columns::<6>(line.split_ascii_whitespace(), COLUMNS)
                    .map_err(|reason| EvalError::line(&file, number, reason))?;
            let score: f64 = written.parse().map_err(|_| {
                EvalError::line(&file, number, format!("the score \"{written}\" is not a number"))
            })?;
            if !score.is_finite() {
                let score = written.to_owned();
                return Err(EvalError::LineScoreNotFinite { file, line: number, score });
            }
            if tag.is_none() {
                tag = Some(system.to_owned());
            }
            let documents = match queries.get_mut(query) {
                Some(documents) => documents,
                None => queries.entry(query.to_owned()).or_default(),
            };
            match documents.entry(document.to_owned()) {
                Entry::Vacant(entry) => {
                    entry.insert((score, number));
                }
                Entry::Occupied(entry) => {
                    return Err(EvalError::LineDuplicateDocument {
                        file,
                        line: number,
                        first_line: entry.get().1,
                        query: query.to_owned(),
                        document: document.to_owned(),
                    });
                }
            }
        }
        let queries = queries
            .into_iter()
            .map(|(query, documents)| {
                let documents =
                    documents.into_iter().map(|(id, (score, _))| RunDocument { id, score });
                (query, in_order(documents.collect()))
            })
            .collect();
        Ok(Self { tag: tag.unwrap_or_default(), queries })
    }

    /// Adds a query's documents, in any order. Without documents it adds nothing: a run has no
    /// way to say "asked, nothing found", and both count the same.
    ///
    /// # Errors
    /// The query is already there, a document is given twice, a score is not finite; the run is
    /// then unchanged.
    pub fn insert<D: Into<String>, S: Into<f64>>(
        &mut self,
        query: impl Into<String>,
        documents: impl IntoIterator<Item = (D, S)>,
    ) -> Result<()> {
        let query = query.into();
        if self.queries.contains_key(&query) {
            return Err(EvalError::DuplicateRunQuery { query });
        }
        let mut scores: BTreeMap<String, f64> = BTreeMap::new();
        for (document, score) in documents {
            let (document, score) = (document.into(), score.into());
            if !score.is_finite() {
                return Err(EvalError::ScoreNotFinite { query, document, score });
            }
            match scores.entry(document) {
                Entry::Vacant(entry) => {
                    entry.insert(score);
                }
                Entry::Occupied(entry) => {
                    let document = entry.key().clone();
                    return Err(EvalError::DuplicateDocument { query, document });
                }
            }
        }
        if !scores.is_empty() {
            let documents = scores.into_iter().map(|(id, score)| RunDocument { id, score });
            self.queries.insert(query, in_order(documents.collect()));
        }
        Ok(())
    }

    /// The system's name.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The documents of a query in trec_eval's order; empty when the run does not have it.
    pub fn documents(&self, query: &str) -> &[RunDocument] {
        self.queries.get(query).map_or(&[], Vec::as_slice)
    }

    /// The queries that have documents, sorted by id.
    pub fn queries(&self) -> impl ExactSizeIterator<Item = &str> {
        self.queries.keys().map(String::as_str)
    }

    /// How many queries have documents.
    pub fn query_count(&self) -> usize {
        self.queries.len()
    }

    /// Whether no query has documents.
    pub fn is_empty(&self) -> bool {
        self.queries.is_empty()
    }

    /// Counts the documents among the first `k` of each query that share their score, as 32-bit
    /// numbers, with another document of the query. The other one may lie below the cut: then
    /// the tie order decided which of the two is above it.
    pub fn ties(&self, k: usize) -> Ties {
        let mut ties = Ties::default();
        for documents in self.queries.values() {
            let tied = (0..documents.len().min(k))
                .filter(|&i| {
                    let score = documents[i].score as f32;
                    let same = |other: Option<&RunDocument>| {
                        other.is_some_and(|other| by_score(other.score as f32, score).is_eq())
                    };
                    same(i.checked_sub(1).map(|before| &documents[before]))
                        || same(documents.get(i + 1))
                })
                .count();
            ties.documents += tied;
            ties.queries += usize::from(tied > 0);
        }
        ties
    }

    /// Writes the run in TREC's six columns, queries sorted by id, documents in trec_eval's
    /// order with ranks from 1, scores with as many digits as bring the same number back.
    ///
    /// # Errors
    /// An id or the tag is empty or has white space in it, or the writer fails.
    pub fn write(&self, mut writer: impl Write) -> Result<()> {
        writable("tag", &self.tag)?;
        for (query, documents) in &self.queries {
            writable("query id", query)?;
            for (position, RunDocument { id, score }) in documents.iter().enumerate() {
                writable("document id", id)?;
                let rank = position + 1;
                writeln!(writer, "{query} Q0 {id} {rank} {score:?} {}", self.tag)
                    .map_err(|e| EvalError::io("the run", e))?;
            }
        }
        writer.flush().map_err(|e| EvalError::io("the run", e))
    }

    /// Writes the run to a file; see [`Run::write`].
    ///
    /// # Errors
    /// As for [`Run::write`], and when the file cannot be created.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let at_path = |e| EvalError::io(path.display().to_string(), e);
        let file = File::create(path).map_err(at_path)?;
        self.write(BufWriter::new(file)).map_err(|error| match error {
            EvalError::Io { source, .. } => at_path(source),
            other => other,
        })
    }
}

const COLUMNS: &str = "separated by white space (query, Q0, document, rank, score, tag)";

/// Sorts into trec_eval's order; see the module.
fn in_order(mut documents: Vec<RunDocument>) -> Vec<RunDocument> {
    documents.sort_unstable_by(|a, b| {
        by_score(b.score as f32, a.score as f32).then_with(|| b.id.cmp(&a.id))
    });
    documents
}

/// Compares as C compares floats: 0.0 and -0.0 are equal. Scores are finite as 64-bit numbers,
/// so as 32-bit ones they may be infinite, but never NaN.
fn by_score(a: f32, b: f32) -> Ordering {
    a.partial_cmp(&b).unwrap_or(Ordering::Equal)
}

fn writable(what: &'static str, id: &str) -> Result<()> {
    if id.is_empty() || id.contains(char::is_whitespace) {
        return Err(EvalError::IdNotWritable { what, id: id.to_owned() });
    }
    Ok(())
}
