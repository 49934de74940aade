//! Stored token vectors, for late interaction without encoding passages again.
//!
//! | for | see |
//! | --- | --- |
//! | how vectors are stored: [`Tier`] | this file |
//! | files of them | `file` |
//! | what vectors are stored against: their mean, and centroids | `codebook`, `kmeans` |
//! | fewer numbers for models without a projection | `reduction` |
//! | vectors that wait until there is a codebook | `spill` |
//! | MaxSim over them: the reranker | [`StoredTokens`] |
//! | passages found by them: the retriever | [`LateRetriever`], `lists` |
//!
//! A passage's vectors are found by its text (`TextHash`), so a text that has changed never meets
//! vectors of what it was, and the same text in two places is found in either.

mod asked;
pub(crate) mod codebook;
pub(crate) mod file;
mod kmeans;
mod lists;
mod reduction;
pub(crate) mod retrieve;
pub(crate) mod spill;
mod stored;
pub(crate) mod writer;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use topshelf_core::{Blame, Error as CoreError, ModelIdentity, TokenEmbedder, TokenVectors};
use topshelf_kernels::max_sim::residual::Bits;

pub use self::retrieve::{LateOptions, LateRetriever};
pub use self::stored::StoredTokens;

/// How token vectors are stored, from the most exact to the smallest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Tier {
    /// Two bytes a number.
    #[serde(rename = "f16")]
    F16,
    /// One byte a number, for what the mean of all leaves over.
    #[serde(rename = "int8")]
    Int8,
    /// Half a byte a number, for what a centroid leaves over.
    #[serde(rename = "4bit")]
    FourBits,
    /// A quarter of a byte a number.
    #[serde(rename = "2bit")]
    TwoBits,
}

impl Tier {
    /// All, the most exact first.
    pub const ALL: [Self; 4] = [Self::F16, Self::Int8, Self::FourBits, Self::TwoBits];

    /// Its name in options: `f16`, `int8`, `4bit`, `2bit`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Int8 => "int8",
            Self::FourBits => "4bit",
            Self::TwoBits => "2bit",
        }
    }

    /// The bits of a code, where vectors are stored against centroids.
    pub(crate) fn bits(self) -> Option<Bits> {
        match self {
            Self::F16 | Self::Int8 => None,
            Self::FourBits => Some(Bits::Four),
            Self::TwoBits => Some(Bits::Two),
        }
    }
}

/// The token vectors of an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenVectorInfo {
    /// The model that made them.
    #[serde(flatten)]
    pub identity: ModelIdentity,
    /// The length of each, as the model makes them.
    pub dimension: usize,
    /// How they are stored.
    pub tier: Tier,
    /// The length to which they are reduced before; `None` where they are stored as long as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reduced: Option<usize>,
}

/// Vectors that are longer than this are states without a projection, and are reduced.
const LONGEST: usize = 128;

/// To so many numbers.
const REDUCED: usize = 96;

impl TokenVectorInfo {
    /// Those of this model, stored in that way: reduced to 96 numbers where they have more than 128,
    /// as those of a checkpoint without a projection have.
    pub fn of(embedder: &dyn TokenEmbedder, tier: Tier) -> Self {
        let (identity, dimension) = (embedder.identity().clone(), embedder.dimension());
        let reduced = (dimension > LONGEST).then_some(REDUCED);
        Self { identity, dimension, tier, reduced }
    }

    /// The same, reduced to so many numbers, or not at all.
    #[must_use]
    pub fn reduced_to(self, numbers: Option<usize>) -> Self {
        Self { reduced: numbers.filter(|numbers| *numbers < self.dimension), ..self }
    }

    /// The length of what is stored.
    pub fn stored_dimension(&self) -> usize {
        self.reduced.unwrap_or(self.dimension)
    }

    /// Refuses what a model answered for `texts` texts if it is not finite vectors of its dimension
    /// for each.
    pub(crate) fn check(
        &self,
        texts: usize,
        vectors: &[TokenVectors],
    ) -> topshelf_core::Result<()> {
        let odd = |own: &&TokenVectors| {
            own.dimension != self.dimension || !own.values.len().is_multiple_of(self.dimension)
        };
        let fault = if vectors.len() != texts {
            format!("vectors of {} texts for {texts}", vectors.len())
        } else if let Some(odd) = vectors.iter().find(odd) {
            format!("vectors of {} numbers where {} were expected", odd.dimension, self.dimension)
        } else if vectors.iter().flat_map(|own| &own.values).any(|value| !value.is_finite()) {
            "a vector with a number that is not finite".to_owned()
        } else {
            return Ok(());
        };
        let reason = format!("the model \"{}\" answered {fault}", self.identity.name);
        Err(CoreError::stage("embed tokens", Blame::Failure, reason))
    }
}

/// What a passage's vectors are found by: the first 128 bits of the SHA-256 of the text that the model
/// reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TextHash(pub(crate) [u64; 2]);

impl TextHash {
    pub(crate) fn of(text: &str) -> Self {
        let digest = Sha256::digest(text);
        let (words, _) = digest.as_chunks::<8>();
        Self([u64::from_be_bytes(words[0]), u64::from_be_bytes(words[1])])
    }
}
