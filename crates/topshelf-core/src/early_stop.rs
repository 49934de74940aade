//! Early stop: the dearer reranker of a cascade ends once what is left cannot enter the top.
//!
//! A cheap reranker has scored all candidates and the dearer one reads them from the best on. What it
//! will say of the next is not known, but how far it tends to lie above what the cheap one said can be
//! learnt from both stages' scores on the user's own queries: `dear = slope * cheap + intercept + e`.
//! Once the n-th best of what has been read lies above the line at the next candidate by more than
//! `bound`, a candidate that belongs into the top n is missed only where its error `e` exceeds the
//! bound, and `risk` is the share of passages where it does.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::stage::RerankOutcome;

/// Pairs of scores below which a line and its errors say nothing.
const LEAST: usize = 20;

/// Ends a dearer reranker's work once what is left cannot enter the top; see the [module](self).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStop {
    /// Of the line.
    pub slope: f32,
    /// Of the line.
    pub intercept: f32,
    /// How far above the line a passage may come, 0 or more.
    pub bound: f32,
    /// The share of passages that come still higher, 0 to 1.
    pub risk: f32,
}

impl EarlyStop {
    /// Fits line and bound on pairs of scores of the same passages, the cheap reranker's first: the
    /// line by least squares, the bound as the error that a share of at most `risk` exceeds.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] for a risk outside of 0 to 1; [`Error::CannotFit`] for fewer than twenty
    /// pairs, and for a cheap reranker whose scores do not rise with the dearer one's, because the
    /// next candidate would not be the most promising one then.
    ///
    /// ```
    /// use topshelf_core::EarlyStop;
    /// // The dear score is twice the cheap one, or 1 more in one case of ten.
    /// let pairs: Vec<(f32, f32)> =
    ///     (0..100).map(|n| (n as f32, 2.0 * n as f32 + f32::from(n % 10 == 0))).collect();
    /// let careful = EarlyStop::fit(&pairs, 0.0)?;
    /// let bold = EarlyStop::fit(&pairs, 0.2)?;
    /// assert!((careful.slope - 2.0).abs() < 0.01);
    /// assert!(careful.bound > 0.85 && bold.bound < 0.1);
    /// # Ok::<(), topshelf_core::Error>(())
    /// ```
    pub fn fit(pairs: &[(f32, f32)], risk: f32) -> Result<Self> {
        let cannot = |reason: String| Err(Error::CannotFit { what: "early stop", reason });
        if pairs.len() < LEAST {
            let n = pairs.len();
            return cannot(format!("there are {n} pairs of scores; it takes {LEAST}"));
        }
        let n = pairs.len() as f64;
        let wide = |pair: &(f32, f32)| (f64::from(pair.0), f64::from(pair.1));
        let (sum_x, sum_y) =
            pairs.iter().map(wide).fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
        let (mean_x, mean_y) = (sum_x / n, sum_y / n);
        let (mut xx, mut xy) = (0.0, 0.0);
        for (x, y) in pairs.iter().map(wide) {
            xx += (x - mean_x).powi(2);
            xy += (x - mean_x) * (y - mean_y);
        }
        if xy <= 0.0 || xx <= 0.0 {
            return cannot("the dearer scores do not rise with the cheaper ones".to_owned());
        }
        let slope = xy / xx;
        let intercept = mean_y - slope * mean_x;
        let mut errors: Vec<f64> =
            pairs.iter().map(wide).map(|(x, y)| y - slope.mul_add(x, intercept)).collect();
        errors.sort_by(f64::total_cmp);
        let own = Self { slope: slope as f32, intercept: intercept as f32, bound: 0.0, risk };
        own.check()?;
        let beyond = (f64::from(risk) * n).floor() as usize;
        let bound = errors[errors.len() - 1 - beyond.min(errors.len() - 1)].max(0.0);
        Ok(Self { bound: bound as f32, ..own })
    }

    /// Whether the numbers mean something.
    pub(crate) fn check(self) -> Result<()> {
        let finite = [self.slope, self.intercept, self.bound].iter().all(|n| n.is_finite());
        if finite && self.bound >= 0.0 && (0.0..=1.0).contains(&self.risk) {
            return Ok(());
        }
        let (what, range) = ("the early stop", "finite, a bound of 0 or more, a risk of 0 to 1");
        Err(Error::OutOfRange { what, value: format!("{self:?}"), range })
    }

    /// Whether the next candidate, whose score in the stage before (`before`, descending) is the
    /// highest of what is left, stays below the `top` best so far.
    pub(crate) fn is_reached(self, outcomes: &[RerankOutcome], before: &[f32], top: usize) -> bool {
        let mut scores: Vec<f32> =
            outcomes.iter().filter_map(|outcome| Some(outcome.as_ref().ok()?.score)).collect();
        let Some(next) = before.get(outcomes.len()) else { return false };
        if top == 0 || scores.len() < top {
            return false;
        }
        scores.sort_by(|a, b| b.total_cmp(a));
        scores[top - 1] > self.slope.mul_add(*next, self.intercept) + self.bound
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_cannot_be_learnt_from_is_refused() {
        let falling: Vec<(f32, f32)> = (0..30).map(|n| (n as f32, -(n as f32))).collect();
        let error = EarlyStop::fit(&falling, 0.05).unwrap_err();
        assert!(error.to_string().contains("do not rise"), "{error}");
        assert!(EarlyStop::fit(&falling[..19], 0.05).is_err());
        let rising: Vec<(f32, f32)> = (0..30).map(|n| (n as f32, n as f32)).collect();
        assert!(EarlyStop::fit(&rising, 1.5).is_err());
        assert!(EarlyStop::fit(&rising, f32::NAN).is_err());
    }

    proptest! {
        #[test]
        fn no_more_than_the_risk_lies_above_the_bound(
            errors in prop::collection::vec(-3_f32..3.0, 20..80),
            risk in 0_f32..1.0,
        ) {
            let pairs: Vec<(f32, f32)> =
                errors.iter().enumerate().map(|(n, e)| (n as f32, 2.0 * n as f32 + e)).collect();
            let stop = EarlyStop::fit(&pairs, risk).unwrap();
            let above = pairs
                .iter()
                .filter(|(x, y)| *y > stop.slope.mul_add(*x, stop.intercept) + stop.bound + 1e-3);
            prop_assert!(above.count() as f32 <= risk * pairs.len() as f32);
        }
    }
}
