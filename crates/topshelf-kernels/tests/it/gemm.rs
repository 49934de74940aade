//! Matrix products over random shapes against exact ones, and what encoders count on: a row's bits
//! do not depend on the rows around it, nothing beyond the result is written, no sum saturates.

use proptest::collection::vec;
use proptest::prelude::*;
use topshelf_kernels::Isa;
use topshelf_kernels::gemm::{Activation, bf16, f32 as single, i8 as int8};

use super::reference::{self, Product};
use super::support::{f32_value, fused, i8_value, on_every_isa};

const ACTIVATIONS: [Activation; 6] = [
    Activation::Identity,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Relu,
    Activation::Silu,
    Activation::Tanh,
];

/// Marks what must not be written.
const CANARY: f32 = -1.0e30;

/// How far an activation may be from its formula at x; `coarse` as behind products of int8.
fn bound(activation: Activation, coarse: bool, x: f64) -> f64 {
    match activation {
        Activation::Identity | Activation::Relu => 0.0,
        Activation::Gelu if coarse => 2.4e-4 * (x.abs() / 20.0).max(1.0),
        Activation::Gelu => 1.1e-6 * (x.abs() / 10.0).max(1.0),
        Activation::GeluTanh | Activation::Silu => 2e-6,
        Activation::Tanh => 1e-6,
    }
}

fn activation() -> impl Strategy<Value = Activation> {
    prop::sample::select(&ACTIVATIONS[..])
}

/// Rows, outputs, inputs: none, one, and around tiles, panels and groups of four.
#[derive(Debug, Clone, Copy)]
struct Shape {
    rows: usize,
    outputs: usize,
    inputs: usize,
    /// Elements of a row of the result beyond the outputs.
    gap: usize,
}

fn shape() -> impl Strategy<Value = Shape> {
    let rows = prop_oneof![0_usize..=26, Just(12_usize), Just(13)];
    let outputs = prop_oneof![0_usize..=70, Just(32_usize), Just(64)];
    let inputs = prop_oneof![0_usize..=9, 0_usize..=150, Just(64_usize)];
    (rows, outputs, inputs, 0_usize..=3).prop_map(|(rows, outputs, inputs, gap)| Shape {
        rows,
        outputs,
        inputs,
        gap,
    })
}

impl Shape {
    /// The result with canaries in the gaps and behind.
    fn out(self) -> Vec<f32> {
        vec![CANARY; self.rows * self.stride() + 5]
    }

    fn stride(self) -> usize {
        self.outputs + self.gap
    }

    /// Row and output of each element of the result that is written.
    fn is_result(self, place: usize) -> bool {
        self.stride() > 0
            && place / self.stride() < self.rows
            && place % self.stride() < self.outputs
    }
}

/// A matrix with what follows its product.
#[derive(Debug, Clone)]
struct Case<A, W> {
    shape: Shape,
    rows: Vec<A>,
    weights: Vec<W>,
    bias: Vec<f32>,
    activation: Activation,
}

fn case<A: std::fmt::Debug, W: std::fmt::Debug>(
    row: impl Strategy<Value = A> + Clone,
    weight: impl Strategy<Value = W> + Clone,
) -> impl Strategy<Value = Case<A, W>> {
    (shape(), activation()).prop_flat_map(move |(shape, activation)| {
        let bias = vec(-3.0_f32..3.0, int8::padded_outputs(shape.outputs));
        (
            vec(row.clone(), shape.rows * shape.inputs),
            vec(weight.clone(), shape.outputs * shape.inputs),
            bias,
        )
            .prop_map(move |(rows, weights, bias)| Case {
                shape,
                rows,
                weights,
                bias,
                activation,
            })
    })
}

/// Rows with `stride` elements each, filled up with `fill`.
fn spread<T: Copy>(rows: &[T], count: usize, inputs: usize, stride: usize, fill: T) -> Vec<T> {
    let mut spread = vec![fill; count * stride];
    for r in 0..count {
        spread[r * stride..][..inputs].copy_from_slice(&rows[r * inputs..][..inputs]);
    }
    spread
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Holds every element against `expected`, with the rounding error of the product that it allows.
fn compare<A, W>(
    case: &Case<A, W>,
    isa: Isa,
    out: &[f32],
    expected: impl Fn(usize, usize) -> (Product, f64),
    of_activation: impl Fn(f64) -> f64,
) -> Result<(), TestCaseError> {
    let Shape { outputs, .. } = case.shape;
    for (place, &got) in out.iter().enumerate() {
        if !case.shape.is_result(place) {
            prop_assert_eq!(got, CANARY, "{}: place {} was written", isa, place);
            continue;
        }
        let (r, o) = (place / case.shape.stride(), place % case.shape.stride());
        prop_assert!(o < outputs);
        let (product, allowed) = expected(r, o);
        let bias = f64::from(case.bias[o]);
        let exact = reference::activation(case.activation, product.value + bias);
        // No activation here is steeper than 1.2.
        let tolerance =
            1.2 * allowed + 2e-7 * (bias.abs() + exact.abs()) + of_activation(product.value + bias);
        prop_assert!(
            (f64::from(got) - exact).abs() <= tolerance,
            "{isa}: row {r}, output {o}: {got} for {exact}, {tolerance:e} allowed"
        );
    }
    Ok(())
}

/// Quantised rows with their parameters.
#[derive(Debug, Clone)]
struct Quantised {
    case: Case<u8, i8>,
    scales: Vec<f32>,
    zeros: Vec<i32>,
    weight_scales: Vec<f32>,
}

fn u8_value() -> impl Strategy<Value = u8> + Clone {
    prop_oneof![3 => any::<u8>(), 2 => Just(255_u8), 1 => Just(0_u8), 1 => Just(128_u8)]
}

fn quantised() -> impl Strategy<Value = Quantised> {
    case(u8_value(), i8_value()).prop_flat_map(|case| {
        let padded = int8::padded_outputs(case.shape.outputs);
        let rows = case.shape.rows;
        (Just(case), vec(0.0_f32..0.01, rows), vec(0_i32..=255, rows), vec(0.0_f32..0.01, padded))
            .prop_map(|(case, scales, zeros, weight_scales)| Quantised {
                case,
                scales,
                zeros,
                weight_scales,
            })
    })
}

impl Quantised {
    /// The product of the rows `which`, each result row `stride` long.
    fn run(&self, isa: Isa, which: std::ops::Range<usize>, out: &mut [f32]) {
        let Shape { rows, outputs, inputs, gap } = self.case.shape;
        let mut codes = vec![0; int8::packed_len(outputs, inputs)];
        let mut sums = vec![0; int8::padded_outputs(outputs)];
        int8::pack(&self.case.weights, outputs, inputs, &mut codes, &mut sums);
        let weights = int8::Weights {
            outputs,
            inputs,
            codes: &codes,
            scales: &self.weight_scales,
            sums: &sums,
            bias: &self.case.bias,
        };
        let stride = inputs.next_multiple_of(4) + 4 * gap;
        let spread = spread(&self.case.rows, rows, inputs, stride, 0);
        let rows = int8::Rows {
            codes: &spread[which.start * stride..which.end * stride],
            stride,
            scales: &self.scales[which.clone()],
            zeros: &self.zeros[which],
        };
        int8::gemm_i8_with(isa, rows, &weights, self.case.activation, out, outputs + gap);
    }
}

on_every_isa! {
    fn int8_is_exact_but_for_what_follows(isa, given in quantised()) {
        let case = &given.case;
        let inputs = case.shape.inputs;
        let mut out = case.shape.out();
        given.run(isa, 0..case.shape.rows, &mut out);
        let expected = |r: usize, o: usize| {
            let a = &case.rows[r * inputs..][..inputs];
            let w = &case.weights[o * inputs..][..inputs];
            let zero = i64::from(given.zeros[r]);
            let pairs = a.iter().zip(w);
            let whole: i64 = pairs.map(|(&a, &w)| (i64::from(a) - zero) * i64::from(w)).sum();
            let scale = f64::from(given.scales[r]) * f64::from(given.weight_scales[o]);
            let value = whole as f64 * scale;
            // The sum becomes f32, the scales are multiplied, the product is added: 2⁻²⁴ each.
            (Product { value, summands: value.abs() }, 3.0 * 6e-8 * value.abs())
        };
        compare(case, isa, &out, expected, |x| bound(case.activation, true, x))?;
    }

    fn a_row_of_int8_stands_alone(isa, given in quantised()) {
        let Shape { rows, gap, .. } = given.case.shape;
        let stride = given.case.shape.stride();
        let mut together = given.case.shape.out();
        given.run(isa, 0..rows, &mut together);
        for r in 0..rows {
            let mut alone = vec![CANARY; stride];
            given.run(isa, r..r + 1, &mut alone);
            prop_assert_eq!(bits(&alone), bits(&together[r * stride..][..stride]), "{} {}", isa, gap);
        }
        if fused(isa) {
            let mut elsewhere = given.case.shape.out();
            given.run(Isa::detect().expect("a set"), 0..rows, &mut elsewhere);
            prop_assert_eq!(bits(&elsewhere), bits(&together), "{}", isa);
        }
    }

    fn f32_is_within_the_rounding_of_its_sums(isa, case in case(f32_value(), -1.0_f32..1.0)) {
        let inputs = case.shape.inputs;
        let mut out = case.shape.out();
        run_f32(isa, &case, 0..case.shape.rows, &mut out);
        let expected = |r: usize, o: usize| {
            let a = case.rows[r * inputs..][..inputs].iter().map(|&x| f64::from(x));
            let w = case.weights[o * inputs..][..inputs].iter().map(|&x| f64::from(x));
            let product = reference::product(a, w);
            // Portable code rounds product and sum, hence twice 2⁻²⁴ a step.
            (product, (inputs + 1) as f64 * 1.2e-7 * product.summands)
        };
        compare(&case, isa, &out, expected, |x| bound(case.activation, false, x))?;
    }

    fn a_row_of_f32_stands_alone(isa, case in case(f32_value(), -1.0_f32..1.0)) {
        let stride = case.shape.stride();
        let mut together = case.shape.out();
        run_f32(isa, &case, 0..case.shape.rows, &mut together);
        for r in 0..case.shape.rows {
            let mut alone = vec![CANARY; stride];
            run_f32(isa, &case, r..r + 1, &mut alone);
            prop_assert_eq!(bits(&alone), bits(&together[r * stride..][..stride]), "{}", isa);
        }
        if fused(isa) {
            let mut elsewhere = case.shape.out();
            run_f32(Isa::detect().expect("a set"), &case, 0..case.shape.rows, &mut elsewhere);
            prop_assert_eq!(bits(&elsewhere), bits(&together), "{}", isa);
        }
    }

    fn bf16_is_within_the_rounding_of_its_sums(isa, case in case(f32_value(), -1.0_f32..1.0)) {
        let inputs = case.shape.inputs;
        let mut out = case.shape.out();
        run_bf16(isa, &case, 0..case.shape.rows, &mut out);
        let expected = |r: usize, o: usize| {
            let a = case.rows[r * inputs..][..inputs].iter().map(|&x| rounded(x));
            let w = case.weights[o * inputs..][..inputs].iter().map(|&x| rounded(x));
            let product = reference::product(a, w);
            (product, (inputs + 1) as f64 * 2.4e-7 * product.summands + 1e-37)
        };
        compare(&case, isa, &out, expected, |x| bound(case.activation, false, x))?;
    }

    fn a_row_of_bf16_stands_alone(isa, case in case(f32_value(), -1.0_f32..1.0)) {
        let stride = case.shape.stride();
        let mut together = case.shape.out();
        run_bf16(isa, &case, 0..case.shape.rows, &mut together);
        for r in 0..case.shape.rows {
            let mut alone = vec![CANARY; stride];
            run_bf16(isa, &case, r..r + 1, &mut alone);
            prop_assert_eq!(bits(&alone), bits(&together[r * stride..][..stride]), "{}", isa);
        }
    }
}

fn run_f32(isa: Isa, case: &Case<f32, f32>, which: std::ops::Range<usize>, out: &mut [f32]) {
    let Shape { rows, outputs, inputs, gap } = case.shape;
    let mut values = vec![0.0; single::packed_len(outputs, inputs)];
    single::pack(&case.weights, outputs, inputs, &mut values);
    let weights = single::Weights { outputs, inputs, values: &values, bias: &case.bias };
    let stride = inputs + gap;
    let spread = spread(&case.rows, rows, inputs, stride, f32::NAN);
    let rows = single::Rows { count: which.len(), values: &spread[which.start * stride..], stride };
    single::gemm_f32_with(isa, rows, &weights, case.activation, out, outputs + gap);
}

fn run_bf16(isa: Isa, case: &Case<f32, f32>, which: std::ops::Range<usize>, out: &mut [f32]) {
    let Shape { rows, outputs, inputs, gap } = case.shape;
    let mut values = vec![0; bf16::packed_len(outputs, inputs)];
    bf16::pack(&case.weights, outputs, inputs, &mut values);
    let weights = bf16::Weights { outputs, inputs, values: &values, bias: &case.bias };
    let stride = inputs.next_multiple_of(2) + 2 * gap;
    let codes: Vec<u16> = case.rows.iter().map(|&x| bf16::to_bf16(x)).collect();
    let spread = spread(&codes, rows, inputs, stride, 0);
    let rows = bf16::Rows { count: which.len(), values: &spread[which.start * stride..], stride };
    bf16::gemm_bf16_with(isa, rows, &weights, case.activation, out, outputs + gap);
}

/// What x is in bf16.
fn rounded(x: f32) -> f64 {
    f64::from(f32::from_bits(u32::from(bf16::to_bf16(x)) << 16))
}

proptest! {
    #[test]
    fn bf16_is_the_nearest_of_its_neighbours(x in prop::num::f32::NORMAL) {
        let got = rounded(x);
        prop_assert!((got - f64::from(x)).abs() <= f64::from(x.abs()) / 256.0 || got.is_infinite());
    }
}

#[test]
fn bf16_keeps_what_it_can_tell_apart() {
    assert_eq!(bf16::to_bf16(1.0), 0x3f80);
    assert_eq!(bf16::to_bf16(f32::INFINITY), 0x7f80);
    assert_eq!(bf16::to_bf16(f32::MAX), 0x7f80);
    // Halfway between two: to the even one.
    assert_eq!(bf16::to_bf16(f32::from_bits(0x3f80_8000)), 0x3f80);
    assert_eq!(bf16::to_bf16(f32::from_bits(0x3f81_8000)), 0x3f82);
    for nan in [0x7f80_0001, 0xff80_0001, 0x7fff_ffff] {
        let code = bf16::to_bf16(f32::from_bits(nan));
        assert!(f32::from_bits(u32::from(code) << 16).is_nan(), "{nan:x}");
    }
}

/// The largest sums that codes and weights can make, over depths beyond those of any model: 16 bits
/// between products and sums, as in `vpmaddubsw`, would saturate from the first pair on.
#[test]
fn the_extremes_do_not_saturate() {
    for isa in Isa::available() {
        for (inputs, weight) in [(4, 127), (4, -128), (1536, -128), (1537, 127), (65_536, -128)] {
            let mut codes = vec![0; int8::packed_len(1, inputs)];
            let mut sums = vec![0; int8::padded_outputs(1)];
            int8::pack(&vec![weight; inputs], 1, inputs, &mut codes, &mut sums);
            let stride = inputs.next_multiple_of(4);
            let mut row = vec![0; stride];
            row[..inputs].fill(255);
            for zero in [0, 128, 255] {
                let mut out = [0.0];
                int8::gemm_i8_with(
                    isa,
                    int8::Rows { codes: &row, stride, scales: &[1.0], zeros: &[zero] },
                    &int8::Weights {
                        outputs: 1,
                        inputs,
                        codes: &codes,
                        scales: &[1.0; int8::PANEL],
                        sums: &sums,
                        bias: &[0.0; int8::PANEL],
                    },
                    Activation::Identity,
                    &mut out,
                    1,
                );
                let exact = inputs as i64 * i64::from(255 - zero) * i64::from(weight);
                assert_eq!(out[0], exact as f32, "{isa}: {inputs} times {weight}, zero at {zero}");
            }
        }
    }
}

/// Without inputs a product is its bias: each activation over the range where it bends, and at the
/// ends of the numbers.
#[test]
fn activations_keep_their_bounds() {
    let mut xs: Vec<f32> = (-20_000..=20_000).map(|i| i as f32 / 1000.0).collect();
    xs.extend([1e-30, -1e-30, 100.0, -100.0, 1e30, -1e30]);
    xs.resize(int8::padded_outputs(xs.len()), 0.0);
    for isa in Isa::available() {
        for activation in ACTIVATIONS {
            let (f32, int8) = of_bias(isa, activation, &xs);
            for ((&x, f32), int8) in xs.iter().zip(f32).zip(int8) {
                let exact = reference::activation(activation, f64::from(x));
                for (got, coarse) in [(f32, false), (int8, true)] {
                    let bound = bound(activation, coarse, f64::from(x)) + 2e-7 * exact.abs();
                    assert!(
                        (f64::from(got) - exact).abs() <= bound,
                        "{isa}: {activation:?} of {x}: {got} for {exact}"
                    );
                }
            }
        }
    }
}

/// Products of no inputs: (in f32, in int8).
fn of_bias(isa: Isa, activation: Activation, bias: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let outputs = bias.len();
    let (mut single_out, mut int8_out) = (vec![0.0; outputs], vec![0.0; outputs]);
    let weights = single::Weights { outputs, inputs: 0, values: &[], bias };
    let rows = single::Rows { count: 1, values: &[], stride: 0 };
    single::gemm_f32_with(isa, rows, &weights, activation, &mut single_out, outputs);
    let (scales, sums) = (vec![1.0; outputs], vec![0; outputs]);
    let weights =
        int8::Weights { outputs, inputs: 0, codes: &[], scales: &scales, sums: &sums, bias };
    let rows = int8::Rows { codes: &[], stride: 0, scales: &[1.0], zeros: &[0] };
    int8::gemm_i8_with(isa, rows, &weights, activation, &mut int8_out, outputs);
    (single_out, int8_out)
}

/// A row that could not be quantised has a NaN for its scale: its results say so, the others do not.
#[test]
fn a_row_that_is_not_a_number_stays_one() {
    for isa in Isa::available() {
        let mut codes = vec![0; int8::packed_len(3, 5)];
        let mut sums = vec![0; int8::padded_outputs(3)];
        int8::pack(&[1; 15], 3, 5, &mut codes, &mut sums);
        let mut out = [0.0; 6];
        let rows =
            int8::Rows { codes: &[1; 16], stride: 8, scales: &[f32::NAN, 1.0], zeros: &[0, 0] };
        let weights = int8::Weights {
            outputs: 3,
            inputs: 5,
            codes: &codes,
            scales: &[1.0; int8::PANEL],
            sums: &sums,
            bias: &[0.0; int8::PANEL],
        };
        int8::gemm_i8_with(isa, rows, &weights, Activation::Identity, &mut out, 3);
        assert!(out[..3].iter().all(|x| x.is_nan()), "{isa}: {out:?}");
        assert_eq!(out[3..], [5.0; 3], "{isa}");
    }
}

#[test]
#[should_panic(expected = "room for the result")]
fn a_result_that_is_too_short_panics() {
    let weights = single::Weights {
        outputs: 2,
        inputs: 1,
        values: &[1.0; single::packed_len(2, 1)],
        bias: &[0.0; int8::PANEL],
    };
    let rows = single::Rows { count: 2, values: &[1.0, 2.0], stride: 1 };
    single::gemm_f32(rows, &weights, Activation::Identity, &mut [0.0; 3], 2);
}

#[test]
#[should_panic(expected = "codes for each row")]
fn rows_that_are_too_short_panic() {
    let weights = int8::Weights {
        outputs: 1,
        inputs: 5,
        codes: &[0; int8::packed_len(1, 5)],
        scales: &[1.0; int8::PANEL],
        sums: &[0; int8::PANEL],
        bias: &[0.0; int8::PANEL],
    };
    let rows = int8::Rows { codes: &[0; 15], stride: 8, scales: &[1.0; 2], zeros: &[0; 2] };
    int8::gemm_i8(rows, &weights, Activation::Identity, &mut [0.0; 2], 1);
}
