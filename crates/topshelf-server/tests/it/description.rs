//! Replies compared with what `/openapi.json` says of them.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};

use axum::http::{Method, StatusCode};
use jsonschema::Validator;
use serde_json::{Value, json};

/// The description.
static DESCRIPTION: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(&topshelf_server::openapi::text()).expect("the description is JSON")
});

/// A validator for each schema that was asked for.
static VALIDATORS: Mutex<BTreeMap<String, Validator>> = Mutex::new(BTreeMap::new());

/// The routes that are described: path and method.
pub(crate) fn routes() -> Vec<(String, Method)> {
    let paths = DESCRIPTION["paths"].as_object().expect("paths");
    let methods = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().expect("methods").keys();
        methods.map(move |name| (path.clone(), name.to_uppercase().parse().expect("a method")))
    });
    methods.collect()
}

/// Panics unless a reply in JSON of a described route satisfies the schema for its status.
pub(crate) fn check(method: &Method, path: &str, status: StatusCode, body: &Value) {
    let operation = &DESCRIPTION["paths"][path][method.as_str().to_lowercase()];
    if operation.is_null() {
        return;
    }
    let responses = &operation["responses"];
    let described = [status.as_str().to_owned(), format!("{}XX", status.as_u16() / 100)];
    let response = described.iter().map(|name| &responses[name]).find(|own| !own.is_null());
    let response = response.unwrap_or_else(|| panic!("{method} {path}: {status} is not described"));
    let schema = &response["content"]["application/json"]["schema"];
    assert!(!schema.is_null(), "{method} {path}: {status} has no schema, but a body: {body:#}");
    let mut validators = VALIDATORS.lock().expect("no panic while it is held");
    let validator = validators.entry(schema.to_string()).or_insert_with(|| validator(schema));
    let errors: Vec<String> = validator
        .iter_errors(body)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    drop(validators);
    assert!(errors.is_empty(), "{method} {path}, {status}: {errors:#?}\n{body:#}");
}

/// A validator that finds the schemas that this one names.
fn validator(schema: &Value) -> Validator {
    let whole = json!({"allOf": [schema], "components": DESCRIPTION["components"]});
    jsonschema::validator_for(&whole).expect("a schema")
}
