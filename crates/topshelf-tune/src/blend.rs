//! What weight the rerank score deserves on a corpus, by cross-validation.
//!
//! The weights 0, 0.1, ... 1 are tried on the training queries. Each fifth of them is left out once,
//! and the best weight on the rest noted; the mean of the five is what the corpus says. Few queries
//! say little, so it is drawn towards the weight that was the safest elsewhere:
//!
//! ```text
//! weight = (n * fitted + 30 * 0.6) / (n + 30)        n training queries
//! ```
//!
//! The 0.6 is a rerank score that counts 1.5 times the first stage's. The corpus may also say 0 in
//! every fold: then the reranker gains nothing here, or hurts, and is left out.

use serde::Serialize;
use topshelf_core::{Blend, BlendPolicy, BlendScore, Setup};

use crate::error::Result;
use crate::judged::{Judged, folds, mean};
use crate::record::Recording;
use crate::trial::Trial;

/// The weight that a fitted one is drawn towards.
pub const DEFAULT_WEIGHT: f32 = 0.6;

/// How many queries that weight counts.
const PRIOR_QUERIES: f32 = 30.0;

/// Tenths.
const STEPS: usize = 10;

/// A fitted weight with what it rests on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BlendFit {
    /// What the rerank score counts, 0 to 1.
    pub weight: f32,
    /// The best weight without each fifth of the training queries.
    pub folds: Vec<f32>,
    /// The measure at each weight on the held-out half.
    pub curve: Vec<WeightPoint>,
}

/// The measure at a weight.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WeightPoint {
    /// What the rerank score counts.
    pub weight: f32,
    /// The mean over the queries.
    pub mean: f64,
}

/// A weight and the folds that it comes from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Weight {
    pub(crate) weight: f32,
    pub(crate) folds: Vec<f32>,
}

/// The same setup under each weight.
pub(crate) fn weighted(setup: &Setup, score: BlendScore) -> Vec<(f32, Setup)> {
    let at = |step: usize| {
        let weight = step as f32 / STEPS as f32;
        let mut setup = setup.clone();
        if let Some(reranking) = &mut setup.second_stage {
            reranking.blend = Some(BlendPolicy::Fixed(Blend { weight, rerank: score }));
        }
        (weight, setup)
    };
    (0..=STEPS).map(at).collect()
}

/// Fits the weight from the trials of [`weighted`], the first of which has no weight.
pub(crate) fn fit(weights: &[f32], trials: &[Trial]) -> Weight {
    let n = trials.first().map_or(0, |trial| trial.figures.len());
    let best = |kept: &[usize]| {
        let mean_of = |trial: &Trial| mean(kept.iter().map(|at| trial.figures[*at]));
        let means = trials.iter().map(mean_of);
        let best = weights.iter().zip(means).max_by(|a, b| {
            // Of equals the one nearest to the default.
            let distance = |weight: f32| (weight - DEFAULT_WEIGHT).abs();
            a.1.total_cmp(&b.1).then(distance(*b.0).total_cmp(&distance(*a.0)))
        });
        // What is no better than nothing is not worth its time.
        let nothing = trials.first().map_or(0.0, mean_of);
        best.filter(|(_, mean)| *mean > nothing).map_or(0.0, |(weight, _)| *weight)
    };
    let folds: Vec<f32> = folds(n).map(|(kept, _)| best(&kept)).collect();
    let fitted = folds.iter().sum::<f32>() / folds.len() as f32;
    let weight = if fitted == 0.0 {
        0.0
    } else {
        let n = n as f32;
        (n * fitted + PRIOR_QUERIES * DEFAULT_WEIGHT) / (n + PRIOR_QUERIES)
    };
    Weight { weight: (weight * 100.0).round() / 100.0, folds }
}

/// The measure at each weight on the held-out queries.
pub(crate) fn curve(
    recording: &Recording,
    judged: &Judged,
    setup: &Setup,
    score: BlendScore,
    held_out: &[usize],
) -> Result<Vec<WeightPoint>> {
    let (weights, setups): (Vec<f32>, Vec<Setup>) = weighted(setup, score).into_iter().unzip();
    let trials = Trial::all(recording, judged, &setups, held_out, &mut |_| {})?;
    let points = weights.into_iter().zip(&trials);
    Ok(points.map(|(weight, trial)| WeightPoint { weight, mean: trial.mean() }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(figures: Vec<f64>) -> Trial {
        let n = figures.len();
        Trial { figures, milliseconds: vec![1.0; n], pairs: vec![1; n], paid: None }
    }

    fn weights() -> Vec<f32> {
        (0..=STEPS).map(|step| step as f32 / STEPS as f32).collect()
    }

    #[test]
    fn the_best_weight_is_drawn_towards_the_default() {
        // 0.2 is the best on every query.
        let trials: Vec<Trial> = weights()
            .iter()
            .map(|weight| trial(vec![1.0 - f64::from((weight - 0.2).abs()); 30]))
            .collect();
        let fitted = fit(&weights(), &trials);
        assert_eq!(fitted.folds, vec![0.2; FOLDS]);
        assert!((fitted.weight - 0.4).abs() < 1e-6, "{fitted:?}"); // half way with 30 queries
    }

    #[test]
    fn a_reranker_that_hurts_in_every_fold_gets_no_weight() {
        let trials: Vec<Trial> =
            weights().iter().map(|weight| trial(vec![1.0 - f64::from(*weight); 50])).collect();
        assert!(fit(&weights(), &trials).weight.abs() < 1e-9);
    }

    #[test]
    fn where_no_weight_is_better_than_none_it_is_none() {
        let trials: Vec<Trial> = weights().iter().map(|_| trial(vec![0.5; 50])).collect();
        assert!(fit(&weights(), &trials).weight.abs() < 1e-9);
        // And of equally good ones the one nearest to the default.
        let with = |weight: &f32| trial(vec![if *weight > 0.25 { 0.6 } else { 0.5 }; 50]);
        let trials: Vec<Trial> = weights().iter().map(with).collect();
        assert!((fit(&weights(), &trials).weight - DEFAULT_WEIGHT).abs() < 1e-6);
    }

    use crate::judged::FOLDS;
}
