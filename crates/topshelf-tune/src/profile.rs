//! [`Profile`]: a tuned setup in a file, `topshelf.toml`, with the evidence for it.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Result, TuneError};
use crate::gate::Coverage;
use crate::setup::{FirstStage, Reranking, Setup};

/// The file that commands look for in the working folder.
pub const FILE_NAME: &str = "topshelf.toml";

const HEAD: &str = "\
# A pipeline that was chosen on judged queries. `topshelf search`, `rerank` and `eval` use it where it
# lies in the working folder or is named by --profile; options on the command line go before it.

";

/// A setup with the evidence for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Where candidates come from.
    pub first_stage: FirstStage,
    /// What reorders them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_stage: Option<Reranking>,
    /// What is known of it; absent in a profile written by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

/// What was measured of a setup, on queries that it was not chosen by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// The collection.
    pub data: String,
    /// The measure.
    pub measure: String,
    /// The budget.
    pub budget: String,
    /// Queries that it was chosen by.
    pub training: usize,
    /// Queries that it was measured with.
    pub held_out: usize,
    /// The mean of the measure on them.
    pub mean: f64,
    /// Milliseconds of a query: half take no longer.
    pub p50_ms: f64,
    /// 19 of 20 take no longer.
    pub p95_ms: f64,
    /// The calibration's expected error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration_error: Option<f64>,
    /// What the gate saves and loses; absent where there is none, and without it a gate is not
    /// switched on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Coverage>,
}

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    ///
    /// [`TuneError::ReadProfile`], and [`TuneError::BadProfile`] with the line for what cannot be
    /// understood.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = fs::read_to_string(path)
            .map_err(|source| TuneError::ReadProfile { path: path.to_owned(), source })?;
        let bad = |reason: String| TuneError::BadProfile { path: path.to_owned(), reason };
        let own: Self = toml::from_str(&text).map_err(|error| bad(error.to_string()))?;
        if own.first_stage.depth == 0 {
            return Err(bad(topshelf_core::Error::DepthZero.to_string()));
        }
        if own.second_stage.as_ref().is_some_and(|stage| stage.cascade.is_empty()) {
            return Err(bad("second_stage has no reranker in its cascade".to_owned()));
        }
        Ok(own)
    }

    /// Writes it; a file that is there is replaced in one step.
    ///
    /// # Errors
    ///
    /// [`TuneError::WriteProfile`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let fail = |source| TuneError::WriteProfile { path: path.to_owned(), source };
        let text = toml::to_string(self).map_err(|error| fail(std::io::Error::other(error)))?;
        let beside = path.with_extension("toml.new");
        fs::write(&beside, format!("{HEAD}{text}")).map_err(fail)?;
        fs::rename(&beside, path).map_err(fail)
    }

    /// The pipeline, without the evidence.
    pub fn setup(&self) -> Setup {
        let Self { first_stage, second_stage, .. } = self.clone();
        Setup { first_stage, second_stage }
    }

    /// Whether its gate has been shown to pay; true where there is none.
    pub fn gate_is_shown(&self) -> bool {
        let gated = self.second_stage.as_ref().is_some_and(|stage| stage.gate.is_some());
        !gated || self.evidence.as_ref().is_some_and(|evidence| evidence.gate.is_some())
    }
}

#[cfg(test)]
mod tests {
    use topshelf_core::{Blend, BlendScore, Calibration, EarlyStop, Fusion, Gate, WindowOptions};

    use super::*;
    use crate::setup::{Bm25, Retrievers, Step};

    fn profile() -> Profile {
        let step = |model: &str, keep, early_stop| Step {
            model: model.to_owned(),
            fingerprint: Some("ab12".to_owned()),
            keep,
            early_stop,
        };
        let stop = EarlyStop { slope: 1.5, intercept: -0.25, bound: 0.5, risk: 0.05 };
        Profile {
            first_stage: FirstStage {
                retriever: Retrievers::Hybrid,
                depth: 50,
                fusion: Some(Fusion::Rrf { k: 60.0 }),
                bm25: Some(Bm25 { k1: 0.9, b: 0.4, title_weight: 1.0 }),
            },
            second_stage: Some(Reranking {
                cascade: vec![step("small", None, None), step("large", Some(20), Some(stop))],
                windows: Some(WindowOptions::default()),
                blend: Some(Blend { weight: 0.45, rerank: BlendScore::Probability }),
                calibration: Calibration::Isotonic { points: vec![(-1.0, 0.125), (2.0, 0.5)] },
                gate: Some(Gate { signal: "margin:dense:3".parse().unwrap(), threshold: 0.125 }),
            }),
            evidence: Some(Evidence {
                data: "mine".to_owned(),
                measure: "nDCG@10".to_owned(),
                budget: "1 % of nDCG@10".to_owned(),
                training: 30,
                held_out: 31,
                mean: 0.75,
                p50_ms: 80.0,
                p95_ms: 120.0,
                calibration_error: Some(0.02),
                gate: Some(Coverage {
                    queries: 31,
                    skipped: 0.5,
                    skipped_low: 0.25,
                    skipped_high: 0.75,
                    loss: 0.0,
                    loss_low: -0.01,
                    loss_high: 0.01,
                    loss_at_random: 0.05,
                }),
            }),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        profile().save(&path).unwrap();
        assert_eq!(Profile::open(&path).unwrap(), profile());
        assert!(profile().gate_is_shown());
        let bare = Profile { second_stage: None, evidence: None, ..profile() };
        bare.save(&path).unwrap();
        assert_eq!(Profile::open(&path).unwrap(), bare);
        assert!(bare.gate_is_shown());
    }

    #[test]
    fn a_gate_without_evidence_is_not_shown() {
        assert!(!Profile { evidence: None, ..profile() }.gate_is_shown());
    }

    #[test]
    fn what_means_nothing_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        let cases = [
            ("[first_stage]\nretriever = \"words\"\ndepth = 10\n", "line 2"),
            ("[first_stage]\nretriever = \"bm25\"\ndepth = 10\ndeph = 3\n", "deph"),
            ("[first_stage]\nretriever = \"bm25\"\ndepth = 0\n", "depth is 0"),
            (
                "[first_stage]\nretriever = \"bm25\"\ndepth = 5\n[second_stage]\ncascade = []\n",
                "no reranker",
            ),
            ("depth = ", "line 1"),
        ];
        for (text, expected) in cases {
            fs::write(&path, text).unwrap();
            let error = Profile::open(&path).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(FILE_NAME), "{error}");
        }
        assert!(Profile::open(folder.path().join("none.toml")).is_err());
    }
}
