//! `topshelf eval`: every stage on judged queries, or a run file against judgments.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use topshelf::eval::{BeirFolder, Measure, MeasureKind, Qrels, Run, Topics};
use topshelf::{
    AddOptions, BiEncoder, Embedder, Index, Passage, Precision, Ranking, Scale, SecondStage,
    Settings, Writer,
};

use super::collection::{Answered, Candidates, Judged, Parts, Stage, System, Unit};
use super::{
    cache_dir, collection, compare, display, index::add_with_progress, interrupt_flag, print,
    print_json, reordering,
};
use crate::args::EvalArguments;
use crate::exit::usage;
use crate::output::EvalAnswer;

/// What is measured unless asked otherwise; differences are told in the first.
const DEFAULT_MEASURES: &str =
    "nDCG@10,recall@5,recall@10,recall@20,recall@100,success@1,success@3,MRR@10,MAP";

pub(super) fn run(arguments: &EvalArguments) -> Result<()> {
    if let [before, after] = arguments.compare.as_slice() {
        return compare::run(arguments, before, after);
    }
    let measures = measures(arguments)?;
    let answer = match (&arguments.data, &arguments.run, &arguments.qrels) {
        _ if let Some(own) = &arguments.own => collection(arguments, own, &measures)?,
        (Some(data), ..) => collection(arguments, data, &measures)?,
        (None, Some(run), Some(qrels)) => run_file(run, qrels, &measures)?,
        _ => return Err(usage("give --data DIR, or --run FILE with --qrels FILE")),
    };
    if arguments.format.json {
        return print_json(&answer);
    }
    for warning in &answer.warnings {
        eprintln!("warning: {warning}");
    }
    print(&format!("{}: {} judged queries", answer.data, answer.queries))?;
    print(&collection::as_text(&answer.systems, &answer.differences, &measures))?;
    for system in &answer.systems {
        if let Some(second) = &system.second_stage {
            print(&reordering::as_text(&system.name, &system.measures, second, &measures))?;
        }
    }
    Ok(())
}

fn measures(arguments: &EvalArguments) -> Result<Vec<Measure>> {
    let names = if arguments.measures.is_empty() {
        DEFAULT_MEASURES.to_owned()
    } else {
        arguments.measures.join(",")
    };
    let leveled = |measure: Measure| {
        // nDCG reads the grades themselves.
        if measure.kind() == MeasureKind::Ndcg || measure.level() != 1 {
            Ok(measure)
        } else {
            measure.with_level(arguments.relevance_level)
        }
    };
    Ok(Measure::parse_list(&names)?.into_iter().map(leveled).collect::<Result<_, _>>()?)
}

fn run_file(run: &Path, qrels: &Path, measures: &[Measure]) -> Result<EvalAnswer> {
    let qrels = Qrels::open(qrels)?;
    let name = run.file_stem().map_or_else(|| display(run), |stem| stem.to_string_lossy().into());
    let answered = [Answered::measured(name, Run::open(run)?)];
    let mut warnings: Vec<String> = qrels.warnings.iter().map(ToString::to_string).collect();
    warnings.extend(oddities(&answered, &qrels.qrels, measures)?);
    let (systems, differences) =
        collection::measure(&answered, &qrels.qrels, measures, 1, Unit::Document)?;
    Ok(EvalAnswer {
        data: display(run),
        queries: qrels.qrels.query_count(),
        depth: None,
        embedder: None,
        reranker: None,
        measure: first(measures),
        systems,
        differences,
        warnings,
    })
}

fn collection(arguments: &EvalArguments, data: &Path, measures: &[Measure]) -> Result<EvalAnswer> {
    if arguments.depth == 0 {
        return Err(topshelf::Error::DepthZero.into());
    }
    let own = arguments.own.is_some();
    let folder = if own { BeirFolder::open_judgments(data)? } else { BeirFolder::open(data)? };
    let topics = folder.topics(&arguments.split)?;
    let own = match &arguments.index {
        Some(index) if own => Some(Index::open(index)?),
        _ => None,
    };
    let systems = systems(arguments, own.as_ref())?;
    let embeds = systems.iter().any(System::embeds);
    let reranks = systems.iter().any(|system| system.reranked);
    let second_stage =
        // Without the cache: a score that is looked up says nothing of what reranking takes.
        if reranks { super::second_stage::load(&arguments.second_stage, None)? } else { None };
    if reranks && second_stage.is_none() {
        return Err(usage("`--rerank none` does not go with a system that ends in +rerank"));
    }
    let embedder = match &own {
        Some(index) if embeds => Some(super::embedder_of(index)?),
        None if embeds => Some(Arc::new(BiEncoder::load(&arguments.embed)?)),
        _ => None,
    };
    let retrieves = systems.iter().any(|system| system.stage != Stage::Candidates);
    let unit = if own.is_some() { unit_of(&topics.qrels)? } else { Unit::Document };
    let index = match own {
        Some(index) => Some(index),
        None if retrieves => Some(index(arguments, &folder, embedder.as_deref())?),
        None => None,
    };
    let mut warnings: Vec<String> = topics.warnings.iter().map(ToString::to_string).collect();
    for query in &topics.without_text {
        warnings.push(format!("query {query} has judgments but no text; it counts as unanswered"));
    }
    let candidates = match &arguments.candidates {
        Some(path) => candidates(&folder, path, &topics, &mut warnings)?,
        None => Candidates::new(),
    };
    let names = (
        embedder.as_ref().map(|model| model.identity().name.clone()),
        second_stage.as_ref().map(names_of),
    );
    let parts = Parts {
        index: index.as_ref(),
        embedder,
        second_stage,
        candidates,
        first_stage: &arguments.first_stage,
        depth: arguments.depth,
    };
    let judged: Vec<Judged> = topics
        .topics
        .iter()
        .map(|topic| Judged { id: topic.id.clone(), text: topic.text.clone() })
        .collect();
    let answered = parts.answer(&systems, &judged, unit)?;
    if let Some(dir) = &arguments.save_runs {
        collection::save_runs(&answered, dir)?;
    }
    warnings.extend(oddities(&answered, &topics.qrels, measures)?);
    let level = arguments.relevance_level;
    let (systems, differences) =
        collection::measure(&answered, &topics.qrels, measures, level, unit)?;
    Ok(EvalAnswer {
        data: display(data),
        queries: topics.qrels.query_count(),
        depth: Some(arguments.depth),
        embedder: names.0,
        reranker: names.1,
        measure: first(measures),
        systems,
        differences,
        warnings,
    })
}

/// The name of the measure in which differences are told.
fn first(measures: &[Measure]) -> String {
    measures.first().map(ToString::to_string).unwrap_or_default()
}

/// The rerankers of a second stage in one line, cheapest first.
fn names_of(stage: &SecondStage) -> String {
    let names: Vec<&str> = stage.rerankers().map(|model| model.identity().name.as_str()).collect();
    names.join(", ")
}

/// Whether judgments of an index are of its passages, whose ids end in `#` and a number, or of its
/// documents.
fn unit_of(qrels: &Qrels) -> Result<Unit> {
    let is_passage = |id: &str| {
        let place = id.rsplit_once('#').map(|(_, place)| place);
        place.is_some_and(|place| !place.is_empty() && place.bytes().all(|b| b.is_ascii_digit()))
    };
    let mut ids = qrels.iter().flat_map(|(_, documents)| documents.keys());
    let passages = ids.next().is_some_and(|id| is_passage(id));
    if let Some(other) = ids.find(|id| is_passage(id) != passages) {
        return Err(usage(format!(
            "some judgments are of passages and some of whole documents, {other} among the second \
             kind met; keep them in folders of their own"
        )));
    }
    Ok(if passages { Unit::Passage } else { Unit::Document })
}

fn systems(arguments: &EvalArguments, own: Option<&Index>) -> Result<Vec<System>> {
    let rerank = arguments.second_stage.rerank != "none";
    let given = arguments.candidates.is_some();
    let names: Vec<String> = if arguments.systems.is_empty() {
        let words_only = own.is_some_and(|index| index.settings().embedder.is_none());
        let (first, last) = match (given, words_only) {
            (true, _) => (vec!["candidates"], "candidates+rerank"),
            (false, true) => (vec!["bm25"], "bm25+rerank"),
            (false, false) => (vec!["bm25", "dense", "hybrid"], "hybrid+rerank"),
        };
        let second = &arguments.second_stage;
        let policies = [(second.blend.is_some(), "+blend"), (second.gate.is_some(), "+gate")];
        let with = policies.iter().filter(|(set, _)| *set).map(|(_, name)| format!("{last}{name}"));
        let reranked = std::iter::once(last.to_owned()).chain(with);
        let first = first.into_iter().map(str::to_owned);
        first.chain(reranked.filter(|_| rerank)).collect()
    } else {
        arguments.systems.clone()
    };
    let systems = names.iter().map(|name| System::parse(name)).collect::<Result<Vec<_>>>()?;
    let second = &arguments.second_stage;
    if second.gate.is_none() && systems.iter().any(|system| system.gated) {
        return Err(usage("a system that ends in +gate needs --gate"));
    }
    if second.blend.is_none() && systems.iter().any(|system| system.blended) {
        return Err(usage("a system that ends in +blend needs --blend"));
    }
    let from_run = systems.iter().any(|system| system.stage == Stage::Candidates);
    if from_run && !given {
        return Err(usage("the system \"candidates\" needs --candidates RUN.trec"));
    }
    let mut seen = HashSet::new();
    for system in &systems {
        if !seen.insert(system.name()) {
            return Err(usage(format!("the system \"{}\" is named twice", system.name())));
        }
    }
    Ok(systems)
}

/// The index of the collection, one passage a document: made the first time, kept for the next.
fn index(
    arguments: &EvalArguments,
    folder: &BeirFolder,
    embedder: Option<&BiEncoder>,
) -> Result<Index> {
    let embedder = embedder.map(|embedder| embedder as &dyn Embedder);
    let settings = Settings {
        language: arguments.language,
        precision: Precision::from(arguments.vectors),
        embedder: embedder.and_then(|e| Settings::with_embedder(e).embedder),
        ..Settings::default()
    };
    let corpus = folder.root().join("corpus.jsonl");
    let dir = match &arguments.index {
        Some(dir) => dir.clone(),
        None => kept_index(&corpus, &settings)?,
    };
    let writer = Writer::create_or_open(&dir, &settings)?;
    let options = AddOptions { interrupt: Some(interrupt_flag()?), ..AddOptions::default() };
    let report = add_with_progress(writer, &[corpus], embedder, &options)?;
    if report.totals.documents == 0 {
        return Err(usage(format!("{} holds no document", display(folder.root()))));
    }
    Ok(Index::open(&dir)?)
}

/// A folder of the cache for this corpus under these settings.
fn kept_index(corpus: &Path, settings: &Settings) -> Result<PathBuf> {
    let corpus = std::fs::canonicalize(corpus)
        .with_context(|| format!("cannot find {}", corpus.display()))?;
    let mut hasher = DefaultHasher::new();
    corpus.hash(&mut hasher);
    format!("{settings:?}").hash(&mut hasher);
    let name = corpus.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    Ok(cache_dir()?.join("eval").join(format!("{name}-{:016x}", hasher.finish())))
}

/// The candidates of the judged queries, with the texts of the collection.
fn candidates(
    folder: &BeirFolder,
    path: &Path,
    topics: &Topics,
    warnings: &mut Vec<String>,
) -> Result<Candidates> {
    let run = Run::open(path)?;
    let wanted: HashSet<&str> = topics
        .topics
        .iter()
        .flat_map(|topic| run.documents(&topic.id))
        .map(|document| document.id.as_str())
        .collect();
    let mut passages = std::collections::HashMap::new();
    for document in folder.corpus()? {
        let document = document?;
        if wanted.contains(document.id.as_str()) {
            let passage = Passage::standalone(&document.id, document.title, document.text);
            passages.insert(document.id, Arc::new(passage));
        }
    }
    let missing = wanted.iter().filter(|id| !passages.contains_key(**id)).count();
    if missing > 0 {
        warnings.push(format!(
            "{missing} documents of {} are not in the collection and were left out",
            display(path)
        ));
    }
    let mut candidates = Candidates::new();
    for topic in &topics.topics {
        let documents = run.documents(&topic.id);
        // A run's scores may be on any scale; what it says is the order.
        let found = documents.iter().enumerate().filter_map(|(place, document)| {
            Some((Arc::clone(passages.get(&document.id)?), -(place as f32)))
        });
        let ranking = Ranking::new("candidates", Scale::Rank, found)?;
        if !ranking.is_empty() {
            candidates.insert(topic.id.clone(), ranking);
        }
    }
    if candidates.is_empty() {
        return Err(usage(format!("{} has no candidates for any judged query", display(path))));
    }
    Ok(candidates)
}

/// What a reader of the figures should know of the runs.
fn oddities(answered: &[Answered], qrels: &Qrels, measures: &[Measure]) -> Result<Vec<String>> {
    let mut told = Vec::new();
    for system in answered {
        let evaluation = topshelf::eval::evaluate(qrels, &system.run, measures)?;
        let name = &system.name;
        if !evaluation.missing.is_empty() {
            let n = evaluation.missing.len();
            told.push(format!("{name} answers nothing to {n} judged queries; they count 0"));
        }
        if !evaluation.unjudged.is_empty() {
            let n = evaluation.unjudged.len();
            told.push(format!("{name} has {n} queries without judgments; they are left out"));
        }
        let ties = system.run.ties(10);
        if ties.documents > 0 {
            told.push(format!(
                "{name} has {} documents with equal scores in the top 10 of {} queries; \
                 equal scores are ordered by document id, descending, as trec_eval does",
                ties.documents, ties.queries
            ));
        }
    }
    Ok(told)
}
