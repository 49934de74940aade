//! Limits and switches of a server: [`ServeOptions`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::shadow::Shadow;

/// How a server behaves.
#[derive(Clone, Default)]
pub struct ServeOptions {
    /// What is let in.
    pub limits: Limits,
    /// The file of keys; everybody may ask if there is none.
    pub keys: Option<PathBuf>,
    /// Web pages of these origins may ask; `*` for all.
    pub origins: Vec<String>,
    /// A second reranker that is only looked at.
    pub shadow: Option<Arc<Shadow>>,
    /// Whether queries are logged.
    pub log_queries: LogQueries,
}

/// Whether the text of queries goes into logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogQueries {
    /// No text of any request does.
    #[default]
    Never,
    /// That of queries does; that of documents never.
    Always,
}

/// What is let in. Sizes in bytes.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Of a request's body.
    pub body: usize,
    /// Of all bodies that are being read at once.
    pub bodies: usize,
    /// Documents of a request, and candidates.
    pub documents: usize,
    /// How long a request may have to wait for those before it; one that would have to wait longer is
    /// refused at once.
    pub wait: Duration,
    /// Requests at work or waiting.
    pub requests: usize,
    /// Open connections.
    pub connections: usize,
    /// How long a request's head may take to come.
    pub head_time: Duration,
    /// How long a request's body may take to come.
    pub body_time: Duration,
    /// How long a client may take nothing of its answer.
    pub stall_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 32 << 20,
            bodies: 256 << 20,
            documents: 10_000,
            wait: Duration::from_secs(2),
            requests: 4096,
            connections: 16_384,
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(30),
            stall_time: Duration::from_secs(30),
        }
    }
}
