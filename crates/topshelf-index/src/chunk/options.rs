//! How documents are cut: [`ChunkOptions`], and [`Chunking`], which an index remembers.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{IndexError, Result};

/// Into passages of which length documents are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkOptions {
    /// Tokens of a passage, heading trail included. An index takes [`Self::MIN_TOKENS`] to
    /// [`Self::MAX_TOKENS`].
    pub max_tokens: usize,
    /// Tokens that neighbouring passages of one section share, at most. An index takes half of
    /// `max_tokens` at most.
    pub overlap_tokens: usize,
}

impl ChunkOptions {
    /// Tokens of the shortest passages that an index cuts. Fewer leave no room for a heading and a
    /// sentence.
    pub const MIN_TOKENS: usize = 16;

    /// Tokens of the longest passages that an index cuts.
    pub const MAX_TOKENS: usize = 1_000_000;

    /// Checks both numbers.
    ///
    /// # Errors
    ///
    /// [`IndexError::OutOfBounds`], which names what is accepted.
    pub fn check(&self) -> Result<()> {
        let Self { max_tokens, overlap_tokens } = *self;
        let refused = |setting, given, accepted| {
            let unit = "tokens";
            Err(IndexError::OutOfBounds { setting, given, accepted, unit })
        };
        if !(Self::MIN_TOKENS..=Self::MAX_TOKENS).contains(&max_tokens) {
            return refused("passage length", max_tokens, Self::MIN_TOKENS..=Self::MAX_TOKENS);
        }
        if overlap_tokens > max_tokens / 2 {
            return refused("overlap", overlap_tokens, 0..=max_tokens / 2);
        }
        Ok(())
    }
}

impl Default for ChunkOptions {
    fn default() -> Self {
        Self { max_tokens: 256, overlap_tokens: 32 }
    }
}

/// Whether and how documents are cut.
///
/// An index keeps it as text: `256/32` is passages of 256 tokens that share 32, `whole` is
/// documents that are not cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Chunking {
    /// Into passages of a length.
    Passages(ChunkOptions),
    /// Not at all: a document is one passage.
    Whole,
}

/// [`Chunking::Whole`] as text.
const WHOLE: &str = "whole";

impl Chunking {
    /// Into passages of which length; `None` where documents are not cut.
    pub fn options(self) -> Option<ChunkOptions> {
        match self {
            Self::Passages(options) => Some(options),
            Self::Whole => None,
        }
    }

    /// Checks the numbers, if there are any.
    ///
    /// # Errors
    ///
    /// [`IndexError::OutOfBounds`], which names what is accepted.
    pub fn check(self) -> Result<()> {
        self.options().map_or(Ok(()), |options| options.check())
    }
}

impl Default for Chunking {
    fn default() -> Self {
        Self::Passages(ChunkOptions::default())
    }
}

/// In words: `passages of up to 256 tokens with an overlap of 32`.
impl fmt::Display for Chunking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passages(ChunkOptions { max_tokens, overlap_tokens: 0 }) => {
                write!(f, "passages of up to {max_tokens} tokens without overlap")
            }
            Self::Passages(ChunkOptions { max_tokens, overlap_tokens }) => write!(
                f,
                "passages of up to {max_tokens} tokens with an overlap of {overlap_tokens}"
            ),
            Self::Whole => f.write_str("one passage for each document"),
        }
    }
}

impl From<Chunking> for String {
    fn from(chunking: Chunking) -> Self {
        match chunking {
            Chunking::Passages(ChunkOptions { max_tokens, overlap_tokens }) => {
                format!("{max_tokens}/{overlap_tokens}")
            }
            Chunking::Whole => WHOLE.to_owned(),
        }
    }
}

/// What an index has as text; numbers out of bounds are no chunking.
impl TryFrom<String> for Chunking {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == WHOLE {
            return Ok(Self::Whole);
        }
        let numbers = text.split_once('/').and_then(|(max_tokens, overlap_tokens)| {
            let (max_tokens, overlap_tokens) = (max_tokens.parse(), overlap_tokens.parse());
            Some(ChunkOptions {
                max_tokens: max_tokens.ok()?,
                overlap_tokens: overlap_tokens.ok()?,
            })
        });
        let Some(options) = numbers else {
            return Err(format!(
                "\"{text}\" is no way to cut documents; it is as 256/32, or {WHOLE}"
            ));
        };
        options.check().map_err(|error| error.to_string())?;
        Ok(Self::Passages(options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunking(max_tokens: usize, overlap_tokens: usize) -> Chunking {
        Chunking::Passages(ChunkOptions { max_tokens, overlap_tokens })
    }

    #[test]
    fn bounds() {
        for (max_tokens, overlap_tokens) in [(16, 0), (16, 8), (17, 8), (1_000_000, 500_000)] {
            chunking(max_tokens, overlap_tokens).check().unwrap();
        }
        let refused = |max_tokens, overlap_tokens, says: &str| {
            let error = chunking(max_tokens, overlap_tokens).check().unwrap_err();
            assert_eq!(error.blame(), topshelf_core::Blame::Caller);
            assert!(error.to_string().contains(says), "{error}");
        };
        for length in [0, 1, 15, 1_000_001, usize::MAX] {
            refused(length, 0, &format!("{length} tokens; 16 to 1000000 tokens are accepted"));
        }
        for (length, overlap) in [(16, 9), (17, 9), (128, 65), (128, 128), (128, usize::MAX)] {
            let says = format!("{overlap} tokens; 0 to {} tokens are accepted", length / 2);
            refused(length, overlap, &says);
        }
        Chunking::Whole.check().unwrap();
    }

    #[test]
    fn text_and_back() {
        for own in [Chunking::default(), Chunking::Whole, chunking(16, 0), chunking(1_000_000, 7)] {
            let text = serde_json::to_string(&own).unwrap();
            assert_eq!(serde_json::from_str::<Chunking>(&text).unwrap(), own, "{text}");
        }
        assert_eq!(String::from(chunking(128, 16)), "128/16");
        let damaged = [
            "",
            "/",
            "256",
            "256/",
            "/32",
            "0/0",
            "15/0",
            "128/65",
            "-1/0",
            "1e9/0",
            "256/32/1",
            " 256/32",
            "+",
            "Whole",
            "99999999999999999999999999/0",
            "1000001/0",
        ];
        for text in damaged {
            assert!(Chunking::try_from(text.to_owned()).is_err(), "{text:?}");
        }
    }
}
