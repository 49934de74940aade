//! One reranker over passages, as far as time and need go.
//!
//! Without a deadline and without an early stop all passages go to the reranker in one call. With
//! either they go in micro-batches, in the order in which they matter, and between two of them it
//! is decided whether another one pays:
//!
//! * **Deadline.** How long a micro-batch will take is predicted from the bytes in it and the pace
//!   seen so far ([`Pace`]). The first is to take a quarter of the time that is left, each later one
//!   half, so that they shrink towards the deadline and a wrong prediction costs little. When even
//!   one passage does not fit, scoring ends. A micro-batch that is still under way at the deadline is
//!   withdrawn, so that the deadline holds even where the reranker does not answer at all. The deadline
//!   is that of the call ([`Call::due`]), which the reranker sees too.
//! * **Early stop.** See [`crate::early_stop`].
//!
//! A reranker of which a part takes as long as the whole ([`Grain::Call`]) is asked once, for all.
//!
//! A score that is not finite is the reranker's failure: none of its scores is used then.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_timer::Delay;

use crate::call::Call;
use crate::error::{Error, Result};
use crate::passage::{Passage, Query};
use crate::stage::{Grain, RerankOutcome, Reranker};

/// Passages in a micro-batch whose size nothing else decides.
const BATCH: usize = 16;

/// Passages in the first micro-batch of a reranker whose pace is not known yet.
const UNKNOWN: usize = 2;

/// Bytes of a passage beyond which it does not take longer: no reranker reads more windows.
const LONGEST: usize = 16_384;

/// Why scoring ended before the last passage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The deadline.
    Deadline,
    /// What was left could not enter the top.
    Early,
}

/// Whether the outcomes so far leave nothing to look for.
pub(crate) type Enough<'a> = dyn Fn(&[RerankOutcome]) -> bool + Sync + 'a;

/// The outcomes of the first passages, and why there are no more.
pub(crate) struct Scored {
    pub(crate) outcomes: Vec<RerankOutcome>,
    pub(crate) cut: Option<Cut>,
}

impl Scored {
    /// Whether the deadline came before the first score.
    pub(crate) fn is_nothing_in_time(&self) -> bool {
        self.outcomes.is_empty() && self.cut == Some(Cut::Deadline)
    }

    /// Why there are no more scores, if that is a failure of the reranker and not only of the time: it
    /// has failed before, which `last_words` tell of, or it has answered nothing and another stands in.
    pub(crate) fn too_late(&self, is_last: bool, last_words: Option<String>) -> Option<String> {
        let time =
            if is_last { "the deadline came" } else { "half of the time that was left was over" };
        match last_words.filter(|_| self.cut == Some(Cut::Deadline)) {
            Some(words) => Some(format!("{words}; {time} before another try")),
            None if !is_last && self.is_nothing_in_time() => {
                Some("it did not answer in half of the time that was left".to_owned())
            }
            None => None,
        }
    }
}

/// Nanoseconds that a reranker takes for a byte of text: a running mean over micro-batches, shared
/// by all queries.
#[derive(Debug, Default)]
pub(crate) struct Pace(AtomicU64);

impl Pace {
    fn nanoseconds_per_byte(&self) -> Option<f64> {
        Some(f64::from_bits(self.0.load(Ordering::Relaxed))).filter(|pace| *pace > 0.0)
    }

    fn learn(&self, bytes: usize, took: Duration) {
        /// What the latest micro-batch counts.
        const LATEST: f64 = 0.3;
        let seen = took.as_nanos() as f64 / bytes.max(1) as f64;
        let pace = self.nanoseconds_per_byte().map_or(seen, |old| old + LATEST * (seen - old));
        // Two queries at once may overwrite each other's lesson; either is a good one.
        self.0.store(pace.to_bits(), Ordering::Relaxed);
    }
}

/// A reranker with what is known of its speed. Clones share that.
#[derive(Clone)]
pub(crate) struct TimedReranker {
    pub(crate) reranker: Arc<dyn Reranker>,
    pace: Arc<Pace>,
}

impl TimedReranker {
    pub(crate) fn new(reranker: Arc<dyn Reranker>) -> Self {
        Self { reranker, pace: Arc::default() }
    }

    /// Scores `passages` from the first on, until the call is due. `enough` is asked after each
    /// micro-batch with the outcomes so far, if it is there, and ends the scoring by answering true.
    pub(crate) async fn score(
        &self,
        call: &Call,
        query: &Query,
        passages: &[Arc<Passage>],
        enough: Option<&Enough<'_>>,
    ) -> Result<Scored> {
        let (reranker, pace) = (self.reranker.as_ref(), self.pace.as_ref());
        let mut outcomes: Vec<RerankOutcome> = Vec::with_capacity(passages.len());
        let in_parts = reranker.grain() == Grain::Pair;
        let enough = enough.filter(|_| in_parts);
        let cost = |passage: &Passage| query.text().len() + passage.text.len().min(LONGEST);
        let cut = loop {
            let rest = &passages[outcomes.len()..];
            if rest.is_empty() {
                break None;
            }
            if !outcomes.is_empty() && enough.is_some_and(|enough| enough(&outcomes)) {
                break Some(Cut::Early);
            }
            let most = if enough.is_some() { BATCH.min(rest.len()) } else { rest.len() };
            let mut count = most;
            if let Some(left) = call.time_left() {
                let share = if outcomes.is_empty() { 0.25 } else { 0.5 };
                let known = pace.nanoseconds_per_byte();
                count = match known.filter(|_| in_parts) {
                    Some(pace) => {
                        let left = left.as_nanos() as f64;
                        fitting(rest.iter().map(|p| pace * cost(p) as f64), left, share).min(most)
                    }
                    None if left.is_zero() => 0,
                    None if !in_parts => most,
                    None => UNKNOWN.min(most),
                };
                if count == 0 {
                    break Some(Cut::Deadline);
                }
            }
            let batch = &rest[..count];
            let start = Instant::now();
            let scoring = reranker.score(call, query, batch);
            let Some(scored) = before(call.due(), scoring).await else {
                break Some(Cut::Deadline);
            };
            let scored = checked(reranker, batch, scored?)?;
            let took = start.elapsed();
            // What was known took no time, and says nothing of what is not.
            let computed = scored
                .iter()
                .zip(batch)
                .filter(|(outcome, _)| outcome.as_ref().is_ok_and(|scored| !scored.cached));
            let bytes: usize = computed.map(|(_, passage)| cost(passage)).sum();
            if bytes > 0 {
                pace.learn(bytes, took);
            }
            outcomes.extend(scored);
        };
        Ok(Scored { outcomes, cut })
    }
}

/// The outcomes if there is one for each passage and every score is finite.
fn checked(
    reranker: &dyn Reranker,
    passages: &[Arc<Passage>],
    outcomes: Vec<RerankOutcome>,
) -> Result<Vec<RerankOutcome>> {
    let stage = || reranker.identity().name.clone();
    if outcomes.len() != passages.len() {
        let (expected, got) = (passages.len(), outcomes.len());
        return Err(Error::ScoreCount { stage: stage(), expected, got });
    }
    for (outcome, passage) in outcomes.iter().zip(passages) {
        if let Some(score) = outcome.as_ref().ok().map(|own| own.score).filter(|s| !s.is_finite()) {
            return Err(Error::NotFinite { stage: stage(), passage: passage.id.clone(), score });
        }
    }
    Ok(outcomes)
}

/// How many of the costs fit into a share of what is left; the first needs only to fit at all.
fn fitting(costs: impl Iterator<Item = f64>, left: f64, share: f64) -> usize {
    let mut sum = 0.0;
    costs
        .enumerate()
        .take_while(|&(place, cost)| {
            sum += cost;
            sum <= if place == 0 { left } else { left * share }
        })
        .count()
}

/// The future's value, or `None` once the moment is there, if there is one; the future is dropped then.
pub(crate) async fn before<T>(
    moment: Option<Instant>,
    future: impl Future<Output = T>,
) -> Option<T> {
    let Some(moment) = moment else { return Some(future.await) };
    let mut future = pin!(future);
    let mut delay = Delay::new(moment.saturating_duration_since(Instant::now()));
    std::future::poll_fn(|context| {
        if let Poll::Ready(value) = future.as_mut().poll(context) {
            return Poll::Ready(Some(value));
        }
        Pin::new(&mut delay).poll(context).map(|()| None)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn micro_batches_shrink_towards_the_deadline() {
        let tens = || std::iter::repeat_n(10.0, 100);
        assert_eq!(fitting(tens(), 400.0, 0.25), 10);
        assert_eq!(fitting(tens(), 300.0, 0.5), 15);
        assert_eq!(fitting(tens(), 12.0, 0.5), 1);
        assert_eq!(fitting(tens(), 9.0, 0.5), 0);
        assert_eq!(fitting(tens().take(3), 1e9, 0.5), 3);
    }

    #[test]
    fn a_future_that_never_ends_is_left_at_the_moment() {
        let start = Instant::now();
        let moment = start + Duration::from_millis(30);
        let value = pollster::block_on(before(Some(moment), std::future::pending::<()>()));
        assert_eq!(value, None);
        assert!(start.elapsed() >= Duration::from_millis(30));
        assert_eq!(pollster::block_on(before(Some(start), std::future::ready(7))), Some(7));
        assert_eq!(pollster::block_on(before(None, std::future::ready(7))), Some(7));
    }

    #[test]
    fn the_pace_follows_what_is_seen() {
        let pace = Pace::default();
        assert_eq!(pace.nanoseconds_per_byte(), None);
        pace.learn(100, Duration::from_micros(1));
        assert_eq!(pace.nanoseconds_per_byte(), Some(10.0));
        pace.learn(100, Duration::from_micros(2));
        assert_eq!(pace.nanoseconds_per_byte(), Some(13.0));
    }
}
