//! [`ScoreCache`]: the tiers, one behind the other.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::Cache;
use serde::Serialize;

use crate::disk::{Disk, DiskError, DiskStats};
use crate::entry::Entry;
use crate::flight::Flights;
use crate::key::{PairKey, Tag};
use crate::shared::{Shared, SharedOptions, SharedStats};

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
    /// The tier that machines share; `None` for none.
    pub shared: Option<SharedOptions>,
}

impl Default for CacheOptions {
    /// 32 MiB of memory, no disk, nothing shared.
    fn default() -> Self {
        Self { memory: 32 << 20, disk: None, shared: None }
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
    shared: Option<Shared>,
    flights: Flights,
    memory_hits: AtomicU64,
    disk_hits: AtomicU64,
    shared_hits: AtomicU64,
    scored: AtomicU64,
    joined: AtomicU64,
}

/// What a cache did since it was opened, and what is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CacheStats {
    /// Pairs found in memory.
    pub memory_hits: u64,
    /// Pairs found on disk.
    pub disk_hits: u64,
    /// Pairs found in the shared tier.
    pub shared_hits: u64,
    /// Pairs that had to be scored.
    pub scored: u64,
    /// Pairs that another caller was scoring already.
    pub joined: u64,
    /// Entries in memory.
    pub memory_entries: u64,
    /// Bytes that memory may take.
    pub memory_limit: u64,
    /// The tier on disk, if there is one.
    pub disk: Option<DiskStats>,
    /// The shared tier, if there is one.
    pub shared: Option<SharedStats>,
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
            shared: options.shared.as_ref().map(Shared::open),
            flights: Flights::default(),
            memory_hits: AtomicU64::new(0),
            disk_hits: AtomicU64::new(0),
            shared_hits: AtomicU64::new(0),
            scored: AtomicU64::new(0),
            joined: AtomicU64::new(0),
        };
        (own, trouble)
    }

    /// What it did and holds.
    pub fn stats(&self) -> CacheStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheStats {
            memory_hits: count(&self.memory_hits),
            disk_hits: count(&self.disk_hits),
            shared_hits: count(&self.shared_hits),
            scored: count(&self.scored),
            joined: count(&self.joined),
            memory_entries: self.memory.len() as u64,
            memory_limit: self.memory_limit,
            disk: self.disk.as_ref().map(Disk::stats),
            shared: self.shared.as_ref().map(Shared::stats),
        }
    }

    /// Waits until all that is to be on disk and in the shared tier is there. Dropping the cache does
    /// so, too.
    pub fn flush(&self) {
        if let Some(disk) = &self.disk {
            disk.flush();
        }
        if let Some(shared) = &self.shared {
            shared.flush();
        }
    }

    /// Asks the shared tier whether it is there, and answers what is known of it then; without one,
    /// nothing is.
    pub fn ask_shared(&self) -> SharedStats {
        self.shared.as_ref().map(Shared::ask).unwrap_or_default()
    }

    /// Those of the pairs that are known, each once.
    pub(crate) async fn look_up(&self, tag: Tag, keys: &[PairKey]) -> Vec<(PairKey, Entry)> {
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
            let known: HashSet<PairKey> = from_disk.iter().map(|(key, _)| *key).collect();
            missing.retain(|key| !known.contains(key));
            found.extend(from_disk);
        }
        if let Some(shared) = &self.shared {
            let fetched = shared.get(tag, missing).await;
            self.shared_hits.fetch_add(fetched.len() as u64, Ordering::Relaxed);
            for (key, entry) in &fetched {
                self.memory.insert(*key, *entry);
            }
            if let Some(disk) = self.disk.as_ref().filter(|_| !fetched.is_empty()) {
                disk.insert(fetched.clone());
            }
            found.extend(fetched);
        }
        found
    }

    /// The pair if it is in memory; where it is looked for a second time, so it is not counted.
    pub(crate) fn in_memory(&self, key: &PairKey) -> Option<Entry> {
        self.memory.get(key)
    }

    /// Keeps what was scored.
    pub(crate) fn insert(&self, tag: Tag, entries: impl Iterator<Item = (PairKey, Entry)>) {
        let entries: Vec<(PairKey, Entry)> = entries.collect();
        for (key, entry) in &entries {
            self.memory.insert(*key, *entry);
        }
        if let Some(shared) = self.shared.as_ref().filter(|_| !entries.is_empty()) {
            shared.insert(tag, entries.clone());
        }
        if let Some(disk) = &self.disk {
            disk.insert(entries);
        }
    }

    pub(crate) fn flights(&self) -> &Flights {
        &self.flights
    }

    /// Counts pairs that are scored now, and those that another caller scores.
    pub(crate) fn count(&self, scored: usize, joined: usize) {
        self.scored.fetch_add(scored as u64, Ordering::Relaxed);
        self.joined.fetch_add(joined as u64, Ordering::Relaxed);
    }
}
