//! Judged queries: what is measured with, the half that is fitted on and the half that is not.

use serde::{Deserialize, Serialize};
use topshelf_core::{Hit, Ranking};
use topshelf_eval::{Measure, Qrels, Run, evaluate};

use crate::error::{Result, TuneError};

/// Judged queries below which tuning is refused.
pub const LEAST_QUERIES: usize = 20;

/// Parts of the training half for cross-validation.
pub(crate) const FOLDS: usize = 5;

/// What judgments name: whole documents or single passages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Documents; each stands at the place of its best passage.
    Document,
    /// Passages.
    Passage,
}

impl Unit {
    /// The id of a hit's unit.
    pub fn id(self, hit: &Hit) -> &str {
        match self {
            Self::Document => &hit.passage.document,
            Self::Passage => &hit.passage.id,
        }
    }

    /// A ranking as the lines of a run: id and score, scores never rising. Candidates that a
    /// reranker could not score stand behind the others, so they get scores below them.
    pub fn lines(self, ranking: &Ranking) -> Vec<(String, f64)> {
        let listed: Vec<(&str, f32)> = match self {
            Self::Document => ranking.documents(),
            Self::Passage => {
                ranking.hits().iter().map(|hit| (hit.passage.id.as_str(), hit.score)).collect()
            }
        };
        let mut lowest = f64::INFINITY;
        let scored = |(id, score): (&str, f32)| {
            let score = f64::from(score);
            lowest = if score <= lowest { score } else { lowest - 1.0 };
            (id.to_owned(), lowest)
        };
        listed.into_iter().map(scored).collect()
    }
}

/// What quality is measured with.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The judgments.
    pub qrels: Qrels,
    /// The measure that is tuned for.
    pub measure: Measure,
    /// From which grade on a passage counts as relevant, where that is all that counts.
    pub level: i32,
    /// What the judgments name.
    pub unit: Unit,
}

impl Judged {
    /// The measure of each query, aligned with the ids, of which none repeats; 0 for a ranking of
    /// nothing.
    pub(crate) fn figures<'a>(
        &self,
        ranked: impl Iterator<Item = (&'a str, Vec<(String, f64)>)>,
    ) -> Result<Vec<f64>> {
        let mut run = Run::new("setup");
        let mut order = Vec::new();
        for (id, lines) in ranked {
            order.push(id);
            run.insert(id, lines)?;
        }
        let mut qrels = self.qrels.clone();
        let wanted: std::collections::HashSet<&str> = order.iter().copied().collect();
        qrels.retain_queries(|query| wanted.contains(query));
        if run.is_empty() {
            return Ok(vec![0.0; order.len()]);
        }
        let evaluation = evaluate(&qrels, &run, &[self.measure])?;
        let figures: std::collections::HashMap<&str, f64> =
            evaluation.per_query(self.measure).collect();
        Ok(order.into_iter().map(|id| figures.get(id).copied().unwrap_or(0.0)).collect())
    }

    /// The grade of a hit's unit for a query; `None` where nobody judged it.
    pub(crate) fn grade(&self, query: &str, hit: &Hit) -> Option<i32> {
        self.qrels.grade(query, self.unit.id(hit))
    }
}

/// Which queries are fitted on, and which measured with: places in a list of queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Halves {
    /// Fitted on.
    pub training: Vec<usize>,
    /// Measured with.
    pub held_out: Vec<usize>,
}

impl Halves {
    /// Two halves, equal to a query, that depend on the ids and not on their order.
    ///
    /// # Errors
    ///
    /// [`TuneError::TooFewQueries`] below [`LEAST_QUERIES`].
    ///
    /// ```
    /// use topshelf_tune::Halves;
    /// let ids: Vec<String> = (0..31).map(|n| format!("q{n}")).collect();
    /// let halves = Halves::of(&ids)?;
    /// assert_eq!((halves.training.len(), halves.held_out.len()), (15, 16));
    /// # Ok::<(), topshelf_tune::TuneError>(())
    /// ```
    pub fn of(ids: &[String]) -> Result<Self> {
        let mut order = shuffled(ids);
        let held_out = order.split_off(order.len() / 2);
        Self { training: order, held_out }.checked()
    }

    /// Halves that somebody else made, such as a collection's own splits.
    ///
    /// # Errors
    ///
    /// [`TuneError::TooFewQueries`] below [`LEAST_QUERIES`].
    pub fn given(training: Vec<usize>, held_out: Vec<usize>) -> Result<Self> {
        Self { training, held_out }.checked()
    }

    fn checked(self) -> Result<Self> {
        let queries = self.training.len() + self.held_out.len();
        // Both halves have to be able to say something.
        if queries < LEAST_QUERIES || self.training.len().min(self.held_out.len()) < FOLDS {
            return Err(TuneError::TooFewQueries { queries, least: LEAST_QUERIES });
        }
        Ok(self)
    }
}

/// Places of the ids in an order that depends on the ids alone.
pub(crate) fn shuffled(ids: &[String]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_by_key(|place| (fnv(&ids[*place]), ids[*place].clone()));
    order
}

/// The fold of each of `n` queries, 0 to [`FOLDS`] - 1; they come shuffled.
pub(crate) fn folds(n: usize) -> impl Iterator<Item = (Vec<usize>, Vec<usize>)> {
    (0..FOLDS).map(move |fold| (0..n).partition(|place| place % FOLDS != fold))
}

/// FNV-1a with a final mix (the finaliser of MurmurHash3): ids that count up have to fall apart.
fn fnv(text: &str) -> u64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

pub(crate) fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, n) = values.into_iter().fold((0.0, 0_usize), |(sum, n), v| (sum + v, n + 1));
    if n == 0 { 0.0 } else { sum / n as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_do_not_depend_on_the_order_of_the_queries() {
        let ids: Vec<String> = (0..40).map(|n| format!("query-{n}")).collect();
        let named = |halves: &Halves, ids: &[String]| {
            let mut named: Vec<String> =
                halves.training.iter().map(|place| ids[*place].clone()).collect();
            named.sort();
            named
        };
        let mut turned = ids.clone();
        turned.reverse();
        let (one, other) = (Halves::of(&ids).unwrap(), Halves::of(&turned).unwrap());
        assert_eq!(named(&one, &ids), named(&other, &turned));
        // Ids that count up are spread over both halves.
        let low = one.training.iter().filter(|place| **place < 20).count();
        assert!((5..=15).contains(&low), "{low}");
    }

    #[test]
    fn few_queries_are_refused() {
        let ids: Vec<String> = (0..19).map(|n| n.to_string()).collect();
        let error = Halves::of(&ids).unwrap_err();
        assert!(error.to_string().contains("19 judged queries"), "{error}");
        assert!(Halves::given((0..40).collect(), vec![40]).is_err());
    }

    #[test]
    fn every_query_is_left_out_once() {
        let left: Vec<usize> = folds(23).flat_map(|(_, left)| left).collect();
        let mut sorted = left.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..23).collect::<Vec<_>>());
        assert!(folds(23).all(|(kept, left)| kept.len() + left.len() == 23));
    }
}
