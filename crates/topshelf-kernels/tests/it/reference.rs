//! The encoder's kernels in plain f64, formula by formula.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use topshelf_kernels::gemm::Activation;

/// A product and how large its summands are together, which is what rounding errors grow with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Product {
    pub(crate) value: f64,
    pub(crate) summands: f64,
}

pub(crate) fn product(
    a: impl IntoIterator<Item = f64>,
    b: impl IntoIterator<Item = f64>,
) -> Product {
    let mut product = Product { value: 0.0, summands: 0.0 };
    for (a, b) in a.into_iter().zip(b) {
        product.value += a * b;
        product.summands += (a * b).abs();
    }
    product
}

pub(crate) fn activation(which: Activation, x: f64) -> f64 {
    match which {
        Activation::Identity => x,
        Activation::Gelu => x * normal(x),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
        }
        Activation::Relu => x.max(0.0),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Tanh => x.tanh(),
    }
}

/// The normal distribution function, ½ erfc(-x / √2), from the series of erf near 0 and the
/// continued fraction of erfc beyond (Abramowitz and Stegun, 7.1.6 and 7.1.14).
fn normal(x: f64) -> f64 {
    let z = x.abs() * FRAC_1_SQRT_2;
    let upper = if z < 3.0 {
        let (mut term, mut sum, mut n) = (z, z, 0.0);
        while term > 1e-18 {
            n += 1.0;
            term *= 2.0 * z * z / (2.0 * n + 1.0);
            sum += term;
        }
        0.5 - sum * (-z * z).exp() / PI.sqrt()
    } else {
        let fraction = (1..=60).rev().fold(z, |below, n| z + f64::from(n) / 2.0 / below);
        0.5 * (-z * z).exp() / PI.sqrt() / fraction
    };
    if x < 0.0 { upper } else { 1.0 - upper }
}

/// The normalised row, before weight and bias, and √(variance + ε).
pub(crate) fn normalise(row: &[f64], epsilon: f64) -> (Vec<f64>, f64) {
    let length = row.len() as f64;
    let mean = row.iter().sum::<f64>() / length;
    let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / length;
    let deviation = (variance + epsilon).sqrt();
    (row.iter().map(|x| (x - mean) / deviation).collect(), deviation)
}

/// One row of attention: scores of the keys that it sees, and their values.
pub(crate) fn attend(scale: f64, scores: &[f64], values: &[&[f32]]) -> Vec<f64> {
    let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (scale * (s - highest)).exp()).collect();
    let total: f64 = weights.iter().sum();
    let dimension = values.first().map_or(0, |value| value.len());
    (0..dimension)
        .map(|d| weights.iter().zip(values).map(|(w, v)| w * f64::from(v[d])).sum::<f64>() / total)
        .collect()
}

#[test]
fn the_normal_distribution_function_is_that_of_the_tables() {
    // Abramowitz and Stegun, table 26.1.
    for (x, expected) in [(0.0, 0.5), (1.0, 0.841_344_746_068_543), (2.0, 0.977_249_868_051_821)] {
        assert!((normal(x) - expected).abs() < 1e-14, "{x}");
        assert!((normal(-x) - (1.0 - expected)).abs() < 1e-14, "-{x}");
    }
    assert!((normal(-5.0) / 2.866_515_719e-7 - 1.0).abs() < 1e-9);
}
