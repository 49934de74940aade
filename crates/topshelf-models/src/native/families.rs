//! Every family against Hugging Face transformers, on tiny checkpoints with random weights
//! (`scripts/family_goldens.py` made them and their outputs in f32), and what must hold for each:
//! a sequence's bits depend on nothing but the sequence.
//!
//! Tolerances are absolute, on logits and hidden states: 1e-4 in f32. In int8 and bf16 the weights
//! are random and the states small, so the bounds say only that nothing is broken; what those
//! precisions cost on a real model is measured in `tests/it/native.rs`.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde::Deserialize;

use super::{NativeEncoder, Precision};
use crate::encoder::{Encoder, Output, Sequence, TokenBatch};
use crate::spec::{FileSpec, ModelFolder, ModelSpec};
use crate::{Catalogue, Family};

#[derive(Deserialize)]
struct Golden {
    sequences: Vec<GoldenSequence>,
}

#[derive(Deserialize)]
struct GoldenSequence {
    ids: Vec<u32>,
    type_ids: Vec<u32>,
    logits: Option<Vec<f32>>,
    cls_hidden: Option<Vec<f32>>,
    hidden: Option<Vec<f32>>,
}

impl GoldenSequence {
    fn sequence(&self) -> Sequence {
        Sequence { ids: self.ids.clone(), type_ids: self.type_ids.clone(), unattended: 0 }
    }
}

const FAMILIES: [&str; 13] = [
    "bert-base-model",
    "bert-cross",
    "bert-gelu-new-cross",
    "bert-relu-cross",
    "deberta-v2-cross",
    "deberta-v2-separate-cross",
    "distilbert-cross",
    "electra-cross",
    "modernbert-base-model",
    "modernbert-cross",
    "modernbert-mean-cross",
    "roberta-cross",
    "xlm-roberta-cross",
];

fn data(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/families").join(family)
}

/// The checkpoint as a model folder whose packed image lies in `dir`.
fn load(family: &str, dir: &Path, threads: usize, precision: Precision) -> NativeEncoder {
    let config = std::fs::read_to_string(data(family).join("config.json")).unwrap();
    let mut spec: ModelSpec =
        Catalogue::builtin().default_for(Family::CrossEncoder).unwrap().clone();
    spec.name = family.to_owned();
    spec.config = Some(serde_json::from_str(&config).unwrap());
    let weights = data(family).join("model.safetensors");
    spec.files = vec![FileSpec {
        name: "model.safetensors".to_owned(),
        path: Some(weights.to_str().unwrap().to_owned()),
        sha256: String::new(),
        bytes: 0,
        built_in: false,
    }];
    let folder = ModelFolder { spec, dir: dir.to_owned(), fingerprint: String::new() };
    NativeEncoder::load(&folder, threads, precision)
        .unwrap_or_else(|refusal| panic!("{family}: {refusal:?}"))
}

fn golden(family: &str) -> Golden {
    let text = std::fs::read_to_string(data(family).join("golden.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The largest difference, over the root mean square of what is expected.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The largest difference of each output of each sequence.
fn largest(family: &str, threads: usize, precision: Precision) -> f32 {
    let dir = tempfile::tempdir().unwrap();
    let encoder = load(family, dir.path(), threads, precision);
    let mut largest = 0.0_f32;
    for golden in golden(family).sequences {
        let sequence = golden.sequence();
        let batch: TokenBatch = [&sequence].into_iter().collect();
        for (output, expected) in [
            (Output::Logits, &golden.logits),
            (Output::Cls, &golden.cls_hidden),
            (Output::Hidden, &golden.hidden),
        ] {
            if let Some(expected) = expected {
                let found = encoder.encode(&batch, output).unwrap();
                largest = largest.max(difference(&found, expected));
            }
        }
    }
    largest
}

#[test]
fn f32_agrees_with_transformers() {
    for family in FAMILIES {
        for threads in [1, 3] {
            let largest = largest(family, threads, Precision::F32);
            assert!(largest < 1e-4, "{family}: {largest}");
        }
    }
}

#[test]
fn int8_and_bf16_stay_near() {
    for family in FAMILIES {
        for (precision, bound) in [(Precision::Bf16, 1.0), (Precision::Int8, 1.0)] {
            let largest = largest(family, 2, precision);
            println!("{family} {precision:?} {largest}");
            assert!(largest < bound, "{family} in {precision:?}: {largest}");
        }
    }
}

#[test]
fn the_image_is_kept_and_gives_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let batch: TokenBatch = golden("bert-cross")
        .sequences
        .iter()
        .map(GoldenSequence::sequence)
        .collect::<Vec<_>>()
        .iter()
        .collect();
    let scores = |encoder: &NativeEncoder| encoder.encode(&batch, Output::Logits).unwrap();
    let first = scores(&load("bert-cross", dir.path(), 2, Precision::Int8));
    let image = dir.path().join("topshelf-int8.image");
    let written = std::fs::metadata(&image).unwrap().modified().unwrap();
    assert_eq!(first, scores(&load("bert-cross", dir.path(), 2, Precision::Int8)));
    assert_eq!(written, std::fs::metadata(&image).unwrap().modified().unwrap());
    // One that is damaged is made anew.
    std::fs::write(&image, b"TSIMAGE1 and nothing of use").unwrap();
    assert_eq!(first, scores(&load("bert-cross", dir.path(), 2, Precision::Int8)));
    // A folder that cannot be written is no obstacle.
    assert_eq!(first, scores(&load("bert-cross", &dir.path().join("none"), 2, Precision::Int8)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_sequence_has_the_same_bits_in_any_batch_order_and_team(
        family in prop::sample::select(FAMILIES.to_vec()),
        lengths in prop::collection::vec(1_usize..80, 1..12),
        threads in 1_usize..5,
        precision in prop::sample::select(vec![Precision::Int8, Precision::Bf16, Precision::F32]),
        seed in 0_u32..1000,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let alone = load(family, dir.path(), 1, precision);
        let together = load(family, dir.path(), threads, precision);
        // Where attention has a window, what is not attended to must see something through it.
        let most = if family.starts_with("modernbert") { 9 } else { 40 };
        let sequences: Vec<Sequence> = lengths
            .iter()
            .enumerate()
            .map(|(i, &length)| Sequence {
                ids: (0..length as u32).map(|i| 4 + (i * 7919 + seed * 31 + i * i) % 100).collect(),
                type_ids: vec![0; length],
                unattended: ((seed as usize + 7 * i) % most).min(length - 1),
            })
            .collect();
        let output = if family.ends_with("cross") { Output::Logits } else { Output::Hidden };
        let batch: TokenBatch = sequences.iter().collect();
        let all = together.encode(&batch, output).unwrap();
        let mut one_by_one = Vec::new();
        for sequence in &sequences {
            let single: TokenBatch = [sequence].into_iter().collect();
            one_by_one.extend(alone.encode(&single, output).unwrap());
        }
        prop_assert_eq!(bits(&all), bits(&one_by_one));
        // The first token alone, by the short cut through the last block.
        let first = together.encode(&batch, Output::Cls).unwrap();
        let hidden = alone.encode(&batch, Output::Hidden).unwrap();
        let width = alone.width(Output::Hidden).unwrap();
        let starts = batch.cu_seqlens()[..batch.len()].iter();
        let cut: Vec<f32> =
            starts.flat_map(|&start| &hidden[start * width..][..width]).copied().collect();
        prop_assert_eq!(bits(&first), bits(&cut));
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}
