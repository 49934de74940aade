//! Endpoints of language models: what each is sent, how its answers are read, what is learnt of its
//! refusals.

use serde_json::{Value, json};
use topshelf_core::{Ask, LanguageModel, Message, Prompt, Wanted, Written};
use topshelf_remote::{Api, ChatModel, Meter, Place, RemoteModel};

use super::service::{Reply, Request, Service};

fn ok(body: &Value) -> Reply {
    Reply::Whole(200, Vec::new(), body.to_string())
}

fn refusal(status: u16, message: &str) -> Reply {
    Reply::Whole(status, Vec::new(), json!({ "error": { "message": message } }).to_string())
}

fn chat(text: &str, wanted: Wanted) -> Ask {
    let messages = vec![Message::system("rules"), Message::user(text)];
    Ask { prompt: Prompt::Chat(messages), wanted, max_tokens: 3 }
}

/// As llama.cpp, vLLM and OpenAI answer.
fn answer(text: &str) -> Value {
    json!({
        "choices": [{ "message": { "role": "assistant", "content": text }, "logprobs": { "content": [
            { "token": "7", "logprob": -0.1, "top_logprobs": [
                { "token": "8", "logprob": -2.5 }, { "token": "7", "logprob": -0.1 },
                { "token": "x", "logprob": null },
            ] },
        ] } }],
        "usage": { "prompt_tokens": 40, "completion_tokens": 1 },
    })
}

fn model(service: &Service) -> ChatModel {
    ChatModel::new(&service.address, "m", Some("sesame".to_owned())).unwrap()
}

fn tokens(written: &Written) -> Vec<&str> {
    written.alternatives[0].iter().map(|alternative| alternative.token.as_str()).collect()
}

#[test]
fn a_conversation_is_sent_and_read_as_openai_has_it() {
    let service = Service::start(|_| ok(&answer("7")));
    let written = model(&service).write(&chat("how much?", Wanted::Tokens)).unwrap();
    assert_eq!((written.text.as_str(), tokens(&written)), ("7", vec!["7", "8"]));
    assert_eq!((written.usage.calls, written.usage.input_tokens), (1, 40));
    let seen = service.seen.lock().unwrap();
    let Request { path, headers, body, .. } = &seen[0];
    assert_eq!(path, "/chat/completions");
    assert!(headers.contains(&("authorization".to_owned(), "Bearer sesame".to_owned())));
    let expected = json!({
        "model": "m", "max_tokens": 3, "temperature": 0, "logprobs": true, "top_logprobs": 20,
        "messages": [
            { "role": "system", "content": "rules" }, { "role": "user", "content": "how much?" },
        ],
    });
    assert_eq!(body, &expected);
}

#[test]
fn a_raw_text_goes_to_completions_whose_probabilities_come_in_two_shapes() {
    let map = json!({
        "choices": [{ "text": "yes", "logprobs": { "top_logprobs": [{ "no": -3.0, "yes": -0.1 }] } }],
    });
    let list = json!({
        "choices": [{ "text": "yes", "logprobs": { "content": [{ "token": "yes", "logprob": -0.1,
            "top_logprobs": [{ "token": "yes", "logprob": -0.1 }, { "token": "no", "logprob": -3.0 }] }] } }],
    });
    let service = Service::start(move |request| ok(if request.number == 0 { &map } else { &list }));
    for _ in 0..2 {
        let prompt = Prompt::Raw("<start>is it?".to_owned());
        let ask = Ask { prompt, wanted: Wanted::Tokens, max_tokens: 1 };
        let written = model(&service).write(&ask).unwrap();
        assert_eq!((written.text.as_str(), tokens(&written)), ("yes", vec!["yes", "no"]));
    }
    let seen = service.seen.lock().unwrap();
    assert_eq!(seen[0].path, "/completions");
    assert_eq!(
        (&seen[0].body["prompt"], &seen[0].body["logprobs"]),
        (&json!("<start>is it?"), &json!(20))
    );
}

#[test]
fn anthropic_has_its_own_shape() {
    let service = Service::start(|_| {
        ok(&json!({
            "content": [{ "type": "text", "text": "[2] > " }, { "type": "text", "text": "[1]" }],
            "usage": { "input_tokens": 21, "output_tokens": 7 },
        }))
    });
    let key = Some("sesame".to_owned());
    let model = ChatModel::with_api(Api::Anthropic, &service.address, "claude", key).unwrap();
    let written = model.write(&chat("order", Wanted::Permutation(2))).unwrap();
    assert_eq!((written.text.as_str(), written.usage.output_tokens), ("[2] > [1]", 7));
    assert!(written.alternatives.is_empty());
    let seen = service.seen.lock().unwrap();
    let Request { path, headers, body, .. } = &seen[0];
    assert_eq!(path, "/messages");
    assert!(headers.contains(&("x-api-key".to_owned(), "sesame".to_owned())));
    assert!(headers.contains(&("anthropic-version".to_owned(), "2023-06-01".to_owned())));
    assert_eq!((&body["system"], &body["messages"][0]["role"]), (&json!("rules"), &json!("user")));
    assert!(body.get("logprobs").is_none() && body.get("response_format").is_none());
}

#[test]
fn an_order_is_asked_for_by_schema() {
    let service = Service::start(|_| ok(&answer("{\"order\": [2, 1]}")));
    model(&service).write(&chat("order", Wanted::Permutation(2))).unwrap();
    let body = service.seen.lock().unwrap()[0].body.clone();
    let order = &body["response_format"]["json_schema"]["schema"]["properties"]["order"];
    assert_eq!((&order["minItems"], &order["items"]["maximum"]), (&json!(2), &json!(2)));
}

#[test]
fn what_a_server_does_not_understand_is_left_out_from_then_on() {
    let service = Service::start(|request| {
        let has = |name: &str| request.body.get(name).is_some();
        if has("temperature") {
            refusal(400, "Unsupported value: 'temperature' does not support 0 with this model")
        } else if has("max_tokens") {
            refusal(400, "'max_tokens' is not supported, use 'max_completion_tokens' instead")
        } else if request.body["top_logprobs"] == 20 {
            refusal(422, "top_logprobs must be at most 5")
        } else if has("logprobs") {
            refusal(400, "logprobs is not supported by this model")
        } else if has("response_format") {
            refusal(400, "response_format: json_schema is not available")
        } else {
            ok(&answer("7"))
        }
    });
    let model = model(&service);
    model.write(&chat("how much?", Wanted::Tokens)).unwrap();
    assert_eq!(service.requests(), 5);
    model.clone().write(&chat("how much?", Wanted::Tokens)).unwrap();
    assert_eq!(service.requests(), 6, "a clone knows what was learnt");
    model.write(&chat("order", Wanted::Permutation(3))).unwrap();
    assert_eq!(service.requests(), 8);
    // What is refused for another reason stays refused.
    let service = Service::start(|_| refusal(400, "the prompt is too long"));
    let error = self::model(&service).write(&chat("x", Wanted::Tokens)).unwrap_err();
    assert!(error.to_string().contains("too long"), "{error}");
    assert_eq!(service.requests(), 1);
}

#[test]
fn one_question_fails_alone_and_a_wrong_key_fails_all() {
    let service = Service::start(|request| {
        let text = request.body["messages"][1]["content"].as_str().unwrap();
        if text == "long" { refusal(400, "the prompt is too long") } else { ok(&answer(text)) }
    });
    let place = Place::parse(&service.address).unwrap();
    let model = RemoteModel::new("m", &place, Meter::default()).unwrap();
    let asks: Vec<Ask> =
        ["a", "long", "b", "c", "d"].iter().map(|text| chat(text, Wanted::Text)).collect();
    let outcomes = pollster::block_on(model.write(&asks)).unwrap();
    let texts: Vec<_> = outcomes.iter().map(|o| o.as_ref().map(|w| w.text.as_str())).collect();
    assert_eq!((&texts[0], &texts[2..]), (&Ok("a"), &[Ok("b"), Ok("c"), Ok("d")][..]));
    assert!(texts[1].unwrap_err().reason.contains("too long"));
    assert_eq!(model.identity().name, format!("llm:m@{}", service.address));

    let service = Service::start(|_| refusal(401, "invalid key"));
    let model =
        RemoteModel::new("m", &Place::parse(&service.address).unwrap(), Meter::default()).unwrap();
    let error = pollster::block_on(model.write(&asks)).unwrap_err().to_string();
    assert!(error.contains("401") && error.contains("is the key set"), "{error}");
}

#[test]
fn garbage_and_silence_are_errors_that_say_so() {
    for (body, says) in [("{}", "choices[0]"), ("<html>", "expected value")] {
        let service = Service::start(move |_| Reply::Whole(200, Vec::new(), body.to_owned()));
        let error = model(&service).write(&chat("x", Wanted::Text)).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    // A model that only thinks says nothing, which is no fault of the protocol.
    let service =
        Service::start(|_| ok(&json!({ "choices": [{ "message": { "content": null } }] })));
    assert_eq!(model(&service).write(&chat("x", Wanted::Text)).unwrap().text, "");
}
