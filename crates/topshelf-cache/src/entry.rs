//! [`Entry`]: what is kept of a scored pair.
//!
//! Outside of memory an entry is 16 bytes, little-endian: the score's bits, the tokens of the passage
//! and of the query that were not read, and a CRC-32 over the key and those twelve bytes. With the
//! key in the sum, a value that has come to stand under another key is found out as well.

use topshelf_core::RerankScore;

use crate::key::PairKey;

/// Bytes of an entry outside of memory.
pub const BYTES: usize = 16;

/// A pair's score, and what of the pair was not read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry {
    /// The score, finite.
    pub score: f32,
    /// Tokens of the passage that were not read.
    pub truncated_tokens: u32,
    /// Tokens of the query that were not read.
    pub query_truncated_tokens: u32,
}

impl Entry {
    /// The entry as bytes, sealed for its key.
    pub fn seal(&self, key: &PairKey) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..4].copy_from_slice(&self.score.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.truncated_tokens.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.query_truncated_tokens.to_le_bytes());
        let sum = checksum(key, &bytes[..12]);
        bytes[12..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The entry that was sealed for this key; `None` if these bytes are not what was sealed.
    pub fn open(key: &PairKey, bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
        let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        if u32::from_le_bytes(word(12)) != checksum(key, &bytes[..12]) {
            return None;
        }
        let entry = Self {
            score: f32::from_le_bytes(word(0)),
            truncated_tokens: u32::from_le_bytes(word(4)),
            query_truncated_tokens: u32::from_le_bytes(word(8)),
        };
        entry.score.is_finite().then_some(entry)
    }
}

fn checksum(key: &PairKey, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key.as_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

impl From<Entry> for RerankScore {
    fn from(entry: Entry) -> Self {
        Self {
            truncated_tokens: entry.truncated_tokens as usize,
            query_truncated_tokens: entry.query_truncated_tokens as usize,
            cached: true,
            ..Self::new(entry.score)
        }
    }
}

impl From<RerankScore> for Entry {
    fn from(scored: RerankScore) -> Self {
        let tokens = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Self {
            score: scored.score,
            truncated_tokens: tokens(scored.truncated_tokens),
            query_truncated_tokens: tokens(scored.query_truncated_tokens),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_sealed_comes_back_and_a_flipped_bit_does_not(
            key in any::<[u8; 32]>(),
            score in -1e30_f32..1e30,
            tokens in any::<(u32, u32)>(),
            bit in 0..(BYTES * 8),
        ) {
            let key = PairKey::from_bytes(key);
            let entry = Entry {
                score,
                truncated_tokens: tokens.0,
                query_truncated_tokens: tokens.1,
            };
            let mut bytes = entry.seal(&key);
            prop_assert_eq!(Entry::open(&key, &bytes), Some(entry));
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Entry::open(&key, &bytes), None);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mut other = *key.as_bytes();
            other[bit % 32] ^= 1;
            prop_assert_eq!(Entry::open(&PairKey::from_bytes(other), &bytes), None);
            prop_assert_eq!(Entry::open(&key, &bytes[1..]), None);
        }
    }
}
