//! The slow group: effectiveness as a regression, and the demo, with real models.
//!
//! `just slow` runs it. The expected figures are in `data/effectiveness.json`, as measured, beside
//! the bounds that they must keep. The collections are in `../shared/data`; where
//! that folder is not, the test says so and has nothing to hold the figures against.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

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
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let mut wrong = Vec::new();
    for experiment in expected["experiments"].as_array().expect("experiments") {
        let name = experiment["name"].as_str().expect("a name");
        let index = scratch.path().join(experiment["index"].as_str().unwrap_or("none"));
        let index = index.to_str().expect("UTF-8");
        let mut arguments: Vec<&str> = Vec::new();
        let given = experiment["arguments"].as_array().expect("arguments");
        arguments.extend(given.iter().map(|argument| argument.as_str().expect("text")));
        if experiment["index"].is_string() {
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
    pull_default_models();
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let index = scratch.path().join("demo.index");
    let answer = run(&["demo", "--index", index.to_str().expect("UTF-8")]);
    let evaluation = &answer["evaluation"];
    assert!(evaluation["queries"].as_u64() >= Some(60), "{}", evaluation["queries"]);
    for system in ["bm25", "dense", "hybrid", "hybrid+rerank"] {
        println!("demo: {system} nDCG@10 {:.4}", figure(evaluation, system, "nDCG@10"));
    }
    // Which packages are there differs a little between machines, so bounds, not exact figures.
    let best = figure(evaluation, "hybrid+rerank", "nDCG@10");
    for system in ["bm25", "dense", "hybrid"] {
        assert!(best > figure(evaluation, system, "nDCG@10"), "{system} is better");
    }
    assert!(answer["example"]["hits"].as_array().is_some_and(|hits| !hits.is_empty()));
}
