//! Sixteen lanes as an array, for every machine. No fused multiply-add: without the instruction
//! it would be a call of the C library for each number.

use super::{LANES, Operation, Simd};

#[derive(Clone, Copy)]
pub(crate) struct Portable(());

pub(crate) fn enter<O: Operation>(operation: O) -> O::Output {
    operation.run(Portable(()))
}

#[inline(always)]
fn map<T: Copy, U>(a: [T; LANES], f: impl Fn(T) -> U) -> [U; LANES] {
    a.map(f)
}

#[inline(always)]
fn zip<T: Copy>(a: [T; LANES], b: [T; LANES], f: impl Fn(T, T) -> T) -> [T; LANES] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Portable {
    type F = [f32; LANES];
    type I = [i32; LANES];
    type Dot = [i32; LANES];
    type Codes = [i32; 4];
    type Weights = [[i8; 4]; LANES];

    const TILE_F32: (usize, usize) = (4, 1);
    const TILE_I8: (usize, usize) = (4, 1);

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F {
        *x
    }
    #[inline(always)]
    fn store(self, v: Self::F, out: &mut [f32; LANES]) {
        *out = v;
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        map(a, f32::round_ties_even)
    }
    #[inline(always)]
    fn pow2(self, n: Self::F) -> Self::F {
        map(n, |n| f32::from_bits(((n as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    fn store_u8(self, v: Self::F, out: &mut [u8; LANES]) {
        *out = map(v, |x| x.round_ties_even() as u8);
    }
    #[inline(always)]
    fn store_u16(self, v: [Self::F; 2], out: &mut [u8; 4 * LANES]) {
        for (four, out) in
            v.as_flattened().as_chunks::<4>().0.iter().zip(out.as_chunks_mut::<8>().0)
        {
            let [a, b, c, d] = four.map(|x| (x.round_ties_even() as u16).to_le_bytes());
            *out = [a[0], b[0], c[0], d[0], a[1], b[1], c[1], d[1]];
        }
    }
    #[inline(always)]
    fn load_i32(self, x: &[i32; LANES]) -> Self::I {
        *x
    }
    #[inline(always)]
    fn splat_i32(self, x: i32) -> Self::I {
        [x; LANES]
    }
    #[inline(always)]
    fn sub_i32(self, a: Self::I, b: Self::I) -> Self::I {
        zip(a, b, i32::wrapping_sub)
    }
    #[inline(always)]
    fn mul_i32(self, a: Self::I, b: Self::I) -> Self::I {
        zip(a, b, i32::wrapping_mul)
    }
    #[inline(always)]
    fn to_f32(self, a: Self::I) -> Self::F {
        map(a, |x| x as f32)
    }
    #[inline(always)]
    fn widen_bf16(self, a: Self::I) -> [Self::F; 2] {
        [
            map(a, |x| f32::from_bits((x as u32) << 16)),
            map(a, |x| f32::from_bits(x as u32 & 0xffff_0000)),
        ]
    }
    #[inline(always)]
    fn load_pairs(self, x: &[u16; 2 * LANES]) -> Self::I {
        std::array::from_fn(|i| (u32::from(x[2 * i]) | u32::from(x[2 * i + 1]) << 16) as i32)
    }
    #[inline(always)]
    fn dot_zero(self) -> Self::Dot {
        [0; LANES]
    }
    #[inline(always)]
    fn dot_start(self, sums: Self::I) -> Self::Dot {
        sums
    }
    #[inline(always)]
    fn dot_codes(self, codes: [u8; 4]) -> Self::Codes {
        codes.map(i32::from)
    }
    #[inline(always)]
    fn dot_weights(self, weights: &[i8; 4 * LANES]) -> Self::Weights {
        std::array::from_fn(|i| std::array::from_fn(|j| weights[4 * i + j]))
    }
    #[inline(always)]
    fn dot(self, sum: Self::Dot, codes: Self::Codes, weights: Self::Weights) -> Self::Dot {
        std::array::from_fn(|i| {
            let w = weights[i].map(i32::from);
            let products = codes[0] * w[0] + codes[1] * w[1] + codes[2] * w[2] + codes[3] * w[3];
            sum[i].wrapping_add(products)
        })
    }
    #[inline(always)]
    fn dot_sum(self, sum: Self::Dot) -> Self::I {
        sum
    }
}
