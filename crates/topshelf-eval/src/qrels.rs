//! Qrels: the judgments of a test collection, as query id, document id and grade.
//!
//! Two layouts are read, told apart at the first line that is not blank:
//!
//! - **BEIR**: three columns `query document grade` separated by tabs, usually below a header
//!   (`query-id corpus-id score`); ids may contain spaces.
//! - **TREC**: four columns `query iteration document grade` separated by white space; the
//!   iteration is ignored.
//!
//! A header is recognised by its third column being one of `score`, `relevance`, `rel`, `grade`,
//! `label`, so that a mistyped grade on the first line is an error and not a header.
//!
//! Grades are integers. 0 and below is not relevant: negative grades (TREC's web tracks give -2
//! to spam) are kept as they are and give no gain, as in trec_eval, which also keeps them out of
//! the ideal ranking.
//!
//! **The same pair twice** is a warning, and the last line wins. That is what ir_measures and
//! BEIR's own loader do, silently; trec_eval and pytrec_eval refuse such a file altogether. So
//! figures agree with all of them wherever there are figures to agree with, and the warning says
//! which lines to look at.

use std::collections::BTreeMap;
use std::fmt;
use std::io::BufRead;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{EvalError, Result};
use crate::lines::{self, Lines};

/// Third columns that make the first line of a BEIR file a header.
const HEADER_GRADES: [&str; 5] = ["score", "relevance", "rel", "grade", "label"];

/// Judgments: query id to document id to grade.
///
/// ```
/// use topshelf_eval::Qrels;
/// let file = Qrels::read("query-id\tcorpus-id\tscore\nq1\td7\t2\n".as_bytes(), "test.tsv")?;
/// assert_eq!(file.qrels.grade("q1", "d7"), Some(2));
/// assert_eq!(file.qrels.grade("q1", "d8"), None);
/// # Ok::<(), topshelf_eval::EvalError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Qrels {
    queries: BTreeMap<String, BTreeMap<String, i32>>,
}

/// Qrels as read from a file, with what was odd about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QrelsFile {
    /// The judgments.
    pub qrels: Qrels,
    /// Pairs that were judged more than once, in the order of the file.
    pub warnings: Vec<QrelsWarning>,
}

/// Something odd in a qrels file that does not stop it from being used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum QrelsWarning {
    /// The same pair with the same grade: harmless.
    Repeated {
        /// The query.
        query: String,
        /// The document.
        document: String,
        /// The line of the earlier judgment, from 1.
        first_line: usize,
        /// The line that repeats it.
        line: usize,
    },
    /// The same pair with another grade: the later one is used.
    Conflict {
        /// The query.
        query: String,
        /// The document.
        document: String,
        /// The line of the earlier judgment, from 1.
        first_line: usize,
        /// The earlier grade, which is dropped.
        first_grade: i32,
        /// The line of the later judgment.
        line: usize,
        /// The later grade, which is used.
        grade: i32,
    },
}

impl fmt::Display for QrelsWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repeated { query, document, first_line, line } => write!(
                f,
                "line {line}: query \"{query}\", document \"{document}\" was judged before on \
                 line {first_line}, with the same grade"
            ),
            Self::Conflict { query, document, first_line, first_grade, line, grade } => write!(
                f,
                "line {line}: query \"{query}\", document \"{document}\" has grade {grade} here \
                 and grade {first_grade} on line {first_line}; the later one is used"
            ),
        }
    }
}

impl Qrels {
    /// No judgments yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a qrels file of either layout; see the [module](self).
    ///
    /// # Errors
    /// As for [`Qrels::read`], and when the file cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<QrelsFile> {
        let path = path.as_ref();
        Self::read(lines::open(path)?, path.display().to_string())
    }

    /// Reads qrels of either layout; `file` names the input in errors.
    ///
    /// # Errors
    /// A line that cannot be parsed or is not UTF-8, with its number; an input without judgments.
    pub fn read(reader: impl BufRead, file: impl Into<String>) -> Result<QrelsFile> {
        let mut lines = Lines::new(reader, file);
        let file = lines.file().to_owned();
        let mut judged: BTreeMap<String, BTreeMap<String, (i32, usize)>> = BTreeMap::new();
        let mut warnings = Vec::new();
        let mut layout = None;

        while let Some((number, line)) = lines.next_line()? {
            let layout = if let Some(layout) = layout {
                layout
            } else {
                let found = Layout::detect(line)
                    .ok_or_else(|| EvalError::line(&file, number, UNKNOWN_LAYOUT))?;
                layout = Some(found);
                if found == Layout::Beir && is_header(line) {
                    continue;
                }
                found
            };
            let (query, document, grade) =
                layout.parse(line).map_err(|reason| EvalError::line(&file, number, reason))?;
            let documents = match judged.get_mut(query) {
                Some(documents) => documents,
                None => judged.entry(query.to_owned()).or_default(),
            };
            let earlier = documents.insert(document.to_owned(), (grade, number));
            if let Some((first_grade, first_line)) = earlier {
                let (query, document) = (query.to_owned(), document.to_owned());
                warnings.push(if first_grade == grade {
                    QrelsWarning::Repeated { query, document, first_line, line: number }
                } else {
                    let line = number;
                    QrelsWarning::Conflict { query, document, first_line, first_grade, line, grade }
                });
            }
        }
        if judged.is_empty() {
            return Err(EvalError::NoJudgmentsInFile { file });
        }
        let queries = judged
            .into_iter()
            .map(|(query, documents)| {
                (query, documents.into_iter().map(|(id, (grade, _))| (id, grade)).collect())
            })
            .collect();
        Ok(QrelsFile { qrels: Self { queries }, warnings })
    }

    /// Sets the grade of a pair and returns the grade it had before.
    pub fn insert(
        &mut self,
        query: impl Into<String>,
        document: impl Into<String>,
        grade: i32,
    ) -> Option<i32> {
        self.queries.entry(query.into()).or_default().insert(document.into(), grade)
    }

    /// The grade of a pair; `None` when nobody judged it.
    pub fn grade(&self, query: &str, document: &str) -> Option<i32> {
        self.queries.get(query)?.get(document).copied()
    }

    /// The judged documents of a query with their grades, by document id; `None` for a query
    /// without judgments.
    pub fn documents(&self, query: &str) -> Option<&BTreeMap<String, i32>> {
        self.queries.get(query)
    }

    /// The judged queries, sorted by id.
    pub fn queries(&self) -> impl ExactSizeIterator<Item = &str> {
        self.queries.keys().map(String::as_str)
    }

    /// The judged queries with their judged documents, sorted by id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &BTreeMap<String, i32>)> {
        self.queries.iter().map(|(query, documents)| (query.as_str(), documents))
    }

    /// Keeps only the queries for which `keep` answers true.
    pub fn retain_queries(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.queries.retain(|query, _| keep(query));
    }

    /// How many queries have judgments.
    pub fn query_count(&self) -> usize {
        self.queries.len()
    }

    /// How many pairs are judged.
    pub fn judgment_count(&self) -> usize {
        self.queries.values().map(BTreeMap::len).sum()
    }

    /// Whether nothing is judged.
    pub fn is_empty(&self) -> bool {
        self.queries.is_empty()
    }
}

const UNKNOWN_LAYOUT: &str = "this is neither BEIR's layout (query, document, grade, separated by \
                              tabs) nor TREC's (query, iteration, document, grade, separated by \
                              white space)";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Beir,
    Trec,
}

impl Layout {
    /// Tabs first, because BEIR's ids may contain spaces.
    fn detect(line: &str) -> Option<Self> {
        if line.split('\t').count() == 3 {
            Some(Self::Beir)
        } else if line.split_ascii_whitespace().count() == 4 {
            Some(Self::Trec)
        } else {
            None
        }
    }

    fn parse(self, line: &str) -> Result<(&str, &str, i32), String> {
        let (query, document, grade) = match self {
            Self::Beir => {
                let columns = columns::<3>(line.split('\t'), "separated by tabs")?;
                let [query, document, grade] = columns.map(str::trim);
                (query, document, grade)
            }
            Self::Trec => {
                let [query, _iteration, document, grade] =
                    columns::<4>(line.split_ascii_whitespace(), "separated by white space")?;
                (query, document, grade)
            }
        };
        if query.is_empty() || document.is_empty() {
            return Err("the query id or the document id is empty".to_owned());
        }
        let grade = grade
            .parse()
            .map_err(|_| format!("the grade \"{grade}\" is not a whole number of 32 bits"))?;
        Ok((query, document, grade))
    }
}

fn is_header(line: &str) -> bool {
    line.split('\t')
        .nth(2)
        .is_some_and(|last| HEADER_GRADES.contains(&last.trim().to_ascii_lowercase().as_str()))
}

/// Exactly `N` columns, or how many there are instead.
pub(crate) fn columns<'a, const N: usize>(
    mut split: impl Iterator<Item = &'a str>,
    separated: &str,
) -> Result<[&'a str; N], String> {
    let mut columns = [""; N];
    for (found, column) in columns.iter_mut().enumerate() {
        *column = split
            .next()
            .ok_or_else(|| format!("expected {N} columns {separated}, found {found}"))?;
    }
    match split.count() {
        0 => Ok(columns),
        more => Err(format!("expected {N} columns {separated}, found {}", N + more)),
    }
}
