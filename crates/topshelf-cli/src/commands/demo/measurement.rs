//! The judged questions, asked in every way, one after the other; what was measured before an
//! interruption is taken from the journal, with the times that it took then.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use topshelf::tune::Unit;
use topshelf::{Answer, Hit, Index, Passage, Ranking};

use super::journal::{
    Head, Journal, Measured, Opened, RecordedAnswer, RecordedRanking, SystemAnswer,
};
use crate::commands::collection::{Answered, Judged, Parts, System};
use crate::progress::Forecast;

/// What was measured.
pub(super) struct Outcome {
    pub(super) answered: Vec<Answered>,
    /// Questions that were measured before this run.
    pub(super) resumed: usize,
}

/// Measures every question that the journal does not have. `work` is what one adds to the forecast.
pub(super) fn run(
    parts: &Parts<'_>,
    systems: &[System],
    questions: &[Judged],
    (path, head): (&Path, &Head),
    (forecast, work): (&mut Forecast, u64),
) -> Result<Outcome> {
    let ids: Vec<&str> = questions.iter().map(|question| question.id.as_str()).collect();
    let Opened { mut journal, mut measured, mut notice } = Journal::open(path, head, &ids)?;
    let index = parts.index.context("the demo has an index")?;
    let mut passages = Passages { index, documents: HashMap::new() };
    if let Err(error) = passages.check(&measured) {
        notice = Some(format!("an earlier measurement is damaged ({error}); it is made again"));
        journal.begin_again(head)?;
        measured.clear();
    }
    if let Some(notice) = notice {
        forecast.line(&format!("note: {notice}"));
    }
    // The questions are a part of the head, so each that was measured is one of these.
    let resumed = measured.len();
    let left: Vec<&Judged> = questions
        .iter()
        .filter(|question| !measured.iter().any(|known| known.query == question.id))
        .collect();
    forecast.set_left(left.len() as u64 * work);
    let ready = systems.iter().map(|system| parts.ready(system)).collect::<Result<Vec<_>>>()?;
    if !left.is_empty() {
        forecast.step(format!("asking {} questions", questions.len()));
    }
    for question in left {
        let ask = |system: &crate::commands::collection::Ready<'_>| -> Result<SystemAnswer> {
            let (answer, took) = system.answer(question)?;
            let milliseconds = took.as_secs_f64() * 1e3;
            Ok(SystemAnswer { milliseconds, answer: answer.as_ref().map(record) })
        };
        let systems = ready.iter().map(ask).collect::<Result<_>>()?;
        let of_question = Measured { query: question.id.clone(), systems };
        journal.add(&of_question)?;
        measured.push(of_question);
        forecast.show(format!("question {} of {}", measured.len(), questions.len()));
        forecast.add(work);
    }
    let mut answered = Vec::new();
    for (place, system) in systems.iter().enumerate() {
        let mut answers = Vec::new();
        for question in questions {
            let known = measured.iter().find(|known| known.query == question.id);
            let known = known.and_then(|known| known.systems.get(place));
            let known = known.context("every question is measured")?;
            let answer =
                known.answer.as_ref().map(|answer| passages.restore(answer)).transpose()?;
            let took = Duration::try_from_secs_f64(known.milliseconds / 1e3)?;
            answers.push((question, answer, took));
        }
        answered.push(Answered::collect(system, answers, Unit::Passage)?);
    }
    Ok(Outcome { answered, resumed })
}

/// A hash of what is in an index and how it was read.
pub(super) fn hash_of_index(index: &Index) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    for file in index.files()? {
        (file.id, file.sha256, file.options).hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

/// A hash of the questions that are asked.
pub(super) fn hash_of_questions(questions: &[Judged]) -> String {
    let mut hasher = DefaultHasher::new();
    for question in questions {
        (&question.id, &question.text).hash(&mut hasher);
    }
    format!("{:016x}", hasher.finish())
}

fn record(answer: &Answer) -> RecordedAnswer {
    let ranking = |ranking: &Ranking| RecordedRanking {
        stage: ranking.stage().to_owned(),
        scale: ranking.scale(),
        hits: ranking
            .hits()
            .iter()
            .map(|hit| (hit.passage.id.clone(), hit.score, hit.relevance))
            .collect(),
    };
    RecordedAnswer {
        ranking: ranking(&answer.ranking),
        candidates: ranking(&answer.candidates),
        report: answer.report.clone(),
    }
}

/// The passages of an index by their ids.
struct Passages<'a> {
    index: &'a Index,
    documents: HashMap<String, Vec<Arc<Passage>>>,
}

impl Passages<'_> {
    /// Whether all that was measured is about passages of this index.
    fn check(&mut self, measured: &[Measured]) -> Result<()> {
        let systems = measured.iter().flat_map(|measured| &measured.systems);
        systems
            .filter_map(|system| system.answer.as_ref())
            .try_for_each(|answer| self.restore(answer).map(drop))
    }

    fn restore(&mut self, recorded: &RecordedAnswer) -> Result<Answer> {
        Ok(Answer {
            ranking: self.ranking(&recorded.ranking)?,
            candidates: self.ranking(&recorded.candidates)?,
            report: recorded.report.clone(),
        })
    }

    fn ranking(&mut self, recorded: &RecordedRanking) -> Result<Ranking> {
        let mut hits = Vec::with_capacity(recorded.hits.len());
        for (id, score, relevance) in &recorded.hits {
            let passage = self.passage(id)?;
            let (score, relevance) = (*score, *relevance);
            hits.push(Hit { passage, score, signals: Vec::new(), relevance, span: None });
        }
        Ok(Ranking::restored(&recorded.stage, recorded.scale, hits)?)
    }

    fn passage(&mut self, id: &str) -> Result<Arc<Passage>> {
        let document = id.rsplit_once('#').map_or(id, |(document, _)| document);
        if !self.documents.contains_key(document) {
            self.documents.insert(document.to_owned(), self.index.document(document)?);
        }
        let passages = self.documents.get(document).map(Vec::as_slice).unwrap_or_default();
        let found = passages.iter().find(|passage| passage.id == id).map(Arc::clone);
        found.with_context(|| format!("the index does not hold the measured passage {id}"))
    }
}
