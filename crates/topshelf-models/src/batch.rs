//! Which sequences run together: longest first, up to a budget of tokens.
//!
//! Two things are decided here, and they are easily confused.
//!
//! **What goes to the engine in one call** (this file): the sequences of all requests that wait
//! (`src/queue`), up to [`crate::encoder::Encoder::token_budget`] tokens. The requests come in the
//! order in which they are due, and each gives its longest sequences first: that keeps all threads
//! busy to the end (the short ones fill the gaps). A request that ends in a call is not held up by one
//! that does not: beyond an eighth of the budget the others add to it only what ends too. That much
//! makes a call worth its overhead: 5 percent for 256 tokens on two threads, against 2,048. Between two
//! calls it is looked whether anyone still waits for an answer.
//!
//! **What is computed together.** The native engine ([`crate::native`]) takes all tokens of a call as
//! rows and rounds row by row, so nothing of this matters to it. On the ONNX path (`crate::onnx`)
//! a tensor is a single sequence, always. The usual int8 ONNX files quantise activations with one
//! scale for the whole tensor (`DynamicQuantizeLinear`), so in a padded batch a pair's score depends
//! on its neighbours, and the rule "same pair, same bits" would be lost. It costs nothing. 100 pairs
//! of msmarco-dl19 (40 to 188 tokens, 9,524 in all), ms-marco-MiniLM-L12-v2 int8, rten 0.27, AMD EPYC
//! with AVX-512 VNNI, two cores:
//!
//! | tensor | threads | tokens/s | largest, mean change of a logit |
//! | --- | --- | --- | --- |
//! | one sequence | two runs of one thread each | **10,017** | 0, 0 |
//! | one sequence | one run of two threads | 6,588 | 0, 0 |
//! | 4 sorted and padded | two runs of one thread each | 9,926 | 0.54, 0.14 |
//! | 8 | two runs of one thread each | 9,719 | 0.61, 0.15 |
//! | 16 | two runs of one thread each | 8,531 | 0.50, 0.13 |
//! | 32 | two runs of one thread each | 6,866 | 0.42, 0.15 |
//! | 8 | one run of two threads | 7,512 | 0.61, 0.15 |
//!
//! (Best of four runs; the change is against the same pair alone.) Larger tensors are slower,
//! presumably because their activations no longer fit into the cache.

use std::cmp::Reverse;

use crate::encoder::Sequence;

/// This part of the budget makes a call worth its overhead.
const WORTH: usize = 8;

/// The order in which the sequences of a request go: the first `leading` before the others, and of
/// both the longest first, equal lengths in their given order.
pub(crate) fn order(sequences: &[Sequence], leading: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by_key(|&index| (index >= leading, Reverse(sequences[index].len())));
    order
}

/// How many sequences of each request go into the next call. `waiting` has for each request, in the
/// order in which they are due, the lengths of its sequences in the order in which they go. A sequence
/// that is longer than the budget goes alone.
pub(crate) fn compose(waiting: &[&[usize]], budget: usize) -> Vec<usize> {
    let (mut used, mut one_ends) = (0, false);
    let of_request = |lengths: &&[usize]| {
        let fits_within = |limit: usize| {
            let mut sum = used;
            let fitting = lengths.iter().take_while(|&&length| {
                sum += length;
                sum <= limit
            });
            fitting.count()
        };
        let mut count = fits_within(budget);
        let is_whole = count == lengths.len();
        if one_ends && !is_whole {
            count = fits_within(budget / WORTH);
        }
        if used == 0 && !lengths.is_empty() {
            count = count.max(1);
        }
        used += lengths[..count].iter().sum::<usize>();
        one_ends |= count > 0 && count == lengths.len();
        count
    };
    waiting.iter().map(of_request).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_leads_goes_first_and_then_what_is_long() {
        let of_length =
            |length| Sequence { ids: vec![1; length], type_ids: vec![0; length], unattended: 0 };
        let sequences = [3, 2, 9, 4, 9].map(of_length);
        assert_eq!(order(&sequences, 0), [2, 4, 3, 0, 1]);
        assert_eq!(order(&sequences, 2), [0, 1, 2, 4, 3]);
    }

    #[test]
    fn a_call_is_filled_unless_that_holds_up_what_ends_in_it() {
        // Two that end share a call, and a third that does not fit whole stays out of it,
        assert_eq!(compose(&[&[40, 10], &[30], &[30; 9]], 100), [2, 1, 0]);
        // unless the call would not be worth its overhead,
        assert_eq!(compose(&[&[4], &[4; 99]], 100), [1, 2]);
        // and one that is due first is not held back by those that end.
        assert_eq!(compose(&[&[30; 9], &[8], &[8]], 100), [3, 1, 0]);
        // One that does not end may be added to.
        assert_eq!(compose(&[&[60, 50], &[30, 20]], 100), [1, 1]);
        assert_eq!(compose(&[&[200, 5], &[5]], 100), [1, 0]);
        assert_eq!(compose(&[&[], &[7]], 100), [0, 1]);
        assert_eq!(compose(&[], 100), [0; 0]);
    }

    proptest! {
        #[test]
        fn alone_every_sequence_goes_once_longest_first_in_full_calls(
            lengths in prop::collection::vec(1_usize..600, 0..200),
            budget in 1_usize..3000,
        ) {
            let mut rest = lengths;
            rest.sort_by_key(|&length| Reverse(length));
            let mut rest = rest.as_slice();
            while !rest.is_empty() {
                let count = compose(&[rest], budget)[0];
                let tokens: usize = rest[..count].iter().sum();
                prop_assert!(count == 1 || (count > 1 && tokens <= budget));
                prop_assert!(rest.get(count).is_none_or(|next| tokens + next > budget));
                rest = &rest[count..];
            }
        }

        #[test]
        fn a_call_of_many_is_within_the_budget_and_the_first_is_in_it(
            requests in prop::collection::vec(prop::collection::vec(1_usize..600, 1..20), 1..20),
            budget in 1_usize..3000,
        ) {
            let waiting: Vec<&[usize]> = requests.iter().map(Vec::as_slice).collect();
            let counts = compose(&waiting, budget);
            prop_assert_eq!(counts[0], compose(&waiting[..1], budget)[0]);
            let tokens: usize =
                waiting.iter().zip(&counts).flat_map(|(own, &count)| &own[..count]).sum();
            prop_assert!(tokens <= budget || counts.iter().sum::<usize>() == 1);
        }
    }
}
