//! One question before and after reranking, told to somebody who has never heard of it: what was found
//! by words, by meaning and by both, what the reranker moved and why, and what that cost.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use anyhow::Result;
use topshelf::analyse::Analyser;
use topshelf::{Answer, Hit, LoadedReranker};

use super::conclusion::{self, Moved, counted, nth, thousands};
use super::questions::Grade;
use crate::commands::collection::{Judged, Parts, System};
use crate::exit::usage;
use crate::output::{DemoExample, DemoMove, DemoStage};
use crate::table;

/// Places that are shown of each list.
const SHOWN: usize = 3;

/// Places in the answer for programs.
const IN_JSON: usize = 5;

/// Columns of a passage's id in a list, at most.
const ID: usize = 34;

/// What is asked, and of what.
pub(super) struct Asked<'a> {
    pub(super) question: &'a str,
    /// Passages in the index.
    pub(super) passages: u64,
    /// Where these are from.
    pub(super) of: String,
    /// The passages that answer; `None` where nobody has judged.
    pub(super) answers: Option<BTreeMap<String, Grade>>,
}

/// One question before and after reranking.
pub(super) struct Story {
    question: String,
    passages: u64,
    of: String,
    by_words: List,
    by_meaning: List,
    by_both: List,
    /// The first places after reranking, in their order.
    reranked: Vec<(Moved, String)>,
    candidates: usize,
    /// Tokens that the cross-encoder read.
    tokens: u64,
    rerank_ms: f64,
    conclusion: Vec<(&'static str, String)>,
}

/// What one stage found.
struct List {
    milliseconds: f64,
    first: Vec<Entry>,
}

/// A passage in a list.
struct Entry {
    id: String,
    text: String,
    answers: bool,
}

impl List {
    fn of<'h>(hits: impl Iterator<Item = &'h Hit>, milliseconds: f64, asked: &Asked<'_>) -> Self {
        let entry = |hit: &Hit| Entry {
            id: hit.passage.id.clone(),
            text: hit.passage.text.clone(),
            answers: asked.is_answer(&hit.passage.id) == Some(true),
        };
        Self { milliseconds, first: hits.take(SHOWN).map(entry).collect() }
    }
}

impl Asked<'_> {
    fn quote(&self, passage: &str) -> Option<String> {
        Some(self.answers.as_ref()?.get(passage)?.quote.clone())
    }

    fn is_answer(&self, passage: &str) -> Option<bool> {
        Some(self.answers.as_ref()?.contains_key(passage))
    }
}

/// Asks the question in every way.
pub(super) fn tell(
    parts: &Parts<'_>,
    reranker: &LoadedReranker,
    asked: &Asked<'_>,
) -> Result<Story> {
    let query = Judged { id: String::new(), text: asked.question.to_owned() };
    let answer = |system: &str| -> Result<(Answer, f64)> {
        let (answer, took) = parts.ready(&System::parse(system)?)?.answer(&query)?;
        let answer = answer.ok_or_else(|| {
            usage(
                "the question has no word that can be looked up; ask with a word of the documents",
            )
        })?;
        Ok((answer, took.as_secs_f64() * 1e3))
    };
    let (words, words_ms) = answer("bm25")?;
    let (meaning, meaning_ms) = answer("dense")?;
    let read = || reranker.queue.as_ref().map_or(0, |own| own.counts().tokens);
    let before = read();
    let (reranked, all_ms) = answer("hybrid+rerank")?;
    let tokens = read() - before;
    let report = reranked.report.second_stage.as_ref();
    let rerank_ms = report.map_or(0.0, |r| r.rerankers.iter().map(|ran| ran.milliseconds).sum());
    let moved = moved(&reranked, asked);
    Ok(Story {
        question: asked.question.to_owned(),
        passages: asked.passages,
        of: asked.of.clone(),
        by_words: List::of(words.ranking.hits().iter(), words_ms, asked),
        by_meaning: List::of(meaning.ranking.hits().iter(), meaning_ms, asked),
        by_both: List::of(reranked.candidates.hits().iter(), all_ms - rerank_ms, asked),
        conclusion: conclusion::of(&moved),
        candidates: moved.len(),
        reranked: moved
            .into_iter()
            .zip(reranked.ranking.hits())
            .take(IN_JSON)
            .map(|(moved, hit)| (moved, hit.passage.text.clone()))
            .collect(),
        tokens,
        rerank_ms,
    })
}

/// All candidates in their order after reranking.
fn moved(answer: &Answer, asked: &Asked<'_>) -> Vec<Moved> {
    let mut analyser = Analyser::new(topshelf::Language::English);
    let question: HashSet<String> = analyser.terms(asked.question).into_iter().collect();
    let mut shared = |text: &str| {
        let terms: HashSet<String> = analyser.terms(text).into_iter().collect();
        terms.intersection(&question).count()
    };
    let places: BTreeMap<&str, usize> = answer
        .candidates
        .hits()
        .iter()
        .enumerate()
        .map(|(place, hit)| (hit.passage.id.as_str(), place + 1))
        .collect();
    let of_hit = |(place, hit): (usize, &Hit)| Moved {
        id: hit.passage.id.clone(),
        by_words: hit.signal("bm25").map(|signal| signal.rank),
        by_meaning: hit.signal("dense").map(|signal| signal.rank),
        before: places.get(hit.passage.id.as_str()).copied().unwrap_or_default(),
        after: place + 1,
        score: hit.score,
        relevance: hit.relevance,
        shared_words: shared(&hit.passage.model_text()),
        answers: asked.is_answer(&hit.passage.id),
        quote: asked.quote(&hit.passage.id),
    };
    answer.ranking.hits().iter().enumerate().map(of_hit).collect()
}

impl Story {
    /// For a terminal of `width` columns.
    pub(super) fn as_text(&self, width: usize) -> String {
        let Self { by_words, by_meaning, by_both, candidates, .. } = self;
        let mut text = table::wrap(&format!("Question: {}", table::plain(&self.question)), width);
        let of = format!("Asked of {} passages: {}.", thousands(self.passages), self.of);
        let _ = writeln!(text, "\n{}", table::wrap(&of, width)); // a string takes all
        let id = self.id_columns();
        let lists = [
            ("By words: BM25 looks for the words of the question.", by_words),
            ("By meaning: a bi-encoder compares a vector of each text.", by_meaning),
            ("By both: the two lists fused by their ranks. Most searches stop here.", by_both),
        ];
        for (what, list) in lists {
            heading(&mut text, what, list.milliseconds, width);
            for (place, entry) in list.first.iter().enumerate() {
                line(&mut text, place + 1, &entry.id, entry.answers, &entry.text, (id, width));
            }
            if list.first.is_empty() {
                text.push_str("\n  nothing");
            }
        }
        let what = format!(
            "Reranked: a cross-encoder read the question beside each of the best {candidates}."
        );
        heading(&mut text, &what, self.rerank_ms, width);
        for (moved, passage) in self.reranked.iter().take(SHOWN) {
            let was = format!("(was {}) {passage}", nth(moved.before));
            let answers = moved.answers == Some(true);
            line(&mut text, moved.after, &moved.id, answers, &was, (id, width));
        }
        if self.reranked.iter().any(|(moved, _)| moved.answers.is_some()) {
            text.push_str("\n  * answers the question (judged by hand beforehand)");
        }
        text.push('\n');
        for (about, sentences) in &self.conclusion {
            let _ = write!(text, "\n{}", table::wrap(&format!("{about}: {sentences}"), width));
        }
        let _ = write!(text, "\n{}", table::wrap(&self.cost(), width));
        text
    }

    fn cost(&self) -> String {
        let pairs = counted(self.candidates, "pair");
        let times = self.rerank_ms / self.by_both.milliseconds.max(f64::MIN_POSITIVE);
        let times = if times >= 2.0 {
            format!(
                ", {} times as long as the retrieval before it",
                thousands(times.round() as u64)
            )
        } else {
            String::new()
        };
        let unread = self.passages.saturating_sub(self.candidates as u64);
        let why = if unread > 0 {
            format!(
                " The other {} passages were not read, which is why retrieval comes first.",
                thousands(unread)
            )
        } else {
            String::new()
        };
        format!(
            "What it cost: {pairs} of question and passage ({} tokens) took {:.0} ms{times}.{why}",
            thousands(self.tokens),
            self.rerank_ms
        )
    }

    /// The columns that ids need in all lists.
    fn id_columns(&self) -> usize {
        let lists = [&self.by_words, &self.by_meaning, &self.by_both];
        let entries = lists.into_iter().flat_map(|list| &list.first).map(|entry| &entry.id);
        let reranked = self.reranked.iter().take(SHOWN).map(|(moved, _)| &moved.id);
        entries
            .chain(reranked)
            .map(|id| table::columns(&table::plain(id)))
            .max()
            .unwrap_or(0)
            .min(ID)
    }

    /// For a program.
    pub(super) fn as_json(&self) -> DemoExample {
        let stage =
            |stage: &str, milliseconds: f64| DemoStage { stage: stage.to_owned(), milliseconds };
        let hit = |(moved, text): &(Moved, String)| DemoMove {
            id: moved.id.clone(),
            by_words: moved.by_words,
            by_meaning: moved.by_meaning,
            before: moved.before,
            after: moved.after,
            score: moved.score,
            relevance: moved.relevance,
            relevant: moved.answers,
            text: table::shorten(text, 110),
        };
        DemoExample {
            query: self.question.clone(),
            passages: self.passages,
            candidates: self.candidates,
            tokens: self.tokens,
            stages: vec![
                stage("bm25", self.by_words.milliseconds),
                stage("dense", self.by_meaning.milliseconds),
                stage("hybrid", self.by_both.milliseconds),
                stage("rerank", self.rerank_ms),
            ],
            hits: self.reranked.iter().map(hit).collect(),
            conclusion: self
                .conclusion
                .iter()
                .map(|(about, sentences)| format!("{about}: {sentences}"))
                .collect(),
        }
    }
}

/// A stage's heading, its time at the right end of the line.
fn heading(text: &mut String, what: &str, milliseconds: f64, width: usize) {
    let digits = usize::from(milliseconds < 100.0);
    let time = format!("{milliseconds:.digits$} ms");
    let what = table::shorten(what, width.saturating_sub(table::columns(&time) + 2));
    let gap = width.saturating_sub(table::columns(&what) + table::columns(&time));
    let _ = write!(text, "\n{what}{:gap$}{time}", ""); // a string takes all
}

/// A passage in one line; `columns` are those of an id and of all.
fn line(
    text: &mut String,
    place: usize,
    id: &str,
    answers: bool,
    passage: &str,
    columns: (usize, usize),
) {
    let (id_columns, width) = columns;
    let id = table::shorten_start(id, id_columns);
    let gap = id_columns.saturating_sub(table::columns(&id));
    let mark = if answers { '*' } else { ' ' };
    let passage = table::shorten(passage, width.saturating_sub(id_columns + 8));
    let line = format!(" {place:>2} {mark} {id}{:gap$}  {passage}", "");
    let _ = write!(text, "\n{}", line.trim_end()); // a string takes all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, text: &str, answers: bool) -> Entry {
        Entry { id: id.to_owned(), text: text.to_owned(), answers }
    }

    fn list(entries: Vec<Entry>, milliseconds: f64) -> List {
        List { milliseconds, first: entries }
    }

    fn story(id: &str, passage: &str) -> Story {
        let moved = Moved {
            id: id.to_owned(),
            by_words: Some(2),
            by_meaning: Some(3),
            before: 2,
            after: 1,
            score: 4.5,
            relevance: Some(0.99),
            shared_words: 2,
            answers: Some(true),
            quote: Some("Log in with a key.".to_owned()),
        };
        let former = Moved {
            id: "a.md#0".to_owned(),
            before: 1,
            after: 2,
            score: 1.0,
            answers: Some(false),
            quote: None,
            ..moved.clone()
        };
        let all = vec![moved, former];
        let both = || vec![entry("a.md#0", "first", false), entry(id, passage, true)];
        Story {
            question: "How\u{1b}[2J do I\nlog in?".to_owned(),
            passages: 1234,
            of: "the README of every package".to_owned(),
            by_words: list(both(), 0.62),
            by_meaning: list(Vec::new(), 5.0),
            by_both: list(both(), 6.0),
            conclusion: conclusion::of(&all),
            reranked: all.into_iter().map(|moved| (moved, passage.to_owned())).collect(),
            candidates: 2,
            tokens: 5_210,
            rerank_ms: 412.4,
        }
    }

    #[test]
    fn it_says_what_was_found_what_moved_and_what_it_cost() {
        let text = story("b.md#1", "Log in with a key.").as_text(100);
        for expected in [
            "Question: How[2J do I log in?\n",
            "Asked of 1,234 passages: the README of every package.\n",
            "  2 * b.md#1  Log in with a key.\n",
            "\n  nothing\n",
            "  1 * b.md#1  (was 2nd) Log in with a key.\n",
            "What changed: b.md#1 answers the question: \"Log in with a key.\" It was 2nd by words, 3rd by",
            "What it cost: 2 pairs of question and passage (5,210 tokens) took 412 ms, 69 times as",
            "The other 1,232 passages were not read",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in:\n{text}");
        }
        assert!(text.lines().any(|line| line.ends_with("  0.6 ms") && line.len() == 100), "{text}");
        assert!(text.lines().count() <= 32, "{text}");
    }

    #[test]
    fn it_keeps_to_the_width_whatever_the_documents_hold() {
        let word = "w".repeat(3000);
        let odd = ["\u{1b}]0;title\u{7}\u{202e}x", "漢字".repeat(200).as_str(), &word]
            .map(|text| story(&format!("folder/{text}.md#1"), text));
        for (story, width) in odd.iter().flat_map(|story| [(story, 100), (story, 79), (story, 60)])
        {
            let text = story.as_text(width);
            for line in text.lines() {
                assert!(
                    table::columns(line) <= width,
                    "{} > {width}: {line}",
                    table::columns(line)
                );
                assert!(!line.chars().any(|c| c.is_control() || c == '\u{202e}'), "{line:?}");
            }
        }
    }
}
