//! The page at `/`: try a query, see what each stage made of it. Its files are part of the program and
//! ask nobody else for anything.

use std::sync::Arc;

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use crate::app::App;
use crate::openapi;

/// Nothing from elsewhere, nothing inline.
const POLICY: &str =
    "default-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'";

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(|| async { html(include_str!("page/index.html")) }))
        .route("/docs", get(|| async { html(include_str!("page/docs.html")) }))
        .route("/page/app.js", get(|| async { script(include_str!("page/app.js")) }))
        .route("/page/docs.js", get(|| async { script(include_str!("page/docs.js")) }))
        .route("/page/elements.js", get(|| async { script(include_str!("page/elements.js")) }))
        .route("/page/marks.js", get(|| async { script(include_str!("page/marks.js")) }))
        .route("/page/orders.js", get(|| async { script(include_str!("page/orders.js")) }))
        .route("/page/ran.js", get(|| async { script(include_str!("page/ran.js")) }))
        .route("/page/server.js", get(|| async { script(include_str!("page/server.js")) }))
        .route("/page/settings.js", get(|| async { script(include_str!("page/settings.js")) }))
        .route("/page/shown.js", get(|| async { script(include_str!("page/shown.js")) }))
        .route("/page/style.css", get(|| async { style(include_str!("page/style.css")) }))
        .route("/page/icon.svg", get(|| async { icon(include_str!("page/icon.svg")) }))
        .route("/openapi.json", get(openapi::json))
}

fn html(text: &'static str) -> Response {
    file("text/html; charset=utf-8", text)
}

fn script(text: &'static str) -> Response {
    file("text/javascript; charset=utf-8", text)
}

fn style(text: &'static str) -> Response {
    file("text/css; charset=utf-8", text)
}

fn icon(text: &'static str) -> Response {
    file("image/svg+xml", text)
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let headers =
        [(CONTENT_TYPE, kind), (CONTENT_SECURITY_POLICY, POLICY), (CACHE_CONTROL, "no-cache")];
    (headers, text).into_response()
}
