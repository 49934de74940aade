//! The embedded index: documents in, candidates out.
//!
//! | for | see |
//! | --- | --- |
//! | finding files, decoding, extracting text | [`ingest`] |
//! | cutting documents into passages | [`chunk`] |
//! | adding, updating and removing files | [`add()`], [`remove`] |
//! | what one commit makes visible, the files on disk | [`state`] |
//! | changing an index | [`writer`] |
//! | an open index | [`Index`] |
//! | text to terms, languages | [`analyse`] |
//! | the first stage by words, by meaning, by tokens | [`bm25`], [`dense`], [`tokens`] |
//! | vectors of tokens, late interaction over them | [`tokens`] |
//! | metadata filters | `mask` |
//! | the threads on which retrievers search | `pool` |
//! | the neighbour graph of large indexes, its recall | [`graph`], [`check`] |
//!
//! The crate knows no models: it takes a `dyn Embedder`.

pub mod add;
pub mod analyse;
pub mod bm25;
pub mod check;
pub mod chunk;
pub mod dense;
mod error;
mod files;
pub mod graph;
mod index;
pub mod ingest;
mod mask;
mod pool;
mod reading;
pub mod state;
pub mod tokens;
mod vectors;
pub mod writer;

pub use add::{
    AddEvent, AddOptions, AddReport, GivenDocument, Models, OtherChunking, add, add_documents,
    remove, remove_documents,
};
pub use analyse::Language;
pub use bm25::Bm25Retriever;
pub use dense::DenseRetriever;
pub use error::{IndexError, Result};
pub use files::FileEntry;
pub use index::{Index, Stats, TokenStats};
pub use state::{EmbedderInfo, Precision, Settings, Totals};
pub use tokens::{LateOptions, LateRetriever, StoredTokens, Tier, TokenVectorInfo};
pub use writer::Writer;
