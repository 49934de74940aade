//! Paths that several vendors share, and paths that mean the same.

use serde_json::{Value, json};

use super::exchange::{DOCUMENTS, QUERY, TestRequest, TestServer, get, post, with};

fn v1(fields: Value) -> TestRequest {
    post("/v1/rerank", with(json!({"query": QUERY, "documents": DOCUMENTS}), fields))
}

cases! { "shared":
    v1_is_cohere => v1(json!({"model": "overlap", "top_n": 1}));
    v1_with_top_k_is_voyage => v1(json!({"top_k": 1}));
    v1_with_truncation_is_voyage => v1(json!({"truncation": true}));
    v1_with_truncation_and_top_n_is_jina => v1(json!({"truncation": true, "top_n": 1}));
    v1_with_a_model_of_jina_is_jina => v1(json!({"model": "jina-overlap", "top_n": 1}));
    v1_with_max_doc_length_is_jina => v1(json!({"max_doc_length": 100, "top_n": 1}));
    v1_with_rank_fields_is_cohere => v1(json!({
        "model": "jina-overlap", "rank_fields": ["text"], "documents": [{"text": "A flea."}],
    }));
    v1_tells_an_error_of_voyage => v1(json!({"top_k": 1, "query": ""}));
    v1_tells_an_error_of_jina => v1(json!({"max_doc_length": 9, "model": "jina-nothing"}));
    rerank_with_texts_is_tei => post("/rerank", json!({"query": QUERY, "texts": DOCUMENTS}));
    rerank_with_documents_is_vllm => post("/rerank", json!({"query": QUERY, "documents": DOCUMENTS, "top_n": 1}));
    rerank_with_documents_tells_an_error_of_vllm => post("/rerank", json!({"query": "", "documents": DOCUMENTS}));
    rerank_with_nothing_tells_an_error_of_tei => post("/rerank", json!({"query": QUERY}));
}

/// Panics unless the same body gets the same answer from all of these paths.
async fn mean_the_same(paths: &[&str], body: Value) {
    let server = TestServer::new();
    let first = server.send(post(paths[0], body.clone())).await;
    assert_eq!(first.status, 200, "{}", first.text());
    for path in &paths[1..] {
        let other = server.send(post(path, body.clone())).await;
        assert_eq!(first.settled(), other.settled(), "{path}");
    }
}

#[tokio::test]
async fn cohere_is_there_with_and_without_its_prefix() {
    let body = json!({"model": "overlap", "query": QUERY, "documents": DOCUMENTS});
    mean_the_same(&["/v2/rerank", "/cohere/v2/rerank"], body.clone()).await;
    mean_the_same(&["/v1/rerank", "/cohere/v1/rerank"], body).await;
}

#[tokio::test]
async fn tei_is_there_with_and_without_its_prefix() {
    let body = json!({"query": QUERY, "texts": DOCUMENTS});
    mean_the_same(&["/rerank", "/tei/rerank"], body).await;
    mean_the_same(&["/embed", "/tei/embed"], json!({"inputs": "A flea."})).await;
    let server = TestServer::new();
    let infos =
        [server.send(get("/info")).await.json(), server.send(get("/tei/info")).await.json()];
    assert_eq!(infos[0], infos[1]);
}

#[tokio::test]
async fn vllm_is_there_with_and_without_its_prefix() {
    let body = json!({"query": QUERY, "documents": DOCUMENTS});
    mean_the_same(&["/rerank", "/vllm/rerank", "/vllm/v1/rerank", "/vllm/v2/rerank"], body).await;
    let body = json!({"text_1": QUERY, "text_2": DOCUMENTS});
    mean_the_same(&["/score", "/v1/score", "/vllm/score", "/vllm/v1/score"], body).await;
}

#[tokio::test]
async fn openai_is_there_with_and_without_its_prefix() {
    mean_the_same(&["/v1/embeddings", "/openai/v1/embeddings"], json!({"input": "A flea."})).await;
}

/// The order and the probabilities do not depend on the dialect.
#[tokio::test]
async fn every_dialect_has_the_same_order_and_the_same_scores() {
    let server = TestServer::new();
    let body =
        json!({"query": QUERY, "documents": DOCUMENTS, "texts": DOCUMENTS, "model": "overlap"});
    let pairs = |results: &Value, score: &str| -> Vec<(Value, Value)> {
        let results = results.as_array().expect("results");
        results.iter().map(|own| (own["index"].clone(), own[score].clone())).collect()
    };
    let cohere = with(body.clone(), json!({"texts": null}));
    let answer = server.send(post("/v2/rerank", cohere.clone())).await.json();
    let wanted = pairs(&answer["results"], "relevance_score");
    assert_eq!(wanted.iter().map(|(index, _)| index.clone()).collect::<Vec<_>>(), [1, 2, 3, 0]);
    for (path, list) in [
        ("/cohere/v1/rerank", "results"),
        ("/jina/v1/rerank", "results"),
        ("/voyage/v1/rerank", "data"),
        ("/vllm/v1/rerank", "results"),
        ("/infinity/rerank", "results"),
        ("/topshelf/v1/rerank", "results"),
    ] {
        let answer = server.send(post(path, cohere.clone())).await.json();
        assert_eq!(pairs(&answer[list], "relevance_score"), wanted, "{path}");
    }
    let answer = server.send(post("/tei/rerank", body)).await.json();
    assert_eq!(pairs(&answer, "score"), wanted, "tei");
}
