//! An LLM as a judge of relevance: grade 0, 1 or 2 for a query and a passage.
//!
//! The question is asked in one message, instructions first and the passage last but for the format, so
//! that servers can keep what all questions of a query have in common. An answer is read as its first
//! digit that is a grade; one without such a digit is none, is counted, and judges nothing.
//!
//! A model's grades are not a person's. What they are worth says their agreement with a sample that a
//! person judged: the share that is equal, and Cohen's kappa ("A coefficient of agreement for nominal
//! scales", 1960), which is 0 for agreement by chance and 1 for all.

use topshelf_core::{Ask, Call, Message, Prompt, Wanted};

use crate::chat::ChatModel;
use crate::error::Result;

/// Tokens that an answer takes, at most.
const ANSWER: usize = 8;

/// Characters of a passage that are shown; what is longer is cut there.
const LONGEST: usize = 6000;

/// The version of the question, for the record: grades of two versions are not the same thing.
pub const PROMPT: &str = "grades 1";

/// What a model said of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Graded {
    /// 0 to 2; `None` if there was no grade in the answer.
    pub grade: Option<i32>,
    /// Tokens read and written.
    pub tokens: u64,
}

/// Asks for the grade of a passage.
///
/// # Errors
///
/// As [`ChatModel::write`].
pub fn grade(model: &ChatModel, query: &str, passage: &str) -> Result<Graded> {
    let prompt = Prompt::Chat(vec![question(query, passage)]);
    let call = Call::new();
    let answer = model.write(&call, &Ask { prompt, wanted: Wanted::Text, max_tokens: ANSWER })?;
    let spent = call.spent();
    Ok(Graded { grade: read(&answer.text), tokens: spent.input_tokens + spent.output_tokens })
}

fn question(query: &str, passage: &str) -> Message {
    let end = passage.char_indices().nth(LONGEST).map_or(passage.len(), |(end, _)| end);
    let content = format!(
        "You judge search results. Decide how well a passage answers a search query.\n\
         2: the passage contains the answer to the query.\n\
         1: the passage is about what is asked and helps a little, but the answer is not in it.\n\
         0: the passage does not help.\n\n\
         Query: {query}\n\n\
         Passage:\n{}\n\n\
         Answer with one digit, 0, 1 or 2, and nothing else.",
        &passage[..end]
    );
    Message::user(content)
}

/// The grade in an answer.
fn read(answer: &str) -> Option<i32> {
    let digits: Vec<&str> = answer
        .split(|character: char| !character.is_ascii_digit())
        .filter(|digits| !digits.is_empty())
        .collect();
    match *digits.first()? {
        "0" => Some(0),
        "1" => Some(1),
        "2" => Some(2),
        _ => None,
    }
}

/// How two judges agree.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Agreement {
    /// Pairs that both judged.
    pub pairs: usize,
    /// The share with equal grades, 0 to 1.
    pub equal: f64,
    /// Cohen's kappa of the grades, at most 1.
    pub kappa: f64,
    /// Cohen's kappa of relevant (1 and 2) or not.
    pub kappa_relevant: f64,
}

/// How two judges agree; `None` without a pair.
///
/// ```
/// use topshelf_remote::grade::agreement;
/// let agreed = agreement(&[(0, 0), (2, 2), (1, 1), (0, 2)]).unwrap();
/// assert_eq!(agreed.equal, 0.75);
/// assert!(agreed.kappa > 0.6 && agreed.kappa < 0.7);
/// assert!(agreement(&[]).is_none());
/// ```
pub fn agreement(grades: &[(i32, i32)]) -> Option<Agreement> {
    let equal = grades.iter().filter(|(one, other)| one == other).count();
    let relevant: Vec<(i32, i32)> =
        grades.iter().map(|(one, other)| (i32::from(*one > 0), i32::from(*other > 0))).collect();
    (!grades.is_empty()).then(|| Agreement {
        pairs: grades.len(),
        equal: equal as f64 / grades.len() as f64,
        kappa: kappa(grades),
        kappa_relevant: kappa(&relevant),
    })
}

fn kappa(grades: &[(i32, i32)]) -> f64 {
    let n = grades.len() as f64;
    let seen = grades.iter().filter(|(one, other)| one == other).count() as f64 / n;
    let share = |of: fn(&(i32, i32)) -> i32, grade: i32| {
        grades.iter().filter(|pair| of(pair) == grade).count() as f64 / n
    };
    let mut all: Vec<i32> = grades.iter().flat_map(|(one, other)| [*one, *other]).collect();
    all.sort_unstable();
    all.dedup();
    let chance: f64 =
        all.iter().map(|grade| share(|pair| pair.0, *grade) * share(|pair| pair.1, *grade)).sum();
    // Where both say the same of everything, there is nothing that chance could not do.
    if chance < 1.0 { (seen - chance) / (1.0 - chance) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grade_is_read_and_nothing_else() {
        for (answer, grade) in [
            ("2", Some(2)),
            (" 1\n", Some(1)),
            ("Grade: 0.", Some(0)),
            ("**2** because", Some(2)),
            ("10", None),
            ("3", None),
            ("none of them", None),
            ("", None),
        ] {
            assert_eq!(read(answer), grade, "{answer:?}");
        }
    }

    #[test]
    fn kappa_is_that_of_the_textbook() {
        // Cohen's measure for 20 and 15 agreed, 5 and 10 not: 0.7 seen, 0.5 by chance.
        let mut grades = vec![(1, 1); 20];
        grades.extend(vec![(0, 0); 15]);
        grades.extend(vec![(1, 0); 5]);
        grades.extend(vec![(0, 1); 10]);
        assert!((kappa(&grades) - 0.4).abs() < 1e-9);
        assert!(kappa(&[(1, 1), (1, 1)]).abs() < 1e-9);
        assert!((kappa(&[(1, 1), (0, 0)]) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn long_passages_are_cut_between_letters() {
        let passage = "ö".repeat(LONGEST + 10);
        assert_eq!(question("q", &passage).content.matches('ö').count(), LONGEST);
    }
}
