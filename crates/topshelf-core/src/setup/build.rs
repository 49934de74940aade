//! A setup to a pipeline, its stages handed over by whoever has them.

use std::sync::Arc;

use super::{RetrieverKind, SecondStageSetup, Setup};
use crate::calibrate::Calibration;
use crate::error::{Error, Result};
use crate::pipeline::Pipeline;
use crate::second_stage::{Policy, SecondStage};
use crate::stage::{Reranker, Retriever};

impl Setup {
    /// When and how the scores of the second stage are used.
    pub fn policy(&self) -> Policy {
        let second = self.second_stage.as_ref();
        Policy {
            gate: second.and_then(|own| own.gate.clone()),
            blend: second.and_then(|own| own.blend),
            calibration: second.map_or_else(Calibration::default, |own| own.calibration.clone()),
            min_relevance: second.and_then(|own| own.min_relevance),
            deadline: self.deadline,
            on_failure: self.on_failure,
        }
    }

    /// The pipeline of these stages: `retriever` hands over each retriever.
    ///
    /// # Errors
    ///
    /// What it answers; as [`Self::check`].
    pub fn pipeline<E: From<Error>>(
        &self,
        mut retriever: impl FnMut(RetrieverKind) -> Result<Arc<dyn Retriever>, E>,
        second_stage: Option<SecondStage>,
    ) -> Result<Pipeline, E> {
        self.check()?;
        let first = &self.first_stage;
        let mut builder = Pipeline::builder().depth(first.depth).top(self.top);
        builder = builder.deadline(self.deadline).on_failure(self.on_failure);
        builder = builder.fusion(first.fusion.clone().unwrap_or_default());
        for kind in first.retrievers().iter() {
            builder = builder.retriever(retriever(kind)?);
        }
        if let Some(second) = second_stage {
            builder = builder.second_stage(second);
        }
        Ok(builder.build()?)
    }

    /// The second stage, its rerankers loaded by `reranker`; `None` where nothing is reranked.
    ///
    /// # Errors
    ///
    /// What `reranker` answers, and [`Error::OutOfRange`] for a number that means nothing.
    pub fn second_stage<E: From<Error>>(
        &self,
        reranker: impl FnMut(&str) -> Result<Arc<dyn Reranker>, E>,
    ) -> Result<Option<SecondStage>, E> {
        let Some(second) = &self.second_stage else { return Ok(None) };
        Ok(Some(second.rerankers(reranker)?.with_policy(self.policy())?))
    }
}

impl SecondStageSetup {
    /// The rerankers, each loaded by `reranker`, without a policy.
    ///
    /// # Errors
    ///
    /// What `reranker` answers, and [`Error::OutOfRange`] for a number that means nothing.
    pub fn rerankers<E: From<Error>>(
        &self,
        mut reranker: impl FnMut(&str) -> Result<Arc<dyn Reranker>, E>,
    ) -> Result<SecondStage, E> {
        let mut stage = None;
        for step in self.cascade.iter() {
            for (place, name) in step.names().enumerate() {
                let model = reranker(name)?;
                let expected = step.fingerprint.clone();
                stage = Some(match stage {
                    None => SecondStage::new(model).expecting(expected),
                    Some(stage) if place > 0 => SecondStage::or(stage, model),
                    Some(stage) => {
                        let keep = step.keep.unwrap_or(usize::MAX);
                        stage.then(model, keep, step.early_stop)?.expecting(expected)
                    }
                });
            }
        }
        stage.ok_or_else(|| Error::NoReranker.into())
    }
}
