//! Judgments of one's own: given by hand and from a log, and measured with.

use std::path::Path;

use super::program::{Outcome, models, run, run_with_input, write};

const JUDGE: [&str; 6] = ["judge", "--index", "i", "--out", "own", "--json"];

fn with_index(dir: &Path) {
    models();
    write(dir, "docs/fleas.md", "# Fleas\n\nA flea lives for up to a year.\n");
    write(dir, "docs/cats.md", "# Cats\n\nA cat lives for fifteen years.\n");
    write(dir, "docs/ships.md", "# Ships\n\nA ship lies in the harbour.\n");
    run(dir, &["index", "add", "docs", "--index", "i"]).success();
    write(dir, "questions.txt", "how old do fleas get\nhow old do cats get\n");
}

fn judge(dir: &Path, more: &[&str], answers: &str) -> Outcome {
    run_with_input(dir, &[&JUDGE[..], more].concat(), answers.as_bytes())
}

#[test]
fn judged_by_hand_and_measured() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    with_index(dir);
    // All three passages of the first query, then the input ends.
    let first = judge(dir, &["--queries", "questions.txt"], "0\nwhat\n1\n2\n");
    assert!(first.stderr.contains("\"what\" is none of them"), "{first:?}");
    let first = first.json();
    assert_eq!((&first["queries"], &first["added"]), (&2.into(), &3.into()));
    // What is judged is not asked again: the second query alone is left.
    let second = judge(dir, &[], "2\nq\n");
    assert!(!second.stderr.contains("query 1 of 2"), "{second:?}");
    assert!(second.stderr.contains("query 2 of 2"), "{second:?}");
    assert_eq!(second.json()["judgments"], 4);

    let eval = run(dir, &["eval", "--own", "own", "--index", "i", "--json"]).json();
    assert_eq!(eval["queries"], 2);
    let names: Vec<&str> =
        eval["systems"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["bm25", "dense", "hybrid", "hybrid+rerank"]);
    let best = &eval["systems"][3];
    assert_eq!(best["second_stage"]["ceiling"]["nDCG@10"], 1.0);
    assert!(best["measures"]["recall@5"].as_f64().unwrap() > 0.99);
}

#[test]
fn judged_by_clicks() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    with_index(dir);
    let log = "{\"query\": \"how old do fleas get\", \"document\": \"docs/fleas.md\", \"clicked\": true}\n\
               {\"query\": \"how old do fleas get\", \"document\": \"docs/ships.md\", \"thumb\": \"down\"}\n\
               {\"query\": \"how old do cats get\", \"document\": \"docs/cats.md\", \"clicked\": false}\n";
    write(dir, "log.jsonl", log);
    let clicks = ["judge", "--clicks", "log.jsonl", "--out", "own", "--json"];
    let answer = run(dir, &clicks).json();
    assert_eq!((&answer["added"], &answer["ignored"]), (&2.into(), &1.into()));
    let eval = run(dir, &["eval", "--own", "own", "--index", "i", "--json"]).json();
    assert_eq!(eval["systems"][0]["measures"]["MRR@10"], 1.0);

    write(dir, "log.jsonl", "{\"query\": \"fleas\"}\n");
    let refused = run(dir, &clicks);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("log.jsonl, line 1"), "{refused:?}");
    // Passages beside documents cannot be measured together.
    write(dir, "own/qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\ta#1\t1\nq1\tb\t1\n");
    let mixed = run(dir, &["eval", "--own", "own", "--index", "i"]);
    assert_eq!(mixed.code, Some(2), "{mixed:?}");
    assert!(mixed.stderr.contains("folders of their own"), "{mixed:?}");
}
