//! The scale that a score is on.
//!
//! Scores of different scales must not be compared or added. Reciprocal rank fusion reads ranks
//! only, weighted fusion demands normalised scores, and a relevance threshold is meaningful only
//! for probabilities; the scale travels with each score so that these rules can be enforced.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a score means, and so what may be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Scale {
    /// Okapi BM25: 0 and up, comparable within one query of one index.
    Bm25,
    /// Cosine of two vectors: -1 to 1.
    Cosine,
    /// Inner product: unbounded.
    Dot,
    /// Sum over query tokens of the best inner product.
    MaxSim,
    /// Raw output of a cross-encoder: unbounded, monotone in relevance.
    Logit,
    /// Probability of relevance: 0 to 1.
    Probability,
    /// A service's own number: it orders, and nothing else is known of it.
    Service,
    /// A function of ranks alone, as reciprocal rank fusion gives.
    Rank,
    /// Normalised to the candidates of one query (min-max or z-score).
    Normalised,
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bm25 => "bm25",
            Self::Cosine => "cosine",
            Self::Dot => "dot",
            Self::MaxSim => "max_sim",
            Self::Logit => "logit",
            Self::Probability => "probability",
            Self::Service => "service",
            Self::Rank => "rank",
            Self::Normalised => "normalised",
        })
    }
}

/// The logistic function: a logit to a number in 0 to 1 that orders as the logit does. It is a
/// probability only as far as the model was trained to make it one.
///
/// ```
/// assert_eq!(topshelf_core::score::sigmoid(0.0), 0.5);
/// ```
pub fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}
