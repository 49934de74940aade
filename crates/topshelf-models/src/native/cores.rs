//! Threads that wait for each other must not share a core: [`Cores`].
//!
//! A thread that is woken is often put where the one that woke it runs, since that one is about to
//! sleep more often than not. Here it computes on, and the scheduler parts the two no sooner than at
//! a tick: on Linux with 250 ticks a second and two cores, more than half of the calls that came
//! after a pause of 10 ms took 6.5 ms instead of 2.7. So a thread that starts where another one of
//! the call runs asks to be moved.
//!
//! Nothing is pinned: the thread may run on the same cores as before as soon as it has been moved.
//! Where this is not known how to do, or not allowed, threads stay where they are.

#[cfg(target_os = "linux")]
pub(crate) use self::linux::Cores;
#[cfg(not(target_os = "linux"))]
pub(crate) use self::other::Cores;

#[cfg(target_os = "linux")]
mod linux {
    use std::sync::{Mutex, PoisonError};

    use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

    /// The cores on which the threads of a call began.
    pub(crate) struct Cores {
        taken: Mutex<CpuSet>,
    }

    impl Cores {
        /// The core of the thread that begins the call.
        pub(crate) fn of_caller() -> Self {
            let mut taken = CpuSet::new();
            taken.set(sched_getcpu());
            Self { taken: Mutex::new(taken) }
        }

        /// Takes the core on which this thread runs, or moves to another one if it is taken.
        pub(crate) fn take_one(&self) {
            let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            let here = sched_getcpu();
            // At worst it stays here, which costs time and nothing else.
            let core = if taken.is_set(here) { leave(&taken).unwrap_or(here) } else { here };
            taken.set(core);
        }

        /// The number of cores that are taken.
        #[cfg(test)]
        pub(super) fn count(&self) -> usize {
            self.taken.lock().unwrap().count() as usize
        }
    }

    /// Moves this thread to a core that is not taken, if it may use one; answers where it is then.
    fn leave(taken: &CpuSet) -> rustix::io::Result<usize> {
        let allowed = sched_getaffinity(None)?;
        let mut free = allowed;
        for core in (0..CpuSet::MAX_CPU).filter(|&core| taken.is_set(core)) {
            free.unset(core);
        }
        if free.count() == 0 {
            return Ok(sched_getcpu());
        }
        sched_setaffinity(None, &free)?;
        let core = sched_getcpu();
        sched_setaffinity(None, &allowed)?;
        Ok(core)
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    /// Leaves all threads where they are.
    pub(crate) struct Cores;

    impl Cores {
        pub(crate) fn of_caller() -> Self {
            Self
        }

        pub(crate) fn take_one(&self) {}
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

    use super::Cores;

    #[test]
    fn a_thread_takes_one_core_after_the_other_and_is_not_pinned() {
        let allowed = sched_getaffinity(None).unwrap();
        let cores = Cores::of_caller();
        for taken in 1..=allowed.count() as usize {
            assert_eq!(cores.count(), taken);
            cores.take_one();
            assert_eq!(sched_getaffinity(None).unwrap(), allowed);
        }
        assert_eq!(cores.count(), allowed.count() as usize, "all were taken");
    }

    #[test]
    fn a_thread_with_one_core_stays() {
        let pinned = || {
            let mut one = CpuSet::new();
            one.set(sched_getcpu());
            sched_setaffinity(None, &one).unwrap();
            let cores = Cores::of_caller();
            cores.take_one();
            assert_eq!(cores.count(), 1);
            assert_eq!(sched_getaffinity(None).unwrap(), one);
        };
        std::thread::spawn(pinned).join().unwrap();
    }
}
