//! A setup tried on recorded queries.

use std::num::NonZero;

use topshelf_core::Setup;

use crate::error::Result;
use crate::judged::{Judged, mean};
use crate::rate::Paid;
use crate::record::Recording;

/// What a setup reached, query by query.
#[derive(Debug, Clone)]
pub(crate) struct Trial {
    /// The measure.
    pub(crate) figures: Vec<f64>,
    /// How long each would have taken.
    pub(crate) milliseconds: Vec<f64>,
    /// Pairs that a reranker would have scored.
    pub(crate) pairs: Vec<usize>,
    /// What they would have cost, all queries together; `None` where nothing is paid by use.
    pub(crate) paid: Option<Paid>,
}

impl Trial {
    /// Tries a setup on the queries at these places.
    pub(crate) fn of(
        recording: &Recording,
        judged: &Judged,
        setup: &Setup,
        queries: &[usize],
    ) -> Result<Self> {
        let top = judged.measure.cutoff().unwrap_or(usize::MAX);
        let (mut lines, mut milliseconds, mut pairs) = (Vec::new(), Vec::new(), Vec::new());
        let mut paid: Option<Paid> = None;
        for query in queries {
            let replayed = recording.replay(setup, *query, top)?;
            let id = recording.queries[*query].id.as_str();
            lines.push((id, judged.unit.lines(&replayed.ranking)));
            milliseconds.push(replayed.milliseconds);
            pairs.push(replayed.pairs);
            if let Some(own) = replayed.paid {
                paid = Some(paid.unwrap_or_default().and(own));
            }
        }
        let figures = judged.figures(lines.into_iter())?;
        Ok(Self { figures, milliseconds, pairs, paid })
    }

    /// Tries many setups, on all cores; `progress` is told how many are done.
    pub(crate) fn all(
        recording: &Recording,
        judged: &Judged,
        setups: &[Setup],
        queries: &[usize],
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Self>> {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let mut trials = Vec::with_capacity(setups.len());
        for some in setups.chunks(threads) {
            let tried: Vec<Result<Self>> = std::thread::scope(|scope| {
                let running: Vec<_> = some
                    .iter()
                    .map(|setup| scope.spawn(move || Self::of(recording, judged, setup, queries)))
                    .collect();
                let joined = running.into_iter().map(std::thread::ScopedJoinHandle::join);
                joined
                    .map(|tried| tried.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                    .collect()
            });
            for trial in tried {
                trials.push(trial?);
            }
            progress(trials.len());
        }
        Ok(trials)
    }

    /// The mean of the measure.
    pub(crate) fn mean(&self) -> f64 {
        mean(self.figures.iter().copied())
    }

    /// How much less the mean is than another's, and the standard error of that.
    pub(crate) fn loss_against(&self, other: &Self) -> (f64, f64) {
        let losses = || other.figures.iter().zip(&self.figures).map(|(other, own)| other - own);
        let (n, loss) = (self.figures.len() as f64, mean(losses()));
        let variance = mean(losses().map(|each| (each - loss).powi(2)));
        (loss, (variance / (n - 1.0).max(1.0)).sqrt())
    }

    /// The mean time.
    pub(crate) fn mean_ms(&self) -> f64 {
        mean(self.milliseconds.iter().copied())
    }

    /// The time within which a share of the queries, 0 to 1, is answered; by nearest rank.
    pub(crate) fn percentile_ms(&self, share: f64) -> f64 {
        let mut sorted = self.milliseconds.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }
}
