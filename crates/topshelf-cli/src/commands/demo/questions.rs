//! The judged questions, and the passages that answer them.
//!
//! A judgment is a quotation that answers the question. The passages that hold it are the
//! relevant ones, however the documents were cut.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use topshelf::Index;
use topshelf::eval::Qrels;

use super::sources::{Answers, Sources};
use crate::commands::collection::Judged;

/// The judged questions, one JSON object a line.
const TEXT: &str = include_str!("../../../data/demo/questions.jsonl");

/// The question that is shown before and after, unless its answer is not in the collection.
const EXAMPLE: &str = "q004";

/// The grade of a quotation that answers the question; those below are related.
const ANSWERS: i32 = 2;

#[derive(Debug, Deserialize)]
pub(super) struct Question {
    pub(super) id: String,
    pub(super) text: String,
    answers: Vec<Quotation>,
}

/// A passage of a document that answers.
#[derive(Debug, Deserialize)]
struct Quotation {
    #[serde(rename = "crate")]
    package: String,
    file: String,
    quote: String,
    grade: i32,
}

impl Question {
    /// The package whose documentation answers it best.
    pub(super) fn package(&self) -> &str {
        let best = self.answers.iter().find(|answer| answer.grade >= ANSWERS);
        best.or(self.answers.first()).map_or("", |answer| &answer.package)
    }

    /// Whether a file that answers it is in the collection.
    pub(super) fn can_be_answered(&self, sources: &Sources) -> bool {
        let here = |answer: &Quotation| {
            let folders = sources.folders.get(&answer.package).map(Vec::as_slice);
            let mut folders = folders.unwrap_or_default().iter();
            folders
                .any(|folder| sources.files.contains(&sources.base.join(folder).join(&answer.file)))
        };
        self.answers.iter().any(|answer| answer.grade >= ANSWERS && here(answer))
    }
}

pub(super) fn all() -> Result<Vec<Question>> {
    let lines = TEXT.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| serde_json::from_str(line).with_context(|| format!("the question {line}")))
        .collect()
}

/// The files that answer a question.
pub(super) fn files(questions: &[Question]) -> Answers<'_> {
    let mut files = Answers::new();
    for answer in questions.iter().flat_map(|question| &question.answers) {
        files.entry(&answer.package).or_default().insert(&answer.file);
    }
    files
}

/// The question to show: [`EXAMPLE`], or else the first that this collection can answer.
pub(super) fn example<'q>(questions: &'q [Question], sources: &Sources) -> Option<&'q Question> {
    let mut known = questions.iter().filter(|question| question.can_be_answered(sources));
    let first = known.clone().next();
    known.find(|question| question.id == EXAMPLE).or(first)
}

/// The passages that hold the quotations, and the questions that have one that answers.
pub(super) fn judgments(
    index: &Index,
    sources: &Sources,
    questions: &[Question],
) -> Result<(Qrels, Vec<Judged>)> {
    let (mut qrels, mut judged) = (Qrels::new(), Vec::new());
    for question in questions {
        let grades = grades(index, sources, question)?;
        if grades.values().all(|known| known.grade < ANSWERS) {
            continue;
        }
        for (passage, known) in grades {
            qrels.insert(&question.id, passage, known.grade);
        }
        judged.push(Judged { id: question.id.clone(), text: question.text.clone() });
    }
    Ok((qrels, judged))
}

/// How a passage answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grade {
    pub(super) grade: i32,
    /// The words that answer.
    pub(super) quote: String,
}

/// The passages that answer a question.
pub(super) fn grades(
    index: &Index,
    sources: &Sources,
    question: &Question,
) -> Result<BTreeMap<String, Grade>> {
    let mut grades: BTreeMap<String, Grade> = BTreeMap::new();
    for Quotation { package, file, quote, grade } in &question.answers {
        let folders = sources.folders.get(package);
        for folder in folders.map(Vec::as_slice).unwrap_or_default() {
            for passage in holders(index, &format!("{folder}/{file}"), quote)? {
                if grades.get(&passage).is_none_or(|known| known.grade < *grade) {
                    grades.insert(passage, Grade { grade: *grade, quote: quote.clone() });
                }
            }
        }
    }
    Ok(grades)
}

/// The passages of a document that hold a quotation; if a cut goes through it, those that hold
/// one half of it.
fn holders(index: &Index, document: &str, quote: &str) -> Result<Vec<String>> {
    let quote: Vec<&str> = quote.split_whitespace().collect();
    let (first, second) = quote.split_at(quote.len() / 2);
    let passages: Vec<(String, String)> = index
        .document(document)?
        .iter()
        .map(|passage| {
            let words: Vec<&str> = passage.text.split_whitespace().collect();
            (passage.id.clone(), words.join(" "))
        })
        .collect();
    let holding = |words: &[&str]| -> Vec<String> {
        let words = words.join(" ");
        passages
            .iter()
            .filter(|(_, text)| text.contains(&words))
            .map(|(id, _)| id.clone())
            .collect()
    };
    let mut found = holding(&quote);
    if found.is_empty() && quote.len() > 1 {
        found = holding(first);
        found.extend(holding(second));
    }
    Ok(found)
}

/// What to say of questions whose answers are not in the collection.
pub(super) fn left_out(questions: &[Question], judged: &[Judged]) -> Vec<String> {
    let n = questions.len() - judged.len();
    if n == 0 {
        return Vec::new();
    }
    let were = if n == 1 { "question was" } else { "questions were" };
    vec![format!(
        "{n} of {} {were} left out: no document of this collection answers them",
        questions.len()
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_enough_questions_and_each_can_be_judged() {
        let questions = all().unwrap();
        assert!(questions.len() >= 60);
        for question in &questions {
            assert!(!question.answers.is_empty(), "{}", question.id);
            assert!(
                question.answers.iter().any(|answer| answer.grade == ANSWERS),
                "{}",
                question.id
            );
        }
        assert!(questions.iter().any(|question| question.id == EXAMPLE));
    }
}
