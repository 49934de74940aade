//! [`Call`]: what travels with a request through all stages.
//!
//! A call knows until when its answer is wanted, whether anybody still waits for it, what was spent on it
//! and how long it stood in line. Every stage takes one and passes it on to the stages below, on the same
//! thread or on another one.
//!
//! ```text
//! request ── part of the retrieval
//!        └── part of the reranker ── part handed to another thread
//! ```
//!
//! * **Parts.** [`Call::part`] is a call within a call, with an account of its own. What is spent and
//!   waited in a part is also added to the calls around it, so the account of a request is complete and
//!   the account of a reranker is the reranker's alone, even if it fails or is late.
//! * **Withdrawal.** Dropping the future that waits for an answer withdraws the work. Where work goes to
//!   another thread, the future holds the guard of [`Call::hand_over`]; the thread looks at
//!   [`Call::is_withdrawn`] between two steps. A call is withdrawn with every call around it.
//! * **Deadline.** [`Call::due_at`] can only bring the moment forward. It is a statement about the answer:
//!   whoever sets it also drops the future at that moment. Stages use it to decide whose turn it is and
//!   how much to begin.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::language_model::Usage;

/// What travels with a request; see the [module](self). Clones share one account.
///
/// ```
/// use topshelf_core::{Call, Usage};
///
/// let request = Call::new();
/// let reranker = request.part();
/// reranker.spend(Usage { calls: 1, ..Usage::default() });
/// reranker.say("429: too many requests");
/// assert_eq!((reranker.spent().calls, request.spent().calls), (1, 1));
/// assert_eq!(reranker.last_words().as_deref(), Some("429: too many requests"));
///
/// let (work, guard) = request.hand_over();
/// drop(guard); // the future that waited is gone
/// assert!(work.is_withdrawn() && !request.is_withdrawn());
/// ```
#[derive(Clone)]
pub struct Call {
    account: Arc<Account>,
    due: Option<Instant>,
}

/// What is known of a call and of its parts.
struct Account {
    began: Instant,
    is_withdrawn: AtomicBool,
    entries: Mutex<Entries>,
    /// The account of the call around this one.
    around: Option<Arc<Account>>,
}

#[derive(Default)]
struct Entries {
    spent: Usage,
    waited: Duration,
    last_words: Option<String>,
}

/// Withdraws the work that was handed over when it is dropped. Held by the future that waits for it.
#[must_use = "dropping it withdraws the work"]
pub struct WithdrawOnDrop(Arc<Account>);

impl Drop for WithdrawOnDrop {
    fn drop(&mut self) {
        self.0.is_withdrawn.store(true, Ordering::Relaxed);
    }
}

impl Call {
    /// A call that begins now and has no deadline.
    pub fn new() -> Self {
        Self { account: Arc::new(Account::new(None)), due: None }
    }

    /// A part of this call that begins now: it has an account of its own, and the same deadline.
    #[must_use]
    pub fn part(&self) -> Self {
        let account = Account::new(Some(Arc::clone(&self.account)));
        Self { account: Arc::new(account), due: self.due }
    }

    /// A part for work on another thread, and the guard that withdraws it. After the answer, the guard
    /// has no effect.
    pub fn hand_over(&self) -> (Self, WithdrawOnDrop) {
        let part = self.part();
        let guard = WithdrawOnDrop(Arc::clone(&part.account));
        (part, guard)
    }

    /// The same call, whose answer is not wanted after `moment`; the earliest of several moments counts.
    #[must_use]
    pub fn due_at(&self, moment: Instant) -> Self {
        let due = self.due.map_or(moment, |due| due.min(moment));
        Self { account: Arc::clone(&self.account), due: Some(due) }
    }

    /// The same call, whose answer is wanted within `time` from its beginning, if that is limited.
    #[must_use]
    pub fn due_within(&self, time: Option<Duration>) -> Self {
        // What a clock cannot count to is no limit.
        let due = time.and_then(|time| self.began().checked_add(time));
        due.map_or_else(|| self.clone(), |due| self.due_at(due))
    }

    /// The moment after which the answer is not wanted any more; `None` for no limit.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The time until [`Self::due`], zero if that is over; `None` for no limit.
    pub fn time_left(&self) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    /// When it began.
    pub fn began(&self) -> Instant {
        self.account.began
    }

    /// Whether nobody waits for the answer any more.
    pub fn is_withdrawn(&self) -> bool {
        self.account.and_around().any(|account| account.is_withdrawn.load(Ordering::Relaxed))
    }

    /// Adds what was spent, here and in the calls around this one.
    pub fn spend(&self, usage: Usage) {
        self.account.and_around().for_each(|account| account.lock().spent += usage);
    }

    /// What was spent so far.
    pub fn spent(&self) -> Usage {
        self.account.lock().spent
    }

    /// Adds time in which it stood in line before a model began with it, here and in the calls around
    /// this one.
    pub fn wait(&self, time: Duration) {
        self.account.and_around().for_each(|account| account.lock().waited += time);
    }

    /// How long it has stood in line so far, all of its parts together.
    pub fn waited(&self) -> Duration {
        self.account.lock().waited
    }

    /// Notes what a service said that is not an answer: why it was asked again, or gave up.
    pub fn say(&self, words: &str) {
        let noted = |account: &Account| account.lock().last_words = Some(words.to_owned());
        self.account.and_around().for_each(noted);
    }

    /// Forgets these words where they were the last: a later try was answered.
    pub fn take_back(&self, words: &str) {
        self.account.and_around().for_each(|account| {
            account.lock().last_words.take_if(|last| last == words);
        });
    }

    /// What a service said last, if anything was said.
    pub fn last_words(&self) -> Option<String> {
        self.account.lock().last_words.clone()
    }
}

impl Default for Call {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("due", &self.due)
            .field("is_withdrawn", &self.is_withdrawn())
            .field("spent", &self.spent())
            .field("waited", &self.waited())
            .finish_non_exhaustive()
    }
}

impl Account {
    fn new(around: Option<Arc<Self>>) -> Self {
        Self {
            began: Instant::now(),
            is_withdrawn: AtomicBool::new(false),
            entries: Mutex::default(),
            around,
        }
    }

    /// This account and those around it, innermost first.
    fn and_around(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |account| account.around.as_deref())
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(calls: u64) -> Usage {
        Usage { calls, ..Usage::default() }
    }

    #[test]
    fn of_several_moments_the_earliest_counts() {
        let call = Call::new();
        assert_eq!((call.due(), call.time_left()), (None, None));
        let (soon, late) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        assert_eq!(call.due_at(late).due_at(soon).due(), Some(soon));
        assert_eq!(call.due_at(soon).due_at(late).due(), Some(soon));
        assert_eq!(call.due_at(soon).part().due(), Some(soon), "a part has the same deadline");
        assert_eq!(call.due_at(soon).time_left(), Some(Duration::ZERO));
        assert_eq!(call.due(), None, "the call itself has no other deadline than before");
        let time = Duration::from_millis(5);
        assert_eq!(call.due_within(Some(time)).due(), Some(call.began() + time));
        assert_eq!(call.due_within(None).due(), None);
        assert_eq!(call.due_within(Some(Duration::MAX)).due(), None);
    }

    #[test]
    fn what_a_part_spends_and_waits_counts_for_the_whole() {
        let whole = Call::new();
        let (one, other) = (whole.part(), whole.part());
        one.due_at(Instant::now()).spend(calls(1));
        other.part().spend(calls(10));
        whole.spend(calls(100));
        other.wait(Duration::from_millis(2));
        whole.wait(Duration::from_millis(3));
        assert_eq!((one.spent().calls, other.spent().calls, whole.spent().calls), (1, 10, 111));
        let waited = [&one, &other, &whole].map(|call| call.waited().as_millis());
        assert_eq!(waited, [0, 2, 5]);
    }

    #[test]
    fn a_part_is_withdrawn_with_the_call_around_it_and_not_the_other_way_round() {
        let request = Call::new();
        let (retrieval, guard) = request.hand_over();
        let (search, inner) = retrieval.part().hand_over();
        drop(inner);
        assert!(search.is_withdrawn() && !retrieval.is_withdrawn());
        let part = retrieval.part();
        drop(guard);
        assert!(part.is_withdrawn() && retrieval.is_withdrawn());
        assert!(!request.is_withdrawn() && !request.part().is_withdrawn());
    }

    #[test]
    fn a_guard_is_seen_from_another_thread() {
        let (work, guard) = Call::new().hand_over();
        let thread = std::thread::spawn(move || {
            while !work.is_withdrawn() {
                std::thread::yield_now();
            }
        });
        drop(guard);
        thread.join().expect("it sees that nobody waits");
    }

    #[test]
    fn words_are_taken_back_only_if_they_were_the_last() {
        let reranker = Call::new();
        let (other, work) = (reranker.part(), reranker.part());
        work.say("429, tried once");
        work.say("503, tried twice");
        work.take_back("429, tried once");
        assert_eq!(reranker.last_words().as_deref(), Some("503, tried twice"));
        assert_eq!(other.last_words(), None);
        work.take_back("503, tried twice");
        assert_eq!((reranker.last_words(), work.last_words()), (None, None));
    }
}
