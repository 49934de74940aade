//! Language models as rerankers from outside: at an endpoint, and in this process.

use std::path::Path;

use serde_json::{Value, json};

use super::endpoint::{Endpoint, Request, Response};
use super::program::{Outcome, run};

/// Reranks three documents, of which the second answers.
fn rerank(dir: &Path, reranker: &str, more: &[&str]) -> Outcome {
    let documents = dir.join("documents.txt");
    std::fs::write(&documents, "dogs sleep\nfleas live for a year\ncats purr\n").unwrap();
    let documents = documents.to_str().expect("a path in UTF-8").to_owned();
    let arguments = [
        "rerank",
        "how old do fleas get",
        "--no-profile",
        "--docs",
        &documents,
        "--rerank",
        reranker,
    ];
    run(Path::new("."), &[&arguments[..], more].concat())
}

fn order(answer: &Value) -> Vec<u64> {
    let results = answer["results"].as_array().expect("results").iter();
    results.map(|result| result["index"].as_u64().expect("an index")).collect()
}

/// The question in a request.
fn question(request: &Request) -> String {
    let body: Value = serde_json::from_str(&request.body).expect("JSON");
    let messages = body["messages"].as_array().expect("messages");
    messages.last().and_then(|message| message["content"].as_str()).expect("a question").to_owned()
}

fn answer(text: &str, first: &[(&str, f64)]) -> Response {
    let told: Vec<Value> =
        first.iter().map(|(token, p)| json!({ "token": token, "logprob": p.ln() })).collect();
    let body = json!({
        "choices": [{
            "message": { "content": text },
            "logprobs": { "content": [{ "token": text, "logprob": 0.0, "top_logprobs": told }] },
        }],
        "usage": { "prompt_tokens": 30, "completion_tokens": 2 },
    });
    Response("200 OK", body.to_string())
}

/// Knows fleas, Berlin, and nothing else; orders as it is told.
fn knowing(written: &'static str) -> Endpoint {
    Endpoint::start(move |_, request| {
        let question = question(request);
        if question.contains("Order all") {
            return answer(written, &[]);
        }
        let is_relevant = question.contains("for a year") || question.contains("3,520,031");
        if is_relevant {
            answer("9", &[("9", 0.9), ("8", 0.1)])
        } else {
            answer("1", &[("1", 1.0)])
        }
    })
}

#[test]
fn a_model_at_an_endpoint_takes_the_place_of_a_reranker() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = knowing("");
    let name = format!("llm:some-model@{}", endpoint.address);
    let answer = rerank(dir.path(), &name, &["--json"]).json();
    assert_eq!(order(&answer)[0], 1);
    let score = answer["results"][0]["score"].as_f64().expect("a score");
    assert!((score - 8.9).abs() < 1e-4, "{score}");
    assert_eq!(answer["reranker"]["model"], name.as_str());
    // Three passages, and the golden pair.
    let usage = &answer["reranker"]["usage"];
    assert_eq!(usage["calls"], 5, "{usage}");
    assert_eq!((&usage["input_tokens"], &usage["output_tokens"]), (&json!(150), &json!(10)));
}

#[test]
fn damaged_orders_are_repaired_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    for (written, expected, repaired) in [
        ("[2] > [3] > [1]", [1, 2, 0], 0),
        ("{\"order\": [2, 3, 1]}", [1, 2, 0], 0),
        ("[3] > [3] > [7]", [2, 0, 1], 1),
        ("I'd rather not.", [0, 1, 2], 1),
    ] {
        let endpoint = knowing(written);
        let name = format!("llm-listwise:m@{}", endpoint.address);
        let answer = rerank(dir.path(), &name, &["--json"]).json();
        assert_eq!(order(&answer), expected, "{written}");
        assert_eq!(answer["reranker"]["usage"]["repaired"], repaired, "{written}");
    }
}

#[test]
fn a_model_that_cannot_rank_is_refused_with_both_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let same = Endpoint::start(|_, _| answer("5", &[("5", 1.0)]));
    let name = format!("llm:m@{}", same.address);
    let told = rerank(dir.path(), &name, &["--strict"]);
    assert_ne!(told.code, Some(0));
    let says = ["cannot rank with the template rating", "scores 5.00 and the other 5.00"];
    assert!(says.iter().all(|says| told.stderr.contains(says)), "{told:?}");
    // Without --strict the order stays, and the reason is told.
    let kept = rerank(dir.path(), &name, &["--json"]).json();
    assert_eq!(order(&kept), [0, 1, 2]);
    let reason = kept["second_stage"]["failures"][0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("5.00"), "{reason}");
}

#[test]
fn names_that_mean_nothing_say_what_would() {
    let dir = tempfile::tempdir().unwrap();
    for (name, says) in [
        ("llm-bubble:m@openai", "pointwise, yes-no, listwise"),
        ("llm:m@localhost", "no endpoint"),
        ("llm:no-such-model", "models list"),
        ("llm:minilm-l12", "language-model"),
        ("llm:/nowhere/model.gguf", "/nowhere/model.gguf"),
    ] {
        let told = rerank(dir.path(), name, &[]);
        assert_ne!(told.code, Some(0), "{name}");
        assert!(told.stderr.contains(says), "{name}: {}", told.stderr);
    }
}

#[test]
fn the_tiny_model_runs_in_this_process_and_is_too_small_to_rank() {
    let dir = tempfile::tempdir().unwrap();
    run(Path::new("."), &["models", "pull", "smollm2-135m"]).success();
    let told = rerank(dir.path(), "llm-yes-no:smollm2-135m", &["--strict"]);
    assert!(told.stderr.contains("cannot rank with the template yes-no"), "{told:?}");
    // Asked for a number, it talks.
    let told = rerank(dir.path(), "llm:smollm2-135m", &["--strict"]);
    assert!(told.stderr.contains("no score for the golden pair"), "{told:?}");
    // It writes orders all the same, and each is one: it is held to that.
    let answer = rerank(dir.path(), "llm-listwise:smollm2-135m", &["--json"]).json();
    let mut places = order(&answer);
    places.sort_unstable();
    assert_eq!(places, [0, 1, 2]);
    let ran = &answer["reranker"];
    assert_eq!((&ran["usage"]["calls"], &ran["usage"]["repaired"]), (&json!(1), &json!(0)));
    assert!(ran["engine"].as_str().is_some_and(|engine| engine.contains("native decoder")));
}
