//! The first stage: retrievers of any kind, asked together and fused, within the call's deadline.
//!
//! ```text
//! query ─┬► bm25    ─► found 100          ─┐
//!        ├► dense   ─► failed, or too late ─┼► fuse ─► candidates
//!        └► colbert ─► nothing to look up  ─┘
//! ```
//!
//! **A retriever without an answer does not take the others down.** It may fail, be late, or find nothing
//! to look up in the query; its [`RetrieverReport`] says which, and the candidates are those of the others.
//! Fusion sees an empty ranking in its place, so each weight stays with its retriever, and the stage is
//! called `fused` as ever; a gate that reads the missing one's scores cannot be read and skips nothing.
//!
//! It is an error only if none answers: the first failure in the order of the retrievers, or
//! [`Error::NothingToLookUp`] if that is what all of them say. With [`OnFailure::Fail`] any failure and any
//! lateness is an error; nothing to look up is not, as long as another retriever answers.
//!
//! **How long they are waited for**, with `d` from the beginning of the call until it is due:
//!
//! | | |
//! | --- | --- |
//! | none has found anything | until the call is due |
//! | at least one has found something | until `d` times the wait share is over |
//!
//! The wait share is 1, and two thirds ([`BEFORE_RERANKING`]) in a pipeline with a second stage, so that
//! candidates which are there are also reranked. What is out then is late and withdrawn. Without a deadline
//! all are waited for.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_timer::Delay;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use crate::call::Call;
use crate::error::{Error, Result};
use crate::fuse::Fusion;
use crate::passage::Query;
use crate::ranking::Ranking;
use crate::report::{RetrieverOutcome, RetrieverReport};
use crate::score::Scale;
use crate::second_stage::OnFailure;
use crate::stage::Retriever;

/// The wait share of a first stage whose candidates are reranked.
pub const BEFORE_RERANKING: f64 = 2.0 / 3.0;

/// Retrievers, and how their rankings become one. Cheap to clone.
///
/// ```no_run
/// # fn of(bm25: impl topshelf_core::Retriever + 'static, dense: impl topshelf_core::Retriever + 'static)
/// # -> topshelf_core::Result<()> {
/// use topshelf_core::{Call, FirstStage, OnFailure, Query};
/// let stage = FirstStage::new(bm25).and(dense).on_failure(OnFailure::KeepOrder).with_depth(50)?;
/// let call = Call::new();
/// let call = call.due_at(call.began() + std::time::Duration::from_millis(30));
/// let candidates = pollster::block_on(stage.run(&call, &Query::new("How old do fleas get?")?))?;
/// for report in &candidates.retrievers {
///     println!("{}: {:?}", report.name, report.outcome);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct FirstStage {
    first: Arc<dyn Retriever>,
    others: Vec<Arc<dyn Retriever>>,
    fusion: Fusion,
    depth: usize,
    on_failure: OnFailure,
    wait_share: f64,
}

/// What the first stage found for a query.
#[derive(Debug, Clone)]
pub struct Candidates {
    /// At most `depth`, as the first stage orders them.
    pub ranking: Ranking,
    /// What each retriever did, in their order.
    pub retrievers: Vec<RetrieverReport>,
}

impl FirstStage {
    /// One retriever, 100 candidates.
    pub fn new(retriever: impl Retriever + 'static) -> Self {
        Self {
            first: Arc::new(retriever),
            others: Vec::new(),
            fusion: Fusion::default(),
            depth: 100,
            on_failure: OnFailure::default(),
            wait_share: 1.0,
        }
    }

    /// Adds a retriever, which is asked at the same time.
    #[must_use]
    pub fn and(mut self, retriever: impl Retriever + 'static) -> Self {
        self.others.push(Arc::new(retriever));
        self
    }

    /// How several rankings become one; reciprocal rank fusion with k = 60 unless set.
    #[must_use]
    pub fn with_fusion(self, fusion: Fusion) -> Self {
        Self { fusion, ..self }
    }

    /// Candidates that each retriever fetches and that come out.
    ///
    /// # Errors
    ///
    /// [`Error::DepthZero`].
    pub fn with_depth(self, depth: usize) -> Result<Self> {
        if depth == 0 { Err(Error::DepthZero) } else { Ok(Self { depth, ..self }) }
    }

    /// What happens where a retriever fails or is late; [`OnFailure::Fail`] unless set.
    #[must_use]
    pub fn on_failure(self, on_failure: OnFailure) -> Self {
        Self { on_failure, ..self }
    }

    /// The share of the time until the deadline for which the others are waited for once one has found
    /// something; see the [module](self).
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] unless it is from 0 to 1.
    pub fn with_wait_share(self, share: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&share) {
            let (what, range) = ("the wait share", "from 0 to 1");
            return Err(Error::OutOfRange { what, value: share.to_string(), range });
        }
        Ok(Self { wait_share: share, ..self })
    }

    /// The retrievers, in their order.
    pub fn retrievers(&self) -> impl Iterator<Item = &dyn Retriever> {
        std::iter::once(&self.first).chain(&self.others).map(AsRef::as_ref)
    }

    /// How the rankings are fused; `None` for a single retriever.
    pub fn fusion(&self) -> Option<&Fusion> {
        (!self.others.is_empty()).then_some(&self.fusion)
    }

    /// Candidates that each retriever fetches.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Finds the candidates for a query, until the call is due.
    ///
    /// # Errors
    ///
    /// See the [module](self). [`Error::TooLate`] stands for a retriever that has not answered.
    pub async fn run(&self, call: &Call, query: &Query) -> Result<Candidates> {
        let account = call.part();
        let mut lookups: Vec<Lookup<'_>> =
            self.retrievers().map(|own| Lookup::start(own, &account, query, self.depth)).collect();
        self.wait(call, &mut lookups).await;
        if let Some(place) = lookups.iter().position(|own| self.is_fatal(own.answer()))
            && let Some(Err(error)) = lookups.swap_remove(place).into_answer()
        {
            return Err(error.after_spending(account.spent()));
        }
        let is_single = self.others.is_empty();
        let (mut rankings, mut reports) = (Vec::new(), Vec::new());
        let (mut failed, mut nothing, mut has_answer) = (None, None, false);
        for lookup in lookups {
            let (name, milliseconds) = (lookup.name.to_owned(), lookup.milliseconds());
            let (outcome, ranking) = match lookup.into_answer() {
                Some(Ok(ranking)) => {
                    has_answer = true;
                    (RetrieverOutcome::Found { passages: ranking.len() }, Some(ranking))
                }
                Some(Err(error @ Error::NothingToLookUp { .. })) => {
                    let reason = error.reason();
                    nothing.get_or_insert(error);
                    (RetrieverOutcome::NothingToLookUp { reason }, None)
                }
                Some(Err(error)) => {
                    let reason = error.reason();
                    failed.get_or_insert(error);
                    (RetrieverOutcome::Failed { reason }, None)
                }
                None => {
                    failed.get_or_insert(Error::TooLate { stage: name.clone(), milliseconds });
                    (RetrieverOutcome::TooLate, None)
                }
            };
            rankings.push(match ranking {
                Some(ranking) => ranking,
                None => Ranking::new(name.clone(), Scale::Rank, [])?,
            });
            reports.push(RetrieverReport { name, outcome, milliseconds });
        }
        let error = match self.on_failure {
            OnFailure::Fail => failed.or(nothing.filter(|_| !has_answer)),
            OnFailure::KeepOrder => failed.or(nothing).filter(|_| !has_answer),
        };
        if let Some(error) = error {
            return Err(error.after_spending(account.spent()));
        }
        let ranking = match rankings.pop() {
            Some(only) if is_single => only,
            last => self.fusion.fuse(rankings.into_iter().chain(last).collect())?,
        };
        Ok(Candidates { ranking: ranking.top(self.depth), retrievers: reports })
    }

    /// Whether an answer is an error of the whole stage, whatever the others say.
    fn is_fatal(&self, answer: Option<&Result<Ranking>>) -> bool {
        match answer {
            Some(Ok(_) | Err(Error::NothingToLookUp { .. })) | None => false,
            Some(Err(error)) => self.on_failure == OnFailure::Fail || !error.is_of_stage(),
        }
    }

    /// Waits until all have answered, long enough, or until one's answer is an error of the whole stage.
    async fn wait(&self, call: &Call, lookups: &mut [Lookup<'_>]) {
        let due = call.due();
        let enough = due.map(|due| {
            let time = due.saturating_duration_since(call.began());
            call.began() + time.mul_f64(self.wait_share)
        });
        let mut timer: Option<(Instant, Delay)> = None;
        std::future::poll_fn(|context| {
            let (mut is_over, mut has_candidates) = (true, false);
            for lookup in lookups.iter_mut() {
                lookup.poll(context);
                match lookup.answer() {
                    None => is_over = false,
                    Some(Ok(ranking)) => has_candidates |= !ranking.is_empty(),
                    answer if self.is_fatal(answer) => return Poll::Ready(()),
                    Some(Err(_)) => {}
                }
            }
            let until = if has_candidates { enough } else { due };
            if is_over || until.is_some_and(|until| until <= Instant::now()) {
                return Poll::Ready(());
            }
            let Some(until) = until else { return Poll::Pending };
            if timer.as_ref().is_none_or(|(of, _)| *of != until) {
                let left = until.saturating_duration_since(Instant::now());
                timer = Some((until, Delay::new(left)));
            }
            match &mut timer {
                Some((_, delay)) => Pin::new(delay).poll(context),
                None => Poll::Pending,
            }
        })
        .await;
    }
}

type Search<'a> = Pin<Box<dyn Future<Output = Result<Ranking>> + Send + 'a>>;

/// A retriever that was asked. Dropping it withdraws what is out.
struct Lookup<'a> {
    name: &'a str,
    began: Instant,
    span: Span,
    state: State<'a>,
}

enum State<'a> {
    Asked(Search<'a>),
    Answered(Result<Ranking>, f64),
}

impl<'a> Lookup<'a> {
    fn start(retriever: &'a dyn Retriever, account: &Call, query: &'a Query, depth: usize) -> Self {
        let (name, call) = (retriever.name(), account.part());
        let span = tracing::debug_span!(
            "retrieve",
            retriever = name,
            depth,
            found = Empty,
            failed = Empty,
        );
        let began = call.began();
        let search = async move { retriever.retrieve(&call, query, depth).await };
        let state = State::Asked(Box::pin(search.instrument(span.clone())));
        Self { name, began, span, state }
    }

    fn poll(&mut self, context: &mut Context<'_>) {
        let State::Asked(search) = &mut self.state else { return };
        let Poll::Ready(answer) = search.as_mut().poll(context) else { return };
        match &answer {
            Ok(ranking) => self.span.record("found", ranking.len()),
            Err(_) => self.span.record("failed", true), // its words may repeat a text
        };
        self.state = State::Answered(answer, milliseconds_since(self.began));
    }

    fn answer(&self) -> Option<&Result<Ranking>> {
        match &self.state {
            State::Answered(answer, _) => Some(answer),
            State::Asked(_) => None,
        }
    }

    /// How long it took, or has been waited for.
    fn milliseconds(&self) -> f64 {
        match &self.state {
            State::Answered(_, milliseconds) => *milliseconds,
            State::Asked(_) => milliseconds_since(self.began),
        }
    }

    fn into_answer(self) -> Option<Result<Ranking>> {
        match self.state {
            State::Answered(answer, _) => Some(answer),
            State::Asked(_) => None,
        }
    }
}

fn milliseconds_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests;
