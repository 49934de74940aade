//! Wrong requests: each is refused with exit code 2 and a sentence that says what to do, and the
//! index answers afterwards as it did before.

use std::fs::{self, File};
use std::path::Path;

use serde_json::Value;

use super::program::{
    Outcome, copy_folder, home_with_models, models, run, run_with_input, topshelf, write,
};

/// An index of two files with vectors in `DIR/i`, and the files in `DIR/docs`.
fn with_index(dir: &Path) {
    models();
    write(dir, "docs/fleas.md", "# Fleas\n\nA flea lives for up to a year.\n");
    write(dir, "docs/cats.md", "# Cats\n\nA cat lives for fifteen years.\n");
    run(dir, &["index", "add", "docs", "--index", "i"]).success();
}

/// What the index answers; compared before and after.
fn answer(dir: &Path) -> Value {
    let found = ["search", "flea", "--index", "i", "--retriever", "hybrid", "--rerank", "none"];
    let hits = run(dir, &[&found[..], &["--json"]].concat()).json()["hits"].take();
    assert_eq!(hits[0]["document"], "docs/fleas.md");
    hits
}

/// Panics unless the request was refused as the caller's fault, with all of `says`.
fn assert_refused(what: &str, outcome: &Outcome, says: &[&str]) {
    assert_eq!(outcome.code, Some(2), "{what}: {outcome:?}");
    assert_eq!(outcome.stdout, "", "{what}");
    assert!(outcome.stderr.contains("error: "), "{what}: {}", outcome.stderr);
    assert!(!outcome.stderr.contains("panicked"), "{what}: {}", outcome.stderr);
    for said in says {
        assert!(outcome.stderr.contains(said), "{what}: no \"{said}\" in {}", outcome.stderr);
    }
}

/// Refuses each row, and lets the index answer after each.
fn assert_all_refused(dir: &Path, rows: &[(&[&str], &[&str])]) {
    let before = answer(dir);
    for (arguments, says) in rows {
        let what: String = format!("{arguments:?}").chars().take(200).collect();
        assert_refused(&what, &run(dir, arguments), says);
        assert_eq!(answer(dir), before, "after {what}");
    }
}

#[test]
fn queries_that_cannot_be_answered() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    with_index(dir);
    let long = "flea ".repeat(20_000) + "!";
    let no_word = ["only stop words or signs", "dense"];
    assert_all_refused(
        dir,
        &[
            (&["search", "", "--index", "i"], &["the query is empty", "give the words"]),
            (&["search", " \t\n", "--index", "i"], &["the query is empty"]),
            (&["search", &long, "--index", "i"], &["100001 characters", "10000", "ask for"]),
            (&["search", "the of and", "--index", "i", "--retriever", "bm25"], &no_word),
            (&["search", "🐈 🐕", "--index", "i"], &no_word),
            (&["search", "🐈 🐕", "--index", "i", "--retriever", "bm25"], &no_word),
            (
                &["search", "🐈 🐕", "--index", "i", "--retriever", "dense"],
                &["knows no token", "use words of its language"],
            ),
        ],
    );
    // Stop words have a meaning, if no word index entry: the dense retriever takes them, alone.
    let meant = ["search", "the of and", "--index", "i", "--rerank", "none", "--strict"];
    let shown = run(dir, &meant).success();
    let note = "note: bm25 has nothing to look up (it has only stop words or signs";
    assert!(shown.contains(note) && shown.contains("from dense alone"), "{shown}");
    let report = run(dir, &[&meant[..], &["--json"]].concat()).json()["report"].clone();
    let outcomes = [0, 1].map(|n| report["retrievers"][n]["outcome"].clone());
    assert_eq!(outcomes, ["nothing_to_look_up", "found"], "{report}");
}

#[test]
fn options_that_make_no_sense() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    with_index(dir);
    write(dir, "broken.j2", "{% for source in sources %}{{ source.text }}");
    write(dir, "unknown.j2", "{{ answers[0].text }}");
    let search = |more: &[&'static str]| -> Vec<&str> {
        [&["search", "flea", "--index", "i"], more].concat()
    };
    let rows: Vec<(Vec<&str>, &[&str])> = vec![
        (search(&["--depth", "0"]), &["depth is 0", "use a depth of 1 or more"]),
        (search(&["--top", "0"]), &["zero results", "use 1 or more"]),
        (search(&["--top", "11", "--depth", "10"]), &["11 results", "raise the depth"]),
        (search(&["--top", "many"]), &["--top", "many"]),
        (search(&["--b", "7"]), &["--b", "from 0 to 1"]),
        (search(&["--k1", "nan"]), &["--k1", "0 or more"]),
        (search(&["--title-weight=-1"]), &["--title-weight", "0 or more"]),
        (search(&["--rrf-k", "inf"]), &["--rrf-k", "0 or more"]),
        (
            search(&["--fusion", "min-max", "--weights", "1"]),
            &["1 weights for 2 rankings", "one weight for each"],
        ),
        (search(&["--filter", "lang = en AND ("]), &["the filter", "at character 16", "example:"]),
        (search(&["--filter", "year >"]), &["at character 7", "a value was expected"]),
        (
            search(&["--rerank", "minilm-l21"]),
            &["no model is called \"minilm-l21\"", "did you mean \"minilm-l12\"", "models list"],
        ),
        (search(&["--rerank", "bge-small"]), &["is a bi-encoder", "a cross-encoder is needed"]),
        (search(&["--retriever", "bm52"]), &["bm52", "there are bm25, dense, hybrid"]),
        (
            search(&["--prompt", "--template", "nowhere.j2"]),
            &["cannot read the template nowhere.j2"],
        ),
        (
            search(&["--prompt", "--template", "broken.j2"]),
            &["template cannot be used", "syntax error", "`question`"],
        ),
        (
            search(&["--prompt", "--template", "unknown.j2"]),
            &["template cannot be used", "undefined", "`sources`"],
        ),
        (search(&["--template", "broken.j2"]), &["--prompt"]),
        (search(&["--deadline", "150"]), &["--deadline", "with its unit, such as 150ms"]),
        (search(&["--deadline", "0ms"]), &["--deadline", "above 0"]),
        (search(&["--deadline", "86401s"]), &["--deadline", "up to a day"]),
        (search(&["--blend", "1.5"]), &["--blend", "from 0 to 1"]),
        (search(&["--min-relevance", "nan"]), &["--min-relevance", "from 0 to 1"]),
        (search(&["--then", "minilm-l12"]), &["--then", "how many it reads"]),
        (search(&["--then", "minilm-l12@0"]), &["--then", "how many it reads"]),
        (
            search(&["--rerank", "none", "--then", "minilm-l12@9"]),
            &["a further reranker cannot be combined with no reranking"],
        ),
        (search(&["--gate", "luck:dense:3>=1"]), &["no gate signal", "margin:dense:3"]),
        (search(&["--gate", "margin:dense:3"]), &["is a signal and the value"]),
        (
            search(&["--gate", "margin:dense:3>=0.1"]),
            &["nothing has shown that this gate pays", "--force"],
        ),
        (
            search(&["--gate", "agreement:3>=0.5", "--force", "--min-relevance", "0.5"]),
            &["a gate cannot be combined with a minimum relevance"],
        ),
        (
            vec!["index", "add", "docs", "--index", "i", "--embed", "none"],
            &["made with the bi-encoder BAAI/bge-small-en-v1.5", "build a new index"],
        ),
        (
            vec!["index", "add", "docs", "--index", "i", "--language", "german"],
            &["made with the language english", "build a new index"],
        ),
        (
            vec!["index", "add", "docs", "--index", "i", "--language", "klingon"],
            &["the languages are english"],
        ),
        (
            vec!["index", "add", "docs", "nowhere", "--index", "i"],
            &["no file or folder nowhere", "nothing was changed"],
        ),
        (
            vec!["index", "remove", "docs/fleas.md", "nowhere", "--index", "i"],
            &["nothing in the index came from nowhere", "stats --files"],
        ),
        (vec!["models", "pull", "bge-smal"], &["did you mean \"bge-small\""]),
    ];
    let rows: Vec<(&[&str], &[&str])> =
        rows.iter().map(|(arguments, says)| (arguments.as_slice(), *says)).collect();
    assert_all_refused(dir, &rows);
}

#[test]
fn passages_that_no_index_cuts() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    with_index(dir);
    let bounds = ["for '--chunk <TOKENS>'", "16 to 1000000 tokens"];
    let overlaps = ["for '--overlap <TOKENS>'", "0 to 500000 tokens"];
    let rows: [(&[&str], &[&str]); 11] = [
        (&["--chunk", "0"], &bounds),
        (&["--chunk", "15"], &bounds),
        (&["--chunk", "1000001"], &bounds),
        (&["--chunk", "99999999999999999999999"], &bounds),
        (&["--chunk", "many"], &bounds),
        (&["--overlap", "500001"], &overlaps),
        (&["--overlap=-1"], &overlaps),
        (&["--chunk", "64", "--overlap", "40"], &["--overlap 40", "32 or less"]),
        (&["--overlap", "129"], &["--overlap 129", "the index, which has 256", "128 or less"]),
        (&["--chunk", "32"], &["--chunk 32", "the overlap of 32", "also --overlap 16 or less"]),
        (&["--chunk", "64", "--whole"], &["'--chunk <TOKENS>' cannot be used with '--whole'"]),
    ];
    let add = ["index", "add", "docs", "--index", "i"];
    let rows = rows.map(|(options, says)| ([&add[..], options].concat(), says));
    let rows: Vec<(&[&str], &[&str])> =
        rows.iter().map(|(arguments, says)| (arguments.as_slice(), *says)).collect();
    assert_all_refused(dir, &rows);
}

#[test]
fn folders_that_hold_no_index_of_ours() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    with_index(dir);
    fs::create_dir(dir.join("empty")).unwrap();
    assert_all_refused(
        dir,
        &[
            (
                &["search", "flea", "--index", "nowhere"],
                &["no index in nowhere", "topshelf index add PATH --index nowhere"],
            ),
            (&["index", "stats", "--index", "empty"], &["no index in empty", "index add"]),
            (&["search", "flea", "--index", "docs"], &["docs is not an index", "new folder"]),
            (&["index", "add", "docs", "--index", "docs"], &["docs is not an index", "new folder"]),
        ],
    );
    assert!(!dir.join("nowhere").exists(), "a search makes no folder");
    assert_eq!(fs::read_dir(dir.join("docs")).unwrap().count(), 2, "docs is as it was");
}

#[test]
fn an_index_with_nothing_in_it_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    with_index(dir);
    run(dir, &["index", "remove", "docs", "--index", "i"]).success();
    let outcome = run(dir, &["search", "flea", "--index", "i"]);
    assert!(outcome.stderr.contains("the index i is empty"), "{outcome:?}");
    assert!(outcome.stderr.contains("index add"), "{outcome:?}");
    assert_eq!(outcome.success(), "nothing found\n");
}

#[test]
fn an_index_of_another_format_is_refused_and_left() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    with_index(dir);
    copy_folder(&dir.join("i"), &dir.join("old"));
    let meta = dir.join("old/text/meta.json");
    let mut value: Value = serde_json::from_str(&fs::read_to_string(&meta).unwrap()).unwrap();
    let payload = value["payload"].as_str().expect("the state is there");
    let mut state: Value = serde_json::from_str(payload).unwrap();
    assert_eq!(state["format"], 4);
    state["format"] = 0.into();
    value["payload"] = state.to_string().into();
    let old = value.to_string();
    fs::write(&meta, &old).unwrap();
    let says = ["has format 0", "reads formats 1 to 4", "build it again in another folder"];
    assert_all_refused(
        dir,
        &[
            (&["search", "flea", "--index", "old"], &says),
            (&["index", "stats", "--index", "old"], &says),
            (&["index", "add", "docs", "--index", "old"], &says),
            (&["index", "remove", "docs", "--index", "old"], &says),
        ],
    );
    assert_eq!(fs::read_to_string(&meta).unwrap(), old);

    fs::write(&meta, &old[..old.len() / 2]).unwrap();
    let says = ["damaged", "meta.json", "build it anew"];
    assert_all_refused(dir, &[(&["search", "flea", "--index", "old"], &says)]);
}

#[test]
fn a_damaged_file_of_vectors_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    with_index(dir);
    copy_folder(&dir.join("i"), &dir.join("cut"));
    let vectors = fs::read_dir(dir.join("cut"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "vec"))
        .expect("the index has vectors");
    let mut bytes = fs::read(&vectors).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&vectors, &bytes).unwrap();
    let says = ["damaged", "vectors-", "build it anew"];
    assert_all_refused(dir, &[(&["index", "stats", "--index", "cut", "--check"], &says)]);
    fs::write(&vectors, &bytes[..last]).unwrap();
    assert_all_refused(
        dir,
        &[(&["search", "flea", "--index", "cut", "--retriever", "dense"], &says)],
    );
}

#[test]
fn an_index_that_another_process_changes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    with_index(dir);
    write(dir, "docs/new.md", "# New\n\nSomething new about the flea.\n");
    let lock = File::options().write(true).open(dir.join("i/writer.lock")).unwrap();
    lock.try_lock().unwrap();
    let says = ["another process is changing the index", "wait until it has finished"];
    assert_all_refused(
        dir,
        &[
            (&["index", "add", "docs", "--index", "i"], &says),
            (&["index", "remove", "docs/cats.md", "--index", "i"], &says),
        ],
    );
    lock.unlock().unwrap();
    let added = run(dir, &["index", "add", "docs", "--index", "i", "--json"]).json();
    assert_eq!(added["files_added"], 1);
}

#[test]
fn a_model_that_was_cut_short() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    with_index(dir);
    let home = home_with_models(dir);
    let before = answer(dir);
    for (folder, name, arguments) in [
        (
            "cross-encoder--ms-marco-MiniLM-L12-v2",
            "cross-encoder/ms-marco-MiniLM-L12-v2",
            &["search", "flea", "--index", "i", "--retriever", "bm25"][..],
        ),
        (
            "BAAI--bge-small-en-v1.5",
            "BAAI/bge-small-en-v1.5",
            &["index", "add", "docs", "--index", "j"],
        ),
    ] {
        let file = home.join("models").join(folder).join("model.onnx");
        let bytes = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap(); // it may be a link to the real one
        fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
        for arguments in [arguments, &["models", "verify", name]] {
            let output = topshelf(dir, arguments).env("TOPSHELF_HOME", &home).output().unwrap();
            let again = format!("topshelf models pull {name} --force");
            let says = ["model.onnx", "damaged", &again];
            assert_refused(&format!("{arguments:?}"), &output.into(), &says);
        }
    }
    assert!(!dir.join("j").exists(), "no index is begun with a model that cannot be used");
    assert_eq!(answer(dir), before);
}

#[test]
fn a_model_that_is_not_here() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    with_index(dir);
    let home = dir.join("bare");
    for arguments in [&["search", "flea", "--index", "i"][..], &["models", "verify", "bge-small"]] {
        let output = topshelf(dir, arguments).env("TOPSHELF_HOME", &home).output().unwrap();
        let says = ["is not on this machine", "`topshelf models pull"];
        assert_refused(&format!("{arguments:?}"), &output.into(), &says);
    }
}

#[test]
fn an_instruction_set_that_does_not_exist() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = topshelf(dir.path(), &["models", "list"]);
    let output = command.env("TOPSHELF_ISA", "nonsense").output().unwrap();
    let says = ["TOPSHELF_ISA is \"nonsense\"", "unset it", "portable"];
    assert_refused("TOPSHELF_ISA", &output.into(), &says);
}

#[test]
fn collections_that_cannot_be_measured() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    with_index(dir);
    write(dir, "c/corpus.jsonl", "{\"_id\": \"a\", \"text\": \"A flea.\"}\n");
    write(dir, "c/queries.jsonl", "{\"_id\": \"q\", \"text\": \"flea\"}\n");
    write(dir, "c/qrels/test.tsv", "query-id\tcorpus-id\tscore\nq\ta\t1\n");
    write(dir, "other.trec", "x Q0 a 1 1.0 tag\n");
    write(dir, "nan.trec", "q Q0 a 1 NaN tag\n");
    assert_all_refused(
        dir,
        &[
            (&["eval"], &["--data"]),
            (&["eval", "--data", "docs"], &["corpus.jsonl is missing", "queries.jsonl"]),
            (&["eval", "--data", "nowhere"], &["corpus.jsonl is missing"]),
            (
                &["eval", "--data", "c", "--split", "dev"],
                &["there is no split \"dev\"", "it has: test"],
            ),
            (
                &["eval", "--data", "c", "--measures", "nDCG@10,bleu"],
                &["the measure \"bleu\"", "no such measure", "examples: nDCG@10"],
            ),
            (&["eval", "--data", "c", "--measures", "nDCG@0"], &["the measure \"nDCG@0\""]),
            (
                &["eval", "--data", "c", "--systems", "bm25,splade"],
                &["no system is called \"splade\"", "there are bm25"],
            ),
            (&["eval", "--data", "c", "--systems", "bm25,bm25"], &["\"bm25\" is named twice"]),
            (&["eval", "--data", "c", "--systems", "candidates"], &["needs --candidates RUN.trec"]),
            (&["eval", "--data", "c", "--depth", "0"], &["use a depth of 1 or more"]),
            (
                &["eval", "--data", "c", "--candidates", "other.trec", "--rerank", "none"],
                &["other.trec has no candidates for any judged query"],
            ),
            (&["eval", "--run", "other.trec"], &["--qrels"]),
            (
                &["eval", "--run", "other.trec", "--qrels", "c/qrels/test.tsv"],
                &["no query of the run has a judgment", "same collection"],
            ),
            (
                &["eval", "--run", "nan.trec", "--qrels", "c/qrels/test.tsv"],
                &["nan.trec, line 1", "\"NaN\""],
            ),
            (&["eval", "--run", "nowhere.trec", "--qrels", "c/qrels/test.tsv"], &["nowhere.trec"]),
        ],
    );
}

#[test]
fn documents_that_cannot_be_reranked() {
    models();
    let dir = tempfile::tempdir().unwrap();
    let rows: [(&[&str], &[u8], &[&str]); 7] = [
        (&["rerank", "flea"], b"", &["no documents", "one a line"]),
        (&["rerank", "flea"], b" \n\n", &["no documents", "one a line"]),
        (
            &["rerank", "flea"],
            b"a flea\n{\"id\": 7}\n",
            &["line 2 is a record without a text", "it needs one of text"],
        ),
        (
            &["rerank", "flea"],
            b"a flea\n\xc3\x28\n",
            &["line 2 is not UTF-8", "convert the documents"],
        ),
        (&["rerank", "flea", "--docs", "nowhere"], b"", &["cannot read nowhere"]),
        (&["rerank", ""], b"a flea\n", &["the query is empty"]),
        (&["rerank", "flea", "--rerank", "none"], b"a flea\n", &["name a cross-encoder"]),
    ];
    for (arguments, input, says) in rows {
        let outcome = run_with_input(dir.path(), arguments, input);
        assert_refused(&format!("{arguments:?}"), &outcome, says);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn words_that_cannot_be_written_cost_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "docs/fleas.md", "# Fleas\n\nA flea lives for up to a year.\n");
    write(dir.path(), "docs/picture.png", b"\x89PNG\r\n\x1a\n");
    let add = ["index", "add", "docs", "--index", "i", "--embed", "none", "--json"];
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    let full = File::options().write(true).open("/dev/full").unwrap();
    for stderr in [closed.into(), std::process::Stdio::from(full)] {
        let output = topshelf(dir.path(), &add).stderr(stderr).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["skipped"].as_array().map(Vec::len), Some(1), "{answer}");
    }
    // An error that cannot be said still has its exit code.
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output =
        topshelf(dir.path(), &["search", "flea", "--index", "nowhere"]).stderr(full).output();
    assert_eq!(output.unwrap().status.code(), Some(2));
}
