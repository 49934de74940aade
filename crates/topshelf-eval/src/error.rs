//! What can go wrong while reading, writing and measuring.
//!
//! Every fault in a file names the file and the line (from 1), says what was found and what was
//! expected. All of them are the caller's to mend except [`EvalError::Io`], which can be either.

use std::io;

/// The result of reading, writing or measuring.
pub type Result<T, E = EvalError> = std::result::Result<T, E>;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// A file cannot be opened, read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: String,
        /// What the system says.
        source: io::Error,
    },

    /// A line that is not UTF-8.
    #[error("{file}, line {line}: this is not UTF-8; convert the file, for instance with iconv")]
    NotUtf8 {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
    },

    /// A line that cannot be parsed.
    #[error("{file}, line {line}: {reason}")]
    Line {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What was found and what was expected.
        reason: String,
    },

    /// A run file gives a document a score that is NaN or infinite.
    #[error(
        "{file}, line {line}: the score \"{score}\" is not a finite number, so it has no place in \
         an order; a system that prints it has a fault"
    )]
    LineScoreNotFinite {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The score as written.
        score: String,
    },

    /// A run file names a document twice for one query.
    #[error(
        "{file}, line {line}: document \"{document}\" was already given for query \"{query}\" on \
         line {first_line}; a run names each document once per query"
    )]
    LineDuplicateDocument {
        /// The file.
        file: String,
        /// The line of the second mention, from 1.
        line: usize,
        /// The line of the first mention.
        first_line: usize,
        /// The query.
        query: String,
        /// The document.
        document: String,
    },

    /// A query file gives one id to two queries.
    #[error(
        "{file}, line {line}: the query id \"{query}\" was already used on line {first_line}; ids \
         must be unique"
    )]
    DuplicateQuery {
        /// The file.
        file: String,
        /// The line of the second mention, from 1.
        line: usize,
        /// The line of the first mention.
        first_line: usize,
        /// The id.
        query: String,
    },

    /// A file that should hold judgments holds none.
    #[error("{file}: there are no judgments in it")]
    NoJudgmentsInFile {
        /// The file.
        file: String,
    },

    /// A folder that does not have the BEIR layout.
    #[error(
        "{folder}: {missing} is missing; a BEIR folder has corpus.jsonl, queries.jsonl and \
         qrels/SPLIT.tsv"
    )]
    NotBeir {
        /// The folder.
        folder: String,
        /// The file that is missing.
        missing: String,
    },

    /// A split that the folder does not have.
    #[error("{folder}: there is no split \"{split}\"; it has: {available}")]
    NoSuchSplit {
        /// The folder.
        folder: String,
        /// The split asked for.
        split: String,
        /// The splits that exist, joined by commas.
        available: String,
    },

    /// None of the judged queries has a text.
    #[error(
        "{folder}: none of the queries judged in split \"{split}\" is in queries.jsonl; for \
         instance \"{example}\" is not; are the two files of the same collection?"
    )]
    NoTopics {
        /// The folder.
        folder: String,
        /// The split.
        split: String,
        /// One of the judged ids.
        example: String,
    },

    /// A score that is NaN or infinite, given by the caller.
    #[error("query \"{query}\", document \"{document}\": the score {score} is not a finite number")]
    ScoreNotFinite {
        /// The query.
        query: String,
        /// The document.
        document: String,
        /// The score.
        score: f64,
    },

    /// A document given twice for one query, by the caller.
    #[error("document \"{document}\" was given twice for query \"{query}\"")]
    DuplicateDocument {
        /// The query.
        query: String,
        /// The document.
        document: String,
    },

    /// A query given twice, by the caller.
    #[error("the run already has documents for query \"{query}\"")]
    DuplicateRunQuery {
        /// The query.
        query: String,
    },

    /// An id that a TREC file cannot hold.
    #[error(
        "the {what} \"{id}\" is empty or has white space in it, and a TREC file separates its \
         columns by white space; rename it, for instance with underscores"
    )]
    IdNotWritable {
        /// What the id names: query, document or tag.
        what: &'static str,
        /// The id.
        id: String,
    },

    /// A measure that cannot be understood.
    #[error(
        "the measure \"{name}\" cannot be used: {reason}; examples: nDCG@10, recall@100, \
         success@1, precision@10, MRR@10, MAP, recall(rel=2)@100"
    )]
    Measure {
        /// The measure as given.
        name: String,
        /// What is wrong with it.
        reason: String,
    },

    /// Nothing is judged, so there is nothing to measure.
    #[error("there are no judgments, so there is nothing to measure")]
    NoJudgments,

    /// A run about other queries than the judgments.
    #[error(
        "no query of the run has a judgment: the run has \"{run_query}\", the judgments have \
         \"{judged_query}\"; are the two of the same collection and split?"
    )]
    NoCommonQuery {
        /// A query of the run.
        run_query: String,
        /// A query of the judgments.
        judged_query: String,
    },

    /// Two evaluations over different queries cannot be paired.
    #[error(
        "the two evaluations cannot be paired: {reason}; evaluate both against the same judgments \
         with the same measures"
    )]
    NotPaired {
        /// How they differ.
        reason: String,
    },
}

impl EvalError {
    /// The fault of one line.
    pub(crate) fn line(file: &str, line: usize, reason: impl Into<String>) -> Self {
        Self::Line { file: file.to_owned(), line, reason: reason.into() }
    }

    /// A system error with the path it happened on.
    pub(crate) fn io(path: impl Into<String>, source: io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }
}
