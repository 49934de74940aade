//! What is asked and what is ranked: [`Query`] and [`Passage`].
//!
//! A *document* is what the user gave (a file, a JSONL record); a *passage* is the piece of it
//! that is indexed, retrieved, reranked and cited. Byte ranges point into the document's decoded
//! text: for plain text, Markdown, CSV and JSONL that is the source itself (after decoding to
//! UTF-8), for HTML and PDF the text extracted from it.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::filter::Filter;

/// The longest query that is accepted, in characters.
pub const MAX_QUERY_CHARS: usize = 10_000;

/// A document's own fields (front matter, JSONL keys, CSV columns), kept and returned as given.
pub type Metadata = serde_json::Map<String, serde_json::Value>;

/// A question in words, with an optional condition on the metadata of what may answer it.
#[derive(Debug, Clone)]
pub struct Query {
    text: String,
    filter: Option<Filter>,
}

impl Query {
    /// A query of the given text, trimmed.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyQuery`] without any non-blank character, [`Error::QueryTooLong`] beyond
    /// [`MAX_QUERY_CHARS`].
    ///
    /// ```
    /// use topshelf_core::Query;
    /// assert_eq!(Query::new(" flea life cycle\n")?.text(), "flea life cycle");
    /// assert!(Query::new("  ").is_err());
    /// # Ok::<(), topshelf_core::Error>(())
    /// ```
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref().trim();
        if text.is_empty() {
            return Err(Error::EmptyQuery);
        }
        let chars = text.chars().count();
        if chars > MAX_QUERY_CHARS {
            return Err(Error::QueryTooLong { chars, limit: MAX_QUERY_CHARS });
        }
        Ok(Self { text: text.to_owned(), filter: None })
    }

    /// The same query, answered only from passages whose metadata satisfy `filter`.
    #[must_use]
    pub fn with_filter(mut self, filter: Filter) -> Self {
        self.filter = Some(filter);
        self
    }

    /// The words asked.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The condition on metadata, if any.
    pub fn filter(&self) -> Option<&Filter> {
        self.filter.as_ref()
    }

    /// The first characters of the query, for messages.
    pub fn shortened(&self) -> String {
        const SHOWN: usize = 60;
        let mut shown: String = self.text.chars().take(SHOWN).collect();
        if shown.len() < self.text.len() {
            shown.push('…');
        }
        shown
    }
}

/// The piece of a document that is indexed, ranked and cited.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Passage {
    /// Unique in its index: the document's id, `#`, and the passage's position in it from 0.
    pub id: String,
    /// The id of the document: its path as given, or the record's own id.
    pub document: String,
    /// The document's title; empty where it has none.
    pub title: String,
    /// The headings above the passage, outermost first.
    pub headings: Vec<String>,
    /// The passage's text: the bytes of `range` in the document's decoded text.
    pub text: String,
    /// Where the passage stands in the document's decoded text, in bytes.
    pub range: Range<usize>,
    /// The document's own fields.
    pub metadata: Metadata,
}

impl Passage {
    /// A passage that is a document of its own: for candidates that come from elsewhere.
    ///
    /// ```
    /// let passage = topshelf_core::Passage::standalone("7", "", "Fleas live for a year.");
    /// assert_eq!(passage.document, "7");
    /// ```
    pub fn standalone(
        id: impl Into<String>,
        title: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        let (id, text) = (id.into(), text.into());
        Self {
            document: id.clone(),
            id,
            title: title.into(),
            headings: Vec::new(),
            range: 0..text.len(),
            text,
            metadata: Metadata::new(),
        }
    }

    /// Title and heading trail in one line, each name once.
    pub fn trail(&self) -> String {
        let mut parts: Vec<&str> = Vec::new();
        for part in std::iter::once(&self.title).chain(&self.headings) {
            let part = part.trim();
            if !part.is_empty() && !parts.contains(&part) {
                parts.push(part);
            }
        }
        parts.join(" > ")
    }

    /// What a model reads: the trail, a line break, the text. A passage cut out of the middle
    /// of a document is hard to place without the headings it stood under.
    pub fn model_text(&self) -> String {
        let trail = self.trail();
        if trail.is_empty() { self.text.clone() } else { format!("{trail}\n{}", self.text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_of_a_hundred_thousand_characters_is_refused() {
        let error = Query::new("ä".repeat(100_000)).expect_err("too long");
        assert!(matches!(error, Error::QueryTooLong { chars: 100_000, .. }), "{error}");
    }

    #[test]
    fn the_trail_names_each_heading_once() {
        let mut passage = Passage::standalone("a#0", "Guide", "text");
        passage.headings = vec!["Guide".into(), "Install".into(), " ".into()];
        assert_eq!(passage.model_text(), "Guide > Install\ntext");
    }
}
