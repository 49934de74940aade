//! A model as the forward pass reads it: its [`Architecture`] and where its parts lie in the
//! [`Image`]; and how an image is made of a [`Checkpoint`].

use std::io;
use std::path::Path;
use std::sync::Arc;

use topshelf_kernels::gemm::Activation as Function;

use super::architecture::{Activation, Architecture, Perceptron, Positions};
use super::checkpoint::{self, Checkpoint};
use super::image::{Image, ImageWriter};
use super::packed::{
    Linear, Norm, Precision, Table, some_outputs, write_linear, write_norm, write_table,
};
use super::relative;
use super::rotary::Rotary;

/// A model in memory.
pub(crate) struct Model {
    pub(crate) architecture: Architecture,
    pub(crate) precision: Precision,
    pub(crate) image: Image,
    pub(crate) embeddings: Embeddings,
    pub(crate) blocks: Vec<Block>,
    pub(crate) final_norm: Option<Norm>,
    pub(crate) head: Option<Head>,
    /// The angles of each block, where positions are rotary.
    pub(crate) rotary: Vec<Arc<Rotary>>,
}

pub(crate) struct Embeddings {
    pub(crate) word: Table,
    pub(crate) position: Option<Table>,
    pub(crate) token_type: Option<Table>,
    pub(crate) norm: Option<Norm>,
    pub(crate) projection: Option<Linear>,
    pub(crate) width: usize,
}

pub(crate) struct Block {
    pub(crate) attention_norm: Option<Norm>,
    pub(crate) query: Linear,
    /// Keys, then values.
    pub(crate) key_value: Linear,
    pub(crate) attention_output: Linear,
    pub(crate) perceptron_norm: Norm,
    pub(crate) up: Linear,
    pub(crate) gate: Option<Linear>,
    pub(crate) down: Linear,
    pub(crate) relative: Option<relative::Tables>,
}

/// The classification head; its products are in f32 always, since they are few.
pub(crate) struct Head {
    pub(crate) dense: Option<Linear>,
    pub(crate) norm: Option<Norm>,
    pub(crate) classifier: Linear,
}

/// Makes the image of a checkpoint and keeps it in the file, if it can be written.
pub(crate) fn pack(
    checkpoint: &Checkpoint,
    architecture: &Architecture,
    precision: Precision,
    made_of: &str,
    path: &Path,
) -> io::Result<Image> {
    let mut writer = ImageWriter::new(made_of);
    let w = &mut writer;
    let embeddings = &checkpoint.embeddings;
    write_table(w, "word", &embeddings.word, precision);
    let tables = [("position", &embeddings.position), ("token_type", &embeddings.token_type)];
    for (name, table) in tables {
        if let Some(table) = table {
            write_table(w, name, table, precision);
        }
    }
    write_optional_norm(w, "embeddings", embeddings.norm.as_ref());
    if let Some(projection) = &embeddings.projection {
        write_linear(w, "projection", &[projection], precision);
    }
    for (i, block) in checkpoint.blocks.iter().enumerate() {
        write_optional_norm(w, &format!("{i}.attention"), block.attention_norm.as_ref());
        write_linear(w, &format!("{i}.query"), &[&block.query], precision);
        write_linear(w, &format!("{i}.key_value"), &[&block.key, &block.value], precision);
        write_linear(w, &format!("{i}.attention_output"), &[&block.attention_output], precision);
        write_norm(w, &format!("{i}.perceptron"), &block.perceptron_norm);
        match architecture.perceptron {
            Perceptron::Plain => write_linear(w, &format!("{i}.up"), &[&block.up], precision),
            Perceptron::Gated => {
                let half = architecture.intermediate;
                let (up, gate) =
                    (some_outputs(&block.up, 0..half), some_outputs(&block.up, half..2 * half));
                write_linear(w, &format!("{i}.up"), &[&up], precision);
                write_linear(w, &format!("{i}.gate"), &[&gate], precision);
            }
        }
        write_linear(w, &format!("{i}.down"), &[&block.down], precision);
        if let (Positions::Relative(of), Some(table)) =
            (architecture.positions, &checkpoint.relative)
        {
            relative::write(w, i, block, table, architecture, of);
        }
    }
    write_optional_norm(w, "final", checkpoint.final_norm.as_ref());
    if let Some(head) = &checkpoint.head {
        if let Some(dense) = &head.dense {
            write_linear(w, "head.dense", &[dense], Precision::F32);
        }
        write_optional_norm(w, "head", head.norm.as_ref());
        write_linear(w, "head.classifier", &[&head.classifier], Precision::F32);
    }
    writer.finish(path)
}

fn write_optional_norm(writer: &mut ImageWriter, name: &str, norm: Option<&checkpoint::Norm>) {
    if let Some(norm) = norm {
        write_norm(writer, name, norm);
    }
}

impl Model {
    /// Finds the parts of the architecture in the image; the error names the one that is missing.
    pub(crate) fn of(
        image: Image,
        architecture: Architecture,
        precision: Precision,
    ) -> Result<Self, String> {
        let (hidden, intermediate) = (architecture.hidden, architecture.intermediate);
        let width = architecture.embedding_width;
        let linear = |name: &str, outputs: usize, inputs: usize| {
            Linear::find(&image, name, outputs, inputs).ok_or_else(|| missing(name))
        };
        let norm = |name: &str| Norm::find(&image, name, architecture.norm_epsilon);
        let embeddings = Embeddings {
            word: Table::find(&image, "word", width).ok_or_else(|| missing("word"))?,
            position: Table::find(&image, "position", width),
            token_type: Table::find(&image, "token_type", width),
            norm: norm("embeddings"),
            projection: Linear::find(&image, "projection", hidden, width),
            width,
        };
        let blocks = (0..architecture.blocks.len())
            .map(|i| {
                Ok(Block {
                    attention_norm: norm(&format!("{i}.attention")),
                    query: linear(&format!("{i}.query"), hidden, hidden)?,
                    key_value: linear(&format!("{i}.key_value"), 2 * hidden, hidden)?,
                    attention_output: linear(&format!("{i}.attention_output"), hidden, hidden)?,
                    perceptron_norm: norm(&format!("{i}.perceptron"))
                        .ok_or_else(|| missing("a norm"))?,
                    up: linear(&format!("{i}.up"), intermediate, hidden)?,
                    gate: match architecture.perceptron {
                        Perceptron::Plain => None,
                        Perceptron::Gated => {
                            Some(linear(&format!("{i}.gate"), intermediate, hidden)?)
                        }
                    },
                    down: linear(&format!("{i}.down"), hidden, intermediate)?,
                    relative: match architecture.positions {
                        Positions::Relative(of) => {
                            Some(relative::Tables::find(&image, i, &architecture, of)?)
                        }
                        _ => None,
                    },
                })
            })
            .collect::<Result<Vec<_>, String>>()?;
        let head = match architecture.head {
            None => None,
            Some(_) => Some(Head {
                dense: Linear::find(&image, "head.dense", hidden, hidden),
                norm: norm("head"),
                classifier: linear("head.classifier", architecture.labels, hidden)?,
            }),
        };
        let final_norm = norm("final");
        let rotary = match architecture.positions {
            Positions::Rotary => Rotary::of_blocks(&architecture),
            _ => Vec::new(),
        };
        Ok(Self { architecture, precision, image, embeddings, blocks, final_norm, head, rotary })
    }
}

fn missing(name: &str) -> String {
    format!("its packed weights have no {name}")
}

/// The kernels' name of an activation.
pub(crate) const fn function(activation: Activation) -> Function {
    match activation {
        Activation::Gelu => Function::Gelu,
        Activation::GeluTanh => Function::GeluTanh,
        Activation::Relu => Function::Relu,
        Activation::Silu => Function::Silu,
        Activation::Tanh => Function::Tanh,
    }
}
