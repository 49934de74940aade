//! Slices in, numbers out: the numeric kernels of Topshelf.
//!
//! Nothing here knows of models or threads; of files only how to map one. Each
//! operation is one module named after it, and inside it one file per instruction
//! set, beside a plain `reference` that the tests compare with:
//!
//! | module | operation |
//! | --- | --- |
//! | [`dot`] | inner product of two vectors, f32 and int8 |
//! | [`scan`] | one query against every row of a matrix: the exact dense search |
//! | [`quantise`] | f32 row to int8 and a scale |
//! | [`norm`] | Euclidean length |
//! | [`mod@top_k`] | the k best of many scores |
//! | [`mapped`] | read-only memory-mapped files |
//! | [`isa`] | which instruction set runs, and how to force one |
//!
//! **Which code runs.** The plain functions run the best instruction set of the
//! machine, or the one that the environment variable `TOPSHELF_ISA` names. Their
//! `*_with` forms take it as an argument, for tests and benchmarks.
//!
//! **Same input, same bits.** Every kernel of this crate returns the same bits
//! on every instruction set; [`dot`] says which order of summation makes it so.
//!
//! **Unsafe code** is confined to vector loads, each from an array of its size, to
//! one prefetch, to the calls of `on_isa!` in [`isa`], which need a proof that
//! the CPU has the instructions, and to [`mapped`].

#![deny(unsafe_op_in_unsafe_fn)]

pub mod attention;
pub mod dot;
pub mod gemm;
pub mod isa;
pub mod mapped;
pub mod norm;
mod prefetch;
pub mod quantise;
pub mod rows;
pub mod scan;
pub(crate) mod simd;
pub mod top_k;

pub use dot::{dot_f32, dot_f32_with, dot_i8, dot_i8_with};
pub use isa::{Isa, IsaError};
pub use norm::l2_normalise;
pub use quantise::quantise_i8_row;
pub use scan::{scan_f32, scan_f32_with, scan_i8, scan_i8_with};
pub use top_k::top_k;
