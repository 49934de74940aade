//! What operators ask: models, health, metrics, the description, the pages; and the shadow.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use topshelf_server::Shadow;

use super::description;
use super::exchange::{DOCUMENTS, QUERY, TestServer, get, post, request};
use super::rerankers;
use super::shelf::FakeShelf;

cases! { "operation":
    models => get("/v1/models");
    alive => get("/healthz");
    ready => get("/readyz");
}

#[tokio::test]
async fn models_of_nothing() {
    let server = TestServer::of(FakeShelf::empty(), |_| {});
    server.send(get("/v1/models")).await.matches("operation", "models_of_nothing");
}

#[tokio::test]
async fn a_server_that_shuts_down_is_alive_and_not_ready() {
    let server = TestServer::new();
    server.app.admission.close();
    server.send(get("/readyz")).await.matches("operation", "not_ready");
    assert_eq!(server.send(get("/healthz")).await.status, 200);
}

#[tokio::test]
async fn a_server_at_work_says_how_much() {
    let server = TestServer::new();
    let _held = server.app.admission.admit(10).expect("there is room");
    assert_eq!(server.send(get("/readyz")).await.json()["requests"], 1);
    assert_eq!(server.metric("topshelf_requests_in").await, "1");
    assert_eq!(server.metric("topshelf_work_in_bytes").await, "10");
}

#[tokio::test]
async fn every_request_is_counted_by_route_dialect_and_status() {
    let server = TestServer::new();
    let body = json!({"model": "overlap", "query": QUERY, "documents": DOCUMENTS});
    server.send(post("/v2/rerank", body)).await;
    server.send(post("/v2/rerank", json!({}))).await;
    server.send(get("/anywhere/at/all")).await;
    server.send(get("/somewhere/else")).await;
    for (figure, wanted) in [
        (r#"topshelf_requests_total{route="/v2/rerank",dialect="cohere",status="200"}"#, "1"),
        (r#"topshelf_requests_total{route="/v2/rerank",dialect="cohere",status="422"}"#, "1"),
        (r#"topshelf_requests_total{route="none",dialect="native",status="404"}"#, "2"),
        (r#"topshelf_errors_total{kind="missing_field"}"#, "1"),
        (r#"topshelf_errors_total{kind="no_route"}"#, "2"),
        (r#"topshelf_stage_seconds_count{stage="rerank"}"#, "1"),
        (r#"topshelf_top_relevance_count{model="overlap"}"#, "1"),
    ] {
        assert_eq!(server.metric(figure).await, wanted, "{figure}");
    }
}

#[tokio::test]
async fn metrics_are_in_the_format_of_openmetrics() {
    let server = TestServer::new();
    let reply = server.send(get("/metrics")).await;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(reply.header("content-type"), Some(kind));
    assert!(reply.text().ends_with("# EOF\n"));
}

/// A request that a gate, a deadline or a failure changed is counted as such.
#[tokio::test]
async fn policies_are_counted() {
    let server = TestServer::new();
    let search = |gate: &str| post("/v1/search", json!({"query": QUERY, "gate": gate}));
    server.send(search("margin:bm25:2>=1")).await;
    server.send(search("margin:bm25:2>=9")).await;
    let rerank = |fields: serde_json::Value| super::native::rerank(fields);
    server.send(rerank(json!({"model": "broken,overlap"}))).await;
    server.send(rerank(json!({"model": "hanging", "deadline_ms": 10}))).await;
    for (figure, wanted) in [
        (r#"topshelf_gate_total{verdict="clear"}"#, "1"),
        (r#"topshelf_gate_total{verdict="ambiguous"}"#, "1"),
        (r#"topshelf_failovers_total{model="broken"}"#, "1"),
        (r#"topshelf_unscored_total{model="hanging"}"#, "4"),
    ] {
        assert_eq!(server.metric(figure).await, wanted, "{figure}");
    }
}

#[tokio::test]
async fn a_shadow_is_asked_and_changes_nothing() {
    let shadow = Arc::new(Shadow::new(rerankers::named("share"), 1.0));
    let server = TestServer::with(|options| options.shadow = Some(shadow));
    let body = json!({"model": "overlap", "query": QUERY, "documents": DOCUMENTS});
    let reply = server.send(post("/v2/rerank", body.clone())).await;
    let without = TestServer::new().send(post("/v2/rerank", body)).await;
    assert_eq!(reply.settled(), without.settled());
    for _ in 0..1000 {
        if server.metric("topshelf_shadow_agreement_count{model=\"share\"}").await != "0" {
            assert_eq!(
                server.metric("topshelf_shadow_agreement_sum{model=\"share\"}").await,
                "1.0"
            );
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("the shadow was never asked");
}

#[tokio::test]
async fn every_route_of_the_description_is_there() {
    let server = TestServer::new();
    let routes = description::routes();
    assert!(routes.len() >= 21, "{}", routes.len());
    for (path, method) in routes {
        let reply = server.send(request(method.as_str(), &path).body("{}")).await;
        let kind = reply.json()["error"]["type"].clone();
        assert!(![405, 500].contains(&reply.status.as_u16()), "{method} {path}: {}", reply.status);
        assert!(kind != "no_route", "{method} {path}");
    }
}

#[tokio::test]
async fn the_description_is_what_the_program_writes_into_a_file() {
    let server = TestServer::new();
    let reply = server.send(get("/openapi.json")).await;
    let written: serde_json::Value =
        serde_json::from_str(&topshelf_server::openapi::text()).unwrap();
    assert_eq!(reply.json(), written);
}

/// The pages ask for nothing that is not there, and for nothing from elsewhere.
#[tokio::test]
async fn every_file_that_a_page_names_is_there() {
    let server = TestServer::new();
    let mut waiting = vec!["/".to_owned(), "/docs".to_owned()];
    let mut seen = BTreeSet::new();
    while let Some(path) = waiting.pop() {
        let reply = server.send(get(&path)).await;
        assert_eq!(reply.status, 200, "{path}");
        let policy = reply.header("content-security-policy").expect("a policy");
        assert!(policy.starts_with("default-src 'self';"), "{path}: {policy}");
        assert_eq!(reply.header("cache-control"), Some("no-cache"), "{path}");
        let kind = match path.rsplit_once('.').map_or("html", |(_, ending)| ending) {
            "html" => "text/html; charset=utf-8",
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            _ => "image/svg+xml",
        };
        assert_eq!(reply.header("content-type"), Some(kind), "{path}");
        let text = reply.text();
        let is_file = |word: &&str| word.starts_with("/page/") || word.starts_with("./");
        for name in text.split(['"', '\'', '`']).filter(is_file) {
            let name = name.replace("./", "/page/");
            if seen.insert(name.clone()) {
                waiting.push(name);
            }
        }
    }
    assert!(seen.len() >= 10, "{seen:?}");
}
