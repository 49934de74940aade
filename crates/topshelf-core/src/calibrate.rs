//! Calibration: a reranker's score to the probability that the passage is relevant.
//!
//! * **Sigmoid** `1 / (1 + exp(-s))`, the reading of a logit that its training suggests. It orders
//!   as the logit does, and is a probability only as far as the user's collection resembles the
//!   training's.
//! * **Platt** `1 / (1 + exp(-(a s + b)))` (Platt, "Probabilistic outputs for support vector
//!   machines", 1999), fitted by Newton steps with halving (Lin, Lin and Weng, "A note on Platt's
//!   probabilistic outputs", Machine Learning 68, 2007, algorithm 1) on targets that leave room for
//!   what has not been seen: `(N+ + 1) / (N+ + 2)` and `1 / (N- + 2)`.
//! * **Isotonic**: the non-decreasing step function nearest to the labels in squares, by pooling
//!   adjacent violators (Ayer et al., 1955); between the means of two pools linear, outside level.
//!   It bends to any shape and wants some hundred judgments.
//!
//! How good a calibration is says the [`expected_calibration_error`], measured on other judgments
//! than it was fitted on.
//!
//! A score that already is a probability is left alone: a sigmoid of a probability squeezes
//! everything into 0.5 to 0.73. Numbers are f64 throughout, rounded once at the end.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::score::{Scale, sigmoid};

/// How a reranker's score becomes a probability.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case")]
pub enum Calibration {
    /// The logistic function, unfitted.
    #[default]
    Sigmoid,
    /// The logistic function of a line.
    Platt {
        /// `a`, above 0: a higher score never means less relevant.
        slope: f64,
        /// `b`.
        intercept: f64,
    },
    /// A non-decreasing function through points.
    Isotonic {
        /// The points: score and probability, both non-decreasing, at least one.
        points: Vec<(f64, f64)>,
    },
}

/// A judged score: what calibrations are fitted on and measured with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JudgedScore {
    /// The reranker's score.
    pub score: f32,
    /// Whether the passage was judged relevant.
    pub relevant: bool,
}

impl Calibration {
    /// The probability, 0 to 1, that a passage with this score is relevant.
    ///
    /// # Errors
    ///
    /// [`Error::NotAProbability`] for a scale of which the logistic function says nothing: a
    /// cosine, a MaxSim sum. A fitted calibration takes any scale, that of its judgments.
    ///
    /// ```
    /// use topshelf_core::{Calibration, Scale};
    /// let sigmoid = Calibration::Sigmoid;
    /// assert_eq!(sigmoid.probability(0.0, Scale::Logit)?, 0.5);
    /// assert_eq!(sigmoid.probability(0.9, Scale::Probability)?, 0.9); // never a sigmoid twice
    /// assert!(sigmoid.probability(0.9, Scale::Cosine).is_err());
    /// # Ok::<(), topshelf_core::Error>(())
    /// ```
    pub fn probability(&self, score: f32, scale: Scale) -> Result<f32> {
        match self {
            Self::Sigmoid => match scale {
                Scale::Logit => Ok(sigmoid(score)),
                Scale::Probability => Ok(score),
                other => Err(Error::NotAProbability { scale: other }),
            },
            Self::Platt { slope, intercept } => {
                Ok(logistic(slope.mul_add(f64::from(score), *intercept)) as f32)
            }
            Self::Isotonic { points } => Ok(interpolate(points, f64::from(score)) as f32),
        }
    }

    /// One line for reports: `platt(1.3 s - 0.2)`.
    pub fn describe(&self) -> String {
        match self {
            Self::Sigmoid => "sigmoid".to_owned(),
            Self::Platt { slope, intercept } => format!("platt({slope:.3} s {intercept:+.3})"),
            Self::Isotonic { points } => format!("isotonic({} points)", points.len()),
        }
    }

    /// Fits Platt's line.
    ///
    /// # Errors
    ///
    /// [`Error::CannotFit`] unless there are relevant and other passages, and the relevant ones
    /// score higher on the whole: a reranker that ranks them lower cannot be mended by calibrating.
    pub fn fit_platt(judged: &[JudgedScore]) -> Result<Self> {
        let (positive, negative) = counts(judged)?;
        // Centred and scaled, so that steps are sound for scores of any size.
        let n = judged.len() as f64;
        let mean = judged.iter().map(|j| f64::from(j.score)).sum::<f64>() / n;
        let variance = judged.iter().map(|j| (f64::from(j.score) - mean).powi(2)).sum::<f64>() / n;
        let deviation = if variance > 0.0 { variance.sqrt() } else { 1.0 };
        let high = (positive + 1.0) / (positive + 2.0);
        let low = 1.0 / (negative + 2.0);
        let points: Vec<(f64, f64)> = judged
            .iter()
            .map(|j| ((f64::from(j.score) - mean) / deviation, if j.relevant { high } else { low }))
            .collect();
        let (a, b) = newton(&points, ((positive + 1.0) / (negative + 1.0)).ln());
        let slope = a / deviation;
        if slope <= 0.0 {
            let reason = "the relevant passages do not score higher than the others".to_owned();
            return Err(Error::CannotFit { what: "calibration", reason });
        }
        Ok(Self::Platt { slope, intercept: b - slope * mean })
    }

    /// Fits the isotonic function.
    ///
    /// # Errors
    ///
    /// [`Error::CannotFit`] unless there are relevant and other passages.
    pub fn fit_isotonic(judged: &[JudgedScore]) -> Result<Self> {
        counts(judged)?;
        let mut sorted = judged.to_vec();
        sorted.sort_by(|a, b| a.score.total_cmp(&b.score));
        let mut pools: Vec<Pool> = Vec::new();
        // Equal scores cannot have two probabilities, so they enter as one.
        for equal in sorted.chunk_by(|a, b| a.score.total_cmp(&b.score).is_eq()) {
            let weight = equal.len() as f64;
            let relevant = equal.iter().filter(|judged| judged.relevant).count() as f64;
            pools.push(Pool { scores: f64::from(equal[0].score) * weight, relevant, weight });
            while let [.., before, last] = pools.as_slice() {
                if before.probability() < last.probability() {
                    break;
                }
                let last = *last;
                pools.pop();
                if let Some(before) = pools.last_mut() {
                    before.take(&last);
                }
            }
        }
        let points = pools.iter().map(|pool| (pool.mean_score(), pool.probability())).collect();
        Ok(Self::Isotonic { points })
    }
}

/// Neighbouring scores that share a probability.
#[derive(Clone, Copy)]
struct Pool {
    scores: f64,
    relevant: f64,
    weight: f64,
}

impl Pool {
    fn take(&mut self, other: &Self) {
        self.scores += other.scores;
        self.relevant += other.relevant;
        self.weight += other.weight;
    }

    fn mean_score(&self) -> f64 {
        self.scores / self.weight
    }

    fn probability(&self) -> f64 {
        self.relevant / self.weight
    }
}

/// How many are relevant, and how many not.
fn counts(judged: &[JudgedScore]) -> Result<(f64, f64)> {
    let positive = judged.iter().filter(|j| j.relevant).count();
    let negative = judged.len() - positive;
    if positive == 0 || negative == 0 {
        let reason = format!(
            "there are {positive} judged relevant and {negative} judged not relevant; it takes both"
        );
        return Err(Error::CannotFit { what: "calibration", reason });
    }
    Ok((positive as f64, negative as f64))
}

/// Minimises the cross-entropy of `logistic(a x + b)` against the targets `t`; answers `a`, `b`.
fn newton(points: &[(f64, f64)], prior: f64) -> (f64, f64) {
    const STEPS: usize = 100;
    /// Keeps the Hessian invertible.
    const RIDGE: f64 = 1e-12;
    let loss = |a: f64, b: f64| -> f64 {
        points
            .iter()
            .map(|&(x, t)| {
                let z = a.mul_add(x, b);
                // log(1 + exp(-|z|)) + max(z, 0) - t z, which never overflows.
                (-z.abs()).exp().ln_1p() + z.max(0.0) - t * z
            })
            .sum()
    };
    let (mut a, mut b) = (0.0, prior);
    let mut now = loss(a, b);
    for _ in 0..STEPS {
        let (mut h11, mut h12, mut h22, mut ga, mut gb) = (RIDGE, 0.0, RIDGE, 0.0, 0.0);
        for &(x, t) in points {
            let p = logistic(a.mul_add(x, b));
            let (w, d) = (p * (1.0 - p), p - t);
            h11 += w * x * x;
            h12 += w * x;
            h22 += w;
            ga += d * x;
            gb += d;
        }
        if ga.abs() < 1e-9 && gb.abs() < 1e-9 {
            break;
        }
        let determinant = h11 * h22 - h12 * h12;
        let (da, db) = ((h12 * gb - h22 * ga) / determinant, (h12 * ga - h11 * gb) / determinant);
        let descent = ga * da + gb * db;
        let mut step = 1.0;
        while step >= 1e-10 {
            let next = loss(a + step * da, b + step * db);
            if next < now + 1e-4 * step * descent {
                (a, b, now) = (a + step * da, b + step * db, next);
                break;
            }
            step /= 2.0;
        }
        if step < 1e-10 {
            break;
        }
    }
    (a, b)
}

fn logistic(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

/// Linear between the points, level outside them; 0.5 where there is no point.
fn interpolate(points: &[(f64, f64)], score: f64) -> f64 {
    let after = points.partition_point(|&(s, _)| s <= score);
    let before = after.checked_sub(1).map(|before| points[before]);
    match (before, points.get(after).copied()) {
        (Some((s0, p0)), Some((s1, p1))) => p0 + (p1 - p0) * (score - s0) / (s1 - s0),
        (Some((_, p)), None) | (None, Some((_, p))) => p,
        (None, None) => 0.5,
    }
}

/// The expected calibration error: probabilities sorted into `bins` of equal width, and over the
/// bins the mean distance between the mean probability and the share that is relevant, weighted by
/// how many lie in each (Naeini, Cooper and Hauskrecht, AAAI 2015). 0 is perfect; 0 for nothing.
///
/// ```
/// use topshelf_core::calibrate::expected_calibration_error;
/// let honest = [(0.5, true), (0.5, false)];
/// assert_eq!(expected_calibration_error(&honest, 10), 0.0);
/// assert_eq!(expected_calibration_error(&[(0.75, false)], 10), 0.75);
/// ```
pub fn expected_calibration_error(judged: &[(f32, bool)], bins: usize) -> f64 {
    reliability(judged, bins)
        .iter()
        .map(|bin| {
            let share = bin.count as f64 / judged.len() as f64;
            share * (bin.mean_probability - bin.share_relevant).abs()
        })
        .sum()
}

/// One bin of a reliability diagram.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ReliabilityBin {
    /// Passages in it.
    pub count: usize,
    /// The mean of their probabilities.
    pub mean_probability: f64,
    /// The share of them that is relevant.
    pub share_relevant: f64,
}

/// The bins of a reliability diagram, from low to high probability, without the empty ones.
pub fn reliability(judged: &[(f32, bool)], bins: usize) -> Vec<ReliabilityBin> {
    let bins = bins.max(1);
    let mut sums = vec![(0_usize, 0.0_f64, 0_usize); bins];
    for &(probability, relevant) in judged {
        let bin = ((f64::from(probability) * bins as f64) as usize).min(bins - 1);
        sums[bin].0 += 1;
        sums[bin].1 += f64::from(probability);
        sums[bin].2 += usize::from(relevant);
    }
    sums.into_iter()
        .filter(|(count, ..)| *count > 0)
        .map(|(count, probabilities, relevant)| ReliabilityBin {
            count,
            mean_probability: probabilities / count as f64,
            share_relevant: relevant as f64 / count as f64,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn judged(pairs: &[(f32, bool)]) -> Vec<JudgedScore> {
        pairs.iter().map(|&(score, relevant)| JudgedScore { score, relevant }).collect()
    }

    #[test]
    fn platt_finds_the_line_that_made_the_labels() {
        // Of 200 passages at each score exactly the share logistic(0.8 s - 1) is relevant.
        let mut pairs = Vec::new();
        for score in -6..=6_i32 {
            let share = logistic(0.8 * f64::from(score) - 1.0);
            let relevant = (share * 2000.0).round() as usize;
            pairs.extend((0..2000).map(|n| (score as f32, n < relevant)));
        }
        let Calibration::Platt { slope, intercept } =
            Calibration::fit_platt(&judged(&pairs)).unwrap()
        else {
            panic!("not Platt's")
        };
        assert!(
            (slope - 0.8).abs() < 0.01 && (intercept + 1.0).abs() < 0.01,
            "{slope} {intercept}"
        );
    }

    #[test]
    fn separable_judgments_stay_short_of_certainty() {
        let fitted = Calibration::fit_platt(&judged(&[(-1.0, false), (1.0, true)])).unwrap();
        let p = fitted.probability(1.0, Scale::Logit).unwrap();
        assert!((p - 2.0 / 3.0).abs() < 1e-3, "{p}"); // (1 + 1) / (1 + 2)
    }

    #[test]
    fn a_reranker_upside_down_is_refused() {
        let error = Calibration::fit_platt(&judged(&[(1.0, false), (-1.0, true)])).unwrap_err();
        assert!(error.to_string().contains("do not score higher"), "{error}");
        assert!(Calibration::fit_platt(&judged(&[(1.0, true)])).is_err());
        assert!(Calibration::fit_isotonic(&judged(&[])).is_err());
    }

    #[test]
    fn violators_are_pooled() {
        let pairs = [(1.0, false), (2.0, true), (3.0, false), (4.0, true)];
        let fitted = Calibration::fit_isotonic(&judged(&pairs)).unwrap();
        let expected = vec![(1.0, 0.0), (2.5, 0.5), (4.0, 1.0)];
        assert_eq!(fitted, Calibration::Isotonic { points: expected });
        assert_eq!(fitted.probability(3.25, Scale::MaxSim).unwrap().to_bits(), 0.75_f32.to_bits());
        assert_eq!(fitted.probability(9.0, Scale::MaxSim).unwrap().to_bits(), 1_f32.to_bits());
    }

    proptest! {
        #[test]
        fn order_is_never_turned(
            pairs in prop::collection::vec((-12_f32..12.0, any::<bool>()), 2..60),
            (low, high) in (-15_f32..15.0, 0_f32..10.0).prop_map(|(a, d)| (a, a + d)),
        ) {
            let judged = judged(&pairs);
            for fitted in [Calibration::fit_platt(&judged), Calibration::fit_isotonic(&judged)] {
                let Ok(fitted) = fitted else { continue };
                let low = fitted.probability(low, Scale::Logit).unwrap();
                let high = fitted.probability(high, Scale::Logit).unwrap();
                prop_assert!((0.0..=1.0).contains(&low) && low <= high, "{fitted:?}: {low} {high}");
            }
        }

        /// Pooling answers the least squares among non-decreasing functions: no single step from a
        /// pool's value is better.
        #[test]
        fn isotonic_means_are_those_of_the_labels(
            pairs in prop::collection::vec((-3_i8..3, any::<bool>()), 2..60),
        ) {
            let pairs: Vec<(f32, bool)> =
                pairs.into_iter().map(|(s, r)| (f32::from(s), r)).collect();
            if let Ok(Calibration::Isotonic { points }) = Calibration::fit_isotonic(&judged(&pairs)) {
                prop_assert!(points.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 < w[1].1));
            }
        }
    }
}
