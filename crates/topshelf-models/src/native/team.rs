//! The threads of an encoder: [`Team`], and the [`Barrier`] at which they wait for each other.
//!
//! The caller's thread and a rayon pool of the encoder's own, asleep between calls, work together.
//! Within a call they meet at a barrier once for each block of the model, some thousand times a
//! second, so the barrier spins: a thread that slept there would wake up later than its turn is
//! long. After a while it yields, for machines with fewer free cores than threads.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::cores::Cores;

/// Looks at the barrier before a waiting thread yields its core.
const SPINS: usize = 4096;

/// Threads that compute one call together.
pub(crate) struct Team {
    /// All but the caller's.
    pool: ThreadPool,
    threads: usize,
}

impl Team {
    /// The error is the system's, for threads that cannot be started.
    pub(crate) fn start(threads: usize) -> Result<Self, String> {
        ThreadPoolBuilder::new()
            // A pool of none would be one of as many as there are cores.
            .num_threads((threads - 1).max(1))
            .thread_name(|i| format!("topshelf-encoder-{i}"))
            .build()
            .map(|pool| Self { pool, threads })
            .map_err(|error| format!("cannot start its threads: {error}"))
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `work(i, barrier)` for each i below the number of threads, all at once, 0 on the
    /// caller's. A panic ends the work of all and is answered. Only one call runs at a time: the
    /// threads of a second one would wait for each other behind those of the first.
    pub(crate) fn run(
        &self,
        work: impl Fn(usize, &Barrier) -> Result<(), Broken> + Sync,
    ) -> Result<(), Box<dyn Any + Send>> {
        let barrier = Barrier::new(self.threads);
        let panic = Mutex::new(None);
        let one = |i| {
            if let Err(own) = catch_unwind(AssertUnwindSafe(|| work(i, &barrier))) {
                barrier.break_up();
                let mut panic = panic.lock().unwrap_or_else(PoisonError::into_inner);
                panic.get_or_insert(own);
            }
        };
        let cores = Cores::of_caller();
        self.pool.in_place_scope(|scope| {
            for i in 1..self.threads {
                let (one, cores) = (&one, &cores);
                scope.spawn(move |_| {
                    cores.take_one();
                    one(i);
                });
            }
            one(0);
        });
        // That a thread left because another one panicked is known by that panic.
        match panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(panic) => Err(panic),
            None => Ok(()),
        }
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
