//! Indexes that older versions have written, as they have written them: `tests/data/formats`.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use topshelf_core::Bm25Options;
use topshelf_index::chunk::Chunking;
use topshelf_index::ingest::{Format, SourceFile};
use topshelf_index::{
    AddOptions, Index, LateOptions, Models, OtherChunking, Settings, Writer, add,
};

use super::support::{Bag, ask, copy_folder, ids, state_of};
use super::tokens::Words;

/// A copy of the index of a format.
fn copy(format: u32) -> tempfile::TempDir {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/formats");
    let copy = tempfile::tempdir().unwrap();
    copy_folder(&data.join(format!("format-{format}")), copy.path());
    copy
}

/// The best for a query, by words, by meaning and, where there are token vectors, by these.
fn best(index: &Index, query: &str) -> Vec<String> {
    let first = |answer: &super::support::Answer| ids(answer)[0].to_owned();
    let mut best = vec![
        first(&ask(&index.bm25(Bm25Options::default()), query, 3)),
        first(&ask(&index.dense(Bag::new()).unwrap(), query, 3)),
    ];
    if index.settings().token_vectors.is_some() {
        let late = index.late_interaction(Words::new("words"), LateOptions::exact()).unwrap();
        best.push(first(&ask(&late, query, 3)));
    }
    best
}

fn assert_all(best: &[String], expected: &str) {
    assert!(best.iter().all(|id| id == expected), "{best:?}, expected {expected}");
}

const QUERIES: [(&str, &str); 4] = [
    ("crane at the north quay", "harbour.md#0"),
    ("keeper trims the wick", "lamp.txt#0"),
    ("High water comes fifty minutes later", "tide#0"),
    ("Hemp is tarred", "rope#0"),
];

#[test]
fn every_format_is_searched_and_added_to() {
    for format in 1..=3 {
        let dir = copy(format);
        let state = state_of(dir.path());
        assert_eq!(state["format"], format);
        assert!(state["settings"].get("chunking").is_none(), "{state}");
        let index = Index::open(dir.path()).unwrap();
        index.verify().unwrap();
        assert_eq!(index.settings().chunking, Chunking::default());
        assert_eq!(index.settings().token_vectors.is_some(), format > 1);
        for (query, expected) in QUERIES {
            assert_all(&best(&index, query), expected);
        }

        let docs = tempfile::tempdir().unwrap();
        let long = "Gulls nest on the chimney of the old customs house.\n".repeat(60);
        std::fs::write(docs.path().join("gulls.txt"), long).unwrap();
        let (bag, words) = (Bag::new(), Words::new("words"));
        let models = Models { embedder: Some(&*bag), tokens: (format > 1).then_some(&*words as _) };
        let options =
            AddOptions { relative_to: Some(docs.path().to_owned()), ..AddOptions::default() };
        let writer = Writer::open(dir.path()).unwrap();
        let paths = [docs.path().to_owned()];
        let report = add(writer, &paths, models, &options, &mut |_| {}).unwrap();
        assert_eq!((report.chunking, report.chunking_before), (Chunking::default(), None));
        assert_eq!((report.documents, report.totals.documents), (1, 5));
        // 600 words in passages of 256.
        assert_eq!(report.passages, 3);

        assert_eq!(state_of(dir.path())["settings"]["chunking"], "256/32");
        let index = Index::open(dir.path()).unwrap();
        index.verify().unwrap();
        assert_eq!(index.stats().unwrap().format, 4);
        assert!(best(&index, "Gulls nest on the chimney")[0].starts_with("gulls.txt#"));
        for (query, expected) in QUERIES {
            assert_all(&best(&index, query), expected);
        }
    }
}

/// What a file was when it was added, as a walk would find it today.
fn source(entry: &topshelf_index::FileEntry) -> SourceFile {
    let modified = Duration::from_nanos(u64::try_from(entry.modified).unwrap());
    SourceFile {
        path: PathBuf::from(&entry.path),
        id: entry.id.clone(),
        bytes: entry.bytes,
        modified: Some(UNIX_EPOCH + modified),
        format: Format::Text,
    }
}

#[test]
fn files_of_every_format_are_cut_again_when_other_lengths_are_asked_for_and_not_before() {
    for format in 1..=3 {
        let dir = copy(format);
        let index = Index::open(dir.path()).unwrap();
        let files = index.files().unwrap();
        assert_eq!(files.len(), 3);
        assert_eq!(index.stats().unwrap().other_chunking, OtherChunking::default());
        let whole = AddOptions { chunking: Some(Chunking::Whole), ..AddOptions::default() };
        for entry in &files {
            assert_eq!(entry.chunking, None);
            let source = source(entry);
            let settings = index.settings();
            assert!(AddOptions::default().is_up_to_date(settings, entry, &source), "{entry:?}");
            assert!(!whole.is_up_to_date(settings, entry, &source), "{entry:?}");
        }

        // With another way of cutting, nobody knows how they were cut.
        let empty = tempfile::tempdir().unwrap();
        let (bag, words) = (Bag::new(), Words::new("words"));
        let models = Models { embedder: Some(&*bag), tokens: (format > 1).then_some(&*words as _) };
        let writer = Writer::open(dir.path()).unwrap();
        let paths = [empty.path().to_owned()];
        let report = add(writer, &paths, models, &whole, &mut |_| {}).unwrap();
        assert_eq!(report.chunking_before, Some(Chunking::default()));
        let unrecorded = OtherChunking { unrecorded_files: 3, ..OtherChunking::default() };
        assert_eq!(report.other_chunking, unrecorded);
        assert_eq!(Index::open(dir.path()).unwrap().settings().chunking, Chunking::Whole);
    }
}

#[test]
fn opening_does_not_change_them() {
    for format in 1..=3 {
        let dir = copy(format);
        let before = state_of(dir.path());
        drop(Writer::open(dir.path()).unwrap());
        let settings = Index::open(dir.path()).unwrap().settings().clone();
        let other = Settings { chunking: Chunking::Whole, ..settings };
        drop(Writer::create_or_open(dir.path(), &other).unwrap());
        assert_eq!(state_of(dir.path()), before);
    }
}
