//! Judgments of one's own: given by hand and from a log, and measured with.

use std::path::Path;

use std::fs;

use serde_json::Value;

use super::endpoint::{Endpoint, Request, Response, said};
use super::program::{Outcome, models, run, run_with_input, topshelf, write};

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
    assert_eq!(names, ["bm25", "dense", "hybrid", "hybrid+rerank", "hybrid+rerank+blend"]);
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

/// The program with an LLM for a judge.
fn judge_by(dir: &Path, endpoint: &Endpoint, more: &[&str]) -> Outcome {
    let by = ["--by", "wise-7b", "--endpoint", &endpoint.address];
    let mut command = topshelf(dir, &[&JUDGE[..], &by, more].concat());
    command.env("TOPSHELF_LLM_KEY", "very-secret");
    command.output().unwrap().into()
}

/// A judge to whom every passage answers that has the word.
fn knows(word: &str, request: &Request) -> Response {
    let body: Value = serde_json::from_str(&request.body).unwrap();
    assert_eq!((&body["model"], &body["temperature"]), (&"wise-7b".into(), &0.into()));
    let question = body["messages"][0]["content"].as_str().unwrap();
    let passage = &question[question.find("Passage:").unwrap()..];
    said(if passage.contains(word) { "2" } else { "0" })
}

#[test]
fn judged_by_a_model_and_checked_by_a_person() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    with_index(dir);
    let endpoint = Endpoint::start(|_, request| knows("flea", request));
    let first = judge_by(dir, &endpoint, &["--queries", "questions.txt"]).json();
    let model = &first["by_model"];
    assert_eq!((&model["model"], &model["pairs"]), (&"wise-7b".into(), &6.into()));
    assert_eq!(model["tokens"], 606);
    assert!(model["agreement"].is_null());
    assert_eq!(first["judgments"], 0, "a model's word is not a person's");
    let sent = endpoint.requests();
    assert_eq!(sent.len(), 6);
    assert!(
        sent.iter().all(|request| request.headers.contains("authorization: bearer very-secret"))
    );

    let eval = |split: &str| {
        run(dir, &["eval", "--own", "own", "--index", "i", "--split", split, "--json"])
    };
    let measured = eval("llm").json();
    let warnings = measured["warnings"].to_string();
    assert!(warnings.contains("by the model wise-7b; no person has judged"), "{warnings}");

    // A person says of the three passages of the first query: only the right one.
    let grades = |passages: &str| {
        let grade = |line: &str| if line.contains("fleas.md") { "2\n" } else { "0\n" };
        let shown = passages.lines().filter(|line| line.starts_with('['));
        shown.take(3).map(grade).collect::<String>()
    };
    let shown = judge(dir, &[], "s\ns\ns\nq\n").stderr;
    judge(dir, &[], &grades(&shown)).success();
    // Nothing is asked twice; the agreement is there.
    let again = judge_by(dir, &endpoint, &[]).json();
    assert_eq!(endpoint.requests().len(), 6);
    let agreement = &again["by_model"]["agreement"];
    assert_eq!((&agreement["pairs"], &agreement["equal"]), (&3.into(), &1.0.into()));
    assert_eq!(again["by_model"]["pairs"], 3);
    let warnings = eval("llm").json()["warnings"].to_string();
    assert!(warnings.contains("agrees in 100 %"), "{warnings}");
    // The split of a person holds a person's word alone.
    let own = fs::read_to_string(dir.join("own/qrels/test.tsv")).unwrap();
    assert_eq!(own.lines().count(), 4, "{own}");
    for file in ["qrels/llm.json", "qrels/llm.tsv", "llm-grades.tsv"] {
        assert!(!fs::read_to_string(dir.join("own").join(file)).unwrap().contains("very-secret"));
    }

    // Who is measured does not judge, and who judged goes on judging.
    let same = ["--rerank", "someone/Wise-7B"];
    let refused = judge_by(dir, &endpoint, &same);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("agree with itself"), "{refused:?}");
    let measured = ["eval", "--own", "own", "--index", "i", "--split", "llm"];
    let refused = run(dir, &[&measured[..], &same].concat());
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("by its own judgments"), "{refused:?}");
    let other = ["--by", "other", "--endpoint", &endpoint.address];
    let refused = run(dir, &[&JUDGE[..], &other].concat());
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("was judged by wise-7b"), "{refused:?}");
}

#[test]
fn a_judge_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    with_index(dir);
    let queries = ["--queries", "questions.txt"];

    // What passes is tried again, and what cannot be read judges nothing.
    let endpoint = Endpoint::start(|number, _| match number {
        0 => Response("429 Too Many Requests\r\nretry-after: 0", "{}".to_owned()),
        1 => Response("503 Service Unavailable", "loading".to_owned()),
        2 => said("I cannot say."),
        _ => said("1"),
    });
    let answer = judge_by(dir, &endpoint, &queries).json();
    let model = &answer["by_model"];
    assert_eq!((&model["pairs"], &model["unreadable"]), (&5.into(), &1.into()));
    assert_eq!(endpoint.requests().len(), 8);

    let wrong: [(&'static str, &str, &str, i32); 3] = [
        ("401 Unauthorized", r#"{"error": {"message": "bad key"}}"#, "bad key; is the key set", 2),
        (
            "404 Not Found",
            r#"{"error": "no such model"}"#,
            "no such model; is the address right",
            2,
        ),
        ("200 OK", r#"{"choices": []}"#, "there is no choices[0].message.content", 1),
    ];
    for (status, body, expected, code) in wrong {
        fs::remove_dir_all(dir.join("own")).unwrap();
        let endpoint = Endpoint::start(move |_, _| Response(status, body.to_owned()));
        let failed = judge_by(dir, &endpoint, &queries);
        assert_eq!(failed.code, Some(code), "{failed:?}");
        assert!(failed.stderr.contains(expected), "{failed:?}");
        assert!(!failed.stderr.contains("very-secret"), "{failed:?}");
    }

    let nowhere = ["--by", "wise-7b", "--endpoint", "localhost:80"];
    let refused = run(dir, &[&JUDGE[..], &nowhere].concat());
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("http://localhost:8080/v1"), "{refused:?}");
    let nowhere = run(dir, &[&JUDGE[..], &["--by", "wise-7b"]].concat());
    assert_eq!(nowhere.code, Some(2), "{nowhere:?}");
    assert!(nowhere.stderr.contains("TOPSHELF_LLM_ENDPOINT"), "{nowhere:?}");
}
