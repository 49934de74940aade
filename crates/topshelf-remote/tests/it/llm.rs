//! Endpoints of language models: what each is sent, how its answers are read, what is learnt of its
//! refusals.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use topshelf_core::{Ask, Call, LanguageModel, Message, Prompt, Tell, Wanted, Written};
use topshelf_remote::{Api, Budget, ChatModel, Meter, Place, Prices, RemoteModel};

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
    let call = Call::new();
    let written = model(&service).write(&call, &chat("how much?", Wanted::Tokens)).unwrap();
    assert_eq!((written.text.as_str(), tokens(&written)), ("7", vec!["7", "8"]));
    assert_eq!((call.spent().calls, call.spent().input_tokens), (1, 40));
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
        let written = model(&service).write(&Call::new(), &ask).unwrap();
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
    let call = Call::new();
    let written = model.write(&call, &chat("order", Wanted::Permutation(2))).unwrap();
    assert_eq!((written.text.as_str(), call.spent().output_tokens), ("[2] > [1]", 7));
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
    model(&service).write(&Call::new(), &chat("order", Wanted::Permutation(2))).unwrap();
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
    model.write(&Call::new(), &chat("how much?", Wanted::Tokens)).unwrap();
    assert_eq!(service.requests(), 5);
    model.clone().write(&Call::new(), &chat("how much?", Wanted::Tokens)).unwrap();
    assert_eq!(service.requests(), 6, "a clone knows what was learnt");
    model.write(&Call::new(), &chat("order", Wanted::Permutation(3))).unwrap();
    assert_eq!(service.requests(), 8);
    // What is refused for another reason stays refused.
    let service = Service::start(|_| refusal(400, "the prompt is too long"));
    let error = self::model(&service).write(&Call::new(), &chat("x", Wanted::Tokens)).unwrap_err();
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
    let outcomes = pollster::block_on(model.write(&Call::new(), &asks)).unwrap();
    let texts: Vec<_> = outcomes.iter().map(|o| o.as_ref().map(|w| w.text.as_str())).collect();
    assert_eq!((&texts[0], &texts[2..]), (&Ok("a"), &[Ok("b"), Ok("c"), Ok("d")][..]));
    assert!(texts[1].unwrap_err().reason.contains("too long"));
    assert_eq!(model.identity().name, format!("llm:m@{}", service.address));

    let service = Service::start(|_| refusal(401, "invalid key"));
    let model =
        RemoteModel::new("m", &Place::parse(&service.address).unwrap(), Meter::default()).unwrap();
    let error = pollster::block_on(model.write(&Call::new(), &asks)).unwrap_err().to_string();
    assert!(error.contains("401") && error.contains("is the key set"), "{error}");
}

/// A meter with prices, and its budget.
fn metered(dollars: f64) -> (Meter, Arc<Budget>) {
    let budget = Arc::new(Budget::of_dollars(dollars));
    let price = Prices::parse("[m]\ninput = 1.0\noutput = 10.0").unwrap().of("m");
    (Meter { price, budget: Some(Arc::clone(&budget)) }, budget)
}

#[test]
fn a_stream_that_is_cut_off_was_paid_for_as_far_as_it_came() {
    let event = |text: &str| {
        format!("data: {}\n\n", json!({ "choices": [{ "delta": { "content": text } }] }))
    };
    let events = event("Up to a year, ") + &event("or two.");
    let service = Service::start(move |_| Reply::CutOff(events.clone()));
    let (meter, budget) = metered(1.0);
    let place = Place::parse(&service.address).unwrap();
    let model = RemoteModel::new("m", &place, meter).unwrap();
    let heard = Arc::new(Mutex::new(String::new()));
    let hears = Arc::clone(&heard);
    let tell: Tell = Arc::new(move |piece: &str| hears.lock().unwrap().push_str(piece));
    let ask = Ask { max_tokens: 100, ..chat("how old do fleas get?", Wanted::Text) };
    let call = Call::new();
    let error = pollster::block_on(model.stream(&call, &ask, tell)).unwrap_err();
    assert!(error.to_string().contains("breaks off"), "{error}");
    assert_eq!(*heard.lock().unwrap(), "Up to a year, or two.");
    // 26 bytes were asked, 21 came: 9 and 7 tokens, from above.
    let spent = call.spent();
    assert_eq!((spent.calls, spent.input_tokens, spent.output_tokens), (1, 9, 7));
    assert_eq!((spent.cost, budget.spent()), (Some(79_000), 79_000));
    // Nothing came, nothing is paid.
    let service = Service::start(|_| refusal(401, "invalid key"));
    let (meter, budget) = metered(1.0);
    let place = Place::parse(&service.address).unwrap();
    let model = RemoteModel::new("m", &place, meter).unwrap();
    let tell: Tell = Arc::new(|_: &str| {});
    let call = Call::new();
    assert!(pollster::block_on(model.stream(&call, &ask, tell)).is_err());
    assert!(call.spent().is_none() && budget.spent() == 0);
}

#[test]
fn questions_that_were_answered_before_one_failed_are_counted() {
    let service = Service::start(|request| {
        let text = request.body["messages"][1]["content"].as_str().unwrap();
        if text == "last" {
            std::thread::sleep(Duration::from_millis(200));
            return refusal(401, "the key has expired");
        }
        ok(&answer(text))
    });
    let (meter, budget) = metered(1.0);
    let place = Place::parse(&service.address).unwrap();
    let model = RemoteModel::new("m", &place, meter).unwrap();
    let asks = ["a", "b", "last"].map(|text| chat(text, Wanted::Text));
    let call = Call::new();
    let error = pollster::block_on(model.write(&call, &asks)).unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
    let spent = call.spent();
    assert_eq!((spent.calls, spent.input_tokens, spent.output_tokens), (2, 80, 2));
    assert_eq!((spent.cost, budget.spent()), (Some(100_000), 100_000));
}

#[test]
fn what_a_server_said_is_forgotten_once_it_answers() {
    let service = Service::start(|request| {
        if request.number == 0 {
            let headers = vec![("retry-after-ms", "1".to_owned())];
            return Reply::Whole(503, headers, "{}".to_owned());
        }
        ok(&answer("7"))
    });
    let place = Place::parse(&service.address).unwrap();
    let model = RemoteModel::new("m", &place, Meter::default()).unwrap();
    let call = Call::new();
    let asks = [chat("x", Wanted::Text)];
    pollster::block_on(model.write(&call, &asks)).unwrap();
    assert_eq!((service.requests(), call.last_words()), (2, None));
}

#[test]
fn garbage_and_silence_are_errors_that_say_so() {
    for (body, says) in [("{}", "choices[0]"), ("<html>", "expected value")] {
        let service = Service::start(move |_| Reply::Whole(200, Vec::new(), body.to_owned()));
        let error =
            model(&service).write(&Call::new(), &chat("x", Wanted::Text)).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    // A model that only thinks says nothing, which is no fault of the protocol.
    let service =
        Service::start(|_| ok(&json!({ "choices": [{ "message": { "content": null } }] })));
    assert_eq!(model(&service).write(&Call::new(), &chat("x", Wanted::Text)).unwrap().text, "");
}
