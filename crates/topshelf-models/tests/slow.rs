//! The slow group: the native engine on real f32 weights against Hugging Face transformers.
//!
//!     cargo test --release -p topshelf-models --test slow -- --nocapture
//!
//! all-MiniLM-L6-v2 is pulled as any model of the catalogue is, from an entry of the tests' own,
//! into a store in the target folder. `tests/data/families/all-MiniLM-L6-v2.golden.json` is made
//! by `scripts/family_goldens.py`.

use std::path::Path;

use serde::Deserialize;
use topshelf_models::encoder::{Output, Sequence, TokenBatch};
use topshelf_models::engine::{Choice, Settings, open};
use topshelf_models::native::Precision;
use topshelf_models::tokenise::TextTokenizer;
use topshelf_models::{Catalogue, ModelFolder, Store};

const NAME: &str = "sentence-transformers/all-MiniLM-L6-v2";

#[derive(Deserialize)]
struct Golden {
    sequences: Vec<GoldenSequence>,
}

#[derive(Deserialize)]
struct GoldenSequence {
    texts: Vec<String>,
    ids: Vec<u32>,
    type_ids: Vec<u32>,
    cls_hidden: Vec<f32>,
    mean_hidden: Vec<f32>,
}

fn folder() -> ModelFolder {
    let entry = include_str!("data/all-MiniLM-L6-v2.toml");
    let catalogue = format!("{}\n{entry}", include_str!("../catalogue.toml"));
    Store::at(Path::new(env!("CARGO_TARGET_TMPDIR")).join("models"))
        .with_catalogue(Catalogue::parse(&catalogue).unwrap())
        .find_or_pull(NAME, &())
        .unwrap()
}

fn goldens() -> Vec<GoldenSequence> {
    let text = include_str!("data/families/all-MiniLM-L6-v2.golden.json");
    serde_json::from_str::<Golden>(text).unwrap().sequences
}

/// The mean of rows.
fn mean(rows: &[f32], width: usize) -> Vec<f32> {
    let count = (rows.len() / width) as f64;
    (0..width)
        .map(|column| {
            let values = rows[column..].iter().step_by(width);
            (values.map(|&value| f64::from(value)).sum::<f64>() / count) as f32
        })
        .collect()
}

fn cosine(left: &[f32], right: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    dot(left, right) / (dot(left, left) * dot(right, right)).sqrt()
}

#[test]
fn minilm_is_what_transformers_computes() {
    let folder = folder();
    // The largest difference of a first token's state or of a mean over the tokens, and the least
    // cosine of a mean. Measured: 4e-6 and 1; 0.0054 and 0.99997; 0.14 and 0.9911, which is of the
    // one-word text (0.998 and more of the others).
    for (precision, bound, least_cosine) in [
        (Precision::F32, 1e-4, 0.999_999),
        (Precision::Bf16, 0.02, 0.999_8),
        (Precision::Int8, 0.3, 0.98),
    ] {
        let settings = Settings { engine: Choice::Native, precision, threads: 2 };
        let encoder = open(&folder, settings).unwrap();
        let (mut largest, mut least) = (0.0_f32, 1.0_f32);
        for golden in goldens() {
            let sequence = Sequence { ids: golden.ids, type_ids: golden.type_ids, unattended: 0 };
            let batch: TokenBatch = [&sequence].into_iter().collect();
            let states = encoder.encode(&batch, Output::Hidden).unwrap();
            let mean = mean(&states, golden.cls_hidden.len());
            let expected = golden.cls_hidden.iter().chain(&golden.mean_hidden);
            for (found, expected) in states[..mean.len()].iter().chain(&mean).zip(expected) {
                largest = largest.max((found - expected).abs());
            }
            least = least.min(cosine(&mean, &golden.mean_hidden));
        }
        println!("{precision:?}: largest difference {largest}, least cosine {least}");
        assert!(largest < bound, "{precision:?}: {largest}");
        assert!(least > least_cosine, "{precision:?}: {least}");
    }
}

#[test]
fn its_tokenizer_makes_the_same_sequences() {
    let tokenizer = TextTokenizer::load(&folder()).unwrap();
    for golden in goldens() {
        let ids: Vec<Vec<u32>> =
            golden.texts.iter().map(|text| tokenizer.tokenise(text).unwrap()).collect();
        let assembled = match &ids[..] {
            [text] => tokenizer.single(text),
            [query, document] => tokenizer.pair(query, document),
            other => panic!("a golden of {} texts", other.len()),
        };
        assert_eq!(assembled.sequence.ids, golden.ids);
        assert_eq!(assembled.sequence.type_ids, golden.type_ids);
    }
}
