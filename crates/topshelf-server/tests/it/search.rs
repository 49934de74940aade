//! Search: the whole pipeline over an index, in one answer and as events.

use serde_json::{Value, json};

use super::exchange::{QUERY, TestRequest, TestServer, post, request, with};
use super::shelf::FakeShelf;

pub(crate) fn search(fields: Value) -> TestRequest {
    post("/v1/search", with(json!({"query": QUERY, "top_n": 2}), fields))
}

cases! { "search":
    finds => search(json!({}));
    finds_ten_unless_asked => search(json!({"top_n": null, "model": "none", "retriever": "dense"}));
    takes_top_k => search(json!({"top_n": null, "top_k": 1}));
    without_a_reranker => search(json!({"model": "none"}));
    by_words => search(json!({"retriever": "bm25", "model": "none", "top_n": 1}));
    by_letters => search(json!({"retriever": "dense", "model": "none", "top_n": 1}));
    by_both => search(json!({"retriever": "hybrid", "top_n": 1}));
    by_both_with_another_k => search(json!({"retriever": "hybrid", "rrf_k": 10, "model": "none", "top_n": 1}));
    by_both_with_weights => search(json!({
        "retriever": "hybrid", "fusion": "min-max", "weights": [3, 1], "model": "none", "top_n": 1,
    }));
    by_both_with_deviations => search(json!({
        "retriever": "hybrid", "fusion": "z-score", "model": "none", "top_n": 1,
    }));
    by_words_that_are_never_enough => search(json!({"k1": 2.8, "model": "none"}));
    by_words_of_short_passages => search(json!({"b": 1.0, "model": "none"}));
    by_words_in_titles => search(json!({"query": "fleas may", "title_weight": 3.0, "model": "none"}));
    with_a_filter => search(json!({"query": "cats", "filter": "lang = en AND year < 2020"}));
    with_a_filter_that_nothing_satisfies => search(json!({"filter": "lang = fr"}));
    nothing_found => search(json!({"query": "zebras"}));
    in_another_index => search(json!({"index": "archive"}));
    with_candidates => search(json!({"top_n": 1, "return_candidates": true}));
    with_an_explanation => search(json!({"top_n": 1, "model": "matching", "explain": true}));
    with_nothing_to_explain => search(json!({"top_n": 1, "explain": true}));
    with_nothing_that_explains => search(json!({"top_n": 1, "model": "none", "explain": true}));
    with_a_prompt => search(json!({"prompt": {}}));
    with_a_prompt_of_its_own => search(json!({"prompt": {
        "budget": 20, "system": "Answer.", "near_duplicate": 0.5,
        "template": "{% for source in sources %}{{ source.number }} {{ source.document }}\n{% endfor %}{{ question }}",
    }}));
    with_few_candidates => search(json!({"depth": 2, "return_candidates": true, "retriever": "dense"}));
    rejects_an_unknown_index => search(json!({"index": "nowhere"}));
    rejects_an_unknown_retriever => search(json!({"retriever": "nobody"}));
    rejects_an_unknown_fusion => search(json!({"fusion": "cold"}));
    rejects_a_retriever_without_vectors => search(json!({"retriever": "colbert"}));
    rejects_a_negative_k1 => search(json!({"k1": -0.1}));
    rejects_a_k1_that_is_no_number => search(json!({"k1": "high"}));
    rejects_a_b_out_of_range => search(json!({"b": 1.1}));
    rejects_a_negative_title_weight => search(json!({"title_weight": -1}));
    rejects_a_title_weight_beyond_all => search(json!({"title_weight": 1e300}));
    rejects_weights_for_ranks => search(json!({"retriever": "hybrid", "weights": [3, 1]}));
    rejects_a_k_for_scores => search(json!({"retriever": "hybrid", "fusion": "min-max", "rrf_k": 10}));
    rejects_an_unknown_model => search(json!({"model": "nobody"}));
    rejects_an_unknown_field => search(json!({"limit": 1}));
    rejects_an_empty_query => search(json!({"query": " \n"}));
    rejects_a_query_without_a_word => search(json!({"query": "???"}));
    rejects_a_query_that_is_too_long => search(json!({"query": "a".repeat(10_001)}));
    rejects_a_filter_that_is_none => search(json!({"filter": "lang = "}));
    rejects_no_results => search(json!({"top_n": 0}));
    rejects_a_negative_number_of_results => search(json!({"top_n": -1}));
    rejects_more_results_than_candidates => search(json!({"top_n": 20, "depth": 10}));
    rejects_no_candidates => search(json!({"depth": 0}));
    rejects_too_many_candidates => search(json!({"depth": 10_001}));
    rejects_a_negative_k => search(json!({"retriever": "hybrid", "rrf_k": -60}));
    rejects_a_k_beyond_all => search(json!({"retriever": "hybrid", "rrf_k": 1e300}));
    rejects_a_negative_weight => search(json!({"weights": [1, -1]}));
    rejects_other_weights_than_retrievers => search(json!({
        "retriever": "hybrid", "fusion": "min-max", "weights": [1, 1, 1],
    }));
    rejects_a_prompt_without_room => search(json!({"prompt": {"budget": 0}}));
    rejects_a_prompt_with_a_negative_number => search(json!({"prompt": {"near_duplicate": -0.5}}));
    rejects_a_prompt_with_another_field => search(json!({"prompt": {"tokens": 10}}));
    rejects_a_template_that_is_none => search(json!({"prompt": {"template": "{% for"}}));

    rejects_a_list_for_the_prompt => search(json!({"prompt": [100]}));
    rejects_a_list_for_the_body => request("POST", "/v1/search").body("[\"How long does a flea live?\"]");

    stream => search(json!({"stream": true}));
    stream_of_one => search(json!({"stream": true, "top_n": 1, "return_candidates": true, "prompt": {}}));
    stream_of_nothing => search(json!({"stream": true, "query": "zebras"}));
    stream_without_a_reranker => search(json!({"stream": true, "model": "none", "top_n": 1}));
    stream_of_an_error => search(json!({"stream": true, "model": "broken", "strict": true, "top_n": 1}));
    stream_of_a_failure_that_is_no_error => search(json!({"stream": true, "model": "broken", "top_n": 1}));
    stream_does_not_begin_where_nothing_can_be_found => search(json!({"stream": true, "query": "???"}));
    stream_does_not_begin_with_a_wrong_number => search(json!({"stream": true, "depth": 0}));
    stream_does_not_begin_with_a_wrong_prompt => search(json!({"stream": true, "prompt": {"budget": 0}}));
}

#[tokio::test]
async fn where_no_index_is_served_nothing_is_searched() {
    let server = TestServer::of(FakeShelf::empty(), |_| {});
    server.send(search(json!({}))).await.matches("search", "rejects_a_search_of_nothing");
}

/// What a stream counts stands in the metrics as that of one answer does.
#[tokio::test]
async fn an_error_in_a_stream_is_counted() {
    let server = TestServer::new();
    let asked = json!({"stream": true, "model": "broken", "strict": true});
    assert_eq!(server.send(search(asked)).await.status, 200);
    assert_eq!(server.metric("topshelf_errors_total{kind=\"failed\"}").await, "1");
}
