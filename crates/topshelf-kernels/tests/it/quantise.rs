//! int8 codes of an f32 row.

use proptest::collection::vec;
use proptest::prelude::*;
use topshelf_kernels::quantise_i8_row;

use super::support::f32_value;

proptest! {
    #[test]
    fn every_value_is_within_half_a_step(row in vec(f32_value(), 0..500)) {
        let mut codes = vec![99; row.len()];
        let scale = quantise_i8_row(&row, &mut codes);
        let largest = row.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
        prop_assert_eq!(scale, largest / 127.0);
        for (&x, &code) in row.iter().zip(&codes) {
            let error = (f64::from(x) - f64::from(scale) * f64::from(code)).abs();
            prop_assert!(error <= 0.50001 * f64::from(scale), "{x} as {code} · {scale}");
        }
    }

    #[test]
    fn the_largest_has_code_127_and_the_opposite_row_opposite_codes(
        row in vec(f32_value(), 1..100),
        largest in 1.0e7_f32..1.0e30,
    ) {
        let mut row = row;
        row.push(largest);
        let mut codes = vec![0; row.len()];
        let scale = quantise_i8_row(&row, &mut codes);
        prop_assert_eq!(codes.last(), Some(&127));

        let opposite: Vec<f32> = row.iter().map(|x| -x).collect();
        let mut opposite_codes = vec![0; row.len()];
        prop_assert_eq!(quantise_i8_row(&opposite, &mut opposite_codes), scale);
        for (a, b) in codes.iter().zip(&opposite_codes) {
            prop_assert_eq!(*a, -*b);
        }
    }
}

#[test]
fn ties_go_to_the_even_code() {
    let row = [127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5];
    let mut codes = [0; 7];
    assert_eq!(quantise_i8_row(&row, &mut codes), 1.0);
    assert_eq!(codes, [127, 0, 2, 2, 0, -2, -2]);
}

#[test]
fn zero_and_vanishing_rows_have_scale_zero() {
    for row in [[0.0, -0.0], [f32::MIN_POSITIVE, 0.0], [126.0 * f32::MIN_POSITIVE; 2]] {
        let mut codes = [99; 2];
        assert_eq!(quantise_i8_row(&row, &mut codes), 0.0, "{row:?}");
        assert_eq!(codes, [0; 2], "{row:?}");
    }
}

#[test]
fn the_ends_of_the_range_keep_their_codes() {
    for size in [f32::MAX, 128.0 * f32::MIN_POSITIVE] {
        let mut codes = [0; 3];
        quantise_i8_row(&[size, -size, size / 2.0], &mut codes);
        assert_eq!(codes[..2], [127, -127], "{size:e}");
        assert!((63..=64).contains(&codes[2]), "{size:e}");
    }
}

#[test]
#[should_panic(expected = "one code per value")]
fn different_lengths_panic() {
    quantise_i8_row(&[1.0, 2.0], &mut [0]);
}
