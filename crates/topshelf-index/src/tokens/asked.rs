//! A query's vectors, and MaxSim of them with vectors in every form: [`Asked`].

use std::borrow::Cow;

use topshelf_core::TokenVectors;
use topshelf_kernels::attention::{pack_keys, packed_keys_len};
use topshelf_kernels::max_sim;
use topshelf_kernels::max_sim::f16::max_sim_f16;
use topshelf_kernels::max_sim::residual::{Vectors, max_sim_residual};
use topshelf_kernels::max_sim::rounded::{Queries, Scratch, max_sim_i8};

use super::Tier;
use super::codebook::Codebook;
use super::file::Stored;

/// A query's vectors and what scoring them needs.
pub(crate) struct Asked<'a> {
    codebook: Option<&'a Codebook>,
    dimension: usize,
    /// As they are compared: reduced, where the index keeps reduced ones.
    values: Cow<'a, [f32]>,
    rounded: Option<Queries>,
    best: Vec<f32>,
    wide: Vec<f32>,
    scratch: Scratch,
}

impl<'a> Asked<'a> {
    /// The query of an index that keeps vectors in that way.
    pub(crate) fn new(
        queries: &'a TokenVectors,
        codebook: Option<&'a Codebook>,
        tier: Tier,
    ) -> Self {
        let values = match codebook.and_then(|book| book.reduction.as_ref()) {
            Some(reduction) if reduction.inputs == queries.dimension => {
                Cow::Owned(reduction.apply(&queries.values))
            }
            _ => Cow::Borrowed(&queries.values[..]),
        };
        let dimension = values.len() / queries.count().max(1);
        let fits = |book: &&Codebook| book.dimension == dimension && tier != Tier::F16;
        let rounded =
            codebook.filter(fits).map(|book| Queries::new(&values, book.dimension, &book.mean));
        Self {
            codebook,
            dimension,
            values,
            rounded,
            best: vec![0.0; queries.count()],
            wide: Vec::new(),
            scratch: Scratch::default(),
        }
    }

    /// The vectors as they are compared.
    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    /// The number of vectors.
    pub(crate) fn count(&self) -> usize {
        self.best.len()
    }

    /// MaxSim with stored vectors; `None` where what is stored is damaged.
    pub(crate) fn of_stored(&mut self, stored: &Stored<'_>) -> Option<f32> {
        let Self { codebook, dimension, values, rounded, best, wide, scratch } = self;
        let numbers = stored.vectors * *dimension;
        let (Some(book), Some(rounded)) = (codebook, rounded.as_ref()) else {
            let fits = stored.halves.len() == numbers;
            return fits.then(|| max_sim_f16(values, *dimension, stored.halves, wide, best));
        };
        let Some(view) = book.view() else {
            let Stored { integers, scales, stretches, .. } = *stored;
            let fits = integers.len() == numbers;
            return fits.then(|| max_sim_i8(rounded, integers, scales, stretches, scratch, best));
        };
        let rows = view.centroids.len() / *dimension;
        let known = stored.ids.iter().all(|id| usize::from(*id) < rows);
        let fits = stored.codes.len() == view.bits.packed_len(numbers) && known;
        let Stored { ids, stretches, codes: packed, .. } = *stored;
        let vectors = Vectors { ids, stretches, packed };
        fits.then(|| max_sim_residual(rounded, &view, &vectors, scratch, best))
    }

    /// MaxSim with vectors that were encoded now.
    pub(crate) fn of_fresh(&mut self, vectors: &TokenVectors) -> f32 {
        let reduction = self.codebook.and_then(|book| book.reduction.as_ref());
        let fresh = match reduction.filter(|own| own.inputs == vectors.dimension) {
            Some(reduction) => Cow::Owned(reduction.apply(&vectors.values)),
            None => Cow::Borrowed(&vectors.values[..]),
        };
        let (count, dimension) = (vectors.count(), self.dimension);
        self.wide.resize(packed_keys_len(count, dimension).max(self.wide.len()), 0.0);
        let packed = &mut self.wide[..packed_keys_len(count, dimension)];
        pack_keys(&fresh, dimension, count, dimension, packed);
        max_sim(&self.values, dimension, packed, count, &mut self.best)
    }
}
