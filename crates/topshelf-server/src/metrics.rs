//! What operators see: [`Metrics`], in Prometheus' text format at `/metrics`.
//!
//! | name | what |
//! | --- | --- |
//! | `topshelf_requests_total` | answers, by route, dialect and status |
//! | `topshelf_request_seconds` | from the head of a request to its answer |
//! | `topshelf_errors_total` | by kind: `overloaded`, `unknown_model` |
//! | `topshelf_requests_in`, `topshelf_work_in_bytes`, `topshelf_expected_wait_seconds` | what is in, and how long it will take |
//! | `topshelf_queue_waiting`, `topshelf_queue_waited_seconds_total` | requests that wait for a model, and how long they did |
//! | `topshelf_batches_total`, `topshelf_batch_tokens_total`, `topshelf_batch_seconds_total` | calls of the engine: tokens by calls is a batch's size |
//! | `topshelf_withdrawn_total` | requests whose clients went away |
//! | `topshelf_stage_seconds` | each retriever and reranker |
//! | `topshelf_retrievers_missing_total` | retrievers without an answer: `nothing_to_look_up`, `failed`, `too_late` |
//! | `topshelf_pairs_total`, `topshelf_pairs_cached_total` | pairs scored, and those whose score was known |
//! | `topshelf_gate_total` | verdicts: `clear`, `ambiguous` |
//! | `topshelf_failovers_total` | rerankers that failed, so that another stood in or the order stayed |
//! | `topshelf_unscored_total` | candidates that a deadline left unread |
//! | `topshelf_top10_exchanged` | share of the first ten that reranking brought in from behind |
//! | `topshelf_top_relevance` | the best result's probability: its drift is the model's or the data's |
//! | `topshelf_shadow_agreement` | share of the first ten that the shadow reranker has as well |
//! | `topshelf_process_resident_bytes` | memory |

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use topshelf_core::{RetrieverOutcome, RetrieverReport, SecondStageReport};

use crate::admission::Load;
use crate::answer::RetrieverRan;
use crate::shelf::QueueFigures;

/// Seconds, from a cached score to a slow language model.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Tenths.
const SHARES: [f64; 10] = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];

/// Places that count as the top.
const TOP: usize = 10;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: String,
    dialect: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stage {
    stage: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Missing {
    retriever: String,
    outcome: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Model {
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Verdict {
    verdict: String,
}

/// What the models' own counters say, copied when it is asked for.
#[derive(Debug, Default)]
struct Queues {
    waiting: Family<Model, Gauge>,
    waited: Family<Model, Counter<f64, AtomicU64>>,
    calls: Family<Model, Counter>,
    tokens: Family<Model, Counter>,
    busy: Family<Model, Counter<f64, AtomicU64>>,
    withdrawn: Family<Model, Counter>,
}

impl Queues {
    fn set(&self, figures: &QueueFigures) {
        let model = Model { model: figures.model.clone() };
        self.waiting.get_or_create(&model).set(figures.waiting as i64);
        let whole = |family: &Family<Model, Counter>, now: u64| {
            family.get_or_create(&model).inner().store(now, Ordering::Relaxed);
        };
        whole(&self.calls, figures.calls);
        whole(&self.tokens, figures.tokens);
        whole(&self.withdrawn, figures.withdrawn);
        let seconds = |family: &Family<Model, Counter<f64, AtomicU64>>, now: Duration| {
            let bits = now.as_secs_f64().to_bits();
            family.get_or_create(&model).inner().store(bits, Ordering::Relaxed);
        };
        seconds(&self.waited, figures.waited);
        seconds(&self.busy, figures.busy);
    }
}

/// Seconds by the labels of a family.
type Seconds<L> = Family<L, Histogram, fn() -> Histogram>;

/// Counters and histograms of a server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    seconds: Seconds<Route>,
    errors: Family<Kind, Counter>,
    stages: Seconds<Stage>,
    missing: Family<Missing, Counter>,
    pairs: Family<Model, Counter>,
    cached: Family<Model, Counter>,
    gate: Family<Verdict, Counter>,
    failovers: Family<Model, Counter>,
    unscored: Family<Model, Counter>,
    exchanged: Seconds<Model>,
    relevance: Seconds<Model>,
    shadow: Seconds<Model>,
    queues: Queues,
    requests_in: Gauge,
    work_in: Gauge,
    wait: Gauge<f64, AtomicU64>,
    resident: Gauge,
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

fn shares() -> Histogram {
    Histogram::new(SHARES)
}

impl Default for Metrics {
    fn default() -> Self {
        let mut own = Self {
            registry: Registry::with_prefix("topshelf"),
            requests: Family::default(),
            seconds: Family::new_with_constructor(seconds),
            errors: Family::default(),
            stages: Family::new_with_constructor(seconds),
            missing: Family::default(),
            pairs: Family::default(),
            cached: Family::default(),
            gate: Family::default(),
            failovers: Family::default(),
            unscored: Family::default(),
            exchanged: Family::new_with_constructor(shares),
            relevance: Family::new_with_constructor(shares),
            shadow: Family::new_with_constructor(shares),
            queues: Queues::default(),
            requests_in: Gauge::default(),
            work_in: Gauge::default(),
            wait: Gauge::default(),
            resident: Gauge::default(),
        };
        own.register();
        own
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("requests", "Answers", self.requests.clone());
        registry.register("request_seconds", "From head to answer", self.seconds.clone());
        registry.register("errors", "Errors by kind", self.errors.clone());
        registry.register("stage_seconds", "Time of each stage", self.stages.clone());
        let what = "Retrievers without an answer";
        registry.register("retrievers_missing", what, self.missing.clone());
        registry.register("pairs", "Pairs scored", self.pairs.clone());
        registry.register("pairs_cached", "Pairs whose score was known", self.cached.clone());
        registry.register("gate", "Verdicts of the gate", self.gate.clone());
        registry.register("failovers", "Rerankers that failed", self.failovers.clone());
        registry.register("unscored", "Left unread at a deadline", self.unscored.clone());
        let what = "Share of the first ten that reranking brought in";
        registry.register("top10_exchanged", what, self.exchanged.clone());
        registry.register("top_relevance", "Probability of the best", self.relevance.clone());
        let what = "Share of the first ten that the shadow has as well";
        registry.register("shadow_agreement", what, self.shadow.clone());
        let queues = &self.queues;
        registry.register("queue_waiting", "Requests that wait", queues.waiting.clone());
        registry.register("queue_waited_seconds", "How long they did", queues.waited.clone());
        registry.register("batches", "Calls of the engine", queues.calls.clone());
        registry.register("batch_tokens", "Tokens in these", queues.tokens.clone());
        registry.register("batch_seconds", "Time in these", queues.busy.clone());
        registry.register("withdrawn", "Clients that went away", queues.withdrawn.clone());
        registry.register("requests_in", "Requests at work or waiting", self.requests_in.clone());
        registry.register("work_in_bytes", "Bytes of text of these", self.work_in.clone());
        let what = "How long these are expected to take";
        registry.register("expected_wait_seconds", what, self.wait.clone());
        registry.register("process_resident_bytes", "Memory", self.resident.clone());
    }

    /// Counts an answer.
    pub(crate) fn answered(&self, route: &str, dialect: &str, status: u16, took: Duration) {
        let (route, dialect) = (route.to_owned(), dialect.to_owned());
        self.seconds.get_or_create(&Route { route: route.clone() }).observe(took.as_secs_f64());
        self.requests.get_or_create(&Request { route, dialect, status }).inc();
    }

    /// Counts an error.
    pub(crate) fn failed(&self, kind: &str) {
        self.errors.get_or_create(&Kind { kind: kind.to_owned() }).inc();
    }

    /// Counts what the retrievers did.
    pub(crate) fn retrieved(&self, retrievers: &[RetrieverReport]) {
        for ran in retrievers {
            let stage = Stage { stage: ran.name.clone() };
            self.stages.get_or_create(&stage).observe(ran.milliseconds / 1e3);
            let RetrieverRan { name: retriever, outcome, .. } = RetrieverRan::from(ran);
            if !matches!(ran.outcome, RetrieverOutcome::Found { .. }) {
                self.missing.get_or_create(&Missing { retriever, outcome }).inc();
            }
        }
    }

    /// Counts what the second stage did.
    pub(crate) fn reranked(&self, report: &SecondStageReport) {
        if let Some(gate) = &report.gate {
            let verdict = if gate.clear { "clear" } else { "ambiguous" }.to_owned();
            self.gate.get_or_create(&Verdict { verdict }).inc();
        }
        for failure in &report.failures {
            self.failovers.get_or_create(&Model { model: failure.model.clone() }).inc();
        }
        for ran in &report.rerankers {
            let stage = Stage { stage: "rerank".to_owned() };
            self.stages.get_or_create(&stage).observe(ran.milliseconds / 1e3);
            let model = Model { model: ran.model.clone() };
            self.pairs.get_or_create(&model).inc_by(ran.pairs as u64);
            self.cached.get_or_create(&model).inc_by(ran.cached as u64);
            self.unscored.get_or_create(&model).inc_by(ran.unscored as u64);
        }
    }

    /// Counts how an order changed: the places, from 0, that the results had before, best first.
    pub(crate) fn reordered(&self, model: &str, before: &[usize], relevance: Option<f32>) {
        let model = Model { model: model.to_owned() };
        let top = &before[..before.len().min(TOP)];
        if !top.is_empty() {
            let came = top.iter().filter(|place| **place >= TOP).count();
            self.exchanged.get_or_create(&model).observe(came as f64 / top.len() as f64);
        }
        if let Some(relevance) = relevance {
            self.relevance.get_or_create(&model).observe(f64::from(relevance));
        }
    }

    /// Counts how far a shadow reranker agrees: the first places of both.
    pub(crate) fn shadowed(&self, model: &str, agreement: f64) {
        self.shadow.get_or_create(&Model { model: model.to_owned() }).observe(agreement);
    }

    /// All of it as text.
    pub(crate) fn text(&self, load: Load, queues: &[QueueFigures]) -> String {
        for figures in queues {
            self.queues.set(figures);
        }
        self.requests_in.set(load.requests as i64);
        self.work_in.set(load.work as i64);
        self.wait.set(load.wait.as_secs_f64());
        self.resident.set(resident_bytes().unwrap_or_default());
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Memory of this process, where the system tells.
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_told() {
        let metrics = Metrics::default();
        metrics.answered("/v2/rerank", "cohere", 200, Duration::from_millis(7));
        metrics.failed("overloaded");
        let ran = |name: &str, outcome| RetrieverReport {
            name: name.to_owned(),
            outcome,
            milliseconds: 20.0,
        };
        metrics.retrieved(&[
            ran("bm25", RetrieverOutcome::Found { passages: 3 }),
            ran("dense", RetrieverOutcome::TooLate),
        ]);
        metrics.reordered("m", &[0, 3, 11, 25], Some(0.93));
        let queue = QueueFigures {
            model: "m".into(),
            waiting: 3,
            calls: 7,
            tokens: 2100,
            busy: Duration::from_millis(250),
            waited: Duration::from_secs(2),
            answered: 5,
            withdrawn: 1,
        };
        let load = Load { requests: 2, work: 10, wait: Duration::from_millis(1500) };
        metrics.text(load, std::slice::from_ref(&queue));
        let text = metrics.text(load, &[queue]); // twice: what was copied is not added up
        for line in [
            r#"topshelf_requests_total{route="/v2/rerank",dialect="cohere",status="200"} 1"#,
            r#"topshelf_errors_total{kind="overloaded"} 1"#,
            r#"topshelf_retrievers_missing_total{retriever="dense",outcome="too_late"} 1"#,
            r#"topshelf_top10_exchanged_sum{model="m"} 0.5"#,
            r#"topshelf_queue_waiting{model="m"} 3"#,
            r#"topshelf_batch_tokens_total{model="m"} 2100"#,
            r#"topshelf_batch_seconds_total{model="m"} 0.25"#,
            "topshelf_requests_in 2",
            "topshelf_expected_wait_seconds 1.5",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains(r#"missing_total{retriever="bm25""#), "{text}");
    }
}
