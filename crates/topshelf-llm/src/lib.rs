//! Rerankers that are made of a language model.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`template`] | what a model is asked about a pair, and how its answer is read; golden pairs |
//! | [`pointwise`] | one question for each passage |
//! | [`listwise`] | orders of many passages: sliding window, first token, rounds, tournament |
//! | `letters` | the question for the best one's letter, and its probabilities |
//! | `readings` | what passages are worth over several readings, places and neighbours taken out |
//! | [`boundary`] | pairs or sets, at the boundary of the top only |
//! | [`permutation`] | an order as a model writes it, read and repaired |
//! | [`strategy`] | which of these, by name |
//!
//! They take a `dyn` [`LanguageModel`](topshelf_core::LanguageModel): an endpoint or a model in this process, they cannot
//! tell. What a question is made of stands in it in this order: what is to be done, the query, the
//! passages; so that whoever answers several about one query can keep what they have in common.

pub mod boundary;
mod error;
mod letters;
pub mod listwise;
pub mod permutation;
pub mod pointwise;
mod readings;
pub mod strategy;
pub mod template;

pub use boundary::{Boundary, BoundaryOptions, Comparison};
pub use error::{LlmError, Result};
pub use listwise::{Listwise, Ordering, WindowOptions};
pub use pointwise::Pointwise;
pub use strategy::Strategy;
pub use template::Template;

/// The name of this stage in errors.
const STAGE: &str = "rerank";

/// The first `tokens` of a text by an estimate of four bytes each, whole characters, and how many were
/// cut off.
fn cut(text: &str, tokens: usize) -> (&str, usize) {
    let kept = &text[..text.floor_char_boundary(tokens.saturating_mul(4))];
    (kept, topshelf_core::context::estimate_tokens(&text[kept.len()..]))
}
