//! How fast a scan reads memory, per instruction set: 100,000 rows of 384.
//!
//! `cargo bench -p topshelf-kernels`, on an otherwise idle machine. The sets take
//! turns in each round, so that a slow moment of the machine hits them all, and the
//! median round counts. One thread. The int8 matrix is 38 MB and the f32 matrix
//! 154 MB; both pass through the caches between two turns of the same set.

use std::hint::black_box;
use std::time::{Duration, Instant};

use topshelf_kernels::{Isa, quantise_i8_row, scan_f32_with, scan_i8_with, top_k};

const ROWS: usize = 100_000;
const DIM: usize = 384;
const ROUNDS: usize = 15;

fn main() {
    let values = noise(ROWS * DIM);
    let mut codes = vec![0_i8; values.len()];
    let scales: Vec<f32> = values
        .chunks(DIM)
        .zip(codes.chunks_mut(DIM))
        .map(|(row, codes)| quantise_i8_row(row, codes))
        .collect();
    let query = values[..DIM].to_vec();
    let query_codes = codes[..DIM].to_vec();
    let mut out = vec![0.0; ROWS];

    let available = Isa::available();
    let mut i8_times = vec![Vec::new(); available.len()];
    let mut f32_times = vec![Vec::new(); available.len()];
    let mut top_times = Vec::new();
    for _ in 0..ROUNDS {
        for (i, &isa) in available.iter().enumerate() {
            i8_times[i].push(time(|| {
                scan_i8_with(isa, &query_codes, scales[0], &codes, &scales, &mut out);
            }));
            f32_times[i].push(time(|| scan_f32_with(isa, &query, &values, &mut out)));
        }
        top_times.push(time(|| {
            black_box(top_k(&out, 100, |_| true));
        }));
    }

    println!("{ROWS} x {DIM}, median of {ROUNDS} interleaved rounds, one thread");
    println!("{:<12} {:>9} {:>7} {:>9} {:>7}", "isa", "i8 ms", "GB/s", "f32 ms", "GB/s");
    for (i, isa) in available.iter().enumerate() {
        let (i8_ms, i8_rate) = report(&mut i8_times[i], ROWS * DIM);
        let (f32_ms, f32_rate) = report(&mut f32_times[i], ROWS * DIM * 4);
        println!("{:<12} {i8_ms:>9.2} {i8_rate:>7.1} {f32_ms:>9.2} {f32_rate:>7.1}", isa.name());
    }
    let (top_ms, _) = report(&mut top_times, ROWS * 4);
    println!("top_k of 100 in {ROWS} scores: {top_ms:.2} ms");
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// Median milliseconds, and gigabytes (10⁹) read per second at that speed.
fn report(times: &mut [Duration], bytes: usize) -> (f64, f64) {
    times.sort_unstable();
    let seconds = times[times.len() / 2].as_secs_f64();
    (seconds * 1e3, bytes as f64 / seconds / 1e9)
}

/// Reproducible values in −1..1 (a linear congruential generator).
fn noise(len: usize) -> Vec<f32> {
    let mut state = 1_u32;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state as i32 as f32 / 2_147_483_648.0
        })
        .collect()
}
