//! [`ChatModel`]: an LLM behind an endpoint, one question at a time.
//!
//! | [`Api`] | conversations | texts |
//! | --- | --- | --- |
//! | `OpenAi` (OpenAI, vLLM, Ollama, llama.cpp, LM Studio) | `POST {endpoint}/chat/completions` | `POST {endpoint}/completions` |
//! | `Anthropic` | `POST {endpoint}/messages` | as what a user says |
//!
//! (OpenAI's and Anthropic's API references, autumn 2026.) Probabilities come as
//! `logprobs.content[].top_logprobs[]` from most, for texts from some as `logprobs.top_logprobs[]`, and
//! from Anthropic not at all.
//!
//! **Servers differ in what they understand.** What one refuses by name is left out from then on: first
//! 20 alternatives become 5, then none; an order that is asked for by schema is asked for in words only;
//! `max_tokens` becomes `max_completion_tokens`; `temperature` is not mentioned.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use topshelf_core::{Alternative, Ask, Call, Message, Prompt, Role, Usage, Wanted, Written};

use crate::error::{RemoteError, Result};
use crate::http::{Endpoint, KeyHeader};
use crate::price::Amount;

/// How long one answer is waited for.
pub const LIMIT: Duration = Duration::from_mins(2);

/// How an endpoint is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Api {
    /// OpenAI's, as most servers speak it.
    OpenAi,
    /// Anthropic's.
    Anthropic,
}

impl Api {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
        }
    }

    /// The vendor's own address.
    pub const fn address(self) -> &'static str {
        match self {
            Self::OpenAi => "https://api.openai.com/v1",
            Self::Anthropic => "https://api.anthropic.com/v1",
        }
    }

    /// The variable that holds the vendor's key.
    pub const fn key_variable(self) -> &'static str {
        match self {
            Self::OpenAi => "OPENAI_API_KEY",
            Self::Anthropic => "ANTHROPIC_API_KEY",
        }
    }
}

/// What a server has refused, as bits.
mod refused {
    pub(super) const TWENTY: u8 = 1;
    pub(super) const LOGPROBS: u8 = 2;
    pub(super) const SCHEMA: u8 = 4;
    pub(super) const MAX_TOKENS: u8 = 8;
    pub(super) const TEMPERATURE: u8 = 16;
}

/// An answer, whole or as far as it came, and the tokens that it took as far as the server says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct CountedAnswer {
    pub(crate) written: Written,
    pub(crate) amount: Amount,
}

/// An LLM behind an endpoint. Clones share what they have learnt of it.
#[derive(Debug, Clone)]
pub struct ChatModel {
    endpoint: Endpoint,
    model: String,
    api: Api,
    refused: Arc<AtomicU8>,
}

impl ChatModel {
    /// The model of that name at an OpenAI-compatible endpoint such as `http://localhost:8080/v1`.
    ///
    /// # Errors
    ///
    /// [`RemoteError::Endpoint`] for what is no endpoint. Whether anybody is there is not asked.
    pub fn new(endpoint: &str, model: &str, key: Option<String>) -> Result<Self> {
        Self::with_api(Api::OpenAi, endpoint, model, key)
    }

    /// The same in another way of speaking.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn with_api(api: Api, endpoint: &str, model: &str, key: Option<String>) -> Result<Self> {
        let endpoint = Endpoint::new(endpoint, key, LIMIT)?;
        let endpoint = match api {
            Api::OpenAi => endpoint,
            Api::Anthropic => endpoint.with_header(KeyHeader::Anthropic),
        };
        Ok(Self { endpoint, model: model.to_owned(), api, refused: Arc::default() })
    }

    /// The model's name.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The endpoint's address.
    pub fn address(&self) -> &str {
        self.endpoint.address()
    }

    /// The likeliest continuation (temperature 0), for as long as the call is not withdrawn. The tokens
    /// that it took are spent on the call, without a price.
    ///
    /// # Errors
    ///
    /// As [`Endpoint::post`].
    pub fn write(&self, call: &Call, ask: &Ask) -> Result<Written> {
        let CountedAnswer { written, amount } = self.answer(call, ask)?;
        let (input_tokens, output_tokens) = (amount.input, amount.output);
        call.spend(Usage { calls: 1, input_tokens, output_tokens, ..Usage::default() });
        Ok(written)
    }

    /// [`Self::write`] that spends nothing.
    ///
    /// # Errors
    ///
    /// As [`Endpoint::post`].
    pub(crate) fn answer(&self, call: &Call, ask: &Ask) -> Result<CountedAnswer> {
        loop {
            let known = self.refused.load(Ordering::Relaxed);
            let (path, body) = self.request(ask, known);
            match self.endpoint.post(path, &body, call) {
                Err(RemoteError::Refused { status: 400 | 422, reason, .. })
                    if self.learn(&body, &reason, known) => {}
                Err(error) => return Err(error),
                Ok(answer) => {
                    return read(&answer).map_err(|reason| RemoteError::Unexpected {
                        endpoint: format!("{}{path}", self.address()),
                        reason,
                    });
                }
            }
        }
    }

    /// [`Self::answer`] in pieces, each passed to `tell` as it comes. What has come stands in `counted`,
    /// also if no more comes.
    ///
    /// # Errors
    ///
    /// As [`Endpoint::post_lines`].
    pub(crate) fn stream(
        &self,
        call: &Call,
        ask: &Ask,
        tell: &dyn Fn(&str),
        counted: &mut CountedAnswer,
    ) -> Result<()> {
        loop {
            let known = self.refused.load(Ordering::Relaxed);
            let (path, mut body) = self.request(ask, known);
            body["stream"] = json!(true);
            if self.api == Api::OpenAi {
                body["stream_options"] = json!({ "include_usage": true });
            }
            let mut trouble = None;
            let heard = self.endpoint.post_lines(path, &body, call, &mut |line| {
                // Server-sent events: what is no data names an event or keeps the line open.
                let Some(data) = line.strip_prefix("data:").map(str::trim) else { return true };
                let Ok(event) = serde_json::from_str::<Value>(data) else {
                    return data != "[DONE]";
                };
                if let Some(message) = event["error"]["message"].as_str() {
                    trouble = Some(message.to_owned());
                    return false;
                }
                let piece = piece(&event);
                if !piece.is_empty() {
                    tell(piece);
                    counted.written.text.push_str(piece);
                }
                let amount = amount(&event).or_else(|| amount(&event["message"]));
                if let Some(Amount { input, output, .. }) = amount {
                    counted.amount.input = counted.amount.input.max(input);
                    counted.amount.output = counted.amount.output.max(output);
                }
                true
            });
            match (heard, trouble) {
                (Ok(()), None) => return Ok(()),
                (Ok(()), Some(reason)) => {
                    let endpoint = format!("{}{path}", self.address());
                    return Err(RemoteError::Unexpected { endpoint, reason });
                }
                (Err(RemoteError::Refused { status: 400 | 422, reason, .. }), _)
                    if self.learn(&body, &reason, known) => {}
                (Err(error), _) => return Err(error),
            }
        }
    }

    /// Whether a refusal names something that can be left out of what was sent.
    fn learn(&self, sent: &Value, reason: &str, known: u8) -> bool {
        let names = |word: &str| reason.contains(word);
        let field = |name: &str| sent.get(name).is_some();
        let is_probabilities = names("logprobs") && (field("logprobs") || field("top_logprobs"));
        let new = if is_probabilities && known & refused::TWENTY == 0 {
            refused::TWENTY
        } else if is_probabilities {
            refused::LOGPROBS
        } else if field("response_format")
            && ["response_format", "json_schema", "schema"].iter().any(|word| names(word))
        {
            refused::SCHEMA
        } else if field("max_tokens") && names("max_completion_tokens") {
            refused::MAX_TOKENS
        } else if field("temperature") && names("temperature") {
            refused::TEMPERATURE
        } else {
            return false;
        };
        self.refused.fetch_or(new, Ordering::Relaxed);
        true
    }

    /// Path and body.
    fn request(&self, ask: &Ask, known: u8) -> (&'static str, Value) {
        let is_known = |bit: u8| known & bit != 0;
        let mut body = json!({ "model": self.model });
        let renamed = is_known(refused::MAX_TOKENS);
        body[if renamed { "max_completion_tokens" } else { "max_tokens" }] = json!(ask.max_tokens);
        if !is_known(refused::TEMPERATURE) {
            body["temperature"] = json!(0);
        }
        if self.api == Api::Anthropic {
            let (system, messages) = apart(&ask.prompt);
            if !system.is_empty() {
                body["system"] = json!(system);
            }
            body["messages"] = json!(messages);
            return ("/messages", body);
        }
        let most = if is_known(refused::TWENTY) { 5 } else { 20 };
        let with_probabilities = ask.wanted == Wanted::Tokens && !is_known(refused::LOGPROBS);
        match &ask.prompt {
            Prompt::Raw(text) => {
                body["prompt"] = json!(text);
                if with_probabilities {
                    body["logprobs"] = json!(most);
                }
                ("/completions", body)
            }
            Prompt::Chat(messages) => {
                body["messages"] = messages.iter().map(wire).collect();
                if with_probabilities {
                    body["logprobs"] = json!(true);
                    body["top_logprobs"] = json!(most);
                }
                if let (Wanted::Permutation(count), false) = (ask.wanted, is_known(refused::SCHEMA))
                {
                    body["response_format"] = order_of(count);
                }
                ("/chat/completions", body)
            }
        }
    }
}

fn wire(message: &Message) -> Value {
    json!({ "role": message.role.name(), "content": message.content })
}

/// What the system says, and the rest.
fn apart(prompt: &Prompt) -> (String, Vec<Value>) {
    match prompt {
        Prompt::Raw(text) => (String::new(), vec![wire(&Message::user(text.clone()))]),
        Prompt::Chat(messages) => {
            let (system, rest): (Vec<&Message>, Vec<&Message>) =
                messages.iter().partition(|message| message.role == Role::System);
            let system: Vec<&str> = system.iter().map(|message| message.content.as_str()).collect();
            (system.join("\n\n"), rest.into_iter().map(wire).collect())
        }
    }
}

/// `{"order": [...]}` of so many numbers.
fn order_of(count: usize) -> Value {
    json!({
        "type": "json_schema",
        "json_schema": { "name": "order", "schema": {
            "type": "object",
            "properties": { "order": {
                "type": "array",
                "items": { "type": "integer", "minimum": 1, "maximum": count },
                "minItems": count,
                "maxItems": count,
            } },
            "required": ["order"],
            "additionalProperties": false,
        } },
    })
}

/// What is in an answer, whoever gave it.
fn read(answer: &Value) -> Result<CountedAnswer, String> {
    let choice = &answer["choices"][0];
    let text = choice["message"]["content"].as_str().or_else(|| choice["text"].as_str());
    let text = match (text, answer["content"].as_array()) {
        (Some(text), _) => text.to_owned(),
        (None, Some(parts)) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        // A model that only thought, or was cut off before it said anything.
        (None, None) if choice["message"].is_object() => String::new(),
        (None, None) => {
            return Err("there is no choices[0].message.content, no choices[0].text and no \
                        content[0].text in it"
                .to_owned());
        }
    };
    let written = Written { text, alternatives: alternatives(&choice["logprobs"]) };
    Ok(CountedAnswer { written, amount: amount(answer).unwrap_or_default() })
}

/// Tokens read and written, where an answer or a part of it says so.
fn amount(answer: &Value) -> Option<Amount> {
    let told = answer["usage"].as_object()?;
    let tokens = |names: [&str; 2]| {
        names.iter().find_map(|name| told.get(*name)?.as_u64()).unwrap_or_default()
    };
    let input = tokens(["prompt_tokens", "input_tokens"]);
    Some(Amount { input, output: tokens(["completion_tokens", "output_tokens"]), searches: 0 })
}

/// The text in a part of an answer.
fn piece(event: &Value) -> &str {
    let choice = &event["choices"][0];
    let places = [&choice["delta"]["content"], &choice["text"], &event["delta"]["text"]];
    places.into_iter().find_map(Value::as_str).unwrap_or_default()
}

/// The alternatives of each token, best first.
fn alternatives(logprobs: &Value) -> Vec<Vec<Alternative>> {
    let sorted = |mut of: Vec<Alternative>| {
        of.retain(|alternative| alternative.logprob.is_finite());
        of.sort_by(|a, b| b.logprob.total_cmp(&a.logprob));
        of
    };
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NEG_INFINITY) as f32;
    if let Some(tokens) = logprobs["content"].as_array() {
        let of = |token: &Value| {
            let told = token["top_logprobs"].as_array().into_iter().flatten();
            let alternative = |told: &Value| Alternative {
                token: told["token"].as_str().unwrap_or_default().to_owned(),
                logprob: number(&told["logprob"]),
            };
            sorted(told.map(alternative).collect())
        };
        return tokens.iter().map(of).filter(|of: &Vec<_>| !of.is_empty()).collect();
    }
    // As completions have it: a map for each token.
    let maps = logprobs["top_logprobs"].as_array().into_iter().flatten();
    let of = |map: &serde_json::Map<String, Value>| {
        let alternative = |(token, logprob): (&String, &Value)| Alternative {
            token: token.clone(),
            logprob: number(logprob),
        };
        sorted(map.iter().map(alternative).collect())
    };
    maps.filter_map(Value::as_object).map(of).filter(|of| !of.is_empty()).collect()
}
