//! Which thread computes which rows: [`Plan`].
//!
//! A call's sequences are taken in groups of about [`ROWS`] tokens a thread, so that what a thread
//! works on stays in its cache. The tokens of a group are shared out evenly **by tokens, not by
//! sequences**: a single long sequence keeps all threads busy. A sequence is cut only at multiples
//! of [`BLOCK`] tokens from its start, which is what keeps sums in attention in one order, whoever
//! computes them. Tokens that are not attended to are in no such sum, so behind the last one that is
//! a sequence is also cut at multiples of [`FINE`]: a query of late interaction, which is a single
//! block, keeps two threads busy.

use topshelf_kernels::attention::BLOCK;

/// The tokens of a group for each thread: fewer make more barriers, at which the shares of long texts
/// are more uneven; more leave the cache (measured: see docs/decisions).
pub(crate) const ROWS: usize = 512;

/// Where rows are cut that are not attended to.
const FINE: usize = 8;

/// Rows of one sequence in one thread's share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// The sequence, as its place in the call.
    pub(crate) sequence: usize,
    /// The first row's place in its sequence.
    pub(crate) first: usize,
    /// The number of rows.
    pub(crate) count: usize,
    /// So many of them, from the first, are attended to.
    pub(crate) keys: usize,
    /// The first row's place in the share.
    pub(crate) row: usize,
    /// The first block of keys, counted in the share.
    pub(crate) block: usize,
}

/// Rows of one span that are taken through a block together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) sequence: usize,
    /// The first row's place in its sequence.
    pub(crate) first: usize,
    pub(crate) count: usize,
    /// So many of them, from the first, are attended to.
    pub(crate) keys: usize,
    /// The first row's place in the share.
    pub(crate) row: usize,
    /// The first block of keys, counted in the share.
    pub(crate) block: usize,
    pub(crate) of_span: Span,
}

/// Spans cut into chunks of a few rows, each of whole parts; the buffers are used again.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    parts: Vec<Part>,
    /// The number of parts up to the end of each chunk.
    ends: Vec<usize>,
}

impl Chunks {
    /// Cuts the spans, whose rows follow each other from 0 on, into chunks of at most `most` rows,
    /// which is at least a block. A span is cut at blocks only.
    pub(crate) fn cut(&mut self, spans: &[Span], most: usize) {
        self.parts.clear();
        self.ends.clear();
        let mut room = most;
        for &span in spans {
            let mut done = 0;
            while done < span.count {
                let left = span.count - done;
                let count = if left <= room { left } else { room / BLOCK * BLOCK };
                if count == 0 {
                    self.ends.push(self.parts.len());
                    room = most;
                    continue;
                }
                self.parts.push(Part {
                    sequence: span.sequence,
                    first: span.first + done,
                    count,
                    keys: span.keys.saturating_sub(done).min(count),
                    row: span.row + done,
                    block: span.block + done / BLOCK,
                    of_span: span,
                });
                done += count;
                room -= count;
            }
        }
        if !self.parts.is_empty() {
            self.ends.push(self.parts.len());
        }
    }

    /// The number of chunks.
    pub(crate) fn count(&self) -> usize {
        self.ends.len()
    }

    /// The parts of a chunk.
    pub(crate) fn parts(&self, chunk: usize) -> &[Part] {
        let start = chunk.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.parts[start..self.ends[chunk]]
    }

    /// The rows of a chunk, as places in the share.
    pub(crate) fn rows(&self, chunk: usize) -> std::ops::Range<usize> {
        let parts = self.parts(chunk);
        let last = &parts[parts.len() - 1];
        parts[0].row..last.row + last.count
    }
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
    /// The sequence behind the last one.
    end: usize,
}

/// All groups of a call, in the order of its sequences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) groups: Vec<Group>,
}

impl Plan {
    /// Plans sequences that begin and end at `cu_seqlens`, each with so many tokens that are
    /// attended to, for so many threads.
    pub(crate) fn new(cu_seqlens: &[usize], attended: &[usize], threads: usize) -> Self {
        let sequences = cu_seqlens.len() - 1;
        let mut groups = Vec::new();
        let mut from = 0;
        while from < sequences {
            let tokens = |to: usize| cu_seqlens[to] - cu_seqlens[from];
            let mut most = from + 1;
            while most < sequences && tokens(most + 1) <= threads * ROWS {
                most += 1;
            }
            // A few sequences fewer may be shared out more evenly. The last group has no choice.
            let fewest = if most == sequences {
                most
            } else {
                (from + 1..=most).find(|&to| 4 * tokens(to) >= 3 * tokens(most)).unwrap_or(most)
            };
            let best = (fewest..=most)
                .rev()
                .map(|to| Group::new(cu_seqlens, attended, from..to, threads))
                .min_by_key(Group::waste)
                .unwrap_or_else(|| Group::new(cu_seqlens, attended, from..most, threads));
            from = best.end;
            groups.push(best);
        }
        Self { groups }
    }
}

impl Group {
    fn new(
        cu_seqlens: &[usize],
        attended: &[usize],
        sequences: std::ops::Range<usize>,
        threads: usize,
    ) -> Self {
        let start = cu_seqlens[sequences.start];
        let (tokens, end) = (cu_seqlens[sequences.end] - start, sequences.end);
        let mut shares = vec![Share::default(); threads];
        for sequence in sequences {
            let length = cu_seqlens[sequence + 1] - cu_seqlens[sequence];
            let mut next = 0;
            while next < length {
                let first = next;
                next = next_cut(first, attended[sequence]).min(length);
                let count = next - first;
                // The share into which the middle of the block falls.
                let middle = 2 * (cu_seqlens[sequence] - start + first) + count;
                let share = (middle * threads / (2 * tokens)).min(threads - 1);
                let keys = attended[sequence].saturating_sub(first).min(count);
                shares[share].add(sequence, first, count, keys);
            }
        }
        Self { shares, end }
    }

    /// How long the others wait for the thread with the largest share, in thousandths of the work.
    fn waste(&self) -> usize {
        let rows = || self.shares.iter().map(|share| share.rows);
        let (total, largest) = (rows().sum::<usize>(), rows().max().unwrap_or(0));
        (1000 * largest * self.shares.len()) / total.max(1)
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

/// Where rows from `first` on may be cut first, in a sequence of which so many tokens are attended to.
fn next_cut(first: usize, attended: usize) -> usize {
    if first >= attended {
        return first + FINE;
    }
    (first + BLOCK).min(attended.next_multiple_of(FINE))
}

impl Share {
    /// Appends rows, to the last span where they continue it.
    fn add(&mut self, sequence: usize, first: usize, count: usize, keys: usize) {
        match self.spans.last_mut() {
            Some(span) if span.sequence == sequence => {
                span.count += count;
                span.keys += keys;
            }
            _ => {
                let (row, block) = (self.rows, self.blocks);
                self.spans.push(Span { sequence, first, count, keys, row, block });
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
        let first = |count, keys| Span { sequence: 0, first: 0, count, keys, row: 0, block: 0 };
        let second = |count, keys| Span { first: 32, ..first(count, keys) };
        for (length, attended, shares) in [
            (66, 66, [first(32, 32), second(34, 34)]),
            (66, 40, [first(32, 32), second(34, 8)]),
            // A query of late interaction: 11 tokens of its own, and what it is padded with.
            (32, 11, [first(16, 11), Span { first: 16, ..first(16, 0) }]),
        ] {
            let plan = Plan::new(&[0, length], &[attended], 2);
            let spans: Vec<_> =
                plan.groups[0].pieces(0).map(|(share, span)| (share, *span)).collect();
            assert_eq!(spans, [(0, shares[0]), (1, shares[1])]);
        }
    }

    proptest! {
        #[test]
        fn every_row_stands_once_in_order_and_cuts_are_at_blocks(
            lengths in prop::collection::vec(1_usize..600, 1..40),
            threads in 1_usize..9,
        ) {
            let plan = Plan::new(&ends(&lengths), &lengths, threads);
            let mut next = (0, 0);
            for group in &plan.groups {
                let total: usize = group.shares.iter().map(|share| share.rows).sum();
                for share in &group.shares {
                    prop_assert!(share.rows <= total.div_ceil(threads) + BLOCK);
                    let (mut row, mut block) = (0, 0);
                    for span in &share.spans {
                        prop_assert_eq!((span.sequence, span.first), next);
                        prop_assert_eq!((span.row, span.block), (row, block));
                        prop_assert_eq!((span.first % BLOCK, span.keys), (0, span.count));
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
