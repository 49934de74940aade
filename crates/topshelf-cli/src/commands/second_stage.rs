//! What the second stage reports, for people.

use topshelf::{Note, SecondStageReport};

use crate::output::UsageTold;

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
        let (model, reason) = (failure.model.clone(), failure.reason.clone());
        let failed = Note::RerankerFailed { model, reason, usage: failure.usage };
        rows.push(["rerank".to_owned(), failed.to_string(), took]);
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
