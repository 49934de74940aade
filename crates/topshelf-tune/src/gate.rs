//! Is there a number that tells when reranking can be skipped, and what does it save?
//!
//! For each signal the threshold is sought at which the most queries are skipped while the measure
//! falls by no more than the terms allow. Whether a signal is any good is asked in cross-validation:
//! thresholds from four fifths of the training queries, what they save and lose on the fifth. The
//! signal that saves most within the terms is fitted on all of them, and the held-out half has the
//! last word: unless the terms hold there, too, the gate stays off. It also does where there are too
//! few queries to show anything.
//!
//! What the same share of queries, skipped at random, would lose stands beside it. Where reranking
//! gains little, skipping at random loses little, and that is no merit of the gate.

use serde::{Deserialize, Serialize};
use topshelf_core::{Gate, GateSignal, Ranking, RetrieverKind, Retrievers};
use topshelf_eval::compare_paired;

use crate::error::Result;
use crate::judged::{folds, mean};

/// The seed of resampling: the same figures give the same interval every time.
const SEED: u64 = 1;

/// Queries in each half below which nothing is shown, whatever the figures say.
pub const LEAST_QUERIES: usize = 50;

/// Points of the curve.
const CURVE: usize = 20;

/// When a gate pays.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateTerms {
    /// The share of the measure that may be lost, 0 to 1.
    pub max_loss: f64,
    /// The share of queries that it has to save, 0 to 1.
    pub min_saved: f64,
}

impl Default for GateTerms {
    /// One percent lost, a fifth saved.
    fn default() -> Self {
        Self { max_loss: 0.01, min_saved: 0.2 }
    }
}

/// The best gate there is, and whether it pays.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GateFit {
    /// What had to be shown.
    pub terms: GateTerms,
    /// Signals that were tried.
    pub tried: usize,
    /// The gate; absent where no signal kept the terms in cross-validation.
    pub gate: Option<Gate>,
    /// Whether it is switched on.
    pub accepted: bool,
    /// Why, or why not.
    pub reason: String,
    /// What the gate does on the folds that it was not fitted on.
    pub cross_validated: Option<Coverage>,
    /// What it does on the held-out half.
    pub held_out: Option<Coverage>,
    /// What its signal does there at other thresholds.
    pub curve: Vec<CoveragePoint>,
}

/// What a gate saves and loses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coverage {
    /// Queries it was measured on.
    pub queries: usize,
    /// The share of them that skips reranking, 0 to 1.
    pub skipped: f64,
    /// Lower end of its 95 percent interval (Wilson's).
    pub skipped_low: f64,
    /// Upper end.
    pub skipped_high: f64,
    /// The share of the measure that is lost; negative where skipping gains.
    pub loss: f64,
    /// Lower end of its bootstrap 95 percent interval.
    pub loss_low: f64,
    /// Upper end.
    pub loss_high: f64,
    /// What skipping the same share at random would lose.
    pub loss_at_random: f64,
}

/// A point of the coverage curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CoveragePoint {
    /// From here on reranking is skipped.
    pub threshold: f32,
    /// The share of queries that skips it.
    pub skipped: f64,
    /// The measure.
    pub mean: f64,
    /// The measure where the same share is skipped at random.
    pub mean_at_random: f64,
}

/// One half's queries as a gate sees them.
pub(crate) struct Seen {
    /// The candidates of each.
    pub(crate) candidates: Vec<Ranking>,
    /// The measure with reranking.
    pub(crate) with: Vec<f64>,
    /// And without.
    pub(crate) without: Vec<f64>,
}

/// The signals that candidates of these retrievers have.
pub(crate) fn signals(retrievers: Retrievers) -> Vec<GateSignal> {
    let mut stages: Vec<&str> = retrievers.iter().map(RetrieverKind::name).collect();
    if retrievers.are_fused() {
        stages.push(topshelf_core::fuse::STAGE);
    }
    let mut signals = Vec::new();
    for stage in stages {
        for k in [2, 3, 5, 10] {
            let stage = stage.to_owned();
            signals.push(GateSignal::Margin { stage: stage.clone(), k });
            signals.push(GateSignal::RelativeMargin { stage: stage.clone(), k });
            signals.push(GateSignal::Spread { stage, k });
        }
    }
    if retrievers.are_fused() {
        signals.extend([3, 5, 10].map(|k| GateSignal::Agreement { k }));
    }
    signals
}

/// Seeks a gate on the training half and checks it on the other.
pub(crate) fn fit(
    retriever: Retrievers,
    terms: GateTerms,
    training: &Seen,
    held_out: &Seen,
) -> Result<GateFit> {
    let signals = signals(retriever);
    let n = training.with.len();
    let mut best: Option<(Coverage, &GateSignal)> = None;
    for signal in &signals {
        let values = training.values(signal);
        let mut skips = vec![false; n];
        for (kept, left) in folds(n) {
            if let Some(threshold) = training.threshold(&values, &kept, terms.max_loss) {
                for at in left {
                    skips[at] = values[at].is_some_and(|value| value >= threshold);
                }
            }
        }
        let coverage = training.coverage(&skips)?;
        let better = best.is_none_or(|(known, _)| coverage.skipped > known.skipped);
        if coverage.loss <= terms.max_loss && coverage.skipped > 0.0 && better {
            best = Some((coverage, signal));
        }
    }
    let mut own = GateFit {
        terms,
        tried: signals.len(),
        gate: None,
        accepted: false,
        reason: format!(
            "none of {} signals skips anything within a loss of {} in cross-validation",
            signals.len(),
            percent(terms.max_loss)
        ),
        cross_validated: best.map(|(coverage, _)| coverage),
        held_out: None,
        curve: Vec::new(),
    };
    let Some((crossed, signal)) = best else { return Ok(own) };
    let all: Vec<usize> = (0..n).collect();
    let values = training.values(signal);
    let Some(threshold) = training.threshold(&values, &all, terms.max_loss) else {
        return Ok(own);
    };
    let values = held_out.values(signal);
    let skips: Vec<bool> =
        values.iter().map(|value| value.is_some_and(|value| value >= threshold)).collect();
    let shown = held_out.coverage(&skips)?;
    own.gate = Some(Gate { signal: signal.clone(), threshold });
    own.held_out = Some(shown);
    own.curve = held_out.curve(&values);
    let told = |coverage: &Coverage, whose: &str| {
        let Coverage { skipped, loss, .. } = coverage;
        format!("on the {whose} it skips {} for a loss of {}", percent(*skipped), percent(*loss))
    };
    let (crossed_told, shown_told) =
        (told(&crossed, "left-out folds"), told(&shown, "held-out half"));
    let wanted =
        format!("{} for at most {} is wanted", percent(terms.min_saved), percent(terms.max_loss));
    let keeps = |coverage: &Coverage| {
        coverage.skipped >= terms.min_saved && coverage.loss <= terms.max_loss
    };
    let few = n.min(held_out.with.len()) < LEAST_QUERIES;
    own.accepted = keeps(&crossed) && keeps(&shown) && !few;
    own.reason = if keeps(&crossed) { shown_told } else { crossed_told };
    let enough =
        if few { format!(", and {LEAST_QUERIES} queries in each half") } else { String::new() };
    own.reason = format!("{}; {wanted}{enough}", own.reason);
    if own.accepted && shown.loss_at_random <= terms.max_loss {
        own.reason +=
            "; as many skipped at random would lose as little, since reranking gains little";
    }
    Ok(own)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

impl Seen {
    /// The signal's value for each query.
    fn values(&self, signal: &GateSignal) -> Vec<Option<f32>> {
        self.candidates.iter().map(|candidates| signal.value(candidates)).collect()
    }

    /// The lowest threshold at which these queries lose no more than the share; `None` if skipping
    /// even the clearest costs more.
    fn threshold(&self, values: &[Option<f32>], queries: &[usize], share: f64) -> Option<f32> {
        let mut clearest: Vec<(f32, f64)> = queries
            .iter()
            .filter_map(|at| Some((values[*at]?, self.with[*at] - self.without[*at])))
            .collect();
        clearest.sort_by(|a, b| b.0.total_cmp(&a.0));
        let allowed = share * queries.iter().map(|at| self.with[*at]).sum::<f64>();
        let (mut lost, mut threshold) = (0.0, None);
        // Equal values are skipped together.
        for equal in clearest.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
            lost += equal.iter().map(|(_, gain)| gain).sum::<f64>();
            if lost <= allowed {
                threshold = Some(equal[0].0);
            }
        }
        threshold
    }

    fn coverage(&self, skips: &[bool]) -> Result<Coverage> {
        let n = self.with.len() as f64;
        let gated: Vec<f64> = skips
            .iter()
            .enumerate()
            .map(|(at, skip)| if *skip { self.without[at] } else { self.with[at] })
            .collect();
        let with = mean(self.with.iter().copied());
        let share = |difference: f64| if with > 0.0 { difference / with } else { 0.0 };
        let compared = compare_paired(&gated, &self.with, SEED)?;
        let skipped = skips.iter().filter(|skip| **skip).count() as f64 / n;
        let gain = with - mean(self.without.iter().copied());
        let (skipped_low, skipped_high) = wilson(skipped, n);
        Ok(Coverage {
            queries: skips.len(),
            skipped,
            skipped_low,
            skipped_high,
            loss: share(compared.mean_difference),
            loss_low: share(compared.low),
            loss_high: share(compared.high),
            loss_at_random: share(gain * skipped),
        })
    }

    fn curve(&self, values: &[Option<f32>]) -> Vec<CoveragePoint> {
        let mut sorted: Vec<f32> = values.iter().copied().flatten().collect();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let (with, without) = (mean(self.with.iter().copied()), mean(self.without.iter().copied()));
        let point = |threshold: f32| {
            let skips = |at: usize| values[at].is_some_and(|value| value >= threshold);
            let gated = (0..values.len())
                .map(|at| if skips(at) { self.without[at] } else { self.with[at] });
            let skipped = (0..values.len()).filter(|at| skips(*at)).count();
            let skipped = skipped as f64 / values.len() as f64;
            let mean_at_random = with + (without - with) * skipped;
            CoveragePoint { threshold, skipped, mean: mean(gated), mean_at_random }
        };
        let mut points: Vec<CoveragePoint> = (0..CURVE)
            .filter_map(|step| sorted.get(step * sorted.len() / CURVE).copied().map(point))
            .collect();
        points.extend(sorted.last().copied().map(point));
        points.dedup_by(|a, b| a.threshold.total_cmp(&b.threshold).is_eq());
        points
    }
}

/// What a signal does at each threshold: `with` is the measure with reranking and `without` the one
/// without, for the query of each of the `candidates`.
pub fn curve(
    signal: &GateSignal,
    candidates: Vec<Ranking>,
    with: Vec<f64>,
    without: Vec<f64>,
) -> Vec<CoveragePoint> {
    let seen = Seen { candidates, with, without };
    seen.curve(&seen.values(signal))
}

/// The 95 percent interval of a share that was seen in `n` cases (Wilson, "Probable inference, the
/// law of succession, and statistical inference", JASA 1927).
fn wilson(share: f64, n: f64) -> (f64, f64) {
    const Z: f64 = 1.96;
    let middle = (share + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((middle - half).max(0.0), (middle + half).min(1.0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use topshelf_core::{Passage, Scale};

    use super::*;

    /// Candidates whose first is ahead of the second by the margin.
    fn candidates(margin: f32) -> Ranking {
        let found = [("a", 10.0 + margin), ("b", 10.0)];
        let found = found.map(|(id, s)| (Arc::new(Passage::standalone(id, "", "t")), s));
        Ranking::new("bm25", Scale::Bm25, found).unwrap()
    }

    /// Reranking gains 0.4 where the margin is below 5 (if it tells anything) and nothing elsewhere.
    fn seen(n: usize, telling: bool) -> Seen {
        let margin = |at: usize| (at * 7 % 10) as f32;
        // Half of the queries gain either way; only one way has it to do with the margin.
        let gains =
            |at: usize| if telling { margin(at) < 5.0 } else { (at / 10).is_multiple_of(2) };
        Seen {
            candidates: (0..n).map(|at| candidates(margin(at))).collect(),
            with: vec![0.9; n],
            without: (0..n).map(|at| if gains(at) { 0.5 } else { 0.9 }).collect(),
        }
    }

    #[test]
    fn a_signal_that_tells_is_found_and_switched_on() {
        let terms = GateTerms::default();
        let fitted = fit(Retrievers::BM25, terms, &seen(100, true), &seen(80, true)).unwrap();
        assert!(fitted.accepted, "{fitted:?}");
        let shown = fitted.held_out.unwrap();
        assert!((shown.skipped - 0.5).abs() < 1e-9 && shown.loss.abs() < 1e-9, "{shown:?}");
        assert!(shown.skipped_low > 0.39 && shown.skipped_high < 0.61, "{shown:?}");
        // At random, half of the gain of 0.2 is lost, of a measure of 0.9.
        assert!((shown.loss_at_random - 0.1 / 0.9).abs() < 1e-9);
        assert!(fitted.curve.len() > 5);
    }

    #[test]
    fn a_signal_that_tells_nothing_stays_off() {
        let terms = GateTerms::default();
        let fitted = fit(Retrievers::BM25, terms, &seen(100, false), &seen(80, false)).unwrap();
        assert!(!fitted.accepted, "{fitted:?}");
        assert!(fitted.reason.contains("signals") || fitted.reason.contains("wanted"));
    }

    #[test]
    fn few_queries_show_nothing() {
        let terms = GateTerms::default();
        let fitted = fit(Retrievers::BM25, terms, &seen(100, true), &seen(40, true)).unwrap();
        assert!(!fitted.accepted && fitted.reason.contains("50 queries"), "{fitted:?}");
    }

    #[test]
    fn what_held_only_in_training_stays_off() {
        let terms = GateTerms::default();
        let fitted = fit(Retrievers::BM25, terms, &seen(100, true), &seen(80, false)).unwrap();
        assert!(!fitted.accepted && fitted.gate.is_some(), "{fitted:?}");
        assert!(fitted.reason.contains("held-out half"), "{}", fitted.reason);
    }

    #[test]
    fn wilsons_interval_is_that_of_the_tables() {
        let (low, high) = wilson(0.5, 100.0);
        assert!((low - 0.4038).abs() < 1e-3 && (high - 0.5962).abs() < 1e-3, "{low} {high}");
        assert!(wilson(0.0, 20.0).0.abs() < 1e-9 && wilson(0.0, 20.0).1 > 0.1);
    }
}
