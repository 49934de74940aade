//! Filters work before the cut, in both retrievers.

use serde_json::json;
use topshelf_core::Bm25Options;
use topshelf_core::Retriever;
use topshelf_index::Precision;

use super::support::{Bag, Shelf, ask, ask_where, ids, text};

#[test]
fn a_filter_that_passes_one_in_a_thousand_fills_the_depth() {
    let shelf = Shelf::new(Precision::Int8);
    // The best thousand by far are of no interest to the filter.
    let common =
        (0..1000).map(|n| json!({"id": format!("c{n}"), "text": "rope rope rope", "year": 1999}));
    let wanted = (0..3).map(|n| json!({"id": format!("w{n}"), "text": format!("rope and {}", text(n, 30, 500)), "year": 2024 + n}));
    shelf.write_json("all.jsonl", common.chain(wanted));
    shelf.add();
    let index = shelf.index();
    let bm25 = index.bm25(Bm25Options::default());
    let dense = index.dense(Bag::new()).unwrap();
    for retriever in [&bm25 as &dyn Retriever, &dense] {
        assert!(ask(retriever, "rope", 10).iter().all(|(id, _)| id.starts_with('c')));
        let one = ask_where(retriever, "rope", "year = 2024", 10);
        assert_eq!(ids(&one), ["w0#0"], "{}", retriever.name());
        let mut three = ask_where(retriever, "rope", "year >= 2024", 3);
        // A filter changes who is in the list, not the scores.
        let unfiltered = ask(retriever, "rope", 2000);
        assert!(three.iter().all(|hit| unfiltered.contains(hit)), "{}", retriever.name());
        three.sort_by(|left, right| left.0.cmp(&right.0));
        assert_eq!(ids(&three), ["w0#0", "w1#0", "w2#0"], "{}", retriever.name());
        assert_eq!(ask_where(retriever, "rope", "year = 1999", 10).len(), 10);
        assert!(ask_where(retriever, "rope", "year = 1066", 10).is_empty());
        assert_eq!(ids(&ask_where(retriever, "rope", "document = w1", 10)), ["w1#0"]);
    }
}

#[test]
fn a_filter_sees_what_has_changed_and_not_what_is_gone() {
    let shelf = Shelf::new(Precision::Int8);
    let write = |lang: &str| {
        shelf.write("a.md", &format!("---\nlang: {lang}\n---\n# A\n\nrope\n"));
        shelf.write("b.md", "---\nlang: de\n---\n# B\n\nrope\n");
        shelf.add();
        let index = shelf.index();
        let found = |filter| {
            let by = |retriever: &dyn Retriever| {
                let mut answer = ask_where(retriever, "rope", filter, 10);
                answer.sort_by(|left, right| left.0.cmp(&right.0));
                ids(&answer).join(" ")
            };
            let by_words = by(&index.bm25(Bm25Options::default()));
            assert_eq!(by(&index.dense(Bag::new()).unwrap()), by_words);
            by_words
        };
        (found("lang = en"), found("lang = de"))
    };
    assert_eq!(write("en"), ("a.md#0".to_owned(), "b.md#0".to_owned()));
    assert_eq!(write("de"), (String::new(), "a.md#0 b.md#0".to_owned()));
    assert_eq!(write("en"), ("a.md#0".to_owned(), "b.md#0".to_owned()));
}

#[test]
fn metadata_of_any_length_can_be_filtered_by() {
    let shelf = Shelf::of_words();
    let long = "long ".repeat(40_000);
    shelf.write_json(
        "a.jsonl",
        [
            json!({"id": "a", "text": "rope", "lang": "en", "abstract": long}),
            json!({"id": "b", "text": "rope", "lang": "de", "abstract": long}),
            json!({"id": "c", "text": "rope", "lang": "en"}),
        ],
    );
    shelf.add();
    let index = shelf.index();
    let found = |filter| {
        let answer = ask_where(&index.bm25(Bm25Options::default()), "rope", filter, 10);
        ids(&answer).join(" ")
    };
    assert_eq!(found("lang = en"), "a#0 c#0");
    assert_eq!(found("NOT lang = en"), "b#0");
    assert_eq!(found("abstract EXISTS"), "a#0 b#0");
}
