//! What vectors are stored against: [`Codebook`].
//!
//! ```text
//! int8          v ≈ norm · (mean + scale · code)
//! 4bit, 2bit    v ≈ norm · (mean + scale · clamp(centroid + table[code]))     the sum in -128..=127
//! ```
//!
//! f16 is stored as it is. In every tier each vector has its nearest centroid, by which passages are
//! found (`lists`); vectors of a model without a projection are reduced first (`reduction`).
//!
//! All of it is learnt on a sample, spread evenly over the vectors that are there when the index is
//! first written: centroids of what the mean leaves over by k-means, and the table's values as the
//! best for what those leave over (Lloyd's iterations on numbers). It stays as it is when passages are
//! added later; how much worse it fits those is measured ([`Fit`]). `norm` makes what is stored as
//! long as what was given, a unit vector; why that and the mean matter stands in
//! [`topshelf_kernels::max_sim::rounded`].
//!
//! Layout of its file, little-endian:
//!
//! ```text
//! "TSHCBK" 0x00 0x01 | bits u32 (0 for int8 and f16) | dimension u32 | centroids u32 | scale f32
//! table 16 x i8 | mean, f32 | centroids, row after row, i8 | reduction, row after row, f32
//! ```
//!
//! What is left behind the centroids is the reduction: whole rows, one for each dimension, or nothing.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use topshelf_kernels::l2_normalise;
use topshelf_kernels::max_sim::f16::{self, from_f32, to_f32};
use topshelf_kernels::max_sim::residual::{self, Bits, Codebook as View};
use topshelf_kernels::max_sim::rounded;

use super::kmeans::{self, Centroids};
use super::reduction::Reduction;
use super::{Tier, TokenVectorInfo};
use crate::error::{IndexError, Result};

const MAGIC: [u8; 8] = *b"TSHCBK\x00\x01";
const HEADER: usize = 40;

/// Vectors that are learnt from, at most.
pub(crate) const SAMPLE: usize = 1 << 17;

/// Vectors of the sample for each centroid, at least.
const PER_CENTROID: usize = 32;

/// Rounds of k-means.
const ROUNDS: usize = 8;

/// Numbers from which the table is learnt, at most.
const NUMBERS: usize = 1 << 20;

/// Rounds in which the table is learnt.
const TABLE_ROUNDS: usize = 30;

/// Reduction, mean, centroids and differences.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Codebook {
    /// Of a code; `None` where vectors are not stored against centroids.
    pub(crate) bits: Option<Bits>,
    /// Of what is stored.
    pub(crate) dimension: usize,
    /// Makes the model's vectors those that are stored; `None` where these are the same.
    pub(crate) reduction: Option<Reduction>,
    pub(crate) mean: Vec<f32>,
    pub(crate) centroids: Vec<i8>,
    pub(crate) table: [i8; 16],
    pub(crate) scale: f32,
}

/// How well vectors are met: sums of squared distances between unit vectors and what is stored of
/// them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// How many vectors.
    pub vectors: u64,
    /// The sum of their squared distances.
    pub squares: f64,
}

impl Fit {
    /// The mean squared distance; 0 of none.
    pub fn mean(&self) -> f64 {
        if self.vectors == 0 { 0.0 } else { self.squares / self.vectors as f64 }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.vectors += other.vectors;
        self.squares += other.squares;
    }
}

/// Puts vectors into codes; made once for many.
pub(crate) struct Coder {
    book: Arc<Codebook>,
    tier: Tier,
    centroids: Centroids,
}

impl Codebook {
    /// Learns from a sample of `total` vectors of the model.
    pub(crate) fn learn(sample: &[f32], total: u64, info: &TokenVectorInfo) -> Self {
        let dimension = info.stored_dimension();
        let reduction =
            info.reduced.map(|outputs| Reduction::learn(sample, info.dimension, outputs));
        let sample = match &reduction {
            Some(reduction) => Cow::Owned(reduction.apply(sample)),
            None => Cow::Borrowed(sample),
        };
        let rows = sample.len() / dimension;
        let mut sums = vec![0.0_f64; dimension];
        for row in sample.chunks_exact(dimension) {
            for (sum, &x) in sums.iter_mut().zip(row) {
                *sum += f64::from(x);
            }
        }
        let mean: Vec<f32> = sums.iter().map(|sum| (sum / rows.max(1) as f64) as f32).collect();
        let bits = info.tier.bits();
        let (centroids, table, scale) = (Vec::new(), [0; 16], 0.0);
        let mut book = Self { bits, dimension, reduction, mean, centroids, table, scale };
        let sample = book.off_the_mean(&sample);
        // The number that PLAID takes, as far as the sample bears it (Santhanam et al., "PLAID",
        // 2022, section 5.1).
        let wanted = (16.0 * (total as f64).sqrt()) as usize;
        let most = (rows / PER_CENTROID).min(usize::from(u16::MAX)).max(1);
        let count = wanted.clamp(1, most);
        let centroids = kmeans::centroids(&sample, dimension, count, ROUNDS);
        let scale = scale_of(&sample);
        let round = |x: f32| (x / scale).round_ties_even().clamp(-127.0, 127.0) as i8;
        book.centroids = centroids.into_iter().map(round).collect();
        book.scale = scale;
        if let Some(bits) = bits {
            let levels = levels(book.left_over(&sample), bits.values());
            for (place, level) in book.table.iter_mut().zip(levels) {
                *place = round(level);
            }
        }
        book
    }

    /// Vectors without the mean.
    fn off_the_mean(&self, vectors: &[f32]) -> Vec<f32> {
        let rows = vectors.chunks_exact(self.dimension);
        rows.flat_map(|row| row.iter().zip(&self.mean).map(|(x, mean)| x - mean)).collect()
    }

    /// What centroids leave over of the sample's numbers, or of some of them; the sample is without
    /// the mean.
    fn left_over(&self, sample: &[f32]) -> Vec<f32> {
        let step = (sample.len() / NUMBERS).max(1);
        let rows = sample.chunks_exact(self.dimension).step_by(step);
        let some: Vec<f32> = rows.flatten().copied().collect();
        let mut nearest = Vec::new();
        self.laid_out().nearest(&some, &mut nearest);
        let of = |id: &u16| &self.centroids[usize::from(*id) * self.dimension..][..self.dimension];
        let centroids = nearest.iter().flat_map(of);
        some.iter().zip(centroids).map(|(x, &c)| x - self.scale * f32::from(c)).collect()
    }

    /// The centroids as numbers.
    fn widened(&self) -> Vec<f32> {
        self.centroids.iter().map(|&c| self.scale * f32::from(c)).collect()
    }

    /// The number of centroids; 0 in the codebook of an int8 index of format 2.
    pub(crate) fn count(&self) -> usize {
        self.centroids.len() / self.dimension
    }

    /// For comparing vectors with the centroids.
    pub(crate) fn laid_out(&self) -> Centroids {
        Centroids::new(&self.widened(), self.dimension)
    }

    /// The directions of the centroids, the mean put back, for estimating products with the unit vectors
    /// near them: a centroid is shorter than these, the more the wider they lie, and would count less.
    pub(crate) fn directions(&self) -> Centroids {
        let mut rows = self.widened();
        for row in rows.chunks_exact_mut(self.dimension) {
            for (x, mean) in row.iter_mut().zip(&self.mean) {
                *x += mean;
            }
            l2_normalise(row);
        }
        Centroids::new(&rows, self.dimension)
    }

    /// For putting vectors into codes.
    pub(crate) fn coder(self: &Arc<Self>, tier: Tier) -> Coder {
        Coder { book: Arc::clone(self), tier, centroids: self.laid_out() }
    }

    /// Centroids and differences for MaxSim; `None` where there are none.
    pub(crate) fn view(&self) -> Option<View<'_>> {
        Some(View {
            bits: self.bits?,
            dimension: self.dimension,
            centroids: &self.centroids,
            table: &self.table,
            scale: self.scale,
        })
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + 4 * self.dimension + self.centroids.len());
        bytes.extend(MAGIC);
        let rows = self.centroids.len() / self.dimension;
        let width = match self.bits {
            None => 0_u32,
            Some(Bits::Two) => 2,
            Some(Bits::Four) => 4,
        };
        for number in [width, self.dimension as u32, rows as u32] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(self.scale.to_le_bytes());
        bytes.extend(self.table.map(|value| value.to_le_bytes()[0]));
        bytes.extend(self.mean.iter().flat_map(|x| x.to_le_bytes()));
        bytes.extend(self.centroids.iter().map(|value| value.to_le_bytes()[0]));
        let reduction = self.reduction.iter().flat_map(|reduction| &reduction.rows);
        bytes.extend(reduction.flat_map(|x| x.to_le_bytes()));
        bytes
    }

    /// Reads what [`Self::to_bytes`] gave and compares the checksum.
    pub(crate) fn open(path: &Path, crc32: u32, info: &TokenVectorInfo) -> Result<Self> {
        let dimension = info.stored_dimension();
        let bytes = std::fs::read(path).map_err(IndexError::io("cannot open", path))?;
        let damaged =
            |reason: &str| IndexError::Damaged { path: path.to_owned(), reason: reason.to_owned() };
        if crc32fast::hash(&bytes) != crc32 {
            return Err(damaged("its checksum does not match its content"));
        }
        if bytes.len() < HEADER || bytes[..8] != MAGIC {
            return Err(damaged("it is no codebook"));
        }
        let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let bits = match u32::from_le_bytes(word(8)) {
            0 => None,
            2 => Some(Bits::Two),
            4 => Some(Bits::Four),
            _ => return Err(damaged("its bits are unknown")),
        };
        let rows = u32::from_le_bytes(word(16)) as usize;
        let reduction = info.reduced.map_or(0, |outputs| 4 * outputs * info.dimension);
        let length = HEADER + 4 * dimension + rows * dimension + reduction;
        if u32::from_le_bytes(word(12)) as usize != dimension || bytes.len() != length {
            return Err(damaged("it is of other vectors"));
        }
        let table = std::array::from_fn(|code| bytes[24 + code].cast_signed());
        let (mean, centroids) = bytes[HEADER..].split_at(4 * dimension);
        let (centroids, reduction) = centroids.split_at(rows * dimension);
        let floats = |bytes: &[u8]| -> Vec<f32> {
            bytes.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect()
        };
        let reduced = |_| Reduction::new(floats(reduction), info.dimension);
        let reduction = info.reduced.map(reduced);
        let centroids = centroids.iter().map(|byte| byte.cast_signed()).collect();
        let (mean, scale) = (floats(mean), f32::from_le_bytes(word(20)));
        Ok(Self { bits, dimension, reduction, mean, centroids, table, scale })
    }
}

/// Where codes go: the sections of a file.
#[derive(Debug, Default)]
pub(crate) struct Coded {
    /// Each vector's centroid; nothing where there are none.
    pub(crate) ids: Vec<u16>,
    /// Each vector's scale, as binary16; of int8 only.
    pub(crate) scales: Vec<u16>,
    /// What each vector's norm differs from 1 by, as binary16.
    pub(crate) stretches: Vec<u16>,
    /// Codes as the kernels read them.
    pub(crate) codes: Vec<u8>,
}

impl Coded {
    /// Adds vectors as binary16.
    pub(crate) fn push_halves(&mut self, vectors: &[f32], dimension: usize) {
        let mut packed = vec![0; vectors.len()];
        f16::pack(vectors, dimension, &mut packed);
        self.codes.extend(packed.into_iter().flat_map(u16::to_le_bytes));
    }
}

impl Coder {
    /// The number of centroids that ids are of.
    pub(crate) fn count(&self) -> usize {
        self.book.count()
    }

    /// Adds the codes of some vectors of the model, and answers how well these are met; f16 meets them
    /// as well as exactly.
    pub(crate) fn encode(&self, vectors: &[f32], out: &mut Coded) -> Fit {
        let vectors = match &self.book.reduction {
            Some(reduction) => Cow::Owned(reduction.apply(vectors)),
            None => Cow::Borrowed(vectors),
        };
        let dimension = self.book.dimension;
        let rest = self.book.off_the_mean(&vectors);
        let first = out.ids.len();
        if self.count() > 0 {
            self.centroids.nearest(&rest, &mut out.ids);
        }
        // What is stored, without the mean and before it is made as long as it was.
        let mut stored = Vec::with_capacity(vectors.len());
        match (self.tier, self.book.bits) {
            (Tier::F16, _) => {
                out.push_halves(&vectors, dimension);
                return Fit::default();
            }
            (_, None) => self.round(&rest, &mut stored, out),
            (_, Some(bits)) => self.against_centroids(&rest, bits, first, &mut stored, out),
        }
        let bits = self.book.bits;
        let mut fit = Fit::default();
        let pairs = vectors.chunks_exact(dimension).zip(stored.chunks_exact(dimension));
        for (vector, stored) in pairs {
            let whole = stored.iter().zip(&self.book.mean).map(|(x, mean)| x + mean);
            let length = whole.clone().map(|x| x * x).sum::<f32>().sqrt();
            let of_vector = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            let stretch = if length > 0.0 { from_f32(of_vector / length - 1.0) } else { 0 };
            out.stretches.push(stretch);
            let norm = 1.0 + to_f32(stretch);
            fit.vectors += 1;
            let squares = whole.zip(vector).map(|(x, given)| f64::from(norm * x - given).powi(2));
            fit.squares += squares.sum::<f64>();
            // A scale is stored as what it is with the norm.
            if let (None, Some(scale)) = (bits, out.scales.get_mut(out.stretches.len() - 1)) {
                *scale = from_f32(to_f32(*scale) * norm);
            }
        }
        fit
    }

    /// Eight bits with a scale for each vector.
    fn round(&self, rest: &[f32], stored: &mut Vec<f32>, out: &mut Coded) {
        let dimension = self.book.dimension;
        let mut codes = vec![0_i8; rest.len()];
        for (codes, row) in codes.chunks_exact_mut(dimension).zip(rest.chunks_exact(dimension)) {
            // The scale as it will be read, so that codes fit it.
            let largest = row.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
            let scale = from_f32(largest / 127.0);
            let wide = to_f32(scale);
            out.scales.push(scale);
            for (code, x) in codes.iter_mut().zip(row) {
                let steps = if wide > 0.0 { x / wide } else { 0.0 };
                *code = steps.round_ties_even().clamp(-127.0, 127.0) as i8;
            }
            stored.extend(codes.iter().map(|&code| wide * f32::from(code)));
        }
        let start = out.codes.len();
        let bytes: Vec<u8> = codes.iter().map(|code| code.cast_unsigned()).collect();
        out.codes.resize(start + bytes.len(), 0);
        rounded::pack(&bytes, dimension, &mut out.codes[start..]);
    }

    /// The best code of each number, beside the centroid of its vector; `first` is the place of their
    /// first id.
    fn against_centroids(
        &self,
        rest: &[f32],
        bits: Bits,
        first: usize,
        stored: &mut Vec<f32>,
        out: &mut Coded,
    ) {
        let Codebook { dimension, centroids, table, scale, .. } = &*self.book;
        let mut codes = Vec::with_capacity(rest.len());
        for (vector, &id) in rest.chunks_exact(*dimension).zip(&out.ids[first..]) {
            let centroid = &centroids[usize::from(id) * dimension..][..*dimension];
            for (&x, &centroid) in vector.iter().zip(centroid) {
                let of = |&value: &i8| scale * f32::from(centroid.saturating_add(value));
                let all = table[..bits.values()].iter().map(of).enumerate();
                let nearer = |a: &(usize, f32), b: &(usize, f32)| {
                    (a.1 - x).abs().total_cmp(&(b.1 - x).abs())
                };
                let (code, value) = all.min_by(nearer).unwrap_or_default();
                codes.push(code as u8);
                stored.push(value);
            }
        }
        let mut in_order = vec![0; codes.len()];
        rounded::pack(&codes, *dimension, &mut in_order);
        let start = out.codes.len();
        out.codes.resize(start + bits.packed_len(codes.len()), 0);
        residual::pack(&in_order, bits, &mut out.codes[start..]);
    }
}

/// What an i8 stands for: nearly all numbers of the sample are within its range.
fn scale_of(sample: &[f32]) -> f32 {
    let step = (sample.len() / NUMBERS).max(1);
    let mut sizes: Vec<f32> = sample.iter().step_by(step).map(|x| x.abs()).collect();
    sizes.sort_unstable_by(f32::total_cmp);
    let large = sizes.get(sizes.len() * 9999 / 10_000).or(sizes.last()).copied();
    large.filter(|large| *large > 0.0).unwrap_or(1.0) / 120.0
}

/// The values that are nearest to the numbers on the whole: `count` of them, ascending.
fn levels(mut numbers: Vec<f32>, count: usize) -> Vec<f32> {
    if numbers.is_empty() {
        return vec![0.0; count];
    }
    numbers.sort_unstable_by(f32::total_cmp);
    let mut sums = Vec::with_capacity(numbers.len() + 1);
    sums.push(0.0_f64);
    for &x in &numbers {
        sums.push(sums[sums.len() - 1] + f64::from(x));
    }
    let mut levels: Vec<f32> =
        (0..count).map(|n| numbers[(2 * n + 1) * numbers.len() / (2 * count)]).collect();
    for _ in 0..TABLE_ROUNDS {
        let mut start = 0;
        for n in 0..count {
            let end = match levels.get(n + 1) {
                Some(next) => {
                    let border = f32::midpoint(levels[n], *next);
                    numbers.partition_point(|x| *x <= border)
                }
                None => numbers.len(),
            };
            if end > start {
                levels[n] = ((sums[end] - sums[start]) / (end - start) as f64) as f32;
            }
            start = end.max(start);
        }
    }
    levels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(dimension: usize, tier: Tier) -> TokenVectorInfo {
        let identity = topshelf_core::ModelIdentity {
            name: String::new(),
            fingerprint: String::new(),
            engine: String::new(),
        };
        TokenVectorInfo { identity, dimension, tier, reduced: None }
    }

    /// Unit vectors around some directions.
    fn vectors(count: usize, dimension: usize) -> Vec<f32> {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        let middles: Vec<f32> = (0..20 * dimension).map(|_| next()).collect();
        let mut all = Vec::new();
        for n in 0..count {
            let middle = &middles[n % 20 * dimension..][..dimension];
            let vector: Vec<f32> = middle.iter().map(|x| x + 0.6 * next()).collect();
            let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            all.extend(vector.iter().map(|x| x / norm));
        }
        all
    }

    #[test]
    fn more_bits_meet_vectors_better_and_later_ones_nearly_as_well() {
        let all = vectors(4000, 32);
        let (sample, later) = all.split_at(2000 * 32);
        let fit = |tier: Tier, vectors: &[f32]| {
            let book = Arc::new(Codebook::learn(sample, 2000, &info(32, tier)));
            book.coder(tier).encode(vectors, &mut Coded::default()).mean()
        };
        let eight = fit(Tier::Int8, sample);
        let (four, two) = (fit(Tier::FourBits, sample), fit(Tier::TwoBits, sample));
        assert!(eight < 1e-4 && eight < four && four < two && two < 0.08, "{eight} {four} {two}");
        let drift = fit(Tier::TwoBits, later) / two;
        assert!((0.9..1.5).contains(&drift), "{drift}");
    }

    #[test]
    fn a_codebook_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("book");
        for tier in Tier::ALL {
            for reduced in [None, Some(4)] {
                let own = TokenVectorInfo { reduced, ..info(8, tier) };
                let book = Codebook::learn(&vectors(200, 8), 200, &own);
                let bytes = book.to_bytes();
                std::fs::write(&path, &bytes).unwrap();
                let crc32 = crc32fast::hash(&bytes);
                assert_eq!(Codebook::open(&path, crc32, &own).unwrap(), book);
                assert!(Codebook::open(&path, crc32, &info(12, tier)).is_err());
                assert!(Codebook::open(&path, crc32 ^ 1, &own).is_err());
            }
        }
    }

    #[test]
    fn levels_lie_in_the_middle_of_what_they_stand_for() {
        let numbers = vec![-1.0, -1.2, -0.8, 0.1, -0.1, 1.0, 1.1, 0.9];
        let found = levels(numbers, 3);
        for (found, right) in found.iter().zip([-1.0, 0.0, 1.0]) {
            assert!((found - right).abs() < 1e-6, "{found} {right}");
        }
        assert_eq!(levels(Vec::new(), 4), [0.0; 4]);
    }
}
