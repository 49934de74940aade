//! The scans as their formula says, for the tests to compare with: one
//! [`crate::dot::reference`] per row, in f64. Nothing else calls them.

use crate::dot::reference::{dot_f32, dot_i8};

/// query · rowᵢ in f64, for each row of `query.len()` values.
///
/// # Panics
/// Where the query is empty: the number of rows would be unknown.
pub fn scan_f32(query: &[f32], rows: &[f32]) -> Vec<f64> {
    rows.chunks(query.len()).map(|row| dot_f32(query, row)).collect()
}

/// query_scale · row_scales\[i\] · (query · rowᵢ) in f64, for each row of
/// `query.len()` codes.
///
/// # Panics
/// Where the query is empty: the number of rows would be unknown.
pub fn scan_i8(query: &[i8], query_scale: f32, rows: &[i8], row_scales: &[f32]) -> Vec<f64> {
    rows.chunks(query.len())
        .zip(row_scales)
        .map(|(row, &scale)| f64::from(query_scale) * f64::from(scale) * dot_i8(query, row) as f64)
        .collect()
}
