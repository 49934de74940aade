//! Documents to an order, whatever the dialect they came in: [`run`].

use std::sync::Arc;
use std::time::Duration;

use topshelf_core::{
    Call, ListedDocument, Query, RankedDocument, RankedList, Reranker, Scale, SecondStageReport,
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
    pub documents: Vec<ListedDocument>,
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
    pub results: Vec<RankedDocument>,
    /// What ran.
    pub report: SecondStageReport,
    /// The reranker whose scores decided, which may have stood in for another; the last one where none
    /// scored anything.
    pub model: String,
    /// The scale of its scores.
    pub scale: Scale,
    /// The documents, as they were given.
    pub documents: Vec<ListedDocument>,
    /// Tokens of all pairs, if they were to be counted: the query's once for each document.
    pub tokens: usize,
    /// How long the stages took.
    pub took: Duration,
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

    fn of(self, document: &RankedDocument) -> Option<f32> {
        match self {
            Self::Relevance => document.relevance.or(document.score),
            Self::Raw => document.score,
        }
    }
}

impl Ordered {
    /// The results with their numbers, best first. A document that could not be scored gets 0, or the lowest
    /// number of the others where that is below 0: a client that sorts again must not find it above them.
    pub fn numbered(&self, number: Number) -> impl Iterator<Item = (&RankedDocument, f32)> {
        let lowest = self.results.iter().filter_map(|own| number.of(own)).fold(0.0, f32::min);
        self.results.iter().map(move |own| (own, number.of(own).unwrap_or(lowest)))
    }

    /// What a client should know besides the order: what was not scored, not read to the end, or
    /// answered by another reranker than asked.
    pub fn warnings(&self) -> Vec<String> {
        self.report.notes().iter().map(ToString::to_string).collect()
    }
}

/// Orders the documents.
///
/// # Errors
///
/// [`ServeError::NoDocuments`], [`ServeError::TooManyDocuments`], [`ServeError::UnknownModel`],
/// [`ServeError::Overloaded`], [`ServeError::TooLong`]; [`ServeError::Core`] for the query, and for
/// what a stage says.
pub async fn run(app: &Arc<App>, call: &Call, asked: Asked) -> Result<Ordered> {
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
    let shortened = asked.tokens_per_document.map(|most| {
        let shortened = |given: &ListedDocument| ListedDocument {
            title: given.title.clone(),
            text: shortened(&given.text, most, stage.last()).to_owned(),
        };
        app::work_on(bytes, || asked.documents.iter().map(shortened).collect::<Vec<_>>())
    });
    let read = shortened.as_deref().unwrap_or(&asked.documents);
    let permit = app.admission.admit(work(&asked.query, read))?;
    let top = asked.top.unwrap_or(read.len()).min(read.len());
    let ranked = stage.rank(call, &query, read, top).await?;
    permit.finish();
    let RankedList { documents: results, ranking, candidates, report } = ranked;
    let best: Vec<&str> = ranking.hits().iter().map(|hit| hit.passage.id.as_str()).collect();
    let passages = candidates.hits().iter().map(|hit| Arc::clone(&hit.passage)).collect();
    shadow::look(app, &query, passages, &best);
    if asked.overlong == Overlong::Refuse {
        refuse_cut(&report)?;
    }
    let (model, scale) = match report.answered_by() {
        Some(ran) => (ran.model.clone(), ran.scale),
        None => (stage.last().identity().name.clone(), stage.last().scale()),
    };
    let count = || app::work_on(bytes, || tokens(&asked.query, read, stage.last()));
    let tokens = if asked.count_tokens { count() } else { 0 };
    let took = call.began().elapsed();
    Ok(Ordered { results, report, model, scale, documents: asked.documents, tokens, took })
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

fn tokens(query: &str, documents: &[ListedDocument], reranker: &dyn Reranker) -> usize {
    let query = reranker.count_tokens(query);
    let of = |given: &ListedDocument| {
        query + reranker.count_tokens(&given.title) + reranker.count_tokens(&given.text)
    };
    documents.iter().map(of).sum()
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
fn work(query: &str, documents: &[ListedDocument]) -> u64 {
    let of = |given: &ListedDocument| {
        ((given.title.len() + given.text.len()).min(LONGEST) + query.len()) as u64
    };
    documents.iter().map(of).sum()
}

fn refuse_cut(report: &SecondStageReport) -> Result<()> {
    for ran in &report.rerankers {
        if ran.query_truncated_tokens > 0 {
            let tokens = ran.query_truncated_tokens;
            return Err(ServeError::TooLong { what: "the query".to_owned(), tokens });
        }
        if let Some(cut) = ran.truncated.first() {
            let (what, tokens) = (cut.passage.clone(), cut.tokens);
            return Err(ServeError::TooLong { what, tokens });
        }
    }
    Ok(())
}
