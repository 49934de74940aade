//! One step of a cascade: a reranker, and those that stand in for it.

use std::sync::Arc;

use tracing::Instrument as _;
use tracing::field::Empty;

use super::RERANK_STAGE;
use crate::call::Call;
use crate::early_stop::EarlyStop;
use crate::error::{Blame, Error, Result};
use crate::language_model::Usage;
use crate::passage::{Passage, Query};
use crate::ranking::Ranking;
use crate::report::{Failed, RerankFailure, RerankReport, Truncated};
use crate::scoring::{self, Cut, Scored, TimedReranker};
use crate::stage::{ModelIdentity, PassageFailure, RerankOutcome, Reranker};

/// One step of a cascade.
#[derive(Clone)]
pub(super) struct Step {
    /// The one that is asked.
    pub(super) first: TimedReranker,
    /// Those that stand in for it, in the order in which they are asked.
    pub(super) stand_ins: Vec<TimedReranker>,
    /// How many of the best go in.
    pub(super) keep: usize,
    pub(super) early_stop: Option<EarlyStop>,
    /// The fingerprint that the first one had when the setup was made.
    pub(super) expected: Option<String>,
}

/// What a step is asked.
#[derive(Clone, Copy)]
pub(super) struct Task<'a> {
    /// Until when, and on whose account.
    pub(super) call: &'a Call,
    pub(super) query: &'a Query,
    /// The name of the step in signals.
    pub(super) stage: &'a str,
    /// How many of the best are wanted in the end.
    pub(super) top: usize,
    /// Whether no other reranker stands in for the one that is asked.
    pub(super) is_last: bool,
}

/// What a step, or one of its rerankers, made of a ranking.
pub(super) enum Outcome {
    /// A reranker answered.
    Reranked(Ranking, Box<RerankReport>),
    /// None did: the ranking as it was, and why.
    Kept(Ranking, Error),
}

impl Step {
    pub(super) fn new(reranker: Arc<dyn Reranker>) -> Self {
        let first = TimedReranker::new(reranker);
        Self { first, stand_ins: Vec::new(), keep: usize::MAX, early_stop: None, expected: None }
    }

    /// Its rerankers, in the order in which they are asked.
    pub(super) fn rerankers(&self) -> impl Iterator<Item = &dyn Reranker> {
        std::iter::once(&self.first).chain(&self.stand_ins).map(|own| own.reranker.as_ref())
    }

    /// Lets its rerankers score the best `keep` of the ranking, in turn until one answers, and orders
    /// it by these scores.
    pub(super) async fn run(
        &self,
        task: Task<'_>,
        mut ranking: Ranking,
        failures: &mut Vec<RerankFailure>,
    ) -> Result<Outcome> {
        let (mut reranker, mut stand_ins) = (&self.first, self.stand_ins.iter());
        loop {
            let next = stand_ins.next();
            let mut call = task.call.part();
            if let (Some(left), Some(_)) = (call.time_left(), next) {
                // One that hangs leaves half of the time to those that stand in for it.
                call = call.due_at(call.began() + left / 2);
            }
            let own = Task { call: &call, is_last: next.is_none(), ..task };
            match (self.attempt(own, reranker, ranking, failures).await?, next) {
                (Outcome::Kept(kept, _), Some(next)) => (ranking, reranker) = (kept, next),
                (outcome, _) => return Ok(outcome),
            }
        }
    }

    /// Lets one reranker score. If it fails, that stands in `failures`.
    async fn attempt(
        &self,
        task: Task<'_>,
        timed: &TimedReranker,
        ranking: Ranking,
        failures: &mut Vec<RerankFailure>,
    ) -> Result<Outcome> {
        let (call, stage) = (task.call, task.stage);
        let identity = timed.reranker.identity();
        let span = tracing::debug_span!(
            "rerank",
            stage,
            model = identity.name,
            candidates = self.keep.min(ranking.len()),
            pairs = Empty,
            cached = Empty,
            unscored = Empty,
            failed = Empty,
        );
        let scored = self.ask(task, timed, &ranking).instrument(span.clone()).await;
        let mut fail = |reason: String, usage: Usage| {
            span.record("failed", true); // its words may repeat a text
            let milliseconds = call.began().elapsed().as_secs_f64() * 1e3;
            failures.push(RerankFailure {
                model: identity.name.clone(),
                reason,
                usage,
                milliseconds,
            });
        };
        let scored = match scored {
            Ok(scored) => scored,
            Err(failed) if failed.is_of_stage() => {
                fail(failed.to_string(), call.spent());
                return Ok(Outcome::Kept(ranking, failed));
            }
            Err(other) => return Err(other),
        };
        let too_late = scored.too_late(task.is_last, call.last_words());
        if let Some(reason) = too_late.clone().filter(|_| scored.is_nothing_in_time()) {
            fail(reason.clone(), call.spent());
            let error = Error::stage(RERANK_STAGE, Blame::Failure, reason);
            return Ok(Outcome::Kept(ranking, error));
        }
        if let Some(reason) = too_late {
            // What was spent stands with what it answered.
            fail(reason, Usage::default());
        }
        let (ranking, report) = self.order(task, timed.reranker.as_ref(), ranking, scored)?;
        span.record("pairs", report.pairs);
        span.record("cached", report.cached);
        span.record("unscored", report.unscored);
        Ok(Outcome::Reranked(ranking, Box::new(report)))
    }

    /// Whether this is the first reranker, and another model than when the setup was made.
    fn is_changed(&self, identity: &ModelIdentity) -> bool {
        let is_first = self.first.reranker.identity() == identity;
        // What follows a plus says how it is used, which a flag may change: windows, stored vectors.
        let model = |fingerprint: &str| fingerprint.split('+').next().map(str::to_owned);
        let expected = self.expected.as_deref();
        is_first && expected.is_some_and(|own| model(own) != model(&identity.fingerprint))
    }

    /// The passages that are scored.
    fn passages(&self, ranking: &Ranking) -> Vec<Arc<Passage>> {
        let hits = &ranking.hits()[..self.keep.min(ranking.len())];
        hits.iter().map(|hit| Arc::clone(&hit.passage)).collect()
    }

    /// What one reranker says of the passages.
    async fn ask(
        &self,
        task: Task<'_>,
        timed: &TimedReranker,
        ranking: &Ranking,
    ) -> Result<Scored> {
        let hits = &ranking.hits()[..self.keep.min(ranking.len())];
        let before: Vec<f32> = hits.iter().map(|hit| hit.score).collect();
        let enough = self.early_stop.map(|stop| {
            let before = &before;
            move |outcomes: &[RerankOutcome]| stop.is_reached(outcomes, before, task.top)
        });
        let enough = enough.as_ref().map(|enough| enough as &scoring::Enough<'_>);
        timed.score(task.call, task.query, &self.passages(ranking), enough).await
    }

    /// The ranking in the order of the scores, and what there is to report.
    fn order(
        &self,
        task: Task<'_>,
        reranker: &dyn Reranker,
        mut ranking: Ranking,
        scored: Scored,
    ) -> Result<(Ranking, RerankReport)> {
        let passages = self.passages(&ranking);
        let identity = reranker.identity();
        let missing = passages.len() - scored.outcomes.len();
        let mut report = RerankReport {
            model: identity.name.clone(),
            fingerprint: identity.fingerprint.clone(),
            engine: identity.engine.clone(),
            scale: reranker.scale(),
            stage: task.stage.to_owned(),
            pairs: 0,
            cached: 0,
            unscored: if scored.cut == Some(Cut::Deadline) { missing } else { 0 },
            spared: if scored.cut == Some(Cut::Early) { missing } else { 0 },
            query_truncated_tokens: 0,
            truncated: Vec::new(),
            failed: Vec::new(),
            usage: task.call.spent(),
            is_changed: self.is_changed(identity),
            milliseconds: 0.0,
        };
        let mut scores = vec![None; ranking.len()];
        let mut spans = vec![None; passages.len()];
        for (place, (outcome, passage)) in scored.outcomes.into_iter().zip(&passages).enumerate() {
            match outcome {
                Ok(scored) => {
                    report.pairs += 1;
                    report.cached += usize::from(scored.cached);
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
        let ranking = ranking.rescored(task.stage, report.scale, &scores)?;
        report.milliseconds = task.call.began().elapsed().as_secs_f64() * 1e3;
        Ok((ranking, report))
    }
}
