//! What the measurement says: the table, what its columns mean, and the result in plain words.

use std::fmt::Write as _;

use topshelf::eval::Measure;

use crate::commands::collection;
use crate::output::{EvalAnswer, SystemDifference, SystemMeasured};
use crate::table;

/// What was compared.
const PLAIN: &str = "hybrid";
const RERANKED: &str = "hybrid+rerank";

/// The sentences in `width` columns; the table in as many as it has.
pub(super) fn as_text(evaluation: &EvalAnswer, measures: &[Measure], width: usize) -> String {
    let EvalAnswer { systems, differences, queries, depth, .. } = evaluation;
    let (table, sentences) = collection::as_table(systems, differences, measures);
    let asked = format!(
        "{queries} judged questions, {} candidates each: by words (bm25), by meaning (dense), by both (hybrid)",
        depth.unwrap_or_default(),
    );
    let mut text = format!("{}\n\n{table}\n", table::wrap(&asked, width));
    for sentence in sentences {
        let _ = writeln!(text, "{}", table::wrap(&sentence, width)); // a string takes all
    }
    let columns = "success@1 is the share of questions whose first result answers, success@3 that of one among \
                   three. nDCG@10 is 1 where all answers stand on top and 0 where none is among the first ten.";
    let _ = writeln!(text, "\n{}", table::wrap(columns, width));
    if let Some(words) = in_words(evaluation) {
        let _ = write!(text, "\n{}", table::wrap(&words, width));
    }
    text
}

/// One or two sentences.
fn in_words(evaluation: &EvalAnswer) -> Option<String> {
    let system = |name: &str| evaluation.systems.iter().find(|system| system.name == name);
    let (before, after) = (system(PLAIN)?, system(RERANKED)?);
    let difference = |baseline: &str| {
        let all = evaluation.differences.iter();
        all.clone().find(|d| d.system == RERANKED && d.baseline == baseline)
    };
    let queries = evaluation.queries;
    let count = |system: &SystemMeasured, measure: &str| {
        let share = system.measures.get(measure).copied().unwrap_or_default();
        (share * queries as f64).round() as usize
    };
    let (was, is) = (count(before, "success@1"), count(after, "success@1"));
    let sure = match difference(PLAIN).map(|difference| difference.verdict.as_str()) {
        Some("helps") => "The gain in nDCG@10 is more than chance explains.".to_owned(),
        Some("hurts") => "The loss in nDCG@10 is more than chance explains.".to_owned(),
        _ => {
            let helps = |d: &&SystemDifference| d.verdict == "helps";
            let others: Vec<&str> = ["bm25", "dense"]
                .into_iter()
                .filter(|name| difference(name).as_ref().is_some_and(helps))
                .collect();
            let against = if others.is_empty() {
                String::new()
            } else {
                format!("; that against {} alone is more than chance explains", others.join(" or "))
            };
            format!("The difference in nDCG@10 may be chance{against}.")
        }
    };
    let mut text = format!(
        "In words: the first result answers {is} of {queries} questions with reranking and {was} without. {sure}"
    );
    if let Some((before, after)) = before.latency_ms.as_ref().zip(after.latency_ms.as_ref()) {
        let (before, after) = (before.p50, after.p50);
        // A string takes all.
        let _ = write!(text, " A question takes {after:.0} ms instead of {before:.0} ms.");
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::output::LatencyMs;

    fn system(name: &str, success: f64, p50: f64) -> SystemMeasured {
        SystemMeasured {
            name: name.to_owned(),
            measures: BTreeMap::from([("success@1".to_owned(), success)]),
            latency_ms: Some(LatencyMs { p50, p95: p50, p99: p50, mean: p50 }),
            per_query: BTreeMap::new(),
            second_stage: None,
        }
    }

    fn evaluation(verdicts: [(&str, &str); 3]) -> EvalAnswer {
        let difference = |(baseline, verdict): (&str, &str)| SystemDifference {
            system: RERANKED.to_owned(),
            baseline: baseline.to_owned(),
            measure: "nDCG@10".to_owned(),
            mean: 0.1,
            low: 0.0,
            high: 0.2,
            p: 0.1,
            verdict: verdict.to_owned(),
        };
        EvalAnswer {
            data: "demo".to_owned(),
            queries: 40,
            depth: Some(30),
            embedder: None,
            reranker: None,
            measure: "nDCG@10".to_owned(),
            systems: vec![system(PLAIN, 0.5, 8.2), system(RERANKED, 0.6, 412.0)],
            differences: verdicts.map(difference).into(),
            warnings: Vec::new(),
            profile: None,
        }
    }

    #[test]
    fn the_result_in_words() {
        let chance = "cannot be told apart";
        let text = in_words(&evaluation([(PLAIN, "helps"), ("bm25", "helps"), ("dense", "helps")]));
        assert_eq!(
            text.unwrap(),
            "In words: the first result answers 24 of 40 questions with reranking and 20 without. \
             The gain in nDCG@10 is more than chance explains. A question takes 412 ms instead of 8 ms."
        );
        let text = in_words(&evaluation([(PLAIN, chance), ("bm25", "helps"), ("dense", "helps")]));
        let text = text.unwrap();
        assert!(
            text.contains("chance; that against bm25 or dense alone is more than chance"),
            "{text}"
        );
        let text = in_words(&evaluation([(PLAIN, chance), ("bm25", chance), ("dense", chance)]));
        assert!(text.unwrap().contains("The difference in nDCG@10 may be chance."));
        let text = in_words(&evaluation([(PLAIN, "hurts"), ("bm25", chance), ("dense", chance)]));
        assert!(text.unwrap().contains("The loss in nDCG@10 is more than chance explains."));
    }
}
