//! Clients of models that answer over HTTP.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`http`] | posts JSON: time limits, retries, what went wrong in words |
//! | [`chat`] | an LLM behind an endpoint, one question at a time |
//! | [`llm`] | the same for rerankers: several questions at once, and how one is named |
//! | [`grade`] | an LLM as a judge of relevance |
//! | [`hosted`] | rerankers as services: Cohere, Voyage, Jina, and what speaks like them |
//! | [`dialect`] | what each of them is sent, what it answers, its limits |
//! | `thread` | blocking work for a future that waits |
//! | [`price`] | what calls cost, and budgets |
//! | `key` | keys from the environment |
//! | `breaker` | leaving a service alone that fails |
//!
//! Calls block; a caller that wants several at once takes as many threads. Keys come from the caller
//! and stand in no error and in no log.

mod breaker;
pub mod chat;
pub mod dialect;
mod error;
pub mod grade;
pub mod hosted;
pub mod http;
mod key;
pub mod llm;
pub mod price;
mod thread;

pub use chat::{Api, ChatModel};
pub use dialect::{Dialect, Target};
pub use error::{RemoteError, Result};
pub use hosted::HostedReranker;
pub use llm::{Place, RemoteModel};
pub use price::{Budget, Meter, Prices};
