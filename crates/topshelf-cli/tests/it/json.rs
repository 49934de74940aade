//! What each command prints with `--json`: valid against its published schema, and unchanged
//! since the last look at it.
//!
//! What differs from run to run and from machine to machine is replaced before the snapshot is
//! taken: folders, times, fingerprints, engines, and the scores of the models, whose last digits
//! depend on the processor. Order and places stand. `demo` is in `demo.rs`.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::program::{home_with_models, models, run, run_with_input, topshelf, write};

/// Scores of first stages and fusions, which come out the same everywhere.
const EXACT_SCALES: [&str; 3] = ["bm25", "rank", "normalised"];

/// Panics unless the answer satisfies docs/schema/NAME.json.
pub(super) fn validate(name: &str, answer: &Value) {
    let path = format!("{}/../../docs/schema/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let schema: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(answer)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{name} breaks its schema: {errors:#?}\n{answer:#}");
}

/// Replaces what is not the same in every run; `folders` are paths and the words they become.
fn settle(value: &mut Value, folders: &[(&Path, &str)]) {
    match value {
        Value::String(text) => {
            for (path, word) in folders {
                let canonical = fs::canonicalize(path).unwrap();
                for path in [canonical.as_path(), path] {
                    *text = text.replace(&path.display().to_string(), word);
                }
            }
        }
        Value::Number(number) if number.is_f64() => {
            let rounded = (number.as_f64().unwrap() * 100.0).round() / 100.0;
            *value = json!(rounded + 0.0); // not -0.0
        }
        Value::Array(items) => items.iter_mut().for_each(|item| settle(item, folders)),
        Value::Object(fields) => {
            let scale = fields.get("scale").and_then(Value::as_str).unwrap_or_default();
            let exact = EXACT_SCALES.contains(&scale);
            for (key, field) in fields.iter_mut() {
                match key.as_str() {
                    _ if field.is_null() => {}
                    "score" if !exact => *field = json!("[score]"),
                    "relevance_score" => *field = json!("[score]"),
                    "milliseconds" | "latency_ms" | "p50" | "p95" => *field = json!("[time]"),
                    "fingerprint" => *field = json!("[fingerprint]"),
                    "engine" => *field = json!("[engine]"),
                    _ => settle(field, folders),
                }
            }
        }
        _ => {}
    }
}

/// Validates an answer, settles it and compares it with its snapshot.
fn check(schema: &str, name: &str, mut answer: Value, folders: &[(&Path, &str)]) {
    validate(schema, &answer);
    settle(&mut answer, folders);
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_json_snapshot!(name, answer);
    });
}

/// A few files of every kind that has something of its own in the answers.
fn write_documents(dir: &Path) {
    write(
        dir,
        "docs/fleas.md",
        "---\nlang: en\nyear: 2024\n---\n# Fleas\n\n## Life span\n\nA flea lives for up to a year.\n\n\
         ## Food\n\nFleas drink the blood of cats and dogs.\n",
    );
    write(
        dir,
        "docs/records.jsonl",
        "{\"_id\": \"cat\", \"title\": \"Cats\", \"text\": \"A cat lives for fifteen years.\", \"lang\": \"en\"}\n\
         {\"_id\": \"hafen\", \"title\": \"Häfen\", \"text\": \"Schiffe löschen Kaffee im Hafen.\", \"lang\": \"de\"}\n\
         {\"_id\": \"wordless\"}\n",
    );
    let mut broken =
        b"Z\xc3\xbcrich lies at a lake; caf\xc3\xa9s line its shore. Damaged here: ".to_vec();
    broken.push(0xff);
    write(dir, "docs/broken.txt", broken);
    write(dir, "docs/empty.md", "");
}

#[test]
fn models_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let home = home_with_models(dir.path());
    let folders: [(&Path, &str); 1] = [(&home, "[home]")];
    let answer = |arguments: &[&str]| {
        let mut command = topshelf(dir.path(), arguments);
        let output = command.env("TOPSHELF_HOME", &home).output().unwrap();
        super::program::Outcome::from(output).json()
    };
    check("models-list", "models_list", answer(&["models", "list", "--json"]), &folders);
    let shown = answer(&["models", "show", "bge-small", "--json"]);
    assert_eq!(shown["fingerprint"].as_str().map(str::len), Some(64));
    check("models-show", "models_show", shown, &folders);
    let absent = answer(&["models", "show", "answerdotai/answerai-colbert-small-v1", "--json"]);
    check("models-show", "models_show_absent", absent, &folders);
    let pulled = answer(&["models", "pull", "minilm-l12", "bge-small", "--json"]);
    check("models-pull", "models_pull", pulled, &folders);
    check("models-verify", "models_verify", answer(&["models", "verify", "--json"]), &folders);
}

#[test]
fn index_and_search_as_json() {
    models();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let folders: [(&Path, &str); 1] = [(dir, "[folder]")];
    write_documents(dir);

    let added = run(dir, &["index", "add", "docs", "--index", "i", "--json"]).json();
    check("index-add", "index_add", added, &folders);
    let again = run(dir, &["index", "add", "docs", "--index", "i", "--json"]).json();
    check("index-add", "index_add_again", again, &folders);

    let stats = ["index", "stats", "--index", "i", "--json"];
    let mut brief = run(dir, &stats).json();
    assert!(brief.get("listing").is_none() && brief.get("check").is_none(), "{brief}");
    assert!(brief["bytes"].as_u64() > Some(1000), "{brief}");
    brief["bytes"] = json!(0); // names of different lengths are in it
    check("index-stats", "index_stats", brief, &folders);
    let mut full = run(dir, &[&stats[..], &["--files", "--check"]].concat()).json();
    full["bytes"] = json!(0);
    check("index-stats", "index_stats_files_check", full, &folders);

    let search = |more: &[&str]| {
        run(dir, &[&["search", "how old do fleas get", "--index", "i", "--json"], more].concat())
            .json()
    };
    // The others are so far from the question that their order means nothing.
    check("search", "search", search(&["--top", "2"]), &folders);
    check("search", "search_prompt", search(&["--top", "2", "--prompt"]), &folders);
    let words = search(&["--retriever", "bm25", "--rerank", "none", "--filter", "lang = en"]);
    check("search", "search_bm25_filtered", words, &folders);
    let nothing = search(&["--rerank", "none", "--filter", "lang = fr"]);
    assert_eq!(nothing["hits"], json!([]));
    check("search", "search_nothing_found", nothing, &folders);

    let arguments = ["index", "remove", "docs/records.jsonl", "--index", "i", "--json"];
    check("index-remove", "index_remove", run(dir, &arguments).json(), &folders);
}

#[test]
fn rerank_as_json() {
    models();
    let dir = tempfile::tempdir().unwrap();
    let documents = "A ship lies in the harbour.\n\
         \n\
         {\"id\": \"span\", \"title\": \"Fleas\", \"text\": \"A flea lives for up to a year.\"}\n\
         \"Cats live for fifteen years.\"\n";
    let arguments = ["rerank", "how old do fleas get", "--json"];
    let answer = run_with_input(dir.path(), &arguments, documents.as_bytes()).json();
    let scores: Vec<f64> = answer["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["score"].as_f64().expect("every document was scored"))
        .collect();
    assert!(scores.is_sorted_by(|left, right| left >= right), "{scores:?}");
    check("rerank", "rerank", answer, &[(dir.path(), "[folder]")]);
    let arguments = ["rerank", "how old do fleas get", "--json", "--top", "1"];
    let top = run_with_input(dir.path(), &arguments, documents.as_bytes()).json();
    check("rerank", "rerank_top", top, &[(dir.path(), "[folder]")]);
}

const QRELS: [&str; 2] = ["--qrels", "pets/qrels/test.tsv"];

#[test]
fn eval_as_json() {
    models();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let folders: [(&Path, &str); 1] = [(dir, "[folder]")];
    write_collection(dir);
    let measures = ["--measures", "nDCG@10,recall@2,MRR@10", "--json"];
    let eval = |more: &[&str]| run(dir, &[&["eval"], more, &measures[..]].concat()).json();

    let all = eval(&["--data", "pets", "--index", "i", "--save-runs", "runs"]);
    check("eval", "eval", all, &folders);
    for system in ["bm25", "dense", "hybrid", "hybrid+rerank"] {
        let run = fs::read_to_string(dir.join(format!("runs/{system}.trec"))).unwrap();
        assert!(run.lines().all(|line| line.split_whitespace().count() == 6), "{run}");
    }

    // With itself nothing has changed; BM25 in the place of the best has.
    let best =
        run(dir, &[&["eval", "--run", "runs/hybrid+rerank.trec"][..], &QRELS, &measures].concat());
    let upside_down =
        "q1 Q0 harbour 1 2 t\nq1 Q0 flea 2 1 t\nq2 Q0 parrot 1 2 t\nq2 Q0 cat 2 1 t\n";
    write(dir, "worse/hybrid+rerank.trec", upside_down);
    let worse = ["eval", "--run", "worse/hybrid+rerank.trec"];
    let worse = run(dir, &[&worse[..], &QRELS, &measures].concat());
    write(dir, "best.json", best.success());
    write(dir, "worst.json", worse.success());
    let compare = |before: &str, after: &str| {
        run(dir, &["eval", "--json", "--max-drop", "0.001", "--compare", before, after])
    };
    let same = compare("best.json", "best.json").json();
    validate("eval-compare", &same);
    assert_eq!(same["systems"][0]["mean"], 0.0);
    assert_eq!(same["systems"][0]["verdict"], "cannot be told apart");
    let dropped = compare("best.json", "worst.json");
    assert_eq!(dropped.code, Some(1), "{dropped:?}");
    assert!(dropped.stderr.contains("hybrid+rerank lost"), "{dropped:?}");
    let other = eval(&["--run", "runs/bm25.trec", "--qrels", "pets/qrels/test.tsv"]);
    write(dir, "other.json", other.to_string());
    let nothing = compare("best.json", "other.json");
    assert_eq!(nothing.code, Some(2), "{nothing:?}");
    assert!(nothing.stderr.contains("no system in common"), "{nothing:?}");

    let measured = eval(&["--run", "runs/bm25.trec", "--qrels", "pets/qrels/test.tsv"]);
    check("eval", "eval_run", measured, &folders);

    // Upside down, so that reranking has something to do; one document is not in the collection.
    write(
        dir,
        "given.trec",
        "q1 Q0 harbour 1 3 by-hand\nq1 Q0 stray 2 2 by-hand\nq1 Q0 flea 3 1 by-hand\n\
         q2 Q0 parrot 1 2 by-hand\nq2 Q0 cat 2 1 by-hand\n",
    );
    let reranked = eval(&["--data", "pets", "--candidates", "given.trec"]);
    check("eval", "eval_candidates", reranked, &folders);
}

/// Six documents and three judged queries in BEIR's layout.
fn write_collection(dir: &Path) {
    let documents = [
        ("flea", "Fleas", "A flea lives for up to a year if it finds blood to drink."),
        ("cat", "Cats", "House cats grow fifteen years old on average."),
        ("parrot", "Parrots", "Parrots can talk; they imitate the voices of people."),
        ("harbour", "Harbours", "Ships unload coffee and cocoa in the harbour."),
        ("bread", "Bread", "Bread is baked from flour, water, salt and yeast."),
        ("moon", "The moon", "The moon circles the earth in twenty-seven days."),
    ];
    let queries = [
        ("q1", "how long do fleas live"),
        ("q2", "how old do cats grow"),
        ("q3", "which birds can talk like people"),
    ];
    let lines = |records: Vec<Value>| {
        records.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n") + "\n"
    };
    let corpus = documents
        .iter()
        .map(|(id, title, text)| json!({ "_id": id, "title": title, "text": text }));
    write(dir, "pets/corpus.jsonl", lines(corpus.collect()));
    let queries = queries.iter().map(|(id, text)| json!({ "_id": id, "text": text }));
    write(dir, "pets/queries.jsonl", lines(queries.collect()));
    write(
        dir,
        "pets/qrels/test.tsv",
        "query-id\tcorpus-id\tscore\nq1\tflea\t2\nq1\tcat\t0\nq2\tcat\t1\nq3\tparrot\t1\n",
    );
}
