//! vLLM's rerank and score, and Infinity's rerank.

use serde_json::{Value, json};

use super::exchange::{DOCUMENTS, QUERY, TestRequest, post, with};

fn asked(fields: Value) -> Value {
    with(json!({"model": "overlap", "query": QUERY, "documents": DOCUMENTS}), fields)
}

fn rerank(fields: Value) -> TestRequest {
    post("/vllm/v1/rerank", asked(fields))
}

fn infinity(fields: Value) -> TestRequest {
    post("/infinity/rerank", asked(fields))
}

fn score(fields: Value) -> TestRequest {
    let body = json!({"model": "overlap", "text_1": QUERY, "text_2": DOCUMENTS});
    post("/v1/score", with(body, fields))
}

cases! { "vllm":
    rerank_orders => rerank(json!({}));
    rerank_takes_no_model => rerank(json!({"model": null, "top_n": 1}));
    rerank_answers_the_best => rerank(json!({"top_n": 2}));
    rerank_answers_all_for_0 => rerank(json!({"top_n": 0, "return_documents": false}));
    rerank_returns_no_documents_if_not_wanted => rerank(json!({"return_documents": false}));
    rerank_answers_raw_scores => rerank(json!({"raw_scores": true, "return_documents": false}));
    rerank_answers_scores_without_activation => rerank(json!({"use_activation": false, "return_documents": false}));
    rerank_takes_objects => rerank(json!({"query": {"text": QUERY}, "documents": [{"text": "A flea."}]}));
    rerank_takes_no_images => rerank(json!({"documents": [{"image_url": "https://example.org/flea.png"}]}));
    rerank_takes_any_limit => rerank(json!({"truncate_prompt_tokens": -1, "top_n": 1}));
    rerank_takes_other_fields => rerank(json!({"somebody": "else's", "top_n": 1}));
    rerank_warns_in_a_header => rerank(json!({"model": "narrow", "top_n": 1}));
    rerank_puts_what_has_no_score_last => rerank(json!({
        "model": "picky", "documents": ["A dog.", "illegible", "A flea."], "raw_scores": true,
    }));
    infinity_orders => infinity(json!({}));
    infinity_returns_documents_if_wanted => infinity(json!({"return_documents": true, "top_n": 1}));
    infinity_answers_raw_scores => infinity(json!({"raw_scores": true}));
    score_of_one_with_many => score(json!({}));
    score_of_one_with_one => score(json!({"text_2": DOCUMENTS[1]}));
    score_of_pairs => score(json!({"text_1": ["a flea", "a dog"], "text_2": ["A flea.", "A flea."]}));
    score_of_queries_and_documents => score(json!({
        "text_1": null, "text_2": null, "queries": "a flea", "documents": ["A flea.", "A dog."],
    }));
    score_of_queries_and_items => score(json!({
        "text_1": null, "text_2": null, "queries": "a flea", "items": ["A flea."],
    }));
    score_of_data => score(json!({
        "text_1": null, "text_2": null, "data_1": "a flea", "data_2": ["A flea."],
    }));
    score_without_activation => score(json!({"use_activation": false}));
    score_takes_any_limit => score(json!({"truncate_prompt_tokens": 4, "text_2": "A flea."}));
    score_of_unequal_numbers => score(json!({"text_1": ["a", "b"], "text_2": ["c", "d", "e"]}));
    score_of_no_pairs => score(json!({"text_1": [], "text_2": []}));
    score_of_the_same_name_twice => score(json!({"queries": "a flea"}));
    score_of_what_has_no_score => score(json!({
        "model": "picky", "text_2": ["A dog.", "illegible", "A flea."], "use_activation": false,
    }));
}
