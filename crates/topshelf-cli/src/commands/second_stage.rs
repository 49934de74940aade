//! The second stage as the command line describes it, and what is told of its work.

use std::sync::Arc;

use anyhow::Result;
use topshelf::report::Skipped;
use topshelf::{
    Blend, BlendScore, CachedReranker, CrossEncoder, Policy, Reranker, ScoreCache, SecondStage,
    SecondStageReport, WindowOptions, Windowed,
};

use crate::args::{BlendScoreName, LongDocuments, SecondStageOptions};
use crate::exit::usage;

/// Loads the rerankers, each behind the cache if there is one; `None` for `--rerank none`.
pub(super) fn load(
    options: &SecondStageOptions,
    cache: Option<&Arc<ScoreCache>>,
) -> Result<Option<SecondStage>> {
    if options.rerank == "none" {
        if !options.then.is_empty() {
            return Err(usage("`--then` stands behind a reranker, and `--rerank none` is none"));
        }
        return Ok(None);
    }
    let reranker = |name: &str| -> Result<Arc<dyn Reranker>> {
        let model: Arc<dyn Reranker> = Arc::new(CrossEncoder::load(name)?);
        // The cache stands behind the windows, and so keeps the score of each.
        let model = match cache {
            Some(cache) => Arc::new(CachedReranker::new(model, Arc::clone(cache))),
            None => model,
        };
        if options.long_documents == LongDocuments::Head {
            return Ok(model);
        }
        let windows = WindowOptions {
            most: options.windows,
            tokens: options.window_tokens,
            ..WindowOptions::default()
        };
        Ok(Arc::new(Windowed::new(model, windows)?))
    };
    let mut stage = SecondStage::of(reranker(&options.rerank)?);
    for (name, keep) in &options.then {
        stage = stage.then_of(reranker(name)?, *keep, None)?;
    }
    Ok(Some(stage.with_policy(policy(options)?)?))
}

fn policy(options: &SecondStageOptions) -> Result<Policy> {
    if options.gate.is_some() && !options.force {
        return Err(usage(
            "nothing has shown that this gate pays: on many collections no such number tells when \
             reranking can be skipped; measure it with `topshelf eval --gate ... --force` on your \
             own judged queries, and switch it on with --force",
        ));
    }
    let rerank = match options.blend_score {
        BlendScoreName::MinMax => BlendScore::MinMax,
        BlendScoreName::Probability => BlendScore::Probability,
    };
    Ok(Policy {
        gate: options.gate.clone(),
        blend: options.blend.map(|weight| Blend::new(weight, rerank)).transpose()?,
        min_relevance: options.min_relevance,
        deadline: options.deadline,
        ..Policy::default()
    })
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
        (Some(Skipped::NoWeight), _) => {
            notes.push("not reranked: the blend gives the rerank score no weight".to_owned());
        }
        _ => {}
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

/// Rows for the table of what ran: stage, what, milliseconds.
pub(super) fn rows(report: &SecondStageReport) -> Vec<[String; 3]> {
    let mut rows = Vec::new();
    if let Some(gate) = &report.gate {
        let value = gate.value.map_or("not there".to_owned(), |value| format!("{value:.4}"));
        let verdict = if gate.clear { "clear" } else { "ambiguous" };
        let what = format!("{} {value}, clear from {}: {verdict}", gate.signal, gate.threshold);
        rows.push(["gate".to_owned(), what, String::new()]);
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
