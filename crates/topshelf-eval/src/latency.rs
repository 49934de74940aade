//! A summary of how long things took: median, 95th and 99th percentile and mean, in milliseconds.
//!
//! Percentiles are by nearest rank: the p-th of n sorted durations is number `ceil(p * n / 100)`,
//! counted from 1. So a percentile is always a duration that occurred, and with fewer than twenty
//! of them p95 is the longest, with fewer than a hundred p99.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Median, 95th and 99th percentile and mean of a number of durations.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LatencySummary {
    /// The median, in milliseconds.
    pub p50_ms: f64,
    /// The 95th percentile, in milliseconds.
    pub p95_ms: f64,
    /// The 99th percentile, in milliseconds.
    pub p99_ms: f64,
    /// The arithmetic mean, in milliseconds.
    pub mean_ms: f64,
    /// How many durations there were; at least 1.
    pub n: usize,
}

impl LatencySummary {
    /// Summarises `durations`, in any order; `None` when there are none.
    ///
    /// ```
    /// use std::time::Duration;
    /// let took = (1..=100).map(Duration::from_millis).collect();
    /// let summary = topshelf_eval::LatencySummary::of(took).unwrap();
    /// assert_eq!((summary.p50_ms, summary.p95_ms, summary.p99_ms), (50.0, 95.0, 99.0));
    /// ```
    pub fn of(mut durations: Vec<Duration>) -> Option<Self> {
        let n = durations.len();
        if n == 0 {
            return None;
        }
        durations.sort_unstable();
        let nearest_rank = |percent: usize| durations[(percent * n).div_ceil(100) - 1];
        let total: Duration = durations.iter().sum();
        Some(Self {
            p50_ms: milliseconds(nearest_rank(50)),
            p95_ms: milliseconds(nearest_rank(95)),
            p99_ms: milliseconds(nearest_rank(99)),
            mean_ms: milliseconds(total) / n as f64,
            n,
        })
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_no_summary() {
        assert_eq!(LatencySummary::of(Vec::new()), None);
    }

    #[test]
    fn one_duration_is_all_of_them() {
        let summary = LatencySummary::of(vec![Duration::from_millis(7)]).unwrap();
        let seven = LatencySummary { p50_ms: 7.0, p95_ms: 7.0, p99_ms: 7.0, mean_ms: 7.0, n: 1 };
        assert_eq!(summary, seven);
    }

    #[test]
    fn order_of_input_does_not_matter() {
        let summary = LatencySummary::of([3, 1, 2].map(Duration::from_secs).to_vec()).unwrap();
        assert_eq!((summary.p50_ms, summary.p95_ms), (2000.0, 3000.0));
    }
}
