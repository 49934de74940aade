//! Who waits for a call: [`Caller`], and how one is made for somebody who waits elsewhere.

use futures_channel::oneshot;
use topshelf_core::{Blame, Error as CoreError, Journal, Usage};

use crate::error::Result;

/// Who waits for an answer. `()` waits as long as it takes and is told nothing.
pub trait Caller: Sync {
    /// Whether anybody waits still.
    fn waits(&self) -> bool {
        true
    }

    /// Hears why a try failed that is to be followed by another.
    fn hears(&self, _words: &str) {}

    /// Hears that what was said last is no longer so: a later try was answered.
    fn forgets(&self, _words: &str) {}

    /// Hears what a call took, whether or not it was answered to its end.
    fn pays(&self, _usage: Usage) {}
}

impl Caller for () {}

/// Somebody who waits on a future, with the journal of that.
struct Elsewhere<'a, T> {
    reply: &'a oneshot::Sender<T>,
    journal: Option<Journal>,
}

impl<T: Send> Caller for Elsewhere<'_, T> {
    fn waits(&self) -> bool {
        !self.reply.is_canceled()
    }

    fn hears(&self, words: &str) {
        if let Some(journal) = &self.journal {
            journal.say(words);
        }
    }

    fn forgets(&self, words: &str) {
        if let Some(journal) = &self.journal {
            journal.take_back(words);
        }
    }

    fn pays(&self, usage: Usage) {
        if let Some(journal) = &self.journal {
            journal.spend(usage);
        }
    }
}

/// Does blocking work on a thread of its own for as long as somebody waits for it; what is told
/// meanwhile stands in the journal that is open. `stage` is named in errors.
pub(crate) async fn on_a_thread<T: Send + 'static>(
    stage: &str,
    work: impl FnOnce(&dyn Caller) -> Result<T> + Send + 'static,
) -> topshelf_core::Result<T> {
    let (reply, answer) = oneshot::channel();
    let journal = Journal::current();
    let gone = |reason: String| CoreError::stage(stage, Blame::Failure, reason);
    std::thread::Builder::new()
        .name("topshelf-remote".to_owned())
        .spawn(move || {
            let outcome = work(&Elsewhere { reply: &reply, journal });
            let _ = reply.send(outcome); // who has gone away hears nothing
        })
        .map_err(|error| gone(format!("cannot start a thread for the call: {error}")))?;
    let outcome = answer.await.map_err(|_| gone("the call's thread panicked".to_owned()))?;
    outcome.map_err(|error| error.into_stage(stage))
}
