//! Euclidean length of a vector: ‖x‖ = √(Σ xᵢ²).
//!
//! Numerics: the squares are summed in f64 from left to right, so nothing
//! overflows or underflows on the way, whatever the f32 values, and every machine
//! gives the same bits. The compiler's own code is enough here: this runs once
//! per embedding, which costs thousands of times as much to compute.

/// Scales `vector` to Euclidean length 1, in place, and returns the length it had.
///
/// A zero vector has no direction: it stays zero, and 0 is returned. Each value is
/// the f64 quotient rounded to f32. The returned length is infinite where it
/// exceeds [`f32::MAX`]; the vector is scaled rightly all the same.
///
/// Values are expected to be finite (a debug assertion; callers check where they
/// come from): one NaN or infinity spoils the vector.
///
/// ```
/// let mut v = [3.0, 4.0];
/// assert_eq!(topshelf_kernels::l2_normalise(&mut v), 5.0);
/// assert_eq!(v, [0.6, 0.8]);
/// ```
pub fn l2_normalise(vector: &mut [f32]) -> f32 {
    debug_assert!(vector.iter().all(|x| x.is_finite()), "l2_normalise needs finite values");
    let squares: f64 = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let norm = squares.sqrt();
    if norm > 0.0 {
        for x in vector {
            *x = (f64::from(*x) / norm) as f32;
        }
    }
    norm as f32
}
