//! `topshelf ask` from outside: sources, the streamed answer, checked citations, cost and budget.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::endpoint::{Endpoint, Request, Response};
use super::program::{Outcome, run};

const QUESTION: &str = "how long do fleas live";

/// An index of two documents, words alone.
fn index(dir: &Path) {
    let docs = dir.join("docs");
    fs::create_dir(&docs).unwrap();
    fs::write(docs.join("fleas.md"), "# Fleas\n\nA flea lives for up to a year.\n").unwrap();
    fs::write(docs.join("cats.md"), "# Cats\n\nCats live with fleas for long.\n").unwrap();
    run(dir, &["index", "add", "docs", "--index", "docs.index", "--embed", "none"]).success();
}

fn ask(dir: &Path, model: &str, more: &[&str]) -> Outcome {
    let arguments = ["ask", QUESTION, "--index", "docs.index", "--no-profile", "--rerank", "none"];
    run(dir, &[&arguments[..], &["--model", model], more].concat())
}

/// Streams the pieces, as OpenAI and those who speak like it do.
fn streaming(pieces: &'static [&'static str]) -> Endpoint {
    Endpoint::start(move |_, request| {
        let body: Value = serde_json::from_str(&request.body).expect("JSON");
        assert_eq!((&body["stream"], &body["temperature"]), (&json!(true), &json!(0)));
        let piece = |piece: &&str| json!({ "choices": [{ "delta": { "content": piece } }] });
        let last =
            json!({ "choices": [], "usage": { "prompt_tokens": 200, "completion_tokens": 9 } });
        let mut lines = vec![": still there".to_owned()];
        let events = pieces.iter().map(piece).chain([last]);
        lines.extend(events.map(|event| ["data: ", &event.to_string()].concat()));
        lines.push("data: [DONE]\n\n".to_owned());
        let events = lines.join("\n\n");
        Response("200 OK\r\ncontent-type: text/event-stream", events)
    })
}

fn prompt(request: &Request) -> String {
    let body: Value = serde_json::from_str(&request.body).expect("JSON");
    body["messages"][1]["content"].as_str().expect("sources and question").to_owned()
}

#[test]
fn an_answer_with_sources_citations_and_cost() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    index(dir);
    let endpoint = streaming(&["Up to ", "a year [", "1], or two [7]."]);
    let model = format!("m@{}", endpoint.address);
    let prices = format!("[\"{model}\"]\ninput = 1.0\noutput = 10.0\n");
    fs::write(dir.join("prices.toml"), prices).unwrap();
    let told = ask(dir, &model, &["--prices", "prices.toml"]).success();
    assert!(told.starts_with("Up to a year [1], or two [7].\n"), "{told}");
    for says in [
        "docs/fleas.md#0",
        "(not cited)",
        "cites [7], which is no source",
        "read 200 tokens and wrote 9, which cost 0.000290 USD",
    ] {
        assert!(told.contains(says), "{says}: {told}");
    }
    let sent = prompt(&endpoint.requests()[0]);
    assert!(sent.contains("A flea lives for up to a year.") && sent.ends_with(QUESTION), "{sent}");

    let answer = ask(dir, &model, &["--prices", "prices.toml", "--json"]).json();
    assert_eq!(answer["answer"], "Up to a year [1], or two [7].");
    assert_eq!((&answer["cited"], &answer["unknown_citations"]), (&json!([1]), &json!([7])));
    assert_eq!(answer["usage"]["cost"], 0.000_29);
    assert_eq!(answer["sources"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_budget_stops_before_it_is_passed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    index(dir);
    let endpoint = streaming(&["never"]);
    let model = format!("m@{}", endpoint.address);
    // Without a price nobody knows what is spent.
    let unknown = ask(dir, &model, &["--max-cost", "1"]);
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    assert!(unknown.stderr.contains("--max-cost needs to know what"), "{unknown:?}");
    fs::write(dir.join("prices.toml"), format!("[\"{model}\"]\noutput = 10.0\n")).unwrap();
    // 500 tokens may be written: 0.005 USD.
    let stopped = ask(dir, &model, &["--prices", "prices.toml", "--max-cost", "0.004"]);
    assert_eq!(stopped.code, Some(2), "{stopped:?}");
    assert!(stopped.stderr.contains("the budget of 0.0040 USD would be passed"), "{stopped:?}");
    assert_eq!(endpoint.requests().len(), 0);
    let fits = ["--prices", "prices.toml", "--max-cost", "0.004", "--max-tokens", "300"];
    assert!(ask(dir, &model, &fits).success().starts_with("never"));
    for wrong in ["[m]\nprompt = 1", "["] {
        fs::write(dir.join("prices.toml"), wrong).unwrap();
        let refused = ask(dir, &model, &["--prices", "prices.toml"]);
        assert!(refused.code == Some(2) && refused.stderr.contains("prices.toml"), "{refused:?}");
    }
}

#[test]
fn what_goes_wrong_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    index(dir);
    // Nothing was found: the model is not asked to answer from memory.
    let endpoint = streaming(&["made up"]);
    let model = format!("m@{}", endpoint.address);
    let arguments = ["ask", "zzz", "--index", "docs.index", "--no-profile", "--rerank", "none"];
    let nothing = run(dir, &[&arguments[..], &["--model", &model]].concat()).success();
    assert!(nothing.contains("nothing was found to answer from"), "{nothing}");
    assert_eq!(endpoint.requests().len(), 0);
    // An answer without a citation is doubted.
    let told = ask(dir, &model, &[]).success();
    assert!(told.contains("cites no source"), "{told}");
    let wrong_key = Endpoint::start(|_, _| {
        Response("401 Unauthorized", json!({ "error": { "message": "bad key" } }).to_string())
    });
    let failed = ask(dir, &format!("m@{}", wrong_key.address), &[]);
    assert!(failed.code == Some(2) && failed.stderr.contains("bad key"), "{failed:?}");
    let broken = Endpoint::start(|_, _| {
        let event = json!({ "error": { "message": "out of memory" } });
        Response("200 OK", format!("data: {event}\n\n"))
    });
    let failed = ask(dir, &format!("m@{}", broken.address), &[]);
    assert!(failed.code == Some(1) && failed.stderr.contains("out of memory"), "{failed:?}");
    // Half of an answer was paid for.
    let half = Endpoint::start(|_, _| {
        let piece = json!({ "choices": [{ "delta": { "content": "Up to a year, or" } }] });
        let event = json!({ "error": { "message": "out of memory" } });
        Response("200 OK", format!("data: {piece}\n\ndata: {event}\n\n"))
    });
    let failed = ask(dir, &format!("m@{}", half.address), &[]);
    assert!(failed.stderr.contains("out of memory; spent until then: 1 call"), "{failed:?}");
    assert!(failed.stderr.contains("6 written"), "{failed:?}");
    let nobody = ask(dir, "m@http://127.0.0.1:9/v1", &[]);
    assert!(nobody.code == Some(1) && nobody.stderr.contains("cannot be reached"), "{nobody:?}");
}

#[test]
fn the_tiny_model_answers_in_this_process() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    index(dir);
    run(dir, &["models", "pull", "smollm2-135m"]).success();
    let streamed = ask(dir, "smollm2-135m", &["--max-tokens", "12"]).success();
    let answer = ask(dir, "smollm2-135m", &["--max-tokens", "12", "--json"]).json();
    let text = answer["answer"].as_str().expect("an answer");
    assert!(!text.is_empty() && streamed.starts_with(text), "{text:?} in {streamed:?}");
    assert!(answer["usage"]["output_tokens"].as_u64().is_some_and(|n| (1..=12).contains(&n)));
    assert_eq!(answer["usage"]["cost"], Value::Null);
}
