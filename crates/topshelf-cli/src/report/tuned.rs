//! The report of `tune`.

use super::chart::{Axis, Chart, Point};
use super::page::{Cell, Page};
use super::spent::Columns;
use crate::commands::without_gain;
use crate::output::tuned::{Difference, TuneAnswer, TunedCoverage, TunedFigures};

/// The page.
pub(crate) fn tuned(answer: &TuneAnswer) -> String {
    let TuneAnswer { data, measure, training, held_out, searched, budget, .. } = answer;
    let mut page = Page::new(
        &format!("Topshelf tune: {data}"),
        &format!(
            "{searched} setups were tried on {training} judged queries. Every figure on this page \
             comes from the {held_out} queries that took no part in choosing, except where it says \
             otherwise. Budget: {budget}."
        ),
    );
    page.heading("What was chosen");
    page.prose(&answer.chosen);
    let check = &answer.check;
    page.note(&format!(
        "Run for real, without a cache, on {} of the held-out queries: {} answered passage by \
         passage as foretold; {:.1} ms for half of them and {:.1} for 19 of 20, where {:.1} and {:.1} \
         were foretold.",
        check.queries,
        check.same,
        check.p50_ms,
        check.p95_ms,
        check.foretold_p50_ms,
        check.foretold_p95_ms
    ));
    table(&mut page, answer);
    for name in &answer.without_gain {
        page.prose(&format!("{}.", without_gain(name)));
    }

    page.heading("What more time buys");
    page.prose(
        "The setups of which none was both faster and better than another while choosing. One that \
         another beats in both on the held-out half is there by chance.",
    );
    page.charts([front(answer), depths(answer)]);
    fitted(&mut page, answer);

    page.heading("Query by query");
    page.prose(&format!(
        "What the second stage changed: {measure} with the chosen pipeline less {measure} with its \
         first stage alone, worst query first."
    ));
    let mut changes: Vec<f64> = answer.per_query.iter().map(|own| own.after - own.before).collect();
    changes.sort_by(f64::total_cmp);
    let places = changes.iter().enumerate().map(|(place, change)| (place as f64, *change));
    let label = format!("gain in {measure}");
    let bars = Chart::new("Gain and loss", Axis::order("queries"), Axis::linear(&label));
    page.charts([bars.bars(places).html()]);
    page.finish()
}

/// The chosen pipeline and the untuned ones.
fn table(page: &mut Page, answer: &TuneAnswer) {
    let measure = answer.measure.as_str();
    let others = answer.baselines.iter().map(|other| &other.figures);
    let all = [Some(&answer.figures), answer.ungated.as_ref()].into_iter().flatten().chain(others);
    let columns = Columns::of(&all.map(|figures| figures.paid).collect::<Vec<_>>());
    let row = |name: &str, figures: &TunedFigures, difference: Option<&Difference>| {
        let told = difference.map_or(String::new(), |of| {
            format!("{:+.4} ({:+.4} to {:+.4}), {}", of.mean, of.low, of.high, said(&of.verdict))
        });
        let mut row = vec![
            Cell::Text(name.to_owned()),
            Cell::Number(format!("{:.4}", figures.mean)),
            Cell::Number(format!("{:.1}", figures.p50_ms)),
            Cell::Number(format!("{:.1}", figures.p95_ms)),
            Cell::Number(format!("{:.1}", figures.pairs)),
        ];
        row.extend(columns.cells(figures.paid.as_ref()));
        row.push(Cell::Text(told));
        row
    };
    let mut rows = vec![row("tuned", &answer.figures, None)];
    if let Some(ungated) = &answer.ungated {
        rows.push(row("tuned, without its gate", ungated, None));
    }
    for other in &answer.baselines {
        rows.push(row(&other.name, &other.figures, Some(&other.difference)));
    }
    let mut headers = vec!["pipeline", measure, "ms p50", "ms p95", "pairs"];
    headers.extend(columns.headers());
    headers.push("tuned less this, 95 % interval");
    page.table(&headers, &rows, Some(0));
}

/// A verdict on the tuned pipeline.
fn said(verdict: &str) -> &str {
    match verdict {
        "helps" => "better",
        "hurts" => "worse",
        other => other,
    }
}

fn front(answer: &TuneAnswer) -> String {
    let points: Vec<Point> = answer
        .front
        .iter()
        .map(|setup| Point {
            x: setup.figures.mean_ms,
            y: setup.figures.mean,
            label: Some(name(&setup.pipeline)),
            chosen: setup.chosen,
        })
        .collect();
    let (beaten, ahead): (Vec<_>, Vec<_>) =
        points.into_iter().zip(&answer.front).partition(|(_, setup)| setup.dominated);
    let of = |some: Vec<(Point, _)>| some.into_iter().map(|(point, _)| point).collect::<Vec<_>>();
    let (x, y) = (Axis::log("mean milliseconds of a query"), Axis::linear(&answer.measure));
    Chart::new("Quality against time", x, y)
        .dots("on the front (ring: chosen)", 1, of(ahead))
        .dots("beaten on the held-out half", 6, of(beaten))
        .html()
}

/// A pipeline in a word or two: its first stage and depth.
fn name(pipeline: &str) -> String {
    let mut parts = pipeline.split(", ");
    let first = parts.next().unwrap_or_default().split(' ').next().unwrap_or_default();
    let depth = parts.find(|part| part.ends_with(" deep"));
    match depth {
        Some(depth) => format!("{first} {}", depth.trim_end_matches(" deep")),
        None => first.to_owned(),
    }
}

fn depths(answer: &TuneAnswer) -> String {
    let points = answer.depths.iter().map(|point| Point {
        x: point.depth as f64,
        y: point.figures.mean,
        label: None,
        chosen: point.chosen,
    });
    let (x, y) = (Axis::log("candidates"), Axis::linear(&answer.measure));
    Chart::new("The chosen pipeline at other depths", x, y).line("", 1, points).html()
}

/// Blend, calibration and gate.
fn fitted(page: &mut Page, answer: &TuneAnswer) {
    page.heading("What was fitted");
    if let Some(blend) = &answer.blend {
        let folds: Vec<String> = blend.folds.iter().map(|weight| format!("{weight:.1}")).collect();
        page.prose(&format!(
            "Blend: the rerank score counts {:.2}, the first stage the rest. The five folds of the \
             training half said {}.",
            blend.weight,
            folds.join(", ")
        ));
    }
    if let Some(fit) = &answer.calibration {
        let sigmoid = fit.error_of_sigmoid.map_or(String::new(), |error| {
            format!("; as it comes from the model it would be {error:.4}")
        });
        page.prose(&format!(
            "Calibration: {}. A score's probability is off by {:.4} in the mean over {} pairs \
             (expected calibration error){sigmoid}. Pairs that nobody judged count as not relevant.",
            fit.chosen, fit.error, fit.pairs
        ));
    }
    match &answer.gate {
        Some(gate) => {
            let named = gate.gate.as_deref().map_or(String::new(), |gate| format!(" {gate}"));
            let verdict = if gate.accepted { "on" } else { "off" };
            page.prose(&format!("Gate{named}: {verdict}; {}.", gate.reason));
            if let Some(coverage) = &gate.held_out {
                page.note(&covered(coverage));
            }
        }
        None => page.prose(
            "Nothing is reranked: on these queries it does not pay within the budget, so there is \
             no gate and no weight to show.",
        ),
    }
    let mut charts = Vec::new();
    if let Some(blend) = &answer.blend {
        let points = blend.curve.iter().map(|(weight, mean)| (f64::from(*weight), *mean));
        let (x, y) = (Axis::linear("what the rerank score counts"), Axis::linear(&answer.measure));
        charts.push(Chart::new("Quality against weight", x, y).line("", 1, points).html());
    }
    if let Some(gate) = answer.gate.as_ref().filter(|gate| !gate.curve.is_empty()) {
        charts.push(gate_curve(&gate.curve, &answer.measure));
    }
    if let Some(fit) = &answer.calibration {
        charts.push(reliability(&fit.bins));
    }
    page.charts(charts);
}

/// Quality against the share of queries that skip reranking.
pub(super) fn gate_curve(curve: &[(f64, f64, f64)], measure: &str) -> String {
    let (x, y) = (Axis::linear("share of queries not reranked"), Axis::linear(measure));
    Chart::new("The gate: quality against queries saved", x, y)
        .line("by the gate's signal", 1, curve.iter().map(|(skipped, mean, _)| (*skipped, *mean)))
        .dashed("at random", 6, curve.iter().map(|(skipped, _, random)| (*skipped, *random)))
        .html()
}

/// Share relevant against probability.
pub(super) fn reliability(bins: &[(usize, f64, f64)]) -> String {
    let (x, y) = (Axis::linear("probability as told"), Axis::linear("share that is relevant"));
    let points = bins.iter().map(|(pairs, told, relevant)| Point {
        x: *told,
        y: *relevant,
        label: Some(pairs.to_string()),
        chosen: false,
    });
    Chart::new("Calibration (numbers: pairs)", x, y)
        .line("measured", 1, points)
        .dashed("perfect", 6, [(0.0, 0.0), (1.0, 1.0)])
        .html()
}

fn covered(coverage: &TunedCoverage) -> String {
    let percent = |share: f64| format!("{:.1}", share * 100.0);
    format!(
        "Held-out half: {} % skip reranking ({} to {}) and {} % of the measure is lost ({} to {}); \
         skipping as many at random would lose {} %.",
        percent(coverage.skipped),
        percent(coverage.skipped_low),
        percent(coverage.skipped_high),
        percent(coverage.loss),
        percent(coverage.loss_low),
        percent(coverage.loss_high),
        percent(coverage.loss_at_random)
    )
}
