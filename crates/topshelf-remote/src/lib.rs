//! Clients of models that answer over HTTP.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`http`] | posts JSON: time limits, retries, what went wrong in words |
//! | [`chat`] | an LLM behind an OpenAI-compatible endpoint |
//! | [`grade`] | an LLM as a judge of relevance |
//!
//! Calls block; a caller that wants several at once takes as many threads. Keys come from the caller
//! and stand in no error and in no log.

pub mod chat;
mod error;
pub mod grade;
pub mod http;

pub use chat::{ChatModel, Completion, Message};
pub use error::{RemoteError, Result};
