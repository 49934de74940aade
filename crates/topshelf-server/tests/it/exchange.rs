//! A request, the server that it is sent to, and the reply; and what holds for every reply.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use topshelf_server::dialect::Dialect;
use topshelf_server::{App, ServeOptions};
use tower::ServiceExt as _;

use super::description;
use super::shelf::FakeShelf;

/// What the documents are asked for. Their overlaps with it are 0, 3, 2 and 1.
pub(crate) const QUERY: &str = "How long does a flea live?";

/// Documents of a request.
pub(crate) const DOCUMENTS: [&str; 4] =
    ["Dogs sleep.", "A flea may live.", "A flea jumps.", "The flea market."];

/// Headers that a snapshot shows.
const SHOWN: [&str; 11] = [
    "content-type",
    "allow",
    "retry-after",
    "access-control-allow-origin",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-expose-headers",
    "content-security-policy",
    "cache-control",
    "x-topshelf-model",
    "x-topshelf-warning",
];

/// A test for each row: its name and the request, whose exchange is compared with the snapshot AREA/NAME.
macro_rules! cases {
    ($area:literal: $($name:ident => $request:expr;)*) => {$(
        #[tokio::test]
        async fn $name() {
            let server = $crate::it::exchange::TestServer::new();
            server.send($request).await.matches($area, stringify!($name));
        }
    )*};
}

/// A server over a fake shelf.
pub(crate) struct TestServer {
    pub(crate) app: Arc<App>,
    router: Router,
    /// Where its file of keys is.
    _folder: Option<TempDir>,
}

/// A request that has not been sent.
pub(crate) struct TestRequest {
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Body,
    /// The body as a snapshot shows it.
    shown: String,
}

/// What a server answered.
pub(crate) struct TestReply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The request as a snapshot shows it.
    asked: String,
}

/// `POST` of a body in JSON.
pub(crate) fn post(path: &str, body: impl Into<Value>) -> TestRequest {
    let body: Value = body.into();
    request("POST", path).body(body.to_string())
}

/// `GET`.
pub(crate) fn get(path: &str) -> TestRequest {
    request("GET", path)
}

/// A request without a body.
pub(crate) fn request(method: &str, path: &str) -> TestRequest {
    TestRequest {
        method: method.parse().expect("a method"),
        path: path.to_owned(),
        headers: Vec::new(),
        body: Body::empty(),
        shown: String::new(),
    }
}

/// One object with the fields of the other laid over it; a field of the value null goes.
pub(crate) fn with(mut body: Value, fields: Value) -> Value {
    let Value::Object(fields) = fields else { panic!("an object") };
    let own = body.as_object_mut().expect("an object");
    for (name, value) in fields {
        if value.is_null() {
            own.remove(&name);
        } else {
            own.insert(name, value);
        }
    }
    body
}

impl TestRequest {
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// A body of these bytes.
    pub(crate) fn body(self, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let shown = match std::str::from_utf8(&body) {
            Ok(text) if text.len() <= 1000 => {
                serde_json::from_str(text).map_or(text.to_owned(), |json| layout(&json, 0))
            }
            _ => format!("[{} bytes]", body.len()),
        };
        Self { body: Body::from(body), shown, ..self }
    }

    /// A body whose length is not known beforehand.
    pub(crate) fn stream(self, body: Body) -> Self {
        Self { body, shown: "[stream]".to_owned(), ..self }
    }

    /// As a snapshot shows it.
    fn told(&self) -> String {
        let mut told = format!("{} {}\n", self.method, self.path);
        for (name, value) in &self.headers {
            // A key is random, and a client's secret.
            let value = if value.starts_with("Bearer ") { "Bearer [key]" } else { value };
            let _ = writeln!(told, "{name}: {value}"); // a string takes all
        }
        if !self.shown.is_empty() {
            let _ = writeln!(told, "{}", self.shown);
        }
        told
    }
}

impl TestServer {
    /// All that there is, as it is by default.
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// [`Self::new`] with other options.
    pub(crate) fn with(change: impl FnOnce(&mut ServeOptions)) -> Self {
        Self::of(FakeShelf::full(), change)
    }

    /// Another shelf.
    pub(crate) fn of(shelf: FakeShelf, change: impl FnOnce(&mut ServeOptions)) -> Self {
        let mut options = ServeOptions::default();
        change(&mut options);
        let app = App::new(Arc::new(shelf), options).expect("the options are sound");
        let router = app.router();
        Self { app, router, _folder: None }
    }

    /// A server that asks for a key. `keys` is the file of keys.
    pub(crate) fn with_keys(keys: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("keys.toml");
        std::fs::write(&file, keys).expect("it can be written");
        let own = Self::with(|options| options.keys = Some(file));
        Self { _folder: Some(folder), ..own }
    }

    /// Sends a request; panics unless the reply is what every reply has to be.
    pub(crate) async fn send(&self, request: TestRequest) -> TestReply {
        let asked = request.told();
        let (method, path) = (request.method.clone(), request.path.clone());
        let mut sent = Request::builder().method(request.method).uri(request.path);
        for (name, value) in request.headers {
            sent = sent.header(name, value);
        }
        let sent = sent.body(request.body).expect("a request");
        let response = self.router.clone().oneshot(sent).await.expect("the router cannot fail");
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("the whole answer").to_bytes();
        let reply = TestReply { status: head.status, headers: head.headers, body, asked };
        reply.check(&method, &path);
        reply
    }

    /// A figure of `/metrics` as it stands there; 0 if it does not.
    pub(crate) async fn metric(&self, name: &str) -> String {
        let text = self.send(get("/metrics")).await.text();
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.rsplit(' ').next()).unwrap_or("0").to_owned()
    }
}

impl TestReply {
    /// The body.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).expect("UTF-8")
    }

    /// The body as JSON; null if it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as JSON, without what differs from run to run.
    pub(crate) fn settled(&self) -> Value {
        settled(self.json())
    }

    /// A header, if it is there and in ASCII.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Panics unless the exchange is as its snapshot has it.
    pub(crate) fn matches(&self, area: &str, name: &str) {
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(format!("snapshots/{area}"));
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(name, self.told()));
    }

    /// The exchange: the request, the status, some headers, and the body without what differs from run to run.
    fn told(&self) -> String {
        let mut told = format!("{}\n{}\n", self.asked, self.status);
        let is_json = self.header("content-type") == Some("application/json");
        for name in SHOWN.into_iter().filter(|name| !is_json || *name != "content-type") {
            for value in self.headers.get_all(name) {
                let value = String::from_utf8_lossy(value.as_bytes());
                let _ = writeln!(told, "{name}: {value}"); // a string takes all
            }
        }
        let text = self.text();
        if text.is_empty() {
            return told;
        }
        if is_json {
            let _ = writeln!(told, "{}", layout(&self.settled(), 0));
        } else if self.header("content-type") == Some("text/event-stream") {
            told.push_str(&events(&text));
        } else if text.len() > 2000 {
            let _ = writeln!(told, "[{} bytes]", text.len());
        } else {
            told.push_str(&text);
        }
        told
    }

    /// What holds for every reply: it is not the server that broke unless the case is about that, it has a
    /// name and times, an error has the shape of its dialect, and JSON is as `/openapi.json` says.
    fn check(&self, method: &Method, path: &str) {
        // A preflight is answered before it is a request of anybody's.
        let is_preflight = *method == Method::OPTIONS && self.status.is_success();
        for name in ["x-request-id", "x-total-time", "x-queue-time", "x-inference-time"] {
            assert!(is_preflight || self.headers.contains_key(name), "{path}: no {name}");
        }
        if self.status.as_u16() >= 400 && *method != Method::HEAD {
            assert!(is_error_of(path, &self.body), "{method} {path}: {}", self.text());
        }
        if let Ok(body) = serde_json::from_slice(&self.body) {
            description::check(method, path, self.status, &body);
        }
    }
}

/// Whether these bytes are an error as the dialects of that path write one: these fields and no others.
pub(crate) fn is_error_of(path: &str, body: &[u8]) -> bool {
    // Several vendors share these; which it is, the body decides.
    let dialects = match path {
        "/v1/rerank" => vec![Dialect::Cohere, Dialect::Jina],
        "/rerank" => vec![Dialect::Tei, Dialect::Vllm],
        path => vec![Dialect::of_path(path)],
    };
    dialects.into_iter().any(|dialect| is_error(dialect, body))
}

fn is_error(dialect: Dialect, body: &[u8]) -> bool {
    // TEI answers a wrong key with nothing at all.
    if body.is_empty() {
        return dialect == Dialect::Tei;
    }
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return false };
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    let has = |value: &Value, fields: &[&str]| {
        let own = value.as_object();
        own.is_some_and(|own| {
            own.len() == fields.len() && fields.iter().all(|f| own.contains_key(*f))
        })
    };
    let inner = &body["error"];
    match dialect {
        Dialect::Cohere => has(&body, &["message"]) && is_text(&body["message"]),
        Dialect::Jina | Dialect::Voyage => has(&body, &["detail"]) && is_text(&body["detail"]),
        Dialect::Tei => {
            has(&body, &["error", "error_type"]) && is_text(inner) && is_text(&body["error_type"])
        }
        Dialect::Vllm | Dialect::OpenAi => {
            has(inner, &["message", "type", "param", "code"])
                && is_text(&inner["message"])
                && is_text(&inner["type"])
                && inner["code"].is_u64()
        }
        Dialect::Native => {
            has(inner, &["type", "message"])
                && is_text(&inner["type"])
                && is_text(&inner["message"])
        }
    }
}

/// A value without what differs from run to run, or by the last digit from machine to machine.
fn settled(mut value: Value) -> Value {
    match &mut value {
        Value::Number(number) if number.is_f64() => {
            let rounded = (number.as_f64().expect("it is one") * 1e4).round() / 1e4;
            return json!(rounded + 0.0); // not -0.0
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = settled(item.take())),
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                *field = match (name.as_str(), field.as_str()) {
                    ("milliseconds" | "uptime_seconds" | "created", None) => json!("[time]"),
                    ("version", Some(env!("CARGO_PKG_VERSION"))) => json!("[version]"),
                    ("id", Some(id)) => json!(without_random(id)),
                    _ => settled(field.take()),
                };
            }
        }
        _ => {}
    }
    value
}

/// An id without 32 random digits at its end.
fn without_random(id: &str) -> String {
    let prefix = id.len().saturating_sub(32);
    let is_random = id.len() >= 32 && id.is_char_boundary(prefix);
    match is_random.then(|| id.split_at(prefix)) {
        Some((own, digits)) if digits.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
            format!("{own}[random]")
        }
        _ => id.to_owned(),
    }
}

/// Server-sent events, each with its data settled.
fn events(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.is_empty());
    lines.fold(String::new(), |mut told, line| {
        let data = line.strip_prefix("data: ").and_then(|data| serde_json::from_str(data).ok());
        let _ = match data {
            Some(data) => writeln!(told, "data: {}", layout(&settled(data), 0)),
            None => writeln!(told, "{line}"),
        };
        told
    })
}

/// JSON with each value that fits on one line.
fn layout(value: &Value, indent: usize) -> String {
    let short = value.to_string();
    if short.len() + indent <= 100 {
        return short;
    }
    let inner = "  ".repeat(indent / 2 + 1);
    let (open, close, items) = match value {
        Value::Array(items) => {
            let items = items.iter().map(|item| layout(item, indent + 2));
            ('[', ']', items.collect::<Vec<_>>())
        }
        Value::Object(fields) => {
            let field = |(name, field): (&String, &Value)| {
                format!("{}: {}", json!(name), layout(field, indent + 2))
            };
            ('{', '}', fields.iter().map(field).collect())
        }
        _ => return short,
    };
    let items = items.join(&format!(",\n{inner}"));
    format!("{open}\n{inner}{items}\n{}{close}", &inner[2..])
}
