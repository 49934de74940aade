//! The product with a scale for each group, over random shapes against the exact one; a row's bits do
//! not depend on the rows around it, and nothing beyond the result is written.

use proptest::collection::vec;
use proptest::prelude::*;
use topshelf_kernels::gemm::{Activation, grouped, i8 as int8};

use super::support::{f32_value, on_every_isa};

const CANARY: f32 = -1.0e30;

#[derive(Debug, Clone)]
struct Case {
    rows: usize,
    outputs: usize,
    inputs: usize,
    activations: Vec<f32>,
    weights: Vec<f32>,
    bias: Vec<f32>,
}

fn case() -> impl Strategy<Value = Case> {
    let inputs = prop_oneof![1_usize..=9, 1_usize..=200, Just(64_usize), Just(128)];
    (0_usize..=15, 1_usize..=70, inputs).prop_flat_map(|(rows, outputs, inputs)| {
        let numbers = |count: usize| vec(f32_value(), count);
        let bias = vec(-3.0_f32..3.0, outputs);
        (numbers(rows * inputs), vec(-1.0_f32..1.0, outputs * inputs), bias).prop_map(
            move |(activations, weights, bias)| Case {
                rows,
                outputs,
                inputs,
                activations,
                weights,
                bias,
            },
        )
    })
}

/// Weights as they are packed.
struct Packed {
    codes: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<i32>,
    bias: Vec<f32>,
}

impl Case {
    fn pack(&self) -> Packed {
        let (outputs, inputs) = (self.outputs, self.inputs);
        let mut bias = self.bias.clone();
        bias.resize(int8::padded_outputs(outputs), 0.0);
        let mut packed = Packed {
            codes: vec![0; grouped::codes_len(outputs, inputs)],
            scales: vec![0.0; grouped::scales_len(outputs, inputs)],
            sums: vec![0; grouped::scales_len(outputs, inputs)],
            bias,
        };
        let Packed { codes, scales, sums, .. } = &mut packed;
        grouped::pack(&self.weights, inputs, 0, codes, scales, sums);
        packed
    }

    fn quantised(&self) -> (Vec<u8>, Vec<f32>) {
        let mut codes = vec![0; self.rows * grouped::padded_inputs(self.inputs)];
        let mut scales = vec![0.0; self.rows * grouped::groups(self.inputs)];
        grouped::quantise(&self.activations, self.inputs, &mut codes, &mut scales);
        (codes, scales)
    }
}

impl Packed {
    fn weights(&self, case: &Case) -> grouped::Weights<'_> {
        grouped::Weights {
            outputs: case.outputs,
            inputs: case.inputs,
            codes: &self.codes,
            scales: &self.scales,
            sums: &self.sums,
            bias: &self.bias,
        }
    }
}

/// A code of a packed matrix.
fn code(case: &Case, packed: &Packed, output: usize, input: usize) -> i32 {
    let panel = output / int8::PANEL * int8::PANEL * grouped::padded_inputs(case.inputs);
    let place = (input / 4 * int8::PANEL + output % int8::PANEL) * 4 + input % 4;
    i32::from(packed.codes[panel + place])
}

on_every_isa! {
    cases: 96;
    fn it_is_the_product_of_what_was_rounded(isa, case in case(), silu in any::<bool>()) {
        let (packed, (codes, scales)) = (case.pack(), case.quantised());
        let activation = if silu { Activation::Silu } else { Activation::Identity };
        let stride = case.outputs + 3;
        let mut out = vec![CANARY; case.rows * stride + 5];
        let rows = grouped::Rows { codes: &codes, scales: &scales };
        grouped::gemm_grouped_with(isa, rows, &packed.weights(&case), activation, &mut out, stride);
        let (width, groups) = (grouped::padded_inputs(case.inputs), grouped::groups(case.inputs));
        for (place, &got) in out.iter().enumerate() {
            let (r, o) = (place / stride, place % stride);
            if r >= case.rows || o >= case.outputs {
                prop_assert_eq!(got, CANARY, "place {} was written", place);
                continue;
            }
            let (mut exact, mut size) = (f64::from(case.bias[o]), f64::from(case.bias[o].abs()));
            for g in 0..groups {
                let inputs = g * grouped::GROUP..((g + 1) * grouped::GROUP).min(case.inputs);
                let sum: i32 = inputs
                    .map(|i| (i32::from(codes[r * width + i]) - 128) * code(&case, &packed, o, i))
                    .sum();
                let at = (o / int8::PANEL * groups + g) * int8::PANEL + o % int8::PANEL;
                let scale = f64::from(scales[r * groups + g]) * f64::from(packed.scales[at]);
                exact += scale * f64::from(sum);
                size += scale * f64::from(sum.abs());
            }
            if silu {
                exact /= 1.0 + (-exact).exp();
            }
            let allowed = 1e-6 * size * groups as f64 + 3e-6;
            prop_assert!((f64::from(got) - exact).abs() <= allowed, "{isa}: {got} for {exact}");
        }
    }

    fn a_row_has_the_same_bits_alone_and_panels_the_same_as_the_whole(isa, case in case()) {
        let (packed, (codes, scales)) = (case.pack(), case.quantised());
        let weights = packed.weights(&case);
        let (width, groups) = (grouped::padded_inputs(case.inputs), grouped::groups(case.inputs));
        let run = |rows: std::ops::Range<usize>, weights: &grouped::Weights<'_>| {
            let mut out = vec![0.0; rows.len() * weights.outputs];
            let operand = grouped::Rows {
                codes: &codes[rows.start * width..rows.end * width],
                scales: &scales[rows.start * groups..rows.end * groups],
            };
            let stride = weights.outputs;
            grouped::gemm_grouped_with(isa, operand, weights, Activation::Identity, &mut out, stride);
            out.iter().map(|x| x.to_bits()).collect::<Vec<u32>>()
        };
        let whole = run(0..case.rows, &weights);
        for r in 0..case.rows {
            prop_assert_eq!(&run(r..r + 1, &weights)[..], &whole[r * case.outputs..][..case.outputs]);
        }
        if case.rows > 0 && case.outputs > int8::PANEL {
            let last = weights.panels(1..case.outputs.div_ceil(int8::PANEL));
            prop_assert_eq!(&run(0..1, &last)[..], &whole[int8::PANEL..case.outputs]);
        }
    }
}

proptest! {
    #[test]
    fn rounding_is_within_half_a_step(case in case()) {
        let (codes, scales) = case.quantised();
        let (width, groups) = (grouped::padded_inputs(case.inputs), grouped::groups(case.inputs));
        for (place, &x) in case.activations.iter().enumerate() {
            let (r, i) = (place / case.inputs, place % case.inputs);
            let scale = scales[r * groups + i / grouped::GROUP];
            let back = scale * (f32::from(codes[r * width + i]) - 128.0);
            prop_assert!((back - x).abs() <= scale * 0.5001, "{back} for {x} in steps of {scale}");
        }
    }
}
