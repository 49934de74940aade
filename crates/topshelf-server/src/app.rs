//! The application: its state, its routes, and what every request passes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use topshelf_core::setup::LONGEST_DEADLINE;
use topshelf_core::{Call, Query, RetrieverReport, SecondStageReport};
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer};
use tracing::Instrument as _;

use crate::admission::Admission;
use crate::dialect::{self, Dialect};
use crate::error::{Result, ServeError};
use crate::json;
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::options::{LogQueries, ServeOptions};
use crate::shelf::Shelf;
use crate::{native, page, traces};

/// The header by which a client says how long it waits, in milliseconds.
pub const DEADLINE: HeaderName = HeaderName::from_static("x-topshelf-deadline-ms");

/// The header that names a request in answers and logs.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Warnings in headers, at most: clients refuse answers with too many headers.
const WARNINGS: usize = 16;

/// Bytes of a header, about: clients refuse headers that are too long.
const LONGEST_HEADER: usize = 400;

/// Bytes by which the memory of bodies is counted.
const KIB: usize = 1024;

/// What all requests share.
pub struct App {
    /// What is served.
    pub shelf: Arc<dyn Shelf>,
    /// Limits and switches.
    pub options: ServeOptions,
    /// How much is let in.
    pub admission: Arc<Admission>,
    /// What operators see.
    pub metrics: Metrics,
    keys: RwLock<Option<Arc<Keys>>>,
    /// KiB that bodies that are being read may still take.
    bodies: Semaphore,
    started: Instant,
    next_id: AtomicU64,
}

/// What a handler tells of its work beside the answer: it becomes headers, and figures.
#[derive(Debug, Clone, Default)]
pub struct Ran {
    /// The model that answered.
    pub model: String,
    /// How long the stages took.
    pub took: Duration,
    /// What the client should know, where its dialect has no place for it.
    pub warnings: Vec<String>,
    /// What the retrievers did.
    pub retrievers: Vec<RetrieverReport>,
    /// What the second stage did.
    pub second_stage: Option<SecondStageReport>,
    /// The places, from 0, that the results had before they were reranked, best first.
    pub before: Vec<usize>,
    /// The probability of the best result.
    pub relevance: Option<f32>,
}

impl App {
    /// An application over a shelf.
    ///
    /// # Errors
    ///
    /// [`ServeError::Failed`] if the keys cannot be read.
    pub fn new(shelf: Arc<dyn Shelf>, options: ServeOptions) -> Result<Arc<Self>> {
        let admission = Admission::new(options.limits.wait, options.limits.requests);
        let (started, next_id) = (Instant::now(), AtomicU64::new(1));
        let keys = options.keys.as_deref().map(Keys::open).transpose()?.map(Arc::new);
        let (metrics, keys) = (Metrics::default(), RwLock::new(keys));
        let bodies = Semaphore::new(options.limits.bodies / KIB);
        let own = Self { shelf, options, admission, metrics, keys, bodies, started, next_id };
        Ok(Arc::new(own))
    }

    /// Reads keys, models and indexes anew. Requests under way go on with what they have. Blocks.
    ///
    /// # Errors
    ///
    /// What cannot be loaded; that is then as it was.
    pub fn reload(&self) -> Result<()> {
        let keys = self.options.keys.as_deref().map(Keys::open).transpose()?;
        self.shelf.reload()?;
        let mut own = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if let (Some(keys), Some(before)) = (&keys, own.as_deref()) {
            keys.carry_on(before);
        }
        *own = keys.map(Arc::new);
        Ok(())
    }

    /// Refuses a web page that came from elsewhere: a browser asks in its user's name, and a server that
    /// wants no key would answer.
    fn check_origin(&self, headers: &HeaderMap) -> Result<()> {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let Some(origin) = text(ORIGIN) else { return Ok(()) };
        let own = origin.split_once("://").map(|(_, host)| host) == text(HOST);
        let allowed = self.options.origins.iter().any(|own| own == "*" || own == origin);
        if own || allowed {
            return Ok(());
        }
        Err(ServeError::ForeignOrigin { origin: origin.to_owned() })
    }

    /// The name of the key that a request has; none is needed for what tells nothing of anybody's texts.
    fn check_key(&self, path: &str, headers: &HeaderMap) -> Result<Option<String>> {
        let open = matches!(
            path,
            "/" | "/docs" | "/openapi.json" | "/healthz" | "/readyz" | "/favicon.ico"
        ) || path.starts_with("/page/");
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(keys) = keys.filter(|_| !open) else { return Ok(None) };
        let holder = keys.check(headers)?;
        if !holder.may_change && matches!(path, native::DOCUMENTS | native::RELOAD) {
            return Err(ServeError::MayNotChange { key: holder.name });
        }
        Ok(Some(holder.name))
    }

    /// Which web pages may ask.
    fn cors(&self) -> Option<CorsLayer> {
        let origins = &self.options.origins;
        if origins.is_empty() {
            return None;
        }
        let allowed = if origins.iter().any(|origin| origin == "*") {
            AllowOrigin::any()
        } else {
            AllowOrigin::list(origins.iter().filter_map(|origin| origin.parse().ok()))
        };
        // Browsers do not take `*` for the header that has the key.
        let headers = AllowHeaders::mirror_request();
        let layer = CorsLayer::new().allow_origin(allowed).allow_methods(Any);
        Some(layer.allow_headers(headers).expose_headers(Any))
    }

    /// The routes.
    pub fn router(self: &Arc<Self>) -> Router {
        let router = Router::new()
            .merge(native::routes())
            .merge(dialect::routes())
            .merge(page::routes())
            .fallback(no_route)
            .method_not_allowed_fallback(wrong_method)
            .layer(middleware::from_fn_with_state(Arc::clone(self), every_request));
        let router = match self.cors() {
            Some(cors) => router.layer(cors),
            None => router,
        };
        router.with_state(Arc::clone(self))
    }

    /// A name for the next request.
    fn name_request(&self) -> String {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        format!("{:x}-{number:x}", std::process::id())
    }

    /// How long the server has been there.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Logs the text of a query, if it may be.
    pub(crate) fn log_query(&self, query: &Query) {
        if self.options.log_queries == LogQueries::Always {
            tracing::info!(query = query.text(), "query");
        }
    }

    /// The body of a request, as far as the limits allow.
    ///
    /// # Errors
    ///
    /// [`ServeError::BodyTooLarge`], [`ServeError::BodyNotRead`].
    pub(crate) async fn body(&self, body: Body) -> Result<Bytes> {
        let limits = &self.options.limits;
        let too_large = || ServeError::BodyTooLarge { limit: limits.body };
        // What says beforehand that it is too long is not read at all.
        if body.size_hint().lower() > limits.body as u64 {
            return Err(too_large());
        }
        // What does not say how long it is may be as long as is taken.
        let most = body.size_hint().upper().unwrap_or(limits.body as u64).min(limits.body as u64);
        let needed = (most as usize).div_ceil(KIB).min(limits.bodies / KIB) as u32;
        let reading = async {
            let room = self.bodies.acquire_many(needed).await;
            let read = Limited::new(body, limits.body).collect().await;
            drop(room);
            read
        };
        match tokio::time::timeout(limits.body_time, reading).await {
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(error)) => Err(ServeError::BodyNotRead { reason: error.to_string() }),
            Err(_) => {
                let reason = format!("it took longer than {:?}", limits.body_time);
                Err(ServeError::BodyNotRead { reason })
            }
        }
    }

    /// The request in a body.
    ///
    /// # Errors
    ///
    /// Those of [`Self::body`] and of [`parse`].
    pub(crate) async fn read<T: DeserializeOwned>(&self, body: Body) -> Result<T> {
        parse(&self.body(body).await?)
    }
}

/// Bytes of text from which work on them holds up others that are served by the same thread.
const LONG: usize = 1 << 18;

/// Works on so many bytes of text; other requests of this thread go to another meanwhile, if it takes
/// long.
pub(crate) fn work_on<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    if bytes > LONG { tokio::task::block_in_place(work) } else { work() }
}

/// JSON to a request.
///
/// # Errors
///
/// [`ServeError::NotJson`], [`ServeError::MissingField`], [`ServeError::UnknownField`],
/// [`ServeError::WrongField`].
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    work_on(body.len(), || json::parse(body))
}

/// The deadline in a request's headers.
///
/// # Errors
///
/// Those of [`milliseconds`].
pub(crate) fn deadline(headers: &HeaderMap) -> Result<Option<Duration>> {
    let Some(value) = headers.get(DEADLINE) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.trim().parse::<f64>().ok());
    milliseconds(DEADLINE.as_str(), number.unwrap_or(f64::NAN)).map(Some)
}

/// A deadline in milliseconds.
///
/// # Errors
///
/// [`ServeError::WrongField`] for a number that is none, or not in the range.
pub(crate) fn milliseconds(field: &str, number: f64) -> Result<Duration> {
    topshelf_core::setup::milliseconds(number).map_err(|_| ServeError::WrongField {
        field: field.to_owned(),
        reason: format!(
            "expected milliseconds above 0, and {} at most",
            LONGEST_DEADLINE.as_millis()
        ),
    })
}

/// The call of the request, which began with it; of a request that came past [`every_request`], a new
/// one.
pub(crate) fn call(head: &Parts) -> Call {
    head.extensions.get::<Call>().cloned().unwrap_or_default()
}

/// A name for an answer: 32 hexadecimal digits that no other has, in all likelihood.
pub(crate) fn random_id() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    // Each is seeded by the system's random numbers.
    let part = || RandomState::new().hash_one(Instant::now());
    format!("{:016x}{:016x}", part(), part())
}

/// The answer, or the error as the dialect writes it.
pub(crate) fn answer(dialect: Dialect, result: Result<Response>) -> Response {
    result.unwrap_or_else(|error| dialect.error(&error))
}

/// An answer with what is to be told beside it.
pub(crate) fn told(ran: Ran, body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    response.extensions_mut().insert(ran);
    response
}

async fn no_route(request: Request) -> Response {
    let path = request.uri().path().to_owned();
    Dialect::of_path(&path).error(&ServeError::NoRoute { path })
}

async fn wrong_method(request: Request) -> Response {
    let (path, method) = (request.uri().path().to_owned(), request.method().to_string());
    Dialect::of_path(&path).error(&ServeError::WrongMethod { path, method })
}

/// Names the request, asks for its key, and tells of the answer: in headers, figures and the log.
async fn every_request(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let call = Call::new();
    let given = request.headers().get(&REQUEST_ID).filter(|id| id.len() <= 128).cloned();
    let id = given.or_else(|| HeaderValue::from_str(&app.name_request()).ok());
    let shown_id = id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default();
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map(|route| route.as_str().to_owned());
    // Paths that are none of ours are as many as clients can think of.
    let route = route.unwrap_or_else(|| "none".to_owned());
    let span = traces::of_request(&method, &route, shown_id, request.headers());
    request.extensions_mut().insert(call.clone());
    let mut key = None;
    let allowed = app.check_origin(request.headers());
    let mut response = match allowed.and_then(|()| app.check_key(&path, request.headers())) {
        Ok(name) => {
            key = name;
            next.run(request).instrument(span.clone()).await
        }
        Err(error) => Dialect::of_path(&path).error(&error),
    };
    let took = call.began().elapsed();
    let ran = response.extensions_mut().remove::<Ran>().unwrap_or_default();
    let kind = response.extensions_mut().remove::<&'static str>();
    let status = response.status().as_u16();
    traces::answered(&span, status, kind, &ran.model);
    app.metrics.answered(&route, Dialect::of_path(&path).name(), status, took);
    note(&app.metrics, &ran, kind);
    tracing::info!(
        id = shown_id,
        %method,
        route,
        status,
        error = kind.unwrap_or_default(),
        key = key.unwrap_or_default(),
        model = ran.model,
        pairs = ran.second_stage.iter().flat_map(|own| &own.rerankers).map(|own| own.pairs).sum::<usize>(),
        milliseconds = took.as_secs_f64() * 1e3,
        "request"
    );
    let headers = response.headers_mut();
    if let Some(id) = id {
        headers.insert(REQUEST_ID, id);
    }
    let milliseconds = |time: Duration| HeaderValue::from(time.as_millis() as u64);
    headers.insert("x-total-time", milliseconds(took));
    headers.insert("x-queue-time", milliseconds(call.waited()));
    headers.insert("x-inference-time", milliseconds(ran.took));
    if !ran.model.is_empty() {
        headers.insert("x-topshelf-model", in_a_header(&ran.model));
    }
    for warning in &ran.warnings[..ran.warnings.len().min(WARNINGS)] {
        headers.append("x-topshelf-warning", in_a_header(warning));
    }
    if let Some(more) = ran.warnings.len().checked_sub(WARNINGS).filter(|more| *more > 0) {
        headers.append("x-topshelf-warning", in_a_header(&format!("and {more} more warnings")));
    }
    response
}

/// A text as a header may hold it: one line, the bytes of letters outside ASCII in hexadecimal after `%`, and
/// not longer than clients read.
fn in_a_header(text: &str) -> HeaderValue {
    use std::fmt::Write as _;
    let mut shown = String::new();
    for letter in text.chars() {
        if shown.len() > LONGEST_HEADER {
            shown.push_str("...");
            break;
        }
        match letter {
            ' '..='~' => shown.push(letter),
            letter if letter.is_whitespace() => shown.push(' '),
            letter => {
                for byte in letter.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(shown, "%{byte:02X}"); // a string takes all
                }
            }
        }
    }
    HeaderValue::from_str(&shown).unwrap_or_else(|_| unreachable!("it is visible ASCII"))
}

/// Counts what an answer told.
pub(crate) fn note(metrics: &Metrics, ran: &Ran, kind: Option<&str>) {
    if let Some(kind) = kind {
        metrics.failed(kind);
    }
    metrics.retrieved(&ran.retrievers);
    if let Some(report) = &ran.second_stage {
        metrics.reranked(report);
        if report.skipped.is_none() {
            metrics.reordered(&ran.model, &ran.before, ran.relevance);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_a_number_above_zero() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(DEADLINE, HeaderValue::from_str(text).unwrap());
            deadline(&headers)
        };
        assert_eq!(of("150").unwrap(), Some(Duration::from_millis(150)));
        for wrong in ["0", "-1", "NaN", "soon", "1e22", "1e300"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
