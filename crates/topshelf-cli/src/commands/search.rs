//! `topshelf search`: the whole pipeline for one query.

use anyhow::{Context as _, Result};
use topshelf::context::{LeftOutReason, estimate_tokens};
use topshelf::{
    Answer, Context, ContextOptions, Filter, Hit, Index, Pipeline, Query, SecondStage, TokenMatch,
};

use super::chosen::Chosen;
use super::matches::{Matches, in_colour};
use super::{cache, display, print, print_json, second_stage, with_first_stage};
use crate::args::SearchArguments;
use crate::exit::usage;
use crate::output::{
    ChatMessage, Notice, PromptAnswer, PromptSource, RunReport, SearchAnswer, SearchHit,
};
use crate::table;

/// Characters of a passage shown in the list.
const SHOWN: usize = 300;

pub(super) fn run(arguments: &SearchArguments) -> Result<()> {
    let mut query = Query::new(&arguments.query)?;
    if let Some(filter) = &arguments.filter {
        query = query.with_filter(Filter::parse(filter)?);
    }
    let template = arguments
        .template
        .as_ref()
        .map(|path| {
            std::fs::read_to_string(path).map_err(|error| {
                usage(format!("cannot read the template {}: {error}", path.display()))
            })
        })
        .transpose()?;
    let index = Index::open(&arguments.index)?;
    if index.totals().passages == 0 {
        let dir = display(&arguments.index);
        eprintln!(
            "note: the index {dir} is empty; `topshelf index add PATH --index {dir}` fills it"
        );
    }
    let chosen = Chosen::of(&arguments.second_stage, &arguments.profile)?;
    let has_vectors = index.settings().embedder.is_some();
    let first_stage = chosen.first_stage(
        &arguments.first_stage,
        arguments.retriever,
        arguments.depth,
        has_vectors,
    );
    let mut builder = Pipeline::builder().top(arguments.top);
    builder = with_first_stage(builder, &index, &first_stage, None)?;
    let cache = if arguments.cache.no_cache { None } else { cache::open()? };
    let stage = second_stage::load(&chosen, cache.as_ref(), Some(&index))?;
    if let Some(stage) = &stage {
        builder = builder.second_stage(stage.clone());
    }
    let answer = builder.build()?.run_blocking(&query)?;
    let explained = match stage.filter(|_| arguments.explain) {
        Some(stage) => explain(&stage, &query, &answer)?,
        None => Vec::new(),
    };

    let context = if arguments.prompt {
        let options = ContextOptions {
            token_budget: arguments.budget,
            template,
            ..ContextOptions::default()
        };
        Some(Context::pack(query.text(), &answer.ranking, &options, &estimate_tokens)?)
    } else {
        None
    };
    if arguments.format.json {
        return print_json(&as_json(
            &query,
            &answer,
            &explained,
            context.as_ref(),
            chosen.profile_name(),
        ));
    }
    match context {
        Some(context) => print(&context.prompt()),
        None => print(&as_text(&answer, arguments.explain, &explained, chosen.profile_name())),
    }
    .context("cannot print the answer")
}

/// What the last reranker says of each hit's tokens, if it looks at tokens.
fn explain(stage: &SecondStage, query: &Query, answer: &Answer) -> Result<Vec<Vec<TokenMatch>>> {
    let Some(reranker) = stage.rerankers().last() else { return Ok(Vec::new()) };
    let hits = answer.ranking.hits().iter();
    let of_hit = |hit: &Hit| Ok(pollster::block_on(reranker.explain(query, &hit.passage))?);
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
        prompt: context.map(prompt),
        report: RunReport { profile, ..RunReport::from(&answer.report) },
    }
}

fn prompt(context: &Context) -> PromptAnswer {
    PromptAnswer {
        text: context.prompt(),
        messages: context
            .messages()
            .into_iter()
            .map(|message| ChatMessage { role: message.role.to_owned(), content: message.content })
            .collect(),
        sources: context
            .sources
            .iter()
            .map(|source| PromptSource {
                number: source.number,
                id: source.passage.clone(),
                document: source.document.clone(),
                cut: source.cut,
            })
            .collect(),
        tokens: context.tokens,
        left_out: context
            .left_out
            .iter()
            .map(|out| Notice {
                path: out.passage.clone(),
                message: match out.reason {
                    LeftOutReason::NearDuplicate { of } => format!("repeats source {of}"),
                    LeftOutReason::Budget { tokens } => {
                        format!("its {tokens} tokens do not fit into the budget")
                    }
                },
            })
            .collect(),
    }
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
    if let Some(report) = &answer.report.second_stage {
        lines.extend(second_stage::notes(report).into_iter().map(|note| format!("note: {note}")));
    }
    lines.join("\n")
}

fn report(answer: &Answer) -> String {
    let report = &answer.report;
    let mut rows = table::new(["stage", "what", "ms"], 2);
    for ran in &report.retrievers {
        rows.add_row([
            ran.name.clone(),
            format!("{} passages", ran.found),
            format!("{:.1}", ran.milliseconds),
        ]);
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
