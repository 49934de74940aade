//! Reranking a list of given documents: [`SecondStage::rank`].
//!
//! The documents are candidates in the order given, which is what an unscored one keeps. Their ids are their
//! places, since ids of the caller's may repeat; the report names them `document 0`, `document 1` and so on.

use std::ops::Range;
use std::sync::Arc;

use crate::call::Call;
use crate::error::Result;
use crate::passage::{Passage, Query};
use crate::ranking::{Hit, Ranking};
use crate::report::SecondStageReport;
use crate::score::Scale;
use crate::second_stage::{RERANK_STAGE, SecondStage};

/// The name of the order that documents come in, in signals.
pub const STAGE: &str = "given";

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
            (Arc::new(Passage::standalone(format!("{index:09}"), title, text)), -(index as f32))
        });
        let candidates = Ranking::new(STAGE, Scale::Rank, passages)?;
        let (ranking, mut report) = self.run(call, query, &candidates, top).await?;
        for ran in &mut report.rerankers {
            let failed = ran.failed.iter_mut().map(|own| &mut own.passage);
            let truncated = ran.truncated.iter_mut().map(|own| &mut own.passage);
            for id in failed.chain(truncated) {
                *id = format!("document {}", index_of(id));
            }
        }
        let signal = report.answered_by().map_or(RERANK_STAGE, |ran| ran.stage.as_str());
        let ranking = ranking.top(top);
        let documents = ranking.hits().iter().map(|hit| ranked(hit, signal)).collect();
        Ok(RankedList { documents, ranking, candidates, report })
    }
}

impl RankedDocument {
    /// One number for those who take one: the probability where there is one, else the score, else 0.
    pub fn number(&self) -> f32 {
        self.relevance.or(self.score).unwrap_or(0.0)
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
    id.parse().unwrap_or_default()
}
