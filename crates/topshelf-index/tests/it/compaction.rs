//! Vector files are rewritten when they are many or hold much that was removed; nobody notices.

use std::collections::BTreeMap;

use serde_json::json;
use topshelf_index::{Index, Precision};

use super::support::{Bag, Shelf, ask, text};

const QUERIES: [&str; 3] = ["w1 w2 w3", "w4 w5", "w30"];

/// For each query, the score of every passage, to the bit.
fn scores(index: &Index) -> Vec<BTreeMap<String, u32>> {
    let dense = index.dense(Bag::new()).unwrap();
    let all = QUERIES.map(|query| ask(&dense, query, 10_000));
    all.map(|answer| answer.into_iter().map(|(id, score)| (id, score.to_bits())).collect()).into()
}

#[test]
fn many_small_adds() {
    for precision in [Precision::Int8, Precision::F32] {
        let shelf = Shelf::new(precision);
        let mut before: Vec<BTreeMap<String, u32>> = vec![BTreeMap::new(); QUERIES.len()];
        let mut most = 0;
        let mut rewritten = 0;
        for n in 0..36 {
            shelf.write(&format!("{n}.txt"), &text(n, 10, 50));
            shelf.add();
            let index = shelf.index();
            let after = scores(&index);
            for (before, after) in before.iter().zip(&after) {
                assert_eq!(after.len() as u64, n + 1);
                assert!(before.iter().all(|(id, score)| after.get(id) == Some(score)), "add {n}");
            }
            let stats = index.stats().unwrap();
            assert_eq!((stats.vectors as u64, stats.removed_vectors), (n + 1, 0));
            let count = shelf.files("vectors-").len();
            rewritten += usize::from(count < most);
            most = if count < most { count } else { most.max(count) };
            assert!(count <= 16, "{count} files after add {n}");
            index.verify().unwrap();
            before = after;
        }
        assert_eq!(rewritten, 2, "at the 17th file, twice");
    }
}

#[test]
fn many_removals() {
    let shelf = Shelf::new(Precision::Int8);
    for n in 0..90 {
        shelf.write(&format!("{n}.txt"), &text(n, 10, 50));
    }
    shelf.add();
    let mut before = scores(&shelf.index());
    let mut dropped = 0_usize;
    for n in 0..9 {
        // From all over, so that the removed keys are many ranges.
        for part in 0..9 {
            shelf.delete(&format!("{}.txt", part * 10 + n));
        }
        shelf.write("new.txt", &text(700 + n, 10, 50));
        shelf.sync();
        let index = shelf.index();
        let stats = index.stats().unwrap();
        if stats.removed_vectors == 0 {
            dropped += 1;
            assert_eq!(shelf.state()["removed"], json!([]), "nothing to pass over is left");
        }
        assert_eq!(stats.vectors - stats.removed_vectors, stats.totals.passages as usize);
        assert!(stats.removed_vectors * 3 <= stats.vectors, "{stats:?}");
        let after = scores(&index);
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(after.len() as u64, 90 - 9 * (n + 1) + 1);
            for (id, score) in after.iter().filter(|(id, _)| *id != "new.txt#0") {
                assert_eq!(before.get(id), Some(score), "{id} after round {n}");
            }
        }
        index.verify().unwrap();
        before = after;
    }
    assert!(dropped >= 2, "rewritten {dropped} times");
}
