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

/// Independent sums: rows and vectors of the tile, as the product has them, in a shape that each
/// instruction set keeps in registers.
macro_rules! on_tile {
    ($tile:expr, $loop:ident) => {
        match $tile {
            (12, 2) => $loop!(12, 2),
            (6, 1) => $loop!(6, 1),
            (2, 1) => $loop!(2, 1),
            _ => $loop!(4, 1),
        }
    };
}

impl Operation for Int8 {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> usize {
        let codes = s.dot_codes(black_box([1, 2, 3, 4]));
        macro_rules! rounds {
            ($rows:literal, $units:literal) => {{
                let weights = [s.dot_weights(black_box(&[1; 4 * LANES])); $units];
                // Sums that the compiler knew to be equal would be computed once.
                let mut sums = [[s.dot_zero(); $units]; $rows];
                for sum in sums.as_flattened_mut() {
                    *sum = s.dot(*sum, s.dot_codes(black_box([1, 2, 3, 4])), weights[0]);
                }
                for _ in 0..ROUNDS {
                    for row in &mut sums {
                        for (sum, &weights) in row.iter_mut().zip(&weights) {
                            *sum = s.dot(*sum, codes, weights);
                        }
                    }
                }
                let mut all = s.splat(0.0);
                for sum in sums.as_flattened() {
                    all = s.add(all, s.to_f32(s.dot_sum(*sum)));
                }
                black_box(s.sum(all));
                ROUNDS * $rows * $units * LANES * 4
            }};
        }
        on_tile!(S::TILE_I8, rounds)
    }
}

impl Operation for Bf16 {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> usize {
        let a = s.splat_i32(black_box(0x3f80_3f80));
        macro_rules! rounds {
            ($rows:literal, $units:literal) => {{
                let columns = [s.load_pairs(black_box(&[0x3f80; 2 * LANES])); $units];
                let mut sums = [[s.splat(0.0); $units]; $rows];
                for sum in sums.as_flattened_mut() {
                    *sum = s.splat(black_box(0.0));
                }
                for _ in 0..ROUNDS {
                    for row in &mut sums {
                        for (sum, &column) in row.iter_mut().zip(&columns) {
                            *sum = s.dot_bf16(*sum, a, column);
                        }
                    }
                }
                let mut all = s.splat(0.0);
                for sum in sums.as_flattened() {
                    all = s.add(all, *sum);
                }
                black_box(s.sum(all));
                ROUNDS * $rows * $units * LANES * 2
            }};
        }
        on_tile!(S::TILE_F32, rounds)
    }
}

impl Operation for F32 {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> usize {
        let a = s.splat(black_box(1.0));
        macro_rules! rounds {
            ($rows:literal, $units:literal) => {{
                let columns = [s.load(black_box(&[0.5; LANES])); $units];
                let mut sums = [[s.splat(0.0); $units]; $rows];
                for sum in sums.as_flattened_mut() {
                    *sum = s.splat(black_box(0.0));
                }
                for _ in 0..ROUNDS {
                    for row in &mut sums {
                        for (sum, &column) in row.iter_mut().zip(&columns) {
                            *sum = s.fma(a, column, *sum);
                        }
                    }
                }
                let mut all = s.splat(0.0);
                for sum in sums.as_flattened() {
                    all = s.add(all, *sum);
                }
                black_box(s.sum(all));
                ROUNDS * $rows * $units * LANES
            }};
        }
        on_tile!(S::TILE_F32, rounds)
    }
}
