//! f32 row to int8: symmetric, one scale per row.
//!
//! ```text
//! scale = max|xᵢ| / 127        qᵢ = round(xᵢ / scale)        xᵢ ≈ scale · qᵢ
//! ```
//!
//! Rounding is to nearest, ties to even, as ONNX's QuantizeLinear does. The codes
//! lie in −127..=127 (−128 is not used, so that x and −x have opposite codes), and
//! |xᵢ − scale·qᵢ| ≤ scale/2, up to the rounding of f32. The range is per row and
//! never per batch: a vector's code does not depend on its neighbours.

/// Quantises `row` into `codes` and returns the scale.
///
/// A zero row has scale 0 and codes 0, and so has a row whose scale would fall
/// below the normal f32 range (all values under 127 · [`f32::MIN_POSITIVE`], about
/// 1.5e-36), where the quotient would lose its precision.
///
/// Values are expected to be finite (a debug assertion; callers check where they
/// come from).
///
/// # Panics
/// Where `row` and `codes` differ in length.
///
/// ```
/// let mut codes = [0_i8; 4];
/// let scale = topshelf_kernels::quantise_i8_row(&[254.0, -100.0, 1.0, 3.0], &mut codes);
/// assert_eq!(scale, 2.0);
/// assert_eq!(codes, [127, -50, 0, 2]); // 0.5 and 1.5: ties go to the even code
/// ```
pub fn quantise_i8_row(row: &[f32], codes: &mut [i8]) -> f32 {
    assert_eq!(row.len(), codes.len(), "quantise_i8_row: one code per value is needed");
    debug_assert!(row.iter().all(|x| x.is_finite()), "quantise_i8_row needs finite values");
    let largest = row.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
    let scale = largest / 127.0;
    if scale < f32::MIN_POSITIVE {
        codes.fill(0);
        return 0.0;
    }
    for (code, x) in codes.iter_mut().zip(row) {
        // |x / scale| is at most 127 and a rounding error, which cannot reach 127.5.
        *code = (x / scale).round_ties_even() as i8;
    }
    scale
}
