//! What can go wrong between the stages.
//!
//! Each variant names what was violated and how to mend it. [`Error::blame`] is the one map
//! from an error to whose fault it is; the command line turns it into exit codes (2 for the
//! caller, 1 for a failure) and a server into status codes.

use crate::language_model::Usage;
use crate::score::Scale;

/// The result of a stage or a policy.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The request cannot be answered as it stands; asking differently helps.
    Caller,
    /// The request was fine; something broke while answering it.
    Failure,
}

/// An error of the pipeline or of one of its stages.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The query has no text.
    #[error("the query is empty; give the words to look for")]
    EmptyQuery,

    /// The query is longer than [`crate::passage::MAX_QUERY_CHARS`].
    #[error(
        "the query has {chars} characters, more than the {limit} that are accepted; \
             ask for the point of it, or index it as a document"
    )]
    QueryTooLong {
        /// Characters in the query.
        chars: usize,
        /// The most that is accepted.
        limit: usize,
    },

    /// Nothing in the query can be looked up by this retriever.
    #[error("nothing in the query \"{query}\" can be looked up by {retriever}: {reason}")]
    NothingToLookUp {
        /// The retriever that has nothing to work with.
        retriever: String,
        /// The query, shortened.
        query: String,
        /// Why, and what to do.
        reason: String,
    },

    /// A depth of zero fetches nothing.
    #[error(
        "the depth is 0, so there would be no candidates; use a depth of 1 or more (50 to 100 is usual)"
    )]
    DepthZero,

    /// Zero results were asked for.
    #[error("zero results were asked for; use 1 or more")]
    TopZero,

    /// More results were asked for than candidates are fetched.
    #[error(
        "{top} results were asked for from {depth} candidates; lower the number of results or raise the depth to at least {top}"
    )]
    TopExceedsDepth {
        /// Results asked for.
        top: usize,
        /// Candidates fetched.
        depth: usize,
    },

    /// A name that stands for nothing.
    #[error("there is no {what} \"{given}\"; there are {known}")]
    UnknownName {
        /// What kind of thing was named.
        what: &'static str,
        /// The name, shortened.
        given: String,
        /// The names that there are.
        known: String,
    },

    /// Two parts of a request that exclude one another.
    #[error("{one} cannot be combined with {other}")]
    Conflict {
        /// One of them.
        one: &'static str,
        /// The other.
        other: &'static str,
    },

    /// A second stage without a reranker.
    #[error("the second stage has no reranker; it takes at least one")]
    NoReranker,

    /// A pipeline without a retriever has no candidates.
    #[error("the pipeline has no retriever; add at least one")]
    NoRetriever,

    /// A stage gave a score that is not a number.
    #[error(
        "{stage} gave passage \"{passage}\" the score {score}, which is not a finite number; \
             this is a fault of the model or of its file"
    )]
    NotFinite {
        /// The stage that gave it.
        stage: String,
        /// The passage concerned.
        passage: String,
        /// The score, as printed.
        score: f32,
    },

    /// A stage named the same passage twice.
    #[error("{stage} returned passage \"{passage}\" twice")]
    DuplicatePassage {
        /// The stage concerned.
        stage: String,
        /// The passage concerned.
        passage: String,
    },

    /// Weighted fusion of raw scores on different scales.
    #[error(
        "scores on the scales {left} and {right} cannot be added as they are; \
             normalise them (min-max or z-score) or fuse by rank"
    )]
    ScaleMismatch {
        /// The scale of the first ranking.
        left: Scale,
        /// The scale that differs.
        right: Scale,
    },

    /// The weights of a fusion do not fit its rankings.
    #[error(
        "fusion got {weights} weights for {rankings} rankings; give one weight for each, from 0 to 1000000, not all zero"
    )]
    FusionWeights {
        /// Weights given.
        weights: usize,
        /// Rankings given.
        rankings: usize,
    },

    /// A number in a policy that means nothing.
    #[error("{what} cannot be {value}; it is {range}")]
    OutOfRange {
        /// What was set.
        what: &'static str,
        /// To what.
        value: String,
        /// What it may be.
        range: &'static str,
    },

    /// A gate's signal that cannot be read.
    #[error(
        "there is no gate signal \"{given}\"; there are margin:STAGE:K, relative-margin:STAGE:K, \
         spread:STAGE:K and agreement:K, for instance margin:dense:3"
    )]
    GateSignal {
        /// The signal as given.
        given: String,
    },

    /// A gate that cannot be read.
    #[error(
        "\"{given}\" is not a gate; a gate is a signal and the value from which the first stage counts as \
         clear, such as margin:dense:3>=0.086"
    )]
    Gate {
        /// The gate as given, shortened.
        given: String,
    },

    /// A gate beside a relevance threshold.
    #[error(
        "a gate cannot be combined with a minimum relevance: what the gate lets pass without \
         reranking has no probability to compare"
    )]
    GateWithThreshold,

    /// A probability was asked of a score that has none.
    #[error(
        "a score on the scale {scale} is not a probability and has no logistic reading; fit a \
         calibration on judged queries, or leave out what needs a probability"
    )]
    NotAProbability {
        /// The scale.
        scale: Scale,
    },

    /// Judgments that nothing can be fitted on.
    #[error("the {what} cannot be fitted: {reason}")]
    CannotFit {
        /// What was to be fitted.
        what: &'static str,
        /// Why it cannot.
        reason: String,
    },

    /// A filter that cannot be read.
    #[error(
        "the filter \"{filter}\" cannot be read at character {at}: {reason}; \
             example: lang = en AND (year >= 2024 OR NOT draft = true)"
    )]
    Filter {
        /// The filter as given.
        filter: String,
        /// Character position of the fault, from 1.
        at: usize,
        /// What was expected.
        reason: String,
    },

    /// A prompt template that cannot be used.
    #[error("the prompt template cannot be used: {reason}")]
    Template {
        /// What the template engine says.
        reason: String,
    },

    /// A reranker answered a number of scores that does not fit its input.
    #[error("{stage} answered {got} scores for {expected} passages")]
    ScoreCount {
        /// The stage concerned.
        stage: String,
        /// Passages sent.
        expected: usize,
        /// Scores received.
        got: usize,
    },

    /// A stage failed for a reason of its own.
    #[error("{stage}: {source}")]
    Stage {
        /// The stage concerned.
        stage: String,
        /// Whose fault it is.
        blame: Blame,
        /// The stage's own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// A stage did not answer in time.
    #[error("{stage} did not answer within {milliseconds:.0} ms, when the time for it was over")]
    TooLate {
        /// The stage concerned.
        stage: String,
        /// How long it was waited for.
        milliseconds: f64,
    },

    /// A failure before which something was spent.
    #[error("{source}; spent until then: {usage}")]
    AfterSpending {
        /// What was spent.
        usage: Usage,
        /// What failed.
        source: Box<Error>,
    },
}

impl Error {
    /// Wraps a stage's own error.
    pub fn stage(
        stage: impl Into<String>,
        blame: Blame,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Stage { stage: stage.into(), blame, source: source.into() }
    }

    /// The same with what was spent until then, if anything was.
    #[must_use]
    pub fn after_spending(self, usage: Usage) -> Self {
        if usage.is_none() { self } else { Self::AfterSpending { usage, source: Box::new(self) } }
    }

    /// The error for a name that stands for nothing.
    pub(crate) fn unknown(what: &'static str, given: &str, known: &[&str]) -> Self {
        Self::UnknownName { what, given: given.chars().take(60).collect(), known: known.join(", ") }
    }

    /// Whether it is a stage that failed, so that others may answer without it.
    pub(crate) fn is_of_stage(&self) -> bool {
        matches!(
            self,
            Self::Stage { .. }
                | Self::ScoreCount { .. }
                | Self::NotFinite { .. }
                | Self::DuplicatePassage { .. }
                | Self::TooLate { .. }
        )
    }

    /// Whether it is that nothing answered in time.
    pub fn is_too_late(&self) -> bool {
        match self {
            Self::TooLate { .. } => true,
            Self::AfterSpending { source, .. } => source.is_too_late(),
            _ => false,
        }
    }

    /// Why, for a sentence that already names the stage.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Stage { source, .. } => source.to_string(),
            Self::NothingToLookUp { reason, .. } => reason.clone(),
            other => other.to_string(),
        }
    }

    /// Whose fault this error is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::EmptyQuery
            | Self::QueryTooLong { .. }
            | Self::NothingToLookUp { .. }
            | Self::DepthZero
            | Self::TopZero
            | Self::TopExceedsDepth { .. }
            | Self::UnknownName { .. }
            | Self::Conflict { .. }
            | Self::NoReranker
            | Self::NoRetriever
            | Self::ScaleMismatch { .. }
            | Self::FusionWeights { .. }
            | Self::OutOfRange { .. }
            | Self::GateSignal { .. }
            | Self::Gate { .. }
            | Self::GateWithThreshold
            | Self::NotAProbability { .. }
            | Self::CannotFit { .. }
            | Self::Filter { .. }
            | Self::Template { .. } => Blame::Caller,
            Self::NotFinite { .. }
            | Self::DuplicatePassage { .. }
            | Self::ScoreCount { .. }
            | Self::TooLate { .. } => Blame::Failure,
            Self::Stage { blame, .. } => *blame,
            Self::AfterSpending { source, .. } => source.blame(),
        }
    }
}
