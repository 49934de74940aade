//! [`ScoreCache`]: the tiers, one behind the other.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::Cache;
use serde::Serialize;

use crate::disk::{Disk, DiskError, DiskStats};
use crate::entry::Entry;
use crate::flight::Flights;
use crate::key::PairKey;

/// Bytes that an entry takes in memory: key and entry, 44, and the table's own share. Measured: a
/// million entries are 76 MB of resident memory, and a table that has just grown has room to spare.
const ENTRY_BYTES: u64 = 96;

/// What a cache may take and where it lies.
#[derive(Debug, Clone)]
pub struct CacheOptions {
    /// Bytes in memory.
    pub memory: u64,
    /// The file of the tier on disk, and the bytes it may take; `None` for none.
    pub disk: Option<(PathBuf, u64)>,
}

impl Default for CacheOptions {
    /// 32 MiB of memory, no disk.
    fn default() -> Self {
        Self { memory: 32 << 20, disk: None }
    }
}

/// Scores of pairs, in memory and, if wanted, on disk.
///
/// ```
/// use topshelf_cache::{CacheOptions, ScoreCache};
/// let (cache, trouble) = ScoreCache::open(&CacheOptions::default());
/// assert!(trouble.is_none());
/// assert_eq!(cache.stats().scored, 0);
/// ```
pub struct ScoreCache {
    memory: Cache<PairKey, Entry>,
    memory_limit: u64,
    disk: Option<Disk>,
    flights: Flights,
    memory_hits: AtomicU64,
    disk_hits: AtomicU64,
    scored: AtomicU64,
    shared: AtomicU64,
}

/// What a cache did since it was opened, and what is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CacheStats {
    /// Pairs found in memory.
    pub memory_hits: u64,
    /// Pairs found on disk.
    pub disk_hits: u64,
    /// Pairs that had to be scored.
    pub scored: u64,
    /// Pairs that another caller was scoring already.
    pub shared: u64,
    /// Entries in memory.
    pub memory_entries: u64,
    /// Bytes that memory may take.
    pub memory_limit: u64,
    /// The tier on disk, if there is one.
    pub disk: Option<DiskStats>,
}

impl ScoreCache {
    /// Opens a cache. Where the tier on disk cannot be had, the cache works without it, and the
    /// reason comes back beside it.
    pub fn open(options: &CacheOptions) -> (Self, Option<DiskError>) {
        let (disk, trouble) = match &options.disk {
            Some((path, limit)) => match Disk::open(path, *limit) {
                Ok(disk) => (Some(disk), None),
                Err(error) => (None, Some(error)),
            },
            None => (None, None),
        };
        let entries = (options.memory / ENTRY_BYTES).max(1);
        let own = Self {
            memory: Cache::new(usize::try_from(entries).unwrap_or(usize::MAX)),
            memory_limit: options.memory,
            disk,
            flights: Flights::default(),
            memory_hits: AtomicU64::new(0),
            disk_hits: AtomicU64::new(0),
            scored: AtomicU64::new(0),
            shared: AtomicU64::new(0),
        };
        (own, trouble)
    }

    /// What it did and holds.
    pub fn stats(&self) -> CacheStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheStats {
            memory_hits: count(&self.memory_hits),
            disk_hits: count(&self.disk_hits),
            scored: count(&self.scored),
            shared: count(&self.shared),
            memory_entries: self.memory.len() as u64,
            memory_limit: self.memory_limit,
            disk: self.disk.as_ref().map(Disk::stats),
        }
    }

    /// Waits until all that is to be on disk is there. Dropping the cache does so, too.
    pub fn flush(&self) {
        if let Some(disk) = &self.disk {
            disk.flush();
        }
    }

    /// Those of the pairs that are known, each once.
    pub(crate) fn look_up(&self, keys: &[PairKey]) -> Vec<(PairKey, Entry)> {
        let (mut found, mut missing) = (Vec::with_capacity(keys.len()), Vec::new());
        for key in keys {
            match self.memory.get(key) {
                Some(entry) => found.push((*key, entry)),
                None => missing.push(*key),
            }
        }
        self.memory_hits.fetch_add(found.len() as u64, Ordering::Relaxed);
        if let Some(disk) = &self.disk {
            let from_disk = disk.get(&missing);
            self.disk_hits.fetch_add(from_disk.len() as u64, Ordering::Relaxed);
            for (key, entry) in &from_disk {
                self.memory.insert(*key, *entry);
            }
            found.extend(from_disk);
        }
        found
    }

    /// The pair if it is in memory; where it is looked for a second time, so it is not counted.
    pub(crate) fn in_memory(&self, key: &PairKey) -> Option<Entry> {
        self.memory.get(key)
    }

    /// Keeps what was scored.
    pub(crate) fn insert(&self, entries: impl Iterator<Item = (PairKey, Entry)>) {
        let entries: Vec<(PairKey, Entry)> = entries.collect();
        for (key, entry) in &entries {
            self.memory.insert(*key, *entry);
        }
        if let Some(disk) = &self.disk {
            disk.insert(entries);
        }
    }

    pub(crate) fn flights(&self) -> &Flights {
        &self.flights
    }

    /// Counts pairs that are scored now, and those that another caller scores.
    pub(crate) fn count(&self, scored: usize, shared: usize) {
        self.scored.fetch_add(scored as u64, Ordering::Relaxed);
        self.shared.fetch_add(shared as u64, Ordering::Relaxed);
    }
}
