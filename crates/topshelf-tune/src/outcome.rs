//! What is told of a search: [`Tuned`]. Every figure in it is one of the held-out half, except where
//! it says that it is one of left-out folds.

use serde::Serialize;
use topshelf_core::{Ranking, Setup};
use topshelf_eval::{Comparison, compare_paired};

use crate::blend::BlendFit;
use crate::calibration::CalibrationFit;
use crate::error::Result;
use crate::gate::GateFit;
use crate::profile::{Evidence, Profile};
use crate::rate::Paid;
use crate::trial::Trial;

/// The seed of resampling: the same figures give the same interval every time.
pub(crate) const SEED: u64 = 1;

/// A tuned pipeline and what is known of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tuned {
    /// The measure that was tuned for.
    pub measure: String,
    /// The budget, in words.
    pub budget: String,
    /// Queries that were fitted on.
    pub training: usize,
    /// Queries that were measured with.
    pub held_out: usize,
    /// Setups that were tried.
    pub searched: usize,
    /// The rerankers that gain nothing, or hurt: behind every first stage, no weight of their score
    /// was better than none, in any fold.
    pub without_gain: Vec<String>,
    /// What was chosen.
    pub setup: Setup,
    /// The same in one line.
    pub described: String,
    /// What it reaches.
    pub figures: Figures,
    /// What it reaches without its gate; absent where it has none.
    pub ungated: Option<Figures>,
    /// How it compares with the pipelines that one would use untuned.
    pub baselines: Vec<Against>,
    /// The setups of which none is both faster and better than another on the training half.
    pub front: Vec<FrontPoint>,
    /// The chosen setup at other depths; empty where nothing is reranked.
    pub depths: Vec<DepthPoint>,
    /// The weight of the rerank score; absent where there is no reranker.
    pub blend: Option<BlendFit>,
    /// How scores become probabilities; absent where there is no reranker.
    pub calibration: Option<CalibrationFit>,
    /// Whether reranking can be skipped for some queries; absent where nothing is reranked.
    pub gate: Option<GateFit>,
    /// Each held-out query's measure with the tuned pipeline and with its first stage alone.
    pub per_query: Vec<PerQuery>,
}

/// What a setup reaches.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figures {
    /// The mean of the measure.
    pub mean: f64,
    /// The mean time of a query, in milliseconds, as the stages' paces give it.
    pub mean_ms: f64,
    /// Half of the queries take no longer.
    pub p50_ms: f64,
    /// 19 of 20 take no longer.
    pub p95_ms: f64,
    /// Pairs scored, mean of a query.
    pub pairs: f64,
    /// What is paid for a query, mean; absent where nothing is.
    pub paid: Option<Paid>,
}

/// How the tuned pipeline compares with another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Against {
    /// The other: `hybrid+rerank`.
    pub name: String,
    /// What the other reaches.
    pub figures: Figures,
    /// The tuned pipeline's figures less the other's.
    pub difference: Comparison,
}

/// A setup that no other beats in both time and quality.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FrontPoint {
    /// The setup, in words.
    pub described: String,
    /// What it reaches.
    pub figures: Figures,
    /// Whether it is the chosen one.
    pub chosen: bool,
    /// Whether another of the front is both faster and better on the held-out half, so that it is on
    /// the front by chance.
    pub dominated: bool,
}

/// The chosen setup at a depth.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DepthPoint {
    /// The depth.
    pub depth: usize,
    /// What it reaches.
    pub figures: Figures,
    /// What it gives up against the greatest depth; positive where it gains.
    pub difference: Comparison,
    /// Whether it is the chosen one.
    pub chosen: bool,
}

/// A query before and after.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PerQuery {
    /// Its id.
    pub query: String,
    /// With the chosen first stage alone.
    pub before: f64,
    /// With the tuned pipeline.
    pub after: f64,
}

/// A tuned setup run for real.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Check {
    /// Held-out queries that were asked.
    pub queries: usize,
    /// Those whose answer was the replayed one, passage by passage.
    pub same: usize,
    /// Half of them took no longer, in milliseconds.
    pub p50_ms: f64,
    /// 19 of 20 took no longer.
    pub p95_ms: f64,
    /// What had been foretold for the same queries.
    pub foretold_p50_ms: f64,
    /// And for 19 of 20.
    pub foretold_p95_ms: f64,
}

impl From<&Trial> for Figures {
    fn from(trial: &Trial) -> Self {
        let queries = trial.pairs.len().max(1) as f64;
        Self {
            mean: trial.mean(),
            mean_ms: trial.mean_ms(),
            p50_ms: trial.percentile_ms(0.5),
            p95_ms: trial.percentile_ms(0.95),
            pairs: trial.pairs.iter().sum::<usize>() as f64 / queries,
            paid: trial.paid.map(|paid| paid.times(1.0 / queries)),
        }
    }
}

impl Against {
    pub(crate) fn of(name: String, other: &Trial, tuned: &Trial) -> Result<Self> {
        let difference = compare_paired(&other.figures, &tuned.figures, SEED)?;
        Ok(Self { name, figures: Figures::from(other), difference })
    }
}

impl Tuned {
    /// The profile to write.
    pub fn profile(&self, data: &str) -> Profile {
        let gate = self.gate.as_ref().filter(|gate| gate.accepted);
        Profile {
            setup: self.setup.clone(),
            evidence: Some(Evidence {
                data: data.to_owned(),
                measure: self.measure.clone(),
                budget: self.budget.clone(),
                training: self.training,
                held_out: self.held_out,
                mean: self.figures.mean,
                p50_ms: self.figures.p50_ms,
                p95_ms: self.figures.p95_ms,
                calibration_error: self.calibration.as_ref().map(|fit| fit.error),
                gate: gate.and_then(|gate| gate.held_out),
            }),
        }
    }
}

/// The passages of an answer, in their order.
pub(crate) fn order(ranking: &Ranking, top: usize) -> Vec<&str> {
    ranking.hits().iter().take(top).map(|hit| hit.passage.id.as_str()).collect()
}
