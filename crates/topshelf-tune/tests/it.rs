//! Tuning over stages whose worth is known, because they were made for it: forty documents for each
//! query, of which three are relevant, and stages that see the truth through more or less noise.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use topshelf_core::{
    Bm25Options, Call, ModelIdentity, Passage, Query, Ranking, RerankOutcome, RerankScore,
    Reranker, Result, Retriever, RetrieverKind, Scale, Setup, Usage,
};
use topshelf_eval::{Measure, Qrels};
use topshelf_tune::gate::GateTerms;
use topshelf_tune::record::Contender;
use topshelf_tune::search::check;
use topshelf_tune::{
    Budget, Halves, Judged, Profile, Recording, Stages, TuneError, TuneOptions, Tuned, Unit,
    record, tune,
};

const DOCUMENTS: usize = 40;
const DEPTH: usize = 20;

/// A number in -1..1 that depends on its seeds alone.
fn noise(seeds: [usize; 3]) -> f32 {
    let mut hash = 0x9e37_79b9_7f4a_7c15_u64;
    for seed in seeds {
        hash = (hash ^ seed as u64).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash ^= hash >> 32;
    }
    (hash % 2001) as f32 / 1000.0 - 1.0
}

/// Whether the document answers the query, as a grade.
fn truth(query: usize, document: usize) -> f32 {
    if document % 13 == query % 13 { 1.0 } else { 0.0 }
}

fn passage(query: usize, document: usize) -> Arc<Passage> {
    Arc::new(Passage::standalone(format!("q{query}-d{document:02}"), "", "some words of text"))
}

fn number(text: &str) -> usize {
    text.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

/// The query and the document of a passage's id.
fn parts(id: &str) -> (usize, usize) {
    let (query, document) = id.split_once('-').unwrap();
    (number(query), number(document))
}

/// A retriever that sees the truth through noise.
struct Noisy {
    name: &'static str,
    seed: usize,
    noise: f32,
}

#[async_trait]
impl Retriever for Noisy {
    fn name(&self) -> &str {
        self.name
    }

    async fn retrieve(&self, _: &Call, query: &Query, depth: usize) -> Result<Ranking> {
        let query = number(query.text());
        let found = (0..DOCUMENTS).map(|document| {
            let seen = truth(query, document) + self.noise * noise([self.seed, query, document]);
            (passage(query, document), 10.0 + seen)
        });
        Ok(Ranking::new(self.name, Scale::Bm25, found)?.top(depth))
    }
}

/// A reranker that sees `sign` times the truth through noise, and takes its time.
struct Oracle {
    identity: ModelIdentity,
    seed: usize,
    sign: f32,
    noise: f32,
    takes: Duration,
}

#[async_trait]
impl Reranker for Oracle {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn scale(&self) -> Scale {
        Scale::Logit
    }

    async fn score(
        &self,
        _: &Call,
        _: &Query,
        passages: &[Arc<Passage>],
    ) -> Result<Vec<RerankOutcome>> {
        std::thread::sleep(self.takes * passages.len() as u32);
        let score = |passage: &Arc<Passage>| {
            let (query, document) = parts(&passage.id);
            let seen = self.sign * truth(query, document)
                + self.noise * noise([self.seed, query, document]);
            Ok(RerankScore::new(8.0 * seen - 4.0))
        };
        Ok(passages.iter().map(score).collect())
    }
}

fn reranker(name: &str, sign: f32, noise: f32, takes: Duration) -> Contender {
    let identity = ModelIdentity {
        name: name.to_owned(),
        fingerprint: format!("of-{name}"),
        engine: "test".to_owned(),
    };
    let seed = name.len() + 100;
    let reranker: Arc<dyn Reranker> = Arc::new(Oracle { identity, seed, sign, noise, takes });
    Contender { name: name.to_owned(), bare: Arc::clone(&reranker), reranker }
}

fn stages(rerankers: Vec<Contender>) -> Stages {
    Stages {
        bm25: Some(Arc::new(Noisy { name: "bm25", seed: 1, noise: 0.9 })),
        dense: Some(Arc::new(Noisy { name: "dense", seed: 2, noise: 0.8 })),
        rerankers,
    }
}

fn judged(queries: usize) -> Judged {
    let mut qrels = Qrels::new();
    for query in 0..queries {
        for document in (0..DOCUMENTS).filter(|document| truth(query, *document) > 0.0) {
            qrels.insert(format!("{query}"), format!("q{query}-d{document:02}"), 1);
        }
    }
    let measure = Measure::parse_list("nDCG@10").unwrap()[0];
    Judged { qrels, measure, level: 1, unit: Unit::Passage }
}

fn options(budget: Budget) -> TuneOptions {
    TuneOptions {
        budget,
        gate: GateTerms::default(),
        risk: 0.05,
        depths: vec![10, DEPTH],
        bm25: Bm25Options::default(),
        windows: None,
    }
}

fn recorded(stages: &Stages, queries: usize, options: &TuneOptions) -> Recording {
    let queries: Vec<(String, Query)> = (0..queries)
        .map(|query| (query.to_string(), Query::new(format!("question {query}")).unwrap()))
        .collect();
    let firsts = options.first_stages(true, true);
    pollster::block_on(record(stages, &queries, &firsts, &mut |_| {})).unwrap()
}

fn tuned(rerankers: Vec<Contender>, budget: Budget) -> (Tuned, Recording, Stages, Halves) {
    let queries = 80;
    let (stages, options) = (stages(rerankers), options(budget));
    let recording = recorded(&stages, queries, &options);
    let halves = Halves::of(&recording.ids()).unwrap();
    let tuned = tune(&recording, &judged(queries), &halves, &options, &mut |_, _| {}).unwrap();
    (tuned, recording, stages, halves)
}

const FREE: Duration = Duration::ZERO;

#[test]
fn a_good_reranker_is_used_and_beats_what_is_untuned() {
    let good = reranker("good", 1.0, 0.4, FREE);
    let (tuned, ..) = tuned(vec![good], Budget::Loss(0.0));
    assert!(tuned.setup.second_stage.is_some(), "{}", tuned.described);
    assert!(tuned.without_gain.is_empty(), "{:?}", tuned.without_gain);
    let names: Vec<&str> = tuned.baselines.iter().map(|other| other.name.as_str()).collect();
    assert_eq!(names, ["bm25", "dense", "hybrid", "bm25+rerank", "dense+rerank", "hybrid+rerank"]);
    for other in &tuned.baselines {
        let compared = &other.difference;
        // Better, or not to be told apart.
        assert!(compared.mean_difference >= 0.0 || compared.p_value > 0.05, "{other:?}");
        let told = tuned.figures.mean - other.figures.mean;
        assert!((compared.mean_difference - told).abs() < 1e-9);
    }
    assert!(tuned.baselines[..3].iter().all(|other| other.difference.p_value < 0.05));
    assert!(tuned.blend.as_ref().is_none_or(|blend| blend.weight > 0.5), "{:?}", tuned.blend);
    assert_eq!(tuned.per_query.len(), tuned.held_out);
    assert_eq!(tuned.front.iter().filter(|point| point.chosen).count(), 1);
    let calibration = tuned.calibration.unwrap();
    assert!(calibration.error < calibration.error_of_sigmoid.unwrap(), "{calibration:?}");
}

/// Another that costs a thousandth of a dollar for each pair.
struct Paid(Arc<dyn Reranker>);

#[async_trait]
impl Reranker for Paid {
    fn identity(&self) -> &ModelIdentity {
        self.0.identity()
    }

    fn scale(&self) -> Scale {
        self.0.scale()
    }

    async fn score(
        &self,
        call: &Call,
        query: &Query,
        passages: &[Arc<Passage>],
    ) -> Result<Vec<RerankOutcome>> {
        let calls = passages.len() as u64;
        let (input_tokens, cost) = (50 * calls, Some(1_000_000 * calls));
        call.spend(Usage { calls, input_tokens, cost, ..Usage::default() });
        self.0.score(call, query, passages).await
    }
}

#[test]
fn what_a_setup_costs_is_foretold() {
    let good = reranker("good", 1.0, 0.4, FREE);
    let paid: Arc<dyn Reranker> = Arc::new(Paid(good.reranker));
    let contender = Contender { bare: Arc::clone(&paid), reranker: paid, ..good };
    let (tuned, ..) = tuned(vec![contender], Budget::Loss(0.0));
    let figures = tuned.figures;
    let told = figures.paid.expect("it is paid by use");
    // All passages are about as long, so that bytes foretell pairs.
    assert!((told.calls / figures.pairs - 1.0).abs() < 0.05, "{figures:?}");
    assert!((told.input_tokens / figures.pairs / 50.0 - 1.0).abs() < 0.05, "{figures:?}");
    let cost = told.cost.expect("its price is known");
    assert!((cost / figures.pairs / 1e-3 - 1.0).abs() < 0.05, "{figures:?}");
    let free = tuned.baselines.iter().find(|other| other.name == "hybrid").unwrap();
    assert_eq!(free.figures.paid, None);
}

#[test]
fn a_reranker_that_hurts_is_left_out() {
    let bad = reranker("bad", -1.0, 0.4, FREE);
    let (tuned, ..) = tuned(vec![bad], Budget::Loss(0.0));
    assert!(tuned.setup.second_stage.is_none(), "{}", tuned.described);
    assert_eq!(tuned.without_gain, ["bad"]);
    let plain = tuned.baselines.iter().find(|other| other.name == "hybrid+rerank").unwrap();
    assert!(plain.difference.mean_difference > 0.1 && plain.difference.p_value < 0.01);
    assert!(tuned.gate.is_none() && tuned.depths.is_empty());
}

#[test]
fn the_budget_is_kept() {
    // Slow only where its pace is taken, so that the test is not.
    let slow = || Contender {
        bare: reranker("slow", 1.0, 0.2, Duration::from_millis(3)).bare,
        ..reranker("slow", 1.0, 0.2, FREE)
    };
    // 20 pairs take 60 ms and 10 take 30.
    let (tuned, ..) = tuned(vec![slow()], Budget::Milliseconds(45.0));
    assert!(tuned.setup.second_stage.is_some(), "{}", tuned.described);
    assert_eq!(tuned.setup.first_stage.depth, 10, "{}", tuned.described);
    assert!(tuned.figures.p95_ms < 50.0, "{:?}", tuned.figures);

    let (stages, options) = (stages(vec![slow()]), options(Budget::Milliseconds(1e-9)));
    let recording = recorded(&stages, 80, &options);
    let halves = Halves::of(&recording.ids()).unwrap();
    let error = tune(&recording, &judged(80), &halves, &options, &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, TuneError::OverBudget { .. }), "{error}");
}

#[test]
fn what_is_replayed_is_what_the_pipeline_answers() {
    let cheap = reranker("cheap", 1.0, 0.7, FREE);
    let dear = reranker("dearer", 1.0, 0.1, Duration::from_micros(200));
    let (tuned, recording, stages, halves) = tuned(vec![cheap, dear], Budget::Loss(0.0));
    // Through a file, as it will be used.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("topshelf.toml");
    tuned.profile("made up").save(&path).unwrap();
    let profile = Profile::open(&path).unwrap();
    let by_name: HashMap<String, Arc<dyn Reranker>> =
        stages.rerankers.iter().map(|own| (own.name.clone(), Arc::clone(&own.bare))).collect();
    let retriever = |kind| -> Result<Arc<dyn Retriever>> {
        Ok(Arc::new(match kind {
            RetrieverKind::Bm25 => Noisy { name: "bm25", seed: 1, noise: 0.9 },
            _ => Noisy { name: "dense", seed: 2, noise: 0.8 },
        }))
    };
    let setup = Setup { top: 10, ..profile.setup };
    let reranker = |name: &str| -> Result<_> { Ok(Arc::clone(&by_name[name])) };
    let pipeline = setup.pipeline(retriever, setup.second_stage(reranker).unwrap()).unwrap();
    let done = check(&pipeline, &recording, &tuned.setup, 10, &halves.held_out, &mut |_| {});
    let done = done.unwrap();
    assert_eq!((done.same, done.queries), (halves.held_out.len(), halves.held_out.len()));
}

#[test]
fn a_gate_that_never_opens_is_no_reranking() {
    let stages = stages(vec![reranker("good", 1.0, 0.4, FREE)]);
    // More queries than a gate needs to be shown; whatever is lost is allowed.
    let gate = GateTerms { max_loss: 1.0, min_saved: 0.0 };
    let options = TuneOptions { gate, ..options(Budget::Milliseconds(1e9)) };
    let recording = recorded(&stages, 120, &options);
    let halves = Halves::of(&recording.ids()).unwrap();
    let tuned = tune(&recording, &judged(120), &halves, &options, &mut |_, _| {}).unwrap();
    assert!(tuned.setup.second_stage.is_none(), "{}", tuned.described);
    assert!(!tuned.described.contains("reranked"), "{}", tuned.described);
    let gate = tuned.gate.unwrap();
    assert!(!gate.accepted && gate.reason.contains("nothing is reranked"), "{}", gate.reason);
}

#[test]
fn cascades_take_part() {
    let cheap = || reranker("cheap", 1.0, 0.5, FREE);
    let dear = reranker("dearer", 1.0, 0.2, Duration::from_micros(100));
    let (alone, ..) = tuned(vec![cheap()], Budget::Loss(0.02));
    let (both, ..) = tuned(vec![cheap(), dear], Budget::Loss(0.02));
    // Each alone, and two numbers of survivors with an early stop and without.
    assert!(both.searched > 3 * alone.searched, "{} {}", both.searched, alone.searched);
    assert!(both.figures.mean >= alone.figures.mean - 0.05);
}

#[test]
fn the_same_recording_gives_the_same_answer() {
    let options = options(Budget::Loss(0.0));
    let stages = stages(vec![reranker("good", 1.0, 0.4, FREE)]);
    let recording = recorded(&stages, 60, &options);
    let halves = Halves::of(&recording.ids()).unwrap();
    let once = tune(&recording, &judged(60), &halves, &options, &mut |_, _| {}).unwrap();
    let again = tune(&recording, &judged(60), &halves, &options, &mut |_, _| {}).unwrap();
    assert_eq!(once, again);
}
