//! How much is let in: [`Admission`].
//!
//! A request is let in if those before it will be done within the wait that is allowed; otherwise it is
//! refused at once, with the time after which there is likely to be room. So under any load the
//! requests that are let in are answered in time, and the others know at once.
//!
//! ```text
//! wait = work that is in / pace          work in bytes of text that a model is to read
//! pace = work done / time in which there was work to do, as a running mean
//! ```
//!
//! A lone request is always let in, whatever its size: there is nothing it would have to wait for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Result, ServeError};

/// What the latest measurement counts in the pace.
const LATEST: f64 = 0.2;

/// Time of work from which a pace is taken.
const MEASURED: Duration = Duration::from_millis(100);

/// The longest time after which a client is told to come again.
const LONGEST: Duration = Duration::from_mins(10);

/// Counts the work that is in.
#[derive(Debug)]
pub struct Admission {
    wait: Duration,
    requests: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Requests that are in.
    requests: usize,
    /// Their work, in bytes.
    work: u64,
    /// Bytes a second; 0 where none has been measured.
    pace: f64,
    /// Work done since the pace was last measured.
    done: u64,
    /// Time spent since then, up to `busy_since`.
    busy: Duration,
    /// From when on there has been work without a break.
    busy_since: Option<Instant>,
    closed: bool,
}

/// A request that is in; dropping it lets the next in.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    work: u64,
    done: bool,
}

/// What is in at the moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Requests.
    pub requests: usize,
    /// Their bytes of text.
    pub work: u64,
    /// How long they are expected to take.
    pub wait: Duration,
}

impl Admission {
    /// Lets requests in that need not wait longer, and so many at most.
    pub fn new(wait: Duration, requests: usize) -> Arc<Self> {
        Arc::new(Self { wait, requests, state: Mutex::default() })
    }

    /// Lets a request of that many bytes in.
    ///
    /// # Errors
    ///
    /// [`ServeError::Overloaded`], [`ServeError::ShuttingDown`].
    pub fn admit(self: &Arc<Self>, work: u64) -> Result<Permit> {
        let mut state = self.lock();
        if state.closed {
            return Err(ServeError::ShuttingDown);
        }
        let wait = state.wait();
        if state.requests > 0 && (wait > self.wait || state.requests >= self.requests) {
            let retry_after = wait.saturating_sub(self.wait).clamp(Duration::from_secs(1), LONGEST);
            return Err(ServeError::Overloaded { retry_after });
        }
        if state.requests == 0 {
            state.busy_since = Some(Instant::now());
        }
        state.requests += 1;
        state.work = state.work.saturating_add(work);
        Ok(Permit { admission: Arc::clone(self), work, done: false })
    }

    /// Lets nobody in any more.
    pub fn close(&self) {
        self.lock().closed = true;
    }

    /// Whether nobody is let in any more.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// What is in.
    pub fn load(&self) -> Load {
        let state = self.lock();
        Load { requests: state.requests, work: state.work, wait: state.wait() }
    }

    /// Sums are whole whenever the lock is free.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wait(&self) -> Duration {
        if self.pace <= 0.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(self.work as f64 / self.pace).unwrap_or(Duration::MAX)
    }

    /// Takes a request out, of whose work so much was done.
    fn leave(&mut self, work: u64, done: u64, now: Instant) {
        self.requests -= 1;
        self.work = self.work.saturating_sub(work);
        self.done += done;
        if let Some(since) = self.busy_since.take() {
            self.busy += now - since;
        }
        if self.requests > 0 {
            self.busy_since = Some(now);
        }
        if self.busy >= MEASURED {
            let seen = self.done as f64 / self.busy.as_secs_f64();
            let known = self.pace > 0.0;
            self.pace = if known { self.pace + LATEST * (seen - self.pace) } else { seen };
            (self.done, self.busy) = (0, Duration::ZERO);
        }
    }
}

impl Permit {
    /// Ends it with its work done. One that is only dropped was withdrawn, and says nothing of the pace.
    pub fn finish(mut self) {
        self.done = true;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let done = if self.done { self.work } else { 0 };
        self.admission.lock().leave(self.work, done, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(state: &mut State, work: u64, milliseconds: u64) {
        let start = Instant::now();
        state.requests += 1;
        state.work += work;
        state.busy_since = Some(start);
        state.leave(work, work, start + Duration::from_millis(milliseconds));
    }

    #[test]
    fn the_pace_is_work_by_busy_time() {
        let mut state = State::default();
        after(&mut state, 1000, 500);
        assert!((state.pace - 2000.0).abs() < 1e-6);
        after(&mut state, 100, 10); // too short to say anything
        assert!((state.pace - 2000.0).abs() < 1e-6);
        assert_eq!(state.wait(), Duration::ZERO);
        state.work = 1000;
        assert_eq!(state.wait(), Duration::from_millis(500));
    }

    #[test]
    fn what_would_wait_too_long_is_refused_and_told_when_to_come_again() {
        let admission = Admission::new(Duration::from_millis(100), 10);
        after(&mut admission.lock(), 1000, 1000);
        let first = admission.admit(5000).expect("a lone request is let in");
        let refused = admission.admit(1).expect_err("five seconds are in");
        assert_eq!(refused.retry_after(), Some(Duration::from_millis(4900)));
        drop(first);
        assert!(admission.admit(5000).is_ok());
    }

    #[test]
    fn a_closed_door_is_said_to_be_closed() {
        let admission = Admission::new(Duration::from_secs(1), 10);
        let inside = admission.admit(10).unwrap();
        admission.close();
        assert!(matches!(admission.admit(10), Err(ServeError::ShuttingDown)));
        drop(inside);
        assert_eq!(admission.load().requests, 0);
    }

    #[test]
    fn requests_are_counted_too() {
        let admission = Admission::new(Duration::from_secs(1), 2);
        let _held = [admission.admit(0).unwrap(), admission.admit(0).unwrap()];
        assert!(matches!(admission.admit(0), Err(ServeError::Overloaded { .. })));
    }
}
