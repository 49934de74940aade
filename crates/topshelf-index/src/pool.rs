//! Threads that search: [`Pool`].
//!
//! A search reads postings, masks and vectors for microseconds to seconds, and must not hold up the
//! executor that polls its future. So the retrievers of an index share a few threads with a bounded queue
//! before them.
//!
//! * **A full queue holds callers back**: their futures wait, no thread is blocked.
//! * **Dropping the future withdraws the search**: if it has not begun, it never does.
//! * **A panic is an error of that search alone** ([`IndexError::Search`]); the thread lives on.
//!
//! The threads start with the first search of an index and end with its last clone.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures_channel::oneshot;
use topshelf_core::Call;

use crate::error::{IndexError, Result};

/// Searches that wait; further callers wait for a place.
const PLACES: usize = 256;

/// Threads, at most. A search is of one thread, and models need the others.
const MOST_THREADS: usize = 8;

type Job = Box<dyn FnOnce() + Send>;

/// A few threads behind a bounded queue.
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Callers who found the queue full.
    held_back: Vec<oneshot::Sender<()>>,
    is_closed: bool,
}

impl Shared {
    /// Jobs run outside the lock, so a poisoned one still guards a sound state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job, or `None` when the pool is gone.
    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                // All of them, not one: the one might have gone away meanwhile.
                for caller in state.held_back.drain(..) {
                    let _ = caller.send(());
                }
                return Some(job);
            }
            if state.is_closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Pool {
    /// Starts a thread for each processor, up to [`MOST_THREADS`].
    ///
    /// # Errors
    ///
    /// [`IndexError::Search`] if the system gives none.
    pub(crate) fn start() -> Result<Self> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self::of(processors.min(MOST_THREADS))
    }

    fn of(threads: usize) -> Result<Self> {
        let own = Self { shared: Arc::default() };
        for number in 0..threads {
            let shared = Arc::clone(&own.shared);
            let work = move || {
                while let Some(job) = shared.next() {
                    job();
                }
            };
            let started =
                std::thread::Builder::new().name("topshelf-search".to_owned()).spawn(work);
            match started {
                Ok(_) => {}
                // Fewer threads will do.
                Err(_) if number > 0 => break,
                Err(error) => {
                    return Err(IndexError::Search {
                        reason: format!("cannot start a thread for it: {error}"),
                    });
                }
            }
        }
        Ok(own)
    }

    /// Runs `work` on one of the threads, as a part of the call. The time in the queue counts as waited.
    ///
    /// # Errors
    ///
    /// [`IndexError::Search`] if it panics.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        call: &Call,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let (part, _guard) = call.hand_over();
        let (reply, answer) = oneshot::channel::<Result<T>>();
        let arrived = Instant::now();
        let mut job: Job = Box::new(move || {
            if part.is_withdrawn() {
                return;
            }
            part.wait(arrived.elapsed());
            let outcome = catch_unwind(AssertUnwindSafe(work));
            let outcome = outcome.map_err(|panic| {
                let message = panic.downcast_ref::<&str>().copied();
                let message =
                    message.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
                let message = message.unwrap_or("no message");
                IndexError::Search { reason: format!("it panicked: {message}") }
            });
            let _ = reply.send(outcome); // an error means that nobody waits any more
        });
        while let Err((returned, room)) = self.enqueue(job) {
            job = returned;
            // An error means that the sender is gone, which happens after it has spoken; the next
            // attempt finds out.
            let _ = room.await;
        }
        answer.await.unwrap_or_else(|_| {
            Err(IndexError::Search { reason: "its thread ended before it was done".to_owned() })
        })
    }

    /// Queues the job, or gives it back with a receiver that speaks when there is room.
    fn enqueue(&self, job: Job) -> std::result::Result<(), (Job, oneshot::Receiver<()>)> {
        let mut state = self.shared.lock();
        if state.jobs.len() < PLACES {
            state.jobs.push_back(job);
            self.shared.changed.notify_one();
            return Ok(());
        }
        let (sender, receiver) = oneshot::channel();
        state.held_back.push(sender);
        Err((job, receiver))
    }
}

impl Drop for Pool {
    /// Threads finish what they are at and end. The last clone of an index may be dropped on one of
    /// them, so they are not waited for.
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::task::{Context, Waker};
    use std::thread::ThreadId;

    use super::*;

    /// Polls a future once, so that its work is queued, and answers whether it is done.
    fn poll_once<F: Future>(future: Pin<&mut F>) -> bool {
        future.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn this_thread() -> ThreadId {
        std::thread::current().id()
    }

    #[test]
    fn work_runs_on_threads_of_the_pool_while_the_caller_is_free() {
        let pool = Pool::of(2).unwrap();
        let call = Call::new();
        let (release, held) = mpsc::channel::<()>();
        let mut held_up = Box::pin(pool.run(&call, move || (held.recv().is_ok(), this_thread())));
        assert!(!poll_once(held_up.as_mut()));
        // The other thread goes on meanwhile.
        let other = pollster::block_on(pool.run(&call, this_thread)).unwrap();
        release.send(()).unwrap();
        let (was_released, own) = pollster::block_on(held_up).unwrap();
        assert!(was_released && own != other && own != this_thread() && other != this_thread());
    }

    #[test]
    fn a_panic_is_an_error_and_the_thread_lives_on() {
        let pool = Pool::of(1).unwrap();
        let call = Call::new();
        let error = pollster::block_on(pool.run(&call, || panic!("on purpose"))).unwrap_err();
        assert!(error.to_string().contains("on purpose"), "{error}");
        assert_eq!(pollster::block_on(pool.run(&call, || 7)).unwrap(), 7);
    }

    #[test]
    fn a_withdrawn_search_never_begins() {
        let pool = Pool::of(1).unwrap();
        let call = Call::new();
        let (release, held) = mpsc::channel::<()>();
        let mut blocker = Box::pin(pool.run(&call, move || held.recv().is_ok()));
        assert!(!poll_once(blocker.as_mut()));
        let ran = Arc::new(AtomicUsize::new(0));
        let count = || {
            let ran = Arc::clone(&ran);
            move || ran.fetch_add(1, Ordering::SeqCst)
        };
        // One whose future is dropped, and one whose request is.
        let mut dropped = Box::pin(pool.run(&call, count()));
        let (request, guard) = call.hand_over();
        let mut orphan = Box::pin(pool.run(&request, count()));
        assert!(!poll_once(dropped.as_mut()) && !poll_once(orphan.as_mut()));
        drop(dropped);
        drop(guard);
        release.send(()).unwrap();
        assert!(pollster::block_on(blocker).unwrap());
        pollster::block_on(pool.run(&call, || ())).unwrap(); // queued behind them
        assert_eq!(ran.load(Ordering::SeqCst), 0);
        assert!(pollster::block_on(orphan).is_err());
    }

    #[test]
    fn more_callers_than_places_are_all_served_and_wait() {
        let pool = Pool::of(1).unwrap();
        let call = Call::new();
        let (release, held) = mpsc::channel::<()>();
        let mut blocker = Box::pin(pool.run(&call, move || held.recv().is_ok()));
        assert!(!poll_once(blocker.as_mut()));
        let mut searches: Vec<_> =
            (0..3 * PLACES).map(|number| Box::pin(pool.run(&call, move || number))).collect();
        assert!(searches.iter_mut().all(|search| !poll_once(search.as_mut())));
        assert!(pool.shared.lock().jobs.len() <= PLACES, "the queue is bounded");
        assert!(!pool.shared.lock().held_back.is_empty());
        release.send(()).unwrap();
        for (number, search) in searches.into_iter().enumerate() {
            assert_eq!(pollster::block_on(search).unwrap(), number);
        }
        assert!(call.waited() > std::time::Duration::ZERO);
    }
}
