//! What is compared: a *system* is a first stage (`bm25`, `dense`, `hybrid`, or `candidates` from a
//! run file) with or without the second stage behind it, written `hybrid+rerank`, and with the
//! policies of the second stage that take part, written `hybrid+rerank+blend`.

use std::time::Duration;

use anyhow::Result;
use topshelf::{OnFailure, RetrieverKind, Retrievers, Setup};

use crate::args;
use crate::exit::usage;

/// Where candidates come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Retrievers(Retrievers),
    /// A run file.
    Candidates,
}

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct System {
    pub(super) stage: Stage,
    pub(super) reranked: bool,
    /// Whether the rerank score is blended with the first stage's.
    pub(super) blended: bool,
    /// Whether a gate may skip reranking.
    pub(super) gated: bool,
    /// A deadline of its own.
    pub(super) deadline: Option<Duration>,
}

impl System {
    /// Reads `hybrid+rerank` and the like.
    pub(super) fn parse(name: &str) -> Result<Self> {
        let unknown = || {
            usage(format!(
                "no system is called \"{name}\"; there are bm25, dense, hybrid, colbert, \
                 hybrid-colbert, hybrid+colbert, candidates, each also with +rerank, and that with +blend, +gate and a deadline such as @100ms \
                 behind it"
            ))
        };
        let (name, deadline) = match name.trim().split_once('@') {
            Some((name, deadline)) => (name, Some(args::deadline(deadline).map_err(usage)?)),
            None => (name.trim(), None),
        };
        // `bm25+dense+rerank`: retrievers come first.
        let parts: Vec<&str> = name.split('+').collect();
        let is_retriever = |part: &&str| part.parse::<Retrievers>().is_ok();
        let retrievers = parts.iter().copied().take_while(is_retriever).count();
        let (stage, parts) = match parts.split_at(retrievers) {
            ([], ["candidates", rest @ ..]) => (Stage::Candidates, rest),
            (names, rest) => {
                let names = names.join("+").parse().map_err(|_| unknown())?;
                (Stage::Retrievers(names), rest)
            }
        };
        let mut own = Self { stage, reranked: false, blended: false, gated: false, deadline };
        for part in parts {
            let set = match *part {
                "rerank" => &mut own.reranked,
                "blend" if own.reranked => &mut own.blended,
                "gate" if own.reranked => &mut own.gated,
                _ => return Err(unknown()),
            };
            if std::mem::replace(set, true) {
                return Err(unknown());
            }
        }
        if deadline.is_some() && !own.reranked {
            return Err(usage("a deadline goes with a system that reranks: hybrid+rerank@100ms"));
        }
        Ok(own)
    }

    pub(super) fn name(&self) -> String {
        let stage = match self.stage {
            Stage::Retrievers(retrievers) => retrievers.to_string(),
            Stage::Candidates => "candidates".to_owned(),
        };
        let part = |there, name| if there { name } else { "" };
        let deadline = self
            .deadline
            .map_or(String::new(), |deadline| format!("@{}ms", deadline.as_secs_f64() * 1e3));
        format!(
            "{stage}{}{}{}{deadline}",
            part(self.reranked, "+rerank"),
            part(self.blended, "+blend"),
            part(self.gated, "+gate")
        )
    }

    /// The same without its second stage; `None` for one that has none.
    pub(super) fn first_stage(&self) -> Option<Self> {
        self.reranked.then_some(Self { reranked: false, ..self.without_policies() })
    }

    /// The same without a policy; `None` for one that has none.
    pub(super) fn plain(&self) -> Option<Self> {
        let plain = self.without_policies();
        (plain != *self).then_some(plain)
    }

    fn without_policies(&self) -> Self {
        Self { blended: false, gated: false, deadline: None, ..self.clone() }
    }

    /// Whether it needs the bi-encoder.
    pub(super) fn embeds(&self) -> bool {
        matches!(self.stage, Stage::Retrievers(own) if own.contains(RetrieverKind::Dense))
    }

    /// Its setup: what `base` says, as far as it takes part.
    pub(super) fn setup(&self, base: &Setup) -> Setup {
        let mut setup = base.clone();
        if let Stage::Retrievers(retrievers) = self.stage {
            setup.first_stage.retriever = Some(retrievers);
        }
        // All candidates are measured.
        setup.top = setup.first_stage.depth;
        setup.deadline = self.deadline.or(setup.deadline).filter(|_| self.reranked);
        if setup.deadline.is_some() {
            // What is late is what a deadline is measured for; a reranker that fails is an error all the same.
            setup.on_failure = OnFailure::KeepOrder;
        }
        setup.second_stage = setup.second_stage.filter(|_| self.reranked);
        if let Some(second) = &mut setup.second_stage {
            second.blend = second.blend.filter(|_| self.blended);
            second.gate = second.gate.take().filter(|_| self.gated);
        }
        setup
    }
}
