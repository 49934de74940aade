//! The first stage by meaning: [`DenseRetriever`].
//!
//! The query's vector against the vectors of all passages, by cosine (vectors have unit length).
//! Every vector is looked at, at the speed of memory, unless the index has a neighbour graph
//! (see [`crate::graph`]); then the graph answers for the vectors it covers and the others are
//! scanned. A filter that lets few passages through is answered by the scan in either case,
//! because a graph walk would mostly visit what the filter drops.

use std::sync::Arc;

use async_trait::async_trait;
use topshelf_core::{Call, EmbedKind, Embedder, Query, Ranking, Retriever, Scale};
use topshelf_kernels::{quantise_i8_row, scan_f32, scan_i8, top_k};

use crate::error::{IndexError, Result};
use crate::index::{Index, Inner};
use crate::mask::Mask;
use crate::vectors::{Rows, Vectors};

/// The name of this stage.
pub const STAGE: &str = "dense";

/// With a graph, a filter that passes fewer than one in this many is answered by the scan.
const SELECTIVE: usize = 10;

/// Cosine search over an index.
pub struct DenseRetriever {
    index: Index,
    embedder: Arc<dyn Embedder>,
}

impl DenseRetriever {
    pub(crate) fn new(index: Index, embedder: Arc<dyn Embedder>) -> Self {
        Self { index, embedder }
    }
}

/// The best `depth` passages for a query with that vector.
fn ranking(
    index: &Index,
    query: &Query,
    vector: &[f32],
    depth: usize,
) -> topshelf_core::Result<Ranking> {
    let stage = |error: IndexError| error.into_stage(STAGE);
    let found = nearest(index, query, vector, depth).map_err(stage)?;
    let mut passages = Vec::with_capacity(found.len());
    for (key, score) in found {
        let passage = index.passage_by_key(key).map_err(stage)?;
        let passage = passage.ok_or_else(|| {
            stage(IndexError::Damaged {
                path: index.inner.dir.clone(),
                reason: format!("the vector with key {key} has no passage"),
            })
        })?;
        passages.push((passage, score));
    }
    Ranking::new(STAGE, Scale::Cosine, passages)
}

/// The nearest keys that satisfy the query's filter, with their cosines.
fn nearest(index: &Index, query: &Query, vector: &[f32], depth: usize) -> Result<Vec<(u64, f32)>> {
    let inner = &*index.inner;
    let mask = query.filter().map(|filter| index.mask(filter)).transpose()?;
    let selective = mask
        .as_ref()
        .is_some_and(|mask| mask.passing() * SELECTIVE < inner.state.totals.passages as usize);
    let keep = |key: u64| {
        !is_removed(inner, key) && mask.as_deref().is_none_or(|mask: &Mask| mask.passes_key(key))
    };
    if selective {
        Ok(exact(inner, vector, depth, &keep))
    } else {
        search(inner, vector, depth, &keep)
    }
}

/// Whether the passage with that key is no more.
pub(crate) fn is_removed(inner: &Inner, key: u64) -> bool {
    let removed = &inner.state.removed;
    let after = removed.partition_point(|range| range.start <= key);
    after > 0 && removed[after - 1].contains(&key)
}

/// The nearest keys with their cosines: by the graph where there is one, by scan elsewhere.
pub(crate) fn search(
    inner: &Inner,
    vector: &[f32],
    depth: usize,
    keep: &(dyn Fn(u64) -> bool + Sync),
) -> Result<Vec<(u64, f32)>> {
    let (Some(graph), Some(file)) = (&inner.graph, &inner.state.graph) else {
        return Ok(exact(inner, vector, depth, keep));
    };
    let found = graph.search(vector, depth, keep)?;
    let mut found = rescore(inner, vector, &found);
    for vectors in &inner.vectors {
        found.extend(scan(vectors, vector, depth, file.up_to, keep));
    }
    best(&mut found, depth);
    Ok(found)
}

/// The nearest keys with their cosines, by looking at every vector.
pub(crate) fn exact(
    inner: &Inner,
    vector: &[f32],
    depth: usize,
    keep: &dyn Fn(u64) -> bool,
) -> Vec<(u64, f32)> {
    let mut found = Vec::new();
    for vectors in &inner.vectors {
        found.extend(scan(vectors, vector, depth, 0, keep));
    }
    best(&mut found, depth);
    found
}

/// Keeps the best, equal scores by key.
fn best(found: &mut Vec<(u64, f32)>, depth: usize) {
    found.sort_unstable_by(|left, right| right.1.total_cmp(&left.1).then(left.0.cmp(&right.0)));
    found.truncate(depth);
}

/// The nearest of a file's vectors with keys from `from` on.
fn scan(
    vectors: &Vectors,
    query: &[f32],
    depth: usize,
    from: u64,
    keep: &dyn Fn(u64) -> bool,
) -> Vec<(u64, f32)> {
    let first = vectors.row_from(from);
    let keys = &vectors.keys()[first..];
    let mut scores = vec![0.0; keys.len()];
    score_rows(vectors.rows().range(first..vectors.len(), query.len()), query, &mut scores);
    let rows = top_k(&scores, depth, |row| keep(keys[row]));
    rows.into_iter().map(|(row, score)| (keys[row], score)).collect()
}

fn score_rows(rows: Rows<'_>, query: &[f32], scores: &mut [f32]) {
    match rows {
        Rows::Int8 { rows, scales } => {
            let mut integers = vec![0; query.len()];
            let scale = quantise_i8_row(query, &mut integers);
            scan_i8(&integers, scale, rows, scales, scores);
        }
        Rows::F32(rows) => scan_f32(query, rows, scores),
    }
}

/// Each key with the score that the scan would give it; keys without a vector are left out.
fn rescore(inner: &Inner, query: &[f32], found: &[u64]) -> Vec<(u64, f32)> {
    let rescored = found.iter().filter_map(|key| {
        let place = |vectors: &Vectors| vectors.keys().binary_search(key).ok();
        let (vectors, row) = inner.vectors.iter().find_map(|v| Some((v, place(v)?)))?;
        let mut score = [0.0];
        score_rows(vectors.rows().range(row..row + 1, query.len()), query, &mut score);
        Some((*key, score[0]))
    });
    rescored.collect()
}

#[async_trait]
impl Retriever for DenseRetriever {
    fn name(&self) -> &str {
        STAGE
    }

    async fn retrieve(
        &self,
        call: &Call,
        query: &Query,
        depth: usize,
    ) -> topshelf_core::Result<Ranking> {
        let embedded = self.embedder.embed(call, EmbedKind::Query, &[query.text()]).await?;
        if let Some(own) = &self.index.settings().embedder {
            own.check(1, &embedded)?;
        }
        let vector = embedded.into_iter().next().unwrap_or_default();
        let (index, query) = (self.index.clone(), query.clone());
        let search = move || ranking(&index, &query, &vector, depth);
        self.index.search(STAGE, call, search).await
    }
}
