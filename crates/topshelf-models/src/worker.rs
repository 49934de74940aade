//! The thread that runs a language model: async callers on one side, blocking computation on the
//! other. What encodes has a queue of its own kind, which mixes requests (`src/queue`); what writes
//! runs one request after the other.
//!
//! Each language model in memory has one [`Worker`]. A piece of work is a closure; it waits in a
//! queue of [`QUEUE`] places, runs on the worker's thread (which shares it out over the engine's
//! threads), and its answer comes back through a one-shot channel.
//!
//! * **A full queue holds callers back**: their futures wait, no thread is blocked.
//! * **Dropping the future withdraws the work**: queued work is then skipped, running work
//!   stops at its next look at the [`Call`], which is between two calls of the engine.
//! * **A panic in the work** becomes [`ModelError::Inference`] for its caller; the thread lives
//!   on for the others.
//! * The blocking API ([`Worker::run_blocking`]) goes the same way.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Instant;

use futures_channel::oneshot;
use topshelf_core::Call;

use crate::error::{ModelError, Result};

/// The places in a worker's queue.
pub const QUEUE: usize = 64;

type Job = Box<dyn FnOnce() + Send>;

/// A thread with a queue of work.
pub struct Worker {
    name: Arc<str>,
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
    closed: bool,
}

impl Shared {
    /// Jobs run outside the lock, so a poisoned one still guards a sound state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job, or `None` when the worker is gone.
    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                // All of them, not one: the one might have gone away meanwhile, and then
                // nobody would wake the next.
                for caller in state.held_back.drain(..) {
                    let _ = caller.send(());
                }
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Worker {
    /// Starts the thread for the model of this name.
    ///
    /// # Errors
    ///
    /// [`ModelError::Inference`] if the system gives no thread.
    pub fn start(name: &str) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let queue = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("topshelf-model".to_owned())
            .spawn(move || {
                while let Some(job) = queue.next() {
                    job();
                }
            })
            .map_err(|error| ModelError::Inference {
                name: name.to_owned(),
                reason: format!("cannot start its thread: {error}"),
            })?;
        Ok(Self { name: name.into(), shared })
    }

    /// Runs `work` on the worker's thread, in the order of arrival, as a part of the call. The time in
    /// the queue counts as waited.
    ///
    /// # Errors
    ///
    /// What `work` answers, and [`ModelError::Inference`] if it panics.
    pub async fn run<T, F>(&self, call: &Call, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Call) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel::<Result<T>>();
        let name = Arc::clone(&self.name);
        let (part, _guard) = call.hand_over();
        let arrived = Instant::now();
        let mut job: Job = Box::new(move || {
            if part.is_withdrawn() {
                return;
            }
            part.wait(arrived.elapsed());
            let outcome = catch_unwind(AssertUnwindSafe(|| work(&part)))
                .unwrap_or_else(|panic| Err(panicked(&name, panic.as_ref())));
            let _ = reply.send(outcome);
        });
        loop {
            match self.enqueue(job) {
                Ok(()) => break,
                Err((returned, room)) => {
                    job = returned;
                    // An error means that the sender is gone, which happens after it has
                    // spoken or with the worker; the next attempt finds out.
                    let _ = room.await;
                }
            }
        }
        answer.await.unwrap_or_else(|_| {
            let reason = "its thread ended before the work was done".to_owned();
            Err(ModelError::Inference { name: self.name.to_string(), reason })
        })
    }

    /// [`Self::run`] for callers without an executor: blocks this thread until the answer is
    /// there.
    ///
    /// # Errors
    ///
    /// As [`Self::run`].
    pub fn run_blocking<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Call) -> Result<T> + Send + 'static,
    {
        block_on(self.run(&Call::new(), work))
    }

    /// Queues the job, or gives it back with a receiver that speaks when there is room.
    fn enqueue(&self, job: Job) -> std::result::Result<(), (Job, oneshot::Receiver<()>)> {
        let mut state = self.shared.lock();
        if state.jobs.len() < QUEUE {
            state.jobs.push_back(job);
            self.shared.changed.notify_one();
            return Ok(());
        }
        let (sender, receiver) = oneshot::channel();
        state.held_back.push(sender);
        Err((job, receiver))
    }
}

impl Drop for Worker {
    /// The thread finishes what it is at and ends; futures borrow the worker, so nobody waits.
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_one();
    }
}

/// A panic's message as an error.
pub(crate) fn panicked(name: &str, panic: &(dyn Any + Send)) -> ModelError {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    ModelError::Inference { name: name.to_owned(), reason: format!("it panicked: {message}") }
}

/// Wakes a parked thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// Polls a future once, so that its work is queued, and answers whether it is done.
    fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
        future.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_panic_is_an_error_and_the_worker_lives_on() {
        let worker = Worker::start("m").unwrap();
        let error = worker.run_blocking(|_| -> Result<()> { panic!("on purpose") }).unwrap_err();
        assert!(error.to_string().contains("on purpose"), "{error}");
        assert_eq!(worker.run_blocking(|_| Ok(7)).unwrap(), 7);
    }

    #[test]
    fn dropping_the_future_stops_running_work() {
        let worker = Worker::start("m").unwrap();
        let (started, has_started) = mpsc::channel();
        let (stopped, has_stopped) = mpsc::channel();
        let call = Call::new();
        let mut future = Box::pin(worker.run(&call, move |call| {
            started.send(()).unwrap();
            while !call.is_withdrawn() {
                std::thread::sleep(Duration::from_millis(1));
            }
            stopped.send(()).unwrap();
            Ok(())
        }));
        assert!(!poll_once(future.as_mut()));
        has_started.recv().unwrap();
        drop(future);
        has_stopped.recv_timeout(Duration::from_secs(10)).expect("the work sees that it is alone");
    }

    #[test]
    fn withdrawn_work_in_the_queue_never_runs() {
        let worker = Worker::start("m").unwrap();
        let (release, held) = mpsc::channel::<()>();
        let call = Call::new();
        let mut blocker = Box::pin(worker.run(&call, move |_| Ok(held.recv().is_ok())));
        assert!(!poll_once(blocker.as_mut()));
        let ran = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&ran);
        let counting = worker.run(&call, move |_| Ok(count.fetch_add(1, Ordering::SeqCst)));
        let mut withdrawn = Box::pin(counting);
        assert!(!poll_once(withdrawn.as_mut()));
        drop(withdrawn);
        release.send(()).unwrap();
        assert!(block_on(blocker).unwrap());
        worker.run_blocking(|_| Ok(())).unwrap(); // queued behind it, so its turn has passed
        assert_eq!(ran.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn time_in_the_queue_counts_as_waited() {
        let worker = Worker::start("m").unwrap();
        let (release, held) = mpsc::channel::<()>();
        let (first, second) = (Call::new(), Call::new());
        let mut blocker = Box::pin(worker.run(&first, move |_| Ok(held.recv().is_ok())));
        assert!(!poll_once(blocker.as_mut()));
        let mut waiting = Box::pin(worker.run(&second, |_| Ok(())));
        assert!(!poll_once(waiting.as_mut()));
        std::thread::sleep(Duration::from_millis(20));
        release.send(()).unwrap();
        block_on(waiting).unwrap();
        assert!(second.waited() >= Duration::from_millis(20), "{second:?}");
        assert!(first.waited() < second.waited(), "{first:?}");
    }

    #[test]
    fn more_callers_than_places_are_all_served() {
        let worker = Worker::start("m").unwrap();
        let served: usize = std::thread::scope(|scope| {
            let callers: Vec<_> = (0..3 * QUEUE)
                .map(|number| {
                    let worker = &worker;
                    scope.spawn(move || {
                        worker.run_blocking(move |_| {
                            std::thread::sleep(Duration::from_micros(200));
                            Ok(number)
                        })
                    })
                })
                .collect();
            callers.into_iter().map(|caller| caller.join().unwrap().unwrap()).sum()
        });
        assert_eq!(served, (0..3 * QUEUE).sum::<usize>());
    }
}
