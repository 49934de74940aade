//! The register tile of products: `ROWS` rows by `UNITS` vectors of sixteen columns.
//!
//! In f32 each element is one chain of multiply-adds over the depth in ascending order, so it has the
//! same bits however rows and columns are cut into tiles. In int8 sums are exact.

#![allow(unsafe_code)]

use crate::simd::{LANES, Simd};

/// Cuts `$count` rows into tiles of the given heights, ascending, the last one the usual. What is
/// left at the end goes into the lowest tile that holds it and reaches back over rows that are
/// done already: they are computed again, to the same bits, which is cheaper than tiles too low
/// to keep the multipliers busy.
macro_rules! cover {
    ($count:expr, [$($height:literal),*], |$row:ident, $rows:ident| $tile:expr) => {{
        let count: usize = $count;
        let highest = { let heights = [$($height),*]; heights[heights.len() - 1] };
        let mut next = 0;
        while next < count {
            let left = count - next;
            $(
                // The usual height, or the lowest that holds the rest and is not beyond the rows.
                if (left >= highest && $height == highest)
                    || (left < highest && left <= $height && $height <= count)
                {
                    const $rows: usize = $height;
                    let $row = if left < $height { count - $height } else { next };
                    $tile;
                    next = $row + $height;
                    continue;
                }
            )*
            // Too few rows for a tile that would hold them all.
            {
                const $rows: usize = 2;
                let $row = next;
                $tile;
            }
            next += 2;
        }
    }};
}
pub(crate) use cover;

/// Runs `$tile` over `$count` rows in tiles of the shape `$shape`, one of [`Simd::TILE_F32`] and
/// [`Simd::TILE_I8`]: `$rows` and `$units` are constants in it, the tile's rows and its vectors of
/// columns, `$row` is the first row.
macro_rules! in_tiles {
    ($shape:expr, $count:expr, |$row:ident, $rows:ident, $units:ident| $tile:expr) => {
        match $shape {
            (12, 2) => {
                const $units: usize = 2;
                cover!($count, [1, 2, 4, 6, 8, 12], |$row, $rows| $tile);
            }
            (6, 1) => {
                const $units: usize = 1;
                cover!($count, [1, 2, 4, 6], |$row, $rows| $tile);
            }
            (2, 1) => {
                const $units: usize = 1;
                cover!($count, [1, 2], |$row, $rows| $tile);
            }
            _ => {
                const $units: usize = 1;
                cover!($count, [1, 2, 4], |$row, $rows| $tile);
            }
        }
    };
}
pub(crate) use in_tiles;

/// Adds `Σ_d a[r][d] · b[d][column]` for d in `0..depth` to each sum.
///
/// # Safety
///
/// `a` is valid for reads at `r · a_stride + d`, `b` at `d · b_stride + column`, for all r below
/// `ROWS`, d below `depth` and columns below `UNITS` · 16.
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, const ROWS: usize, const UNITS: usize>(
    s: S,
    (a, a_stride): (*const f32, usize),
    (b, b_stride): (*const f32, usize),
    depth: usize,
    mut sums: [[S::F; UNITS]; ROWS],
) -> [[S::F; UNITS]; ROWS] {
    let (mut a, mut b) = (a, b);
    for _ in 0..depth {
        // SAFETY: within what the caller vouches for.
        unsafe {
            let columns: [S::F; UNITS] =
                std::array::from_fn(|u| s.load(&*b.add(u * LANES).cast::<[f32; LANES]>()));
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = s.splat(*a.add(r * a_stride));
                for (sum, &column) in sums.iter_mut().zip(&columns) {
                    *sum = s.fma(x, column, *sum);
                }
            }
            a = a.add(1);
            b = b.add(b_stride);
        }
    }
    sums
}

/// Adds `Σ_i codes[r][i] · weights[i][column]` over `fours` groups of four i to each sum. From one
/// group of codes to the next it is `STEP` bytes.
///
/// # Safety
///
/// `codes` is valid for reads at `r · stride + i / 4 · STEP + i % 4`, `weights` at
/// `(i / 4 · panel + column) · 4 + i % 4`, for all r below `ROWS`, i below 4 · `fours` and columns
/// below `UNITS` · 16.
#[inline(always)]
pub(crate) unsafe fn dot_tile<S: Simd, const ROWS: usize, const UNITS: usize, const STEP: usize>(
    s: S,
    (codes, stride): (*const u8, usize),
    (weights, panel): (*const i8, usize),
    fours: usize,
    mut sums: [[S::Dot; UNITS]; ROWS],
) -> [[S::Dot; UNITS]; ROWS] {
    let (mut codes, mut weights) = (codes, weights);
    for _ in 0..fours {
        // SAFETY: within what the caller vouches for.
        unsafe {
            let columns: [S::Weights; UNITS] = std::array::from_fn(|u| {
                s.dot_weights(&*weights.add(u * LANES * 4).cast::<[i8; 4 * LANES]>())
            });
            for (r, sums) in sums.iter_mut().enumerate() {
                let four = s.dot_codes(*codes.add(r * stride).cast::<[u8; 4]>());
                for (sum, &column) in sums.iter_mut().zip(&columns) {
                    *sum = s.dot(*sum, four, column);
                }
            }
            codes = codes.add(STEP);
            weights = weights.add(panel * 4);
        }
    }
    sums
}
