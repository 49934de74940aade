//! Random changes to valid bodies: no answer is a failure of the server's, and every error has the shape of its
//! dialect, which [`TestServer::send`] checks of every reply.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};
use tokio::runtime::Builder;

use super::exchange::{DOCUMENTS, QUERY, TestServer, post, request};
use super::faults::ROUTES;

/// Bodies for each route.
const CASES: u32 = 200;

/// Names of fields, some of which mean something on each route.
const FIELDS: [&str; 26] = [
    "query",
    "documents",
    "texts",
    "model",
    "top_n",
    "top_k",
    "rank_fields",
    "truncation",
    "return_documents",
    "max_tokens_per_doc",
    "max_chunks_per_doc",
    "priority",
    "raw_scores",
    "inputs",
    "text_1",
    "text_2",
    "blend",
    "gate",
    "then",
    "deadline_ms",
    "min_relevance",
    "filter",
    "prompt",
    "weights",
    "metadata",
    "constructor",
];

/// A change to a body in JSON; places are counted over all its values.
#[derive(Debug, Clone)]
enum Change {
    /// Another value in a place.
    Replace(Index, Value),
    /// A field or an item that goes.
    Remove(Index),
    /// A field more.
    Add(&'static str, Value),
}

/// A change to the bytes of a body.
#[derive(Debug, Clone)]
enum Damage {
    Replace(Index, u8),
    Insert(Index, u8),
    CutOff(Index),
}

/// Values that mean something special somewhere.
fn odd_value() -> impl Strategy<Value = Value> {
    let odd = vec![
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(-1),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(0.5),
        json!(-0.0),
        json!(1e-300),
        json!(1e300),
        json!(""),
        json!(" "),
        json!("\0"),
        json!("\u{202e}"),
        json!("😀".repeat(50)),
        json!("none"),
        json!("overlap,share"),
        json!("../../../etc/passwd"),
        json!("{{ 7 * 7 }}"),
        json!("{% for x in sources %}"),
        json!("a = 1 AND"),
        json!("(("),
        json!("margin:given:2>=0.1"),
        json!([]),
        json!({}),
        json!([[]]),
        json!([null]),
        json!([""]),
        json!({"text": "a"}),
        json!({"text": null}),
        json!([{}]),
        json!(["a", 1]),
        json!({"": ""}),
    ];
    let any = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    let any = any.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((select(FIELDS.to_vec()), inner), 0..4).prop_map(|fields| {
                Value::Object(
                    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
                )
            }),
        ]
    });
    prop_oneof![2 => select(odd), 1 => any]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<Index>(), odd_value()).prop_map(|(place, value)| Change::Replace(place, value)),
        1 => any::<Index>().prop_map(Change::Remove),
        2 => (select(FIELDS.to_vec()), odd_value()).prop_map(|(name, value)| Change::Add(name, value)),
    ]
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(place, byte)| Damage::Replace(place, byte)),
        (any::<Index>(), any::<u8>()).prop_map(|(place, byte)| Damage::Insert(place, byte)),
        any::<Index>().prop_map(Damage::CutOff),
    ]
}

/// The number of values in a value, itself included.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum::<usize>(),
        _ => 0,
    }
}

/// Puts another value in the place of that number, or takes what is there away.
fn put(value: &mut Value, place: usize, new: Option<&Value>) {
    if place == 0 {
        if let Some(new) = new {
            *value = new.clone();
        }
        return;
    }
    let mut left = place - 1;
    match value {
        Value::Array(items) => {
            for at in 0..items.len() {
                if left == 0 && new.is_none() {
                    items.remove(at);
                    return;
                }
                let own = count(&items[at]);
                if left < own {
                    return put(&mut items[at], left, new);
                }
                left -= own;
            }
        }
        Value::Object(fields) => {
            let names: Vec<String> = fields.keys().cloned().collect();
            for name in names {
                if left == 0 && new.is_none() {
                    fields.remove(&name);
                    return;
                }
                let own = count(&fields[&name]);
                if left < own {
                    return put(&mut fields[&name], left, new);
                }
                left -= own;
            }
        }
        _ => {}
    }
}

fn changed(mut body: Value, changes: &[Change]) -> Value {
    for change in changes {
        let places = count(&body);
        match change {
            Change::Replace(place, value) => put(&mut body, place.index(places), Some(value)),
            Change::Remove(place) => put(&mut body, place.index(places), None),
            Change::Add(name, value) => {
                if let Some(fields) = body.as_object_mut() {
                    fields.insert((*name).to_owned(), value.clone());
                }
            }
        }
    }
    body
}

fn damaged(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        let length = bytes.len();
        match damage {
            Damage::Replace(..) if length == 0 => {}
            Damage::Replace(place, byte) => bytes[place.index(length)] = *byte,
            Damage::Insert(place, byte) => bytes.insert(place.index(length + 1), *byte),
            Damage::CutOff(place) => bytes.truncate(place.index(length + 1)),
        }
    }
    bytes
}

/// Sends changed bodies to a route.
fn bombard(method: &str, path: &str, body: &Value) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let server = TestServer::new();
    let changes = prop_oneof![2 => Just(Vec::new()).boxed(), 1 => vec(damage(), 1..4).boxed()];
    let bodies = (vec(change(), 0..4), changes);
    let config =
        ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
    // The same bodies in every run.
    let chance = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, chance);
    let outcome = runner.run(&bodies, |(changes, damages)| {
        let text = changed(body.clone(), &changes).to_string();
        let bytes = damaged(text.into_bytes(), &damages);
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let reply = runtime.block_on(server.send(request(method, path).body(bytes)));
        let status = reply.status.as_u16();
        prop_assert!(
            status == 200 || (400..423).contains(&status),
            "{shown}: {status} {}",
            reply.text()
        );
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    // It still answers, and nothing stayed in.
    let reply = runtime.block_on(server.send(post("/v2/rerank", ROUTES[0].body())));
    assert_eq!(reply.status, 200);
    assert_eq!(server.app.admission.load().requests, 0);
}

macro_rules! bombard {
    ($($name:ident => $method:literal $path:literal $body:expr;)*) => {$(
        #[test]
        fn $name() {
            bombard($method, $path, &$body);
        }
    )*};
}

bombard! {
    cohere_v2 => "POST" "/v2/rerank" ROUTES[0].body();
    cohere_v1 => "POST" "/cohere/v1/rerank" json!({
        "query": QUERY, "documents": [{"text": "A flea."}, "A dog."], "rank_fields": ["text"], "top_n": 2,
    });
    v1 => "POST" "/v1/rerank" ROUTES[2].body();
    jina => "POST" "/jina/v1/rerank" json!({"query": QUERY, "documents": ["A flea.", {"text": "A dog."}], "top_n": 2});
    voyage => "POST" "/voyage/v1/rerank" json!({"query": QUERY, "documents": DOCUMENTS, "top_k": 2});
    tei => "POST" "/rerank" json!({"query": QUERY, "texts": DOCUMENTS, "raw_scores": true});
    vllm => "POST" "/vllm/v1/rerank" json!({"query": QUERY, "documents": DOCUMENTS, "top_n": 1});
    infinity => "POST" "/infinity/rerank" json!({"query": QUERY, "documents": DOCUMENTS, "return_documents": true});
    score => "POST" "/v1/score" json!({"queries": [QUERY, QUERY], "documents": ["A flea.", "A dog."]});
    native => "POST" "/topshelf/v1/rerank" json!({
        "query": QUERY, "documents": ["A flea.", {"title": "Dogs", "text": "A dog."}], "top_n": 2, "blend": 0.5,
        "then": [{"model": "share", "keep": 1}],
    });
    embed => "POST" "/embed" json!({"inputs": ["A flea.", "A dog."], "truncate": true});
    embeddings => "POST" "/v1/embeddings" json!({"input": ["A flea."], "encoding_format": "base64"});
    search => "POST" "/v1/search" json!({
        "query": QUERY, "retriever": "hybrid", "fusion": "rrf", "rrf_k": 60.0, "depth": 3, "top_n": 2,
        "filter": "lang = en OR year > 2000", "gate": "none",
        "prompt": {"budget": 100, "template": "{{ question }}", "near_duplicate": 0.8},
    });
    stream => "POST" "/v1/search" json!({"query": QUERY, "stream": true, "explain": true, "prompt": {"budget": 10}});
    context => "POST" "/v1/context" json!({
        "query": QUERY, "passages": [{"text": "A flea.", "headings": ["Fleas"]}, {"id": "b", "text": "A dog."}],
        "prompt": {"budget": 100, "system": "Answer.", "near_duplicate": 0.8},
    });
    documents => "POST" "/v1/documents" json!({"documents": [{"id": "x", "text": "A mite.", "metadata": {"year": 2001}}]});
    removal => "DELETE" "/v1/documents" json!({"ids": ["x"]});
}
