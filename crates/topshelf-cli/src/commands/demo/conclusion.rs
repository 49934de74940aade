//! What reranking did to one question, in sentences: what moved, why, and whether that is better.
//! Each is derived from the places and scores of this ranking.

use crate::table;

/// Columns of a passage's id in a sentence.
const ID: usize = 48;

/// The probability below which a passage does not look like an answer.
const LIKELY: f32 = 0.5;

/// A candidate's places, from 1, before and after reranking.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Moved {
    pub(super) id: String,
    /// `None` where BM25 did not find it.
    pub(super) by_words: Option<usize>,
    /// `None` where the bi-encoder did not find it.
    pub(super) by_meaning: Option<usize>,
    pub(super) before: usize,
    pub(super) after: usize,
    pub(super) score: f32,
    pub(super) relevance: Option<f32>,
    /// Different words that it shares with the question.
    pub(super) shared_words: usize,
    /// Whether it was judged to answer; `None` where nobody has judged.
    pub(super) answers: Option<bool>,
    /// The words of it that answer.
    pub(super) quote: Option<String>,
}

/// The sentences, each a paragraph: a word for what it is about, and the text. `moved` holds all
/// candidates in their order after reranking.
pub(super) fn of(moved: &[Moved]) -> Vec<(&'static str, String)> {
    let Some((first, former)) = moved.first().zip(moved.iter().find(|m| m.before == 1)) else {
        return vec![(
            "Result",
            "No passage was found, so there was nothing to rerank.".to_owned(),
        )];
    };
    if first.answers.is_some() {
        let answers = || moved.iter().filter(|m| m.answers == Some(true));
        let best = answers().min_by_key(|m| m.after).zip(answers().min_by_key(|m| m.before));
        return match best {
            Some((now, was)) => judged(first, former, now, was),
            None => vec![("Result", without_answer(moved.len()))],
        };
    }
    unjudged(moved, first, former)
}

/// The answer is among the candidates: `now` is the best of those that answer after reranking, `was`
/// before.
fn judged(first: &Moved, former: &Moved, now: &Moved, was: &Moved) -> Vec<(&'static str, String)> {
    let (before, after) = (was.before, now.after);
    let said = now.quote.as_ref().map_or(".".to_owned(), |quote| format!(": \"{quote}\""));
    let places = format!("{} answers the question{said} It was {}", id(now), places(now));
    if after < before {
        let better = match (before, after) {
            (_, 1) => "So the first result now answers the question.",
            (4.., ..=3) => "A prompt with the first three passages now has the answer in it.",
            _ => "That is better, but the answer is still not the first result.",
        };
        let mut said = vec![(
            "What changed",
            format!("{places}; the reranker put it {}. {better}", nth(after)),
        )];
        if after == 1 {
            said.push(("Why", why(now, former)));
        } else {
            said.push(("Why", scored(now, first)));
        }
        return said;
    }
    if after > before {
        return vec![
            (
                "What changed",
                format!(
                    "Reranking made this question worse: the answer was {} and is {} now.",
                    nth(before),
                    nth(after)
                ),
            ),
            (
                "Why",
                format!(
                    "{} It prefers a passage that was not judged to answer.",
                    scored(now, first)
                ),
            ),
        ];
    }
    let gain = if after == 1 {
        "Retrieval alone had it first, so reranking gained nothing for this question."
    } else {
        "Reranking gained nothing for this question."
    };
    vec![("What changed", format!("{places}; reranked it is {} still. {gain}", nth(after)))]
}

/// What a reranker cannot do.
fn without_answer(candidates: usize) -> String {
    format!(
        "None of the {candidates} candidates was judged to answer. A reranker only orders what the \
         retrieval found, so it cannot help here; more candidates might."
    )
}

/// Nobody has said which passage answers.
fn unjudged(moved: &[Moved], first: &Moved, former: &Moved) -> Vec<(&'static str, String)> {
    let shown = &moved[..moved.len().min(3)];
    let new = shown.iter().filter(|m| m.before > shown.len()).count();
    let changed = if first.id != former.id {
        format!(
            "{} is first now. Before reranking: {}. The former first, {}, is {} now.",
            id(first),
            places(first),
            id(former),
            nth(former.after)
        )
    } else if shown.iter().all(|m| m.before == m.after) {
        "Nothing in the first places: reranking confirmed the order that retrieval had.".to_owned()
    } else {
        let rest = match new {
            0 => "the places behind it were exchanged".to_owned(),
            1 => "one passage behind it came from further down".to_owned(),
            _ => "both passages behind it came from further down".to_owned(),
        };
        format!("{} was first and still is; {rest}.", id(first))
    };
    let mut said = vec![("What changed", changed)];
    if first.id != former.id {
        said.push(("Why", why(first, former)));
    }
    said.push((
        "Is that better",
        match first.relevance.filter(|relevance| *relevance < LIKELY) {
            Some(relevance) => format!(
                "Perhaps nothing here answers the question: the reranker gives even its first \
                 passage a relevance of {relevance:.2}, where 1 is certain."
            ),
            None => {
                "Nobody has judged this question. Read the first passages before and after, and \
                     decide; with a few judged questions `eval` decides by numbers."
                    .to_owned()
            }
        },
    ));
    said
}

/// Why `now`, which is first, passed `former`, which was.
fn why(now: &Moved, former: &Moved) -> String {
    let (more, fewer) = (former.shared_words, now.shared_words);
    let words = match more.cmp(&fewer) {
        std::cmp::Ordering::Greater => format!(
            "{} shares {} with the question and {} only {fewer}, which is what BM25 goes by.",
            id(former),
            counted(more, "word"),
            id(now)
        ),
        std::cmp::Ordering::Equal => format!(
            "{} and {} share {} with the question each, so words alone hardly tell them apart.",
            id(former),
            id(now),
            counted(more, "word")
        ),
        std::cmp::Ordering::Less => format!(
            "{} shares more words with the question, but {} was ahead in the fused list.",
            id(now),
            id(former)
        ),
    };
    format!("{words} {}", scored(now, former))
}

/// The scores of two candidates.
fn scored(one: &Moved, other: &Moved) -> String {
    let (high, low) = if one.score >= other.score { (one, other) } else { (other, one) };
    format!(
        "The cross-encoder read each together with the question and scored {} {:.1} and {} {:.1}; \
         higher is better.",
        id(high),
        high.score,
        id(low),
        low.score
    )
}

/// Where the retrievers had a passage.
fn places(moved: &Moved) -> String {
    let place = |place: Option<usize>| place.map_or("not found".to_owned(), nth);
    format!(
        "{} by words, {} by meaning, {} by both",
        place(moved.by_words),
        place(moved.by_meaning),
        nth(moved.before)
    )
}

fn id(moved: &Moved) -> String {
    table::shorten_start(&moved.id, ID)
}

/// 1st, 2nd, 3rd, 4th.
pub(super) fn nth(place: usize) -> String {
    let ending = match (place % 10, place % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{place}{ending}")
}

/// One word, 2 words, 3,000 words.
pub(super) fn counted(n: usize, noun: &str) -> String {
    if n == 1 { format!("one {noun}") } else { format!("{} {noun}s", thousands(n as u64)) }
}

/// 1,234,567.
pub(super) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A candidate by its places before and after.
    fn moved(id: &str, before: usize, after: usize, answers: Option<bool>) -> Moved {
        Moved {
            id: id.to_owned(),
            by_words: Some(before + 1),
            by_meaning: None,
            before,
            after,
            score: 5.0 - after as f32,
            relevance: Some(0.9),
            shared_words: 3,
            answers,
            quote: (answers == Some(true)).then(|| "So it is.".to_owned()),
        }
    }

    /// The candidates by their places before, in the order after; `answer` is the one that answers.
    fn ranked(before: &[usize], answer: Option<usize>) -> Vec<Moved> {
        let all = before.iter().enumerate().map(|(place, was)| {
            moved(&format!("p{was}"), *was, place + 1, answer.map(|answer| answer == *was))
        });
        all.collect()
    }

    fn said(moved: &[Moved]) -> String {
        let lines: Vec<String> =
            of(moved).into_iter().map(|(about, text)| format!("{about}: {text}")).collect();
        lines.join("\n")
    }

    #[test]
    fn an_answer_that_came_first() {
        let text = said(&ranked(&[4, 2, 1, 3], Some(4)));
        assert_eq!(
            text,
            "What changed: p4 answers the question: \"So it is.\" It was 5th by words, not found by \
             meaning, 4th by both; the reranker put it 1st. So the first result now answers the \
             question.\n\
             Why: p1 and p4 share 3 words with the question each, so words alone hardly tell them \
             apart. The cross-encoder read each together with the question and scored p4 4.0 and p1 \
             2.0; higher is better."
        );
        let mut more = ranked(&[4, 2, 1, 3], Some(4));
        more[2].shared_words = 5;
        assert!(said(&more).contains("p1 shares 5 words with the question and p4 only 3"));
        more[2].shared_words = 1;
        assert!(said(&more).contains("p4 shares more words with the question, but p1 was ahead"));
    }

    #[test]
    fn an_answer_that_rose_and_is_not_first() {
        let text = said(&ranked(&[1, 2, 4, 3], Some(4)));
        assert!(text.contains("put it 3rd. A prompt with the first three passages"), "{text}");
        let text = said(&ranked(&[1, 3, 2], Some(3)));
        assert!(text.contains("put it 2nd. That is better, but"), "{text}");
    }

    #[test]
    fn an_answer_that_stayed() {
        let text = said(&ranked(&[1, 3, 2], Some(1)));
        assert!(text.contains("reranked it is 1st still. Retrieval alone had it first"), "{text}");
        let text = said(&ranked(&[3, 2, 1], Some(2)));
        assert!(
            text.ends_with("it is 2nd still. Reranking gained nothing for this question."),
            "{text}"
        );
    }

    #[test]
    fn an_answer_that_fell_or_is_not_there() {
        let text = said(&ranked(&[2, 3, 1], Some(1)));
        assert!(
            text.contains("made this question worse: the answer was 1st and is 3rd now"),
            "{text}"
        );
        assert!(text.contains("scored p2 4.0 and p1 2.0"), "{text}");
        let text = said(&ranked(&[2, 1], Some(9)));
        assert!(
            text.starts_with("Result: None of the 2 candidates was judged to answer"),
            "{text}"
        );
    }

    #[test]
    fn a_question_that_nobody_has_judged() {
        let text = said(&ranked(&[4, 1, 2], None));
        assert!(text.contains("p4 is first now. Before reranking: 5th by words"), "{text}");
        assert!(text.contains("The former first, p1, is 2nd now."), "{text}");
        assert!(text.contains("Nobody has judged this question."), "{text}");
        let text = said(&ranked(&[1, 2, 3], None));
        assert!(text.contains("confirmed the order that retrieval had"), "{text}");
        let text = said(&ranked(&[1, 3, 2], None));
        assert!(text.contains("p1 was first and still is; the places behind"), "{text}");
        let text = said(&ranked(&[1, 7, 2, 3, 4, 5, 6], None));
        assert!(text.contains("one passage behind it came from further down"), "{text}");
        let text = said(&ranked(&[1, 7, 6, 2, 3, 4, 5], None));
        assert!(text.contains("both passages behind it came from further down"), "{text}");
    }

    #[test]
    fn nothing_likely_and_nothing_at_all() {
        let mut unlikely = ranked(&[1, 2], None);
        unlikely[0].relevance = Some(0.03);
        assert!(said(&unlikely).contains("a relevance of 0.03, where 1 is certain"));
        assert_eq!(said(&[]), "Result: No passage was found, so there was nothing to rerank.");
        assert!(said(&ranked(&[1], None)).contains("confirmed the order"));
    }

    #[test]
    fn numbers_in_words() {
        let all = [1, 2, 3, 4, 11, 12, 13, 21, 22, 102, 111].map(nth);
        let expected =
            ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "102nd", "111th"];
        assert_eq!(all, expected);
        assert_eq!([counted(1, "pair"), counted(2, "pair")], ["one pair", "2 pairs"]);
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }
}
