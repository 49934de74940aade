//! MaxSim against its formula, over vectors as they are and over codes.

use proptest::collection::vec;
use proptest::prelude::*;
use topshelf_kernels::attention::{pack_keys, packed_keys_len};
use topshelf_kernels::max_sim::residual::{
    self, Bits, Codebook, max_sim_residual, max_sim_residual_with,
};
use topshelf_kernels::max_sim::rounded::{self, Queries, Scratch, max_sim_i8, max_sim_i8_with};
use topshelf_kernels::max_sim::{f16, f16::max_sim_f16};
use topshelf_kernels::rows::quantise_centred_rows;
use topshelf_kernels::{Isa, max_sim, max_sim_with};

use super::reference;
use super::support::{fused, on_every_isa};

#[derive(Debug, Clone)]
struct Case {
    dimension: usize,
    queries: Vec<f32>,
    vectors: Vec<f32>,
}

fn case() -> impl Strategy<Value = Case> {
    let dimension = prop_oneof![1_usize..=40, Just(96_usize), Just(128)];
    (dimension, 0_usize..=30, 0_usize..=100).prop_flat_map(|(dimension, queries, vectors)| {
        (vec(-1.0_f32..1.0, dimension * queries), vec(-1.0_f32..1.0, dimension * vectors))
            .prop_map(move |(queries, vectors)| Case { dimension, queries, vectors })
    })
}

impl Case {
    fn count(&self) -> usize {
        self.vectors.len() / self.dimension
    }

    fn packed(&self) -> Vec<f32> {
        let (count, dimension) = (self.count(), self.dimension);
        let mut packed = vec![f32::NAN; packed_keys_len(count, dimension)];
        pack_keys(&self.vectors, dimension, count, dimension, &mut packed);
        packed
    }
}

on_every_isa! {
    fn each_query_vector_finds_its_best(isa, case in case()) {
        let dimension = case.dimension;
        let packed = case.packed();
        let mut best = vec![f32::NAN; case.queries.len() / dimension];
        let score = max_sim_with(isa, &case.queries, dimension, &packed, case.count(), &mut best);
        prop_assert_eq!(score.to_bits(), best.iter().sum::<f32>().to_bits());
        for (query, &got) in case.queries.chunks_exact(dimension).zip(&best) {
            let of = |row: &[f32]| row.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            let products = case
                .vectors
                .chunks_exact(dimension)
                .map(|vector| reference::product(of(query), of(vector)).value);
            let exact = products.fold(f64::NEG_INFINITY, f64::max);
            let close = (f64::from(got) - exact).abs() <= 1.2e-7 * (dimension * dimension) as f64;
            prop_assert!(close || f64::from(got) == exact, "{isa}: {got} for {exact}");
        }
        if fused(isa) {
            let mut elsewhere = best.clone();
            max_sim(&case.queries, dimension, &packed, case.count(), &mut elsewhere);
            prop_assert_eq!(elsewhere, best, "{}", isa);
        }
    }
}

#[test]
fn a_document_without_vectors_answers_nothing() {
    for isa in Isa::available() {
        let mut best = [0.0; 2];
        let score = max_sim_with(isa, &[1.0; 6], 3, &[], 0, &mut best);
        assert_eq!((score, best), (f32::NEG_INFINITY, [f32::NEG_INFINITY; 2]), "{isa}");
        assert_eq!(max_sim_with(isa, &[], 3, &[], 0, &mut []), 0.0, "{isa}");
    }
}

#[test]
#[should_panic(expected = "blocks for each vector")]
fn too_few_blocks_panic() {
    max_sim(&[1.0; 3], 3, &[0.0; 32], 1, &mut [0.0]);
}

/// Vectors of 8 bits and what they stand for.
#[derive(Debug, Clone)]
struct Coded {
    dimension: usize,
    queries: Vec<f32>,
    codes: Vec<i8>,
    /// Of the documents' vectors, as binary16.
    scales: Vec<u16>,
    stretches: Vec<u16>,
    mean: Vec<f32>,
}

fn codes() -> impl Strategy<Value = Coded> {
    let dimension = prop_oneof![(1_usize..=12).prop_map(|n| 4 * n), Just(96_usize), Just(128)];
    (dimension, 0_usize..=34, 0_usize..=100).prop_flat_map(|(dimension, queries, vectors)| {
        let half = |range: std::ops::Range<f32>| range.prop_map(f16::from_f32);
        (
            vec(-1.0_f32..1.0, dimension * queries),
            vec(any::<i8>(), dimension * vectors),
            vec(half(0.001..0.1), vectors),
            vec(half(-0.5..0.5), vectors),
            vec(-1.0_f32..1.0, dimension),
        )
            .prop_map(move |(queries, codes, scales, stretches, mean)| Coded {
                dimension,
                queries,
                codes,
                scales,
                stretches,
                mean,
            })
    })
}

/// Each query's best, from the integers and the mean; `column` says a vector's scale and norm.
fn exact(
    (queries, mean): (&[f32], &[f32]),
    codes: &[i8],
    column: impl Fn(usize) -> (f32, f32),
) -> Vec<f64> {
    let dimension = mean.len();
    let count = queries.len() / dimension;
    let (mut rounded, mut scales) = (vec![0; queries.len()], vec![0.0; count]);
    quantise_centred_rows((queries, dimension), dimension, &mut rounded, &mut scales);
    let of = |i: usize| {
        let query = &rounded[i * dimension..][..dimension];
        let pairs = queries[i * dimension..].iter().zip(mean);
        let of_mean: f64 = pairs.map(|(&q, &m)| f64::from(q) * f64::from(m)).sum();
        let products = codes.chunks_exact(dimension).enumerate().map(|(j, vector)| {
            let pairs = query.iter().zip(vector);
            let sum: i32 = pairs.map(|(&q, &d)| (i32::from(q) - 128) * i32::from(d)).sum();
            let (scale, norm) = column(j);
            let of_codes = f64::from(sum) * f64::from(scale) * f64::from(scales[i]);
            of_codes + of_mean * f64::from(norm)
        });
        products.fold(f64::NEG_INFINITY, f64::max)
    };
    (0..count).map(of).collect()
}

fn close(got: &[f32], exact: &[f64]) -> bool {
    got.iter().zip(exact).all(|(&got, &exact)| {
        let got = f64::from(got);
        got == exact || (got - exact).abs() <= 1e-5 * exact.abs().max(10.0)
    })
}

on_every_isa! {
    fn integers_give_what_the_formula_says(isa, case in codes()) {
        let Coded { dimension, queries, codes, scales, stretches, mean } = case.clone();
        let rounded = Queries::new(&queries, dimension, &mean);
        let mut packed = vec![0; codes.len()];
        rounded::pack(&codes, dimension, &mut packed);
        let (mut scratch, mut best) = (Scratch::default(), vec![f32::NAN; rounded.count()]);
        let columns = (&scales[..], &stretches[..]);
        let score = max_sim_i8_with(isa, &rounded, &packed, columns, &mut scratch, &mut best);
        prop_assert_eq!(score.to_bits(), best.iter().sum::<f32>().to_bits());
        let column = |j: usize| (f16::to_f32(scales[j]), 1.0 + f16::to_f32(stretches[j]));
        let exact = exact((&queries, &mean), &codes, column);
        prop_assert!(close(&best, &exact), "{isa}: {best:?} for {exact:?}");
        // The scratch space is used again, and no set gives other bits where it multiplies and adds
        // in one rounding.
        if fused(isa) {
            let mut again = best.clone();
            max_sim_i8(&rounded, &packed, &scales, &stretches, &mut scratch, &mut again);
            prop_assert_eq!(again, best, "{}", isa);
        }
    }

    fn centroids_and_looked_up_values_are_added(
        isa,
        case in codes(),
        four in any::<bool>(),
        table in any::<[i8; 16]>(),
        seed in any::<u64>(),
    ) {
        let Coded { dimension, queries, codes: centroids, scales, mean, .. } = case.clone();
        prop_assume!(!scales.is_empty());
        let bits = if four { Bits::Four } else { Bits::Two };
        let any = |i: usize| (seed ^ (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 33;
        let count = seed as usize % 70;
        let ids: Vec<u16> = (0..count).map(|j| (any(j) % scales.len() as u64) as u16).collect();
        let codes: Vec<u8> =
            (0..count * dimension).map(|i| (any(7 * i + 1) % bits.values() as u64) as u8).collect();
        let numbers: Vec<i8> = (0..count * dimension)
            .map(|i| {
                let centroid = centroids[usize::from(ids[i / dimension]) * dimension + i % dimension];
                centroid.saturating_add(table[usize::from(codes[i])])
            })
            .collect();
        let mut in_order = vec![0; codes.len()];
        rounded::pack(&codes, dimension, &mut in_order);
        let mut packed = vec![0; bits.packed_len(codes.len())];
        residual::pack(&in_order, bits, &mut packed);
        let codebook = Codebook { bits, dimension, centroids: &centroids, table: &table, scale: 0.01 };
        let stretches: Vec<u16> =
            (0..count).map(|j| f16::from_f32((any(11 * j) % 100) as f32 / 200.0)).collect();
        let vectors = residual::Vectors { ids: &ids, stretches: &stretches, packed: &packed };
        let rounded = Queries::new(&queries, dimension, &mean);
        let (mut scratch, mut best) = (Scratch::default(), vec![f32::NAN; rounded.count()]);
        for _ in 0..2 {
            max_sim_residual_with(isa, &rounded, &codebook, &vectors, &mut scratch, &mut best);
            let norm = |j: usize| 1.0 + f16::to_f32(stretches[j]);
            let exact = exact((&queries, &mean), &numbers, |j| (0.01 * norm(j), norm(j)));
            prop_assert!(close(&best, &exact), "{isa}: {best:?} for {exact:?}");
        }
        if fused(isa) {
            let mut again = best.clone();
            max_sim_residual(&rounded, &codebook, &vectors, &mut scratch, &mut again);
            prop_assert_eq!(again, best, "{}", isa);
        }
    }
}

proptest! {
    #[test]
    fn halves_are_widened_and_taken_as_they_are(case in case()) {
        let dimension = case.dimension;
        let halves: Vec<f32> =
            case.vectors.iter().map(|&x| f16::to_f32(f16::from_f32(x))).collect();
        let mut packed = vec![0; halves.len()];
        f16::pack(&case.vectors, dimension, &mut packed);
        let (mut scratch, mut best) = (Vec::new(), vec![0.0; case.queries.len() / dimension]);
        let score = max_sim_f16(&case.queries, dimension, &packed, &mut scratch, &mut best);
        let wide = Case { vectors: halves, ..case.clone() };
        let mut expected = best.clone();
        let exact =
            max_sim(&case.queries, dimension, &wide.packed(), wide.count(), &mut expected);
        prop_assert_eq!((score.to_bits(), best), (exact.to_bits(), expected));
    }
}
