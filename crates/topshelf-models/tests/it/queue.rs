//! Many callers of one model at once get, to the bit, what each gets alone.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use pollster::block_on;
use serde::Deserialize;
use topshelf_core::{Call, EmbedKind, Embedder, Passage, Query, Reranker};
use topshelf_models::{BiEncoder, CrossEncoder, LateInteraction, QueueStats};

use super::inference::{BI, CROSS, bits, folder};
use super::late_interaction::LATE;

/// Callers at once.
const CALLERS: u64 = 5;

/// Requests of each.
const REQUESTS: usize = 6;

#[derive(Deserialize)]
struct Texts {
    queries: Vec<String>,
    documents: Vec<String>,
}

fn texts() -> Texts {
    serde_json::from_str(include_str!("../data/pairs.json")).unwrap()
}

/// Numbers that look random, the same at every run (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }

    /// Mostly few, sometimes many, seldom none.
    fn size(&mut self) -> usize {
        match self.below(8) {
            0 => self.below(60),
            1 => 0,
            _ => 1 + self.below(6),
        }
    }

    fn documents(&mut self, texts: &Texts) -> Vec<String> {
        let count = self.size();
        (0..count).map(|_| texts.documents[self.below(texts.documents.len())].clone()).collect()
    }
}

/// Lets callers ask at once, each for requests of its own, and compares with what `alone` says of the
/// same. `ask` may go away without an answer.
fn compare<R: Send + Sync>(
    stats: &QueueStats,
    request: impl Fn(&mut Random) -> R + Sync,
    ask: impl Fn(&R) -> Option<Vec<u32>> + Sync,
    alone: impl Fn(&R) -> Vec<u32>,
) {
    let asked: Vec<(R, Option<Vec<u32>>)> = thread::scope(|scope| {
        let (request, ask) = (&request, &ask);
        let start = |seed| {
            scope.spawn(move || {
                let mut random = Random(seed);
                let one = |_| {
                    let request = request(&mut random);
                    let answer = ask(&request);
                    (request, answer)
                };
                (0..REQUESTS).map(one).collect::<Vec<_>>()
            })
        };
        let callers: Vec<_> = (0..CALLERS).map(start).collect();
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
    });
    let mut answered = 0;
    for (request, answer) in asked {
        if let Some(answer) = answer {
            answered += 1;
            assert!(answer == alone(&request));
        }
    }
    assert!(answered > 10, "{answered}");
    let after = stats.counts();
    assert_eq!((after.waiting, after.under_way, after.tokens_ahead), (0, 0, 0));
}

/// A query with its documents, and the deadline.
type Asked = (Query, Vec<Arc<Passage>>, Option<Duration>);

fn asked(texts: &Texts, random: &mut Random) -> Asked {
    let query = Query::new(&texts.queries[random.below(texts.queries.len())]).unwrap();
    let documents = random.documents(texts);
    let passages = documents.iter().map(|text| Arc::new(Passage::standalone("", "", text)));
    let deadline = match random.below(4) {
        0 => None,
        1 => Some(Duration::ZERO),
        _ => Some(Duration::from_millis(random.below(500) as u64)),
    };
    (query, passages.collect(), deadline)
}

/// The scores' bits.
fn scores(model: &dyn Reranker, call: &Call, query: &Query, passages: &[Arc<Passage>]) -> Vec<u32> {
    let outcomes = block_on(model.score(call, query, passages)).unwrap();
    outcomes.into_iter().map(|outcome| outcome.unwrap().score.to_bits()).collect()
}

fn rerank_at_once(model: &dyn Reranker, stats: &QueueStats) {
    let texts = texts();
    compare(
        stats,
        |random| asked(&texts, random),
        |(query, passages, deadline)| {
            let call = Call::new();
            let call = deadline.map_or(call.clone(), |time| call.due_at(Instant::now() + time));
            if passages.len() % 5 == 4 {
                // This one goes away after a moment, as a client does who hangs up.
                let mut future = model.score(&call, query, passages);
                let waker = std::task::Waker::noop();
                let mut context = std::task::Context::from_waker(waker);
                let is_done = future.as_mut().poll(&mut context).is_ready();
                thread::sleep(Duration::from_millis(passages.len() as u64));
                assert!(!is_done);
                return None;
            }
            Some(scores(model, &call, query, passages))
        },
        |(query, passages, _)| {
            let alone = |passage: &Arc<Passage>| {
                scores(model, &Call::new(), query, std::slice::from_ref(passage))
            };
            passages.iter().flat_map(alone).collect()
        },
    );
}

#[test]
fn logits_of_many_callers_are_those_of_each_alone() {
    let model = CrossEncoder::from_folder(&folder(CROSS)).unwrap();
    rerank_at_once(&model, &model.queue());
}

#[test]
fn max_sims_of_many_callers_are_those_of_each_alone() {
    let model = LateInteraction::from_folder(&folder(LATE)).unwrap();
    rerank_at_once(&model, &model.queue());
}

#[test]
fn vectors_of_many_callers_are_those_of_each_alone() {
    let model = BiEncoder::from_folder(&folder(BI)).unwrap();
    let texts = texts();
    let embed = |kind: EmbedKind, texts: &[String]| -> Vec<u32> {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let vectors = block_on(model.embed(&Call::new(), kind, &texts)).unwrap();
        vectors.iter().flat_map(|vector| bits(vector)).collect()
    };
    compare(
        &model.queue(),
        |random| {
            let kind = if random.below(2) == 0 { EmbedKind::Query } else { EmbedKind::Passage };
            (kind, random.documents(&texts))
        },
        |(kind, texts)| Some(embed(*kind, texts)),
        |(kind, texts)| texts.chunks(1).flat_map(|text| embed(*kind, text)).collect(),
    );
}
