//! Which sequences run together: longest first, up to a budget of tokens.
//!
//! Two things are decided here, and they are easily confused.
//!
//! **What goes to the engine in one call** (this file): sequences in descending length, cut into
//! calls of [`Encoder::token_budget`] tokens. Longest first keeps all threads busy to the end
//! (the short ones fill the gaps), and between two calls it is looked whether anyone still waits
//! for the answer.
//!
//! **What is computed together.** The native engine ([`crate::native`]) takes all tokens of a call as
//! rows and rounds row by row, so nothing of this matters to it. On the ONNX path ([`crate::onnx`])
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

use crate::encoder::{Encoder, Output, Sequence, TokenBatch};
use crate::error::Result;
use crate::worker::Ticket;

/// Cuts sequences of the given lengths into calls: longest first (equal lengths in their given
/// order), at most `budget` tokens a call, a sequence longer than the budget alone.
///
/// ```
/// use topshelf_models::batch::plan;
/// assert_eq!(plan(&[10, 90, 30, 60], 100), [vec![1], vec![3, 2, 0]]);
/// ```
pub fn plan(lengths: &[usize], budget: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&index| Reverse(lengths[index]));
    let mut calls: Vec<Vec<usize>> = Vec::new();
    let mut used = 0;
    for index in order {
        match calls.last_mut() {
            Some(call) if used + lengths[index] <= budget => {
                call.push(index);
                used += lengths[index];
            }
            _ => {
                calls.push(vec![index]);
                used = lengths[index];
            }
        }
    }
    calls
}

/// Runs all sequences and hands each its rows: `each(index, rows)`, where `rows` is one row for
/// [`Output::Logits`] and [`Output::Cls`], and one for each token for [`Output::Hidden`].
///
/// # Errors
///
/// What the encoder says, and [`crate::ModelError::Inference`] as soon as nobody waits any more.
pub(crate) fn encode_all(
    encoder: &dyn Encoder,
    sequences: &[Sequence],
    want: Output,
    ticket: &Ticket<'_>,
    mut each: impl FnMut(usize, &[f32]),
) -> Result<()> {
    let lengths: Vec<usize> = sequences.iter().map(Sequence::len).collect();
    for call in plan(&lengths, encoder.token_budget()) {
        ticket.check()?;
        let batch: TokenBatch = call.iter().map(|&index| &sequences[index]).collect();
        let answer = encoder.encode(&batch, want)?;
        let rows = if want == Output::Hidden { batch.ids().len() } else { batch.len() };
        let width = answer.len() / rows;
        let mut rest = answer.as_slice();
        for index in call {
            let own = if want == Output::Hidden { lengths[index] } else { 1 };
            let (mine, others) = rest.split_at(own * width);
            each(index, mine);
            rest = others;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_sequence_stands_once_longest_first_within_the_budget(
            lengths in prop::collection::vec(1_usize..600, 0..200),
            budget in 1_usize..3000,
        ) {
            let calls = plan(&lengths, budget);
            let flat: Vec<usize> = calls.iter().flatten().copied().collect();
            let mut sorted = flat.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..lengths.len()).collect::<Vec<_>>());
            prop_assert!(flat.windows(2).all(|pair| lengths[pair[0]] >= lengths[pair[1]]));
            for call in &calls {
                let tokens: usize = call.iter().map(|&index| lengths[index]).sum();
                prop_assert!(call.len() == 1 || tokens <= budget);
            }
        }
    }
}
