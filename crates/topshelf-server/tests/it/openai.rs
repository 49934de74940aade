//! OpenAI's embeddings.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::exchange::{TestRequest, TestServer, post, with};

fn embeddings(fields: Value) -> TestRequest {
    let body = json!({"model": "letters", "input": ["A flea.", "A dog sleeps."]});
    post("/v1/embeddings", with(body, fields))
}

cases! { "openai":
    vectors => embeddings(json!({}));
    a_vector => embeddings(json!({"input": "A flea."}));
    vectors_as_numbers => embeddings(json!({"encoding_format": "float"}));
    vectors_in_base64 => embeddings(json!({"encoding_format": "base64"}));
    vectors_in_another_format => embeddings(json!({"encoding_format": "hex"}));
    vectors_of_queries => embeddings(json!({"input": "A flea.", "input_type": "query"}));
    vectors_of_documents => embeddings(json!({"input": "A flea.", "input_type": "document"}));
    vectors_of_something_else => embeddings(json!({"input_type": "image"}));
    vectors_of_that_length => embeddings(json!({"input": "A flea.", "dimensions": 4}));
    vectors_of_another_length => embeddings(json!({"dimensions": 3}));
    a_model_by_its_alias => embeddings(json!({"model": "text-embedding-3-small", "input": "A flea."}));
    no_model => embeddings(json!({"model": null, "input": "A flea."}));
    an_unknown_model => embeddings(json!({"model": "overlap"}));
    other_fields => embeddings(json!({"user": "somebody", "input": "A flea."}));
    tokens => embeddings(json!({"input": [1, 2, 3]}));
    no_texts => embeddings(json!({"input": []}));
    no_input => embeddings(json!({"input": null}));
    a_blank_text => embeddings(json!({"input": ["A flea.", " "]}));
    what_broke => embeddings(json!({"input": "a bomb"}));
}

#[tokio::test]
async fn base64_has_the_bits_of_the_numbers() {
    let server = TestServer::new();
    let numbers = server.send(embeddings(json!({}))).await.json();
    let bytes = server.send(embeddings(json!({"encoding_format": "base64"}))).await.json();
    for place in 0..2 {
        let bytes = bytes["data"][place]["embedding"].as_str().expect("a text");
        let bytes = STANDARD.decode(bytes).expect("base64");
        let decoded: Vec<f32> = bytes
            .chunks_exact(4)
            .map(|bits| f32::from_le_bytes(bits.try_into().unwrap()))
            .collect();
        let numbers: Vec<f32> =
            serde_json::from_value(numbers["data"][place]["embedding"].clone()).unwrap();
        assert_eq!(decoded, numbers);
    }
}
