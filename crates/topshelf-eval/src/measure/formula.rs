//! The formulas, over one query's ranking with its grades. All follow trec_eval 9.0.
//!
//! With grades `g(1), g(2), ...` down the ranking (0 for documents nobody judged), `rel(i)` for
//! `g(i) >= level`, `R` the number of judged documents with a grade of at least `level`, and `k`
//! the cut-off (the length of the ranking where there is none):
//!
//! | measure | value | trec_eval |
//! | --- | --- | --- |
//! | nDCG@k | `DCG(g, k) / DCG(ideal, k)` | `m_ndcg_cut.c`, `m_ndcg.c` |
//! | recall@k | `#{i <= k: rel(i)} / R` | `m_recall.c` |
//! | success@k | `1` if there is a `rel(i)`, `i <= k` | `m_success.c` |
//! | precision@k | `#{i <= k: rel(i)} / k`, also when fewer than k were retrieved | `m_P.c` |
//! | MRR@k | `1 / min{i <= k: rel(i)}` | `m_recip_rank.c`, with a cut |
//! | MAP@k | `sum over rel(i), i <= k of precision@i / R` | `m_map.c`, `m_map_cut.c` |
//!
//! `DCG(g, k) = sum over i <= k of max(g(i), 0) / log2(i + 1)` (linear gain; Järvelin and
//! Kekäläinen 2002, in the form of Burges et al. 2005 that discounts from the second place), and
//! `ideal` holds all positive grades of the judgments, retrieved or not, highest first.
//!
//! Where nothing is relevant (`R = 0`, or no positive grade for nDCG) every measure is 0, and the
//! query counts in the mean, as in trec_eval and pytrec_eval. A query whose judgments are all
//! negative is undefined behaviour in trec_eval (it reads a count left over from the query
//! before); here it is 0 like any query without a relevant document.
//!
//! Sums are 64-bit and run from the top down.

use super::{Measure, MeasureKind};

/// One query's grades, in the order of its ranking and in the ideal order.
#[derive(Debug)]
pub(crate) struct JudgedRanking {
    ranked: Vec<i32>,
    ideal: Vec<i32>,
}

impl JudgedRanking {
    /// `ranked`: the grade at each rank, 0 where unjudged. `judged`: all grades of the query.
    pub(crate) fn new(ranked: Vec<i32>, judged: impl Iterator<Item = i32>) -> Self {
        let mut ideal: Vec<i32> = judged.filter(|&grade| grade > 0).collect();
        ideal.sort_unstable_by(|a, b| b.cmp(a));
        Self { ranked, ideal }
    }

    /// Whether a document with a positive grade exists.
    pub(crate) fn has_relevant(&self) -> bool {
        !self.ideal.is_empty()
    }

    /// The value of `measure`, 0 to 1.
    pub(crate) fn value(&self, measure: Measure) -> f64 {
        let top = cut(&self.ranked, measure.cutoff());
        let level = measure.level();
        let relevant = self.ideal.iter().filter(|&&grade| grade >= level).count();
        if relevant == 0 {
            return 0.0;
        }
        let relevant = relevant as f64;
        let hits = || hit_ranks(top, level).count() as f64;
        match measure.kind() {
            MeasureKind::Ndcg => dcg(top) / dcg(cut(&self.ideal, measure.cutoff())),
            MeasureKind::Recall => hits() / relevant,
            MeasureKind::Success => f64::from(u8::from(hit_ranks(top, level).next().is_some())),
            MeasureKind::Precision => hits() / measure.cutoff().unwrap_or(top.len()).max(1) as f64,
            MeasureKind::Mrr => hit_ranks(top, level).next().map_or(0.0, |rank| 1.0 / rank as f64),
            MeasureKind::Map => {
                let precisions = hit_ranks(top, level)
                    .enumerate()
                    .map(|(before, rank)| (before + 1) as f64 / rank as f64);
                precisions.sum::<f64>() / relevant
            }
        }
    }
}

fn cut(grades: &[i32], cutoff: Option<usize>) -> &[i32] {
    &grades[..cutoff.unwrap_or(grades.len()).min(grades.len())]
}

/// The ranks, from 1, of the relevant documents.
fn hit_ranks(grades: &[i32], level: i32) -> impl Iterator<Item = usize> {
    grades.iter().enumerate().filter(move |&(_, &grade)| grade >= level).map(|(i, _)| i + 1)
}

fn dcg(grades: &[i32]) -> f64 {
    grades
        .iter()
        .enumerate()
        .map(|(i, &grade)| f64::from(grade.max(0)) / ((i + 2) as f64).log2())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Grades down the ranking 0 2 -1 1 0, with one more document of grade 3 not retrieved.
    fn value(measure: &str) -> f64 {
        let judged = JudgedRanking::new(vec![0, 2, -1, 1, 0], [2, -1, 1, 3].into_iter());
        judged.value(measure.parse().unwrap())
    }

    #[test]
    fn worked_by_hand() {
        let log = f64::log2;
        let ideal = 3.0 + 2.0 / log(3.0) + 1.0 / log(4.0);
        for (measure, expected) in [
            ("nDCG@1", 0.0),
            ("nDCG@2", (2.0 / log(3.0)) / (3.0 + 2.0 / log(3.0))),
            ("nDCG@10", (2.0 / log(3.0) + 1.0 / log(5.0)) / ideal),
            ("recall@1", 0.0),
            ("recall@4", 2.0 / 3.0),
            ("recall(rel=2)@4", 0.5),
            ("recall(rel=4)@4", 0.0),
            ("success@1", 0.0),
            ("success@2", 1.0),
            ("success(rel=3)@5", 0.0),
            ("precision@2", 0.5),
            ("precision@10", 0.2),
            ("MRR", 0.5),
            ("MRR@1", 0.0),
            ("MAP", (0.5 + 0.5) / 3.0),
            ("MAP@2", 0.5 / 3.0),
            ("MAP(rel=2)", 0.25),
        ] {
            assert!((value(measure) - expected).abs() < 1e-12, "{measure}: {}", value(measure));
        }
    }

    #[test]
    fn nothing_relevant_is_zero() {
        let judged = JudgedRanking::new(vec![0, -1], [0, -1].into_iter());
        assert!(!judged.has_relevant());
        for measure in Measure::parse_list("nDCG nDCG@1 R@1 Success@1 P@1 MRR MAP").unwrap() {
            assert!(judged.value(measure).abs() < f64::EPSILON, "{measure}");
        }
    }
}
