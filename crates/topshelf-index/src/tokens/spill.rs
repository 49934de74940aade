//! Token vectors on disk until there is a codebook to store them against: [`Spill`].
//!
//! A codebook is learnt from a sample of all vectors, so the first ones wait, as binary16, in a file
//! beside the index that nothing names: a crash leaves it to the next writer, who removes it. Memory
//! stays bounded whatever the number of passages.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use topshelf_core::TokenVectors;
use topshelf_kernels::max_sim::f16;

use super::TextHash;
use super::codebook::SAMPLE;
use crate::error::{IndexError, Result};

/// Passages that wait.
pub(crate) struct Spill {
    path: PathBuf,
    file: BufWriter<File>,
    dimension: usize,
    passages: u64,
    vectors: u64,
}

/// A passage that waits.
pub(crate) struct Waiting {
    pub(crate) key: u64,
    pub(crate) hash: TextHash,
    pub(crate) vectors: TokenVectors,
}

impl Spill {
    pub(crate) fn create(path: &Path, dimension: usize) -> Result<Self> {
        let file = File::create(path).map_err(IndexError::io("cannot write", path))?;
        let (path, file) = (path.to_owned(), BufWriter::new(file));
        Ok(Self { path, file, dimension, passages: 0, vectors: 0 })
    }

    pub(crate) fn vectors(&self) -> u64 {
        self.vectors
    }

    pub(crate) fn push(&mut self, key: u64, hash: TextHash, vectors: &TokenVectors) -> Result<()> {
        let count = vectors.count() as u64;
        let mut record = Vec::with_capacity(40 + 2 * vectors.values.len());
        for number in [key, hash.0[0], hash.0[1], vectors.truncated_tokens as u64, count] {
            record.extend(number.to_le_bytes());
        }
        record.extend(vectors.values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()));
        self.file.write_all(&record).map_err(IndexError::io("cannot write", &self.path))?;
        self.passages += 1;
        self.vectors += count;
        Ok(())
    }

    /// Some of the vectors, evenly spread.
    pub(crate) fn sample(&mut self) -> Result<Vec<f32>> {
        let step = (self.vectors as usize).div_ceil(SAMPLE).max(1);
        let dimension = self.dimension;
        let (mut sample, mut place) = (Vec::new(), 0);
        self.read(|waiting| {
            for vector in waiting.vectors.values.chunks_exact(dimension) {
                if place % step == 0 {
                    sample.extend_from_slice(vector);
                }
                place += 1;
            }
            Ok(())
        })?;
        Ok(sample)
    }

    /// All passages in their order.
    pub(crate) fn read(&mut self, mut each: impl FnMut(Waiting) -> Result<()>) -> Result<()> {
        let failed = || IndexError::io("cannot read", &self.path);
        self.file.flush().map_err(failed())?;
        let mut file = BufReader::new(File::open(&self.path).map_err(failed())?);
        for _ in 0..self.passages {
            let mut head = [0; 40];
            file.read_exact(&mut head).map_err(failed())?;
            let number = |n: usize| u64::from_le_bytes(std::array::from_fn(|i| head[8 * n + i]));
            let mut halves = vec![0; number(4) as usize * self.dimension * 2];
            file.read_exact(&mut halves).map_err(failed())?;
            let halves = halves.as_chunks::<2>().0.iter();
            let values = halves.map(|&half| f16::to_f32(u16::from_le_bytes(half))).collect();
            let truncated_tokens = number(3) as usize;
            each(Waiting {
                key: number(0),
                hash: TextHash([number(1), number(2)]),
                vectors: TokenVectors { dimension: self.dimension, values, truncated_tokens },
            })?;
        }
        Ok(())
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        // One that stays is removed by the next writer.
        let _ = std::fs::remove_file(&self.path);
    }
}
