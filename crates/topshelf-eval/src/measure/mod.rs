//! The names of effectiveness measures: what can be measured, with its cut-off and the grade from
//! which a document counts as relevant. The formulas are beside it, in `formula.rs`.
//!
//! A name is `KIND[(rel=N)][@K]`, upper or lower case:
//!
//! | canonical | also read | ir_measures | trec_eval | needs `@K` |
//! | --- | --- | --- | --- | --- |
//! | `nDCG@10` | `ndcg@10` | `nDCG@10` | `ndcg_cut_10` | no |
//! | `recall@100` | `R@100` | `R@100` | `recall_100` | yes |
//! | `success@1` | `Success@1` | `Success@1` | `success_1` | yes |
//! | `precision@10` | `P@10` | `P@10` | `P_10` | yes |
//! | `MRR@10` | `RR@10` | `RR@10` | `recip_rank` with a cut | no |
//! | `MAP`, `MAP@10` | `AP` | `AP`, `AP@10` | `map`, `map_cut_10` | no |
//!
//! `rel=N` is the lowest grade that is relevant, 1 unless given, as in `recall(rel=2)@100`. nDCG
//! takes no `rel`: it uses the grades themselves as gains.

mod formula;

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::EvalError;
pub(crate) use formula::JudgedRanking;

/// The lowest grade that is relevant, unless a measure says otherwise.
const DEFAULT_LEVEL: i32 = 1;

/// What is measured, without its parameters. All lie in 0 to 1, higher is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum MeasureKind {
    /// Normalised discounted cumulative gain: linear gain, binary logarithm.
    Ndcg,
    /// The share of the relevant documents that was found.
    Recall,
    /// 1 if a relevant document was found, otherwise 0.
    Success,
    /// The share of the first k places that hold a relevant document.
    Precision,
    /// One over the rank of the first relevant document.
    Mrr,
    /// The average over the relevant documents of the precision at their rank.
    Map,
}

impl MeasureKind {
    /// The canonical name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ndcg => "nDCG",
            Self::Recall => "recall",
            Self::Success => "success",
            Self::Precision => "precision",
            Self::Mrr => "MRR",
            Self::Map => "MAP",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "ndcg" => Self::Ndcg,
            "recall" | "r" => Self::Recall,
            "success" => Self::Success,
            "precision" | "p" => Self::Precision,
            "mrr" | "rr" => Self::Mrr,
            "map" | "ap" => Self::Map,
            _ => return None,
        })
    }

    fn needs_cutoff(self) -> bool {
        matches!(self, Self::Recall | Self::Success | Self::Precision)
    }
}

/// A measure with its cut-off and its relevance level. Reads and prints as text (see the
/// [module](self)), and so it goes into JSON.
///
/// ```
/// use topshelf_eval::Measure;
/// let measure: Measure = "R(rel=2)@100".parse()?;
/// assert_eq!(measure.to_string(), "recall(rel=2)@100");
/// assert!("recall".parse::<Measure>().is_err());
/// # Ok::<(), topshelf_eval::EvalError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Measure {
    kind: MeasureKind,
    cutoff: Option<NonZeroUsize>,
    level: i32,
}

impl Measure {
    /// A measure over the first `cutoff` documents, or over all that were retrieved, with 1 as
    /// the lowest relevant grade.
    ///
    /// # Errors
    /// The cut-off is 0, or it is missing where the measure needs one.
    pub fn new(kind: MeasureKind, cutoff: Option<usize>) -> Result<Self, EvalError> {
        let fault = |reason: &str| EvalError::Measure {
            name: cutoff.map_or(kind.name().to_owned(), |k| format!("{}@{k}", kind.name())),
            reason: reason.to_owned(),
        };
        if cutoff.is_none() && kind.needs_cutoff() {
            return Err(fault("it needs a cut-off, as @10"));
        }
        let cutoff = match cutoff {
            Some(k) => {
                Some(NonZeroUsize::new(k).ok_or_else(|| fault("the cut-off must be 1 or more"))?)
            }
            None => None,
        };
        Ok(Self { kind, cutoff, level: DEFAULT_LEVEL })
    }

    /// The same measure with `level` as the lowest relevant grade.
    ///
    /// # Errors
    /// The level is below 1, or the measure is nDCG, which has none.
    pub fn with_level(self, level: i32) -> Result<Self, EvalError> {
        let reason = if self.kind == MeasureKind::Ndcg {
            "nDCG uses the grades as gains and takes no rel"
        } else if level < 1 {
            "rel must be 1 or more; unjudged documents count as 0"
        } else {
            return Ok(Self { level, ..self });
        };
        Err(EvalError::Measure { name: self.to_string(), reason: reason.to_owned() })
    }

    /// Reads measures separated by commas or white space, dropping repetitions.
    ///
    /// # Errors
    /// One of them cannot be read, or there are none.
    pub fn parse_list(list: &str) -> Result<Vec<Self>, EvalError> {
        let mut measures = Vec::new();
        let names = list.split(|c: char| c == ',' || c.is_whitespace());
        for name in names.filter(|name| !name.is_empty()) {
            let measure = name.parse()?;
            if !measures.contains(&measure) {
                measures.push(measure);
            }
        }
        if measures.is_empty() {
            let reason = "there is none in it".to_owned();
            return Err(EvalError::Measure { name: list.to_owned(), reason });
        }
        Ok(measures)
    }

    /// What is measured.
    pub fn kind(self) -> MeasureKind {
        self.kind
    }

    /// How many documents are looked at; `None` for all that were retrieved.
    pub fn cutoff(self) -> Option<usize> {
        self.cutoff.map(NonZeroUsize::get)
    }

    /// The lowest grade that is relevant; 1 or more.
    pub fn level(self) -> i32 {
        self.level
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            DEFAULT_LEVEL => String::new(),
            level => format!("(rel={level})"),
        };
        let cutoff = self.cutoff.map_or(String::new(), |k| format!("@{k}"));
        f.pad(&format!("{}{level}{cutoff}", self.kind.name()))
    }
}

impl FromStr for Measure {
    type Err = EvalError;

    fn from_str(text: &str) -> Result<Self, EvalError> {
        let fault =
            |reason: &str| EvalError::Measure { name: text.to_owned(), reason: reason.to_owned() };
        let (head, cutoff) = match text.trim().split_once('@') {
            Some((head, k)) => {
                let k = k.parse().map_err(|_| fault("the cut-off is not a whole number"))?;
                (head, Some(k))
            }
            None => (text.trim(), None),
        };
        let (name, level) = match head.split_once('(') {
            Some((name, arguments)) => {
                let level = arguments
                    .strip_suffix(')')
                    .and_then(|argument| argument.trim().strip_prefix("rel"))
                    .and_then(|rest| rest.trim_start().strip_prefix('='))
                    .and_then(|level| level.trim().parse().ok())
                    .ok_or_else(|| fault("the parameter must be written (rel=2)"))?;
                (name, Some(level))
            }
            None => (head, None),
        };
        let kind = MeasureKind::from_name(name).ok_or_else(|| fault("there is no such measure"))?;
        let measure = Self::new(kind, cutoff)?;
        level.map_or(Ok(measure), |level| measure.with_level(level))
    }
}

impl From<Measure> for String {
    fn from(measure: Measure) -> Self {
        measure.to_string()
    }
}

impl TryFrom<String> for Measure {
    type Error = EvalError;

    fn try_from(text: String) -> Result<Self, EvalError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_aliases_print_canonically() {
        for (written, canonical) in [
            ("nDCG@10", "nDCG@10"),
            ("NDCG", "nDCG"),
            ("R@100", "recall@100"),
            ("Recall@5", "recall@5"),
            ("Success@1", "success@1"),
            ("P@10", "precision@10"),
            ("P(rel=2)@10", "precision(rel=2)@10"),
            ("RR@10", "MRR@10"),
            ("mrr", "MRR"),
            ("AP", "MAP"),
            ("ap( rel = 3 )@20", "MAP(rel=3)@20"),
            ("recall(rel=1)@7", "recall@7"),
        ] {
            let measure: Measure = written.parse().unwrap();
            assert_eq!(measure.to_string(), canonical);
            assert_eq!(canonical.parse::<Measure>().unwrap(), measure);
        }
    }

    #[test]
    fn what_cannot_be_measured_is_refused_with_its_reason() {
        for (written, reason) in [
            ("bpref", "no such measure"),
            ("", "no such measure"),
            ("recall", "needs a cut-off"),
            ("P@0", "1 or more"),
            ("nDCG@ten", "whole number"),
            ("nDCG(rel=2)@10", "takes no rel"),
            ("recall(rel=0)@10", "1 or more"),
            ("recall(level=2)@10", "(rel=2)"),
            ("recall(rel=2@10", "(rel=2)"),
        ] {
            let message = written.parse::<Measure>().unwrap_err().to_string();
            assert!(message.contains(reason), "{written}: {message}");
        }
    }

    #[test]
    fn lists_drop_repetitions_and_refuse_nothing() {
        let measures = Measure::parse_list("nDCG@10, R@100  recall@100,").unwrap();
        assert_eq!(measures.len(), 2);
        assert!(Measure::parse_list(" , ").is_err());
    }

    #[test]
    fn json_holds_the_name() {
        let measure: Measure = "MRR@10".parse().unwrap();
        assert_eq!(serde_json::to_string(&measure).unwrap(), "\"MRR@10\"");
        assert_eq!(serde_json::from_str::<Measure>("\"RR@10\"").unwrap(), measure);
    }
}
