//! Rerank and search over HTTP: `topshelf serve`.
//!
//! ```text
//! connection ─► listen ─► layers ─► dialect ─► admission ─► rerank │ search │ embed ─► dialect ─► answer
//!               TLS,      id, key,  body to    refuse what   the shelf's stages         to the vendor's
//!               idleness  limits    a request  cannot wait   do the work                shape
//! ```
//!
//! The crate knows the seams of `topshelf-core` and nothing of models, files or indexes: what it
//! serves stands behind [`Shelf`], which the program puts together.
//!
//! | for | see |
//! | --- | --- |
//! | what is served | [`shelf`] |
//! | routes, and what every request passes | [`app`] |
//! | connections, shutdown | [`listen`], [`tls`] |
//! | how much is let in | [`admission`] |
//! | documents to an order, whatever the dialect | [`rerank`] |
//! | the shapes of Cohere, Jina, Voyage, TEI, vLLM, OpenAI | [`dialect`] |
//! | the project's own routes | [`native`] |
//! | what an answer looks like in JSON, here and on the command line | [`answer`] |
//! | what can go wrong, and with which status | [`error`] |
//! | a body in JSON to a request | `json` |
//! | limits and switches | [`options`] |
//! | who may ask | [`keys`] |
//! | what operators see | [`metrics`], [`traces`] |
//! | a reranker that is only looked at | [`shadow`] |
//! | the description of the routes | [`openapi`] |
//! | the page at `/` | `page` |

pub mod admission;
pub mod answer;
pub mod app;
pub mod dialect;
pub mod error;
mod json;
pub mod keys;
pub mod listen;
pub mod metrics;
pub mod native;
pub mod openapi;
pub mod options;
mod page;
pub mod rerank;
pub mod shadow;
pub mod shelf;
pub mod tls;
pub mod traces;

pub use app::App;
pub use error::{Result, ServeError};
pub use listen::serve;
pub use options::{Limits, LogQueries, ServeOptions};
pub use shadow::Shadow;
pub use shelf::{
    AddedDocuments, Document, IndexCard, ModelCard, ModelRole, QueueFigures, RemovedDocuments,
    Shelf,
};
pub use traces::Traces;
