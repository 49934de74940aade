//! The parts of a model as they lie in an [`Image`], and how a product with one is computed:
//! [`Linear`], [`Table`], [`Norm`], and the rows that go into a product, [`Operand`].
//!
//! A matrix is packed once into the layout that its kernel walks. What becomes of a checkpoint's
//! numbers:
//!
//! | checkpoint | `int8` | `bf16` | `f32` |
//! | --- | --- | --- | --- |
//! | f32 matrix | rounded to int8, one scale for each output | rounded to bf16 | as it is |
//! | int8 matrix | its own integers and scales | dequantised, rounded | dequantised |
//! | f32 table | rounded to u8, one scale for each row | as it is | as it is |
//! | u8 table | its own codes | its own codes | its own codes |

use serde::{Deserialize, Serialize};
use topshelf_kernels::gemm::{self, Activation};
use topshelf_kernels::quantise_i8_row;
use topshelf_kernels::rows::{layer_norm, quantise_u8_row, quantise_u8_rows};

use super::buffer::Buffer;
use super::checkpoint;
use super::image::{Image, ImageWriter, Place};

/// The numbers that matrix products are computed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// int8 weights and activations, the latter rounded row by row; the fastest.
    #[default]
    Int8,
    /// bf16 weights and activations.
    Bf16,
    /// f32 throughout: the reference.
    F32,
}

impl Precision {
    /// Its name in the environment and in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
        }
    }

    /// The precision of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Int8, Self::Bf16, Self::F32].into_iter().find(|precision| precision.name() == name)
    }
}

/// A packed matrix with its bias.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Linear {
    outputs: usize,
    inputs: usize,
    bias: Place,
    matrix: Packed,
}

#[derive(Debug, Clone, Copy)]
enum Packed {
    Int8 { codes: Place, scales: Place, sums: Place },
    Bf16(Place),
    F32(Place),
}

/// Writes the matrix under `name`, the given ones stacked: their outputs follow each other.
pub(crate) fn write_linear(
    writer: &mut ImageWriter,
    name: &str,
    parts: &[&checkpoint::Linear],
    precision: Precision,
) {
    let inputs = parts[0].weight.inputs;
    let outputs: usize = parts.iter().map(|part| part.weight.outputs).sum();
    let padded = gemm::i8::padded_outputs(outputs);
    let mut bias: Vec<f32> = Vec::with_capacity(padded);
    for part in parts {
        match &part.bias {
            Some(values) => bias.extend(values),
            None => bias.resize(bias.len() + part.weight.outputs, 0.0),
        }
    }
    bias.resize(padded, 0.0);
    writer.f32(&format!("{name}.bias"), &bias);
    match precision {
        Precision::Int8 => {
            let (mut codes, mut scales) = (Vec::new(), Vec::new());
            for part in parts {
                let (part_codes, part_scales) = as_int8(&part.weight);
                codes.extend(part_codes);
                scales.extend(part_scales);
            }
            scales.resize(padded, 0.0);
            let mut packed = vec![0; gemm::i8::packed_len(outputs, inputs)];
            let mut sums = vec![0; padded];
            gemm::i8::pack(&codes, outputs, inputs, &mut packed, &mut sums);
            writer.i8(&format!("{name}.codes"), &packed);
            writer.f32(&format!("{name}.scales"), &scales);
            writer.i32(&format!("{name}.sums"), &sums);
        }
        Precision::Bf16 => {
            let values: Vec<f32> = parts.iter().flat_map(|part| as_f32(&part.weight)).collect();
            let mut packed = vec![0; gemm::bf16::packed_len(outputs, inputs)];
            gemm::bf16::pack(&values, outputs, inputs, &mut packed);
            writer.u16(&format!("{name}.bf16"), &packed);
        }
        Precision::F32 => {
            let values: Vec<f32> = parts.iter().flat_map(|part| as_f32(&part.weight)).collect();
            let mut packed = vec![0.0; gemm::f32::packed_len(outputs, inputs)];
            gemm::f32::pack(&values, outputs, inputs, &mut packed);
            writer.f32(&format!("{name}.f32"), &packed);
        }
    }
}

/// The outputs `range` of a matrix as one of their own.
pub(crate) fn some_outputs(
    linear: &checkpoint::Linear,
    range: std::ops::Range<usize>,
) -> checkpoint::Linear {
    let inputs = linear.weight.inputs;
    let elements = range.start * inputs..range.end * inputs;
    let values = match &linear.weight.values {
        checkpoint::Values::F32(values) => checkpoint::Values::F32(values[elements].to_vec()),
        checkpoint::Values::I8 { codes, scales } => checkpoint::Values::I8 {
            codes: codes[elements].to_vec(),
            scales: scales[range.clone()].to_vec(),
        },
    };
    let bias = linear.bias.as_ref().map(|bias| bias[range.clone()].to_vec());
    checkpoint::Linear { weight: checkpoint::Matrix { outputs: range.len(), inputs, values }, bias }
}

/// Codes and scales, one for each output.
fn as_int8(matrix: &checkpoint::Matrix) -> (Vec<i8>, Vec<f32>) {
    match &matrix.values {
        checkpoint::Values::I8 { codes, scales } => (codes.clone(), scales.clone()),
        checkpoint::Values::F32(values) => {
            let mut codes = vec![0; values.len()];
            let scales = values
                .chunks_exact(matrix.inputs)
                .zip(codes.chunks_exact_mut(matrix.inputs))
                .map(|(row, codes)| quantise_i8_row(row, codes))
                .collect();
            (codes, scales)
        }
    }
}

/// The numbers of a matrix, row-major `[outputs, inputs]`.
pub(crate) fn as_f32(matrix: &checkpoint::Matrix) -> Vec<f32> {
    match &matrix.values {
        checkpoint::Values::F32(values) => values.clone(),
        checkpoint::Values::I8 { codes, scales } => codes
            .chunks_exact(matrix.inputs)
            .zip(scales)
            .flat_map(|(row, &scale)| row.iter().map(move |&code| f32::from(code) * scale))
            .collect(),
    }
}

impl Linear {
    /// The matrix that [`write_linear`] wrote, if there is one of that name.
    pub(crate) fn find(image: &Image, name: &str, outputs: usize, inputs: usize) -> Option<Self> {
        let place = |suffix: &str| image.place(&format!("{name}.{suffix}"));
        let matrix = match place("codes") {
            Some(codes) => Packed::Int8 { codes, scales: place("scales")?, sums: place("sums")? },
            None => match place("bf16") {
                Some(values) => Packed::Bf16(values),
                None => Packed::F32(place("f32")?),
            },
        };
        Some(Self { outputs, inputs, bias: place("bias")?, matrix })
    }

    /// `out = act(W x + b)` for each row x of the operand; `out` is `[rows, outputs]`.
    pub(crate) fn apply(
        &self,
        image: &Image,
        rows: &Operand,
        values: &[f32],
        activation: Activation,
        out: &mut [f32],
    ) {
        let (outputs, inputs, bias) = (self.outputs, self.inputs, image.f32(self.bias));
        match self.matrix {
            Packed::Int8 { codes, scales, sums } => {
                let weights = gemm::i8::Weights {
                    outputs,
                    inputs,
                    codes: image.i8(codes),
                    scales: image.f32(scales),
                    sums: image.i32(sums),
                    bias,
                };
                let rows = gemm::i8::Rows {
                    codes: &rows.codes,
                    stride: rows.stride,
                    scales: &rows.scales,
                    zeros: &rows.zeros,
                };
                gemm::i8::gemm_i8(rows, &weights, activation, out, outputs);
            }
            Packed::Bf16(place) => {
                let weights =
                    gemm::bf16::Weights { outputs, inputs, values: image.u16(place), bias };
                let rows = gemm::bf16::Rows {
                    count: rows.count,
                    values: &rows.halves,
                    stride: rows.stride,
                };
                gemm::bf16::gemm_bf16(rows, &weights, activation, out, outputs);
            }
            Packed::F32(place) => {
                let weights =
                    gemm::f32::Weights { outputs, inputs, values: image.f32(place), bias };
                let rows = gemm::f32::Rows { count: rows.count, values, stride: inputs };
                gemm::f32::gemm_f32(rows, &weights, activation, out, outputs);
            }
        }
    }
}

/// Rows in the type that the products of a precision read. In f32 they stay where they are, and
/// [`Linear::apply`] reads `values`.
#[derive(Debug, Default)]
pub(crate) struct Operand {
    count: usize,
    stride: usize,
    codes: Buffer<u8>,
    scales: Buffer<f32>,
    zeros: Buffer<i32>,
    halves: Buffer<u16>,
}

impl Operand {
    /// Rounds `values`, `[rows, width]`.
    pub(crate) fn set(&mut self, precision: Precision, values: &[f32], width: usize) {
        self.count = values.len() / width;
        self.stride = width.next_multiple_of(4);
        match precision {
            Precision::Int8 => {
                self.codes.resize(self.count * self.stride);
                self.scales.resize(self.count);
                self.zeros.resize(self.count);
                let codes = (&mut self.codes[..], self.stride);
                quantise_u8_rows(values, width, codes, &mut self.scales, &mut self.zeros);
            }
            Precision::Bf16 => {
                self.halves.resize(self.count * self.stride);
                let halves = self.halves.chunks_exact_mut(self.stride);
                for (row, halves) in values.chunks_exact(width).zip(halves) {
                    for (half, &value) in halves.iter_mut().zip(row) {
                        *half = gemm::bf16::to_bf16(value);
                    }
                    halves[width..].fill(0);
                }
            }
            Precision::F32 => {}
        }
    }
}

/// A table of rows that are looked up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    rows: usize,
    width: usize,
    values: TableValues,
}

#[derive(Debug, Clone, Copy)]
enum TableValues {
    F32(Place),
    /// `scales` holds one scale, or one for each row; so `zeros`.
    U8 {
        codes: Place,
        scales: Place,
        zeros: Place,
    },
}

/// Writes the table under `name`.
pub(crate) fn write_table(
    writer: &mut ImageWriter,
    name: &str,
    table: &checkpoint::Table,
    precision: Precision,
) {
    match &table.values {
        checkpoint::TableValues::U8 { codes, scale, zero } => {
            writer.u8(&format!("{name}.codes"), codes);
            writer.f32(&format!("{name}.scales"), &[*scale]);
            writer.u8(&format!("{name}.zeros"), &[*zero]);
        }
        checkpoint::TableValues::F32(values) if precision == Precision::Int8 => {
            let mut codes = vec![0; values.len()];
            let (scales, zeros): (Vec<f32>, Vec<u8>) = values
                .chunks_exact(table.width)
                .zip(codes.chunks_exact_mut(table.width))
                .map(|(row, codes)| {
                    let (scale, zero) = quantise_u8_row(row, codes);
                    (scale, zero as u8)
                })
                .unzip();
            writer.u8(&format!("{name}.codes"), &codes);
            writer.f32(&format!("{name}.scales"), &scales);
            writer.u8(&format!("{name}.zeros"), &zeros);
        }
        checkpoint::TableValues::F32(values) => writer.f32(&format!("{name}.f32"), values),
    }
}

impl Table {
    /// The table that [`write_table`] wrote, if there is one of that name.
    pub(crate) fn find(image: &Image, name: &str, width: usize) -> Option<Self> {
        let place = |suffix: &str| image.place(&format!("{name}.{suffix}"));
        let (values, elements) = if let Some(codes) = place("codes") {
            let (scales, zeros) = (place("scales")?, place("zeros")?);
            (TableValues::U8 { codes, scales, zeros }, image.u8(codes).len())
        } else {
            let values = place("f32")?;
            (TableValues::F32(values), image.f32(values).len())
        };
        Some(Self { rows: elements / width.max(1), width, values })
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Adds the row to `out`.
    pub(crate) fn add_row(&self, image: &Image, row: usize, out: &mut [f32]) {
        let range = row * self.width..(row + 1) * self.width;
        match self.values {
            TableValues::F32(values) => {
                for (sum, value) in out.iter_mut().zip(&image.f32(values)[range]) {
                    *sum += value;
                }
            }
            TableValues::U8 { codes, scales, zeros } => {
                let (scales, zeros) = (image.f32(scales), image.u8(zeros));
                let own = if scales.len() == 1 { 0 } else { row };
                let (scale, zero) = (scales[own], f32::from(zeros[own]));
                for (sum, &code) in out.iter_mut().zip(&image.u8(codes)[range]) {
                    *sum += scale * (f32::from(code) - zero);
                }
            }
        }
    }
}

/// Scale and shift of a layer norm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Norm {
    weight: Place,
    bias: Option<Place>,
    epsilon: f32,
}

/// Writes the norm under `name`.
pub(crate) fn write_norm(writer: &mut ImageWriter, name: &str, norm: &checkpoint::Norm) {
    writer.f32(&format!("{name}.weight"), &norm.weight);
    if let Some(bias) = &norm.bias {
        writer.f32(&format!("{name}.shift"), bias);
    }
}

impl Norm {
    /// The norm that [`write_norm`] wrote, if there is one of that name.
    pub(crate) fn find(image: &Image, name: &str, epsilon: f32) -> Option<Self> {
        let weight = image.place(&format!("{name}.weight"))?;
        Some(Self { weight, bias: image.place(&format!("{name}.shift")), epsilon })
    }

    /// Normalises each row of `rows` after adding that of `residual` (empty for none).
    pub(crate) fn apply(&self, image: &Image, rows: &mut [f32], residual: &[f32]) {
        let weight = image.f32(self.weight);
        let bias = self.bias.map_or(&[][..], |bias| image.f32(bias));
        layer_norm(rows, residual, weight, bias, self.epsilon);
    }
}
