//! Passages named by letters, of which a model writes one: what it is asked, and how the probabilities of
//! its first token are read.

use std::fmt::Write as _;

use topshelf_core::{Ask, Message, Prompt, Wanted, Written};

use crate::permutation::{self, Order};

/// The names of passages where the first token decides.
pub(crate) const LETTERS: [char; 26] = [
    'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J', 'K', 'L', 'M', 'N', 'O', 'P', 'Q', 'R', 'S',
    'T', 'U', 'V', 'W', 'X', 'Y', 'Z',
];

/// Which of several passages is the best, by its letter.
pub(crate) fn best_letter<'a>(query: &str, texts: impl ExactSizeIterator<Item = &'a str>) -> Ask {
    let count = texts.len();
    let mut passages = String::new();
    for (letter, text) in LETTERS.iter().zip(texts) {
        let _ = write!(passages, "[{letter}] {text}\n\n");
    }
    let prompt = Prompt::Chat(vec![
        Message::system(
            "You pick the passage that answers a search query best. You answer with its letter and \
             nothing else.",
        ),
        Message::user(format!(
            "Query: {query}\n\n{count} passages, each after its letter:\n\n{passages}\
             Query: {query}\n\nWhich passage is the most relevant to the query? Answer with its letter."
        )),
    ]);
    Ask { prompt, wanted: Wanted::Tokens, max_tokens: 1 }
}

/// The place whose letter a text is.
fn letter(text: &str, count: usize) -> Option<usize> {
    let text = text.trim().trim_start_matches(['[', '(']).trim_end_matches([']', ')', '.', ':']);
    let mut chars = text.chars();
    let first = chars.next().filter(|_| chars.next().is_none())?;
    LETTERS[..count.min(LETTERS.len())].iter().position(|letter| *letter == first)
}

/// The letter that a text begins with.
fn written_letter(written: &Written, count: usize) -> Option<usize> {
    letter(written.text.split_whitespace().next().unwrap_or_default(), count)
}

/// The probability of each letter as the first token; 0 for those of which nothing is told.
fn letter_probabilities(written: &Written, count: usize) -> Vec<f64> {
    let mut of = vec![0.0_f64; count];
    for alternative in written.alternatives.first().into_iter().flatten() {
        if let Some(place) = letter(&alternative.token, count) {
            of[place] += f64::from(alternative.logprob).exp();
        }
    }
    of
}

/// The order of the letters by their probability; those of which nothing is told follow as they were. If
/// no probabilities are told, the letter that was written comes first.
pub(crate) fn by_letters(written: &Written, count: usize) -> Order {
    if written.alternatives.is_empty() {
        return permutation::of(written_letter(written, count), count);
    }
    let of = letter_probabilities(written, count);
    let mut told: Vec<usize> = (0..count).filter(|&place| of[place] > 0.0).collect();
    told.sort_by(|&a, &b| of[b].total_cmp(&of[a]));
    permutation::of(told, count)
}

/// The logarithm of each letter's probability; `None` if the answer names none of them. One of which
/// nothing is told has at most that of the least likely token that is told. Where no probabilities are
/// told, the letter that was written has nine parts of ten and the others share the rest.
pub(crate) fn letter_logs(written: &Written, count: usize) -> Option<Vec<f64>> {
    const NAMED: f64 = 0.9;
    let first = written.alternatives.first().map(Vec::as_slice).unwrap_or_default();
    if first.is_empty() {
        let named = written_letter(written, count)?;
        let rest = (1.0 - NAMED) / (count - 1).max(1) as f64;
        let log = |place| if place == named { NAMED.ln() } else { rest.ln() };
        return Some((0..count).map(log).collect());
    }
    let of = letter_probabilities(written, count);
    let least = first.iter().map(|told| f64::from(told.logprob)).fold(0.0, f64::min);
    let log = |p: f64| if p > 0.0 { p.ln() } else { least };
    of.iter().any(|p| *p > 0.0).then(|| of.iter().map(|p| log(*p)).collect())
}

#[cfg(test)]
mod tests {
    use topshelf_core::Alternative;

    use super::*;

    #[test]
    fn what_is_not_told_is_at_most_as_likely_as_the_last() {
        let alternative =
            |token: &str, p: f32| Alternative { token: token.to_owned(), logprob: p.ln() };
        let first = vec![alternative("B", 0.6), alternative("[B", 0.2), alternative("The", 0.1)];
        let written = Written { alternatives: vec![first], ..Written::default() };
        let logs = letter_logs(&written, 3).unwrap();
        assert!((logs[1] - 0.8_f64.ln()).abs() < 1e-6 && (logs[0] - 0.1_f64.ln()).abs() < 1e-6);
        assert_eq!(logs[0].to_bits(), logs[2].to_bits());
        let none = Written { alternatives: vec![vec![alternative("The", 0.9)]], ..written };
        assert_eq!(letter_logs(&none, 3), None);
    }

    #[test]
    fn letters_that_are_not_told_of_stay_as_they_were() {
        let alternative =
            |token: &str, p: f32| Alternative { token: token.to_owned(), logprob: p.ln() };
        let first = vec![alternative(" C", 0.5), alternative("The", 0.2), alternative("A", 0.1)];
        let written = Written { alternatives: vec![first], ..Written::default() };
        let order = by_letters(&written, 4);
        assert_eq!((order.places, order.repairs), (vec![2, 0, 1, 3], 2));
        let written = Written { text: "[B] is best".to_owned(), ..Written::default() };
        assert_eq!(by_letters(&written, 3).places, [1, 0, 2]);
    }
}
