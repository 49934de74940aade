//! Posting JSON.
//!
//! What may pass is tried again: no connection, 408, 409, 429 and 5xx, up to [`TRIES`] times; after
//! what the service asks for (`Retry-After-Ms`, `Retry-After` in seconds, `X-RateLimit-Reset`), else
//! after half a second, one, two, with up to half as much on top by chance, so that callers that failed
//! together do not come back together. What would fail again is an error at once; and so is everything
//! once nobody waits.

use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use serde_json::Value;
use topshelf_core::Call;
use ureq::http::Response;
use ureq::{Agent, Body};

use crate::error::{RemoteError, Result, is_transient};

/// How often a call is tried, at most.
pub const TRIES: usize = 4;

/// The first pause.
const PAUSE: Duration = Duration::from_millis(500);

/// The longest pause that a service may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Characters of an answer that an error repeats.
const SHOWN: usize = 300;

/// Bytes of an answer, at most.
const LONGEST_ANSWER: u64 = 32 << 20;

/// How a key is shown to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyHeader {
    /// `Authorization: Bearer KEY`.
    #[default]
    Bearer,
    /// `Api-Key: KEY`.
    ApiKey,
    /// `X-Api-Key: KEY`, and the version of Anthropic's API.
    Anthropic,
}

/// An endpoint with its key.
#[derive(Clone)]
pub struct Endpoint {
    agent: Agent,
    address: String,
    key: Option<String>,
    header: KeyHeader,
    limit: Duration,
}

/// One try that failed.
enum Failed {
    /// May pass; after so long, if the service says.
    Transient(RemoteError, Option<Duration>),
    Permanent(RemoteError),
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the key.
        f.debug_struct("Endpoint").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// An endpoint that is waited for up to `limit` in each try.
    ///
    /// # Errors
    ///
    /// [`RemoteError::Endpoint`] for what is not http or https.
    pub fn new(address: &str, key: Option<String>, limit: Duration) -> Result<Self> {
        let address = address.trim().trim_end_matches('/');
        if !["http://", "https://"].iter().any(|scheme| address.starts_with(scheme)) {
            return Err(RemoteError::Endpoint { endpoint: address.to_owned() });
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(limit))
            .timeout_connect(Some(limit.min(Duration::from_secs(10))))
            .build();
        let (agent, address) = (config.into(), address.to_owned());
        Ok(Self { agent, address, key, header: KeyHeader::default(), limit })
    }

    /// The same with the key in another header.
    #[must_use]
    pub fn with_header(self, header: KeyHeader) -> Self {
        Self { header, ..self }
    }

    /// The address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Posts JSON to a path and answers JSON. Why it is tried again is said on the call; once the call
    /// is withdrawn, it is not.
    ///
    /// # Errors
    ///
    /// All of [`RemoteError`] but the first.
    pub fn post(&self, path: &str, body: &Value, call: &Call) -> Result<Value> {
        again(call, || self.try_once(path, body))
    }

    /// Posts JSON and hears the lines of the answer as they come; `hear` says whether more is wanted. It
    /// is tried again as long as nothing was heard.
    ///
    /// # Errors
    ///
    /// As [`Self::post`]; an answer that breaks off is [`RemoteError::Unexpected`].
    pub fn post_lines(
        &self,
        path: &str,
        body: &Value,
        call: &Call,
        hear: &mut dyn FnMut(&str) -> bool,
    ) -> Result<()> {
        let mut response = again(call, || self.respond(path, body))?;
        let reader = response.body_mut().with_config().limit(LONGEST_ANSWER).reader();
        for line in BufReader::new(reader).lines() {
            let line = line.map_err(|error| RemoteError::Unexpected {
                endpoint: format!("{}{path}", self.address),
                reason: format!("the answer breaks off: {error}"),
            })?;
            if call.is_withdrawn() {
                return Err(RemoteError::Gone);
            }
            if !hear(&line) {
                break;
            }
        }
        Ok(())
    }

    fn try_once(&self, path: &str, body: &Value) -> Result<Value, Failed> {
        let endpoint = format!("{}{path}", self.address);
        let mut response = self.respond(path, body)?;
        let text = response.body_mut().with_config().limit(LONGEST_ANSWER).read_to_string();
        let text = text.map_err(|error| {
            let reason = error.to_string();
            let error = RemoteError::Unexpected { endpoint: endpoint.clone(), reason };
            Failed::Transient(error, None)
        })?;
        serde_json::from_str(&text).map_err(|error| {
            let reason = format!("{error} in {}", shorten(&text));
            Failed::Permanent(RemoteError::Unexpected { endpoint, reason })
        })
    }

    /// An answer whose status says that it is one.
    fn respond(&self, path: &str, body: &Value) -> Result<Response<Body>, Failed> {
        let endpoint = format!("{}{path}", self.address);
        let mut request = self.agent.post(&endpoint).header("content-type", "application/json");
        if self.header == KeyHeader::Anthropic {
            request = request.header("anthropic-version", "2023-06-01");
        }
        if let Some(key) = &self.key {
            request = match self.header {
                KeyHeader::Bearer => request.header("authorization", format!("Bearer {key}")),
                KeyHeader::ApiKey => request.header("api-key", key),
                KeyHeader::Anthropic => request.header("x-api-key", key),
            };
        }
        let mut response = match request.send(body.to_string()) {
            Ok(response) => response,
            Err(ureq::Error::Timeout(_)) => {
                // A model that is too slow once will be again.
                let limit = self.limit;
                return Err(Failed::Permanent(RemoteError::TimedOut { endpoint, limit }));
            }
            Err(error) => {
                let reason = error.to_string();
                let error = RemoteError::Unreachable { endpoint, tries: 1, reason };
                return Err(Failed::Transient(error, None));
            }
        };
        let status = response.status().as_u16();
        let number = |name: &str| -> Option<f64> {
            let value = response.headers().get(name)?.to_str().ok()?;
            value.trim().parse().ok().filter(|number: &f64| (0.0..1e9).contains(number))
        };
        let wait = number("retry-after-ms")
            .map(|milliseconds| milliseconds / 1e3)
            .or_else(|| number("retry-after"))
            .or_else(|| number("x-ratelimit-reset"))
            .map(Duration::from_secs_f64);
        if (200..300).contains(&status) {
            return Ok(response);
        }
        let text = response.body_mut().with_config().limit(LONGEST_ANSWER).read_to_string();
        let text = match text {
            Ok(text) => text,
            Err(error) => {
                let error = RemoteError::Unexpected { endpoint, reason: error.to_string() };
                return Err(Failed::Transient(error, wait));
            }
        };
        let error = RemoteError::Refused { endpoint, status, reason: reason(&text) };
        Err(if is_transient(status) {
            Failed::Transient(error, wait)
        } else {
            Failed::Permanent(error)
        })
    }
}

/// Tries until it is answered, fails for good, or nobody waits any more.
fn again<T>(call: &Call, mut attempt: impl FnMut() -> Result<T, Failed>) -> Result<T> {
    let mut tries = 0;
    let mut said: Option<String> = None;
    loop {
        tries += 1;
        if call.is_withdrawn() {
            return Err(RemoteError::Gone);
        }
        match attempt() {
            Ok(answer) => {
                if let Some(words) = said {
                    call.take_back(&words);
                }
                return Ok(answer);
            }
            Err(Failed::Permanent(error)) => return Err(error),
            Err(Failed::Transient(error, _)) if tries == TRIES => {
                return Err(match error {
                    RemoteError::Unreachable { endpoint, reason, .. } => {
                        RemoteError::Unreachable { endpoint, tries, reason }
                    }
                    other => other,
                });
            }
            Err(Failed::Transient(error, asked)) => {
                let words = match &error {
                    RemoteError::Unreachable { endpoint, reason, .. } => {
                        format!("{endpoint} cannot be reached ({reason}), tried {}", times(tries))
                    }
                    other => format!("{other}, tried {}", times(tries)),
                };
                call.say(&words);
                said = Some(words);
                sleep(pause(tries, asked), call);
            }
        }
    }
}

fn times(tries: usize) -> String {
    if tries == 1 { "once".to_owned() } else { format!("{tries} times") }
}

/// Waits, or stops waiting as soon as nobody else does.
fn sleep(pause: Duration, call: &Call) {
    const LOOK: Duration = Duration::from_millis(20);
    let end = Instant::now() + pause;
    while !call.is_withdrawn() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(LOOK));
    }
}

/// How long to wait after the n-th try, from 1.
fn pause(tries: usize, asked: Option<Duration>) -> Duration {
    let usual = PAUSE * 2_u32.saturating_pow(tries.saturating_sub(1) as u32);
    let pause = asked.unwrap_or(usual).min(LONGEST_PAUSE);
    // A hasher of the standard library's is seeded by chance.
    let chance = (RandomState::new().hash_one(tries) % 1000) as f64 / 2000.0;
    pause.mul_f64(1.0 + chance)
}

/// The message in a body that says what is wrong, however it is wrapped.
fn reason(body: &str) -> String {
    let parsed: Value = serde_json::from_str(body).unwrap_or_default();
    let places =
        [&parsed["error"]["message"], &parsed["message"], &parsed["detail"], &parsed["error"]];
    let told = places.into_iter().find_map(Value::as_str);
    shorten(told.unwrap_or(body))
}

fn shorten(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_not_shown() {
        let key = Some("secret".to_owned());
        let endpoint = Endpoint::new("http://host/v1/", key, Duration::from_secs(1)).unwrap();
        assert!(!format!("{endpoint:?}").contains("secret"));
        assert_eq!(endpoint.address(), "http://host/v1");
        assert!(Endpoint::new("localhost:8080", None, Duration::from_secs(1)).is_err());
    }

    #[test]
    fn the_message_is_found_wherever_it_stands() {
        assert_eq!(reason(r#"{"error": {"message": "no model"}}"#), "no model");
        assert_eq!(reason(r#"{"detail": "too long"}"#), "too long");
        assert_eq!(reason(r#"{"error": "bad"}"#), "bad");
        assert_eq!(reason("<h1>502</h1>\n  bad gateway"), "<h1>502</h1> bad gateway");
        assert_eq!(reason(&"x".repeat(1000)).chars().count(), SHOWN + 1);
    }

    #[test]
    fn pauses_grow_and_a_service_may_ask_for_another() {
        assert!(pause(1, None) >= PAUSE && pause(1, None) <= PAUSE * 3 / 2);
        assert!(pause(3, None) >= PAUSE * 4);
        let asked = pause(1, Some(Duration::from_secs(3)));
        assert!(asked >= Duration::from_secs(3) && asked <= Duration::from_millis(4500));
        assert!(pause(1, Some(Duration::from_hours(1))) <= LONGEST_PAUSE * 3 / 2);
    }
}
