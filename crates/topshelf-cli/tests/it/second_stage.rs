//! The second stage from outside: scores that are kept, deadlines, thresholds, and a cache that is
//! damaged, full or switched off.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use topshelf::{CacheOptions, ScoreCache};

use super::program::{Outcome, home_with_models, topshelf};

/// A home of its own with models and, from the first call on, a score cache.
struct Home(PathBuf);

impl Home {
    fn new(dir: &Path) -> Self {
        Self(home_with_models(dir))
    }

    fn scores(&self) -> PathBuf {
        self.0.join("cache/scores.redb")
    }

    /// The program with this home.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = topshelf(&self.0, arguments);
        command.env("TOPSHELF_HOME", &self.0).env_remove("TOPSHELF_SCORE_CACHE");
        command
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        self.command(arguments).output().expect("the program starts").into()
    }

    /// Reranks the documents.
    fn rerank(&self, more: &[&str]) -> Outcome {
        feed(self.command(&[&["rerank", "how old do fleas get"], more].concat()))
    }
}

/// Forty documents, one of which answers.
fn documents() -> String {
    let others = (0..39).map(|n| format!("Ship number {n} lies in the harbour and waits.\n"));
    format!("{}A flea lives for up to a year.\n", others.collect::<String>())
}

fn feed(mut command: Command) -> Outcome {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    child.stdin.take().unwrap().write_all(documents().as_bytes()).unwrap();
    child.wait_with_output().expect("the program ends").into()
}

/// The order with its scores, and how many of them were known.
fn results(answer: &Value) -> (Vec<(u64, u64)>, u64) {
    let results = answer["results"].as_array().unwrap().iter().map(|result| {
        let score = result["score"].as_f64().expect("every document was scored");
        (result["index"].as_u64().unwrap(), score.to_bits())
    });
    (results.collect(), answer["reranker"]["cached"].as_u64().unwrap())
}

#[test]
fn scores_are_kept_for_the_next_call() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::new(dir.path());
    let entries = || home.run(&["cache", "stats", "--json"]).json()["entries"].as_u64().unwrap();
    assert_eq!(entries(), 0);
    let (first, known) = results(&home.rerank(&["--json"]).json());
    assert_eq!((known, entries()), (0, 40));
    let (second, known) = results(&home.rerank(&["--json"]).json());
    assert_eq!((&second, known), (&first, 40));
    let (third, known) = results(&home.rerank(&["--json", "--no-cache"]).json());
    assert_eq!((&third, known), (&first, 0));
    assert!(home.run(&["cache", "stats"]).success().contains("40 scores"));
    assert!(home.run(&["cache", "clear"]).success().contains("removed"));
    assert!(!home.scores().exists());
    let (fourth, known) = results(&home.rerank(&["--json"]).json());
    assert_eq!((&fourth, known), (&first, 0));
}

#[test]
fn a_damaged_cache_costs_its_scores_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::new(dir.path());
    let (first, _) = results(&home.rerank(&["--json"]).json());
    fs::write(home.scores(), "these are not scores").unwrap();
    let outcome = home.rerank(&["--json"]);
    assert!(outcome.stderr.contains("damaged and starts again"), "{outcome:?}");
    assert_eq!(results(&outcome.json()), (first.clone(), 0));
    assert_eq!(results(&home.rerank(&["--json"]).json()), (first, 40));
}

/// No file may grow beyond a few blocks, which is what a full disk looks like to the program.
#[test]
#[cfg(unix)]
fn a_full_disk_costs_the_cache_and_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::new(dir.path());
    let (first, _) = results(&home.rerank(&["--json", "--no-cache"]).json());
    for blocks in ["0", "16", "600", "1100"] {
        let _ = fs::remove_file(home.scores());
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
        let program = home.command(&["rerank", "how old do fleas get", "--json"]);
        let mut limited = Command::new("bash");
        limited.args(["-c", &script, "bash"]).arg(program.get_program()).args(program.get_args());
        limited.current_dir(&home.0).env("TOPSHELF_HOME", &home.0);
        let outcome = feed(limited);
        assert_eq!(results(&outcome.json()), (first.clone(), 0), "{blocks} blocks");
    }
}

#[test]
fn a_cache_that_is_in_use_is_done_without() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::new(dir.path());
    let (first, _) = results(&home.rerank(&["--json"]).json());
    let options = CacheOptions { disk: Some((home.scores(), 1 << 20)), ..CacheOptions::default() };
    let held = ScoreCache::open(&options);
    assert!(held.1.is_none(), "{:?}", held.1);
    let outcome = home.rerank(&["--json"]);
    assert!(outcome.stderr.contains("in use by another process"), "{outcome:?}");
    assert_eq!(results(&outcome.json()), (first.clone(), 0));
    let clear = home.run(&["cache", "clear"]);
    assert_eq!(clear.code, Some(1), "{clear:?}");
    drop(held);
    assert_eq!(results(&home.rerank(&["--json"]).json()), (first, 40));
}

#[test]
fn a_deadline_gives_the_best_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::new(dir.path());
    let outcome = home.rerank(&["--json", "--no-cache", "--deadline", "0.01ms"]);
    let answer = outcome.json();
    let order: Vec<u64> = answer["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["index"].as_u64().unwrap())
        .collect();
    assert_eq!(order, (0..40).collect::<Vec<u64>>());
    assert_eq!(answer["second_stage"]["deadline"]["unscored"], 40);
    assert!(answer["results"][0]["score"].is_null());
    let outcome = home.rerank(&["--no-cache", "--deadline", "0.01ms"]);
    assert!(outcome.stderr.contains("40 candidates were not read before the deadline"));
    // With time enough it is as without.
    let enough = home.rerank(&["--json", "--no-cache", "--deadline", "60s"]).json();
    assert_eq!(results(&enough).0, results(&home.rerank(&["--json", "--no-cache"]).json()).0);
}

#[test]
fn nothing_relevant_is_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::new(dir.path());
    let answer = home.rerank(&["--json", "--min-relevance", "0.5"]).json();
    assert_eq!(answer["results"].as_array().unwrap().len(), 1);
    assert_eq!(answer["second_stage"]["threshold"]["below"], 39);
    let outcome = home.rerank(&["--min-relevance", "1"]);
    assert!(outcome.stdout.contains("nothing relevant found"), "{outcome:?}");
    assert!(outcome.stderr.contains("40 candidates were withheld"), "{outcome:?}");
}

#[test]
fn a_blend_keeps_part_of_the_order_it_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::new(dir.path());
    let order = |more: &[&str]| -> Vec<u64> {
        let answer = home.rerank(&[&["--json"], more].concat()).json();
        answer["results"].as_array().unwrap().iter().map(|r| r["index"].as_u64().unwrap()).collect()
    };
    assert_eq!(order(&["--blend", "1"])[0], 39);
    let given: Vec<u64> = (0..40).collect();
    assert_eq!(order(&["--blend", "0"]), given);
    let half = order(&["--blend", "0.5"]);
    assert_ne!(half, given);
    assert_ne!(half, order(&["--blend", "1"]));
}

#[test]
fn long_documents_are_read_by_their_best_windows() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::new(dir.path());
    let harbour = |n: usize| {
        let lines = (0..n).map(|n| format!("Pier {n} of the harbour is full of ships that wait. "));
        lines.collect::<String>()
    };
    let answer = "An adult flea lives for about a hundred days.";
    let documents = format!(
        "{}{answer} {}\n{}\nFleas are small insects without wings.\n",
        harbour(100),
        harbour(100),
        harbour(200)
    );
    let rerank = |more: &[&str]| {
        let arguments = [&["rerank", "how old do fleas get", "--json"], more].concat();
        let mut command = home.command(&arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(documents.as_bytes()).unwrap();
        Outcome::from(child.wait_with_output().unwrap()).json()
    };
    let windows = rerank(&[]);
    let first = &windows["results"][0];
    assert_eq!(first["index"], 0);
    let at = |key: &str| first["span"][key].as_u64().unwrap() as usize;
    assert!(first["text"].as_str().unwrap()[at("start")..at("end")].contains(answer));
    assert_eq!(windows["reranker"]["truncated"], 2); // the harbours were not read to the end
    let head = rerank(&["--long-documents", "head"]);
    assert_eq!(head["results"][0]["index"], 2);
    assert!(head["results"][0]["span"].is_null());
    // Windows are kept one by one.
    let again = rerank(&[]);
    assert_eq!(again["reranker"]["cached"], 3);
    assert_eq!(again["results"], windows["results"]);
}
