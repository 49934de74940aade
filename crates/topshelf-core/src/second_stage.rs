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
//! answers ([`SecondStage::or_of`]). If none does, [`OnFailure`] says whether that is an error or the
//! order stays as it was; either way the report has each one's reason.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tracing::Instrument as _;
use tracing::field::Empty;

use crate::blend::{Blend, BlendPolicy, BlendScore};
use crate::calibrate::Calibration;
use crate::early_stop::EarlyStop;
use crate::error::{Blame, Error, Result};
use crate::gate::Gate;
use crate::journal::Journal;
use crate::language_model::Usage;
use crate::passage::{Passage, Query};
use crate::ranking::Ranking;
use crate::report::{
    DeadlineReport, Failed, RerankFailure, RerankReport, SecondStageReport, Skipped,
    ThresholdReport, Truncated,
};
use crate::robust::Robust;
use crate::score::Scale;
use crate::scoring::{self, Cut, Pace, Scored};
use crate::stage::{PassageFailure, RerankOutcome, Reranker};

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
/// let stage = SecondStage::new(cheap).then(dear, 30)?;
/// let stage = stage.with_policy(Policy {
///     deadline: Some(Duration::from_millis(150)),
///     ..Policy::default()
/// })?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SecondStage {
    cascade: Vec<Step>,
    policy: Policy,
}

/// One reranker of a cascade.
#[derive(Clone)]
struct Step {
    /// The one that is asked, and those that stand in for it.
    rerankers: Vec<Asked>,
    /// How many of the best go in.
    keep: usize,
    early_stop: Option<EarlyStop>,
}

/// A reranker with what is known of its speed.
#[derive(Clone)]
struct Asked {
    reranker: Arc<dyn Reranker>,
    pace: Arc<Pace>,
}

impl Asked {
    fn new(reranker: Arc<dyn Reranker>) -> Self {
        Self { reranker, pace: Arc::default() }
    }
}

/// What a step made of a ranking.
enum Outcome {
    /// One of its rerankers answered; its scores are on this scale.
    Reranked(Ranking, Box<RerankReport>, Scale),
    /// None did.
    Kept(Ranking),
}

/// What happens where no reranker of a step answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// It is an error.
    #[default]
    Fail,
    /// The order stays as it was, and the report says why.
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
        Self::of(Arc::new(reranker))
    }

    /// [`Self::new`] of a reranker whose kind is known at run time only.
    pub fn of(reranker: Arc<dyn Reranker>) -> Self {
        let rerankers = vec![Asked::new(reranker)];
        let step = Step { rerankers, keep: usize::MAX, early_stop: None };
        Self { cascade: vec![step], policy: Policy::default() }
    }

    /// Adds a dearer reranker, which reads the best `keep` of what the one before ordered.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] for a `keep` of 0.
    pub fn then(self, reranker: impl Reranker + 'static, keep: usize) -> Result<Self> {
        self.then_of(Arc::new(reranker), keep, None)
    }

    /// [`Self::then`] of a reranker whose kind is known at run time only, with an early stop.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] for a `keep` of 0 and for numbers of the early stop that mean nothing.
    pub fn then_of(
        mut self,
        reranker: Arc<dyn Reranker>,
        keep: usize,
        early_stop: Option<EarlyStop>,
    ) -> Result<Self> {
        if keep == 0 {
            let (what, range) = ("how many go on to the next reranker", "1 or more");
            return Err(Error::OutOfRange { what, value: "0".to_owned(), range });
        }
        early_stop.map_or(Ok(()), EarlyStop::check)?;
        self.cascade.push(Step { rerankers: vec![Asked::new(reranker)], keep, early_stop });
        Ok(self)
    }

    /// Adds a reranker that stands in for those of the last step, if they fail.
    #[must_use]
    pub fn or_of(mut self, reranker: Arc<dyn Reranker>) -> Self {
        if let Some(step) = self.cascade.last_mut() {
            step.rerankers.push(Asked::new(reranker));
        }
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
        let firsts = self.cascade.iter().filter_map(|step| step.rerankers.first());
        firsts.map(|asked| asked.reranker.as_ref())
    }

    /// Reorders the candidates of a query that was asked at `asked` and of which the best `top` are
    /// wanted. All candidates come back, save those that the threshold withholds.
    ///
    /// # Errors
    ///
    /// What a reranker answers; [`Error::ScoreCount`] and [`Error::NotFinite`] if its answer does
    /// not fit the question; [`Error::NotAProbability`] if a probability is wanted of its scores and
    /// they are on a scale that has none.
    pub async fn run(
        &self,
        query: &Query,
        candidates: &Ranking,
        top: usize,
        asked: Instant,
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
        }
        let blend = self.blend(query, candidates, &mut report);
        report.blend = blend.as_ref().map(Blend::describe);
        if report.skipped.is_some() {
            return Ok((candidates.clone(), report));
        }

        let until = policy.deadline.map(|deadline| asked + deadline);
        // That of the last step's scores, if it gave any.
        let mut scale = None;
        let mut ranking = candidates.clone();
        for (place, step) in self.cascade.iter().enumerate() {
            let stage = self.stage_name(place);
            let failures = &mut report.failures;
            match step.run(&stage, query, ranking, (top, until), policy, failures).await? {
                Outcome::Reranked(rescored, ran, of_scores) => {
                    (ranking, scale) = (rescored, Some(of_scores));
                    report.rerankers.push(*ran);
                }
                Outcome::Kept(same) => (ranking, scale) = (same, None),
            }
        }
        if report.rerankers.is_empty() {
            report.skipped = Some(Skipped::Failed);
        }
        if let Some(deadline) = policy.deadline {
            let unscored = report.rerankers.iter().map(|ran| ran.unscored).sum();
            let allowed = deadline.as_secs_f64() * 1e3;
            report.deadline = Some(DeadlineReport { allowed, unscored });
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
        let last = self.rerankers().last()?;
        let (blend, why) = match self.policy.blend? {
            BlendPolicy::Fixed(blend) => (blend, Skipped::NoWeight),
            BlendPolicy::Robust => match Robust::of(query, candidates, last) {
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
            report.skipped = report.skipped.or(Some(why));
        }
        Some(blend)
    }

    /// The name of the reranker at this place in signals.
    fn stage_name(&self, place: usize) -> String {
        if place + 1 == self.cascade.len() {
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

impl Step {
    /// Lets its rerankers score the best `keep` of the ranking, in turn until one answers, and orders
    /// it anew. `top` of it are wanted at that moment.
    async fn run(
        &self,
        stage: &str,
        query: &Query,
        ranking: Ranking,
        (top, until): (usize, Option<Instant>),
        policy: &Policy,
        failures: &mut Vec<RerankFailure>,
    ) -> Result<Outcome> {
        let mut error = None;
        for (place, asked) in self.rerankers.iter().enumerate() {
            let start = Instant::now();
            let last = place + 1 == self.rerankers.len();
            // One that hangs leaves half of the time to those that stand in for it.
            let half = |until: Instant| start + until.saturating_duration_since(start) / 2;
            let until = until.map(|until| if last { until } else { half(until) });
            let journal = Journal::nested();
            let span = tracing::debug_span!(
                "rerank",
                stage,
                model = asked.reranker.identity().name,
                candidates = self.keep.min(ranking.len()),
                pairs = Empty,
                cached = Empty,
                unscored = Empty,
                failed = Empty,
            );
            let asking = self.ask(asked, query, &ranking, (top, until));
            let scored = journal.within(asking.instrument(span.clone())).await;
            let mut fail = |reason: String, usage: Usage| {
                span.record("failed", true); // its words may repeat a text
                let model = asked.reranker.identity().name.clone();
                let milliseconds = start.elapsed().as_secs_f64() * 1e3;
                failures.push(RerankFailure { model, reason, usage, milliseconds });
            };
            match scored {
                Ok(scored) => {
                    let too_late = scored.too_late(last, journal.last_words());
                    if let Some(reason) = too_late.clone().filter(|_| scored.is_nothing_in_time()) {
                        fail(reason.clone(), journal.spent());
                        error = Some(Error::stage(RERANK_STAGE, Blame::Failure, reason));
                        continue;
                    }
                    if let Some(reason) = too_late {
                        // What was spent stands with what it answered.
                        fail(reason, Usage::default());
                    }
                    let scale = asked.reranker.scale();
                    let (ranking, mut report) = self.order(asked, stage, ranking, scored, start)?;
                    report.usage = report.usage.at_least(journal.spent());
                    span.record("pairs", report.pairs);
                    span.record("cached", report.cached);
                    span.record("unscored", report.unscored);
                    return Ok(Outcome::Reranked(ranking, Box::new(report), scale));
                }
                Err(failed) if failed.is_of_reranker() => {
                    fail(failed.to_string(), journal.spent());
                    error = Some(failed);
                }
                Err(other) => return Err(other),
            }
        }
        match (error, policy.on_failure) {
            (Some(error), OnFailure::Fail) => {
                let mut spent = Usage::default();
                for failure in failures.iter() {
                    spent += failure.usage;
                }
                Err(error.after_spending(spent))
            }
            _ => Ok(Outcome::Kept(ranking)),
        }
    }

    /// The passages that are scored.
    fn passages(&self, ranking: &Ranking) -> Vec<Arc<Passage>> {
        let hits = &ranking.hits()[..self.keep.min(ranking.len())];
        hits.iter().map(|hit| Arc::clone(&hit.passage)).collect()
    }

    /// What one reranker says of the passages.
    async fn ask(
        &self,
        asked: &Asked,
        query: &Query,
        ranking: &Ranking,
        (top, until): (usize, Option<Instant>),
    ) -> Result<Scored> {
        let hits = &ranking.hits()[..self.keep.min(ranking.len())];
        let before: Vec<f32> = hits.iter().map(|hit| hit.score).collect();
        let enough = self.early_stop.map(|stop| {
            let before = &before;
            move |outcomes: &[RerankOutcome]| stop.is_reached(outcomes, before, top)
        });
        let enough = enough.as_ref().map(|enough| enough as &scoring::Enough<'_>);
        let passages = self.passages(ranking);
        scoring::score(asked.reranker.as_ref(), query, &passages, until, &asked.pace, enough).await
    }

    /// The ranking in the order of the scores, and what there is to tell.
    fn order(
        &self,
        asked: &Asked,
        stage: &str,
        mut ranking: Ranking,
        scored: Scored,
        start: Instant,
    ) -> Result<(Ranking, RerankReport)> {
        let passages = self.passages(&ranking);
        let identity = asked.reranker.identity();
        let missing = passages.len() - scored.outcomes.len();
        let mut report = RerankReport {
            model: identity.name.clone(),
            fingerprint: identity.fingerprint.clone(),
            engine: identity.engine.clone(),
            pairs: 0,
            cached: 0,
            unscored: if scored.cut == Some(Cut::Deadline) { missing } else { 0 },
            spared: if scored.cut == Some(Cut::Early) { missing } else { 0 },
            query_truncated_tokens: 0,
            truncated: Vec::new(),
            failed: Vec::new(),
            usage: Usage::default(),
            milliseconds: 0.0,
        };
        let mut scores = vec![None; ranking.len()];
        let mut spans = vec![None; passages.len()];
        for (place, (outcome, passage)) in scored.outcomes.into_iter().zip(&passages).enumerate() {
            match outcome {
                Ok(scored) => {
                    report.pairs += 1;
                    report.cached += usize::from(scored.cached);
                    report.usage += scored.usage;
                    report.query_truncated_tokens =
                        report.query_truncated_tokens.max(scored.query_truncated_tokens);
                    if scored.truncated_tokens > 0 {
                        let tokens = scored.truncated_tokens;
                        report.truncated.push(Truncated { passage: passage.id.clone(), tokens });
                    }
                    scores[place] = Some(scored.score);
                    spans[place] = scored.span;
                }
                Err(PassageFailure { reason }) => {
                    report.failed.push(Failed { passage: passage.id.clone(), reason });
                }
            }
        }
        ranking.set_spans(&spans);
        let ranking = ranking.rescored(stage, asked.reranker.scale(), &scores)?;
        report.milliseconds = start.elapsed().as_secs_f64() * 1e3;
        Ok((ranking, report))
    }
}

#[cfg(test)]
mod tests;
