//! The k best against sorting all of them.

use proptest::collection::vec;
use proptest::prelude::*;
use topshelf_kernels::top_k;

/// Sorts everything: score descending, then index ascending.
fn by_sorting(scores: &[f32], k: usize, keep: impl Fn(usize) -> bool) -> Vec<(usize, f32)> {
    let mut all: Vec<(usize, f32)> = scores.iter().copied().enumerate().collect();
    all.retain(|&(index, _)| keep(index));
    all.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap().then(a.0.cmp(&b.0)));
    all.truncate(k);
    all
}

fn bits(ranked: Vec<(usize, f32)>) -> Vec<(usize, u32)> {
    ranked.into_iter().map(|(i, s)| (i, s.to_bits())).collect()
}

proptest! {
    #[test]
    fn it_is_the_head_of_the_sorted_list(
        scores in vec(
            prop_oneof![
                3 => (-4_i8..4).prop_map(f32::from), // many ties
                2 => -1.0_f32..1.0,
                1 => Just(-0.0_f32),
                1 => Just(f32::INFINITY),
                1 => Just(f32::NEG_INFINITY),
            ],
            0..300,
        ),
        k in 0_usize..320,
        modulus in 1_usize..5,
    ) {
        let keep = |i: usize| i.is_multiple_of(modulus);
        prop_assert_eq!(bits(top_k(&scores, k, keep)), bits(by_sorting(&scores, k, keep)));
    }
}

#[test]
fn nothing_wanted_or_kept_gives_nothing() {
    assert_eq!(top_k(&[1.0, 2.0], 0, |_| true), []);
    assert_eq!(top_k(&[1.0, 2.0], 2, |_| false), []);
    assert_eq!(top_k(&[], 2, |_| true), []);
}

#[test]
fn more_than_there_are_gives_all() {
    assert_eq!(top_k(&[1.0, 2.0], usize::MAX, |_| true), [(1, 2.0), (0, 1.0)]);
}

#[test]
fn the_filter_is_asked_only_about_scores_that_would_enter() {
    let asked = std::cell::RefCell::new(Vec::new());
    let ranked = top_k(&[3.0, 1.0, 2.0, 3.0, 4.0], 1, |i| {
        asked.borrow_mut().push(i);
        true
    });
    assert_eq!(ranked, [(4, 4.0)]);
    assert_eq!(asked.into_inner(), [0, 4]);
}
