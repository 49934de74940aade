//! Documents to an order, whatever the dialect they came in: [`run`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use topshelf_core::report::Skipped;
use topshelf_core::second_stage::RERANK_STAGE;
use topshelf_core::{
    Error as CoreError, Passage, Query, Ranking, Reranker, Scale, SecondStage, SecondStageReport,
};

use crate::app::{self, App};
use crate::error::{Result, ServeError};
use crate::shadow;
use crate::shelf::Reranking;

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
    pub reranking: Reranking,
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
    /// The last reranker that answered; the one that was asked if none did.
    pub model: String,
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

/// The one number that a dialect has for a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// The probability where there is one, else the score.
    Relevance,
    /// The model's own score.
    Raw,
}

impl Number {
    /// [`Self::Raw`] if a vendor's field says so.
    pub(crate) fn raw_if(raw: bool) -> Self {
        if raw { Self::Raw } else { Self::Relevance }
    }

    fn of(self, scored: &Scored) -> Option<f32> {
        match self {
            Self::Relevance => scored.relevance.or(scored.score),
            Self::Raw => scored.score,
        }
    }
}

impl Ordered {
    /// The results with their numbers, best first. A document that could not be scored gets 0, or the lowest
    /// number of the others where that is below 0: a client that sorts again must not find it above them.
    pub fn numbered(&self, number: Number) -> impl Iterator<Item = (&Scored, f32)> {
        let lowest = self.results.iter().filter_map(|own| number.of(own)).fold(0.0, f32::min);
        self.results.iter().map(move |own| (own, number.of(own).unwrap_or(lowest)))
    }

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
            None => {}
        }
        for ran in &self.report.rerankers {
            for failed in &ran.failed {
                let (index, reason) = (&failed.passage, &failed.reason);
                warnings.push(format!("document {index} was not scored: {reason}"));
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
pub async fn run(app: &Arc<App>, asked: Asked) -> Result<Ordered> {
    let start = Instant::now();
    check(app, &asked)?;
    let query = Query::new(&asked.query)?;
    app.log_query(&query);
    let stage = app.shelf.second_stage(&asked.reranking)?.ok_or_else(|| {
        let reason = "'none' leaves nothing to do; name a reranker".to_owned();
        ServeError::WrongField { field: "model".to_owned(), reason }
    })?;
    let bytes = asked.documents.iter().map(|given| given.text.len()).sum();
    let texts = app::work_on(bytes, || texts(&asked, &stage));
    let permit = app.admission.admit(work(&asked, &texts))?;
    let candidates = candidates(&asked.documents, &texts)?;
    let top = asked.top.unwrap_or(asked.documents.len()).min(asked.documents.len());
    let outcome = stage.run(&query, &candidates, top, start).await;
    let (ranking, mut report) = outcome.map_err(by_place)?;
    permit.finish();
    name_by_place(&mut report);
    let best: Vec<&str> = ranking.hits().iter().map(|hit| hit.passage.id.as_str()).collect();
    let passages = candidates.hits().iter().map(|hit| Arc::clone(&hit.passage)).collect();
    shadow::look(app, &query, passages, &best);
    if asked.overlong == Overlong::Refuse {
        refuse_cut(&report)?;
    }
    let (model, scale) = answered_by(&stage, &report, &ranking);
    let scored = |hit: topshelf_core::Hit| Scored {
        index: place(&hit.passage.id),
        score: hit.signal(RERANK_STAGE).map(|signal| signal.score),
        relevance: hit.relevance,
        span: hit.span,
    };
    let results = ranking.top(top).into_hits().into_iter().map(scored).collect();
    let count = || app::work_on(bytes, || tokens(&asked, &texts, &stage));
    let tokens = if asked.count_tokens { count() } else { 0 };
    let took = start.elapsed();
    Ok(Ordered { results, report, model, scale, documents: asked.documents, tokens, took })
}

/// What is read of each document: all of it, or its first tokens.
fn texts<'a>(asked: &'a Asked, stage: &SecondStage) -> Vec<&'a str> {
    let all = asked.documents.iter().map(|given| given.text.as_str());
    match (asked.tokens_per_document, stage.rerankers().last()) {
        (Some(most), Some(reranker)) => all.map(|text| shortened(text, most, reranker)).collect(),
        _ => all.collect(),
    }
}

/// About the first `most` tokens of a text, to the end of a character: by its own bytes for a token.
fn shortened<'a>(text: &'a str, most: usize, reranker: &dyn Reranker) -> &'a str {
    // No token is longer than the text; nothing shorter than this needs counting.
    if text.len() <= most {
        return text;
    }
    let tokens = reranker.count_tokens(text);
    if tokens <= most {
        return text;
    }
    let share = most as f64 / tokens as f64;
    &text[..text.floor_char_boundary((text.len() as f64 * share) as usize)]
}

fn tokens(asked: &Asked, texts: &[&str], stage: &SecondStage) -> usize {
    let Some(reranker) = stage.rerankers().last() else { return 0 };
    let query = reranker.count_tokens(&asked.query);
    let of = |(given, text): (&Given, &&str)| {
        query + reranker.count_tokens(&given.title) + reranker.count_tokens(text)
    };
    asked.documents.iter().zip(texts).map(of).sum()
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
fn work(asked: &Asked, texts: &[&str]) -> u64 {
    let of = |(given, text): (&Given, &&str)| {
        ((given.title.len() + text.len()).min(LONGEST) + asked.query.len()) as u64
    };
    asked.documents.iter().zip(texts).map(of).sum()
}

/// The documents in the order given, under their places as ids: ids of the client's may repeat.
fn candidates(documents: &[Given], texts: &[&str]) -> Result<Ranking> {
    let passages = documents.iter().zip(texts).enumerate().map(|(index, (given, text))| {
        let passage = Passage::standalone(format!("{index:09}"), &given.title, *text);
        (Arc::new(passage), -(index as f32))
    });
    Ok(Ranking::new("given", Scale::Rank, passages)?)
}

/// The model whose order it is and the scale of its scores. That may be another than was asked for: one that
/// stood in for it.
fn answered_by(
    stage: &SecondStage,
    report: &SecondStageReport,
    ranking: &Ranking,
) -> (String, Scale) {
    let Some(last) = stage.rerankers().last() else {
        unreachable!("a second stage has a reranker")
    };
    let answered = report.rerankers.last().map(|ran| ran.model.clone());
    let signal = ranking.hits().iter().find_map(|hit| hit.signal(RERANK_STAGE));
    let scale = signal.map_or(last.scale(), |signal| signal.scale);
    (answered.unwrap_or_else(|| last.identity().name.clone()), scale)
}

/// A document's place from the id that it has while it is ranked.
fn place(id: &str) -> usize {
    id.parse().unwrap_or_default() // we wrote it
}

/// Documents in a report by their places, as the client knows them.
fn name_by_place(report: &mut SecondStageReport) {
    for ran in &mut report.rerankers {
        let failed = ran.failed.iter_mut().map(|failed| &mut failed.passage);
        let truncated = ran.truncated.iter_mut().map(|truncated| &mut truncated.passage);
        failed.chain(truncated).for_each(|id| *id = place(id).to_string());
    }
}

/// The same for an error.
fn by_place(error: CoreError) -> CoreError {
    match error {
        CoreError::NotFinite { stage, passage, score } => {
            CoreError::NotFinite { stage, passage: place(&passage).to_string(), score }
        }
        other => other,
    }
}

fn refuse_cut(report: &SecondStageReport) -> Result<()> {
    for ran in &report.rerankers {
        if ran.query_truncated_tokens > 0 {
            let tokens = ran.query_truncated_tokens;
            return Err(ServeError::TooLong { what: "the query".to_owned(), tokens });
        }
        if let Some(cut) = ran.truncated.first() {
            let what = format!("document {}", cut.passage);
            return Err(ServeError::TooLong { what, tokens: cut.tokens });
        }
    }
    Ok(())
}
