//! [`Pointwise`]: one question for each passage, all of them at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use topshelf_core::{
    Ask, Call, Error, Grain, LanguageModel, ModelIdentity, Passage, PassageFailure, Query,
    RerankOutcome, RerankScore, Reranker, Result, Scale, Written,
};

use crate::error::LlmError;
use crate::template::Template;
use crate::{STAGE, cut};

/// Tokens of a passage that are read, at most.
const PASSAGE_TOKENS: usize = 1024;

/// A language model that says of each passage how relevant it is. At its first call it is asked about
/// the template's golden pair too, and refused if it cannot tell it apart.
pub struct Pointwise {
    model: Arc<dyn LanguageModel>,
    template: Template,
    identity: ModelIdentity,
    /// Whether the golden pair was told apart.
    is_proven: AtomicBool,
}

impl Pointwise {
    /// The model, asked in this way.
    pub fn new(model: Arc<dyn LanguageModel>, template: Template) -> Self {
        let mut identity = model.identity().clone();
        // The score is of the question too.
        identity.fingerprint = format!("{} {}", identity.fingerprint, template.name());
        Self { model, template, identity, is_proven: AtomicBool::new(false) }
    }

    /// Whether the golden pair's passages lie far enough apart.
    fn prove(
        &self,
        golden: &[std::result::Result<Written, PassageFailure>],
    ) -> Result<(), LlmError> {
        let (model, template) = (&self.identity.name, self.template.name());
        let score = |outcome: Option<&std::result::Result<Written, PassageFailure>>| {
            let written = outcome.and_then(|outcome| outcome.as_ref().ok());
            let score = written.ok_or("it does not answer".to_owned());
            score
                .and_then(|written| self.template.read(written))
                .map_err(|reason| LlmError::NoGolden { model: model.clone(), template, reason })
        };
        let (relevant, other) = (score(golden.first())?, score(golden.get(1))?);
        let margin = self.template.margin();
        if relevant - other < margin {
            let model = model.clone();
            return Err(LlmError::Golden { model, template, relevant, other, margin });
        }
        Ok(())
    }

    /// The score in an answer.
    fn outcome(
        &self,
        written: std::result::Result<Written, PassageFailure>,
        truncated_tokens: usize,
    ) -> RerankOutcome {
        let written = written?;
        let score = self.template.read(&written).map_err(|reason| PassageFailure { reason })?;
        Ok(RerankScore { truncated_tokens, ..RerankScore::new(score) })
    }
}

#[async_trait]
impl Reranker for Pointwise {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn scale(&self) -> Scale {
        self.template.scale()
    }

    fn grain(&self) -> Grain {
        Grain::Pair
    }

    fn count_tokens(&self, text: &str) -> usize {
        self.model.count_tokens(text)
    }

    async fn score(
        &self,
        call: &Call,
        query: &Query,
        passages: &[Arc<Passage>],
    ) -> Result<Vec<RerankOutcome>> {
        if passages.is_empty() {
            return Ok(Vec::new());
        }
        let is_proven = self.is_proven.load(Ordering::Relaxed);
        let mut asks: Vec<Ask> = if is_proven { vec![] } else { self.template.golden().to_vec() };
        let golden = asks.len();
        let mut truncated = Vec::with_capacity(passages.len());
        for passage in passages {
            let text = passage.model_text();
            let (text, dropped) = cut(&text, PASSAGE_TOKENS);
            truncated.push(dropped);
            asks.push(self.template.ask(query.text(), text));
        }
        let mut written = self.model.write(call, &asks).await?;
        if written.len() != asks.len() {
            let (stage, expected) = (STAGE.to_owned(), asks.len());
            return Err(Error::ScoreCount { stage, expected, got: written.len() });
        }
        let rest = written.split_off(golden);
        if !is_proven {
            self.prove(&written).map_err(LlmError::into_stage)?;
            self.is_proven.store(true, Ordering::Relaxed);
        }
        let outcomes = rest.into_iter().zip(truncated);
        Ok(outcomes.map(|(written, dropped)| self.outcome(written, dropped)).collect())
    }
}
