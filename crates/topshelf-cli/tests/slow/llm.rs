//! A language model of 1.5 billion weights in this process: what it takes, and whether its scores beat
//! the first stage's order.

use std::fs;

use serde_json::Value;

use super::{figure, root, run};

/// Judged queries that are asked, and candidates of each.
const QUERIES: usize = 12;
const DEPTH: usize = 20;

/// A collection of the first judged queries, and their run cut at the depth.
fn some_of(data: &std::path::Path, into: &std::path::Path) {
    let read = |path: &str| fs::read_to_string(data.join(path)).expect("a file of the collection");
    let judged: std::collections::HashSet<String> = read("qrels/test.tsv")
        .lines()
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();
    let all = read("queries.jsonl");
    let queries: Vec<(String, &str)> = all
        .lines()
        .filter_map(|line| {
            let query: Value = serde_json::from_str(line).ok()?;
            Some((query["_id"].as_str()?.to_owned(), line))
        })
        .filter(|(id, _)| judged.contains(id))
        .take(QUERIES)
        .collect();
    let is_chosen =
        |id: Option<&str>| queries.iter().any(|(chosen, _)| Some(chosen.as_str()) == id);
    for folder in ["qrels", "runs"] {
        fs::create_dir_all(into.join(folder)).expect("a folder");
    }
    let write = |path: &str, lines: Vec<&str>| {
        fs::write(into.join(path), lines.join("\n") + "\n").expect("a file");
    };
    write("queries.jsonl", queries.iter().map(|(_, line)| *line).collect());
    let qrels = read("qrels/test.tsv");
    let header =
        |place: usize, line: &str| place == 0 && line.starts_with(|c: char| c.is_alphabetic());
    let kept = qrels
        .lines()
        .enumerate()
        .filter(|(place, line)| header(*place, line) || is_chosen(line.split_whitespace().next()));
    write("qrels/test.tsv", kept.map(|(_, line)| line).collect());
    let candidates = read("runs/bm25-top100.trec");
    let kept = candidates.lines().filter(|line| {
        let mut fields = line.split_whitespace();
        let (id, rank) = (fields.next(), fields.nth(2).and_then(|rank| rank.parse::<usize>().ok()));
        is_chosen(id) && rank.is_some_and(|rank| rank <= DEPTH)
    });
    write("runs/candidates.trec", kept.collect());
    fs::copy(data.join("corpus.jsonl"), into.join("corpus.jsonl")).expect("the corpus");
}

#[test]
fn an_llm_in_this_process_beats_the_first_stage() {
    let data = root().join("../shared/data/msmarco-dl19");
    if !data.is_dir() {
        println!("there is no {}: the LLM's figures are not checked", data.display());
        return;
    }
    // About 2,000 tokens for each query and strategy.
    let tokens = 3 * QUERIES as u64 * 2000 * super::pace::OF_LANGUAGE_MODEL;
    if !super::pace::affords("a language model of 1.5 billion weights", tokens) {
        return;
    }
    run(&["models", "pull", "qwen2.5-coder-1.5b"]);
    let scratch = tempfile::tempdir().expect("a folder");
    some_of(&data, scratch.path());
    let folder = scratch.path().to_str().expect("a path in UTF-8");
    let candidates = format!("{folder}/runs/candidates.trec");
    // So small a model favours the order that it is shown when it is to write one, and picks letters with
    // a gain that is within chance for so few queries: both are held to not spoiling the order.
    for (strategy, gain) in [("llm-yes-no", 0.0), ("llm-rounds", -0.05), ("llm-listwise", -0.05)] {
        let reranker = format!("{strategy}:qwen2.5-coder-1.5b");
        let arguments =
            ["eval", "--data", folder, "--candidates", &candidates, "--rerank", &reranker];
        let answer = run(&[&arguments[..], &["--measures", "nDCG@10"]].concat());
        let before = figure(&answer, "candidates", "nDCG@10");
        let after = figure(&answer, "candidates+rerank", "nDCG@10");
        println!(
            "LLM: {reranker} nDCG@10 {after:.4}, BM25 {before:.4}, {QUERIES} queries of {DEPTH}"
        );
        assert!(after > before + gain, "{reranker}: {after} beside {before}");
    }
}
