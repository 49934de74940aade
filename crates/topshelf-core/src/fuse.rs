//! Fusion: several rankings of one query into one.
//!
//! * Reciprocal rank fusion (Cormack, Clarke, Büttcher, SIGIR 2009):
//!   `score(d) = Σ 1 / (k + rank(d))` over the rankings that hold `d`, ranks from 1, `k` = 60.
//!   It reads ranks only, so it needs no calibration between retrievers.
//! * Weighted sum of normalised scores: min-max to 0..1 or z-score, each over the candidates of
//!   its ranking; a candidate that a ranking lacks gets that ranking's lowest normalised score.
//!
//! Sums are taken in f64 in the order of the rankings and stored as f32.

use std::collections::HashMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ranking::{Hit, Ranking};
use crate::score::Scale;

/// The largest weight of a ranking: sums of scores stay far from what a number can hold.
const MAX_WEIGHT: f32 = 1e6;

/// The name of the fusion stage in signals.
pub const STAGE: &str = "fused";

/// How rankings become one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case")]
pub enum Fusion {
    /// Reciprocal rank fusion.
    Rrf {
        /// How fast the weight falls with the rank; 60 in the paper.
        k: f32,
    },
    /// Weighted sum of normalised scores.
    Weighted {
        /// How scores are made comparable.
        normalisation: Normalisation,
        /// One weight for each ranking, in their order; empty means equal weights.
        weights: Vec<f32>,
    },
}

/// How the scores of one ranking are made comparable with another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalisation {
    /// `(s - min) / (max - min)`; 1 for all if they are equal.
    MinMax,
    /// `(s - mean) / standard deviation`; 0 for all if they are equal.
    ZScore,
}

impl Default for Fusion {
    fn default() -> Self {
        Self::Rrf { k: 60.0 }
    }
}

impl FromStr for Fusion {
    type Err = Error;

    /// Reads `rrf`, `min-max` or `z-score`: the method with its default numbers.
    fn from_str(text: &str) -> Result<Self> {
        let weighted = |normalisation| Self::Weighted { normalisation, weights: Vec::new() };
        match text {
            "rrf" => Ok(Self::default()),
            "min-max" => Ok(weighted(Normalisation::MinMax)),
            "z-score" => Ok(weighted(Normalisation::ZScore)),
            _ => Err(Error::unknown("fusion", text, &Self::NAMES)),
        }
    }
}

impl Fusion {
    /// The names of the methods.
    pub const NAMES: [&'static str; 3] = ["rrf", "min-max", "z-score"];

    /// Whether its numbers mean something for that many rankings, if that is known.
    pub(crate) fn check(&self, rankings: Option<usize>) -> Result<()> {
        match self {
            Self::Rrf { k } if k.is_finite() && *k >= 0.0 => Ok(()),
            Self::Rrf { k } => {
                let (what, range) = ("the k of reciprocal rank fusion", "0 or more");
                Err(Error::OutOfRange { what, value: k.to_string(), range })
            }
            Self::Weighted { weights, .. } => {
                // A single ranking is not fused.
                let rankings = rankings.filter(|count| *count > 1).unwrap_or(weights.len());
                usable_weights(weights, rankings).map(|_| ())
            }
        }
    }

    /// One line for reports: `rrf(k=60)`.
    pub fn describe(&self) -> String {
        match self {
            Self::Rrf { k } => format!("rrf(k={k})"),
            Self::Weighted { normalisation, weights } => {
                let name = match normalisation {
                    Normalisation::MinMax => "min-max",
                    Normalisation::ZScore => "z-score",
                };
                if weights.is_empty() {
                    format!("weighted({name})")
                } else {
                    let weights: Vec<String> = weights.iter().map(ToString::to_string).collect();
                    format!("weighted({name}; {})", weights.join(", "))
                }
            }
        }
    }

    /// Merges `rankings`; the signals of all of them stay on each candidate.
    ///
    /// # Errors
    ///
    /// [`Error::FusionWeights`] if the weights do not fit the rankings or are unusable.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use topshelf_core::{Fusion, Passage, Ranking, Scale};
    /// let passage = |id: &str| Arc::new(Passage::standalone(id, "", "text"));
    /// let bm25 = Ranking::new("bm25", Scale::Bm25, [(passage("a"), 9.0), (passage("b"), 5.0)])?;
    /// let dense = Ranking::new("dense", Scale::Cosine, [(passage("b"), 0.8)])?;
    /// let fused = Fusion::default().fuse(vec![bm25, dense])?;
    /// assert_eq!(fused.hits()[0].passage.id, "b"); // 1/62 + 1/61 beats 1/61
    /// # Ok::<(), topshelf_core::Error>(())
    /// ```
    pub fn fuse(&self, rankings: Vec<Ranking>) -> Result<Ranking> {
        match self {
            Self::Rrf { k } => {
                let contributions: Vec<Vec<f64>> = rankings
                    .iter()
                    .map(|r| {
                        (1..=r.len()).map(|rank| 1.0 / (f64::from(*k) + rank as f64)).collect()
                    })
                    .collect();
                let absent = vec![0.0; rankings.len()];
                merge(rankings, Scale::Rank, &contributions, &absent)
            }
            Self::Weighted { normalisation, weights } => {
                let weights = usable_weights(weights, rankings.len())?;
                let mut absent = Vec::with_capacity(rankings.len());
                let mut contributions = Vec::with_capacity(rankings.len());
                for (ranking, weight) in rankings.iter().zip(&weights) {
                    let scores: Vec<f64> =
                        ranking.hits().iter().map(|hit| f64::from(hit.score)).collect();
                    let normal: Vec<f64> =
                        normalise(&scores, *normalisation).iter().map(|s| s * weight).collect();
                    let lowest = normal.iter().copied().fold(f64::INFINITY, f64::min);
                    absent.push(match normalisation {
                        Normalisation::ZScore if lowest.is_finite() => lowest,
                        // 0 is the lowest of min-max, and nothing is lowest of nothing.
                        Normalisation::ZScore | Normalisation::MinMax => 0.0,
                    });
                    contributions.push(normal);
                }
                merge(rankings, Scale::Normalised, &contributions, &absent)
            }
        }
    }
}

fn usable_weights(weights: &[f32], rankings: usize) -> Result<Vec<f64>> {
    if weights.is_empty() {
        return Ok(vec![1.0; rankings]);
    }
    let usable = weights.len() == rankings
        && weights.iter().all(|w| (0.0..=MAX_WEIGHT).contains(w))
        && weights.iter().any(|w| *w > 0.0);
    if !usable {
        return Err(Error::FusionWeights { weights: weights.len(), rankings });
    }
    Ok(weights.iter().copied().map(f64::from).collect())
}

/// Scores of one ranking made comparable; empty in, empty out.
pub(crate) fn normalise(scores: &[f64], how: Normalisation) -> Vec<f64> {
    let n = scores.len() as f64;
    match how {
        Normalisation::MinMax => {
            let min = scores.iter().copied().fold(f64::INFINITY, f64::min);
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let range = max - min;
            scores.iter().map(|s| if range > 0.0 { (s - min) / range } else { 1.0 }).collect()
        }
        Normalisation::ZScore => {
            let mean = scores.iter().sum::<f64>() / n;
            let deviation = (scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / n).sqrt();
            scores
                .iter()
                .map(|s| if deviation > 0.0 { (s - mean) / deviation } else { 0.0 })
                .collect()
        }
    }
}

/// Sums each candidate's contributions; a ranking that lacks it contributes `absent`.
fn merge(
    rankings: Vec<Ranking>,
    scale: Scale,
    contributions: &[Vec<f64>],
    absent: &[f64],
) -> Result<Ranking> {
    let base: f64 = absent.iter().sum();
    let mut merged: Vec<(Hit, f64)> = Vec::new();
    let mut place: HashMap<String, usize> = HashMap::new();
    for ((ranking, scores), missing) in rankings.into_iter().zip(contributions).zip(absent) {
        for (hit, score) in ranking.into_hits().into_iter().zip(scores) {
            let gain = score - missing;
            if let Some(&at) = place.get(&hit.passage.id) {
                let (known, sum) = &mut merged[at];
                known.signals.extend(hit.signals);
                *sum += gain;
            } else {
                place.insert(hit.passage.id.clone(), merged.len());
                merged.push((hit, base + gain));
            }
        }
    }
    let hits = merged
        .into_iter()
        .map(|(mut hit, sum)| {
            hit.score = sum as f32;
            hit
        })
        .collect();
    Ranking::from_hits(STAGE, scale, hits, Vec::new())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::passage::Passage;

    fn ranking(stage: &str, items: &[(&str, f32)]) -> Ranking {
        let found =
            items.iter().map(|(id, score)| (Arc::new(Passage::standalone(*id, "", "t")), *score));
        Ranking::new(stage, Scale::Bm25, found).unwrap()
    }

    fn order(ranking: &Ranking) -> Vec<&str> {
        ranking.hits().iter().map(|hit| hit.passage.id.as_str()).collect()
    }

    fn weighted(normalisation: Normalisation, weights: &[f32]) -> Fusion {
        Fusion::Weighted { normalisation, weights: weights.to_vec() }
    }

    #[test]
    fn rrf_by_hand() {
        let fused = Fusion::default()
            .fuse(vec![
                ranking("bm25", &[("a", 3.0), ("b", 2.0), ("c", 1.0)]),
                ranking("dense", &[("c", 0.9), ("d", 0.8)]),
            ])
            .unwrap();
        assert_eq!(order(&fused), ["c", "a", "b", "d"]);
        let expected = 1.0 / 63.0 + 1.0 / 61.0;
        assert!((f64::from(fused.hits()[0].score) - expected).abs() < 1e-7);
        assert_eq!(fused.hits()[0].signals.len(), 3);
    }

    #[test]
    fn min_max_by_hand() {
        let rankings = vec![
            ranking("bm25", &[("a", 10.0), ("b", 5.0), ("c", 0.0)]),
            ranking("dense", &[("c", 0.9), ("b", 0.5)]),
        ];
        let fused = weighted(Normalisation::MinMax, &[1.0, 2.0]).fuse(rankings).unwrap();
        assert_eq!(order(&fused), ["c", "a", "b"]);
        assert!((fused.hits()[0].score - 2.0).abs() < 1e-6);
    }

    #[test]
    fn weights_must_fit() {
        for weights in [&[1.0][..], &[1.0, -1.0], &[0.0, 0.0], &[f32::NAN, 1.0]] {
            let rankings = vec![ranking("bm25", &[("a", 1.0)]), ranking("dense", &[("a", 1.0)])];
            let error = weighted(Normalisation::ZScore, weights).fuse(rankings);
            assert!(matches!(error, Err(Error::FusionWeights { .. })));
        }
    }

    #[test]
    fn an_empty_ranking_changes_nothing() {
        for fusion in [
            Fusion::default(),
            weighted(Normalisation::MinMax, &[]),
            weighted(Normalisation::ZScore, &[]),
        ] {
            let full = ranking("bm25", &[("a", 3.0), ("b", 2.0)]);
            let fused = fusion.fuse(vec![full, ranking("dense", &[])]).unwrap();
            assert_eq!(order(&fused), ["a", "b"]);
        }
    }

    proptest! {
        #[test]
        fn fusion_keeps_every_candidate_once_and_ignores_the_order_of_rankings(
            left in proptest::collection::btree_map(0u8..20, -5.0f32..5.0, 0..20),
            right in proptest::collection::btree_map(0u8..20, -5.0f32..5.0, 0..20),
        ) {
            let make = |stage: &str, items: &std::collections::BTreeMap<u8, f32>| {
                let named: Vec<(String, f32)> =
                    items.iter().map(|(id, score)| (format!("d{id:02}"), *score)).collect();
                let borrowed: Vec<(&str, f32)> =
                    named.iter().map(|(id, score)| (id.as_str(), *score)).collect();
                ranking(stage, &borrowed)
            };
            for fusion in [Fusion::default(), weighted(Normalisation::MinMax, &[])] {
                let one = fusion.fuse(vec![make("l", &left), make("r", &right)]).unwrap();
                let other = fusion.fuse(vec![make("r", &right), make("l", &left)]).unwrap();
                let mut ids: Vec<&u8> = left.keys().chain(right.keys()).collect();
                ids.sort_unstable();
                ids.dedup();
                prop_assert_eq!(one.len(), ids.len());
                prop_assert_eq!(order(&one), order(&other));
            }
        }
    }
}
