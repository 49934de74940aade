//! The native engine on real weights: against the ONNX runtime on the same file, on every
//! instruction set of the machine, and what it does with input that is odd or wrong.
//!
//! Every family against transformers, and that a sequence's bits depend on the sequence alone, is
//! in `src/native/families.rs`; f32 against transformers on real weights is in `tests/slow.rs`.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use topshelf_models::encoder::{Encoder, Output, Sequence, TokenBatch};
use topshelf_models::engine::{Choice, Settings, open};
use topshelf_models::native::Precision;
use topshelf_models::spec::FileSpec;
use topshelf_models::{BiEncoder, CrossEncoder, Isa, ModelError, ModelFolder};

use super::allocations::allocations;
use super::inference::{BI, CROSS, apart, bits, cosine, folder};

/// The largest difference of a logit from the ONNX path's. Measured: 0.22, of 40 logits between
/// -11 and 9. Both engines round activations to 8 bits, this one row by row, that one with one
/// scale for the sequence; and without VNNI it rounds more coarsely still (see `src/onnx.rs`).
const LOGIT_BOUND: f32 = 0.8;

/// The root mean square of what rounding in the native engine makes of a logit. Measured: 0.028,
/// and 0.104 in the ONNX path.
const LOGIT_ROUNDING: f32 = 0.06;

/// The least cosine of a vector with the ONNX path's. Measured: 0.9976.
const COSINE_BOUND: f32 = 0.99;

/// The least cosine of a vector with the native engine's in f32. Measured: 0.9997, and 0.9978 in
/// the ONNX path.
const COSINE_ROUNDING: f32 = 0.999;

/// The largest difference of portable code from the other sets. Measured: 0.04
/// in int8, where a last bit may move a code by a whole step, and 6e-6 in f32.
const PORTABLE_INT8_BOUND: f32 = 0.2;
const PORTABLE_F32_BOUND: f32 = 1e-4;

/// Allocations of a call that is like the last one: the answer, what the thread pool needs to start
/// the work, and the plan, whose lists of spans grow with the sequences. Measured: 11 for 8
/// sequences, 92 for 80.
const ALLOCATIONS: usize = 40;
const ALLOCATIONS_PER_SEQUENCE: usize = 2;

/// Tells a test that it runs as the child of itself.
pub(super) const ROLE: &str = "TOPSHELF_TEST_CHILD";

fn settings(engine: Choice, precision: Precision) -> Settings {
    Settings { engine, precision, threads: 2 }
}

/// The ONNX path, the native engine, and the native engine in f32: the file's own integers as
/// weights, with nothing rounded on the way.
fn engines() -> [Settings; 3] {
    [
        settings(Choice::Onnx, Precision::Int8),
        settings(Choice::Native, Precision::Int8),
        settings(Choice::Native, Precision::F32),
    ]
}

fn native(folder: &ModelFolder) -> Box<dyn Encoder> {
    open(folder, settings(Choice::Native, Precision::Int8)).unwrap()
}

/// One of the tiny checkpoints of `tests/data/families`; its packed weights are kept in `dir`.
fn tiny(family: &str, dir: &Path) -> ModelFolder {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/families").join(family);
    let mut folder = ModelFolder { dir: dir.to_owned(), ..folder(CROSS) };
    let config = fs::read_to_string(data.join("config.json")).unwrap();
    folder.spec.config = Some(serde_json::from_str(&config).unwrap());
    folder.spec.files = vec![FileSpec {
        name: "model.safetensors".to_owned(),
        path: Some(data.join("model.safetensors").to_str().unwrap().to_owned()),
        sha256: String::new(),
        bytes: 0,
        built_in: false,
    }];
    folder
}

/// A sequence of so many tokens of one type, different for each seed; the ids are in every
/// vocabulary.
fn sequence(length: usize, seed: usize) -> Sequence {
    let ids = (0..length).map(|i| 4 + ((i * 7919 + seed * 31 + i * i) % 100) as u32).collect();
    Sequence { ids, type_ids: vec![0; length], unattended: 0 }
}

/// Queries of msmarco-dl19, each with the first passages of the stored BM25 run, where the folder
/// of collections is beside the project.
fn real_pairs(queries: usize, depth: usize) -> Option<Vec<(String, Vec<String>)>> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/msmarco-dl19");
    if !data.is_dir() {
        println!("../shared/data/msmarco-dl19 is not here: no real pairs to compare");
        return None;
    }
    let rows = |file: &str| -> Vec<serde_json::Value> {
        let text = fs::read_to_string(data.join(file)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (topics, corpus) = (rows("queries.jsonl"), rows("corpus.jsonl"));
    let run = fs::read_to_string(data.join("runs/bm25-top100.trec")).unwrap();
    let text = |row: &serde_json::Value| row["text"].as_str().unwrap().to_owned();
    let pairs = topics.iter().take(queries).map(|topic| {
        let passages = run
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|fields| fields[0] == topic["_id"])
            .take(depth)
            .map(|fields| text(corpus.iter().find(|row| row["_id"] == fields[2]).unwrap()))
            .collect();
        (text(topic), passages)
    });
    Some(pairs.collect())
}

/// This test program, running only the named test, as its own child.
pub(super) fn child(test: &str, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env(ROLE, "1");
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{variables:?}\n{text}\n{errors}");
    assert!(text.contains("test result: ok. 1 passed"), "{test} is no test\n{text}");
    text
}

#[test]
fn logits_are_those_of_the_onnx_path() {
    let Some(pairs) = real_pairs(4, 10) else { return };
    let dir = tempfile::tempdir().unwrap();
    let folder = apart(CROSS, dir.path());
    let [onnx, native, reference] = engines().map(|settings| {
        let model = CrossEncoder::from_folder_with(&folder, settings).unwrap();
        let score = |(query, passages): &(String, Vec<String>)| -> Vec<f32> {
            let pairs: Vec<_> = passages.iter().map(|passage| (query, passage)).collect();
            model.predict(&pairs).unwrap()
        };
        pairs.iter().map(score).collect::<Vec<_>>()
    });
    let mut largest = 0.0_f32;
    for (expected, found) in onnx.iter().zip(&native) {
        assert_eq!((expected.len(), found.len()), (10, 10));
        for i in 0..10 {
            largest = largest.max((found[i] - expected[i]).abs());
            for j in 0..10 {
                if expected[i] - expected[j] > LOGIT_BOUND {
                    assert!(found[i] > found[j], "{i} {j}: {expected:?} {found:?}");
                }
            }
        }
    }
    let rms = |scores: &[Vec<f32>]| {
        let squares =
            scores.concat().into_iter().zip(reference.concat()).map(|(a, b)| (a - b).powi(2));
        (squares.sum::<f32>() / 40.0).sqrt()
    };
    let (native, onnx) = (rms(&native), rms(&onnx));
    println!("logits: largest difference {largest}; from f32, native {native}, ONNX {onnx}");
    assert!(largest < LOGIT_BOUND, "{largest}");
    assert!(native < LOGIT_ROUNDING && native < onnx, "{native}, {onnx}");
}

#[test]
fn vectors_are_those_of_the_onnx_path() {
    let Some(pairs) = real_pairs(2, 10) else { return };
    let passages: Vec<&String> = pairs.iter().flat_map(|(_, passages)| passages).collect();
    let dir = tempfile::tempdir().unwrap();
    let folder = apart(BI, dir.path());
    let [onnx, native, reference] = engines().map(|settings| {
        let model = BiEncoder::from_folder_with(&folder, settings).unwrap();
        model.embed_passages(&passages).unwrap()
    });
    let least = |left: &[Vec<f32>], right: &[Vec<f32>]| {
        left.iter().zip(right).map(|(a, b)| cosine(a, b)).fold(1.0, f32::min)
    };
    let between = least(&native, &onnx);
    let (native, onnx) = (least(&native, &reference), least(&onnx, &reference));
    println!("vectors: least cosine {between}; with f32, native {native}, ONNX {onnx}");
    assert_eq!(reference.len(), 20);
    assert!(between > COSINE_BOUND, "{between}");
    assert!(native > COSINE_ROUNDING && native > onnx, "{native}, {onnx}");
}

/// All figures of a few models as bits, a line each.
fn figures() -> String {
    let mut text = String::new();
    let mut add = |name: &str, values: &[f32]| {
        writeln!(text, "bits {name} {:x?}", bits(values)).unwrap();
    };
    let sequences = [70, 33, 1].map(|length| sequence(length, length));
    let batch: TokenBatch = sequences.iter().collect();
    let real = native(&folder(CROSS));
    add("MiniLM-L12 int8", &real.encode(&batch, Output::Logits).unwrap());
    let dir = tempfile::tempdir().unwrap();
    for family in ["bert-cross", "modernbert-cross", "deberta-v2-cross"] {
        for precision in [Precision::Int8, Precision::F32] {
            let encoder =
                open(&tiny(family, dir.path()), settings(Choice::Native, precision)).unwrap();
            let values = encoder.encode(&batch, Output::Hidden).unwrap();
            add(&format!("{family} {}", precision.name()), &values);
        }
    }
    text
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    if env::var_os(ROLE).is_some() {
        println!("on {}\n{}", Isa::detect().unwrap(), figures());
        return;
    }
    let seen = |isa: Isa| -> Vec<String> {
        let test = "it::native::every_instruction_set_gives_the_same_bits";
        let text = child(test, &[("TOPSHELF_ISA", isa.name())]);
        assert!(text.contains(&format!("on {isa}\n")), "{text}");
        text.lines().filter(|line| line.starts_with("bits ")).map(str::to_owned).collect()
    };
    let available = Isa::available();
    let all: Vec<Vec<String>> = available.iter().map(|&isa| seen(isa)).collect();
    assert_eq!(all[0].len(), 7);
    for (lines, isa) in all.iter().zip(&available).skip(2) {
        for (line, expected) in lines.iter().zip(&all[1]) {
            let name = line.split('[').next().unwrap();
            assert!(line == expected, "{name}differ between {isa} and {}", available[1]);
        }
    }
    // Portable code has no fused multiply-add.
    for (portable, other) in all[0].iter().zip(all.get(1).into_iter().flatten()) {
        let differences =
            values(portable).into_iter().zip(values(other)).map(|(a, b)| (a - b).abs());
        let largest = differences.fold(0.0, f32::max);
        let name = portable.split('[').next().unwrap();
        println!("{name}differ by {largest} on portable");
        let bound = if name.contains("int8") { PORTABLE_INT8_BOUND } else { PORTABLE_F32_BOUND };
        assert!(largest < bound, "{name}{largest}");
    }
}

/// The numbers of a line of [`figures`].
fn values(line: &str) -> Vec<f32> {
    let (_, list) = line.trim_end_matches(']').split_once('[').unwrap();
    list.split(", ").map(|hex| f32::from_bits(u32::from_str_radix(hex, 16).unwrap())).collect()
}

#[test]
fn a_call_like_the_last_one_allocates_little() {
    if env::var_os(ROLE).is_none() {
        child("it::native::a_call_like_the_last_one_allocates_little", &[]);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for family in ["bert-cross", "modernbert-cross", "deberta-v2-cross"] {
        for precision in [Precision::Int8, Precision::Bf16, Precision::F32] {
            let encoder =
                open(&tiny(family, dir.path()), settings(Choice::Native, precision)).unwrap();
            for count in [8, 80] {
                let sequences: Vec<Sequence> =
                    (0..count).map(|n| sequence(80 - n % 40, n)).collect();
                let batch: TokenBatch = sequences.iter().collect();
                for want in [Output::Logits, Output::Cls, Output::Hidden] {
                    encoder.encode(&batch, want).unwrap();
                    let before = allocations();
                    encoder.encode(&batch, want).unwrap();
                    let made = allocations() - before;
                    println!("{family} {precision:?} {want:?} {count} sequences: {made}");
                    let bound = ALLOCATIONS + ALLOCATIONS_PER_SEQUENCE * count;
                    assert!(made <= bound, "{made} are more than {bound}");
                }
            }
        }
    }
}

#[test]
fn one_token_and_512_run_together_and_nothing_is_nothing() {
    let native = native(&folder(CROSS));
    let sequences = [sequence(512, 1), sequence(1, 2), sequence(511, 3), sequence(2, 4)];
    let together = native.encode(&sequences.iter().collect(), Output::Logits).unwrap();
    let alone: Vec<f32> = sequences
        .iter()
        .flat_map(|one| native.encode(&[one].into_iter().collect(), Output::Logits).unwrap())
        .collect();
    assert_eq!(bits(&together), bits(&alone));
    assert!(together.iter().all(|logit| logit.is_finite()), "{together:?}");
    for want in [Output::Logits, Output::Cls, Output::Hidden] {
        assert!(native.encode(&TokenBatch::default(), want).unwrap().is_empty());
    }
}

#[test]
fn input_beyond_the_models_tables_is_refused_with_the_reason() {
    let (cross, bi) = (native(&folder(CROSS)), native(&folder(BI)));
    let of = |ids: Vec<u32>, types: Vec<u32>| Sequence { ids, type_ids: types, unattended: 0 };
    let refused = |encoder: &dyn Encoder, odd: &Sequence, want, reason: &str| {
        let error =
            encoder.encode(&[&sequence(9, 1), odd].into_iter().collect(), want).unwrap_err();
        assert!(matches!(error, ModelError::Inference { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    };
    let cross = cross.as_ref();
    refused(cross, &of(vec![30_522], vec![0]), Output::Logits, "token 30522 is not in the model's");
    refused(cross, &of(vec![u32::MAX], vec![0]), Output::Logits, "vocabulary of 30522");
    refused(cross, &of(vec![5, 6], vec![0, 2]), Output::Logits, "token type 2 is not known");
    refused(cross, &sequence(513, 0), Output::Logits, "513 tokens");
    refused(cross, &sequence(0, 0), Output::Logits, "without tokens");
    refused(bi.as_ref(), &sequence(3, 0), Output::Logits, "no classification head");
    // What it refused did it no harm.
    let last = of(vec![30_521, 0], vec![1, 0]);
    assert!(cross.encode(&[&last].into_iter().collect(), Output::Logits).unwrap()[0].is_finite());
}

#[test]
fn what_it_does_not_know_runs_on_the_onnx_runtime_and_says_so() {
    let mut folder = folder(CROSS);
    folder.spec.config.as_mut().unwrap()["model_type"] = "deberta".into();
    let encoder = open(&folder, settings(Choice::Either, Precision::Int8)).unwrap();
    let engine = encoder.engine();
    assert!(engine.starts_with("rten") && engine.contains("(not native: "), "{engine}");
    assert!(engine.contains("deberta"), "{engine}");
    let batch: TokenBatch = [&sequence(12, 1)].into_iter().collect();
    assert_eq!(encoder.encode(&batch, Output::Logits).unwrap().len(), 1);

    let error = open(&folder, settings(Choice::Native, Precision::Int8)).err().unwrap();
    assert!(matches!(error, ModelError::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains("deberta"), "{error}");
    folder.spec.config = None;
    let encoder = open(&folder, settings(Choice::Either, Precision::Int8)).unwrap();
    assert!(encoder.engine().contains("no config.json"), "{}", encoder.engine());
}
