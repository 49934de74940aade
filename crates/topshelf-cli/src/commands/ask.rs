//! `topshelf ask`: retrieve, rerank, pack, and let a language model answer from the sources.
//!
//! The answer is printed as it is written. Its citations are compared with the sources: a number of no
//! source is told, and so is an answer that cites nothing.

use std::io::Write as _;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use topshelf::context::estimate_tokens;
use topshelf::{Ask, Call, Citations, Context, Prompt, SetupPatch, Tell, Wanted, Written};

use super::search::{self, Found};
use super::{print, print_json};
use crate::args::AskArguments;
use crate::output::{AskAnswer, RunReport, UsageTold};

pub(super) fn run(arguments: &AskArguments) -> Result<()> {
    let template = search::template(arguments.template.as_ref())?;
    let engine = search::engine(&arguments.retrieval)?;
    // A name that means nothing is reported before anything is looked up.
    let model = engine.language_model(&arguments.model)?;
    let prompt = SetupPatch { budget: arguments.budget, template, ..SetupPatch::default() };
    let Found { query, answer, profile, context: options, .. } =
        search::find(&engine, &arguments.question, &arguments.retrieval, prompt)?;
    let context = Context::pack(query.text(), &answer.ranking, &options, &estimate_tokens)?;
    let is_json = arguments.format.json;
    let call = Call::new();
    let written = if context.sources.is_empty() {
        // A model without sources would answer from memory.
        Written::default()
    } else {
        let prompt = Prompt::Chat(context.messages());
        let ask = Ask { prompt, wanted: Wanted::Text, max_tokens: arguments.max_tokens };
        let tell: Tell = Arc::new(move |piece: &str| {
            if !is_json {
                let mut out = std::io::stdout().lock();
                // Whoever has stopped reading is told of by what is printed last.
                let _ = out.write_all(piece.as_bytes()).and_then(|()| out.flush());
            }
        });
        let written = pollster::block_on(model.stream(&call, &ask, tell));
        // An answer that broke off was paid for as far as it came.
        written.map_err(|error| error.after_spending(call.spent()))?
    };
    let citations = Citations::find(&written.text, context.sources.len());
    if is_json {
        return print_json(&AskAnswer {
            question: query.text().to_owned(),
            answer: written.text,
            model: model.identity().name.clone(),
            sources: search::sources(&context),
            cited: citations.cited,
            unknown_citations: citations.unknown,
            usage: UsageTold::of(call.spent()),
            report: RunReport { profile, ..RunReport::from(&answer.report) },
        });
    }
    let mut lines = Vec::new();
    if context.sources.is_empty() {
        lines.push("nothing was found to answer from, so the model was not asked".to_owned());
    } else {
        lines.push(String::new());
        lines.push(String::new());
        for source in &context.sources {
            let is_cited = citations.cited.contains(&source.number);
            let mark = if is_cited { "" } else { "  (not cited)" };
            lines.push(format!("[{}] {}{mark}", source.number, source.passage));
        }
        lines.extend(doubts(&citations));
        let usage = call.spent();
        let cost = usage
            .cost
            .map_or(String::new(), |nano| format!(", which cost {:.6} USD", nano as f64 / 1e9));
        lines.push(format!(
            "note: {} read {} tokens and wrote {}{cost}",
            model.identity().name,
            usage.input_tokens,
            usage.output_tokens
        ));
    }
    let notes = answer.report.notes();
    lines
        .extend(notes.iter().filter(|note| !note.is_routine()).map(|note| format!("note: {note}")));
    print(&lines.join("\n")).context("cannot print the answer")
}

/// What makes an answer doubtful.
fn doubts(citations: &Citations) -> Vec<String> {
    let mut doubts = Vec::new();
    if !citations.unknown.is_empty() {
        let numbers: Vec<String> = citations.unknown.iter().map(|n| format!("[{n}]")).collect();
        doubts.push(format!("note: the answer cites {}, which is no source", numbers.join(", ")));
    }
    if citations.cited.is_empty() {
        doubts
            .push("note: the answer cites no source; it may be from the model's memory".to_owned());
    }
    doubts
}
