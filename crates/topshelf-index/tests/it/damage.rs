//! Damaged files: told, never a panic or a wrong answer.

use std::fs::{self, OpenOptions};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use topshelf_core::{Blame, Bm25Options, Call, Query, Retriever};
use topshelf_index::{
    AddOptions, GivenDocument, Index, IndexError, LateOptions, Models, Precision, Settings, Tier,
    Writer, add_documents,
};

use super::support::{Answer, Bag, Shelf, answers, copy_folder, text};
use super::tokens::{self, Words};

const QUERIES: [&str; 3] = ["w1 w2 w3", "w20", "rope"];

/// An index of every kind of file: two segments, one with deletions, vectors, a graph.
fn shelf() -> Shelf {
    let shelf = Shelf::with(Settings { graph_from: 1, ..Settings::with_embedder(&*Bag::new()) });
    for n in 0..60 {
        shelf.write(&format!("{n}.txt"), &text(n, 20, 60));
    }
    shelf.add();
    shelf.delete("7.txt");
    shelf.write("8.txt", "rope");
    shelf.sync();
    shelf
}

/// All files below a folder, relative to it, but for locks.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = PathBuf::from(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            files.extend(self::files(&entry.path()).into_iter().map(|file| name.join(file)));
        } else if name.extension().is_none_or(|extension| extension != "lock") {
            files.push(name);
        }
    }
    files.sort();
    files
}

/// Opens, verifies and asks.
fn look(dir: &Path) -> Result<Vec<Answer>, IndexError> {
    let index = Index::open(dir)?;
    index.verify()?;
    index.files()?;
    Ok(answers(&index, &QUERIES, 100))
}

fn is_told(error: &IndexError) -> bool {
    matches!(error, IndexError::Damaged { .. }) && error.blame() == Blame::Caller
}

/// tantivy's JSON files have parts that have no part in an answer: spaces, the count of its
/// operations, the list of files to clean up.
fn may_differ(file: &Path) -> bool {
    file.ends_with("meta.json") || file.ends_with(".managed.json")
}

/// Damages each file in turn, in a copy.
fn for_each_file(damage: impl Fn(&Path), check: impl Fn(&Path, Result<Vec<Answer>, IndexError>)) {
    let shelf = shelf();
    let all = files(&shelf.dir());
    let kinds = ["meta.json", ".managed.json", "files-", "vectors-", "graph-", ".store", ".term"];
    for kind in kinds {
        assert!(
            all.iter().any(|file| file.display().to_string().contains(kind)),
            "{kind}: {all:?}"
        );
    }
    for file in all {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(&shelf.dir(), copy.path());
        damage(&copy.path().join(&file));
        let seen = catch_unwind(|| look(copy.path()));
        check(&file, seen.unwrap_or_else(|_| panic!("{} made it panic", file.display())));
        // The one who would change it is told as well, or has no use for the file.
        let writer = catch_unwind(|| Writer::open(copy.path()).map(drop));
        let writer = writer.unwrap_or_else(|_| panic!("{} made the writer panic", file.display()));
        assert!(writer.as_ref().is_ok() || writer.as_ref().is_err_and(is_told), "{writer:?}");
    }
}

#[test]
fn a_file_one_byte_short() {
    let shorten = |path: &Path| {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    };
    let whole = look(&shelf().dir()).unwrap();
    for_each_file(shorten, |file, seen| match seen {
        Err(error) => assert!(is_told(&error), "{}: {error}", file.display()),
        Ok(answers) => assert!(may_differ(file) && answers == whole, "{}", file.display()),
    });
}

#[test]
fn a_file_that_is_missing() {
    let whole = look(&shelf().dir()).unwrap();
    for_each_file(
        |path| fs::remove_file(path).unwrap(),
        |file, seen| match seen {
            Err(error) => assert!(is_told(&error), "{}: {error}", file.display()),
            Ok(answers) => assert!(may_differ(file) && answers == whole, "{}", file.display()),
        },
    );
}

#[test]
fn a_file_with_a_byte_changed() {
    let whole = look(&shelf().dir()).unwrap();
    let change = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(path, bytes).unwrap();
    };
    for_each_file(change, |file, seen| match seen {
        Err(error) => assert!(is_told(&error), "{}: {error}", file.display()),
        Ok(answers) => assert!(may_differ(file) && answers == whole, "{}", file.display()),
    });
}

/// Changes what `meta.json` says, by its own JSON and by that of its payload.
pub(super) fn edit_state(dir: &Path, edit: impl FnOnce(&mut Value)) {
    let meta = dir.join("text/meta.json");
    let mut outer: Value = serde_json::from_str(&fs::read_to_string(&meta).unwrap()).unwrap();
    let mut payload: Value = serde_json::from_str(outer["payload"].as_str().unwrap()).unwrap();
    edit(&mut payload);
    outer["payload"] = payload.to_string().into();
    fs::write(&meta, outer.to_string()).unwrap();
}

#[test]
fn an_index_of_another_format() {
    let shelf = shelf();
    for format in [0, 5, 99] {
        // Whatever else that format has.
        edit_state(&shelf.dir(), |state| *state = json!({"format": format}));
        let wrong = |result: Result<(), IndexError>| {
            assert!(
                matches!(result, Err(IndexError::Format { found, supported: 4, .. }) if found == format),
                "{result:?}"
            );
        };
        wrong(Index::open(shelf.dir()).map(drop));
        wrong(Writer::open(&shelf.dir()).map(drop));
        wrong(shelf.writer().map(drop));
    }
}

#[test]
fn a_state_that_lacks_something() {
    let shelf = shelf();
    edit_state(&shelf.dir(), |state| drop(state.as_object_mut().unwrap().remove("next_key")));
    assert!(Index::open(shelf.dir()).is_err_and(|error| is_told(&error)));
    assert!(shelf.writer().is_err_and(|error| is_told(&error)));
}

/// Numbers that a damaged or hostile file may have where any other is expected.
fn odd_counts() -> Vec<Value> {
    vec![json!(0), json!(1), json!(u64::MAX)]
}

/// And whatever else may stand there.
fn odd_values() -> Vec<Value> {
    let numbers = [json!(-1), json!(1.5), json!(u32::MAX)];
    let texts =
        ["", "x", "0/0", "15/0", "128/65", "256/256", "1000001/0", "99999999999999999999/1"];
    let others = [json!(null), json!([]), json!({}), json!([1, 2]), json!(true)];
    let all = odd_counts().into_iter().chain(numbers).chain(others);
    all.chain(texts.map(Value::from)).collect()
}

/// The places of all values below one, as JSON pointers.
fn places(value: &Value, below: &str, found: &mut Vec<String>) {
    let mut inner = |key: &str, value: &Value| {
        let place = format!("{below}/{key}");
        places(value, &place, found);
        found.push(place);
    };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| inner(key, value)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, value)| inner(&n.to_string(), value));
        }
        _ => {}
    }
}

/// Adds a document to an index with vectors of words, or to one with token vectors.
fn give(dir: &Path) -> Result<(), IndexError> {
    let writer = Writer::open(dir)?;
    let (bag, words) = (Bag::new(), Words::new("words"));
    let models = if writer.settings().token_vectors.is_some() {
        Models { embedder: None, tokens: Some(&*words) }
    } else {
        Models { embedder: Some(&*bag), tokens: None }
    };
    let given = GivenDocument { id: "given".into(), text: text(3, 400, 60), ..Default::default() };
    add_documents(writer, vec![given], models, &AddOptions::default()).map(drop)
}

/// Opens, verifies and asks; an index of another model is asked by words alone.
fn look_further(dir: &Path) -> Result<(), IndexError> {
    let index = Index::open(dir)?;
    let bm25: Arc<dyn Retriever> = Arc::new(index.bm25(Bm25Options::default()));
    let dense = index.dense(Bag::new()).ok().map(|dense| Arc::new(dense) as _);
    let late = index.late_interaction(Words::new("words"), LateOptions::exact());
    let late = late.ok().map(|late| Arc::new(late) as _);
    for retriever in [Some(bm25), dense, late].into_iter().flatten() {
        // What a damaged index answers is checked elsewhere; here it must answer.
        let _ =
            pollster::block_on(retriever.retrieve(&Call::new(), &Query::new("w1 w2").unwrap(), 10));
    }
    index.verify()
}

#[test]
fn settings_and_counts_that_no_index_can_have() {
    let with_tokens = tokens::shelf(Tier::FourBits, 0..60);
    tokens::bring(&with_tokens).unwrap();
    for shelf in [shelf(), with_tokens] {
        let mut all = Vec::new();
        places(&shelf.state(), "", &mut all);
        assert!(all.contains(&"/settings/chunking".to_owned()), "{all:?}");
        let odd = all.iter().flat_map(|place| {
            let values = if place.starts_with("/settings") { odd_values() } else { odd_counts() };
            values.into_iter().map(move |odd| (place, odd))
        });
        for (place, odd) in odd {
            let copy = tempfile::tempdir().unwrap();
            copy_folder(&shelf.dir(), copy.path());
            edit_state(copy.path(), |state| *state.pointer_mut(place).unwrap() = odd.clone());
            let tried = catch_unwind(|| {
                let opened = Writer::open(copy.path()).map(drop);
                [look_further(copy.path()), opened, give(copy.path())]
            });
            let tried = tried.unwrap_or_else(|_| panic!("{odd} at {place} made it panic"));
            if place == "/settings/chunking" {
                let named = |tried: &Result<(), IndexError>| tried.as_ref().is_err_and(is_told);
                assert!(tried.iter().all(named), "{odd}: {tried:?}");
            }
        }
    }
}

#[test]
fn settings_that_do_not_say_how_documents_are_cut() {
    let shelf = shelf();
    edit_state(&shelf.dir(), |state| {
        drop(state["settings"].as_object_mut().unwrap().remove("chunking"));
    });
    let error = Index::open(shelf.dir()).map(drop).unwrap_err();
    assert!(is_told(&error) && error.to_string().contains("how documents are cut"), "{error}");
    assert!(shelf.writer().is_err_and(|error| is_told(&error)));
}

#[test]
fn a_folder_of_something_else() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("holiday.jpg"), "picture").unwrap();
    let refused = |dir: &Path| {
        let settings = Settings::default();
        for result in [Index::open(dir).map(drop), Writer::create_or_open(dir, &settings).map(drop)]
        {
            assert!(matches!(result, Err(IndexError::NotAnIndex { .. })), "{result:?}");
        }
    };
    refused(folder.path());
    refused(&folder.path().join("holiday.jpg"));
    assert_eq!(files(folder.path()), [PathBuf::from("holiday.jpg")]);
}

#[test]
fn a_folder_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("index");
    let error = Index::open(&dir).map(drop).unwrap_err();
    assert!(matches!(&error, IndexError::Missing { .. }), "{error}");
    assert!(error.to_string().contains("there is no index in"), "{error}");
    assert!(!dir.exists());
}

#[test]
fn a_lost_state_is_not_taken_for_no_index() {
    // Making a new one there would delete what a copy of the state could bring back.
    let shelf = shelf();
    fs::remove_file(shelf.dir().join("text/meta.json")).unwrap();
    let before = files(&shelf.dir());
    assert!(shelf.writer().is_err_and(|error| is_told(&error)));
    assert_eq!(files(&shelf.dir()), before);
}

#[test]
fn every_precision_survives_a_round_trip() {
    for precision in [Precision::Int8, Precision::F32] {
        let shelf = Shelf::new(precision);
        shelf.write("a.txt", "rope");
        shelf.add();
        let copy = tempfile::tempdir().unwrap();
        copy_folder(&shelf.dir(), copy.path());
        assert_eq!(look(copy.path()).unwrap(), look(&shelf.dir()).unwrap());
        assert_eq!(Index::open(copy.path()).unwrap().settings().precision, precision);
    }
}
