//! text-embeddings-inference: rerank, embed, info.

use serde_json::{Value, json};

use super::exchange::{DOCUMENTS, QUERY, TestRequest, TestServer, get, post, with};
use super::shelf::FakeShelf;

fn rerank(fields: Value) -> TestRequest {
    post("/tei/rerank", with(json!({"query": QUERY, "texts": DOCUMENTS}), fields))
}

fn embed(fields: Value) -> TestRequest {
    post("/embed", with(json!({"inputs": ["A flea.", "A dog."]}), fields))
}

cases! { "tei":
    rerank_orders => rerank(json!({}));
    rerank_answers_raw_scores => rerank(json!({"raw_scores": true}));
    rerank_returns_texts_if_wanted => rerank(json!({"return_text": true}));
    rerank_cuts_at_the_right => rerank(json!({"truncate": true, "truncation_direction": "Right"}));
    rerank_cuts_at_the_right_in_lower_case => rerank(json!({"truncation_direction": "right"}));
    rerank_does_not_cut_at_the_left => rerank(json!({"truncation_direction": "Left"}));
    rerank_takes_other_fields => rerank(json!({"somebody": "else's"}));
    embed_answers_vectors => embed(json!({}));
    embed_answers_a_vector => embed(json!({"inputs": "A flea."}));
    embed_tells_queries_from_passages => embed(json!({"inputs": "A flea.", "prompt_name": "query"}));
    embed_knows_no_other_prompt => embed(json!({"inputs": "A flea.", "prompt_name": "passage"}));
    embed_takes_normalised_vectors => embed(json!({"inputs": "A flea.", "normalize": true}));
    embed_has_only_normalised_vectors => embed(json!({"normalize": false}));
    embed_does_not_cut_if_forbidden => embed(json!({
        "inputs": ["a", "a b c d e f g h i j k l"],
        "truncate": false,
    }));
    embed_takes_what_fits => embed(json!({"inputs": "a b c", "truncate": false}));
    embed_rejects_no_texts => embed(json!({"inputs": []}));
    embed_rejects_a_blank_text => embed(json!({"inputs": ["A flea.", " \n"]}));
    embed_rejects_other_types => embed(json!({"inputs": [[1, 2, 3]]}));
    embed_wants_texts => embed(json!({"inputs": null}));
    embed_says_what_broke => embed(json!({"inputs": "a bomb"}));
    info_describes_the_reranker => get("/info");
    info_has_a_prefix => get("/tei/info");
}

#[tokio::test]
async fn where_no_reranker_is_served_there_is_no_info() {
    let server = TestServer::of(FakeShelf::empty(), |_| {});
    server.send(get("/info")).await.matches("tei", "info_of_nothing");
}

#[tokio::test]
async fn where_no_bi_encoder_is_served_there_are_no_vectors() {
    let server = TestServer::of(FakeShelf::empty(), |_| {});
    server.send(embed(json!({}))).await.matches("tei", "embed_by_nothing");
}
