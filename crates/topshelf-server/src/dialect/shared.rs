//! Paths that several vendors share: whose a body is.
//!
//! **`/v1/rerank`**, the first that holds:
//!
//! | the body has | it is |
//! | --- | --- |
//! | `top_k`, or `truncation` without `top_n` | Voyage's |
//! | `rank_fields`, `max_chunks_per_doc` or `max_tokens_per_doc` | Cohere's |
//! | `max_doc_length`, `return_embeddings` or `truncation`; a model that begins with `jina-` | Jina's |
//! | anything else | Cohere's, whose answer then also has the fields of Jina's |
//!
//! **`/rerank`**: with `texts` it is text-embeddings-inference's, with `documents` vLLM's.
//! Infinity's differs from theirs in the answer only, so its clients need its prefix.
//!
//! A prefix says it instead: `/jina/v1/rerank`.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AnyOfBuilder, Ref, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::{Dialect, cohere, jina, tei, vllm, voyage};
use crate::app::{self, App, answer};
use crate::error::Result;

/// What the description says of shapes that several vendors share a route with: it is one of these.
macro_rules! any_of {
    ($(#[$doc:meta])* $name:ident: $($shape:ty),+) => {
        $(#[$doc])*
        pub(crate) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                AnyOfBuilder::new()$(.item(Ref::from_schema_name(<$shape>::name())))+.into()
            }
        }

        impl ToSchema for $name {
            fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
                $(
                    schemas.push((<$shape>::name().into_owned(), <$shape>::schema()));
                    <$shape>::schemas(schemas);
                )+
            }
        }
    };
}

any_of! {
    /// A body of `/v1/rerank`.
    V1Rerank: cohere::CohereRerankV1, jina::JinaRerank, voyage::VoyageRerank
}
any_of! {
    /// An answer of `/v1/rerank`.
    V1Reranked: cohere::CohereReranked, jina::JinaReranked, voyage::VoyageReranked
}
any_of! {
    /// An error of `/v1/rerank`.
    V1Error: cohere::CohereError, jina::Detail
}
any_of! {
    /// A body of `/rerank`.
    Rerank: tei::TeiRerank, vllm::VllmRerank
}
any_of! {
    /// An answer of `/rerank`.
    Reranked: tei::TeiRanks, vllm::VllmReranked
}
any_of! {
    /// An error of `/rerank`.
    RerankError: tei::TeiError, vllm::OpenAiError
}

/// The names of a body's fields.
struct Fields(HashSet<String>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(body: D) -> std::result::Result<Self, D::Error> {
        struct Names;

        impl<'de> Visitor<'de> for Names {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(
                self,
                mut map: M,
            ) -> std::result::Result<Fields, M::Error> {
                let mut names = HashSet::new();
                while let Some((name, IgnoredAny)) = map.next_entry()? {
                    names.insert(name);
                }
                Ok(Fields(names))
            }
        }

        body.deserialize_map(Names)
    }
}

/// Just the model.
#[derive(Deserialize)]
struct Model {
    model: Option<String>,
}

impl Fields {
    fn of(body: &[u8]) -> Result<Self> {
        app::parse(body)
    }

    fn has(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.0.contains(*name))
    }
}

/// Whose a body of `/v1/rerank` is.
fn of_v1(body: &[u8]) -> Result<Dialect> {
    let fields = Fields::of(body)?;
    if fields.has(&["top_k"]) || (fields.has(&["truncation"]) && !fields.has(&["top_n"])) {
        return Ok(Dialect::Voyage);
    }
    if fields.has(&["rank_fields", "max_chunks_per_doc", "max_tokens_per_doc"]) {
        return Ok(Dialect::Cohere);
    }
    let model = app::parse::<Model>(body).ok().and_then(|own| own.model);
    let of_jina = model.is_some_and(|model| model.starts_with("jina-"));
    if of_jina || fields.has(&["max_doc_length", "return_embeddings", "truncation"]) {
        return Ok(Dialect::Jina);
    }
    Ok(Dialect::Cohere)
}

/// Cohere's version 1, Jina's or Voyage's rerank, by the body.
#[utoipa::path(
    post, path = "/v1/rerank", tag = "compatible",
    request_body = V1Rerank,
    responses(
        (status = 200, description = "The documents, best first", body = V1Reranked),
        (status = "4XX", description = "What is wrong with the request", body = V1Error),
        (status = "5XX", description = "What broke", body = V1Error),
    )
)]
pub(crate) async fn v1_rerank(State(app): State<Arc<App>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = match app.body(body).await {
        Ok(body) => body,
        Err(error) => return Dialect::Cohere.error(&error),
    };
    let dialect = match of_v1(&body) {
        Ok(dialect) => dialect,
        Err(error) => return Dialect::Cohere.error(&error),
    };
    let result = match dialect {
        Dialect::Voyage => voyage::reranked(&app, &head, &body).await,
        Dialect::Jina => jina::reranked(&app, &head, &body).await,
        _ => cohere::reranked_v1(&app, &head, &body).await,
    };
    answer(dialect, result)
}

/// text-embeddings-inference's rerank with `texts`, vLLM's with `documents`.
#[utoipa::path(
    post, path = "/rerank", tag = "compatible",
    request_body = Rerank,
    responses(
        (status = 200, description = "The texts, best first", body = Reranked),
        (status = 401, description = "No key, or a wrong one"),
        (status = "4XX", description = "What is wrong with the request", body = RerankError),
        (status = "5XX", description = "What broke", body = RerankError),
    )
)]
pub(crate) async fn rerank(State(app): State<Arc<App>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = match app.body(body).await {
        Ok(body) => body,
        Err(error) => return Dialect::Tei.error(&error),
    };
    match Fields::of(&body) {
        Err(error) => Dialect::Tei.error(&error),
        Ok(fields) if fields.has(&["documents"]) => {
            answer(Dialect::Vllm, vllm::reranked(&app, &head, &body).await)
        }
        Ok(_) => answer(Dialect::Tei, tei::reranked(&app, &head, &body).await),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_says_whose_it_is() {
        for (body, dialect) in [
            (r#"{"model": "m", "query": "q", "documents": []}"#, Dialect::Cohere),
            (r#"{"query": "q", "documents": [], "top_n": 3}"#, Dialect::Cohere),
            (
                r#"{"query": "q", "documents": [], "rank_fields": ["a"], "top_n": 1}"#,
                Dialect::Cohere,
            ),
            (
                r#"{"query": "q", "documents": [], "top_k": null, "truncation": true}"#,
                Dialect::Voyage,
            ),
            (r#"{"query": "q", "documents": [], "truncation": true}"#, Dialect::Voyage),
            (r#"{"query": "q", "documents": [], "truncation": true, "top_n": 2}"#, Dialect::Jina),
            (r#"{"model": "jina-reranker-v3", "query": "q", "documents": []}"#, Dialect::Jina),
            (r#"{"query": "q", "documents": [], "return_embeddings": false}"#, Dialect::Jina),
        ] {
            assert_eq!(of_v1(body.as_bytes()).unwrap(), dialect, "{body}");
        }
        assert!(of_v1(b"[1]").is_err());
        assert!(of_v1(b"{\"query\"").is_err());
    }
}
