//! Splitting, order, limits, retries, and every way in which a service can go wrong.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use topshelf_core::{
    Call, OnFailure, Passage, Policy, Query, Ranking, RerankOutcome, Reranker, Scale, SecondStage,
};
use topshelf_remote::{Budget, Dialect, HostedReranker, Meter, Prices, Target};

use super::service::{Reply, Request, Service};

fn ok(body: &Value) -> Reply {
    Reply::Whole(200, Vec::new(), body.to_string())
}

fn refusal(status: u16, body: &Value) -> Reply {
    Reply::Whole(status, Vec::new(), body.to_string())
}

/// The documents of a request, whatever they are called.
fn documents(request: &Request) -> Vec<String> {
    let found =
        ["documents", "texts", "input"].iter().find_map(|name| request.body[*name].as_array());
    let text = |item: &Value| item.as_str().or(item["text"].as_str()).unwrap().to_owned();
    found.unwrap().iter().map(text).collect()
}

/// Results for a request: a document that is a number is scored by it. Best first, as services answer.
fn results(request: &Request, score: &str) -> Vec<Value> {
    let mut scored: Vec<(usize, f64)> =
        documents(request).iter().map(|text| text.parse().unwrap()).enumerate().collect();
    scored.sort_by(|a, b| b.1.total_cmp(&a.1));
    scored.iter().map(|(index, value)| json!({ "index": index, score: value })).collect()
}

fn reranker(dialect: Dialect, service: &Service, model: &str) -> HostedReranker {
    let name = format!("{}+{}/rerank#{model}", dialect.name(), service.address);
    HostedReranker::new(Target::parse(&name).unwrap(), Meter::default()).unwrap()
}

fn passages(texts: impl IntoIterator<Item = String>) -> Vec<Arc<Passage>> {
    let texts = texts.into_iter().enumerate();
    texts.map(|(n, text)| Arc::new(Passage::standalone(format!("{n:05}"), "", text))).collect()
}

fn score(reranker: &HostedReranker, texts: &[&str]) -> topshelf_core::Result<Vec<RerankOutcome>> {
    let passages = passages(texts.iter().map(|text| (*text).to_owned()));
    pollster::block_on(reranker.score(&Call::new(), &Query::new("q").unwrap(), &passages))
}

fn values(outcomes: Vec<RerankOutcome>) -> Vec<f32> {
    outcomes.into_iter().map(|outcome| outcome.unwrap().score).collect()
}

#[test]
fn each_dialect_is_spoken_as_its_service_does() {
    for dialect in Dialect::ALL {
        let service = Service::start(move |request| {
            ok(&match dialect {
                Dialect::Tei => json!(results(request, "score")),
                Dialect::Voyage => json!({
                    "object": "list", "data": results(request, "relevance_score"),
                    "model": "m", "usage": {"total_tokens": 26},
                }),
                Dialect::Pinecone | Dialect::Mixedbread => {
                    json!({ "data": results(request, "score"), "model": "m" })
                }
                _ => {
                    json!({ "id": "x", "results": results(request, "relevance_score"), "meta": {} })
                }
            })
        });
        let found = score(&reranker(dialect, &service, "m"), &["0.25", "0.75", "0.5"]).unwrap();
        assert_eq!(values(found), [0.25, 0.75, 0.5], "{dialect:?}");
        let seen = service.seen.lock().unwrap();
        let body = &seen[0].body;
        assert_eq!(seen[0].path, "/rerank");
        assert!(seen[0].headers.contains(&("content-type".into(), "application/json".into())));
        assert_eq!(body["query"], "q");
        assert_eq!(body["model"].as_str(), (dialect != Dialect::Tei).then_some("m"), "{dialect:?}");
        // What a strict service would refuse is not sent.
        let known: &[&str] = match dialect {
            Dialect::Cohere | Dialect::Plain | Dialect::LlamaCpp => {
                &["model", "query", "documents"]
            }
            Dialect::CohereV1 | Dialect::Jina => {
                &["model", "query", "documents", "return_documents"]
            }
            Dialect::Voyage => &["model", "query", "documents", "truncation"],
            Dialect::Mixedbread => &["model", "query", "input", "return_input"],
            Dialect::Pinecone => &["model", "query", "documents", "return_documents", "parameters"],
            Dialect::Tei => &["query", "texts", "truncate"],
        };
        let fields = body.as_object().unwrap();
        assert!(fields.keys().all(|field| known.contains(&field.as_str())), "{body}");
        assert_eq!(fields.len(), known.len(), "{body}");
    }
}

/// 10,000 documents, 1,000 in a call, every third call refused for now.
#[test]
fn ten_thousand_documents_within_the_limits_and_in_order() {
    let service = Service::start(|request| {
        if request.number % 3 == 2 {
            let headers = vec![("retry-after-ms", "5".to_owned())];
            return Reply::Whole(429, headers, json!({ "message": "too fast" }).to_string());
        }
        ok(&json!({ "results": results(request, "relevance_score") }))
    });
    let texts: Vec<String> =
        (0..10_000).map(|n| format!("{}", f64::from(n * 7919 % 10_000) / 1e4)).collect();
    let expected: Vec<f32> = texts.iter().map(|text| text.parse().unwrap()).collect();
    let reranker = reranker(Dialect::Cohere, &service, "m");
    let query = Query::new("q").unwrap();
    let found = pollster::block_on(reranker.score(&Call::new(), &query, &passages(texts))).unwrap();
    assert_eq!(values(found), expected);
    let seen = service.seen.lock().unwrap();
    assert!(seen.iter().all(|request| documents(request).len() <= 1000));
    assert!(seen.len() >= 14, "{}", seen.len());
    // What was answered was asked once.
    let answered: usize =
        seen.iter().filter(|request| request.number % 3 != 2).map(|own| documents(own).len()).sum();
    assert_eq!(answered, 10_000);
}

#[test]
fn a_limit_that_is_told_makes_calls_smaller() {
    let service = Service::start(|request| {
        let count = documents(request).len();
        if count > 8 {
            let error = format!("batch size {count} > maximum allowed batch size 8");
            return refusal(422, &json!({ "error": error, "error_type": "Validation" }));
        }
        ok(&json!(results(request, "score")))
    });
    let reranker = reranker(Dialect::Tei, &service, "");
    let texts: Vec<String> = (0..50).map(|n| format!("0.{n:02}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let found = score(&reranker, &texts).unwrap();
    assert_eq!(values(found), texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<f32>>());
    let first = service.requests();
    score(&reranker, &texts).unwrap();
    assert_eq!(service.requests() - first, 7, "the limit is remembered");
}

#[test]
fn one_document_fails_alone() {
    let service = Service::start(|request| {
        let mut results = results(request, "relevance_score");
        results.retain(|result| result["index"] != 1);
        ok(&json!({ "results": results }))
    });
    let outcomes =
        score(&reranker(Dialect::Plain, &service, ""), &["0.5", "0.7", " \n", "0.1"]).unwrap();
    assert_eq!(outcomes[0].as_ref().unwrap().score.to_bits(), 0.5_f32.to_bits());
    assert!(outcomes[1].as_ref().unwrap_err().reason.contains("left it out"));
    assert!(outcomes[2].as_ref().unwrap_err().reason.contains("no text"));
    assert_eq!(outcomes[3].as_ref().unwrap().score.to_bits(), 0.1_f32.to_bits());
    assert_eq!(documents(&service.seen.lock().unwrap()[0]).len(), 3, "what is empty is not sent");
}

/// Status and body as each vendor sends them, what has to stand in the error, and whether it is tried
/// again.
#[test]
fn refusals_are_told_in_the_services_words() {
    let cases: [(Dialect, u16, Value, &str, bool); 9] = [
        (
            Dialect::Cohere,
            401,
            json!({"message": "invalid api token", "id": "x"}),
            "is the key set",
            false,
        ),
        (
            Dialect::Cohere,
            404,
            json!({"message": "model 'x' not found, make sure"}),
            "model 'x' not found",
            false,
        ),
        (
            Dialect::Cohere,
            422,
            json!({"message": "unknown field: parameter 'top_k'"}),
            "unknown field",
            false,
        ),
        (Dialect::Cohere, 503, json!({"message": "down for maintenance"}), "maintenance", true),
        (Dialect::Voyage, 400, json!({"detail": "bad model"}), "bad model", false),
        (Dialect::Voyage, 500, json!({"detail": "oops"}), "oops", true),
        (
            Dialect::Tei,
            424,
            json!({"error": "model is not a re-ranker model", "error_type": "Backend"}),
            "not a re-ranker",
            false,
        ),
        (
            Dialect::Plain,
            400,
            json!({"error": {"message": "no such thing", "type": "BadRequestError"}}),
            "no such thing",
            false,
        ),
        (
            Dialect::LlamaCpp,
            400,
            json!({"error": {"code": 400, "message": "\"query\" must be provided"}}),
            "must be provided",
            false,
        ),
    ];
    for (dialect, status, body, says, again) in cases {
        let service = Service::start(move |request| {
            let headers = vec![("retry-after-ms", "1".to_owned())];
            assert!(request.body.is_object());
            Reply::Whole(status, headers, body.to_string())
        });
        let error = score(&reranker(dialect, &service, "m"), &["0.5"]).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains(&status.to_string()), "{error}");
        assert_eq!(service.requests() > 1, again, "{dialect:?} {status}");
    }
}

#[test]
fn answers_that_are_none() {
    let garbage = |body: &'static str| {
        Service::start(move |_| Reply::Whole(200, Vec::new(), body.to_owned()))
    };
    for (body, says) in [
        ("<html>hello</html>", "hello"),
        ("{\"results\": 7}", "no list"),
        ("{\"results\": [{\"index\": 9, \"relevance_score\": 0.5}]}", "document 9"),
        (
            "{\"results\": [{\"index\": 0, \"relevance_score\": 0.5}, {\"index\": 0, \"relevance_score\": 0.5}]}",
            "two results",
        ),
        ("[{\"index\": 0, \"score\": null}]", "no score"),
    ] {
        let service = garbage(body);
        let error =
            score(&reranker(Dialect::Plain, &service, ""), &["0.5"]).unwrap_err().to_string();
        assert!(error.contains(says), "{body}: {error}");
        assert_eq!(service.requests(), 1, "{body}");
    }
    let cut = Service::start(|_| Reply::CutOff("{\"results\": [{\"ind".to_owned()));
    assert!(score(&reranker(Dialect::Plain, &cut, ""), &["0.5"]).is_err());
}

/// Down, key wrong, cut off, silent: the fused order with the reason, in time; or an error.
#[test]
fn the_order_stays_with_the_reason_within_the_deadline() {
    let services = [
        Service::start(|_| refusal(503, &json!({ "message": "down" }))),
        Service::start(|_| refusal(401, &json!({ "message": "invalid api token" }))),
        Service::start(|_| Reply::CutOff("{".to_owned())),
        Service::start(|_| Reply::Silence(Duration::from_secs(20))),
    ];
    let texts = ["0.1", "0.9", "0.5"].map(str::to_owned);
    let found =
        passages(texts).into_iter().enumerate().map(|(n, passage)| (passage, 9.0 - n as f32));
    let given = Ranking::new("bm25", Scale::Bm25, found).unwrap();
    let query = Query::new("q").unwrap();
    for (n, service) in services.iter().enumerate() {
        let deadline = Some(Duration::from_millis(300));
        let policy = Policy { deadline, on_failure: OnFailure::KeepOrder, ..Policy::default() };
        let stage = SecondStage::new(reranker(Dialect::Cohere, service, "m"));
        let stage = stage.with_policy(policy.clone()).unwrap();
        let start = Instant::now();
        let (ranking, report) =
            pollster::block_on(stage.run(&Call::new(), &query, &given, 3)).unwrap();
        assert!(start.elapsed() < Duration::from_secs(2), "{n}: {:?}", start.elapsed());
        let order: Vec<&str> = ranking.hits().iter().map(|hit| hit.passage.text.as_str()).collect();
        assert_eq!(order, ["0.1", "0.9", "0.5"], "{n}");
        let told =
            report.failures.len() == 1 || report.deadline.is_some_and(|own| own.unscored == 3);
        assert!(told, "{n}: {:?}", report.failures);
    }
    let strict = SecondStage::new(reranker(Dialect::Cohere, &services[1], "m"));
    assert!(pollster::block_on(strict.run(&Call::new(), &query, &given, 3)).is_err());
}

/// With a deadline before the retries are over, what the service said stands in the failure.
#[test]
fn a_deadline_that_cuts_retries_off_names_what_the_service_said() {
    let service = Service::start(|_| {
        let headers = vec![("retry-after-ms", "150".to_owned())];
        Reply::Whole(429, headers, json!({ "message": "trial keys are slow" }).to_string())
    });
    let found = passages(["0.1", "0.9"].map(str::to_owned)).into_iter().map(|own| (own, 1.0));
    let given = Ranking::new("bm25", Scale::Bm25, found).unwrap();
    let query = Query::new("q").unwrap();
    let deadline = Some(Duration::from_millis(280));
    for on_failure in [OnFailure::KeepOrder, OnFailure::Fail] {
        let policy = Policy { deadline, on_failure, ..Policy::default() };
        let stage = SecondStage::new(reranker(Dialect::Cohere, &service, "m"));
        let stage = stage.with_policy(policy).unwrap();
        let told = match pollster::block_on(stage.run(&Call::new(), &query, &given, 2)) {
            Ok((_, report)) => report.failures[0].reason.clone(),
            Err(error) => error.to_string(),
        };
        for says in ["429", "trial keys are slow", "tried ", "the deadline came before another try"]
        {
            assert!(told.contains(says), "{told}");
        }
    }
}

/// Two calls of three are answered; the third is refused for good.
#[test]
fn calls_that_were_answered_before_one_failed_are_counted() {
    let service = Service::start(|request| {
        if documents(request).len() < 1000 {
            // The last call waits until the others are through.
            std::thread::sleep(Duration::from_millis(300));
            return refusal(401, &json!({ "message": "invalid api token" }));
        }
        let results = results(request, "relevance_score");
        ok(&json!({ "results": results, "meta": { "billed_units": { "search_units": 10 } } }))
    });
    let budget = Arc::new(Budget::of_dollars(1.0));
    let price = Prices::parse("[m]\nsearch = 2.0").unwrap().of("m");
    let meter = Meter { price, budget: Some(Arc::clone(&budget)) };
    let name = format!("cohere+{}/rerank#m", service.address);
    let reranker = HostedReranker::new(Target::parse(&name).unwrap(), meter).unwrap();
    let found = passages((0..2500).map(|n| format!("0.{n:04}"))).into_iter().map(|own| (own, 1.0));
    let given = Ranking::new("bm25", Scale::Bm25, found).unwrap();
    let policy = Policy { on_failure: OnFailure::KeepOrder, ..Policy::default() };
    let stage = SecondStage::new(reranker).with_policy(policy).unwrap();
    let query = Query::new("q").unwrap();
    let call = Call::new();
    let (_, report) = pollster::block_on(stage.run(&call, &query, &given, 10)).unwrap();
    let usage = report.failures[0].usage;
    assert_eq!((usage.calls, usage.searches, usage.cost), (2, 20, Some(40_000_000)));
    assert_eq!((report.usage(), call.spent()), (usage, usage));
    assert_eq!(budget.spent(), 40_000_000);
}

#[test]
fn a_service_that_keeps_failing_is_left_alone() {
    let service = Service::start(|_| {
        let headers = vec![("retry-after-ms", "1".to_owned())];
        Reply::Whole(503, headers, json!({ "message": "down" }).to_string())
    });
    let reranker = reranker(Dialect::Cohere, &service, "m");
    for _ in 0..3 {
        score(&reranker, &["0.5"]).unwrap_err();
    }
    let before = service.requests();
    let error = score(&reranker, &["0.5"]).unwrap_err().to_string();
    assert!(error.contains("failed 3 times in a row"), "{error}");
    assert_eq!(service.requests(), before);
}

#[test]
fn who_goes_away_is_not_asked_for_any_more() {
    let service = Service::start(|_| refusal(503, &json!({ "message": "down" })));
    let reranker = reranker(Dialect::Cohere, &service, "m");
    let query = Query::new("q").unwrap();
    let one = passages(["0.5".to_owned()]);
    let call = Call::new();
    let mut future = reranker.score(&call, &query, &one);
    let waker = std::task::Waker::noop();
    assert!(future.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
    std::thread::sleep(Duration::from_millis(200));
    drop(future);
    let before = service.requests();
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(service.requests(), before, "it would have been tried again by now");
}

#[test]
fn a_vendor_without_a_key_says_which() {
    // No test of this program sets it.
    let target = Target::parse("pinecone:bge-reranker-v2-m3").unwrap();
    let error = score(&HostedReranker::new(target, Meter::default()).unwrap(), &["0.5"])
        .unwrap_err()
        .to_string();
    assert!(error.contains("PINECONE_API_KEY") && error.contains("_FILE"), "{error}");
}
