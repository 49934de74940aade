//! Vectors to fewer numbers: [`Reduction`], for checkpoints that come without a projection.
//!
//! ```text
//! reduce(v) = W v / |W v|      W: the directions in which the vectors are longest
//! ```
//!
//! The rows of W are the first eigenvectors of the vectors' second moments, `Σ v vᵀ`: of all linear
//! maps to so few numbers the one that keeps inner products best on the whole (Eckart, Young 1936). The
//! mean is not taken off first: it is a direction like the others, and of token vectors by far the
//! longest. Found by subspace iteration in f64 with a Gram-Schmidt step (Golub, Van Loan, "Matrix
//! Computations", section 7.3.2), which needs no more than products.

use topshelf_kernels::gemm::Activation;
use topshelf_kernels::gemm::f32::{Rows, Weights, gemm_f32, pack, packed_len};
use topshelf_kernels::l2_normalise;

/// Vectors whose second moments are taken, at most.
const VECTORS: usize = 1 << 15;

/// Steps of the iteration; what they leave undecided are directions of nearly the same length.
const STEPS: usize = 40;

/// A linear map to fewer numbers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reduction {
    pub(crate) inputs: usize,
    /// The directions, one after the other.
    pub(crate) rows: Vec<f32>,
    packed: Vec<f32>,
}

impl Reduction {
    /// From rows of `inputs` numbers each.
    pub(crate) fn new(rows: Vec<f32>, inputs: usize) -> Self {
        let outputs = rows.len() / inputs;
        let mut packed = vec![0.0; packed_len(outputs, inputs)];
        pack(&rows, outputs, inputs, &mut packed);
        Self { inputs, rows, packed }
    }

    /// Learns `outputs` directions from vectors of `inputs` numbers.
    pub(crate) fn learn(vectors: &[f32], inputs: usize, outputs: usize) -> Self {
        let moments = second_moments(vectors, inputs);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut directions: Vec<f64> = (0..outputs * inputs)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
            })
            .collect();
        orthonormalise(&mut directions, inputs);
        for _ in 0..STEPS {
            let mut next = vec![0.0; directions.len()];
            for (next, own) in next.chunks_exact_mut(inputs).zip(directions.chunks_exact(inputs)) {
                for (x, row) in own.iter().zip(moments.chunks_exact(inputs)) {
                    add(next, *x, row);
                }
            }
            orthonormalise(&mut next, inputs);
            directions = next;
        }
        Self::new(directions.into_iter().map(|x| x as f32).collect(), inputs)
    }

    /// The length of a reduced vector.
    pub(crate) fn outputs(&self) -> usize {
        self.rows.len() / self.inputs
    }

    /// Reduces vectors, one after the other, to unit length.
    pub(crate) fn apply(&self, vectors: &[f32]) -> Vec<f32> {
        let (count, outputs) = (vectors.len() / self.inputs, self.outputs());
        let bias = vec![0.0; packed_len(outputs, 1)];
        let weights = Weights { outputs, inputs: self.inputs, values: &self.packed, bias: &bias };
        let rows = Rows { count, values: vectors, stride: self.inputs };
        let mut reduced = vec![0.0; count * outputs];
        gemm_f32(rows, &weights, Activation::Identity, &mut reduced, outputs);
        for vector in reduced.chunks_exact_mut(outputs) {
            l2_normalise(vector);
        }
        reduced
    }
}

/// The sum of `v vᵀ` over some of the vectors, evenly spread.
fn second_moments(vectors: &[f32], inputs: usize) -> Vec<f64> {
    let step = (vectors.len() / inputs).div_ceil(VECTORS).max(1);
    let mut moments = vec![0.0; inputs * inputs];
    let mut wide = vec![0.0; inputs];
    for vector in vectors.chunks_exact(inputs).step_by(step) {
        for (wide, x) in wide.iter_mut().zip(vector) {
            *wide = f64::from(*x);
        }
        for (n, row) in moments.chunks_exact_mut(inputs).enumerate() {
            add(&mut row[n..], wide[n], &wide[n..]);
        }
    }
    for n in 0..inputs {
        for m in n + 1..inputs {
            moments[m * inputs + n] = moments[n * inputs + m];
        }
    }
    moments
}

/// `sum += factor · row`.
fn add(sum: &mut [f64], factor: f64, row: &[f64]) {
    for (sum, x) in sum.iter_mut().zip(row) {
        *sum += factor * x;
    }
}

/// Makes rows orthogonal to those before them and of unit length (modified Gram-Schmidt). One that
/// lies in the span of those before it becomes zero.
fn orthonormalise(rows: &mut [f64], inputs: usize) {
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    for n in 0..rows.len() / inputs {
        let (before, rest) = rows.split_at_mut(n * inputs);
        let own = &mut rest[..inputs];
        let length = product(own, own).sqrt();
        for other in before.chunks_exact(inputs) {
            let along = product(own, other);
            add(own, -along, other);
        }
        let left = product(own, own).sqrt();
        let factor = if left > 1e-9 * length { 1.0 / left } else { 0.0 };
        for x in own.iter_mut() {
            *x *= factor;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors that lie in few directions keep their products; the directions are orthonormal.
    #[test]
    fn products_are_kept_where_few_directions_matter() {
        const INPUTS: usize = 48;
        let mut state = 7_u64;
        let mut next = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (state >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        let axes: Vec<f32> = (0..6 * INPUTS).map(|_| next()).collect();
        let mut vectors = Vec::new();
        for _ in 0..500 {
            let mut vector = vec![0.0; INPUTS];
            for axis in axes.chunks_exact(INPUTS) {
                let share = next();
                vector.iter_mut().zip(axis).for_each(|(x, a)| *x += share * a);
            }
            for x in &mut vector {
                *x += 0.001 * next();
            }
            l2_normalise(&mut vector);
            vectors.extend(vector);
        }
        let reduction = Reduction::learn(&vectors, INPUTS, 8);
        let rows: Vec<&[f32]> = reduction.rows.chunks_exact(INPUTS).collect();
        let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
        for (n, row) in rows.iter().enumerate() {
            for (m, other) in rows.iter().enumerate() {
                let right = if n == m { 1.0 } else { 0.0 };
                assert!((product(row, other) - right).abs() < 1e-5, "{n} {m}");
            }
        }
        let reduced = reduction.apply(&vectors);
        for (n, m) in [(0, 1), (17, 400), (3, 3), (99, 250)] {
            let whole = product(&vectors[n * INPUTS..][..INPUTS], &vectors[m * INPUTS..][..INPUTS]);
            let own = product(&reduced[n * 8..][..8], &reduced[m * 8..][..8]);
            assert!((whole - own).abs() < 0.01, "{whole} {own}");
        }
    }
}
