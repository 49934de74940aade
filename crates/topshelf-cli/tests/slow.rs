//! The slow group: effectiveness as a regression, the demo, deadlines and kept scores, with real
//! models.
//!
//! `just slow` runs it. The expected figures are in `data/effectiveness.json`, as measured, beside
//! the bounds that they must keep. The collections are in `../shared/data`; where
//! that folder is not, the test says so and has nothing to hold the figures against. A part that would
//! take minutes on a slow processor is told as not run (`slow/pace.rs`).

#[path = "slow/late_interaction.rs"]
mod late_interaction;
#[path = "slow/llm.rs"]
mod llm;
#[path = "slow/pace.rs"]
mod pace;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde_json::Value;
use topshelf::eval::{BeirFolder, Run};
use topshelf::{
    CacheOptions, CachedReranker, Call, CrossEncoder, Passage, Policy, Query, Ranking, Reranker,
    Scale, ScoreCache, SecondStage,
};

/// How far a figure may be from the expected one. On one machine it does not move at all. On
/// another instruction set the sums of floats are taken in another order and near-ties swap; one
/// query of the smallest collection here is worth 0.004.
const TOLERANCE: f64 = 0.005;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs the program and answers what it prints as JSON.
fn run(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_topshelf"))
        .current_dir(root())
        .args(arguments)
        .arg("--json")
        .stderr(Stdio::inherit())
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{arguments:?}: {}", output.status);
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The folder of the collections' indexes, made by the first test that wants one and used by the others.
fn indexes() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("slow-indexes");
        let _ = std::fs::remove_dir_all(&folder); // of an earlier run, if there was one
        std::fs::create_dir_all(&folder).expect("a folder for indexes");
        folder
    })
}

/// The index of a collection in [`indexes`].
fn index_of(collection: &str) -> String {
    indexes().join(collection).to_str().expect("UTF-8").to_owned()
}

fn pull_default_models() {
    let models = run(&["models", "pull"]);
    assert_eq!(models["models"].as_array().map(Vec::len), Some(2));
}

fn figure(answer: &Value, system: &str, measure: &str) -> f64 {
    let systems = answer["systems"].as_array().expect("systems");
    let found = systems.iter().find(|found| found["name"] == system);
    let found = found.unwrap_or_else(|| panic!("no system {system}"));
    found["measures"][measure].as_f64().unwrap_or_else(|| panic!("no {measure} of {system}"))
}

#[test]
fn effectiveness() {
    let shared = root().join("../shared/data");
    if !shared.is_dir() {
        println!("../shared/data is not here: no figures to compare");
        return;
    }
    pull_default_models();
    let expected =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/effectiveness.json"));
    let expected: Value =
        serde_json::from_slice(&expected.expect("the expected figures")).expect("JSON");
    let mut wrong = Vec::new();
    for experiment in expected["experiments"].as_array().expect("experiments") {
        let name = experiment["name"].as_str().expect("a name");
        if !pace::affords(name, experiment["tokens"].as_u64().expect("how much it reads")) {
            continue;
        }
        let index = experiment["index"].as_str().map(index_of);
        let mut arguments: Vec<&str> = Vec::new();
        let given = experiment["arguments"].as_array().expect("arguments");
        arguments.extend(given.iter().map(|argument| argument.as_str().expect("text")));
        if let Some(index) = &index {
            arguments.extend(["--index", index]);
        }
        let answer = run(&arguments);
        for row in experiment["figures"].as_array().expect("figures") {
            let (system, measure) =
                (row["system"].as_str().unwrap(), row["measure"].as_str().unwrap());
            let got = figure(&answer, system, measure);
            println!("{name}: {system} {measure} {got:.4}");
            let (exact, low) = (row["exact"].as_f64().unwrap(), row["at_least"].as_f64().unwrap());
            if (got - exact).abs() > TOLERANCE || got < low {
                wrong.push(format!(
                    "{name}: {system} {measure} is {got:.4}, not {exact:.4} (at least {low})"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn demo() {
    if !pace::affords("the demo", 1_200_000) {
        return;
    }
    pull_default_models();
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let index = scratch.path().join("demo.index");
    let answer = run(&["demo", "--index", index.to_str().expect("UTF-8")]);
    let evaluation = &answer["evaluation"];
    assert!(evaluation["queries"].as_u64() >= Some(60), "{}", evaluation["queries"]);
    assert_eq!(evaluation["depth"], 30);
    assert_eq!(answer["resumed"], 0);
    for system in ["bm25", "dense", "hybrid", "hybrid+rerank"] {
        println!("demo: {system} nDCG@10 {:.4}", figure(evaluation, system, "nDCG@10"));
    }
    // Which packages are there differs a little between machines, so bounds, not exact figures.
    let best = figure(evaluation, "hybrid+rerank", "nDCG@10");
    for system in ["bm25", "dense", "hybrid"] {
        assert!(best > figure(evaluation, system, "nDCG@10"), "{system} is better");
    }
    assert!(answer["example"]["hits"].as_array().is_some_and(|hits| !hits.is_empty()));
    // The second run measures nothing again.
    let again = run(&["demo", "--index", index.to_str().expect("UTF-8")]);
    assert_eq!(again["resumed"], evaluation["queries"]);
    assert_eq!(again["evaluation"], *evaluation);
}

/// The stored BM25 candidates of a collection's first queries: query, and passages in their order.
fn candidates(
    collection: &str,
    run: &str,
    queries: usize,
) -> Option<Vec<(Query, Vec<Arc<Passage>>)>> {
    let folder = root().join("../shared/data").join(collection);
    if !folder.is_dir() {
        println!("../shared/data is not here: no candidates");
        return None;
    }
    let run = Run::open(folder.join("runs").join(run)).expect("a run");
    let folder = BeirFolder::open(&folder).expect("a collection");
    let topics = folder.topics("test").expect("topics").topics;
    let corpus: HashMap<String, String> = folder
        .corpus()
        .expect("a corpus")
        .map(|document| document.map(|document| (document.id, document.text)).expect("a document"))
        .collect();
    let of_topic = |topic: topshelf::eval::Topic| {
        let passages = run
            .documents(&topic.id)
            .iter()
            .map(|document| Arc::new(Passage::standalone(&document.id, "", &corpus[&document.id])));
        (Query::new(&topic.text).expect("a query"), passages.collect())
    };
    Some(topics.into_iter().take(queries).map(of_topic).collect())
}

/// All scores, as bits, and how long they took.
fn score(
    reranker: &dyn Reranker,
    candidates: &[(Query, Vec<Arc<Passage>>)],
) -> (Vec<u32>, Duration) {
    let start = Instant::now();
    let mut scores = Vec::new();
    for (query, passages) in candidates {
        let outcomes =
            pollster::block_on(reranker.score(&Call::new(), query, passages)).expect("scores");
        scores.extend(outcomes.into_iter().map(|scored| scored.expect("a score").score.to_bits()));
    }
    (scores, start.elapsed())
}

/// What `tune` says has to hold on queries that it has not seen: better than every stage alone, pair
/// and plain reordering, or not to be told apart from it. And what it foretells has to come true.
#[test]
fn tuned_on_one_half_it_holds_on_the_other() {
    let data = root().join("../shared/data/claude-codebase-chunks");
    if !data.is_dir() {
        println!("../shared/data is not here: nothing to tune on");
        return;
    }
    if !pace::affords("tune on claude-codebase-chunks", 1_600_000) {
        return;
    }
    pull_default_models();
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| scratch.path().join(name).to_str().expect("UTF-8").to_owned();
    let (profile, report) = (path("topshelf.toml"), path("report.html"));
    let index = index_of("claude");
    let answer = run(&[
        "tune",
        "--data",
        data.to_str().expect("UTF-8"),
        "--index",
        &index,
        "--depth",
        "20",
        "--no-cache",
        "--out",
        &profile,
        "--report",
        &report,
    ]);
    println!("tune: {}", answer["chosen"]);
    let reached = answer["figures"]["mean"].as_f64().expect("a figure");
    println!("tune: nDCG@10 {reached:.4} on {} held-out queries", answer["held_out"]);
    let baselines = answer["baselines"].as_array().expect("baselines");
    assert_eq!(baselines.len(), 6);
    for other in baselines {
        let difference = &other["difference"];
        println!(
            "tune: less {} {:+.4}, {}",
            other["name"], difference["mean"], difference["verdict"]
        );
        assert!(difference["verdict"] != "hurts", "{other}");
    }
    let check = &answer["check"];
    assert_eq!(check["same"], check["queries"], "{check}");
    if let Some(shown) = answer["gate"]["held_out"].as_object() {
        println!(
            "tune: gate {} of queries skipped, {} of the measure lost: {}",
            shown["skipped"], shown["loss"], answer["gate"]["reason"]
        );
    }
    // And it is what the other commands use.
    let measured = run(&[
        "eval",
        "--data",
        data.to_str().expect("UTF-8"),
        "--index",
        &index,
        "--systems",
        "hybrid",
        "--profile",
        &profile,
    ]);
    assert_eq!(measured["profile"], profile);
    assert!(std::fs::read_to_string(&report).expect("a report").contains("</html>"));
}

#[test]
fn scores_that_are_kept_cost_a_hundredth_at_most() {
    // The ratio is that of any number of queries.
    const QUERIES: usize = 12;
    let found = candidates("claude-codebase-chunks", "bm25-anserini-top100.trec", QUERIES);
    let Some(candidates) = found else { return };
    pull_default_models();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let disk = Some((dir.path().join("scores.redb"), 64 << 20));
    let options = CacheOptions { disk, ..CacheOptions::default() };
    let model: Arc<dyn Reranker> = Arc::new(CrossEncoder::load("minilm-l12").expect("the model"));
    let open = || Arc::new(ScoreCache::open(&options).0);
    let cache = open();
    let cached = CachedReranker::new(Arc::clone(&model), Arc::clone(&cache));
    let (scores, scoring) = score(&cached, &candidates);
    let (from_memory, memory) = score(&cached, &candidates);
    drop((cache, cached));
    let cached = CachedReranker::new(model, open());
    let (from_disk, disk) = score(&cached, &candidates);
    assert!(from_memory == scores && from_disk == scores, "other bits");
    let times = |took: Duration| scoring.as_secs_f64() / took.as_secs_f64();
    println!(
        "{} pairs: scored in {scoring:?}; from memory {memory:?}, {:.0} times as fast; from disk \
         after a restart {disk:?}, {:.0} times",
        scores.len(),
        times(memory),
        times(disk)
    );
    assert!(times(memory) >= 100.0 && times(disk) >= 100.0);
}

/// How far beyond its deadline each query was answered, in ascending order, and the mean of passages
/// read.
fn overruns(
    stage: &SecondStage,
    deadline: Duration,
    candidates: &[(Query, Vec<Arc<Passage>>)],
) -> (Vec<Duration>, usize) {
    let (mut overruns, mut read) = (Vec::new(), 0);
    // Twice, so that there is a 99th percentile to speak of.
    for (query, passages) in candidates.iter().chain(candidates) {
        let found = passages.iter().enumerate().map(|(n, p)| (Arc::clone(p), -(n as f32)));
        let ranking = Ranking::new("bm25", Scale::Rank, found).expect("a ranking");
        let call = Call::new();
        let answer = pollster::block_on(stage.run(&call, query, &ranking, 10));
        let took = call.began().elapsed();
        let (answer, report) = answer.expect("an answer");
        assert_eq!(answer.len(), passages.len());
        read += report.rerankers[0].pairs;
        overruns.push(took.saturating_sub(deadline));
    }
    overruns.sort_unstable();
    let n = overruns.len();
    (overruns, read / n)
}

#[test]
fn deadlines_are_kept() {
    /// Runs, of which one has to be good: a machine that is taken away for a while is not ours to
    /// answer for.
    const RUNS: usize = 3;
    let found = candidates("msmarco-dl19", "bm25-top100.trec", usize::MAX);
    let Some(candidates) = found else { return };
    pull_default_models();
    let model: Arc<dyn Reranker> = Arc::new(CrossEncoder::load("minilm-l12").expect("the model"));
    for allowed in [50, 100, 200] {
        let deadline = Duration::from_millis(allowed);
        let policy = Policy { deadline: Some(deadline), ..Policy::default() };
        let stage = SecondStage::new(Arc::clone(&model)).with_policy(policy).expect("a policy");
        let kept = (0..RUNS).any(|_| {
            let (overruns, read) = overruns(&stage, deadline, &candidates);
            let (p99, worst) =
                (overruns[overruns.len() * 99 / 100 - 1], overruns[overruns.len() - 1]);
            println!("{allowed} ms: {read} of 100 read, overrun p99 {p99:?}, worst {worst:?}");
            read > 0 && p99 < Duration::from_millis(10)
        });
        assert!(kept, "{allowed} ms: not kept in {RUNS} runs");
    }
}
