//! [`Piecework`]: what a request wants of its model, in pieces that the queue puts in order.
//!
//! The model's thread knows it as [`Work`], which also has the way back to the caller: a panic in a
//! piece is an error of that request alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures_channel::oneshot;

use crate::encoder::Sequence;
use crate::error::Result;
use crate::worker::panicked;

/// The sequences of a request.
#[derive(Debug, Default)]
pub(crate) struct Sequences {
    /// All of them.
    pub(crate) all: Vec<Sequence>,
    /// So many at the beginning must have come back before any other does, as a query whose
    /// vectors the passages are compared with.
    pub(crate) leading: usize,
}

/// A request's work. All of it is done on the model's thread.
pub(crate) trait Piecework: Send + 'static {
    /// What the caller gets.
    type Answer: Send + 'static;

    /// About how many tokens there will be, from the length of the texts.
    fn guess(&self) -> usize;

    /// Tokenises texts of about `room` bytes, and takes their length off it; at least one text, if
    /// there is room at all. The sequences come once all texts are read.
    ///
    /// # Errors
    ///
    /// What makes the request fail as a whole.
    fn read(&mut self, room: &mut usize) -> Result<Option<Sequences>>;

    /// Takes what the encoder says of a sequence: one row for [`Output::Logits`] and
    /// [`Output::Cls`], one for each token for [`Output::Hidden`]. They come in any order.
    ///
    /// [`Output::Logits`]: crate::encoder::Output::Logits
    /// [`Output::Cls`]: crate::encoder::Output::Cls
    /// [`Output::Hidden`]: crate::encoder::Output::Hidden
    ///
    /// # Errors
    ///
    /// What makes the request fail as a whole; the rest is then not computed.
    fn take(&mut self, index: usize, sequence: &Sequence, rows: &[f32]) -> Result<()>;

    /// The answer, after the last sequence.
    ///
    /// # Errors
    ///
    /// What makes the request fail as a whole.
    fn finish(self) -> Result<Self::Answer>;
}

/// [`Piecework`] of any kind.
pub(super) trait Work: Send {
    /// As [`Piecework::read`].
    fn read(&mut self, room: &mut usize) -> Result<Option<Sequences>>;

    /// As [`Piecework::take`].
    fn take(&mut self, index: usize, sequence: &Sequence, rows: &[f32]) -> Result<()>;

    /// Sends the answer, or the error if there is one.
    fn answer(self: Box<Self>, outcome: Result<()>);
}

/// Work and the way back.
pub(super) struct Errand<P: Piecework> {
    /// The model's name, for errors.
    pub(super) name: Arc<str>,
    pub(super) piecework: P,
    pub(super) reply: oneshot::Sender<Result<P::Answer>>,
}

/// What the closure answers; a panic is an error.
fn caught<T>(name: &str, piece: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(piece))
        .unwrap_or_else(|panic| Err(panicked(name, panic.as_ref())))
}

impl<P: Piecework> Work for Errand<P> {
    fn read(&mut self, room: &mut usize) -> Result<Option<Sequences>> {
        caught(&self.name, || self.piecework.read(room))
    }

    fn take(&mut self, index: usize, sequence: &Sequence, rows: &[f32]) -> Result<()> {
        caught(&self.name, || self.piecework.take(index, sequence, rows))
    }

    fn answer(self: Box<Self>, outcome: Result<()>) {
        let Self { name, piecework, reply } = *self;
        // An error means that the caller has just gone away, which is its own affair.
        let _ = reply.send(outcome.and_then(|()| caught(&name, || piecework.finish())));
    }
}
