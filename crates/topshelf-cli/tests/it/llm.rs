//! Language models as rerankers from outside: at an endpoint, and in this process.

use std::path::Path;

use serde_json::{Value, json};

use super::endpoint::{Endpoint, Request, Response};
use super::program::{Outcome, run, write};

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

/// Picks the passage with the answer, wherever it stands, and says so with little doubt.
#[test]
fn rounds_of_small_groups_are_asked_for_letters() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start(|_, request| {
        let question = question(request);
        let labels = question.lines().filter_map(|line| line.strip_prefix('[')?.split_once("] "));
        let told: Vec<(&str, f64)> = labels
            .map(|(label, text)| (label, if text.contains("year") { 0.9 } else { 0.05 }))
            .collect();
        answer(told[0].0, &told)
    });
    let name = format!("llm-rounds-3:m@{}", endpoint.address);
    let answer = rerank(dir.path(), &name, &["--json"]).json();
    assert_eq!(order(&answer)[0], 1);
    assert_eq!(answer["reranker"]["usage"]["calls"], 3);
    let shown: Vec<String> = endpoint.requests().iter().map(question).collect();
    assert!(shown[0] != shown[1] && shown[1] != shown[2], "each round in another order");
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

/// Two windows of three are ordered; for the third the endpoint has lost its key.
#[test]
fn windows_that_were_paid_for_before_one_failed_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let lines: Vec<String> = (0..40).map(|n| format!("fleas, part {n}")).collect();
    std::fs::write(dir.path().join("docs.txt"), lines.join("\n")).unwrap();
    let endpoint = Endpoint::start(|number, _| match number {
        0 | 1 => answer("[2] > [1]", &[]),
        _ => Response("401 Unauthorized", json!({ "error": { "message": "expired" } }).to_string()),
    });
    let name = format!("m@{}", endpoint.address);
    let prices = format!("[\"{name}\"]\ninput = 1.0\noutput = 10.0\n");
    std::fs::write(dir.path().join("prices.toml"), prices).unwrap();
    let name = format!("llm-listwise:{name}");
    let arguments = ["rerank", "fleas", "--no-profile", "--docs", "docs.txt", "--rerank", &name];
    let priced = ["--prices", "prices.toml"];
    let kept = run(dir.path(), &[&arguments[..], &priced, &["--json"]].concat()).json();
    assert_eq!(order(&kept), (0..40).collect::<Vec<u64>>());
    let failure = &kept["second_stage"]["failures"][0];
    let usage = &failure["usage"];
    assert_eq!((&usage["calls"], &usage["input_tokens"]), (&json!(2), &json!(60)), "{failure}");
    assert_eq!(usage["cost"], 0.0001, "{failure}");
}

/// The spending before a failure stands in the error too, where it is one.
#[test]
fn an_error_says_what_was_spent_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start(|number, _| match number {
        0 => answer("1", &[("1", 1.0)]),
        _ => Response("401 Unauthorized", json!({ "error": { "message": "expired" } }).to_string()),
    });
    let name = format!("llm:m@{}", endpoint.address);
    let told = rerank(dir.path(), &name, &["--strict"]);
    assert_ne!(told.code, Some(0));
    let says = ["expired", "spent until then: 1 call, 30 tokens read, 2 written"];
    assert!(says.iter().all(|says| told.stderr.contains(says)), "{told:?}");
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

/// What reranking cost stands in the page, in money where prices are known and in tokens where not.
#[test]
fn a_report_says_what_reranking_cost() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let texts = ["dogs sleep", "fleas live for a year", "cats purr"];
    let document = |(n, text): (usize, &&str)| {
        json!({ "_id": format!("d{n}"), "title": "", "text": text }).to_string() + "\n"
    };
    write(dir, "data/corpus.jsonl", texts.iter().enumerate().map(document).collect::<String>());
    let query = |n| json!({ "_id": format!("q{n}"), "text": "how old do fleas get" }).to_string();
    write(dir, "data/queries.jsonl", [query(0), query(1)].join("\n"));
    write(dir, "data/qrels/test.tsv", "query-id\tcorpus-id\tscore\nq0\td1\t1\nq1\td1\t1\n");
    let line = |(q, d)| format!("q{q} Q0 d{d} {} {}.0 bm25\n", d + 1, 9 - d);
    let run_file: String = (0..2).flat_map(|q| (0..3).map(move |d| (q, d))).map(line).collect();
    write(dir, "run.trec", run_file);
    let endpoint = knowing("");
    let model = format!("m@{}", endpoint.address);
    write(dir, "prices.toml", format!("[\"{model}\"]\ninput = 1.0\noutput = 10.0\n"));
    let reranker = format!("llm:{model}");
    let arguments = ["eval", "--data", "data", "--candidates", "run.trec", "--no-profile"];
    let more = ["--rerank", &reranker, "--report", "report.html", "--measures", "nDCG@3"];
    let arguments = [&arguments[..], &more].concat();
    // Eight questions, two of them golden, for 30 tokens read and 2 written each: 0.00005 USD.
    let priced = [&arguments[..], &["--prices", "prices.toml"]].concat();
    let told = run(dir, &priced).success();
    assert!(told.contains("0.000200 USD a query, 0.20 a thousand"), "{told}");
    let page = std::fs::read_to_string(dir.join("report.html")).unwrap();
    for says in [
        "USD a query</th>",
        "USD a thousand</th>",
        "<td>0.000200</td><td>0.20</td>",
        "8 calls, 240 tokens read, 16 written, 0.000400 USD; that is 0.000200 USD a query",
        "Quality against cost",
    ] {
        assert!(page.contains(says), "{says}: {page}");
    }
    let told = run(dir, &arguments).success();
    assert!(told.contains("4.0 calls, 120.0 tokens read, 8.0 written a query"), "{told}");
    let page = std::fs::read_to_string(dir.join("report.html")).unwrap();
    assert!(page.contains("calls</th>") && page.contains("<td>120.0</td><td>8.0</td>"), "{page}");
    assert!(!page.contains("USD") && !page.contains("Quality against cost"), "{page}");
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
