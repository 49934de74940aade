//! The index as its user sees it: files in, answers out, and what happens when things go wrong.

#[path = "it/bm25.rs"]
mod bm25;
#[path = "it/chunking.rs"]
mod chunking;
#[path = "it/compaction.rs"]
mod compaction;
#[path = "it/crash.rs"]
mod crash;
#[path = "it/damage.rs"]
mod damage;
#[path = "it/dense.rs"]
mod dense;
#[path = "it/filters.rs"]
mod filters;
#[path = "it/first_stage.rs"]
mod first_stage;
#[path = "it/formats.rs"]
mod formats;
#[path = "it/graph.rs"]
mod graph;
#[path = "it/late.rs"]
mod late;
#[path = "it/support.rs"]
mod support;
#[path = "it/tokens.rs"]
mod tokens;
#[path = "it/update.rs"]
mod update;
