use proptest::prelude::*;

use super::*;
use crate::fuse::Normalisation;

fn patch_of(json: &str) -> SetupPatch {
    serde_json::from_str(json).unwrap()
}

/// What the default setup becomes with the patch, or why not.
fn with(json: &str) -> Result<Setup> {
    Setup::default().with(&patch_of(json))
}

#[test]
fn nothing_changes_nothing() {
    assert_eq!(with("{}").unwrap(), Setup::default());
}

#[test]
fn what_cannot_be_combined_is_named() {
    let fusion = r#"{"method": "weighted", "normalisation": "min_max", "weights": []}"#;
    let cases = [
        (r#"{"depth": 0}"#, "the depth is 0"),
        (r#"{"depth": 100001}"#, "the depth cannot be 100001"),
        (r#"{"top": 0}"#, "zero results"),
        (r#"{"top": 101}"#, "101 results"),
        (r#"{"weights": [1, 2]}"#, "weights of the retrievers cannot be combined"),
        (&format!(r#"{{"fusion": {fusion}, "rrf_k": 10}}"#), "the k of reciprocal rank fusion"),
        (
            &format!(r#"{{"fusion": {fusion}, "weights": [1, 2], "retriever": "hybrid+colbert"}}"#),
            "2 weights for 3 rankings",
        ),
        (r#"{"rrf_k": -1}"#, "the k of reciprocal rank fusion cannot be -1"),
        (r#"{"b": 1.5}"#, "b of BM25"),
        (r#"{"k1": -0.5}"#, "k1 of BM25"),
        (r#"{"title_weight": -1}"#, "the title weight"),
        (r#"{"rerank": "none", "then": [{"model": "m", "keep": 3}]}"#, "a further reranker"),
        (r#"{"then": [{"model": "m", "keep": 0}]}"#, "how many go on"),
        (r#"{"rerank": " , "}"#, "no reranker"),
        (r#"{"long_documents": "head", "windows": 3}"#, "numbers of windows"),
        (r#"{"windows": 0}"#, "the windows of a document"),
        (r#"{"windows": 1001}"#, "the windows of a document"),
        (r#"{"window_tokens": 0}"#, "the tokens of a window"),
        (r#"{"blend": 2}"#, "the blend's weight"),
        (r#"{"blend_score": "probability"}"#, "a blend without a weight"),
        (r#"{"min_relevance": -1}"#, "the least relevance"),
        (r#"{"min_relevance": 0.5, "gate": "agreement:3>=0.5"}"#, "a gate cannot be combined"),
        (r#"{"budget": 0}"#, "the tokens of the sources"),
    ];
    for (json, says) in cases {
        let error = with(json).unwrap_err().to_string();
        assert!(error.contains(says), "{json}: {error}");
    }
    let many: Vec<String> = (0..17).map(|n| format!("m{n}")).collect();
    let error = with(&format!(r#"{{"rerank": "{}"}}"#, many.join(","))).unwrap_err();
    assert!(error.to_string().contains("stand-ins"), "{error}");
    let error = with(&format!(r#"{{"rerank": "a{}"}}"#, ",".repeat(5_000))).unwrap_err();
    assert!(error.to_string().contains("the length of rerankers' names"), "{error}");
}

#[test]
fn a_named_reranker_begins_a_second_stage_of_its_own() {
    let tuned = with(r#"{"blend": 0.4, "windows": 2, "gate": "margin:dense:3>=0.1"}"#).unwrap();
    let other = tuned.with(&patch_of(r#"{"rerank": "other"}"#)).unwrap();
    let second = other.second_stage.unwrap();
    assert_eq!(second.cascade.first.model, "other");
    let usual = SecondStageSetup::default();
    assert_eq!((second.blend, second.windows, second.gate), (usual.blend, usual.windows, None));
    let more = tuned.with(&patch_of(r#"{"then": [{"model": "m", "keep": 3}]}"#)).unwrap();
    let second = more.second_stage.unwrap();
    assert_eq!(second.cascade.first.model, DEFAULT_RERANKER);
    assert_eq!((second.cascade.last().keep, second.gate), (Some(3), None));
    assert!(tuned.with(&patch_of(r#"{"rerank": "none"}"#)).unwrap().second_stage.is_none());
}

#[test]
fn what_is_asked_for_brings_what_it_needs() {
    let bare = Setup::default().without_reranking();
    let more = bare.with(&patch_of(r#"{"then": [{"model": "m", "keep": 3}]}"#)).unwrap();
    assert_eq!(more.second_stage.unwrap().cascade.first.model, DEFAULT_RERANKER);
    let head = with(r#"{"long_documents": "head"}"#).unwrap();
    let windows = head.with(&patch_of(r#"{"windows": 2}"#)).unwrap().second_stage.unwrap().windows;
    assert_eq!(windows.map(|own| own.most), Some(2));
}

#[test]
fn all_the_weight_is_no_blend() {
    assert_eq!(with(r#"{"blend": 1}"#).unwrap().second_stage.unwrap().blend, None);
}

#[test]
fn an_unknown_field_is_rejected() {
    assert!(serde_json::from_str::<SetupPatch>(r#"{"dept": 3}"#).is_err());
    assert!(serde_json::from_str::<SetupPatch>(r#"{"deadline_ms": 0}"#).is_err());
    assert!(serde_json::from_str::<SetupPatch>(r#"{"deadline_ms": 1e300}"#).is_err());
    let patch = patch_of(r#"{"deadline_ms": 1.5}"#);
    assert_eq!(patch.deadline, Some(Duration::from_micros(1500)));
}

fn patches() -> impl Strategy<Value = SetupPatch> {
    let first = (
        proptest::option::of(prop_oneof![
            Just(Retrievers::BM25),
            Just(Retrievers::HYBRID),
            Just(Retrievers::ALL)
        ]),
        proptest::option::of(1..200usize),
        proptest::option::of(prop_oneof![
            Just(Fusion::default()),
            Just(Fusion::Weighted { normalisation: Normalisation::ZScore, weights: Vec::new() })
        ]),
        proptest::option::of(0.0..100f32),
        proptest::option::of(0.0..1f32),
    );
    let second = (
        proptest::option::of(prop_oneof![Just("none"), Just("a"), Just("a,b")]),
        proptest::option::of(0.0..1f32),
        proptest::option::of(1..5usize),
        proptest::option::of(1..20usize),
    );
    (first, second).prop_map(|(first, second)| {
        let (retriever, depth, fusion, rrf_k, b) = first;
        let (rerank, blend, windows, top) = second;
        let rerank = rerank.map(str::to_owned);
        SetupPatch {
            retriever,
            depth,
            fusion,
            rrf_k,
            b,
            rerank,
            windows,
            blend,
            top,
            ..SetupPatch::default()
        }
    })
}

proptest! {
    /// A patch and a setup are read as they were written, and a patch laid over twice is laid over once.
    #[test]
    fn what_is_written_is_read(patch in patches()) {
        let text = serde_json::to_string(&patch).unwrap();
        prop_assert_eq!(&patch_of(&text), &patch);
        if let Ok(setup) = Setup::default().with(&patch) {
            let text = serde_json::to_string(&setup).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Setup>(&text).unwrap(), &setup);
            prop_assert_eq!(setup.with(&patch).unwrap(), setup);
        }
    }
}
