//! One kernel at a time at the shapes of MiniLM-L12, so often as asked: what
//! `scripts/instruction_counts.py` counts the instructions of, and a profiler may look at.
//!
//! ```text
//! work NAME TIMES     runs a kernel        work     names them all
//! ```

use std::hint::black_box;
use std::process::ExitCode;

use topshelf_kernels::attention::{
    OVERREAD, Piece, Queries, attend, int8 as integers, pack_keys, pack_values, packed_keys_len,
    scratch_len,
};
use topshelf_kernels::gemm::{Activation, bf16, f32 as single, grouped, i8 as int8};
use topshelf_kernels::max_sim::residual::{Bits, Codebook, Vectors, max_sim_residual};
use topshelf_kernels::max_sim::rounded;
use topshelf_kernels::rows::{layer_norm, quantise_centred_rows, quantise_u8_rows};
use topshelf_kernels::{max_sim, scan_f32, scan_i8};

/// Rows of a chunk.
const ROWS: usize = 96;

/// The hidden states' width.
const HIDDEN: usize = 384;

/// A kernel with its input, to be run as often as wanted.
type Work = Box<dyn FnMut()>;

/// A kernel's name, and what prepares its input.
type Kernel = (&'static str, fn() -> Work);

const KERNELS: [Kernel; 15] = [
    ("gemm_i8", || gemm_i8(3 * HIDDEN, HIDDEN, Activation::Identity)),
    ("gemm_i8_gelu", || gemm_i8(4 * HIDDEN, HIDDEN, Activation::Gelu)),
    ("gemm_grouped", gemm_grouped),
    ("gemm_bf16", gemm_bf16),
    ("gemm_f32", gemm_f32),
    ("attention", attention),
    ("attention_i8", attention_i8),
    ("layer_norm", norm),
    ("quantise_u8_rows", quantise),
    ("max_sim", late_interaction),
    ("max_sim_i8", late_interaction_i8),
    ("max_sim_4_bits", || late_interaction_residual(Bits::Four)),
    ("max_sim_2_bits", || late_interaction_residual(Bits::Two)),
    ("scan_f32", dense_f32),
    ("scan_i8", dense_i8),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(name) = arguments.next() else {
        for (name, _) in KERNELS {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    };
    let times = arguments.next().and_then(|times| times.parse().ok()).unwrap_or(1_usize);
    let Some((_, prepare)) = KERNELS.iter().find(|(known, _)| *known == name) else {
        eprintln!("no kernel is called {name}; without arguments all are named");
        return ExitCode::FAILURE;
    };
    let mut work = prepare();
    for _ in 0..times {
        work();
    }
    ExitCode::SUCCESS
}

fn gemm_i8(outputs: usize, inputs: usize, activation: Activation) -> Work {
    let weights: Vec<i8> = (0..outputs * inputs).map(|i| (i * 37 % 255) as u8 as i8).collect();
    let mut codes = vec![0; int8::packed_len(outputs, inputs)];
    let mut sums = vec![0; int8::padded_outputs(outputs)];
    int8::pack(&weights, outputs, inputs, &mut codes, &mut sums);
    let (scales, bias) = (vec![0.01; outputs], vec![0.1; outputs]);
    let rows: Vec<u8> = (0..ROWS * inputs).map(|i| (i * 53 % 256) as u8).collect();
    let mut out = vec![0.0; ROWS * outputs];
    Box::new(move || {
        let rows =
            int8::Rows { codes: &rows, stride: inputs, scales: &[0.01; ROWS], zeros: &[100; ROWS] };
        let weights = int8::Weights {
            outputs,
            inputs,
            codes: &codes,
            scales: &scales,
            sums: &sums,
            bias: &bias,
        };
        int8::gemm_i8(rows, &weights, activation, &mut out, outputs);
        black_box(&out);
    })
}

fn gemm_grouped() -> Work {
    let mut codes = vec![0; grouped::codes_len(HIDDEN, HIDDEN)];
    let mut scales = vec![0.0; grouped::scales_len(HIDDEN, HIDDEN)];
    let mut sums = vec![0; grouped::scales_len(HIDDEN, HIDDEN)];
    grouped::pack(&wave(HIDDEN * HIDDEN), HIDDEN, 0, &mut codes, &mut scales, &mut sums);
    let rows = wave(ROWS * HIDDEN);
    let mut row_codes = vec![0; ROWS * HIDDEN];
    let mut row_scales = vec![0.0; ROWS * grouped::groups(HIDDEN)];
    let (bias, mut out) = (vec![0.1; HIDDEN], vec![0.0; ROWS * HIDDEN]);
    Box::new(move || {
        grouped::quantise(&rows, HIDDEN, &mut row_codes, &mut row_scales);
        let weights = grouped::Weights {
            outputs: HIDDEN,
            inputs: HIDDEN,
            codes: &codes,
            scales: &scales,
            sums: &sums,
            bias: &bias,
        };
        let rows = grouped::Rows { codes: &row_codes, scales: &row_scales };
        grouped::gemm_grouped(rows, &weights, Activation::Identity, &mut out, HIDDEN);
        black_box(&out);
    })
}

fn gemm_bf16() -> Work {
    let mut packed = vec![0; bf16::packed_len(HIDDEN, HIDDEN)];
    bf16::pack(&wave(HIDDEN * HIDDEN), HIDDEN, HIDDEN, &mut packed);
    let rows: Vec<u16> = wave(ROWS * HIDDEN).into_iter().map(bf16::to_bf16).collect();
    let mut out = vec![0.0; ROWS * HIDDEN];
    Box::new(move || {
        let rows = bf16::Rows { count: ROWS, values: &rows, stride: HIDDEN };
        let weights = bf16::Weights {
            outputs: HIDDEN,
            inputs: HIDDEN,
            values: &packed,
            bias: &[0.1; HIDDEN],
        };
        bf16::gemm_bf16(rows, &weights, Activation::Identity, &mut out, HIDDEN);
        black_box(&out);
    })
}

fn gemm_f32() -> Work {
    let mut packed = vec![0.0; single::packed_len(HIDDEN, HIDDEN)];
    single::pack(&wave(HIDDEN * HIDDEN), HIDDEN, HIDDEN, &mut packed);
    let rows = wave(ROWS * HIDDEN);
    let mut out = vec![0.0; ROWS * HIDDEN];
    Box::new(move || {
        let rows = single::Rows { count: ROWS, values: &rows, stride: HIDDEN };
        let weights = single::Weights {
            outputs: HIDDEN,
            inputs: HIDDEN,
            values: &packed,
            bias: &[0.1; HIDDEN],
        };
        single::gemm_f32(rows, &weights, Activation::Gelu, &mut out, HIDDEN);
        black_box(&out);
    })
}

const HEADS: usize = 12;
const DIMENSION: usize = HIDDEN / HEADS;

/// All heads of one sequence, packing included.
fn attention() -> Work {
    let rows = wave(ROWS * HIDDEN);
    let mut keys = vec![0.0; packed_keys_len(ROWS, HIDDEN)];
    let mut values = vec![0.0; ROWS * HIDDEN + OVERREAD];
    let mut scratch = vec![0.0; scratch_len(ROWS)];
    let mut out = vec![0.0; ROWS * HIDDEN];
    Box::new(move || {
        pack_keys(&rows, HIDDEN, ROWS, HIDDEN, &mut keys);
        let of_all = &mut values[..ROWS * HIDDEN];
        pack_values(&rows, HIDDEN, 0..ROWS, (HEADS, DIMENSION), of_all);
        for head in 0..HEADS {
            let first = head * DIMENSION;
            let queries = Queries {
                count: ROWS,
                first: 0,
                dimension: DIMENSION,
                values: &rows[first..],
                stride: HIDDEN,
                scale: 0.18,
                window: None,
                bias: None,
            };
            let piece = Piece {
                count: ROWS,
                keys: &keys[first * 32..],
                key_stride: HIDDEN * 32,
                values: &values[first * ROWS..],
            };
            attend(&queries, &[piece], &mut scratch, &mut out[first..], HIDDEN);
        }
        black_box(&out);
    })
}

/// The same in integers, rounding included.
fn attention_i8() -> Work {
    let rows = wave(ROWS * HIDDEN);
    let mut codes = vec![0; ROWS * HIDDEN];
    let mut row_scales = vec![0.0; ROWS];
    let mut scales = integers::Scales::default();
    let mut keys = vec![0; integers::packed_keys_len(ROWS, HIDDEN)];
    let mut sums = vec![0; ROWS * HEADS];
    let mut values = vec![0; integers::packed_values_len(ROWS, HEADS, DIMENSION)];
    let (mut scratch, mut weights) =
        (vec![0.0; scratch_len(ROWS)], vec![0; integers::weights_len(ROWS)]);
    let mut out = vec![0.0; ROWS * HIDDEN];
    Box::new(move || {
        quantise_centred_rows((&rows, HIDDEN), HIDDEN, &mut codes, &mut row_scales);
        integers::pack_keys(&codes, (HEADS, DIMENSION), &mut keys, &mut sums);
        integers::pack_values(&codes, (HEADS, DIMENSION), 0, ROWS, &mut values);
        scales.clear();
        scales.extend(&row_scales, &row_scales);
        scales.finish();
        for head in 0..HEADS {
            let first = head * DIMENSION;
            let queries = integers::Queries {
                count: ROWS,
                first: 0,
                dimension: DIMENSION,
                codes: &codes[first..],
                stride: HIDDEN,
                scales: &row_scales,
                scale: 0.18,
                window: None,
                bias: None,
            };
            let piece = integers::Piece {
                count: ROWS,
                keys: &keys[first * 32..],
                key_stride: HIDDEN * 32,
                sums: &sums[head * 32..],
                sum_stride: HEADS * 32,
                values: &values[first * ROWS..],
            };
            let space = (&mut scratch[..], &mut weights[..]);
            integers::attend(&queries, &[piece], &scales, space, &mut out[first..], HIDDEN);
        }
        black_box(&out);
    })
}

fn norm() -> Work {
    let (mut rows, residual) = (wave(ROWS * HIDDEN), wave(ROWS * HIDDEN));
    Box::new(move || {
        layer_norm(&mut rows, &residual, &[1.1; HIDDEN], &[0.1; HIDDEN], 1e-12);
        black_box(&rows);
    })
}

fn quantise() -> Work {
    let rows = wave(ROWS * HIDDEN);
    let mut codes = vec![0; ROWS * HIDDEN];
    Box::new(move || {
        let (mut scales, mut zeros) = ([0.0; ROWS], [0; ROWS]);
        quantise_u8_rows(&rows, HIDDEN, (&mut codes, HIDDEN), &mut scales, &mut zeros);
        black_box((&codes, scales, zeros));
    })
}

/// A query of 32 vectors and a passage of 77.
fn late_interaction() -> Work {
    const DIMENSION: usize = 96;
    let (queries, document) = (wave(32 * DIMENSION), wave(77 * DIMENSION));
    let mut packed = vec![0.0; packed_keys_len(77, DIMENSION)];
    pack_keys(&document, DIMENSION, 77, DIMENSION, &mut packed);
    Box::new(move || {
        let mut best = [0.0; 32];
        black_box(max_sim(&queries, DIMENSION, &packed, 77, &mut best));
    })
}

fn late_interaction_i8() -> Work {
    const DIMENSION: usize = 96;
    let queries = rounded::Queries::new(&wave(32 * DIMENSION), DIMENSION, &wave(DIMENSION));
    let codes: Vec<i8> = (0..77 * DIMENSION).map(|i| (i * 37 % 255) as u8 as i8).collect();
    let mut scratch = rounded::Scratch::default();
    Box::new(move || {
        let mut best = [0.0; 32];
        let (scales, stretches) = ([0x2000; 77], [0; 77]);
        black_box(rounded::max_sim_i8(
            &queries,
            &codes,
            &scales,
            &stretches,
            &mut scratch,
            &mut best,
        ));
    })
}

fn late_interaction_residual(bits: Bits) -> Work {
    const DIMENSION: usize = 96;
    let queries = rounded::Queries::new(&wave(32 * DIMENSION), DIMENSION, &wave(DIMENSION));
    let centroids: Vec<i8> = (0..2048 * DIMENSION).map(|i| (i * 37 % 127) as i8).collect();
    let ids: Vec<u16> = (0..77).map(|i| i * 26).collect();
    let codes: Vec<u8> = (0..bits.packed_len(77 * DIMENSION)).map(|i| (i * 53) as u8).collect();
    let mut scratch = rounded::Scratch::default();
    Box::new(move || {
        let mut best = [0.0; 32];
        let codebook = Codebook {
            bits,
            dimension: DIMENSION,
            centroids: &centroids,
            table: &[1; 16],
            scale: 0.01,
        };
        let vectors = Vectors { ids: &ids, stretches: &[0; 77], packed: &codes };
        black_box(max_sim_residual(&queries, &codebook, &vectors, &mut scratch, &mut best));
    })
}

fn dense_f32() -> Work {
    let rows = wave(100 * HIDDEN);
    Box::new(move || {
        let mut out = [0.0; 100];
        scan_f32(&rows[..HIDDEN], &rows, &mut out);
        black_box(out);
    })
}

fn dense_i8() -> Work {
    let rows: Vec<i8> = (0..100 * HIDDEN).map(|i| (i * 37 % 255) as u8 as i8).collect();
    Box::new(move || {
        let mut out = [0.0; 100];
        scan_i8(&rows[..HIDDEN], 0.01, &rows, &[0.01; 100], &mut out);
        black_box(out);
    })
}

/// So many numbers between -1 and 1.
fn wave(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * 0.37).sin()).collect()
}
