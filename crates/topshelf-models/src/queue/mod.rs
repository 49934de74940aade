//! The queue in front of a model that encodes: many callers, one engine, micro-batches of all that
//! wait.
//!
//! ```text
//! callers ─► places ─► requests by due time ─► one call of the engine ─► rows to each request ─► answers
//!                           ▲                                                      │
//!                           └────────────── those that are not finished ◄──────────┘
//! ```
//!
//! Each loaded encoder has one [`Queue`] and a thread behind it. The thread goes round: it lets in
//! what has arrived, drops what nobody waits for, sorts the rest by due time, tokenises as far as the
//! next call needs it, puts the call together from all requests ([`crate::batch`]) and hands the rows
//! back. So a small request overtakes a large one between two calls, and small ones share a call.
//!
//! ```text
//! due = max(arrival, min(deadline, arrival + 4 · time alone))
//! ```
//!
//! The time alone is its tokens at the pace of late ([`QueueStats::time_of`]); the deadline is that
//! of the call ([`Call::due`]). **Nothing starves**: a due time never changes, and
//! what arrives after it is due later. A deadline can only bring a request forward: a client with
//! patience is not made to wait for it.
//!
//! * **Same bits as alone.** A sequence's rows depend on that sequence alone ([`crate::encoder`]).
//! * **A full queue holds callers back**: their futures wait for one of [`PLACES`] places, which go to
//!   the one that is due first; no thread is blocked.
//! * **Dropping the future withdraws the request** ([`Call::hand_over`]): what has not run never does, and
//!   of what is under way nothing goes into the next call.
//! * **A panic or a failure stays where it belongs.** If a call of several requests fails, each one's
//!   part is run alone, so that only the guilty one gets the error.
//! * **Long texts are tokenised in portions** of [`PORTION`] bytes, between which more urgent requests
//!   go first.
//!
//! | for | see |
//! | --- | --- |
//! | what a request is made of | `piecework` |
//! | the thread | `runner` |
//! | the counters | `stats` |

mod piecework;
mod runner;
mod stats;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_channel::oneshot;
use topshelf_core::Call;

use self::piecework::Errand;
pub(crate) use self::piecework::{Piecework, Sequences};
use self::runner::{Request, Runner};
use self::stats::Account;
pub use self::stats::{QueueCounts, QueueStats, WAIT_BOUNDS_MS};
use crate::encoder::{Encoder, Output};
use crate::error::{ModelError, Result};
use crate::worker::block_on;

/// The requests that the queue puts in order; further ones wait for a place.
const PLACES: usize = 256;

/// So many times as long as it takes alone may a request take before it goes first.
const PATIENCE: u32 = 4;

/// Bytes of text that are tokenised between two looks at what has arrived: 14 ms on two threads,
/// a third of a call.
const PORTION: usize = 128 * 1024;

/// No request is due later than so long after its arrival.
const LATEST: Duration = Duration::from_hours(1);

/// When a request is due, and its number for those that are due at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Due(Instant, u64);

/// A model's thread with the requests that wait for it.
pub(crate) struct Queue {
    name: Arc<str>,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    arrival: Condvar,
    stats: Arc<QueueStats>,
}

struct State {
    arrived: Vec<Request>,
    free_places: usize,
    /// Callers who found no place free, by when they are due.
    held_back: Vec<(Due, oneshot::Sender<Place>)>,
    /// How many requests have come so far.
    count: u64,
    is_closed: bool,
}

/// A place in the queue; dropped, it goes to the next.
struct Place(Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.held_back.retain(|(_, caller)| !caller.is_canceled());
        let waiting = state.held_back.iter().enumerate();
        let Some((first, _)) = waiting.min_by_key(|(_, (due, _))| *due) else {
            state.free_places += 1;
            return;
        };
        let (_, caller) = state.held_back.swap_remove(first);
        drop(state);
        // From a caller who has gone away this very moment it comes back, and is dropped again.
        let _ = caller.send(Place(Arc::clone(&self.0)));
    }
}

impl Shared {
    /// Nothing that can panic runs under the lock, so a poisoned one still guards a sound state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves what has arrived to `requests`, and waits for something where there is nothing. False
    /// when the queue is gone.
    fn let_in(&self, requests: &mut Vec<Request>) -> bool {
        let mut state = self.lock();
        while requests.is_empty() && state.arrived.is_empty() && !state.is_closed {
            state = self.arrival.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        requests.append(&mut state.arrived);
        !state.is_closed
    }
}

impl Queue {
    /// Starts the thread for the model of this name, of which `want` is wanted.
    ///
    /// # Errors
    ///
    /// [`ModelError::Inference`] if the system gives no thread.
    pub(crate) fn start(name: &str, encoder: Arc<dyn Encoder>, want: Output) -> Result<Self> {
        let name: Arc<str> = name.into();
        let state = State {
            arrived: Vec::new(),
            free_places: PLACES,
            held_back: Vec::new(),
            count: 0,
            is_closed: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            arrival: Condvar::new(),
            stats: Arc::default(),
        });
        let runner = Runner::new(Arc::clone(&name), encoder, want, Arc::clone(&shared));
        std::thread::Builder::new()
            .name("topshelf-model".to_owned())
            .spawn(move || runner.run())
            .map_err(|error| ModelError::Inference {
            name: name.to_string(),
            reason: format!("cannot start its thread: {error}"),
        })?;
        Ok(Self { name, shared })
    }

    /// Its counters.
    pub(crate) fn stats(&self) -> &Arc<QueueStats> {
        &self.shared.stats
    }

    /// Runs a request's work between that of others, as a part of the call. Of its answer nothing is
    /// wanted after the call is due; the caller sees to that by dropping the future.
    ///
    /// # Errors
    ///
    /// What the work answers, what the encoder says of it, and [`ModelError::Inference`] for a
    /// panic in either.
    pub(crate) async fn run<P: Piecework>(&self, call: &Call, piecework: P) -> Result<P::Answer> {
        let (part, _guard) = call.hand_over();
        let account = Account::open(&self.shared.stats, part, &self.name, piecework.guess());
        let (due, place) = self.place(&account, call.due());
        let place = match place {
            Ok(place) => place,
            Err(free) => free.await.map_err(|_| self.ended())?,
        };
        let (reply, answer) = oneshot::channel();
        let errand = Errand { name: Arc::clone(&self.name), piecework, reply };
        self.shared.lock().arrived.push(Request::new(due, Box::new(errand), account, place));
        self.shared.arrival.notify_one();
        answer.await.unwrap_or_else(|_| Err(self.ended()))
    }

    /// [`Self::run`] for callers without an executor: blocks this thread until the answer is
    /// there.
    ///
    /// # Errors
    ///
    /// As [`Self::run`].
    pub(crate) fn run_blocking<P: Piecework>(&self, piecework: P) -> Result<P::Answer> {
        block_on(self.run(&Call::new(), piecework))
    }

    /// When the request is due, and its place or where that will come from.
    fn place(
        &self,
        account: &Account,
        deadline: Option<Instant>,
    ) -> (Due, std::result::Result<Place, oneshot::Receiver<Place>>) {
        let arrival = account.arrived();
        let alone = self.shared.stats.time_of(account.tokens());
        let fair = arrival + alone.saturating_mul(PATIENCE).min(LATEST);
        let moment = deadline.map_or(fair, |deadline| deadline.min(fair)).max(arrival);

        let mut state = self.shared.lock();
        let due = Due(moment, state.count);
        state.count += 1;
        if state.free_places > 0 {
            state.free_places -= 1;
            return (due, Ok(Place(Arc::clone(&self.shared))));
        }
        let (sender, receiver) = oneshot::channel();
        state.held_back.push((due, sender));
        (due, Err(receiver))
    }

    fn ended(&self) -> ModelError {
        let reason = "its thread ended before the work was done".to_owned();
        ModelError::Inference { name: self.name.to_string(), reason }
    }
}

impl Drop for Queue {
    /// The thread finishes the call that it is at and ends; futures borrow the queue, so nobody
    /// waits.
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.arrival.notify_one();
    }
}
