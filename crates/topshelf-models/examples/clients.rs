//! How long callers of one model wait: the default cross-encoder under the loads that decided how
//! its queue works ([decision 11](../../../docs/decisions/0011-queue.md)).
//!
//! ```text
//! clients alone TIMES      one client with 100 short pairs, again and again
//! clients mixed SECONDS    one client with 1,000 pairs and one with 5, each again and again
//! clients crowd SECONDS    sixteen clients with 5 pairs each, again and again
//! clients calls TIMES      the engine alone, by the number of tokens in a call
//! ```
//!
//! Each line is one kind of client: how often it was answered, and the median, the 99th percentile
//! and the worst of its times in milliseconds.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Deserialize;
use topshelf_models::encoder::{Output, Sequence, TokenBatch};
use topshelf_models::engine::{self, Settings};
use topshelf_models::{CrossEncoder, Store};

const MODEL: &str = "cross-encoder/ms-marco-MiniLM-L12-v2";

type Outcome<T> = Result<T, Box<dyn Error>>;

#[derive(Deserialize)]
struct Texts {
    queries: Vec<String>,
    documents: Vec<String>,
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [load, amount] = arguments.as_slice() else {
        return Err("two arguments are wanted: a load and how much of it".into());
    };
    let amount: usize = amount.parse()?;
    match load.as_str() {
        "calls" => return by_call(amount),
        "alone" | "mixed" | "crowd" => {}
        _ => return Err("the loads are alone, mixed, crowd and calls".into()),
    }
    let folder = Store::open_default()?.find_or_pull(MODEL, &())?;
    let model = CrossEncoder::from_folder(&folder)?;
    client(&model, 100, |times| times < 2)?;
    let end = Instant::now() + Duration::from_secs(amount as u64);
    match load.as_str() {
        "alone" => report("100 pairs", client(&model, 100, |times| times < amount)?),
        "mixed" => {
            let done = AtomicBool::new(false);
            let (large, small) = std::thread::scope(|scope| {
                let large = scope.spawn(|| {
                    client(&model, 1000, |_| !done.load(Ordering::Relaxed))
                        .map_err(|e| e.to_string())
                });
                let small = client(&model, 5, |_| Instant::now() < end);
                done.store(true, Ordering::Relaxed);
                (large.join(), small)
            });
            report("5 pairs", small?);
            report("1,000 pairs", large.map_err(|_| "a client panicked")??);
        }
        _ => {
            let all: Vec<_> = std::thread::scope(|scope| {
                let start = |_| {
                    scope.spawn(|| {
                        client(&model, 5, |_| Instant::now() < end).map_err(|e| e.to_string())
                    })
                };
                let clients: Vec<_> = (0..16).map(start).collect();
                clients.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
            });
            let mut times = Vec::new();
            for own in all {
                times.extend(own.map_err(|_| "a client panicked")??);
            }
            report("5 pairs, 16 clients", times);
        }
    }
    Ok(())
}

/// Asks for that many pairs as long as `again` says of the number of answers so far; the answer is
/// the milliseconds of each.
fn client(model: &CrossEncoder, pairs: usize, again: impl Fn(usize) -> bool) -> Outcome<Vec<f64>> {
    let texts: Texts = serde_json::from_str(include_str!("../tests/data/pairs.json"))?;
    let (queries, documents) = (texts.queries.len(), texts.documents.len());
    let mut times = Vec::new();
    while again(times.len()) {
        let query = times.len() % queries;
        let pairs: Vec<(&str, &str)> = (0..pairs)
            .map(|place| {
                (
                    &*texts.queries[(query + place / documents) % queries],
                    &*texts.documents[place % documents],
                )
            })
            .collect();
        let start = Instant::now();
        model.predict(&pairs)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

fn report(who: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    let (count, median, late, worst) = (times.len(), at(0.5), at(0.99), at(1.0));
    println!("{who}: {count} answers, median {median:.2}, 99 % {late:.2}, worst {worst:.2} ms");
}

/// The engine's pace with calls of several sizes, which take turns.
fn by_call(times: usize) -> Outcome<()> {
    const LENGTH: usize = 64;
    const SIZES: [usize; 7] = [64, 128, 256, 512, 1024, 2048, 4096];
    let folder = Store::open_default()?.find_or_pull(MODEL, &())?;
    let encoder = engine::open(&folder, Settings::from_env()?)?;
    let sequence = Sequence {
        ids: (0..LENGTH).map(|place| 2000 + place as u32).collect(),
        type_ids: vec![0; LENGTH],
        unattended: 0,
    };
    let mut took = [const { Vec::new() }; SIZES.len()];
    for _ in 0..times {
        for (size, took) in SIZES.iter().zip(&mut took) {
            let batch: TokenBatch = (0..size / LENGTH).map(|_| &sequence).collect();
            let start = Instant::now();
            encoder.encode(&batch, Output::Logits)?;
            took.push(start.elapsed().as_secs_f64() * 1e6 / *size as f64);
        }
    }
    for (size, mut took) in SIZES.into_iter().zip(took) {
        took.sort_by(f64::total_cmp);
        let median = took[took.len() / 2];
        println!(
            "{size} tokens: {median:.2} microseconds a token, {:.2} ms a call",
            median * size as f64 / 1e3
        );
    }
    Ok(())
}
