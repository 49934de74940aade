//! Is the difference between two systems more than chance? Two answers over the same queries:
//!
//! - **Paired two-sided randomisation test** (Fisher; for retrieval: Smucker, Allan and Carterette,
//!   "A comparison of statistical significance tests for information retrieval evaluation", CIKM
//!   2007). If the two systems were the same, each query's two figures could be swapped. The
//!   p-value is the share of sign patterns `s` in {-1, +1}^n with `|mean(s * d)| >= |mean(d)|`,
//!   where `d(q) = system(q) - baseline(q)`. All 2^n patterns are tried up to n = 12, where the
//!   p-value is exact; beyond, 10,000 random ones, where it is `(hits + 1) / (10,000 + 1)`: the
//!   observed pattern is one of the patterns, so the estimate is never 0 (Phipson and Smyth,
//!   "Permutation p-values should never be zero", 2010).
//! - **Bootstrap interval** of the mean difference: 10,000 samples of n queries with replacement,
//!   the 2.5th and the 97.5th percentile of their means (Efron; Smucker et al., section 3.3).
//!   It says how large the difference may be, where the p-value only says whether there is one.
//!
//! Same input and same seed, same answer, bit for bit, on every machine: the random numbers are
//! splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA
//! 2014), and sums run in the order of the queries. No correction for testing many measures or
//! many systems is applied; report how many were tested.

use serde::Serialize;

use crate::error::{EvalError, Result};
use crate::evaluation::{Evaluation, mean};
use crate::measure::Measure;

/// Random sign patterns, and bootstrap samples.
const RESAMPLES: usize = 10_000;

/// Up to this many queries all sign patterns are tried: 2^12 is fewer than [`RESAMPLES`].
const EXACT_UP_TO: usize = 12;

/// How a system compares with a baseline in one measure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Comparison {
    /// Queries compared.
    pub n: usize,
    /// The mean of `system - baseline`; positive where the system is better.
    pub mean_difference: f64,
    /// Lower end of the bootstrap's 95% interval of the mean difference.
    pub low: f64,
    /// Upper end of it.
    pub high: f64,
    /// Two-sided p-value of the randomisation test, above 0 and at most 1.
    pub p_value: f64,
    /// Queries where the system is better.
    pub wins: usize,
    /// Queries where both have the same figure.
    pub ties: usize,
    /// Queries where the baseline is better.
    pub losses: usize,
}

/// Compares two evaluations in every measure that both have, in the order of `baseline`.
///
/// # Errors
/// They are not over the same queries, or have no measure in common.
pub fn compare(
    baseline: &Evaluation,
    system: &Evaluation,
    seed: u64,
) -> Result<Vec<(Measure, Comparison)>> {
    if baseline.queries != system.queries {
        let (left, right) = (baseline.queries.len(), system.queries.len());
        let reason = format!("they are over different queries ({left} and {right} of them)");
        return Err(EvalError::NotPaired { reason });
    }
    let mut comparisons = Vec::new();
    for scores in &baseline.scores {
        if let Some(other) = system.of(scores.measure) {
            let comparison = compare_paired(&scores.per_query, &other.per_query, seed)?;
            comparisons.push((scores.measure, comparison));
        }
    }
    if comparisons.is_empty() {
        return Err(EvalError::NotPaired { reason: "they have no measure in common".to_owned() });
    }
    Ok(comparisons)
}

/// Compares two systems' figures, `baseline[i]` and `system[i]` being those of query `i`.
///
/// ```
/// let weak = [0.1, 0.2, 0.3, 0.4, 0.2, 0.1];
/// let strong = [0.4, 0.5, 0.5, 0.9, 0.4, 0.3];
/// let comparison = topshelf_eval::compare_paired(&weak, &strong, 1)?;
/// // All six differences point one way: 2 of 64 sign patterns are as extreme.
/// assert_eq!(comparison.p_value, 2.0 / 64.0);
/// assert!(comparison.low > 0.0);
/// # Ok::<(), topshelf_eval::EvalError>(())
/// ```
///
/// # Errors
/// The two have different lengths, none at all, or hold a number that is not finite.
pub fn compare_paired(baseline: &[f64], system: &[f64], seed: u64) -> Result<Comparison> {
    let refuse = |reason: String| Err(EvalError::NotPaired { reason });
    if baseline.len() != system.len() {
        return refuse(format!("{} figures against {}", baseline.len(), system.len()));
    }
    if baseline.is_empty() {
        return refuse("there are no figures".to_owned());
    }
    let differences: Vec<f64> = system.iter().zip(baseline).map(|(s, b)| s - b).collect();
    if differences.iter().any(|d| !d.is_finite()) {
        return refuse("one of the figures is not a finite number".to_owned());
    }
    let (low, high) = bootstrap_interval(&differences, &mut SplitMix(seed));
    Ok(Comparison {
        n: differences.len(),
        mean_difference: mean(&differences),
        low,
        high,
        p_value: randomisation_test(&differences, &mut SplitMix(seed)),
        wins: differences.iter().filter(|&&d| d > 0.0).count(),
        ties: differences.iter().filter(|&&d| d == 0.0).count(),
        losses: differences.iter().filter(|&&d| d < 0.0).count(),
    })
}

fn randomisation_test(differences: &[f64], random: &mut SplitMix) -> f64 {
    let n = differences.len();
    // Patterns that are equal on paper may differ in the last bits of their sums, by far less
    // than the step between two patterns that differ on paper.
    let magnitude: f64 = differences.iter().map(|d| d.abs()).sum();
    let observed = differences.iter().sum::<f64>().abs() - magnitude * 1e-12;
    if n <= EXACT_UP_TO {
        let patterns = 1_u64 << n;
        let hits = (0..patterns)
            .filter(|&pattern| signed_sum(differences, &mut std::iter::once(pattern)) >= observed)
            .count();
        return hits as f64 / patterns as f64;
    }
    let hits = (0..RESAMPLES)
        .filter(|_| {
            signed_sum(differences, &mut std::iter::repeat_with(|| random.next())) >= observed
        })
        .count();
    (hits + 1) as f64 / (RESAMPLES + 1) as f64
}

/// The absolute sum of the differences, each negated where its bit is set; `words` gives the
/// bits, 64 at a time.
fn signed_sum(differences: &[f64], words: &mut impl Iterator<Item = u64>) -> f64 {
    let sum: f64 = differences
        .chunks(64)
        .zip(words)
        .flat_map(|(chunk, word)| {
            chunk.iter().enumerate().map(move |(i, &d)| if word >> i & 1 == 1 { -d } else { d })
        })
        .sum();
    sum.abs()
}

fn bootstrap_interval(differences: &[f64], random: &mut SplitMix) -> (f64, f64) {
    let n = differences.len();
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| (0..n).map(|_| differences[random.below(n)]).sum::<f64>() / n as f64)
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    (percentile(&means, 0.025), percentile(&means, 0.975))
}

/// The `p`-quantile, 0 to 1, of sorted values, interpolated linearly between neighbours.
fn percentile(sorted: &[f64], p: f64) -> f64 {
    let position = p * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * position.fract()
}

/// splitmix64: 64 random bits a step from a counter.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`. The product maps 64 bits to `n` parts whose sizes differ by at most
    /// one in 2^64 / n, which no sample of 10,000 can show.
    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix_gives_the_published_sequence() {
        let mut random = SplitMix(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| random.next()).collect();
        let published =
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(first, published);
    }

    #[test]
    fn equal_systems_are_not_different() {
        let figures = [0.5, 0.25, 1.0];
        let comparison = compare_paired(&figures, &figures, 7).unwrap();
        assert_eq!((comparison.p_value, comparison.low, comparison.high), (1.0, 0.0, 0.0));
        assert_eq!((comparison.wins, comparison.ties, comparison.losses), (0, 3, 0));
    }

    #[test]
    fn exact_test_counts_patterns() {
        // Differences 3, 2, -1: sum 4. Of the eight sums 6 4 2 0 and their negatives, four have
        // a magnitude of 4 or more.
        let p = randomisation_test(&[3.0, 2.0, -1.0], &mut SplitMix(0));
        assert!((p - 0.5).abs() < 1e-12, "{p}");
    }

    #[test]
    fn sampled_test_agrees_with_the_exact_one() {
        let differences: Vec<f64> = (0..12).map(|i| f64::from(i) - 4.0).collect();
        let exact = randomisation_test(&differences, &mut SplitMix(0));
        // Four zeros more change no sum, and make the test sample.
        let longer: Vec<f64> = differences.iter().copied().chain([0.0; 4]).collect();
        let sampled = randomisation_test(&longer, &mut SplitMix(0));
        assert!((exact - sampled).abs() < 0.02, "{exact} {sampled}");
    }

    #[test]
    fn beyond_64_queries_every_query_has_its_own_sign() {
        let mut baseline = vec![0.0; 130];
        let system = vec![1.0; 130];
        let clear = compare_paired(&baseline, &system, 3).unwrap();
        assert!((clear.p_value - 1.0 / 10_001.0).abs() < 1e-12);
        baseline[..65].fill(2.0);
        assert!((compare_paired(&baseline, &system, 3).unwrap().p_value - 1.0).abs() < 1e-12);
    }

    #[test]
    fn interval_is_that_of_the_normal_approximation() {
        let system: Vec<f64> = (0..100).map(|i| f64::from(i) / 100.0).collect();
        let comparison = compare_paired(&[0.2; 100], &system, 11).unwrap();
        let deviation = (system.iter().map(|x| (x - 0.495).powi(2)).sum::<f64>() / 100.0).sqrt();
        let half = 1.96 * deviation / 10.0;
        assert!((comparison.mean_difference - 0.295).abs() < 1e-12);
        assert!((comparison.low - (0.295 - half)).abs() < 0.003, "{comparison:?}");
        assert!((comparison.high - (0.295 + half)).abs() < 0.003, "{comparison:?}");
    }

    #[test]
    fn same_seed_same_bits() {
        let system: Vec<f64> = (0..40).map(|i| f64::from(i * 7 % 11) / 11.0).collect();
        let once = compare_paired(&[0.4; 40], &system, 5).unwrap();
        assert_eq!(once, compare_paired(&[0.4; 40], &system, 5).unwrap());
    }

    #[test]
    fn what_cannot_be_paired_is_refused() {
        assert!(compare_paired(&[0.1], &[0.1, 0.2], 0).is_err());
        assert!(compare_paired(&[], &[], 0).is_err());
        assert!(compare_paired(&[f64::NAN], &[0.1], 0).is_err());
    }
}
