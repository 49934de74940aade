//! Rerankers whose scores can be counted by hand, and those that fail in each way a model can.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use topshelf_core::{
    Blame, Call, Error, Grain, ModelIdentity, Passage, PassageFailure, Query, RerankOutcome,
    RerankScore, Reranker, Result, Scale, TokenMatch, Usage,
};
use topshelf_server::{ModelCard, ModelRole};

/// Tokens of a passage that [`Behaviour::Narrow`] reads.
const NARROW: usize = 3;

/// Tokens of a query that it reads.
const NARROW_QUERY: usize = 6;

/// Tokens of a pair that [`Behaviour::Share`] reads, four between and around them included.
const SHARE: usize = 24;

/// The rerankers that are served, the default one first: name, aliases, behaviour.
const SERVED: [(&str, &[&str], Behaviour); 12] = [
    ("overlap", &["rerank-v3.5", "jina-overlap"], Behaviour::Overlap),
    ("share", &[], Behaviour::Share),
    ("matching", &[], Behaviour::Matching),
    ("service", &[], Behaviour::Service),
    ("picky", &[], Behaviour::Picky),
    ("narrow", &[], Behaviour::Narrow),
    ("broken", &[], Behaviour::Broken),
    ("refusing", &[], Behaviour::Refusing),
    ("nan", &[], Behaviour::Nan),
    ("short", &[], Behaviour::Short),
    ("hanging", &[], Behaviour::Hanging),
    ("halting", &[], Behaviour::Halting),
];

/// What a fake reranker does. An *overlap* is the number of words that query and passage share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behaviour {
    /// A logit: twice the overlap, less 4.
    Overlap,
    /// A probability: the overlap divided by the words of the query. Long documents are read by windows.
    Share,
    /// A sum over tokens, which is no probability: the overlap. It explains its scores.
    Matching,
    /// A service's own number, below 0 for most: the overlap less 3. It is paid by use.
    Service,
    /// As `Overlap`, but a passage with the word "illegible" fails alone.
    Picky,
    /// As `Overlap`, over the first words alone: the rest is reported as truncated.
    Narrow,
    /// Fails.
    Broken,
    /// Rejects the request as the caller's fault.
    Refusing,
    /// Scores every second passage with NaN.
    Nan,
    /// Answers a score too few.
    Short,
    /// Never answers.
    Hanging,
    /// Answers its first call, and no other.
    Halting,
}

/// A reranker without a model.
pub(crate) struct FakeReranker {
    identity: ModelIdentity,
    behaviour: Behaviour,
    calls: AtomicUsize,
}

/// The rerankers that are served, each under its card.
pub(crate) fn served() -> Vec<(ModelCard, Arc<dyn Reranker>)> {
    let card = |(name, aliases, behaviour): (&str, &[&str], Behaviour)| {
        let identity = identity(name);
        let card = ModelCard {
            name: name.to_owned(),
            aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            role: ModelRole::Reranker,
            family: "cross-encoder".to_owned(),
            fingerprint: identity.fingerprint.clone(),
            engine: identity.engine.clone(),
            max_tokens: match behaviour {
                Behaviour::Narrow => Some(NARROW + NARROW_QUERY),
                Behaviour::Share => Some(SHARE),
                _ => None,
            },
            dimension: None,
        };
        let own = FakeReranker { identity, behaviour, calls: AtomicUsize::new(0) };
        (card, Arc::new(own) as Arc<dyn Reranker>)
    };
    SERVED.into_iter().map(card).collect()
}

/// The reranker of that name, for those who wrap it.
pub(crate) fn named(name: &str) -> Arc<dyn Reranker> {
    let found = served().into_iter().find(|(card, _)| card.name == name);
    found.expect("it is served").1
}

/// The identity of a fake model.
pub(crate) fn identity(name: &str) -> ModelIdentity {
    ModelIdentity {
        name: name.to_owned(),
        fingerprint: format!("fingerprint of {name}"),
        engine: "fake".to_owned(),
    }
}

/// The words of a text, in lower case.
pub(crate) fn words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

/// How many words of `query` are in `text`, each counted once.
pub(crate) fn overlap(query: &str, text: &[String]) -> usize {
    let mut asked = words(query);
    asked.sort();
    asked.dedup();
    asked.iter().filter(|word| text.contains(word)).count()
}

impl FakeReranker {
    fn fail(&self, blame: Blame, reason: &str) -> Error {
        Error::stage(self.identity.name.clone(), blame, reason)
    }

    fn outcome(&self, query: &Query, place: usize, passage: &Passage) -> RerankOutcome {
        let read = words(&passage.model_text());
        let found = overlap(query.text(), &read) as f32;
        let logit = 2.0 * found - 4.0;
        match self.behaviour {
            Behaviour::Share => {
                let asked = words(query.text()).len();
                let fits = SHARE.saturating_sub(asked + 4).min(read.len());
                let found = overlap(query.text(), &read[..fits]) as f32;
                let truncated_tokens = read.len() - fits;
                Ok(RerankScore {
                    truncated_tokens,
                    ..RerankScore::new(found / asked.max(1) as f32)
                })
            }
            Behaviour::Matching => Ok(RerankScore::new(found)),
            Behaviour::Service => Ok(RerankScore::new(found - 3.0)),
            Behaviour::Picky if read.iter().any(|word| word == "illegible") => {
                Err(PassageFailure { reason: "nobody can read it".to_owned() })
            }
            Behaviour::Narrow => Ok(narrow_score(query, passage)),
            Behaviour::Nan if place % 2 == 1 => Ok(RerankScore::new(f32::NAN)),
            _ => Ok(RerankScore::new(logit)),
        }
    }
}

/// The score of what fits: the first words of query and passage.
fn narrow_score(query: &Query, passage: &Passage) -> RerankScore {
    let (asked, all) = (words(query.text()), words(&passage.text));
    let head = asked[..asked.len().min(NARROW_QUERY)].join(" ");
    let read = &all[..all.len().min(NARROW)];
    let mut score = RerankScore::new(2.0 * overlap(&head, read) as f32 - 4.0);
    score.query_truncated_tokens = asked.len().saturating_sub(NARROW_QUERY);
    score.truncated_tokens = all.len().saturating_sub(NARROW);
    if score.truncated_tokens > 0 {
        let bytes = passage.text.split(' ').take(NARROW).map(|word| word.len() + 1).sum::<usize>();
        score.span = Some((0, bytes - 1));
    }
    score
}

#[async_trait]
impl Reranker for FakeReranker {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn scale(&self) -> Scale {
        match self.behaviour {
            Behaviour::Share => Scale::Probability,
            Behaviour::Matching => Scale::MaxSim,
            Behaviour::Service => Scale::Service,
            _ => Scale::Logit,
        }
    }

    fn max_tokens(&self) -> Option<usize> {
        (self.behaviour == Behaviour::Share).then_some(SHARE)
    }

    fn grain(&self) -> Grain {
        if self.behaviour == Behaviour::Service { Grain::Call } else { Grain::Pair }
    }

    fn count_tokens(&self, text: &str) -> usize {
        words(text).len()
    }

    async fn score(
        &self,
        call: &Call,
        query: &Query,
        passages: &[Arc<Passage>],
    ) -> Result<Vec<RerankOutcome>> {
        let is_first_call = self.calls.fetch_add(1, Ordering::Relaxed) == 0;
        match self.behaviour {
            Behaviour::Broken => {
                return Err(self.fail(Blame::Failure, "it is out of order – come again\nlater"));
            }
            Behaviour::Refusing => {
                return Err(self.fail(Blame::Caller, "it does not take such questions"));
            }
            Behaviour::Hanging => std::future::pending().await,
            Behaviour::Halting if !is_first_call => std::future::pending().await,
            Behaviour::Service => call.spend(Usage { calls: 1, searches: 1, ..Usage::default() }),
            _ => {}
        }
        let scored = passages.iter().enumerate();
        let mut scored: Vec<RerankOutcome> =
            scored.map(|(place, passage)| self.outcome(query, place, passage)).collect();
        if self.behaviour == Behaviour::Short {
            scored.pop();
        }
        Ok(scored)
    }

    async fn explain(
        &self,
        _: &Call,
        query: &Query,
        passage: &Arc<Passage>,
    ) -> Result<Vec<TokenMatch>> {
        match self.behaviour {
            Behaviour::Matching => {}
            Behaviour::Broken => return Err(self.fail(Blame::Failure, "it is out of order")),
            _ => return Ok(Vec::new()),
        }
        let text = passage.model_text();
        let found = |word: String| {
            let start = text.to_lowercase().find(&word)?;
            let span = start..start + word.len();
            let passage = text[span.clone()].to_owned();
            Some(TokenMatch { query: word, passage, span, similarity: 1.0 })
        };
        Ok(words(query.text()).into_iter().filter_map(found).collect())
    }
}
