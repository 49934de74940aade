//! `topshelf eval`: every stage on judged queries, or a run file against judgments.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use topshelf::eval::{BeirFolder, Measure, MeasureKind, Qrels, Run};
use topshelf::tune::Unit;
use topshelf::{OnFailure, Passage, Ranking, Scale, ScoreCacheUse, SecondStage, Setup, SetupPatch};

use super::collection::{Answered, Candidates, Parts, Stage, System};
use super::judged::{Folder, JudgedQueries};
use super::pipelines::{self, NamedProfile};
use super::{collection, compare, display, print, print_json, reordering};
use crate::args::EvalArguments;
use crate::exit::usage;
use crate::output::EvalAnswer;
use crate::report;
use crate::say::say;

/// What is measured unless asked otherwise; differences are told in the first.
const DEFAULT_MEASURES: &str =
    "nDCG@10,recall@5,recall@10,recall@20,recall@100,success@1,success@3,success@10,MRR@10,MAP";

pub(super) fn run(arguments: &EvalArguments) -> Result<()> {
    if let [before, after] = arguments.compare.as_slice() {
        return compare::run(arguments, before, after);
    }
    let measures = measures(arguments)?;
    let answer = match (&arguments.run, &arguments.qrels) {
        (Some(run), Some(qrels)) => run_file(run, qrels, &measures)?,
        _ => collection(arguments, &measures)?,
    };
    if let Some(path) = &arguments.report {
        report::save(&report::evaluated(&answer), path)?;
        say!("report: {}", display(path));
    }
    if arguments.format.json {
        return print_json(&answer);
    }
    for warning in &answer.warnings {
        say!("warning: {warning}");
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
        profile: None,
    })
}

fn collection(arguments: &EvalArguments, measures: &[Measure]) -> Result<EvalAnswer> {
    let folder = Folder::open(&arguments.collection)?;
    let mut topics = folder.topics(&arguments.collection.split)?;
    let profile = NamedProfile::open(&arguments.profile)?;
    let options = &arguments.second_stage;
    // All candidates are measured; an order of the first stage must not be measured as that of a reranker.
    let of_eval = SetupPatch {
        depth: arguments.depth,
        top: Some(1),
        on_failure: Some(OnFailure::Fail),
        ..arguments.first_stage.patch()
    };
    let setup = pipelines::setup(profile.as_ref(), &[of_eval, options.patch()], options)?;
    if let Some(second) = &setup.second_stage {
        let models = second.cascade.iter().map(|step| step.model.as_str());
        folder.check_judge(&arguments.collection.split, models)?;
    }
    let systems = systems(arguments, &setup, &folder)?;
    let embeds = systems.iter().any(System::embeds);
    let reranks = systems.iter().any(|system| system.reranked);
    if reranks && setup.second_stage.is_none() {
        return Err(usage("`--rerank none` cannot be combined with a system that ends in +rerank"));
    }
    let retrieves = systems.iter().any(|system| system.stage != Stage::Candidates)
        || arguments.collection.tokens.token_vectors.is_some();
    let unit = folder.unit(&topics.qrels)?;
    // Without the cache: a score that is looked up says nothing of what reranking takes.
    let engine = pipelines::engine(&options.spending, ScoreCacheUse::Bypass)?;
    let index = if retrieves { Some(folder.index(&engine, embeds)?) } else { None };
    let mut warnings = std::mem::take(&mut topics.warnings);
    warnings.extend(profile.as_ref().and_then(|own| own.warning_on(&folder.name)));
    let candidates = match &arguments.candidates {
        Some(path) => candidates(&folder.beir, path, &topics, &mut warnings)?,
        None => Candidates::new(),
    };
    let embedder =
        index.as_ref().filter(|_| embeds).and_then(|own| own.settings().embedder.as_ref());
    let embedder = embedder.map(|own| own.identity.name.clone());
    let stage = if reranks { engine.second_stage(&setup, index.as_ref())? } else { None };
    let reranker = stage.as_ref().map(names_of);
    let depth = setup.first_stage.depth;
    let parts = Parts { engine, index: index.as_ref(), candidates, setup };
    let answered = parts.answer(&systems, &topics.queries, unit)?;
    if let Some(dir) = &arguments.save_runs {
        collection::save_runs(&answered, dir)?;
    }
    warnings.extend(oddities(&answered, &topics.qrels, measures)?);
    let level = arguments.relevance_level;
    let (systems, differences) =
        collection::measure(&answered, &topics.qrels, measures, level, unit)?;
    Ok(EvalAnswer {
        data: folder.name,
        queries: topics.qrels.query_count(),
        depth: Some(depth),
        embedder,
        reranker,
        measure: first(measures),
        systems,
        differences,
        warnings,
        profile: profile.map(|own| own.name()),
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

fn systems(arguments: &EvalArguments, setup: &Setup, folder: &Folder) -> Result<Vec<System>> {
    let given = arguments.candidates.is_some();
    let names: Vec<String> = if arguments.systems.is_empty() {
        let (first, last) = match (given, folder.words_only()) {
            (true, _) => (vec!["candidates"], "candidates+rerank"),
            (false, true) => (vec!["bm25"], "bm25+rerank"),
            (false, false) => (vec!["bm25", "dense", "hybrid"], "hybrid+rerank"),
        };
        let mut names: Vec<String> = first.into_iter().map(str::to_owned).collect();
        if let Some(second) = &setup.second_stage {
            names.push(last.to_owned());
            // Each policy alone, and all of them.
            let policies = [(second.blend.is_some(), "+blend"), (second.gate.is_some(), "+gate")];
            let set: Vec<&str> =
                policies.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect();
            names.extend(set.iter().map(|policy| format!("{last}{policy}")));
            if set.len() > 1 {
                names.push(format!("{last}{}", set.concat()));
            }
        }
        names
    } else {
        arguments.systems.clone()
    };
    let systems = names.iter().map(|name| System::parse(name)).collect::<Result<Vec<_>>>()?;
    let second = setup.second_stage.as_ref();
    if second.is_none_or(|own| own.gate.is_none()) && systems.iter().any(|system| system.gated) {
        return Err(usage("a system that ends in +gate needs --gate"));
    }
    if second.is_none_or(|own| own.blend.is_none()) && systems.iter().any(|system| system.blended) {
        return Err(usage("a system that ends in +blend needs a blend, and there is none"));
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

/// The candidates of the judged queries, with the texts of the collection.
fn candidates(
    folder: &BeirFolder,
    path: &Path,
    topics: &JudgedQueries,
    warnings: &mut Vec<String>,
) -> Result<Candidates> {
    let run = Run::open(path)?;
    let wanted: HashSet<&str> = topics
        .queries
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
    for topic in &topics.queries {
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
        if let Some(first) = system.incomplete.first() {
            let n = system.incomplete.len();
            told.push(format!(
                "{name} answers {n} queries without a retriever; the first: {first}"
            ));
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
