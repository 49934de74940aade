//! The score cache: a pair that was scored once is not scored again.
//!
//! A [`CachedReranker`] stands in front of any [`topshelf_core::Reranker`] and asks a [`ScoreCache`]
//! first. Of a hundred passages of which seventy are known, thirty go to the model; two callers that
//! ask for the same pair at the same time share one computation.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`key`] | what makes two pairs the same |
//! | [`entry`] | what is kept of a pair, and how damage is found out |
//! | [`cache`] | the tiers, one behind the other, and their counts |
//! | [`disk`] | the tier that survives a restart |
//! | [`shared`] | the tier that machines share |
//! | `flight` | pairs that are being scored right now |
//! | [`reranker`] | a reranker with a cache in front |
//!
//! The one rule: **a cache may cost time, never an answer and never a right score.** Whatever is
//! damaged, full, slow or out of reach counts as a miss, is counted, and stands in the
//! [`CacheStats`]. This is sound because a pair's score does not depend on its neighbours in a batch.

pub mod cache;
pub mod disk;
pub mod entry;
mod flight;
pub mod key;
pub mod reranker;
pub mod shared;

pub use cache::{CacheOptions, CacheStats, ScoreCache};
pub use disk::{DiskError, DiskStats};
pub use key::PairKey;
pub use reranker::CachedReranker;
pub use shared::{SharedError, SharedOptions, SharedStats};
