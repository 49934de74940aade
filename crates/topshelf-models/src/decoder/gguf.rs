//! GGUF files: what is in one, and its tensors as f32.
//!
//! Source: the GGUF specification of the ggml project, versions 2 and 3, little-endian. A file is a
//! header, metadata (typed values under names), a list of tensors, and their data, aligned. The layout
//! of quantised blocks is ggml's (`ggml-quants`):
//!
//! | type | block | a number is |
//! | --- | --- | --- |
//! | `F32`, `F16`, `BF16` | 1 | itself |
//! | `Q8_0` | 32: f16 d, 32 i8 | d·q |
//! | `Q4_0`, `Q5_0` | 32: f16 d, (high bits,) nibbles | d·(q - 8), d·(q - 16) |
//! | `Q4_1`, `Q5_1` | 32: f16 d, f16 m, (high bits,) nibbles | d·q + m |
//! | `Q4_K`, `Q5_K` | 256: f16 d, f16 m, 8 scales and 8 minima of 6 bits, (high bits,) nibbles | d·s·q - m·t |
//! | `Q6_K` | 256: low nibbles, high pairs, 16 i8 scales, f16 d | d·s·(q - 32) |
//!
//! The first of `dims` is the length of a row. Nothing of a file is trusted: lengths and places are
//! checked before anything is read.

use std::collections::HashMap;
use std::path::Path;

use topshelf_kernels::mapped::MappedFile;

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    Numbers(Vec<f64>),
}

/// Where a tensor lies.
#[derive(Debug, Clone)]
struct Tensor {
    /// Numbers in a row.
    inputs: usize,
    /// Rows.
    outputs: usize,
    kind: Kind,
    /// Bytes from the start of the file.
    at: usize,
}

/// How the numbers of a tensor are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

impl Kind {
    fn of(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// Numbers and bytes of a block.
    const fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q4K => (256, 144),
            Self::Q5K => (256, 176),
            Self::Q6K => (256, 210),
        }
    }
}

/// An open file.
pub(crate) struct Gguf {
    file: MappedFile,
    values: HashMap<String, Value>,
    tensors: HashMap<String, Tensor>,
}

impl Gguf {
    /// Reads all but the data. The error says what is wrong with the file.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let file = MappedFile::open(path).map_err(|error| error.to_string())?;
        Self::of(file)
    }

    fn of(file: MappedFile) -> Result<Self, String> {
        let mut cursor = Cursor { bytes: file.bytes(), at: 0 };
        if cursor.take(4)? != b"GGUF" {
            return Err("it is no GGUF file".to_owned());
        }
        let version = cursor.u32()?;
        if !(2..=3).contains(&version) {
            return Err(format!("it is of version {version} of the format; 2 and 3 are read"));
        }
        let (tensor_count, value_count) = (cursor.u64()?, cursor.u64()?);
        let mut values = HashMap::new();
        for _ in 0..value_count {
            let name = cursor.text()?;
            let kind = cursor.u32()?;
            let value = cursor.value(kind)?;
            values.insert(name, value);
        }
        let mut listed = Vec::new();
        for _ in 0..tensor_count {
            let name = cursor.text()?;
            let dims = cursor.u32()?;
            if dims > 4 {
                return Err(format!("tensor {name} has {dims} dimensions"));
            }
            let dims: Vec<u64> = (0..dims).map(|_| cursor.u64()).collect::<Result<_, _>>()?;
            listed.push((name, dims, cursor.u32()?, cursor.u64()?));
        }
        let alignment = match values.get("general.alignment") {
            Some(Value::Unsigned(n)) if (1..=1 << 20).contains(n) => *n as usize,
            _ => 32,
        };
        let base = cursor.at.next_multiple_of(alignment);
        let mut tensors = HashMap::new();
        for (name, dims, number, offset) in listed {
            let Some(kind) = Kind::of(number) else {
                return Err(format!(
                    "tensor {name} is quantised in a way that is not read (type {number} of ggml); \
                     Q4_K_M, Q5_K_M, Q6_K, Q8_0, Q4_0, Q4_1, F16 and BF16 are"
                ));
            };
            let size = |dim: &u64| usize::try_from(*dim).unwrap_or(usize::MAX);
            let inputs = dims.first().map_or(1, size);
            let outputs = dims.iter().skip(1).map(size).try_fold(1_usize, usize::checked_mul);
            let (numbers, bytes) = kind.block();
            let end = outputs
                .filter(|_| inputs.is_multiple_of(numbers))
                .and_then(|outputs| (inputs / numbers).checked_mul(bytes)?.checked_mul(outputs))
                .and_then(|length| Some((base.checked_add(size(&offset))?, length)))
                .and_then(|(at, length)| Some((at, at.checked_add(length)?)));
            let (Some(outputs), Some((at, end))) = (outputs, end) else {
                return Err(format!("tensor {name} has a shape that cannot be"));
            };
            if end > file.bytes().len() {
                return Err(format!("it is cut off: tensor {name} lies beyond its end"));
            }
            tensors.insert(name, Tensor { inputs, outputs, kind, at });
        }
        Ok(Self { file, values, tensors })
    }

    pub(crate) fn value(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.values.get(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        match self.values.get(name)? {
            Value::Unsigned(n) => Some(*n as f64),
            Value::Signed(n) => Some(*n as f64),
            Value::Float(n) => Some(*n),
            _ => None,
        }
    }

    /// Rows and their length, if there is such a tensor.
    pub(crate) fn shape(&self, name: &str) -> Option<(usize, usize)> {
        self.tensors.get(name).map(|tensor| (tensor.outputs, tensor.inputs))
    }

    /// The row `row` of the tensor of that name.
    ///
    /// # Panics
    ///
    /// If there is none, or `out` is not as long.
    pub(crate) fn row(&self, name: &str, row: usize, out: &mut [f32]) {
        let tensor = &self.tensors[name];
        assert!(row < tensor.outputs && out.len() == tensor.inputs, "a row of {name}");
        let (numbers, bytes) = tensor.kind.block();
        let length = tensor.inputs / numbers * bytes;
        let blocks = self.file.slice_u8(tensor.at + row * length, length).chunks_exact(bytes);
        for (block, out) in blocks.zip(out.chunks_exact_mut(numbers)) {
            dequantise(tensor.kind, block, out);
        }
    }

    /// All numbers of a small tensor.
    pub(crate) fn all(&self, name: &str) -> Option<Vec<f32>> {
        let (outputs, inputs) = self.shape(name)?;
        let mut values = vec![0.0; outputs * inputs];
        for (row, out) in values.chunks_exact_mut(inputs.max(1)).enumerate() {
            self.row(name, row, out);
        }
        Some(values)
    }
}

/// Reads from the front.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or("it is cut off in its header")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("so many bytes"))
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<String, String> {
        let length = usize::try_from(self.u64()?).unwrap_or(usize::MAX);
        let bytes = self.take(length)?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    fn value(&mut self, kind: u32) -> Result<Value, String> {
        Ok(match kind {
            0 => Value::Unsigned(u64::from(self.array::<1>()?[0])),
            1 => Value::Signed(i64::from(i8::from_le_bytes(self.array()?))),
            2 => Value::Unsigned(u64::from(u16::from_le_bytes(self.array()?))),
            3 => Value::Signed(i64::from(i16::from_le_bytes(self.array()?))),
            4 => Value::Unsigned(u64::from(self.u32()?)),
            5 => Value::Signed(i64::from(i32::from_le_bytes(self.array()?))),
            6 => Value::Float(f64::from(f32::from_le_bytes(self.array()?))),
            7 => Value::Bool(self.array::<1>()?[0] != 0),
            8 => Value::Text(self.text()?),
            9 => {
                let of = self.u32()?;
                let count = self.u64()?;
                if of == 8 {
                    return (0..count)
                        .map(|_| self.text())
                        .collect::<Result<_, _>>()
                        .map(Value::Texts);
                }
                if of == 9 {
                    return Err("it has lists of lists in its metadata".to_owned());
                }
                let number = |cursor: &mut Self| {
                    Ok::<_, String>(match cursor.value(of)? {
                        Value::Unsigned(n) => n as f64,
                        Value::Signed(n) => n as f64,
                        Value::Float(n) => n,
                        _ => 0.0,
                    })
                };
                let numbers = (0..count).map(|_| number(self)).collect::<Result<_, _>>()?;
                Value::Numbers(numbers)
            }
            10 => Value::Unsigned(self.u64()?),
            11 => Value::Signed(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(format!("its metadata has values of an unknown type {other}")),
        })
    }
}

/// An IEEE half as f32.
fn half(bytes: [u8; 2]) -> f32 {
    let bits = u32::from(u16::from_le_bytes(bytes));
    let (sign, exponent, fraction) = ((bits & 0x8000) << 16, bits >> 10 & 31, bits & 0x3ff);
    match exponent {
        // Subnormal: fraction · 2⁻²⁴.
        0 => f32::from_bits(sign | (fraction as f32 * 2_f32.powi(-24)).to_bits()),
        31 => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

/// Scale and minimum j of a block of `Q4_K` or `Q5_K`, 6 bits each, packed into twelve bytes.
fn scale_and_min(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, min) = if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        let (low, high) = (packed[j + 4], [packed[j - 4] >> 6, packed[j] >> 6]);
        (low & 15 | high[0] << 4, low >> 4 | high[1] << 4)
    };
    (f32::from(scale), f32::from(min))
}

/// The numbers of one block.
fn dequantise(kind: Kind, block: &[u8], out: &mut [f32]) {
    let f16 = |at: usize| half([block[at], block[at + 1]]);
    let nibble = |byte: u8, upper: bool| if upper { byte >> 4 } else { byte & 15 };
    match kind {
        Kind::F32 => out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
        Kind::F16 => out[0] = f16(0),
        Kind::Bf16 => {
            out[0] = f32::from_bits(u32::from(u16::from_le_bytes([block[0], block[1]])) << 16);
        }
        Kind::Q8_0 => {
            let d = f16(0);
            for (x, &code) in out.iter_mut().zip(&block[2..]) {
                *x = d * f32::from(code as i8);
            }
        }
        Kind::Q4_0 | Kind::Q4_1 | Kind::Q5_0 | Kind::Q5_1 => {
            let has_min = matches!(kind, Kind::Q4_1 | Kind::Q5_1);
            let five = matches!(kind, Kind::Q5_0 | Kind::Q5_1);
            let d = f16(0);
            let mut at = 2;
            let min = if has_min {
                at += 2;
                f16(2)
            } else {
                -d * if five { 16.0 } else { 8.0 }
            };
            let high = if five {
                at += 4;
                u32::from_le_bytes([block[at - 4], block[at - 3], block[at - 2], block[at - 1]])
            } else {
                0
            };
            for (i, x) in out.iter_mut().enumerate() {
                let low = nibble(block[at + i % 16], i >= 16);
                let code = u32::from(low) | (high >> i & 1) << 4;
                *x = d * code as f32 + min;
            }
        }
        Kind::Q4K | Kind::Q5K => {
            let (d, m, packed) = (f16(0), f16(2), &block[4..16]);
            let (high, low) = if kind == Kind::Q5K {
                (&block[16..48], &block[48..176])
            } else {
                (&[][..], &block[16..144])
            };
            for (j, out) in out.chunks_exact_mut(32).enumerate() {
                let (scale, min) = scale_and_min(packed, j);
                let (scale, min) = (d * scale, m * min);
                for (l, x) in out.iter_mut().enumerate() {
                    let low = nibble(low[j / 2 * 32 + l], j % 2 == 1);
                    let fifth = high.get(l).map_or(0, |bits| (bits >> j & 1) << 4);
                    *x = scale * f32::from(low | fifth) - min;
                }
            }
        }
        Kind::Q6K => {
            let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
            let d = f16(208);
            for (i, x) in out.iter_mut().enumerate() {
                // Halves of 128; in each, four runs of 32 share their bytes.
                let (part, run, l) = (i / 128, i % 128 / 32, i % 32);
                let byte = low[part * 64 + l + 32 * (run % 2)];
                let pair = high[part * 32 + l] >> (2 * run) & 3;
                let code = i32::from(nibble(byte, run >= 2) | pair << 4) - 32;
                *x = d * f32::from(scales[part * 8 + run * 2 + l / 16] as i8) * code as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_what_they_are() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_5e-8),
            (0x8001, -5.960_464_5e-8),
            (0x03ff, 6.097_555e-5),
        ] {
            assert_eq!(half(u16::to_le_bytes(bits)).to_bits(), f32::to_bits(value), "{bits:x}");
        }
        assert!(half(u16::to_le_bytes(0x7e00)).is_nan());
    }

    /// A file with one value and one tensor of four numbers.
    fn file() -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        let text = |bytes: &mut Vec<u8>, text: &str| {
            bytes.extend((text.len() as u64).to_le_bytes());
            bytes.extend(text.as_bytes());
        };
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend(1_u64.to_le_bytes());
        bytes.extend(1_u64.to_le_bytes());
        text(&mut bytes, "general.architecture");
        bytes.extend(8_u32.to_le_bytes());
        text(&mut bytes, "llama");
        text(&mut bytes, "weight");
        bytes.extend(2_u32.to_le_bytes());
        bytes.extend(2_u64.to_le_bytes());
        bytes.extend(2_u64.to_le_bytes());
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend(0_u64.to_le_bytes());
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend([1.0_f32, -2.0, 0.5, 8.0].iter().flat_map(|x| x.to_le_bytes()));
        bytes
    }

    fn open(bytes: &[u8]) -> Result<Gguf, String> {
        Gguf::of(MappedFile::of_bytes(bytes).unwrap())
    }

    #[test]
    fn a_small_file_is_read() {
        let gguf = open(&file()).unwrap();
        assert_eq!(gguf.text("general.architecture"), Some("llama"));
        assert_eq!(gguf.shape("weight"), Some((2, 2)));
        assert_eq!(gguf.all("weight"), Some(vec![1.0, -2.0, 0.5, 8.0]));
        assert_eq!(gguf.all("other"), None);
    }

    #[test]
    fn a_cut_or_garbled_file_is_refused_or_read_but_never_panics() {
        let whole = file();
        // A file that is mapped without a file behind it is as long as it was asked for.
        for length in 0..whole.len() {
            assert!(open(&whole[..length]).is_err(), "cut to {length} bytes");
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut garbled = whole.clone();
                garbled[at] = value;
                if let Ok(gguf) = open(&garbled) {
                    let _ = gguf.all("weight");
                }
            }
        }
    }
}
