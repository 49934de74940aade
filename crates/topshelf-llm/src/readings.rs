//! What passages are worth when a model has read them, once or several times, in small groups: [`deal`],
//! [`worths`].
//!
//! Language models favour places: the first letter, the last passage, the order as it is shown (Liu et
//! al., "Lost in the Middle", 2023). Small ones favour them more than what is written there. So the same
//! passages are read again in other places, beside others (Tang et al., "Found in the Middle:
//! Permutation Self-Consistency", 2023), and what was due to the place is told from what was due to the
//! passage by a model of both:
//!
//! ```text
//! ln p(letter) = worth(passage) + bias(place) + level(group) + chance
//! ```
//!
//! fitted by least squares over all readings of one query. The level is there because a letter's
//! probability is one beside those of its group only: the same passage has less among good ones. With
//! bias and level taken out, groups that were never read together compare. Nothing is fitted across
//! queries, and the same readings give the same worths. One round cannot tell bias from worth: all of it
//! counts as worth, and since those that the stage before put first stand first, a leaning towards early
//! places speaks for its order.
//!
//! **Dealing.** n passages go into ⌈n / size⌉ groups. Whom a passage meets and where it stands changes
//! from round to round: the passage of rank k stands in column a = k mod groups and row b = k / groups,
//! and in round r it goes into group a + r·b, at place b + r·s, where the stride s is about 0.6 of the
//! size, so that few rounds visit places that lie far apart.

/// Rounds of the alternating fit; it has settled long before.
const SWEEPS: usize = 64;

/// Some passages that were read together: their indices, in the order in which they stood, and what the
/// model said of each.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reading {
    pub(crate) group: Vec<usize>,
    /// The natural logarithm of the probability of each one's letter.
    pub(crate) logs: Vec<f64>,
}

/// The groups of a round, each of at most `size`, and each passage in one of them. Where the last row is
/// not full, groups differ by one at most.
pub(crate) fn deal(count: usize, size: usize, round: usize) -> Vec<Vec<usize>> {
    let groups = count.div_ceil(size.max(1)).max(1);
    let rows = count.div_ceil(groups);
    let stride = stride(rows);
    // Each group's places; what is left open closes up.
    let mut dealt = vec![vec![None; rows]; groups];
    for rank in 0..count {
        let (column, row) = (rank % groups, rank / groups);
        let is_whole = (row + 1) * groups <= count;
        // The last ones, if they do not fill a row, stay in their columns.
        let group = if is_whole { (column + round * row) % groups } else { column };
        dealt[group][(row + round * stride) % rows] = Some(rank);
    }
    dealt.into_iter().map(|group| group.into_iter().flatten().collect()).collect()
}

/// About 0.6 of the rows, and without a common divisor with them, so that the places of all rounds hang
/// together.
fn stride(rows: usize) -> usize {
    let common = |mut a: usize, mut b: usize| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    (rows * 3 / 5..rows).find(|&stride| stride > 0 && common(stride, rows) == 1).unwrap_or(1)
}

/// The worth of each of `count` passages: the least squares of the model above. A passage that was not
/// read has that of the mean, 0.
pub(crate) fn worths(count: usize, readings: &[Reading]) -> Vec<f64> {
    let places = readings.iter().map(|reading| reading.group.len()).max().unwrap_or_default();
    let (mut worth, mut bias) = (vec![0.0; count], vec![0.0; places]);
    let mut level = vec![0.0; readings.len()];
    let mut mean = vec![(0.0, 0.0); count.max(places)];
    for _ in 0..SWEEPS {
        for (level, Reading { group, logs }) in level.iter_mut().zip(readings) {
            let left = group.iter().zip(logs).enumerate();
            let sum: f64 = left.map(|(place, (&of, log))| log - worth[of] - bias[place]).sum();
            *level = sum / group.len().max(1) as f64;
        }
        // Worths before biases: what one reading alone cannot tell apart is the passage's.
        for of_passages in [true, false] {
            mean.fill((0.0, 0.0));
            for (level, Reading { group, logs }) in level.iter().zip(readings) {
                for (place, (&of, log)) in group.iter().zip(logs).enumerate() {
                    let (at, other) =
                        if of_passages { (of, bias[place]) } else { (place, worth[of]) };
                    mean[at].0 += log - level - other;
                    mean[at].1 += 1.0;
                }
            }
            let fitted = if of_passages { &mut worth } else { &mut bias };
            for (value, (sum, times)) in fitted.iter_mut().zip(&mean) {
                *value = if *times > 0.0 { sum / times } else { 0.0 };
            }
        }
    }
    worth
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rounds_change_places_and_neighbours() {
        assert_eq!(deal(6, 3, 0), [vec![0, 2, 4], vec![1, 3, 5]]);
        assert_eq!(deal(6, 3, 1), [vec![4, 0, 3], vec![5, 1, 2]]);
        // What does not fill a row closes up.
        assert_eq!(deal(4, 3, 0), [vec![0, 2], vec![1, 3]]);
        assert_eq!(deal(1, 5, 3), [vec![0]]);
        // Four rounds of twenty in fives: nobody stands in one place twice, and few meet again.
        let (mut stood, mut met) = (HashSet::new(), HashSet::new());
        let mut again = 0;
        for group in (0..4).flat_map(|round| deal(20, 5, round)) {
            for (place, of) in group.iter().enumerate() {
                assert!(stood.insert((*of, place)), "{of} stands at {place} again");
                for other in &group[place + 1..] {
                    again += usize::from(!met.insert((*of.min(other), *of.max(other))));
                }
            }
        }
        assert!(again < 40, "{again} of 160 meetings were not the first");
    }

    /// What a model says that favours early places, of passages that are worth their index.
    fn readings(count: usize, size: usize, rounds: usize) -> Vec<Reading> {
        let groups = (0..rounds).flat_map(|round| deal(count, size, round));
        let read = |group: Vec<usize>| {
            let scores: Vec<f64> = group
                .iter()
                .enumerate()
                .map(|(place, &of)| of as f64 / 5.0 - 3.0 * place as f64)
                .collect();
            let all = scores.iter().map(|score| score.exp()).sum::<f64>().ln();
            Reading { logs: scores.iter().map(|score| score - all).collect(), group }
        };
        groups.map(read).collect()
    }

    #[test]
    fn the_bias_of_places_is_told_from_worth() {
        let order = |worths: &[f64]| {
            let mut order: Vec<usize> = (0..worths.len()).collect();
            order.sort_by(|&a, &b| worths[b].total_cmp(&worths[a]));
            order
        };
        let best_first: Vec<usize> = (0..20).rev().collect();
        assert_ne!(order(&worths(20, &readings(20, 5, 1))), best_first, "one round cannot tell");
        for rounds in 2..=5 {
            assert_eq!(order(&worths(20, &readings(20, 5, rounds))), best_first, "{rounds} rounds");
        }
        // All at once, in two orders.
        assert_eq!(order(&worths(7, &readings(7, 7, 2))), [6, 5, 4, 3, 2, 1, 0]);
    }

    #[test]
    fn without_a_second_reading_the_first_is_believed() {
        let one = Reading { group: vec![2, 0, 1], logs: vec![-0.5, -3.0, -1.0] };
        let worths = worths(4, &[one]);
        assert!(worths[2] > worths[1] && worths[1] > worths[0]);
        assert!(worths[3].abs() < 1e-9, "what was not read is worth the mean");
    }

    proptest! {
        #[test]
        fn each_round_deals_each_passage_once(count in 1_usize..60, size in 2_usize..26, round in 0_usize..8) {
            let groups = deal(count, size, round);
            let mut all: Vec<usize> = groups.iter().flatten().copied().collect();
            all.sort_unstable();
            prop_assert!(all.into_iter().eq(0..count));
            let sizes: Vec<usize> = groups.iter().map(Vec::len).collect();
            let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            prop_assert!(*most <= size && most - least <= 1, "{:?}", sizes);
        }
    }
}
