//! Judgments, a run and measures put together: a figure per query, and its mean.
//!
//! The mean is over **all judged queries**, as `trec_eval -c` takes it: a judged query for which
//! the run has no document counts 0 (trec_eval without `-c` and pytrec_eval leave it out, which
//! flatters a system that answers only easy queries). Queries of the run that nobody judged are
//! left out. Both are counted and named in the [`Evaluation`], so that nothing is silent. Judged
//! queries without a relevant document count 0.

use serde::Serialize;

use crate::error::{EvalError, Result};
use crate::measure::{JudgedRanking, Measure};
use crate::qrels::Qrels;
use crate::run::Run;

/// The figures of one run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// The judged queries, sorted by id; at least one.
    pub queries: Vec<String>,
    /// One entry for each measure, in the order asked.
    pub scores: Vec<MeasureScores>,
    /// Judged queries for which the run has no document; they count 0.
    pub missing: Vec<String>,
    /// Queries of the run without judgments; they are left out.
    pub unjudged: Vec<String>,
    /// Judged queries without a document of a positive grade; they count 0.
    pub without_relevant: Vec<String>,
}

/// One measure's figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MeasureScores {
    /// The measure.
    pub measure: Measure,
    /// The mean over all judged queries, 0 to 1.
    pub mean: f64,
    /// The figure of each query, aligned with [`Evaluation::queries`].
    pub per_query: Vec<f64>,
}

impl Evaluation {
    /// The mean of `measure`; `None` when it was not asked for.
    pub fn mean(&self, measure: Measure) -> Option<f64> {
        self.of(measure).map(|scores| scores.mean)
    }

    /// The figures of `measure`; `None` when it was not asked for.
    pub fn of(&self, measure: Measure) -> Option<&MeasureScores> {
        self.scores.iter().find(|scores| scores.measure == measure)
    }

    /// Each query's id with its figure of `measure`, sorted by id; empty when the measure was
    /// not asked for.
    pub fn per_query(&self, measure: Measure) -> impl Iterator<Item = (&str, f64)> {
        let values = self.of(measure).map_or(&[][..], |scores| &scores.per_query);
        self.queries.iter().map(String::as_str).zip(values.iter().copied())
    }
}

/// Measures `run` against `qrels`; see the [module](self) for which queries count.
///
/// # Errors
/// There are no judgments, or the run has documents but none of its queries is judged, which is
/// never what was meant. An empty run is measured, as 0.
pub fn evaluate(qrels: &Qrels, run: &Run, measures: &[Measure]) -> Result<Evaluation> {
    let Some(judged_query) = qrels.queries().next() else { return Err(EvalError::NoJudgments) };
    let unjudged: Vec<String> =
        run.queries().filter(|id| qrels.documents(id).is_none()).map(str::to_owned).collect();
    if let (Some(first), true) = (unjudged.first(), unjudged.len() == run.query_count()) {
        return Err(EvalError::NoCommonQuery {
            run_query: first.clone(),
            judged_query: judged_query.to_owned(),
        });
    }

    let mut scores: Vec<MeasureScores> = measures
        .iter()
        .map(|&measure| {
            let per_query = Vec::with_capacity(qrels.query_count());
            MeasureScores { measure, mean: 0.0, per_query }
        })
        .collect();
    let mut without_relevant = Vec::new();
    for (query, judged) in qrels.iter() {
        let ranked =
            run.documents(query).iter().map(|d| judged.get(&d.id).copied().unwrap_or(0)).collect();
        let ranking = JudgedRanking::new(ranked, judged.values().copied());
        if !ranking.has_relevant() {
            without_relevant.push(query.to_owned());
        }
        for scores in &mut scores {
            scores.per_query.push(ranking.value(scores.measure));
        }
    }
    for scores in &mut scores {
        scores.mean = mean(&scores.per_query);
    }

    let queries: Vec<String> = qrels.queries().map(str::to_owned).collect();
    let missing = queries.iter().filter(|id| run.documents(id).is_empty()).cloned().collect();
    Ok(Evaluation { queries, scores, missing, unjudged, without_relevant })
}

/// The arithmetic mean; `values` is not empty.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
