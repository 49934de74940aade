//! `topshelf eval --compare`: what changed between two answers of `eval --json`.
//!
//! Systems of the same name are paired; their figures of the first measure query by query, so that a
//! difference comes with its interval and its test. Fit for CI: past `--max-drop` it exits with 1.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, anyhow};
use serde::Deserialize;
use topshelf::eval::compare_paired;

use super::collection::{SEED, verdict};
use super::{display, print, print_json};
use crate::args::EvalArguments;
use crate::exit::usage;
use crate::output::{EvalCompared, FigureChange, SystemChange};
use crate::table;

/// What is read of an answer of `eval`.
#[derive(Deserialize)]
struct Recorded {
    data: String,
    measure: String,
    systems: Vec<RecordedSystem>,
}

#[derive(Deserialize)]
struct RecordedSystem {
    name: String,
    measures: BTreeMap<String, f64>,
    latency_ms: Option<RecordedLatency>,
    per_query: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct RecordedLatency {
    p50: f64,
}

pub(super) fn run(arguments: &EvalArguments, before: &Path, after: &Path) -> Result<()> {
    let answer = compare(&read(before)?, &read(after)?)?;
    if arguments.format.json {
        print_json(&answer)?;
    } else {
        print(&as_text(&answer))?;
    }
    let Some(allowed) = arguments.max_drop else { return Ok(()) };
    let dropped: Vec<String> = answer
        .systems
        .iter()
        .filter(|system| system.mean < -f64::from(allowed))
        .map(|system| format!("{} lost {:.4}", system.name, -system.mean))
        .collect();
    if dropped.is_empty() {
        return Ok(());
    }
    let measure = &answer.measure;
    Err(anyhow!("in {measure} {}; --max-drop allows {allowed}", dropped.join(", ")))
}

fn read(path: &Path) -> Result<Recorded> {
    let name = display(path);
    let text = std::fs::read_to_string(path)
        .map_err(|error| usage(format!("cannot read {name}: {error}")))?;
    serde_json::from_str(&text).map_err(|error| {
        usage(format!("{name} is not what `topshelf eval --json` prints: {error}"))
    })
}

fn compare(before: &Recorded, after: &Recorded) -> Result<EvalCompared> {
    if before.measure != after.measure {
        return Err(usage(format!(
            "the first measure of one is {} and of the other {}; give both the same --measures",
            before.measure, after.measure
        )));
    }
    let names = |recorded: &Recorded, other: &Recorded| -> Vec<String> {
        let of_other = |name: &String| other.systems.iter().any(|system| system.name == *name);
        let names = recorded.systems.iter().map(|system| system.name.clone());
        names.filter(|name| !of_other(name)).collect()
    };
    let mut systems = Vec::new();
    for was in &before.systems {
        let Some(is) = after.systems.iter().find(|system| system.name == was.name) else {
            continue;
        };
        systems.push(change(was, is)?);
    }
    if systems.is_empty() {
        return Err(usage("the two have no system in common"));
    }
    Ok(EvalCompared {
        before: before.data.clone(),
        after: after.data.clone(),
        measure: before.measure.clone(),
        systems,
        only_before: names(before, after),
        only_after: names(after, before),
    })
}

fn change(was: &RecordedSystem, is: &RecordedSystem) -> Result<SystemChange> {
    if !was.per_query.keys().eq(is.per_query.keys()) {
        return Err(usage(format!(
            "{} was measured on other queries the second time; compare answers on the same \
             judgments",
            was.name
        )));
    }
    let figures =
        |system: &RecordedSystem| -> Vec<f64> { system.per_query.values().copied().collect() };
    let comparison = compare_paired(&figures(was), &figures(is), SEED)?;
    let both = was.measures.iter().filter_map(|(name, before)| {
        let after = *is.measures.get(name)?;
        Some((name.clone(), FigureChange { before: *before, after }))
    });
    let latency = was.latency_ms.as_ref().zip(is.latency_ms.as_ref());
    Ok(SystemChange {
        name: was.name.clone(),
        measures: both.collect(),
        p50_ms: latency.map(|(was, is)| FigureChange { before: was.p50, after: is.p50 }),
        mean: comparison.mean_difference,
        low: comparison.low,
        high: comparison.high,
        p: comparison.p_value,
        better: comparison.wins,
        worse: comparison.losses,
        verdict: match verdict(comparison.mean_difference, comparison.p_value) {
            "helps" => "better",
            "hurts" => "worse",
            other => other,
        }
        .to_owned(),
    })
}

fn as_text(answer: &EvalCompared) -> String {
    let mut lines = Vec::new();
    for system in &answer.systems {
        let mut rows = table::new([&system.name, "before", "after", "change"], 1);
        for (name, FigureChange { before, after }) in &system.measures {
            let change = format!("{:+.4}", after - before);
            rows.add_row([name, &format!("{before:.4}"), &format!("{after:.4}"), &change]);
        }
        if let Some(FigureChange { before, after }) = &system.p50_ms {
            let change = format!("{:+.1}", after - before);
            rows.add_row(["ms p50", &format!("{before:.1}"), &format!("{after:.1}"), &change]);
        }
        lines.push(table::render(&rows));
        let SystemChange { mean, low, high, p, better, worse, verdict, .. } = system;
        let measure = &answer.measure;
        lines.push(format!(
            "{verdict} in {measure}: {mean:+.4}, 95% interval {low:+.4} to {high:+.4}, p = {p:.4}; \
             {better} queries better, {worse} worse\n"
        ));
    }
    for (names, when) in [(&answer.only_before, "before"), (&answer.only_after, "after")] {
        if !names.is_empty() {
            lines.push(format!("only {when}: {}", names.join(", ")));
        }
    }
    lines.join("\n").trim_end().to_owned()
}
