//! Retrieve and rerank for RAG: the library's face.
//!
//! # The second stage alone
//!
//! If you have a retriever, this is all there is to it:
//!
//! ```
//! use topshelf::CrossEncoder;
//!
//! # topshelf::Store::open_default()?.find_or_pull("minilm-l12", &())?;
//! let model = CrossEncoder::load("cross-encoder/ms-marco-MiniLM-L12-v2")?;
//!
//! let scores = model.predict(&[
//!     ("How many people live in Berlin?", "Berlin had a population of 3,520,031 in 2016."),
//!     ("How many people live in Berlin?", "Berlin is well known for its museums."),
//! ])?;
//! assert!(scores[0] > 5.0 && scores[1] < 0.0); // logits
//!
//! let documents = ["Berlin is well known for its museums.", "3.5 million people live in Berlin."];
//! let ranked = model.rank("How many people live in Berlin?", &documents, None)?;
//! assert_eq!(ranked[0].index, 1);
//! println!("{:.2} {}", ranked[0].score, ranked[0].text);
//! # Ok::<(), topshelf::ModelError>(())
//! ```
//!
//! # The whole
//!
//! ```
//! use std::sync::Arc;
//! use topshelf::{AddOptions, BiEncoder, Bm25Options, CrossEncoder, Index, Models, Pipeline, Query};
//! use topshelf::{Context, ContextOptions, Settings, Writer, context::estimate_tokens};
//!
//! # let store = topshelf::Store::open_default()?;
//! # store.find_or_pull("bge-small", &())?;
//! # store.find_or_pull("minilm-l12", &())?;
//! # let scratch = tempfile::tempdir()?;
//! # let docs = scratch.path().join("docs");
//! # std::fs::create_dir(&docs)?;
//! # std::fs::write(docs.join("fleas.md"), "# Fleas\n\nA flea lives for up to a year.\n")?;
//! # std::fs::write(docs.join("cats.md"), "# Cats\n\nA cat lives for fifteen years.\n")?;
//! # let folder = scratch.path().join("docs.index");
//! let embedder = Arc::new(BiEncoder::load("BAAI/bge-small-en-v1.5")?);
//!
//! // Add a folder; adding it again later costs only what has changed.
//! let settings = Settings::with_embedder(embedder.as_ref());
//! let writer = Writer::create_or_open(&folder, &settings)?;
//! let models = Models { embedder: Some(embedder.as_ref()), tokens: None };
//! let report = topshelf::add(writer, &[docs], models, &AddOptions::default(), &mut |_| {})?;
//! assert_eq!(report.documents, 2);
//!
//! let index = Index::open(&folder)?;
//! let pipeline = Pipeline::builder()
//!     .retriever(index.bm25(Bm25Options::default()))
//!     .retriever(index.dense(embedder)?)
//!     .reranker(CrossEncoder::load("cross-encoder/ms-marco-MiniLM-L12-v2")?)
//!     .depth(100)
//!     .top(10)
//!     .build()?;
//! let answer = pipeline.run_blocking(&Query::new("How old do fleas get?")?)?;
//! assert!(answer.ranking.hits()[0].passage.document.ends_with("fleas.md"));
//!
//! let options = ContextOptions::default();
//! let context = Context::pack("How old do fleas get?", &answer.ranking, &options, &estimate_tokens)?;
//! println!("{}", context.prompt());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

//!
//! # As it was tuned
//!
//! `topshelf tune` writes a [`Profile`]; the engine builds the pipeline that it describes, as the program does.
//!
//! ```no_run
//! use topshelf::{Engine, EngineOptions, Profile, Query};
//!
//! # fn main() -> Result<(), topshelf::EngineError> {
//! let engine = Engine::open(EngineOptions::default())?;
//! let index = engine.index("docs.index")?;
//! let profile = Profile::open("topshelf.toml")?;
//! let pipeline = engine.pipeline(&index.now(), &profile.setup)?;
//! let answer = pipeline.run_blocking(&Query::new("How old do fleas get?")?)?;
//! # Ok(())
//! # }
//! ```

//! # Features
//!
//! | feature | brings |
//! | --- | --- |
//! | none | the core, and models: [`CrossEncoder`], [`BiEncoder`], [`LateInteraction`], [`LocalModel`] |
//! | `index` | the index |
//! | `cache`, `llm`, `remote`, `tune` | kept scores; language models as rerankers; services; judged queries, tuning, profiles |
//! | `engine` (default) | the engine, and all of the above |
//! | `server` | the HTTP server |
//! | `onnx` | the general ONNX runtime |

#[cfg(feature = "cache")]
pub use topshelf_cache as cache;
#[cfg(feature = "cache")]
pub use topshelf_cache::{
    CacheOptions, CacheStats, CachedReranker, ScoreCache, SharedOptions, SharedStats,
};
pub use topshelf_core::*;
#[cfg(feature = "engine")]
pub use topshelf_engine as engine;
#[cfg(feature = "engine")]
pub use topshelf_engine::{
    Engine, EngineError, EngineOptions, LoadedReranker, OpenIndex, RerankerFamily, ScoreCacheUse,
    ServedModels, UnprovenGate,
};
#[cfg(feature = "tune")]
pub use topshelf_eval as eval;
#[cfg(feature = "index")]
pub use topshelf_index::{
    AddEvent, AddOptions, AddReport, Bm25Retriever, DenseRetriever, EmbedderInfo, FileEntry,
    GivenDocument, Index, IndexError, Language, LateOptions, LateRetriever, Models, OtherChunking,
    Precision, Settings, Stats, StoredTokens, Tier, TokenStats, TokenVectorInfo, Totals, Writer,
    add, add_documents, analyse, check, chunk, graph, ingest, remove, remove_documents,
};
#[cfg(feature = "llm")]
pub use topshelf_llm as llm;
pub use topshelf_models::{
    BiEncoder, Catalogue, CrossEncoder, Family, Isa, IsaError, LateInteraction, LocalModel,
    ModelError, ModelFolder, ModelSpec, QueueCounts, QueueStats, Ranked, Scored, Store, pull,
    store::ModelState,
};
#[cfg(feature = "remote")]
pub use topshelf_remote as remote;
#[cfg(feature = "server")]
pub use topshelf_server as server;
#[cfg(feature = "tune")]
pub use topshelf_tune as tune;
#[cfg(feature = "tune")]
pub use topshelf_tune::Profile;
