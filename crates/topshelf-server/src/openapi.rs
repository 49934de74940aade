//! The description of all routes at `/openapi.json`, made from the types; `/docs` shows it.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::{dialect, native};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Topshelf",
        description = "Retrieve and rerank. A key, where the server wants one, goes into \
                       'Authorization: Bearer KEY'; 'x-topshelf-deadline-ms' says how long you wait.",
        license(name = "MIT OR Apache-2.0")
    ),
    paths(
        native::search::search,
        native::rerank::rerank,
        native::context::context,
        native::documents::add,
        native::documents::remove,
        native::documents::indexes,
        native::documents::reload,
        native::documents::models,
        native::health::alive,
        native::health::ready,
        native::health::metrics,
        dialect::cohere::v2,
        dialect::shared::v1_rerank,
        dialect::shared::rerank,
        dialect::jina::rerank,
        dialect::voyage::rerank,
        dialect::tei::embed,
        dialect::tei::info,
        dialect::vllm::rerank,
        dialect::vllm::score,
        dialect::openai::embeddings,
    ),
    modifiers(&Bearer),
    security((), ("key" = [])),
    tags(
        (name = "search", description = "The whole pipeline over an index"),
        (name = "rerank", description = "Documents of the request"),
        (name = "index", description = "What is in an index"),
        (name = "compatible", description = "The shapes of other services"),
        (name = "server", description = "The server itself"),
    )
)]
struct Description;

/// Says how a key is sent, where the server wants one.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let scheme =
            SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        let components = description.components.get_or_insert_default();
        components.add_security_scheme("key", scheme);
    }
}

/// The description as JSON.
pub(crate) async fn json() -> Response {
    Json(Description::openapi()).into_response()
}

/// The description as text, for a file.
pub fn text() -> String {
    Description::openapi().to_pretty_json().unwrap_or_default() // plain data
}
