//! The k best of n scores, with their indices: score descending, then index
//! ascending, so the order is total.
//!
//! A heap of at most k entries with the worst on top: O(n log k) time at worst and
//! O(k) memory. Most scores of a long array lose against the worst of the heap, so
//! in practice it costs one comparison each.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// The `k` best of those `scores` whose index `keep` accepts, best first; equal
/// scores by ascending index (0.0 and −0.0 are equal). Fewer than `k` where fewer
/// are kept.
///
/// `keep` is the filter before the cut. It is asked in ascending order of index,
/// at most once each, and only about scores that would enter the list: it may be
/// costly, but it must not count.
///
/// NaN has no place in an order. It is refused by a debug assertion; in a release
/// build callers have checked where the scores were made, else its place in the
/// result is unspecified.
///
/// ```
/// use topshelf_kernels::top_k;
/// let scores = [0.1, 0.9, 0.5, 0.9];
/// assert_eq!(top_k(&scores, 3, |_| true), [(1, 0.9), (3, 0.9), (2, 0.5)]);
/// assert_eq!(top_k(&scores, 2, |i| i != 1), [(3, 0.9), (2, 0.5)]);
/// ```
pub fn top_k(scores: &[f32], k: usize, keep: impl Fn(usize) -> bool) -> Vec<(usize, f32)> {
    if k == 0 {
        return Vec::new();
    }
    let mut heap: BinaryHeap<Entry> = BinaryHeap::with_capacity(k.min(scores.len()));
    for (index, &score) in scores.iter().enumerate() {
        debug_assert!(!score.is_nan(), "top_k: the score at {index} is NaN");
        if heap.len() < k {
            if keep(index) {
                heap.push(Entry { index, score });
            }
        } else if let Some(mut worst) = heap.peek_mut() {
            // A later index loses a tie, so only a greater score enters.
            if score > worst.score && keep(index) {
                *worst = Entry { index, score };
            }
        }
    }
    heap.into_sorted_vec().into_iter().map(|entry| (entry.index, entry.score)).collect()
}

/// Ordered from best to worst, so that the heap's maximum is the worst kept.
struct Entry {
    index: usize,
    score: f32,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        // Adding +0.0 turns −0.0 into +0.0, which `total_cmp` would tell apart.
        (other.score + 0.0).total_cmp(&(self.score + 0.0)).then(self.index.cmp(&other.index))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}
