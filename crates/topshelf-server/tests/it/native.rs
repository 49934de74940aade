//! The project's own rerank: all that no vendor has.

use serde_json::{Value, json};

use super::exchange::{DOCUMENTS, QUERY, TestRequest, post, with};

pub(crate) fn rerank(fields: Value) -> TestRequest {
    post("/topshelf/v1/rerank", with(json!({"query": QUERY, "documents": DOCUMENTS}), fields))
}

/// Documents of which one is longer than the reranker reads, and answers at its end.
fn with_a_long_one(fields: Value) -> TestRequest {
    let long = format!("{}A flea may live long.", "Dogs sleep and cats do not. ".repeat(8));
    rerank(with(json!({"model": "share", "documents": ["The flea market.", long]}), fields))
}

cases! { "native":
    orders => rerank(json!({}));
    answers_the_best => rerank(json!({"top_n": 2}));
    takes_top_k => rerank(json!({"top_k": 1}));
    takes_a_model => rerank(json!({"model": "share"}));
    has_no_probability_on_some_scales => rerank(json!({"model": "matching"}));
    returns_documents => rerank(json!({"top_n": 1, "return_documents": true}));
    takes_texts_and_return_text => rerank(json!({
        "documents": null, "texts": ["A flea."], "return_text": true,
    }));
    takes_input_and_return_input => rerank(json!({
        "documents": null, "input": ["A flea."], "return_input": true,
    }));
    takes_titles => rerank(json!({"documents": [
        {"title": "A flea", "text": "They live long."}, {"text": "They live long."}, "They live long.",
    ]}));
    takes_no_other_objects => rerank(json!({"documents": [{"title": "A flea"}]}));
    says_what_was_read => rerank(json!({"model": "narrow"}));
    refuses_what_is_overlong => rerank(json!({"model": "narrow", "refuse_overlong": true}));
    says_what_it_cost => rerank(json!({"model": "service"}));
    reads_the_best_windows => with_a_long_one(json!({}));
    reads_the_best_windows_unless_asked => with_a_long_one(json!({"long_documents": "windows"}));
    reads_the_head_if_asked => with_a_long_one(json!({"long_documents": "head"}));
    reads_one_window_if_asked => with_a_long_one(json!({"windows": 1}));
    reads_short_windows_if_asked => with_a_long_one(json!({"window_tokens": 5}));
    rejects_another_part_of_long_documents => with_a_long_one(json!({"long_documents": "middle"}));
    rejects_no_windows => with_a_long_one(json!({"windows": 0}));
    rejects_too_many_windows => with_a_long_one(json!({"windows": 1001}));
    rejects_windows_of_nothing => with_a_long_one(json!({"window_tokens": 0}));
    rejects_windows_of_the_head => with_a_long_one(json!({"long_documents": "head", "windows": 2}));
    takes_encode_again => rerank(json!({"encode_again": true, "top_n": 1}));
    rejects_an_encode_again_that_is_no_boolean => rerank(json!({"encode_again": "yes"}));
    rejects_both_names_of_a_field => rerank(json!({"texts": DOCUMENTS}));
    rejects_a_list_for_a_document => rerank(json!({"documents": [["Fleas", "A flea."]]}));
    rejects_a_list_for_a_step => rerank(json!({"then": [["share", 1]]}));
    rejects_none => rerank(json!({"model": "none"}));
    rejects_five_steps => rerank(json!({"then": vec![json!({"model": "share", "keep": 1}); 5]}));
    rejects_a_step_without_a_number => rerank(json!({"then": [{"model": "share"}]}));
    rejects_a_step_with_another_field => rerank(json!({"then": [{"model": "share", "keep": 1, "top": 1}]}));
    rejects_a_step_of_none => rerank(json!({"then": [{"model": "share", "keep": 0}]}));
    rejects_an_unknown_step => rerank(json!({"then": [{"model": "nobody", "keep": 1}]}));
    rejects_a_blend_out_of_range => rerank(json!({"blend": 1.5}));
    rejects_a_blend_that_is_no_number => rerank(json!({"blend": "half"}));
    rejects_a_min_relevance_out_of_range => rerank(json!({"min_relevance": -0.1}));
    rejects_a_deadline_of_0 => rerank(json!({"deadline_ms": 0}));
    rejects_a_gate_without_a_value => rerank(json!({"gate": "margin:bm25:2"}));
    rejects_an_unknown_gate => rerank(json!({"gate": "feeling:bm25:2>=1"}));
    rejects_a_gate_with_a_min_relevance => rerank(json!({"gate": "margin:given:2>=9", "min_relevance": 0.5}));
    rejects_a_strictness_that_is_no_boolean => rerank(json!({"strict": 1}));
}
