//! `topshelf search`: the whole pipeline for one query.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use topshelf::context::estimate_tokens;
use topshelf::{
    Answer, Call, Context, ContextOptions, Engine, Filter, Hit, Index, Query, RetrieverOutcome,
    SecondStage, SecondStageReport, SetupPatch, TokenMatch,
};

use super::matches::{Matches, in_colour};
use super::pipelines::{self, NamedProfile};
use super::{display, print, print_json, second_stage};
use crate::args::{Retrieval, SearchArguments};
use crate::exit::usage;
use crate::output::{PromptAnswer, PromptSource, RunReport, SearchAnswer, SearchHit};
use crate::say::say;
use crate::table;

/// Characters of a passage shown in the list.
const SHOWN: usize = 300;

/// What was found, and with what.
pub(super) struct Found {
    pub(super) query: Query,
    pub(super) answer: Answer,
    pub(super) stage: Option<SecondStage>,
    pub(super) profile: Option<String>,
    /// How the results become a prompt.
    pub(super) context: ContextOptions,
}

/// The engine that a search is to use.
pub(super) fn engine(options: &Retrieval) -> Result<Engine> {
    pipelines::engine(&options.second_stage.spending, options.cache.score_cache())
}

/// Retrieves and reranks. `prompt` is what the flags say of one.
pub(super) fn find(
    engine: &Engine,
    text: &str,
    options: &Retrieval,
    prompt: SetupPatch,
) -> Result<Found> {
    let mut query = Query::new(text)?;
    if let Some(filter) = &options.filter {
        query = query.with_filter(Filter::parse(filter)?);
    }
    let index = Index::open(&options.index)?;
    if index.totals().passages == 0 {
        let dir = display(&options.index);
        say!("note: the index {dir} is empty; `topshelf index add PATH --index {dir}` fills it");
    }
    let profile = NamedProfile::open(&options.profile)?;
    let [first, second] = options.patches();
    let patches = [first, second, prompt];
    let setup = pipelines::setup(profile.as_ref(), &patches, &options.second_stage)?;
    let pipeline = engine.pipeline(&index, &setup)?;
    let answer = pipeline.run_blocking(&query)?;
    let (stage, context) = (pipeline.second_stage().cloned(), setup.context);
    Ok(Found { query, answer, stage, profile: profile.map(|own| own.name()), context })
}

/// The template in a file, if one is given.
pub(super) fn template(path: Option<&PathBuf>) -> Result<Option<String>> {
    let Some(path) = path else { return Ok(None) };
    let text = std::fs::read_to_string(path)
        .map_err(|error| usage(format!("cannot read the template {}: {error}", path.display())))?;
    Ok(Some(text))
}

pub(super) fn run(arguments: &SearchArguments) -> Result<()> {
    let template = template(arguments.template.as_ref())?;
    let prompt = SetupPatch { budget: arguments.budget, template, ..SetupPatch::default() };
    let engine = engine(&arguments.retrieval)?;
    let Found { query, answer, stage, profile, context: options } =
        find(&engine, &arguments.query, &arguments.retrieval, prompt)?;
    let explained = match stage.filter(|_| arguments.explain) {
        Some(stage) => explain(&stage, &query, &answer)?,
        None => Vec::new(),
    };

    let context = if arguments.prompt {
        Some(Context::pack(query.text(), &answer.ranking, &options, &estimate_tokens)?)
    } else {
        None
    };
    if arguments.format.json {
        return print_json(&as_json(&query, &answer, &explained, context.as_ref(), profile));
    }
    match context {
        Some(context) => print(&context.prompt()),
        None => print(&as_text(&answer, arguments.explain, &explained, profile)),
    }
    .context("cannot print the answer")
}

/// What the reranker that answered says of each hit's tokens, if it looks at tokens.
fn explain(stage: &SecondStage, query: &Query, answer: &Answer) -> Result<Vec<Vec<TokenMatch>>> {
    let report = answer.report.second_stage.as_ref().and_then(SecondStageReport::answered_by);
    let Some(reranker) = report.and_then(|ran| stage.reranker_of(ran)) else {
        return Ok(Vec::new());
    };
    let (call, hits) = (Call::new(), answer.ranking.hits().iter());
    let of_hit = |hit: &Hit| Ok(pollster::block_on(reranker.explain(&call, query, &hit.passage))?);
    hits.map(of_hit).collect()
}

fn as_json(
    query: &Query,
    answer: &Answer,
    explained: &[Vec<TokenMatch>],
    context: Option<&Context>,
    profile: Option<String>,
) -> SearchAnswer {
    let scale = answer.ranking.scale();
    let hits = answer.ranking.hits().iter().enumerate();
    SearchAnswer {
        query: query.text().to_owned(),
        hits: match context {
            Some(_) => Vec::new(),
            None => hits
                .map(|(place, hit)| {
                    let matches = explained.get(place).map(Vec::as_slice).unwrap_or_default();
                    SearchHit::new(place + 1, hit, scale).with_matches(matches)
                })
                .collect(),
        },
        prompt: context.map(PromptAnswer::from),
        report: RunReport { profile, ..RunReport::from(&answer.report) },
    }
}

/// The numbered sources.
pub(super) fn sources(context: &Context) -> Vec<PromptSource> {
    context.sources.iter().map(PromptSource::from).collect()
}

fn as_text(
    answer: &Answer,
    explain: bool,
    explained: &[Vec<TokenMatch>],
    profile: Option<String>,
) -> String {
    let colour = in_colour();
    let mut lines = Vec::new();
    if answer.ranking.is_empty() {
        let withheld = !answer.candidates.is_empty();
        lines.push(if withheld { "nothing relevant found" } else { "nothing found" }.to_owned());
    }
    for (place, hit) in answer.ranking.hits().iter().enumerate() {
        let passage = &hit.passage;
        let trail = passage.trail();
        let trail = if trail.is_empty() { String::new() } else { format!("  {trail}") };
        lines.push(format!("{:>2}. {:>8.3}  {}{trail}", place + 1, hit.score, passage.id));
        if explain {
            let said = hit.signals.iter().map(|signal| {
                format!("{} #{} ({} {:.4})", signal.stage, signal.rank, signal.scale, signal.score)
            });
            lines.push(format!("    {}", said.collect::<Vec<_>>().join(", ")));
        }
        let matches = explained.get(place).map(|all| Matches::new(passage, all));
        if let Some(matches) = matches.filter(|matches| !matches.is_empty()) {
            lines.push(format!("    {}", matches.line(colour)));
            lines.push(format!("    {}", matches.text(SHOWN, colour)));
            continue;
        }
        let shown = hit.span.as_ref().map_or(&passage.text[..], |span| &passage.text[span.clone()]);
        lines.push(format!("    {}", table::shorten(shown, SHOWN)));
    }
    if explain {
        lines.push(String::new());
        lines.push(report(answer));
    }
    lines.extend(profile.map(|profile| format!("note: as {profile} has it")));
    // What was skipped, cut, left unread or withheld is said without being asked.
    let notes = answer.report.notes();
    let shown = notes.iter().filter(|note| explain || !note.is_routine());
    lines.extend(shown.map(|note| format!("note: {note}")));
    lines.join("\n")
}

fn report(answer: &Answer) -> String {
    let report = &answer.report;
    let mut rows = table::new(["stage", "what", "ms"], 2);
    for ran in &report.retrievers {
        let what = match &ran.outcome {
            RetrieverOutcome::Found { passages } => format!("{passages} passages"),
            RetrieverOutcome::NothingToLookUp { .. } => "nothing to look up".to_owned(),
            RetrieverOutcome::Failed { .. } => "failed".to_owned(),
            RetrieverOutcome::TooLate => "too late".to_owned(),
        };
        rows.add_row([ran.name.clone(), what, format!("{:.1}", ran.milliseconds)]);
    }
    if let Some(fusion) = &report.fusion {
        let what = format!("{fusion}: {} candidates", answer.candidates.len());
        rows.add_row(["fused".to_owned(), what, String::new()]);
    }
    match &report.second_stage {
        Some(stage) => {
            for row in second_stage::rows(stage) {
                rows.add_row(row);
            }
        }
        None => {
            rows.add_row(["rerank", "none", ""]);
        }
    }
    rows.add_row(["all".to_owned(), String::new(), format!("{:.1}", report.milliseconds)]);
    table::render(&rows)
}
