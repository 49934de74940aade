//! [`Journal`]: what is told of a call while it is out.
//!
//! A call that answers says what it took in its answer. One that fails half-way, or that is withdrawn at
//! a deadline, has no answer, and what was spent on it until then would be lost, with what the service
//! said last. So whoever spends writes it down as it happens, in the journal that the asker keeps open
//! ([`Journal::within`]); it is found from anywhere below ([`Journal::current`]), through all that stands
//! between the asker and the service, and may be carried to another thread.
//!
//! A journal belongs to one call: calls for other queries at the same time have their own. Models that
//! cost nothing to ask need not write of that in it, but how long a call stood in line before its model
//! began with it is told there too; that is passed on to the journal around it ([`Journal::nested`]), so
//! that a server knows it of a whole request.

use std::cell::RefCell;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::language_model::Usage;

thread_local! {
    /// That of the future which is being polled on this thread.
    static OPEN: RefCell<Option<Journal>> = const { RefCell::new(None) };
}

/// What is told of a call while it is out. Clones are the same journal.
///
/// ```
/// use topshelf_core::{Journal, Usage};
///
/// let journal = Journal::default();
/// let fails = async {
///     let journal = Journal::current().expect("somebody listens");
///     journal.spend(Usage { calls: 1, ..Usage::default() });
///     journal.say("429: too many requests");
///     Err::<(), _>("it took too long")
/// };
/// assert!(pollster::block_on(journal.within(fails)).is_err());
/// assert_eq!(journal.spent().calls, 1);
/// assert_eq!(journal.last_words().as_deref(), Some("429: too many requests"));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Journal(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    spent: Usage,
    last_words: Option<String>,
    waited: Duration,
    /// The journal of the call that this one is part of.
    around: Option<Journal>,
}

/// Opens a journal on this thread, and puts the one before back.
struct Opened(Option<Journal>);

impl Opened {
    fn of(journal: Option<Journal>) -> Self {
        Self(OPEN.with(|open| open.replace(journal)))
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        OPEN.with(|open| open.replace(self.0.take()));
    }
}

impl Journal {
    /// An empty one for a part of the call which is being worked on.
    pub fn nested() -> Self {
        let entries = Entries { around: Self::current(), ..Entries::default() };
        Self(Arc::new(Mutex::new(entries)))
    }

    /// That of the call which is being worked on, if anybody keeps one.
    pub fn current() -> Option<Self> {
        OPEN.with(|open| open.borrow().clone())
    }

    /// The future, with this journal open while it works.
    pub async fn within<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            let _opened = Opened::of(Some(self.clone()));
            future.as_mut().poll(context)
        })
        .await
    }

    /// Adds what was spent.
    pub fn spend(&self, usage: Usage) {
        self.lock().spent += usage;
    }

    /// Notes what a service said that is no answer: why it was asked again, or gave up.
    pub fn say(&self, words: impl Into<String>) {
        self.lock().last_words = Some(words.into());
    }

    /// Forgets these words, if they were the last: they are no longer so.
    pub fn take_back(&self, words: &str) {
        self.lock().last_words.take_if(|last| last == words);
    }

    /// Adds time in which the call stood in line, here and in the journals around this one.
    pub fn wait(&self, time: Duration) {
        let around = {
            let mut own = self.lock();
            own.waited += time;
            own.around.clone()
        };
        if let Some(around) = around {
            around.wait(time);
        }
    }

    /// How long it has stood in line so far.
    pub fn waited(&self) -> Duration {
        self.lock().waited
    }

    /// What was spent so far.
    pub fn spent(&self) -> Usage {
        self.lock().spent
    }

    /// What was said last, if anything was.
    pub fn last_words(&self) -> Option<String> {
        self.lock().last_words.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// Lets others work once, then spends.
    async fn spend(calls: u64) {
        let mut rested = false;
        std::future::poll_fn(|_| {
            if std::mem::replace(&mut rested, true) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        if let Some(journal) = Journal::current() {
            journal.spend(Usage { calls, ..Usage::default() });
        }
    }

    #[test]
    fn calls_that_take_turns_on_a_thread_have_their_own() {
        let (one, other) = (Journal::default(), Journal::default());
        let (mut first, mut second) = (pin!(one.within(spend(1))), pin!(other.within(spend(2))));
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            let _ = first.as_mut().poll(&mut context);
            let _ = second.as_mut().poll(&mut context);
        }
        assert_eq!((one.spent().calls, other.spent().calls), (1, 2));
        assert!(Journal::current().is_none());
    }

    #[test]
    fn one_within_another_hides_it_until_it_is_done() {
        let (outer, inner) = (Journal::default(), Journal::default());
        let mut future = pin!(outer.within(async {
            inner.within(spend(1)).await;
            spend(10).await;
        }));
        let mut context = Context::from_waker(Waker::noop());
        while future.as_mut().poll(&mut context).is_pending() {}
        assert_eq!((outer.spent().calls, inner.spent().calls), (10, 1));
    }

    #[test]
    fn what_a_part_waited_the_whole_has_waited() {
        let outer = Journal::default();
        let inner = pollster::block_on(outer.within(async { Journal::nested() }));
        inner.wait(Duration::from_millis(2));
        inner.spend(Usage { calls: 1, ..Usage::default() });
        outer.wait(Duration::from_millis(3));
        assert_eq!(inner.waited(), Duration::from_millis(2));
        assert_eq!((outer.waited(), outer.spent().calls), (Duration::from_millis(5), 0));
        assert!(Journal::nested().lock().around.is_none());
    }

    #[test]
    fn without_one_nothing_is_written() {
        let mut future = pin!(spend(1));
        let mut context = Context::from_waker(Waker::noop());
        while future.as_mut().poll(&mut context).is_pending() {}
        assert!(Journal::current().is_none());
    }
}
