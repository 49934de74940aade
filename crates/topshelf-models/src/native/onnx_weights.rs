//! Parameters from an ONNX file.
//!
//! An export keeps the names of biases, norms and embeddings, but the weights of its matrix
//! products are often anonymous (`onnx::MatMul_123`). They are found through the graph: from the
//! addition of the bias back to the product, or where there is no bias by the product's own name,
//! which is the module's path.
//!
//! | operator | weight |
//! | --- | --- |
//! | `MatMul` | f32 or f16, `[inputs, outputs]` |
//! | `Gemm` | f32 or f16, `[outputs, inputs]` with `transB`, else as `MatMul` |
//! | `MatMulInteger` of a dynamically quantised file | s8 with zero point 0, or u8 with zero point 128, one scale for the tensor or for each output: the very integers are taken |
//!
//! Anything else, such as fused operators, is refused with the reason.

use std::collections::HashMap;
use std::path::Path;

use rten_onnx::onnx::{DataType, GraphProto, ModelProto, NodeProto, TensorProto};

use super::checkpoint::{Matrix, Table, TableValues, Values};
use super::names::Parameters;
use super::safetensors::f16_to_f32;

/// Nodes between the addition of a bias and its product, at most.
const STEPS: usize = 6;

/// A parsed file.
pub(crate) struct File {
    graph: GraphProto,
    initializers: HashMap<String, usize>,
    /// The node that gives a value.
    producers: HashMap<String, usize>,
    /// The nodes that take a value.
    consumers: HashMap<String, Vec<usize>>,
}

impl File {
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let file =
            std::fs::File::open(path).map_err(|error| format!("it cannot be read: {error}"))?;
        let model = ModelProto::parse_file(file)
            .map_err(|error| format!("its ONNX file cannot be read: {error}"))?;
        let graph = model.graph.ok_or("its ONNX file has no graph")?;
        Ok(Self::of(graph))
    }

    fn of(graph: GraphProto) -> Self {
        let mut initializers = HashMap::new();
        for (i, tensor) in graph.initializer.iter().enumerate() {
            initializers.insert(tensor.name.clone().unwrap_or_default(), i);
        }
        let mut producers = HashMap::new();
        let mut consumers: HashMap<String, Vec<usize>> = HashMap::new();
        for (i, node) in graph.node.iter().enumerate() {
            for output in &node.output {
                producers.insert(output.clone(), i);
            }
            for input in &node.input {
                consumers.entry(input.clone()).or_default().push(i);
            }
        }
        Self { graph, initializers, producers, consumers }
    }

    fn tensor(&self, name: &str) -> Result<&TensorProto, String> {
        let found = self.initializers.get(name).map(|&i| &self.graph.initializer[i]);
        found.ok_or_else(|| format!("it has no initializer {name}"))
    }

    /// The product of a linear module.
    fn product(&self, module: &str) -> Result<&NodeProto, String> {
        let weight = format!("{module}.weight");
        for name in [weight.clone(), format!("{weight}_quantized")] {
            let user = self.consumers.get(&name).and_then(|users| users.first());
            if let Some(&user) = user {
                return Ok(&self.graph.node[user]);
            }
        }
        let users = self.consumers.get(&format!("{module}.bias")).into_iter().flatten();
        for &user in users {
            let node = &self.graph.node[user];
            if operator(node) == "Gemm" {
                return Ok(node);
            }
            if operator(node) == "Add" {
                let found = node.input.iter().find_map(|input| self.back(input, STEPS));
                if let Some(found) = found {
                    return Ok(found);
                }
            }
        }
        let path = node_path(module);
        let named = self.graph.node.iter().find(|node| {
            let name = node.name.as_deref().unwrap_or_default();
            is_product(node)
                && name.strip_prefix(&path).is_some_and(|rest| rest.starts_with("/MatMul"))
        });
        named.ok_or_else(|| match self.fused() {
            Some(fused) => format!("its ONNX file has fused operators ({fused})"),
            None => format!("its ONNX file has no matrix product for {module}"),
        })
    }

    /// The product from which a value comes, by operators that only scale or cast it.
    fn back(&self, value: &str, steps: usize) -> Option<&NodeProto> {
        let node = &self.graph.node[*self.producers.get(value)?];
        if is_product(node) {
            return Some(node);
        }
        if steps == 0 || !["Cast", "Mul", "Identity"].contains(&operator(node)) {
            return None;
        }
        node.input.iter().find_map(|input| self.back(input, steps - 1))
    }

    /// An operator that stands for several, if there is one.
    fn fused(&self) -> Option<&str> {
        let foreign = |node: &&NodeProto| {
            !["", "ai.onnx"].contains(&node.domain.as_deref().unwrap_or_default())
        };
        self.graph.node.iter().find(foreign).map(operator)
    }
}

fn operator(node: &NodeProto) -> &str {
    node.op_type.as_deref().unwrap_or_default()
}

fn is_product(node: &NodeProto) -> bool {
    ["MatMul", "MatMulInteger", "Gemm"].contains(&operator(node))
}

/// A module's path as exporters name its nodes: `layers.0.attn.Wo` is `/layers.0/attn/Wo`.
fn node_path(module: &str) -> String {
    module.split('.').fold(String::new(), |path, part| {
        let numbered = part.bytes().all(|byte| byte.is_ascii_digit());
        path + if numbered { "." } else { "/" } + part
    })
}

impl Parameters for File {
    fn has(&self, name: &str) -> bool {
        self.initializers.contains_key(name)
            || self.initializers.contains_key(&format!("{name}_quantized"))
    }

    fn matrix(&self, module: &str) -> Result<Matrix, String> {
        let product = self.product(module)?;
        let weight = product.input.get(1).map(String::as_str).unwrap_or_default();
        let tensor = self.tensor(weight)?;
        let (rows, columns) = match shape(tensor)?.as_slice() {
            &[rows, columns] => (rows, columns),
            other => return Err(format!("{weight} has the shape {other:?}, not that of a matrix")),
        };
        let transposed = operator(product) == "Gemm"
            && product
                .attribute
                .iter()
                .any(|a| a.name.as_deref() == Some("transB") && a.i == Some(1));
        let (outputs, inputs) = if transposed { (rows, columns) } else { (columns, rows) };
        let values = if operator(product) == "MatMulInteger" {
            let zero = product.input.get(3).map(String::as_str).unwrap_or_default();
            let (codes, scales) = self.integers(weight, tensor, zero, outputs)?;
            Values::I8 { codes: transpose(&codes, rows, columns), scales }
        } else {
            let values = floats(tensor)?;
            Values::F32(if transposed { values } else { transpose(&values, rows, columns) })
        };
        Ok(Matrix { outputs, inputs, values })
    }

    fn vector(&self, name: &str) -> Result<Vec<f32>, String> {
        floats(self.tensor(name)?)
    }

    fn table(&self, name: &str) -> Result<Table, String> {
        let quantised = format!("{name}_quantized");
        let (tensor, values) = match self.tensor(&quantised) {
            Err(_) => {
                let tensor = self.tensor(name)?;
                (tensor, TableValues::F32(floats(tensor)?))
            }
            Ok(tensor) => {
                let scale = self.vector(&format!("{name}_scale"))?;
                let zero = self.tensor(&format!("{name}_zero_point"))?;
                let zero = raw(zero)?.first().copied().unwrap_or(0);
                let (&[scale], Some(DataType::UINT8)) = (scale.as_slice(), tensor.data_type) else {
                    return Err(format!("{quantised} is not u8 with one scale"));
                };
                (tensor, TableValues::U8 { codes: raw(tensor)?, scale, zero })
            }
        };
        match (shape(tensor)?.as_slice(), &values) {
            (&[rows, width], TableValues::F32(values)) if values.len() == rows * width => {}
            (&[rows, width], TableValues::U8 { codes, .. }) if codes.len() == rows * width => {}
            (other, _) => {
                return Err(format!("{name} has the shape {other:?}, not that of a table"));
            }
        }
        let shape = shape(tensor)?;
        Ok(Table { rows: shape[0], width: shape[1], values })
    }
}

impl File {
    /// Codes with zero point 0, as the tensor has them, and a scale for each output.
    fn integers(
        &self,
        name: &str,
        tensor: &TensorProto,
        zero: &str,
        outputs: usize,
    ) -> Result<(Vec<i8>, Vec<f32>), String> {
        let bytes = raw(tensor)?;
        let zeros = if zero.is_empty() { vec![0] } else { raw(self.tensor(zero)?)? };
        let (codes, expected): (Vec<i8>, u8) = match tensor.data_type {
            Some(DataType::INT8) => (bytes.iter().map(|&byte| byte as i8).collect(), 0),
            Some(DataType::UINT8) => (bytes.iter().map(|&byte| (byte ^ 0x80) as i8).collect(), 128),
            _ => return Err(format!("{name} is of a type that is not read")),
        };
        if zeros.iter().any(|&zero| zero != expected) {
            return Err(format!("{name} has a zero point other than {expected}"));
        }
        if codes.len() != shape(tensor)?.iter().product::<usize>() {
            return Err(format!("{name} is not whole"));
        }
        let base = name.strip_suffix("_quantized").unwrap_or(name);
        let mut scales = self.vector(&format!("{base}_scale"))?;
        if let &[scale] = scales.as_slice() {
            scales = vec![scale; outputs];
        }
        if scales.len() != outputs {
            return Err(format!("{name} has {} scales for {outputs} outputs", scales.len()));
        }
        Ok((codes, scales))
    }
}

fn shape(tensor: &TensorProto) -> Result<Vec<usize>, String> {
    tensor
        .dims
        .iter()
        .map(|&size| usize::try_from(size).ok().filter(|&size| size < 1 << 32))
        .collect::<Option<_>>()
        .ok_or_else(|| "a tensor of its ONNX file has a negative size".to_owned())
}

/// The bytes of a tensor of u8 or s8.
fn raw(tensor: &TensorProto) -> Result<Vec<u8>, String> {
    if let Some(data) = &tensor.raw_data {
        return Ok(data.borrow().clone());
    }
    if !tensor.external_data.is_empty() {
        return Err("its ONNX file keeps its tensors in another file".to_owned());
    }
    Ok(tensor.int32_data.iter().map(|&value| value as u8).collect())
}

/// The numbers of a tensor of f32 or f16.
fn floats(tensor: &TensorProto) -> Result<Vec<f32>, String> {
    let name = tensor.name.as_deref().unwrap_or_default();
    let values: Vec<f32> = match tensor.data_type {
        Some(DataType::FLOAT) if !tensor.float_data.is_empty() => tensor.float_data.clone(),
        Some(DataType::FLOAT) => {
            raw(tensor)?.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
        }
        Some(DataType::FLOAT16) if tensor.raw_data.is_some() => {
            let bytes = raw(tensor)?;
            let halves = bytes.as_chunks::<2>().0.iter();
            halves.map(|&b| f16_to_f32(u16::from_le_bytes(b))).collect()
        }
        _ => return Err(format!("{name} is of a type that is not read")),
    };
    if values.len() != shape(tensor)?.iter().product::<usize>() {
        return Err(format!("{name} is not whole"));
    }
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(format!("{name} holds {value}")),
        None => Ok(values),
    }
}

/// `[rows, columns]` to `[columns, rows]`.
fn transpose<T: Copy + Default>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
    let mut out = vec![T::default(); values.len()];
    for (r, row) in values.chunks_exact(columns.max(1)).enumerate() {
        for (c, &value) in row.iter().enumerate() {
            out[c * rows + r] = value;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_as_exporters_write_them() {
        assert_eq!(
            node_path("bert.encoder.layer.11.attention.self.query"),
            "/bert/encoder/layer.11/attention/self/query"
        );
    }

    #[test]
    fn a_matrix_is_transposed() {
        assert_eq!(transpose(&[1, 2, 3, 4, 5, 6], 2, 3), [1, 4, 2, 5, 3, 6]);
        assert!(transpose::<u8>(&[], 0, 0).is_empty());
    }
}
