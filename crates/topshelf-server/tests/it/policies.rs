//! When rerankers are used, and what happens where one fails: on the project's own routes, and what the
//! vendors' clients get of it.

use serde_json::{Value, json};

use super::exchange::{DOCUMENTS, QUERY, TestRequest, TestServer, post, with};
use super::native::rerank;

fn search(fields: Value) -> TestRequest {
    post("/v1/search", with(json!({"query": QUERY, "top_n": 1}), fields))
}

/// A vendor's body: the same for all but TEI.
fn vendor(path: &str, model: &str) -> TestRequest {
    post(path, json!({"model": model, "query": QUERY, "documents": DOCUMENTS}))
}

/// Documents of which one fails alone.
fn with_an_illegible_one(path: &str, fields: Value) -> TestRequest {
    let documents = ["A dog.", "This is illegible.", "A flea."];
    post(path, with(json!({"model": "picky", "query": QUERY, "documents": documents}), fields))
}

cases! { "policies":
    another_stands_in => rerank(json!({"model": "broken,share"}));
    another_stands_in_in_a_search => search(json!({"model": "broken,share"}));
    another_stands_in_for_cohere => vendor("/v2/rerank", "broken,share");
    another_stands_in_for_cohere_v1 => vendor("/cohere/v1/rerank", "broken,share");
    another_stands_in_for_jina => vendor("/jina/v1/rerank", "broken,share");
    another_stands_in_for_voyage => vendor("/voyage/v1/rerank", "broken,share");
    another_stands_in_for_vllm => vendor("/vllm/v1/rerank", "broken,share");
    another_stands_in_for_infinity => vendor("/infinity/rerank", "broken,share");
    another_stands_in_in_a_score => post("/v1/score", json!({
        "model": "broken,share", "text_1": QUERY, "text_2": DOCUMENTS,
    }));
    another_stands_in_for_too_few_scores => rerank(json!({"model": "short,share", "top_n": 1}));
    another_stands_in_and_explains => search(json!({
        "model": "broken,matching", "explain": true,
    }));
    the_order_stays_if_none_answers => rerank(json!({"model": "broken,short"}));
    the_order_stays_in_a_search => search(json!({"model": "broken"}));
    the_order_stays_for_cohere => vendor("/v2/rerank", "broken");
    the_order_stays_for_jina => vendor("/jina/v1/rerank", "broken");
    strict_makes_it_an_error => rerank(json!({"model": "broken", "strict": true}));
    strict_makes_it_an_error_of_a_search => search(json!({"model": "broken", "strict": true}));
    strict_is_no_error_if_another_answers => rerank(json!({
        "model": "broken,overlap", "strict": true, "top_n": 1,
    }));
    strict_names_the_caller_as_the_reranker_does => rerank(json!({"model": "refusing", "strict": true}));

    nan_is_a_failure => rerank(json!({"model": "nan"}));
    nan_is_a_failure_for_cohere => vendor("/v2/rerank", "nan");
    nan_is_a_failure_for_jina => vendor("/jina/v1/rerank", "nan");
    nan_is_a_failure_for_voyage => vendor("/voyage/v1/rerank", "nan");
    nan_is_a_failure_for_vllm => vendor("/vllm/v1/rerank", "nan");
    nan_is_a_failure_for_infinity => vendor("/infinity/rerank", "nan");
    nan_is_a_failure_in_a_score => post("/v1/score", json!({
        "model": "nan", "text_1": QUERY, "text_2": DOCUMENTS,
    }));
    another_stands_in_for_nan => rerank(json!({"model": "nan,overlap"}));
    strict_makes_nan_an_error => rerank(json!({"model": "nan", "strict": true}));

    one_fails_alone => with_an_illegible_one("/topshelf/v1/rerank", json!({}));
    one_fails_alone_for_cohere => with_an_illegible_one("/v2/rerank", json!({}));
    one_fails_alone_for_jina => with_an_illegible_one("/jina/v1/rerank", json!({}));
    one_fails_alone_for_voyage => with_an_illegible_one("/voyage/v1/rerank", json!({}));
    one_fails_alone_for_vllm => with_an_illegible_one("/vllm/v1/rerank", json!({}));

    gate_finds_the_order_clear => search(json!({"gate": "margin:bm25:2>=1", "top_n": 2}));
    gate_finds_the_order_ambiguous => search(json!({"gate": "margin:bm25:2>=9"}));
    gate_of_a_rerank => rerank(json!({"gate": "margin:given:2>=1", "top_n": 2}));
    gate_is_off => rerank(json!({"gate": "none", "top_n": 1}));
    blend => rerank(json!({"blend": 0.5}));
    blend_in_a_search => search(json!({"blend": 0.5, "top_n": 2}));
    blend_of_no_weight => rerank(json!({"blend": 0.0}));
    blend_of_all_the_weight => rerank(json!({"blend": 1.0, "top_n": 1}));
    blend_by_probability => search(json!({"blend": 0.5, "blend_score": "probability", "top_n": 2}));
    blend_by_another_score => search(json!({"blend": 0.5, "blend_score": "feeling"}));
    blend_score_without_a_weight => search(json!({"blend_score": "probability"}));
    default_blend_of_a_long_query => search(json!({"query": "flea ".repeat(41)}));
    blend_of_a_long_query => search(json!({"query": "flea ".repeat(41), "blend": 0.5}));
    min_relevance => rerank(json!({"min_relevance": 0.4}));
    min_relevance_of_nothing => rerank(json!({"min_relevance": 0.99}));
    min_relevance_in_a_search => search(json!({"min_relevance": 0.4}));
    min_relevance_of_what_has_no_score => with_an_illegible_one(
        "/topshelf/v1/rerank", json!({"min_relevance": 0.01}),
    );
    min_relevance_without_probabilities => rerank(json!({"model": "matching", "min_relevance": 0.5}));
    cascade => rerank(json!({"then": [{"model": "share", "keep": 2}]}));
    cascade_in_a_search => search(json!({"then": [{"model": "share", "keep": 1}], "top_n": 2}));
    // The order is that of `overlap`, and so are the scores; probabilities are the last step's alone.
    cascade_whose_last_step_fails => rerank(json!({"then": [{"model": "broken", "keep": 2}]}));
    cascade_whose_first_step_fails => rerank(json!({
        "model": "broken", "then": [{"model": "share", "keep": 2}],
    }));
    cascade_after_nothing => rerank(json!({"model": "none", "then": [{"model": "share", "keep": 2}]}));
    deadline_in_the_body => rerank(json!({"model": "hanging", "deadline_ms": 20}));
    deadline_after_a_part => rerank(json!({"model": "halting", "deadline_ms": 800}));
    deadline_that_is_met => rerank(json!({"deadline_ms": 60_000, "top_n": 1}));
    deadline_of_the_longest => rerank(json!({"deadline_ms": 86_400_000, "top_n": 1}));
    deadline_beyond_the_longest => rerank(json!({"deadline_ms": 86_400_001}));
    deadline_beyond_all_time => rerank(json!({"deadline_ms": 1e22}));
    deadline_lets_another_stand_in => rerank(json!({
        "model": "hanging,overlap", "deadline_ms": 800, "top_n": 1,
    })).header("x-topshelf-deadline-ms", "1");
}

/// Headers can hold no more than some clients read, and no letters but ASCII's.
#[tokio::test]
async fn warnings_in_headers_are_few_and_in_ascii() {
    let server = TestServer::new();
    let body = json!({"model": "picky", "query": QUERY, "documents": vec!["illegible"; 200]});
    let reply = server.send(post("/jina/v1/rerank", body)).await;
    let warnings: Vec<&str> = reply
        .headers
        .get_all("x-topshelf-warning")
        .iter()
        .map(|warning| warning.to_str().expect("ASCII"))
        .collect();
    assert!((2..=20).contains(&warnings.len()), "{warnings:#?}");
    assert!(warnings.last().unwrap().contains("more warnings"), "{warnings:#?}");
}

/// What a score costs is counted however it was asked for.
#[tokio::test]
async fn every_dialect_counts_its_pairs() {
    let counted = async |request: TestRequest| {
        let server = TestServer::new();
        let reply = server.send(request).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        server.metric("topshelf_pairs_total{model=\"overlap\"").await
    };
    for path in [
        "/v2/rerank",
        "/cohere/v1/rerank",
        "/jina/v1/rerank",
        "/voyage/v1/rerank",
        "/vllm/v1/rerank",
        "/infinity/rerank",
        "/topshelf/v1/rerank",
    ] {
        assert_eq!(counted(vendor(path, "overlap")).await, "4", "{path}");
    }
    let tei = post("/tei/rerank", json!({"query": QUERY, "texts": DOCUMENTS}));
    assert_eq!(counted(tei).await, "4");
    let score = post("/v1/score", json!({"text_1": QUERY, "text_2": DOCUMENTS}));
    assert_eq!(counted(score).await, "4");
    let pairs = post("/v1/score", json!({"text_1": DOCUMENTS, "text_2": DOCUMENTS}));
    assert_eq!(counted(pairs).await, "4");
    assert_eq!(counted(search(json!({}))).await, "3");
    assert_eq!(counted(search(json!({"stream": true}))).await, "3");
}
