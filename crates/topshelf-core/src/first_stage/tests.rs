//! Retrievers that answer, fail, hang, and have nothing to look up.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::*;
use crate::error::Blame;
use crate::fuse::Normalisation;
use crate::gate::Gate;
use crate::language_model::Usage;
use crate::passage::Passage;

/// What a retriever does.
#[derive(Clone, Copy)]
enum Then {
    Answer(&'static [&'static str]),
    Fail,
    FindNothingToLookUp,
    Hang,
    /// Answers once so many have been asked.
    Meet(usize),
}

struct Fake {
    name: &'static str,
    then: Then,
    asked: Arc<AtomicUsize>,
    /// The call of the last search, as a thread would have it.
    work: Arc<Mutex<Option<Call>>>,
}

fn fake(name: &'static str, then: Then) -> Fake {
    Fake { name, then, asked: Arc::default(), work: Arc::default() }
}

#[async_trait]
impl Retriever for Fake {
    fn name(&self) -> &str {
        self.name
    }

    async fn retrieve(&self, call: &Call, query: &Query, depth: usize) -> Result<Ranking> {
        call.spend(Usage { calls: 1, ..Usage::default() });
        let (work, _guard) = call.hand_over();
        *self.work.lock().unwrap() = Some(work);
        self.asked.fetch_add(1, Ordering::SeqCst);
        let ids = match self.then {
            Then::Answer(ids) => ids,
            Then::Fail => {
                return Err(Error::stage(self.name, Blame::Failure, "the line is cut"));
            }
            Then::FindNothingToLookUp => {
                return Err(Error::NothingToLookUp {
                    retriever: self.name.to_owned(),
                    query: query.shortened(),
                    reason: "only stop words".to_owned(),
                });
            }
            Then::Hang => std::future::pending().await,
            Then::Meet(others) => {
                std::future::poll_fn(|context| {
                    if self.asked.load(Ordering::SeqCst) >= others {
                        return Poll::Ready(());
                    }
                    context.waker().wake_by_ref();
                    Poll::Pending
                })
                .await;
                &["met"]
            }
        };
        let found =
            ids.iter().take(depth).enumerate().map(|(place, id)| {
                (Arc::new(Passage::standalone(*id, "", *id)), 100.0 - place as f32)
            });
        Ranking::new(self.name, Scale::Bm25, found)
    }
}

const BM25: Then = Then::Answer(&["a", "b", "c"]);

fn run(stage: &FirstStage, call: &Call) -> Result<Candidates> {
    pollster::block_on(stage.run(call, &Query::new("q").unwrap()))
}

fn within(milliseconds: u64) -> Call {
    Call::new().due_within(Some(Duration::from_millis(milliseconds)))
}

fn ids(candidates: &Candidates) -> Vec<&str> {
    candidates.ranking.hits().iter().map(|hit| hit.passage.id.as_str()).collect()
}

fn outcomes(candidates: &Candidates) -> Vec<&RetrieverOutcome> {
    candidates.retrievers.iter().map(|report| &report.outcome).collect()
}

fn lenient(stage: FirstStage) -> FirstStage {
    stage.on_failure(OnFailure::KeepOrder)
}

#[test]
fn all_are_asked_at_the_same_time_and_fused() {
    let first = fake("one", Then::Meet(3));
    let asked = Arc::clone(&first.asked);
    let other = |name| Fake { asked: Arc::clone(&asked), ..fake(name, Then::Meet(3)) };
    let (second, third) = (other("two"), other("three"));
    // One after the other, none of them would ever end.
    let candidates = run(&FirstStage::new(first).and(second).and(third), &within(5000)).unwrap();
    assert_eq!(ids(&candidates), ["met"]);
    assert_eq!(candidates.ranking.hits()[0].signals.len(), 4);
    assert_eq!(outcomes(&candidates), [&RetrieverOutcome::Found { passages: 1 }; 3]);
}

#[test]
fn one_that_fails_does_not_take_the_others_down() {
    let stage = || FirstStage::new(fake("bm25", BM25)).and(fake("dense", Then::Fail));
    let candidates = run(&lenient(stage()), &Call::new()).unwrap();
    assert_eq!((ids(&candidates), candidates.ranking.stage()), (vec!["a", "b", "c"], "fused"));
    let failed = RetrieverOutcome::Failed { reason: "the line is cut".to_owned() };
    assert_eq!(outcomes(&candidates), [&RetrieverOutcome::Found { passages: 3 }, &failed]);
    assert_eq!(
        crate::report::retrieval_notes(&candidates.retrievers),
        ["dense failed: the line is cut; the candidates are from bm25 alone"]
    );
    let error = run(&stage(), &Call::new()).unwrap_err().to_string();
    assert!(error.contains("the line is cut"), "{error}");
    // Strict, nobody is waited for after a failure.
    let stage = FirstStage::new(fake("dense", Then::Hang)).and(fake("tokens", Then::Fail));
    let error = run(&stage, &Call::new()).unwrap_err().to_string();
    assert!(error.contains("tokens: the line is cut"), "{error}");
}

#[test]
fn nothing_to_look_up_is_no_failure_as_long_as_another_answers() {
    let nothing = || fake("bm25", Then::FindNothingToLookUp);
    for on_failure in [OnFailure::Fail, OnFailure::KeepOrder] {
        let stage = FirstStage::new(nothing()).and(fake("dense", BM25)).on_failure(on_failure);
        let candidates = run(&stage, &Call::new()).unwrap();
        assert_eq!(ids(&candidates), ["a", "b", "c"]);
        let reason = "only stop words".to_owned();
        assert_eq!(candidates.retrievers[0].outcome, RetrieverOutcome::NothingToLookUp { reason });
        let stage = FirstStage::new(nothing()).and(nothing()).on_failure(on_failure);
        let error = run(&stage, &Call::new()).unwrap_err().blame();
        assert_eq!(error, Blame::Caller);
        // A failure says more: the other one might have found something.
        let stage = FirstStage::new(nothing()).and(fake("dense", Then::Fail));
        let error = run(&stage.on_failure(on_failure), &Call::new()).unwrap_err();
        assert_eq!(error.blame(), Blame::Failure, "{error}");
    }
}

#[test]
fn if_none_answers_it_is_the_error_of_the_first_that_failed() {
    let nothing = fake("bm25", Then::FindNothingToLookUp);
    let stage =
        FirstStage::new(nothing).and(fake("dense", Then::Hang)).and(fake("tokens", Then::Fail));
    let error = run(&lenient(stage), &within(30)).unwrap_err().to_string();
    assert!(error.starts_with("dense did not answer within"), "{error}");
    assert!(error.contains("spent until then: 3 calls"), "{error}");
}

#[test]
fn once_one_has_answered_the_others_are_waited_for_for_a_share_of_the_time() {
    let hangs = fake("dense", Then::Hang);
    let work = Arc::clone(&hangs.work);
    let stage = FirstStage::new(fake("bm25", BM25)).and(hangs).with_wait_share(0.25).unwrap();
    let stage = lenient(stage);
    let call = within(2000);
    let candidates = run(&stage, &call).unwrap();
    let took = call.began().elapsed();
    assert!(took >= Duration::from_millis(500) && took < Duration::from_millis(1500), "{took:?}");
    assert_eq!(candidates.retrievers[1].outcome, RetrieverOutcome::TooLate);
    assert!(work.lock().unwrap().as_ref().is_some_and(Call::is_withdrawn), "it is withdrawn");
    // Strict, this is an error.
    let strict = stage.clone().on_failure(OnFailure::Fail);
    let error = run(&strict, &within(100)).unwrap_err().to_string();
    assert!(error.contains("dense did not answer"), "{error}");
    // Nobody answers, or finds anything: the whole time is waited for.
    let alone = lenient(FirstStage::new(fake("dense", Then::Hang)).with_wait_share(0.25).unwrap());
    let call = within(60);
    assert!(run(&alone, &call).is_err());
    assert!(call.began().elapsed() >= Duration::from_millis(60));
    let call = within(60);
    let candidates = run(&alone.and(fake("bm25", Then::Answer(&[]))), &call).unwrap();
    assert!(candidates.ranking.is_empty() && call.began().elapsed() >= Duration::from_millis(60));
    assert!(stage.with_wait_share(1.5).is_err());
}

#[test]
fn a_missing_retriever_leaves_weights_and_signals_where_they_belong() {
    let fusion =
        Fusion::Weighted { normalisation: Normalisation::MinMax, weights: vec![0.0, 1.0, 3.0] };
    let stage = FirstStage::new(fake("bm25", Then::Answer(&["b", "a"])))
        .and(fake("dense", Then::Fail))
        .and(fake("tokens", Then::Answer(&["a", "b"])))
        .with_fusion(fusion);
    let candidates = run(&lenient(stage), &Call::new()).unwrap();
    assert_eq!(ids(&candidates), ["a", "b"]); // as tokens has it, which alone has a weight
    let gate = |signal: &str| Gate { signal: signal.parse().unwrap(), threshold: 0.0 };
    assert_eq!(gate("margin:dense:2").look(&candidates.ranking).value, None);
    assert!(gate("margin:tokens:2").look(&candidates.ranking).clear);
    let alone = FirstStage::new(fake("bm25", BM25)).and(fake("dense", Then::Fail));
    let candidates = run(&lenient(alone), &Call::new()).unwrap();
    assert!(!gate("agreement:2").look(&candidates.ranking).clear, "it has nothing to agree with");
}

#[test]
fn a_single_retriever_is_not_fused() {
    let stage = FirstStage::new(fake("bm25", BM25)).with_depth(2).unwrap();
    let candidates = run(&stage, &Call::new()).unwrap();
    assert_eq!((ids(&candidates), candidates.ranking.stage()), (vec!["a", "b"], "bm25"));
    assert!(stage.fusion().is_none() && stage.with_depth(0).is_err());
}
