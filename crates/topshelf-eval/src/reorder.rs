//! What a second stage did to the order of the first.
//!
//! A mean says that reranking pays or does not; this says what it did: whether it brought the right
//! documents up or shuffled what was already good. Two runs over the same queries are compared,
//! *before* and *after*, at a cut `k`:
//!
//! * **promoted**, relevant and brought into the first `k`; **demoted**, relevant and pushed out;
//! * **raised**, **lowered** and **kept**: relevant and among the first `k` both times;
//! * **exchanged**: all documents that are new among the first `k`, relevant or not. Where many are
//!   exchanged and few promoted, the reranker works and nobody gains.
//!
//! [`ideal`] is the ceiling: the same candidates in the best order that the judgments know. What it
//! reaches no reranker exceeds, and what it lacks the first stage did not fetch.

use std::collections::HashMap;

use serde::Serialize;

use crate::error::Result;
use crate::qrels::Qrels;
use crate::run::Run;

/// How documents moved at a cut; counts of documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Moves {
    /// Relevant, brought into the first `k`.
    pub promoted: usize,
    /// Relevant, pushed out of the first `k`.
    pub demoted: usize,
    /// Relevant, among the first `k` both times, now higher.
    pub raised: usize,
    /// Relevant, among the first `k` both times, now lower.
    pub lowered: usize,
    /// Relevant, among the first `k` both times, at the same place.
    pub kept: usize,
    /// Documents that are new among the first `k`, relevant or not.
    pub exchanged: usize,
}

impl Moves {
    fn add(&mut self, other: Self) {
        self.promoted += other.promoted;
        self.demoted += other.demoted;
        self.raised += other.raised;
        self.lowered += other.lowered;
        self.kept += other.kept;
        self.exchanged += other.exchanged;
    }
}

/// The moves of each judged query, sorted by id, and their sum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reordering {
    /// The cut.
    pub k: usize,
    /// Over all judged queries.
    pub total: Moves,
    /// Query and moves.
    pub per_query: Vec<(String, Moves)>,
}

/// Compares two runs at the cut `k`; a document is relevant from the grade `level` on.
///
/// ```
/// use topshelf_eval::{Qrels, Run, reorder};
/// let qrels = Qrels::read("q 0 a 1\nq 0 b 1\n".as_bytes(), "qrels")?.qrels;
/// let run = |order: [&str; 3]| {
///     let mut run = Run::new("run");
///     run.insert("q", order.into_iter().zip([3.0, 2.0, 1.0])).unwrap();
///     run
/// };
/// let moved = reorder::compare(&qrels, &run(["a", "x", "b"]), &run(["b", "a", "x"]), 2, 1).total;
/// assert_eq!((moved.promoted, moved.lowered, moved.exchanged), (1, 1, 1));
/// # Ok::<(), topshelf_eval::EvalError>(())
/// ```
pub fn compare(qrels: &Qrels, before: &Run, after: &Run, k: usize, level: i32) -> Reordering {
    let mut total = Moves::default();
    let mut per_query = Vec::with_capacity(qrels.query_count());
    for (query, judged) in qrels.iter() {
        let (was, is) = (places(before, query, k), places(after, query, k));
        let mut moves = Moves::default();
        let relevant = |id: &str| judged.get(id).is_some_and(|grade| *grade >= level);
        for (id, place) in &is {
            match was.get(id) {
                None => {
                    moves.exchanged += 1;
                    moves.promoted += usize::from(relevant(id));
                }
                Some(_) if !relevant(id) => {}
                Some(old) if old > place => moves.raised += 1,
                Some(old) if old < place => moves.lowered += 1,
                Some(_) => moves.kept += 1,
            }
        }
        let pushed_out = was.keys().filter(|id| !is.contains_key(*id) && relevant(id));
        moves.demoted = pushed_out.count();
        total.add(moves);
        per_query.push((query.to_owned(), moves));
    }
    Reordering { k, total, per_query }
}

/// The first `k` documents with their places.
fn places<'a>(run: &'a Run, query: &str, k: usize) -> HashMap<&'a str, usize> {
    let documents = run.documents(query).iter().take(k);
    documents.enumerate().map(|(place, document)| (document.id.as_str(), place)).collect()
}

/// The run's documents in the best order that the judgments know: by grade, highest first, and
/// those of one grade as they stand. Documents that nobody judged count as grade 0.
///
/// # Errors
///
/// None for a run that was read or built by this crate.
pub fn ideal(qrels: &Qrels, run: &Run) -> Result<Run> {
    let mut best = Run::new(run.tag());
    for query in run.queries() {
        let documents = run.documents(query);
        let mut order: Vec<&str> = documents.iter().map(|document| document.id.as_str()).collect();
        order.sort_by_key(|id| std::cmp::Reverse(qrels.grade(query, id).unwrap_or(0)));
        let n = order.len() as f64;
        let scored = order.into_iter().enumerate().map(|(place, id)| (id, n - place as f64));
        best.insert(query, scored)?;
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::evaluation::evaluate;
    use crate::measure::Measure;

    fn run(order: &[usize]) -> Run {
        let mut run = Run::new("run");
        let scored =
            order.iter().enumerate().map(|(place, id)| (format!("d{id}"), -(place as f64)));
        run.insert("q", scored).unwrap();
        run
    }

    proptest! {
        #[test]
        fn the_books_balance(
            before in Just((0..12).collect::<Vec<usize>>()).prop_shuffle(),
            after in Just((0..12).collect::<Vec<usize>>()).prop_shuffle(),
            grades in prop::collection::vec(-1_i32..4, 12),
            k in 1_usize..14,
        ) {
            let mut qrels = Qrels::new();
            for (id, grade) in grades.iter().enumerate() {
                qrels.insert("q", format!("d{id}"), *grade);
            }
            let (before, after) = (run(&before), run(&after));
            let moves = compare(&qrels, &before, &after, k, 1).total;
            let relevant = |run: &Run| {
                let first = run.documents("q").iter().take(k);
                first.filter(|d| qrels.grade("q", &d.id).unwrap() >= 1).count()
            };
            let stayed = moves.raised + moves.lowered + moves.kept;
            prop_assert_eq!(relevant(&after), stayed + moves.promoted);
            prop_assert_eq!(relevant(&before), stayed + moves.demoted);
            prop_assert!(moves.promoted <= moves.exchanged && moves.exchanged <= k);
            let there_and_back = compare(&qrels, &after, &before, k, 1).total;
            prop_assert_eq!(there_and_back.promoted, moves.demoted);
            prop_assert_eq!(there_and_back.exchanged, moves.exchanged);
        }

        #[test]
        fn nothing_is_above_the_ceiling(
            order in Just((0..12).collect::<Vec<usize>>()).prop_shuffle(),
            grades in prop::collection::vec(-1_i32..4, 12),
        ) {
            let mut qrels = Qrels::new();
            for (id, grade) in grades.iter().enumerate() {
                qrels.insert("q", format!("d{id}"), *grade);
            }
            let measures = Measure::parse_list("nDCG@3,nDCG@10,recall@5,MRR@10,MAP").unwrap();
            let any = run(&order);
            let best = ideal(&qrels, &any).unwrap();
            let (any, best) =
                (evaluate(&qrels, &any, &measures).unwrap(), evaluate(&qrels, &best, &measures).unwrap());
            for measure in measures {
                prop_assert!(any.mean(measure) <= best.mean(measure).map(|mean| mean + 1e-12));
            }
        }
    }
}
