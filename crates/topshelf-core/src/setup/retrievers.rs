//! [`Retrievers`]: which retrievers make up a first stage, by name.
//!
//! A name is a retriever (`bm25`, `dense`, `colbert`), an alias of several (`hybrid` is `bm25+dense`,
//! `hybrid-colbert` is `bm25+colbert`), or a list with `+` between its parts
//! (`bm25+dense+colbert`, `hybrid+colbert`). Order and repetition do not matter; rankings are fused in the
//! order of [`RetrieverKind::ALL`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A retriever over an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetrieverKind {
    /// Words: BM25.
    Bm25,
    /// Meaning: the vectors of a bi-encoder.
    Dense,
    /// Tokens: late interaction over stored token vectors.
    Colbert,
}

impl RetrieverKind {
    /// All of them, in the order in which their rankings are fused.
    pub const ALL: [Self; 3] = [Self::Bm25, Self::Dense, Self::Colbert];

    /// Its name, which is also its stage's name in signals and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bm25 => "bm25",
            Self::Dense => "dense",
            Self::Colbert => "colbert",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Bm25 => 1,
            Self::Dense => 2,
            Self::Colbert => 4,
        }
    }
}

/// A set of retrievers, at least one.
///
/// ```
/// use topshelf_core::{RetrieverKind, Retrievers};
/// let all: Retrievers = "hybrid+colbert".parse()?;
/// assert_eq!(all, "bm25+dense+colbert".parse()?);
/// assert!(all.contains(RetrieverKind::Dense) && all.are_fused());
/// assert_eq!(Retrievers::HYBRID.to_string(), "hybrid");
/// # Ok::<(), topshelf_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Retrievers(u8);

impl Retrievers {
    /// Words alone.
    pub const BM25: Self = Self(RetrieverKind::Bm25.bit());
    /// Meaning alone.
    pub const DENSE: Self = Self(RetrieverKind::Dense.bit());
    /// Words and meaning.
    pub const HYBRID: Self = Self(Self::BM25.0 | Self::DENSE.0);
    /// Tokens alone.
    pub const COLBERT: Self = Self(RetrieverKind::Colbert.bit());
    /// Words and tokens.
    pub const HYBRID_COLBERT: Self = Self(Self::BM25.0 | Self::COLBERT.0);
    /// Words, meaning and tokens.
    pub const ALL: Self = Self(Self::HYBRID.0 | Self::COLBERT.0);

    /// The names that stand for a set of their own, as help and messages list them.
    pub const NAMES: [&'static str; 6] =
        ["bm25", "dense", "hybrid", "colbert", "hybrid-colbert", "hybrid+colbert"];

    /// Whether this one takes part.
    pub const fn contains(self, kind: RetrieverKind) -> bool {
        self.0 & kind.bit() != 0
    }

    /// The retrievers, in the order in which their rankings are fused.
    pub fn iter(self) -> impl Iterator<Item = RetrieverKind> {
        RetrieverKind::ALL.into_iter().filter(move |kind| self.contains(*kind))
    }

    /// Whether there are several, whose rankings become one.
    pub const fn are_fused(self) -> bool {
        self.0.count_ones() > 1
    }

    /// The set with one more.
    #[must_use]
    pub const fn with(self, kind: RetrieverKind) -> Self {
        Self(self.0 | kind.bit())
    }

    /// The set that a part of a name stands for.
    fn part(name: &str) -> Option<Self> {
        Some(match name.trim() {
            "bm25" => Self::BM25,
            "dense" => Self::DENSE,
            "hybrid" => Self::HYBRID,
            "colbert" => Self::COLBERT,
            "hybrid-colbert" => Self::HYBRID_COLBERT,
            _ => return None,
        })
    }
}

impl FromStr for Retrievers {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let sets = text.split('+').map(Self::part);
        let set = sets.reduce(|one, other| Some(Self(one?.0 | other?.0))).flatten();
        set.ok_or_else(|| Error::UnknownName {
            what: "retriever",
            given: text.chars().take(60).collect(),
            known: Self::NAMES.join(", "),
        })
    }
}

impl fmt::Display for Retrievers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::HYBRID => "hybrid",
            Self::HYBRID_COLBERT => "hybrid-colbert",
            Self::ALL => "hybrid+colbert",
            _ => {
                let names: Vec<&str> = self.iter().map(RetrieverKind::name).collect();
                return f.pad(&names.join("+"));
            }
        };
        f.pad(name)
    }
}

impl TryFrom<String> for Retrievers {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Retrievers> for String {
    fn from(own: Retrievers) -> Self {
        own.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_reads_its_own_name() {
        for bits in 1..8 {
            let set = Retrievers(bits);
            assert_eq!(set.to_string().parse::<Retrievers>().unwrap(), set);
            assert_eq!(set.iter().fold(0, |sum, kind| sum | kind.bit()), bits);
        }
        for name in Retrievers::NAMES {
            assert_eq!(name.parse::<Retrievers>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn other_names_are_rejected() {
        for name in ["", "bm26", "bm25+", "+dense", "bm25 dense", &"x".repeat(10_000)] {
            let error = name.parse::<Retrievers>().unwrap_err().to_string();
            assert!(error.contains("hybrid") && error.len() < 300, "{error}");
        }
    }
}
