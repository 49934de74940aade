//! Normalising to length 1.

use proptest::collection::vec;
use proptest::prelude::*;
use topshelf_kernels::l2_normalise;

use super::support::f32_value;

proptest! {
    #[test]
    fn the_length_becomes_one_and_the_direction_stays(original in vec(f32_value(), 0..500)) {
        let mut unit = original.clone();
        let norm = l2_normalise(&mut unit);
        let length: f64 = unit.iter().map(|&x| f64::from(x).powi(2)).sum();
        if original.iter().all(|&x| x == 0.0) {
            prop_assert_eq!(norm, 0.0);
            prop_assert_eq!(unit, original);
        } else {
            prop_assert!((length - 1.0).abs() < 1e-6, "squared length {length}");
            for (x, u) in original.iter().zip(unit) {
                prop_assert!((x - u * norm).abs() <= 3e-7 * x.abs() + f32::MIN_POSITIVE);
            }
        }
    }
}

#[test]
fn the_ends_of_the_range_neither_overflow_nor_vanish() {
    let half = std::f32::consts::FRAC_1_SQRT_2;
    for size in [f32::MAX, f32::MIN_POSITIVE, f32::from_bits(1)] {
        let mut v = [size, -size];
        l2_normalise(&mut v);
        assert_eq!(v, [half, -half], "{size:e}");
    }
}

#[test]
fn a_length_beyond_f32_is_infinite() {
    assert_eq!(l2_normalise(&mut [f32::MAX, f32::MAX]), f32::INFINITY);
}
