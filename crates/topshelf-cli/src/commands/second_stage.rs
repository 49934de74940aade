//! The second stage as it was chosen, and what is told of its work.

use std::sync::Arc;

use anyhow::Result;
use topshelf::report::Skipped;
use topshelf::{Index, RerankFailure, ScoreCache, SecondStage, SecondStageReport};

use super::chosen::Chosen;
use super::rerankers;
use crate::output::UsageTold;
use crate::say::say;

/// Loads the rerankers, each behind the cache if there is one; `None` where nothing is reranked.
/// `index` is where candidates come from, which may have their token vectors.
pub(super) fn load(
    chosen: &Chosen,
    cache: Option<&Arc<ScoreCache>>,
    index: Option<&Index>,
) -> Result<Option<SecondStage>> {
    let Some(reranking) = &chosen.second_stage else { return Ok(None) };
    let index = index.filter(|_| !chosen.encode_anew);
    let stage = reranking.second_stage(|name| {
        rerankers::open(name, index, &chosen.spending)?.behind(reranking.windows, cache)
    })?;
    for (step, model) in reranking.cascade.iter().zip(stage.rerankers()) {
        let fingerprint = &model.identity().fingerprint;
        if step.fingerprint.as_ref().is_some_and(|tuned| tuned != fingerprint) {
            say!(
                "note: {} is not what it was when the profile was made; run `topshelf tune` anew",
                step.model
            );
        }
    }
    Ok(Some(stage.with_policy(chosen.policy(reranking))?))
}

/// What a reader of the results has to know without asking.
pub(super) fn notes(report: &SecondStageReport) -> Vec<String> {
    let mut notes = Vec::new();
    match (report.skipped, &report.gate) {
        (Some(Skipped::Clear), Some(gate)) => notes.push(format!(
            "not reranked: the first stage is clear ({} is {:.4}, the gate opens below {})",
            gate.signal,
            gate.value.unwrap_or_default(),
            gate.threshold
        )),
        (Some(Skipped::Failed), _) => notes.push(
            "not reranked: no reranker answered, so the order is the first stage's".to_owned(),
        ),
        (Some(Skipped::NoWeight), _) => {
            notes.push("not reranked: the blend gives the rerank score no weight".to_owned());
        }
        _ => {}
    }
    for failure in &report.failures {
        notes.push(failed(failure));
    }
    for ran in &report.rerankers {
        if !ran.truncated.is_empty() {
            notes.push(format!(
                "{} of {} candidates were longer than the reranker reads and were not read to the end",
                ran.truncated.len(),
                ran.pairs
            ));
        }
        if ran.query_truncated_tokens > 0 {
            let n = ran.query_truncated_tokens;
            notes.push(format!("the reranker did not read the last {n} tokens of the query"));
        }
        for failed in &ran.failed {
            notes.push(format!("{} was not scored: {}", failed.passage, failed.reason));
        }
    }
    if let Some(deadline) = report.deadline.as_ref().filter(|deadline| deadline.unscored > 0) {
        notes.push(format!(
            "{} candidates were not read before the deadline of {} ms; they keep their order \
             behind those that were",
            deadline.unscored, deadline.allowed
        ));
    }
    if let Some(threshold) = &report.threshold {
        notes.push(format!(
            "{} candidates were withheld: relevant with a probability below {}",
            threshold.below, threshold.min_relevance
        ));
        if threshold.unscored > 0 {
            let n = threshold.unscored;
            notes.push(format!("{n} candidates were withheld: they have no rerank score"));
        }
    }
    notes
}

/// Who failed, why, and what was spent on it.
fn failed(failure: &RerankFailure) -> String {
    let spent = match UsageTold::of(failure.usage) {
        Some(usage) => format!("; spent until then: {}", usage.in_words()),
        None => String::new(),
    };
    format!("{} failed: {}{spent}", failure.model, failure.reason)
}

/// Rows for the table of what ran: stage, what, milliseconds.
pub(super) fn rows(report: &SecondStageReport) -> Vec<[String; 3]> {
    let mut rows = Vec::new();
    if let Some(gate) = &report.gate {
        let value = gate.value.map_or("not there".to_owned(), |value| format!("{value:.4}"));
        let verdict = if gate.clear { "clear" } else { "ambiguous" };
        let what = format!("{} {value}, clear from {}: {verdict}", gate.signal, gate.threshold);
        rows.push(["gate".to_owned(), what, String::new()]);
    }
    for failure in &report.failures {
        let took = format!("{:.1}", failure.milliseconds);
        rows.push(["rerank".to_owned(), failed(failure), took]);
    }
    for ran in &report.rerankers {
        let what = format!(
            "{} ({}…) on {}: {} pairs, {} known, {} cut, {} failed, {} not reached, \
             {} spared",
            ran.model,
            ran.fingerprint.chars().take(12).collect::<String>(),
            ran.engine,
            ran.pairs,
            ran.cached,
            ran.truncated.len(),
            ran.failed.len(),
            ran.unscored,
            ran.spared
        );
        let what = match UsageTold::of(ran.usage) {
            Some(usage) => format!("{what}; {}", usage.in_words()),
            None => what,
        };
        rows.push(["rerank".to_owned(), what, format!("{:.1}", ran.milliseconds)]);
    }
    if report.rerankers.is_empty() {
        rows.push(["rerank".to_owned(), "skipped".to_owned(), String::new()]);
    }
    if let Some(blend) = &report.blend {
        rows.push(["blend".to_owned(), blend.clone(), String::new()]);
    }
    if let Some(threshold) = &report.threshold {
        let what = format!(
            "{} from {}: {} below, {} without a score",
            report.calibration, threshold.min_relevance, threshold.below, threshold.unscored
        );
        rows.push(["threshold".to_owned(), what, String::new()]);
    }
    if let Some(deadline) = &report.deadline {
        let what = format!("{} ms: {} not reached", deadline.allowed, deadline.unscored);
        rows.push(["deadline".to_owned(), what, String::new()]);
    }
    rows
}
