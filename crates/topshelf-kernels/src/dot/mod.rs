//! Inner product of two vectors of the same length d: Σ aᵢ·bᵢ.
//!
//! **f32.** One order of summation on every instruction set, so that a score has
//! the same bits on every machine:
//!
//! 1. 32 partial sums start at 0; element i is multiplied and then added to sum
//!    i mod 32, in ascending i. Product and sum are rounded one after the other (no
//!    fused multiply-add, which not every machine has; the scan waits for memory
//!    all the same, so it costs nothing).
//! 2. The upper half of the sums is added to the lower half, 32 → 16 → 8 → 4 → 2 →
//!    1.
//!
//! The error against the exact sum is at most
//! (⌈d/32⌉ + 6) · 2⁻²⁴ · Σ|aᵢ·bᵢ| to first order, and underflow: the bound of
//! blocked summation (Higham, *Accuracy and Stability of Numerical Algorithms*,
//! 2nd ed., section 4.2, with the rounding of the product added).
//!
//! **int8.** Exact in i32 for every value including −128, up to d = 131,071
//! (16,384 · d fits); beyond that the sum wraps modulo 2³², alike everywhere. How
//! each set stays exact, where a plain use of its instruction would not, is told in
//! its file.
//!
//! Each file has `dots_f32` and `dots_i8`: one query against R rows at a time, so
//! that [`crate::scan`] loads the query once for R rows. R does not change a bit
//! of the result. All slices must have the query's length; they panic (or ignore
//! the excess) where not, and never read outside.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx_vnni;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod portable;
pub mod reference;

use crate::isa::{Isa, Supported, on_isa};

/// The number of partial sums in an f32 product.
pub(crate) const LANES: usize = 32;

/// Inner product of two f32 vectors; the [module](self) tells its rounding.
///
/// Any length, 0 included (the product is then 0), and any alignment.
///
/// # Panics
/// Where the lengths differ, or `TOPSHELF_ISA` is wrong (see [`Isa::detect`]).
///
/// ```
/// assert_eq!(topshelf_kernels::dot_f32(&[1.0, 2.0], &[3.0, 4.0]), 11.0);
/// ```
pub fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    f32_on(Supported::detected(), a, b)
}

/// [`dot_f32`] on the given instruction set; the result is the same.
///
/// # Panics
/// Where the lengths differ, or this machine lacks `isa`.
pub fn dot_f32_with(isa: Isa, a: &[f32], b: &[f32]) -> f32 {
    f32_on(Supported::checked(isa), a, b)
}

fn f32_on(supported: Supported, a: &[f32], b: &[f32]) -> f32 {
    check_lengths(a.len(), b.len());
    let [dot] = on_isa!(supported, dots_f32(a, [b]));
    dot
}

/// Inner product of two int8 vectors, exact up to 131,071 elements (see the
/// [module](self)).
///
/// # Panics
/// Where the lengths differ, or `TOPSHELF_ISA` is wrong (see [`Isa::detect`]).
///
/// ```
/// assert_eq!(topshelf_kernels::dot_i8(&[-128, 2], &[-128, 3]), 16_390);
/// ```
pub fn dot_i8(a: &[i8], b: &[i8]) -> i32 {
    i8_on(Supported::detected(), a, b)
}

/// [`dot_i8`] on the given instruction set; the result is the same.
///
/// # Panics
/// Where the lengths differ, or this machine lacks `isa`.
pub fn dot_i8_with(isa: Isa, a: &[i8], b: &[i8]) -> i32 {
    i8_on(Supported::checked(isa), a, b)
}

fn i8_on(supported: Supported, a: &[i8], b: &[i8]) -> i32 {
    check_lengths(a.len(), b.len());
    let [dot] = on_isa!(supported, dots_i8(a, [b]));
    dot
}

fn check_lengths(a: usize, b: usize) {
    assert_eq!(a, b, "an inner product needs two vectors of one length");
}

/// The last, incomplete chunk of a vector, filled up with zeros. Zeros change no
/// sum: a partial sum that starts at +0.0 is never −0.0, the only value to which
/// adding +0.0 matters.
#[inline]
pub(crate) fn padded<T: Copy + Default, const N: usize>(tail: &[T]) -> [T; N] {
    let mut chunk = [T::default(); N];
    chunk[..tail.len()].copy_from_slice(tail);
    chunk
}
