//! [`SetupPatch`]: a change to a setup, every part of it optional.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{CascadeStep, SecondStageSetup, Setup};
use crate::blend::{Blend, BlendPolicy, BlendScore};
use crate::error::{Error, Result};
use crate::fuse::Fusion;
use crate::gate::Gate;
use crate::second_stage::OnFailure;
use crate::setup::Retrievers;
use crate::windows::WindowOptions;

/// The name that means no reranking.
pub const NO_RERANKER: &str = "none";

/// A change to a [`Setup`]; what is absent stays as it is.
///
/// Naming a reranker begins a second stage of its own: the policies of the one before were chosen for its
/// rerankers.
///
/// ```
/// use topshelf_core::{Setup, SetupPatch};
/// let patch = SetupPatch { depth: Some(50), blend: Some(0.7), ..SetupPatch::default() };
/// let setup = Setup::default().with(&patch)?;
/// assert_eq!(setup.first_stage.depth, 50);
/// assert!(setup.second_stage.is_some_and(|own| own.blend.is_some()));
/// # Ok::<(), topshelf_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SetupPatch {
    /// Which retrievers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retriever: Option<Retrievers>,
    /// Candidates of each retriever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<usize>,
    /// How rankings are fused, with the method's default numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fusion: Option<Fusion>,
    /// The k of reciprocal rank fusion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rrf_k: Option<f32>,
    /// The retrievers' weights for the fusions of scores.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<f32>,
    /// BM25: how slowly repetitions of a word saturate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k1: Option<f32>,
    /// BM25: how much long passages are held back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<f32>,
    /// BM25: what a word in title or headings counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title_weight: Option<f32>,
    /// The reranker's name; several with commas between them stand in for one another; `none` for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rerank: Option<String>,
    /// More expensive rerankers for the best of the one before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub then: Vec<Survivors>,
    /// What is read of documents longer than the reranker's window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub long_documents: Option<LongDocuments>,
    /// Windows of a long document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<usize>,
    /// Tokens of a window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_tokens: Option<usize>,
    /// What the rerank score counts, 0 to 1; at 1 it is the rerank score as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blend: Option<f32>,
    /// How the rerank score is brought to 0..1 for the blend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blend_score: Option<BlendScore>,
    /// When reranking is skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateChoice>,
    /// The least probability of a result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_relevance: Option<f32>,
    /// Whether stored token vectors are used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_vectors: Option<TokenVectorUse>,
    /// Results.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top: Option<usize>,
    /// The time from query to answer.
    #[serde(
        rename = "deadline_ms",
        with = "super::milliseconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub deadline: Option<Duration>,
    /// What happens where a stage fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// Tokens that the sources of a prompt may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<usize>,
    /// The template of a prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
}

/// A more expensive reranker for the best of the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Survivors {
    /// Its name.
    pub model: String,
    /// How many it reads.
    pub keep: usize,
}

/// A gate, or that there shall be none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum GateChoice {
    /// Everything is reranked.
    None,
    /// Reranking is skipped where this says so.
    Gate(Gate),
}

/// What is read of documents that are longer than a reranker's window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LongDocuments {
    /// Their most promising windows.
    Windows,
    /// Their beginning, as far as the window goes.
    Head,
}

/// Whether late interaction uses the token vectors of an index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenVectorUse {
    /// Where the index has those of the model.
    #[default]
    Stored,
    /// Never: candidates are encoded for each query.
    Encode,
}

impl FromStr for LongDocuments {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "windows" => Ok(Self::Windows),
            "head" => Ok(Self::Head),
            _ => Err(Error::unknown("way to read long documents", text, &["windows", "head"])),
        }
    }
}

impl FromStr for Survivors {
    type Err = Error;

    /// Reads `MODEL@KEEP`; a model's name may hold an @.
    fn from_str(text: &str) -> Result<Self> {
        let parts = text.rsplit_once('@').filter(|(model, _)| !model.is_empty());
        let parts = parts.and_then(|(model, keep)| Some((model.to_owned(), keep.parse().ok()?)));
        let (model, keep) = parts.filter(|(_, keep)| *keep > 0).ok_or_else(|| {
            let value = text.chars().take(60).collect();
            let range =
                "a model and how many it reads, such as cross-encoder/ms-marco-MiniLM-L12-v2@30";
            Error::OutOfRange { what: "a further reranker", value, range }
        })?;
        Ok(Self { model, keep })
    }
}

impl FromStr for GateChoice {
    type Err = Error;

    /// Reads `none` or `margin:dense:3>=0.086`.
    fn from_str(text: &str) -> Result<Self> {
        if text == "none" { Ok(Self::None) } else { text.parse().map(Self::Gate) }
    }
}

impl TryFrom<String> for GateChoice {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<GateChoice> for String {
    fn from(own: GateChoice) -> Self {
        own.to_string()
    }
}

impl fmt::Display for GateChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.pad("none"),
            Self::Gate(gate) => gate.fmt(f),
        }
    }
}

impl Setup {
    /// This setup with the patch laid over it, checked.
    ///
    /// # Errors
    ///
    /// As [`Self::check`]; [`Error::Conflict`] for parts of the patch that exclude one another.
    pub fn with(&self, patch: &SetupPatch) -> Result<Self> {
        self.with_all(&[patch])
    }

    /// This setup with the patches laid over it in their order, and checked in the end: what one of them sets may
    /// only mean something with what another one does.
    ///
    /// # Errors
    ///
    /// As [`Self::with`].
    pub fn with_all(&self, patches: &[&SetupPatch]) -> Result<Self> {
        let mut own = self.clone();
        for patch in patches {
            own.lay_over(patch)?;
        }
        own.check()?;
        Ok(own)
    }

    fn lay_over(&mut self, patch: &SetupPatch) -> Result<()> {
        let own = self;
        own.patch_first_stage(patch)?;
        own.patch_second_stage(patch)?;
        own.top = patch.top.unwrap_or(own.top);
        own.deadline = patch.deadline.or(own.deadline);
        own.on_failure = patch.on_failure.unwrap_or(own.on_failure);
        own.context.token_budget = patch.budget.unwrap_or(own.context.token_budget);
        if patch.template.is_some() {
            own.context.template.clone_from(&patch.template);
        }
        Ok(())
    }

    fn patch_first_stage(&mut self, patch: &SetupPatch) -> Result<()> {
        let first = &mut self.first_stage;
        first.retriever = patch.retriever.or(first.retriever);
        first.depth = patch.depth.unwrap_or(first.depth);
        if patch.fusion.is_some() {
            first.fusion.clone_from(&patch.fusion);
        }
        if let Some(k) = patch.rrf_k {
            match patch.fusion {
                Some(Fusion::Weighted { .. }) => {
                    return Err(Error::Conflict {
                        one: "the k of reciprocal rank fusion",
                        other: "a fusion of scores",
                    });
                }
                Some(Fusion::Rrf { .. }) | None => first.fusion = Some(Fusion::Rrf { k }),
            }
        }
        if !patch.weights.is_empty() {
            match &mut first.fusion {
                Some(Fusion::Weighted { weights, .. }) => weights.clone_from(&patch.weights),
                Some(Fusion::Rrf { .. }) | None => {
                    return Err(Error::Conflict {
                        one: "weights of the retrievers",
                        other: "reciprocal rank fusion, which reads ranks alone",
                    });
                }
            }
        }
        first.bm25.k1 = patch.k1.unwrap_or(first.bm25.k1);
        first.bm25.b = patch.b.unwrap_or(first.bm25.b);
        first.bm25.title_weight = patch.title_weight.unwrap_or(first.bm25.title_weight);
        Ok(())
    }

    fn patch_second_stage(&mut self, patch: &SetupPatch) -> Result<()> {
        if let Some(name) = &patch.rerank {
            self.second_stage = if name.trim() == NO_RERANKER {
                None
            } else {
                let step = CascadeStep::of(name);
                Some(SecondStageSetup { cascade: step.into(), ..SecondStageSetup::default() })
            };
        }
        if self.second_stage.is_none() && !patch.then.is_empty() {
            if patch.rerank.is_some() {
                return Err(Error::Conflict { one: "a further reranker", other: "no reranking" });
            }
            self.second_stage = Some(SecondStageSetup::default());
        }
        let Some(second) = &mut self.second_stage else { return Ok(()) };
        if !patch.then.is_empty() {
            // Fitted for one cascade, they say nothing of another.
            let SecondStageSetup { cascade, .. } = second;
            let first = cascade.first.clone();
            if patch.rerank.is_none() {
                *second = SecondStageSetup { cascade: first.into(), ..SecondStageSetup::default() };
            }
            let steps = patch
                .then
                .iter()
                .map(|own| CascadeStep { keep: Some(own.keep), ..CascadeStep::of(&own.model) });
            second.cascade.then.extend(steps);
        }
        match patch.long_documents {
            Some(LongDocuments::Head) => second.windows = None,
            Some(LongDocuments::Windows) if second.windows.is_none() => {
                second.windows = Some(WindowOptions::default());
            }
            None if patch.windows.or(patch.window_tokens).is_some() => {
                second.windows.get_or_insert_default();
            }
            Some(LongDocuments::Windows) | None => {}
        }
        match &mut second.windows {
            Some(windows) => {
                windows.most = patch.windows.unwrap_or(windows.most);
                windows.tokens = patch.window_tokens.unwrap_or(windows.tokens);
            }
            None if patch.windows.or(patch.window_tokens).is_some() => {
                return Err(Error::Conflict {
                    one: "numbers of windows",
                    other: "reading the head of documents alone",
                });
            }
            None => {}
        }
        match (patch.blend, patch.blend_score, &mut second.blend) {
            (Some(weight), score, own) => {
                let blend = Blend::new(weight, score.unwrap_or_default())?;
                // With all the weight, it is the rerank score as it is.
                *own = (weight < 1.0).then_some(BlendPolicy::Fixed(blend));
            }
            (None, Some(score), Some(BlendPolicy::Fixed(own))) => own.rerank = score,
            (None, Some(_), _) => {
                return Err(Error::Conflict {
                    one: "a way to read rerank scores for the blend",
                    other: "a blend without a weight of its own",
                });
            }
            (None, None, _) => {}
        }
        match &patch.gate {
            Some(GateChoice::None) => second.gate = None,
            Some(GateChoice::Gate(gate)) => second.gate = Some(gate.clone()),
            None => {}
        }
        second.min_relevance = patch.min_relevance.or(second.min_relevance);
        second.token_vectors = patch.token_vectors.unwrap_or(second.token_vectors);
        Ok(())
    }
}
