//! One query against every row of a matrix: the exact dense search, n inner
//! products of d elements. The caller picks the best with [`crate::top_k()`].
//!
//! Rows lie one after the other (n × d, row-major) without gaps. Every row's score
//! has the bits of [`crate::dot`] for that row alone, wherever it lies and on every
//! instruction set, so splitting the rows over threads changes nothing.
//!
//! A scan reads each row once and waits for memory; the query stays in registers
//! and cache. `blocks` has the loop, `stamped` compiles it per instruction set,
//! `prefetch` keeps the memory busy, and this file checks shapes and chooses.

mod blocks;
pub mod reference;
mod stamped;

#[cfg(target_arch = "aarch64")]
use self::stamped::neon;
use self::stamped::portable;
#[cfg(target_arch = "x86_64")]
use self::stamped::{avx_vnni, avx2, avx512};
use crate::isa::{Isa, Supported, on_isa};

/// out\[i\] = query · rowᵢ, for `rows` of shape `out.len()` × `query.len()`.
///
/// # Panics
/// Where `rows.len()` is not `out.len() * query.len()`, or `TOPSHELF_ISA` is wrong
/// (see [`Isa::detect`]).
///
/// ```
/// let mut out = [0.0; 3];
/// topshelf_kernels::scan_f32(&[1.0, 2.0], &[1.0, 0.0, 0.0, 1.0, 2.0, 2.0], &mut out);
/// assert_eq!(out, [1.0, 2.0, 6.0]);
/// ```
pub fn scan_f32(query: &[f32], rows: &[f32], out: &mut [f32]) {
    f32_on(Supported::detected(), query, rows, out);
}

/// [`scan_f32`] on the given instruction set; the result is the same.
///
/// # Panics
/// Where the shapes disagree, or this machine lacks `isa`.
pub fn scan_f32_with(isa: Isa, query: &[f32], rows: &[f32], out: &mut [f32]) {
    f32_on(Supported::checked(isa), query, rows, out);
}

fn f32_on(supported: Supported, query: &[f32], rows: &[f32], out: &mut [f32]) {
    check_shape(query.len(), rows.len(), out.len());
    if query.is_empty() {
        out.fill(0.0);
        return;
    }
    on_isa!(supported, scan_f32(query, rows, out));
}

/// out\[i\] = (query_scale · row_scales\[i\]) · (query · rowᵢ), for `rows` of shape
/// `out.len()` × `query.len()`.
///
/// The inner product is the exact integer (see [`crate::dot`]); it is converted to
/// f32, exactly up to 2²⁴ (d ≤ 1040 for codes within −127..=127) and rounded beyond,
/// and multiplied by the product of the scales. Codes and scales are those of
/// [`crate::quantise_i8_row`].
///
/// # Panics
/// Where `rows.len()` is not `out.len() * query.len()`, `row_scales` and `out`
/// differ in length, or `TOPSHELF_ISA` is wrong (see [`Isa::detect`]).
///
/// ```
/// let mut out = [0.0; 2];
/// topshelf_kernels::scan_i8(&[1, 2], 0.5, &[3, 4, -5, 6], &[1.0, 2.0], &mut out);
/// assert_eq!(out, [5.5, 7.0]);
/// ```
pub fn scan_i8(query: &[i8], query_scale: f32, rows: &[i8], row_scales: &[f32], out: &mut [f32]) {
    i8_on(Supported::detected(), query, query_scale, rows, row_scales, out);
}

/// [`scan_i8`] on the given instruction set; the result is the same.
///
/// # Panics
/// Where the shapes disagree, or this machine lacks `isa`.
pub fn scan_i8_with(
    isa: Isa,
    query: &[i8],
    query_scale: f32,
    rows: &[i8],
    row_scales: &[f32],
    out: &mut [f32],
) {
    i8_on(Supported::checked(isa), query, query_scale, rows, row_scales, out);
}

fn i8_on(
    supported: Supported,
    query: &[i8],
    query_scale: f32,
    rows: &[i8],
    row_scales: &[f32],
    out: &mut [f32],
) {
    check_shape(query.len(), rows.len(), out.len());
    assert_eq!(
        row_scales.len(),
        out.len(),
        "a scan needs one scale and one place in `out` per row"
    );
    if query.is_empty() {
        out.fill(0.0);
        return;
    }
    on_isa!(supported, scan_i8(query, query_scale, rows, row_scales, out));
}

fn check_shape(dim: usize, values: usize, rows: usize) {
    assert_eq!(
        rows.checked_mul(dim),
        Some(values),
        "a scan of {rows} rows with a query of {dim} needs that many values per row, not {values} in all"
    );
}
