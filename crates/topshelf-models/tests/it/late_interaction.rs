//! The real late-interaction model, from text to vectors and MaxSim.

use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use pollster::block_on;
use topshelf_core::{Call, EmbedKind, Passage, Query, Reranker, Scale, TokenVectors};
use topshelf_models::engine::{Choice, Settings};
use topshelf_models::native::Precision;
use topshelf_models::{BiEncoder, Family, LateInteraction, ModelError, Store};

use super::inference::folder;

pub(super) const LATE: &str = "answerdotai/answerai-colbert-small-v1";

const QUERY: &str = "How many people live in Berlin?";
const PASSAGES: [&str; 3] = [
    "Berlin had a population of 3,520,031 registered inhabitants in an area of 891.82 square kilometers.",
    "Berlin is well known for its museums.",
    "!!! ... ???",
];

fn late() -> LateInteraction {
    static MODEL: OnceLock<LateInteraction> = OnceLock::new();
    MODEL.get_or_init(|| LateInteraction::from_folder(&folder(LATE)).unwrap()).clone()
}

/// Each query vector's best product, summed; in f64, one after the other.
fn plain(queries: &TokenVectors, passage: &TokenVectors) -> f64 {
    let product = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let best = |query: &[f32]| {
        let all = passage.values.chunks(passage.dimension).map(|vector| product(query, vector));
        all.fold(f64::NEG_INFINITY, f64::max)
    };
    queries.values.chunks(queries.dimension).map(best).sum()
}

#[test]
fn vectors_have_the_right_number_and_length() {
    let late = late();
    let queries = late.embed(EmbedKind::Query, &[QUERY, &"word ".repeat(40)]).unwrap();
    let passages = late.embed(EmbedKind::Passage, &PASSAGES).unwrap();
    // A query always has 32; its own words beyond that are not read.
    assert_eq!(queries.iter().map(TokenVectors::count).collect::<Vec<_>>(), [32, 32]);
    assert_eq!(queries.iter().map(|own| own.truncated_tokens).collect::<Vec<_>>(), [0, 40 - 29]);
    // [CLS], the marker, [SEP], and the words without punctuation.
    assert_eq!(passages[1].count(), 3 + 7);
    assert_eq!(passages[2].count(), 3);
    let long = &late.embed(EmbedKind::Passage, &["word ".repeat(400)]).unwrap()[0];
    assert_eq!((long.count(), long.truncated_tokens), (300, 400 - 297));
    for vector in passages[0].values.chunks(late.dimension()) {
        let norm: f32 = vector.iter().map(|x| x * x).sum();
        assert!((norm - 1.0).abs() < 1e-5);
    }
}

#[test]
fn the_score_is_max_sim_of_the_vectors_whoever_else_is_asked() {
    let late = late();
    let queries = &late.embed(EmbedKind::Query, &[QUERY]).unwrap()[0];
    let passages = late.embed(EmbedKind::Passage, &PASSAGES).unwrap();
    let together = late.score(QUERY, &PASSAGES).unwrap();
    for ((text, vectors), score) in PASSAGES.iter().zip(&passages).zip(&together) {
        assert!((f64::from(*score) - plain(queries, vectors)).abs() < 1e-4, "{text}");
        assert_eq!(late.score(QUERY, &[text]).unwrap()[0].to_bits(), score.to_bits());
    }
    assert!(together[0] > together[1] && together[1] > together[2]);
}

#[test]
fn padding_is_not_attended_to_on_either_engine() {
    let load = |engine| {
        let settings = Settings { engine, precision: Precision::F32, threads: 2 };
        LateInteraction::from_folder_with(&folder(LATE), settings).unwrap()
    };
    let (native, onnx) = (load(Choice::Native), load(Choice::Onnx));
    let cosines = |a: &TokenVectors, b: &TokenVectors| -> Vec<f32> {
        let pairs = a.values.chunks(a.dimension).zip(b.values.chunks(b.dimension));
        pairs.map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum()).collect()
    };
    let [a, b] = [&native, &onnx].map(|model| model.embed(EmbedKind::Query, &[QUERY]).unwrap());
    let same = cosines(&a[0], &b[0]);
    // The files' activations are rounded on one side only.
    let mean = same.iter().sum::<f32>() / same.len() as f32;
    assert!(mean > 0.98 && same.iter().all(|cosine| *cosine > 0.9), "{same:?}");
    let scores = [&native, &onnx].map(|model| model.score(QUERY, &PASSAGES).unwrap());
    for (a, b) in scores[0].iter().zip(&scores[1]) {
        assert!((a - b).abs() < 0.3, "{scores:?}");
    }
}

#[test]
fn it_is_a_reranker_and_says_which_token_answered() {
    let late = late();
    assert_eq!(late.scale(), Scale::MaxSim);
    let (call, query) = (Call::new(), Query::new(QUERY).unwrap());
    let passage = Arc::new(Passage::standalone("berlin", "", PASSAGES[0]));
    let outcomes =
        block_on(Reranker::score(&late, &call, &query, &[Arc::clone(&passage)])).unwrap();
    let score = outcomes[0].as_ref().unwrap().score;
    let matches = block_on(late.explain(&call, &query, &passage)).unwrap();
    assert_eq!(matches.len(), 32);
    let sum: f32 = matches.iter().map(|found| found.similarity).sum();
    assert!((sum - score).abs() < 1e-3, "{sum} {score}");
    let of = |word: &str| matches.iter().find(|found| found.query == word).unwrap();
    assert_eq!(&PASSAGES[0][of("berlin").span.clone()], "Berlin");
    assert_eq!(of("berlin").passage, "berlin");
    assert!(["inhabitants", "population"].contains(&&PASSAGES[0][of("people").span.clone()]));
    assert_eq!(matches[0].query, "[CLS]");
    assert!(matches[0].passage != "[CLS]" || matches[0].span.is_empty());
}

/// A checkpoint as PyLate saves it gives what the catalogued one gives.
#[test]
fn a_folder_of_pylate_is_understood() {
    let known = folder(LATE);
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let write = |name: &str, value: serde_json::Value| {
        fs::write(dir.join(name), value.to_string()).unwrap();
    };
    fs::create_dir(dir.join("1_Dense")).unwrap();
    for (from, to) in [
        ("model.onnx", "model.onnx"),
        ("tokenizer.json", "tokenizer.json"),
        ("projection-0.safetensors", "1_Dense/model.safetensors"),
    ] {
        fs::copy(known.file(from), dir.join(to)).unwrap();
    }
    write("config.json", known.spec.config.clone().unwrap());
    let modules = serde_json::json!([
        { "type": "sentence_transformers.models.Transformer", "path": "" },
        { "type": "pylate.models.Dense.Dense", "path": "1_Dense" },
    ]);
    write("modules.json", modules.clone());
    let dense = |activation: &str| serde_json::json!({ "in_features": 384, "out_features": 96, "bias": false, "activation_function": activation });
    write("1_Dense/config.json", dense("torch.nn.modules.linear.Identity"));
    let tokens = known.spec.tokens.clone().unwrap();
    write(
        "config_sentence_transformers.json",
        serde_json::json!({
            "query_prefix": "[unused0]", "document_prefix": "[unused1]", "query_length": 32,
            "document_length": 300, "attend_to_expansion_tokens": false, "skiplist_words": tokens.skip,
        }),
    );
    let load = |dir: &Path| Store::open_default().unwrap().find(dir.to_str().unwrap());
    let own = load(dir).unwrap();
    assert_eq!(
        (own.spec.family, own.spec.tokens.as_ref()),
        (Family::LateInteraction, Some(&tokens))
    );
    let model = LateInteraction::from_folder(&own).unwrap();
    let bits = |model: &LateInteraction| -> Vec<u32> {
        model.score(QUERY, &PASSAGES).unwrap().iter().map(|score| score.to_bits()).collect()
    };
    assert_eq!(bits(&model), bits(&late()));
    // Without its layer the states themselves are compared.
    write("modules.json", serde_json::json!([modules[0], { "type": "pylate.models.Normalize" }]));
    let bare = LateInteraction::from_folder(&load(dir).unwrap()).unwrap();
    assert_eq!(bare.dimension(), 384);
    assert!(bare.score(QUERY, &PASSAGES).is_ok());
    // What would change the vectors and cannot be computed is refused.
    write("modules.json", modules);
    write("1_Dense/config.json", dense("torch.nn.modules.activation.Tanh"));
    let error = load(dir).unwrap_err().to_string();
    assert!(error.contains("Tanh"), "{error}");
    assert!(matches!(BiEncoder::from_folder(&own), Err(ModelError::WrongFamily { .. })));
}
