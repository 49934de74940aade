//! Late interaction as a first stage: what is found, by lists and by a look at each passage.

use std::fs;
use std::sync::Arc;

use serde_json::{Value, json};
use topshelf_core::{Call, Passage, Query, Reranker};
use topshelf_index::{Index, IndexError, LateOptions, Settings, Tier, Writer};

use super::damage::edit_state;
use super::support::{Answer, Shelf, ask, ask_where, ids, text};
use super::tokens::{Words, bring, settings, shelf};

const QUERIES: [&str; 4] =
    ["w1 w2 w30 w77 unheard", "w5 w6 w7", "w119 w118 w3", "nothing that is there w64 w9"];

/// By lists, however few passages there are.
const BY_LISTS: LateOptions = LateOptions { probes: 12, candidates: 100, scan_up_to: 0 };

fn find(index: &Index, options: LateOptions, query: &str, depth: usize) -> Answer {
    ask(&index.late_interaction(Words::new("words"), options).unwrap(), query, depth)
}

/// Every passage of the documents, scored by the reranker, best first.
fn reranked(index: &Index, query: &str, documents: impl Iterator<Item = u64>) -> Answer {
    let stored = index.stored_tokens(Words::new("words")).unwrap();
    let passages: Vec<_> =
        documents.flat_map(|n| index.document(&format!("{n}.txt")).unwrap()).collect();
    let query = Query::new(query).unwrap();
    let outcomes = pollster::block_on(stored.score(&Call::new(), &query, &passages)).unwrap();
    let scored = passages.iter().zip(outcomes);
    let mut all: Answer =
        scored.map(|(passage, own)| (passage.id.clone(), own.unwrap().score)).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all
}

fn scores(answer: &Answer) -> Vec<f32> {
    answer.iter().map(|(_, score)| *score).collect()
}

#[test]
fn a_look_at_each_passage_is_the_rerankers_order_and_lists_find_most_of_it() {
    for tier in Tier::ALL {
        let shelf = shelf(tier, 0..400);
        bring(&shelf).unwrap();
        let index = shelf.index();
        let mut met = 0;
        for query in QUERIES {
            let all = reranked(&index, query, 0..400);
            let exact = find(&index, LateOptions::exact(), query, 10);
            assert_eq!(scores(&exact), scores(&all)[..10], "{}", tier.name());
            let listed = find(&index, BY_LISTS, query, 10);
            // The same scores, whoever found the passage.
            assert!(listed.iter().all(|hit| all.contains(hit)), "{}", tier.name());
            met += listed.iter().filter(|hit| exact.contains(hit)).count();
        }
        assert!(met >= 28, "{}: {met} of 40", tier.name());
        // As many as are asked for, up to all there are.
        assert_eq!(find(&index, BY_LISTS, QUERIES[0], 190).len(), 190);
        assert_eq!(find(&index, BY_LISTS, QUERIES[0], 1000).len(), 400);
    }
}

#[test]
fn what_was_added_later_is_found_and_what_was_removed_is_not() {
    for tier in [Tier::F16, Tier::TwoBits] {
        let shelf = shelf(tier, 0..60);
        bring(&shelf).unwrap();
        for n in 60..90 {
            shelf.write(&format!("{n}.txt"), &text(n, 5, 120));
        }
        shelf.delete("7.txt");
        shelf.delete("2.txt");
        bring(&shelf).unwrap();
        assert_eq!(shelf.files("tokens-0").len(), 2);
        let there = || (0..90).filter(|n| ![2, 7].contains(n));
        let by_lists = LateOptions { candidates: 88, ..BY_LISTS };
        let check = |index: &Index, there: &dyn Fn() -> Vec<u64>| {
            index.verify().unwrap();
            for options in [by_lists, LateOptions::exact()] {
                for query in QUERIES {
                    let found = find(index, options, query, 100);
                    let right = reranked(index, query, there().into_iter());
                    assert_eq!(scores(&found), scores(&right), "{}", tier.name());
                    assert!(found.iter().all(|hit| right.contains(hit)));
                }
            }
        };
        check(&shelf.index(), &|| there().collect());
        // Written anew, with lists of what is left.
        for n in there().filter(|n| n % 3 != 0) {
            shelf.delete(&format!("{n}.txt"));
        }
        bring(&shelf).unwrap();
        check(&shelf.index(), &|| there().filter(|n| n % 3 == 0).collect());
        // An index that lost everything finds nothing.
        for n in there().filter(|n| n % 3 == 0) {
            shelf.delete(&format!("{n}.txt"));
        }
        bring(&shelf).unwrap();
        assert!(find(&shelf.index(), by_lists, QUERIES[0], 10).is_empty());
    }
}

#[test]
fn a_filter_is_asked_before_the_cut() {
    let shelf = Shelf::with(settings(Tier::Int8));
    let records = (0..300_u64).map(|n| json!({"id": n, "text": text(n, 5, 120), "year": n % 3}));
    let rare = (0..2).map(|n| json!({"id": format!("r{n}"), "text": "w1 w2", "year": 9}));
    shelf.write_json("all.jsonl", records.chain(rare));
    bring(&shelf).unwrap();
    let index = shelf.index();
    let late = index.late_interaction(Words::new("words"), BY_LISTS).unwrap();
    let found = ask_where(&late, QUERIES[1], "year = 1", 30);
    assert_eq!(found.len(), 30);
    let year = |id: &str| id.split('#').next().unwrap().parse::<u64>().unwrap() % 3;
    assert!(found.iter().all(|(id, _)| year(id) == 1), "{found:?}");
    let unfiltered = find(&index, LateOptions::exact(), QUERIES[1], 1000);
    assert!(found.iter().all(|hit| unfiltered.contains(hit)));
    // Few pass: each is looked at, and the best of all is among them.
    let mut rare = ask_where(&late, QUERIES[1], "year = 9", 30);
    rare.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(ids(&rare), ["r0#0", "r1#0"]);
    assert!(ask_where(&late, QUERIES[1], "year = 10", 30).is_empty());
}

#[test]
fn without_token_vectors_or_with_another_model_the_reason_is_told() {
    let words = Shelf::with(Settings::default());
    words.write("a.txt", "w1 w2");
    words.add();
    let of = |shelf: &Shelf, model: &Arc<Words>| {
        shelf.index().late_interaction(Arc::clone(model) as _, LateOptions::default()).err()
    };
    let model = Words::new("words");
    assert!(matches!(of(&words, &model), Some(IndexError::NoTokenVectors)));
    let shelf = shelf(Tier::Int8, 0..3);
    bring(&shelf).unwrap();
    assert!(of(&shelf, &model).is_none());
    let other = of(&shelf, &Words::new("others"));
    assert!(matches!(other, Some(IndexError::TokenModelMismatch { .. })), "{other:?}");
}

#[test]
fn reduced_vectors_are_compared_with_reduced_ones_whoever_made_them() {
    for tier in Tier::ALL {
        let whole = shelf(tier, 0..200);
        bring(&whole).unwrap();
        let mut shelf = shelf(tier, 0..200);
        let info = shelf.settings.token_vectors.take().unwrap().reduced_to(Some(16));
        shelf.settings.token_vectors = Some(info.clone());
        bring(&shelf).unwrap();
        shelf.write("later.txt", "w1 w2 w30 w77 unheard");
        bring(&shelf).unwrap();
        let index = shelf.index();
        index.verify().unwrap();
        let bytes = |index: &Index| index.stats().unwrap().tokens.unwrap().bytes_per_vector;
        assert!(bytes(&index) < 0.95 * bytes(&whole.index()), "{}", tier.name());
        assert_eq!(ids(&find(&index, BY_LISTS, QUERIES[0], 1)), ["later.txt#0"]);
        let exact = find(&index, LateOptions::exact(), QUERIES[1], 10);
        assert_eq!(scores(&exact), scores(&reranked(&index, QUERIES[1], 0..200))[..10]);
        // What is encoded now is reduced, too, and so scores nearly as if it were stored.
        let stored = index.stored_tokens(Words::new("words")).unwrap();
        let passage = index.document("5.txt").unwrap().remove(0);
        let fresh = Passage::standalone("fresh", "", format!("{} ", passage.model_text()));
        let query = Query::new(QUERIES[0]).unwrap();
        let both =
            pollster::block_on(stored.score(&Call::new(), &query, &[passage, Arc::new(fresh)]))
                .unwrap();
        let [a, b] = [0, 1].map(|n: usize| both[n].as_ref().unwrap().score);
        assert!((a - b).abs() < 0.3, "{}: {a} {b}", tier.name());
        let other = Settings { token_vectors: Some(info.reduced_to(None)), ..Settings::default() };
        let error = Writer::create_or_open(&shelf.dir(), &other).err().unwrap();
        assert!(error.to_string().contains("16 numbers"), "{error}");
    }
}

/// Format 2 had no lists: its files end behind the codes.
fn take_lists_away(shelf: &Shelf) {
    const HEADER: usize = 64;
    let mut cut = Vec::new();
    edit_state(&shelf.dir(), |state| {
        state["format"] = json!(2);
        for file in state["tokens"]["files"].as_array_mut().unwrap() {
            let number = |value: &Value| value.as_u64().unwrap() as usize;
            let (centroids, lists) = (number(&file["centroids"]), number(&file["lists"]));
            let behind = (8 * (centroids + 1)).next_multiple_of(64) + lists.next_multiple_of(64);
            cut.push((file["name"].as_str().unwrap().to_owned(), behind));
            let file = file.as_object_mut().unwrap();
            file.remove("centroids");
            file.remove("lists");
        }
    });
    for (name, behind) in cut {
        let path = shelf.dir().join(name);
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - behind);
        bytes[48..HEADER].fill(0);
        let crc32 = crc32fast::hash(&bytes[HEADER..]);
        bytes[12..16].copy_from_slice(&crc32.to_le_bytes());
        fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn an_index_of_format_2_is_searched_extended_and_gets_lists_when_it_is_written_anew() {
    let shelf = shelf(Tier::FourBits, 0..200);
    bring(&shelf).unwrap();
    let right: Vec<Answer> =
        QUERIES.map(|query| find(&shelf.index(), LateOptions::exact(), query, 20)).into();
    take_lists_away(&shelf);
    let found = |index: &Index| -> Vec<Answer> {
        index.verify().unwrap();
        QUERIES.map(|query| find(index, BY_LISTS, query, 20)).into()
    };
    assert_eq!(found(&shelf.index()), right);
    shelf.write("later.txt", "w1 w2 w30 w77 unheard");
    bring(&shelf).unwrap();
    let index = shelf.index();
    assert_eq!(shelf.state()["format"], 4);
    assert_eq!(ids(&find(&index, BY_LISTS, QUERIES[0], 1)), ["later.txt#0"]);
    index.verify().unwrap();
    for n in 0..150 {
        shelf.delete(&format!("{n}.txt"));
    }
    bring(&shelf).unwrap();
    let files = &shelf.state()["tokens"]["files"];
    assert!(files.as_array().unwrap().iter().all(|file| file["centroids"].as_u64() > Some(0)));
    shelf.index().verify().unwrap();
}
