//! Models: where they come from, how text becomes tokens, and how tokens become scores and
//! vectors.
//!
//! | for | see |
//! | --- | --- |
//! | what a model is: family, pooling, prompts, files, golden pair | [`spec`] |
//! | the models that Topshelf knows by name | [`catalogue`] |
//! | a model in a folder of the user's | `folder`, `describe` |
//! | where model files lie on disk, pulling and verifying them | [`store`], [`pull`] |
//! | text to ids, pairs, truncation; in portions; tokens that are kept | [`tokenise`], `portions`, `token_cache` |
//! | ids to hidden states or logits: the [`encoder::Encoder`] seam, the native engine and the ONNX path behind it, and which of them a model gets | [`encoder`], [`native`], `onnx`, [`engine`] |
//! | whose turn it is, and which sequences run together | `queue`, `batch` |
//! | (query, passage) to a logit | [`CrossEncoder`] |
//! | text to a unit vector | [`BiEncoder`] |
//! | text to a unit vector a token, and MaxSim over them | [`LateInteraction`], `projection` |
//! | a prompt to what follows it | [`LocalModel`], [`decoder`] |
//! | the thread that serves a language model to async callers | [`worker`] |

mod batch;
mod bi_encoder;
pub mod catalogue;
mod cross_encoder;
pub mod decoder;
mod describe;
mod digest;
pub mod encoder;
pub mod engine;
mod error;
mod folder;
mod golden;
mod late_interaction;
mod loaded;
pub mod native;
#[cfg(feature = "onnx")]
pub mod onnx;
mod portions;
mod projection;
pub mod pull;
mod queue;
pub mod spec;
pub mod store;
mod token_cache;
pub mod tokenise;
pub mod worker;

pub use bi_encoder::BiEncoder;
pub use catalogue::Catalogue;
pub use cross_encoder::{CrossEncoder, Ranked, Scored};
pub use decoder::LocalModel;
pub use error::{ModelError, Result};
pub use late_interaction::LateInteraction;
pub use queue::{QueueCounts, QueueStats, WAIT_BOUNDS_MS};
pub use spec::{Expansion, Family, ModelFolder, ModelSpec, Pooling, TokenSettings};
pub use store::Store;
pub use token_cache::TokenCacheCounts;
pub use topshelf_kernels::{Isa, IsaError};
