//! The neighbour graph of a large index: [`Graph`].
//!
//! HNSW (Malkov, Yashunin 2018) by the usearch library, over int8 vectors. It is built once an
//! index has [`DEFAULT_FROM`] passages, because below that the exact scan is fast enough. It
//! covers all keys below a watermark; younger vectors are scanned until they are
//! one in [`REBUILD_SHARE`] and the graph takes them in.
//!
//! Removed passages stay in the graph and are passed over; the recall of the whole against the
//! exact scan is what `topshelf index stats --check` measures.

use std::fs::{self, File};
use std::path::Path;

use usearch::{Index as Usearch, IndexOptions, MetricKind, ScalarKind};

use crate::error::{IndexError, Result};
use crate::vectors::Vectors;

/// Passages from which an index has a graph, unless set otherwise.
pub const DEFAULT_FROM: u64 = 1_000_000;

/// The graph is brought up to date when the vectors outside it are more than one in this many.
pub(crate) const REBUILD_SHARE: usize = 20;

/// Links of a node; usearch's and hnswlib's usual value.
const CONNECTIVITY: usize = 16;

/// Candidates kept while a node is linked in.
const EXPANSION_ADD: usize = 128;

/// The fewest candidates kept while searching; more where more are asked for.
const EXPANSION_SEARCH: usize = 256;

/// A neighbour graph over vectors by key.
pub(crate) struct Graph {
    graph: Usearch,
}

fn fault(error: impl std::fmt::Display) -> IndexError {
    IndexError::Graph { reason: error.to_string() }
}

/// The file name as usearch takes it.
fn utf8(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| fault("its path is not UTF-8; choose another folder"))
}

impl Graph {
    fn new(dimension: usize) -> Result<Self> {
        let options = IndexOptions {
            dimensions: dimension,
            metric: MetricKind::Cos,
            quantization: ScalarKind::I8,
            connectivity: CONNECTIVITY,
            expansion_add: EXPANSION_ADD,
            expansion_search: EXPANSION_SEARCH,
            multi: false,
        };
        Ok(Self { graph: Usearch::new(&options).map_err(fault)? })
    }

    /// Maps the graph for searching.
    pub(crate) fn open(path: &Path, dimension: usize, bytes: u64) -> Result<Self> {
        let metadata = fs::metadata(path).map_err(IndexError::io("cannot open", path))?;
        if metadata.len() != bytes {
            let reason = "its length is wrong".to_owned();
            return Err(IndexError::Damaged { path: path.to_owned(), reason });
        }
        let graph = Self::new(dimension)?;
        graph.graph.view(utf8(path)?).map_err(|error| IndexError::Damaged {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(graph)
    }

    /// Adds the vectors with keys from `from` on, to those of `base` if there is one, and
    /// writes and syncs the result.
    pub(crate) fn build(
        base: Option<&Path>,
        vectors: &[Vectors],
        from: u64,
        dimension: usize,
        path: &Path,
    ) -> Result<()> {
        let built = Self::new(dimension)?;
        if let Some(base) = base {
            built.graph.load(utf8(base)?).map_err(fault)?;
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let rows: Vec<(&Vectors, usize)> = vectors
            .iter()
            .flat_map(|file| (file.row_from(from)..file.len()).map(move |row| (file, row)))
            .collect();
        let capacity = built.graph.size() + rows.len();
        built.graph.reserve_capacity_and_threads(capacity, threads).map_err(fault)?;
        let share = rows.len().div_ceil(threads).max(1);
        let graph = &built.graph;
        std::thread::scope(|scope| {
            let workers: Vec<_> = rows
                .chunks(share)
                .map(|rows| {
                    scope.spawn(move || {
                        rows.iter().try_for_each(|(file, row)| {
                            graph.add(file.keys()[*row], &file.vector(*row)).map_err(fault)
                        })
                    })
                })
                .collect();
            workers.into_iter().try_for_each(|worker| {
                worker.join().unwrap_or_else(|_| Err(fault("a building thread panicked")))
            })
        })?;
        built.graph.save(utf8(path)?).map_err(fault)?;
        let sync = || File::open(path)?.sync_all();
        sync().map_err(IndexError::io("cannot write", path))
    }

    /// Compares the checksum of the file.
    pub(crate) fn verify(path: &Path, crc32: u32) -> Result<()> {
        let bytes = fs::read(path).map_err(IndexError::io("cannot read", path))?;
        if crc32fast::hash(&bytes) == crc32 {
            return Ok(());
        }
        let reason = "its checksum does not match its content".to_owned();
        Err(IndexError::Damaged { path: path.to_owned(), reason })
    }

    pub(crate) fn len(&self) -> usize {
        self.graph.size()
    }

    /// About the `depth` nearest keys that `keep` lets through, with approximate cosines.
    pub(crate) fn search(
        &self,
        vector: &[f32],
        depth: usize,
        keep: &(dyn Fn(u64) -> bool + Sync),
    ) -> Result<Vec<(u64, f32)>> {
        self.graph.change_expansion_search(EXPANSION_SEARCH.max(2 * depth));
        let matches = self.graph.filtered_search(vector, depth, keep).map_err(fault)?;
        let cosines = matches.distances.into_iter().map(|distance| 1.0 - distance);
        Ok(matches.keys.into_iter().zip(cosines).collect())
    }
}
