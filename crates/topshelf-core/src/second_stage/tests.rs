//! The policies with rerankers that are easily followed.

use std::sync::Mutex;
use std::time::Instant;

use async_trait::async_trait;

use super::*;
use crate::blend::BlendScore;
use crate::passage::Passage;
use crate::stage::{ModelIdentity, RerankOutcome, RerankScore};

/// Scores a passage by the number that is its text times a factor, and takes its time.
struct Numbers {
    identity: ModelIdentity,
    factor: f32,
    /// For each passage.
    takes: Duration,
    calls: Arc<Mutex<Vec<usize>>>,
    /// Until when the latest call was.
    due: Arc<Mutex<Option<Instant>>>,
}

impl Numbers {
    fn new(factor: f32) -> Self {
        let identity = ModelIdentity {
            name: "numbers".into(),
            fingerprint: "0".into(),
            engine: "test".into(),
        };
        let (calls, due) = (Arc::default(), Arc::default());
        Self { identity, factor, takes: Duration::ZERO, calls, due }
    }
}

#[async_trait]
impl Reranker for Numbers {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn scale(&self) -> Scale {
        Scale::Logit
    }

    async fn score(
        &self,
        call: &Call,
        _: &Query,
        passages: &[Arc<Passage>],
    ) -> Result<Vec<RerankOutcome>> {
        self.calls.lock().unwrap().push(passages.len());
        *self.due.lock().unwrap() = call.due();
        std::thread::sleep(self.takes * passages.len() as u32);
        Ok(passages
            .iter()
            .map(|passage| Ok(RerankScore::new(passage.text.parse::<f32>().unwrap() * self.factor)))
            .collect())
    }
}

/// Never answers.
struct Silent(ModelIdentity);

#[async_trait]
impl Reranker for Silent {
    fn identity(&self) -> &ModelIdentity {
        &self.0
    }

    fn scale(&self) -> Scale {
        Scale::Logit
    }

    async fn score(&self, _: &Call, _: &Query, _: &[Arc<Passage>]) -> Result<Vec<RerankOutcome>> {
        std::future::pending().await
    }
}

/// Candidates in the order given, each with that text.
fn candidates(texts: &[&str]) -> Ranking {
    let found = texts.iter().enumerate().map(|(place, text)| {
        let passage = Passage::standalone(format!("{place:03}"), "", *text);
        (Arc::new(passage), 1000.0 - place as f32)
    });
    Ranking::new("bm25", Scale::Bm25, found).unwrap()
}

fn run(
    stage: &SecondStage,
    candidates: &Ranking,
    top: usize,
) -> Result<(Ranking, SecondStageReport)> {
    let query = Query::new("q").unwrap();
    pollster::block_on(stage.run(&Call::new(), &query, candidates, top))
}

fn texts(ranking: &Ranking) -> Vec<&str> {
    ranking.hits().iter().map(|hit| hit.passage.text.as_str()).collect()
}

#[test]
fn a_dearer_reranker_reads_the_survivors() {
    // The second turns the order of what it reads around.
    let stage = SecondStage::new(Numbers::new(1.0)).then(Numbers::new(-1.0), 2, None).unwrap();
    let (ranking, report) = run(&stage, &candidates(&["1", "4", "2", "3"]), 4).unwrap();
    assert_eq!(texts(&ranking), ["3", "4", "2", "1"]);
    let pairs: Vec<usize> = report.rerankers.iter().map(|ran| ran.pairs).collect();
    assert_eq!(pairs, [4, 2]);
    let first = &ranking.hits()[0];
    assert_eq!(first.signal("rerank-1").unwrap().rank, 2);
    assert_eq!(first.signal("rerank").unwrap().rank, 1);
    assert!(ranking.hits()[2].signal("rerank").is_none());
    assert!(ranking.hits()[2].relevance.is_none());
    assert!(SecondStage::new(Numbers::new(1.0)).then(Numbers::new(1.0), 0, None).is_err());
}

#[test]
fn what_cannot_enter_the_top_is_spared() {
    let texts: Vec<String> = (0..100).rev().map(|n| n.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    // The dear reranker agrees with the cheap one up to 5.
    let stop = EarlyStop { slope: 1.0, intercept: 0.0, bound: 5.0, risk: 0.01 };
    let stage = SecondStage::new(Numbers::new(1.0));
    let stage = stage.then(Numbers::new(1.0), 100, Some(stop)).unwrap();
    let (ranking, report) = run(&stage, &candidates(&texts), 10).unwrap();
    // After 16 the tenth has 90, and the best of what is left, 83, could come to 88.
    assert_eq!((report.rerankers[1].pairs, report.rerankers[1].spared), (16, 84));
    assert_eq!(ranking.hits()[0].passage.text, "99");
    assert_eq!(ranking.len(), 100);
    let far = EarlyStop { bound: 50.0, ..stop };
    let stage = SecondStage::new(Numbers::new(1.0));
    let stage = stage.then(Numbers::new(1.0), 100, Some(far)).unwrap();
    let (_, report) = run(&stage, &candidates(&texts), 10).unwrap();
    assert_eq!(report.rerankers[1].pairs, 64); // after 64 the next has 35: 85 < 90
}

#[test]
fn a_deadline_leaves_the_rest_where_it_was() {
    let slow = Numbers { takes: Duration::from_millis(2), ..Numbers::new(1.0) };
    let (calls, due) = (Arc::clone(&slow.calls), Arc::clone(&slow.due));
    let policy = Policy { deadline: Some(Duration::from_millis(60)), ..Policy::default() };
    let stage = SecondStage::new(slow).with_policy(policy).unwrap();
    let all: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let start = Instant::now();
    let (ranking, report) = run(&stage, &candidates(&all), 10).unwrap();
    let took = start.elapsed();
    let scored = report.rerankers[0].pairs;
    let deadline = report.deadline.unwrap();
    assert!((1..100).contains(&scored), "{scored}");
    assert_eq!(deadline.unscored, 100 - scored);
    // All of them would take 200 ms; the machine may be busy.
    assert!(took < Duration::from_millis(150), "{took:?}");
    assert!(calls.lock().unwrap().len() > 2);
    let due = due.lock().unwrap().unwrap();
    let allowed = due.duration_since(start);
    assert!(allowed >= Duration::from_millis(60), "it is told: {allowed:?}");
    assert!(allowed < took + Duration::from_millis(60), "{allowed:?}");
    for (place, hit) in ranking.hits().iter().enumerate() {
        assert_eq!(hit.signal("rerank").is_some(), place < scored);
        if place >= scored {
            assert_eq!(hit.signal("bm25").unwrap().rank, place + 1);
        }
    }
}

#[test]
fn a_reranker_that_never_answers_costs_the_deadline_and_no_more() {
    let silent = Silent(Numbers::new(1.0).identity);
    let policy = Policy { deadline: Some(Duration::from_millis(40)), ..Policy::default() };
    let stage = SecondStage::new(silent).with_policy(policy).unwrap();
    let start = Instant::now();
    let (ranking, report) = run(&stage, &candidates(&["1", "2"]), 2).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(40));
    assert_eq!(texts(&ranking), ["1", "2"]);
    assert_eq!(report.rerankers[0].unscored, 2);
}

#[test]
fn nothing_relevant_is_an_answer() {
    let policy = Policy { min_relevance: Some(0.9), ..Policy::default() };
    let stage = SecondStage::new(Numbers::new(1.0)).with_policy(policy).unwrap();
    let (ranking, report) = run(&stage, &candidates(&["-1", "3", "2"]), 3).unwrap();
    assert_eq!(texts(&ranking), ["3"]); // 0.95; the sigmoid of 2 is 0.88
    assert_eq!(report.threshold.unwrap().below, 2);
    let (ranking, _) = run(&stage, &candidates(&["-1", "-3"]), 3).unwrap();
    assert!(ranking.is_empty());
}

#[test]
fn a_clear_first_stage_is_left_alone() {
    let gate = Gate { signal: "margin:bm25:2".parse().unwrap(), threshold: 0.5 };
    let policy = Policy { gate: Some(gate), ..Policy::default() };
    let stage = SecondStage::new(Numbers::new(1.0)).with_policy(policy).unwrap();
    let (ranking, report) = run(&stage, &candidates(&["1", "2"]), 2).unwrap();
    assert_eq!(texts(&ranking), ["1", "2"]);
    assert_eq!(report.skipped, Some(Skipped::Clear));
    assert!(report.rerankers.is_empty());
}

#[test]
fn a_blend_without_weight_does_not_pay_for_the_reranker() {
    let blend = Blend::new(0.0, BlendScore::MinMax).unwrap();
    let blend = Some(BlendPolicy::Fixed(blend));
    let policy = Policy { blend, ..Policy::default() };
    let stage = SecondStage::new(Numbers::new(1.0)).with_policy(policy).unwrap();
    let (ranking, report) = run(&stage, &candidates(&["1", "2"]), 2).unwrap();
    assert_eq!(texts(&ranking), ["1", "2"]);
    assert_eq!(report.skipped, Some(Skipped::NoWeight));
}

#[test]
fn policies_that_mean_nothing_are_refused() {
    let gate = Gate { signal: "margin:bm25:2".parse().unwrap(), threshold: 0.5 };
    let refused = [
        Policy { min_relevance: Some(1.5), ..Policy::default() },
        Policy { min_relevance: Some(0.5), gate: Some(gate), ..Policy::default() },
        Policy {
            blend: Some(BlendPolicy::Fixed(Blend { weight: -0.1, rerank: BlendScore::MinMax })),
            ..Policy::default()
        },
    ];
    for policy in refused {
        assert!(SecondStage::new(Numbers::new(1.0)).with_policy(policy).is_err());
    }
}

/// Always fails.
struct Broken(ModelIdentity);

#[async_trait]
impl Reranker for Broken {
    fn identity(&self) -> &ModelIdentity {
        &self.0
    }

    fn scale(&self) -> Scale {
        Scale::Service
    }

    async fn score(&self, _: &Call, _: &Query, _: &[Arc<Passage>]) -> Result<Vec<RerankOutcome>> {
        Err(Error::stage("broken", crate::Blame::Failure, "the line is cut"))
    }
}

fn broken() -> Broken {
    Broken(ModelIdentity { name: "broken".into(), ..Numbers::new(1.0).identity })
}

#[test]
fn another_stands_in_for_one_that_fails() {
    let stage = SecondStage::new(broken()).or(Numbers::new(1.0));
    let (ranking, report) = run(&stage, &candidates(&["1", "3", "2"]), 3).unwrap();
    assert_eq!(texts(&ranking), ["3", "2", "1"]);
    assert_eq!(report.rerankers[0].model, "numbers");
    assert_eq!(report.failures[0].model, "broken");
    assert!(report.failures[0].reason.contains("the line is cut"), "{:?}", report.failures);
    // The scale is that of the one that spoke.
    assert!(ranking.hits()[0].relevance.is_some());
    assert_eq!(ranking.scale(), Scale::Logit);
}

#[test]
fn a_score_that_is_not_finite_is_a_failure_of_the_reranker() {
    let given = candidates(&["1", "3", "2"]);
    for wrong in [f32::NAN, f32::INFINITY] {
        let stage = SecondStage::new(Numbers::new(wrong)).or(paid(Then::Answer));
        let (ranking, report) = run(&stage, &given, 3).unwrap();
        assert_eq!(texts(&ranking), ["1", "3", "2"]); // all have one score
        assert!(report.failures[0].reason.contains("not a finite number"), "{report:?}");
        let spoke = report.answered_by().unwrap();
        assert_eq!((spoke.model.as_str(), spoke.scale), ("paid", Scale::Service));
        let reranker = stage.reranker_of(spoke).unwrap();
        assert_eq!(reranker.identity(), &spoke.identity());
        assert_ne!(reranker.identity(), stage.last().identity());
        let alone = run(&SecondStage::new(Numbers::new(wrong)), &given, 3);
        assert!(matches!(alone, Err(Error::NotFinite { .. })), "{alone:?}");
    }
}

#[test]
fn the_one_whose_scores_decided_is_named() {
    let given = candidates(&["1", "3", "2"]);
    // The more expensive one fails: what counts are the scores of the cheap one.
    let keep = Policy { on_failure: OnFailure::KeepOrder, ..Policy::default() };
    let stage = SecondStage::new(Numbers::new(1.0)).then(broken(), 2, None).unwrap();
    let (ranking, report) = run(&stage.with_policy(keep.clone()).unwrap(), &given, 3).unwrap();
    let spoke = report.answered_by().unwrap();
    assert_eq!((spoke.model.as_str(), spoke.stage.as_str()), ("numbers", "rerank-1"));
    assert!(ranking.hits()[0].signal(&spoke.stage).is_some());
    let stage = SecondStage::new(broken()).with_policy(keep).unwrap();
    assert_eq!(run(&stage, &given, 3).unwrap().1.answered_by(), None);
}

#[test]
fn the_callers_own_deadline_counts_too() {
    let silent = Silent(Numbers::new(1.0).identity);
    let policy = Policy { deadline: Some(Duration::from_mins(1)), ..Policy::default() };
    let stage = SecondStage::new(silent).with_policy(policy).unwrap();
    let (call, query) = (Call::new(), Query::new("q").unwrap());
    let call = call.due_at(call.began() + Duration::from_millis(20));
    let given = candidates(&["1", "2"]);
    let (_, report) = pollster::block_on(stage.run(&call, &query, &given, 2)).unwrap();
    let deadline = report.deadline.unwrap();
    assert_eq!((deadline.allowed.round() as u64, deadline.unscored), (20, 2));
}

#[test]
fn where_nobody_answers_the_order_stays_or_it_is_an_error() {
    let given = candidates(&["1", "3", "2"]);
    assert!(run(&SecondStage::new(broken()), &given, 3).is_err());
    let keep = Policy { on_failure: OnFailure::KeepOrder, ..Policy::default() };
    let blend = Some(BlendPolicy::Fixed(Blend::new(0.5, BlendScore::MinMax).unwrap()));
    for blend in [None, blend] {
        let policy = Policy { blend, ..keep.clone() };
        let stage = SecondStage::new(broken()).or(broken());
        let stage = stage.with_policy(policy).unwrap();
        let (ranking, report) = run(&stage, &given, 3).unwrap();
        assert_eq!(texts(&ranking), texts(&given));
        assert_eq!((report.skipped, report.failures.len()), (Some(Skipped::Failed), 2));
    }
    // In a cascade what the step before made of it is kept.
    let stage = SecondStage::new(Numbers::new(1.0)).then(broken(), 2, None).unwrap();
    let (ranking, report) = run(&stage.with_policy(keep).unwrap(), &given, 3).unwrap();
    assert_eq!(texts(&ranking), ["3", "2", "1"]);
    assert_eq!((report.skipped, report.rerankers.len()), (None, 1));
}

#[test]
fn one_that_hangs_leaves_time_to_the_next() {
    let silent = Silent(Numbers::new(1.0).identity);
    let stage = SecondStage::new(silent).or(Numbers::new(1.0));
    let deadline = Some(Duration::from_secs(2));
    let stage = stage.with_policy(Policy { deadline, ..Policy::default() }).unwrap();
    let start = Instant::now();
    let (ranking, report) = run(&stage, &candidates(&["1", "3", "2"]), 3).unwrap();
    assert!(start.elapsed() < Duration::from_millis(1900), "{:?}", start.elapsed());
    assert_eq!(texts(&ranking), ["3", "2", "1"]);
    assert!(report.failures[0].reason.contains("in half of the time"));
}

/// Is paid for each call, asked to wait by its service, and then answers, fails or hangs.
struct Paid {
    identity: ModelIdentity,
    then: Then,
}

#[derive(Clone, Copy)]
enum Then {
    Answer,
    Fail,
    Hang,
}

#[async_trait]
impl Reranker for Paid {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn scale(&self) -> Scale {
        Scale::Service
    }

    fn grain(&self) -> crate::Grain {
        crate::Grain::List
    }

    async fn score(
        &self,
        call: &Call,
        _: &Query,
        passages: &[Arc<Passage>],
    ) -> Result<Vec<RerankOutcome>> {
        call.spend(crate::Usage { calls: 1, cost: Some(7), ..crate::Usage::default() });
        call.say("429: too many requests, tried once");
        match self.then {
            Then::Answer => Ok(passages.iter().map(|_| Ok(RerankScore::new(1.0))).collect()),
            Then::Fail => Err(Error::stage("paid", crate::Blame::Failure, "the line is cut")),
            Then::Hang => std::future::pending().await,
        }
    }
}

fn paid(then: Then) -> Paid {
    Paid { identity: ModelIdentity { name: "paid".into(), ..Numbers::new(1.0).identity }, then }
}

#[test]
fn what_was_spent_before_a_failure_is_counted() {
    let given = candidates(&["1", "3"]);
    let stage = SecondStage::new(paid(Then::Fail)).or(paid(Then::Answer));
    let (_, report) = run(&stage, &given, 2).unwrap();
    assert_eq!((report.failures[0].usage.calls, report.rerankers[0].usage.calls), (1, 1));
    assert_eq!((report.usage().calls, report.usage().cost), (2, Some(14)));
    let stage = SecondStage::new(paid(Then::Fail)).or(paid(Then::Fail));
    let error = run(&stage, &given, 2).unwrap_err();
    assert_eq!(error.blame(), crate::Blame::Failure);
    let told = error.to_string();
    assert!(told.contains("the line is cut") && told.contains("2 calls"), "{told}");
}

#[test]
fn what_a_cascade_spent_stands_in_each_report_and_on_the_call() {
    let given = candidates(&["1", "3"]);
    let (call, query) = (Call::new(), Query::new("q").unwrap());
    let stage = SecondStage::new(paid(Then::Answer)).then(paid(Then::Fail), 2, None).unwrap();
    let keep = Policy { on_failure: OnFailure::KeepOrder, ..Policy::default() };
    let kept = stage.clone().with_policy(keep).unwrap();
    let (_, report) = pollster::block_on(kept.run(&call, &query, &given, 2)).unwrap();
    assert_eq!((report.rerankers[0].usage.calls, report.failures[0].usage.calls), (1, 1));
    assert_eq!((call.spent(), call.spent().cost), (report.usage(), Some(14)));
    // What an earlier step spent is not lost with the later one's failure.
    let error = run(&stage, &given, 2).unwrap_err().to_string();
    assert!(error.contains("2 calls"), "{error}");
}

#[test]
fn a_deadline_names_what_was_said_last_and_what_was_spent() {
    let given = candidates(&["1", "3"]);
    let deadline = Some(Duration::from_millis(30));
    let keep = Policy { deadline, on_failure: OnFailure::KeepOrder, ..Policy::default() };
    let stage = SecondStage::new(paid(Then::Hang)).with_policy(keep).unwrap();
    let (ranking, report) = run(&stage, &given, 2).unwrap();
    assert_eq!((texts(&ranking), report.skipped), (vec!["1", "3"], Some(Skipped::Failed)));
    let failure = &report.failures[0];
    assert_eq!((failure.usage.calls, failure.usage.cost), (1, Some(7)));
    assert!(failure.reason.contains("429: too many requests, tried once"), "{failure:?}");
    assert!(failure.reason.contains("the deadline came before"), "{failure:?}");
    let strict = Policy { deadline, ..Policy::default() };
    let stage = SecondStage::new(paid(Then::Hang)).with_policy(strict).unwrap();
    let told = run(&stage, &given, 2).unwrap_err().to_string();
    assert!(told.contains("429") && told.contains("1 call"), "{told}");
}
