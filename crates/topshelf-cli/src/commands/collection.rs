//! Systems over judged queries: what `eval` and `demo` share.
//!
//! Each system (`system.rs`) answers every judged query; what it answers is measured by the
//! evaluator. What the second stage did to the order of the first is in `reordering.rs`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use topshelf::eval::{Evaluation, LatencySummary, Measure, Qrels, Run, compare_paired, evaluate};
use topshelf::report::{Skipped, retrieval_notes};
use topshelf::tune::{Unit, gate};
use topshelf::{
    Answer, Call, Engine, Index, Pipeline, Query, Ranking, Report, RetrieverOutcome,
    RetrieverReport, SecondStage, SecondStageReport, Setup,
};

use super::reordering;
pub(super) use super::system::{Stage, System};
use crate::exit::usage;
use crate::output::{GateAt, LatencyMs, SystemDifference, SystemMeasured};
use crate::progress::Progress;
use crate::table;

/// p below which a difference is called one.
const SIGNIFICANT: f64 = 0.05;

/// The seed of resampling: the same figures give the same interval every time.
pub(super) const SEED: u64 = 1;

/// A judged query.
pub(super) struct Judged {
    pub(super) id: String,
    pub(super) text: String,
}

/// Candidates of a run file, ready to be reranked.
pub(super) type Candidates = BTreeMap<String, Ranking>;

/// What the systems are made of.
pub(super) struct Parts<'a> {
    pub(super) engine: Engine,
    pub(super) index: Option<&'a Index>,
    pub(super) candidates: Candidates,
    /// The whole of what may take part; a system has parts of it.
    pub(super) setup: Setup,
}

/// What one system answered.
pub(super) struct Answered {
    pub(super) name: String,
    pub(super) run: Run,
    system: Option<System>,
    latency: Option<LatencySummary>,
    /// Of a system with a second stage.
    pub(super) traces: Vec<Trace>,
    /// For each query that was answered although a retriever failed or was late, what is to be said.
    pub(super) incomplete: Vec<String>,
}

/// A query's way through a system with a second stage.
pub(super) struct Trace {
    pub(super) id: String,
    pub(super) text: String,
    pub(super) candidates: Ranking,
    pub(super) ranking: Ranking,
    pub(super) retrievers: Vec<RetrieverReport>,
    pub(super) report: SecondStageReport,
}

impl Answered {
    /// A run that was made elsewhere.
    pub(super) fn measured(name: String, run: Run) -> Self {
        let (traces, incomplete) = (Vec::new(), Vec::new());
        Self { name, run, system: None, latency: None, traces, incomplete }
    }

    /// What `system` answered, query by query: `None` where it found nothing to look up.
    pub(super) fn collect<'q>(
        system: &System,
        answers: impl IntoIterator<Item = (&'q Judged, Option<Answer>, Duration)>,
        unit: Unit,
    ) -> Result<Self> {
        let name = system.name();
        let (mut run, mut traces, mut incomplete) = (Run::new(&name), Vec::new(), Vec::new());
        let mut durations = Vec::new();
        for (query, answer, duration) in answers {
            durations.push(duration);
            let Some(answer) = answer else { continue };
            run.insert(&query.id, unit.lines(&answer.ranking))?;
            // A query without words is the query's own matter.
            let went_wrong = |ran: &RetrieverReport| {
                matches!(ran.outcome, RetrieverOutcome::Failed { .. } | RetrieverOutcome::TooLate)
            };
            if answer.report.retrievers.iter().any(went_wrong) {
                incomplete.push(retrieval_notes(&answer.report.retrievers).join("; "));
            }
            if let Some(report) = answer.report.second_stage {
                traces.push(Trace {
                    id: query.id.clone(),
                    text: query.text.clone(),
                    candidates: answer.candidates,
                    ranking: answer.ranking,
                    retrievers: answer.report.retrievers,
                    report,
                });
            }
        }
        let latency = LatencySummary::of(durations).filter(|_| {
            // Reading candidates out of a file is no retrieval; its time says nothing.
            system.reranked || system.stage != Stage::Candidates
        });
        Ok(Self { name, run, system: Some(system.clone()), latency, traces, incomplete })
    }
}

/// A system that is ready to answer.
pub(super) struct Ready<'a> {
    parts: &'a Parts<'a>,
    /// Of a system over given candidates.
    second_stage: Option<SecondStage>,
    /// Of a system that retrieves.
    pipeline: Option<Pipeline>,
}

impl Ready<'_> {
    /// The answer and the time it took; `None` where the query has nothing to look up.
    pub(super) fn answer(&self, query: &Judged) -> Result<(Option<Answer>, Duration)> {
        let start = Instant::now();
        let answer = match &self.pipeline {
            Some(pipeline) => search(pipeline, query)?,
            None => self.parts.rerank_given(self.second_stage.as_ref(), query)?,
        };
        let second = answer.as_ref().and_then(|answer| answer.report.second_stage.as_ref());
        if let Some(second) = second.filter(|own| own.skipped == Some(Skipped::Failed)) {
            // The order of the first stage must not be measured as that of a reranker.
            let notes: Vec<String> = second.notes().iter().map(ToString::to_string).collect();
            return Err(anyhow::anyhow!("query {}: {}", query.id, notes.join("; ")));
        }
        Ok((answer, start.elapsed()))
    }
}

impl Parts<'_> {
    /// Lets each system answer each query.
    pub(super) fn answer(
        &self,
        systems: &[System],
        queries: &[Judged],
        unit: Unit,
    ) -> Result<Vec<Answered>> {
        let mut answered = Vec::new();
        for system in systems {
            let ready = self.ready(system)?;
            let mut progress = Progress::new(system.name(), Some(queries.len() as u64), "queries");
            let mut answers = Vec::new();
            for query in queries {
                let (answer, duration) = ready.answer(query)?;
                answers.push((query, answer, duration));
                progress.add(1);
            }
            progress.finish();
            answered.push(Answered::collect(system, answers, unit)?);
        }
        Ok(answered)
    }

    /// The system, ready to answer.
    pub(super) fn ready(&self, system: &System) -> Result<Ready<'_>> {
        let setup = system.setup(&self.setup);
        let (second_stage, pipeline) = match (system.stage, self.index) {
            (Stage::Retrievers(_), Some(index)) => {
                (None, Some(self.engine.pipeline(index, &setup)?))
            }
            _ => (self.engine.second_stage(&setup, self.index)?, None),
        };
        Ok(Ready { parts: self, second_stage, pipeline })
    }

    /// The answer from the candidates of a run file; `None` where it has none for this query.
    fn rerank_given(
        &self,
        second_stage: Option<&SecondStage>,
        query: &Judged,
    ) -> Result<Option<Answer>> {
        let Some(candidates) = self.candidates.get(&query.id).cloned() else { return Ok(None) };
        let depth = self.setup.first_stage.depth;
        let candidates = candidates.top(depth);
        let (question, call) = (Query::new(&query.text)?, Call::new());
        let (ranking, second_stage) = match second_stage {
            Some(stage) => {
                let reranked = stage.run(&call, &question, &candidates, depth);
                let (ranking, report) = pollster::block_on(reranked)?;
                (ranking, Some(report))
            }
            None => (candidates.clone(), None),
        };
        let milliseconds = call.began().elapsed().as_secs_f64() * 1e3;
        let report = Report { retrievers: Vec::new(), fusion: None, second_stage, milliseconds };
        Ok(Some(Answer { ranking, candidates, report }))
    }
}

/// A pipeline's answer; a query without a content word finds nothing, and counts as that.
fn search(pipeline: &Pipeline, query: &Judged) -> Result<Option<Answer>> {
    match pipeline.run_blocking(&Query::new(&query.text)?) {
        Ok(answer) => Ok(Some(answer)),
        Err(topshelf::Error::NothingToLookUp { .. }) => Ok(None),
        // Of a system with a deadline: nothing was there in time, which is what it is worth.
        Err(error) if error.is_too_late() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The figures of each system, and the differences that reranking made.
pub(super) fn measure(
    answered: &[Answered],
    qrels: &Qrels,
    measures: &[Measure],
    level: i32,
    unit: Unit,
) -> Result<(Vec<SystemMeasured>, Vec<SystemDifference>)> {
    let mut systems = Vec::new();
    let mut evaluations = Vec::new();
    for system in answered {
        let evaluation = evaluate(qrels, &system.run, measures)?;
        let figures = measures
            .iter()
            .filter_map(|measure| Some((measure.to_string(), evaluation.mean(*measure)?)));
        systems.push(SystemMeasured {
            name: system.name.clone(),
            measures: figures.collect(),
            latency_ms: system.latency.as_ref().map(|latency| LatencyMs {
                p50: latency.p50_ms,
                p95: latency.p95_ms,
                p99: latency.p99_ms,
                mean: latency.mean_ms,
            }),
            per_query: measures.first().map_or_else(BTreeMap::new, |first| {
                let figures = evaluation.per_query(*first);
                figures.map(|(query, figure)| (query.to_owned(), figure)).collect()
            }),
            second_stage: reordering::measure(system, qrels, measures, level, unit)?,
        });
        evaluations.push(evaluation);
    }
    for (at, system) in systems.iter_mut().enumerate() {
        if let Some(second) = &mut system.second_stage {
            second.gate = gate_curve(answered, &evaluations, measures, at);
        }
    }
    let mut differences = Vec::new();
    let Some(first) = measures.first().copied() else { return Ok((systems, differences)) };
    for (baseline, system) in pairs(answered) {
        let figures = (evaluations[baseline].of(first), evaluations[system].of(first));
        let (Some(before), Some(after)) = figures else { continue };
        let comparison = compare_paired(&before.per_query, &after.per_query, SEED)?;
        differences.push(SystemDifference {
            system: answered[system].name.clone(),
            baseline: answered[baseline].name.clone(),
            measure: first.to_string(),
            mean: comparison.mean_difference,
            low: comparison.low,
            high: comparison.high,
            p: comparison.p_value,
            verdict: verdict(comparison.mean_difference, comparison.p_value).to_owned(),
        });
    }
    Ok((systems, differences))
}

/// What the gate of a system does at other thresholds, from the same system without it.
fn gate_curve(
    answered: &[Answered],
    evaluations: &[Evaluation],
    measures: &[Measure],
    at: usize,
) -> Vec<GateAt> {
    let (own, Some(first)) = (&answered[at], measures.first()) else { return Vec::new() };
    let Some(system) = own.system.as_ref().filter(|system| system.gated) else { return Vec::new() };
    let place =
        |wanted: System| answered.iter().position(|other| other.system.as_ref() == Some(&wanted));
    let ungated = place(System { gated: false, ..system.clone() });
    let alone = system.first_stage().and_then(place);
    let signal = own.traces.iter().find_map(|trace| trace.report.gate.as_ref());
    let signal = signal.and_then(|gate| gate.signal.parse().ok());
    let (Some(ungated), Some(alone), Some(signal)) = (ungated, alone, signal) else {
        return Vec::new();
    };
    let figures = |of: usize| evaluations[of].per_query(*first).collect::<BTreeMap<_, _>>();
    let (with, without) = (figures(ungated), figures(alone));
    let (mut candidates, mut before, mut after) = (Vec::new(), Vec::new(), Vec::new());
    for trace in &own.traces {
        let (Some(with), Some(without)) =
            (with.get(trace.id.as_str()), without.get(trace.id.as_str()))
        else {
            continue;
        };
        candidates.push(trace.candidates.clone());
        after.push(*with);
        before.push(*without);
    }
    let points = gate::curve(&signal, candidates, after, before);
    let told = points.into_iter().map(|point| GateAt {
        threshold: point.threshold,
        skipped: point.skipped,
        mean: point.mean,
        mean_at_random: point.mean_at_random,
    });
    told.collect()
}

/// Which systems are compared, baseline first: each with a second stage with itself without, and
/// without its policies; and the last of all, which is what one thinks of using, with every other.
fn pairs(answered: &[Answered]) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    for (at, system) in answered.iter().enumerate() {
        let Some(own) = &system.system else { continue };
        for baseline in [own.first_stage(), own.plain()].into_iter().flatten() {
            let found = answered.iter().position(|other| other.system.as_ref() == Some(&baseline));
            pairs.extend(found.map(|found| (found, at)));
        }
        if at + 1 == answered.len() && own.reranked {
            let others = (0..at).map(|other| (other, at));
            let others: Vec<_> = others.filter(|pair| !pairs.contains(pair)).collect();
            pairs.extend(others);
        }
    }
    pairs
}

/// What is said of a difference with this mean and p-value.
pub(crate) fn verdict(mean: f64, p: f64) -> &'static str {
    match (p < SIGNIFICANT, mean > 0.0) {
        (true, true) => "helps",
        (true, false) => "hurts",
        (false, _) => "cannot be told apart",
    }
}

/// The table of all systems, and a sentence for each difference, a line each.
pub(super) fn as_text(
    systems: &[SystemMeasured],
    differences: &[SystemDifference],
    measures: &[Measure],
) -> String {
    let (table, sentences) = as_table(systems, differences, measures);
    let lines: Vec<String> = std::iter::once(table).chain(sentences).collect();
    lines.join("\n")
}

/// The table of all systems, and a sentence for each difference.
pub(super) fn as_table(
    systems: &[SystemMeasured],
    differences: &[SystemDifference],
    measures: &[Measure],
) -> (String, Vec<String>) {
    let timed = systems.iter().any(|system| system.latency_ms.is_some());
    let mut headers = vec!["system".to_owned()];
    headers.extend(measures.iter().map(ToString::to_string));
    if timed {
        headers.extend(["ms p50".to_owned(), "ms p95".to_owned()]);
    }
    let mut rows = table::dynamic(headers, 1);
    for system in systems {
        let mut row = vec![system.name.clone()];
        row.extend(measures.iter().map(|measure| {
            let figure = system.measures.get(&measure.to_string());
            figure.map_or(String::new(), |figure| format!("{figure:.4}"))
        }));
        if timed {
            let latency = |of: fn(&LatencyMs) -> f64| {
                system.latency_ms.as_ref().map_or(String::new(), |l| format!("{:.1}", of(l)))
            };
            row.extend([latency(|l| l.p50), latency(|l| l.p95)]);
        }
        rows.add_row(row);
    }
    let sentence = |difference: &SystemDifference| {
        let SystemDifference { system, baseline, measure, mean, low, high, p, verdict } =
            difference;
        let said = match verdict.as_str() {
            "helps" => format!("{system} is better than {baseline}"),
            "hurts" => format!("{system} is worse than {baseline}"),
            _ => format!("{system} and {baseline} cannot be told apart"),
        };
        format!("{said}; {measure} {mean:+.4}, 95% interval {low:+.4} to {high:+.4}, p = {p:.4}")
    };
    (table::render(&rows), differences.iter().map(sentence).collect())
}

/// Writes each system's answers as a TREC run file.
pub(super) fn save_runs(answered: &[Answered], dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)
        .map_err(|error| usage(format!("cannot make the folder {}: {error}", dir.display())))?;
    for system in answered {
        system.run.save(dir.join(format!("{}.trec", system.name)))?;
    }
    Ok(())
}
