//! MaxSim over vectors of 4 or 2 bits a number: a centroid and what is left, both in 8 bits.
//!
//! ```text
//! d[j] ≈ norm(j) · (mean + scale · clamp(centroid[id(j)] + table[code]))     the sum in -128..=127
//! ```
//!
//! (Santhanam et al., "ColBERTv2", 2022, section 3.3, with centroids and the table's values brought
//! to one scale of 8 bits, so that a vector is put together by a look-up and an addition and
//! multiplied as in [`super::rounded`], which says what mean and norm are for. Without them a vector
//! of 2 bits is of no use.)
//!
//! **Layout.** Codes in the order of [`super::rounded::pack`], in groups of 64, the last one filled
//! up: of 4 bits, byte k holds number k below and number k + 32 above; of 2 bits, byte k holds the
//! numbers k, k + 16, k + 32 and k + 48, lowest first.

use super::rounded::{self, Queries, Scratch, widen};
use crate::attention::BLOCK;
use crate::isa::{Isa, Supported};
use crate::simd::{self, Operation, Simd};

/// Numbers whose codes lie together.
const GROUP: usize = 64;

/// Bits of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bits {
    /// Four: sixteen values.
    Four,
    /// Two: four values.
    Two,
}

impl Bits {
    /// How many values a code can have.
    pub fn values(self) -> usize {
        match self {
            Self::Four => 16,
            Self::Two => 4,
        }
    }

    /// Bytes of a group.
    const fn bytes(self) -> usize {
        match self {
            Self::Four => GROUP / 2,
            Self::Two => GROUP / 4,
        }
    }

    /// Bytes that the codes of so many numbers take.
    pub const fn packed_len(self, numbers: usize) -> usize {
        numbers.div_ceil(GROUP) * self.bytes()
    }
}

/// What ids and codes mean.
#[derive(Debug, Clone, Copy)]
pub struct Codebook<'a> {
    /// Of the codes.
    pub bits: Bits,
    /// The length of a vector: whole fours.
    pub dimension: usize,
    /// The centroids, row after row.
    pub centroids: &'a [i8],
    /// The value of each code; what lies beyond [`Bits::values`] is not looked at.
    pub table: &'a [i8; 16],
    /// What numbers are multiplied by.
    pub scale: f32,
}

/// Packs codes, one a byte, that lie as [`super::rounded::pack`] puts them.
///
/// # Panics
///
/// If `packed` has not [`Bits::packed_len`] bytes.
pub fn pack(codes: &[u8], bits: Bits, packed: &mut [u8]) {
    assert_eq!(packed.len(), bits.packed_len(codes.len()), "packed_len bytes");
    packed.fill(0);
    let (step, width) = match bits {
        Bits::Four => (32, 4),
        Bits::Two => (16, 2),
    };
    for (group, packed) in codes.chunks(GROUP).zip(packed.chunks_exact_mut(bits.bytes())) {
        for (number, &code) in group.iter().enumerate() {
            packed[number % step] |= code << (number / step * width);
        }
    }
}

/// A document's vectors.
#[derive(Debug, Clone, Copy)]
pub struct Vectors<'a> {
    /// Each vector's centroid.
    pub ids: &'a [u16],
    /// What its norm differs from 1 by, as binary16.
    pub stretches: &'a [u16],
    /// [`Bits::packed_len`] bytes from [`pack`].
    pub packed: &'a [u8],
}

/// MaxSim of the queries and a document. `best` is filled with each query
/// vector's largest product, -∞ where the document has no vector; the answer is their sum.
///
/// # Panics
///
/// Where lengths do not fit each other, an id has no centroid, or `TOPSHELF_ISA` is wrong.
pub fn max_sim_residual(
    queries: &Queries,
    codebook: &Codebook<'_>,
    vectors: &Vectors<'_>,
    scratch: &mut Scratch,
    best: &mut [f32],
) -> f32 {
    on(Supported::detected(), queries, codebook, vectors, scratch, best)
}

/// [`max_sim_residual`] on the given instruction set.
///
/// # Panics
///
/// As [`max_sim_residual`], and where this machine lacks `isa`.
pub fn max_sim_residual_with(
    isa: Isa,
    queries: &Queries,
    codebook: &Codebook<'_>,
    vectors: &Vectors<'_>,
    scratch: &mut Scratch,
    best: &mut [f32],
) -> f32 {
    on(Supported::checked(isa), queries, codebook, vectors, scratch, best)
}

fn on(
    supported: Supported,
    queries: &Queries,
    codebook: &Codebook<'_>,
    vectors: &Vectors<'_>,
    scratch: &mut Scratch,
    best: &mut [f32],
) -> f32 {
    let Vectors { ids, stretches, packed } = *vectors;
    assert_eq!(queries.dimension(), codebook.dimension, "queries of the same dimension");
    assert_eq!(stretches.len(), ids.len(), "a norm for each vector");
    decode(supported, codebook, ids, packed, scratch);
    rounded::of_scratch(supported, queries, stretches, codebook.scale, scratch, best)
}

/// The vectors in 8 bits, in whole blocks.
fn decode(
    supported: Supported,
    codebook: &Codebook<'_>,
    ids: &[u16],
    packed: &[u8],
    scratch: &mut Scratch,
) {
    let dimension = codebook.dimension;
    assert!(dimension > 0 && dimension.is_multiple_of(4), "a dimension of whole fours");
    let numbers = ids.len() * dimension;
    assert_eq!(packed.len(), codebook.bits.packed_len(numbers), "codes for each number");
    let whole = ids.len() / BLOCK * BLOCK;
    let rest = ids.len() - whole;
    // The narrow block is put together behind the place where it will stand, in whole groups.
    let place = whole * dimension;
    let behind = place + if rest > 0 { BLOCK * dimension } else { 0 };
    let narrow = (rest * dimension).next_multiple_of(GROUP);
    let codes = &mut scratch.codes;
    codes.resize((behind + narrow).max(codes.len()), 0);
    let (blocks, narrow_ids) = ids.split_at(whole);
    for (ids, block) in blocks.chunks_exact(BLOCK).zip(codes.chunks_exact_mut(BLOCK * dimension)) {
        place_centroids(codebook, ids, block);
    }
    place_centroids(codebook, narrow_ids, &mut codes[behind..behind + rest * dimension]);
    let bits = codebook.bits;
    // Whole blocks are whole groups: 32 times four numbers and more.
    let (of_blocks, of_rest) = packed.split_at(bits.packed_len(place));
    let table = codebook.table;
    simd::run(supported, Add { bits, table, packed: of_blocks, numbers: &mut codes[..place] });
    let numbers = &mut codes[behind..behind + narrow];
    simd::run(supported, Add { bits, table, packed: of_rest, numbers });
    if rest > 0 {
        let (wide, narrow) = codes.split_at_mut(behind);
        widen(&narrow[..rest * dimension], rest, &mut wide[place..]);
    }
}

/// Writes each vector's centroid where the vector is to stand, in a block as wide as there are ids.
fn place_centroids(codebook: &Codebook<'_>, ids: &[u16], block: &mut [i8]) {
    let (width, dimension) = (ids.len(), codebook.dimension);
    let block = block.as_chunks_mut::<4>().0;
    for (vector, &id) in ids.iter().enumerate() {
        let centroid = &codebook.centroids[usize::from(id) * dimension..][..dimension];
        for (four, numbers) in centroid.as_chunks::<4>().0.iter().enumerate() {
            block[four * width + vector] = *numbers;
        }
    }
}

/// Adds to each number the value of its code.
struct Add<'a> {
    bits: Bits,
    table: &'a [i8; 16],
    packed: &'a [u8],
    numbers: &'a mut [i8],
}

impl Operation for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let groups = self.numbers.as_chunks_mut::<GROUP>().0;
        match self.bits {
            Bits::Four => {
                for (codes, numbers) in self.packed.as_chunks::<32>().0.iter().zip(groups) {
                    s.add_of_16(self.table, codes, numbers);
                }
            }
            Bits::Two => {
                for (codes, numbers) in self.packed.as_chunks::<16>().0.iter().zip(groups) {
                    s.add_of_4(self.table, codes, numbers);
                }
            }
        }
    }
}
