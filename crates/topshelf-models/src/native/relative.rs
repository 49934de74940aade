//! DeBERTa's disentangled attention: the terms between content and relative position, as a bias on
//! the scores (He et al., "DeBERTa", 2021, equation 4; the buckets of DeBERTa v2 and v3 after its
//! published code).
//!
//! ```text
//! bias[i][j] = q[i] · K_r[δ(i - j)]  +  k[j] · Q_r[δ(i - j)]
//! ```
//!
//! K_r and Q_r, `[2 · span, hidden]`, are the table of relative positions sent through the key's
//! and the query's matrix of the block. They do not depend on the input, so they are computed once,
//! when a model is packed, in f32 whatever the precision.
//!
//! δ(d) = clamp(bucket(d) + span, 0, 2 · span - 1). Without buckets bucket(d) = d. With them
//! distances up to half of the number of buckets are told apart one by one, larger ones
//! logarithmically up to the largest distance.

use topshelf_kernels::gemm::Activation;
use topshelf_kernels::gemm::f32::{Rows, Weights, gemm_f32, pack, packed_len};
use topshelf_kernels::gemm::i8::padded_outputs;
use topshelf_kernels::rows::layer_norm;

use super::architecture::{Architecture, Relative};
use super::buffer::Buffer;
use super::checkpoint::{self, Norm};
use super::image::{Image, ImageWriter, Place};
use super::packed::as_f32;

/// Where K_r and Q_r of one block lie, packed head by head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tables {
    keys: Option<Place>,
    queries: Option<Place>,
    zeros: Place,
    span: usize,
    dimension: usize,
    of: Relative,
}

/// Rows of the table to each side of distance 0.
fn span(of: Relative) -> usize {
    of.buckets.unwrap_or(of.max_distance)
}

/// Computes and writes the tables of block `i`.
pub(crate) fn write(
    writer: &mut ImageWriter,
    i: usize,
    block: &checkpoint::Block,
    (table, norm): &(checkpoint::Table, Option<Norm>),
    architecture: &Architecture,
    of: Relative,
) {
    let mut rows = match &table.values {
        checkpoint::TableValues::F32(values) => values.clone(),
        checkpoint::TableValues::U8 { codes, scale, zero } => {
            codes.iter().map(|&code| scale * (f32::from(code) - f32::from(*zero))).collect()
        }
    };
    rows.truncate(2 * span(of) * table.width);
    if let Some(norm) = norm {
        let bias = norm.bias.as_deref().unwrap_or(&[]);
        for row in rows.chunks_exact_mut(table.width) {
            layer_norm(row, &[], &norm.weight, bias, architecture.norm_epsilon);
        }
    }
    let dimension = architecture.hidden / architecture.heads;
    let mut write = |name: &str, linear: &checkpoint::Linear| {
        let projected = project(linear, &rows);
        let packed = pack_heads(&projected, architecture.heads, dimension);
        writer.f32(&format!("{i}.relative.{name}"), &packed);
    };
    if of.content_to_position {
        write("keys", block.relative_key.as_ref().unwrap_or(&block.key));
    }
    if of.position_to_content {
        write("queries", block.relative_query.as_ref().unwrap_or(&block.query));
    }
    writer.f32(&format!("{i}.relative.zeros"), &vec![0.0; padded_outputs(2 * span(of))]);
}

/// `rows · Wᵀ + b`, `[rows, outputs]`.
fn project(linear: &checkpoint::Linear, rows: &[f32]) -> Vec<f32> {
    let (outputs, inputs) = (linear.weight.outputs, linear.weight.inputs);
    let mut values = vec![0.0; packed_len(outputs, inputs)];
    pack(&as_f32(&linear.weight), outputs, inputs, &mut values);
    let mut bias = linear.bias.clone().unwrap_or_default();
    bias.resize(padded_outputs(outputs), 0.0);
    let weights = Weights { outputs, inputs, values: &values, bias: &bias };
    let count = rows.len() / inputs;
    let mut out = vec![0.0; count * outputs];
    let rows = Rows { count, values: rows, stride: inputs };
    gemm_f32(rows, &weights, Activation::Identity, &mut out, outputs);
    out
}

/// Each head's columns of `[2 · span, hidden]` as a packed matrix of 2 · span outputs.
fn pack_heads(table: &[f32], heads: usize, dimension: usize) -> Vec<f32> {
    let hidden = heads * dimension;
    let outputs = table.len() / hidden;
    let length = packed_len(outputs, dimension);
    let mut all = vec![0.0; heads * length];
    for (head, packed) in all.chunks_exact_mut(length).enumerate() {
        let own: Vec<f32> = table
            .chunks_exact(hidden)
            .flat_map(|row| &row[head * dimension..(head + 1) * dimension])
            .copied()
            .collect();
        pack(&own, outputs, dimension, packed);
    }
    all
}

/// Rows of one head: row r begins at `values[r * stride]`.
#[derive(Clone, Copy)]
pub(crate) struct HeadRows<'a> {
    pub(crate) count: usize,
    /// The first row's place in its sequence.
    pub(crate) first: usize,
    pub(crate) values: &'a [f32],
    pub(crate) stride: usize,
}

/// Space for the products with the tables.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    products: Buffer<f32>,
}

impl Relative {
    /// What scores are multiplied by: 1/√(d · terms), the term between contents included.
    pub(crate) fn scale(self, dimension: usize) -> f32 {
        let terms =
            1 + usize::from(self.content_to_position) + usize::from(self.position_to_content);
        1.0 / ((dimension * terms) as f32).sqrt()
    }
}

impl Tables {
    /// The tables that [`write`] wrote.
    pub(crate) fn find(
        image: &Image,
        i: usize,
        architecture: &Architecture,
        of: Relative,
    ) -> Result<Self, String> {
        let place = |name: &str| image.place(&format!("{i}.relative.{name}"));
        let zeros = place("zeros").ok_or("its packed weights have no relative positions")?;
        let dimension = architecture.hidden / architecture.heads;
        let (keys, queries) = (place("keys"), place("queries"));
        Ok(Self { keys, queries, zeros, span: span(of), dimension, of })
    }

    /// Writes the bias of one head: row r of `queries`, at place `queries.first + r`, and key j of `keys`
    /// (pieces in order) at `bias[r * all keys + j]`.
    pub(crate) fn bias<'k>(
        &self,
        image: &Image,
        head: usize,
        queries: HeadRows<'_>,
        keys: impl Iterator<Item = HeadRows<'k>> + Clone,
        scratch: &mut Scratch,
        bias: &mut Buffer<f32>,
    ) {
        let all: usize = keys.clone().map(|piece| piece.count).sum();
        bias.fill_with_zeros(queries.count * all);
        let width = 2 * self.span;
        if let Some(place) = self.keys {
            self.products(image, place, head, queries, scratch);
            for (r, products) in scratch.products.chunks_exact(width).enumerate() {
                for (j, bias) in bias[r * all..][..all].iter_mut().enumerate() {
                    *bias += products[self.row(queries.first + r, j)];
                }
            }
        }
        if let Some(place) = self.queries {
            let mut base = 0;
            for piece in keys {
                self.products(image, place, head, piece, scratch);
                for (j, products) in scratch.products.chunks_exact(width).enumerate() {
                    for r in 0..queries.count {
                        bias[r * all + base + j] += products[self.row(queries.first + r, base + j)];
                    }
                }
                base += piece.count;
            }
        }
    }

    /// Rows times one head's table: `[rows, 2 · span]`.
    fn products(
        &self,
        image: &Image,
        table: Place,
        head: usize,
        rows: HeadRows<'_>,
        scratch: &mut Scratch,
    ) {
        let (outputs, inputs) = (2 * self.span, self.dimension);
        let length = packed_len(outputs, inputs);
        let values = &image.f32(table)[head * length..][..length];
        let weights = Weights { outputs, inputs, values, bias: image.f32(self.zeros) };
        scratch.products.resize(rows.count * outputs);
        let rows = Rows { count: rows.count, values: rows.values, stride: rows.stride };
        gemm_f32(rows, &weights, Activation::Identity, &mut scratch.products, outputs);
    }

    /// δ(i - j).
    fn row(&self, i: usize, j: usize) -> usize {
        let distance = i as isize - j as isize;
        let bucket = match self.of.buckets {
            None => distance,
            Some(buckets) => bucket(distance, buckets, self.of.max_distance),
        };
        (bucket + self.span as isize).clamp(0, 2 * self.span as isize - 1) as usize
    }
}

/// The logarithmic bucket of a distance; odd in the distance.
fn bucket(distance: isize, buckets: usize, max_distance: usize) -> isize {
    let middle = (buckets / 2) as isize;
    let far = distance.abs();
    if far < middle {
        return distance;
    }
    let (middle_f, far_f) = (middle as f32, far as f32);
    let share = (far_f / middle_f).ln() / ((max_distance as f32 - 1.0) / middle_f).ln();
    let bucket = (share * (middle_f - 1.0)).ceil() as isize + middle;
    bucket * distance.signum()
}
