//! The loop of `blocks` compiled once per instruction set, around the products of
//! [`crate::dot`] for that set.
//!
//! With R rows per block the query is loaded once for R rows, which pays while the
//! rows come from a cache (int8 with AVX2: 43 GB/s with R = 4, 28 with R = 1).
//! From memory it pays only together with the prefetch: R rows read side by side
//! are R streams to the hardware's own prefetcher, which loses track of them
//! (AVX-512 int8, 384 dimensions: 12 GB/s with R = 4, 24 with R = 1, and 26 with
//! R = 4 and the prefetch, where a plain read of the memory makes 27). So R is 1
//! where there is no prefetch, and otherwise what fits the registers beside the
//! query: 4, or 2 for the 32 partial sums of f32 in 256-bit registers.

macro_rules! stamp {
    ($isa:ident, f32 by $f32_rows:literal, i8 by $i8_rows:literal $(, features $features:literal)?) => {
        pub(super) mod $isa {
            use crate::dot::$isa::{dots_f32, dots_i8};
            use crate::scan::blocks::each_row;

            $(#[target_feature(enable = $features)])?
            pub(in crate::scan) fn scan_f32(query: &[f32], rows: &[f32], out: &mut [f32]) {
                each_row::<_, _, $f32_rows>(
                    rows,
                    query.len(),
                    |block| dots_f32(query, block),
                    |row| dots_f32(query, row),
                    |i, dot| out[i] = dot,
                );
            }

            $(#[target_feature(enable = $features)])?
            pub(in crate::scan) fn scan_i8(
                query: &[i8],
                query_scale: f32,
                rows: &[i8],
                row_scales: &[f32],
                out: &mut [f32],
            ) {
                each_row::<_, _, $i8_rows>(
                    rows,
                    query.len(),
                    |block| dots_i8(query, block),
                    |row| dots_i8(query, row),
                    |i, dot| out[i] = (query_scale * row_scales[i]) * dot as f32,
                );
            }
        }
    };
}

stamp!(portable, f32 by 1, i8 by 1);
#[cfg(target_arch = "x86_64")]
stamp!(avx2, f32 by 2, i8 by 4, features "avx2");
#[cfg(target_arch = "x86_64")]
stamp!(avx_vnni, f32 by 2, i8 by 4, features "avx2,avxvnni");
#[cfg(target_arch = "x86_64")]
stamp!(avx512, f32 by 4, i8 by 4, features "avx512f,avx512bw,avx512dq,avx512vnni");
#[cfg(target_arch = "aarch64")]
stamp!(neon, f32 by 1, i8 by 1, features "neon");
