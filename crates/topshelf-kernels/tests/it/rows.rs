//! Layer norm and rounding to u8, against their formulas.

use proptest::collection::vec;
use proptest::prelude::*;
use topshelf_kernels::Isa;
use topshelf_kernels::rows::{
    layer_norm, layer_norm_with, quantise_u8_row, quantise_u8_row_with, quantise_u8_rows,
};

use super::reference;
use super::support::{f32_value, fused, on_every_isa};

/// Rows of one width with what layer norm wants.
#[derive(Debug, Clone)]
struct Case {
    width: usize,
    rows: Vec<f32>,
    residual: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

fn width() -> impl Strategy<Value = usize> {
    prop_oneof![1_usize..=100, Just(64_usize), Just(384), Just(385)]
}

fn case() -> impl Strategy<Value = Case> {
    (width(), 0_usize..5, any::<bool>(), any::<bool>()).prop_flat_map(
        |(width, count, residual, bias)| {
            let len = width * count;
            (
                vec(-10.0_f32..10.0, len),
                vec(-10.0_f32..10.0, if residual { len } else { 0 }),
                vec(-2.0_f32..2.0, width),
                vec(-2.0_f32..2.0, if bias { width } else { 0 }),
            )
                .prop_map(move |(rows, residual, weight, bias)| Case {
                    width,
                    rows,
                    residual,
                    weight,
                    bias,
                })
        },
    )
}

impl Case {
    fn run(&self, isa: Isa, row: std::ops::Range<usize>) -> Vec<f32> {
        let elements = row.start * self.width..row.end * self.width;
        let mut rows = self.rows[elements.clone()].to_vec();
        let residual = self.residual.get(elements).unwrap_or(&[]);
        layer_norm_with(isa, &mut rows, residual, &self.weight, &self.bias, 1e-5);
        rows
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

on_every_isa! {
    fn layer_norm_is_its_formula(isa, case in case()) {
        let count = case.rows.len() / case.width;
        let out = case.run(isa, 0..count);
        for r in 0..count {
            let place = r * case.width;
            let row: Vec<f64> = (place..place + case.width)
                .map(|i| {
                    f64::from(case.rows[i]) + case.residual.get(i).map_or(0.0, |&x| f64::from(x))
                })
                .collect();
            let (normal, deviation) = reference::normalise(&row, 1e-5);
            // The element and the mean have the rounding errors of numbers up to 20.
            let of_mean = 20.0 * 1.2e-6 / deviation;
            for (i, normal) in normal.into_iter().enumerate() {
                let weight = f64::from(case.weight[i]);
                let bias = case.bias.get(i).map_or(0.0, |&x| f64::from(x));
                let got = f64::from(out[place + i]);
                let tolerance =
                    (of_mean * (1.0 + normal.abs()) + 2e-6 * normal.abs()) * weight.abs()
                        + 2e-7 * bias.abs();
                prop_assert!(
                    (got - (normal * weight + bias)).abs() <= tolerance,
                    "{isa}: {got} for {}, {tolerance:e} allowed", normal * weight + bias
                );
            }
            prop_assert_eq!(bits(&case.run(isa, r..r + 1)), bits(&out[place..][..case.width]));
        }
        if fused(isa) {
            let elsewhere = case.run(Isa::detect().expect("a set"), 0..count);
            prop_assert_eq!(bits(&elsewhere), bits(&out), "{}", isa);
        }
    }

    fn every_element_is_within_half_a_step_of_its_code(
        isa,
        row in vec(f32_value(), 0..200),
        more in 0_usize..6,
    ) {
        let mut codes = vec![99; row.len() + more];
        let (scale, zero) = quantise_u8_row_with(isa, &row, &mut codes);
        let lower = row.iter().fold(0.0_f32, |a, &b| a.min(b));
        let upper = row.iter().fold(0.0_f32, |a, &b| a.max(b));
        prop_assert_eq!(scale, (upper - lower) / 255.0);
        prop_assert!((0..=255).contains(&zero));
        for (&x, &code) in row.iter().zip(&codes) {
            let back = f64::from(scale) * f64::from(i32::from(code) - zero);
            prop_assert!(
                (f64::from(x) - back).abs() <= 0.5001 * f64::from(scale),
                "{isa}: {x} as {code}, that is {back}"
            );
        }
        prop_assert!(codes[row.len()..].iter().all(|&code| code == 0), "{}: {:?}", isa, codes);
        if fused(isa) {
            let mut elsewhere = vec![99; codes.len()];
            quantise_u8_row(&row, &mut elsewhere);
            prop_assert_eq!(&elsewhere, &codes, "{}", isa);
        }
    }
}

proptest! {
    #[test]
    fn many_rows_are_rounded_as_each_alone(
        (width, rows) in (1_usize..70, 0_usize..6)
            .prop_flat_map(|(width, count)| (Just(width), vec(f32_value(), width * count))),
        more in 0_usize..5,
    ) {
        let (count, stride) = (rows.len() / width, width + more);
        let mut codes = vec![99; count * stride];
        let (mut scales, mut zeros) = (vec![9.0; count], vec![9; count]);
        quantise_u8_rows(&rows, width, (&mut codes, stride), &mut scales, &mut zeros);
        for r in 0..count {
            let mut alone = vec![99; stride];
            let (scale, zero) = quantise_u8_row(&rows[r * width..][..width], &mut alone);
            prop_assert_eq!((scale, zero), (scales[r], zeros[r]));
            prop_assert_eq!(&alone, &codes[r * stride..][..stride]);
        }
    }
}

#[test]
fn rows_of_zeros_and_of_no_elements_have_scale_zero() {
    for isa in Isa::available() {
        for row in [&[][..], &[0.0, -0.0], &[f32::MIN_POSITIVE; 3]] {
            let mut codes = vec![99; row.len() + 1];
            assert_eq!(quantise_u8_row_with(isa, row, &mut codes), (0.0, 0), "{isa}: {row:?}");
            assert!(codes.iter().all(|&code| code == 0), "{isa}");
        }
    }
}

#[test]
fn zero_is_a_code_of_its_own() {
    let mut codes = [0; 3];
    let (scale, zero) = quantise_u8_row(&[-1.0, 0.0, 254.0], &mut codes);
    assert_eq!((scale, zero, codes), (1.0, 1, [0, 1, 255]));
}

#[test]
fn what_is_not_finite_makes_the_scale_nan() {
    for isa in Isa::available() {
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in 0..70 {
                let mut row = [1.0; 70];
                row[place] = odd;
                let mut codes = [0; 70];
                let (scale, _) = quantise_u8_row_with(isa, &row, &mut codes);
                assert!(scale.is_nan(), "{isa}: {odd} at {place} gives {scale}");
            }
        }
    }
}

#[test]
fn a_constant_row_becomes_the_bias() {
    for isa in Isa::available() {
        let mut rows = [3.0; 20];
        layer_norm_with(isa, &mut rows, &[], &[2.0; 20], &[0.5; 20], 1e-12);
        assert_eq!(rows, [0.5; 20], "{isa}");
    }
}

#[test]
#[should_panic(expected = "whole rows")]
fn part_of_a_row_panics() {
    layer_norm(&mut [1.0; 5], &[], &[1.0; 2], &[], 1e-5);
}
