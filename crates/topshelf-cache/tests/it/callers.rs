//! What callers see of the cache.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use topshelf_cache::{CacheOptions, CachedReranker, ScoreCache};
use topshelf_core::{Call, ModelIdentity, Passage, Query, RerankOutcome, Reranker, Result, Scale};

use crate::support::{Counting, ask, ask_and_check, in_memory, numbered, passages, with_cache};

#[test]
fn of_a_hundred_of_which_seventy_are_known_thirty_are_scored() {
    let cache = in_memory();
    let counting = Counting::new();
    let pairs = Arc::clone(&counting.pairs);
    let reranker = with_cache(counting, &cache);
    assert_eq!(ask_and_check(&reranker, "q", &numbered(0..70)), 0);
    assert_eq!(ask_and_check(&reranker, "q", &numbered(0..100)), 70);
    assert_eq!(pairs.load(Ordering::SeqCst), 100);
    assert_eq!(ask_and_check(&reranker, "another", &numbered(0..100)), 0);
    let stats = cache.stats();
    assert_eq!((stats.memory_hits, stats.scored, stats.memory_entries), (70, 200, 200));
}

#[test]
fn sixteen_callers_of_the_same_pairs_have_them_scored_once() {
    let cache = in_memory();
    let counting = Counting { takes: Duration::from_millis(50), ..Counting::new() };
    let pairs = Arc::clone(&counting.pairs);
    let reranker = with_cache(counting, &cache);
    std::thread::scope(|scope| {
        for caller in 0..16 {
            let reranker = &reranker;
            // Half of them ask the other way round, and for some of their own.
            scope.spawn(move || {
                let own = 1000 + caller;
                let numbers: Vec<usize> = (0..100).chain([own]).collect();
                let numbers: Vec<usize> =
                    if caller % 2 == 0 { numbers } else { numbers.into_iter().rev().collect() };
                ask_and_check(reranker, "q", &numbered(numbers));
            });
        }
    });
    assert_eq!(pairs.load(Ordering::SeqCst), 100 + 16);
    let stats = cache.stats();
    assert_eq!(stats.scored, 116);
    assert_eq!(stats.joined + stats.memory_hits, 15 * 100);
}

#[test]
fn a_passage_that_stands_twice_is_scored_once() {
    let counting = Counting::new();
    let pairs = Arc::clone(&counting.pairs);
    let reranker = with_cache(counting, &in_memory());
    ask_and_check(&reranker, "q", &numbered([1, 2, 1, 1]));
    assert_eq!(pairs.load(Ordering::SeqCst), 2);
}

#[test]
fn a_failure_is_not_kept() {
    let counting = Counting::new();
    let pairs = Arc::clone(&counting.pairs);
    let reranker = with_cache(counting, &in_memory());
    let passages = passages(["good".to_owned(), "bad".to_owned()]);
    for expected in [2, 3] {
        let outcomes = ask(&reranker, "q", &passages);
        assert!(outcomes[0].is_ok() && outcomes[1].is_err());
        assert_eq!(pairs.load(Ordering::SeqCst), expected);
    }
}

#[test]
fn memory_is_bounded() {
    let options = CacheOptions { memory: 96 * 100, ..CacheOptions::default() };
    let cache = Arc::new(ScoreCache::open(&options).0);
    let reranker = with_cache(Counting::new(), &cache);
    for round in 0..50 {
        ask_and_check(&reranker, "q", &numbered(round * 100..(round + 1) * 100));
    }
    assert!(cache.stats().memory_entries <= 100, "{:?}", cache.stats());
}

/// Waits for ever in its first call, and works in the others.
struct FirstHangs(Counting, std::sync::atomic::AtomicBool);

#[async_trait]
impl Reranker for FirstHangs {
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
        if !self.1.swap(true, Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.0.score(call, query, passages).await
    }
}

#[test]
fn whoever_waited_for_a_caller_that_goes_away_scores_itself() {
    let cache = in_memory();
    let counting = Counting::new();
    let pairs = Arc::clone(&counting.pairs);
    let hangs = FirstHangs(counting, false.into());
    let reranker = CachedReranker::new(Arc::new(hangs), Arc::clone(&cache));
    let query = Query::new("q").unwrap();
    let passages = numbered(0..10);

    let mut context = Context::from_waker(Waker::noop());
    let (one, other) = (Call::new(), Call::new());
    let mut first = Box::pin(reranker.score(&one, &query, &passages));
    assert!(first.as_mut().poll(&mut context).is_pending());
    let mut second = pin!(reranker.score(&other, &query, &passages));
    assert!(second.as_mut().poll(&mut context).is_pending());
    assert_eq!(cache.stats().joined, 10);
    drop(first);
    let Poll::Ready(outcomes) = second.as_mut().poll(&mut context) else {
        panic!("it still waits for one that is gone")
    };
    assert_eq!(outcomes.unwrap().len(), 10);
    assert_eq!(pairs.load(Ordering::SeqCst), 10);
    assert_eq!((one.spent().calls, other.spent().calls), (0, 10));
}

/// Rests once, so that another caller comes in between, and works.
struct Rests(Counting);

#[async_trait]
impl Reranker for Rests {
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
        let mut has_rested = false;
        std::future::poll_fn(|_| {
            if std::mem::replace(&mut has_rested, true) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        self.0.score(call, query, passages).await
    }
}

#[test]
fn who_asks_first_pays_and_the_others_do_not() {
    let cache = in_memory();
    let reranker = CachedReranker::new(Arc::new(Rests(Counting::new())), Arc::clone(&cache));
    let query = Query::new("q").unwrap();
    let (ten, eleven) = (numbered(0..10), numbered(0..11));
    let calls = [Call::new(), Call::new(), Call::new()];

    let mut context = Context::from_waker(Waker::noop());
    let mut first = pin!(reranker.score(&calls[0], &query, &ten));
    assert!(first.as_mut().poll(&mut context).is_pending());
    let mut second = pin!(reranker.score(&calls[1], &query, &eleven));
    assert!(second.as_mut().poll(&mut context).is_pending());
    assert!(first.as_mut().poll(&mut context).is_ready());
    assert!(second.as_mut().poll(&mut context).is_ready());
    let mut third = pin!(reranker.score(&calls[2], &query, &eleven));
    assert!(third.as_mut().poll(&mut context).is_ready());
    assert_eq!(calls.each_ref().map(|call| call.spent().calls), [10, 1, 0]);
}

#[test]
fn another_model_has_scores_of_its_own() {
    struct Renamed(Counting, ModelIdentity);
    #[async_trait]
    impl Reranker for Renamed {
        fn identity(&self) -> &ModelIdentity {
            &self.1
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
            self.0.score(call, query, passages).await
        }
    }
    let cache = in_memory();
    let identity = |fingerprint: &str, engine: &str| ModelIdentity {
        name: "same name".into(),
        fingerprint: fingerprint.into(),
        engine: engine.into(),
    };
    for identity in [identity("f", "int8"), identity("f", "f32"), identity("g", "int8")] {
        let reranker = Renamed(Counting::new(), identity);
        let reranker = CachedReranker::new(Arc::new(reranker), Arc::clone(&cache));
        let passages: Vec<Arc<Passage>> = numbered(0..5);
        assert_eq!(ask_and_check(&reranker, "q", &passages), 0);
    }
}
