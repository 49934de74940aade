//! `index add` cuts as the index does, and says what other options mean.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::json::validate;
use super::program::{Outcome, copy_folder, run, write};

/// Adds to an index without vectors, so that no model is needed.
fn add(dir: &Path, arguments: &[&str]) -> Outcome {
    run(dir, &[&["index", "add", "--index", "i", "--embed", "none"], arguments].concat())
}

fn add_json(dir: &Path, arguments: &[&str]) -> Value {
    let answer = add(dir, &[arguments, &["--json"]].concat()).json();
    validate("index-add", &answer);
    answer
}

fn stats(dir: &Path) -> Value {
    let stats = run(dir, &["index", "stats", "--index", "i", "--files", "--json"]).json();
    validate("index-stats", &stats);
    stats
}

/// Passages of each file, in the order of their names.
fn passages(dir: &Path) -> Vec<u64> {
    let stats = stats(dir);
    let files = stats["listing"].as_array().unwrap();
    files.iter().map(|file| file["passages"].as_u64().unwrap()).collect()
}

fn write_documents(dir: &Path) {
    // About 1200 tokens each.
    let text = "The keeper of the light winds the clock at dusk. ".repeat(100);
    write(dir, "docs/a.txt", &text);
    write(dir, "docs/b.txt", &text);
}

#[test]
fn adding_again_without_options_cuts_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write_documents(dir);
    let first = add_json(dir, &["docs/a.txt", "--chunk", "128", "--overlap", "0"]);
    let expected = json!({"whole": false, "max_tokens": 128, "overlap_tokens": 0});
    assert_eq!(first["chunking"], expected);
    assert!(first.get("chunking_before").is_none(), "{first}");
    let again = add_json(dir, &["docs"]);
    assert_eq!((&again["files_added"], &again["files_unchanged"]), (&json!(1), &json!(1)));
    assert_eq!(again["chunking"], expected);
    let counts = passages(dir);
    assert!(counts[0] == counts[1] && (9..=14).contains(&counts[0]), "{counts:?}");
    assert_eq!(stats(dir)["chunking"], expected);
    let table = run(dir, &["index", "stats", "--index", "i"]).success();
    assert!(table.contains("passages of up to 128 tokens without overlap"), "{table}");
    assert!(!table.contains("otherwise"), "{table}");
    let silent = add(dir, &["docs"]);
    assert!(!silent.stderr.contains("note"), "{silent:?}");
    assert!(!silent.success().contains("cuts into"));
}

#[test]
fn other_options_are_explained_and_hold_from_then_on() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write_documents(dir);
    add(dir, &["docs", "--chunk", "128"]).success();

    // What the arguments leave out is as the index has it.
    let changed = add(dir, &["docs/a.txt", "--chunk", "512"]);
    let note = "note: the index changes from passages of up to 128 tokens with an overlap of 32 to \
                passages of up to 512 tokens with an overlap of 32: what is added from now on is cut \
                that way, documents that are not added again stay as they are";
    assert!(changed.stderr.contains(note), "{changed:?}");
    let summary = changed.success();
    for part in [
        "1 updated (1 of them have the same content and were read or cut otherwise before)",
        "it cuts into passages of up to 512 tokens with an overlap of 32; 1 files (1 documents) are \
         cut otherwise until they are added again",
    ] {
        assert!(summary.contains(part), "{summary}");
    }
    let counts = passages(dir);
    assert!(counts[0] <= 4 && counts[1] >= 10, "{counts:?}");
    let table = run(dir, &["index", "stats", "--index", "i"]).success();
    assert!(table.contains("1 files (1 documents) are cut otherwise"), "{table}");

    // Without options what was left is cut so, too.
    let rest = add_json(dir, &["docs"]);
    assert_eq!((&rest["files_recut"], &rest["files_unchanged"]), (&json!(1), &json!(1)));
    assert_eq!(rest["other_chunking"]["files"], 0);
    let counts = passages(dir);
    assert_eq!(counts[0], counts[1]);

    let whole = add_json(dir, &["docs/b.txt", "--whole"]);
    assert_eq!(whole["chunking"], json!({"whole": true}));
    assert_eq!(whole["chunking_before"]["max_tokens"], 512);
    let other = json!({"files": 1, "documents": 1, "unrecorded_files": 0});
    assert_eq!(whole["other_chunking"], other);
    assert_eq!(stats(dir)["other_chunking"], other);
    assert_eq!(passages(dir)[1], 1);
    let vague = add(dir, &["docs", "--overlap", "16"]);
    assert_eq!(vague.code, Some(2));
    assert!(vague.stderr.contains("--overlap needs --chunk"), "{vague:?}");
    assert_eq!(stats(dir)["chunking"], json!({"whole": true}));
    let back = add_json(dir, &["docs", "--chunk", "128", "--overlap", "16"]);
    assert_eq!((&back["files_recut"], &back["files_updated"]), (&json!(2), &json!(2)));
}

#[test]
fn what_an_older_version_has_not_recorded_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let formats =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../topshelf-index/tests/data/formats");
    copy_folder(&formats.join("format-3"), &dir.join("i"));
    let old = stats(dir);
    let default = json!({"whole": false, "max_tokens": 256, "overlap_tokens": 32});
    assert_eq!((&old["format"], &old["chunking"]), (&json!(3), &default));
    assert_eq!(old["other_chunking"]["unrecorded_files"], 0, "they are cut as by default");

    // As it is once other lengths have been asked for.
    let meta = dir.join("i/text/meta.json");
    let mut value: Value = serde_json::from_str(&fs::read_to_string(&meta).unwrap()).unwrap();
    let mut state: Value = serde_json::from_str(value["payload"].as_str().unwrap()).unwrap();
    state["format"] = json!(4);
    state["settings"]["chunking"] = json!("128/0");
    value["payload"] = state.to_string().into();
    fs::write(&meta, value.to_string()).unwrap();
    assert_eq!(stats(dir)["other_chunking"]["unrecorded_files"], 3);
    let table = run(dir, &["index", "stats", "--index", "i"]).success();
    assert!(table.contains("added 3 files and did not record how they are cut"), "{table}");
}
