//! Documents of an index: added, replaced, removed; and the index read again.

use serde_json::{Value, json};

use super::exchange::{TestRequest, TestServer, get, post, request, with};
use super::search::search;
use super::shelf::FakeShelf;

fn add(fields: Value) -> TestRequest {
    let zebra = json!({
        "id": "zebra", "title": "Zebra", "text": "A zebra has stripes.", "metadata": {"lang": "en"},
    });
    post("/v1/documents", with(json!({"documents": [zebra]}), fields))
}

fn remove(body: &Value) -> TestRequest {
    request("DELETE", "/v1/documents").body(body.to_string())
}

cases! { "documents":
    adds => add(json!({}));
    adds_to_the_index_that_is_named => add(json!({"index": "animals"}));
    adds_a_document_of_the_least => add(json!({"documents": [{"id": "ant", "text": "An ant."}]}));
    replaces => add(json!({"documents": [{"id": "cats.md", "text": "Cats sleep."}]}));
    skips_what_has_no_text => add(json!({"documents": [{"id": "nothing", "text": " "}]}));
    does_not_add_to_what_is_read_only => add(json!({"index": "archive"}));
    does_not_add_to_an_unknown_index => add(json!({"index": "nowhere"}));
    does_not_add_nothing => add(json!({"documents": []}));
    does_not_add_what_has_no_id => add(json!({"documents": [{"text": "A flea."}]}));
    does_not_add_a_blank_id => add(json!({"documents": [{"id": "a", "text": "b"}, {"id": " ", "text": "A flea."}]}));
    does_not_add_what_has_another_field => add(json!({"documents": [{"id": "a", "text": "b", "body": "c"}]}));
    does_not_add_metadata_that_is_no_object => add(json!({"documents": [{"id": "a", "text": "b", "metadata": [1]}]}));
    does_not_add_a_list => add(json!({"documents": [["a", "", "b"]]}));
    does_not_take_another_field => add(json!({"upsert": true}));
    says_what_broke => add(json!({"documents": [{"id": "full disk", "text": "A flea."}]}));
    survives_a_panic => add(json!({"documents": [{"id": "bomb", "text": "A flea."}]}));
    removes => remove(&json!({"ids": ["cats.md", "unicorns.md"]}));
    removes_nothing => remove(&json!({"ids": []}));
    does_not_remove_from_what_is_read_only => remove(&json!({"index": "archive", "ids": ["old.md"]}));
    does_not_remove_from_an_unknown_index => remove(&json!({"index": "nowhere", "ids": ["a"]}));
    does_not_remove_without_ids => remove(&json!({}));
    does_not_remove_other_types => remove(&json!({"ids": [1]}));
    indexes => get("/v1/index");
    reloads => request("POST", "/v1/index/reload");
}

#[tokio::test]
async fn where_no_index_is_served_none_is_changed() {
    let server = TestServer::of(FakeShelf::empty(), |_| {});
    server.send(add(json!({}))).await.matches("documents", "does_not_add_to_nothing");
    server.send(get("/v1/index")).await.matches("documents", "no_indexes");
}

#[tokio::test]
async fn more_documents_than_are_taken_are_rejected() {
    let server = TestServer::with(|options| options.limits.documents = 1);
    let documents = json!([{"id": "a", "text": "b"}, {"id": "c", "text": "d"}]);
    let reply = server.send(add(json!({"documents": documents}))).await;
    reply.matches("documents", "does_not_add_too_many");
}

#[tokio::test]
async fn a_reload_that_fails_says_why() {
    let server = TestServer::of(FakeShelf::damaged(), |_| {});
    server.send(request("POST", "/v1/index/reload")).await.matches("documents", "reloads_nothing");
    assert_eq!(server.send(search(json!({}))).await.status, 200);
}

#[tokio::test]
async fn a_document_is_found_from_when_it_was_added_until_it_is_removed() {
    let server = TestServer::new();
    let found = async || {
        let asked = json!({"query": "zebra stripes", "filter": "lang = en"});
        server.send(search(asked)).await.json()["hits"].as_array().expect("hits").len()
    };
    assert_eq!(found().await, 0);
    let added = server.send(add(json!({}))).await.json();
    assert_eq!((&added["added"], &added["unchanged"]), (&json!(1), &json!(0)));
    assert_eq!(found().await, 1);
    let again = server.send(add(json!({}))).await.json();
    assert_eq!((&again["added"], &again["unchanged"]), (&json!(0), &json!(1)));
    assert_eq!(again["index"], added["index"]);
    let removed = server.send(remove(&json!({"ids": ["zebra"]}))).await.json();
    assert_eq!(removed["removed"], 1);
    assert_eq!(found().await, 0);
}
