//! The seam to LLMs: [`LanguageModel`] goes on where a [`Prompt`] ends.
//!
//! An endpoint and a model in this process stand behind it alike. What rerankers need of one is
//! little: the first token's probabilities, a short text, several questions at once that begin alike,
//! and how many tokens it took.

use std::fmt;
use std::ops::AddAssign;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::call::Call;
use crate::context::estimate_tokens;
use crate::error::{Blame, Error, Result};
use crate::stage::{ModelIdentity, PassageFailure};

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Who sets the rules.
    System,
    /// Who asks.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// As endpoints and chat templates write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// A message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Message {
    /// What a user says.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: Role::User, content: content.into() }
    }

    /// What the system says.
    pub fn system(content: impl Into<String>) -> Self {
        Self { role: Role::System, content: content.into() }
    }
}

/// What a model is to go on from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Prompt {
    /// A conversation, which the model's own template makes a text of.
    Chat(Vec<Message>),
    /// The text itself, with whatever markers the model was trained on.
    Raw(String),
}

impl Prompt {
    /// What is said, without who says it.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let (messages, raw) = match self {
            Self::Chat(messages) => (messages.as_slice(), None),
            Self::Raw(text) => (&[][..], Some(text.as_str())),
        };
        messages.iter().map(|message| message.content.as_str()).chain(raw)
    }
}

/// What is wanted of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// A text.
    Text,
    /// The probabilities of the first tokens.
    Tokens,
    /// The numbers from 1 to this one, each once, in an order. A model that can be held to that is
    /// held to it as `{"order": [2, 1, 3]}`.
    Permutation(usize),
}

/// A question to a model.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ask {
    /// What it goes on from.
    pub prompt: Prompt,
    /// What is wanted.
    pub wanted: Wanted,
    /// Tokens that it may write.
    pub max_tokens: usize,
}

/// A token that might have been written.
#[derive(Debug, Clone, PartialEq)]
pub struct Alternative {
    /// The token's text.
    pub token: String,
    /// The natural logarithm of its probability, at most 0.
    pub logprob: f32,
}

/// What a model wrote.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Written {
    /// The text.
    pub text: String,
    /// For each token of it the likeliest alternatives, itself among them, best first; empty where the
    /// model does not tell.
    pub alternatives: Vec<Vec<Alternative>>,
}

/// What was asked of models and services that are paid by use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Calls that were answered.
    pub calls: u64,
    /// Tokens that were read, where it is told.
    pub input_tokens: u64,
    /// Tokens that were written.
    pub output_tokens: u64,
    /// Searches, as some rerank services count.
    pub searches: u64,
    /// Answers that had to be repaired: an order that was not one of all passages, each once.
    pub repaired: u64,
    /// What it cost, in nanodollars (10⁻⁹ USD); `None` where no price is known.
    pub cost: Option<u64>,
}

impl Usage {
    /// An answer that had to be repaired, beside what the call for it took.
    pub fn of_repair() -> Self {
        Self { repaired: 1, ..Self::default() }
    }

    /// Whether nothing was asked.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// In a few words: `3 calls, 1200 tokens read, 12 written, 0.000490 USD`.
impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.calls, if self.calls == 1 { "call" } else { "calls" })?;
        let counted = [
            (self.input_tokens, "tokens read"),
            (self.output_tokens, "written"),
            (self.searches, "searches"),
            (self.repaired, "answers repaired"),
        ];
        for (count, what) in counted.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {count} {what}")?;
        }
        self.cost.map_or(Ok(()), |nano| write!(f, ", {:.6} USD", nano as f64 / 1e9))
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
        self.searches += other.searches;
        self.repaired += other.repaired;
        self.cost = match (self.cost, other.cost) {
            (Some(own), Some(other)) => Some(own + other),
            (own, other) => own.or(other),
        };
    }
}

/// Hears what a model writes, piece by piece, on a thread of the model's.
pub type Tell = Arc<dyn Fn(&str) + Send + Sync>;

/// An LLM.
#[async_trait]
pub trait LanguageModel: Send + Sync {
    /// Which model it is.
    fn identity(&self) -> &ModelIdentity;

    /// Tokens that it can read and write at once; `None` where that is not known.
    fn context_tokens(&self) -> Option<usize> {
        None
    }

    /// The tokens of a text; an estimate unless the model knows.
    fn count_tokens(&self, text: &str) -> usize {
        estimate_tokens(text)
    }

    /// The likeliest continuation of each prompt, in their order (temperature 0). What prompts have in
    /// common at their beginning may be read once. What it takes is spent on the call.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Stage`] if nothing could be answered; a single prompt fails alone.
    async fn write(
        &self,
        call: &Call,
        asks: &[Ask],
    ) -> Result<Vec<std::result::Result<Written, PassageFailure>>>;

    /// The continuation of one prompt, each piece of which is told as soon as it is written; told in one
    /// piece where the model cannot do better.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Stage`] if it is not answered to the end.
    async fn stream(&self, call: &Call, ask: &Ask, tell: Tell) -> Result<Written> {
        let fail = |reason: String| Error::stage("answer", Blame::Failure, reason);
        let written = self.write(call, std::slice::from_ref(ask)).await?.pop();
        let written = written.ok_or_else(|| fail("the model gave no answer".to_owned()))?;
        let written = written.map_err(|failure| fail(failure.reason))?;
        tell(&written.text);
        Ok(written)
    }
}
