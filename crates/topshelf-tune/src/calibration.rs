//! Which calibration a reranker's scores want, by cross-validation, and how well it holds.
//!
//! Sigmoid, Platt and isotonic are each fitted on four fifths of the training queries and measured on
//! the fifth, in turn; the lowest expected calibration error wins and is fitted on all of them. A
//! candidate without a judgment counts as not relevant, as the measures have it.

use serde::Serialize;
use topshelf_core::calibrate::{
    Calibration, JudgedScore, ReliabilityBin, expected_calibration_error, reliability,
};
use topshelf_core::{Scale, Setup};

use crate::error::Result;
use crate::judged::{Judged, folds};
use crate::record::Recording;

/// Bins of a reliability diagram.
pub const BINS: usize = 10;

/// A fitted calibration with its proof.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CalibrationFit {
    /// The calibration: `platt(1.31 s -0.20)`.
    pub chosen: String,
    /// Its expected calibration error on the held-out half, 0 to 1.
    pub error: f64,
    /// That of the unfitted sigmoid there; absent where scores have no logistic reading.
    pub error_of_sigmoid: Option<f64>,
    /// Judged pairs in the held-out half.
    pub pairs: usize,
    /// The reliability diagram of the held-out half.
    pub bins: Vec<ReliabilityBin>,
}

/// The scores that a setup's last reranker gives to its candidates, query by query.
pub(crate) struct Scored {
    pub(crate) by_query: Vec<Vec<JudgedScore>>,
    scale: Scale,
}

impl Scored {
    pub(crate) fn of(
        recording: &Recording,
        judged: &Judged,
        setup: &Setup,
        queries: &[usize],
    ) -> Result<Option<Self>> {
        let Some(last) = setup.second_stage.as_ref().map(|stage| stage.cascade.last()) else {
            return Ok(None);
        };
        let model = recording.model(&last.model)?;
        let candidates = setup.clone().without_reranking();
        let mut by_query = Vec::with_capacity(queries.len());
        for query in queries {
            let own = &recording.queries[*query];
            let replayed = recording.replay(&candidates, *query, usize::MAX)?;
            let scored = replayed.ranking.hits().iter().filter_map(|hit| {
                let score = own.score(model, &hit.passage.id)?;
                let relevant = judged.grade(&own.id, hit).is_some_and(|g| g >= judged.level);
                Some(JudgedScore { score, relevant })
            });
            by_query.push(scored.collect());
        }
        Ok(Some(Self { by_query, scale: recording.scale(model) }))
    }

    fn pairs(&self, queries: impl IntoIterator<Item = usize>) -> Vec<JudgedScore> {
        queries.into_iter().flat_map(|query| self.by_query[query].iter().copied()).collect()
    }

    fn all(&self) -> Vec<JudgedScore> {
        self.pairs(0..self.by_query.len())
    }

    /// The calibration that errs least in cross-validation; the sigmoid where nothing can be fitted.
    pub(crate) fn fit(&self) -> Calibration {
        type Fit = fn(&[JudgedScore]) -> topshelf_core::Result<Calibration>;
        let methods: [Fit; 3] =
            [|_| Ok(Calibration::Sigmoid), Calibration::fit_platt, Calibration::fit_isotonic];
        let error = |fit: Fit| {
            let mut told = Vec::new();
            for (kept, left) in folds(self.by_query.len()) {
                let fitted = fit(&self.pairs(kept)).ok()?;
                told.extend(self.probabilities(&fitted, &self.pairs(left))?);
            }
            Some(expected_calibration_error(&told, BINS))
        };
        let errors = methods.iter().filter_map(|fit| Some((error(*fit)?, *fit)));
        errors
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .and_then(|(_, fit)| fit(&self.all()).ok())
            .unwrap_or_default()
    }

    /// How well a calibration that was fitted elsewhere holds here.
    pub(crate) fn check(&self, chosen: &Calibration) -> Option<CalibrationFit> {
        let pairs = self.all();
        let told = self.probabilities(chosen, &pairs)?;
        let sigmoid = self.probabilities(&Calibration::Sigmoid, &pairs);
        Some(CalibrationFit {
            chosen: chosen.describe(),
            error: expected_calibration_error(&told, BINS),
            error_of_sigmoid: sigmoid.map(|told| expected_calibration_error(&told, BINS)),
            pairs: pairs.len(),
            bins: reliability(&told, BINS),
        })
    }

    fn probabilities(&self, by: &Calibration, pairs: &[JudgedScore]) -> Option<Vec<(f32, bool)>> {
        let told = |pair: &JudgedScore| {
            Some((by.probability(pair.score, self.scale).ok()?, pair.relevant))
        };
        pairs.iter().map(told).collect()
    }
}
