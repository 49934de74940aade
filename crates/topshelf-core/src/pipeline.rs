//! Retrieve, fuse, rerank, report: [`Pipeline`].
//!
//! Every answer says in its [`Report`] what ran. How candidates are found is in [`crate::first_stage`],
//! what happens between candidates and answer in [`crate::second_stage`]. A deadline covers both.

use std::sync::Arc;
use std::time::Duration;

use crate::call::Call;
use crate::error::{Error, Result};
use crate::first_stage::{BEFORE_RERANKING, Candidates, FirstStage};
use crate::fuse::Fusion;
use crate::passage::Query;
use crate::ranking::Ranking;
use crate::report::Report;
use crate::second_stage::{OnFailure, SecondStage};
use crate::stage::{Reranker, Retriever};

/// Passages in an answer unless set.
const TOP: usize = 10;

/// A first stage of one or more retrievers and an optional second stage.
///
/// Built by [`Pipeline::builder`]; cheap to clone.
#[derive(Clone)]
pub struct Pipeline {
    first_stage: FirstStage,
    second_stage: Option<SecondStage>,
    top: usize,
    /// From the question to the answer; that of the second stage's policy counts too.
    deadline: Option<Duration>,
}

/// Collects the parts of a [`Pipeline`]. Depth is 100 and top 10 unless set.
#[derive(Clone, Default)]
#[must_use]
pub struct PipelineBuilder {
    retrievers: Vec<Arc<dyn Retriever>>,
    fusion: Fusion,
    second_stage: Option<SecondStage>,
    depth: Option<usize>,
    top: Option<usize>,
    deadline: Option<Duration>,
    on_failure: Option<OnFailure>,
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

impl Pipeline {
    /// An empty pipeline to add stages to.
    pub fn builder() -> PipelineBuilder {
        PipelineBuilder::default()
    }

    /// Answers one query, in a call of its own.
    ///
    /// # Errors
    ///
    /// As [`Self::run_with`].
    pub async fn run(&self, query: &Query) -> Result<Answer> {
        self.run_with(&Call::new(), query).await
    }

    /// Answers one query. A deadline counts from when the call began.
    ///
    /// # Errors
    ///
    /// What the first stage answers if no retriever does, and what the second stage answers; a passage
    /// that alone cannot be scored is no error but stands in the report.
    pub async fn run_with(&self, call: &Call, query: &Query) -> Result<Answer> {
        let candidates = self.candidates(call, query).await?;
        self.rerank(call, query, candidates).await
    }

    /// The first half of [`Self::run_with`], for those who show its order before the second has run.
    ///
    /// # Errors
    ///
    /// As [`FirstStage::run`].
    pub async fn candidates(&self, call: &Call, query: &Query) -> Result<Candidates> {
        self.first_stage.run(&self.due(call), query).await
    }

    /// The second half of [`Self::run_with`], in the same call.
    ///
    /// # Errors
    ///
    /// As [`SecondStage::run`].
    pub async fn rerank(
        &self,
        call: &Call,
        query: &Query,
        candidates: Candidates,
    ) -> Result<Answer> {
        let Candidates { ranking: candidates, retrievers } = candidates;
        let (ranking, second_stage) = match &self.second_stage {
            Some(second) => {
                let (ranking, report) =
                    second.run(&self.due(call), query, &candidates, self.top).await?;
                (ranking, Some(report))
            }
            None => (candidates.clone(), None),
        };
        let report = Report {
            fusion: self.first_stage.fusion().map(Fusion::describe),
            retrievers,
            second_stage,
            milliseconds: call.began().elapsed().as_secs_f64() * 1e3,
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

    /// The first stage.
    pub fn first_stage(&self) -> &FirstStage {
        &self.first_stage
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

    /// The call with the deadline of this pipeline and of its second stage.
    fn due(&self, call: &Call) -> Call {
        let of_policy = self.second_stage.as_ref().and_then(|second| second.policy().deadline);
        call.due_within(self.deadline).due_within(of_policy)
    }
}

impl PipelineBuilder {
    /// Adds a retriever; several are asked together, and their rankings are fused.
    pub fn retriever(mut self, retriever: impl Retriever + 'static) -> Self {
        self.retrievers.push(Arc::new(retriever));
        self
    }

    /// How several rankings become one; reciprocal rank fusion with k = 60 unless set.
    pub fn fusion(self, fusion: Fusion) -> Self {
        Self { fusion, ..self }
    }

    /// Sets a second stage of one reranker over all candidates, without a policy.
    pub fn reranker(self, reranker: impl Reranker + 'static) -> Self {
        self.second_stage(SecondStage::new(reranker))
    }

    /// Sets the second stage.
    pub fn second_stage(self, second_stage: SecondStage) -> Self {
        Self { second_stage: Some(second_stage), ..self }
    }

    /// Candidates that each retriever fetches and that are reranked.
    pub fn depth(self, depth: usize) -> Self {
        Self { depth: Some(depth), ..self }
    }

    /// Passages in the answer.
    pub fn top(self, top: usize) -> Self {
        Self { top: Some(top), ..self }
    }

    /// From the question to the answer, if that is limited. That of the second stage's policy counts
    /// too.
    pub fn deadline(self, deadline: Option<Duration>) -> Self {
        Self { deadline, ..self }
    }

    /// What happens where a retriever fails or is late; as the second stage's policy has it unless set,
    /// and an error without one.
    pub fn on_failure(self, on_failure: OnFailure) -> Self {
        Self { on_failure: Some(on_failure), ..self }
    }

    /// The pipeline.
    ///
    /// # Errors
    ///
    /// [`Error::NoRetriever`], [`Error::DepthZero`], [`Error::TopZero`],
    /// [`Error::TopExceedsDepth`].
    pub fn build(self) -> Result<Pipeline> {
        let Self { retrievers, fusion, second_stage, depth, top, deadline, on_failure } = self;
        let mut retrievers = retrievers.into_iter();
        let mut first_stage = FirstStage::new(retrievers.next().ok_or(Error::NoRetriever)?);
        for retriever in retrievers {
            first_stage = first_stage.and(retriever);
        }
        first_stage = first_stage.with_fusion(fusion);
        if let Some(depth) = depth {
            first_stage = first_stage.with_depth(depth)?;
        }
        if let Some(second_stage) = &second_stage {
            first_stage = first_stage
                .on_failure(second_stage.policy().on_failure)
                .with_wait_share(BEFORE_RERANKING)?;
        }
        if let Some(on_failure) = on_failure {
            first_stage = first_stage.on_failure(on_failure);
        }
        let (depth, top) = (first_stage.depth(), top.unwrap_or(TOP));
        if top == 0 {
            return Err(Error::TopZero);
        }
        if top > depth {
            return Err(Error::TopExceedsDepth { top, depth });
        }
        Ok(Pipeline { first_stage, second_stage, top, deadline })
    }
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
        assert_eq!(answer.report.retrievers[1].found(), 2);
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
