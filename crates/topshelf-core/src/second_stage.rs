//! The second stage: gate, cascade of rerankers, blend, threshold, all within a deadline.
//!
//! ```text
//! candidates ─► gate ─┬ ambiguous ─► reranker ─► best `keep` ─► dearer reranker ─► blend ─┬─► answer
//!                     └ clear ─────────────────────────────────────────────────────────────┘
//! ```
//!
//! Every part is off unless set. Each decision stands in the [`SecondStageReport`], and a hit that a
//! reranker has scored carries its signal, so an answer says of each result whether it was read.
//! Candidates that were not read keep the order of the stage before, behind those that were; they
//! are read in that order, so this is also the place they had.
//!
//! **Failover.** A step may have rerankers that stand in for one another, asked in turn until one
//! answers ([`SecondStage::or`]). A reranker fails with an error, with a number of scores that does not
//! fit, with a score that is not finite, or by being late. If none answers, [`OnFailure`] says whether
//! that is an error or the order stays as it was; either way the report has each one's reason. The report
//! names the reranker that answered, with its scale ([`SecondStageReport::answered_by`]).

mod step;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::step::{Outcome, Step, Task};
use crate::blend::{Blend, BlendPolicy, BlendScore};
use crate::calibrate::Calibration;
use crate::call::Call;
use crate::early_stop::EarlyStop;
use crate::error::{Error, Result};
use crate::gate::Gate;
use crate::passage::Query;
use crate::ranking::Ranking;
use crate::report::{DeadlineReport, RerankReport, SecondStageReport, Skipped, ThresholdReport};
use crate::robust::Robust;
use crate::score::Scale;
use crate::scoring::TimedReranker;
use crate::stage::Reranker;

/// The name of the last reranker in signals. Those before it in a cascade are `rerank-1`,
/// `rerank-2` and so on.
pub const RERANK_STAGE: &str = "rerank";

/// Rerankers, cheapest first, and the policies about them. Cheap to clone.
///
/// ```no_run
/// # fn of(cheap: impl topshelf_core::Reranker + 'static, dear: impl topshelf_core::Reranker + 'static)
/// # -> topshelf_core::Result<()> {
/// use std::time::Duration;
/// use topshelf_core::{Policy, SecondStage};
/// let stage = SecondStage::new(cheap).then(dear, 30, None)?;
/// let stage = stage.with_policy(Policy {
///     deadline: Some(Duration::from_millis(150)),
///     ..Policy::default()
/// })?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SecondStage {
    first: Step,
    /// What follows the first step, cheapest first.
    then: Vec<Step>,
    policy: Policy,
}

/// What happens where no reranker of a step answers, or a retriever does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// It is an error.
    #[default]
    Fail,
    /// The order stays as it was, or is made without the retriever, and the report says why.
    KeepOrder,
}

/// When and how the rerankers' scores are used.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Policy {
    /// Skips reranking where the first stage is clear.
    pub gate: Option<Gate>,
    /// Keeps part of the first stage's score.
    pub blend: Option<BlendPolicy>,
    /// How a score becomes a probability.
    pub calibration: Calibration,
    /// Results below this probability are withheld, even if none is left.
    pub min_relevance: Option<f32>,
    /// From the question to the answer, retrieval included.
    pub deadline: Option<Duration>,
    /// What happens where a reranker fails and nobody stands in for it.
    pub on_failure: OnFailure,
}

impl SecondStage {
    /// One reranker over all candidates.
    pub fn new(reranker: impl Reranker + 'static) -> Self {
        let first = Step::new(Arc::new(reranker));
        Self { first, then: Vec::new(), policy: Policy::default() }
    }

    /// Adds a more expensive reranker, which reads the best `keep` of what the one before ordered; with
    /// an early stop it ends once what is left cannot enter the top.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] for a `keep` of 0 and for numbers of the early stop that mean nothing.
    pub fn then(
        mut self,
        reranker: impl Reranker + 'static,
        keep: usize,
        early_stop: Option<EarlyStop>,
    ) -> Result<Self> {
        if keep == 0 {
            let (what, range) = ("how many go on to the next reranker", "1 or more");
            return Err(Error::OutOfRange { what, value: "0".to_owned(), range });
        }
        early_stop.map_or(Ok(()), EarlyStop::check)?;
        self.then.push(Step { keep, early_stop, ..Step::new(Arc::new(reranker)) });
        Ok(self)
    }

    /// Adds a reranker that stands in for those of the last step, if they fail.
    #[must_use]
    pub fn or(mut self, reranker: impl Reranker + 'static) -> Self {
        let last = self.then.last_mut().unwrap_or(&mut self.first);
        last.stand_ins.push(TimedReranker::new(Arc::new(reranker)));
        self
    }

    /// Says which fingerprint the last reranker added had when the setup was made; the report says if it has
    /// another one now.
    #[must_use]
    pub fn expecting(mut self, fingerprint: Option<String>) -> Self {
        self.then.last_mut().unwrap_or(&mut self.first).expected = fingerprint;
        self
    }

    /// Sets when and how scores are used.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] for a number that means nothing, [`Error::GateWithThreshold`] for a
    /// gate beside a threshold: what the gate lets pass has no probability.
    pub fn with_policy(mut self, policy: Policy) -> Result<Self> {
        policy.check()?;
        self.policy = policy;
        Ok(self)
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The rerankers, in their order, without those that stand in for one.
    pub fn rerankers(&self) -> impl Iterator<Item = &dyn Reranker> {
        self.steps().map(|step| step.first.reranker.as_ref())
    }

    /// The reranker of the last step.
    pub fn last(&self) -> &dyn Reranker {
        self.then.last().unwrap_or(&self.first).first.reranker.as_ref()
    }

    /// The reranker that a report is of, which may be one that stood in for another.
    pub fn reranker_of(&self, report: &RerankReport) -> Option<&dyn Reranker> {
        let is_it = |reranker: &&dyn Reranker| {
            let identity = reranker.identity();
            (&identity.name, &identity.fingerprint) == (&report.model, &report.fingerprint)
        };
        self.steps().flat_map(Step::rerankers).find(is_it)
    }

    fn steps(&self) -> impl Iterator<Item = &Step> {
        std::iter::once(&self.first).chain(&self.then)
    }

    /// Reorders the candidates of a query of which the best `top` are wanted. All candidates come back,
    /// save those that the threshold withholds. The policy's deadline counts from when the call began.
    ///
    /// # Errors
    ///
    /// What a reranker answers; [`Error::ScoreCount`] and [`Error::NotFinite`] if its answer does
    /// not fit the question; [`Error::NotAProbability`] if a probability is wanted of its scores and
    /// they are on a scale that has none.
    pub async fn run(
        &self,
        call: &Call,
        query: &Query,
        candidates: &Ranking,
        top: usize,
    ) -> Result<(Ranking, SecondStageReport)> {
        let policy = &self.policy;
        let mut report = SecondStageReport {
            gate: policy.gate.as_ref().map(|gate| gate.look(candidates)),
            skipped: None,
            rerankers: Vec::new(),
            failures: Vec::new(),
            blend: None,
            default_weight: None,
            calibration: policy.calibration.describe(),
            threshold: None,
            deadline: None,
        };
        if report.gate.as_ref().is_some_and(|gate| gate.clear) {
            report.skipped = Some(Skipped::Clear);
            return Ok((candidates.clone(), report));
        }
        let blend = self.blend(query, candidates, &mut report);
        report.blend = blend.as_ref().map(Blend::describe);
        if report.skipped.is_some() {
            return Ok((candidates.clone(), report));
        }

        let asked = call.due_within(policy.deadline);
        let account = asked.part();
        // That of the last step's scores, if it gave any.
        let mut scale = None;
        let mut ranking = candidates.clone();
        for (place, step) in self.steps().enumerate() {
            let stage = self.stage_name(place);
            let task = Task { call: &account, query, stage: &stage, top, is_last: true };
            match step.run(task, ranking, &mut report.failures).await? {
                Outcome::Reranked(rescored, ran) => {
                    (ranking, scale) = (rescored, Some(ran.scale));
                    report.rerankers.push(*ran);
                }
                Outcome::Kept(_, error) if policy.on_failure == OnFailure::Fail => {
                    return Err(error.after_spending(account.spent()));
                }
                Outcome::Kept(same, _) => (ranking, scale) = (same, None),
            }
        }
        if report.rerankers.is_empty() {
            report.skipped = Some(Skipped::Failed);
        }
        if let Some(due) = asked.due() {
            let unscored = report.rerankers.iter().map(|ran| ran.unscored).sum();
            let allowed = due.saturating_duration_since(call.began()).as_secs_f64() * 1e3;
            report.deadline = Some(DeadlineReport { allowed, unscored });
        }
        if scale.is_none() {
            // Nothing is blended without scores of the last step.
            (report.blend, report.default_weight) = (None, None);
        }
        if let Some(scale) = scale {
            self.estimate_relevance(&mut ranking, scale)?;
        }
        if let (Some(blend), Some(_)) = (&blend, scale) {
            ranking = blend.apply(candidates, ranking, RERANK_STAGE, &policy.calibration)?;
        }
        if let Some(min_relevance) = policy.min_relevance {
            let (mut below, mut unscored) = (0, 0);
            ranking = ranking.filtered(|hit| match hit.relevance {
                Some(relevance) if relevance >= min_relevance => true,
                Some(_) => {
                    below += 1;
                    false
                }
                None => {
                    unscored += 1;
                    false
                }
            });
            report.threshold = Some(ThresholdReport { min_relevance, below, unscored });
        }
        Ok((ranking, report))
    }

    /// The blend for this query, and in the report what the default rule has to do with it. Without weight the
    /// rerankers are not asked, unless a threshold needs their scores.
    fn blend(
        &self,
        query: &Query,
        candidates: &Ranking,
        report: &mut SecondStageReport,
    ) -> Option<Blend> {
        let (blend, why) = match self.policy.blend? {
            BlendPolicy::Fixed(blend) => (blend, Skipped::NoWeight),
            BlendPolicy::Robust => match Robust::of(query, candidates, self.last()) {
                Robust::Alone => return None,
                Robust::Blend(blend) => {
                    report.default_weight = Some(blend.weight);
                    return Some(blend);
                }
                Robust::LongQuery(tokens) => {
                    report.default_weight = Some(0.0);
                    let none = Blend { weight: 0.0, rerank: BlendScore::MinMax };
                    (none, Skipped::LongQuery { tokens })
                }
            },
        };
        if blend.weight == 0.0 && self.policy.min_relevance.is_none() {
            report.skipped = Some(why);
        }
        Some(blend)
    }

    /// The name of the reranker at this place in signals.
    fn stage_name(&self, place: usize) -> String {
        if place == self.then.len() {
            RERANK_STAGE.to_owned()
        } else {
            format!("{RERANK_STAGE}-{}", place + 1)
        }
    }

    /// Puts the calibrated probability on each hit that the last reranker scored. Scores without a
    /// meaning as one are an error only where a probability decides something.
    fn estimate_relevance(&self, ranking: &mut Ranking, scale: Scale) -> Result<()> {
        let policy = &self.policy;
        let needed = policy.min_relevance.is_some();
        ranking.set_relevance(|hit| {
            let Some(signal) = hit.signal(RERANK_STAGE) else { return Ok(None) };
            match policy.calibration.probability(signal.score, scale) {
                Ok(probability) => Ok(Some(probability)),
                Err(error) if needed => Err(error),
                Err(_) => Ok(None),
            }
        })
    }
}

impl Policy {
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(blend) = &self.blend {
            blend.check()?;
        }
        if let Some(threshold) = self.min_relevance {
            if !(0.0..=1.0).contains(&threshold) {
                let (what, range) = ("the least relevance", "from 0 to 1");
                return Err(Error::OutOfRange { what, value: threshold.to_string(), range });
            }
            if self.gate.is_some() {
                return Err(Error::GateWithThreshold);
            }
        }
        if let Some(gate) = &self.gate
            && gate.threshold.is_nan()
        {
            let (what, range) = ("the gate's threshold", "a number");
            return Err(Error::OutOfRange { what, value: "NaN".to_owned(), range });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
