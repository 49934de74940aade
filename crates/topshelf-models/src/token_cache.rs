//! The token ids of documents that were tokenised before: [`TokenCache`].
//!
//! A reranker reads the same passages again and again, with another query each time, and a
//! passage's tokens do not depend on the query. So they are kept: 4 bytes a token and what an
//! entry costs besides, up to a limit in bytes.
//!
//! | `TOPSHELF_TOKEN_CACHE` | limit |
//! | --- | --- |
//! | unset | 32 MiB: some 80,000 passages of 80 tokens |
//! | a number | so many MiB |
//! | `0` | nothing is kept |
//!
//! **The key** is the first half of the text's SHA-256, so the text itself is not kept. 128 bits
//! of a cryptographic hash: nobody can write a document that is taken for another one. Hashing is
//! a hundred times faster than tokenising.
//!
//! **What goes** when the limit is reached: entries are in two generations of half the limit each.
//! New ones, and old ones that are found, go to the young generation; when that is full it becomes
//! the old one, and the old one is dropped. So what was used within the last half of the limit is
//! always there, and nothing has to be kept in order.
//!
//! **Only documents** of a reranker belong here. A query is tokenised once a request and seldom
//! comes again while its documents do; a bi-encoder's passages are embedded once, and it is their
//! vectors that are kept.

use std::collections::HashMap;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use crate::engine::setting;
use crate::error::Result;

/// Sets the limit.
const VARIABLE: &str = "TOPSHELF_TOKEN_CACHE";

const MIB: usize = 1024 * 1024;

/// The limit in bytes where the variable is unset.
pub(crate) const DEFAULT_LIMIT: usize = 32 * MIB;

/// Bytes of an entry beside its ids, at most: key, pointer and control byte in a table that is
/// half empty after it grew, and the allocator's own.
const OVERHEAD: usize = 96;

/// What a cache of document tokens did so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenCacheCounts {
    /// Documents whose tokens were there.
    pub hits: u64,
    /// Documents that had to be tokenised.
    pub misses: u64,
    /// Bytes in use now.
    pub bytes: usize,
}

/// Ids by the text that they are of. Empty, it has no memory of its own.
pub(crate) struct TokenCache {
    limit: usize,
    generations: Mutex<Generations>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// Stands for a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key([u8; 16]);

#[derive(Default)]
struct Generations {
    young: Generation,
    old: Generation,
}

#[derive(Default)]
struct Generation {
    entries: HashMap<Key, Box<[u32]>>,
    bytes: usize,
}

impl Key {
    pub(crate) fn of(text: &str) -> Self {
        let sum: [u8; 32] = Sha256::digest(text).into();
        let mut half = [0; 16];
        half.copy_from_slice(&sum[..16]);
        Self(half)
    }
}

impl TokenCache {
    /// A cache of at most so many bytes; of 0, it keeps nothing.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            generations: Mutex::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// A cache of the limit that the environment sets.
    ///
    /// # Errors
    ///
    /// [`crate::ModelError::Setting`] for a value that is no number of MiB.
    pub(crate) fn from_env() -> Result<Self> {
        setting(VARIABLE, "0 for no cache, a number of MiB", limit_of).map(Self::new)
    }

    /// Whether anything is ever kept.
    pub(crate) fn is_on(&self) -> bool {
        self.limit > 0
    }

    /// The ids of a text, if they are there. It is counted.
    pub(crate) fn get(&self, key: Key) -> Option<Vec<u32>> {
        let found = self.lock().get(key, self.limit / 2);
        let count = if found.is_some() { &self.hits } else { &self.misses };
        count.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Keeps the ids of a text, unless they alone are more than half of what it may hold.
    pub(crate) fn put(&self, key: Key, ids: &[u32]) {
        if cost(ids) <= self.limit / 2 {
            self.lock().put(key, ids.into(), self.limit / 2);
        }
    }

    pub(crate) fn counts(&self) -> TokenCacheCounts {
        let generations = self.lock();
        TokenCacheCounts {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            bytes: generations.young.bytes + generations.old.bytes,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn get(&mut self, key: Key, half: usize) -> Option<Vec<u32>> {
        if let Some(ids) = self.young.entries.get(&key) {
            return Some(ids.to_vec());
        }
        let ids = self.old.entries.remove(&key)?;
        self.old.bytes -= cost(&ids);
        let found = ids.to_vec();
        self.put(key, ids, half);
        Some(found)
    }

    fn put(&mut self, key: Key, ids: Box<[u32]>, half: usize) {
        let bytes = cost(&ids);
        if self.young.bytes + bytes > half {
            self.old = mem::take(&mut self.young);
        }
        // Of two threads that missed the same text, the second replaces what the first put.
        if self.young.entries.insert(key, ids).is_none() {
            self.young.bytes += bytes;
        }
    }
}

/// The bytes that an entry with these ids takes.
fn cost(ids: &[u32]) -> usize {
    size_of_val(ids) + OVERHEAD
}

/// The limit in bytes that the variable's value stands for.
fn limit_of(value: &str) -> Option<usize> {
    match value {
        "" => Some(DEFAULT_LIMIT),
        number => number.parse::<usize>().ok().map(|mib| mib.saturating_mul(MIB)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(n: u32) -> Key {
        Key::of(&n.to_string())
    }

    /// Ids by which it is seen whose they are.
    fn ids(n: u32) -> Vec<u32> {
        vec![n; n as usize % 40]
    }

    #[test]
    fn the_limit_is_read_in_mib() {
        assert_eq!(limit_of(""), Some(32 << 20));
        assert_eq!(limit_of("0"), Some(0));
        assert_eq!(limit_of("3"), Some(3 << 20));
        assert_eq!(limit_of("18446744073709551615"), Some(usize::MAX));
        for wrong in ["-1", "1.5", "32M", "on"] {
            assert_eq!(limit_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_put_is_found_and_counted() {
        let cache = TokenCache::new(10_000);
        assert_eq!(cache.get(key(7)), None);
        cache.put(key(7), &ids(7));
        cache.put(key(0), &[]);
        assert_eq!(cache.get(key(7)), Some(ids(7)));
        assert_eq!(cache.get(key(0)), Some(Vec::new()));
        assert_eq!(cache.get(key(8)), None);
        let counts = cache.counts();
        assert_eq!((counts.hits, counts.misses), (2, 2));
        assert_eq!(counts.bytes, 2 * OVERHEAD + 7 * 4);
    }

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let cache = TokenCache::new(20 * cost(&[0; 10]));
        cache.put(key(0), &[0; 10]);
        for n in 1..200 {
            cache.put(key(n), &[n; 10]);
            assert_eq!(cache.get(key(0)), Some(vec![0; 10]), "after {n}");
        }
        let left = (1..200).filter(|&n| cache.get(key(n)).is_some()).count();
        assert!((8..20).contains(&left), "{left}");
    }

    #[test]
    fn one_that_keeps_nothing_has_nothing() {
        let off = TokenCache::new(0);
        assert!(!off.is_on());
        off.put(key(1), &ids(1));
        assert_eq!((off.get(key(1)), off.counts().bytes), (None, 0));
        let small = TokenCache::new(4 * cost(&[]));
        small.put(key(1), &[0; 100]);
        assert_eq!(small.counts().bytes, 0, "larger than half of the limit");
    }

    #[test]
    fn texts_that_differ_have_keys_that_differ() {
        let known: u128 = 0xba78_16bf_8f01_cfea_4141_40de_5dae_2223; // FIPS 180-2, B.1
        assert_eq!(Key::of("abc").0, known.to_be_bytes());
        assert_ne!(Key::of("abc"), Key::of("abc "));
    }

    proptest! {
        #[test]
        fn it_is_bounded_and_never_wrong(
            limit in 0_usize..8_000,
            steps in prop::collection::vec((any::<bool>(), 0_u32..120), 0..400),
        ) {
            let cache = TokenCache::new(limit);
            for (put, n) in steps {
                if put {
                    cache.put(key(n), &ids(n));
                } else if let Some(found) = cache.get(key(n)) {
                    prop_assert_eq!(found, ids(n));
                }
                let generations = cache.lock();
                for generation in [&generations.young, &generations.old] {
                    let bytes: usize = generation.entries.values().map(|ids| cost(ids)).sum();
                    prop_assert_eq!(bytes, generation.bytes);
                    prop_assert!(bytes <= limit / 2);
                }
            }
        }
    }
}
