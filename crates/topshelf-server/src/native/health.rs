//! Whether the server lives, and whether it takes requests.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::dialect::Dialect;
use crate::error::ServeError;

/// What `/healthz` answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: &'static str,
    /// The server's version.
    pub version: &'static str,
    /// Seconds since it started.
    pub uptime_seconds: u64,
}

/// What `/readyz` answers while requests are taken.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ready {
    /// `ready`.
    pub status: &'static str,
    /// Requests at work or waiting.
    pub requests: usize,
    /// How long a request would wait for those before it, in milliseconds.
    pub wait_ms: u64,
}

/// The process is there.
#[utoipa::path(
    get, path = "/healthz", tag = "server",
    responses((status = 200, description = "It lives", body = Health))
)]
pub(crate) async fn alive(State(app): State<Arc<App>>) -> Response {
    let version = env!("CARGO_PKG_VERSION");
    let uptime_seconds = app.uptime().as_secs();
    Json(Health { status: "ok", version, uptime_seconds }).into_response()
}

/// Requests are taken: models and indexes are loaded before the server listens, so this is false only
/// while it shuts down.
#[utoipa::path(
    get, path = "/readyz", tag = "server",
    responses(
        (status = 200, description = "Requests are taken", body = Ready),
        (status = 503, description = "It is shutting down", body = super::ErrorAnswer),
    )
)]
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Response {
    if app.admission.is_closed() {
        return Dialect::Native.error(&ServeError::ShuttingDown);
    }
    let load = app.admission.load();
    let wait_ms = load.wait.as_millis() as u64;
    Json(Ready { status: "ready", requests: load.requests, wait_ms }).into_response()
}

/// Figures in Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", tag = "server",
    responses(
        (status = 200, description = "The figures", body = String, content_type = "application/openmetrics-text"),
        (status = "4XX", description = "No key, or a wrong one", body = super::ErrorAnswer),
    )
)]
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let text = app.metrics.text(app.admission.load(), &app.shelf.queues());
    ([(CONTENT_TYPE, kind)], text).into_response()
}
