//! Retrieve, fuse, rerank, report: [`Pipeline`].
//!
//! Every answer says in its [`Report`] what ran. What happens between candidates and answer is in
//! [`crate::second_stage`].

use std::sync::Arc;
use std::time::Instant;

use tracing::Instrument as _;
use tracing::field::Empty;

use crate::call::Call;
use crate::error::{Error, Result};
use crate::fuse::Fusion;
use crate::passage::Query;
use crate::ranking::Ranking;
use crate::report::{Report, RetrieverReport};
use crate::second_stage::SecondStage;
use crate::stage::{Reranker, Retriever};

/// A first stage of one or more retrievers and an optional second stage.
///
/// Built by [`Pipeline::builder`]; cheap to clone.
#[derive(Clone)]
pub struct Pipeline {
    retrievers: Vec<Arc<dyn Retriever>>,
    fusion: Fusion,
    second_stage: Option<SecondStage>,
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

/// What the first stage found for a query.
#[derive(Debug, Clone)]
pub struct Candidates {
    /// At most `depth`, as the first stage orders them.
    pub ranking: Ranking,
    /// What each retriever did.
    pub retrievers: Vec<RetrieverReport>,
}

impl Pipeline {
    /// An empty pipeline to add stages to.
    pub fn builder() -> PipelineBuilder {
        PipelineBuilder {
            pipeline: Self {
                retrievers: Vec::new(),
                fusion: Fusion::default(),
                second_stage: None,
                depth: 100,
                top: 10,
            },
        }
    }

    /// Answers one query, in a call of its own.
    ///
    /// # Errors
    ///
    /// As [`Self::run_with`].
    pub async fn run(&self, query: &Query) -> Result<Answer> {
        self.run_with(&Call::new(), query).await
    }

    /// Answers one query. A deadline of the second stage's policy counts from when the call began.
    ///
    /// # Errors
    ///
    /// Whatever a stage answers; a passage that alone cannot be scored is no error but stands
    /// in the report.
    pub async fn run_with(&self, call: &Call, query: &Query) -> Result<Answer> {
        let candidates = self.candidates(call, query).await?;
        self.rerank(call, query, candidates).await
    }

    /// The first half of [`Self::run_with`], for those who show its order before the second has run.
    ///
    /// # Errors
    ///
    /// Whatever a retriever answers.
    pub async fn candidates(&self, call: &Call, query: &Query) -> Result<Candidates> {
        let (ranking, retrievers) = self.retrieve(call, query).await?;
        Ok(Candidates { ranking, retrievers })
    }

    /// The second half of [`Self::run_with`], in the same call.
    ///
    /// # Errors
    ///
    /// Whatever a reranker answers.
    pub async fn rerank(
        &self,
        call: &Call,
        query: &Query,
        candidates: Candidates,
    ) -> Result<Answer> {
        let Candidates { ranking: candidates, retrievers } = candidates;
        let (ranking, second_stage) = match &self.second_stage {
            Some(second) => {
                let (ranking, report) = second.run(call, query, &candidates, self.top).await?;
                (ranking, Some(report))
            }
            None => (candidates.clone(), None),
        };
        let report = Report {
            fusion: (retrievers.len() > 1).then(|| self.fusion.describe()),
            retrievers,
            second_stage,
            milliseconds: milliseconds_since(call.began()),
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

    /// The second stage, if there is one.
    pub fn second_stage(&self) -> Option<&SecondStage> {
        self.second_stage.as_ref()
    }

    /// The reranker whose scores decided an answer of this pipeline, which may have stood in for
    /// another; `None` where nothing has a rerank score.
    pub fn answered_by(&self, answer: &Answer) -> Option<&dyn Reranker> {
        let report = answer.report.second_stage.as_ref()?.answered_by()?;
        self.second_stage.as_ref()?.reranker_of(report)
    }

    async fn retrieve(
        &self,
        call: &Call,
        query: &Query,
    ) -> Result<(Ranking, Vec<RetrieverReport>)> {
        let mut rankings = Vec::with_capacity(self.retrievers.len());
        let mut reports = Vec::with_capacity(self.retrievers.len());
        for retriever in &self.retrievers {
            let start = Instant::now();
            let (name, depth) = (retriever.name(), self.depth);
            let span = tracing::debug_span!("retrieve", retriever = name, depth, found = Empty);
            let ranking =
                retriever.retrieve(&call.part(), query, depth).instrument(span.clone()).await?;
            span.record("found", ranking.len());
            reports.push(RetrieverReport {
                name: name.to_owned(),
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

    /// Sets a second stage of one reranker over all candidates, without a policy.
    pub fn reranker(self, reranker: impl Reranker + 'static) -> Self {
        self.second_stage(SecondStage::new(reranker))
    }

    /// Sets the second stage.
    pub fn second_stage(mut self, second_stage: SecondStage) -> Self {
        self.pipeline.second_stage = Some(second_stage);
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
    use crate::passage::Passage;
    use crate::score::Scale;
    use crate::stage::{ModelIdentity, PassageFailure, RerankOutcome, RerankScore};

    /// Finds the given passages in the given order.
    struct Fixed(&'static str, Vec<&'static str>);

    #[async_trait]
    impl Retriever for Fixed {
        fn name(&self) -> &str {
            self.0
        }

        async fn retrieve(&self, _: &Call, _: &Query, depth: usize) -> Result<Ranking> {
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

        async fn score(
            &self,
            _: &Call,
            _: &Query,
            passages: &[Arc<Passage>],
        ) -> Result<Vec<RerankOutcome>> {
            Ok(passages
                .iter()
                .map(|passage| {
                    if passage.text.starts_with('x') {
                        return Err(PassageFailure { reason: "starts with x".into() });
                    }
                    Ok(RerankScore::new(passage.text.len() as f32))
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
        assert_eq!(answer.report.second_stage.unwrap().rerankers[0].pairs, 3);
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
        let report = answer.report.second_stage.unwrap();
        assert_eq!(report.rerankers[0].failed[0].reason, "starts with x");
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
