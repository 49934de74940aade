//! Hosted rerankers from outside: keys, failover, and the order that stays.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use super::endpoint::{Endpoint, Response};
use super::program::{Outcome, models, topshelf};

const DOCUMENTS: &str = "dogs sleep\nfleas live for a year\ncats purr\n";

/// Reranks with a key in the environment.
fn rerank(reranker: &str, key: &[(&str, &str)], more: &[&str]) -> Outcome {
    use std::io::Write as _;
    let arguments = ["rerank", "how old do fleas get", "--no-profile", "--rerank", reranker];
    let mut command = topshelf(Path::new("."), &[&arguments[..], more].concat());
    for variable in ["COHERE_API_KEY", "COHERE_API_KEY_FILE"] {
        command.env_remove(variable);
    }
    command.envs(key.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    if let Some(mut input) = child.stdin.take() {
        let _ = input.write_all(DOCUMENTS.as_bytes()); // one that refuses its arguments does not read
    }
    child.wait_with_output().expect("the program ends").into()
}

fn order(answer: &Value) -> Vec<u64> {
    let results = answer["results"].as_array().expect("results").iter();
    results.map(|result| result["index"].as_u64().expect("an index")).collect()
}

/// The second document is the best, as a service says it.
fn cohere() -> Endpoint {
    Endpoint::start(|_, request| {
        if !request.headers.contains("bearer sesame") {
            let body = json!({ "message": "invalid api token", "id": "x" });
            return Response("401 Unauthorized", body.to_string());
        }
        let results = json!([
            { "index": 1, "relevance_score": 0.9 },
            { "index": 2, "relevance_score": 0.2 },
            { "index": 0, "relevance_score": 0.1 },
        ]);
        Response("200 OK", json!({ "id": "x", "results": results }).to_string())
    })
}

#[test]
fn a_service_takes_the_place_of_a_model() {
    let service = cohere();
    let name = format!("cohere+{}#rerank-v4.0-fast", service.address);
    let answer = rerank(&name, &[("COHERE_API_KEY", "sesame")], &["--json"]).json();
    assert_eq!(order(&answer), [1, 2, 0]);
    // A service's probability is not put through a sigmoid again.
    let relevance = answer["results"][0]["relevance_score"].as_f64().expect("a probability");
    assert!((relevance - 0.9).abs() < 1e-6, "{relevance}");
    assert_eq!(answer["reranker"]["model"], name.as_str());
    // From a file, and not a word of it anywhere.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    std::fs::write(&path, "sesame\n").unwrap();
    let key = [("COHERE_API_KEY_FILE", path.to_str().unwrap())];
    let told = rerank(&name, &key, &["--json"]);
    assert!(!told.stdout.contains("sesame") && !told.stderr.contains("sesame"), "{told:?}");
    assert_eq!(order(&told.json()), [1, 2, 0]);
}

#[test]
fn the_order_stays_and_the_reason_is_told() {
    let service = cohere();
    let at_service = format!("cohere+{}", service.address);
    for (name, key, says) in [
        (at_service.as_str(), "wrong", "invalid api token"),
        ("cohere:rerank-v4.0-fast", "", "COHERE_API_KEY"),
        ("http://127.0.0.1:9/rerank", "", "127.0.0.1:9"),
    ] {
        let kept = rerank(name, &[("COHERE_API_KEY", key)], &["--deadline", "9s"]);
        assert!(kept.stderr.contains(says), "{name}: {kept:?}");
        assert!(kept.stderr.contains("not reranked"), "{kept:?}");
        assert!(!kept.stderr.contains("wrong"), "the key is not told: {kept:?}");
        let lines: Vec<String> = kept.success().lines().map(str::to_owned).collect();
        assert!(lines[0].contains("dogs sleep") && lines[1].contains("fleas"), "{lines:?}");
        let strict = rerank(name, &[("COHERE_API_KEY", key)], &["--strict"]);
        assert!(strict.code == Some(1) || strict.code == Some(2), "{strict:?}");
        assert!(strict.stderr.contains(says), "{strict:?}");
    }
}

#[test]
fn a_short_deadline_names_what_the_service_said_last() {
    let service = Endpoint::start(|_, _| {
        let body = json!({ "message": "you are over the limit of trial keys" });
        Response("429 Too Many Requests\r\nretry-after: 1", body.to_string())
    });
    let name = format!("cohere+{}", service.address);
    let key = [("COHERE_API_KEY", "sesame")];
    let kept = rerank(&name, &key, &["--deadline", "300ms"]);
    for says in ["429", "over the limit of trial keys", "tried once", "the deadline came before"] {
        assert!(kept.stderr.contains(says), "{kept:?}");
    }
    assert!(kept.success().lines().next().is_some_and(|first| first.contains("dogs sleep")));
    let strict = rerank(&name, &key, &["--deadline", "300ms", "--strict"]);
    assert!(strict.code != Some(0) && strict.stderr.contains("over the limit"), "{strict:?}");
}

#[test]
fn the_local_model_stands_in() {
    models();
    let answer = rerank("cohere:rerank-v4.0-fast,local", &[], &["--json"]).json();
    assert_eq!(order(&answer)[0], 1);
    assert_eq!(answer["reranker"]["model"], "cross-encoder/ms-marco-MiniLM-L12-v2");
    assert_eq!(answer["reranker"]["scale"], "logit");
    let failures = answer["second_stage"]["failures"].as_array().expect("failures");
    assert_eq!(failures.len(), 1);
    assert!(failures[0]["reason"].as_str().expect("why").contains("COHERE_API_KEY"));
}
