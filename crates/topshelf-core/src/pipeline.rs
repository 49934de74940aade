//! Retrieve, fuse, rerank, report: [`Pipeline`].
//!
//! Every answer says what ran: the retrievers with their counts and times, the fusion, the
//! reranker by name and fingerprint, how many pairs it scored, what it truncated and what it
//! could not score. Times are wall-clock milliseconds.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::fuse::Fusion;
use crate::passage::{Passage, Query};
use crate::ranking::Ranking;
use crate::stage::{PassageFailure, Reranker, Retriever};

/// The name of the reranking stage in signals.
pub const RERANK_STAGE: &str = "rerank";

/// A first stage of one or more retrievers and an optional second stage.
///
/// Built by [`Pipeline::builder`]; cheap to clone.
#[derive(Clone)]
pub struct Pipeline {
    retrievers: Vec<Arc<dyn Retriever>>,
    fusion: Fusion,
    reranker: Option<Arc<dyn Reranker>>,
    depth: usize,
    top: usize,
}

/// Collects the parts of a [`Pipeline`]. Depth is 100 and top 10 unless set.
#[derive(Clone)]
#[must_use]
pub struct PipelineBuilder {
    pipeline: Pipeline,
}

/// One query's result.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The best passages: at most `top`.
    pub ranking: Ranking,
    /// The candidates as the first stage ordered them: at most `depth`.
    pub candidates: Ranking,
    /// What ran.
    pub report: Report,
}

/// What ran for one query.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The retrievers, in their order.
    pub retrievers: Vec<RetrieverReport>,
    /// The fusion, if there was more than one retriever.
    pub fusion: Option<String>,
    /// The reranker, if there was one.
    pub reranker: Option<RerankReport>,
    /// From query to answer.
    pub milliseconds: f64,
}

/// What one retriever did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RetrieverReport {
    /// Its name.
    pub name: String,
    /// Passages it found.
    pub found: usize,
    /// How long it took.
    pub milliseconds: f64,
}

/// What the reranker did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RerankReport {
    /// The model.
    pub model: String,
    /// Its fingerprint.
    pub fingerprint: String,
    /// What computed it.
    pub engine: String,
    /// Pairs it scored.
    pub pairs: usize,
    /// Tokens of the query that it did not read.
    pub query_truncated_tokens: usize,
    /// Passages of which it did not read all.
    pub truncated: Vec<Truncated>,
    /// Passages it could not score; they stand behind the others in the order they had.
    pub failed: Vec<Failed>,
    /// How long it took.
    pub milliseconds: f64,
}

/// A passage that did not fit into the reranker's window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Truncated {
    /// The passage's id.
    pub passage: String,
    /// Tokens that were not read.
    pub tokens: usize,
}

/// A passage without a score from the reranker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// The passage's id.
    pub passage: String,
    /// Why.
    pub reason: String,
}

impl Pipeline {
    /// An empty pipeline to add stages to.
    pub fn builder() -> PipelineBuilder {
        PipelineBuilder {
            pipeline: Self {
                retrievers: Vec::new(),
                fusion: Fusion::default(),
                reranker: None,
                depth: 100,
                top: 10,
            },
        }
    }

    /// Answers one query.
    ///
    /// # Errors
    ///
    /// Whatever a stage answers; a passage that alone cannot be scored is no error but stands
    /// in the report.
    pub async fn run(&self, query: &Query) -> Result<Answer> {
        let start = Instant::now();
        let (candidates, retrievers) = self.retrieve(query).await?;
        let (ranking, reranker) = match &self.reranker {
            Some(reranker) => {
                let (ranking, report) =
                    rerank(reranker.as_ref(), query, candidates.clone()).await?;
                (ranking, Some(report))
            }
            None => (candidates.clone(), None),
        };
        let report = Report {
            fusion: (retrievers.len() > 1).then(|| self.fusion.describe()),
            retrievers,
            reranker,
            milliseconds: milliseconds_since(start),
        };
        Ok(Answer { ranking: ranking.top(self.top), candidates, report })
    }

    /// [`Self::run`] for callers without an async runtime.
    ///
    /// # Errors
    ///
    /// As [`Self::run`].
    pub fn run_blocking(&self, query: &Query) -> Result<Answer> {
        pollster::block_on(self.run(query))
    }

    async fn retrieve(&self, query: &Query) -> Result<(Ranking, Vec<RetrieverReport>)> {
        let mut rankings = Vec::with_capacity(self.retrievers.len());
        let mut reports = Vec::with_capacity(self.retrievers.len());
        for retriever in &self.retrievers {
            let start = Instant::now();
            let ranking = retriever.retrieve(query, self.depth).await?;
            reports.push(RetrieverReport {
                name: retriever.name().to_owned(),
                found: ranking.len(),
                milliseconds: milliseconds_since(start),
            });
            rankings.push(ranking);
        }
        let candidates = match rankings.pop() {
            Some(only) if rankings.is_empty() => only,
            Some(last) => {
                rankings.push(last);
                self.fusion.fuse(rankings)?
            }
            None => return Err(Error::NoRetriever),
        };
        Ok((candidates.top(self.depth), reports))
    }
}

/// Rescores all candidates of a ranking: the second stage alone, for those who have a retriever.
///
/// # Errors
///
/// What the reranker answers; [`Error::ScoreCount`] and [`Error::NotFinite`] if its answer does
/// not fit the question.
pub async fn rerank(
    reranker: &dyn Reranker,
    query: &Query,
    candidates: Ranking,
) -> Result<(Ranking, RerankReport)> {
    let start = Instant::now();
    let passages: Vec<Arc<Passage>> =
        candidates.hits().iter().map(|hit| Arc::clone(&hit.passage)).collect();
    let outcomes =
        if passages.is_empty() { Vec::new() } else { reranker.score(query, &passages).await? };
    let mut report = RerankReport {
        model: reranker.identity().name.clone(),
        fingerprint: reranker.identity().fingerprint.clone(),
        engine: reranker.identity().engine.clone(),
        pairs: 0,
        query_truncated_tokens: 0,
        truncated: Vec::new(),
        failed: Vec::new(),
        milliseconds: 0.0,
    };
    let mut scores = Vec::with_capacity(outcomes.len());
    for (outcome, passage) in outcomes.into_iter().zip(&passages) {
        match outcome {
            Ok(scored) => {
                report.pairs += 1;
                report.query_truncated_tokens =
                    report.query_truncated_tokens.max(scored.query_truncated_tokens);
                if scored.truncated_tokens > 0 {
                    let tokens = scored.truncated_tokens;
                    report.truncated.push(Truncated { passage: passage.id.clone(), tokens });
                }
                scores.push(Some(scored.score));
            }
            Err(PassageFailure { reason }) => {
                report.failed.push(Failed { passage: passage.id.clone(), reason });
                scores.push(None);
            }
        }
    }
    let ranking = candidates.rescored(RERANK_STAGE, reranker.scale(), &scores)?;
    report.milliseconds = milliseconds_since(start);
    Ok((ranking, report))
}

impl PipelineBuilder {
    /// Adds a retriever; the rankings of several are fused.
    pub fn retriever(mut self, retriever: impl Retriever + 'static) -> Self {
        self.pipeline.retrievers.push(Arc::new(retriever));
        self
    }

    /// How several rankings become one; reciprocal rank fusion with k = 60 unless set.
    pub fn fusion(mut self, fusion: Fusion) -> Self {
        self.pipeline.fusion = fusion;
        self
    }

    /// Sets the second stage.
    pub fn reranker(mut self, reranker: impl Reranker + 'static) -> Self {
        self.pipeline.reranker = Some(Arc::new(reranker));
        self
    }

    /// Candidates that each retriever fetches and that are reranked.
    pub fn depth(mut self, depth: usize) -> Self {
        self.pipeline.depth = depth;
        self
    }

    /// Passages in the answer.
    pub fn top(mut self, top: usize) -> Self {
        self.pipeline.top = top;
        self
    }

    /// The pipeline.
    ///
    /// # Errors
    ///
    /// [`Error::NoRetriever`], [`Error::DepthZero`], [`Error::TopZero`],
    /// [`Error::TopExceedsDepth`].
    pub fn build(self) -> Result<Pipeline> {
        let Pipeline { ref retrievers, depth, top, .. } = self.pipeline;
        if retrievers.is_empty() {
            return Err(Error::NoRetriever);
        }
        if depth == 0 {
            return Err(Error::DepthZero);
        }
        if top == 0 {
            return Err(Error::TopZero);
        }
        if top > depth {
            return Err(Error::TopExceedsDepth { top, depth });
        }
        Ok(self.pipeline)
    }
}

fn milliseconds_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::score::Scale;
    use crate::stage::{ModelIdentity, RerankOutcome, RerankScore};

    /// Finds the given passages in the given order.
    struct Fixed(&'static str, Vec<&'static str>);

    #[async_trait]
    impl Retriever for Fixed {
        fn name(&self) -> &str {
            self.0
        }

        async fn retrieve(&self, _: &Query, depth: usize) -> Result<Ranking> {
            let found = self.1.iter().take(depth).enumerate().map(|(place, id)| {
                (Arc::new(Passage::standalone(*id, "", *id)), 100.0 - place as f32)
            });
            Ranking::new(self.0, Scale::Bm25, found)
        }
    }

    /// Scores a passage by its length; refuses those whose text starts with `x`.
    struct ByLength(ModelIdentity);

    #[async_trait]
    impl Reranker for ByLength {
        fn identity(&self) -> &ModelIdentity {
            &self.0
        }

        fn scale(&self) -> Scale {
            Scale::Logit
        }

        async fn score(&self, _: &Query, passages: &[Arc<Passage>]) -> Result<Vec<RerankOutcome>> {
            Ok(passages
                .iter()
                .map(|passage| {
                    if passage.text.starts_with('x') {
                        return Err(PassageFailure { reason: "starts with x".into() });
                    }
                    Ok(RerankScore {
                        score: passage.text.len() as f32,
                        truncated_tokens: 0,
                        query_truncated_tokens: 0,
                    })
                })
                .collect())
        }
    }

    fn by_length() -> ByLength {
        ByLength(ModelIdentity {
            name: "length".into(),
            fingerprint: "0".into(),
            engine: "test".into(),
        })
    }

    fn ids(ranking: &Ranking) -> Vec<&str> {
        ranking.hits().iter().map(|hit| hit.passage.id.as_str()).collect()
    }

    #[test]
    fn retrieves_fuses_reranks_and_says_so() {
        let pipeline = Pipeline::builder()
            .retriever(Fixed("bm25", vec!["a", "bb", "xxxx"]))
            .retriever(Fixed("dense", vec!["bb", "cccc"]))
            .reranker(by_length())
            .depth(3)
            .top(3)
            .build()
            .unwrap();
        let query = Query::new("q").unwrap();
        let answer = pipeline.run_blocking(&query).unwrap();
        assert_eq!(ids(&answer.candidates), ["bb", "a", "cccc"]);
        assert_eq!(ids(&answer.ranking), ["cccc", "bb", "a"]);
        assert_eq!(answer.report.fusion.as_deref(), Some("rrf(k=60)"));
        assert_eq!(answer.report.retrievers[1].found, 2);
        assert_eq!(answer.report.reranker.unwrap().pairs, 3);
        assert_eq!(answer.ranking.hits()[0].signal("dense").unwrap().rank, 2);
    }

    #[test]
    fn a_passage_that_cannot_be_scored_fails_alone() {
        let pipeline = Pipeline::builder()
            .retriever(Fixed("bm25", vec!["xx", "a", "bb"]))
            .reranker(by_length())
            .build()
            .unwrap();
        let query = Query::new("q").unwrap();
        let answer = pipeline.run_blocking(&query).unwrap();
        assert_eq!(ids(&answer.ranking), ["bb", "a", "xx"]);
        assert_eq!(answer.report.reranker.unwrap().failed[0].reason, "starts with x");
    }

    #[test]
    fn impossible_settings_are_refused() {
        let build = |depth, top| {
            Pipeline::builder().retriever(Fixed("bm25", vec![])).depth(depth).top(top).build()
        };
        assert!(matches!(build(0, 1), Err(Error::DepthZero)));
        assert!(matches!(build(10, 0), Err(Error::TopZero)));
        assert!(matches!(build(10, 11), Err(Error::TopExceedsDepth { top: 11, depth: 10 })));
        assert!(matches!(Pipeline::builder().build(), Err(Error::NoRetriever)));
    }
}
