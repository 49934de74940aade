//! How good the neighbour graph is: [`recall`] of what it finds against the exact scan.
//!
//! Stored vectors serve as queries, evenly spread over the index; each finds itself, which would
//! flatter the figure, so it is left out of both lists.

use serde::Serialize;

use crate::dense::{exact, is_removed, search};
use crate::error::Result;
use crate::index::Index;

/// Recall of approximate search.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Recall {
    /// Vectors that were searched for.
    pub queries: usize,
    /// How many neighbours were compared.
    pub depth: usize,
    /// The mean share of the exact neighbours that the graph finds too, 0 to 1.
    pub mean: f64,
    /// The smallest share of one query.
    pub worst: f64,
}

/// Compares the graph's answers with the exact scan's for up to `queries` stored vectors;
/// `None` if the index has no graph and so every search is exact.
///
/// # Errors
///
/// What searching answers.
pub fn recall(index: &Index, queries: usize, depth: usize) -> Result<Option<Recall>> {
    let inner = &*index.inner;
    if inner.graph.is_none() {
        return Ok(None);
    }
    let rows: usize = inner.vectors.iter().map(crate::vectors::Vectors::len).sum();
    let step = rows.div_ceil(queries.max(1)).max(1);
    let all = inner.vectors.iter().flat_map(|file| (0..file.len()).map(move |row| (file, row)));
    let (mut sum, mut worst, mut asked) = (0.0, 1.0_f64, 0);
    for (file, row) in all.step_by(step) {
        let own = file.keys()[row];
        if is_removed(inner, own) {
            continue;
        }
        let vector = file.vector(row);
        let keep = |key: u64| key != own && !is_removed(inner, key);
        let right = exact(inner, &vector, depth, &keep);
        let found = search(inner, &vector, depth, &keep)?;
        let hits = right.iter().filter(|(key, _)| found.iter().any(|(other, _)| other == key));
        let share = if right.is_empty() { 1.0 } else { hits.count() as f64 / right.len() as f64 };
        sum += share;
        worst = worst.min(share);
        asked += 1;
    }
    let mean = if asked == 0 { 1.0 } else { sum / f64::from(asked) };
    Ok(Some(Recall { queries: asked as usize, depth, mean, worst }))
}
