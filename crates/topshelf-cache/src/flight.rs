//! [`Flights`]: pairs that are being scored right now, so that whoever asks for one meanwhile waits
//! for it instead of scoring it again.
//!
//! A caller *takes off* with the pairs that nobody else is scoring and *joins* the others'. It first
//! scores and lands its own, and only then waits for those of others, so callers never wait for each
//! other in a circle. A caller that fails or goes away drops its [`Flight`]; those who joined are
//! told, and take off themselves.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_channel::oneshot;
use topshelf_core::RerankOutcome;

use crate::key::PairKey;

/// An outcome to come; an error if its caller has gone away.
pub(crate) type Joined = oneshot::Receiver<RerankOutcome>;

/// The pairs under way.
#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<HashMap<PairKey, Vec<oneshot::Sender<RerankOutcome>>>>);

/// Pairs that one caller has under way; dropping it gives up those that have not landed.
pub(crate) struct Flight<'a> {
    flights: &'a Flights,
    pairs: Vec<PairKey>,
}

/// What became of a pair that somebody wants to score.
pub(crate) enum Boarded<E> {
    /// It was scored in the meantime.
    Known(E),
    /// Somebody is scoring it.
    Joined(Joined),
    /// It is the caller's to score.
    Own,
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<PairKey, Vec<oneshot::Sender<RerankOutcome>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Divides pairs, each given once, into known, joined and own. `known` is asked again, since a
    /// pair may have landed after the caller looked.
    pub(crate) fn board<E>(
        &self,
        pairs: impl IntoIterator<Item = PairKey>,
        known: impl Fn(&PairKey) -> Option<E>,
    ) -> (Vec<Boarded<E>>, Flight<'_>) {
        let mut flight = Flight { flights: self, pairs: Vec::new() };
        let mut under_way = self.lock();
        let boarded = pairs
            .into_iter()
            .map(|pair| {
                if let Some(waiting) = under_way.get_mut(&pair) {
                    let (sender, receiver) = oneshot::channel();
                    waiting.push(sender);
                    return Boarded::Joined(receiver);
                }
                if let Some(entry) = known(&pair) {
                    return Boarded::Known(entry);
                }
                under_way.insert(pair, Vec::new());
                flight.pairs.push(pair);
                Boarded::Own
            })
            .collect();
        (boarded, flight)
    }
}

impl Flight<'_> {
    /// The pairs in it.
    pub(crate) fn pairs(&self) -> &[PairKey] {
        &self.pairs
    }

    /// Tells all who joined the outcomes, which are in the order of the pairs. They must be where
    /// `known` finds them by now.
    pub(crate) fn land(mut self, outcomes: &[RerankOutcome]) {
        let mut under_way = self.flights.lock();
        for (pair, outcome) in self.pairs.drain(..).zip(outcomes) {
            for waiting in under_way.remove(&pair).unwrap_or_default() {
                // It may have gone away, which is its own affair.
                let _ = waiting.send(outcome.clone());
            }
        }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if self.pairs.is_empty() {
            return;
        }
        let mut under_way = self.flights.lock();
        for pair in &self.pairs {
            // Dropping the senders tells those who joined.
            under_way.remove(pair);
        }
    }
}
