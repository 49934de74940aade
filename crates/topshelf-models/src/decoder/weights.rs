//! The weights of a decoder: what its metadata says ([`Shape`]), and its matrices as the product reads
//! them ([`Weights`]), packed once and kept beside the file.
//!
//! | architecture | rotary pairs in the file | bias of q, k, v | norm of q and k |
//! | --- | --- | --- | --- |
//! | `llama` | neighbours (2i, 2i + 1) | no | no |
//! | `qwen2` | halves (i, i + d/2) | yes | no |
//! | `qwen3` | halves | no | yes |
//!
//! (llama.cpp's conversion of checkpoints.) Neighbours are brought into halves when weights are packed.
//! All numbers but norms, biases and the table of embeddings are rounded to int8 in groups of 64
//! ([`gemm::grouped`]): against blocks of 4 bits that the file holds, that changes next to nothing.

use std::fmt::Write as _;
use std::path::Path;

use rayon::prelude::*;
use topshelf_kernels::gemm::{self, Activation, grouped};

use super::gguf::Gguf;
use crate::native::image::{Image, ImageWriter, Place};

/// Changes when an image's content does for the same file.
const VERSION: u32 = 1;

/// The shape of a model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shape {
    pub(crate) blocks: usize,
    pub(crate) hidden: usize,
    pub(crate) intermediate: usize,
    pub(crate) heads: usize,
    /// Heads of keys and values; each serves several of queries.
    pub(crate) kv_heads: usize,
    /// The length of a head.
    pub(crate) dimension: usize,
    pub(crate) vocabulary: usize,
    pub(crate) context: usize,
    pub(crate) rotary_base: f32,
    pub(crate) epsilon: f32,
    /// Whether a head's rotary pairs are neighbours in the file.
    neighbours: bool,
}

impl Shape {
    /// What the metadata says, or why it cannot be run.
    pub(crate) fn of(gguf: &Gguf) -> Result<Self, String> {
        let name = gguf.text("general.architecture").unwrap_or("none");
        let neighbours = match name {
            "llama" => true,
            "qwen2" | "qwen3" => false,
            _ => {
                return Err(format!(
                    "its architecture is {name:?}; llama, qwen2 and qwen3 are run here, others by a \
                     server such as llama.cpp's: llm:MODEL@URL"
                ));
            }
        };
        let number = |key: &str| gguf.number(&format!("{name}.{key}"));
        let count = |key: &str| {
            let count = number(key).filter(|n| *n >= 1.0 && *n <= 1e7).map(|n| n as usize);
            count.ok_or_else(|| format!("its metadata has no sensible {name}.{key}"))
        };
        if let Some(kind) = gguf.text(&format!("{name}.rope.scaling.type"))
            && kind != "none"
        {
            return Err(format!("its positions are stretched ({kind}), which is not done here"));
        }
        if gguf.shape("rope_freqs.weight").is_some() {
            return Err(
                "its positions are stretched (rope_freqs), which is not done here".to_owned()
            );
        }
        let (hidden, heads) = (count("embedding_length")?, count("attention.head_count")?);
        let dimension = count("attention.key_length").unwrap_or(hidden / heads);
        let table = gguf.shape("token_embd.weight").ok_or("it has no token_embd.weight")?;
        let shape = Self {
            blocks: count("block_count")?,
            hidden,
            intermediate: count("feed_forward_length")?,
            heads,
            kv_heads: count("attention.head_count_kv").unwrap_or(heads),
            dimension,
            vocabulary: table.0,
            context: count("context_length")?,
            rotary_base: number("rope.freq_base").unwrap_or(10_000.0) as f32,
            epsilon: number("attention.layer_norm_rms_epsilon").unwrap_or(1e-5) as f32,
            neighbours,
        };
        let turned = count("rope.dimension_count").unwrap_or(dimension);
        let is_sound = table.1 == hidden
            && shape.heads.is_multiple_of(shape.kv_heads)
            && dimension.is_multiple_of(2)
            && turned == dimension;
        if !is_sound {
            return Err("its dimensions do not fit each other".to_owned());
        }
        Ok(shape)
    }

    /// The length of a row of keys, or of values.
    pub(crate) fn kv_width(&self) -> usize {
        self.kv_heads * self.dimension
    }

    /// The length of a row of queries.
    pub(crate) fn query_width(&self) -> usize {
        self.heads * self.dimension
    }
}

/// A packed matrix.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix {
    outputs: usize,
    inputs: usize,
    codes: Place,
    scales: Place,
    sums: Place,
    bias: Place,
}

/// One block.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) attention_norm: Vec<f32>,
    /// Queries, keys and values, side by side.
    pub(crate) qkv: Matrix,
    /// Norms of each head of queries, and of keys.
    pub(crate) head_norms: Option<(Vec<f32>, Vec<f32>)>,
    pub(crate) attention_output: Matrix,
    pub(crate) perceptron_norm: Vec<f32>,
    pub(crate) gate: Matrix,
    pub(crate) up: Matrix,
    pub(crate) down: Matrix,
}

/// All of a model but its table of embeddings, which is read from the file.
pub(crate) struct Weights {
    image: Image,
    pub(crate) blocks: Vec<Block>,
    pub(crate) norm: Vec<f32>,
    pub(crate) head: Matrix,
}

impl Weights {
    /// The packed weights beside the file, or those of the file, which are packed and kept there.
    /// `content` tells one file's content from another's.
    pub(crate) fn open(
        path: &Path,
        gguf: &Gguf,
        shape: &Shape,
        content: &str,
    ) -> Result<Self, String> {
        let made_of = format!("decoder {VERSION} {content}");
        let kept = path.with_extension("topshelf-int8.image");
        let image = if let Ok(image) = Image::open(&kept, &made_of) {
            image
        } else {
            let writer = pack(gguf, shape, &made_of)?;
            writer.finish(&kept).map_err(|error| error.to_string())?
        };
        Self::of(image, gguf, shape)
    }

    fn of(image: Image, gguf: &Gguf, shape: &Shape) -> Result<Self, String> {
        let matrix = |name: &str, outputs: usize, inputs: usize| {
            let place = |part: &str| {
                image
                    .place(&format!("{name}.{part}"))
                    .ok_or_else(|| format!("{name} was not packed"))
            };
            let (codes, scales, sums, bias) =
                (place("codes")?, place("scales")?, place("sums")?, place("bias")?);
            Ok::<_, String>(Matrix { outputs, inputs, codes, scales, sums, bias })
        };
        let norm = |name: &str, length: usize| {
            let values = gguf.all(name).filter(|values| values.len() == length);
            values.ok_or_else(|| format!("it has no {name} of {length} numbers"))
        };
        let (hidden, inner) = (shape.hidden, shape.intermediate);
        let qkv = shape.query_width() + 2 * shape.kv_width();
        let block = |i: usize| {
            let of = |name: &str| format!("blk.{i}.{name}");
            let head_norm = |name: &str| norm(&of(name), shape.dimension);
            let has_norms = gguf.shape(&of("attn_q_norm.weight")).is_some();
            let head_norms = if has_norms {
                Some((head_norm("attn_q_norm.weight")?, head_norm("attn_k_norm.weight")?))
            } else {
                None
            };
            Ok::<_, String>(Block {
                attention_norm: norm(&of("attn_norm.weight"), hidden)?,
                qkv: matrix(&of("qkv"), qkv, hidden)?,
                head_norms,
                attention_output: matrix(&of("attn_output"), hidden, shape.query_width())?,
                perceptron_norm: norm(&of("ffn_norm.weight"), hidden)?,
                gate: matrix(&of("ffn_gate"), inner, hidden)?,
                up: matrix(&of("ffn_up"), inner, hidden)?,
                down: matrix(&of("ffn_down"), hidden, inner)?,
            })
        };
        let blocks = (0..shape.blocks).map(block).collect::<Result<_, _>>()?;
        let head = matrix("head", shape.vocabulary, hidden)?;
        Ok(Self { blocks, norm: norm("output_norm.weight", hidden)?, head, image })
    }

    fn view(&self, matrix: &Matrix) -> grouped::Weights<'_> {
        grouped::Weights {
            outputs: matrix.outputs,
            inputs: matrix.inputs,
            codes: self.image.i8(matrix.codes),
            scales: self.image.f32(matrix.scales),
            sums: self.image.i32(matrix.sums),
            bias: self.image.f32(matrix.bias),
        }
    }

    /// The product with rows that were rounded.
    pub(crate) fn apply(
        &self,
        matrix: &Matrix,
        rows: grouped::Rows<'_>,
        activation: Activation,
        out: &mut [f32],
    ) {
        grouped::gemm_grouped(rows, &self.view(matrix), activation, out, matrix.outputs);
    }

    /// The outputs that fall to one of `shares`: the first of them, and how many.
    pub(crate) fn share(matrix: &Matrix, share: usize, shares: usize) -> std::ops::Range<usize> {
        let panels = matrix.outputs.div_ceil(gemm::i8::PANEL);
        panels * share / shares..panels * (share + 1) / shares
    }

    /// The product with some panels of a matrix; answers the first output and how many there are.
    pub(crate) fn apply_panels(
        &self,
        matrix: &Matrix,
        panels: std::ops::Range<usize>,
        rows: grouped::Rows<'_>,
        count: usize,
        out: &mut Vec<f32>,
    ) -> (usize, usize) {
        let first = panels.start * gemm::i8::PANEL;
        let weights = self.view(matrix).panels(panels);
        out.resize(count * weights.outputs, 0.0);
        grouped::gemm_grouped(rows, &weights, Activation::Identity, out, weights.outputs);
        (first, weights.outputs)
    }
}

/// A matrix of the file, and what is done with its rows.
struct Part<'a> {
    name: String,
    bias: Option<String>,
    outputs: usize,
    /// The length of a head, where rotary pairs are neighbours.
    neighbours: Option<usize>,
    gguf: &'a Gguf,
}

impl Part<'_> {
    /// The row of the file that becomes this output.
    fn source(&self, output: usize) -> usize {
        let Some(dimension) = self.neighbours else { return output };
        let (head, i) = (output / dimension, output % dimension);
        let half = dimension / 2;
        head * dimension + if i < half { 2 * i } else { 2 * (i - half) + 1 }
    }
}

/// Packs all matrices.
fn pack(gguf: &Gguf, shape: &Shape, made_of: &str) -> Result<ImageWriter, String> {
    let mut writer = ImageWriter::new(made_of);
    let (hidden, inner) = (shape.hidden, shape.intermediate);
    let part = |name: String, outputs: usize, inputs: usize, is_turned: bool| {
        if gguf.shape(&name) != Some((outputs, inputs)) {
            return Err(format!("it has no {name} of {outputs} x {inputs}"));
        }
        let bias = name.strip_suffix("weight").map(|stem| format!("{stem}bias"));
        let bias = bias.filter(|bias| gguf.shape(bias).is_some());
        let neighbours = (is_turned && shape.neighbours).then_some(shape.dimension);
        Ok(Part { name, bias, outputs, neighbours, gguf })
    };
    for i in 0..shape.blocks {
        let of = |name: &str| {
            let mut full = String::new();
            let _ = write!(full, "blk.{i}.{name}.weight");
            full
        };
        let qkv = [
            part(of("attn_q"), shape.query_width(), hidden, true)?,
            part(of("attn_k"), shape.kv_width(), hidden, true)?,
            part(of("attn_v"), shape.kv_width(), hidden, false)?,
        ];
        write_matrix(&mut writer, &format!("blk.{i}.qkv"), &qkv, hidden);
        for (name, outputs, inputs) in [
            ("attn_output", hidden, shape.query_width()),
            ("ffn_gate", inner, hidden),
            ("ffn_up", inner, hidden),
            ("ffn_down", hidden, inner),
        ] {
            let part = part(of(name), outputs, inputs, false)?;
            write_matrix(&mut writer, &format!("blk.{i}.{name}"), &[part], inputs);
        }
    }
    // Many models read words by the table that they write them with.
    let head = match gguf.shape("output.weight") {
        Some(_) => "output.weight",
        None => "token_embd.weight",
    };
    let head = part(head.to_owned(), shape.vocabulary, hidden, false)?;
    write_matrix(&mut writer, "head", &[head], hidden);
    Ok(writer)
}

fn write_matrix(writer: &mut ImageWriter, name: &str, parts: &[Part<'_>], inputs: usize) {
    let panel = gemm::i8::PANEL;
    let outputs: usize = parts.iter().map(|part| part.outputs).sum();
    let mut codes = vec![0_i8; grouped::codes_len(outputs, inputs)];
    let mut scales = vec![0.0; grouped::scales_len(outputs, inputs)];
    let mut sums = vec![0; grouped::scales_len(outputs, inputs)];
    let (code_panel, scale_panel) =
        (panel * grouped::padded_inputs(inputs), panel * grouped::groups(inputs));
    let find = |output: usize| {
        let mut output = output;
        for part in parts {
            if output < part.outputs {
                return Some((part, part.source(output)));
            }
            output -= part.outputs;
        }
        None
    };
    codes
        .par_chunks_mut(code_panel)
        .zip(scales.par_chunks_mut(scale_panel))
        .zip(sums.par_chunks_mut(scale_panel))
        .enumerate()
        .for_each(|(p, ((codes, scales), sums))| {
            let mut row = vec![0.0; inputs];
            for column in 0..panel {
                if let Some((part, source)) = find(p * panel + column) {
                    part.gguf.row(&part.name, source, &mut row);
                    grouped::pack(&row, inputs, column, codes, scales, sums);
                }
            }
        });
    let mut bias = vec![0.0; gemm::i8::padded_outputs(outputs)];
    let mut first = 0;
    for part in parts {
        if let Some(values) = part.bias.as_ref().and_then(|name| part.gguf.all(name)) {
            for (output, bias) in bias[first..first + part.outputs].iter_mut().enumerate() {
                *bias = values.get(part.source(output)).copied().unwrap_or_default();
            }
        }
        first += part.outputs;
    }
    writer.i8(&format!("{name}.codes"), &codes);
    writer.f32(&format!("{name}.scales"), &scales);
    writer.i32(&format!("{name}.sums"), &sums);
    writer.f32(&format!("{name}.bias"), &bias);
}
