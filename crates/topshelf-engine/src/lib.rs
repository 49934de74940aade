//! From the description of a pipeline to the pipeline: the only assembly there is.
//!
//! ```text
//! defaults ─┐
//! profile  ─┤
//! flags    ─┼─► SetupPatch ─► Setup ─► Engine ─► Pipeline
//! JSON     ─┤                            │
//! keywords ─┘                            └ model store, loaded models, score cache, prices, keys
//! ```
//!
//! The command line, the server and a library's user hand over a [`Setup`](topshelf_core::Setup); the engine
//! loads what it names and puts it together. If two of them could answer the same question differently, this
//! crate would be wrong.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`engine`] | [`Engine`]: what is shared between pipelines |
//! | [`names`] | what the name of a reranker or a language model stands for |
//! | [`models`] | models by their names, each loaded once |
//! | [`stages`] | names and setups to stages |
//! | [`serving`] | an engine that knows a fixed set of models and loads no others |
//! | [`open_index`] | an index that is searched while it changes |
//! | [`mod@resolve`] | profile and patches to a setup |
//! | [`spending`] | prices, and what may be spent |
//! | [`scores`] | where the score cache lies |
//! | [`error`] | one error for all that can go wrong |

pub mod engine;
pub mod error;
pub mod models;
pub mod names;
pub mod open_index;
pub mod resolve;
pub mod scores;
pub mod serving;
pub mod spending;
pub mod stages;

pub use engine::{Engine, EngineOptions, ScoreCacheUse};
pub use error::{EngineError, Result};
pub use models::{LoadedReranker, RerankerFamily};
pub use open_index::OpenIndex;
pub use resolve::{UnprovenGate, resolve};
pub use serving::ServedModels;
