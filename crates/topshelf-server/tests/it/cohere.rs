//! Cohere's rerank, versions 1 and 2.

use serde_json::{Value, json};

use super::exchange::{DOCUMENTS, QUERY, TestServer, post, request, with};

fn v2(fields: Value) -> Value {
    with(json!({"model": "overlap", "query": QUERY, "documents": DOCUMENTS}), fields)
}

fn v1(fields: Value) -> Value {
    with(json!({"query": QUERY, "documents": DOCUMENTS}), fields)
}

cases! { "cohere":
    v2_orders => post("/v2/rerank", v2(json!({})));
    v2_names_the_model_by_an_alias => post("/v2/rerank", v2(json!({"model": "rerank-v3.5"})));
    v2_answers_the_best => post("/v2/rerank", v2(json!({"top_n": 2})));
    v2_answers_all_if_more_are_wanted => post("/v2/rerank", v2(json!({"top_n": 100})));
    v2_takes_a_null => request("POST", "/v2/rerank")
        .body(r#"{"model": "overlap", "query": "flea", "documents": ["A flea."], "top_n": null}"#);
    v2_reads_the_first_tokens => post("/v2/rerank", v2(json!({"max_tokens_per_doc": 2})));
    v2_returns_no_documents => post("/v2/rerank", v2(json!({"return_documents": true})));
    v2_takes_a_priority => post("/v2/rerank", v2(json!({"priority": 999})));
    v2_rejects_a_priority_out_of_range => post("/v2/rerank", v2(json!({"priority": 1000})));
    v2_rejects_a_document_of_no_tokens => post("/v2/rerank", v2(json!({"max_tokens_per_doc": 0})));
    v2_wants_a_model => post("/v2/rerank", v2(json!({"model": null})));
    v2_takes_no_objects => post("/v2/rerank", v2(json!({"documents": [{"text": "A flea."}]})));
    v2_warns_in_the_body => post("/v2/rerank", v2(json!({"model": "picky", "documents": ["A flea.", "illegible"]})));
    v1_orders => post("/cohere/v1/rerank", v1(json!({})));
    v1_answers_the_best => post("/cohere/v1/rerank", v1(json!({"top_n": 1})));
    v1_returns_texts => post("/cohere/v1/rerank", v1(json!({"top_n": 1, "return_documents": true})));
    v1_returns_objects => post("/cohere/v1/rerank", v1(json!({
        "documents": [{"text": "A dog.", "page": 1}, {"text": "A flea.", "page": 2}],
        "return_documents": true,
    })));
    v1_reads_fields_in_their_order => post("/cohere/v1/rerank", v1(json!({
        "documents": [{"title": "A flea", "text": "lives long"}, {"title": "A dog", "text": "sleeps"}],
        "rank_fields": ["title", "text"],
        "return_documents": true,
    })));
    v1_reads_fields_that_are_no_text => post("/cohere/v1/rerank", v1(json!({
        "query": "7",
        "documents": [{"page": 6}, {"page": 7}],
        "rank_fields": ["page"],
    })));
    v1_rejects_an_object_without_the_field => post("/cohere/v1/rerank", v1(json!({"documents": [{"title": "A flea"}]})));
    v1_rejects_no_fields => post("/cohere/v1/rerank", v1(json!({"rank_fields": []})));
    v1_rejects_fields_that_are_no_list => post("/cohere/v1/rerank", v1(json!({"rank_fields": "text"})));
    v1_reads_the_first_tokens => post("/cohere/v1/rerank", v1(json!({"max_tokens_per_doc": 2})));
    v1_takes_chunks => post("/cohere/v1/rerank", v1(json!({"max_chunks_per_doc": 10, "top_n": 1})));
    v1_rejects_too_many_chunks => post("/cohere/v1/rerank", v1(json!({"max_chunks_per_doc": 2500})));
    v1_takes_other_fields => post("/cohere/v1/rerank", v1(json!({"somebody": "else's", "top_n": 1})));
    v1_warns_in_the_body => post("/cohere/v1/rerank", v1(json!({"model": "picky", "documents": ["illegible"]})));
}

#[tokio::test]
async fn a_hundred_documents_are_one_search_unit() {
    let server = TestServer::new();
    for (documents, units) in [(1, 1), (100, 1), (101, 2)] {
        let body = v2(json!({"documents": vec!["A flea."; documents]}));
        let answer = server.send(post("/v2/rerank", body)).await.json();
        assert_eq!(answer["meta"]["billed_units"]["search_units"], units, "{documents} documents");
    }
}

#[tokio::test]
async fn each_answer_has_a_name_of_its_own() {
    let server = TestServer::new();
    let name = async || server.send(post("/v2/rerank", v2(json!({})))).await.json()["id"].clone();
    assert_ne!(name().await, name().await);
}
