//! Inner products: exact for int8, within the documented bound and with the same
//! bits everywhere for f32.

use proptest::prelude::*;
use topshelf_kernels::{Isa, dot, dot_f32, dot_f32_with, dot_i8, dot_i8_with};

use super::support::{dims, f32_value, i8_value, on_every_isa, unaligned};

on_every_isa! {
    fn f32_is_within_its_bound(
        isa,
        (a, b) in dims().prop_flat_map(|d| (unaligned(f32_value(), d), unaligned(f32_value(), d))),
    ) {
        let (a, b) = (a.as_slice(), b.as_slice());
        let got = dot_f32_with(isa, a, b);
        let exact = dot::reference::dot_f32(a, b);
        let magnitudes: f64 = a.iter().zip(b).map(|(&x, &y)| (f64::from(x) * f64::from(y)).abs()).sum();
        let roundings = a.len().div_ceil(32) + 6;
        let unit = f64::from(f32::EPSILON) / 2.0;
        // 1.001 for the higher-order terms; MIN_POSITIVE per element for underflow.
        let bound = 1.001 * roundings as f64 * unit * magnitudes
            + a.len() as f64 * f64::from(f32::MIN_POSITIVE);
        prop_assert!((f64::from(got) - exact).abs() <= bound, "{isa}: {got} for {exact}");
    }

    fn f32_has_the_same_bits_everywhere(
        isa,
        (a, b) in dims().prop_flat_map(|d| (unaligned(f32_value(), d), unaligned(f32_value(), d))),
    ) {
        let (a, b) = (a.as_slice(), b.as_slice());
        let here = dot_f32_with(isa, a, b);
        let portable = dot_f32_with(Isa::Portable, a, b);
        prop_assert_eq!(here.to_bits(), portable.to_bits(), "{}: {} and {}", isa, here, portable);
    }

    fn i8_is_exact(
        isa,
        (a, b) in dims().prop_flat_map(|d| (unaligned(i8_value(), d), unaligned(i8_value(), d))),
    ) {
        let (a, b) = (a.as_slice(), b.as_slice());
        prop_assert_eq!(
            i64::from(dot_i8_with(isa, a, b)),
            dot::reference::dot_i8(a, b),
            "{}",
            isa
        );
    }
}

/// Each pair of extreme codes at every length through two of the widest chunks: the
/// cases where i16 saturates or the negation of −128 fails.
#[test]
fn i8_is_exact_at_the_extremes() {
    let extremes = [i8::MIN, -127, -1, 0, 1, i8::MAX];
    for isa in Isa::available() {
        for len in 0..=130 {
            for (a, b) in extremes.iter().flat_map(|&a| extremes.map(|b| (a, b))) {
                assert_eq!(
                    dot_i8_with(isa, &vec![a; len], &vec![b; len]),
                    len as i32 * i32::from(a) * i32::from(b),
                    "{isa}: {len} times {a}·{b}"
                );
            }
        }
    }
}

#[test]
fn i8_is_exact_up_to_131071_elements_and_wraps_beyond() {
    let lowest = vec![i8::MIN; 1_200_000];
    let highest = vec![i8::MAX; 1_200_000];
    for isa in Isa::available() {
        assert_eq!(
            dot_i8_with(isa, &lowest[..131_071], &lowest[..131_071]),
            131_071 * 16_384,
            "{isa}"
        );
        // The longest also overflow each lane of the widest registers by themselves.
        for len in [131_072, 131_073, 1_200_000] {
            for (a, b) in [(&lowest, &lowest), (&lowest, &highest), (&highest, &lowest)] {
                let (a, b) = (&a[..len], &b[..len]);
                let wrapped = dot::reference::dot_i8(a, b) as i32;
                assert_eq!(dot_i8_with(isa, a, b), wrapped, "{isa}: {len}");
            }
        }
    }
}

#[test]
fn the_plain_functions_run_the_detected_set() {
    let isa = Isa::detect().unwrap();
    let a: Vec<f32> = (0..100).map(|i| (i as f32).sin()).collect();
    let codes: Vec<i8> = (-50..50).collect();
    assert_eq!(dot_f32(&a, &a).to_bits(), dot_f32_with(isa, &a, &a).to_bits());
    assert_eq!(dot_i8(&codes, &codes), dot_i8_with(isa, &codes, &codes));
}

#[test]
#[should_panic(expected = "two vectors of one length")]
fn different_lengths_panic() {
    dot_f32(&[1.0], &[1.0, 2.0]);
}

#[test]
#[should_panic(expected = "which this CPU does not have")]
fn a_set_that_the_machine_lacks_panics() {
    let missing = Isa::ALL
        .into_iter()
        .find(|isa| !isa.is_available())
        .expect("no machine has both AVX and NEON");
    dot_i8_with(missing, &[1], &[1]);
}
