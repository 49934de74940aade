//! `topshelf demo`: the main job on real text that is already on this machine.
//!
//! The documentation of the packages that this very program was built from, in cargo's registry
//! folder, is indexed; questions written and judged by hand (`data/demo`) are asked with every
//! stage, and one of them is shown before and after reranking.
//!
//! A judgment is a quotation that answers the question. The passages that hold it are the
//! relevant ones, however the documents were cut.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use topshelf::chunk::ChunkOptions;
use topshelf::eval::{Measure, Qrels};
use topshelf::tune::Unit;
use topshelf::{
    AddOptions, Answer, BiEncoder, CrossEncoder, Embedder, Index, Models, Pipeline, Query,
    Reranker, SecondStage, Settings, Store, Writer,
};

use super::collection::{Judged, Parts, System};
use super::index::add_with_progress;
use super::models::PullBars;
use super::{cache_dir, chosen, collection, display, interrupt_flag, print, print_json};
use crate::args::{DEFAULT_EMBEDDER, DEFAULT_RERANKER, DemoArguments, RetrieverName};
use crate::exit::usage;
use crate::output::{DemoAnswer, DemoExample, DemoMove, EvalAnswer, IndexTotals};
use crate::table;

/// The packages whose documentation is indexed.
const LOCKFILE: &str = include_str!("../../../../Cargo.lock");

/// The judged questions, one JSON object a line.
const QUESTIONS: &str = include_str!("../../data/demo/questions.jsonl");

/// The question that is shown before and after.
const EXAMPLE: &str = "q004";

const SYSTEMS: [&str; 4] = ["bm25", "dense", "hybrid", "hybrid+rerank"];
const MEASURES: &str = "nDCG@10,success@1,success@3,MRR@10,recall@100";
const DEPTH: usize = 100;

/// Places shown of the example.
const SHOWN: usize = 5;

#[derive(Debug, Deserialize)]
struct Question {
    id: String,
    text: String,
    answers: Vec<Quotation>,
}

/// A passage of a document that answers.
#[derive(Debug, Deserialize)]
struct Quotation {
    #[serde(rename = "crate")]
    package: String,
    file: String,
    quote: String,
    grade: i32,
}

pub(super) fn run(arguments: &DemoArguments) -> Result<()> {
    let registry = registry(arguments)?;
    let sources = Sources::find(&registry)?;
    let store = Store::open_default()?;
    let bars = PullBars::default();
    let embedder = BiEncoder::from_folder(&store.find_or_pull(DEFAULT_EMBEDDER, &bars)?)?;
    let reranker = CrossEncoder::from_folder(&store.find_or_pull(DEFAULT_RERANKER, &bars)?)?;
    drop(bars);

    let dir = match &arguments.index {
        Some(dir) => dir.clone(),
        None => cache_dir()?.join("demo.index"),
    };
    eprintln!(
        "indexing the documentation of {} packages that this program was built from, in {}",
        sources.packages,
        display(&dir)
    );
    let index = build_index(&dir, &registry, &sources, &embedder)?;
    let questions = questions()?;
    let (qrels, judged) = judgments(&index, &sources, &questions)?;
    let measures = Measure::parse_list(MEASURES)?;
    let systems = SYSTEMS.map(System::parse).into_iter().collect::<Result<Vec<_>>>()?;
    let parts = Parts {
        index: Some(&index),
        embedder: Some(Arc::new(embedder)),
        second_stage: Some(SecondStage::new(reranker.clone())),
        candidates: collection::Candidates::new(),
        first_stage: chosen::plain(RetrieverName::Hybrid, DEPTH),
    };
    let answered = parts.answer(&systems, &judged, Unit::Passage)?;
    let (figures, differences) =
        collection::measure(&answered, &qrels, &measures, 1, Unit::Passage)?;
    let example = example(arguments, &index, &parts, &questions, &qrels)?;
    let stats = index.stats()?;
    let answer = DemoAnswer {
        packages: sources.packages,
        packages_missing: sources.missing,
        totals: IndexTotals::from(&stats.totals),
        evaluation: EvalAnswer {
            data: "demo".to_owned(),
            queries: judged.len(),
            depth: Some(DEPTH),
            embedder: parts.embedder.as_ref().map(|model| model.identity().name.clone()),
            reranker: Some(reranker.identity().name.clone()),
            measure: measures.first().map(ToString::to_string).unwrap_or_default(),
            systems: figures,
            differences,
            warnings: left_out(&questions, &judged),
            profile: None,
        },
        example,
    };
    if arguments.format.json {
        return print_json(&answer);
    }
    print(&as_text(&answer, &measures, &dir))
}

/// `registry/src` of cargo's home, or how to go on without it.
fn registry(arguments: &DemoArguments) -> Result<PathBuf> {
    let home = match &arguments.cargo_home {
        Some(home) => Some(home.clone()),
        None => std::env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::home_dir().map(|home| home.join(".cargo"))),
    };
    let registry = home.map(|home| home.join("registry").join("src"));
    registry.filter(|dir| dir.is_dir()).ok_or_else(|| {
        usage(
            "cargo's registry folder is not here, so there is no text for the demo; \
             name cargo's home with --cargo-home DIR, or take any folder of yours:\n  \
             topshelf models pull\n  \
             topshelf index add FOLDER --index my.index\n  \
             topshelf search 'your question' --index my.index --explain",
        )
    })
}

/// The files to index.
struct Sources {
    files: Vec<PathBuf>,
    packages: usize,
    missing: usize,
    /// The folders `NAME-VERSION` under which each package lies.
    folders: BTreeMap<String, Vec<String>>,
    /// The folder that ids are relative to.
    base: PathBuf,
}

impl Sources {
    /// Looks for the packages of Cargo.lock in each registry of cargo's; a package is taken from
    /// the registry that holds most of them.
    fn find(registry: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Lockfile {
            package: Vec<Package>,
        }
        #[derive(Deserialize)]
        struct Package {
            name: String,
            version: String,
            source: Option<String>,
        }
        let lockfile: Lockfile = toml::from_str(LOCKFILE).context("Cargo.lock cannot be read")?;
        let packages: Vec<Package> =
            lockfile.package.into_iter().filter(|package| package.source.is_some()).collect();
        let folder = |package: &Package| format!("{}-{}", package.name, package.version);
        let entries = std::fs::read_dir(registry)
            .map_err(|error| usage(format!("cannot read {}: {error}", registry.display())))?;
        let base = entries
            .flatten()
            .map(|entry| entry.path())
            .max_by_key(|base| packages.iter().filter(|p| base.join(folder(p)).is_dir()).count());
        let base = base.unwrap_or_else(|| registry.to_owned());
        let mut sources =
            Self { files: Vec::new(), packages: 0, missing: 0, folders: BTreeMap::new(), base };
        for package in &packages {
            let dir = sources.base.join(folder(package));
            if !dir.is_dir() {
                sources.missing += 1;
                continue;
            }
            sources.packages += 1;
            sources.folders.entry(package.name.clone()).or_default().push(folder(package));
            sources.files.extend(documentation(&dir));
        }
        if sources.files.is_empty() {
            return Err(usage(format!(
                "none of the packages this program was built from is in {}; \
                 `cargo fetch` in the project brings them",
                registry.display()
            )));
        }
        Ok(sources)
    }
}

/// A package's README and changelog files and `docs/**/*.md`.
fn documentation(dir: &Path) -> Vec<PathBuf> {
    const STARTS: [&str; 4] = ["readme", "changelog", "changes", "releases"];
    let mut found = BTreeSet::new();
    let list = |dir: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(dir)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default()
    };
    for path in list(dir) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if path.is_file() && STARTS.iter().any(|start| name.starts_with(start)) {
            found.insert(path);
        }
    }
    let mut folders = vec![dir.join("docs")];
    while let Some(folder) = folders.pop() {
        for path in list(&folder) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.insert(path);
            }
        }
    }
    found.into_iter().collect()
}

fn build_index(
    dir: &Path,
    registry: &Path,
    sources: &Sources,
    embedder: &BiEncoder,
) -> Result<Index> {
    let writer = Writer::create_or_open(dir, &Settings::with_embedder(embedder))?;
    let options = AddOptions {
        chunk: Some(ChunkOptions::default()),
        relative_to: Some(sources.base.clone()),
        interrupt: Some(interrupt_flag()?),
        ..AddOptions::default()
    };
    // Packages of an older build go when a newer one is shown.
    let stale: Vec<PathBuf> = Index::open(dir)?
        .files()?
        .into_iter()
        .map(|file| PathBuf::from(file.path))
        .filter(|path| path.starts_with(registry) && !sources.files.contains(path))
        .collect();
    let models = Models { embedder: Some(embedder as &dyn Embedder), tokens: None };
    add_with_progress(writer, &sources.files, models, &options)?;
    if !stale.is_empty() {
        topshelf::remove(Writer::open(dir)?, &stale)?;
    }
    Ok(Index::open(dir)?)
}

fn questions() -> Result<Vec<Question>> {
    let lines = QUESTIONS.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| serde_json::from_str(line).with_context(|| format!("the question {line}")))
        .collect()
}

/// The passages that hold the quotations, and the questions that have one.
fn judgments(
    index: &Index,
    sources: &Sources,
    questions: &[Question],
) -> Result<(Qrels, Vec<Judged>)> {
    let mut grades: BTreeMap<(&str, String), i32> = BTreeMap::new();
    for question in questions {
        for answer in &question.answers {
            let folders = sources.folders.get(&answer.package);
            for folder in folders.map(Vec::as_slice).unwrap_or_default() {
                for passage in holders(index, &format!("{folder}/{}", answer.file), &answer.quote)?
                {
                    let grade = grades.entry((question.id.as_str(), passage)).or_default();
                    *grade = answer.grade.max(*grade);
                }
            }
        }
    }
    let mut qrels = Qrels::new();
    for ((question, passage), grade) in &grades {
        qrels.insert(*question, passage.clone(), *grade);
    }
    let answered = |question: &&Question| qrels.documents(&question.id).is_some();
    let judged = questions
        .iter()
        .filter(answered)
        .map(|question| Judged { id: question.id.clone(), text: question.text.clone() })
        .collect();
    Ok((qrels, judged))
}

/// The passages of a document that hold a quotation; if a cut goes through it, those that hold
/// one half of it.
fn holders(index: &Index, document: &str, quote: &str) -> Result<Vec<String>> {
    let quote: Vec<&str> = quote.split_whitespace().collect();
    let (first, second) = quote.split_at(quote.len() / 2);
    let passages: Vec<(String, String)> = index
        .document(document)?
        .iter()
        .map(|passage| {
            let words: Vec<&str> = passage.text.split_whitespace().collect();
            (passage.id.clone(), words.join(" "))
        })
        .collect();
    let holding = |words: &[&str]| -> Vec<String> {
        let words = words.join(" ");
        passages
            .iter()
            .filter(|(_, text)| text.contains(&words))
            .map(|(id, _)| id.clone())
            .collect()
    };
    let mut found = holding(&quote);
    if found.is_empty() && quote.len() > 1 {
        found = holding(first);
        found.extend(holding(second));
    }
    Ok(found)
}

/// What to say of questions whose answers are not on this machine.
fn left_out(questions: &[Question], judged: &[Judged]) -> Vec<String> {
    let n = questions.len() - judged.len();
    if n == 0 {
        return Vec::new();
    }
    vec![format!("{n} questions were left out: their answers are in packages that are not here")]
}

/// One query before and after.
fn example(
    arguments: &DemoArguments,
    index: &Index,
    parts: &Parts<'_>,
    questions: &[Question],
    qrels: &Qrels,
) -> Result<DemoExample> {
    let known = questions.iter().find(|question| question.id == EXAMPLE);
    let (text, judged) = match &arguments.query {
        Some(query) => (query.as_str(), None),
        None => (known.map_or("", |question| question.text.as_str()), known),
    };
    let builder = Pipeline::builder().top(DEPTH);
    let builder = super::with_first_stage(
        builder,
        index,
        &parts.first_stage,
        super::Known::of(parts.embedder.as_ref()),
    )?;
    let builder = match &parts.second_stage {
        Some(stage) => builder.second_stage(stage.clone()),
        None => builder,
    };
    let answer: Answer = builder.build()?.run_blocking(&Query::new(text)?)?;
    let hits = answer.ranking.hits().iter().take(SHOWN).enumerate().map(|(place, hit)| DemoMove {
        id: hit.passage.id.clone(),
        before: hit.signal("fused").map_or(0, |signal| signal.rank),
        after: place + 1,
        score: hit.score,
        relevant: judged
            .map(|question| qrels.grade(&question.id, &hit.passage.id).is_some_and(|g| g > 0)),
        text: table::shorten(&hit.passage.text, 110),
    });
    Ok(DemoExample { query: text.to_owned(), hits: hits.collect() })
}

fn as_text(answer: &DemoAnswer, measures: &[Measure], dir: &Path) -> String {
    let DemoAnswer { packages, packages_missing, totals, evaluation, example } = answer;
    let mut lines = vec![format!(
        "\n{} passages of {} documents from {packages} packages; {} judged questions",
        totals.passages, totals.documents, evaluation.queries
    )];
    if *packages_missing > 0 {
        lines.push(format!(
            "({packages_missing} packages of Cargo.lock are not on this machine: other platforms, tests)"
        ));
    }
    lines.extend(evaluation.warnings.iter().map(|warning| format!("note: {warning}")));
    lines.push(String::new());
    lines.push(collection::as_text(&evaluation.systems, &evaluation.differences, measures));
    lines.push(format!("\nBefore and after reranking: \"{}\"", example.query));
    for hit in &example.hits {
        let moved = match hit.before.cmp(&hit.after) {
            std::cmp::Ordering::Greater => format!("up from {}", hit.before),
            std::cmp::Ordering::Less => format!("down from {}", hit.before),
            std::cmp::Ordering::Equal => "stays".to_owned(),
        };
        let mark = if hit.relevant == Some(true) { "  (answers it)" } else { "" };
        lines.push(format!("{:>2}. {moved:<12} {:>7.2}  {}{mark}", hit.after, hit.score, hit.id));
        lines.push(format!("    {}", hit.text));
    }
    lines.push(format!(
        "\nNow with your own files:\n  \
         topshelf index add FOLDER --index my.index\n  \
         topshelf search 'your question' --index my.index --explain\n  \
         topshelf search 'your question' --index my.index --prompt\n  \
         topshelf demo --query 'how do I ...'      another query here\n\
         The demo's index stays in {}; the program is target/release/topshelf.",
        display(dir)
    ));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_enough_questions_and_each_can_be_judged() {
        let questions = questions().unwrap();
        assert!(questions.len() >= 60);
        for question in &questions {
            assert!(!question.answers.is_empty(), "{}", question.id);
            assert!(question.answers.iter().any(|answer| answer.grade == 2), "{}", question.id);
        }
        assert!(questions.iter().any(|question| question.id == EXAMPLE));
    }
}
