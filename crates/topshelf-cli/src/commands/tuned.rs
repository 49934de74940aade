//! What `tune` found, for a person.

use std::fmt::Write as _;

use crate::output::tuned::{Difference, TuneAnswer, TunedCoverage, TunedFigures};
use crate::table;

pub(super) fn as_text(answer: &TuneAnswer) -> String {
    let TuneAnswer { data, measure, training, held_out, searched, budget, .. } = answer;
    let mut text = format!(
        "{data}: {searched} setups tried on {training} queries, the figures from {held_out} others\n\
         budget: {budget}\nchosen: {}\n\n",
        answer.chosen
    );
    let mut rows = table::new(["held-out half", measure, "ms p50", "ms p95", "pairs"], 1);
    let mut row = |name: &str, figures: &TunedFigures| {
        rows.add_row([
            name.to_owned(),
            format!("{:.4}", figures.mean),
            format!("{:.1}", figures.p50_ms),
            format!("{:.1}", figures.p95_ms),
            format!("{:.1}", figures.pairs),
        ]);
    };
    row("tuned", &answer.figures);
    if let Some(ungated) = &answer.ungated {
        row("tuned, without its gate", ungated);
    }
    for other in &answer.baselines {
        row(&other.name, &other.figures);
    }
    let _ = writeln!(text, "{}\n", table::render(&rows)); // a string takes all
    for other in &answer.baselines {
        let _ = writeln!(text, "{}", told(&other.name, measure, &other.difference));
    }

    for name in &answer.without_gain {
        let _ = writeln!(text, "{}", without_gain(name));
    }
    text += &front(answer);
    text += &fitted(answer);
    let check = &answer.check;
    let _ = write!(
        text,
        "run for real on {} held-out queries: {} answered as foretold; {:.1} ms p50 and {:.1} p95, \
         {:.1} and {:.1} foretold\n\nwritten: {}",
        check.queries,
        check.same,
        check.p50_ms,
        check.p95_ms,
        check.foretold_p50_ms,
        check.foretold_p95_ms,
        answer.profile
    );
    text
}

/// What is said of a reranker that gains nothing.
pub(crate) fn without_gain(name: &str) -> String {
    format!(
        "{name} gains nothing here, or hurts: behind every first stage, no weight of its score was \
         better than none, in any fold"
    )
}

/// The front, and the chosen setup at other depths.
fn front(answer: &TuneAnswer) -> String {
    let TuneAnswer { measure, .. } = answer;
    let mut text = String::new();
    let mut rows = table::new(["", "front: mean ms", measure, "pipeline"], 1);
    for point in &answer.front {
        let mark = match (point.chosen, point.dominated) {
            (true, _) => "*",
            (false, true) => "-",
            (false, false) => "",
        };
        rows.add_row([
            mark.to_owned(),
            format!("{:.1}", point.figures.mean_ms),
            format!("{:.4}", point.figures.mean),
            point.pipeline.clone(),
        ]);
    }
    let _ = writeln!(text, "\n{}", table::render(&rows));
    text += "* chosen; - beaten in both on the held-out half, so on the front by chance\n";

    if !answer.depths.is_empty() {
        let mut rows = table::new(["depth", measure, "ms p50", "against the deepest"], 0);
        for point in &answer.depths {
            let Difference { mean, low, high, .. } = &point.difference;
            rows.add_row([
                format!("{}{}", point.depth, if point.chosen { " *" } else { "" }),
                format!("{:.4}", point.figures.mean),
                format!("{:.1}", point.figures.p50_ms),
                format!("{mean:+.4} ({low:+.4} to {high:+.4})"),
            ]);
        }
        let _ = writeln!(text, "\n{}", table::render(&rows));
    }
    text
}

/// What was fitted.
fn fitted(answer: &TuneAnswer) -> String {
    let mut text = String::new();
    if let Some(blend) = &answer.blend {
        let folds: Vec<String> = blend.folds.iter().map(|weight| format!("{weight:.1}")).collect();
        let _ = writeln!(
            text,
            "\nblend: the rerank score counts {:.2} (the folds said {})",
            blend.weight,
            folds.join(", ")
        );
    }
    if let Some(fit) = &answer.calibration {
        let sigmoid = fit
            .error_of_sigmoid
            .map_or(String::new(), |error| format!(", {error:.4} as it comes from the model"));
        let _ = writeln!(
            text,
            "calibration: {}, expected error {:.4} over {} pairs{sigmoid}",
            fit.chosen, fit.error, fit.pairs
        );
    }
    match &answer.gate {
        Some(gate) => {
            let verdict = if gate.accepted { "on" } else { "off" };
            let named = gate.gate.as_deref().map_or(String::new(), |gate| format!("{gate}, "));
            let _ = writeln!(text, "gate: {named}{verdict}: {}", gate.reason);
            if let Some(coverage) = &gate.held_out {
                let _ = writeln!(text, "  {}", covered(coverage));
            }
        }
        None => {
            text += "\nnothing is reranked: on these queries it does not pay within the budget\n";
        }
    }
    text
}

fn told(name: &str, measure: &str, difference: &Difference) -> String {
    let Difference { mean, low, high, p, verdict } = difference;
    let said = match verdict.as_str() {
        "helps" => format!("tuned is better than {name}"),
        "hurts" => format!("tuned is worse than {name}"),
        _ => format!("tuned and {name} cannot be told apart"),
    };
    format!("{said}; {measure} {mean:+.4}, 95% interval {low:+.4} to {high:+.4}, p = {p:.4}")
}

fn covered(coverage: &TunedCoverage) -> String {
    let percent = |share: f64| format!("{:.1}", share * 100.0);
    format!(
        "held-out half: {} % skip reranking ({} to {}), {} % of the measure lost ({} to {}); at \
         random it would be {}",
        percent(coverage.skipped),
        percent(coverage.skipped_low),
        percent(coverage.skipped_high),
        percent(coverage.loss),
        percent(coverage.loss_low),
        percent(coverage.loss_high),
        percent(coverage.loss_at_random)
    )
}
