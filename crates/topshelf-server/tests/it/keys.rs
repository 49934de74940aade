//! Who may ask, how much, and what a key is good for.

use serde_json::json;
use topshelf_server::keys::hash;

use super::exchange::{TestRequest, TestServer, get, post, request};

/// Three keys: one that may do all, one that asks only, and one for a request a minute.
fn server() -> TestServer {
    let entry = |key: &str, more: &str| {
        format!("[[key]]\nname = \"team {key}\"\nsha256 = \"{}\"\n{more}\n", hash(key))
    };
    let keys = entry("may-change", "may_change = true")
        + &entry("asks", "")
        + &entry("seldom", "per_minute = 1");
    TestServer::with_keys(&keys)
}

fn with_key(request: TestRequest, key: &str) -> TestRequest {
    request.header("authorization", format!("Bearer {key}"))
}

fn ask() -> TestRequest {
    get("/v1/models")
}

/// A request to a path for each dialect, which needs no valid body: a key is asked for before that.
macro_rules! each_dialect {
    ($($name:ident: $path:literal;)*) => {$(
        mod $name {
            use super::*;

            #[tokio::test]
            async fn no_key() {
                server().send(post($path, json!({}))).await.matches("keys", concat!(stringify!($name), "_no_key"));
            }

            #[tokio::test]
            async fn wrong_key() {
                let asked = with_key(post($path, json!({})), "nobody's");
                server().send(asked).await.matches("keys", concat!(stringify!($name), "_wrong_key"));
            }

            #[tokio::test]
            async fn too_many_requests() {
                let server = server();
                let asked = || with_key(post($path, json!({})), "seldom");
                assert_ne!(server.send(asked()).await.status, 429);
                server.send(asked()).await.matches("keys", concat!(stringify!($name), "_too_many_requests"));
            }
        }
    )*};
}

each_dialect! {
    cohere: "/v2/rerank";
    jina: "/jina/v1/rerank";
    voyage: "/voyage/v1/rerank";
    tei: "/rerank";
    vllm: "/v1/score";
    openai: "/v1/embeddings";
    native: "/v1/search";
}

#[tokio::test]
async fn a_key_may_come_in_either_header() {
    let server = server();
    assert_eq!(server.send(with_key(ask(), "asks")).await.status, 200);
    assert_eq!(server.send(ask().header("api-key", "asks")).await.status, 200);
    assert_eq!(server.send(ask().header("authorization", "bearer asks")).await.status, 200);
    assert_eq!(server.send(ask().header("authorization", "Basic asks")).await.status, 401);
    assert_eq!(server.send(ask().header("authorization", "Bearer ")).await.status, 401);
    assert_eq!(server.send(ask().header("api-key", "")).await.status, 401);
}

#[tokio::test]
async fn what_tells_nothing_of_anybodys_texts_needs_no_key() {
    let server = server();
    for path in ["/", "/docs", "/openapi.json", "/healthz", "/readyz", "/page/app.js"] {
        assert_eq!(server.send(get(path)).await.status, 200, "{path}");
    }
    for path in ["/metrics", "/v1/index", "/v1/models", "/info", "/anywhere"] {
        assert_eq!(server.send(get(path)).await.status, 401, "{path}");
    }
}

#[tokio::test]
async fn a_key_that_asks_only_changes_nothing() {
    let server = server();
    let add = || post("/v1/documents", json!({"documents": [{"id": "ant", "text": "An ant."}]}));
    server.send(with_key(add(), "asks")).await.matches("keys", "may_not_add");
    let remove = request("DELETE", "/v1/documents").body(json!({"ids": ["cats.md"]}).to_string());
    server.send(with_key(remove, "asks")).await.matches("keys", "may_not_remove");
    let reload = || request("POST", "/v1/index/reload");
    server.send(with_key(reload(), "asks")).await.matches("keys", "may_not_reload");
    assert_eq!(server.send(with_key(add(), "may-change")).await.status, 200);
    assert_eq!(server.send(with_key(reload(), "may-change")).await.status, 200);
}

/// A client that waits as long as it was told is let in, whichever of the two numbers it reads.
#[tokio::test]
async fn the_time_to_wait_is_the_same_in_the_header_and_in_the_sentence() {
    let server = server();
    server.send(with_key(ask(), "seldom")).await;
    let reply = server.send(with_key(ask(), "seldom")).await;
    let seconds = reply.header("retry-after").expect("it says when").to_owned();
    assert!(reply.text().contains(&format!("in {seconds} s")), "{seconds}: {}", reply.text());
}

/// A key does not get new requests by having the keys read again.
#[tokio::test]
async fn a_reload_gives_no_requests_back() {
    let server = server();
    assert_eq!(server.send(with_key(ask(), "seldom")).await.status, 200);
    let reload = with_key(request("POST", "/v1/index/reload"), "may-change");
    assert_eq!(server.send(reload).await.status, 200);
    assert_eq!(server.send(with_key(ask(), "seldom")).await.status, 429);
}

#[tokio::test]
async fn a_key_that_has_used_up_its_requests_does_not_use_up_those_of_others() {
    let server = server();
    for _ in 0..5 {
        server.send(with_key(ask(), "seldom")).await;
    }
    assert_eq!(server.send(with_key(ask(), "asks")).await.status, 200);
}
