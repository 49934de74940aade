//! Figures equal to trec_eval's, per query and in the mean, to 1e-6. The golden files are made by
//! `scripts/eval_goldens.py`, which says what is in them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use topshelf_eval::{BeirFolder, Measure, Qrels, Run, compare, evaluate};

const TOLERANCE: f64 = 1e-6;

#[derive(Deserialize)]
struct Golden {
    queries: Vec<String>,
    measures: BTreeMap<Measure, Figures>,
}

#[derive(Deserialize)]
struct Figures {
    mean: f64,
    per_query: Vec<f64>,
}

fn crate_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn golden_files(folder: &str) -> Vec<PathBuf> {
    let folder = crate_folder().join("tests/data").join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect();
    files.sort();
    files
}

/// Checks every figure of `golden` and returns how many there were.
fn check(golden: &Path, qrels: &Qrels, run: &Run) -> usize {
    let name = golden.file_stem().unwrap().to_string_lossy();
    let golden: Golden = serde_json::from_str(&fs::read_to_string(golden).unwrap()).unwrap();
    let measures: Vec<Measure> = golden.measures.keys().copied().collect();
    let evaluation = evaluate(qrels, run, &measures).unwrap();
    assert_eq!(evaluation.queries, golden.queries, "{name}");
    let mut checked = 0;
    for (measure, expected) in golden.measures {
        let scores = evaluation.of(measure).unwrap();
        assert!((scores.mean - expected.mean).abs() < TOLERANCE, "{name} {measure}: {scores:?}");
        assert_eq!(scores.per_query.len(), expected.per_query.len());
        for ((query, value), expected) in evaluation.per_query(measure).zip(&expected.per_query) {
            assert!((value - expected).abs() < TOLERANCE, "{name} {measure} {query}: {value}");
        }
        checked += 1 + scores.per_query.len();
    }
    checked
}

#[test]
fn hand_made_cases() {
    let files = golden_files("cases");
    assert_eq!(files.len(), 9);
    for golden in files {
        let qrels = Qrels::open(golden.with_extension("qrels")).unwrap();
        assert!(qrels.warnings.is_empty());
        let run = Run::open(golden.with_extension("run")).unwrap();
        assert!(check(&golden, &qrels.qrels, &run) >= 46);
    }
}

#[test]
fn stored_runs_of_real_collections() {
    let data = crate_folder().join("../../../shared/data");
    let files = golden_files("collections");
    assert_eq!(files.len(), 8);
    if !data.is_dir() {
        println!("no collections at {}: only the hand-made cases were checked", data.display());
        return;
    }
    let mut checked = 0;
    for golden in files {
        let name = golden.file_stem().unwrap().to_string_lossy().into_owned();
        let (collection, run) = name.split_once("--").unwrap();
        let folder = BeirFolder::open(data.join(collection)).unwrap();
        let topics = folder.topics("test").unwrap();
        assert!(topics.warnings.is_empty() && topics.without_text.is_empty());
        assert_eq!(topics.topics.len(), topics.qrels.query_count());
        let run = Run::open(folder.root().join("runs").join(run).with_extension("trec")).unwrap();
        checked += check(&golden, &topics.qrels, &run);
    }
    assert!(checked > 8_000, "{checked}");
}

#[test]
fn dense_against_bm25_on_a_real_collection() {
    let folder = crate_folder().join("../../../shared/data/msmarco-dl19");
    if !folder.is_dir() {
        println!("no collection at {}: nothing compared", folder.display());
        return;
    }
    let folder = BeirFolder::open(folder).unwrap();
    let qrels = folder.topics("test").unwrap().qrels;
    let ndcg: Measure = "nDCG@10".parse().unwrap();
    let evaluation = |run: &str| {
        let run = Run::open(folder.root().join("runs").join(run)).unwrap();
        evaluate(&qrels, &run, &[ndcg]).unwrap()
    };
    let (bm25, tasb) = (evaluation("bm25-top100.trec"), evaluation("tasb-top100.trec"));
    let (measure, comparison) = compare(&bm25, &tasb, 42).unwrap()[0];
    assert_eq!((measure, comparison.n), (ndcg, 43));
    assert!(comparison.p_value < 0.001 && comparison.low > 0.1, "{comparison:?}");
    assert!((comparison.mean_difference - 0.2152).abs() < 1e-3, "{comparison:?}");
    assert_eq!(comparison.wins + comparison.ties + comparison.losses, 43);
}
