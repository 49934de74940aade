//! Documents to an order, whatever the dialect they came in: [`run`].

use std::sync::Arc;
use std::time::Duration;

use topshelf_core::report::Skipped;
use topshelf_core::second_stage::RERANK_STAGE;
use topshelf_core::{
    Call, ModelIdentity, Passage, Query, Ranking, Reranker, Scale, SecondStage, SecondStageReport,
    SetupPatch,
};

use crate::app::{self, App};
use crate::error::{Result, ServeError};
use crate::shadow;

/// Bytes of a document beyond which it does not take longer: no reranker reads more windows.
pub(crate) const LONGEST: usize = 16_384;

/// What is asked.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// What the documents should answer.
    pub query: String,
    /// In the order in which an unscored one keeps its place.
    pub documents: Vec<Given>,
    /// By what, and how.
    pub patch: SetupPatch,
    /// How many results are wanted; all if that is not said.
    pub top: Option<usize>,
    /// What happens where a text does not fit.
    pub overlong: Overlong,
    /// Tokens of a document that are read, at most; as the server was started if that is not said.
    pub tokens_per_document: Option<usize>,
    /// Whether the tokens that were read are counted, which costs tokenising once more.
    pub count_tokens: bool,
}

/// A document as it was given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given {
    /// Read before the text.
    pub title: String,
    /// The text.
    pub text: String,
}

impl From<String> for Given {
    fn from(text: String) -> Self {
        Self { title: String::new(), text }
    }
}

/// What happens where a text is longer than the model reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overlong {
    /// What does not fit is left unread, and the report says how much.
    #[default]
    Cut,
    /// It is an error.
    Refuse,
}

impl Overlong {
    /// What a vendor's `truncation` says: cut unless it is false.
    pub(crate) fn of_truncation(truncation: Option<bool>) -> Self {
        if truncation == Some(false) { Self::Refuse } else { Self::Cut }
    }
}

/// The answer.
#[derive(Debug)]
pub struct Ordered {
    /// Best first: as many as were wanted, fewer if a threshold withheld some.
    pub results: Vec<Scored>,
    /// What ran.
    pub report: SecondStageReport,
    /// The reranker whose scores decided, which may have stood in for another; the last one where none
    /// scored anything.
    pub model: ModelIdentity,
    /// The scale of its scores.
    pub scale: Scale,
    /// The documents, as they were given.
    pub documents: Vec<Given>,
    /// Tokens of all pairs, if they were to be counted: the query's once for each document.
    pub tokens: usize,
    /// How long the stages took.
    pub took: Duration,
}

/// One document's place in the order.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// Its place in the request, from 0.
    pub index: usize,
    /// The model's own score; `None` for one that could not be scored.
    pub score: Option<f32>,
    /// The probability that it is relevant; `None` where the score has none.
    pub relevance: Option<f32>,
    /// The bytes of its text on which the score rests, where that is not all of it.
    pub span: Option<std::ops::Range<usize>>,
}

impl Scored {
    /// The model's own score if that is wanted, else [`Self::number`].
    pub(crate) fn as_wanted(&self, raw: bool) -> f32 {
        self.score.filter(|_| raw).unwrap_or_else(|| self.number())
    }

    /// What a dialect that knows one number gets: the probability where there is one, else the score;
    /// the lowest there is for a document that could not be scored.
    pub fn number(&self) -> f32 {
        self.relevance.or(self.score).unwrap_or(0.0)
    }
}

impl Ordered {
    /// What a client should know besides the order: what was not scored, not read to the end, or
    /// answered by another reranker than asked.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for failure in &self.report.failures {
            warnings.push(format!("{} failed: {}", failure.model, failure.reason));
        }
        match self.report.skipped {
            Some(Skipped::Failed) => {
                warnings.push("no reranker answered; the order is the one given".to_owned());
            }
            Some(Skipped::Clear) => {
                warnings.push("not reranked: the gate found the order clear".to_owned());
            }
            Some(Skipped::NoWeight) => {
                warnings
                    .push("not reranked: the blend gives the rerank score no weight".to_owned());
            }
            // A list that was given has no first stage, whose part the default rule would keep.
            Some(Skipped::LongQuery { .. }) | None => {}
        }
        for ran in &self.report.rerankers {
            for failed in &ran.failed {
                let index: usize = failed.passage.parse().unwrap_or_default(); // we wrote it
                warnings.push(format!("document {index} was not scored: {}", failed.reason));
            }
            if !ran.truncated.is_empty() {
                let (n, of) = (ran.truncated.len(), ran.pairs);
                warnings.push(format!("not read to the end: {n} of {of} documents"));
            }
            if ran.query_truncated_tokens > 0 {
                let n = ran.query_truncated_tokens;
                warnings.push(format!("not read: {n} tokens at the end of the query"));
            }
        }
        if let Some(deadline) = self.report.deadline.as_ref().filter(|own| own.unscored > 0) {
            let (n, of) = (deadline.unscored, self.documents.len());
            warnings.push(format!("not read before the deadline: {n} of {of} documents"));
        }
        warnings
    }
}

/// Orders the documents.
///
/// # Errors
///
/// [`ServeError::NoDocuments`], [`ServeError::TooManyDocuments`], [`ServeError::UnknownModel`],
/// [`ServeError::Overloaded`], [`ServeError::TooLong`]; [`ServeError::Core`] for the query, and for
/// what a stage says.
pub async fn run(app: &Arc<App>, call: &Call, mut asked: Asked) -> Result<Ordered> {
    // A deadline counts from here, when the request has been read.
    let call = &call.part();
    check(app, &asked)?;
    let query = Query::new(&asked.query)?;
    app.log_query(&query);
    let setup = app.shelf.setup(&asked.patch)?;
    let stage = app.shelf.second_stage(&setup)?.ok_or_else(|| {
        let reason = "'none' leaves nothing to do; name a reranker".to_owned();
        ServeError::WrongField { field: "model".to_owned(), reason }
    })?;
    let bytes = asked.documents.iter().map(|given| given.text.len()).sum();
    if let Some(most) = asked.tokens_per_document {
        app::work_on(bytes, || {
            for given in &mut asked.documents {
                shorten(&mut given.text, most, stage.last());
            }
        });
    }
    let permit = app.admission.admit(work(&asked))?;
    let candidates = candidates(&asked.documents)?;
    let top = asked.top.unwrap_or(asked.documents.len()).min(asked.documents.len());
    let (ranking, report) = stage.run(call, &query, &candidates, top).await?;
    permit.finish();
    let best: Vec<&str> = ranking.hits().iter().map(|hit| hit.passage.id.as_str()).collect();
    let passages = candidates.hits().iter().map(|hit| Arc::clone(&hit.passage)).collect();
    shadow::look(app, &query, passages, &best);
    if asked.overlong == Overlong::Refuse {
        refuse_cut(&report)?;
    }
    let answered_by = report.answered_by();
    let (model, scale) = match answered_by {
        Some(ran) => (ran.identity(), ran.scale),
        None => (stage.last().identity().clone(), stage.last().scale()),
    };
    let signal = answered_by.map_or(RERANK_STAGE, |ran| ran.stage.as_str());
    let scored = |hit: topshelf_core::Hit| Scored {
        index: hit.passage.id.parse().unwrap_or_default(), // we wrote it
        score: hit.signal(signal).map(|signal| signal.score),
        relevance: hit.relevance,
        span: hit.span,
    };
    let results = ranking.top(top).into_hits().into_iter().map(scored).collect();
    let count = || app::work_on(bytes, || tokens(&asked, &stage));
    let tokens = if asked.count_tokens { count() } else { 0 };
    let took = call.began().elapsed();
    Ok(Ordered { results, report, model, scale, documents: asked.documents, tokens, took })
}

/// Cuts a text to about that many tokens, at the end of a character: by its own bytes for a token.
fn shorten(text: &mut String, most: usize, reranker: &dyn Reranker) {
    // No token is longer than the text; nothing shorter than this needs counting.
    if text.len() <= most {
        return;
    }
    let tokens = reranker.count_tokens(text);
    if tokens > most {
        let share = most as f64 / tokens as f64;
        text.truncate(text.floor_char_boundary((text.len() as f64 * share) as usize));
    }
}

fn tokens(asked: &Asked, stage: &SecondStage) -> usize {
    let reranker = stage.last();
    let query = reranker.count_tokens(&asked.query);
    let of = |given: &Given| {
        query + reranker.count_tokens(&given.title) + reranker.count_tokens(&given.text)
    };
    asked.documents.iter().map(of).sum()
}

fn check(app: &App, asked: &Asked) -> Result<()> {
    let (given, limit) = (asked.documents.len(), app.options.limits.documents);
    if given == 0 {
        return Err(ServeError::NoDocuments);
    }
    if given > limit {
        return Err(ServeError::TooManyDocuments { given, limit });
    }
    if asked.top == Some(0) {
        return Err(topshelf_core::Error::TopZero.into());
    }
    Ok(())
}

/// Bytes that a model is to read.
fn work(asked: &Asked) -> u64 {
    let of =
        |given: &Given| (given.title.len() + given.text.len()).min(LONGEST) + asked.query.len();
    asked.documents.iter().map(|given| of(given) as u64).sum()
}

/// The documents in the order given, under their places as ids: ids of the client's may repeat.
fn candidates(documents: &[Given]) -> Result<Ranking> {
    let passages = documents.iter().enumerate().map(|(index, given)| {
        let passage = Passage::standalone(format!("{index:09}"), &given.title, &given.text);
        (Arc::new(passage), -(index as f32))
    });
    Ok(Ranking::new("given", Scale::Rank, passages)?)
}

fn refuse_cut(report: &SecondStageReport) -> Result<()> {
    for ran in &report.rerankers {
        if ran.query_truncated_tokens > 0 {
            let tokens = ran.query_truncated_tokens;
            return Err(ServeError::TooLong { what: "the query".to_owned(), tokens });
        }
        if let Some(cut) = ran.truncated.first() {
            let index: usize = cut.passage.parse().unwrap_or_default(); // we wrote it
            let what = format!("document {index}");
            return Err(ServeError::TooLong { what, tokens: cut.tokens });
        }
    }
    Ok(())
}
