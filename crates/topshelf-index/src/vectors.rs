//! Files of vectors: [`VectorWriter`] makes them, [`Vectors`] maps them.
//!
//! Layout, little-endian, each section padded with zeros to a multiple of 64 bytes:
//!
//! ```text
//! header   "TSHVEC" 0x00 0x01 | precision u32 (0 int8, 1 f32) | CRC-32 u32 of all that follows
//!          the header | rows u64 | dimension u64
//! keys     u64 for each row, ascending
//! scales   f32 for each row           (int8 only; value = scale * integer)
//! rows     i8 or f32, row after row
//! ```
//!
//! Rows are vectors of unit length. int8 quantisation is symmetric per row: `scale = max|x| / 127`.

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use topshelf_kernels::{mapped::MappedFile, quantise_i8_row};

use crate::error::{IndexError, Result};
use crate::state::Precision;

const MAGIC: [u8; 8] = *b"TSHVEC\x00\x01";
const ALIGNMENT: usize = 64;

/// Collects rows and writes them as one file.
pub(crate) struct VectorWriter {
    precision: Precision,
    dimension: usize,
    keys: Vec<u64>,
    scales: Vec<f32>,
    int8: Vec<i8>,
    f32: Vec<f32>,
}

impl VectorWriter {
    pub(crate) fn new(precision: Precision, dimension: usize) -> Self {
        Self {
            precision,
            dimension,
            keys: Vec::new(),
            scales: Vec::new(),
            int8: Vec::new(),
            f32: Vec::new(),
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.keys.len()
    }

    /// Adds a row; keys must ascend.
    pub(crate) fn push(&mut self, key: u64, vector: &[f32]) {
        debug_assert!(self.keys.last().is_none_or(|last| *last < key));
        assert_eq!(vector.len(), self.dimension, "a vector of the index's dimension");
        self.keys.push(key);
        match self.precision {
            Precision::Int8 => {
                let start = self.int8.len();
                self.int8.resize(start + self.dimension, 0);
                self.scales.push(quantise_i8_row(vector, &mut self.int8[start..]));
            }
            Precision::F32 => self.f32.extend_from_slice(vector),
        }
    }

    /// Adds row `row` of `vectors` as it is stored there.
    pub(crate) fn push_stored(&mut self, vectors: &Vectors, row: usize) {
        self.keys.push(vectors.keys()[row]);
        let range = row * self.dimension..(row + 1) * self.dimension;
        match vectors.rows() {
            Rows::Int8 { rows, scales } => {
                self.int8.extend_from_slice(&rows[range]);
                self.scales.push(scales[row]);
            }
            Rows::F32(rows) => self.f32.extend_from_slice(&rows[range]),
        }
    }

    /// Writes and syncs the file.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut body = Vec::new();
        section(&mut body, self.keys.iter().flat_map(|key| key.to_le_bytes()));
        match self.precision {
            Precision::Int8 => {
                section(&mut body, self.scales.iter().flat_map(|scale| scale.to_le_bytes()));
                section(&mut body, self.int8.iter().map(|value| value.to_le_bytes()[0]));
            }
            Precision::F32 => section(&mut body, self.f32.iter().flat_map(|v| v.to_le_bytes())),
        }
        let mut header = Vec::with_capacity(ALIGNMENT);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&u32::from(self.precision == Precision::F32).to_le_bytes());
        header.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        header.extend_from_slice(&(self.keys.len() as u64).to_le_bytes());
        header.extend_from_slice(&(self.dimension as u64).to_le_bytes());
        header.resize(ALIGNMENT, 0);
        let write = || -> std::io::Result<()> {
            let mut file = File::create(path)?;
            file.write_all(&header)?;
            file.write_all(&body)?;
            file.sync_all()
        };
        write().map_err(IndexError::io("cannot write", path))
    }
}

fn section(body: &mut Vec<u8>, bytes: impl Iterator<Item = u8>) {
    body.extend(bytes);
    body.resize(body.len().next_multiple_of(ALIGNMENT), 0);
}

/// The rows of a file.
#[derive(Clone, Copy)]
pub(crate) enum Rows<'a> {
    /// Integers with one scale a row.
    Int8 {
        /// Row after row.
        rows: &'a [i8],
        /// One for each row.
        scales: &'a [f32],
    },
    /// Row after row.
    F32(&'a [f32]),
}

impl<'a> Rows<'a> {
    /// The rows of that range.
    pub(crate) fn range(self, range: Range<usize>, dimension: usize) -> Rows<'a> {
        let values = range.start * dimension..range.end * dimension;
        match self {
            Rows::Int8 { rows, scales } => {
                Rows::Int8 { rows: &rows[values], scales: &scales[range] }
            }
            Rows::F32(rows) => Rows::F32(&rows[values]),
        }
    }
}

/// A mapped file of vectors.
pub(crate) struct Vectors {
    file: MappedFile,
    path: PathBuf,
    precision: Precision,
    rows: usize,
    dimension: usize,
}

impl Vectors {
    /// Maps the file and checks its header and length, not its content.
    pub(crate) fn open(path: &Path, dimension: usize, rows: usize) -> Result<Self> {
        let file = MappedFile::open(path).map_err(IndexError::io("cannot open", path))?;
        let damaged =
            |reason: &str| IndexError::Damaged { path: path.to_owned(), reason: reason.to_owned() };
        let bytes = file.bytes();
        if bytes.len() < ALIGNMENT || bytes[..8] != MAGIC {
            return Err(damaged("it is not a file of vectors"));
        }
        let precision = match field_u32(bytes, 8) {
            0 => Precision::Int8,
            1 => Precision::F32,
            _ => return Err(damaged("its precision is unknown")),
        };
        if field_u64(bytes, 16) != rows as u64 || field_u64(bytes, 24) != dimension as u64 {
            return Err(damaged("it holds another number of vectors, or others"));
        }
        let vectors = Self { path: path.to_owned(), precision, rows, dimension, file };
        if vectors.file.bytes().len() != vectors.expected_len() {
            return Err(damaged("its length is wrong"));
        }
        Ok(vectors)
    }

    /// Compares the checksum of the whole content.
    pub(crate) fn verify(&self) -> Result<()> {
        let bytes = self.file.bytes();
        if crc32fast::hash(&bytes[ALIGNMENT..]) == field_u32(bytes, 12) {
            return Ok(());
        }
        let reason = "its checksum does not match its content".to_owned();
        Err(IndexError::Damaged { path: self.path.clone(), reason })
    }

    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    /// The key of each row, ascending.
    pub(crate) fn keys(&self) -> &[u64] {
        self.file.slice_u64(self.keys_at(), self.rows)
    }

    /// The first row whose key is not below `key`.
    pub(crate) fn row_from(&self, key: u64) -> usize {
        self.keys().partition_point(|known| *known < key)
    }

    pub(crate) fn rows(&self) -> Rows<'_> {
        let values = self.rows * self.dimension;
        match self.precision {
            Precision::Int8 => Rows::Int8 {
                rows: self.file.slice_i8(self.rows_at(), values),
                scales: self.file.slice_f32(self.scales_at(), self.rows),
            },
            Precision::F32 => Rows::F32(self.file.slice_f32(self.rows_at(), values)),
        }
    }

    /// Row `row` as numbers.
    pub(crate) fn vector(&self, row: usize) -> Vec<f32> {
        let range = row * self.dimension..(row + 1) * self.dimension;
        match self.rows() {
            Rows::Int8 { rows, scales } => {
                rows[range].iter().map(|value| f32::from(*value) * scales[row]).collect()
            }
            Rows::F32(rows) => rows[range].to_vec(),
        }
    }

    #[allow(clippy::unused_self)]
    fn keys_at(&self) -> usize {
        ALIGNMENT
    }

    fn scales_at(&self) -> usize {
        self.keys_at() + (self.rows * 8).next_multiple_of(ALIGNMENT)
    }

    fn rows_at(&self) -> usize {
        let scales = match self.precision {
            Precision::Int8 => (self.rows * 4).next_multiple_of(ALIGNMENT),
            Precision::F32 => 0,
        };
        self.scales_at() + scales
    }

    fn expected_len(&self) -> usize {
        let bytes = match self.precision {
            Precision::Int8 => 1,
            Precision::F32 => 4,
        };
        self.rows_at() + (self.rows * self.dimension * bytes).next_multiple_of(ALIGNMENT)
    }
}

fn field_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn field_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from(field_u32(bytes, at)) | u64::from(field_u32(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(precision: Precision, vectors: &[Vec<f32>]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.vec");
        let mut writer = VectorWriter::new(precision, 3);
        for (key, vector) in vectors.iter().enumerate() {
            writer.push(key as u64 * 2, vector);
        }
        writer.write(&path).unwrap();
        (dir, path)
    }

    #[test]
    fn what_is_written_is_read() {
        let vectors = [vec![0.6, 0.8, 0.0], vec![-1.0, 0.0, 0.0], vec![0.0, 0.0, 0.0]];
        for (precision, tolerance) in [(Precision::Int8, 0.8 / 127.0), (Precision::F32, 0.0)] {
            for n in 0..=vectors.len() {
                let (_dir, path) = write(precision, &vectors[..n]);
                let read = Vectors::open(&path, 3, n).unwrap();
                read.verify().unwrap();
                assert_eq!(read.keys(), &[0, 2, 4][..n]);
                for (row, vector) in vectors[..n].iter().enumerate() {
                    for (a, b) in read.vector(row).iter().zip(vector) {
                        assert!((a - b).abs() <= tolerance);
                    }
                }
            }
        }
    }

    #[test]
    fn damage_is_found() {
        let (_dir, path) = write(Precision::Int8, &[vec![0.6, 0.8, 0.0]]);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(matches!(Vectors::open(&path, 3, 1), Err(IndexError::Damaged { .. })));
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        assert!(Vectors::open(&path, 3, 1).unwrap().verify().is_err());
        std::fs::write(&path, &whole).unwrap();
        assert!(Vectors::open(&path, 4, 1).is_err());
        assert!(Vectors::open(&path, 3, 2).is_err());
    }
}
