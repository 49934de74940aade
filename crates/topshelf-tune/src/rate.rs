//! What a reranker takes of time and of money, measured on a sample of calls and foretold of others:
//! [`Paid`].
//!
//! Time and tokens grow with the bytes of query and passages that are read. Searches, as some services
//! count, are one for every hundred passages of a call that has begun. A price that is known of the
//! sample is one of its searches, or else one of its bytes.

use serde::Serialize;
use topshelf_core::Usage;

/// Passages of a search, at most.
const PER_SEARCH: usize = 100;

/// What a query takes of models and services that are paid by use, as a mean.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Paid {
    /// Calls.
    pub calls: f64,
    /// Tokens that are read.
    pub input_tokens: f64,
    /// Tokens that are written.
    pub output_tokens: f64,
    /// Searches.
    pub searches: f64,
    /// What it costs, in USD; absent where no price is known.
    pub cost: Option<f64>,
}

impl Paid {
    /// The sum of two.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            calls: self.calls + other.calls,
            input_tokens: self.input_tokens + other.input_tokens,
            output_tokens: self.output_tokens + other.output_tokens,
            searches: self.searches + other.searches,
            cost: match (self.cost, other.cost) {
                (Some(own), Some(other)) => Some(own + other),
                (own, other) => own.or(other),
            },
        }
    }

    /// A part of it.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Self {
            calls: self.calls * factor,
            input_tokens: self.input_tokens * factor,
            output_tokens: self.output_tokens * factor,
            searches: self.searches * factor,
            cost: self.cost.map(|cost| cost * factor),
        }
    }
}

/// A reranker's pace and consumption.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rate {
    /// Milliseconds for a byte of query and passage.
    pub(crate) pace: f64,
    /// What the sample took; none for a reranker that is free.
    used: Usage,
    /// Bytes of the sample.
    bytes: usize,
    /// Searches that its calls should have taken.
    searches: usize,
}

impl Rate {
    /// Adds a call of the sample: its bytes and passages, and what it took.
    pub(crate) fn learn(&mut self, bytes: usize, passages: usize, used: Usage) {
        self.bytes += bytes;
        self.searches += passages.div_ceil(PER_SEARCH);
        self.used += used;
    }

    /// What a call takes; `None` where nothing is paid.
    pub(crate) fn foretell(&self, bytes: usize, passages: usize) -> Option<Paid> {
        if self.used.is_none() || passages == 0 {
            return None;
        }
        let Usage { calls, input_tokens, output_tokens, searches, cost, .. } = self.used;
        let of_bytes = bytes as f64 / self.bytes.max(1) as f64;
        let of_calls = passages.div_ceil(PER_SEARCH) as f64 / self.searches.max(1) as f64;
        let by_search = searches > 0;
        Some(Paid {
            calls: calls as f64 * if by_search { of_calls } else { of_bytes },
            input_tokens: input_tokens as f64 * of_bytes,
            output_tokens: output_tokens as f64 * of_bytes,
            searches: searches as f64 * of_calls,
            cost: cost.map(|nano| nano as f64 / 1e9 * if by_search { of_calls } else { of_bytes }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} {b}");
    }

    #[test]
    fn tokens_grow_with_what_is_read() {
        let mut rate = Rate::default();
        assert_eq!(rate.foretell(100, 10), None, "it is free");
        let used = Usage { calls: 30, input_tokens: 600, cost: Some(3000), ..Usage::default() };
        rate.learn(3000, 30, used);
        let paid = rate.foretell(1000, 10).unwrap();
        close(paid.calls, 10.0);
        close(paid.input_tokens, 200.0);
        close(paid.cost.unwrap(), 1e-6);
        assert_eq!(rate.foretell(0, 0), None);
    }

    #[test]
    fn searches_are_of_a_hundred_that_have_begun() {
        let mut rate = Rate::default();
        let used = Usage { calls: 1, searches: 1, cost: Some(2_000_000), ..Usage::default() };
        rate.learn(3000, 30, used);
        rate.learn(2000, 20, used);
        for (passages, searches) in [(1, 1.0), (100, 1.0), (101, 2.0)] {
            let paid = rate.foretell(passages * 100, passages).unwrap();
            close(paid.searches, searches);
            close(paid.cost.unwrap(), 0.002 * searches);
        }
    }

    #[test]
    fn sums_and_parts() {
        let one = Paid { calls: 1.0, cost: Some(0.5), ..Paid::default() };
        let both = one.and(Paid { calls: 2.0, ..Paid::default() }).times(0.5);
        close(both.calls, 1.5);
        assert_eq!(both.cost, Some(0.25));
    }
}
