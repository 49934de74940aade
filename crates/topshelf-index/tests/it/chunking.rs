//! The index remembers how it cuts, and what is asked for otherwise holds from then on.

use std::sync::Arc;

use topshelf_core::{Blame, Passage};
use topshelf_index::chunk::{ChunkOptions, Chunking};
use topshelf_index::ingest::walk;
use topshelf_index::{
    AddOptions, AddReport, GivenDocument, Index, IndexError, Models, OtherChunking, Settings,
    Writer, add_documents,
};

use super::support::{Bag, Fault, Shelf};

fn passages_of(max_tokens: usize, overlap_tokens: usize) -> Chunking {
    Chunking::Passages(ChunkOptions { max_tokens, overlap_tokens })
}

/// A shelf whose index cuts so, with a first document in it.
fn shelf(chunking: Chunking) -> Shelf {
    let mut shelf = Shelf::with(Settings::with_embedder(&*Bag::new()));
    shelf.settings.chunking = chunking;
    shelf.write("first.txt", &sentences(60));
    shelf.add();
    shelf
}

/// Sentences of ten words each.
fn sentences(count: usize) -> String {
    let sentence = |n: usize| format!("The keeper of light {n} winds the clock at dusk.");
    (0..count).map(sentence).collect::<Vec<_>>().join(" ")
}

/// The passages of a document in the order of its text.
fn cut(index: &Index, document: &str) -> Vec<Arc<Passage>> {
    let mut passages = index.document(document).unwrap();
    passages.sort_by_key(|passage| passage.range.start);
    passages
}

/// The tokens of each passage of a document.
fn lengths(index: &Index, document: &str) -> Vec<usize> {
    let words = |passage: &Arc<Passage>| passage.text.split_whitespace().count();
    cut(index, document).iter().map(words).collect()
}

fn add_cut(shelf: &Shelf, paths: &[&str], chunking: Option<Chunking>) -> AddReport {
    let paths: Vec<_> = paths.iter().map(|name| shelf.docs().join(name)).collect();
    let options = AddOptions { chunking, ..shelf.options() };
    shelf.try_add_paths(&paths, &*Bag::new(), &options, &mut |_| {}).unwrap()
}

#[test]
fn adding_without_options_cuts_as_the_index_does() {
    for (chunking, expected) in [
        (passages_of(128, 0), vec![120, 120, 120, 120, 120]),
        (passages_of(256, 0), vec![250, 250, 100]),
        (Chunking::Whole, vec![600]),
    ] {
        let mut shelf = shelf(chunking);
        assert_eq!(lengths(&shelf.index(), "first.txt"), expected, "{chunking}");
        // Neither options that say nothing of it nor the defaults of the settings change it.
        shelf.settings.chunking = Chunking::default();
        shelf.write("second.txt", &sentences(60));
        let report = shelf.add();
        assert_eq!((report.files_added, report.files_unchanged), (1, 1), "{chunking}");
        assert_eq!((report.chunking, report.chunking_before), (chunking, None));
        assert_eq!(lengths(&shelf.index(), "second.txt"), expected, "{chunking}");
        assert_eq!(shelf.index().settings().chunking, chunking);
        assert_eq!(shelf.index().stats().unwrap().other_chunking, OtherChunking::default());
    }
}

#[test]
fn the_overlap_is_remembered_too() {
    for (overlap, shared) in [(0, 0), (20, 2)] {
        let shelf = shelf(passages_of(100, overlap));
        shelf.write("second.txt", &sentences(60));
        shelf.add();
        for document in ["first.txt", "second.txt"] {
            let passages = cut(&shelf.index(), document);
            assert!(passages.len() >= 6, "{}", passages.len());
            for pair in passages.windows(2) {
                let both = pair[0].range.end.saturating_sub(pair[1].range.start);
                let end = &pair[0].text[pair[0].text.len() - both..];
                assert_eq!(end.matches("keeper").count(), shared, "{document}: {end}");
            }
        }
    }
}

#[test]
fn other_options_hold_from_then_on() {
    let (old, new) = (passages_of(128, 0), passages_of(64, 0));
    let shelf = shelf(old);
    shelf.write("second.txt", &sentences(30));
    shelf.add();

    // A file whose content is as it was is cut again, one that is not named stays.
    let report = add_cut(&shelf, &["second.txt"], Some(new));
    assert_eq!((report.files_updated, report.files_recut, report.files_unchanged), (1, 1, 0));
    assert_eq!((report.chunking, report.chunking_before), (new, Some(old)));
    let first = OtherChunking { files: 1, documents: 1, unrecorded_files: 0 };
    assert_eq!(report.other_chunking, first);
    let index = shelf.index();
    assert_eq!(lengths(&index, "second.txt"), [60, 60, 60, 60, 60]);
    assert_eq!(lengths(&index, "first.txt"), [120, 120, 120, 120, 120]);
    let stats = index.stats().unwrap();
    assert_eq!((stats.settings.chunking, stats.other_chunking), (new, first));
    index.verify().unwrap();

    // What is new is cut so without being asked for; what was left is when it is added again.
    shelf.write("third.txt", &sentences(30));
    shelf.write("second.txt", &sentences(6));
    let report = shelf.add();
    assert_eq!((report.files_added, report.files_updated, report.files_recut), (1, 2, 1));
    assert_eq!((report.chunking_before, report.other_chunking), (None, OtherChunking::default()));
    let index = shelf.index();
    assert_eq!(lengths(&index, "third.txt"), [60, 60, 60, 60, 60]);
    assert_eq!(lengths(&index, "first.txt"), [60; 10]);
    assert_eq!(lengths(&index, "second.txt"), [60]);

    // Asked for again, it costs nothing.
    let before = index.generation();
    let report = add_cut(&shelf, &[""], Some(new));
    assert_eq!((report.files_unchanged, report.chunking_before), (3, None));
    assert_eq!(shelf.index().generation(), before);
}

#[test]
fn other_options_hold_where_nothing_is_added() {
    let shelf = shelf(passages_of(128, 0));
    std::fs::create_dir(shelf.docs().join("empty")).unwrap();
    let report = add_cut(&shelf, &["empty"], Some(Chunking::Whole));
    assert_eq!(report.chunking_before, Some(passages_of(128, 0)));
    assert_eq!((report.other_chunking.files, report.documents), (1, 0));
    assert_eq!(shelf.index().settings().chunking, Chunking::Whole);
    shelf.add();
    assert_eq!(lengths(&shelf.index(), "first.txt"), [600]);
}

#[test]
fn documents_without_a_file_are_cut_as_the_index_cuts() {
    let shelf = shelf(passages_of(64, 0));
    let bag = Bag::new();
    let given = || {
        let (id, text) = ("given".to_owned(), sentences(60));
        vec![GivenDocument { id, text, ..GivenDocument::default() }]
    };
    let give = |options: &AddOptions| {
        let models = Models { embedder: Some(&*bag), tokens: None };
        add_documents(Writer::open(&shelf.dir()).unwrap(), given(), models, options).unwrap()
    };
    let report = give(&AddOptions::default());
    assert_eq!((report.files_added, report.passages), (1, 10));
    assert_eq!(lengths(&shelf.index(), "given"), [60; 10]);
    assert_eq!(give(&AddOptions::default()).files_unchanged, 1);
    let options = AddOptions { chunking: Some(Chunking::Whole), ..AddOptions::default() };
    let report = give(&options);
    assert_eq!((report.files_updated, report.files_recut), (1, 1));
    assert_eq!(report.other_chunking.files, 1, "the file beside it");
    assert_eq!(lengths(&shelf.index(), "given"), [600]);
    assert_eq!(give(&AddOptions::default()).files_unchanged, 1);
}

#[test]
fn numbers_out_of_bounds_change_nothing() {
    let shelf = shelf(passages_of(128, 0));
    let generation = shelf.index().generation();
    for odd in
        [passages_of(0, 0), passages_of(15, 0), passages_of(16, 9), passages_of(1_000_001, 0)]
    {
        let options = AddOptions { chunking: Some(odd), ..shelf.options() };
        let error = shelf.try_add(&*Bag::new(), &options).unwrap_err();
        assert!(matches!(error, IndexError::OutOfBounds { .. }), "{error}");
        assert!(error.to_string().contains("are accepted"), "{error}");
        assert_eq!(error.blame(), Blame::Caller);
        let elsewhere = shelf.docs().join("other.index");
        let settings = Settings { chunking: odd, ..shelf.settings.clone() };
        let refused = Writer::create_or_open(&elsewhere, &settings).map(drop);
        assert!(matches!(refused, Err(IndexError::OutOfBounds { .. })), "{refused:?}");
        assert!(!elsewhere.exists(), "a folder was made");
    }
    let index = shelf.index();
    assert_eq!((index.generation(), index.settings().chunking), (generation, passages_of(128, 0)));
}

#[test]
fn an_addition_that_fails_leaves_the_index_cutting_as_it_did() {
    let shelf = shelf(passages_of(128, 0));
    let options = AddOptions { chunking: Some(Chunking::Whole), ..shelf.options() };
    let torn = Bag::with_fault(Fault::FailsAfter(0));
    shelf.try_add(&*torn, &options).unwrap_err();
    let index = shelf.index();
    assert_eq!(index.settings().chunking, passages_of(128, 0));
    assert_eq!(lengths(&index, "first.txt").len(), 5);
}

#[test]
fn what_is_up_to_date_follows_how_the_index_cuts() {
    let shelf = shelf(passages_of(128, 0));
    let entry = shelf.index().files().unwrap().remove(0);
    let paths = [shelf.docs()];
    let source = walk(&paths, &AddOptions::default().ingest).remove(0).unwrap();
    let is_up_to_date = |own: Chunking, asked: Option<Chunking>| {
        let settings = Settings { chunking: own, ..shelf.settings.clone() };
        let options = AddOptions { chunking: asked, ..shelf.options() };
        options.is_up_to_date(&settings, &entry, &source)
    };
    let (own, other) = (passages_of(128, 0), passages_of(128, 1));
    assert!(is_up_to_date(own, None) && is_up_to_date(other, Some(own)));
    assert!(!is_up_to_date(other, None) && !is_up_to_date(own, Some(other)));
}
