//! The real models, from text to scores and vectors.
//!
//! `tests/data/ort_goldens.json` is made by `scripts/ort_goldens.py` with ONNX Runtime. Why the
//! tolerances of the ONNX path are what they are stands in `src/onnx.rs`. The native engine rounds
//! activations row by row where ONNX Runtime has one scale for all rows, so it is further off.
//! Measured, largest and mean: 0.94 and 0.058 for logits, 0.0170 and 0.0058 for cosines. Without
//! any rounding of activations, in f32, it is as far off, 0.88 and 0.057, 0.0208 and 0.0053: the
//! difference is ONNX Runtime's own rounding (`native.rs` measures each engine's).

use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use pollster::block_on;
use serde::Deserialize;
use topshelf_core::{Call, EmbedKind, Embedder, Passage, Query, Reranker, Scale};
use topshelf_models::encoder::{Encoder, Output, Sequence, TokenBatch};
use topshelf_models::engine::{Choice, Settings};
use topshelf_models::native::Precision;
use topshelf_models::onnx::OnnxEncoder;
use topshelf_models::tokenise::TextTokenizer;
use topshelf_models::{BiEncoder, CrossEncoder, Family, ModelError, ModelFolder, Store};

pub(super) const CROSS: &str = "cross-encoder/ms-marco-MiniLM-L12-v2";
pub(super) const BI: &str = "BAAI/bge-small-en-v1.5";

pub(super) fn folder(name: &str) -> ModelFolder {
    Store::open_default().unwrap().find_or_pull(name, &()).unwrap()
}

fn cross() -> CrossEncoder {
    static MODEL: OnceLock<CrossEncoder> = OnceLock::new();
    MODEL.get_or_init(|| CrossEncoder::from_folder(&folder(CROSS)).unwrap()).clone()
}

fn bi() -> BiEncoder {
    static MODEL: OnceLock<BiEncoder> = OnceLock::new();
    MODEL.get_or_init(|| BiEncoder::from_folder(&folder(BI)).unwrap()).clone()
}

#[derive(Deserialize)]
struct Texts {
    queries: Vec<String>,
    documents: Vec<String>,
}

/// Query, document, logit with graph optimisations off and on, cosine with them off and on.
type Row = (usize, usize, f32, f32, f32, f32);

#[derive(Deserialize)]
struct Goldens {
    rows: Vec<Row>,
}

fn goldens() -> (Texts, Vec<Row>) {
    let texts = serde_json::from_str(include_str!("../data/pairs.json")).unwrap();
    let goldens: Goldens = serde_json::from_str(include_str!("../data/ort_goldens.json")).unwrap();
    assert!(goldens.rows.len() >= 200);
    (texts, goldens.rows)
}

fn pairs<'t>(texts: &'t Texts, rows: &[Row]) -> Vec<(&'t str, &'t str)> {
    rows.iter().map(|row| (&*texts.queries[row.0], &*texts.documents[row.1])).collect()
}

/// Largest and mean absolute difference.
fn difference(left: &[f32], right: impl Iterator<Item = f32>) -> (f32, f32) {
    let differences: Vec<f32> = left.iter().zip(right).map(|(l, r)| (l - r).abs()).collect();
    assert_eq!(differences.len(), left.len());
    let largest = differences.iter().copied().fold(0.0, f32::max);
    (largest, differences.iter().sum::<f32>() / differences.len() as f32)
}

pub(super) fn cosine(left: &[f32], right: &[f32]) -> f32 {
    left.iter().zip(right).map(|(l, r)| l * r).sum()
}

/// Whether this CPU rounds int8 products of the full range more coarsely; see `src/onnx.rs`.
fn int8_products_saturate() -> bool {
    #[cfg(target_arch = "x86_64")]
    return !std::arch::is_x86_feature_detected!("avx512vnni");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

pub(super) fn bits(scores: &[f32]) -> Vec<u32> {
    scores.iter().map(|score| score.to_bits()).collect()
}

/// The model with another folder for what is kept beside its files: packed weights are large, and
/// the user's store need not have those that only tests ask for.
pub(super) fn apart(name: &str, dir: &Path) -> ModelFolder {
    let mut folder = folder(name);
    for file in &mut folder.spec.files {
        file.path = Some(folder.dir.join(file.path()).to_str().unwrap().to_owned());
    }
    ModelFolder { dir: dir.to_owned(), ..folder }
}

/// A copy of a model's folder that a test may damage.
fn copy(name: &str) -> (tempfile::TempDir, ModelFolder) {
    let original = folder(name);
    let dir = tempfile::tempdir().unwrap();
    for file in ["model.onnx", "tokenizer.json"] {
        fs::copy(original.file(file), dir.path().join(file)).unwrap();
    }
    let folder = ModelFolder { dir: dir.path().to_owned(), ..original };
    (dir, folder)
}

fn cut(path: &Path, bytes: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length - bytes).unwrap();
}

/// Runs both engines, in f32 too, and compares with the goldens' figures without and with graph
/// optimisations; the bounds are of the largest and the mean difference.
fn check(what: &str, bounds: [(f32, f32); 3], figures: impl Fn(Settings) -> [(f32, f32); 2]) {
    let engines = [
        (Choice::Onnx, Precision::Int8),
        (Choice::Native, Precision::Int8),
        (Choice::Native, Precision::F32),
    ];
    for ((engine, precision), bound) in engines.into_iter().zip(bounds) {
        let found = figures(Settings { engine, precision, threads: 2 });
        println!("{what}, {engine:?} {precision:?}: optimisations off and on {found:?}");
        for (largest, mean) in found {
            assert!(largest < bound.0 && mean < bound.1, "{what} {engine:?} {precision:?}");
        }
    }
}

#[test]
fn logits_agree_with_onnx_runtime() {
    let (texts, rows) = goldens();
    let pairs = pairs(&texts, &rows);
    let dir = tempfile::tempdir().unwrap();
    let folder = apart(CROSS, dir.path());
    let mean = if int8_products_saturate() { 0.25 } else { 0.05 };
    check("logits", [(0.8, mean), (1.2, 0.1), (1.2, 0.1)], |settings| {
        let model = CrossEncoder::from_folder_with(&folder, settings).unwrap();
        let scores = model.predict(&pairs).unwrap();
        [
            difference(&scores, rows.iter().map(|row| row.2)),
            difference(&scores, rows.iter().map(|row| row.3)),
        ]
    });
}

#[test]
fn cosines_agree_with_onnx_runtime() {
    let (texts, rows) = goldens();
    let dir = tempfile::tempdir().unwrap();
    let folder = apart(BI, dir.path());
    check("cosines", [(0.02, 0.003), (0.03, 0.01), (0.03, 0.01)], |settings| {
        let model = BiEncoder::from_folder_with(&folder, settings).unwrap();
        let queries = model.embed_queries(&texts.queries).unwrap();
        let documents = model.embed_passages(&texts.documents).unwrap();
        let cosines: Vec<f32> =
            rows.iter().map(|row| cosine(&queries[row.0], &documents[row.1])).collect();
        [
            difference(&cosines, rows.iter().map(|row| row.4)),
            difference(&cosines, rows.iter().map(|row| row.5)),
        ]
    });
}

#[test]
fn scores_stand_in_the_order_of_the_pairs_and_depend_on_the_pair_alone() {
    let (texts, rows) = goldens();
    let pairs = pairs(&texts, &rows[..40]);
    let together = cross().predict(&pairs).unwrap();
    let alone: Vec<f32> =
        pairs.iter().map(|pair| cross().predict(std::slice::from_ref(pair)).unwrap()[0]).collect();
    assert_eq!(bits(&together), bits(&alone));
    let backwards: Vec<_> = pairs.iter().rev().copied().collect();
    let mut scores = cross().predict(&backwards).unwrap();
    scores.reverse();
    assert_eq!(bits(&together), bits(&scores));
}

#[test]
fn threads_and_neighbours_change_no_bit_of_any_output() {
    let folder = folder(BI);
    let tokenizer = TextTokenizer::load(&folder).unwrap();
    let (texts, _) = goldens();
    let sequences: Vec<Sequence> = texts.documents[..12]
        .iter()
        .map(|text| tokenizer.single(&tokenizer.tokenise(text).unwrap()).sequence)
        .collect();
    let batch: TokenBatch = sequences.iter().collect();
    for want in [Output::Cls, Output::Hidden] {
        let one = OnnxEncoder::load(&folder, 1).unwrap();
        let alone: Vec<f32> = sequences
            .iter()
            .flat_map(|sequence| one.encode(&[sequence].into_iter().collect(), want).unwrap())
            .collect();
        let width = one.width(want).unwrap();
        let rows = if want == Output::Cls { batch.len() } else { batch.ids().len() };
        assert_eq!(alone.len(), rows * width);
        for threads in [1, 2, 3] {
            let encoder = OnnxEncoder::load(&folder, threads).unwrap();
            assert_eq!(bits(&encoder.encode(&batch, want).unwrap()), bits(&alone));
            let first = encoder.encode(&sequences[..1].iter().collect(), want).unwrap();
            assert_eq!(bits(&first), bits(&alone[..first.len()]));
        }
        assert!(one.encode(&TokenBatch::default(), want).unwrap().is_empty());
    }
}

#[test]
fn an_output_that_the_model_lacks_is_an_error() {
    let encoder = OnnxEncoder::load(&folder(BI), 1).unwrap();
    assert_eq!(encoder.width(Output::Logits), None);
    let sequence = Sequence { ids: vec![101, 102], type_ids: vec![0, 0], unattended: 0 };
    let error = encoder.encode(&[&sequence].into_iter().collect(), Output::Logits).unwrap_err();
    assert!(matches!(error, ModelError::Inference { .. }), "{error}");
    let empty = Sequence::default();
    let error = encoder.encode(&[&empty].into_iter().collect(), Output::Cls).unwrap_err();
    assert!(error.to_string().contains("without tokens"), "{error}");
}

#[test]
fn two_threads_share_one_model() {
    let (texts, rows) = goldens();
    let pairs = pairs(&texts, &rows[..30]);
    let expected = bits(&cross().predict(&pairs).unwrap());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let model = cross();
            scope.spawn(|| {
                let model = model;
                assert_eq!(bits(&model.predict(&pairs).unwrap()), expected);
            });
        }
    });
}

#[test]
fn documents_of_any_length_are_scored() {
    let model = cross();
    assert!(model.predict::<&str, &str>(&[]).unwrap().is_empty());
    assert_eq!(model.rank::<&str>("a query", &[], None).unwrap(), []);
    let empty = model.predict(&[("how long do cats live", "")]).unwrap();
    assert!(empty[0].is_finite());

    // Each of these words is one token, so it is known what the window leaves.
    let (query, words) = ("how long do cats live", 25_000);
    let kept = model.max_tokens() - 3 - 5;
    let long = "cat ".repeat(words);
    assert_eq!(long.chars().count(), 100_000);
    let head = "cat ".repeat(kept);
    let scored = model.predict_scored(&[(query, &long), (query, &head)]).unwrap();
    assert_eq!(scored[0].truncated_tokens, words - kept);
    assert_eq!((scored[1].truncated_tokens, scored[1].query_truncated_tokens), (0, 0));
    assert_eq!(scored[0].score.to_bits(), scored[1].score.to_bits());
}

#[test]
fn a_query_takes_half_of_the_window_at_most() {
    let model = cross();
    let half = model.max_tokens() / 2;
    let (long, cut) = ("cat ".repeat(400), "cat ".repeat(half));
    let scored = model.predict_scored(&[(&long, "cats sleep"), (&cut, "cats sleep")]).unwrap();
    assert_eq!(scored[0].query_truncated_tokens, 400 - half);
    assert_eq!(scored[0].score.to_bits(), scored[1].score.to_bits());
    assert_eq!(scored[0].truncated_tokens, 0);
}

#[test]
fn a_query_ranks_its_documents() {
    let documents =
        ["Sydney is large.", "Canberra is the capital of Australia.", "Sydney is large.", "Cats."];
    let ranked = cross().rank("what is the capital of Australia?", &documents, None).unwrap();
    assert_eq!(ranked[0].index, 1);
    assert_eq!(ranked[0].text, documents[1]);
    assert!(ranked.windows(2).all(|two| two[0].score >= two[1].score));
    let twins: Vec<usize> =
        ranked.iter().filter(|one| one.text == documents[0]).map(|one| one.index).collect();
    assert_eq!(twins, [0, 2]); // equal scores: as given
    let top = cross().rank("what is the capital of Australia?", &documents, Some(2)).unwrap();
    assert_eq!(top, ranked[..2]);
}

#[test]
fn as_a_reranker_it_reads_title_and_text() {
    let model = cross();
    let query = Query::new("what is the capital of Australia?").unwrap();
    let passages = [
        Arc::new(Passage::standalone("a", "", "It was founded in 1913.")),
        Arc::new(Passage::standalone(
            "b",
            "Canberra, capital of Australia",
            "It was founded in 1913.",
        )),
    ];
    let outcomes = block_on(model.score(&Call::new(), &query, &passages)).unwrap();
    let scores: Vec<f32> = outcomes.into_iter().map(|outcome| outcome.unwrap().score).collect();
    let texts = passages.each_ref().map(|passage| (query.text(), passage.model_text()));
    assert_eq!(bits(&scores), bits(&model.predict(&texts).unwrap()));
    assert!(scores[1] > scores[0] + 1.0, "{scores:?}");
    assert_eq!(model.scale(), Scale::Logit);
    assert_eq!(model.identity().name, CROSS);
    assert_eq!(model.identity().fingerprint, folder(CROSS).fingerprint);
}

#[test]
fn vectors_have_length_one_and_queries_have_their_prefix() {
    let model = bi();
    let text = "how are violins tuned";
    let query = model.embed_queries(&[text]).unwrap().remove(0);
    let passage = model.embed_passages(&[text]).unwrap().remove(0);
    for vector in [&query, &passage] {
        assert_eq!(vector.len(), model.dimension());
        assert!((cosine(vector, vector) - 1.0).abs() < 1e-5);
    }
    assert!(cosine(&query, &passage) < 0.99);
    let prefixed = format!("{}{text}", folder(BI).spec.query_prefix);
    assert_eq!(bits(&model.embed_passages(&[prefixed]).unwrap()[0]), bits(&query));
    let embedded = block_on(model.embed(&Call::new(), EmbedKind::Query, &[text])).unwrap();
    assert_eq!(bits(&embedded[0]), bits(&query));
    assert_eq!(model.embed_passages::<&str>(&[]).unwrap(), Vec::<Vec<f32>>::new());
}

#[test]
fn a_query_without_a_known_token_is_refused_and_a_passage_is_not() {
    let model = bi();
    for query in ["\u{1f9c0}\u{1f9c0} \u{1fae0}", ""] {
        let error = model.embed_queries(&[query]).unwrap_err();
        assert!(matches!(error, ModelError::UnknownTokens { .. }), "{error}");
        let error = block_on(model.embed(&Call::new(), EmbedKind::Query, &[query])).unwrap_err();
        assert!(matches!(error, topshelf_core::Error::NothingToLookUp { .. }), "{error}");
        assert_eq!(model.embed_passages(&[query]).unwrap().len(), 1);
    }
    assert!(model.embed_queries(&["\u{1f9c0} cheese"]).is_ok());
}

#[test]
fn a_long_passage_is_embedded_by_its_beginning() {
    let model = bi();
    let kept = model.max_tokens() - 2;
    let vectors = model.embed_passages(&["cat ".repeat(25_000), "cat ".repeat(kept)]).unwrap();
    assert_eq!(bits(&vectors[0]), bits(&vectors[1]));
    assert_eq!(model.count_tokens(&"cat ".repeat(25_000)), 25_000);
    assert_eq!(model.count_tokens(""), 0);
}

#[test]
fn a_damaged_file_is_refused_with_the_reason() {
    for bytes in [1, 1000, 30_000_000] {
        let (_dir, folder) = copy(CROSS);
        cut(&folder.file("model.onnx"), bytes);
        let error = CrossEncoder::from_folder(&folder).unwrap_err();
        assert!(matches!(&error, ModelError::Damaged { .. }), "{bytes}: {error}");
        assert!(error.to_string().contains("model.onnx"), "{error}");
    }
    let (_dir, folder) = copy(CROSS);
    cut(&folder.file("tokenizer.json"), 1);
    let error = CrossEncoder::from_folder(&folder).unwrap_err();
    assert!(matches!(&error, ModelError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
    fs::remove_file(folder.file("tokenizer.json")).unwrap();
    let error = CrossEncoder::from_folder(&folder).unwrap_err();
    assert!(matches!(&error, ModelError::Io { .. }), "{error}");
}

#[test]
fn weights_without_a_head_are_no_cross_encoder() {
    let mut bi = folder(BI);
    let error = CrossEncoder::from_folder(&bi).unwrap_err();
    assert!(matches!(error, ModelError::WrongFamily { .. }), "{error}");
    bi.spec.family = Family::CrossEncoder;
    let error = CrossEncoder::from_folder(&bi).unwrap_err();
    assert!(matches!(error, ModelError::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains("no output of logits"), "{error}");
    let mut other = folder(BI);
    other.spec.dimension = Some(768);
    let error = BiEncoder::from_folder(&other).unwrap_err();
    assert!(error.to_string().contains("rows of 384"), "{error}");
}

#[test]
fn a_model_that_misses_its_golden_pair_is_refused() {
    let mut folder = folder(CROSS);
    folder.spec.golden[0].score += 3.0;
    let error = CrossEncoder::from_folder(&folder).unwrap_err();
    assert!(matches!(error, ModelError::Golden { .. }), "{error}");

    // The right weights with a tokenizer of another vocabulary run, and are found out.
    let (_dir, swapped) = copy(CROSS);
    let text = fs::read_to_string(swapped.file("tokenizer.json")).unwrap();
    let mut tokenizer: serde_json::Value = serde_json::from_str(&text).unwrap();
    for id in tokenizer["model"]["vocab"].as_object_mut().unwrap().values_mut() {
        let shifted = id.as_u64().unwrap();
        if shifted > 1000 {
            *id = (1001 + (shifted - 1000) % 29_000).into();
        }
    }
    fs::write(swapped.file("tokenizer.json"), tokenizer.to_string()).unwrap();
    let error = CrossEncoder::from_folder(&swapped).unwrap_err();
    assert!(matches!(error, ModelError::Golden { .. }), "{error}");
}

/// The smallest ONNX files, written by hand: a field of the protobuf format is a key and a
/// length before its content.
mod onnx_file {
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        let mut length = content.len();
        while length >= 0x80 {
            bytes.push(length as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        bytes.extend_from_slice(content);
        bytes
    }

    fn number(field: u8, value: u8) -> Vec<u8> {
        vec![field << 3, value]
    }

    /// A tensor of the given element type (1 is f32, 7 is i64) and free shape [batch, tokens].
    fn value(name: &str, element: u8) -> Vec<u8> {
        let dimension = |name: &str| field(1, &field(2, name.as_bytes()));
        let shape = field(2, &[dimension("batch"), dimension("tokens")].concat());
        let tensor = field(1, &[number(1, element), shape].concat());
        [field(1, name.as_bytes()), field(2, &tensor)].concat()
    }

    /// A model of one operator from one i64 input to an f32 output `logits`.
    pub(super) fn of(input: &str, operator: &str) -> Vec<u8> {
        let node = [field(1, input.as_bytes()), field(2, b"logits"), field(4, operator.as_bytes())]
            .concat();
        let graph = [
            field(1, &node),
            field(2, b"graph"),
            field(11, &value(input, 7)),
            field(12, &value("logits", 1)),
        ]
        .concat();
        [number(1, 8), field(7, &graph), field(8, &number(2, 14))].concat()
    }
}

#[test]
fn what_cannot_be_run_is_refused_with_the_reason() {
    let (_dir, folder) = copy(CROSS);
    for (bytes, reason) in [
        (onnx_file::of("input_ids", "NoSuchOperator"), "NoSuchOperator"),
        (onnx_file::of("pixels", "Identity"), "pixels"),
        (onnx_file::of("input_ids", "Identity"), "neither an output `logits`"),
    ] {
        fs::write(folder.file("model.onnx"), bytes).unwrap();
        let error = CrossEncoder::from_folder(&folder).unwrap_err();
        assert!(matches!(&error, ModelError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
    for bytes in [&b"not an ONNX file"[..], b""] {
        fs::write(folder.file("model.onnx"), bytes).unwrap();
        let error = CrossEncoder::from_folder(&folder).unwrap_err();
        println!("{error}");
        assert!(
            matches!(&error, ModelError::Damaged { .. } | ModelError::Unsupported { .. }),
            "{error}"
        );
    }
}
