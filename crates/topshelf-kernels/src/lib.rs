//! Slices in, numbers out: the numeric kernels of Topshelf.
//!
//! Nothing here knows of models or threads; of files only how to map one. Each
//! operation is one module named after it. Those of retrieval have one file per instruction set
//! inside, beside a plain `reference` that the tests compare with; those of the encoder are written
//! once over vectors of sixteen, which each instruction set implements, and their references in f64
//! stand with their tests:
//!
//! | module | operation |
//! | --- | --- |
//! | [`gemm`] | matrix products in int8, bf16 and f32, with what follows them |
//! | [`attention`] | scaled dot-product attention over sequences without padding |
//! | [`rows`] | layer norm, and rounding of activations to u8 |
//! | [`max_sim`](mod@max_sim) | late interaction: the best answer to each query vector, summed |
//! | [`dot`] | inner product of two vectors, f32 and int8 |
//! | [`scan`] | one query against every row of a matrix: the exact dense search |
//! | [`quantise`] | f32 row to int8 and a scale |
//! | [`norm`] | Euclidean length |
//! | [`mod@top_k`] | the k best of many scores |
//! | [`mapped`] | read-only memory-mapped files |
//! | [`isa`] | which instruction set runs, and how to force one |
//! | [`mod@peak`] | what the machine's multipliers reach |
//!
//! **Which code runs.** The plain functions run the best instruction set of the
//! machine, or the one that the environment variable `TOPSHELF_ISA` names. Their
//! `*_with` forms take it as an argument, for tests and benchmarks.
//!
//! **Same input, same bits.** The kernels of retrieval ([`dot`], [`scan`], [`quantise`], [`norm`])
//! return the same bits on every instruction set; [`dot`] says which order of summation makes it so.
//! Those of the encoder ([`gemm`], [`attention`], [`rows`], [`mod@max_sim`]) do so on all sets with a
//! fused multiply-add, that is on all but `portable`. One exception: the bf16 product of AVX-512 BF16
//! rounds in its own way. On any one set, a row's result does not depend on its neighbours.
//!
//! **Unsafe code** is confined to vector loads and stores, each of an array of its size; to the
//! pointers with which the tiles of [`gemm`], [`attention`] and [`mod@max_sim`] walk through matrices
//! whose shapes were checked before; to one prefetch; to the calls of `on_isa!` in [`isa`], which need
//! a proof that the CPU has the instructions; and to [`mapped`].

#![deny(unsafe_op_in_unsafe_fn)]
// What works on vectors must end up inside the function that is compiled for the instruction set:
// left outside, each vector would go through memory and each operation be a call.
#![allow(clippy::inline_always)]

pub mod attention;
pub mod dot;
pub mod gemm;
pub mod isa;
pub mod mapped;
pub mod max_sim;
pub mod norm;
pub mod peak;
mod prefetch;
pub mod quantise;
pub mod rows;
pub mod scan;
pub(crate) mod simd;
pub mod top_k;

pub use dot::{dot_f32, dot_f32_with, dot_i8, dot_i8_with};
pub use isa::{Isa, IsaError};
pub use max_sim::{max_sim, max_sim_with};
pub use norm::l2_normalise;
pub use peak::peak;
pub use quantise::quantise_i8_row;
pub use scan::{scan_f32, scan_f32_with, scan_i8, scan_i8_with};
pub use top_k::top_k;
