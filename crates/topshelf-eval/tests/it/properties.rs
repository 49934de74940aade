//! What holds for every qrels and every run.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use topshelf_eval::{Measure, Qrels, Run, compare_paired, evaluate};

const MEASURES: &str = "nDCG nDCG@1 nDCG@3 nDCG@10 R@1 R@5 R(rel=2)@5 Success@1 Success@3 P@1 P@5 \
                        P(rel=2)@20 MRR MRR@3 MAP MAP@3 MAP(rel=3)";

fn measures() -> Vec<Measure> {
    Measure::parse_list(MEASURES).unwrap()
}

/// Query to document to grade. Few ids, so that run and judgments meet.
fn judgments() -> impl Strategy<Value = BTreeMap<u8, BTreeMap<u8, i32>>> {
    let documents = prop::collection::btree_map(0..12_u8, -2..4_i32, 1..10);
    prop::collection::btree_map(0..5_u8, documents, 1..5)
}

/// Query to document to score. Few scores, so that there are ties.
fn answers() -> impl Strategy<Value = BTreeMap<u8, BTreeMap<u8, f64>>> {
    let score = prop_oneof![(-2..3_i32).prop_map(f64::from), -1e6..1e6_f64];
    let documents = prop::collection::btree_map(0..15_u8, score, 0..12);
    prop::collection::btree_map(0..5_u8, documents, 0..5)
}

/// Scores over the whole range of finite numbers.
fn finite_score() -> impl Strategy<Value = f64> {
    prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO
}

fn qrels(judgments: &BTreeMap<u8, BTreeMap<u8, i32>>) -> Qrels {
    let mut qrels = Qrels::new();
    for (query, documents) in judgments {
        for (document, &grade) in documents {
            qrels.insert(format!("q{query}"), format!("d{document}"), grade);
        }
    }
    qrels
}

fn run_lines(answers: &BTreeMap<u8, BTreeMap<u8, f64>>) -> Vec<String> {
    let line = |query: &u8, (document, score): (&u8, &f64)| {
        format!("q{query} Q0 d{document} 0 {score:?} t\n")
    };
    answers.iter().flat_map(|(q, documents)| documents.iter().map(move |d| line(q, d))).collect()
}

fn run(lines: &[String]) -> Run {
    Run::read(lines.concat().as_bytes(), "run").unwrap()
}

/// Whether [`evaluate`] has a query to work on; it refuses a run about other queries.
fn meet(qrels: &Qrels, run: &Run) -> bool {
    run.is_empty() || run.queries().any(|query| qrels.documents(query).is_some())
}

proptest! {
    #[test]
    fn every_figure_lies_in_0_to_1(judgments in judgments(), answers in answers()) {
        let (qrels, run) = (qrels(&judgments), run(&run_lines(&answers)));
        prop_assume!(meet(&qrels, &run));
        let evaluation = evaluate(&qrels, &run, &measures()).unwrap();
        for scores in &evaluation.scores {
            prop_assert_eq!(scores.per_query.len(), qrels.query_count());
            for value in scores.per_query.iter().chain([&scores.mean]) {
                prop_assert!((0.0..=1.0 + 1e-12).contains(value), "{} {}", scores.measure, value);
            }
        }
        for missing in &evaluation.missing {
            prop_assert!(run.documents(missing).is_empty());
        }
    }

    #[test]
    fn the_ideal_ranking_has_ndcg_1(judgments in judgments()) {
        let qrels = qrels(&judgments);
        let mut ideal = Run::new("ideal");
        for (query, documents) in qrels.iter() {
            let by_grade = documents.iter().map(|(id, &grade)| (id.as_str(), f64::from(grade)));
            ideal.insert(query, by_grade).unwrap();
        }
        let measures = Measure::parse_list("nDCG nDCG@1 nDCG@3 MRR MAP Success@1").unwrap();
        let evaluation = evaluate(&qrels, &ideal, &measures).unwrap();
        let zero: BTreeSet<&str> = evaluation.without_relevant.iter().map(String::as_str).collect();
        for measure in measures {
            for (query, value) in evaluation.per_query(measure) {
                let expected = if zero.contains(query) { 0.0 } else { 1.0 };
                prop_assert!((value - expected).abs() < 1e-12, "{measure} {query} {value}");
            }
        }
    }

    #[test]
    fn the_order_of_the_lines_does_not_matter(
        (lines, shuffled) in answers().prop_map(|a| run_lines(&a)).prop_flat_map(|lines| {
            (Just(lines.clone()), Just(lines).prop_shuffle())
        })
    ) {
        prop_assert_eq!(run(&lines), run(&shuffled));
    }

    #[test]
    fn a_run_survives_its_file(
        tag in "[!-~]{1,8}",
        answers in prop::collection::btree_map(
            "[!-~é-ö]{1,6}",
            prop::collection::btree_map("[!-~α-ω]{1,6}", finite_score(), 1..6),
            1..4,
        )
    ) {
        let mut original = Run::new(tag);
        for (query, documents) in answers {
            original.insert(query, documents).unwrap();
        }
        let mut file = Vec::new();
        original.write(&mut file).unwrap();
        prop_assert_eq!(Run::read(file.as_slice(), "run").unwrap(), original);
    }

    #[test]
    fn swapping_the_systems_negates_the_comparison(
        figures in prop::collection::vec((0.0..=1.0_f64, 0.0..=1.0_f64), 1..12)
    ) {
        let (left, right): (Vec<f64>, Vec<f64>) = figures.into_iter().unzip();
        let there = compare_paired(&left, &right, 9).unwrap();
        let back = compare_paired(&right, &left, 9).unwrap();
        prop_assert!((there.p_value - back.p_value).abs() < 1e-12);
        prop_assert!((there.mean_difference + back.mean_difference).abs() < 1e-12);
        prop_assert!(there.p_value > 0.0 && there.p_value <= 1.0);
        prop_assert!(there.low <= there.mean_difference + 1e-9);
        prop_assert!(there.mean_difference <= there.high + 1e-9);
        prop_assert_eq!((there.wins, there.losses), (back.losses, back.wins));
    }

    #[test]
    fn measure_names_read_back(
        kind in prop::sample::select(vec!["nDCG", "recall", "success", "precision", "MRR", "MAP"]),
        k in 1..2000_usize,
        level in 1..5_i32,
    ) {
        let mut measure: Measure = format!("{kind}@{k}").parse().unwrap();
        if kind != "nDCG" {
            measure = measure.with_level(level).unwrap();
        }
        prop_assert_eq!(measure.to_string().parse::<Measure>().unwrap(), measure);
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        // Either answer is right; what is tested is that there is one.
        let _ = Qrels::read(bytes.as_slice(), "qrels");
        let _ = Run::read(bytes.as_slice(), "run");
        let _ = topshelf_eval::CorpusReader::new(bytes.as_slice(), "corpus").count();
    }
}
