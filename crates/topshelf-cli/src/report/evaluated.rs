//! The report of `eval`.

use std::collections::BTreeMap;

use super::chart::{Axis, Chart, Point};
use super::page::{Cell, Page};
use super::spent::{self, Columns};
use super::tuned::{gate_curve, reliability};
use crate::output::{
    EvalAnswer, LoserDocument, SecondStageMeasured, SystemDifference, SystemMeasured,
};

/// The page.
pub(crate) fn evaluated(answer: &EvalAnswer) -> String {
    let EvalAnswer { data, queries, depth, .. } = answer;
    let named = |what: &str, name: &Option<String>| {
        name.as_ref().map_or(String::new(), |name| format!(" {what}: {name}."))
    };
    let mut page = Page::new(
        &format!("Topshelf eval: {data}"),
        &format!(
            "{queries} judged queries, {} candidates each.{}{}{}",
            depth.unwrap_or_default(),
            named("Bi-encoder", &answer.embedder),
            named("Reranker", &answer.reranker),
            named("Profile", &answer.profile)
        ),
    );
    page.heading("Every stage");
    table(&mut page, answer);
    differences(&mut page, answer);
    let charts = [against_time(answer), spent::against_cost(answer), against_deadline(answer)];
    page.charts(charts.into_iter().flatten());
    for system in &answer.systems {
        if let Some(second) = &system.second_stage {
            reranked(&mut page, answer, system, second);
        }
    }
    if !answer.warnings.is_empty() {
        page.heading("What was odd");
        for warning in &answer.warnings {
            page.note(warning);
        }
    }
    page.finish()
}

fn table(page: &mut Page, answer: &EvalAnswer) {
    // In the order in which they were asked for: the first leads, the others by name.
    let mut measures: Vec<&str> = vec![&answer.measure];
    let known = answer.systems.first().map(|system| &system.measures);
    let others = known.into_iter().flat_map(BTreeMap::keys).filter(|name| **name != answer.measure);
    measures.extend(others.map(String::as_str));
    let mut headers = vec!["system"];
    headers.extend(&measures);
    headers.extend(["ms p50", "ms p95", "pairs"]);
    let paid: Vec<_> = answer.systems.iter().map(spent::of_system).collect();
    let columns = Columns::of(&paid);
    headers.extend(columns.headers());
    let row = |(system, paid): (&SystemMeasured, &Option<_>)| {
        let mut row = vec![Cell::Text(system.name.clone())];
        row.extend(measures.iter().map(|name| {
            let figure = system.measures.get(*name);
            Cell::Number(figure.map_or(String::new(), |figure| format!("{figure:.4}")))
        }));
        let latency = system.latency_ms.as_ref();
        let told =
            |of: Option<f64>| Cell::Number(of.map_or(String::new(), |of| format!("{of:.1}")));
        row.push(told(latency.map(|latency| latency.p50)));
        row.push(told(latency.map(|latency| latency.p95)));
        row.push(told(system.second_stage.as_ref().map(|second| second.pairs)));
        row.extend(columns.cells(paid.as_ref()));
        row
    };
    let rows: Vec<Vec<Cell>> = answer.systems.iter().zip(&paid).map(row).collect();
    page.table(&headers, &rows, None);
}

/// What reranking and its policies changed.
fn differences(page: &mut Page, answer: &EvalAnswer) {
    let row = |of: &SystemDifference| {
        let said = match of.verdict.as_str() {
            "helps" => "is better than",
            "hurts" => "is worse than",
            _ => "cannot be told apart from",
        };
        vec![
            Cell::Text(format!("{} {said} {}", of.system, of.baseline)),
            Cell::Number(format!("{:+.4}", of.mean)),
            Cell::Number(format!("{:+.4} to {:+.4}", of.low, of.high)),
            Cell::Number(format!("{:.4}", of.p)),
        ]
    };
    let rows: Vec<Vec<Cell>> = answer.differences.iter().map(row).collect();
    if !rows.is_empty() {
        page.heading("What differs");
        let headers = ["", answer.measure.as_str(), "95 % interval", "p"];
        page.table(&headers, &rows, None);
    }
}

/// Quality against milliseconds, with the systems that no other beats in both joined by a line.
fn against_time(answer: &EvalAnswer) -> Option<String> {
    let mut points: Vec<Point> = answer
        .systems
        .iter()
        .filter_map(|system| {
            Some(Point {
                x: system.latency_ms.as_ref()?.p50,
                y: *system.measures.get(&answer.measure)?,
                label: Some(system.name.clone()),
                chosen: false,
            })
        })
        .collect();
    if points.len() < 2 {
        return None;
    }
    points.sort_by(|a, b| a.x.total_cmp(&b.x).then(b.y.total_cmp(&a.y)));
    let mut best = f64::NEG_INFINITY;
    let (ahead, beaten): (Vec<Point>, Vec<Point>) = points.into_iter().partition(|point| {
        let ahead = point.y > best;
        best = best.max(point.y);
        ahead
    });
    let (x, y) = (Axis::log("milliseconds of a query (median)"), Axis::linear(&answer.measure));
    let line: Vec<(f64, f64)> = ahead.iter().map(|point| (point.x, point.y)).collect();
    let chart = Chart::new("Quality against time", x, y)
        .dashed("", 1, line)
        .dots("none is both faster and better", 1, ahead)
        .dots("another is both", 6, beaten);
    Some(chart.html())
}

/// Quality against the deadline, where systems with deadlines of their own were measured.
fn against_deadline(answer: &EvalAnswer) -> Option<String> {
    let mut lines: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for system in &answer.systems {
        let Some((name, deadline)) = system.name.split_once('@') else { continue };
        let deadline: f64 = deadline.trim_end_matches("ms").parse().ok()?;
        lines.entry(name).or_default().push((deadline, *system.measures.get(&answer.measure)?));
    }
    if lines.is_empty() {
        return None;
    }
    let mut chart = Chart::new(
        "Quality against the deadline",
        Axis::linear("milliseconds allowed"),
        Axis::linear(&answer.measure),
    );
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for (allowed, _) in lines.values().flatten() {
        (low, high) = (low.min(*allowed), high.max(*allowed));
    }
    for (colour, (name, mut points)) in lines.into_iter().enumerate() {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let unlimited = answer.systems.iter().find(|system| system.name == name);
        let unlimited = unlimited.and_then(|system| system.measures.get(&answer.measure));
        let colour = colour % 5 + 1;
        chart = chart.line(name, colour, points);
        if let Some(figure) = unlimited {
            chart = chart.dashed("without a deadline", 6, [(low, *figure), (high, *figure)]);
        }
    }
    Some(chart.html())
}

/// One reranked system.
fn reranked(
    page: &mut Page,
    answer: &EvalAnswer,
    system: &SystemMeasured,
    second: &SecondStageMeasured,
) {
    let measure = answer.measure.as_str();
    let SecondStageMeasured { moves, queries, k, .. } = second;
    page.heading(&system.name);
    let figure = |of: &BTreeMap<String, f64>| of.get(measure).copied().unwrap_or_default();
    page.prose(&format!(
        "{measure} was {:.4} before reranking, is {:.4} after, and could be {:.4} with a perfect \
         order of the same candidates. Relevant documents in the top {k}: {} came in, {} went out, {} \
         rose, {} fell, {} stayed; {} documents were exchanged in all. {} queries gained, {} lost, {} \
         stayed the same; {} were not reranked.",
        figure(&second.before),
        figure(&system.measures),
        figure(&second.ceiling),
        moves.promoted,
        moves.demoted,
        moves.raised,
        moves.lowered,
        moves.kept,
        moves.exchanged,
        queries.better,
        queries.worse,
        queries.same,
        second.skipped
    ));
    let stages = second
        .latency
        .iter()
        .map(|of| format!("{} {:.1} ms ({:.1} for 19 of 20)", of.stage, of.p50, of.p95));
    page.note(&format!(
        "Half of the queries take no longer than: {}.",
        stages.collect::<Vec<_>>().join(", ")
    ));
    if let Some(usage) = &second.usage {
        page.note(&format!(
            "Paid by use, all queries together: {}; that is {}.",
            usage.in_words(),
            usage.of_each(queries.all())
        ));
    }

    let recall = |of: fn(&crate::output::RecallAt) -> f64| {
        second.recall.iter().map(move |at| (at.k as f64, of(at))).collect::<Vec<_>>()
    };
    let (x, y) = (Axis::log("first k"), Axis::linear("recall"));
    let mut charts = vec![
        Chart::new("Recall, before and after", x, y)
            .line("before", 6, recall(|at| at.before))
            .line("after", 1, recall(|at| at.after))
            .html(),
    ];
    charts.push(gains(answer, system, measure));
    if !second.gate.is_empty() {
        let curve: Vec<(f64, f64, f64)> =
            second.gate.iter().map(|at| (at.skipped, at.mean, at.mean_at_random)).collect();
        charts.push(gate_curve(&curve, measure));
    }
    if let Some(fit) = &second.calibration {
        charts.push(reliability(&fit.bins));
    }
    page.charts(charts);
    if let Some(fit) = &second.calibration {
        page.note(&format!(
            "Probabilities by {}: expected calibration error {:.4} over {} pairs, of which those that \
             nobody judged count as not relevant.",
            fit.by, fit.error, fit.pairs
        ));
    }
    if !second.losers.is_empty() {
        page.prose("The queries that lost most:");
    }
    for loser in &second.losers {
        let line = |document: &LoserDocument| {
            let grade = document.grade.map_or("not judged".to_owned(), |g| format!("grade {g}"));
            let after = document.after.map_or("gone".to_owned(), |after| after.to_string());
            let LoserDocument { id, before, text, .. } = document;
            format!("{id} ({grade}), from {before} to {after}: {text}")
        };
        let lines: Vec<String> = loser.documents.iter().map(line).collect();
        let told = format!("{} ({:.2}, was {:.2})", loser.text, loser.after, loser.before);
        page.quote(&told, &lines);
    }
}

/// Each query's gain over the same first stage alone.
fn gains(answer: &EvalAnswer, system: &SystemMeasured, measure: &str) -> String {
    let first = system.name.split(['+', '@']).next().unwrap_or_default();
    let alone = answer.systems.iter().find(|other| other.name == first);
    let mut changes: Vec<f64> = alone
        .into_iter()
        .flat_map(|alone| {
            let before = |query: &String| alone.per_query.get(query).copied().unwrap_or_default();
            system.per_query.iter().map(move |(query, after)| after - before(query))
        })
        .collect();
    changes.sort_by(f64::total_cmp);
    let label = format!("gain in {measure} over {first}");
    let bars = Chart::new("Query by query", Axis::order("queries"), Axis::linear(&label));
    let places = changes.into_iter().enumerate().map(|(place, change)| (place as f64, change));
    bars.bars(places).html()
}
