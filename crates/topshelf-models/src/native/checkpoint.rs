//! A checkpoint's weights under one set of names, whatever file and family they came from:
//! [`Checkpoint`].
//!
//! Matrices are row-major `[outputs, inputs]`, so that `y = W x + b`. It is the stage between the
//! files ([`super::safetensors`], [`super::onnx_weights`]) and the packed form that the kernels
//! walk ([`super::image`]), and lives only while a model is packed.

/// All weights of one model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Checkpoint {
    pub(crate) embeddings: Embeddings,
    pub(crate) blocks: Vec<Block>,
    /// The norm after the last block, where blocks normalise before.
    pub(crate) final_norm: Option<Norm>,
    /// The table of relative positions, `[2 · span, hidden]`, and the norm over its rows.
    pub(crate) relative: Option<(Table, Option<Norm>)>,
    pub(crate) head: Option<HeadWeights>,
}

/// What turns ids into the first hidden states.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Embeddings {
    pub(crate) word: Table,
    pub(crate) position: Option<Table>,
    pub(crate) token_type: Option<Table>,
    pub(crate) norm: Option<Norm>,
    /// From the embedding's width to the hidden one, where they differ (ELECTRA).
    pub(crate) projection: Option<Linear>,
}

/// One block.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Block {
    /// Before the attention or after it; the first block of ModernBERT has none.
    pub(crate) attention_norm: Option<Norm>,
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) value: Linear,
    /// Matrices of their own for relative positions, where they do not share the key's and query's.
    pub(crate) relative_key: Option<Linear>,
    pub(crate) relative_query: Option<Linear>,
    pub(crate) attention_output: Linear,
    /// Before the perceptron or after it.
    pub(crate) perceptron_norm: Norm,
    /// `[intermediate, hidden]`, or `[2 · intermediate, hidden]` with a gate (the activated half first).
    pub(crate) up: Linear,
    pub(crate) down: Linear,
}

/// The classification head.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HeadWeights {
    pub(crate) dense: Option<Linear>,
    pub(crate) norm: Option<Norm>,
    pub(crate) classifier: Linear,
}

/// A matrix and what is added after it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Linear {
    pub(crate) weight: Matrix,
    pub(crate) bias: Option<Vec<f32>>,
}

/// Scale and shift of a layer norm.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Norm {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Option<Vec<f32>>,
}

/// A matrix `[outputs, inputs]`, row-major.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Matrix {
    pub(crate) outputs: usize,
    pub(crate) inputs: usize,
    pub(crate) values: Values,
}

/// A matrix's elements.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Values {
    F32(Vec<f32>),
    /// `w = scales[output] · code`: the integers of a quantised export.
    I8 {
        codes: Vec<i8>,
        scales: Vec<f32>,
    },
}

/// A table of rows that are looked up.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Table {
    pub(crate) rows: usize,
    pub(crate) width: usize,
    pub(crate) values: TableValues,
}

/// A table's elements.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TableValues {
    F32(Vec<f32>),
    /// `w = scale · (code - zero)`.
    U8 {
        codes: Vec<u8>,
        scale: f32,
        zero: u8,
    },
}
