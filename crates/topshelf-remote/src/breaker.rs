//! Leaving a service alone that fails: [`Breaker`].
//!
//! After [`FAILURES`] calls in a row that failed in a way that may pass, the service is not asked for
//! [`FIRST`], and each time it fails again for twice as long, up to [`LONGEST`]. When the time is over,
//! one call is let through to see.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{RemoteError, Result};

/// Failures in a row that open it.
const FAILURES: u32 = 3;

/// For how long a service is left alone first, and at most.
const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_mins(1);

/// What is known of a service's health.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// In a row.
    failures: u32,
    /// Until then nobody asks.
    until: Option<Instant>,
    reason: String,
}

impl Breaker {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the service may be asked now.
    ///
    /// # Errors
    ///
    /// [`RemoteError::LeftAlone`].
    pub(crate) fn check(&self, endpoint: &str) -> Result<()> {
        let mut state = self.lock();
        let Some(until) = state.until else { return Ok(()) };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            // This call finds out; others wait for what it learns.
            state.until = Some(Instant::now() + pause(state.failures));
            return Ok(());
        }
        Err(RemoteError::LeftAlone {
            endpoint: endpoint.to_owned(),
            failures: state.failures,
            seconds: left.as_secs_f64(),
            reason: state.reason.clone(),
        })
    }

    /// Learns from how a call went.
    pub(crate) fn learn<T>(&self, outcome: &Result<T>) {
        let mut state = self.lock();
        match outcome {
            Err(error) if error.is_transient() => {
                state.failures += 1;
                state.reason = error.to_string();
                if state.failures >= FAILURES {
                    state.until = Some(Instant::now() + pause(state.failures));
                }
            }
            Err(RemoteError::Gone) => {}
            // A service that says no is there.
            _ => *state = State::default(),
        }
    }
}

fn pause(failures: u32) -> Duration {
    let doubled = failures.saturating_sub(FAILURES).min(8);
    (FIRST * 2_u32.pow(doubled)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn down() -> Result<()> {
        Err(RemoteError::Refused { endpoint: "e".into(), status: 503, reason: "down".into() })
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_with_a_success() {
        let breaker = Breaker::default();
        breaker.learn(&down());
        breaker.learn(&down());
        breaker.learn(&Ok(()));
        breaker.learn(&down());
        breaker.learn(&down());
        breaker.check("e").unwrap();
        breaker.learn(&down());
        let error = breaker.check("e").unwrap_err().to_string();
        assert!(error.contains("failed 3 times") && error.contains("down"), "{error}");
        // The time is over: one is let through, the next waits.
        breaker.lock().until = Some(Instant::now());
        breaker.check("e").unwrap();
        assert!(breaker.check("e").is_err());
        breaker.learn(&Ok(()));
        breaker.check("e").unwrap();
    }

    #[test]
    fn refusals_that_stay_do_not_open_it() {
        let breaker = Breaker::default();
        for _ in 0..5 {
            let endpoint = "e".to_owned();
            let error = RemoteError::Refused { endpoint, status: 401, reason: "no".into() };
            breaker.learn::<()>(&Err(error));
        }
        breaker.check("e").unwrap();
        assert_eq!((pause(3), pause(4), pause(30)), (FIRST, FIRST * 2, LONGEST));
    }
}
