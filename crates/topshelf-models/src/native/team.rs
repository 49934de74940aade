//! The threads of an encoder: [`Team`], and the [`Barrier`] at which they wait for each other.
//!
//! The threads are a rayon pool of the encoder's own, asleep between calls. Within a call they
//! meet at a barrier once for each block of the model, some thousand times a second, so the
//! barrier spins: a thread that slept there would wake up later than its turn is long. After a
//! while it yields, for machines with fewer free cores than threads.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// Looks at the barrier before a waiting thread yields its core.
const SPINS: usize = 4096;

/// Threads that compute one call together.
pub(crate) struct Team {
    pool: ThreadPool,
    threads: usize,
}

impl Team {
    /// The error is the system's, for threads that cannot be started.
    pub(crate) fn start(threads: usize) -> Result<Self, String> {
        ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("topshelf-encoder-{i}"))
            .build()
            .map(|pool| Self { pool, threads })
            .map_err(|error| format!("cannot start its threads: {error}"))
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `work(i, barrier)` on each thread i. A panic ends the work of all and is answered.
    pub(crate) fn run(
        &self,
        work: impl Fn(usize, &Barrier) -> Result<(), Broken> + Sync,
    ) -> Result<(), Box<dyn Any + Send>> {
        let barrier = Barrier::new(self.threads);
        let outcomes = self.pool.broadcast(|context| {
            let outcome = catch_unwind(AssertUnwindSafe(|| work(context.index(), &barrier)));
            if outcome.is_err() {
                barrier.break_up();
            }
            outcome
        });
        // `Broken` only says that another thread panicked, and that one's outcome is here too.
        outcomes.into_iter().try_for_each(|outcome| outcome.map(|_| ()))
    }
}

/// A thread of the team panicked; the others leave their work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;

/// Where threads wait until all have come.
pub(crate) struct Barrier {
    threads: usize,
    arrived: AtomicUsize,
    round: AtomicUsize,
    broken: AtomicBool,
}

impl Barrier {
    fn new(threads: usize) -> Self {
        Self {
            threads,
            arrived: AtomicUsize::new(0),
            round: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
        }
    }

    /// Waits for the others. What they did before is seen after.
    pub(crate) fn wait(&self) -> Result<(), Broken> {
        let round = self.round.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.arrived.store(0, Ordering::Relaxed);
            self.round.store(round.wrapping_add(1), Ordering::Release);
            return Ok(());
        }
        let mut looks = 0;
        while self.round.load(Ordering::Acquire) == round {
            if self.broken.load(Ordering::Relaxed) {
                return Err(Broken);
            }
            looks += 1;
            if looks < SPINS {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    /// Sends all away who wait or will.
    fn break_up(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn nobody_runs_ahead() {
        let team = Team::start(4).unwrap();
        let seen = Mutex::new(Vec::new());
        team.run(|_, barrier| {
            for round in 0..200 {
                seen.lock().unwrap().push(round);
                barrier.wait()?;
            }
            Ok(())
        })
        .unwrap();
        let seen = seen.into_inner().unwrap();
        assert_eq!(seen.len(), 800);
        assert!(seen.is_sorted());
    }

    #[test]
    fn a_panic_frees_the_others_and_is_answered() {
        let team = Team::start(3).unwrap();
        let panic = team
            .run(|i, barrier| {
                assert!(i != 1, "on purpose");
                barrier.wait()
            })
            .unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"on purpose"));
        team.run(|_, barrier| barrier.wait()).unwrap();
    }
}
