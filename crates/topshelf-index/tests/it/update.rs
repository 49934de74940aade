//! Adding again is updating; removing.

use std::path::PathBuf;

use serde_json::json;
use topshelf_core::Bm25Options;
use topshelf_index::chunk::{ChunkOptions, Chunking};
use topshelf_index::{AddOptions, IndexError, Precision, remove};

use super::support::{Bag, Shelf, answers, ask, ids, text};

const QUERIES: [&str; 3] = ["rope", "lantern", "w1 w2 w3"];

fn generation(shelf: &Shelf) -> u64 {
    shelf.index().stats().unwrap().generation
}

fn documents(shelf: &Shelf) -> Vec<String> {
    let index = shelf.index();
    let mut files: Vec<String> = index.files().unwrap().into_iter().map(|file| file.id).collect();
    files.sort();
    files
}

#[test]
fn what_has_not_changed_costs_nothing() {
    let shelf = Shelf::new(Precision::Int8);
    shelf.write("a.md", "# Rope\n\nHow it is made.\n");
    shelf.write("b/c.txt", "A lantern.\n");
    shelf.write_records("d.jsonl", [("1", "", "rope"), ("2", "", "lantern")]);
    let report = shelf.add();
    assert_eq!((report.files_added, report.documents, report.passages), (3, 4, 4));
    assert_eq!(report.totals.documents, 4);
    assert_eq!(generation(&shelf), 1);
    let before = answers(&shelf.index(), &QUERIES, 10);

    let bag = Bag::new();
    let report = shelf.try_add(&*bag, &shelf.options()).unwrap();
    assert_eq!((report.files_added, report.files_updated, report.files_unchanged), (0, 0, 3));
    assert_eq!((report.documents, report.totals.documents), (0, 4));
    assert_eq!(bag.embedded(), 0);
    assert_eq!(generation(&shelf), 1, "no commit");

    // Touched, but the same: read, not indexed; the new time is noted.
    shelf.touch("b/c.txt");
    let report = shelf.try_add(&*bag, &shelf.options()).unwrap();
    assert_eq!((report.files_updated, report.files_unchanged), (0, 3));
    assert_eq!(bag.embedded(), 0);
    assert_eq!(generation(&shelf), 2);
    shelf.add();
    assert_eq!(generation(&shelf), 2);
    assert_eq!(answers(&shelf.index(), &QUERIES, 10), before);
    let stats = shelf.index().stats().unwrap();
    assert_eq!((stats.files, stats.vectors, stats.removed_vectors), (3, 4, 0));
}

#[test]
fn what_has_changed_is_replaced() {
    let shelf = Shelf::new(Precision::Int8);
    shelf.write("a.txt", "Rope.");
    shelf.write("b.txt", "Lantern.");
    shelf.add();
    let bag = Bag::new();
    shelf.write("a.txt", "A lantern, too.");
    let report = shelf.try_add(&*bag, &shelf.options()).unwrap();
    assert_eq!((report.files_added, report.files_updated, report.files_unchanged), (0, 1, 1));
    assert_eq!(bag.embedded(), 1);
    assert_eq!(report.totals.documents, 2);
    let index = shelf.index();
    let bm25 = index.bm25(Bm25Options::default());
    assert!(ask(&bm25, "rope", 10).is_empty());
    assert_eq!(ask(&bm25, "lantern", 10).len(), 2);
    assert_eq!(ask(&index.dense(Bag::new()).unwrap(), "rope", 10).len(), 2);
    assert_eq!(index.document("a.txt").unwrap()[0].text.trim(), "A lantern, too.");
}

#[test]
fn other_options_make_other_passages() {
    let shelf = Shelf::new(Precision::Int8);
    shelf.write("a.txt", &text(1, 200, 50));
    assert_eq!(shelf.add().passages, 1);
    let chunk = ChunkOptions { max_tokens: 50, overlap_tokens: 0 };
    let options = AddOptions { chunking: Some(Chunking::Passages(chunk)), ..shelf.options() };
    let report = shelf.try_add(&*Bag::new(), &options).unwrap();
    assert_eq!((report.files_updated, report.files_unchanged), (1, 0));
    assert!(report.passages >= 4, "{report:?}");
    assert_eq!(report.totals.passages, report.passages);
    assert_eq!(shelf.index().document("a.txt").unwrap().len() as u64, report.passages);
    let report = shelf.try_add(&*Bag::new(), &options).unwrap();
    assert_eq!(report.files_unchanged, 1);
}

#[test]
fn the_vanished_are_removed_on_request() {
    let shelf = Shelf::new(Precision::Int8);
    for name in ["a.txt", "b/a.txt", "b/b.txt"] {
        shelf.write(name, "Rope.");
    }
    shelf.add();
    shelf.delete("b/a.txt");
    let report = shelf.add();
    assert_eq!((report.files_removed, report.totals.documents), (0, 3));
    assert_eq!(generation(&shelf), 1);
    // Only below what is given.
    let options = AddOptions { sync: true, ..shelf.options() };
    let elsewhere = [shelf.docs().join("a.txt")];
    let report = shelf.try_add_paths(&elsewhere, &*Bag::new(), &options, &mut |_| {}).unwrap();
    assert_eq!((report.files_removed, report.totals.documents), (0, 3));
    let report = shelf.sync();
    assert_eq!((report.files_removed, report.totals.documents), (1, 2));
    assert_eq!(documents(&shelf), ["a.txt", "b/b.txt"]);
    let index = shelf.index();
    assert!(index.document("b/a.txt").unwrap().is_empty());
    assert_eq!(ask(&index.bm25(Bm25Options::default()), "rope", 10).len(), 2);
}

#[test]
fn what_can_no_longer_be_indexed_is_removed() {
    let shelf = Shelf::new(Precision::Int8);
    for name in ["a.txt", "b.txt", "c.txt", "d.jsonl"] {
        shelf.write(name, "\"rope\"");
    }
    shelf.add();
    shelf.write("a.txt", "");
    shelf.write("b.txt", " \n");
    shelf.write("d.jsonl", "no record\n");
    let report = shelf.add();
    assert_eq!((report.files_removed, report.files_unchanged), (3, 1), "{report:?}");
    assert_eq!(report.skipped.len(), 3, "{report:?}");
    assert_eq!(documents(&shelf), ["c.txt"]);
    assert_eq!(ids(&ask(&shelf.index().dense(Bag::new()).unwrap(), "rope", 9)), ["c.txt#0"]);
}

#[test]
fn documents_may_move_to_another_file() {
    let shelf = Shelf::new(Precision::Int8);
    shelf.write_records("old.jsonl", [("1", "", "rope"), ("2", "", "lantern")]);
    shelf.add();
    shelf.delete("old.jsonl");
    shelf.write_records("new.jsonl", [("1", "", "rope"), ("2", "", "lantern")]);
    let report = shelf.sync();
    assert!(report.skipped.is_empty(), "{:?}", report.skipped);
    assert_eq!((report.files_added, report.files_removed, report.totals.documents), (1, 1, 2));
}

#[test]
fn a_document_is_in_the_index_once() {
    let shelf = Shelf::new(Precision::Int8);
    shelf.write_records("a.jsonl", [("same", "", "rope"), ("a", "", "rope")]);
    shelf
        .write_records("b.jsonl", [("same", "", "lantern"), ("b", "", "rope"), ("b", "", "twice")]);
    let report = shelf.add();
    assert_eq!((report.documents, report.skipped.len()), (3, 2));
    let told: Vec<String> = report.skipped.iter().map(ToString::to_string).collect();
    assert!(told[0].contains("b.jsonl") && told[0].contains("\"same\""), "{told:?}");
    assert!(told[1].contains("b.jsonl") && told[1].contains("\"b\""), "{told:?}");
    assert_eq!(shelf.index().document("same").unwrap()[0].text, "rope");

    // Also against what an earlier commit has.
    shelf.write_records("c.jsonl", [("a", "", "lantern"), ("c", "", "rope")]);
    let report = shelf.add();
    assert_eq!((report.documents, report.skipped.len()), (1, 1));
    assert_eq!(shelf.index().document("a").unwrap()[0].text, "rope");
    assert_eq!(report.totals.documents, 4);

    // A file that changes may keep its own ids.
    shelf.write_records("a.jsonl", [("same", "", "rope and lantern"), ("a", "", "rope")]);
    let report = shelf.add();
    assert_eq!((report.documents, report.skipped.len(), report.files_updated), (2, 0, 1));
    assert_eq!(shelf.index().document("same").unwrap()[0].text, "rope and lantern");
}

#[test]
fn a_file_given_twice_is_added_once() {
    let shelf = Shelf::new(Precision::Int8);
    let file = shelf.write("a.txt", "Rope.");
    let paths = [file.clone(), shelf.docs(), file];
    for added in [1, 0] {
        let report =
            shelf.try_add_paths(&paths, &*Bag::new(), &shelf.options(), &mut |_| {}).unwrap();
        assert_eq!((report.files_added, report.totals.documents), (added, 1));
        assert!(report.skipped.is_empty());
    }
}

#[test]
fn a_path_that_is_not_there_changes_nothing() {
    let shelf = Shelf::new(Precision::Int8);
    shelf.write("a.txt", "Rope.");
    shelf.add();
    shelf.write("b.txt", "Lantern.");
    for missing in [shelf.docs().join("nowhere"), PathBuf::new()] {
        let paths = [shelf.docs(), missing.clone()];
        let refused = shelf.try_add_paths(&paths, &*Bag::new(), &shelf.options(), &mut |_| {});
        assert!(matches!(refused, Err(IndexError::NoSuchPath { path }) if path == missing));
        assert_eq!(generation(&shelf), 1);
        assert_eq!(documents(&shelf), ["a.txt"]);
    }
}

/// An index of five files whose ids are relative.
fn five() -> Shelf {
    let shelf = Shelf::new(Precision::Int8);
    for name in ["a.txt", "b/a.txt", "b/b.txt", "bb/a.txt", "c/d/e.txt"] {
        shelf.write(name, "Rope.");
    }
    shelf.add();
    shelf
}

#[test]
fn removing_by_path_folder_and_id() {
    let shelf = five();
    let gone = |paths: &[PathBuf]| {
        let before = documents(&shelf);
        let (files, totals) = remove(shelf.writer().unwrap(), paths).unwrap();
        let after = documents(&shelf);
        assert_eq!(before.len() - after.len(), files);
        assert_eq!(totals.documents, after.len() as u64);
        let index = shelf.index();
        assert_eq!(ask(&index.bm25(Bm25Options::default()), "rope", 10).len(), after.len());
        before.into_iter().filter(|id| !after.contains(id)).collect::<Vec<_>>()
    };
    assert_eq!(gone(&[shelf.docs().join("a.txt")]), ["a.txt"]);
    assert_eq!(gone(&[shelf.docs().join("b")]), ["b/a.txt", "b/b.txt"]);
    shelf.delete("bb/a.txt");
    assert_eq!(gone(&["./bb/".into()]), ["bb/a.txt"]);
    assert_eq!(gone(&["c/d/e.txt".into(), "c".into()]), ["c/d/e.txt"]);
    let index = shelf.index();
    assert_eq!(index.stats().unwrap().totals, topshelf_index::Totals::default());
    assert!(answers(&index, &QUERIES, 10).iter().all(Vec::is_empty));
}

#[test]
fn removing_what_is_not_there_changes_nothing() {
    let shelf = five();
    // Ids that begin with a slash are below no empty name.
    let options = AddOptions { relative_to: None, ..shelf.options() };
    let outside = [shelf.write("f.txt", "Rope.")];
    shelf.try_add_paths(&outside, &*Bag::new(), &options, &mut |_| {}).unwrap();
    let before = generation(&shelf);
    for unknown in ["nowhere", "a", "b/a", "", "./"] {
        let paths = [shelf.docs().join("a.txt"), unknown.into()];
        let refused = remove(shelf.writer().unwrap(), &paths);
        let named = |path: &PathBuf| path.as_os_str() == unknown;
        assert!(
            matches!(&refused, Err(IndexError::NotIndexed { path }) if named(path)),
            "{unknown:?}: {refused:?}"
        );
    }
    assert_eq!(generation(&shelf), before);
    assert_eq!(documents(&shelf).len(), 6);
}

#[test]
fn metadata_and_titles_are_kept() {
    let shelf = Shelf::of_words();
    let record =
        json!({"_id": "x", "title": "On rope", "text": "Hemp.", "year": 2024, "tags": ["a", "b"]});
    shelf.write_json("a.jsonl", [record]);
    shelf.add();
    let index = shelf.index();
    let passage = &index.document("x").unwrap()[0];
    assert_eq!((&*passage.title, &*passage.text, &*passage.id), ("On rope", "Hemp.", "x#0"));
    assert_eq!(passage.metadata["year"], 2024);
    assert_eq!(passage.metadata["tags"], json!(["a", "b"]));
    assert!(index.document("y").unwrap().is_empty());
}
