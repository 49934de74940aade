//! Parameters from a `.safetensors` file.

use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use topshelf_kernels::mapped::MappedFile;

use super::checkpoint::{Matrix, Table, TableValues, Values};
use super::names::Parameters;

/// A mapped file; tensors are read and widened to f32 as they are asked for.
pub(crate) struct File {
    bytes: MappedFile,
}

impl File {
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let bytes =
            MappedFile::open(path).map_err(|error| format!("it cannot be read: {error}"))?;
        let file = Self { bytes };
        file.tensors()?;
        Ok(file)
    }

    fn tensors(&self) -> Result<SafeTensors<'_>, String> {
        SafeTensors::deserialize(self.bytes.bytes())
            .map_err(|error| format!("its safetensors cannot be read: {error}"))
    }

    /// Shape and values of a tensor.
    fn read(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>), String> {
        let tensors = self.tensors()?;
        let tensor = tensors.tensor(name).map_err(|_| format!("it has no tensor {name}"))?;
        let data = tensor.data();
        let halves = |widen: fn(u16) -> f32| {
            data.as_chunks::<2>().0.iter().map(|&bytes| widen(u16::from_le_bytes(bytes))).collect()
        };
        let values: Vec<f32> = match tensor.dtype() {
            Dtype::F32 => data.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Dtype::BF16 => halves(|bits| f32::from_bits(u32::from(bits) << 16)),
            Dtype::F16 => halves(f16_to_f32),
            other => return Err(format!("tensor {name} is of type {other:?}")),
        };
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(format!("tensor {name} holds {value}"));
        }
        Ok((tensor.shape().to_vec(), values))
    }
}

impl Parameters for File {
    fn has(&self, name: &str) -> bool {
        self.tensors().is_ok_and(|tensors| tensors.tensor(name).is_ok())
    }

    fn matrix(&self, module: &str) -> Result<Matrix, String> {
        let name = format!("{module}.weight");
        match self.read(&name)? {
            (shape, values) if shape.len() == 2 => {
                Ok(Matrix { outputs: shape[0], inputs: shape[1], values: Values::F32(values) })
            }
            (shape, _) => {
                Err(format!("tensor {name} has the shape {shape:?}, not that of a matrix"))
            }
        }
    }

    fn vector(&self, name: &str) -> Result<Vec<f32>, String> {
        Ok(self.read(name)?.1)
    }

    fn table(&self, name: &str) -> Result<Table, String> {
        match self.read(name)? {
            (shape, values) if shape.len() == 2 => {
                Ok(Table { rows: shape[0], width: shape[1], values: TableValues::F32(values) })
            }
            (shape, _) => {
                Err(format!("tensor {name} has the shape {shape:?}, not that of a table"))
            }
        }
    }
}

/// IEEE 754 binary16, exactly.
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(bits >> 10 & 0x1f);
    let fraction = f32::from(bits & 0x3ff);
    sign * match exponent {
        0 => fraction * 2.0_f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1024.0 + fraction) * 2.0_f32.powi(exponent - 25),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_widened_exactly() {
        for (bits, value) in [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
            (0x7bff, 65_504.0),
            (0x0001, 5.960_464_5e-8),
            (0x0000, 0.0),
            (0xfc00, f32::NEG_INFINITY),
        ] {
            assert_eq!(f16_to_f32(bits).to_bits(), f32::to_bits(value));
        }
        assert!(f16_to_f32(0x7e00).is_nan());
    }
}
