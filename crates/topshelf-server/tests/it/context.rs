//! A prompt from passages of the request.

use serde_json::{Value, json};

use super::exchange::{TestRequest, TestServer, post, with};

fn context(fields: Value) -> TestRequest {
    let passages = json!([
        {"text": "An adult flea may live a hundred days."},
        {"text": "A flea drinks the blood of cats and dogs."},
    ]);
    let body = json!({"query": "How long does a flea live?", "passages": passages});
    post("/v1/context", with(body, fields))
}

/// Loops over two sources within one another.
fn loops(depth: usize) -> String {
    "{% for a in sources %}".repeat(depth) + &"{% endfor %}".repeat(depth)
}

cases! { "context":
    packs => context(json!({}));
    takes_where_a_passage_is_from => context(json!({"passages": [{
        "id": "p", "document": "fleas.md", "title": "Fleas", "headings": ["Life span"], "text": "A hundred days.",
    }]}));
    leaves_out_repetitions => context(json!({"passages": [
        {"text": "An adult flea may live a hundred days."},
        {"text": "An adult flea may live a hundred days!"},
    ]}));
    keeps_repetitions_if_wanted => context(json!({
        "passages": [{"text": "A flea lives."}, {"text": "A flea lives."}], "prompt": {"near_duplicate": 1.5},
    }));
    leaves_out_what_does_not_fit => context(json!({"prompt": {"budget": 15}}));
    cuts_the_only_one => context(json!({"prompt": {"budget": 5}}));
    writes_by_a_template => context(json!({"prompt": {
        "system": "Answer.",
        "template": "{% for source in sources %}{{ source.number }}: {{ source.text }} {% endfor %}{{ question }}",
    }}));
    packs_nothing => context(json!({"passages": []}));
    rejects_two_of_the_same_id => context(json!({"passages": [
        {"id": "p", "text": "A flea."}, {"id": "p", "text": "A dog."},
    ]}));
    rejects_an_empty_query => context(json!({"query": ""}));
    rejects_no_passages => context(json!({"passages": null}));
    rejects_a_passage_without_a_text => context(json!({"passages": [{"id": "p"}]}));
    rejects_a_text_for_a_passage => context(json!({"passages": ["A flea."]}));
    rejects_an_unknown_field => context(json!({"budget": 100}));
    rejects_no_room => context(json!({"prompt": {"budget": 0}}));
    rejects_a_negative_number => context(json!({"prompt": {"near_duplicate": -1}}));
    rejects_a_template_that_is_none => context(json!({"prompt": {"template": "{{ question"}}));
    rejects_a_template_that_takes_too_long => context(json!({"prompt": {"template": loops(25)}}));
    rejects_a_list_for_a_passage => context(json!({"passages": [["p", null, "", [], "A flea."]]}));
    rejects_a_list_for_the_prompt => context(json!({"prompt": [100]}));
}

#[tokio::test]
async fn more_passages_than_are_taken_are_rejected() {
    let server = TestServer::with(|options| options.limits.documents = 1);
    server.send(context(json!({}))).await.matches("context", "rejects_too_many_passages");
}
