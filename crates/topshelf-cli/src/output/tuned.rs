//! What `tune` answers. Every figure is one of the held-out half, except where it says otherwise.

use schemars::JsonSchema;
use serde::Serialize;
use topshelf::eval::Comparison;
use topshelf::tune::gate::Coverage;
use topshelf::tune::outcome::{Against, Check, Figures, Tuned};
use topshelf::tune::rate::Paid;

use crate::commands::verdict;

/// What `tune` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TuneAnswer {
    /// The collection.
    pub(crate) data: String,
    /// The profile that was written.
    pub(crate) profile: String,
    /// What was tuned for.
    pub(crate) measure: String,
    /// What might be spent, in words.
    pub(crate) budget: String,
    /// Queries that chose.
    pub(crate) training: usize,
    /// Queries that measured.
    pub(crate) held_out: usize,
    /// Setups that were tried.
    pub(crate) searched: usize,
    /// Pairs that were scored to try them.
    pub(crate) pairs: usize,
    /// The rerankers that gain nothing here, or hurt: behind every first stage no weight of their
    /// score was better than none.
    pub(crate) without_gain: Vec<String>,
    /// The chosen pipeline, in one line.
    pub(crate) chosen: String,
    /// What it reaches.
    pub(crate) figures: TunedFigures,
    /// What it reaches without its gate; absent where it has none.
    pub(crate) ungated: Option<TunedFigures>,
    /// The pipelines that one would use untuned.
    pub(crate) baselines: Vec<TunedAgainst>,
    /// The setups of which none is both faster and better than another, fastest first.
    pub(crate) front: Vec<TunedSetup>,
    /// The chosen one at other depths; empty where nothing is reranked.
    pub(crate) depths: Vec<TunedDepth>,
    /// The weight of the rerank score; absent without a blend.
    pub(crate) blend: Option<TunedBlend>,
    /// How scores become probabilities; absent where nothing is reranked.
    pub(crate) calibration: Option<TunedCalibration>,
    /// Whether reranking can be skipped for some queries; absent where nothing is reranked.
    pub(crate) gate: Option<TunedGate>,
    /// Each held-out query.
    pub(crate) per_query: Vec<TunedQuery>,
    /// The chosen one run for real.
    pub(crate) check: TunedCheck,
    /// What was odd.
    pub(crate) warnings: Vec<String>,
}

/// What a setup reaches.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub(crate) struct TunedFigures {
    /// The mean of the measure.
    pub(crate) mean: f64,
    /// The mean time of a query, in milliseconds, as the stages' paces foretell it.
    pub(crate) mean_ms: f64,
    /// Half of the queries take no longer.
    pub(crate) p50_ms: f64,
    /// 19 of 20 take no longer.
    pub(crate) p95_ms: f64,
    /// Pairs scored, mean of a query.
    pub(crate) pairs: f64,
    /// What is paid for a query, mean, as a sample of calls foretells it; absent where nothing is.
    pub(crate) paid: Option<TunedPaid>,
}

/// What a query takes of models and services that are paid by use.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub(crate) struct TunedPaid {
    /// Calls.
    pub(crate) calls: f64,
    /// Tokens that are read.
    pub(crate) input_tokens: f64,
    /// Tokens that are written.
    pub(crate) output_tokens: f64,
    /// Searches, as some rerank services count.
    pub(crate) searches: f64,
    /// What it costs, in USD; absent where no price is known.
    pub(crate) cost: Option<f64>,
}

/// A difference with its interval.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Difference {
    /// The mean difference.
    pub(crate) mean: f64,
    /// Lower end of the 95 percent interval.
    pub(crate) low: f64,
    /// Upper end.
    pub(crate) high: f64,
    /// Of the paired randomisation test.
    pub(crate) p: f64,
    /// `helps`, `hurts` or `cannot be told apart`.
    pub(crate) verdict: String,
}

/// An untuned pipeline.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TunedAgainst {
    /// `hybrid+rerank` and the like.
    pub(crate) name: String,
    /// What it reaches.
    pub(crate) figures: TunedFigures,
    /// The tuned pipeline less this one.
    pub(crate) difference: Difference,
}

/// A setup of the front.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TunedSetup {
    /// In one line.
    pub(crate) pipeline: String,
    /// What it reaches.
    pub(crate) figures: TunedFigures,
    /// Whether it was chosen.
    pub(crate) chosen: bool,
    /// Whether another one is both faster and better on the held-out half.
    pub(crate) dominated: bool,
}

/// The chosen setup at a depth.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TunedDepth {
    /// Candidates.
    pub(crate) depth: usize,
    /// What it reaches.
    pub(crate) figures: TunedFigures,
    /// Against the greatest depth.
    pub(crate) difference: Difference,
    /// Whether it was chosen.
    pub(crate) chosen: bool,
}

/// The weight of the rerank score.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TunedBlend {
    /// 0 to 1.
    pub(crate) weight: f32,
    /// The best weight without each fifth of the training half.
    pub(crate) folds: Vec<f32>,
    /// Weight and mean of the measure.
    pub(crate) curve: Vec<(f32, f64)>,
}

/// A calibration.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TunedCalibration {
    /// In words.
    pub(crate) chosen: String,
    /// Expected calibration error, 0 to 1.
    pub(crate) error: f64,
    /// That of the unfitted sigmoid; absent for scores that it does not read.
    pub(crate) error_of_sigmoid: Option<f64>,
    /// Pairs it was measured on; those without a judgment count as not relevant.
    pub(crate) pairs: usize,
    /// Pairs, mean probability, share relevant; from low to high.
    pub(crate) bins: Vec<(usize, f64, f64)>,
}

/// A gate, and whether it pays.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TunedGate {
    /// `margin:dense:3>=0.0862`; absent where no signal was any good.
    pub(crate) gate: Option<String>,
    /// Whether it is switched on.
    pub(crate) accepted: bool,
    /// Why, or why not.
    pub(crate) reason: String,
    /// Signals that were tried.
    pub(crate) tried: usize,
    /// On the folds of the training half that it was not fitted on.
    pub(crate) cross_validated: Option<TunedCoverage>,
    /// On the held-out half.
    pub(crate) held_out: Option<TunedCoverage>,
    /// The share that skips reranking, the measure, and the measure where as many skip at random.
    pub(crate) curve: Vec<(f64, f64, f64)>,
}

/// What a gate saves and loses.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TunedCoverage {
    /// Queries.
    pub(crate) queries: usize,
    /// The share that skips reranking.
    pub(crate) skipped: f64,
    /// Its 95 percent interval, from.
    pub(crate) skipped_low: f64,
    /// To.
    pub(crate) skipped_high: f64,
    /// The share of the measure that is lost; negative where skipping gains.
    pub(crate) loss: f64,
    /// Its 95 percent interval, from.
    pub(crate) loss_low: f64,
    /// To.
    pub(crate) loss_high: f64,
    /// What skipping as many at random would lose.
    pub(crate) loss_at_random: f64,
}

/// A query before and after.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TunedQuery {
    /// Its id.
    pub(crate) query: String,
    /// The measure with the chosen first stage alone.
    pub(crate) before: f64,
    /// With the chosen pipeline.
    pub(crate) after: f64,
}

/// The chosen pipeline run for real, uncached.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TunedCheck {
    /// Held-out queries that it answered.
    pub(crate) queries: usize,
    /// Those answered as foretold, passage by passage.
    pub(crate) same: usize,
    /// Half of them took no longer, in milliseconds.
    pub(crate) p50_ms: f64,
    /// 19 of 20 took no longer.
    pub(crate) p95_ms: f64,
    /// What had been foretold for half of them.
    pub(crate) foretold_p50_ms: f64,
    /// And for 19 of 20.
    pub(crate) foretold_p95_ms: f64,
}

impl From<&Figures> for TunedFigures {
    fn from(of: &Figures) -> Self {
        let Figures { mean, mean_ms, p50_ms, p95_ms, pairs, paid } = *of;
        let paid = paid.map(|Paid { calls, input_tokens, output_tokens, searches, cost }| {
            TunedPaid { calls, input_tokens, output_tokens, searches, cost }
        });
        Self { mean, mean_ms, p50_ms, p95_ms, pairs, paid }
    }
}

impl From<&Comparison> for Difference {
    fn from(of: &Comparison) -> Self {
        let Comparison { mean_difference: mean, low, high, p_value: p, .. } = *of;
        Self { mean, low, high, p, verdict: verdict(mean, p).to_owned() }
    }
}

impl From<&Coverage> for TunedCoverage {
    fn from(of: &Coverage) -> Self {
        let Coverage {
            queries,
            skipped,
            skipped_low,
            skipped_high,
            loss,
            loss_low,
            loss_high,
            loss_at_random,
        } = *of;
        Self {
            queries,
            skipped,
            skipped_low,
            skipped_high,
            loss,
            loss_low,
            loss_high,
            loss_at_random,
        }
    }
}

impl From<&Against> for TunedAgainst {
    fn from(of: &Against) -> Self {
        let (figures, difference) = ((&of.figures).into(), (&of.difference).into());
        Self { name: of.name.clone(), figures, difference }
    }
}

impl TuneAnswer {
    pub(crate) fn new(
        data: String,
        profile: String,
        pairs: usize,
        tuned: &Tuned,
        check: Check,
        warnings: Vec<String>,
    ) -> Self {
        let front = tuned.front.iter().map(|point| TunedSetup {
            pipeline: point.described.clone(),
            figures: (&point.figures).into(),
            chosen: point.chosen,
            dominated: point.dominated,
        });
        let depths = tuned.depths.iter().map(|point| TunedDepth {
            depth: point.depth,
            figures: (&point.figures).into(),
            difference: (&point.difference).into(),
            chosen: point.chosen,
        });
        let per_query = tuned.per_query.iter().map(|own| TunedQuery {
            query: own.query.clone(),
            before: own.before,
            after: own.after,
        });
        Self {
            data,
            profile,
            measure: tuned.measure.clone(),
            budget: tuned.budget.clone(),
            training: tuned.training,
            held_out: tuned.held_out,
            searched: tuned.searched,
            pairs,
            without_gain: tuned.without_gain.clone(),
            chosen: tuned.described.clone(),
            figures: (&tuned.figures).into(),
            ungated: tuned.ungated.as_ref().map(TunedFigures::from),
            baselines: tuned.baselines.iter().map(TunedAgainst::from).collect(),
            front: front.collect(),
            depths: depths.collect(),
            blend: tuned.blend.as_ref().map(|blend| TunedBlend {
                weight: blend.weight,
                folds: blend.folds.clone(),
                curve: blend.curve.iter().map(|point| (point.weight, point.mean)).collect(),
            }),
            calibration: tuned.calibration.as_ref().map(|fit| TunedCalibration {
                chosen: fit.chosen.clone(),
                error: fit.error,
                error_of_sigmoid: fit.error_of_sigmoid,
                pairs: fit.pairs,
                bins: fit
                    .bins
                    .iter()
                    .map(|bin| (bin.count, bin.mean_probability, bin.share_relevant))
                    .collect(),
            }),
            gate: tuned.gate.as_ref().map(|fit| TunedGate {
                gate: fit.gate.as_ref().map(|own| format!("{}>={}", own.signal, own.threshold)),
                accepted: fit.accepted,
                reason: fit.reason.clone(),
                tried: fit.tried,
                cross_validated: fit.cross_validated.as_ref().map(TunedCoverage::from),
                held_out: fit.held_out.as_ref().map(TunedCoverage::from),
                curve: fit
                    .curve
                    .iter()
                    .map(|point| (point.skipped, point.mean, point.mean_at_random))
                    .collect(),
            }),
            per_query: per_query.collect(),
            check: TunedCheck {
                queries: check.queries,
                same: check.same,
                p50_ms: check.p50_ms,
                p95_ms: check.p95_ms,
                foretold_p50_ms: check.foretold_p50_ms,
                foretold_p95_ms: check.foretold_p95_ms,
            },
            warnings,
        }
    }
}
