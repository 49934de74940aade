//! Several retrievers of an index in a pipeline: deadlines, a slow bi-encoder, queries without words, and
//! whom a search holds up.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_channel::oneshot;
use serde_json::json;
use topshelf_core::report::retrieval_notes;
use topshelf_core::{
    Answer, Bm25Options, Call, EmbedKind, Embedder, Error, Filter, ModelIdentity, OnFailure,
    Passage, Pipeline, PipelineBuilder, Policy, Query, RerankOutcome, RerankScore, Reranker,
    Retriever, RetrieverOutcome, Scale, SecondStage,
};
use topshelf_index::{Index, Precision};

use super::support::{Bag, Shelf, ask, text};

/// Runs, of which one has to be in time: a machine that is taken away for a while is not ours to
/// answer for.
const RUNS: usize = 10;

/// A bi-encoder that takes its time, on a thread of its own.
struct Slow {
    bag: Arc<Bag>,
    takes: Duration,
    was_withdrawn: Arc<AtomicBool>,
}

#[async_trait]
impl Embedder for Slow {
    fn identity(&self) -> &ModelIdentity {
        self.bag.identity()
    }

    fn dimension(&self) -> usize {
        self.bag.dimension()
    }

    fn max_tokens(&self) -> usize {
        self.bag.max_tokens()
    }

    fn count_tokens(&self, text: &str) -> usize {
        self.bag.count_tokens(text)
    }

    async fn embed(
        &self,
        call: &Call,
        kind: EmbedKind,
        texts: &[&str],
    ) -> topshelf_core::Result<Vec<Vec<f32>>> {
        let (work, _guard) = call.hand_over();
        let (done, is_done) = oneshot::channel();
        let (end, was_withdrawn) = (Instant::now() + self.takes, Arc::clone(&self.was_withdrawn));
        std::thread::spawn(move || {
            while Instant::now() < end && !work.is_withdrawn() {
                std::thread::sleep(Duration::from_millis(1));
            }
            was_withdrawn.store(work.is_withdrawn(), Ordering::SeqCst);
            let _ = done.send(()); // an error means that nobody waits any more
        });
        let _ = is_done.await;
        self.bag.embed(call, kind, texts).await
    }
}

fn slow(milliseconds: u64) -> Slow {
    let takes = Duration::from_millis(milliseconds);
    Slow { bag: Bag::new(), takes, was_withdrawn: Arc::default() }
}

/// Scores all passages alike.
struct Level(ModelIdentity);

#[async_trait]
impl Reranker for Level {
    fn identity(&self) -> &ModelIdentity {
        &self.0
    }

    fn scale(&self) -> Scale {
        Scale::Logit
    }

    async fn score(
        &self,
        _: &Call,
        _: &Query,
        passages: &[Arc<Passage>],
    ) -> topshelf_core::Result<Vec<RerankOutcome>> {
        Ok(passages.iter().map(|_| Ok(RerankScore::new(1.0))).collect())
    }
}

fn shelf() -> Shelf {
    let shelf = Shelf::new(Precision::Int8);
    shelf.write_json(
        "all.jsonl",
        (0..500).map(|n| json!({"id": format!("d{n:03}"), "text": text(n, 40, 200)})),
    );
    shelf.add();
    shelf
}

/// BM25 beside a bi-encoder that takes so long.
fn hybrid(index: &Index, embedder: Slow) -> PipelineBuilder {
    Pipeline::builder()
        .retriever(index.bm25(Bm25Options::default()))
        .retriever(index.dense(Arc::new(embedder)).unwrap())
        .on_failure(OnFailure::KeepOrder)
}

fn ids(answer: &Answer) -> Vec<&str> {
    answer.ranking.hits().iter().map(|hit| hit.passage.id.as_str()).collect()
}

const QUERY: &str = "w3 w5 w8";

/// The answer, and how long it took, of the first run that was in time; the last if none was.
fn in_time(pipeline: &Pipeline, allowed: Duration) -> (Answer, Duration) {
    let query = Query::new(QUERY).unwrap();
    let mut runs = (0..RUNS).map(|_| {
        let start = Instant::now();
        let answer = pipeline.run_blocking(&query).unwrap();
        (answer, start.elapsed())
    });
    let mut last = runs.next().unwrap();
    while last.1 > allowed {
        let Some(next) = runs.next() else { break };
        last = next;
    }
    last
}

#[test]
fn a_deadline_of_30_ms_is_kept_by_words_alone_if_the_bi_encoder_takes_200() {
    let shelf = shelf();
    let index = shelf.index();
    let by_words = ask(&index.bm25(Bm25Options::default()), QUERY, 10);
    let by_words: Vec<&str> = by_words.iter().map(|(id, _)| id.as_str()).collect();
    let (deadline, allowed) = (Duration::from_millis(30), Duration::from_millis(40));

    let embedder = slow(200);
    let was_withdrawn = Arc::clone(&embedder.was_withdrawn);
    let pipeline = hybrid(&index, embedder).deadline(Some(deadline)).build().unwrap();
    let (answer, took) = in_time(&pipeline, allowed);
    println!("without reranking: {took:?}");
    assert!(took >= deadline && took <= allowed, "{took:?}");
    assert_eq!(ids(&answer), by_words);
    let retrievers = &answer.report.retrievers;
    assert_eq!(retrievers[0].found(), 100);
    assert_eq!(retrievers[1].outcome, RetrieverOutcome::TooLate);
    let notes = retrieval_notes(retrievers);
    assert!(notes[0].starts_with("dense did not answer within 3"), "{notes:?}");
    assert!(notes[0].ends_with("the candidates are from bm25 alone"), "{notes:?}");
    // The model does not go on for nobody.
    let patience = Instant::now() + Duration::from_secs(10);
    while !was_withdrawn.load(Ordering::SeqCst) {
        assert!(Instant::now() < patience, "the bi-encoder was not withdrawn");
        std::thread::sleep(Duration::from_millis(1));
    }

    // What comes after it gets its third of the time.
    let (name, fingerprint, engine) = ("level".to_owned(), "0".to_owned(), "test".to_owned());
    let reranker = Level(ModelIdentity { name, fingerprint, engine });
    let policy = Policy { deadline: Some(deadline), ..Policy::default() };
    let second_stage = SecondStage::new(reranker).with_policy(policy).unwrap();
    let pipeline = hybrid(&index, slow(200)).second_stage(second_stage).build().unwrap();
    let (answer, took) = in_time(&pipeline, allowed);
    println!("with reranking: {took:?}");
    assert!(took >= Duration::from_millis(20) && took <= allowed, "{took:?}");
    assert_eq!(answer.report.retrievers[1].outcome, RetrieverOutcome::TooLate);
    let second_stage = answer.report.second_stage.unwrap();
    assert!(second_stage.rerankers[0].pairs > 0, "{second_stage:?}");

    // With time enough both answer.
    let pipeline = hybrid(&index, slow(5)).deadline(Some(Duration::from_mins(1))).build().unwrap();
    let answer = pipeline.run_blocking(&Query::new(QUERY).unwrap()).unwrap();
    assert!(answer.report.retrievers.iter().all(|ran| ran.found() == 100), "{:?}", answer.report);
    assert!(retrieval_notes(&answer.report.retrievers).is_empty());
}

#[test]
fn strict_a_late_bi_encoder_is_an_error() {
    let shelf = shelf();
    let pipeline = hybrid(&shelf.index(), slow(60_000))
        .deadline(Some(Duration::from_millis(30)))
        .on_failure(OnFailure::Fail)
        .build()
        .unwrap();
    let error = pipeline.run_blocking(&Query::new(QUERY).unwrap()).unwrap_err();
    assert!(error.is_too_late() && error.to_string().starts_with("dense"), "{error}");
}

#[test]
fn a_query_of_stop_words_is_answered_by_meaning_alone() {
    let shelf = Shelf::new(Precision::F32);
    shelf.write_json("all.jsonl", [json!({"id": "a", "text": "to be or not to be"})]);
    shelf.add();
    let index = shelf.index();
    let query = Query::new("to be").unwrap();
    let pipeline = hybrid(&index, slow(0)).on_failure(OnFailure::Fail).build().unwrap();
    let answer = pipeline.run_blocking(&query).unwrap();
    assert_eq!(ids(&answer), ["a#0"]);
    let outcome = &answer.report.retrievers[0].outcome;
    assert!(matches!(outcome, RetrieverOutcome::NothingToLookUp { .. }), "{outcome:?}");
    let alone = Pipeline::builder().retriever(index.bm25(Bm25Options::default())).build().unwrap();
    let error = alone.run_blocking(&query).unwrap_err();
    assert!(matches!(error, Error::NothingToLookUp { .. }), "{error}");
}

/// An index of so many passages, two in three of which are in one language.
fn large(passages: usize) -> Shelf {
    let shelf = Shelf::of_words();
    let lang = |n: usize| if n.is_multiple_of(3) { "de" } else { "en" };
    let record = |n: usize| json!({"id": n.to_string(), "text": text(n as u64, 8, 1000), "lang": lang(n), "n": n});
    shelf.write_json("all.jsonl", (0..passages).map(record));
    shelf.add();
    shelf
}

/// How long polling the search holds up whoever polls it, and how long the search takes. The filter is
/// a new one for each number, so that nothing of it is known.
fn polled_and_searched(index: &Index, number: usize) -> (Duration, Duration) {
    let bm25 = index.bm25(Bm25Options::default());
    let filter = Filter::parse(&format!("lang = en AND n > {number}")).unwrap();
    let query = Query::new("w1 w2 w3").unwrap().with_filter(filter);
    let call = Call::new();
    let start = Instant::now();
    let mut search = pin!(bm25.retrieve(&call, &query, 10));
    let is_pending = search.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
    let polled = start.elapsed();
    assert!(is_pending, "the search ran in the poll, or ended within {polled:?}");
    let ranking = pollster::block_on(search).unwrap();
    assert_eq!(ranking.len(), 10);
    (polled, start.elapsed())
}

/// `TOPSHELF_PASSAGES=1000000` measures a large index.
#[test]
fn a_search_with_a_filter_does_not_hold_up_who_polls_it() {
    let passages = std::env::var("TOPSHELF_PASSAGES").ok().and_then(|n| n.parse().ok());
    let shelf = large(passages.unwrap_or(20_000));
    let index = shelf.index();
    let runs: Vec<(Duration, Duration)> =
        (0..RUNS).map(|number| polled_and_searched(&index, number)).collect();
    let polled = runs.iter().map(|(polled, _)| *polled).min().unwrap();
    let searched = runs.iter().map(|(_, searched)| *searched).min().unwrap();
    println!("polled {polled:?}, searched {searched:?}; all runs: {runs:?}");
    assert!(polled < Duration::from_millis(1) && polled < searched / 4, "{polled:?}, {searched:?}");
}
