//! Blocking work on a thread of its own: [`on_a_thread`].

use futures_channel::oneshot;
use topshelf_core::{Blame, Call, Error as CoreError};

use crate::error::Result;

/// Does blocking work on a thread of its own, as a part of the call that is withdrawn with this future.
/// `stage` is named in errors.
pub(crate) async fn on_a_thread<T: Send + 'static>(
    stage: &str,
    call: &Call,
    work: impl FnOnce(&Call) -> Result<T> + Send + 'static,
) -> topshelf_core::Result<T> {
    let (reply, answer) = oneshot::channel();
    let (part, _guard) = call.hand_over();
    let failed = |reason: String| CoreError::stage(stage, Blame::Failure, reason);
    std::thread::Builder::new()
        .name("topshelf-remote".to_owned())
        .spawn(move || {
            let outcome = work(&part);
            let _ = reply.send(outcome); // an error means that nobody waits any more
        })
        .map_err(|error| failed(format!("cannot start a thread for the call: {error}")))?;
    let outcome = answer.await.map_err(|_| failed("the call's thread panicked".to_owned()))?;
    outcome.map_err(|error| error.into_stage(stage))
}
