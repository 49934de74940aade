//! The neighbour graph, forced by a low [`Settings::graph_from`].

use topshelf_core::Retriever;
use topshelf_index::check::recall;
use topshelf_index::{Index, Precision, Settings, remove};

use super::support::{Answer, Bag, Shelf, ask, ask_where, ids, text};

/// Documents of a file.
const SHARE: u64 = 500;

fn shelf() -> Shelf {
    Shelf::with(Settings {
        graph_from: 1,
        precision: Precision::Int8,
        ..Settings::with_embedder(&*Bag::new())
    })
}

/// Writes file `n`: documents `n * SHARE..` of which every fifth has `kind` rare.
fn write(shelf: &Shelf, n: u64) {
    let records = (n * SHARE..(n + 1) * SHARE).map(|id| {
        let kind = if id % 5 == 0 { "rare" } else { "common" };
        serde_json::json!({"id": id.to_string(), "text": text(id, 12, 3000), "kind": kind})
    });
    shelf.write_json(&format!("{n}.jsonl"), records);
}

/// A query that is some document's words, most of them.
fn query(seed: u64) -> String {
    text(seed, 9, 3000)
}

fn number(id: &str) -> u64 {
    id.trim_end_matches("#0").parse().unwrap()
}

fn dense(index: &Index) -> impl Retriever + use<> {
    index.dense(Bag::new()).unwrap()
}

/// What an index of the same documents without a graph answers.
fn by_scan(shelf: &Shelf) -> Shelf {
    let plain = Shelf::new(Precision::Int8);
    for entry in std::fs::read_dir(shelf.docs()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        plain.write(&name, &std::fs::read_to_string(&path).unwrap());
    }
    plain.add();
    plain
}

/// The share of the right answers that are found, over some queries.
fn agreement(found: &Index, right: &Index, depth: usize) -> f64 {
    let (found, right) = (dense(found), dense(right));
    let (mut hits, mut all) = (0, 0);
    for seed in 0..20 {
        let query = query(seed * 97);
        let (found, right) = (ask(&found, &query, depth), ask(&right, &query, depth));
        assert_eq!(found.len(), right.len());
        all += right.len();
        // The score of what is found is exact, to the bit.
        hits += right.iter().filter(|hit| found.contains(hit)).count();
    }
    f64::from(hits as u32) / f64::from(all as u32)
}

#[test]
fn a_graph_grows_shrinks_and_is_built_anew() {
    let shelf = shelf();
    for n in 0..5 {
        write(&shelf, n);
    }
    shelf.add();
    let index = shelf.index();
    assert_eq!(index.stats().unwrap().graph_vectors, 2500);
    let figures = recall(&index, 100, 10).unwrap().unwrap();
    assert_eq!((figures.queries, figures.depth), (100, 10));
    assert!(figures.mean >= 0.95, "{figures:?}");
    assert!(agreement(&index, &by_scan(&shelf).index(), 10) >= 0.95);

    // A few more are found by the scan of what the graph does not cover.
    shelf.write_records("late.jsonl", [("90000", "", "w1 w2 w3 w4"), ("90001", "", "w5 w6 w7")]);
    shelf.add();
    let index = shelf.index();
    assert_eq!(index.stats().unwrap().graph_vectors, 2500, "no new graph for two passages");
    assert_eq!(ids(&ask(&dense(&index), "w1 w2 w3 w4", 1)), ["90000#0"]);
    assert_eq!(ids(&ask(&dense(&index), "w5 w6 w7", 1)), ["90001#0"]);

    // Many more are taken in.
    write(&shelf, 5);
    shelf.add();
    let index = shelf.index();
    assert_eq!(index.stats().unwrap().graph_vectors, 3002);
    assert!(recall(&index, 100, 10).unwrap().unwrap().mean >= 0.95);

    // Removed passages never come back, and what is left fills the depth: while their vectors
    // are still there, when these have been dropped, and when the graph is built anew.
    let mut left: Vec<u64> = (0..6).collect();
    let mut rebuilt = false;
    for gone in [1, 4, 0, 2] {
        shelf.delete(&format!("{gone}.jsonl"));
        left.retain(|n| *n != gone);
        shelf.sync();
        let index = shelf.index();
        let stats = index.stats().unwrap();
        rebuilt |= stats.graph_vectors < 3002;
        for seed in 0..20 {
            // Words of a removed document, so that the removed ones are the nearest.
            let answer = ask(&dense(&index), &text(gone * SHARE + seed, 12, 3000), 50);
            assert_eq!(answer.len(), 50, "after {gone}");
            for (id, _) in &answer {
                let number = number(id);
                assert!(number >= 90_000 || left.contains(&(number / SHARE)), "{id} after {gone}");
            }
        }
        assert!(agreement(&index, &by_scan(&shelf).index(), 10) >= 0.95, "after {gone}");
        index.verify().unwrap();
    }
    assert!(rebuilt);
    assert_eq!(shelf.files("graph-").len(), 1);
}

#[test]
fn removed_passages_take_no_places_in_an_answer() {
    // More of them on one subject than a search of the graph looks at.
    let shelf = shelf();
    write(&shelf, 0);
    write(&shelf, 1);
    let subject = |n: u64| format!("lantern rope harbour tide anchor mast {}", text(n, 2, 3000));
    let records = (0..600).map(|n| {
        serde_json::json!({"id": (50_000 + n).to_string(), "text": subject(n), "kind": "common"})
    });
    shelf.write_json("subject.jsonl", records);
    shelf.add();
    let nearest = ask(&dense(&shelf.index()), "lantern rope harbour tide anchor mast", 300);
    assert!(nearest.iter().all(|(id, _)| number(id) >= 50_000));
    shelf.delete("subject.jsonl");
    shelf.sync();
    let index = shelf.index();
    let stats = index.stats().unwrap();
    // Their vectors have been dropped from the vector files, not from the graph.
    assert_eq!((stats.vectors, stats.graph_vectors), (1000, 1600));
    let left = ask(&dense(&index), "lantern rope harbour tide anchor mast", 50);
    assert_eq!(left.len(), 50);
    assert!(left.iter().all(|(id, _)| number(id) < 1000));
}

#[test]
fn a_filter_works_in_the_graph_and_beside_it() {
    let shelf = shelf();
    for n in 0..3 {
        write(&shelf, n);
    }
    shelf.write_json(
        "few.jsonl",
        [serde_json::json!({"id": "7777", "text": "w1", "kind": "single"})],
    );
    shelf.add();
    let index = shelf.index();
    let plain = by_scan(&shelf).index();
    for seed in 0..10 {
        let query = query(seed);
        let rare = ask_where(&dense(&index), &query, "kind = rare", 100);
        let right = ask_where(&dense(&plain), &query, "kind = rare", 100);
        assert_eq!(rare.len(), 100);
        assert!(rare.iter().all(|(id, _)| number(id).is_multiple_of(5)));
        let hits = rare.iter().filter(|hit| right.contains(hit)).count();
        assert!(hits >= 95, "{hits} of 100");
        assert_eq!(ids(&ask_where(&dense(&index), &query, "kind = single", 100)), ["7777#0"]);
    }
}

#[test]
fn many_threads_search_at_once() {
    let shelf = shelf();
    for n in 0..2 {
        write(&shelf, n);
    }
    shelf.add();
    let index = shelf.index();
    let answer = |seed: u64| -> Vec<Answer> {
        let dense = dense(&index);
        // Depths that need different settings of the graph.
        [10, 200].map(|depth| ask(&dense, &query(seed), depth)).into()
    };
    let alone: Vec<Vec<Answer>> = (0..24).map(answer).collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..24).map(|seed| scope.spawn(move || answer(seed))).collect();
        for (thread, alone) in threads.into_iter().zip(&alone) {
            assert_eq!(&thread.join().unwrap(), alone);
        }
    });
}

#[test]
fn the_size_from_which_there_is_a_graph_may_change() {
    let mut shelf = Shelf::new(Precision::Int8);
    write(&shelf, 0);
    shelf.add();
    assert_eq!(shelf.index().stats().unwrap().graph_vectors, 0);
    assert!(recall(&shelf.index(), 10, 10).unwrap().is_none());
    shelf.settings.graph_from = SHARE;
    let report = shelf.add();
    assert_eq!(report.files_unchanged, 1);
    assert_eq!(shelf.index().stats().unwrap().graph_vectors, 500);
    shelf.settings.graph_from = SHARE + 1;
    shelf.add();
    let index = shelf.index();
    assert_eq!(index.stats().unwrap().graph_vectors, 0);
    assert!(shelf.files("graph-").is_empty());
    assert_eq!(ask(&dense(&index), &query(1), 10).len(), 10);
}

#[test]
fn everything_can_be_removed_and_added_again() {
    let shelf = shelf();
    write(&shelf, 0);
    shelf.add();
    let before = ask(&dense(&shelf.index()), &query(1), 10);
    let (files, totals) = remove(shelf.writer().unwrap(), &[shelf.docs()]).unwrap();
    assert_eq!((files, totals.passages), (1, 0));
    let index = shelf.index();
    assert!(ask(&dense(&index), &query(1), 10).is_empty());
    index.verify().unwrap();
    shelf.add();
    let after = ask(&dense(&shelf.index()), &query(1), 10);
    let same = after.iter().filter(|hit| before.contains(hit)).count();
    assert!(same >= 9, "{before:?} {after:?}");
}
