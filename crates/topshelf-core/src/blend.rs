//! Blend: the rerank score and the score of the first stage, put together after reranking.
//!
//! `score = w r + (1 - w) f`, where `f` is the candidates' score brought to 0..1 (min-max over the
//! query's candidates) and `r` the rerank score, either as a calibrated probability or brought to
//! 0..1 over the passages that were scored. `w` = 1 orders by the reranker alone, 0 by the first
//! stage alone, which is a legal outcome of fitting and means that the reranker hurts here.
//!
//! Why blend: a reranker on text unlike its training's can fall behind the retrievers it reorders;
//! keeping part of their score bounds the loss. Which weight pays is a question to the user's own
//! judgments.

use std::collections::HashMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::calibrate::Calibration;
use crate::error::{Error, Result};
use crate::fuse::{Normalisation, normalise};
use crate::ranking::Ranking;
use crate::score::Scale;

/// The name of this stage in signals.
pub const STAGE: &str = "blend";

/// How the rerank score and the candidates' score become one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blend {
    /// What the rerank score counts, 0 to 1; the rest is the first stage's.
    pub weight: f32,
    /// How the rerank score is brought to 0..1.
    #[serde(default)]
    pub rerank: BlendScore,
}

/// What a second stage blends with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "BlendWords", into = "BlendWords")]
pub enum BlendPolicy {
    /// The default rule, for those who have no judged queries: see [`crate::robust`].
    Robust,
    /// The same blend for every query.
    Fixed(Blend),
}

/// A blend as it is written: `"robust"`, or its numbers.
#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a blend is \"robust\", or a weight from 0 to 1 with rerank = \"min_max\" or \"probability\""
)]
enum BlendWords {
    Word(String),
    Fixed(Blend),
}

impl TryFrom<BlendWords> for BlendPolicy {
    type Error = Error;

    fn try_from(words: BlendWords) -> Result<Self> {
        match words {
            BlendWords::Word(word) if word == "robust" => Ok(Self::Robust),
            BlendWords::Word(word) => Err(Error::unknown("blend", &word, &["robust"])),
            BlendWords::Fixed(blend) => Ok(Self::Fixed(blend)),
        }
    }
}

impl From<BlendPolicy> for BlendWords {
    fn from(policy: BlendPolicy) -> Self {
        match policy {
            BlendPolicy::Robust => Self::Word("robust".to_owned()),
            BlendPolicy::Fixed(blend) => Self::Fixed(blend),
        }
    }
}

impl BlendPolicy {
    /// One line for reports.
    pub fn describe(&self) -> String {
        match self {
            Self::Robust => "robust blend".to_owned(),
            Self::Fixed(blend) => blend.describe(),
        }
    }

    pub(crate) fn check(self) -> Result<()> {
        match self {
            Self::Robust => Ok(()),
            Self::Fixed(blend) => blend.check(),
        }
    }
}

/// How a rerank score is brought to 0..1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlendScore {
    /// Min-max over the query's scored passages: reads their order and distances, not their level.
    #[default]
    MinMax,
    /// The calibrated probability: where all are poor, all stay low.
    Probability,
}

impl BlendScore {
    /// The names of the ways.
    pub const NAMES: [&'static str; 2] = ["min-max", "probability"];
}

impl FromStr for BlendScore {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "min-max" => Ok(Self::MinMax),
            "probability" => Ok(Self::Probability),
            _ => Err(Error::unknown("way to read rerank scores", text, &Self::NAMES)),
        }
    }
}

impl Blend {
    /// A blend of that weight.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] outside of 0 to 1.
    pub fn new(weight: f32, rerank: BlendScore) -> Result<Self> {
        let own = Self { weight, rerank };
        own.check()?;
        Ok(own)
    }

    pub(crate) fn check(self) -> Result<()> {
        if (0.0..=1.0).contains(&self.weight) {
            return Ok(());
        }
        let value = self.weight.to_string();
        Err(Error::OutOfRange { what: "the blend's weight", value, range: "from 0 to 1" })
    }

    /// One line for reports: `blend(0.60 min-max)`.
    pub fn describe(&self) -> String {
        let rerank = match self.rerank {
            BlendScore::MinMax => "min-max",
            BlendScore::Probability => "probability",
        };
        format!("blend({:.2} {rerank})", self.weight)
    }

    /// Reorders `reranked`, of which the first stage said `candidates`. Passages that the reranker
    /// did not score stay where they are, behind the scored ones.
    ///
    /// # Errors
    ///
    /// [`Error::NotAProbability`] where the calibration does not take the reranker's scale.
    pub fn apply(
        &self,
        candidates: &Ranking,
        reranked: Ranking,
        rerank_stage: &str,
        calibration: &Calibration,
    ) -> Result<Ranking> {
        let fused: Vec<f64> = candidates.hits().iter().map(|hit| f64::from(hit.score)).collect();
        let fused: HashMap<&str, f64> = candidates
            .hits()
            .iter()
            .map(|hit| hit.passage.id.as_str())
            .zip(normalise(&fused, Normalisation::MinMax))
            .collect();
        let scored: Vec<Option<f32>> = reranked
            .hits()
            .iter()
            .map(|hit| hit.signal(rerank_stage).map(|signal| signal.score))
            .collect();
        let present: Vec<f32> = scored.iter().copied().flatten().collect();
        let brought: Vec<f64> = match self.rerank {
            BlendScore::MinMax => {
                let scores: Vec<f64> = present.iter().copied().map(f64::from).collect();
                normalise(&scores, Normalisation::MinMax)
            }
            BlendScore::Probability => present
                .iter()
                .map(|score| Ok(f64::from(calibration.probability(*score, reranked.scale())?)))
                .collect::<Result<_>>()?,
        };
        let weight = f64::from(self.weight);
        let mut brought = brought.into_iter();
        let blended: Vec<Option<f32>> = reranked
            .hits()
            .iter()
            .zip(&scored)
            .map(|(hit, scored)| {
                scored.and_then(|_| brought.next()).map(|rerank| {
                    let first = fused.get(hit.passage.id.as_str()).copied().unwrap_or(0.0);
                    (weight * rerank + (1.0 - weight) * first) as f32
                })
            })
            .collect();
        reranked.rescored(STAGE, Scale::Normalised, &blended)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::passage::Passage;

    fn candidates(scores: &[f32]) -> Ranking {
        let found = scores
            .iter()
            .enumerate()
            .map(|(n, score)| (Arc::new(Passage::standalone(format!("{n:02}"), "", "t")), *score));
        Ranking::new("fused", Scale::Rank, found).unwrap()
    }

    fn ids(ranking: &Ranking) -> Vec<&str> {
        ranking.hits().iter().map(|hit| hit.passage.id.as_str()).collect()
    }

    #[test]
    fn halves_are_weighed_against_each_other() {
        let candidates = candidates(&[3.0, 2.0, 1.0]); // 1, 0.5, 0
        let scores = [Some(-4.0), Some(6.0), Some(4.0)]; // 0, 1, 0.8
        let reranked = candidates.clone().rescored("rerank", Scale::Logit, &scores).unwrap();
        let blend = Blend::new(0.5, BlendScore::MinMax).unwrap();
        let blended = blend.apply(&candidates, reranked, "rerank", &Calibration::Sigmoid).unwrap();
        assert_eq!(ids(&blended), ["01", "00", "02"]);
        assert!((blended.hits()[0].score - 0.75).abs() < 1e-6);
        assert_eq!(blended.scale(), Scale::Normalised);
    }

    #[test]
    fn what_was_not_scored_stays_behind() {
        let candidates = candidates(&[3.0, 2.0, 1.0]);
        let scores = [None, Some(1.0), Some(2.0)];
        let reranked = candidates.clone().rescored("rerank", Scale::Logit, &scores).unwrap();
        let blend = Blend::new(0.0, BlendScore::Probability).unwrap();
        let blended = blend.apply(&candidates, reranked, "rerank", &Calibration::Sigmoid).unwrap();
        assert_eq!(ids(&blended), ["01", "02", "00"]);
        assert!(Blend::new(1.5, BlendScore::MinMax).is_err());
        assert!(Blend::new(f32::NAN, BlendScore::MinMax).is_err());
    }

    proptest! {
        #[test]
        fn the_ends_are_the_two_orders(scores in prop::collection::vec(-9_f32..9.0, 1..20)) {
            let first: Vec<f32> = (0..scores.len()).map(|n| -(n as f32)).collect();
            let candidates = candidates(&first);
            let given: Vec<Option<f32>> = scores.iter().copied().map(Some).collect();
            let reranked = candidates.clone().rescored("rerank", Scale::Logit, &given).unwrap();
            let at = |weight| {
                let blend = Blend::new(weight, BlendScore::MinMax).unwrap();
                blend.apply(&candidates, reranked.clone(), "rerank", &Calibration::Sigmoid).unwrap()
            };
            let at_zero = at(0.0);
            prop_assert_eq!(ids(&at_zero), ids(&candidates));
            // Rounding may make two close scores equal, which the passages' ids then part.
            let at_one = at(1.0);
            let by_score: Vec<f32> =
                at_one.hits().iter().map(|hit| hit.signal("rerank").unwrap().score).collect();
            prop_assert!(by_score.windows(2).all(|w| w[0] >= w[1] - 1e-5));
        }
    }
}
