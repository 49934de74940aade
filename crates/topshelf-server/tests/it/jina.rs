//! Jina's rerank.

use serde_json::{Value, json};

use super::exchange::{DOCUMENTS, QUERY, TestRequest, post, with};

fn jina(fields: Value) -> TestRequest {
    let body = json!({"model": "jina-overlap", "query": QUERY, "documents": DOCUMENTS});
    post("/jina/v1/rerank", with(body, fields))
}

cases! { "jina":
    orders => jina(json!({}));
    takes_no_model => jina(json!({"model": null}));
    answers_the_best => jina(json!({"top_n": 2}));
    returns_no_documents_if_not_wanted => jina(json!({"return_documents": false}));
    takes_objects => jina(json!({"query": {"text": QUERY}, "documents": [{"text": "A dog."}, "A flea."]}));
    takes_no_images => jina(json!({"documents": [{"image": "https://example.org/flea.png"}]}));
    takes_no_list_for_a_document => jina(json!({"documents": [["A flea."]]}));
    reads_the_first_tokens => jina(json!({"max_doc_length": 2}));
    rejects_a_document_of_no_tokens => jina(json!({"max_doc_length": 0}));
    has_no_vectors => jina(json!({"return_embeddings": true}));
    takes_no_vectors => jina(json!({"return_embeddings": false, "top_n": 1}));
    takes_other_fields => jina(json!({"somebody": "else's", "top_n": 1}));
    warns_in_a_header => jina(json!({"model": "narrow", "top_n": 1}));
    cuts_if_allowed => jina(json!({"model": "narrow", "truncation": true, "top_n": 1}));
    does_not_cut_if_forbidden => jina(json!({"model": "narrow", "truncation": false}));
    does_not_cut_a_query_if_forbidden => jina(json!({
        "model": "narrow",
        "truncation": false,
        "query": "one two three four five six seven eight",
        "documents": ["one"],
    }));
}
