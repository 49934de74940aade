//! Systems over judged queries: what `eval` and `demo` share.
//!
//! A *system* is a first stage (`bm25`, `dense`, `hybrid`, or `candidates` from a run file) with
//! or without the reranker behind it, written `hybrid+rerank`. Each answers every judged query;
//! what it answers is measured by the evaluator.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use topshelf::eval::{LatencySummary, Measure, Qrels, Run, compare_paired, evaluate};
use topshelf::{BiEncoder, Bm25Options, Fusion, Index, Pipeline, Query, Ranking, SecondStage};

use crate::args::{FirstStage, RetrieverName};
use crate::exit::usage;
use crate::output::{LatencyMs, SystemDifference, SystemMeasured};
use crate::progress::Progress;
use crate::table;

/// Behind a first stage's name: reranked.
const RERANKED: &str = "+rerank";

/// p below which a difference is called one.
const SIGNIFICANT: f64 = 0.05;

/// The seed of resampling: the same figures give the same interval every time.
const SEED: u64 = 1;

/// Where candidates come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Retriever(RetrieverName),
    /// A run file.
    Candidates,
}

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct System {
    pub(super) stage: Stage,
    pub(super) reranked: bool,
}

impl System {
    /// Reads `hybrid+rerank` and the like.
    pub(super) fn parse(name: &str) -> Result<Self> {
        let (stage, reranked) = match name.trim().strip_suffix(RERANKED) {
            Some(stage) => (stage, true),
            None => (name.trim(), false),
        };
        let stage = match stage {
            "bm25" => Stage::Retriever(RetrieverName::Bm25),
            "dense" => Stage::Retriever(RetrieverName::Dense),
            "hybrid" => Stage::Retriever(RetrieverName::Hybrid),
            "candidates" => Stage::Candidates,
            _ => {
                return Err(usage(format!(
                    "no system is called \"{name}\"; there are bm25, dense, hybrid, candidates, \
                     and each with +rerank"
                )));
            }
        };
        Ok(Self { stage, reranked })
    }

    pub(super) fn name(&self) -> String {
        let stage = match self.stage {
            Stage::Retriever(RetrieverName::Bm25) => "bm25",
            Stage::Retriever(RetrieverName::Dense) => "dense",
            Stage::Retriever(RetrieverName::Hybrid) => "hybrid",
            Stage::Candidates => "candidates",
        };
        format!("{stage}{}", if self.reranked { RERANKED } else { "" })
    }

    /// Whether it needs the bi-encoder.
    pub(super) fn embeds(&self) -> bool {
        matches!(self.stage, Stage::Retriever(RetrieverName::Dense | RetrieverName::Hybrid))
    }
}

/// A judged query.
pub(super) struct Judged {
    pub(super) id: String,
    pub(super) text: String,
}

/// What judgments name: whole documents or single passages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Document,
    Passage,
}

/// Candidates of a run file, ready to be reranked.
pub(super) type Candidates = BTreeMap<String, Ranking>;

/// What the systems are made of.
pub(super) struct Parts<'a> {
    pub(super) index: Option<&'a Index>,
    pub(super) embedder: Option<Arc<BiEncoder>>,
    pub(super) second_stage: Option<SecondStage>,
    pub(super) candidates: Candidates,
    pub(super) first_stage: &'a FirstStage,
    pub(super) depth: usize,
}

/// What one system answered.
pub(super) struct Answered {
    pub(super) name: String,
    pub(super) run: Run,
    latency: Option<LatencySummary>,
}

impl Answered {
    /// A run that was made elsewhere.
    pub(super) fn measured(name: String, run: Run) -> Self {
        Self { name, run, latency: None }
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
            let name = system.name();
            let mut progress = Progress::new(&name, Some(queries.len() as u64), "queries");
            let pipeline = self.pipeline(system)?;
            let mut run = Run::new(&name);
            let mut durations: Vec<Duration> = Vec::new();
            for query in queries {
                let start = Instant::now();
                let ranking = self.one(system, pipeline.as_ref(), query)?;
                durations.push(start.elapsed());
                if let Some(ranking) = ranking {
                    run.insert(&query.id, scores(&ranking, unit))?;
                }
                progress.add(1);
            }
            progress.finish();
            let latency = LatencySummary::of(durations).filter(|_| {
                // Reading candidates out of a file is no retrieval; its time says nothing.
                system.reranked || system.stage != Stage::Candidates
            });
            answered.push(Answered { name, run, latency });
        }
        Ok(answered)
    }

    /// One system's answer to one query; `None` where a run file has no candidates for it.
    fn one(
        &self,
        system: &System,
        pipeline: Option<&Pipeline>,
        query: &Judged,
    ) -> Result<Option<Ranking>> {
        let question = Query::new(&query.text)?;
        let Some(pipeline) = pipeline else {
            let Some(candidates) = self.candidates.get(&query.id).cloned() else {
                return Ok(None);
            };
            let candidates = candidates.top(self.depth);
            let ranking = match (&self.second_stage, system.reranked) {
                (Some(stage), true) => {
                    let asked = Instant::now();
                    pollster::block_on(stage.run(&question, &candidates, self.depth, asked))?.0
                }
                _ => candidates,
            };
            return Ok(Some(ranking));
        };
        match pipeline.run_blocking(&question) {
            Ok(answer) => Ok(Some(answer.ranking)),
            // A query without a content word finds nothing, and counts as that.
            Err(topshelf::Error::NothingToLookUp { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The pipeline of a system that retrieves.
    fn pipeline(&self, system: &System) -> Result<Option<Pipeline>> {
        let (Stage::Retriever(name), Some(index)) = (system.stage, self.index) else {
            return Ok(None);
        };
        let options = self.first_stage;
        let bm25 = Bm25Options { k1: options.k1, b: options.b, title_weight: options.title_weight };
        let fusion: Fusion = super::fusion(options);
        let mut builder = Pipeline::builder().depth(self.depth).top(self.depth).fusion(fusion);
        if name != RetrieverName::Dense {
            builder = builder.retriever(index.bm25(bm25));
        }
        if name != RetrieverName::Bm25 {
            let embedder = self.embedder.clone().ok_or(topshelf::IndexError::NoVectors)?;
            builder = builder.retriever(index.dense(embedder)?);
        }
        if let (true, Some(stage)) = (system.reranked, &self.second_stage) {
            builder = builder.second_stage(stage.clone());
        }
        Ok(Some(builder.build()?))
    }
}

/// A ranking as the lines of a run. Candidates that a reranker could not score stand behind the
/// others, so they get scores below them.
fn scores(ranking: &Ranking, unit: Unit) -> Vec<(String, f64)> {
    let listed: Vec<(&str, f32)> = match unit {
        Unit::Document => ranking.documents(),
        Unit::Passage => {
            ranking.hits().iter().map(|hit| (hit.passage.id.as_str(), hit.score)).collect()
        }
    };
    let mut lowest = f64::INFINITY;
    let scored = |(id, score): (&str, f32)| {
        let score = f64::from(score);
        lowest = if score <= lowest { score } else { lowest - 1.0 };
        (id.to_owned(), lowest)
    };
    listed.into_iter().map(scored).collect()
}

/// The figures of each system, and the differences that reranking made.
pub(super) fn measure(
    answered: &[Answered],
    qrels: &Qrels,
    measures: &[Measure],
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
        });
        evaluations.push(evaluation);
    }
    let mut differences = Vec::new();
    let Some(first) = measures.first().copied() else { return Ok((systems, differences)) };
    for (system, evaluation) in answered.iter().zip(&evaluations) {
        let Some(baseline) = system.name.strip_suffix(RERANKED) else { continue };
        let Some(at) = answered.iter().position(|other| other.name == baseline) else { continue };
        let (Some(before), Some(after)) = (evaluations[at].of(first), evaluation.of(first)) else {
            continue;
        };
        let comparison = compare_paired(&before.per_query, &after.per_query, SEED)?;
        differences.push(SystemDifference {
            system: system.name.clone(),
            baseline: baseline.to_owned(),
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

fn verdict(mean: f64, p: f64) -> &'static str {
    match (p < SIGNIFICANT, mean > 0.0) {
        (true, true) => "helps",
        (true, false) => "hurts",
        (false, _) => "cannot be told apart",
    }
}

/// The table of all systems, and a sentence for each difference.
pub(super) fn as_text(
    systems: &[SystemMeasured],
    differences: &[SystemDifference],
    measures: &[Measure],
) -> String {
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
    let mut text = table::render(&rows);
    for difference in differences {
        let SystemDifference { system, baseline, measure, mean, low, high, p, verdict } =
            difference;
        let said = match verdict.as_str() {
            "cannot be told apart" => format!("{system} and {baseline} cannot be told apart"),
            verb => format!("reranking {verb}: {system} against {baseline}"),
        };
        let _ = write!(
            text,
            "\n{said}; {measure} {mean:+.4}, 95% interval {low:+.4} to {high:+.4}, p = {p:.4}"
        ); // a string takes all
    }
    text
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
