//! The inner products as their formula says, for the tests to compare with: f32 in
//! double precision, int8 in i64. Nothing else calls them.

/// Σ aᵢ·bᵢ in f64, from left to right; the products of f32 values are exact in it.
/// Stops at the end of the shorter vector.
pub fn dot_f32(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
}

/// Σ aᵢ·bᵢ in i64: exact. Stops at the end of the shorter vector.
pub fn dot_i8(a: &[i8], b: &[i8]) -> i64 {
    a.iter().zip(b).map(|(&x, &y)| i64::from(x) * i64::from(y)).sum()
}
