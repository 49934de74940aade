//! What rerank services are sent and what they answer: [`Dialect`], and how one is named: [`Target`].
//!
//! | dialect | request | limit of documents in a call |
//! | --- | --- | --- |
//! | `cohere` | `POST /v2/rerank` {model, query, documents} | 1,000 recommended |
//! | `cohere-v1` | `POST /v1/rerank` {model, query, documents, return_documents} | 1,000 |
//! | `voyage` | {model, query, documents, truncation} | 1,000; 600,000 tokens |
//! | `jina` | {model, query, documents, return_documents} | none stated; 1,000 here |
//! | `mixedbread` | {model, query, input, return_input} | none stated; 1,000 here |
//! | `pinecone` | {model, query, documents: [{text}], return_documents} | 100 |
//! | `tei` | {query, texts} | 32 unless its server was started otherwise |
//! | `plain` | {model, query, documents}: vLLM, Infinity, LocalAI, Xinference | 1,000 |
//! | `llamacpp` | the same; its scores are logits | 1,000 |
//!
//! (The vendors' specifications, autumn 2026.) Answers differ in names only: a list under `results` or
//! `data`, or bare, of `index` and `relevance_score` or `score`. One reader takes them all.

use serde_json::{Value, json};
use topshelf_core::Scale;

use crate::http::KeyHeader;
use crate::price::Amount;

/// How a service is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Cohere's API of today.
    Cohere,
    /// Cohere's API before.
    CohereV1,
    /// Voyage AI.
    Voyage,
    /// Jina AI.
    Jina,
    /// Mixedbread.
    Mixedbread,
    /// Pinecone.
    Pinecone,
    /// Hugging Face's text-embeddings-inference.
    Tei,
    /// What most servers have in common: vLLM, Infinity and others.
    Plain,
    /// llama.cpp's server.
    LlamaCpp,
}

impl Dialect {
    /// All.
    pub const ALL: [Self; 9] = [
        Self::Cohere,
        Self::CohereV1,
        Self::Voyage,
        Self::Jina,
        Self::Mixedbread,
        Self::Pinecone,
        Self::Tei,
        Self::Plain,
        Self::LlamaCpp,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cohere => "cohere",
            Self::CohereV1 => "cohere-v1",
            Self::Voyage => "voyage",
            Self::Jina => "jina",
            Self::Mixedbread => "mixedbread",
            Self::Pinecone => "pinecone",
            Self::Tei => "tei",
            Self::Plain => "plain",
            Self::LlamaCpp => "llamacpp",
        }
    }

    /// The vendor's own address; `None` for what one runs oneself.
    pub fn address(self) -> Option<&'static str> {
        match self {
            Self::Cohere => Some("https://api.cohere.com/v2/rerank"),
            Self::CohereV1 => Some("https://api.cohere.com/v1/rerank"),
            Self::Voyage => Some("https://api.voyageai.com/v1/rerank"),
            Self::Jina => Some("https://api.jina.ai/v1/rerank"),
            Self::Mixedbread => Some("https://api.mixedbread.com/v1/reranking"),
            Self::Pinecone => Some("https://api.pinecone.io/rerank"),
            Self::Tei | Self::Plain | Self::LlamaCpp => None,
        }
    }

    /// The variable that holds its key.
    pub fn key_variable(self) -> &'static str {
        match self {
            Self::Cohere | Self::CohereV1 => "COHERE_API_KEY",
            Self::Voyage => "VOYAGE_API_KEY",
            Self::Jina => "JINA_API_KEY",
            Self::Mixedbread => "MXBAI_API_KEY",
            Self::Pinecone => "PINECONE_API_KEY",
            Self::Tei | Self::Plain | Self::LlamaCpp => "TOPSHELF_RERANK_KEY",
        }
    }

    pub(crate) fn key_header(self) -> KeyHeader {
        if self == Self::Pinecone { KeyHeader::ApiKey } else { KeyHeader::Bearer }
    }

    /// Documents in a call, at most.
    pub fn most_documents(self) -> usize {
        match self {
            Self::Tei => 32,
            Self::Pinecone => 100,
            _ => 1000,
        }
    }

    /// Bytes of text in a call, at most: tokens are guessed as one for three bytes, so that the limit of
    /// tokens holds for nearly all texts, and a refusal makes the calls smaller.
    pub(crate) fn most_bytes(self) -> usize {
        match self {
            Self::Voyage => 600_000 * 3,
            Self::Tei => 2_000_000,
            _ => 8_000_000,
        }
    }

    /// What its scores mean.
    pub fn scale(self, model: &str) -> Scale {
        match self {
            Self::Cohere | Self::CohereV1 | Self::Voyage | Self::Pinecone | Self::Tei => {
                Scale::Probability
            }
            // The third compares vectors.
            Self::Jina if !model.contains("-v3") => Scale::Probability,
            Self::LlamaCpp => Scale::Logit,
            Self::Jina | Self::Mixedbread | Self::Plain => Scale::Service,
        }
    }

    /// The body of a request.
    pub(crate) fn request(self, model: &str, query: &str, documents: &[&str]) -> Value {
        let mut body = match self {
            Self::Cohere | Self::Plain | Self::LlamaCpp => {
                json!({ "query": query, "documents": documents })
            }
            Self::CohereV1 | Self::Jina => {
                json!({ "query": query, "documents": documents, "return_documents": false })
            }
            Self::Voyage => json!({ "query": query, "documents": documents, "truncation": true }),
            Self::Mixedbread => {
                json!({ "query": query, "input": documents, "return_input": false })
            }
            Self::Pinecone => {
                let documents: Vec<Value> =
                    documents.iter().map(|text| json!({ "text": text })).collect();
                json!({
                    "query": query,
                    "documents": documents,
                    "return_documents": false,
                    "parameters": { "truncate": "END" },
                })
            }
            Self::Tei => json!({ "query": query, "texts": documents, "truncate": true }),
        };
        if self != Self::Tei && !model.is_empty() {
            body["model"] = model.into();
        }
        body
    }
}

/// The score of each of `count` documents, or what is wrong with the answer. One that was left out has
/// none.
pub(crate) fn scores(answer: &Value, count: usize) -> Result<Vec<Option<f32>>, String> {
    let list = [answer, &answer["results"], &answer["data"]];
    let list = list.into_iter().find_map(Value::as_array);
    let list = list.ok_or("there is no list of results in it")?;
    let mut scores = vec![None; count];
    for (place, item) in list.iter().enumerate() {
        let index = item["index"].as_u64().ok_or_else(|| format!("result {place} has no index"))?;
        let score = item["relevance_score"].as_f64().or_else(|| item["score"].as_f64());
        let score = score.ok_or_else(|| format!("result {place} has no score"))?;
        let slot = scores.get_mut(index as usize).ok_or_else(|| {
            format!("result {place} is of document {index}, and {count} were sent")
        })?;
        if slot.replace(score as f32).is_some() {
            return Err(format!("document {index} has two results"));
        }
    }
    Ok(scores)
}

/// What an answer says that it took: Cohere's search units, Pinecone's rerank units, the others' tokens.
pub(crate) fn amount(answer: &Value) -> Option<Amount> {
    let billed = &answer["meta"]["billed_units"];
    let usage = &answer["usage"];
    let number = |places: &[&Value]| places.iter().find_map(|place| place.as_f64());
    let searches = number(&[&billed["search_units"], &usage["rerank_units"]]);
    let tokens =
        number(&[&billed["input_tokens"], &usage["total_tokens"], &usage["prompt_tokens"]]);
    (searches.is_some() || tokens.is_some()).then(|| Amount {
        input: tokens.unwrap_or_default() as u64,
        output: 0,
        searches: searches.unwrap_or_default() as u64,
    })
}

/// A reranker that answers over HTTP, by its name: `cohere:rerank-v4.0-fast`, `http://host/rerank`,
/// `tei+http://host/rerank`, `voyage+https://proxy/v1/rerank#rerank-2.5`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// How it is spoken to.
    pub dialect: Dialect,
    /// Where.
    pub address: String,
    /// Which of its models; empty where it has one.
    pub model: String,
    /// The name as it was given.
    pub name: String,
}

impl Target {
    /// Reads a name; `None` for what names no service.
    ///
    /// ```
    /// use topshelf_remote::{Dialect, Target};
    /// let target = Target::parse("cohere:rerank-v4.0-fast").unwrap();
    /// assert_eq!((target.dialect, target.model.as_str()), (Dialect::Cohere, "rerank-v4.0-fast"));
    /// assert_eq!(Target::parse("http://host/rerank").unwrap().dialect, Dialect::Plain);
    /// assert!(Target::parse("cross-encoder/ms-marco-MiniLM-L12-v2").is_none());
    /// ```
    pub fn parse(name: &str) -> Option<Self> {
        let is_url = |text: &str| text.starts_with("http://") || text.starts_with("https://");
        let at_url = |dialect: Dialect, url: &str| {
            let (address, model) = url.split_once('#').unwrap_or((url, ""));
            Self { dialect, address: address.into(), model: model.into(), name: name.into() }
        };
        if is_url(name) {
            return Some(at_url(Dialect::Plain, name));
        }
        Dialect::ALL.into_iter().find_map(|dialect| {
            let rest = name.strip_prefix(dialect.name())?;
            if let Some(url) = rest.strip_prefix('+').filter(|url| is_url(url)) {
                return Some(at_url(dialect, url));
            }
            let (model, address) = (rest.strip_prefix(':')?, dialect.address()?);
            let (model, address) = (model.to_owned(), address.to_owned());
            (!model.is_empty()).then(|| Self { dialect, address, model, name: name.to_owned() })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_services() {
        let parsed =
            |name: &str| Target::parse(name).map(|own| (own.dialect, own.address, own.model));
        let some = |dialect, address: &str, model: &str| {
            Some((dialect, address.to_owned(), model.to_owned()))
        };
        assert_eq!(
            parsed("voyage+http://127.0.0.1:1/v1/rerank#rerank-2.5"),
            some(Dialect::Voyage, "http://127.0.0.1:1/v1/rerank", "rerank-2.5")
        );
        assert_eq!(
            parsed("cohere-v1:rerank-v3.5"),
            some(Dialect::CohereV1, "https://api.cohere.com/v1/rerank", "rerank-v3.5")
        );
        assert_eq!(parsed("tei+http://h/rerank"), some(Dialect::Tei, "http://h/rerank", ""));
        for name in ["cohere", "cohere:", "tei:model", "coherent/model", "a+b", "models/cohere:x"] {
            assert_eq!(parsed(name), None, "{name}");
        }
    }

    #[test]
    fn answers_of_all_shapes() {
        let scored = Ok(vec![Some(0.25), Some(0.75)]);
        for answer in [
            json!({"results": [{"index": 1, "relevance_score": 0.75}, {"index": 0, "relevance_score": 0.25}]}),
            json!({"data": [{"index": 0, "score": 0.25}, {"index": 1, "score": 0.75}]}),
            json!([{"index": 1, "score": 0.75}, {"index": 0, "score": 0.25}]),
        ] {
            assert_eq!(scores(&answer, 2), scored);
        }
        assert_eq!(scores(&json!([{"index": 1, "score": 0.5}]), 2), Ok(vec![None, Some(0.5)]));
        for (answer, says) in [
            (json!({"result": []}), "no list"),
            (json!([{"index": 2, "score": 0.5}]), "document 2"),
            (json!([{"index": 0, "score": 0.5}, {"index": 0, "score": 0.4}]), "two results"),
            (json!([{"index": 0}]), "no score"),
            (json!([{"score": 0.1}]), "no index"),
        ] {
            let error = scores(&answer, 2).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
