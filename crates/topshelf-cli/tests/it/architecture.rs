//! The rules of ARCHITECTURE.md that can be checked: who may know whom, who may use `anyhow`,
//! where `unsafe` may stand, and how the dependencies are compiled.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The crates, and which of the others each may know.
const ALLOWED: [(&str, &[&str]); 13] = [
    ("topshelf-core", &[]),
    ("topshelf-cache", &["topshelf-core"]),
    ("topshelf-kernels", &[]),
    ("topshelf-eval", &[]),
    ("topshelf-tune", &["topshelf-core", "topshelf-eval"]),
    ("topshelf-remote", &["topshelf-core"]),
    ("topshelf-llm", &["topshelf-core"]),
    ("topshelf-server", &["topshelf-core"]),
    ("topshelf-models", &["topshelf-core", "topshelf-kernels"]),
    ("topshelf-index", &["topshelf-core", "topshelf-kernels"]),
    (
        "topshelf-engine",
        &[
            "topshelf-cache",
            "topshelf-core",
            "topshelf-index",
            "topshelf-llm",
            "topshelf-models",
            "topshelf-remote",
            "topshelf-tune",
        ],
    ),
    (
        "topshelf",
        &[
            "topshelf-cache",
            "topshelf-core",
            "topshelf-engine",
            "topshelf-eval",
            "topshelf-index",
            "topshelf-llm",
            "topshelf-models",
            "topshelf-remote",
            "topshelf-server",
            "topshelf-tune",
        ],
    ),
    ("topshelf-cli", &["topshelf", "topshelf-server"]),
];

/// Each crate of the workspace with all that it depends on, for whatever purpose.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let name = |value: &Value| value["name"].as_str().expect("it has a name").to_owned();
    let packages = metadata["packages"].as_array().expect("there are packages");
    packages
        .iter()
        .map(|package| {
            let all = package["dependencies"].as_array().expect("there is a list");
            (name(package), all.iter().map(name).collect())
        })
        .collect()
}

#[test]
fn arrows_between_the_crates_point_one_way() {
    let found = dependencies();
    let crates: BTreeSet<&str> = found.keys().map(String::as_str).collect();
    let allowed = BTreeMap::from(ALLOWED);
    assert_eq!(
        crates,
        allowed.keys().copied().collect(),
        "a crate has come or gone; say here and in ARCHITECTURE.md what it may know"
    );
    for (name, dependencies) in &found {
        // A crate's tests may ask for its own features.
        let others = dependencies.iter().filter(|other| *other != name).map(String::as_str);
        let arrows: BTreeSet<&str> = others.filter(|other| crates.contains(other)).collect();
        let allowed: BTreeSet<&str> = allowed[name.as_str()].iter().copied().collect();
        let wrong: Vec<_> = arrows.difference(&allowed).collect();
        assert!(wrong.is_empty(), "{name} must not depend on {wrong:?}");
    }
}

#[test]
fn only_the_program_uses_anyhow() {
    let users: Vec<String> = dependencies()
        .into_iter()
        .filter(|(_, dependencies)| dependencies.contains("anyhow"))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(users, ["topshelf-cli"]);
}

#[test]
fn unsafe_stands_in_the_kernels_alone() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut users = BTreeSet::new();
    for entry in fs::read_dir(&crates).unwrap() {
        let entry = entry.unwrap();
        for file in rust_files(&entry.path().join("src")) {
            if fs::read_to_string(&file).unwrap().lines().any(is_unsafe) {
                users.insert(entry.file_name().into_string().unwrap());
            }
        }
    }
    assert_eq!(users.into_iter().collect::<Vec<_>>(), ["topshelf-kernels"]);
}

/// What makes a stage of a pipeline, or loads a model.
const ASSEMBLY: [&str; 20] = [
    "Pipeline::builder",
    "SecondStage::new",
    "SecondStage::of",
    "CrossEncoder::",
    "BiEncoder::",
    "LateInteraction::",
    "LocalModel::",
    "RemoteModel::",
    "HostedReranker::",
    "CachedReranker::",
    "Windowed::",
    "Strategy::",
    "remote::Target",
    "remote::Place",
    ".bm25(",
    ".dense(",
    ".late_interaction(",
    ".stored_tokens(",
    "Prices::",
    "Meter {",
];

#[test]
fn only_the_engine_puts_a_pipeline_together() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    for name in ["topshelf-cli", "topshelf-server"] {
        for file in rust_files(&crates.join(name).join("src")) {
            let text = fs::read_to_string(&file).unwrap();
            // Tests of a file may make their own stages.
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
            for line in lines {
                // The engine has a method of this name.
                let line = line.replace("engine.late_interaction(", "");
                let parts = ASSEMBLY.iter().filter(|part| line.contains(**part));
                found.extend(parts.map(|part| format!("{}: {part}", file.display())));
            }
        }
    }
    assert!(found.is_empty(), "these belong into topshelf-engine: {found:#?}");
}

/// Whether the keyword stands in a line outside of comments and attributes.
fn is_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default().trim_start();
    let word = |c: char| c.is_alphanumeric() || c == '_';
    !code.starts_with('#') && code.split(|c| !word(c)).any(|found| found == "unsafe")
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return files };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The dependencies whose level of optimisation a profile sets.
fn levels(manifest: &toml::Table, profile: &str) -> BTreeMap<String, i64> {
    let packages = manifest["profile"][profile]["package"].as_table().expect("a table");
    let external = packages.iter().filter(|(name, _)| !name.starts_with("topshelf"));
    external
        .filter_map(|(name, settings)| {
            Some((name.clone(), settings.get("opt-level")?.as_integer()?))
        })
        .collect()
}

#[test]
fn dependencies_are_optimised_in_tests_as_they_are_in_releases() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |name: &str| -> toml::Table {
        fs::read_to_string(root.join(name)).unwrap().parse().unwrap()
    };
    let manifest = read("Cargo.toml");
    let [dev, release] = ["dev", "release"].map(|profile| levels(&manifest, profile));
    assert_eq!(dev, release, "the lists of the two profiles in Cargo.toml differ");
    let lock = read("Cargo.lock");
    let packages = lock["package"].as_array().unwrap();
    let locked: BTreeSet<&str> =
        packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let gone: Vec<_> = dev.keys().filter(|name| !locked.contains(name.as_str())).collect();
    assert!(gone.is_empty(), "Cargo.toml sets a level for {gone:?}, which nothing depends on");
}

/// External packages with their features, one `NAME vVERSION FEATURES` each, as cargo resolves them for this
/// selection of packages and kinds of dependencies.
fn features(selection: &[&str], edges: &str) -> BTreeSet<String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--locked", "--offline", "--no-dedupe", "--prefix", "none"])
        .args(["--format", "{p} {f}", "--edges", edges])
        .args(selection)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines()
        .filter(|line| !line.starts_with("topshelf"))
        .map(|line| line.replace(" (proc-macro)", ""))
        .collect()
}

#[test]
fn the_program_and_the_tests_have_the_same_features_of_every_dependency() {
    let program = features(&["--package", "topshelf-cli"], "normal,build");
    let tests = features(&["--workspace"], "normal,build,dev");
    let different: Vec<_> = program.difference(&tests).collect();
    assert!(
        different.is_empty(),
        "a build of the program would compile these again after the tests: {different:?}"
    );
}
