//! Voyage's rerank.

use serde_json::{Value, json};

use super::exchange::{DOCUMENTS, QUERY, TestRequest, post, with};

fn voyage(fields: Value) -> TestRequest {
    let body = json!({"model": "overlap", "query": QUERY, "documents": DOCUMENTS});
    post("/voyage/v1/rerank", with(body, fields))
}

cases! { "voyage":
    orders => voyage(json!({}));
    takes_no_model => voyage(json!({"model": null}));
    answers_the_best => voyage(json!({"top_k": 2}));
    returns_documents_if_wanted => voyage(json!({"top_k": 1, "return_documents": true}));
    takes_no_objects => voyage(json!({"documents": [{"text": "A flea."}]}));
    takes_other_fields => voyage(json!({"somebody": "else's", "top_k": 1}));
    warns_in_a_header => voyage(json!({"model": "picky", "documents": ["A flea.", "illegible"]}));
    cuts_if_allowed => voyage(json!({"model": "narrow", "truncation": true, "top_k": 1}));
    does_not_cut_if_forbidden => voyage(json!({"model": "narrow", "truncation": false}));
}
