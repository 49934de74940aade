//! What the second stage did to the order of the first, for `eval` and `demo`: before, after and the
//! best there could have been; which documents came and went; where the time went; and the queries
//! that lost most, with their texts, so that a person sees why.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use topshelf::calibrate::{expected_calibration_error, reliability};
use topshelf::eval::{LatencySummary, Measure, MeasureKind, Qrels, Run, evaluate, reorder};
use topshelf::tune::Unit;
use topshelf::tune::calibration::BINS;
use topshelf::{Hit, Ranking, Usage};

use super::collection::{Answered, Trace};
use crate::output::{
    Calibrated, Loser, LoserDocument, Moves, QueriesChanged, RecallAt, SecondStageMeasured,
    StageLatency, UsageTold,
};
use crate::table;

/// The cut at which documents come and go, unless the first measure has one.
const CUT: usize = 10;

/// Queries that lost most, and documents of each, that are shown.
const LOSERS: usize = 3;
const LOST: usize = 2;

/// Characters of a text that are shown.
const SHOWN: usize = 160;

/// Compares the candidates of a system with its answers; `None` for one without a second stage.
pub(super) fn measure(
    answered: &Answered,
    qrels: &Qrels,
    measures: &[Measure],
    level: i32,
    unit: Unit,
) -> Result<Option<SecondStageMeasured>> {
    let (Some(first), false) = (measures.first(), answered.traces.is_empty()) else {
        return Ok(None);
    };
    let mut before = Run::new("before");
    for trace in &answered.traces {
        before.insert(&trace.id, unit.lines(&trace.candidates))?;
    }
    let ceiling = reorder::ideal(qrels, &before)?;
    let k = first.cutoff().unwrap_or(CUT);
    let moves = reorder::compare(qrels, &before, &answered.run, k, level).total;
    let means = |run: &Run| -> Result<BTreeMap<String, f64>> {
        let evaluation = evaluate(qrels, run, measures)?;
        let named = measures.iter().filter_map(|m| Some((m.to_string(), evaluation.mean(*m)?)));
        Ok(named.collect())
    };
    let was = evaluate(qrels, &before, &[*first])?;
    let is = evaluate(qrels, &answered.run, &[*first])?;
    let changes: Vec<(&str, f64, f64)> = was
        .per_query(*first)
        .zip(is.per_query(*first))
        .map(|((query, was), (_, is))| (query, was, is))
        .collect();
    let queries = answered.traces.len() as f64;
    let mean = |count: fn(&Trace) -> usize| {
        answered.traces.iter().map(count).sum::<usize>() as f64 / queries
    };
    Ok(Some(SecondStageMeasured {
        latency: latencies(&answered.traces),
        pairs: mean(|trace| trace.report.rerankers.iter().map(|ran| ran.pairs).sum()),
        truncated: mean(|t| t.report.rerankers.iter().map(|ran| ran.truncated.len()).sum()),
        unscored: mean(|trace| trace.report.rerankers.iter().map(|ran| ran.unscored).sum()),
        usage: UsageTold::of(usage(&answered.traces)),
        skipped: answered.traces.iter().filter(|t| t.report.skipped.is_some()).count(),
        before: means(&before)?,
        ceiling: means(&ceiling)?,
        k,
        moves: Moves {
            promoted: moves.promoted,
            demoted: moves.demoted,
            raised: moves.raised,
            lowered: moves.lowered,
            kept: moves.kept,
            exchanged: moves.exchanged,
        },
        queries: QueriesChanged {
            better: changes.iter().filter(|(_, was, is)| is > was).count(),
            worse: changes.iter().filter(|(_, was, is)| is < was).count(),
            same: changes.iter().filter(|(_, was, is)| is.total_cmp(was).is_eq()).count(),
        },
        losers: losers(&answered.traces, &changes, qrels, Cut { k, level, unit }),
        recall: recall(qrels, &before, &answered.run, level)?,
        calibration: calibration(&answered.traces, qrels, level, unit),
        gate: Vec::new(),
    }))
}

/// What all queries together took, in failures too.
fn usage(traces: &[Trace]) -> Usage {
    let mut all = Usage::default();
    for trace in traces {
        all += trace.report.usage();
    }
    all
}

/// Recall at depths up to the deepest answer, before and after.
fn recall(qrels: &Qrels, before: &Run, after: &Run, level: i32) -> Result<Vec<RecallAt>> {
    let deepest = after.queries().map(|query| after.documents(query).len()).max().unwrap_or(0);
    let at = [1, 2, 3, 5, 10, 20, 30, 50, 100, 200].into_iter().filter(|k| *k <= deepest);
    let measures: Vec<Measure> = at
        .map(|k| Measure::new(MeasureKind::Recall, Some(k))?.with_level(level))
        .collect::<Result<_, _>>()?;
    let (was, is) = (evaluate(qrels, before, &measures)?, evaluate(qrels, after, &measures)?);
    let told = |measure: &Measure| {
        let (before, after) = (was.mean(*measure)?, is.mean(*measure)?);
        Some(RecallAt { k: measure.cutoff()?, before, after })
    };
    Ok(measures.iter().filter_map(told).collect())
}

/// How the probabilities of the scored candidates hold.
fn calibration(traces: &[Trace], qrels: &Qrels, level: i32, unit: Unit) -> Option<Calibrated> {
    let mut told = Vec::new();
    for trace in traces {
        let relevant =
            |hit: &Hit| qrels.grade(&trace.id, unit.id(hit)).is_some_and(|grade| grade >= level);
        let hits = trace.ranking.hits().iter();
        told.extend(hits.filter_map(|hit| Some((hit.relevance?, relevant(hit)))));
    }
    let by = traces.first()?.report.calibration.clone();
    let bins = reliability(&told, BINS);
    (!told.is_empty()).then(|| Calibrated {
        by,
        error: expected_calibration_error(&told, BINS),
        pairs: told.len(),
        bins: bins.iter().map(|b| (b.count, b.mean_probability, b.share_relevant)).collect(),
    })
}

/// Each part's time over the queries.
fn latencies(traces: &[Trace]) -> Vec<StageLatency> {
    let mut parts: Vec<(String, Vec<Duration>)> = Vec::new();
    let mut add = |name: &str, milliseconds: f64| {
        let took = Duration::from_secs_f64(milliseconds / 1e3);
        match parts.iter_mut().find(|(known, _)| known == name) {
            Some((_, durations)) => durations.push(took),
            None => parts.push((name.to_owned(), vec![took])),
        }
    };
    for trace in traces {
        for ran in &trace.retrievers {
            add(&ran.name, ran.milliseconds);
        }
        for (place, ran) in trace.report.rerankers.iter().enumerate() {
            let last = place + 1 == trace.report.rerankers.len();
            let name = if last { "rerank".to_owned() } else { format!("rerank-{}", place + 1) };
            add(&name, ran.milliseconds);
        }
    }
    let summary = |(stage, durations)| {
        let summary = LatencySummary::of(durations)?;
        Some(StageLatency { stage, p50: summary.p50_ms, p95: summary.p95_ms })
    };
    parts.into_iter().filter_map(summary).collect()
}

/// What counts as lost: relevant from `level` on, and among the first `k`.
#[derive(Clone, Copy)]
struct Cut {
    k: usize,
    level: i32,
    unit: Unit,
}

/// The queries that lost most, with what they lost and what took its place.
fn losers(traces: &[Trace], changes: &[(&str, f64, f64)], qrels: &Qrels, cut: Cut) -> Vec<Loser> {
    let Cut { level, unit, .. } = cut;
    let mut lost: Vec<_> = changes.iter().filter(|(_, was, is)| is < was).collect();
    lost.sort_by(|a, b| (a.2 - a.1).total_cmp(&(b.2 - b.1)).then_with(|| a.0.cmp(b.0)));
    let of_trace = |(query, was, is): &&(&str, f64, f64)| {
        let trace = traces.iter().find(|trace| trace.id == *query)?;
        let (before, after) = (listed(&trace.candidates, unit), listed(&trace.ranking, unit));
        let places: HashMap<&str, usize> =
            after.iter().enumerate().map(|(place, (id, _))| (*id, place + 1)).collect();
        let told = |place: usize, id: &str, text: &str| LoserDocument {
            id: id.to_owned(),
            grade: qrels.grade(&trace.id, id),
            before: place + 1,
            after: places.get(id).copied(),
            text: table::shorten(text, SHOWN),
        };
        let relevant = |id: &str| qrels.grade(&trace.id, id).is_some_and(|grade| grade >= level);
        let mut documents: Vec<LoserDocument> = before
            .iter()
            .enumerate()
            .filter(|(_, (id, _))| relevant(id))
            .map(|(place, (id, text))| told(place, id, text))
            .filter(|document| document.before <= cut.k)
            .filter(|document| document.after.is_none_or(|after| after > document.before))
            .take(LOST)
            .collect();
        // What stands first now and should not.
        documents.extend(after.first().filter(|(id, _)| !relevant(id)).and_then(|(id, text)| {
            let place = before.iter().position(|(known, _)| known == id)?;
            Some(told(place, id, text))
        }));
        let (query, text) = (trace.id.clone(), trace.text.clone());
        Some(Loser { query, text, before: *was, after: *is, documents })
    };
    lost.iter().filter_map(of_trace).take(LOSERS).collect()
}

/// What is judged, best first: its id and a text of it.
fn listed(ranking: &Ranking, unit: Unit) -> Vec<(&str, &str)> {
    let mut seen = std::collections::HashSet::new();
    let hits = ranking.hits().iter().map(|hit| {
        let passage = &hit.passage;
        let id = match unit {
            Unit::Document => passage.document.as_str(),
            Unit::Passage => passage.id.as_str(),
        };
        (id, passage.text.as_str())
    });
    hits.filter(|(id, _)| seen.insert(*id)).collect()
}

/// What was measured, for a person.
pub(super) fn as_text(
    name: &str,
    after: &BTreeMap<String, f64>,
    second: &SecondStageMeasured,
    measures: &[Measure],
) -> String {
    let SecondStageMeasured { moves, queries, k, .. } = second;
    let stages = second.latency.iter().map(|l| format!("{} {:.1} ms", l.stage, l.p50));
    let mut text = format!(
        "\n{name}: {:.1} pairs a query (p50: {})",
        second.pairs,
        stages.collect::<Vec<_>>().join(", ")
    );
    let counted = [
        (second.truncated, "cut to the window"),
        (second.unscored, "not reached before the deadline"),
    ];
    for (count, what) in counted.into_iter().filter(|(count, _)| *count > 0.0) {
        let _ = write!(text, ", {count:.1} {what}"); // a string takes all
    }
    if let Some(usage) = &second.usage {
        let _ = write!(text, "; {}: {}", usage.in_words(), usage.of_each(queries.all()));
    }
    if second.skipped > 0 {
        let _ = write!(text, "; {} queries were not reranked", second.skipped);
    }
    let mut rows = table::new(["", "before", "after", "ceiling"], 1);
    for measure in measures {
        let name = measure.to_string();
        let figure = |of: &BTreeMap<String, f64>| {
            of.get(&name).map_or(String::new(), |figure| format!("{figure:.4}"))
        };
        rows.add_row([
            name.clone(),
            figure(&second.before),
            figure(after),
            figure(&second.ceiling),
        ]);
    }
    let first = measures.first().map(ToString::to_string).unwrap_or_default();
    let _ = write!(
        text,
        "\n{}\nrelevant documents in the top {k}: {} came in, {} went out, {} rose, {} fell, {} \
         stayed; {} documents were exchanged in all\nqueries in {first}: {} better, {} worse, {} \
         the same",
        table::render(&rows),
        moves.promoted,
        moves.demoted,
        moves.raised,
        moves.lowered,
        moves.kept,
        moves.exchanged,
        queries.better,
        queries.worse,
        queries.same
    );
    if !second.losers.is_empty() {
        text += "\nthe worst losers:";
    }
    for loser in &second.losers {
        let _ = write!(
            text,
            "\n  {} \"{}\": {:.2}, was {:.2}",
            loser.query,
            table::shorten(&loser.text, SHOWN),
            loser.after,
            loser.before
        );
        for document in &loser.documents {
            let grade = match document.grade {
                Some(grade) => format!("grade {grade}"),
                None => "not judged".to_owned(),
            };
            let after = document.after.map_or("gone".to_owned(), |after| after.to_string());
            let _ = write!(
                text,
                "\n    {} ({grade}) from {} to {after}: {}",
                document.id, document.before, document.text
            );
        }
    }
    text
}
