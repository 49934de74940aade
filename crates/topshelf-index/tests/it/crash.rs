//! What is begun and not finished leaves the index as it was; readers and a writer side by side.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use topshelf_index::{AddEvent, AddOptions, Index, IndexError, Precision, Settings, Writer};

use super::support::{Answer, Bag, Fault, Shelf, answers, text};

const QUERIES: [&str; 2] = ["w1 w2 w3", "w20"];

/// An index of a hundred files of which twenty have changed since, with twenty new ones.
fn changed() -> Shelf {
    let shelf = Shelf::new(Precision::Int8);
    for n in 0..100 {
        shelf.write(&format!("{n}.txt"), &text(n, 20, 60));
    }
    shelf.add();
    for n in 0..20 {
        shelf.write(&format!("{n}.txt"), &text(500 + n, 20, 60));
        shelf.write(&format!("x{n}.txt"), &text(900 + n, 20, 60));
    }
    for n in 90..100 {
        shelf.delete(&format!("{n}.txt"));
    }
    shelf
}

/// What an index answers, with what it says of itself.
#[derive(Debug, PartialEq)]
struct Seen {
    answers: Vec<Answer>,
    generation: u64,
    files: usize,
    passages: u64,
}

fn see(index: &Index) -> Seen {
    let stats = index.stats().unwrap();
    Seen {
        answers: answers(index, &QUERIES, 1000),
        generation: stats.generation,
        files: stats.files,
        passages: stats.totals.passages,
    }
}

/// Runs what must fail, and asserts that it leaves the index as it was, that nothing is left
/// lying about once the next writer has come, and that adding then works.
fn assert_unchanged(fails: impl FnOnce(&Shelf)) {
    let shelf = changed();
    let before = see(&shelf.index());
    let files = (shelf.files("files-"), shelf.files("vectors-"));
    fails(&shelf);
    let index = shelf.index();
    assert_eq!(see(&index), before);
    index.verify().unwrap();
    drop(shelf.writer().unwrap());
    assert_eq!((shelf.files("files-"), shelf.files("vectors-")), files);
    assert_eq!(see(&shelf.index()), before);
    let report = shelf.sync();
    assert_eq!((report.files_added, report.files_updated, report.files_removed), (20, 20, 10));
    let fresh = Shelf::new(Precision::Int8);
    for entry in fs::read_dir(shelf.docs()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        fresh.write(&name, &fs::read_to_string(&path).unwrap());
    }
    fresh.add();
    assert_eq!(see(&shelf.index()).answers, see(&fresh.index()).answers);
}

#[test]
fn a_writer_that_is_dropped_has_done_nothing() {
    assert_unchanged(|shelf| drop(shelf.writer().unwrap()));
}

#[test]
fn an_embedder_that_fails_in_the_middle() {
    // Not at once: the first batch has been written by then.
    let options = AddOptions { sync: true, ..AddOptions::default() };
    assert_unchanged(|shelf| {
        // Enough files for several batches.
        for n in 0..200 {
            shelf.write(&format!("y{n}.txt"), &text(2000 + n, 20, 60));
        }
        let bag = Bag::with_fault(Fault::FailsAfter(150));
        let options = AddOptions { relative_to: Some(shelf.docs()), ..options };
        let error = shelf.try_add(&*bag, &options).unwrap_err();
        assert!(matches!(error, IndexError::Embed { .. }), "{error}");
        assert!(error.to_string().contains("as it was before"), "{error}");
        for n in 0..200 {
            shelf.delete(&format!("y{n}.txt"));
        }
    });
}

#[test]
fn an_embedder_that_answers_nonsense() {
    for fault in [Fault::TooFew, Fault::TooShort, Fault::NotANumber] {
        assert_unchanged(|shelf| {
            let error = shelf.try_add(&*Bag::with_fault(fault), &shelf.options()).unwrap_err();
            assert!(matches!(error, IndexError::Embed { .. }), "{fault:?}: {error}");
            assert!(error.to_string().contains("\"bag\""), "{fault:?}: {error}");
        });
    }
}

#[test]
fn an_interruption() {
    // Before anything, while documents are written, and when all are.
    for moment in 0..3 {
        assert_unchanged(|shelf| {
            let flag = Arc::new(AtomicBool::new(moment == 0));
            let options = AddOptions { interrupt: Some(Arc::clone(&flag)), ..shelf.options() };
            let mut documents = 0;
            let mut on_event = |event: AddEvent<'_>| {
                documents += usize::from(matches!(event, AddEvent::Document { .. }));
                if documents == [0, 1, 40][moment] {
                    flag.store(true, Ordering::Relaxed);
                }
            };
            let paths = [shelf.docs()];
            let result = shelf.try_add_paths(&paths, &*Bag::new(), &options, &mut on_event);
            assert!(matches!(result, Err(IndexError::Interrupted)), "{moment}: {result:?}");
        });
    }
}

#[test]
fn a_process_that_was_killed() {
    // Its files, complete or not, have names that the state does not have.
    assert_unchanged(|shelf| {
        let dir = shelf.dir();
        fs::write(dir.join("files-00000002.json"), "[").unwrap();
        fs::write(dir.join("vectors-000-00000002.vec"), "TSHVEC").unwrap();
        fs::write(dir.join("vectors-001-00000001.vec"), "").unwrap();
        fs::write(dir.join("graph-00000002.hnsw"), "half").unwrap();
        fs::write(dir.join("text/.tmpAbCdEf"), "{").unwrap();
    });
}

#[test]
fn one_writes_while_others_read() {
    let shelf = changed();
    let writer = shelf.writer().unwrap();
    assert!(matches!(shelf.writer(), Err(IndexError::Locked { .. })));
    assert!(matches!(Writer::open(&shelf.dir()), Err(IndexError::Locked { .. })));
    let index = shelf.index();
    assert_eq!(see(&index).passages, 100);
    drop(writer);
    // Dropped is released at once.
    drop(shelf.writer().unwrap());
}

#[test]
fn an_open_index_stays_as_it_was() {
    let mut shelf = changed();
    shelf.settings.graph_from = 1;
    let old = shelf.index();
    let before = see(&old);
    shelf.sync();
    let with_graph = shelf.index();
    let after = see(&with_graph);
    assert_ne!(before, after);
    assert_eq!((after.passages, after.generation), (110, 2));
    for n in 0..80 {
        shelf.delete(&format!("{n}.txt"));
    }
    shelf.sync(); // rewrites all files
    assert_eq!(see(&shelf.index()).passages, 30);
    assert_eq!(see(&old), before);
    assert_eq!(see(&with_graph), after);
    // What was opened before is still whole as far as it is checked.
    old.verify().unwrap();
    with_graph.verify().unwrap();
}

#[test]
fn indexes_are_opened_while_others_are_committed() {
    let shelf = Shelf::new(Precision::Int8);
    shelf.write("0.txt", "rope");
    shelf.add();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut last, mut opened) = (0, 0);
            while !done.load(Ordering::Relaxed) {
                let index = shelf.index();
                let stats = index.stats().unwrap();
                // Commit n has documents 0..n, in the text, the vectors and the table.
                assert!(stats.generation >= last);
                last = stats.generation;
                for answer in answers(&index, &["rope"], 1000) {
                    assert_eq!(answer.len() as u64, stats.generation);
                }
                assert_eq!(stats.files as u64, stats.generation);
                opened += 1;
            }
            opened
        });
        for n in 1..25 {
            shelf.write(&format!("{n}.txt"), "rope");
            shelf.add();
        }
        done.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
}

/// Makes an index folder what an interruption leaves.
type Leave = fn(&Path);

#[test]
fn a_first_commit_that_was_interrupted() {
    let settings = Settings::with_embedder(&*Bag::new());
    let left: [(&str, Leave); 5] = [
        ("an empty folder", |dir| fs::create_dir(dir).unwrap()),
        ("a lock", |dir| {
            fs::create_dir(dir).unwrap();
            fs::write(dir.join("writer.lock"), "").unwrap();
        }),
        ("an empty text folder", |dir| fs::create_dir_all(dir.join("text")).unwrap()),
        ("a text folder with tantivy's first file", |dir| {
            fs::create_dir_all(dir.join("text")).unwrap();
            fs::write(dir.join("text/.managed.json"), "[\"meta.json\"]\n").unwrap();
        }),
        ("a state without payload", |dir| {
            drop(Writer::create_or_open(dir, &Settings::default()).unwrap());
            let meta = dir.join("text/meta.json");
            let mut state: serde_json::Value =
                serde_json::from_str(&fs::read_to_string(&meta).unwrap()).unwrap();
            assert!(state.as_object_mut().unwrap().remove("payload").is_some());
            fs::write(&meta, state.to_string()).unwrap();
        }),
    ];
    for (what, leave) in left {
        let shelf = Shelf::with(settings.clone());
        leave(&shelf.dir());
        let missing = |result: Result<(), IndexError>| {
            assert!(matches!(result, Err(IndexError::Missing { .. })), "{what}: {result:?}");
        };
        missing(Index::open(shelf.dir()).map(|_| ()));
        missing(Writer::open(&shelf.dir()).map(|_| ()));
        shelf.write("a.txt", "rope");
        assert_eq!(shelf.add().totals.documents, 1, "{what}");
        let index = shelf.index();
        index.verify().unwrap();
        assert!(answers(&index, &["rope"], 10).iter().all(|answer| answer.len() == 1), "{what}");
    }
}

#[test]
fn many_make_the_same_index_at_once() {
    let shelf = Shelf::new(Precision::Int8);
    shelf.write("a.txt", "rope");
    let made = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| shelf.try_add(&*Bag::new(), &shelf.options()))).collect();
        let results = threads.into_iter().map(|thread| thread.join().unwrap());
        results
            .filter(|result| match result {
                Ok(_) => true,
                Err(error) => {
                    assert!(matches!(error, IndexError::Locked { .. }), "{error}");
                    false
                }
            })
            .count()
    });
    assert!(made >= 1);
    let index = shelf.index();
    assert_eq!(index.stats().unwrap().totals.documents, 1);
    index.verify().unwrap();
}
