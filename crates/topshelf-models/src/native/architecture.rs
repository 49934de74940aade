//! What is computed: [`Architecture`], one description for all families of encoders.
//!
//! The families differ in few places, and each difference is a field here; the forward pass
//! ([`super::forward`]) reads the fields and knows no family by name. How a family's `config.json`
//! becomes a description is told in [`super::config`].
//!
//! | | positions | norm | attention | perceptron | head |
//! | --- | --- | --- | --- | --- | --- |
//! | BERT | absolute | after | global | GELU | first token, dense, tanh |
//! | RoBERTa, XLM-RoBERTa | absolute, offset by padding + 1 | after | global | GELU | first token, dense, tanh |
//! | DistilBERT | absolute | after | global | GELU | first token, dense, ReLU |
//! | ELECTRA | absolute | after | global | GELU | first token, dense, GELU |
//! | ModernBERT | rotary | before | global and windowed | gated GELU | first token or mean, dense, GELU, norm |
//! | DeBERTa v2, v3 | relative | after | global, disentangled | GELU | first token, dense, GELU |

/// An encoder's shape and its switches.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Architecture {
    /// Length of a hidden state.
    pub(crate) hidden: usize,
    /// Length of a row of the embedding tables; a projection follows where it is not `hidden`.
    pub(crate) embedding_width: usize,
    /// Attention heads; each has `hidden / heads` dimensions.
    pub(crate) heads: usize,
    /// Length of the state inside the perceptron.
    pub(crate) intermediate: usize,
    /// The longest sequence that there are positions for; `None` where there is no such limit.
    pub(crate) max_positions: Option<usize>,
    /// Added to the variance in a layer norm.
    pub(crate) norm_epsilon: f32,
    /// Where a block normalises.
    pub(crate) norm: NormPlace,
    /// The perceptron's activation.
    pub(crate) activation: Activation,
    /// Whether the perceptron has a gate.
    pub(crate) perceptron: Perceptron,
    /// How a token's place enters.
    pub(crate) positions: Positions,
    /// One entry for each block.
    pub(crate) blocks: Vec<BlockKind>,
    /// The classification head, if the checkpoint has one.
    pub(crate) head: Option<Head>,
    /// The head's outputs; 0 without a head.
    pub(crate) labels: usize,
}

/// Where a block normalises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NormPlace {
    /// `x = norm(x + f(x))`, as the first Transformer.
    After,
    /// `x = x + f(norm(x))`, and a norm after the last block.
    Before,
}

/// A function of one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// x · Φ(x), exact.
    Gelu,
    /// The tanh approximation of GELU.
    GeluTanh,
    /// max(x, 0).
    Relu,
    /// x · σ(x).
    Silu,
    /// tanh x.
    Tanh,
}

/// The two-layer perceptron of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Perceptron {
    /// `down(act(up(x)))`.
    Plain,
    /// `down(act(up(x)) ∘ gate(x))`; `up` and `gate` are stacked in one matrix, `up` first.
    Gated,
}

/// How a token's place in its sequence enters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Positions {
    /// A row of a table is added to the embedding; token i takes row `offset + i`.
    Absolute {
        /// The first token's row.
        offset: usize,
    },
    /// Query and key are turned by an angle that grows with the place; [`BlockKind`] has the base.
    Rotary,
    /// Disentangled attention (He et al., "DeBERTa", 2021).
    Relative(Relative),
}

/// The relative positions of DeBERTa.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Relative {
    /// Logarithmic buckets to each side; `None` for one row a distance.
    pub(crate) buckets: Option<usize>,
    /// The largest distance that is told apart from those beyond.
    pub(crate) max_distance: usize,
    /// Whether the term content to position is there.
    pub(crate) content_to_position: bool,
    /// Whether the term position to content is there.
    pub(crate) position_to_content: bool,
}

/// In what the blocks of one model differ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct BlockKind {
    /// A token attends to the tokens at most this far away; `None` for all.
    pub(crate) window: Option<usize>,
    /// The base of the rotary angles, where positions are rotary.
    pub(crate) rotary_base: f32,
}

/// The classification head: `classifier(norm(act(dense(pooled))))`, each part only where the
/// checkpoint has its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// What is pooled.
    pub(crate) pooling: HeadPooling,
    /// The activation after the dense layer.
    pub(crate) activation: Activation,
}

/// What the head reads of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadPooling {
    /// The first token's state.
    First,
    /// The mean of all tokens' states.
    Mean,
}
