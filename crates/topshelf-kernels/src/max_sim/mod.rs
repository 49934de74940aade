//! MaxSim of late interaction: for each query vector the largest inner product with a vector of the
//! document, summed (Khattab and Zaharia, "ColBERT: Efficient and Effective Passage Search via
//! Contextualized Late Interaction over BERT", 2020, equation 3):
//!
//! ```text
//! score = Σᵢ maxⱼ q[i]·d[j]
//! ```
//!
//! A document's vectors come transposed in blocks of 32, as [`pack_keys`](crate::attention::pack_keys)
//! makes them of rows; the queries are rows. A tile of queries is taken over all blocks at once.
//!
//! Stored vectors are smaller; their kernels work on the codes as they lie in the file:
//!
//! | module | a number takes | how |
//! | --- | --- | --- |
//! | this one | 32 bits | f32 products |
//! | [`mod@f16`] | 16 bits | widened block by block, then as here |
//! | [`rounded`] | 8 bits | integer dot products with queries of 8 bits |
//! | [`residual`] | 4 or 2 bits | a centroid plus a looked-up difference, in 8 bits; then as [`rounded`] |

#![allow(unsafe_code)]

pub mod f16;
pub mod residual;
pub mod rounded;

use crate::attention::{BLOCK, edge, packed_keys_len};
use crate::gemm::tile::{cover, in_tiles, tile};
use crate::isa::{Isa, Supported};
use crate::simd::{self, LANES, Operation, Simd};

/// MaxSim of the query vectors, rows of `dimension` elements, and a document of `count` vectors,
/// packed. `best` is filled with each query vector's largest product, -∞ where the document has no
/// vector; the answer is their sum, 0 where the query has none.
///
/// # Panics
///
/// Where lengths do not fit each other, or `TOPSHELF_ISA` is wrong (see [`Isa::detect`]).
///
/// ```
/// use topshelf_kernels::attention::{pack_keys, packed_keys_len};
/// use topshelf_kernels::max_sim;
///
/// let document = [1.0, 0.0, 0.6, 0.8]; // two vectors of two elements
/// let mut packed = vec![0.0; packed_keys_len(2, 2)];
/// pack_keys(&document, 2, 2, 2, &mut packed);
/// let mut best = [0.0; 2];
/// let score = max_sim(&[0.0, 1.0, 1.0, 0.0], 2, &packed, 2, &mut best);
/// assert_eq!((score, best), (1.8, [0.8, 1.0]));
/// ```
pub fn max_sim(
    queries: &[f32],
    dimension: usize,
    packed: &[f32],
    count: usize,
    best: &mut [f32],
) -> f32 {
    on(Supported::detected(), queries, dimension, packed, count, best)
}

/// [`max_sim`] on the given instruction set.
///
/// # Panics
///
/// As [`max_sim`], and where this machine lacks `isa`.
pub fn max_sim_with(
    isa: Isa,
    queries: &[f32],
    dimension: usize,
    packed: &[f32],
    count: usize,
    best: &mut [f32],
) -> f32 {
    on(Supported::checked(isa), queries, dimension, packed, count, best)
}

fn on(
    supported: Supported,
    queries: &[f32],
    dimension: usize,
    packed: &[f32],
    count: usize,
    best: &mut [f32],
) -> f32 {
    assert_eq!(queries.len(), best.len() * dimension, "a place for each query vector");
    assert!(packed.len() >= packed_keys_len(count, dimension), "blocks for each vector");
    simd::run(supported, MaxSim { queries, dimension, packed, count, best });
    best.iter().sum()
}

struct MaxSim<'a> {
    queries: &'a [f32],
    dimension: usize,
    packed: &'a [f32],
    count: usize,
    best: &'a mut [f32],
}

impl Operation for MaxSim<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        in_tiles!(S::TILE_F32, self.best.len(), |row, ROWS, UNITS| {
            self.rows::<S, ROWS, UNITS>(s, row);
        });
    }
}

impl MaxSim<'_> {
    #[inline(always)]
    fn rows<S: Simd, const ROWS: usize, const UNITS: usize>(&mut self, s: S, row: usize) {
        let dimension = self.dimension;
        let mut best = [s.splat(f32::NEG_INFINITY); ROWS];
        for first in (0..self.count).step_by(UNITS * LANES) {
            // SAFETY: `on` has checked queries and blocks; `row + ROWS` is at most the number of
            // queries.
            let products = unsafe {
                let q = self.queries.as_ptr().add(row * dimension);
                let block = first / BLOCK * BLOCK * dimension + first % BLOCK;
                let zero = [[s.splat(0.0); UNITS]; ROWS];
                let block = self.packed.as_ptr().add(block);
                tile::<S, ROWS, UNITS>(s, (q, dimension), (block, BLOCK), dimension, zero)
            };
            for u in 0..UNITS {
                let vectors = self.count.saturating_sub(first + u * LANES).min(LANES);
                let edge = s.load(edge(vectors));
                for (best, products) in best.iter_mut().zip(&products) {
                    *best = s.max(*best, s.add(products[u], edge));
                }
            }
        }
        for (place, best) in self.best[row..].iter_mut().zip(best) {
            *place = s.largest(best);
        }
    }
}
