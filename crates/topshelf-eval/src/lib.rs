//! Measuring rankings: judgments (qrels), runs and effectiveness measures with the definitions
//! and the tie order of trec_eval, so that a figure printed here can be laid beside a published
//! one.
//!
//! The parts, in the order of an experiment:
//!
//! | module | what it does |
//! | --- | --- |
//! | [`beir`] | reads a test collection: `corpus.jsonl`, `queries.jsonl`, `qrels/SPLIT.tsv` |
//! | [`qrels`] | who judged what: query, document, grade |
//! | [`run`] | what a system answered: query, documents, scores; TREC run files |
//! | [`measure`] | names of measures, and their formulas |
//! | [`evaluation`] | qrels + run + measures = a figure per query and its mean |
//! | [`compare`](mod@compare) | is the difference between two systems more than chance? |
//! | [`reorder`] | what a second stage did to the order of the first, and what it could have done |
//! | [`latency`] | p50, p95, p99 and mean of durations |
//!
//! ```
//! use topshelf_eval::{evaluate, Measure, Qrels, Run};
//!
//! let qrels = Qrels::read("q1 0 d1 2\nq1 0 d2 1\n".as_bytes(), "qrels")?.qrels;
//! let run = Run::read("q1 Q0 d2 1 9.5 demo\nq1 Q0 d1 2 3.5 demo\n".as_bytes(), "run")?;
//! let measures = Measure::parse_list("nDCG@10, MRR@10")?;
//! let evaluation = evaluate(&qrels, &run, &measures)?;
//! assert!((evaluation.mean(measures[0]).unwrap() - 0.859719).abs() < 1e-6);
//! assert_eq!(evaluation.mean(measures[1]), Some(1.0));
//! # Ok::<(), topshelf_eval::EvalError>(())
//! ```
//!
//! The crate reads and writes files but never asks a pipeline for anything: a system is measured
//! by its run, whoever made it.

pub mod beir;
pub mod compare;
mod error;
pub mod evaluation;
pub mod latency;
mod lines;
pub mod measure;
pub mod qrels;
pub mod reorder;
pub mod run;

pub use beir::{BeirFolder, CorpusDocument, CorpusReader, Topic, Topics};
pub use compare::{Comparison, compare, compare_paired};
pub use error::{EvalError, Result};
pub use evaluation::{Evaluation, MeasureScores, evaluate};
pub use latency::LatencySummary;
pub use measure::{Measure, MeasureKind};
pub use qrels::{Qrels, QrelsFile, QrelsWarning};
pub use reorder::{Moves, Reordering};
pub use run::{Run, RunDocument, Ties};
