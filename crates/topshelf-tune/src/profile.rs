//! [`Profile`]: a tuned setup in a file, `topshelf.toml`, with the evidence for it.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use topshelf_core::setup::{DEFAULT_TOP, milliseconds};
use topshelf_core::{ContextOptions, FirstStageSetup, OnFailure, SecondStageSetup, Setup};

use crate::error::{Result, TuneError};
use crate::gate::Coverage;

/// The file that commands look for in the working folder.
pub const FILE_NAME: &str = "topshelf.toml";

const HEAD: &str = "\
# A pipeline that was chosen on judged queries. `topshelf search`, `rerank` and `eval` use it where it
# lies in the working folder or is named by --profile; options on the command line go before it.

";

/// A setup with the evidence for it.
///
/// The file has the fields of [`Setup`], without those that are as usual, and the evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// The pipeline.
    pub setup: Setup,
    /// What is known of it; absent in a profile written by hand.
    pub evidence: Option<Evidence>,
}

/// A profile as it is written: parts that are as usual are left out.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileFile {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    top: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deadline_ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on_failure: Option<OnFailure>,
    first_stage: FirstStageSetup,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    second_stage: Option<SecondStageSetup>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    context: Option<ContextOptions>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    evidence: Option<Evidence>,
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
        let own: ProfileFile = toml::from_str(&text).map_err(|error| bad(error.to_string()))?;
        own.read().map_err(|error| bad(error.to_string()))
    }

    /// Writes it; a file that is there is replaced in one step.
    ///
    /// # Errors
    ///
    /// [`TuneError::WriteProfile`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let fail = |source| TuneError::WriteProfile { path: path.to_owned(), source };
        let file = ProfileFile::from(self.clone());
        let text = toml::to_string(&file).map_err(|error| fail(std::io::Error::other(error)))?;
        let beside = path.with_extension("toml.new");
        fs::write(&beside, format!("{HEAD}{text}")).map_err(fail)?;
        fs::rename(&beside, path).map_err(fail)
    }

    /// Whether its gate has been shown to pay; true where there is none.
    pub fn gate_is_shown(&self) -> bool {
        let second = self.setup.second_stage.as_ref();
        let gated = second.is_some_and(|stage| stage.gate.is_some());
        !gated || self.evidence.as_ref().is_some_and(|evidence| evidence.gate.is_some())
    }
}

impl ProfileFile {
    /// The profile that it describes, checked.
    fn read(self) -> topshelf_core::Result<Profile> {
        let usual = Setup::default();
        let setup = Setup {
            // A shallow first stage is not asked for more results than it has candidates.
            top: self.top.unwrap_or(DEFAULT_TOP.min(self.first_stage.depth.max(1))),
            deadline: self.deadline_ms.map(milliseconds).transpose()?,
            on_failure: self.on_failure.unwrap_or(usual.on_failure),
            first_stage: self.first_stage,
            second_stage: self.second_stage,
            context: self.context.unwrap_or(usual.context),
        };
        setup.check()?;
        Ok(Profile { setup, evidence: self.evidence })
    }
}

impl From<Profile> for ProfileFile {
    fn from(profile: Profile) -> Self {
        let Profile { setup, evidence } = profile;
        let usual = Setup::default();
        let Setup { top, deadline, on_failure, first_stage, second_stage, context } = setup;
        Self {
            top: Some(top).filter(|top| *top != usual.top),
            deadline_ms: deadline.map(|time| time.as_secs_f64() * 1e3),
            on_failure: Some(on_failure).filter(|own| *own != usual.on_failure),
            first_stage,
            second_stage,
            context: Some(context).filter(|own| *own != usual.context),
            evidence,
        }
    }
}

#[cfg(test)]
mod tests {
    use topshelf_core::{
        Blend, BlendPolicy, BlendScore, Bm25Options, Calibration, Cascade, CascadeStep, EarlyStop,
        Fusion, Gate, Retrievers, TokenVectorUse, WindowOptions,
    };

    use super::*;

    fn profile() -> Profile {
        let step = |model: &str, keep, early_stop| CascadeStep {
            model: model.to_owned(),
            fingerprint: Some("ab12".to_owned()),
            keep,
            early_stop,
        };
        let stop = EarlyStop { slope: 1.5, intercept: -0.25, bound: 0.5, risk: 0.05 };
        let setup = Setup {
            first_stage: FirstStageSetup {
                retriever: Some(Retrievers::HYBRID),
                depth: 50,
                fusion: Some(Fusion::Rrf { k: 60.0 }),
                bm25: Bm25Options::default(),
            },
            second_stage: Some(SecondStageSetup {
                cascade: Cascade {
                    first: step("small", None, None),
                    then: vec![step("large", Some(20), Some(stop))],
                },
                windows: Some(WindowOptions::default()),
                blend: Some(BlendPolicy::Fixed(Blend {
                    weight: 0.45,
                    rerank: BlendScore::Probability,
                })),
                calibration: Calibration::Isotonic { points: vec![(-1.0, 0.125), (2.0, 0.5)] },
                gate: Some(Gate { signal: "margin:dense:3".parse().unwrap(), threshold: 0.125 }),
                min_relevance: None,
                token_vectors: TokenVectorUse::Stored,
            }),
            ..Setup::default()
        };
        Profile {
            setup,
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
        let setup = Setup {
            top: 7,
            deadline: Some(std::time::Duration::from_millis(150)),
            on_failure: OnFailure::Fail,
            context: ContextOptions { token_budget: 500, ..ContextOptions::default() },
            ..profile().setup.without_reranking()
        };
        let bare = Profile { setup, evidence: None };
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
