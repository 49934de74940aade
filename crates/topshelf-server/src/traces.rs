//! Traces by OpenTelemetry: what happened in a request, when, and for how long.
//!
//! The stages open spans ([`tracing`]) whether anybody looks or not; here they are sent to a collector, by
//! OTLP over HTTP in protobuf. A request is a span `METHOD ROUTE`; in it lie `retrieve` for each
//! retriever, `rerank` for each reranker that was asked, and `encode` for each call of a model's queue, with the
//! time that it waited there. A request that comes with a `traceparent`
//! ([W3C Trace Context](https://www.w3.org/TR/trace-context/)) is a part of that trace, and is sampled if
//! that was. No text of queries and documents is in a span: what is logged stays out of them, since a log
//! may be told to have queries, and so do the words in which a reranker failed.
//!
//! A collector that cannot be reached costs traces, never answers: spans are sent by a thread of their own,
//! and what is too much for it is dropped.

use std::time::Duration;

use async_trait::async_trait;
use axum::http::{HeaderMap, Method, Request, Response};
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{Bytes, HeaderExtractor, HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::field::Empty;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::registry::LookupSpan;

use crate::error::{Result, ServeError};

/// The path below a collector's address that takes traces.
const PATH: &str = "/v1/traces";

/// How long the collector may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends traces until it is dropped; then what is still there is sent.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

/// Sends to a collector. It blocks, on the thread that does nothing else.
#[derive(Debug)]
struct Sender(ureq::Agent);

impl Traces {
    /// Sends a share of the traces, 0 to 1, to the collector at an address such as
    /// `http://localhost:4318`. The name of the service is that of `OTEL_SERVICE_NAME`, or `topshelf`;
    /// `OTEL_EXPORTER_OTLP_HEADERS` may hold what the collector wants to be told, such as a key.
    ///
    /// # Errors
    ///
    /// [`ServeError::Failed`] for an address that is none.
    pub fn start(address: &str, share: f64) -> Result<Self> {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .build()
            .new_agent();
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Sender(agent))
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}{PATH}", address.trim_end_matches('/')))
            .with_timeout(TIMEOUT)
            .build()
            .map_err(|error| ServeError::Failed {
                reason: format!("cannot send traces to {address}: {error}"),
            })?;
        let resource = Resource::builder()
            .with_service_name(std::env::var("OTEL_SERVICE_NAME").unwrap_or("topshelf".to_owned()))
            .with_attribute(opentelemetry::KeyValue::new(
                "service.version",
                env!("CARGO_PKG_VERSION"),
            ))
            .build();
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share)));
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .with_sampler(sampler);
        Ok(Self(provider.build()))
    }

    /// What has to listen to the spans.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        // Spans of other crates would be noise, and those of the sender would never end.
        let own = filter_fn(|of| of.is_span() && of.target().starts_with("topshelf"))
            .with_max_level_hint(LevelFilter::DEBUG);
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("topshelf"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(own)
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let answer = self.0.run(Request::from_parts(head, body.to_vec()))?;
        let (head, mut body) = answer.into_parts();
        Ok(Response::from_parts(head, body.read_to_vec()?.into()))
    }
}

/// The span of a request, as part of the trace that its headers name.
pub(crate) fn of_request(method: &Method, route: &str, id: &str, headers: &HeaderMap) -> Span {
    let span = tracing::debug_span!(
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = %method,
        http.route = route,
        http.response.status_code = Empty,
        error.r#type = Empty,
        topshelf.request_id = id,
        topshelf.model = Empty,
    );
    if !span.is_disabled() {
        let parent = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
        let _ = span.set_parent(parent); // fails where the spans go elsewhere than here
    }
    span
}

/// Notes the answer in the request's span.
pub(crate) fn answered(span: &Span, status: u16, error: Option<&str>, model: &str) {
    span.record("http.response.status_code", status);
    if let Some(error) = error {
        span.record("error.type", error);
    }
    // By the conventions for servers, what the client did wrong is no error of the server's.
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
    if !model.is_empty() {
        span.record("topshelf.model", model);
    }
}
