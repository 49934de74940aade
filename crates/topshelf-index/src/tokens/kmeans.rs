//! Centroids of many vectors by Lloyd's iterations (k-means), over all processors.
//!
//! The nearest centroid of a vector is that with the largest `v·c - |c|²/2`, which is a matrix product
//! with a bias. What comes out does not depend on the number of processors: sums are made in the
//! order of the vectors.

use topshelf_kernels::gemm::Activation;
use topshelf_kernels::gemm::f32::{Rows, Weights, gemm_f32, pack, packed_len};

/// Vectors that are compared with all centroids at a time.
const TOGETHER: usize = 64;

/// Centroids, laid out for looking up the nearest.
pub(crate) struct Centroids {
    dimension: usize,
    count: usize,
    packed: Vec<f32>,
    /// Minus half of each one's square.
    bias: Vec<f32>,
}

impl Centroids {
    pub(crate) fn new(rows: &[f32], dimension: usize) -> Self {
        let count = rows.len() / dimension;
        let mut packed = vec![0.0; packed_len(count, dimension)];
        pack(rows, count, dimension, &mut packed);
        let half = |row: &[f32]| -0.5 * row.iter().map(|x| x * x).sum::<f32>();
        let mut bias: Vec<f32> = rows.chunks_exact(dimension).map(half).collect();
        // What fills the last panel up is never the nearest.
        bias.resize(packed_len(count, 1), f32::MIN);
        Self { dimension, count, packed, bias }
    }

    /// The nearest centroid of each vector.
    pub(crate) fn nearest(&self, vectors: &[f32], nearest: &mut Vec<u16>) {
        let Self { dimension, count, packed, bias } = self;
        let weights = Weights { outputs: *count, inputs: *dimension, values: packed, bias };
        let mut products = vec![0.0; TOGETHER * count];
        for rows in vectors.chunks(TOGETHER * dimension) {
            let here = rows.len() / dimension;
            let from = Rows { count: here, values: rows, stride: *dimension };
            gemm_f32(from, &weights, Activation::Identity, &mut products, *count);
            nearest.extend(products[..here * count].chunks_exact(*count).map(largest));
        }
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Each vector's inner product with each centroid: a row for each vector.
    pub(crate) fn products(&self, vectors: &[f32]) -> Vec<f32> {
        let Self { dimension, count, packed, bias } = self;
        let zeros = vec![0.0; bias.len()];
        let weights = Weights { outputs: *count, inputs: *dimension, values: packed, bias: &zeros };
        let rows = vectors.len() / dimension;
        let mut products = vec![0.0; rows * count];
        let from = Rows { count: rows, values: vectors, stride: *dimension };
        gemm_f32(from, &weights, Activation::Identity, &mut products, *count);
        products
    }

    /// [`Self::nearest`] on all processors.
    fn nearest_of_all(&self, vectors: &[f32]) -> Vec<u16> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let share = (vectors.len() / self.dimension).div_ceil(threads).max(1) * self.dimension;
        std::thread::scope(|scope| {
            let work = |vectors| {
                scope.spawn(move || {
                    let mut nearest = Vec::new();
                    self.nearest(vectors, &mut nearest);
                    nearest
                })
            };
            let running: Vec<_> = vectors.chunks(share).map(work).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, Vec<u16>>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            running.into_iter().flat_map(join).collect()
        })
    }
}

/// The place of the largest; the first of equals.
fn largest(products: &[f32]) -> u16 {
    let mut best = (f32::NEG_INFINITY, 0);
    for (place, &product) in products.iter().enumerate() {
        if product > best.0 {
            best = (product, place as u16);
        }
    }
    best.1
}

/// `count` centroids of the vectors, rows of `dimension` numbers, after `rounds` iterations; as many
/// as there are vectors, if those are fewer. They begin as vectors that lie evenly among the others.
pub(crate) fn centroids(
    vectors: &[f32],
    dimension: usize,
    count: usize,
    rounds: usize,
) -> Vec<f32> {
    let rows = vectors.len() / dimension;
    let count = count.min(rows);
    let mut centroids: Vec<f32> = (0..count)
        .flat_map(|n| &vectors[n * rows / count * dimension..][..dimension])
        .copied()
        .collect();
    for _ in 0..rounds {
        let nearest = Centroids::new(&centroids, dimension).nearest_of_all(vectors);
        let (mut sums, mut members) = (vec![0.0; centroids.len()], vec![0_u32; count]);
        for (vector, &own) in vectors.chunks_exact(dimension).zip(&nearest) {
            let own = usize::from(own);
            members[own] += 1;
            for (sum, x) in sums[own * dimension..][..dimension].iter_mut().zip(vector) {
                *sum += x;
            }
        }
        // One that nobody is nearest to stays where it is.
        let means = sums.chunks_exact(dimension).zip(&members);
        for (centroid, (sum, &members)) in centroids.chunks_exact_mut(dimension).zip(means) {
            if members > 0 {
                for (x, sum) in centroid.iter_mut().zip(sum) {
                    *x = sum / members as f32;
                }
            }
        }
    }
    centroids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_find_their_middle() {
        // Three groups in the plane, each with its points around it.
        let middles = [[1.0_f32, 0.0], [-1.0, 0.5], [0.0, -1.0]];
        let vectors: Vec<f32> = (0..300)
            .flat_map(|i| {
                let [x, y] = middles[i % 3];
                let angle = i as f32;
                [x + 0.1 * angle.sin(), y + 0.1 * angle.cos()]
            })
            .collect();
        let found = centroids(&vectors, 2, 3, 10);
        for [x, y] in middles {
            let near = found.chunks(2).any(|c| (c[0] - x).abs() < 0.02 && (c[1] - y).abs() < 0.02);
            assert!(near, "{found:?}");
        }
        let mut nearest = Vec::new();
        Centroids::new(&found, 2).nearest(&vectors, &mut nearest);
        assert!(nearest.iter().enumerate().all(|(i, own)| *own == nearest[i % 3]));
        assert_eq!(centroids(&vectors[..4], 2, 3, 5).len(), 4); // not more than there are
    }
}
