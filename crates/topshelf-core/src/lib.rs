//! The values, seams and policies of Topshelf, free of files, networks and models.
//!
//! Every arrow of the pipeline carries a [`Ranking`]: one query's candidates in one total
//! order. A [`Retriever`] makes one, [`Fusion`] merges several, a [`Reranker`] answers
//! scores that reorder one, and [`Context`] packs the top of one into a prompt. The
//! [`Pipeline`] runs them in that order and reports what ran.
//!
//! Where to look:
//!
//! | for | see |
//! | --- | --- |
//! | what is ranked | [`passage`] |
//! | scores and their scales, the total order | [`score`], [`ranking`] |
//! | the traits that other crates implement | [`stage`] |
//! | reciprocal rank fusion, weighted fusion | [`fuse`] |
//! | metadata conditions | [`filter`] |
//! | retrieve, fuse, rerank, report | [`pipeline`] |
//! | token budget, near-duplicates, citations, templates | [`context`] |

pub mod context;
mod error;
pub mod filter;
pub mod fuse;
pub mod passage;
pub mod pipeline;
pub mod ranking;
pub mod score;
pub mod stage;

pub use context::{Context, ContextOptions, Source};
pub use error::{Blame, Error, Result};
pub use filter::Filter;
pub use fuse::{Fusion, Normalisation};
pub use passage::{Metadata, Passage, Query};
pub use pipeline::{Answer, Pipeline, PipelineBuilder, Report, RerankReport, RetrieverReport};
pub use ranking::{Hit, Ranking, Signal};
pub use score::Scale;
pub use stage::{
    EmbedKind, Embedder, ModelIdentity, PassageFailure, RerankOutcome, RerankScore, Reranker,
    Retriever,
};
