//! [`Ranking`]: one query's candidates in one total order.
//!
//! The order is score descending, then passage id ascending, so it does not depend on the order
//! in which a stage found its candidates. Scores are finite: a ranking with NaN or an infinity
//! cannot be made. Passages that a reranker could not score stand behind the scored ones, in
//! the order they had before.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::passage::Passage;
use crate::score::Scale;

/// What one stage said of a candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// The stage: `bm25`, `dense`, `fused`, `rerank`.
    pub stage: String,
    /// The scale of its score.
    pub scale: Scale,
    /// Its score.
    pub score: f32,
    /// The place it gave the candidate, from 1.
    pub rank: usize,
}

/// A candidate with its present score and what every stage so far said of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// The candidate.
    pub passage: Arc<Passage>,
    /// The score by which it stands here, on the ranking's scale; the score of the stage before
    /// for a passage that the last stage could not score.
    pub score: f32,
    /// One signal for each stage that scored it, oldest first.
    pub signals: Vec<Signal>,
    /// The probability that it is relevant, as a reranker's calibrated score has it; `None` if no
    /// reranker read it or its scores cannot be read as one.
    pub relevance: Option<f32>,
    /// The bytes of the passage's text on which the last reranker's score rests, where it did not
    /// read all of it as one.
    pub span: Option<Range<usize>>,
}

impl Hit {
    /// What the named stage said of this candidate.
    pub fn signal(&self, stage: &str) -> Option<&Signal> {
        self.signals.iter().rev().find(|signal| signal.stage == stage)
    }
}

/// One query's candidates in one total order.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    stage: String,
    scale: Scale,
    hits: Vec<Hit>,
}

impl Ranking {
    /// Orders what a retriever found.
    ///
    /// # Errors
    ///
    /// [`Error::NotFinite`] for a score that is NaN or infinite, [`Error::DuplicatePassage`]
    /// for a passage that stands twice.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use topshelf_core::{Passage, Ranking, Scale};
    /// let found = ["b", "a", "c"].map(|id| (Arc::new(Passage::standalone(id, "", "text")), 1.0));
    /// let ranking = Ranking::new("bm25", Scale::Bm25, found)?;
    /// let order: Vec<&str> = ranking.hits().iter().map(|hit| hit.passage.id.as_str()).collect();
    /// assert_eq!(order, ["a", "b", "c"]); // equal scores: by id
    /// # Ok::<(), topshelf_core::Error>(())
    /// ```
    pub fn new(
        stage: impl Into<String>,
        scale: Scale,
        found: impl IntoIterator<Item = (Arc<Passage>, f32)>,
    ) -> Result<Self> {
        let hits = found
            .into_iter()
            .map(|(passage, score)| Hit {
                passage,
                score,
                signals: Vec::new(),
                relevance: None,
                span: None,
            })
            .collect();
        Self::from_hits(stage, scale, hits, Vec::new())
    }

    /// The same candidates under new scores, `None` where the stage could not score one.
    ///
    /// # Errors
    ///
    /// [`Error::ScoreCount`] if there is not one entry for each hit, [`Error::NotFinite`] for a
    /// score that is NaN or infinite.
    pub fn rescored(
        self,
        stage: impl Into<String>,
        scale: Scale,
        scores: &[Option<f32>],
    ) -> Result<Self> {
        let stage = stage.into();
        if scores.len() != self.hits.len() {
            return Err(Error::ScoreCount { stage, expected: self.hits.len(), got: scores.len() });
        }
        let (mut scored, mut unscored) = (Vec::with_capacity(scores.len()), Vec::new());
        for (mut hit, score) in self.hits.into_iter().zip(scores) {
            match score {
                Some(score) => {
                    hit.score = *score;
                    scored.push(hit);
                }
                None => unscored.push(hit),
            }
        }
        Self::from_hits(stage, scale, scored, unscored)
    }

    /// A ranking that was recorded: `hits` in the order in which they stood. No signal is added.
    ///
    /// # Errors
    ///
    /// As for [`Self::new`].
    ///
    /// ```
    /// use std::sync::Arc;
    /// use topshelf_core::{Passage, Ranking, Scale};
    /// let found = [(Arc::new(Passage::standalone("a", "", "text")), 1.0)];
    /// let ranking = Ranking::new("bm25", Scale::Bm25, found)?;
    /// let hits = ranking.hits().to_vec();
    /// assert_eq!(Ranking::restored("bm25", Scale::Bm25, hits)?, ranking);
    /// # Ok::<(), topshelf_core::Error>(())
    /// ```
    pub fn restored(stage: impl Into<String>, scale: Scale, hits: Vec<Hit>) -> Result<Self> {
        let stage = stage.into();
        Self::check(&stage, &hits)?;
        Ok(Self { stage, scale, hits })
    }

    /// Refuses scores that are not finite and passages that stand twice.
    fn check(stage: &str, hits: &[Hit]) -> Result<()> {
        let mut seen = HashSet::with_capacity(hits.len());
        for hit in hits {
            let names = || (stage.to_owned(), hit.passage.id.clone());
            if !hit.score.is_finite() {
                let (stage, passage) = names();
                return Err(Error::NotFinite { stage, passage, score: hit.score });
            }
            if !seen.insert(hit.passage.id.as_str()) {
                let (stage, passage) = names();
                return Err(Error::DuplicatePassage { passage, stage });
            }
        }
        Ok(())
    }

    /// Orders `hits` by their scores, leaves this stage's signal on each, and puts `unscored`
    /// behind them as they come.
    pub(crate) fn from_hits(
        stage: impl Into<String>,
        scale: Scale,
        mut hits: Vec<Hit>,
        unscored: Vec<Hit>,
    ) -> Result<Self> {
        let stage = stage.into();
        Self::check(&stage, &hits)?;
        hits.sort_by(Self::order);
        for (position, hit) in hits.iter_mut().enumerate() {
            let (score, rank) = (hit.score, position + 1);
            hit.signals.push(Signal { stage: stage.clone(), scale, score, rank });
        }
        hits.extend(unscored);
        Ok(Self { stage, scale, hits })
    }

    /// Score descending, then passage id ascending.
    fn order(left: &Hit, right: &Hit) -> Ordering {
        right.score.total_cmp(&left.score).then_with(|| left.passage.id.cmp(&right.passage.id))
    }

    /// The stage that made this order.
    pub fn stage(&self) -> &str {
        &self.stage
    }

    /// The scale of the scores.
    pub fn scale(&self) -> Scale {
        self.scale
    }

    /// The candidates, best first.
    pub fn hits(&self) -> &[Hit] {
        &self.hits
    }

    /// The number of candidates.
    pub fn len(&self) -> usize {
        self.hits.len()
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.hits.is_empty()
    }

    /// The best `n` of them.
    #[must_use]
    pub fn top(mut self, n: usize) -> Self {
        self.hits.truncate(n);
        self
    }

    /// Those of them for which `keep` answers true.
    #[must_use]
    pub fn filtered(mut self, keep: impl FnMut(&Hit) -> bool) -> Self {
        self.hits.retain(keep);
        self
    }

    /// Sets the [`Hit::span`] of the first hits, one entry for each.
    pub(crate) fn set_spans(&mut self, spans: &[Option<(usize, usize)>]) {
        for (hit, span) in self.hits.iter_mut().zip(spans) {
            hit.span = span.map(|(start, end)| start..end);
        }
    }

    /// Sets each hit's [`Hit::relevance`].
    pub(crate) fn set_relevance(&mut self, of: impl Fn(&Hit) -> Result<Option<f32>>) -> Result<()> {
        for hit in &mut self.hits {
            hit.relevance = of(hit)?;
        }
        Ok(())
    }

    /// The candidates, given away.
    pub fn into_hits(self) -> Vec<Hit> {
        self.hits
    }

    /// One entry for each document, at the place of its best passage: the document's id and the
    /// score of that passage. This is what is compared with judgments of whole documents.
    pub fn documents(&self) -> Vec<(&str, f32)> {
        let mut seen = HashSet::new();
        self.hits
            .iter()
            .filter(|hit| seen.insert(hit.passage.document.as_str()))
            .map(|hit| (hit.passage.document.as_str(), hit.score))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(items: &[(&str, f32)]) -> Vec<(Arc<Passage>, f32)> {
        items
            .iter()
            .map(|(id, score)| (Arc::new(Passage::standalone(*id, "", "t")), *score))
            .collect()
    }

    fn ids(ranking: &Ranking) -> Vec<&str> {
        ranking.hits().iter().map(|hit| hit.passage.id.as_str()).collect()
    }

    #[test]
    fn not_a_number_is_refused_where_it_is_born() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = Ranking::new("dense", Scale::Cosine, found(&[("a", 1.0), ("b", bad)]));
            assert!(matches!(error, Err(Error::NotFinite { .. })));
        }
    }

    #[test]
    fn a_passage_stands_once() {
        let error = Ranking::new("bm25", Scale::Bm25, found(&[("a", 1.0), ("a", 2.0)]));
        assert!(matches!(error, Err(Error::DuplicatePassage { .. })));
    }

    #[test]
    fn unscored_candidates_stand_last_in_their_old_order() {
        let ranking = Ranking::new(
            "bm25",
            Scale::Bm25,
            found(&[("a", 4.0), ("b", 3.0), ("c", 2.0), ("d", 1.0)]),
        )
        .unwrap();
        let scores = [None, Some(-1.0), None, Some(5.0)];
        let reranked = ranking.rescored("rerank", Scale::Logit, &scores).unwrap();
        assert_eq!(ids(&reranked), ["d", "b", "a", "c"]);
        assert_eq!(reranked.hits()[0].signal("rerank").unwrap().rank, 1);
        assert_eq!(reranked.hits()[0].signal("bm25").unwrap().rank, 4);
        assert!(reranked.hits()[2].signal("rerank").is_none());
    }

    #[test]
    fn a_document_takes_the_place_of_its_best_passage() {
        let passages = [("a#0", "a", 1.0), ("b#0", "b", 2.0), ("a#1", "a", 3.0)];
        let ranking = Ranking::new(
            "bm25",
            Scale::Bm25,
            passages.map(|(id, document, score)| {
                let mut passage = Passage::standalone(id, "", "t");
                passage.document = document.into();
                (Arc::new(passage), score)
            }),
        )
        .unwrap();
        assert_eq!(ranking.documents(), [("a", 3.0), ("b", 2.0)]);
    }
}
