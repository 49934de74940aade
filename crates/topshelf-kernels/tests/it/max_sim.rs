//! MaxSim against its formula.

use proptest::collection::vec;
use proptest::prelude::*;
use topshelf_kernels::attention::{pack_keys, packed_keys_len};
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
