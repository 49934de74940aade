//! Topshelf as an engine of `bench/compare`: answers requests, one JSON object a line, on standard
//! input and output. Precision, engine and number of threads come from the environment, as for
//! every program that uses the library.
//!
//! | request | answer |
//! | --- | --- |
//! | `{"pull": model}` | `{"folder": path}`; downloads the model if the store does not have it |
//! | `{"load": {"model": name, "family": "cross-encoder" or "bi-encoder"}}` | `{"load_ms": t, "engine": name}` |
//! | `{"workload": name, "pairs": [[query, passage], ...]}` | `{"stored": n}` |
//! | `{"workload": name, "texts": [text, ...]}` | `{"stored": n}` |
//! | `{"run": name}` | `{"ms": t, "scores": [...], "tokens": null}` |
//! | `{"peak": precision}` | `{"gops": figure}`: what the cores reach in `int8`, `bf16` or `f32` on registers alone |
//!
//! `scores` are the logits of the first five pairs, or the first five numbers of the first vector.
//! The library does not tell how many tokens it read, hence the `null`. What cannot be done is
//! answered with `{"error": reason}`, and the next request is read.

use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead, Write};
use std::time::Instant;

use serde_json::{Value, json};
use topshelf::{BiEncoder, CrossEncoder, Store};
use topshelf_models::native::peak::{Numbers, peak};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How many numbers of an answer go back for comparison.
const SHOWN: usize = 5;

enum Model {
    Cross(CrossEncoder),
    Bi(BiEncoder),
}

enum Workload {
    Pairs(Vec<(String, String)>),
    Texts(Vec<String>),
}

#[derive(Default)]
struct Session {
    model: Option<Model>,
    workloads: HashMap<String, Workload>,
}

fn main() -> Result<()> {
    let mut session = Session::default();
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let answer =
            session.answer(&request).unwrap_or_else(|error| json!({ "error": error.to_string() }));
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

impl Session {
    fn answer(&mut self, request: &Value) -> Result<Value> {
        if let Some(model) = request["pull"].as_str() {
            let folder = Store::open_default()?.find_or_pull(model, &())?;
            Ok(json!({ "folder": folder.dir }))
        } else if let Some(load) = request.get("load") {
            self.load(load)
        } else if let Some(name) = request["workload"].as_str() {
            self.store(name, request)
        } else if let Some(name) = request["run"].as_str() {
            self.run(name)
        } else if let Some(precision) = request["peak"].as_str() {
            Ok(json!({ "gops": peak_gops(precision)? }))
        } else {
            Err("unknown request: pull, load, workload, run and peak are known".into())
        }
    }

    fn load(&mut self, load: &Value) -> Result<Value> {
        let name = load["model"].as_str().ok_or("load wants a model")?;
        let start = Instant::now();
        let model = match load["family"].as_str() {
            Some("bi-encoder") => Model::Bi(BiEncoder::load(name)?),
            Some("cross-encoder") => Model::Cross(CrossEncoder::load(name)?),
            _ => return Err("load wants a family, cross-encoder or bi-encoder".into()),
        };
        let load_ms = milliseconds(start);
        let engine = match &model {
            Model::Cross(model) => model.engine(),
            Model::Bi(model) => model.engine(),
        };
        let answer = json!({ "load_ms": load_ms, "engine": engine });
        self.model = Some(model);
        Ok(answer)
    }

    fn store(&mut self, name: &str, request: &Value) -> Result<Value> {
        let workload = match request.get("texts") {
            Some(texts) => Workload::Texts(serde_json::from_value(texts.clone())?),
            None => Workload::Pairs(serde_json::from_value(request["pairs"].clone())?),
        };
        let stored = match &workload {
            Workload::Pairs(pairs) => pairs.len(),
            Workload::Texts(texts) => texts.len(),
        };
        self.workloads.insert(name.to_owned(), workload);
        Ok(json!({ "stored": stored }))
    }

    /// Runs a workload once, tokenising included.
    fn run(&self, name: &str) -> Result<Value> {
        let workload = self.workloads.get(name).ok_or("no such workload was sent")?;
        let model = self.model.as_ref().ok_or("no model is loaded yet")?;
        let start = Instant::now();
        let mut scores = match (model, workload) {
            (Model::Cross(model), Workload::Pairs(pairs)) => model.predict(pairs)?,
            (Model::Bi(model), Workload::Texts(texts)) => {
                model.embed_passages(texts)?.into_iter().next().unwrap_or_default()
            }
            _ => return Err("pairs are for cross-encoders, texts for bi-encoders".into()),
        };
        let ms = milliseconds(start);
        scores.truncate(SHOWN);
        Ok(json!({ "ms": ms, "scores": scores, "tokens": null }))
    }
}

/// What the cores reach in this precision, in 10⁹ operations a second over all threads.
fn peak_gops(precision: &str) -> Result<f64> {
    let numbers = match precision {
        "int8" => Numbers::Int8,
        "bf16" => Numbers::Bf16,
        "f32" => Numbers::F32,
        _ => return Err("a peak is measured in int8, bf16 or f32".into()),
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(peak(numbers, threads))
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}
