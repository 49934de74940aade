//! Which passages a metadata filter lets through: [`Mask`].
//!
//! What a filter looks at (document, title, metadata) is stored as JSON in a column with a
//! dictionary, so passages of one document share one entry. The filter is evaluated once for
//! each entry of the dictionary, not for each passage.

use serde::{Deserialize, Serialize};
use tantivy::DocAddress;
use topshelf_core::filter::Subject;
use topshelf_core::{Filter, Metadata, Passage};

use crate::error::Result;
use crate::index::Inner;
use crate::state::column;

/// What a filter looks at.
#[derive(Serialize, Deserialize)]
struct Facts {
    document: String,
    title: String,
    metadata: Metadata,
}

/// The longest entry of tantivy's dictionaries; what is longer is cut.
const LONGEST: usize = u16::MAX as usize;

/// Stands in the column for facts that are too long for it; those are read from the stored
/// passage.
const TOO_LONG: &[u8] = b"-";

/// The bytes stored in the column for a passage.
pub(crate) fn facts_of(passage: &Passage) -> Vec<u8> {
    let facts = Facts {
        document: passage.document.clone(),
        title: passage.title.clone(),
        metadata: passage.metadata.clone(),
    };
    let bytes = serde_json::to_vec(&facts).unwrap_or_default(); // plain data always serialises
    if bytes.len() > LONGEST { TOO_LONG.to_vec() } else { bytes }
}

/// The passages that satisfy a filter: by place in tantivy and by key.
pub(crate) struct Mask {
    /// For each segment, for each of its documents.
    segments: Vec<Vec<bool>>,
    /// One bit for each key.
    keys: Vec<u64>,
    passing: usize,
}

impl Mask {
    pub(crate) fn of(filter: &Filter, index: &Inner) -> Result<Self> {
        let searcher = &index.searcher;
        let verdict = |facts: &Facts| {
            filter.matches(Subject {
                document: &facts.document,
                title: &facts.title,
                metadata: &facts.metadata,
            })
        };
        let mut mask = Self {
            segments: Vec::with_capacity(searcher.segment_readers().len()),
            keys: vec![0; (index.state.next_key as usize).div_ceil(64)],
            passing: 0,
        };
        for (ordinal, segment) in searcher.segment_readers().iter().enumerate() {
            let mut passes = vec![false; segment.max_doc() as usize];
            let columns = segment.fast_fields();
            let keys = columns.u64(column::KEY)?;
            if let Some(facts) = columns.bytes(column::FACTS)? {
                let mut verdicts = Vec::with_capacity(facts.num_terms());
                let mut entries =
                    facts.dictionary().stream().map_err(tantivy::TantivyError::from)?;
                while entries.advance() {
                    let facts: Option<Facts> = serde_json::from_slice(entries.key()).ok();
                    verdicts.push(facts.as_ref().map(verdict));
                }
                for doc in segment.doc_ids_alive() {
                    let known = facts.term_ords(doc).next().and_then(|n| verdicts[n as usize]);
                    let passes_filter = if let Some(known) = known {
                        known
                    } else {
                        let passage = index.passage(DocAddress::new(ordinal as u32, doc))?;
                        let Passage { document, title, metadata, .. } = passage;
                        verdict(&Facts { document, title, metadata })
                    };
                    if passes_filter {
                        passes[doc as usize] = true;
                        mask.passing += 1;
                        for key in keys.values_for_doc(doc) {
                            mask.keys[key as usize / 64] |= 1 << (key % 64);
                        }
                    }
                }
            }
            mask.segments.push(passes);
        }
        Ok(mask)
    }

    /// Whether a document of a segment passes.
    pub(crate) fn passes(&self, segment: usize, doc: tantivy::DocId) -> bool {
        self.segments[segment][doc as usize]
    }

    /// Whether the passage with that key passes.
    pub(crate) fn passes_key(&self, key: u64) -> bool {
        self.keys[key as usize / 64] & (1 << (key % 64)) != 0
    }

    /// How many passages pass.
    pub(crate) fn passing(&self) -> usize {
        self.passing
    }
}
