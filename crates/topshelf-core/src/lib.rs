//! The values, seams and policies of Topshelf, free of files, networks and models.
//!
//! Every arrow of the pipeline carries a [`Ranking`]: one query's candidates in one total
//! order. A [`Retriever`] makes one, [`Fusion`] merges several, a [`Reranker`] answers
//! scores that reorder one, and [`Context`] packs the top of one into a prompt. The
//! [`Pipeline`] is a [`FirstStage`] and, if wanted, a [`SecondStage`], and reports what ran; when and
//! how rerankers are used is the second stage's [`Policy`]. A [`Call`] goes through all of it.
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
//! | what LLMs do for rerankers | [`language_model`] |
//! | what travels with a request: deadline, withdrawal, account | [`call`] |
//! | the description of a pipeline, and changes to it | [`setup`] |
//! | retrieve, fuse, rerank, report | [`pipeline`], [`report`], [`note`] |
//! | a list of given documents, ranked | [`list`] |
//! | retrievers asked together, and what happens where one has no answer | [`first_stage`] |
//! | cascade, deadline, threshold, and the order of the policies | [`second_stage`] |
//! | whether reranking is worth it for a query | [`gate`] |
//! | rerank score and first stage's score put together | [`blend`] |
//! | what the rerank score counts by default | [`robust`] |
//! | logits to probabilities | [`calibrate`] |
//! | when a dearer reranker can end before the last candidate | [`early_stop`] |
//! | documents that are longer than a reranker reads | [`windows`] |
//! | token budget, near-duplicates, templates; citations in the answer | [`context`], [`citations`] |

pub mod blend;
pub mod calibrate;
pub mod call;
pub mod citations;
pub mod context;
pub mod early_stop;
mod error;
pub mod filter;
pub mod first_stage;
pub mod fuse;
pub mod gate;
pub mod language_model;
pub mod list;
pub mod note;
pub mod passage;
pub mod pipeline;
pub mod ranking;
pub mod report;
pub mod robust;
pub mod score;
mod scoring;
pub mod second_stage;
pub mod setup;
pub mod stage;
pub mod windows;

pub use blend::{Blend, BlendPolicy, BlendScore};
pub use calibrate::Calibration;
pub use call::{Call, WithdrawOnDrop};
pub use citations::Citations;
pub use context::{Context, ContextOptions, Source};
pub use early_stop::EarlyStop;
pub use error::{Blame, Error, Result};
pub use filter::Filter;
pub use first_stage::{Candidates, FirstStage};
pub use fuse::{Fusion, Normalisation};
pub use gate::{Gate, GateReport, GateSignal};
pub use language_model::{
    Alternative, Ask, LanguageModel, Message, Prompt, Role, Tell, Usage, Wanted, Written,
};
pub use list::{ListedDocument, RankedDocument, RankedList};
pub use note::Note;
pub use passage::{MAX_QUERY_CHARS, Metadata, Passage, Query};
pub use pipeline::{Answer, Pipeline, PipelineBuilder};
pub use ranking::{Hit, Ranking, Signal};
pub use report::{
    Report, RerankFailure, RerankReport, RetrieverOutcome, RetrieverReport, SecondStageReport,
};
pub use score::Scale;
pub use second_stage::{OnFailure, Policy, SecondStage};
pub use setup::{
    Bm25Options, Cascade, CascadeStep, DEFAULT_RERANKER, FirstStageSetup, GateChoice,
    LONGEST_DEADLINE, LongDocuments, RetrieverKind, Retrievers, SecondStageSetup, Setup,
    SetupPatch, Survivors, TokenVectorUse,
};
pub use stage::{
    EmbedKind, Embedder, Grain, ModelIdentity, PassageFailure, RerankOutcome, RerankScore,
    Reranker, Retriever, TokenEmbedder, TokenMatch, TokenVectors,
};
pub use windows::{WindowOptions, WindowPool, Windowed};
