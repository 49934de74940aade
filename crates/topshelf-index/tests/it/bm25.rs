//! BM25 against its formula, written out plainly; scores know no history.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use topshelf_core::{Bm25Options, Call, Error, Query, Retriever};
use topshelf_index::Language;
use topshelf_index::analyse::Analyser;

use super::support::{Shelf, ask, ids};

/// Words that meet in stems ("flea", "fleas"), stop words, and a possessive.
const VOCABULARY: [&str; 12] = [
    "flea", "fleas", "jumping", "jumps", "the", "of", "harbour", "ship's", "lantern", "rope",
    "tides", "x86",
];

/// A document: words of its title, words of its text.
type Words = (Vec<usize>, Vec<usize>);

/// Documents by number.
type Corpus = BTreeMap<usize, Words>;

fn spell(words: &[usize]) -> String {
    words.iter().map(|word| VOCABULARY[*word]).collect::<Vec<_>>().join(" ")
}

/// Score of each document that has a term of the query, by the formula at the head of the
/// module `bm25`, in double precision.
fn reference(corpus: &Corpus, query: &str, options: Bm25Options) -> BTreeMap<String, f64> {
    let mut analyser = Analyser::new(Language::English);
    let mut terms = |text: &str| analyser.terms(text);
    let weight = f64::from(options.title_weight);
    let (k1, b) = (f64::from(options.k1), f64::from(options.b));
    let documents: Vec<(String, Vec<String>, Vec<String>)> = corpus
        .iter()
        .map(|(number, (title, text))| {
            (format!("d{number}#0"), terms(&spell(title)), terms(&spell(text)))
        })
        .collect();
    let length =
        |title: &[String], text: &[String]| weight * title.len() as f64 + text.len() as f64;
    let tf = |term: &String, title: &[String], text: &[String]| {
        let count = |terms: &[String]| terms.iter().filter(|other| *other == term).count() as f64;
        weight * count(title) + count(text)
    };
    let n = documents.len() as f64;
    let average = documents.iter().map(|(_, title, text)| length(title, text)).sum::<f64>() / n;
    let mut scores = BTreeMap::new();
    for term in terms(query) {
        let df =
            documents.iter().filter(|(_, title, text)| tf(&term, title, text) > 0.0).count() as f64;
        let idf = (1.0 + (n - df + 0.5) / (df + 0.5)).ln();
        for (id, title, text) in &documents {
            let tf = tf(&term, title, text);
            if tf > 0.0 {
                let norm = k1 * (1.0 - b + b * length(title, text) / average);
                *scores.entry(id.clone()).or_insert(0.0) += idf * tf / (tf + norm);
            }
        }
    }
    scores
}

/// Writes the corpus as files of up to `share` records.
fn write(shelf: &Shelf, corpus: &Corpus, share: usize) {
    let mut files: BTreeMap<usize, Vec<(String, String, String)>> = BTreeMap::new();
    for (number, (title, text)) in corpus {
        let record = (format!("d{number}"), spell(title), spell(text));
        files.entry(number / share).or_default().push(record);
    }
    let old: BTreeSet<String> = std::fs::read_dir(shelf.docs())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for name in old {
        shelf.delete(&name);
    }
    for (file, records) in &files {
        let records = records.iter().map(|(id, title, text)| (&**id, &**title, &**text));
        shelf.write_records(&format!("{file}.jsonl"), records);
    }
}

fn words(most: usize) -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..VOCABULARY.len(), 0..most)
}

/// Every document has a word in it, or it would not be one.
fn document() -> impl Strategy<Value = Words> {
    (words(3), words(12)).prop_map(|(title, mut text)| {
        text.push(0);
        (title, text)
    })
}

fn corpus() -> impl Strategy<Value = Corpus> {
    prop::collection::btree_map(0_usize..24, document(), 1..16)
}

fn options() -> impl Strategy<Value = Bm25Options> {
    let k1 = prop_oneof![Just(0.0_f32), Just(0.9), 0.1_f32..3.0];
    let b = prop_oneof![Just(0.0_f32), Just(0.4), Just(1.0)];
    let title_weight = prop_oneof![Just(0.0_f32), Just(1.0), 0.1_f32..5.0];
    (k1, b, title_weight).prop_map(|(k1, b, title_weight)| Bm25Options { k1, b, title_weight })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn scores_are_those_of_the_formula_whatever_came_before(
        earlier in prop::collection::vec(corpus(), 0..3),
        last in corpus(),
        share in 1_usize..8,
        options in prop::collection::vec(options(), 3),
        queries in prop::collection::vec(words(5), 4),
    ) {
        let grown = Shelf::of_words();
        for corpus in &earlier {
            write(&grown, corpus, share);
            grown.sync();
        }
        write(&grown, &last, share);
        grown.sync();
        let fresh = Shelf::of_words();
        write(&fresh, &last, 1000);
        fresh.add();
        let (grown, fresh) = (grown.index(), fresh.index());
        prop_assert_eq!(grown.stats().unwrap().totals, fresh.stats().unwrap().totals);
        for options in options {
            let (grown, fresh) = (grown.bm25(options), fresh.bm25(options));
            for query in &queries {
                let query = format!("{} flea", spell(query)); // never only stop words
                let expected = reference(&last, &query, options);
                let found = ask(&grown, &query, 1000);
                prop_assert_eq!(&found, &ask(&fresh, &query, 1000), "not the bits of a fresh index");
                prop_assert_eq!(found.len(), expected.len());
                for (id, score) in &found {
                    let right = expected[id];
                    let close = (f64::from(*score) - right).abs() <= 1e-5 * right.max(1.0);
                    prop_assert!(close, "{} has {} instead of {}", id, score, right);
                }
                for pair in found.windows(2) {
                    let ((left, better), (right, worse)) = (&pair[0], &pair[1]);
                    prop_assert!(better > worse || (better.total_cmp(worse).is_eq() && left < right));
                }
                // Fewer are the best of these; which of equal ones is not said.
                let few = ask(&grown, &query, 3);
                let scores = |answer: &[(String, f32)]| -> Vec<f32> {
                    answer.iter().map(|(_, score)| *score).collect()
                };
                prop_assert_eq!(scores(&few), scores(&found[..found.len().min(3)]));
            }
        }
    }
}

#[test]
fn equal_scores_stand_by_id() {
    let shelf = Shelf::of_words();
    shelf.write_records("a.jsonl", ["c", "a", "d"].map(|id| (id, "", "rope and lantern")));
    shelf.add();
    shelf.write_records("b.jsonl", [("b", "", "rope and lantern")]);
    shelf.add();
    let index = shelf.index();
    let answer = ask(&index.bm25(Bm25Options::default()), "lantern", 10);
    assert_eq!(ids(&answer), ["a#0", "b#0", "c#0", "d#0"]);
    assert!(answer.iter().all(|(_, score)| score.total_cmp(&answer[0].1).is_eq()));
}

#[test]
fn headings_count_as_title() {
    let shelf = Shelf::of_words();
    shelf.write("a.md", "# Harbour\n\nWhere ships lie.\n");
    shelf.write("b.md", "# Rope\n\nWhere ships lie at the harbour.\n");
    shelf.add();
    let index = shelf.index();
    let best = |title_weight| {
        let options = Bm25Options { title_weight, ..Bm25Options::default() };
        ask(&index.bm25(options), "harbour", 1)[0].0.clone()
    };
    assert_eq!(best(5.0), "a.md#0");
    // Without weight on titles the word must stand in the text; Markdown's text has its headings.
    assert_eq!(
        ask(&index.bm25(Bm25Options { title_weight: 0.0, ..Bm25Options::default() }), "harbour", 9)
            .len(),
        2
    );
}

#[test]
fn a_query_without_terms_is_refused_and_depth_zero_is_nothing() {
    let shelf = Shelf::of_words();
    shelf.write("a.txt", "The fleas of the harbour.");
    shelf.add();
    let bm25 = shelf.index().bm25(Bm25Options::default());
    for text in ["the of and", "\u{1F600}\u{1F600}", "?!"] {
        let refused =
            pollster::block_on(bm25.retrieve(&Call::new(), &Query::new(text).unwrap(), 10));
        assert!(matches!(refused, Err(Error::NothingToLookUp { .. })), "{text}");
    }
    assert!(ask(&bm25, "fleas", 0).is_empty());
    assert!(ask(&bm25, "elephants", 10).is_empty());
}

#[test]
fn an_empty_index_answers_nothing() {
    let shelf = Shelf::of_words();
    assert_eq!(shelf.add().totals.passages, 0);
    let index = shelf.index();
    assert!(ask(&index.bm25(Bm25Options::default()), "fleas", 10).is_empty());
    index.verify().unwrap();
}
