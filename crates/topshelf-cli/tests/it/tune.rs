//! Tuning from outside: a small collection, its profile, and what the other commands make of it.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::program::{home_with_models, models, run, run_with_input, topshelf, write};

const ANIMALS: [&str; 24] = [
    "badger", "beaver", "camel", "cheetah", "dolphin", "eagle", "falcon", "gecko", "hamster",
    "heron", "iguana", "jackal", "koala", "lemur", "marmot", "newt", "otter", "panda", "quail",
    "raccoon", "salmon", "tapir", "vulture", "walrus",
];

/// A question about each animal, the document that answers it, and one that does not.
fn collection() -> TempDir {
    models();
    let dir = tempfile::tempdir().unwrap();
    let (mut corpus, mut queries) = (String::new(), String::new());
    let mut qrels = "query-id\tcorpus-id\tscore\n".to_owned();
    for (n, animal) in ANIMALS.iter().enumerate() {
        let years = 3 + n;
        let _ = write!(
            corpus,
            "{{\"_id\": \"age-{n}\", \"title\": \"\", \"text\": \"A {animal} lives for up to {years} \
             years.\"}}\n{{\"_id\": \"home-{n}\", \"title\": \"\", \"text\": \"How old is the \
             {animal} house of the zoo? The {animal} moved in last spring.\"}}\n"
        );
        let _ =
            writeln!(queries, "{{\"_id\": \"q{n}\", \"text\": \"how old does a {animal} get\"}}");
        let _ = writeln!(qrels, "q{n}\tage-{n}\t1"); // a string takes all
    }
    write(dir.path(), "data/corpus.jsonl", corpus);
    write(dir.path(), "data/queries.jsonl", queries);
    write(dir.path(), "data/qrels/test.tsv", qrels);
    dir
}

const TUNE: [&str; 7] = ["tune", "--data", "data", "--depth", "12", "--index", "index"];

#[test]
fn tuned_and_used() {
    let dir = collection();
    let report = ["--report", "report.html", "--json"];
    let answer = run(dir.path(), &[&TUNE[..], &report].concat()).json();
    super::json::validate("tune", &answer);
    assert_eq!((answer["training"].as_u64(), answer["held_out"].as_u64()), (Some(12), Some(12)));
    assert_eq!(answer["check"]["same"], answer["check"]["queries"]);
    assert_eq!(answer["profile"], "topshelf.toml");
    let names: Vec<&str> = answer["baselines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|other| other["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["bm25", "dense", "hybrid", "bm25+rerank", "dense+rerank", "hybrid+rerank"]);
    let page = fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert!(page.contains("<svg") && !page.contains("http"), "{page}");

    // It lies in the working folder, so it is used, and said to be.
    let search = ["search", "how old does a camel get", "--index", "index"];
    let found = run(dir.path(), &search).success();
    assert!(found.contains("note: as topshelf.toml has it"), "{found}");
    let json = |more: &[&str]| run(dir.path(), &[&search[..], &["--json"], more].concat()).json();
    let (tuned, plain) = (json(&[]), json(&["--no-profile"]));
    assert_eq!(tuned["report"]["profile"], "topshelf.toml");
    assert!(plain["report"]["profile"].is_null());
    assert_eq!(plain["report"]["fusion"], "rrf(k=60)");
    // Options go before it.
    let asked = json(&["--fusion", "z-score", "--retriever", "hybrid", "--rerank", "none"]);
    assert_eq!(asked["report"]["fusion"], "weighted(z-score)");
    assert!(asked["report"]["second_stage"].is_null());
    // Measured where it was chosen, it flatters itself, and that is said.
    let eval = run(dir.path(), &["eval", "--data", "data", "--index", "index", "--json"]).json();
    assert_eq!(eval["profile"], "topshelf.toml");
    let warnings = eval["warnings"].to_string();
    assert!(warnings.contains("flatter"), "{warnings}");
}

/// A profile of which nothing was measured.
fn profile(dir: &Path, text: &str) {
    write(dir, "topshelf.toml", text);
}

const BY_HAND: &str = "\
[first_stage]
retriever = \"bm25\"
depth = 10

[[second_stage.cascade]]
model = \"minilm-l12\"

[second_stage.blend]
weight = 0.5
";

#[test]
fn written_by_hand() {
    let dir = collection();
    let documents = b"A camel lives for forty years.\nShips of the desert.\n";
    let rerank = |more: &[&str]| {
        run_with_input(dir.path(), &[&["rerank", "camels", "--json"], more].concat(), documents)
    };
    profile(dir.path(), BY_HAND);
    let answer = rerank(&[]).json();
    assert_eq!(answer["second_stage"]["blend"], "blend(0.50 min-max)");
    assert_eq!(answer["profile"], "topshelf.toml");
    // Another reranker has nothing to do with what was fitted for this one.
    let other = rerank(&["--rerank", "cross-encoder/ms-marco-MiniLM-L12-v2"]).json();
    assert!(other["second_stage"]["blend"].is_null());

    // A gate that nothing has shown to pay stays off.
    let gate = "\n[second_stage.gate]\nsignal = \"margin:given:2\"\nthreshold = 0.5\n";
    profile(dir.path(), &format!("{BY_HAND}{gate}"));
    let refused = rerank(&[]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("nothing has shown that this gate pays"), "{refused:?}");
    let forced = rerank(&["--force"]).json();
    assert_eq!(forced["second_stage"]["skipped"], "clear");
    assert!(rerank(&["--gate", "none"]).json()["second_stage"]["gate"].is_null());

    // No second stage is a word, too.
    profile(dir.path(), "[first_stage]\nretriever = \"bm25\"\ndepth = 10\n");
    let refused = rerank(&[]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("reranking does not pay here"), "{refused:?}");

    profile(dir.path(), "[first_stage]\nretriever = \"words\"\ndepth = 10\n");
    let refused = rerank(&[]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("topshelf.toml") && refused.stderr.contains("line 2"));
    assert_eq!(rerank(&["--profile", "elsewhere.toml"]).code, Some(2));
    rerank(&["--no-profile"]).success();
}

#[test]
fn what_cannot_be_tuned_is_told() {
    let dir = collection();
    let cases: [(&[&str], &str); 7] = [
        (&["--budget", "0.00001ms"], "nothing is within 0.00001 ms"),
        (&["--budget", "soon"], "give a time such as 150ms, or a share such as 1%"),
        (&["--queries", "10"], "there are 10 judged queries"),
        (&["--measure", "nDCG@10,MRR@10"], "tuning is for one measure"),
        (&["--train", "test"], "is in test and in test"),
        (&["--rerank", "no-such-model"], "no-such-model"),
        (&["--gate-loss", "1"], "such as 1%"),
    ];
    for (more, expected) in cases {
        let refused = run(dir.path(), &[&TUNE[..], more].concat());
        assert_eq!(refused.code, Some(2), "{more:?}: {refused:?}");
        assert!(refused.stderr.contains(expected), "{more:?}: {refused:?}");
    }
    assert!(!dir.path().join("topshelf.toml").exists());
    let refused = run(dir.path(), &["tune"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("--data DIR"), "{refused:?}");
}

#[test]
#[cfg(unix)]
fn interrupted_it_ends_at_once_and_writes_nothing() {
    let dir = collection();
    let mut command = topshelf(dir.path(), &TUNE);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    // The index is done; what follows is nothing that has to be ended in order.
    assert!(lines.any(|line| line.unwrap() == "asking every stage ..."));
    let sent = Command::new("sh").arg("-c").arg(format!("kill -INT {}", child.id())).status();
    assert!(sent.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!dir.path().join("topshelf.toml").exists());
}

#[test]
fn deadlines_side_by_side_in_a_report() {
    let dir = collection();
    let systems = "bm25,bm25+rerank,bm25+rerank@1ms,bm25+rerank@5s";
    let arguments =
        ["eval", "--data", "data", "--index", "index", "--systems", systems, "--depth", "12"];
    let more = ["--report", "eval.html", "--json"];
    let answer = run(dir.path(), &[&arguments[..], &more].concat()).json();
    let unscored = |at: usize| answer["systems"][at]["second_stage"]["unscored"].as_f64().unwrap();
    assert!(unscored(1).abs() < 1e-9 && unscored(3).abs() < 1e-9);
    // In one millisecond not even all words may have been looked up.
    let hurried = &answer["systems"][2]["second_stage"]["unscored"];
    assert!(hurried.as_f64().is_none_or(|unscored| unscored > 0.0), "{hurried}");
    assert_eq!(answer["systems"][1]["measures"], answer["systems"][3]["measures"]);
    let recall = answer["systems"][1]["second_stage"]["recall"].as_array().unwrap();
    assert_eq!(recall.len(), 5); // at 1, 2, 3, 5, 10
    let page = fs::read_to_string(dir.path().join("eval.html")).unwrap();
    for chart in ["Quality against time", "Quality against the deadline", "Recall", "Calibration"] {
        assert!(page.contains(chart), "no chart {chart}");
    }
    // What is late is what a deadline is measured for, and a first stage by itself has none.
    let hurried = ["--systems", "bm25,bm25+rerank", "--deadline", "0.001ms", "--json"];
    let late = run(dir.path(), &[&arguments[..5], &hurried].concat()).json();
    let plain = answer["systems"][0]["measures"]["nDCG@10"].as_f64();
    assert_eq!(late["systems"][0]["measures"]["nDCG@10"].as_f64(), plain);
    for wrong in ["bm25@5ms", "bm25+rerank@soon", "bm25+rerank@"] {
        let refused = run(dir.path(), &["eval", "--data", "data", "--systems", wrong]);
        assert_eq!(refused.code, Some(2), "{wrong}: {refused:?}");
    }
}

#[test]
fn a_shared_cache_that_is_not_there() {
    let dir = collection();
    let home = home_with_models(dir.path());
    let rerank = |address: &str| {
        let mut command =
            topshelf(dir.path(), &["rerank", "camels", "--docs", "data/corpus.jsonl"]);
        command.env("TOPSHELF_SCORE_CACHE", "1").env("TOPSHELF_SHARED_CACHE", address);
        command.env("TOPSHELF_HOME", &home);
        super::program::Outcome::from(command.output().unwrap())
    };
    // Nobody listens on port 1; the answer is there all the same.
    assert!(rerank("redis://127.0.0.1:1").success().contains("camel"));
    let refused = rerank("https://me:secret@127.0.0.1");
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("redis://host:6379") && !refused.stderr.contains("secret"));
}
