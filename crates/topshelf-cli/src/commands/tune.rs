//! `topshelf tune`: the pipeline that pays on judged queries, and the profile that says so.

use std::sync::Arc;

use anyhow::Result;
use topshelf::eval::{Measure, Qrels};
use topshelf::setup::NO_RERANKER;
use topshelf::tune::gate::GateTerms;
use topshelf::tune::record::Contender;
use topshelf::tune::{self, Halves, Stages, TuneOptions, search::check};
use topshelf::{
    Engine, FirstStageSetup, Index, OnFailure, Query, Reranker, RetrieverKind, ScoreCacheUse,
    Setup, WindowOptions,
};

use super::collection::Judged;
use super::judged::Folder;
use super::{display, pipelines, print, print_json, tuned};
use crate::args::TuneArguments;
use crate::exit::usage;
use crate::output::tuned::TuneAnswer;
use crate::progress::Progress;
use crate::report;
use crate::say::say;

/// Held-out queries that the chosen pipeline answers for real, to hold the figures to it.
const CHECKED: usize = 30;

/// Places of an answer that have to be as foretold.
const TOP: usize = 10;

pub(super) fn run(arguments: &TuneArguments) -> Result<()> {
    let measure = match Measure::parse_list(&arguments.measure)?.as_slice() {
        [measure] => *measure,
        _ => return Err(usage("tuning is for one measure")),
    };
    let folder = Folder::open(&arguments.collection)?;
    for split in [Some(&arguments.collection.split), arguments.train.as_ref()].into_iter().flatten()
    {
        folder.check_judge(split, arguments.rerank.iter().map(String::as_str))?;
    }
    let (queries, qrels, halves, mut warnings) = judged_queries(arguments, &folder)?;
    let judged = tune::Judged {
        unit: folder.unit(&qrels)?,
        qrels,
        measure,
        level: arguments.relevance_level,
    };
    let embeds = !folder.words_only();
    let engine = pipelines::engine(&arguments.spending, arguments.cache.score_cache())?;
    let index = folder.index(&engine, embeds)?;
    let windows = Some(WindowOptions::default());
    let first = FirstStageSetup::default();
    let retriever = |kind| engine.retriever(&index, kind, &first);
    let stages = Stages {
        bm25: Some(retriever(RetrieverKind::Bm25)?),
        dense: if embeds { Some(retriever(RetrieverKind::Dense)?) } else { None },
        rerankers: contenders(&engine, arguments, windows, &index)?,
    };
    let options = TuneOptions {
        budget: arguments.budget,
        gate: GateTerms { max_loss: arguments.gate_loss, min_saved: arguments.gate_saves },
        risk: arguments.risk as f32,
        depths: TuneOptions::depths_to(arguments.depth),
        bm25: first.bm25,
        windows,
    };

    let firsts = options.first_stages(true, embeds);
    let asked = queries.iter().map(|own| Ok((own.id.clone(), Query::new(&own.text)?)));
    let asked: Vec<(String, Query)> = asked.collect::<Result<_>>()?;
    // The retrievers, and then the rerankers.
    let questions = 2 * asked.len() as u64;
    let mut bar = Progress::new("asking every stage", Some(questions), "questions");
    let mut tick = |done: usize| bar.set(done as u64);
    let recording = pollster::block_on(tune::record(&stages, &asked, &firsts, &mut tick))?;
    bar.finish();
    let mut bar = Progress::new("trying setups", Some(1), "setups");
    let answer = tune::tune(&recording, &judged, &halves, &options, &mut |done, total| {
        bar.set_total(total as u64);
        bar.set(done as u64);
    })?;
    bar.finish();

    let bare = |name: &str| -> Result<Arc<dyn Reranker>> {
        let known = stages.rerankers.iter().find(|own| own.name == name);
        known.map(|own| Arc::clone(&own.bare)).ok_or_else(|| usage(format!("{name} is not loaded")))
    };
    let top = TOP.min(answer.setup.first_stage.depth);
    let setup = Setup { top, on_failure: OnFailure::Fail, ..answer.setup.clone() };
    let retriever = |kind| Ok(engine.retriever(&index, kind, &setup.first_stage)?);
    let pipeline = setup.pipeline::<anyhow::Error>(retriever, setup.second_stage(bare)?)?;
    let step = halves.held_out.len().div_ceil(CHECKED).max(1);
    let sample: Vec<usize> = halves.held_out.iter().copied().step_by(step).collect();
    let mut bar = Progress::new("running the chosen one", Some(sample.len() as u64), "queries");
    let mut tick = |done: usize| bar.set(done as u64);
    let done = check(&pipeline, &recording, &answer.setup, top, &sample, &mut tick)?;
    bar.finish();
    if done.same < done.queries {
        warnings.push(format!(
            "{} of {} answers were not the foretold ones, passage by passage; an index that changes \
             meanwhile can do that, and nothing else should",
            done.queries - done.same,
            done.queries
        ));
    }
    answer.profile(&folder.name).save(&arguments.out)?;
    let answer = TuneAnswer::new(
        folder.name,
        display(&arguments.out),
        recording.pairs(),
        &answer,
        done,
        warnings,
    );
    if let Some(path) = &arguments.report {
        report::save(&report::tuned(&answer), path)?;
        say!("report: {}", display(path));
    }
    if arguments.format.json {
        return print_json(&answer);
    }
    for warning in &answer.warnings {
        say!("warning: {warning}");
    }
    print(&tuned::as_text(&answer))
}

/// The queries with their judgments, and which of them are fitted on.
fn judged_queries(
    arguments: &TuneArguments,
    folder: &Folder,
) -> Result<(Vec<Judged>, Qrels, Halves, Vec<String>)> {
    let split = &arguments.collection.split;
    let mut own = folder.topics(split)?;
    let Some(train) = &arguments.train else {
        let queries = sample(own.queries, arguments.queries);
        let ids: Vec<String> = queries.iter().map(|query| query.id.clone()).collect();
        let halves = Halves::of(&ids)?;
        return Ok((queries, own.qrels, halves, own.warnings));
    };
    let other = folder.topics(train)?;
    if let Some(both) = other.queries.iter().find(|q| own.qrels.documents(&q.id).is_some()) {
        return Err(usage(format!(
            "query {} is in {train} and in {split}; what is fitted on must not be measured with",
            both.id
        )));
    }
    let share = arguments.queries.map(|all| all.div_ceil(2));
    let mut queries = sample(other.queries, share);
    let training = queries.len();
    queries.extend(sample(own.queries, share));
    for (query, documents) in other.qrels.iter() {
        for (document, grade) in documents {
            own.qrels.insert(query, document, *grade);
        }
    }
    own.warnings.extend(other.warnings);
    let halves = Halves::given((0..training).collect(), (training..queries.len()).collect())?;
    Ok((queries, own.qrels, halves, own.warnings))
}

/// At most so many of them, evenly drawn.
fn sample(queries: Vec<Judged>, most: Option<usize>) -> Vec<Judged> {
    let Some(most) = most.filter(|most| *most < queries.len()) else { return queries };
    let n = queries.len();
    let drawn = |place: &usize| place * most / n != (place + 1) * most / n;
    queries.into_iter().enumerate().filter(|(place, _)| drawn(place)).map(|(_, q)| q).collect()
}

/// The rerankers that may take part, each with and without the cache.
fn contenders(
    engine: &Engine,
    arguments: &TuneArguments,
    windows: Option<WindowOptions>,
    index: &Index,
) -> Result<Vec<Contender>> {
    let named = arguments.rerank.iter().filter(|name| *name != NO_RERANKER);
    let load = |name: &String| {
        let loaded = engine.reranker(name)?;
        let wrapped = |cache| engine.wrapped(&loaded, windows, Some(index), cache);
        Ok(Contender {
            name: name.clone(),
            reranker: wrapped(ScoreCacheUse::Use)?,
            bare: wrapped(ScoreCacheUse::Bypass)?,
        })
    };
    named.map(load).collect()
}
