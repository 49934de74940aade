//! A request's body: JSON to a request, and what is wrong with it in words of ours.
//!
//! Serde takes a list for any struct, by the order of its fields. A body that is a list was not meant so; so
//! requests are read as [`Object`], and so is what they have within.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::error::{Result, ServeError};

/// Bytes of a value that an error repeats, at most.
const REPEATED: usize = 100;

/// A struct that is read from an object alone.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<T, M::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        value.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

/// For a field that is an object.
pub(crate) fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    value: D,
) -> Result<T, D::Error> {
    Object::deserialize(value).map(|Object(own)| own)
}

/// For a field that is an object or null.
pub(crate) fn optional_object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    value: D,
) -> Result<Option<T>, D::Error> {
    Option::<Object<T>>::deserialize(value).map(|own| own.map(|Object(own)| own))
}

/// For a field that is a list of objects.
pub(crate) fn objects<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    value: D,
) -> Result<Vec<T>, D::Error> {
    let all = Vec::<Object<T>>::deserialize(value)?;
    Ok(all.into_iter().map(|Object(own)| own).collect())
}

/// JSON to a request.
///
/// # Errors
///
/// [`ServeError::NotJson`], [`ServeError::MissingField`], [`ServeError::UnknownField`],
/// [`ServeError::WrongField`].
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if !inner.is_data() {
            return ServeError::NotJson { reason: inner.to_string() };
        }
        wrong_field(&path, &inner.to_string())
    })?;
    json.end().map_err(|error| ServeError::NotJson { reason: error.to_string() })?;
    let Object(request) = parsed;
    Ok(request)
}

/// What serde says of a field in words of ours. It has no types for its errors, only sentences.
fn wrong_field(path: &str, said: &str) -> ServeError {
    // The place in the text helps nobody whose JSON was written by a program.
    let said = said.split(" at line ").next().unwrap_or(said);
    let name = said.split('`').nth(1).unwrap_or_default();
    let named = || match path {
        "." | "" => shortened(name),
        path if path.ends_with(name) => shortened(path),
        path => shortened(&format!("{path}.{name}")),
    };
    if said.starts_with("missing field") {
        return ServeError::MissingField { field: named() };
    }
    if said.starts_with("unknown field") {
        let known =
            said.split_once(", ").map_or("/openapi.json lists those that there are", |it| it.1);
        let known = known.replace('`', "");
        return ServeError::UnknownField { field: named(), known };
    }
    if said.starts_with("duplicate field") {
        let reason = "it is there twice, by one of its names or by two".to_owned();
        return ServeError::WrongField { field: named(), reason };
    }
    let field = if path == "." { "the body".to_owned() } else { shortened(path) };
    ServeError::WrongField { field, reason: reason(said) }
}

/// `invalid type: integer 7, expected usize` as a client of any language understands it.
fn reason(said: &str) -> String {
    let types = ["invalid type: ", "invalid value: "];
    let pair = types.iter().find_map(|what| said.strip_prefix(what)?.split_once(", expected "));
    let Some((found, expected)) = pair else { return said.to_owned() };
    let expected = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number of 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a sequence" => "a list",
        "a map" => "an object",
        "a string" => "a text",
        other => other,
    };
    let found = match found {
        "map" => "an object".to_owned(),
        "sequence" => "a list".to_owned(),
        other => {
            let value = other.split_once(' ').map_or(other, |(_, value)| value);
            shortened(value.trim_matches('`'))
        }
    };
    format!("expected {expected}, not {found}")
}

/// The beginning of a text that is too long to be repeated.
fn shortened(text: &str) -> String {
    if text.len() <= REPEATED {
        return text.to_owned();
    }
    format!("{}...", &text[..text.floor_char_boundary(REPEATED)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        #[allow(dead_code)]
        query: String,
        #[serde(default)]
        #[allow(dead_code)]
        list: Vec<usize>,
        #[serde(default, deserialize_with = "objects")]
        #[allow(dead_code)]
        parts: Vec<Part>,
    }

    #[derive(Debug, Deserialize)]
    struct Part {
        #[allow(dead_code)]
        text: String,
    }

    fn error(body: &str) -> ServeError {
        parse::<Example>(body.as_bytes()).expect_err("it is wrong")
    }

    #[test]
    fn what_is_wrong_with_a_body_is_told_by_field() {
        assert!(matches!(error("{"), ServeError::NotJson { .. }));
        assert!(matches!(error(r#"{"query": "q"} x"#), ServeError::NotJson { .. }));
        assert!(matches!(error(r#"{"query": NaN}"#), ServeError::NotJson { .. }));
        let deep = "[".repeat(10_000);
        assert!(matches!(error(&deep), ServeError::NotJson { .. } | ServeError::WrongField { .. }));
        assert!(parse::<Example>(b"{\"query\": \"\xff\"}").is_err());
        for (body, sentence) in [
            ("{}", "the field \"query\" is missing"),
            (
                r#"{"query": "q", "top": 1}"#,
                "there is no field \"top\"; expected one of query, list, parts",
            ),
            (
                r#"{"query": "q", "list": [1, "2"]}"#,
                "the field \"list[1]\" cannot be used: expected a whole number of 0 or more, not \"2\"",
            ),
            (
                r#"{"query": "q", "list": [-1]}"#,
                "the field \"list[0]\" cannot be used: expected a whole number of 0 or more, not -1",
            ),
            (
                r#"{"query": {}, "list": []}"#,
                "the field \"query\" cannot be used: expected a text, not an object",
            ),
            (
                r#"{"query": "q", "query": "q"}"#,
                "the field \"query\" cannot be used: it is there twice, by one of its names or by two",
            ),
        ] {
            assert_eq!(error(body).to_string(), sentence, "{body}");
        }
    }

    #[test]
    fn a_list_is_no_object() {
        let said = error(r#"["q", [], []]"#).to_string();
        assert_eq!(said, "the field \"the body\" cannot be used: expected an object, not a list");
        let said = error(r#"{"query": "q", "parts": [["text"]]}"#).to_string();
        assert_eq!(said, "the field \"parts[0]\" cannot be used: expected an object, not a list");
        assert!(parse::<Example>(br#"{"query": "q", "parts": [{"text": "text"}]}"#).is_ok());
        let said = error(r#"{"query": "q", "parts": [{}]}"#).to_string();
        assert_eq!(said, "the field \"parts[0].text\" is missing");
    }

    #[test]
    fn an_error_does_not_repeat_a_long_value() {
        let long = "ä".repeat(100_000);
        for body in [
            format!(r#"{{"query": "q", "list": "{long}"}}"#),
            format!(r#"{{"query": "q", "{long}": 1}}"#),
        ] {
            assert!(error(&body).to_string().len() < 300);
        }
    }
}
