//! What the multipliers of this machine reach when nothing else holds them up: [`peak`], against
//! which the share of an encoder is told.
//!
//! A loop of the multiply-add that the products use, on registers alone, with as many independent
//! sums as hide its latency.

use std::hint::black_box;
use std::time::Instant;

use crate::isa::Supported;
use crate::simd::{self, LANES, Operation, Simd};

/// What is multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// u8 by int8, summed in 32 bits.
    Int8,
    /// bf16, summed in f32.
    Bf16,
    /// f32.
    F32,
}

/// Rounds of one measurement.
const ROUNDS: usize = 200_000;

/// Measurements, of which the best counts: others share the machine.
const MEASUREMENTS: usize = 8;

/// 10⁹ operations a second on so many threads at once, a multiplication and an addition counting
/// as two, on the instruction set of this process. It takes some tens of milliseconds.
///
/// # Panics
///
/// If `TOPSHELF_ISA` is wrong (see [`crate::Isa::detect`]).
pub fn peak(numbers: Numbers, threads: usize) -> f64 {
    let supported = Supported::detected();
    let one = || {
        let seconds = (0..MEASUREMENTS).map(|_| {
            let start = Instant::now();
            let products = match numbers {
                Numbers::Int8 => simd::run(supported, Int8),
                Numbers::Bf16 => simd::run_bf16(supported, Bf16),
                Numbers::F32 => simd::run(supported, F32),
            };
            (2 * products) as f64 / start.elapsed().as_secs_f64()
        });
        seconds.fold(0.0, f64::max) / 1e9
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(one)).collect();
        let own = one();
        let others = others
            .into_iter()
            .map(|other| other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        own + others.sum::<f64>()
    })
}

/// Each answers the number of products it has made.
struct Int8;
struct Bf16;
struct F32;

/// Multiplies and adds on a tile of registers, as the products do: [`ROUNDS`] times each of its sums
/// by each of its columns. `$start` is a sum before the first round; the compiler must not know that
/// they are equal, or it would compute one. `$number` makes a sum sixteen f32.
macro_rules! multiply {
    (
        $s:ident,
        $tile:expr,
        columns: $column:expr,
        sums: $start:expr,
        |$sum:ident, $by:ident| $step:expr,
        |$end:ident| $number:expr
    ) => {
        match $tile {
            (12, 2) => multiply!(12, 2, $s, $column, $start, $sum, $by, $step, $end, $number),
            (6, 1) => multiply!(6, 1, $s, $column, $start, $sum, $by, $step, $end, $number),
            (2, 1) => multiply!(2, 1, $s, $column, $start, $sum, $by, $step, $end, $number),
            _ => multiply!(4, 1, $s, $column, $start, $sum, $by, $step, $end, $number),
        }
    };
    (
        $rows:literal, $units:literal, $s:ident, $column:expr, $start:expr, $sum:ident, $by:ident,
        $step:expr, $end:ident, $number:expr
    ) => {{
        let columns = [$column; $units];
        let mut sums = [[$start; $units]; $rows];
        for sum in sums.as_flattened_mut() {
            *sum = $start;
        }
        for _ in 0..ROUNDS {
            for row in &mut sums {
                for ($sum, &$by) in row.iter_mut().zip(&columns) {
                    *$sum = $step;
                }
            }
        }
        let mut all = $s.splat(0.0);
        for &$end in sums.as_flattened() {
            all = $s.add(all, $number);
        }
        black_box($s.sum(all));
        ROUNDS * $rows * $units * LANES
    }};
}

impl Operation for Int8 {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> usize {
        let codes = s.dot_codes(black_box([1, 2, 3, 4]));
        let weights = s.dot_weights(black_box(&[1; 4 * LANES]));
        4 * multiply!(
            s,
            S::TILE_I8,
            columns: weights,
            sums: s.dot(s.dot_zero(), s.dot_codes(black_box([1, 2, 3, 4])), weights),
            |sum, weights| s.dot(*sum, codes, weights),
            |sum| s.to_f32(s.dot_sum(sum))
        )
    }
}

impl Operation for Bf16 {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> usize {
        let a = s.splat_i32(black_box(0x3f80_3f80));
        2 * multiply!(
            s,
            S::TILE_F32,
            columns: s.load_pairs(black_box(&[0x3f80; 2 * LANES])),
            sums: s.splat(black_box(0.0)),
            |sum, column| s.dot_bf16(*sum, a, column),
            |sum| sum
        )
    }
}

impl Operation for F32 {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> usize {
        let a = s.splat(black_box(1.0));
        multiply!(
            s,
            S::TILE_F32,
            columns: s.load(black_box(&[0.5; LANES])),
            sums: s.splat(black_box(0.0)),
            |sum, column| s.fma(a, column, *sum),
            |sum| sum
        )
    }
}
