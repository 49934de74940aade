//! The dense layers behind a late-interaction model's states: [`Projection`], `y = W x + b` one after
//! the other, in f32.
//!
//! They lie in safetensors files of their own, as sentence-transformers and PyLate save them
//! (`linear.weight` `[outputs, inputs]`, `linear.bias`), or as `linear.weight` among the weights of
//! ColBERT's own checkpoints. Where there are none, the states themselves are the vectors.

use std::path::Path;

use topshelf_kernels::gemm::{Activation, f32 as gemm};

use crate::error::{ModelError, Result};
use crate::native::checkpoint::Values;
use crate::native::names::Parameters;
use crate::native::safetensors::File;
use crate::spec::ModelFolder;

/// The name of a layer's module in its file.
const MODULE: &str = "linear";

/// Dense layers; none leaves rows as they are.
pub(crate) struct Projection {
    layers: Vec<Dense>,
    inputs: usize,
}

struct Dense {
    outputs: usize,
    inputs: usize,
    values: Vec<f32>,
    bias: Vec<f32>,
}

impl Projection {
    /// The layers of a model whose states have `width` numbers.
    ///
    /// # Errors
    ///
    /// [`ModelError::Unsupported`] for a layer that cannot be read or does not fit.
    pub(crate) fn load(folder: &ModelFolder, width: usize) -> Result<Self> {
        let unsupported = |path: &Path, reason: String| ModelError::Unsupported {
            dir: folder.dir.clone(),
            reason: format!("{}: {reason}", path.display()),
        };
        let mut paths = folder.projections();
        let weights = folder.weights();
        let is_safetensors = weights.extension().is_some_and(|ending| ending == "safetensors");
        if paths.is_empty() && is_safetensors {
            let file = File::open(&weights).map_err(|reason| unsupported(&weights, reason))?;
            paths.extend(file.has(&format!("{MODULE}.weight")).then_some(weights));
        }
        let mut layers = Vec::new();
        let mut inputs = width;
        for path in paths {
            let layer = Dense::read(&path, inputs).map_err(|reason| unsupported(&path, reason))?;
            inputs = layer.outputs;
            layers.push(layer);
        }
        Ok(Self { layers, inputs: width })
    }

    /// The length of a projected row.
    pub(crate) fn outputs(&self) -> usize {
        self.layers.last().map_or(self.inputs, |layer| layer.outputs)
    }

    /// Rows `[count, inputs]` to rows `[count, outputs]`.
    pub(crate) fn apply(&self, rows: &[f32]) -> Vec<f32> {
        let mut rows = rows.to_vec();
        for layer in &self.layers {
            let count = rows.len() / layer.inputs;
            let mut out = vec![0.0; count * layer.outputs];
            let weights = gemm::Weights {
                outputs: layer.outputs,
                inputs: layer.inputs,
                values: &layer.values,
                bias: &layer.bias,
            };
            let from = gemm::Rows { count, values: &rows, stride: layer.inputs };
            gemm::gemm_f32(from, &weights, Activation::Identity, &mut out, layer.outputs);
            rows = out;
        }
        rows
    }
}

impl Dense {
    fn read(path: &Path, expected: usize) -> Result<Self, String> {
        let file = File::open(path)?;
        let matrix = file.matrix(MODULE)?;
        let (outputs, inputs) = (matrix.outputs, matrix.inputs);
        let Values::F32(weights) = matrix.values else {
            return Err("its weights are integers".to_owned());
        };
        if inputs != expected || outputs == 0 {
            return Err(format!("it takes rows of {inputs}, and those before it have {expected}"));
        }
        let name = format!("{MODULE}.bias");
        let mut bias = if file.has(&name) { file.vector(&name)? } else { vec![0.0; outputs] };
        if bias.len() != outputs {
            return Err(format!("{} biases for {outputs} outputs", bias.len()));
        }
        let mut values = vec![0.0; gemm::packed_len(outputs, inputs)];
        gemm::pack(&weights, outputs, inputs, &mut values);
        bias.resize(gemm::packed_len(outputs, 1), 0.0);
        Ok(Self { outputs, inputs, values, bias })
    }
}
