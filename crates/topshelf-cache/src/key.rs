//! [`PairKey`]: what makes two pairs the same.
//!
//! SHA-256 over, each with its length before it so that no two inputs run together:
//!
//! 1. the name of this format, so that a later one never reads an earlier one's scores;
//! 2. the model's fingerprint (weights, tokenizer, and the settings that change what is computed,
//!    template and truncation among them) and its engine (version, precision, instruction set),
//!    since two engines differ in a score's last digits;
//! 3. the query in its normal form, which is its text without white space at the ends. No more is
//!    done to it: case, accents and inner space mean something to one tokenizer and nothing to
//!    another, and a cached score has the bits of a computed one;
//! 4. what the model reads of the passage, title and headings included.

use std::fmt;

use sha2::{Digest, Sha256};
use topshelf_core::{ModelIdentity, Query};

const FORMAT: &str = "topshelf score 1";

/// The name of a pair under a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PairKey([u8; 32]);

/// Makes the keys of one query's pairs; what they have in common is hashed once.
#[derive(Clone)]
pub struct PairKeys(Sha256);

impl PairKeys {
    /// The keys of this query under this model.
    pub fn new(model: &ModelIdentity, query: &Query) -> Self {
        let mut hash = Sha256::new();
        for part in [FORMAT, &model.fingerprint, &model.engine, query.text()] {
            add(&mut hash, part);
        }
        Self(hash)
    }

    /// The tag of all these pairs.
    pub fn tag(&self) -> Tag {
        let hash = self.0.clone().finalize();
        Tag(hash.iter().take(8).fold(0, |tag, byte| tag << 8 | u64::from(*byte)))
    }

    /// The key of the pair with this passage, `text` being what the model reads of it.
    ///
    /// ```
    /// use topshelf_cache::key::PairKeys;
    /// use topshelf_core::{ModelIdentity, Query};
    /// let model = ModelIdentity { name: "m".into(), fingerprint: "f".into(), engine: "e".into() };
    /// let key = |query: &str, text: &str| PairKeys::new(&model, &Query::new(query).unwrap()).of(text);
    /// assert_eq!(key(" fleas ", "They jump."), key("fleas", "They jump."));
    /// assert_ne!(key("Fleas", "They jump."), key("fleas", "They jump."));
    /// ```
    pub fn of(&self, text: &str) -> PairKey {
        let mut hash = self.0.clone();
        add(&mut hash, text);
        PairKey(hash.finalize().into())
    }
}

/// What all pairs of one query under one model have in common, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag(u64);

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl PairKey {
    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key of these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

fn add(hash: &mut Sha256, part: &str) {
    hash.update((part.len() as u64).to_le_bytes());
    hash.update(part.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_counts_and_none_runs_into_the_next() {
        let key = |fingerprint: &str, engine: &str, query: &str, text: &str| {
            let model = ModelIdentity {
                name: "any".into(),
                fingerprint: fingerprint.into(),
                engine: engine.into(),
            };
            PairKeys::new(&model, &Query::new(query).unwrap()).of(text)
        };
        let all = [
            key("f", "e", "q", "t"),
            key("g", "e", "q", "t"),
            key("f", "d", "q", "t"),
            key("f", "e", "r", "t"),
            key("f", "e", "q", "u"),
            key("f", "e", "qt", ""),
            key("fe", "", "q", "t"),
        ];
        for (place, one) in all.iter().enumerate() {
            assert!(all[place + 1..].iter().all(|other| other != one));
        }
    }
}
