//! The neighbour graph of a large index: `Graph`.
//!
//! HNSW (Malkov, Yashunin 2018) by the usearch library, over int8 vectors. It is built once an
//! index has [`DEFAULT_FROM`] passages, because below that the exact scan is fast enough. It
//! covers all keys below a watermark; younger vectors are scanned until they are
//! one in `REBUILD_SHARE` and the graph takes them in.
//!
//! Removed passages stay in the graph and are passed over; the recall of the whole against the
//! exact scan is what `topshelf index stats --check` measures.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError, RwLock};

use topshelf_kernels::mapped::MappedFile;
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

/// A neighbour graph over vectors by key, mapped for searching.
pub(crate) struct Graph {
    inner: Usearch,
    file: MappedFile,
    path: PathBuf,
    /// The candidates that a search keeps, a setting of the whole graph: searches that agree on
    /// it run together, one that does not runs alone.
    expansion: RwLock<usize>,
    /// Searches that may begin: usearch has work areas for as many as there are processors.
    free: Mutex<usize>,
    freed: Condvar,
}

/// The right to search, given back when dropped.
struct Permit<'a>(&'a Graph);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn fault(error: impl std::fmt::Display) -> IndexError {
    IndexError::Graph { reason: error.to_string() }
}

/// The file name as usearch takes it.
fn utf8(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| fault("its path is not UTF-8; choose another folder"))
}

impl Graph {
    fn empty(dimension: usize) -> Result<Usearch> {
        let options = IndexOptions {
            dimensions: dimension,
            metric: MetricKind::Cos,
            quantization: ScalarKind::I8,
            connectivity: CONNECTIVITY,
            expansion_add: EXPANSION_ADD,
            expansion_search: EXPANSION_SEARCH,
            multi: false,
        };
        Usearch::new(&options).map_err(fault)
    }

    /// Maps the graph for searching.
    pub(crate) fn open(path: &Path, dimension: usize, bytes: u64) -> Result<Self> {
        let file = MappedFile::open(path).map_err(IndexError::io("cannot open", path))?;
        let damaged = |reason: String| IndexError::Damaged { path: path.to_owned(), reason };
        if file.bytes().len() as u64 != bytes {
            return Err(damaged("its length is wrong".to_owned()));
        }
        let graph = Self::empty(dimension)?;
        graph.view(utf8(path)?).map_err(|error| damaged(error.to_string()))?;
        Ok(Self {
            inner: graph,
            file,
            path: path.to_owned(),
            expansion: RwLock::new(EXPANSION_SEARCH),
            free: Mutex::new(processors()),
            freed: Condvar::new(),
        })
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
        let built = Self::empty(dimension)?;
        if let Some(base) = base {
            built.load(utf8(base)?).map_err(fault)?;
        }
        let threads = processors();
        let rows: Vec<(&Vectors, usize)> = vectors
            .iter()
            .flat_map(|file| (file.row_from(from)..file.len()).map(move |row| (file, row)))
            .collect();
        let capacity = built.size() + rows.len();
        built.reserve_capacity_and_threads(capacity, threads).map_err(fault)?;
        let share = rows.len().div_ceil(threads).max(1);
        let graph = &built;
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
        built.save(utf8(path)?).map_err(fault)?;
        let sync = || File::open(path)?.sync_all();
        sync().map_err(IndexError::io("cannot write", path))
    }

    /// Compares the checksum of the file.
    pub(crate) fn verify(&self, crc32: u32) -> Result<()> {
        if crc32fast::hash(self.file.bytes()) == crc32 {
            return Ok(());
        }
        let reason = "its checksum does not match its content".to_owned();
        Err(IndexError::Damaged { path: self.path.clone(), reason })
    }

    fn permit(&self) -> Permit<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = self.freed.wait_while(free, |free| *free == 0);
        *wait.unwrap_or_else(PoisonError::into_inner) -= 1;
        Permit(self)
    }

    pub(crate) fn len(&self) -> usize {
        self.inner.size()
    }

    /// Some of the nearest keys that `keep` lets through, among them about the `depth` nearest.
    /// They are more than `depth`, to be scored exactly and cut by the caller: usearch's integers
    /// are coarse (127 steps from 0 to 1, where numbers of a vector are about 1/√dimension), so
    /// that its own first `depth` are not the nearest (with 64 dimensions recall@10 is 0.92, and
    /// over 0.99 when all that a search keeps are looked at).
    pub(crate) fn search(
        &self,
        vector: &[f32],
        depth: usize,
        keep: &(dyn Fn(u64) -> bool + Sync),
    ) -> Result<Vec<u64>> {
        let _permit = self.permit();
        let wanted = EXPANSION_SEARCH.max(2 * depth);
        let shared = self.expansion.read().unwrap_or_else(PoisonError::into_inner);
        let matches = if *shared == wanted {
            self.inner.filtered_search(vector, wanted, keep)
        } else {
            drop(shared);
            let mut alone = self.expansion.write().unwrap_or_else(PoisonError::into_inner);
            self.inner.change_expansion_search(wanted);
            *alone = wanted;
            self.inner.filtered_search(vector, wanted, keep)
        };
        Ok(matches.map_err(fault)?.keys)
    }
}
