//! Attention against its formula; a row's bits do not depend on how keys and rows are cut.

use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;
use topshelf_kernels::Isa;
use topshelf_kernels::attention::{
    BLOCK, OVERREAD, Piece, Queries, attend_with, pack_keys, pack_values, packed_keys_len,
    scratch_len,
};

use super::reference;
use super::support::{fused, on_every_isa};

/// Marks what must not be written.
const CANARY: f32 = -1.0e30;

/// A sequence with all its heads side by side in each row.
#[derive(Debug, Clone)]
struct Case {
    heads: usize,
    dimension: usize,
    length: usize,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    window: Option<usize>,
    bias: Option<Vec<f32>>,
    /// Where the keys are cut, in blocks.
    cuts: Vec<usize>,
}

fn case() -> impl Strategy<Value = Case> {
    let dimension = prop_oneof![1_usize..=40, Just(16_usize), Just(32), Just(64),];
    let length = prop_oneof![1_usize..=40, 1_usize..=140, Just(32_usize), Just(64)];
    (1_usize..=3, dimension, length, prop::option::of(0_usize..=40)).prop_flat_map(
        |(heads, dimension, length, window)| {
            let hidden = length * heads * dimension;
            (
                vec(-2.0_f32..2.0, hidden),
                vec(-2.0_f32..2.0, hidden),
                vec(-2.0_f32..2.0, hidden),
                prop::option::of(vec(-3.0_f32..3.0, length * length)),
                vec(1_usize..5, 0..3),
            )
                .prop_map(move |(queries, keys, values, bias, cuts)| Case {
                    heads,
                    dimension,
                    length,
                    queries,
                    keys,
                    values,
                    window,
                    bias,
                    cuts,
                })
        },
    )
}

impl Case {
    fn hidden(&self) -> usize {
        self.heads * self.dimension
    }

    fn scale(&self) -> f32 {
        1.0 / (self.dimension as f32).sqrt()
    }

    /// The sequence cut at blocks.
    fn pieces(&self, cuts: &[usize]) -> Vec<Range<usize>> {
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts {
            let to = (from + cut * BLOCK).min(self.length);
            if to < self.length {
                pieces.push(from..to);
                from = to;
            }
        }
        pieces.push(from..self.length);
        pieces
    }

    /// The rows `which` of all heads, side by side; the keys cut as told.
    fn run(&self, isa: Isa, which: Range<usize>, cuts: &[usize]) -> Vec<f32> {
        if which.is_empty() {
            return Vec::new();
        }
        let hidden = self.hidden();
        let pieces = self.pieces(cuts);
        let packed: Vec<(usize, Vec<f32>, Vec<f32>)> = pieces
            .into_iter()
            .map(|piece| {
                let count = piece.len();
                let mut keys = vec![f32::NAN; packed_keys_len(count, hidden)];
                pack_keys(&self.keys[piece.start * hidden..], hidden, count, hidden, &mut keys);
                let mut values = vec![f32::NAN; count * hidden];
                // In two steps, as two threads would.
                for part in [0..count / 2, count / 2..count] {
                    let rows = &self.values[(piece.start + part.start) * hidden..];
                    let heads = (self.heads, self.dimension);
                    pack_values(rows, hidden, part, heads, &mut values);
                }
                values.extend([f32::NAN; OVERREAD]);
                (count, keys, values)
            })
            .collect();
        let mut out = vec![CANARY; which.len() * hidden];
        let mut scratch = vec![f32::NAN; scratch_len(self.length)];
        for head in 0..self.heads {
            let first = head * self.dimension;
            let of_head: Vec<Piece<'_>> = packed
                .iter()
                .map(|(count, keys, values)| Piece {
                    count: *count,
                    keys: keys.get(first * BLOCK..).unwrap_or(&[]),
                    key_stride: hidden * BLOCK,
                    values: &values[first * count..][..count * self.dimension + OVERREAD],
                })
                .collect();
            let queries = Queries {
                count: which.len(),
                first: which.start,
                dimension: self.dimension,
                values: &self.queries[which.start * hidden + first..],
                stride: hidden,
                scale: self.scale(),
                window: self.window,
                bias: self.bias.as_ref().map(|bias| &bias[which.start * self.length..]),
            };
            attend_with(isa, &queries, &of_head, &mut scratch, &mut out[first..], hidden);
        }
        out
    }

    /// Head by head, what row i should be; and the largest of the values that it is made of.
    fn exact(&self, i: usize) -> Vec<f64> {
        let (hidden, dimension) = (self.hidden(), self.dimension);
        let seen = match self.window {
            None => 0..self.length,
            Some(window) => i.saturating_sub(window)..(i + window + 1).min(self.length),
        };
        let mut row = Vec::with_capacity(hidden);
        for head in 0..self.heads {
            let of = |rows: &'_ [f32], j: usize| -> Vec<f64> {
                rows[j * hidden + head * dimension..][..dimension]
                    .iter()
                    .map(|&x| f64::from(x))
                    .collect()
            };
            let query = of(&self.queries, i);
            let scores: Vec<f64> = seen
                .clone()
                .map(|j| {
                    let bias =
                        self.bias.as_ref().map_or(0.0, |b| f64::from(b[i * self.length + j]));
                    reference::product(query.iter().copied(), of(&self.keys, j)).value + bias
                })
                .collect();
            let values: Vec<&[f32]> = seen
                .clone()
                .map(|j| &self.values[j * hidden + head * dimension..][..dimension])
                .collect();
            row.extend(reference::attend(f64::from(self.scale()), &scores, &values));
        }
        row
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

on_every_isa! {
    cases: 96;

    fn attention_is_its_formula(isa, case in case()) {
        let out = case.run(isa, 0..case.length, &case.cuts);
        for i in 0..case.length {
            let got = &out[i * case.hidden()..][..case.hidden()];
            for (got, exact) in got.iter().zip(case.exact(i)) {
                // Values up to 2; scores up to 32 after scaling, with some 2e-6 of rounding.
                prop_assert!(
                    (f64::from(*got) - exact).abs() <= 2e-5,
                    "{isa}: row {i}: {got} for {exact}"
                );
            }
        }
    }

    fn a_row_does_not_depend_on_how_it_is_cut(isa, case in case(), from in 0.0..1.0) {
        let whole = case.run(isa, 0..case.length, &[]);
        prop_assert_eq!(bits(&case.run(isa, 0..case.length, &case.cuts)), bits(&whole), "{}", isa);
        let from = (case.length as f64 * from) as usize;
        let (first, second) = (0..from, from..case.length);
        let mut parts = case.run(isa, first, &case.cuts);
        parts.extend(case.run(isa, second, &[]));
        prop_assert_eq!(bits(&parts), bits(&whole), "{}", isa);
        if fused(isa) {
            let elsewhere = case.run(Isa::detect().expect("a set"), 0..case.length, &[]);
            prop_assert_eq!(bits(&elsewhere), bits(&whole), "{}", isa);
        }
    }

    fn a_query_that_is_not_a_number_spoils_its_own_row(isa, case in case(), at in 0.0..1.0) {
        let whole = case.run(isa, 0..case.length, &[]);
        let at = (case.length as f64 * at) as usize;
        let hidden = case.hidden();
        let mut case = case.clone();
        case.queries[at * hidden..][..hidden].fill(f32::NAN);
        let spoilt = case.run(isa, 0..case.length, &[]);
        for i in 0..case.length {
            let (got, before) = (&spoilt[i * hidden..][..hidden], &whole[i * hidden..][..hidden]);
            if i == at {
                prop_assert!(got.iter().all(|x| x.is_nan()), "{isa}: {got:?}");
            } else {
                prop_assert_eq!(bits(got), bits(before), "{}: row {}", isa, i);
            }
        }
    }
}

/// One key far above the others takes all of the weight, however large the scores.
#[test]
fn large_scores_neither_overflow_nor_vanish() {
    let (dimension, length) = (4, 40);
    let mut keys = vec![-1000.0; length * dimension];
    keys[7 * dimension..][..dimension].fill(1000.0);
    let values = (0..length * dimension).map(|i| i as f32).collect();
    let case = Case {
        heads: 1,
        dimension,
        length,
        queries: vec![1000.0; length * dimension],
        keys,
        values,
        window: None,
        bias: None,
        cuts: Vec::new(),
    };
    for isa in Isa::available() {
        let out = case.run(isa, 0..length, &[]);
        for (i, x) in out.into_iter().enumerate() {
            let value = (28 + i % dimension) as f32;
            assert!((x - value).abs() <= 4e-6, "{isa}: {x} for {value}");
        }
    }
}

#[test]
fn no_queries_are_nothing_to_do() {
    let queries = Queries {
        count: 0,
        first: 0,
        dimension: 3,
        values: &[],
        stride: 3,
        scale: 1.0,
        window: None,
        bias: None,
    };
    for isa in Isa::available() {
        attend_with(isa, &queries, &[], &mut [], &mut [], 3);
    }
}

#[test]
#[should_panic(expected = "only the last piece ends within a block")]
fn a_first_piece_that_ends_within_a_block_panics() {
    let (keys, values) = ([0.0; BLOCK], [0.0; 20 + OVERREAD]);
    let piece = Piece { count: 20, keys: &keys, key_stride: BLOCK, values: &values };
    let queries = Queries {
        count: 1,
        first: 0,
        dimension: 1,
        values: &[1.0],
        stride: 1,
        scale: 1.0,
        window: None,
        bias: None,
    };
    let mut scratch = vec![0.0; scratch_len(40)];
    attend_with(Isa::Portable, &queries, &[piece, piece], &mut scratch, &mut [0.0], 1);
}

/// The same in integers.
mod int8 {
    use topshelf_kernels::attention::int8::{
        Piece, Queries, Scales, attend_with, pack_keys, pack_values, packed_keys_len,
        packed_values_len, weights_len,
    };
    use topshelf_kernels::rows::quantise_centred_rows;

    use super::*;

    fn quantised(rows: &[f32], hidden: usize) -> (Vec<u8>, Vec<f32>) {
        let mut codes = vec![0; rows.len()];
        let mut scales = vec![0.0; rows.len() / hidden];
        quantise_centred_rows((rows, hidden), hidden, &mut codes, &mut scales);
        (codes, scales)
    }

    /// The rows as their codes say.
    fn rounded(rows: &[f32], hidden: usize) -> Vec<f32> {
        let (codes, scales) = quantised(rows, hidden);
        let scale = |i: usize| scales[i / hidden];
        codes.iter().enumerate().map(|(i, &code)| scale(i) * (f32::from(code) - 128.0)).collect()
    }

    /// Heads of whole fours.
    fn fours() -> impl Strategy<Value = Case> {
        case().prop_filter_map("a dimension of whole fours", |mut case| {
            let dimension = case.dimension.next_multiple_of(4);
            let hidden = case.length * case.heads * dimension;
            for rows in [&mut case.queries, &mut case.keys, &mut case.values] {
                *rows = rows.iter().copied().cycle().take(hidden).collect();
            }
            case.dimension = dimension;
            Some(case)
        })
    }

    impl Case {
        fn run_int8(&self, isa: Isa, which: Range<usize>, cuts: &[usize]) -> Vec<f32> {
            if which.is_empty() {
                return Vec::new();
            }
            let (hidden, shape) = (self.hidden(), (self.heads, self.dimension));
            let mut scales = Scales::default();
            scales.clear();
            let pieces: Vec<_> = self
                .pieces(cuts)
                .into_iter()
                .map(|piece| {
                    let of = piece.start * hidden..piece.end * hidden;
                    let (keys, key_scales) = quantised(&self.keys[of.clone()], hidden);
                    let (values, value_scales) = quantised(&self.values[of], hidden);
                    scales.extend(&key_scales, &value_scales);
                    let count = piece.len();
                    let mut blocks = vec![99; packed_keys_len(count, hidden)];
                    let mut sums = vec![99; count.next_multiple_of(BLOCK) * self.heads];
                    pack_keys(&keys, shape, &mut blocks, &mut sums);
                    let mut packed = vec![99; packed_values_len(count, self.heads, self.dimension)];
                    let cut = count / 2 / 4 * 4;
                    let (first, second) = values.split_at(cut * hidden);
                    pack_values(first, shape, 0, count, &mut packed);
                    pack_values(second, shape, cut, count, &mut packed);
                    (count, blocks, sums, packed)
                })
                .collect();
            scales.finish();
            let (queries, query_scales) = quantised(&self.queries, hidden);
            let mut out = vec![CANARY; which.len() * hidden];
            let mut scratch = vec![f32::NAN; scratch_len(self.length)];
            let mut weights = vec![99; weights_len(self.length)];
            for head in 0..self.heads {
                let first = head * self.dimension;
                let of_head: Vec<Piece<'_>> = pieces
                    .iter()
                    .map(|(count, blocks, sums, values)| {
                        let of_values = packed_values_len(*count, 1, self.dimension);
                        Piece {
                            count: *count,
                            keys: &blocks[first * BLOCK..],
                            key_stride: hidden * BLOCK,
                            sums: &sums[head * BLOCK..],
                            sum_stride: self.heads * BLOCK,
                            values: &values[head * of_values..][..of_values],
                        }
                    })
                    .collect();
                let queries = Queries {
                    count: which.len(),
                    first: which.start,
                    dimension: self.dimension,
                    codes: &queries[which.start * hidden + first..],
                    stride: hidden,
                    scales: &query_scales[which.start..],
                    scale: self.scale(),
                    window: self.window,
                    bias: self.bias.as_ref().map(|bias| &bias[which.start * self.length..]),
                };
                let space = (&mut scratch[..], &mut weights[..]);
                attend_with(isa, &queries, &of_head, &scales, space, &mut out[first..], hidden);
            }
            out
        }
    }

    on_every_isa! {
        cases: 96;

        fn attention_is_its_formula(isa, case in fours()) {
            let out = case.run_int8(isa, 0..case.length, &case.cuts);
            let hidden = case.hidden();
            let exact = Case {
                queries: rounded(&case.queries, hidden),
                keys: rounded(&case.keys, hidden),
                values: rounded(&case.values, hidden),
                ..case.clone()
            };
            for i in 0..case.length {
                let got = &out[i * hidden..][..hidden];
                for (got, exact) in got.iter().zip(exact.exact(i)) {
                    // As in f32, and each of the keys' weights is off by half of 1/65535 at most.
                    let tolerance = 2e-5 + 2.0 * 8e-6 * case.length as f64;
                    prop_assert!(
                        (f64::from(*got) - exact).abs() <= tolerance,
                        "{isa}: row {i}: {got} for {exact}"
                    );
                }
            }
        }

        fn a_row_does_not_depend_on_how_it_is_cut(isa, case in fours(), from in 0.0..1.0) {
            let whole = case.run_int8(isa, 0..case.length, &[]);
            let cut = case.run_int8(isa, 0..case.length, &case.cuts);
            prop_assert_eq!(bits(&cut), bits(&whole), "{}", isa);
            let from = (case.length as f64 * from) as usize;
            let mut parts = case.run_int8(isa, 0..from, &case.cuts);
            parts.extend(case.run_int8(isa, from..case.length, &[]));
            prop_assert_eq!(bits(&parts), bits(&whole), "{}", isa);
            if fused(isa) {
                let best = Isa::detect().expect("a set");
                let elsewhere = case.run_int8(best, 0..case.length, &[]);
                prop_assert_eq!(bits(&elsewhere), bits(&whole), "{}", isa);
            }
        }

        fn a_query_that_is_not_a_number_spoils_its_own_row(isa, case in fours(), at in 0.0..1.0) {
            let whole = case.run_int8(isa, 0..case.length, &[]);
            let at = (case.length as f64 * at) as usize;
            let hidden = case.hidden();
            let mut case = case.clone();
            case.queries[at * hidden] = f32::NAN;
            let spoilt = case.run_int8(isa, 0..case.length, &[]);
            for i in 0..case.length {
                let (got, before) = (&spoilt[i * hidden..][..hidden], &whole[i * hidden..][..hidden]);
                if i == at {
                    prop_assert!(got.iter().all(|x| x.is_nan()), "{isa}: {got:?}");
                } else {
                    prop_assert_eq!(bits(got), bits(before), "{}: row {}", isa, i);
                }
            }
        }
    }

    #[test]
    fn a_value_that_is_not_a_number_is_seen_in_the_result() {
        let case = Case {
            heads: 1,
            dimension: 4,
            length: 2,
            queries: vec![1.0; 8],
            keys: vec![1.0; 8],
            values: vec![1.0, 1.0, 1.0, 1.0, 1.0, f32::INFINITY, 1.0, 1.0],
            window: None,
            bias: None,
            cuts: Vec::new(),
        };
        for isa in Isa::available() {
            let out = case.run_int8(isa, 0..2, &[]);
            assert!(out.iter().all(|x| x.is_nan()), "{isa}: {out:?}");
        }
    }

    #[test]
    fn values_of_zeros_give_zeros() {
        let case = Case {
            heads: 1,
            dimension: 4,
            length: 3,
            queries: vec![1.0; 12],
            keys: vec![1.0; 12],
            values: vec![0.0; 12],
            window: None,
            bias: None,
            cuts: Vec::new(),
        };
        for isa in Isa::available() {
            assert_eq!(case.run_int8(isa, 0..3, &[]), [0.0; 12], "{isa}");
        }
    }
}
