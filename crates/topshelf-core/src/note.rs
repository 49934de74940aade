//! [`Note`]: what a reader of an answer has to know without asking, worded in one place.
//!
//! Notes follow from the report alone, so everybody who shows an answer shows the same ones, in the same order.

use std::fmt;

use crate::language_model::Usage;
use crate::report::{Report, SecondStageReport, Skipped, retrieval_notes};
use crate::robust::LONG_QUERY;

/// One thing to know about an answer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Note {
    /// A retriever did not answer; the sentence is [`retrieval_notes`]'.
    Retrieval {
        /// Which, why, and whose the candidates are.
        sentence: String,
    },
    /// The gate found the first stage clear.
    Clear {
        /// What it read.
        signal: String,
        /// Its value.
        value: f32,
        /// From where on the first stage counts as clear.
        threshold: f32,
    },
    /// No reranker answered.
    NoReranker,
    /// The blend gives the reranker no weight.
    NoWeight,
    /// The default rule does not rerank long queries.
    LongQuery {
        /// The query's tokens.
        tokens: usize,
    },
    /// The default rule orders a long query's results by the first stage, though they were scored.
    LongQueryScored,
    /// The default rule keeps a part of the first stage's score.
    Blended {
        /// What the rerank score counts.
        weight: f32,
    },
    /// A reranker failed.
    RerankerFailed {
        /// The model.
        model: String,
        /// Why.
        reason: String,
        /// What was spent on it.
        usage: Usage,
    },
    /// The reranker is another model than the one that the setup was made with.
    Changed {
        /// The model.
        model: String,
    },
    /// Passages were longer than the reranker reads.
    Truncated {
        /// How many.
        passages: usize,
        /// Of how many.
        of: usize,
    },
    /// The query was longer than the reranker reads.
    QueryTruncated {
        /// Tokens at its end that were not read.
        tokens: usize,
    },
    /// A passage that could not be scored.
    NotScored {
        /// The passage.
        passage: String,
        /// Why.
        reason: String,
    },
    /// Candidates that were not read in time.
    Late {
        /// How many.
        candidates: usize,
        /// The deadline, in milliseconds.
        deadline: f64,
    },
    /// Candidates that are not relevant enough.
    Withheld {
        /// How many.
        candidates: usize,
        /// The least probability.
        min_relevance: f32,
    },
    /// Candidates without a score, which a threshold withholds as well.
    WithheldUnscored {
        /// How many.
        candidates: usize,
    },
}

impl Note {
    /// Whether it says how the default works rather than what went wrong or was left out: for those who ask.
    pub fn is_routine(&self) -> bool {
        matches!(self, Self::Blended { .. })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retrieval { sentence } => f.write_str(sentence),
            Self::Clear { signal, value, threshold } => write!(
                f,
                "not reranked: the first stage is clear ({signal} is {value:.4}, the gate opens below {threshold})"
            ),
            Self::NoReranker => {
                f.write_str("not reranked: no reranker answered, so the order is as it was")
            }
            Self::NoWeight => {
                f.write_str("not reranked: the blend gives the rerank score no weight")
            }
            Self::LongQuery { tokens } => write!(
                f,
                "not reranked: the query has {tokens} tokens, and by default queries of up to {LONG_QUERY} are reranked, \
                 since longer ones mislead rerankers that were trained on questions; a blend weight of your own \
                 reranks it"
            ),
            Self::LongQueryScored => write!(
                f,
                "the order is the first stage's, since the query has more than {LONG_QUERY} tokens, and longer ones \
                 mislead rerankers that were trained on questions; a blend weight of your own orders by the reranker"
            ),
            Self::Blended { weight } => write!(
                f,
                "by default the rerank score counts {weight} and the first stage's score the rest; a blend weight of 1 \
                 is the rerank score alone"
            ),
            Self::RerankerFailed { model, reason, usage } => {
                write!(f, "{model} failed: {reason}")?;
                if usage.is_none() { Ok(()) } else { write!(f, "; spent until then: {usage}") }
            }
            Self::Changed { model } => {
                write!(f, "{model} has changed since the profile was made; tune again")
            }
            Self::Truncated { passages, of } => write!(
                f,
                "{passages} of {of} candidates {were} longer than the reranker reads and {were} not read to the end",
                were = if *passages == 1 { "was" } else { "were" }
            ),
            Self::QueryTruncated { tokens } => {
                write!(f, "the reranker did not read the last {tokens} tokens of the query")
            }
            Self::NotScored { passage, reason } => write!(f, "{passage} was not scored: {reason}"),
            Self::Late { candidates, deadline } => write!(
                f,
                "{} not read before the deadline of {deadline} ms; what was not read stays in its order behind \
                 what was",
                were(*candidates)
            ),
            Self::Withheld { candidates, min_relevance } => write!(
                f,
                "{} withheld: relevant with a probability below {min_relevance}",
                were(*candidates)
            ),
            Self::WithheldUnscored { candidates } => {
                write!(f, "{} withheld: without a rerank score", were(*candidates))
            }
        }
    }
}

/// Candidates of whom something is said.
fn were(candidates: usize) -> String {
    if candidates == 1 {
        "1 candidate was".to_owned()
    } else {
        format!("{candidates} candidates were")
    }
}

impl Report {
    /// What a reader has to know.
    pub fn notes(&self) -> Vec<Note> {
        let sentences = retrieval_notes(&self.retrievers).into_iter();
        let missing = sentences.map(|sentence| Note::Retrieval { sentence });
        let second = self.second_stage.iter().flat_map(SecondStageReport::notes);
        missing.chain(second).collect()
    }
}

impl SecondStageReport {
    /// What a reader has to know.
    pub fn notes(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        match (self.skipped, &self.gate) {
            (Some(Skipped::Clear), Some(gate)) => notes.push(Note::Clear {
                signal: gate.signal.clone(),
                value: gate.value.unwrap_or_default(),
                threshold: gate.threshold,
            }),
            (Some(Skipped::Failed), _) => notes.push(Note::NoReranker),
            (Some(Skipped::NoWeight), _) => notes.push(Note::NoWeight),
            (Some(Skipped::LongQuery { tokens }), _) => notes.push(Note::LongQuery { tokens }),
            (Some(Skipped::Clear) | None, _) => {}
        }
        let is_blended = self.skipped.is_none() && self.answered_by().is_some();
        if let Some(weight) = self.default_weight.filter(|_| is_blended) {
            notes.push(if weight > 0.0 { Note::Blended { weight } } else { Note::LongQueryScored });
        }
        for failure in &self.failures {
            notes.push(Note::RerankerFailed {
                model: failure.model.clone(),
                reason: failure.reason.clone(),
                usage: failure.usage,
            });
        }
        for ran in &self.rerankers {
            if ran.is_changed {
                notes.push(Note::Changed { model: ran.model.clone() });
            }
            if !ran.truncated.is_empty() {
                notes.push(Note::Truncated { passages: ran.truncated.len(), of: ran.pairs });
            }
            if ran.query_truncated_tokens > 0 {
                notes.push(Note::QueryTruncated { tokens: ran.query_truncated_tokens });
            }
            notes.extend(ran.failed.iter().map(|failed| Note::NotScored {
                passage: failed.passage.clone(),
                reason: failed.reason.clone(),
            }));
        }
        if let Some(own) = self.deadline.as_ref().filter(|own| own.unscored > 0) {
            notes.push(Note::Late { candidates: own.unscored, deadline: own.allowed });
        }
        if let Some(threshold) = &self.threshold {
            let min_relevance = threshold.min_relevance;
            if threshold.below > 0 {
                notes.push(Note::Withheld { candidates: threshold.below, min_relevance });
            }
            if threshold.unscored > 0 {
                notes.push(Note::WithheldUnscored { candidates: threshold.unscored });
            }
        }
        notes
    }
}
