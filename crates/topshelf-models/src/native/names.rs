//! The parameter names of each family, and how a [`Checkpoint`] is filled by them: [`read`].
//!
//! A file of parameters is seen through [`Parameters`], so that names are written once for all
//! formats. Shapes are compared with the [`Architecture`]; what does not fit is refused by name.

use std::path::Path;

use super::architecture::{Architecture, NormPlace, Perceptron, Positions};
use super::checkpoint::{
    Block, Checkpoint, Embeddings, HeadWeights, Linear, Matrix, Norm, Table, Values,
};
use super::{onnx_weights, packed, safetensors};

/// Parameters by name.
pub(crate) trait Parameters {
    /// Whether there is a parameter of that name.
    fn has(&self, name: &str) -> bool;
    /// The weight of a linear module, by the module's name.
    fn matrix(&self, module: &str) -> Result<Matrix, String>;
    /// A vector.
    fn vector(&self, name: &str) -> Result<Vec<f32>, String>;
    /// A table that is looked up.
    fn table(&self, name: &str) -> Result<Table, String>;
}

/// The weights in that file, of a model of that type.
pub(crate) fn read(
    path: &Path,
    architecture: &Architecture,
    model_type: &str,
) -> Result<Checkpoint, String> {
    if path.extension().is_some_and(|ending| ending == "onnx") {
        Reader::new(&onnx_weights::File::open(path)?, architecture, model_type)?.checkpoint()
    } else {
        Reader::new(&safetensors::File::open(path)?, architecture, model_type)?.checkpoint()
    }
}

/// What a family calls the parts of a model. `{}` stands for the block's number.
struct Names {
    /// Before all names of a model with a head.
    prefix: &'static str,
    word: &'static str,
    embedding_norm: &'static str,
    block: &'static str,
    query: &'static str,
    key: &'static str,
    value: &'static str,
    attention_output: &'static str,
    attention_norm: &'static str,
    up: &'static str,
    down: &'static str,
    perceptron_norm: &'static str,
    head_dense: &'static str,
    classifier: &'static str,
}

const BERT: Names = Names {
    prefix: "bert.",
    word: "embeddings.word_embeddings",
    embedding_norm: "embeddings.LayerNorm",
    block: "encoder.layer.{}.",
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    attention_output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    perceptron_norm: "output.LayerNorm",
    head_dense: "{prefix}pooler.dense",
    classifier: "classifier",
};

const ROBERTA: Names = Names {
    prefix: "roberta.",
    head_dense: "classifier.dense",
    classifier: "classifier.out_proj",
    ..BERT
};

const ELECTRA: Names = Names { prefix: "electra.", ..ROBERTA };

const DEBERTA: Names = Names {
    prefix: "deberta.",
    query: "attention.self.query_proj",
    key: "attention.self.key_proj",
    value: "attention.self.value_proj",
    head_dense: "pooler.dense",
    ..BERT
};

const DISTILBERT: Names = Names {
    prefix: "distilbert.",
    block: "transformer.layer.{}.",
    query: "attention.q_lin",
    key: "attention.k_lin",
    value: "attention.v_lin",
    attention_output: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    up: "ffn.lin1",
    down: "ffn.lin2",
    perceptron_norm: "output_layer_norm",
    head_dense: "pre_classifier",
    ..BERT
};

const MODERNBERT: Names = Names {
    prefix: "model.",
    word: "embeddings.tok_embeddings",
    embedding_norm: "embeddings.norm",
    block: "layers.{}.",
    query: "attn.Wqkv",
    key: "attn.Wqkv",
    value: "attn.Wqkv",
    attention_output: "attn.Wo",
    attention_norm: "attn_norm",
    up: "mlp.Wi",
    down: "mlp.Wo",
    perceptron_norm: "mlp_norm",
    head_dense: "head.dense",
    classifier: "classifier",
};

fn names(model_type: &str) -> Result<&'static Names, String> {
    Ok(match model_type {
        "bert" => &BERT,
        "roberta" | "xlm-roberta" | "camembert" => &ROBERTA,
        "electra" => &ELECTRA,
        "distilbert" => &DISTILBERT,
        "modernbert" => &MODERNBERT,
        "deberta-v2" => &DEBERTA,
        other => return Err(format!("the parameter names of \"{other}\" are not known")),
    })
}

struct Reader<'a, P> {
    parameters: &'a P,
    architecture: &'a Architecture,
    names: &'static Names,
    /// Before the names of the encoder's parts: a base model is saved without one.
    prefix: &'static str,
}

impl<'a, P: Parameters> Reader<'a, P> {
    fn new(
        parameters: &'a P,
        architecture: &'a Architecture,
        model_type: &str,
    ) -> Result<Self, String> {
        let names = names(model_type)?;
        let prefixed = format!("{}{}.weight", names.prefix, names.word);
        let prefix = if parameters.has(&prefixed) { names.prefix } else { "" };
        Ok(Self { parameters, architecture, names, prefix })
    }

    fn checkpoint(&self) -> Result<Checkpoint, String> {
        let relative = match self.architecture.positions {
            Positions::Relative(_) => {
                let table = self.table("encoder.rel_embeddings", self.architecture.hidden)?;
                Some((table, self.optional_norm("encoder.LayerNorm")?))
            }
            _ => None,
        };
        let final_norm = match self.architecture.norm {
            NormPlace::Before => Some(self.norm("final_norm")?),
            NormPlace::After => None,
        };
        Ok(Checkpoint {
            embeddings: self.embeddings()?,
            blocks: (0..self.architecture.blocks.len())
                .map(|i| self.block(i))
                .collect::<Result<_, _>>()?,
            final_norm,
            relative,
            head: match self.architecture.head {
                Some(_) => Some(self.head()?),
                None => None,
            },
        })
    }

    fn embeddings(&self) -> Result<Embeddings, String> {
        let (hidden, width) = (self.architecture.hidden, self.architecture.embedding_width);
        let optional = |name: &str| {
            if self.has_part(&format!("{name}.weight")) {
                self.table(name, width).map(Some)
            } else {
                Ok(None)
            }
        };
        let position = optional("embeddings.position_embeddings")?;
        if matches!(self.architecture.positions, Positions::Absolute { .. }) && position.is_none() {
            return Err("it has no table of positions".to_owned());
        }
        if matches!(self.architecture.positions, Positions::Relative(_)) && position.is_some() {
            return Err("it has a table of positions besides its relative ones".to_owned());
        }
        let projection = if width == hidden {
            None
        } else {
            let names = ["embeddings_project", "embeddings.embed_proj"];
            let name = names.into_iter().find(|name| self.has_part(&format!("{name}.weight")));
            Some(self.linear(name.unwrap_or(names[0]), hidden, width)?)
        };
        Ok(Embeddings {
            word: self.table(self.names.word, width)?,
            position,
            token_type: optional("embeddings.token_type_embeddings")?,
            norm: Some(self.norm(self.names.embedding_norm)?),
            projection,
        })
    }

    fn block(&self, i: usize) -> Result<Block, String> {
        let (hidden, names) = (self.architecture.hidden, self.names);
        let prefix = names.block.replace("{}", &i.to_string());
        let name = |part: &str| format!("{prefix}{part}");
        let inner = self.architecture.intermediate;
        let up = match self.architecture.perceptron {
            Perceptron::Plain => inner,
            Perceptron::Gated => 2 * inner,
        };
        let (query, key, value) = if names.query == names.key {
            let fused = self.linear(&name(names.query), 3 * hidden, hidden)?;
            let part = |n: usize| packed::some_outputs(&fused, n * hidden..(n + 1) * hidden);
            (part(0), part(1), part(2))
        } else {
            let linear = |part: &str| self.linear(&name(part), hidden, hidden);
            (linear(names.query)?, linear(names.key)?, linear(names.value)?)
        };
        let own = |part: &str| {
            if self.has_part(&format!("{prefix}{part}.weight")) {
                self.linear(&name(part), hidden, hidden).map(Some)
            } else {
                Ok(None)
            }
        };
        Ok(Block {
            attention_norm: match self.architecture.norm {
                // Its first block has none: the embeddings are normalised already.
                NormPlace::Before if i == 0 => self.optional_norm(&name(names.attention_norm))?,
                _ => Some(self.norm(&name(names.attention_norm))?),
            },
            query,
            key,
            value,
            relative_key: own("attention.self.pos_key_proj")?,
            relative_query: own("attention.self.pos_query_proj")?,
            attention_output: self.linear(&name(names.attention_output), hidden, hidden)?,
            perceptron_norm: self.norm(&name(names.perceptron_norm))?,
            up: self.linear(&name(names.up), up, hidden)?,
            down: self.linear(&name(names.down), hidden, inner)?,
        })
    }

    fn head(&self) -> Result<HeadWeights, String> {
        let hidden = self.architecture.hidden;
        let dense = self.names.head_dense.replace("{prefix}", self.prefix);
        Ok(HeadWeights {
            dense: Some(self.linear_at(&dense, hidden, hidden)?),
            norm: if self.parameters.has("head.norm.weight") {
                Some(self.norm_at("head.norm")?)
            } else {
                None
            },
            classifier: self.linear_at(self.names.classifier, self.architecture.labels, hidden)?,
        })
    }

    fn has_part(&self, name: &str) -> bool {
        self.parameters.has(&format!("{}{name}", self.prefix))
    }

    fn linear(&self, module: &str, outputs: usize, inputs: usize) -> Result<Linear, String> {
        self.linear_at(&format!("{}{module}", self.prefix), outputs, inputs)
    }

    fn linear_at(&self, module: &str, outputs: usize, inputs: usize) -> Result<Linear, String> {
        let weight = self.parameters.matrix(module)?;
        if (weight.outputs, weight.inputs) != (outputs, inputs) {
            return Err(format!(
                "the weight of {module} is {} x {}, where {outputs} x {inputs} is right",
                weight.outputs, weight.inputs
            ));
        }
        let (count, scales) = match &weight.values {
            Values::F32(values) => (values.len(), outputs),
            Values::I8 { codes, scales } => (codes.len(), scales.len()),
        };
        if count != outputs * inputs || scales != outputs {
            return Err(format!("the weight of {module} is not whole"));
        }
        let bias = format!("{module}.bias");
        let bias =
            if self.parameters.has(&bias) { Some(self.vector(&bias, outputs)?) } else { None };
        Ok(Linear { weight, bias })
    }

    fn norm(&self, module: &str) -> Result<Norm, String> {
        self.norm_at(&format!("{}{module}", self.prefix))
    }

    fn optional_norm(&self, module: &str) -> Result<Option<Norm>, String> {
        if self.has_part(&format!("{module}.weight")) {
            self.norm(module).map(Some)
        } else {
            Ok(None)
        }
    }

    fn norm_at(&self, module: &str) -> Result<Norm, String> {
        // Old checkpoints call them gamma and beta.
        let either = |new: &str, old: &str| {
            let names = [format!("{module}.{new}"), format!("{module}.{old}")];
            names.into_iter().find(|name| self.parameters.has(name))
        };
        let Some(weight) = either("weight", "gamma") else {
            return Err(format!("it has no tensor {module}.weight"));
        };
        let weight = self.parameters.vector(&weight)?;
        let widths = [self.architecture.hidden, self.architecture.embedding_width];
        if !widths.contains(&weight.len()) {
            return Err(format!("{module} normalises {} numbers", weight.len()));
        }
        let bias = match either("bias", "beta") {
            Some(bias) => Some(self.vector(&bias, weight.len())?),
            None => None,
        };
        Ok(Norm { weight, bias })
    }

    fn vector(&self, name: &str, length: usize) -> Result<Vec<f32>, String> {
        let vector = self.parameters.vector(name)?;
        if vector.len() != length {
            return Err(format!("{name} has {} numbers, where {length} are right", vector.len()));
        }
        Ok(vector)
    }

    fn table(&self, module: &str, width: usize) -> Result<Table, String> {
        let name = format!("{}{module}.weight", self.prefix);
        let table = self.parameters.table(&name)?;
        if table.width != width || table.rows == 0 {
            return Err(format!(
                "{name} is {} x {}, where rows of {width} are right",
                table.rows, table.width
            ));
        }
        Ok(table)
    }
}
