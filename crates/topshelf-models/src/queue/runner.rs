//! [`Runner`]: the thread behind a queue, round by round.

use std::cmp::Reverse;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::piecework::Work;
use super::stats::{Account, Pace};
use super::{Due, PORTION, Place, Sequences, Shared};
use crate::batch;
use crate::encoder::{Encoder, Output, Sequence, TokenBatch};
use crate::error::{ModelError, Result};
use crate::worker::panicked;

/// A request that waits or is under way.
pub(super) struct Request {
    due: Due,
    /// Gone with the answer.
    held: Option<Held>,
    /// Its sequences once it is read; those that have come back are empty.
    sequences: Option<Vec<Sequence>>,
    /// The sequences in the order in which they go, and the length of each.
    order: Vec<usize>,
    lengths: Vec<usize>,
    /// How many have gone.
    gone: usize,
    /// How many have not come back.
    left: usize,
}

/// What a request has until it is answered.
struct Held {
    work: Box<dyn Work>,
    account: Account,
    _place: Place,
}

/// A sequence in a call.
struct Slot {
    request: usize,
    sequence: usize,
    length: usize,
}

/// What came back: the numbers, and which are whose, slot by slot.
struct Rows {
    values: Vec<f32>,
    ranges: Vec<Range<usize>>,
}

pub(super) struct Runner {
    name: Arc<str>,
    encoder: Arc<dyn Encoder>,
    want: Output,
    shared: Arc<Shared>,
    requests: Vec<Request>,
    pace: Pace,
}

impl Request {
    pub(super) fn new(due: Due, work: Box<dyn Work>, account: Account, place: Place) -> Self {
        Self {
            due,
            held: Some(Held { work, account, _place: place }),
            sequences: None,
            order: Vec::new(),
            lengths: Vec::new(),
            gone: 0,
            left: 0,
        }
    }

    /// Whether somebody waits for its answer.
    fn is_wanted(&self) -> bool {
        self.held.as_ref().is_some_and(|held| !held.account.is_withdrawn())
    }

    fn is_read(&self) -> bool {
        self.sequences.is_some()
    }

    /// Tokens that have not come back, guessed before it is read.
    fn tokens(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.account.tokens())
    }

    /// The lengths of the sequences that have not gone, in the order in which they go.
    fn waiting(&self) -> &[usize] {
        if self.held.is_some() { &self.lengths[self.gone..] } else { &[] }
    }

    /// Tokenises texts of about so many bytes.
    fn read(&mut self, room: &mut usize) {
        let Some(held) = &mut self.held else { return };
        match held.work.read(room) {
            Ok(None) => {}
            Ok(Some(Sequences { all, leading })) => {
                self.order = batch::order(&all, leading);
                self.lengths = self.order.iter().map(|&index| all[index].len()).collect();
                self.left = all.len();
                held.account.is_of(self.lengths.iter().sum());
                self.sequences = Some(all);
                if self.left == 0 {
                    self.answer(Ok(()));
                }
            }
            Err(error) => self.answer(Err(error)),
        }
    }

    /// Takes the rows of one of its sequences, and answers after the last.
    fn take(&mut self, slot: &Slot, rows: &[f32]) {
        let (Some(held), Some(sequences)) = (&mut self.held, &mut self.sequences) else { return };
        if held.account.is_withdrawn() {
            return;
        }
        // It is not needed any more.
        let sequence = std::mem::take(&mut sequences[slot.sequence]);
        held.account.computed(slot.length);
        self.left -= 1;
        match held.work.take(slot.sequence, &sequence, rows) {
            Ok(()) if self.left > 0 => {}
            outcome => self.answer(outcome),
        }
    }

    /// Answers, unless that has happened. Whoever has the answer finds the place free.
    fn answer(&mut self, outcome: Result<()>) {
        if let Some(Held { work, account, _place: place }) = self.held.take() {
            account.answer();
            drop(place);
            work.answer(outcome);
        }
    }
}

impl Runner {
    pub(super) fn new(
        name: Arc<str>,
        encoder: Arc<dyn Encoder>,
        want: Output,
        shared: Arc<Shared>,
    ) -> Self {
        Self { name, encoder, want, shared, requests: Vec::new(), pace: Pace::default() }
    }

    /// Goes round until the queue is gone.
    pub(super) fn run(mut self) {
        while self.shared.let_in(&mut self.requests) {
            self.requests.retain(Request::is_wanted);
            self.requests.sort_unstable_by_key(|request| request.due);
            self.read();
            let slots = self.next_call();
            if !slots.is_empty() {
                self.call(&slots);
            }
        }
    }

    /// Tokenises what may go into the next call: the request that is first, and others that fit in
    /// beside it.
    fn read(&mut self) {
        let budget = self.encoder.token_budget();
        let (mut tokens, mut room) = (0, PORTION);
        for request in &mut self.requests {
            let is_first = tokens == 0;
            if !request.is_read() && room > 0 && (is_first || tokens + request.tokens() <= budget) {
                request.read(&mut room);
                if is_first && request.held.is_some() && !request.is_read() {
                    return;
                }
            }
            if request.is_read() {
                tokens += request.tokens();
            }
            if tokens >= budget {
                return;
            }
        }
    }

    /// The sequences of the next call; none while the request that is first is being read.
    fn next_call(&mut self) -> Vec<Slot> {
        let first = self.requests.iter().find(|request| request.held.is_some());
        if !first.is_some_and(Request::is_read) {
            return Vec::new();
        }
        let waiting: Vec<&[usize]> = self.requests.iter().map(Request::waiting).collect();
        let counts = batch::compose(&waiting, self.encoder.token_budget());
        let mut slots = Vec::with_capacity(counts.iter().sum());
        for (place, (request, count)) in self.requests.iter_mut().zip(counts).enumerate() {
            for next in request.gone..request.gone + count {
                let (sequence, length) = (request.order[next], request.lengths[next]);
                slots.push(Slot { request: place, sequence, length });
            }
            request.gone += count;
            if let Some(held) = request.held.as_mut().filter(|_| count > 0) {
                held.account.begin();
            }
        }
        slots
    }

    /// Runs a call and hands out the rows. If it fails and is of several requests, it is run again
    /// for each of them alone.
    fn call(&mut self, slots: &[Slot]) {
        let parts = || slots.chunk_by(|a, b| a.request == b.request);
        match self.encode(slots) {
            Ok(rows) => self.hand_out(slots, &rows),
            Err(error) if parts().count() == 1 => {
                self.requests[slots[0].request].answer(Err(error));
            }
            Err(_) => {
                for part in parts() {
                    match self.encode(part) {
                        Ok(rows) => self.hand_out(part, &rows),
                        Err(error) => self.requests[part[0].request].answer(Err(error)),
                    }
                }
            }
        }
    }

    fn hand_out(&mut self, slots: &[Slot], rows: &Rows) {
        for (slot, range) in slots.iter().zip(&rows.ranges) {
            self.requests[slot.request].take(slot, &rows.values[range.clone()]);
        }
    }

    /// One call of the engine, longest sequences first.
    fn encode(&mut self, slots: &[Slot]) -> Result<Rows> {
        let mut order: Vec<usize> = (0..slots.len()).collect();
        order.sort_by_key(|&place| Reverse(slots[place].length));
        let sequence = |&place: &usize| -> Option<&Sequence> {
            let slot = &slots[place];
            self.requests[slot.request].sequences.as_ref().map(|all| &all[slot.sequence])
        };
        let batch: TokenBatch = order.iter().filter_map(sequence).collect();
        let start = Instant::now();
        let encode = AssertUnwindSafe(|| self.encoder.encode(&batch, self.want));
        let values = catch_unwind(encode)
            .unwrap_or_else(|panic| Err(panicked(&self.name, panic.as_ref())))?;
        let (tokens, took) = (batch.ids().len(), start.elapsed());
        self.shared.stats.called(batch.len(), tokens, took);
        self.pace.learn(tokens, took, &self.shared.stats);

        let of = |slot: &Slot| if self.want == Output::Hidden { slot.length } else { 1 };
        let width = values.len() / slots.iter().map(of).sum::<usize>().max(1);
        let mut ranges = vec![0..0; slots.len()];
        let mut at = 0;
        for place in order {
            let end = at + of(&slots[place]) * width;
            ranges[place] = at..end;
            at = end;
        }
        if at != values.len() {
            let reason = format!("{} numbers are no rows of {tokens} tokens", values.len());
            return Err(ModelError::Inference { name: self.name.to_string(), reason });
        }
        Ok(Rows { values, ranges })
    }
}
