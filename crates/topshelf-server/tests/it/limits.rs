//! How much is let in, and how long it may take.

use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream;
use serde_json::{Value, json};

use super::exchange::{DOCUMENTS, QUERY, TestRequest, TestServer, post};

fn body() -> Value {
    json!({"model": "overlap", "query": QUERY, "documents": DOCUMENTS})
}

fn rerank() -> TestRequest {
    post("/v2/rerank", body())
}

#[tokio::test]
async fn one_request_is_let_in_however_large() {
    let server = TestServer::with(|options| options.limits.requests = 0);
    assert_eq!(server.send(rerank()).await.status, 200);
}

#[tokio::test]
async fn a_refused_request_leaves_no_trace_in_what_is_in() {
    let server = TestServer::with(|options| options.limits.requests = 1);
    let held = server.app.admission.admit(10).expect("there is room");
    assert_eq!(server.send(rerank()).await.status, 429);
    drop(held);
    assert_eq!(server.app.admission.load().requests, 0);
    assert_eq!(server.send(rerank()).await.status, 200);
}

/// Whatever becomes of a request, it does not stay in.
#[tokio::test]
async fn no_request_stays_in() {
    let server = TestServer::new();
    for (path, fields) in [
        ("/topshelf/v1/rerank", json!({"model": "nan"})),
        ("/topshelf/v1/rerank", json!({"model": "broken", "strict": true})),
        ("/topshelf/v1/rerank", json!({"model": "hanging", "deadline_ms": 5})),
        ("/topshelf/v1/rerank", json!({"model": "narrow", "refuse_overlong": true})),
    ] {
        server.send(post(path, super::exchange::with(body(), fields.clone()))).await;
        assert_eq!(server.app.admission.load().requests, 0, "{fields}");
    }
    let streamed = json!({"query": QUERY, "stream": true, "model": "broken", "strict": true});
    server.send(post("/v1/search", streamed)).await;
    assert_eq!(server.app.admission.load().requests, 0);
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_work_with_it() {
    let server = TestServer::new();
    let asked = post(
        "/topshelf/v1/rerank",
        json!({"model": "hanging", "query": QUERY, "documents": ["a"]}),
    );
    let gone = tokio::time::timeout(Duration::from_millis(30), server.send(asked)).await;
    assert!(gone.is_err(), "it never answers");
    assert_eq!(server.app.admission.load().requests, 0);
}

#[tokio::test]
async fn a_body_that_says_it_is_too_long_is_not_read() {
    let server = TestServer::with(|options| options.limits.body = 10);
    server.send(rerank()).await.matches("limits", "body_too_large");
}

#[tokio::test]
async fn a_body_that_becomes_too_long_is_not_read_to_its_end() {
    let server = TestServer::with(|options| options.limits.body = 10);
    let part = || Ok::<_, std::io::Error>(Bytes::from_static(b"{\"query\""));
    let endless = Body::from_stream(stream::repeat_with(part));
    let asked = super::exchange::request("POST", "/v2/rerank").stream(endless);
    server.send(asked).await.matches("limits", "body_becomes_too_large");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let server = TestServer::with(|options| options.limits.body_time = Duration::from_millis(10));
    for (path, name) in [
        ("/v2/rerank", "body_does_not_come_for_cohere"),
        ("/rerank", "body_does_not_come_for_tei"),
        ("/v1/score", "body_does_not_come_for_vllm"),
        ("/v1/embeddings", "body_does_not_come_for_openai"),
        ("/v1/search", "body_does_not_come_for_search"),
    ] {
        let never = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        let asked = super::exchange::request("POST", path).stream(never);
        server.send(asked).await.matches("limits", name);
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error() {
    let server = TestServer::new();
    let broken = stream::iter([
        Ok(Bytes::from_static(b"{\"query\"")),
        Err(std::io::Error::other("connection reset")),
    ]);
    let asked = super::exchange::request("POST", "/v2/rerank").stream(Body::from_stream(broken));
    server.send(asked).await.matches("limits", "body_breaks_off");
}

/// The room for bodies is given back, however each ended.
#[tokio::test]
async fn bodies_wait_for_room_and_give_it_back() {
    let server = TestServer::with(|options| {
        options.limits.body = 4096;
        options.limits.bodies = 4096;
        options.limits.body_time = Duration::from_millis(100);
    });
    for _ in 0..3 {
        let never = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        let asked = super::exchange::request("POST", "/v2/rerank").stream(never);
        assert_eq!(server.send(asked).await.status, 408);
        assert_eq!(server.send(rerank()).await.status, 200);
    }
}

/// Work on a text so long is moved off the thread, which another test's runtime would not allow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_body_is_answered_as_a_short_one() {
    let server = TestServer::new();
    let long = "a flea. ".repeat(50_000);
    let body = json!({"model": "overlap", "query": "a flea", "documents": [long, "A dog."], "max_tokens_per_doc": 1000});
    let answer = server.send(post("/v2/rerank", body)).await.json();
    assert_eq!(answer["results"][0]["index"], 0);
}

#[tokio::test]
async fn a_deadline_of_the_head_holds_in_every_dialect() {
    let server = TestServer::new();
    for path in [
        "/v2/rerank",
        "/jina/v1/rerank",
        "/voyage/v1/rerank",
        "/vllm/v1/rerank",
        "/infinity/rerank",
    ] {
        let body = json!({"model": "hanging", "query": QUERY, "documents": DOCUMENTS});
        let asked = post(path, body).header("x-topshelf-deadline-ms", "10");
        let reply = server.send(asked).await;
        let told = format!("{:?} {}", reply.headers, reply.text());
        assert_eq!(reply.status, 200, "{path}");
        let warning = "4 candidates were not read before the deadline of 10 ms";
        assert!(told.contains(warning), "{path}: {told}");
    }
    let score = json!({"model": "hanging", "text_1": QUERY, "text_2": DOCUMENTS});
    let asked = post("/v1/score", score).header("x-topshelf-deadline-ms", "10");
    assert_eq!(server.send(asked).await.status, 200);
    let search = json!({"model": "hanging", "query": QUERY});
    let asked = post("/v1/search", search).header("x-topshelf-deadline-ms", "10");
    let report = server.send(asked).await.json()["report"]["second_stage"]["deadline"].clone();
    assert_eq!(report["unscored"], 3);
}

#[tokio::test]
async fn a_deadline_of_the_body_counts_before_that_of_the_head() {
    let server = TestServer::new();
    let asked = super::native::rerank(json!({"deadline_ms": 60_000}))
        .header("x-topshelf-deadline-ms", "0.000001");
    let answer = server.send(asked).await.json();
    assert_eq!(answer["second_stage"]["deadline"]["allowed"], 60_000.0);
}
