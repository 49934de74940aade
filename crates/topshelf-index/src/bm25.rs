//! The first stage by words: [`Bm25Retriever`].
//!
//! Okapi BM25 with Lucene's idf (Robertson, Zaragoza 2009, eq. 3.15; Lucene `BM25Similarity`):
//!
//! ```text
//! score(q, d) = Σ_t  qtf(t) · ln(1 + (N - df + 0.5) / (df + 0.5)) · tf / (tf + k1 (1 - b + b · dl / avgdl))
//! ```
//!
//! Title (with headings) and text are two fields of one passage and are combined before the
//! saturation, as BM25F does (ibid., 3.6): `tf = w · tf_title + tf_text`, `dl = w · dl_title +
//! dl_text`. With the weight `w` = 1 that is BM25 over title and text joined, Anserini's flat
//! index.
//!
//! tantivy supplies the postings; its own scorer has fixed parameters, byte-sized lengths and
//! counts removed documents. Here lengths are exact and `N`, `df`, `avgdl` are those of the
//! passages that are there, so scores do not depend on the history of the index.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{DocAddress, DocId, DocSet, SegmentReader, TERMINATED, Term, postings::Postings};
use topshelf_core::{Bm25Options, Call, Error as CoreError, Query, Ranking, Retriever, Scale};

use crate::analyse::Analyser;
use crate::error::{IndexError, Result};
use crate::index::Index;
use crate::state::column;

/// The name of this stage.
pub const STAGE: &str = "bm25";

/// BM25 over an index.
pub struct Bm25Retriever(Arc<Bm25>);

/// What its threads need.
struct Bm25 {
    index: Index,
    options: Bm25Options,
    analyser: Analyser,
}

/// A passage that holds a term, and its weighted count.
type Posting = (DocId, f32);

impl Bm25Retriever {
    pub(crate) fn new(index: Index, options: Bm25Options) -> Self {
        let analyser = Analyser::new(index.settings().language);
        Self(Arc::new(Bm25 { index, options, analyser }))
    }
}

impl Bm25 {
    /// The best `depth` passages for the query.
    fn search(&self, query: &Query, depth: usize) -> topshelf_core::Result<Ranking> {
        let mut terms: BTreeMap<String, u32> = BTreeMap::new();
        for term in self.analyser.clone().terms(query.text()) {
            *terms.entry(term).or_default() += 1;
        }
        if terms.is_empty() {
            return Err(CoreError::NothingToLookUp {
                retriever: STAGE.to_owned(),
                query: query.shortened(),
                reason:
                    "it has only stop words or signs; add a word that names what you look for, \
                         or search by meaning alone with the dense retriever"
                        .to_owned(),
            });
        }
        let found = self.score(&terms, query, depth).map_err(|error| error.into_stage(STAGE))?;
        let passages = found
            .into_iter()
            .map(|(address, score)| Ok((self.index.passage(address)?, score)))
            .collect::<Result<Vec<_>, IndexError>>()
            .map_err(|error| error.into_stage(STAGE))?;
        Ranking::new(STAGE, Scale::Bm25, passages)
    }

    /// The best `depth` passages as places and scores, best first; equal scores by key.
    fn score(
        &self,
        terms: &BTreeMap<String, u32>,
        query: &Query,
        depth: usize,
    ) -> Result<Vec<(DocAddress, f32)>> {
        let inner = &*self.index.inner;
        let totals = inner.state.totals;
        let Bm25Options { k1, b, title_weight } = self.options;
        let mask = query.filter().map(|filter| self.index.mask(filter)).transpose()?;
        let passages = totals.passages as f32;
        let length = title_weight * totals.title_terms as f32 + totals.text_terms as f32;
        let average = (length / passages).max(f32::MIN_POSITIVE);

        let mut found: Vec<(f32, u64, DocAddress)> = Vec::new();
        let segments = inner.searcher.segment_readers();
        let postings: Vec<Vec<Vec<Posting>>> = segments
            .iter()
            .map(|segment| terms.keys().map(|term| self.postings(segment, term)).collect())
            .collect::<Result<_>>()?;
        for (ordinal, segment) in segments.iter().enumerate() {
            let columns = segment.fast_fields();
            let keys = columns.u64(column::KEY)?.first_or_default_col(0);
            let title_terms = columns.u64(column::TITLE_TERMS)?.first_or_default_col(0);
            let text_terms = columns.u64(column::TEXT_TERMS)?.first_or_default_col(0);
            let mut scores = vec![0.0_f32; segment.max_doc() as usize];
            let mut touched = Vec::new();
            for (t, query_count) in terms.values().enumerate() {
                let df = postings.iter().map(|segment| segment[t].len()).sum::<usize>() as f32;
                let idf = (1.0 + (passages - df + 0.5) / (df + 0.5)).ln();
                for (doc, tf) in &postings[ordinal][t] {
                    let length = title_weight * title_terms.get_val(*doc) as f32
                        + text_terms.get_val(*doc) as f32;
                    let norm = k1 * (1.0 - b + b * length / average);
                    let score = &mut scores[*doc as usize];
                    if *score == 0.0 {
                        touched.push(*doc);
                    }
                    *score += *query_count as f32 * idf * tf / (tf + norm);
                }
            }
            found.extend(
                touched
                    .into_iter()
                    .filter(|doc| mask.as_ref().is_none_or(|mask| mask.passes(ordinal, *doc)))
                    .map(|doc| {
                        let address = DocAddress::new(ordinal as u32, doc);
                        (scores[doc as usize], keys.get_val(doc), address)
                    }),
            );
        }
        let best_first =
            |left: &(f32, u64, DocAddress), right: &(f32, u64, DocAddress)| -> Ordering {
                right.0.total_cmp(&left.0).then(left.1.cmp(&right.1))
            };
        if found.len() > depth {
            found.select_nth_unstable_by(depth, best_first);
            found.truncate(depth);
        }
        found.sort_unstable_by(best_first);
        Ok(found.into_iter().map(|(score, _, address)| (address, score)).collect())
    }

    /// The passages of a segment that hold the term, with `w · tf_title + tf_text`, ascending.
    fn postings(&self, segment: &SegmentReader, term: &str) -> Result<Vec<Posting>> {
        let fields = &self.index.inner.fields;
        let title = field_postings(segment, fields.title, term, self.options.title_weight)?;
        let text = field_postings(segment, fields.text, term, 1.0)?;
        let mut merged = Vec::with_capacity(title.len() + text.len());
        let mut title = title.into_iter().filter(|(_, tf)| *tf > 0.0).peekable();
        for (doc, tf) in text {
            while let Some(earlier) = title.next_if(|(other, _)| *other < doc) {
                merged.push(earlier);
            }
            let in_title = title.next_if(|(other, _)| *other == doc).map_or(0.0, |(_, tf)| tf);
            merged.push((doc, tf + in_title));
        }
        merged.extend(title);
        Ok(merged)
    }
}

fn field_postings(
    segment: &SegmentReader,
    field: Field,
    term: &str,
    weight: f32,
) -> Result<Vec<Posting>> {
    let term = Term::from_field_text(field, term);
    let postings = segment
        .inverted_index(field)?
        .read_postings(&term, IndexRecordOption::WithFreqs)
        .map_err(tantivy::TantivyError::from)?;
    let mut found = Vec::new();
    if let Some(mut postings) = postings {
        while postings.doc() != TERMINATED {
            if !segment.is_deleted(postings.doc()) {
                found.push((postings.doc(), weight * postings.term_freq() as f32));
            }
            postings.advance();
        }
    }
    Ok(found)
}

#[async_trait]
impl Retriever for Bm25Retriever {
    fn name(&self) -> &str {
        STAGE
    }

    async fn retrieve(
        &self,
        call: &Call,
        query: &Query,
        depth: usize,
    ) -> topshelf_core::Result<Ranking> {
        let (search, query) = (Arc::clone(&self.0), query.clone());
        self.0.index.search(STAGE, call, move || search.search(&query, depth)).await
    }
}
