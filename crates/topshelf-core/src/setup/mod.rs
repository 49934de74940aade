//! [`Setup`]: the description of a pipeline, and [`SetupPatch`]: a change to one.
//!
//! Whatever a person says, wherever (a profile, flags, a JSON body, keyword arguments), becomes a patch; patches
//! are laid over the default one after the other ([`Setup::with`]); [`Setup::check`] is the one place that
//! checks numbers and combinations. A setup names its models; whoever builds the pipeline loads them.

mod build;
mod milliseconds;
mod patch;
mod retrievers;

use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::patch::{
    GateChoice, LongDocuments, NO_RERANKER, SetupPatch, Survivors, TokenVectorUse,
};
pub use self::retrievers::{RetrieverKind, Retrievers};
use crate::blend::BlendPolicy;
use crate::calibrate::Calibration;
use crate::context::ContextOptions;
use crate::early_stop::EarlyStop;
use crate::error::{Error, Result};
use crate::fuse::Fusion;
use crate::gate::Gate;
use crate::second_stage::OnFailure;
use crate::windows::WindowOptions;

/// The reranker unless another is named.
pub const DEFAULT_RERANKER: &str = "cross-encoder/ms-marco-MiniLM-L12-v2";

/// Candidates unless another number is given.
pub const DEFAULT_DEPTH: usize = 100;

/// Results unless another number is given.
pub const DEFAULT_TOP: usize = 10;

/// The most candidates of a query.
pub const MAX_DEPTH: usize = 100_000;

/// The most rerankers of a cascade, and the most that stand in for one of them.
pub const MAX_RERANKERS: usize = 16;

/// The longest deadline. A longer one is a mistake, such as nanoseconds for milliseconds; no deadline at all is no limit.
pub const LONGEST_DEADLINE: Duration = Duration::from_hours(24);

/// The most bytes of the name of a reranker with those that stand in for it.
const MAX_NAME: usize = 4_096;

/// The most windows of a document.
const MAX_WINDOWS: usize = 1_000;

/// A pipeline, described.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// Results.
    #[serde(default = "default_top")]
    pub top: usize,
    /// The time from query to answer, retrieval included; without limit if absent.
    #[serde(
        default,
        rename = "deadline_ms",
        with = "milliseconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub deadline: Option<Duration>,
    /// What happens where a stage fails and nothing stands in for it.
    #[serde(default = "keep_order")]
    pub on_failure: OnFailure,
    /// Where candidates come from.
    pub first_stage: FirstStageSetup,
    /// What reorders them; absent where nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_stage: Option<SecondStageSetup>,
    /// How results become a prompt.
    #[serde(default)]
    pub context: ContextOptions,
}

/// Where candidates come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirstStageSetup {
    /// Which retrievers; words, and meaning where the index has vectors, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retriever: Option<Retrievers>,
    /// Candidates that each retriever fetches and that are reranked.
    pub depth: usize,
    /// How several rankings become one; the default where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fusion: Option<Fusion>,
    /// The numbers of BM25.
    #[serde(default)]
    pub bm25: Bm25Options,
}

/// The parameters of BM25.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bm25Options {
    /// How slowly repetitions of a term saturate; 0 counts a term once.
    pub k1: f32,
    /// How much long passages are held back: 0 not at all, 1 in full.
    pub b: f32,
    /// What a term in title or headings counts, where one in the text counts 1.
    pub title_weight: f32,
}

impl Default for Bm25Options {
    /// Anserini's.
    fn default() -> Self {
        Self { k1: 0.9, b: 0.4, title_weight: 1.0 }
    }
}

/// What reorders the candidates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecondStageSetup {
    /// The rerankers, cheapest first.
    pub cascade: Cascade,
    /// How documents longer than a reranker's window are read; their head where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windows: Option<WindowOptions>,
    /// Keeps part of the first stage's score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blend: Option<BlendPolicy>,
    /// How a score becomes a probability.
    #[serde(default)]
    pub calibration: Calibration,
    /// Skips reranking where the first stage is clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
    /// Results below this probability are withheld, even if none is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_relevance: Option<f32>,
    /// Whether the index's token vectors are used by late interaction.
    #[serde(default)]
    pub token_vectors: TokenVectorUse,
}

/// The rerankers of a second stage, cheapest first; at least one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<CascadeStep>", into = "Vec<CascadeStep>")]
pub struct Cascade {
    /// The one that reads all candidates.
    pub first: CascadeStep,
    /// More expensive ones, each for the best of the one before.
    pub then: Vec<CascadeStep>,
}

/// One reranker of a cascade.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CascadeStep {
    /// The name by which it is loaded; several with commas between them stand in for one another.
    pub model: String,
    /// Which model it was when this was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// How many of the best it reads; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<usize>,
    /// When it ends before the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<EarlyStop>,
}

fn default_top() -> usize {
    DEFAULT_TOP
}

fn keep_order() -> OnFailure {
    OnFailure::KeepOrder
}

/// A deadline of that many milliseconds: above 0, [`LONGEST_DEADLINE`] at most.
///
/// # Errors
///
/// [`Error::OutOfRange`] for what is no such time.
pub fn milliseconds(number: f64) -> Result<Duration> {
    let time = Duration::try_from_secs_f64(number / 1e3).ok().filter(is_deadline);
    time.ok_or_else(|| {
        let range = "a number of milliseconds above 0 and up to 86400000, which is a day";
        out_of_range("the deadline", number, range)
    })
}

/// Whether a time can be a deadline.
fn is_deadline(time: &Duration) -> bool {
    !time.is_zero() && *time <= LONGEST_DEADLINE
}

fn out_of_range(what: &'static str, value: impl ToString + Copy, range: &'static str) -> Error {
    Error::OutOfRange { what, value: value.to_string(), range }
}

impl Default for Setup {
    /// The default first stage, reranked by [`DEFAULT_RERANKER`].
    fn default() -> Self {
        Self {
            top: DEFAULT_TOP,
            deadline: None,
            on_failure: OnFailure::KeepOrder,
            first_stage: FirstStageSetup::default(),
            second_stage: Some(SecondStageSetup::default()),
            context: ContextOptions::default(),
        }
    }
}

impl Default for FirstStageSetup {
    fn default() -> Self {
        Self { retriever: None, depth: DEFAULT_DEPTH, fusion: None, bm25: Bm25Options::default() }
    }
}

impl Default for SecondStageSetup {
    fn default() -> Self {
        Self {
            windows: Some(WindowOptions::default()),
            blend: Some(BlendPolicy::Robust),
            ..Self::by(DEFAULT_RERANKER)
        }
    }
}

impl Setup {
    /// A first stage and nothing that reorders.
    pub fn of_first_stage(first_stage: FirstStageSetup) -> Self {
        Self { first_stage, second_stage: None, ..Self::default() }
    }

    /// The same with a gate.
    #[must_use]
    pub fn with_gate(mut self, gate: Option<Gate>) -> Self {
        if let Some(second) = &mut self.second_stage {
            second.gate = gate;
        }
        self
    }

    /// The same at another depth.
    #[must_use]
    pub fn at_depth(mut self, depth: usize) -> Self {
        self.first_stage.depth = depth;
        self
    }

    /// The same with nothing that reorders.
    #[must_use]
    pub fn without_reranking(mut self) -> Self {
        self.second_stage = None;
        self
    }

    /// One line for a person: `hybrid rrf(k=60), 50 deep, reranked by minilm, blend(0.45 min-max)`.
    pub fn describe(&self) -> String {
        let FirstStageSetup { depth, fusion, .. } = &self.first_stage;
        let retrievers = self.first_stage.retrievers();
        let mut text = retrievers.to_string();
        if retrievers.are_fused() {
            let _ = write!(text, " {}", fusion.clone().unwrap_or_default().describe()); // a string takes all
        }
        let Some(second) = &self.second_stage else { return text };
        let _ = write!(text, ", {depth} deep, reranked by {}", second.models());
        if let Some(blend) = &second.blend {
            let _ = write!(text, ", {}", blend.describe());
        }
        if let Some(gate) = &second.gate {
            let _ = write!(text, ", unless {} >= {:.4}", gate.signal, gate.threshold);
        }
        text
    }

    /// Whether every number means something and everything goes together.
    ///
    /// # Errors
    ///
    /// [`Error::DepthZero`], [`Error::TopZero`], [`Error::TopExceedsDepth`], [`Error::OutOfRange`],
    /// [`Error::FusionWeights`], [`Error::GateWithThreshold`].
    pub fn check(&self) -> Result<()> {
        let (top, depth) = (self.top, self.first_stage.depth);
        self.first_stage.check()?;
        if top == 0 {
            return Err(Error::TopZero);
        }
        if top > depth {
            return Err(Error::TopExceedsDepth { top, depth });
        }
        if let Some(time) = self.deadline.filter(|time| !is_deadline(time)) {
            let time = format!("{time:?}");
            return Err(out_of_range("the deadline", &time, "a time above 0 and up to a day"));
        }
        if let Some(second) = &self.second_stage {
            second.check()?;
        }
        self.policy().check()?;
        self.context.check()
    }
}

impl FirstStageSetup {
    /// The retrievers, hybrid unless set.
    pub fn retrievers(&self) -> Retrievers {
        self.retriever.unwrap_or(Retrievers::HYBRID)
    }

    /// The same with its retrievers decided: those that are set, or the default for an index which has `there`.
    #[must_use]
    pub fn decided(&self, there: Retrievers) -> Self {
        let usual = if there.contains(RetrieverKind::Dense) {
            Retrievers::HYBRID
        } else {
            Retrievers::BM25
        };
        Self { retriever: self.retriever.or(Some(usual)), ..self.clone() }
    }

    fn check(&self) -> Result<()> {
        let Self { retriever, depth, fusion, bm25 } = self;
        if *depth == 0 {
            return Err(Error::DepthZero);
        }
        if *depth > MAX_DEPTH {
            return Err(out_of_range("the depth", depth, "from 1 to 100000"));
        }
        if let Some(fusion) = fusion {
            // Where the index decides on the retrievers, the weights are compared with them when they are fused.
            fusion.check(retriever.map(|own| own.iter().count()))?;
        }
        let Bm25Options { k1, b, title_weight } = *bm25;
        let is_positive = |number: f32| number.is_finite() && number >= 0.0;
        if !is_positive(k1) {
            return Err(out_of_range("k1 of BM25", k1, "0 or more"));
        }
        if !(0.0..=1.0).contains(&b) {
            return Err(out_of_range("b of BM25", b, "from 0 to 1"));
        }
        if !is_positive(title_weight) {
            return Err(out_of_range("the title weight of BM25", title_weight, "0 or more"));
        }
        Ok(())
    }
}

impl SecondStageSetup {
    /// One reranker over all candidates, no policy.
    pub fn by(model: impl Into<String>) -> Self {
        Self {
            cascade: CascadeStep::of(model).into(),
            windows: None,
            blend: None,
            calibration: Calibration::default(),
            gate: None,
            min_relevance: None,
            token_vectors: TokenVectorUse::default(),
        }
    }

    /// The models' names without their owners, cheapest first.
    pub fn models(&self) -> String {
        let named = self.cascade.iter().map(|step| {
            let name = step.model.rsplit('/').next().unwrap_or(&step.model);
            match (step.keep, step.early_stop) {
                (None, _) => name.to_owned(),
                (Some(keep), None) => format!("{name} ({keep})"),
                (Some(keep), Some(stop)) => {
                    format!("{name} ({keep}, ends early at a risk of {:.0} %)", stop.risk * 100.0)
                }
            }
        });
        named.collect::<Vec<_>>().join(" then ")
    }

    fn check(&self) -> Result<()> {
        if self.cascade.then.len() >= MAX_RERANKERS {
            let steps = self.cascade.then.len() + 1;
            return Err(out_of_range("the number of rerankers", steps, "from 1 to 16"));
        }
        for step in self.cascade.iter() {
            let length = step.model.len();
            if length > MAX_NAME {
                return Err(out_of_range("the length of rerankers' names", length, "up to 4096"));
            }
            let names = step.names().count();
            if names == 0 {
                return Err(Error::NoReranker);
            }
            if names > MAX_RERANKERS {
                return Err(out_of_range("the number of stand-ins", names, "up to 16"));
            }
            if step.keep == Some(0) {
                return Err(out_of_range("how many go on to the next reranker", 0, "1 or more"));
            }
            step.early_stop.map_or(Ok(()), EarlyStop::check)?;
        }
        if let Some(WindowOptions { most, tokens, .. }) = self.windows {
            if !(1..=MAX_WINDOWS).contains(&most) {
                return Err(out_of_range("the windows of a document", most, "from 1 to 1000"));
            }
            if tokens == 0 {
                return Err(out_of_range("the tokens of a window", 0, "1 or more"));
            }
        }
        Ok(())
    }
}

impl Cascade {
    /// The rerankers, cheapest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &CascadeStep> {
        std::iter::once(&self.first).chain(&self.then)
    }

    /// The most expensive one, whose scores order the answer.
    pub fn last(&self) -> &CascadeStep {
        self.then.last().unwrap_or(&self.first)
    }
}

impl From<CascadeStep> for Cascade {
    fn from(first: CascadeStep) -> Self {
        Self { first, then: Vec::new() }
    }
}

impl TryFrom<Vec<CascadeStep>> for Cascade {
    type Error = Error;

    fn try_from(steps: Vec<CascadeStep>) -> Result<Self> {
        let mut steps = steps.into_iter();
        let first = steps.next().ok_or(Error::NoReranker)?;
        Ok(Self { first, then: steps.collect() })
    }
}

impl From<Cascade> for Vec<CascadeStep> {
    fn from(cascade: Cascade) -> Self {
        std::iter::once(cascade.first).chain(cascade.then).collect()
    }
}

impl CascadeStep {
    /// A reranker over all that come to it.
    pub fn of(model: impl Into<String>) -> Self {
        Self { model: model.into(), fingerprint: None, keep: None, early_stop: None }
    }

    /// The reranker and those that stand in for it.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.model.split(',').map(str::trim).filter(|name| !name.is_empty())
    }
}

#[cfg(test)]
mod tests;
