//! Dense retrieval by scan against brute force.

use topshelf_core::{Call, Embedder, Query, Retriever};
use topshelf_index::{Index, IndexError, Precision, Settings, Writer};

use super::support::{Answer, Bag, DIMENSION, Fault, Shelf, ask, passage, text};

const QUERIES: [&str; 5] = ["w1 w2 w3", "w7", "w11 w11 w12 w13 w14 w15", "w30 w31 w32", "unseen"];

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn exact(vector: &[f32]) -> Vec<f64> {
    vector.iter().copied().map(f64::from).collect()
}

/// What the documented quantisation keeps of a vector: `scale = max|x| / 127`, integers.
fn quantised(vector: &[f32]) -> Vec<f64> {
    let scale = vector.iter().fold(0.0_f32, |most, x| most.max(x.abs())) / 127.0;
    if scale == 0.0 {
        return vec![0.0; vector.len()];
    }
    vector.iter().map(|x| f64::from((x / scale).round_ties_even() * scale)).collect()
}

/// How far the quantised vector may be from the vector: half a step in each number.
fn quantisation_error(vector: &[f32]) -> f64 {
    let most = vector.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    (DIMENSION as f64).sqrt() * f64::from(most) / 254.0
}

/// All documents with the cosine that `keep` makes of query and document, best first.
fn brute_force(
    index: &Index,
    query: &str,
    documents: &[String],
    keep: fn(&[f32]) -> Vec<f64>,
) -> Vec<(String, f64)> {
    let query = keep(&Bag::vector(query));
    let mut all: Vec<(String, f64)> = documents
        .iter()
        .map(|document| {
            let passage = passage(index, document);
            (passage.id.clone(), dot(&query, &keep(&Bag::vector(&passage.model_text()))))
        })
        .collect();
    all.sort_by(|left, right| right.1.total_cmp(&left.1).then(left.0.cmp(&right.0)));
    all
}

/// Asserts that the answer has the best scores, each passage its own.
fn assert_best(answer: &Answer, all: &[(String, f64)], depth: usize) {
    assert_eq!(answer.len(), depth.min(all.len()));
    for (place, (id, score)) in answer.iter().enumerate() {
        let own = all.iter().find(|(other, _)| other == id).unwrap().1;
        assert!((f64::from(*score) - own).abs() <= 1e-6, "{id}: {score} instead of {own}");
        // Equal cosines may stand in either order.
        assert!((f64::from(*score) - all[place].1).abs() <= 1e-6, "{id} at place {place}");
    }
}

/// Several generations with changes and removals; answers the ids that are left.
fn grown(shelf: &Shelf) -> Vec<String> {
    for n in 0..120 {
        shelf.write(&format!("{n}.txt"), &text(n, 9, 40));
    }
    shelf.add();
    for n in 0..10 {
        shelf.write(&format!("{n}.txt"), &text(1000 + n, 9, 40));
    }
    for n in 100..115 {
        shelf.delete(&format!("{n}.txt"));
    }
    shelf.write("new.txt", &text(5000, 9, 40));
    shelf.sync();
    let numbered = (0..100).chain(115..120).map(|n| format!("{n}.txt"));
    numbered.chain(["new.txt".to_owned()]).collect()
}

#[test]
fn f32_is_brute_force() {
    let shelf = Shelf::new(Precision::F32);
    let documents = grown(&shelf);
    let index = shelf.index();
    let dense = index.dense(Bag::new()).unwrap();
    for query in QUERIES {
        let all = brute_force(&index, query, &documents, exact);
        for depth in [0, 1, 10, 1000] {
            assert_best(&ask(&dense, query, depth), &all, depth);
        }
    }
}

#[test]
fn int8_is_brute_force_within_the_quantisation() {
    let shelf = Shelf::new(Precision::Int8);
    let documents = grown(&shelf);
    let index = shelf.index();
    let dense = index.dense(Bag::new()).unwrap();
    for query in QUERIES {
        let all = brute_force(&index, query, &documents, quantised);
        for depth in [1, 10, 1000] {
            assert_best(&ask(&dense, query, depth), &all, depth);
        }
        let unquantised = brute_force(&index, query, &documents, exact);
        let of_query = quantisation_error(&Bag::vector(query));
        for (id, score) in ask(&dense, query, 1000) {
            let right = unquantised.iter().find(|(other, _)| *other == id).unwrap().1;
            let document = passage(&index, id.trim_end_matches("#0"));
            let of_row = quantisation_error(&Bag::vector(&document.model_text()));
            // |q·r - q'·r'| <= |q·(r - r')| + |(q - q')·r'| for unit q, r
            let bound = of_row + of_query * (1.0 + of_row) + 1e-6;
            assert!((f64::from(score) - right).abs() <= bound, "{id}: {score}, {right}, {bound}");
        }
    }
}

#[test]
fn another_model_and_no_vectors_are_refused() {
    let shelf = Shelf::new(Precision::Int8);
    shelf.write("a.txt", "rope");
    shelf.add();
    let refused = shelf.index().dense(Bag::other()).map(|_| ());
    assert!(matches!(refused, Err(IndexError::EmbedderMismatch { expected, given })
        if expected == "bag" && given == "other"));
    let refused = shelf.try_add(&*Bag::other(), &shelf.options());
    assert!(matches!(refused, Err(IndexError::EmbedderMismatch { .. })));
    let settings = Settings::with_embedder(&*Bag::other());
    let refused = Writer::create_or_open(&shelf.dir(), &settings).map(|_| ());
    assert!(matches!(refused, Err(IndexError::EmbedderMismatch { .. })));
    let settings = Settings { precision: Precision::F32, ..shelf.settings.clone() };
    let refused = Writer::create_or_open(&shelf.dir(), &settings).map(|_| ());
    assert!(matches!(refused, Err(IndexError::SettingFixed { .. })));

    let shelf = Shelf::of_words();
    shelf.write("a.txt", "rope");
    shelf.add();
    assert!(matches!(shelf.index().dense(Bag::new()).map(|_| ()), Err(IndexError::NoVectors)));
}

#[test]
fn a_query_vector_that_is_none_is_refused() {
    let shelf = Shelf::new(Precision::Int8);
    shelf.write("a.txt", "rope");
    shelf.add();
    let query = Query::new("rope").unwrap();
    for fault in [Fault::TooFew, Fault::TooShort, Fault::NotANumber] {
        let dense = shelf.index().dense(Bag::with_fault(fault)).unwrap();
        let error = pollster::block_on(dense.retrieve(&Call::new(), &query, 10)).unwrap_err();
        assert!(error.to_string().contains("\"bag\""), "{fault:?}: {error}");
    }
}

#[test]
fn passages_are_embedded_with_their_trail() {
    let shelf = Shelf::new(Precision::F32);
    shelf.write("a.md", "# Lantern\n\nIt hangs on the mast.\n");
    shelf.add();
    let index = shelf.index();
    let text = passage(&index, "a.md").model_text();
    let bag = Bag::new();
    let answer = ask(&index.dense(bag.clone()).unwrap(), &text, 1);
    assert!((answer[0].1 - 1.0).abs() < 1e-6, "the text itself is at cosine 1: {answer:?}");
    assert_eq!(bag.embedded(), 1);
    assert_eq!(bag.dimension(), DIMENSION);
}
