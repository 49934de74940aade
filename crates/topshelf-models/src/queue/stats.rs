//! [`QueueStats`]: what a model's queue holds now and did so far, for a server's metrics.
//!
//! The numbers are counted up where they arise, without a lock, so those of one look may be of
//! moments that lie a little apart.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use topshelf_core::Call;
use tracing::Span;
use tracing::field::Empty;

/// Upper bounds of [`QueueCounts::waits`] in milliseconds; the last bucket has none.
pub const WAIT_BOUNDS_MS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];

/// Nanoseconds a token, until there was a call: MiniLM-L12 on two cores.
const UNKNOWN_PACE: f64 = 20_000.0;

/// Counters of one model's queue.
#[derive(Debug, Default)]
pub struct QueueStats {
    waiting: AtomicUsize,
    under_way: AtomicUsize,
    tokens_ahead: AtomicUsize,
    answered: AtomicU64,
    withdrawn: AtomicU64,
    calls: AtomicU64,
    sequences: AtomicU64,
    tokens: AtomicU64,
    busy: AtomicU64,
    waited: AtomicU64,
    waits: [AtomicU64; WAIT_BOUNDS_MS.len() + 1],
    /// Bits of nanoseconds a token; 0 before the first call.
    pace: AtomicU64,
}

/// What [`QueueStats`] says at one look.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QueueCounts {
    /// Requests of which nothing has run yet, those that found the queue full among them.
    pub waiting: usize,
    /// Requests of which a part has run.
    pub under_way: usize,
    /// Tokens that are still to be computed for all of them; guessed from the length of their text
    /// until that is tokenised.
    pub tokens_ahead: usize,
    /// Requests that had their answer, which may have been an error.
    pub answered: u64,
    /// Requests whose callers went away before.
    pub withdrawn: u64,
    /// Calls of the engine.
    pub calls: u64,
    /// Sequences in them.
    pub sequences: u64,
    /// Tokens in them.
    pub tokens: u64,
    /// Time that they took.
    pub busy: Duration,
    /// Time from the arrival of requests to their first call, summed.
    pub waited: Duration,
    /// The same by length: how many waited up to each of [`WAIT_BOUNDS_MS`] and longer than the one
    /// before, and how many longer than all.
    pub waits: [u64; WAIT_BOUNDS_MS.len() + 1],
    /// Time that a token takes, as of late.
    pub pace: Duration,
}

impl QueueStats {
    /// The numbers of this moment.
    pub fn counts(&self) -> QueueCounts {
        let (number, size) = (
            |number: &AtomicU64| number.load(Ordering::Relaxed),
            |number: &AtomicUsize| number.load(Ordering::Relaxed),
        );
        QueueCounts {
            waiting: size(&self.waiting),
            under_way: size(&self.under_way),
            tokens_ahead: size(&self.tokens_ahead),
            answered: number(&self.answered),
            withdrawn: number(&self.withdrawn),
            calls: number(&self.calls),
            sequences: number(&self.sequences),
            tokens: number(&self.tokens),
            busy: Duration::from_nanos(number(&self.busy)),
            waited: Duration::from_nanos(number(&self.waited)),
            waits: self.waits.each_ref().map(number),
            pace: self.time_of(1),
        }
    }

    /// How long so many tokens take at the pace of late, alone.
    pub fn time_of(&self, tokens: usize) -> Duration {
        let pace = f64::from_bits(self.pace.load(Ordering::Relaxed));
        let pace = if pace > 0.0 { pace } else { UNKNOWN_PACE };
        Duration::from_nanos((tokens as f64 * pace) as u64)
    }

    /// Counts a call of the engine.
    pub(super) fn called(&self, sequences: usize, tokens: usize, took: Duration) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.sequences.fetch_add(sequences as u64, Ordering::Relaxed);
        self.tokens.fetch_add(tokens as u64, Ordering::Relaxed);
        self.busy.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }
}

/// The pace as a mean over calls, each with the weight of its tokens, the later ones with more.
#[derive(Debug, Default)]
pub(super) struct Pace {
    nanoseconds: f64,
    tokens: f64,
}

impl Pace {
    /// Learns from a call and tells.
    pub(super) fn learn(&mut self, tokens: usize, took: Duration, stats: &QueueStats) {
        /// What a call counts when the next one is there.
        const KEPT: f64 = 0.9;
        self.nanoseconds = self.nanoseconds * KEPT + took.as_nanos() as f64;
        self.tokens = self.tokens * KEPT + tokens as f64;
        stats.pace.store((self.nanoseconds / self.tokens).to_bits(), Ordering::Relaxed);
    }
}

/// One request in the counters, in the trace, and in the call of whoever asked; dropping it takes it out.
pub(super) struct Account {
    stats: Arc<QueueStats>,
    call: Call,
    span: Span,
    arrived: Instant,
    /// Still to be computed.
    tokens: usize,
    has_begun: bool,
    is_answered: bool,
}

impl Account {
    /// A request to this model that arrives now as this call, with a guess of its tokens.
    pub(super) fn open(stats: &Arc<QueueStats>, call: Call, model: &str, tokens: usize) -> Self {
        stats.waiting.fetch_add(1, Ordering::Relaxed);
        stats.tokens_ahead.fetch_add(tokens, Ordering::Relaxed);
        Self {
            stats: Arc::clone(stats),
            call,
            span: tracing::debug_span!("encode", model, tokens = Empty, waited_ms = Empty),
            arrived: Instant::now(),
            tokens,
            has_begun: false,
            is_answered: false,
        }
    }

    pub(super) fn arrived(&self) -> Instant {
        self.arrived
    }

    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Whether nobody waits for the answer.
    pub(super) fn is_withdrawn(&self) -> bool {
        self.call.is_withdrawn()
    }

    /// It is known now how many tokens there are to compute.
    pub(super) fn is_of(&mut self, tokens: usize) {
        self.stats.tokens_ahead.fetch_add(tokens, Ordering::Relaxed);
        self.stats.tokens_ahead.fetch_sub(self.tokens, Ordering::Relaxed);
        self.tokens = tokens;
    }

    /// A part of it goes to the engine.
    pub(super) fn begin(&mut self) {
        if self.has_begun {
            return;
        }
        self.has_begun = true;
        self.stats.waiting.fetch_sub(1, Ordering::Relaxed);
        self.stats.under_way.fetch_add(1, Ordering::Relaxed);
        let waited = self.arrived.elapsed();
        self.span.record("tokens", self.tokens);
        self.span.record("waited_ms", waited.as_secs_f64() * 1e3);
        self.call.wait(waited);
        let bound = |&bound: &u64| waited > Duration::from_millis(bound);
        let bucket = WAIT_BOUNDS_MS.iter().take_while(|&at| bound(at)).count();
        self.stats.waits[bucket].fetch_add(1, Ordering::Relaxed);
        self.stats.waited.fetch_add(waited.as_nanos() as u64, Ordering::Relaxed);
    }

    /// So many of its tokens came back.
    pub(super) fn computed(&mut self, tokens: usize) {
        self.is_of(self.tokens - tokens);
    }

    /// Takes it out because it gets its answer.
    pub(super) fn answer(mut self) {
        self.is_answered = true;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.is_of(0);
        let held = if self.has_begun { &self.stats.under_way } else { &self.stats.waiting };
        held.fetch_sub(1, Ordering::Relaxed);
        let ended = if self.is_answered { &self.stats.answered } else { &self.stats.withdrawn };
        ended.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_until_it_ends() {
        let stats = Arc::default();
        let call = Call::new();
        let mut first = Account::open(&stats, call.part(), "m", 100);
        let second = Account::open(&stats, call.part(), "m", 7);
        assert_eq!((stats.counts().waiting, stats.counts().tokens_ahead), (2, 107));
        first.is_of(90);
        first.begin();
        first.begin();
        first.computed(50);
        let counts = stats.counts();
        assert_eq!((counts.waiting, counts.under_way, counts.tokens_ahead), (1, 1, 47));
        assert_eq!(counts.waits.iter().sum::<u64>(), 1);
        first.answer();
        drop(second);
        let counts = stats.counts();
        assert_eq!((counts.waiting, counts.under_way, counts.tokens_ahead), (0, 0, 0));
        assert_eq!((counts.answered, counts.withdrawn), (1, 1));
    }

    #[test]
    fn the_pace_is_that_of_tokens_not_of_calls() {
        let stats = QueueStats::default();
        assert_eq!(stats.time_of(3), Duration::from_micros(60));
        let mut pace = Pace::default();
        pace.learn(1000, Duration::from_millis(1), &stats);
        assert_eq!(stats.time_of(5), Duration::from_micros(5));
        pace.learn(10, Duration::from_micros(100), &stats); // a tiny call, dear for its size
        assert!(stats.counts().pace < Duration::from_nanos(1200));
        for _ in 0..100 {
            pace.learn(1000, Duration::from_millis(3), &stats);
        }
        assert!((2990..=3000).contains(&stats.counts().pace.as_nanos()));
    }
}
