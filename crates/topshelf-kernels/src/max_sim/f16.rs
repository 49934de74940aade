//! MaxSim over vectors in IEEE 754 binary16: half of f32, and as good as exact for unit vectors (the
//! relative error of a number is at most 2⁻¹¹).
//!
//! **Layout.** Whole blocks of 32 vectors, `block[dimension][32]`, then the vectors that are left in a
//! narrower block of the same form: no padding. A block is widened to f32 and taken as
//! [`max_sim`] takes it.

use super::max_sim;
use crate::attention::{BLOCK, packed_keys_len};

/// The nearest binary16, ties to even; what is too large becomes infinite.
///
/// ```
/// use topshelf_kernels::max_sim::f16::{from_f32, to_f32};
/// assert_eq!(from_f32(1.0), 0x3c00);
/// assert_eq!(to_f32(from_f32(0.1)), 0.099975586);
/// ```
pub fn from_f32(x: f32) -> u16 {
    let bits = x.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return sign | 0x7e00; // not a number
    }
    // Scaled so that a binary16's last place is an integer's, which rounds ties to even.
    let x = f32::from_bits(magnitude);
    if magnitude < 0x3880_0000 {
        // Below 2⁻¹⁴: steps of 2⁻²⁴.
        return sign | (x * 16_777_216.0).round_ties_even() as u16;
    }
    if magnitude >= 0x477f_f000 {
        return sign | 0x7c00; // from 65,520 on
    }
    let rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    sign | ((rounded >> 13) - (112 << 10)) as u16
}

/// The number, exactly.
#[inline(always)]
pub fn to_f32(bits: u16) -> f32 {
    // Exponent and fraction in f32's places, then the exponent's offset made good by a product,
    // which does subnormal numbers, too. Infinity and NaN have the largest exponent.
    let magnitude = u32::from(bits & 0x7fff);
    let value = f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23);
    let value = if magnitude < 0x7c00 { value.to_bits() } else { magnitude << 13 | 0x7f80_0000 };
    f32::from_bits(value | u32::from(bits & 0x8000) << 16)
}

/// Packs rows of `dimension` numbers.
///
/// # Panics
///
/// If `packed` has not a place for each number.
pub fn pack(rows: &[f32], dimension: usize, packed: &mut [u16]) {
    assert_eq!(packed.len(), rows.len(), "a place for each number");
    let blocks = rows.chunks(BLOCK * dimension).zip(packed.chunks_mut(BLOCK * dimension));
    for (rows, block) in blocks {
        let width = rows.len() / dimension;
        for (vector, row) in rows.chunks_exact(dimension).enumerate() {
            for (d, &x) in row.iter().enumerate() {
                block[d * width + vector] = from_f32(x);
            }
        }
    }
}

/// MaxSim of the query vectors, rows of `dimension`, and a document packed by [`pack`]; `best` is
/// filled as by [`max_sim`]. `scratch` is used again from call to call.
///
/// # Panics
///
/// As [`max_sim`].
pub fn max_sim_f16(
    queries: &[f32],
    dimension: usize,
    packed: &[u16],
    scratch: &mut Vec<f32>,
    best: &mut [f32],
) -> f32 {
    let count = packed.len() / dimension;
    let needed = packed_keys_len(count, dimension);
    if scratch.len() < needed {
        scratch.resize(needed, 0.0);
    }
    let blocks = packed.chunks(BLOCK * dimension).zip(scratch.chunks_mut(BLOCK * dimension));
    for (block, wide) in blocks {
        let width = block.len() / dimension;
        if width == BLOCK {
            for (x, &bits) in wide.iter_mut().zip(block) {
                *x = to_f32(bits);
            }
        } else {
            for (column, own) in wide.chunks_exact_mut(BLOCK).zip(block.chunks_exact(width)) {
                column[width..].fill(0.0);
                for (x, &bits) in column.iter_mut().zip(own) {
                    *x = to_f32(bits);
                }
            }
        }
    }
    max_sim(queries, dimension, &scratch[..needed], count, best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_goes_there_and_back() {
        for bits in 0..=u16::MAX {
            let x = to_f32(bits);
            if x.is_nan() {
                assert!(to_f32(from_f32(x)).is_nan());
            } else {
                assert_eq!(from_f32(x), bits, "{x}");
            }
        }
        for (x, bits) in [
            (65_519.0, 0x7bff),
            (65_520.0, 0x7c00),
            (1e9, 0x7c00),
            (-1e-9, 0x8000),
            (0.333_251_95, 0x3555),
            (5.960_464_5e-8, 1),
        ] {
            assert_eq!(from_f32(x), bits, "{x}");
        }
    }

    #[test]
    fn between_two_halves_the_nearer_is_taken_and_of_two_the_even() {
        for bits in (0..0x7bff_u16).step_by(7) {
            let (low, high) = (to_f32(bits), to_f32(bits + 1));
            let middle = f32::midpoint(low, high);
            assert_eq!(from_f32(middle), if bits % 2 == 0 { bits } else { bits + 1 });
            assert_eq!(from_f32(f32::midpoint(low, middle)), bits);
            assert_eq!(from_f32(f32::midpoint(middle, high)), bits + 1);
        }
    }
}
