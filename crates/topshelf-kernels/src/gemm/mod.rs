//! Matrix products with what follows them in the same pass.

pub(crate) mod activation;
pub(crate) mod exp;
pub mod bf16;
pub mod f32;
pub mod i8;
pub(crate) mod tile;

pub use activation::Activation;

use crate::simd::{LANES, Simd};

/// Stores the lanes that lie within the first `outputs` elements of `row`, from `first` on.
#[inline(always)]
pub(crate) fn store_part<S: Simd>(
    s: S,
    value: S::F,
    row: &mut [f32],
    first: usize,
    outputs: usize,
) {
    if first + LANES <= outputs {
        let whole = &mut row[first..first + LANES];
        s.store(value, whole.try_into().expect("sixteen elements"));
    } else if first < outputs {
        let mut part = [0.0; LANES];
        s.store(value, &mut part);
        row[first..outputs].copy_from_slice(&part[..outputs - first]);
    }
}

/// Sixteen elements from `first` on.
#[inline(always)]
pub(crate) fn lanes<T>(values: &[T], first: usize) -> &[T; LANES] {
    values[first..first + LANES].try_into().expect("sixteen elements")
}
