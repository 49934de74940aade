//! Gate: is the first stage so clear that reranking can be skipped?
//!
//! One number is read off the candidates; at the threshold and above, the first stage is *clear*
//! and the reranker does not run. Which number says anything, and from where, differs between
//! collections, and on many none does: so a gate is fitted on the user's own judged queries and
//! stays off until it has shown there what it saves and what it costs.
//!
//! The signals, over the candidates of one query (`s1` the best score of a retriever, `sk` its
//! k-th, from 1):
//!
//! | signal | value |
//! | --- | --- |
//! | margin | `s1 - sk` |
//! | relative margin | `(s1 - sk) / abs(s1)` |
//! | agreement | the share of the first k that all retrievers have in common |
//! | spread | standard deviation of the first k scores, divided by their mean |
//!
//! A signal that cannot be read (one retriever has nothing to agree with, fewer than k candidates)
//! is no reason to skip.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ranking::Ranking;

/// What is read off the candidates.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum GateSignal {
    /// How far the best is ahead of the k-th.
    Margin {
        /// The stage whose scores are read: `bm25`, `dense`, `fused`.
        stage: String,
        /// The place it is ahead of, 2 or more.
        k: usize,
    },
    /// The same as a share of the best score.
    RelativeMargin {
        /// The stage whose scores are read.
        stage: String,
        /// The place it is ahead of, 2 or more.
        k: usize,
    },
    /// How much of their first k the retrievers have in common.
    Agreement {
        /// How many of each are looked at, 1 or more.
        k: usize,
    },
    /// How far the first k scores lie apart.
    Spread {
        /// The stage whose scores are read.
        stage: String,
        /// How many are looked at, 2 or more.
        k: usize,
    },
}

/// A signal with the value from which the first stage counts as clear.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// What is read.
    pub signal: GateSignal,
    /// From here on reranking is skipped.
    pub threshold: f32,
}

/// What a gate found for one query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateReport {
    /// The signal: `margin:dense:3`.
    pub signal: String,
    /// Its value; absent where it could not be read.
    pub value: Option<f32>,
    /// From where the first stage counts as clear.
    pub threshold: f32,
    /// Whether it was, so that nothing was reranked.
    pub clear: bool,
}

impl Gate {
    /// Looks at one query's candidates.
    pub fn look(&self, candidates: &Ranking) -> GateReport {
        let value = self.signal.value(candidates);
        GateReport {
            signal: self.signal.to_string(),
            value,
            threshold: self.threshold,
            clear: value.is_some_and(|value| value >= self.threshold),
        }
    }
}

impl GateSignal {
    /// The signal's value; `None` where these candidates do not have it.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use topshelf_core::{GateSignal, Passage, Ranking, Scale};
    /// let found = [("a", 9.0), ("b", 6.0)];
    /// let found = found.map(|(id, s)| (Arc::new(Passage::standalone(id, "", "text")), s));
    /// let candidates = Ranking::new("bm25", Scale::Bm25, found)?;
    /// let value = |signal: &str| signal.parse::<GateSignal>().unwrap().value(&candidates);
    /// assert_eq!(value("margin:bm25:2"), Some(3.0));
    /// assert_eq!(value("margin:bm25:3"), None);
    /// assert_eq!(value("agreement:10"), None);
    /// # Ok::<(), topshelf_core::Error>(())
    /// ```
    pub fn value(&self, candidates: &Ranking) -> Option<f32> {
        match self {
            Self::Margin { stage, k } => {
                let scores = best(candidates, stage, *k)?;
                Some((scores[0] - scores[k - 1]) as f32)
            }
            Self::RelativeMargin { stage, k } => {
                let scores = best(candidates, stage, *k)?;
                let margin = (scores[0] - scores[k - 1]) / scores[0].abs();
                margin.is_finite().then_some(margin as f32)
            }
            Self::Spread { stage, k } => {
                let scores = best(candidates, stage, *k)?;
                let n = scores.len() as f64;
                let mean = scores.iter().sum::<f64>() / n;
                let variance = scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / n;
                let spread = variance.sqrt() / mean.abs();
                spread.is_finite().then_some(spread as f32)
            }
            Self::Agreement { k } => agreement(candidates, *k),
        }
    }

    fn check(&self) -> Result<()> {
        let (k, least) = match self {
            Self::Agreement { k } => (*k, 1),
            Self::Margin { k, .. } | Self::RelativeMargin { k, .. } | Self::Spread { k, .. } => {
                (*k, 2)
            }
        };
        if k < least {
            let range = if least == 1 { "1 or more" } else { "2 or more" };
            return Err(Error::OutOfRange { what: "the gate's k", value: k.to_string(), range });
        }
        Ok(())
    }
}

/// The best `k` scores that the stage gave, descending; `None` if there are fewer.
fn best(candidates: &Ranking, stage: &str, k: usize) -> Option<Vec<f64>> {
    let mut scores: Vec<f64> = candidates
        .hits()
        .iter()
        .filter_map(|hit| hit.signal(stage))
        .map(|signal| f64::from(signal.score))
        .collect();
    scores.sort_by(|a, b| b.total_cmp(a));
    scores.truncate(k);
    (scores.len() == k).then_some(scores)
}

/// The share of the first `k` that all retrievers have in common.
fn agreement(candidates: &Ranking, k: usize) -> Option<f32> {
    let retrievers: HashSet<&str> = candidates
        .hits()
        .iter()
        .flat_map(|hit| &hit.signals)
        .map(|signal| signal.stage.as_str())
        .filter(|stage| *stage != candidates.stage())
        .collect();
    if retrievers.len() < 2 {
        return None;
    }
    let common = candidates.hits().iter().filter(|hit| {
        retrievers.iter().all(|stage| hit.signal(stage).is_some_and(|signal| signal.rank <= k))
    });
    Some(common.count() as f32 / k as f32)
}

impl fmt::Display for GateSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Margin { stage, k } => write!(f, "margin:{stage}:{k}"),
            Self::RelativeMargin { stage, k } => write!(f, "relative-margin:{stage}:{k}"),
            Self::Agreement { k } => write!(f, "agreement:{k}"),
            Self::Spread { stage, k } => write!(f, "spread:{stage}:{k}"),
        }
    }
}

impl FromStr for GateSignal {
    type Err = Error;

    /// Reads `margin:dense:3`, `relative-margin:bm25:2`, `spread:fused:10`, `agreement:10`.
    fn from_str(text: &str) -> Result<Self> {
        let unknown = || Error::GateSignal { given: text.to_owned() };
        let parts: Vec<&str> = text.trim().split(':').collect();
        let signal = match parts.as_slice() {
            ["agreement", k] => Self::Agreement { k: k.parse().map_err(|_| unknown())? },
            [kind, stage, k] if !stage.is_empty() => {
                let (stage, k) = ((*stage).to_owned(), k.parse().map_err(|_| unknown())?);
                match *kind {
                    "margin" => Self::Margin { stage, k },
                    "relative-margin" => Self::RelativeMargin { stage, k },
                    "spread" => Self::Spread { stage, k },
                    _ => return Err(unknown()),
                }
            }
            _ => return Err(unknown()),
        };
        signal.check()?;
        Ok(signal)
    }
}

impl FromStr for Gate {
    type Err = Error;

    /// Reads `margin:dense:3>=0.086`.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::Gate { given: text.chars().take(60).collect() };
        let (signal, threshold) = text.split_once(">=").ok_or_else(wrong)?;
        let threshold = threshold.trim().parse().ok().filter(|value: &f32| value.is_finite());
        Ok(Self { signal: signal.parse()?, threshold: threshold.ok_or_else(wrong)? })
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}>={}", self.signal, self.threshold)
    }
}

impl TryFrom<String> for GateSignal {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<GateSignal> for String {
    fn from(signal: GateSignal) -> Self {
        signal.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fuse::Fusion;
    use crate::passage::Passage;
    use crate::score::Scale;

    fn ranking(stage: &str, scale: Scale, found: &[(&str, f32)]) -> Ranking {
        let found = found.iter().map(|(id, s)| (Arc::new(Passage::standalone(*id, "", "t")), *s));
        Ranking::new(stage, scale, found).unwrap()
    }

    fn fused() -> Ranking {
        let bm25 = ranking("bm25", Scale::Bm25, &[("a", 12.0), ("b", 8.0), ("c", 4.0)]);
        let dense = ranking("dense", Scale::Cosine, &[("a", 0.9), ("d", 0.7), ("b", 0.6)]);
        Fusion::default().fuse(vec![bm25, dense]).unwrap()
    }

    fn value(signal: &str) -> Option<f32> {
        signal.parse::<GateSignal>().unwrap().value(&fused())
    }

    #[test]
    fn signals_are_read_off_the_retrievers_scores() {
        assert_eq!(value("margin:bm25:3"), Some(8.0));
        assert!((value("margin:dense:3").unwrap() - 0.3).abs() < 1e-6);
        assert!((value("relative-margin:bm25:2").unwrap() - 1.0 / 3.0).abs() < 1e-6);
        assert_eq!(value("agreement:1"), Some(1.0)); // both have a first
        assert_eq!(value("agreement:3"), Some(2.0 / 3.0)); // a and b
        let spread = value("spread:bm25:3").unwrap(); // deviation 3.266, mean 8
        assert!((spread - 0.408_248).abs() < 1e-5, "{spread}");
        assert_eq!(value("margin:bm25:4"), None);
        assert_eq!(value("margin:splade:2"), None);
    }

    #[test]
    fn a_gate_is_clear_from_its_threshold_on() {
        let gate = |threshold| Gate { signal: "margin:bm25:3".parse().unwrap(), threshold };
        assert!(gate(8.0).look(&fused()).clear);
        assert!(!gate(8.1).look(&fused()).clear);
        let unread = Gate { signal: "margin:bm25:9".parse().unwrap(), threshold: 0.0 };
        assert!(!unread.look(&fused()).clear);
    }

    #[test]
    fn names_come_back_as_they_were_written() {
        for name in ["margin:dense:3", "relative-margin:bm25:2", "spread:fused:10", "agreement:5"] {
            assert_eq!(name.parse::<GateSignal>().unwrap().to_string(), name);
        }
        for wrong in ["", "margin", "margin:bm25", "margin:bm25:1", "agreement:0", "luck:bm25:3"] {
            assert!(wrong.parse::<GateSignal>().is_err(), "{wrong}");
        }
    }
}
