//! [`ChatModel`]: an LLM behind an OpenAI-compatible endpoint (OpenAI, vLLM, Ollama, llama.cpp, LM
//! Studio): `POST {endpoint}/chat/completions`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{RemoteError, Result};
use crate::http::Endpoint;

/// How long one answer is waited for.
pub const LIMIT: Duration = Duration::from_mins(2);

/// An LLM behind an endpoint.
#[derive(Debug, Clone)]
pub struct ChatModel {
    endpoint: Endpoint,
    model: String,
}

/// A message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: &'static str,
    /// What is said.
    pub content: String,
}

/// What a model answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// The text.
    pub text: String,
    /// Tokens that were read; 0 where the service does not say.
    pub prompt_tokens: u64,
    /// Tokens that were written.
    pub completion_tokens: u64,
}

impl ChatModel {
    /// The model of that name at an endpoint such as `http://localhost:8080/v1`.
    ///
    /// # Errors
    ///
    /// [`RemoteError::Endpoint`] for what is no endpoint. Whether anybody is there is not asked.
    pub fn new(endpoint: &str, model: &str, key: Option<String>) -> Result<Self> {
        let endpoint = Endpoint::new(endpoint, key, LIMIT)?;
        Ok(Self { endpoint, model: model.to_owned() })
    }

    /// The model's name.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The endpoint's address.
    pub fn address(&self) -> &str {
        self.endpoint.address()
    }

    /// The most likely continuation (temperature 0) of at most `max_tokens`.
    ///
    /// # Errors
    ///
    /// As [`Endpoint::post`].
    pub fn complete(&self, messages: &[Message], max_tokens: u32) -> Result<Completion> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| json!({ "role": message.role, "content": message.content }))
            .collect();
        let body = json!({
            "model": self.model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": max_tokens,
        });
        let answer = self.endpoint.post("/chat/completions", &body)?;
        let text = answer["choices"][0]["message"]["content"].as_str().ok_or_else(|| {
            let reason = "there is no choices[0].message.content in it".to_owned();
            RemoteError::Unexpected { endpoint: self.endpoint.address().to_owned(), reason }
        })?;
        let tokens = |name: &str| answer["usage"][name].as_u64().unwrap_or_default();
        Ok(Completion {
            text: text.to_owned(),
            prompt_tokens: tokens("prompt_tokens"),
            completion_tokens: tokens("completion_tokens"),
        })
    }
}
