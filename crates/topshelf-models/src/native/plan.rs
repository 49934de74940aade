//! Which thread computes which rows: [`Plan`].
//!
//! A call's sequences are taken in groups of about [`ROWS`] tokens a thread, so that what a thread
//! works on stays in its cache. The tokens of a group are shared out evenly **by tokens, not by
//! sequences**: a single long sequence keeps all threads busy. A sequence is cut only at multiples
//! of [`BLOCK`] tokens from its start, which is what keeps sums in attention in one order, whoever
//! computes them.

use topshelf_kernels::attention::BLOCK;

/// The tokens of a group for each thread. Measured on 9,500 tokens of MiniLM-L12 (see
/// docs/decisions): fewer make more barriers, more leave the cache.
pub(crate) const ROWS: usize = 128;

/// Rows of one sequence in one thread's share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// The sequence, as its place in the call.
    pub(crate) sequence: usize,
    /// The first row's place in its sequence.
    pub(crate) first: usize,
    /// The number of rows.
    pub(crate) count: usize,
    /// The first row's place in the share.
    pub(crate) row: usize,
    /// The first block of keys, counted in the share.
    pub(crate) block: usize,
}

/// What one thread computes of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) spans: Vec<Span>,
    pub(crate) rows: usize,
    pub(crate) blocks: usize,
}

/// Sequences that are computed together; one share for each thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) shares: Vec<Share>,
}

/// All groups of a call, in the order of its sequences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) groups: Vec<Group>,
}

impl Plan {
    /// Plans sequences that begin and end at `cu_seqlens` for so many threads.
    pub(crate) fn new(cu_seqlens: &[usize], threads: usize) -> Self {
        let sequences = cu_seqlens.len() - 1;
        let mut groups = Vec::new();
        let mut from = 0;
        while from < sequences {
            let mut to = from + 1;
            while to < sequences && cu_seqlens[to + 1] - cu_seqlens[from] <= threads * ROWS {
                to += 1;
            }
            groups.push(Group::new(cu_seqlens, from..to, threads));
            from = to;
        }
        Self { groups }
    }
}

impl Group {
    fn new(cu_seqlens: &[usize], sequences: std::ops::Range<usize>, threads: usize) -> Self {
        let start = cu_seqlens[sequences.start];
        let tokens = cu_seqlens[sequences.end] - start;
        let mut shares = vec![Share::default(); threads];
        for sequence in sequences {
            let length = cu_seqlens[sequence + 1] - cu_seqlens[sequence];
            for first in (0..length).step_by(BLOCK) {
                let count = BLOCK.min(length - first);
                // The share into which the middle of the block falls.
                let middle = 2 * (cu_seqlens[sequence] - start + first) + count;
                let share = (middle * threads / (2 * tokens)).min(threads - 1);
                shares[share].add(sequence, first, count);
            }
        }
        Self { shares }
    }

    /// The spans of a sequence in order, each with its share.
    pub(crate) fn pieces(&self, sequence: usize) -> impl Iterator<Item = (usize, &Span)> + Clone {
        self.shares.iter().enumerate().flat_map(move |(share, own)| {
            own.spans
                .iter()
                .filter(move |span| span.sequence == sequence)
                .map(move |span| (share, span))
        })
    }
}

impl Share {
    /// Appends rows, to the last span where they continue it.
    fn add(&mut self, sequence: usize, first: usize, count: usize) {
        match self.spans.last_mut() {
            Some(span) if span.sequence == sequence => span.count += count,
            _ => {
                let (row, block) = (self.rows, self.blocks);
                self.spans.push(Span { sequence, first, count, row, block });
            }
        }
        self.rows += count;
        self.blocks += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ends(lengths: &[usize]) -> Vec<usize> {
        let mut ends = vec![0];
        ends.extend(lengths.iter().scan(0, |sum, &length| {
            *sum += length;
            Some(*sum)
        }));
        ends
    }

    #[test]
    fn one_pair_is_shared_out() {
        let plan = Plan::new(&[0, 66], 2);
        let spans: Vec<_> = plan.groups[0].pieces(0).map(|(share, span)| (share, *span)).collect();
        let span = |first, count| Span { sequence: 0, first, count, row: 0, block: 0 };
        assert_eq!(spans, [(0, span(0, 32)), (1, span(32, 34))]);
    }

    proptest! {
        #[test]
        fn every_row_stands_once_in_order_and_cuts_are_at_blocks(
            lengths in prop::collection::vec(1_usize..600, 1..40),
            threads in 1_usize..9,
        ) {
            let plan = Plan::new(&ends(&lengths), threads);
            let mut next = (0, 0);
            for group in &plan.groups {
                let total: usize = group.shares.iter().map(|share| share.rows).sum();
                for share in &group.shares {
                    prop_assert!(share.rows <= total.div_ceil(threads) + BLOCK);
                    let (mut row, mut block) = (0, 0);
                    for span in &share.spans {
                        prop_assert_eq!((span.sequence, span.first), next);
                        prop_assert_eq!((span.row, span.block), (row, block));
                        prop_assert_eq!(span.first % BLOCK, 0);
                        row += span.count;
                        block += span.count.div_ceil(BLOCK);
                        next.1 += span.count;
                        if next.1 == lengths[next.0] {
                            next = (next.0 + 1, 0);
                        }
                    }
                    prop_assert_eq!((row, block), (share.rows, share.blocks));
                }
            }
            prop_assert_eq!(next, (lengths.len(), 0));
        }
    }
}
