//! Reranking a list of given documents: [`SecondStage::rank`].
//!
//! The documents are candidates in the order given, which is what an unscored one keeps. Their ids are their
//! places, since ids of the caller's may repeat; the report and errors name them `document 0`, `document 1` and
//! so on.

use std::ops::Range;
use std::sync::Arc;

use crate::call::Call;
use crate::error::{Error, Result};
use crate::passage::{Passage, Query};
use crate::ranking::{Hit, Ranking};
use crate::report::SecondStageReport;
use crate::score::Scale;
use crate::second_stage::{RERANK_STAGE, SecondStage};

/// The name of the order that documents come in, in signals.
pub const STAGE: &str = "given";

/// The beginning of each id.
const ID: &str = "document ";

/// A document to be ranked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListedDocument {
    /// Read before the text; may be empty.
    pub title: String,
    /// The text.
    pub text: String,
}

impl From<String> for ListedDocument {
    fn from(text: String) -> Self {
        Self { title: String::new(), text }
    }
}

/// One document's place in the order.
#[derive(Debug, Clone, PartialEq)]
pub struct RankedDocument {
    /// Its place in the list, from 0.
    pub index: usize,
    /// The reranker's own score; `None` for one that was not scored.
    pub score: Option<f32>,
    /// The probability that it is relevant; `None` where the score has no reading as one.
    pub relevance: Option<f32>,
    /// The bytes of its text on which the score rests, where that is not all of it.
    pub span: Option<Range<usize>>,
}

/// The documents in their order.
#[derive(Debug, Clone)]
pub struct RankedList {
    /// Best first: as many as were asked for, fewer if a threshold withheld some.
    pub documents: Vec<RankedDocument>,
    /// The same as passages.
    pub ranking: Ranking,
    /// All documents as candidates.
    pub candidates: Ranking,
    /// What ran.
    pub report: SecondStageReport,
}

impl SecondStage {
    /// Orders documents that are given, of which the best `top` are wanted.
    ///
    /// # Errors
    ///
    /// As [`Self::run`].
    pub async fn rank(
        &self,
        call: &Call,
        query: &Query,
        documents: &[ListedDocument],
        top: usize,
    ) -> Result<RankedList> {
        let passages = documents.iter().enumerate().map(|(index, document)| {
            let ListedDocument { title, text } = document;
            // Ids of one length order as numbers do.
            (Arc::new(Passage::standalone(format!("{ID}{index:09}"), title, text)), -(index as f32))
        });
        let candidates = Ranking::new(STAGE, Scale::Rank, passages)?;
        let outcome = self.run(call, query, &candidates, top).await;
        let (ranking, mut report) = outcome.map_err(named)?;
        for failure in &mut report.failures {
            failure.reason = unpadded(&failure.reason);
        }
        for ran in &mut report.rerankers {
            let failed = ran.failed.iter_mut().map(|own| &mut own.passage);
            let truncated = ran.truncated.iter_mut().map(|own| &mut own.passage);
            for id in failed.chain(truncated) {
                *id = unpadded(id);
            }
        }
        let signal = report.answered_by().map_or(RERANK_STAGE, |ran| ran.stage.as_str());
        let ranking = ranking.top(top);
        let documents = ranking.hits().iter().map(|hit| ranked(hit, signal)).collect();
        Ok(RankedList { documents, ranking, candidates, report })
    }
}

/// What became of a document; `stage` is the reranker that answered, in signals.
fn ranked(hit: &Hit, stage: &str) -> RankedDocument {
    RankedDocument {
        index: index_of(&hit.passage.id),
        score: hit.signal(stage).map(|signal| signal.score),
        relevance: hit.relevance,
        span: hit.span.clone(),
    }
}

/// The place that an id of [`SecondStage::rank`] was made of.
fn index_of(id: &str) -> usize {
    id.strip_prefix(ID).and_then(|place| place.parse().ok()).unwrap_or_default()
}

/// An error about a document under its name.
fn named(error: Error) -> Error {
    match error {
        Error::NotFinite { stage, passage, score } => {
            Error::NotFinite { stage, passage: unpadded(&passage), score }
        }
        Error::AfterSpending { usage, source } => {
            Error::AfterSpending { usage, source: Box::new(named(*source)) }
        }
        other => other,
    }
}

/// A text in which ids stand as the documents' names, without the zeros that make them sort.
fn unpadded(text: &str) -> String {
    let mut parts = text.split(ID);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        let zeros = part.bytes().take_while(|byte| *byte == b'0').count();
        // The last digit is one, even if it is a zero.
        text + ID + &part[zeros.min(digits.saturating_sub(1))..]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_in_a_text_become_names() {
        for (padded, plain) in [
            ("document 000000000", "document 0"),
            ("passage \"document 000000120\" of 0007", "passage \"document 120\" of 0007"),
            ("document 12 and document 000000003", "document 12 and document 3"),
            ("the document is long", "the document is long"),
            ("document ", "document "),
        ] {
            assert_eq!(unpadded(padded), plain);
        }
        assert_eq!(index_of("document 000000120"), 120);
    }
}
