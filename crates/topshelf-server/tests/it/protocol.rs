//! Methods, unknown paths, web pages of other origins, and the names of requests.

use serde_json::json;

use super::exchange::{DOCUMENTS, QUERY, TestReply, TestRequest, TestServer, get, post, request};

cases! { "protocol":
    no_route => get("/nowhere");
    no_route_below_v1 => get("/v1/nowhere");
    no_route_of_topshelf => get("/topshelf/v2/rerank");
    no_route_of_cohere => post("/cohere/v3/rerank", json!({}));
    no_route_of_jina => post("/jina/v1/embeddings", json!({}));
    no_route_of_voyage => post("/voyage/v1/embeddings", json!({}));
    no_route_of_tei => post("/tei/predict", json!({}));
    no_route_of_vllm => post("/vllm/v1/completions", json!({}));
    no_route_of_infinity => post("/infinity/embeddings", json!({}));
    no_route_of_openai => post("/openai/v1/chat/completions", json!({}));
    no_route_behind_a_slash => post("/v2/rerank/", json!({}));
    no_route_upwards => get("/page/../../etc/passwd");
    no_route_of_other_letters => get("/f%C3%B6hn%00");
    get_of_cohere => get("/v2/rerank");
    get_of_jina => get("/jina/v1/rerank");
    get_of_voyage => get("/voyage/v1/rerank");
    get_of_tei => get("/rerank");
    get_of_vllm => get("/v1/score");
    get_of_openai => get("/v1/embeddings");
    get_of_search => get("/v1/search");
    get_of_documents => get("/v1/documents");
    post_of_models => post("/v1/models", json!({}));
    post_of_info => post("/info", json!({}));
    put_of_documents => request("PUT", "/v1/documents");
    patch_of_the_page => request("PATCH", "/");
    a_method_of_nobodys => request("BREW", "/v1/search");
    options_of_search => request("OPTIONS", "/v1/search");
    options_of_nowhere => request("OPTIONS", "/nowhere");
    head_of_health => request("HEAD", "/healthz");
    head_of_the_page => request("HEAD", "/");
    head_of_rerank => request("HEAD", "/v2/rerank");
}

const PAGE: &str = "https://app.example";

fn server_for(origin: &str) -> TestServer {
    TestServer::with(|options| options.origins = vec![origin.to_owned()])
}

fn rerank() -> TestRequest {
    post(
        "/v2/rerank",
        json!({"model": "overlap", "query": QUERY, "documents": DOCUMENTS, "top_n": 1}),
    )
}

fn preflight() -> TestRequest {
    request("OPTIONS", "/v2/rerank")
        .header("origin", PAGE)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization, content-type")
}

#[tokio::test]
async fn a_page_that_may_ask_is_let_in() {
    let server = server_for(PAGE);
    server.send(preflight()).await.matches("protocol", "preflight");
    server.send(rerank().header("origin", PAGE)).await.matches("protocol", "page_that_may_ask");
}

#[tokio::test]
async fn every_page_is_let_in_if_all_may_ask() {
    let server = server_for("*");
    server.send(preflight()).await.matches("protocol", "preflight_of_all");
    let reply = server.send(rerank().header("origin", "https://other.example")).await;
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused_in_the_shape_of_the_dialect() {
    let server = server_for(PAGE);
    let other = "https://other.example";
    server.send(rerank().header("origin", other)).await.matches("protocol", "foreign_page");
    for path in ["/jina/v1/rerank", "/rerank", "/v1/score", "/v1/embeddings", "/v1/search"] {
        let reply = server.send(post(path, json!({})).header("origin", other)).await;
        assert_eq!(reply.status, 403, "{path}");
    }
    let preflight = request("OPTIONS", "/v2/rerank")
        .header("origin", other)
        .header("access-control-request-method", "POST");
    assert_eq!(server.send(preflight).await.header("access-control-allow-origin"), None);
}

/// `*` does not stand for the header of the key: the headers have to be named.
#[tokio::test]
async fn a_page_may_send_a_key_and_read_the_headers_of_the_answer() {
    let server = server_for(PAGE);
    let allowed = server.send(preflight()).await;
    let allowed = allowed.header("access-control-allow-headers").expect("headers").to_owned();
    assert_eq!(allowed, "authorization, content-type");
    let reply = server.send(rerank().header("origin", PAGE)).await;
    assert_eq!(reply.header("access-control-expose-headers"), Some("*"));
}

/// An error that a page cannot read looks to it like a server that is not there.
#[tokio::test]
async fn a_page_can_read_the_errors_of_what_it_asked() {
    let server = server_for(PAGE);
    let reply = server.send(post("/v2/rerank", json!({})).header("origin", PAGE)).await;
    assert_eq!(reply.status, 422);
    assert_eq!(reply.header("access-control-allow-origin"), Some(PAGE));
}

#[tokio::test]
async fn a_page_of_the_server_itself_may_ask() {
    let server = TestServer::new();
    let asked = || rerank().header("host", "localhost:8080");
    assert_eq!(server.send(asked().header("origin", "http://localhost:8080")).await.status, 200);
    assert_eq!(server.send(asked().header("origin", "http://localhost:9090")).await.status, 403);
    assert_eq!(server.send(asked().header("origin", "null")).await.status, 403);
}

#[tokio::test]
async fn a_request_keeps_the_name_that_it_came_with() {
    let server = TestServer::new();
    let name = |reply: &TestReply| reply.header("x-request-id").expect("a name").to_owned();
    let own = server.send(get("/healthz").header("x-request-id", "mine")).await;
    assert_eq!(name(&own), "mine");
    let error = server.send(get("/nowhere").header("x-request-id", "mine")).await;
    assert_eq!(name(&error), "mine");
    let long = "x".repeat(129);
    let other = server.send(get("/healthz").header("x-request-id", long.clone())).await;
    assert_ne!(name(&other), long);
    assert_ne!(
        name(&server.send(get("/healthz")).await),
        name(&server.send(get("/healthz")).await)
    );
}
