//! [`Template`]: what a model is asked about a query and a passage, and how its answer becomes a score.
//!
//! A model that was trained to rerank knows one way to be asked, to the letter; asked otherwise it is
//! near random. So those models' templates are kept exactly, and every template has a golden pair: a
//! query with a passage that answers it and one that does not, which a model must tell apart
//! ([`Template::margin`]) before anything else is asked of it.
//!
//! | name | asks | score |
//! | --- | --- | --- |
//! | `rating` | any chat model for a number from 0 to 10 | Σ n·p(n), 0 to 10 |
//! | `yes-no` | any chat model for yes or no | log p(yes) - log p(no) |
//! | `qwen3-reranker` | [Qwen3-Reranker](https://huggingface.co/Qwen/Qwen3-Reranker-0.6B) | the same |
//! | `bge-gemma` | [bge-reranker-v2-gemma](https://huggingface.co/BAAI/bge-reranker-v2-gemma) | log p(Yes) |
//!
//! (Zhuang et al., "Beyond Yes and No", 2024, for ratings; Liang et al., "HELM", 2022, for yes and no;
//! the model cards for the last two.)
//!
//! **Ratings of two digits.** Most vocabularies write 10 in two tokens, the first of which is that of 1.
//! Where a 1 is the likeliest beginning, the second token's probabilities are at hand and say how much of
//! it is 10; elsewhere what is left of it counts as 1. Without probabilities the number itself is the score.

use topshelf_core::{Alternative, Ask, Message, Prompt, Scale, Wanted, Written};

/// A way to ask about a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Template {
    /// A number from 0 to 10.
    #[default]
    Rating,
    /// Yes or no.
    YesNo,
    /// The template of the Qwen3-Reranker models.
    Qwen3Reranker,
    /// The template of bge-reranker-v2-gemma.
    BgeGemma,
}

/// The golden query.
const QUERY: &str = "How many people live in Berlin?";

/// It, answered, and not.
const PASSAGES: [&str; 2] = [
    "Berlin had a population of 3,520,031 registered inhabitants in an area of 891.82 square kilometers.",
    "The two-stroke engine completes a power cycle with one revolution of the crankshaft.",
];

impl Template {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Rating, Self::YesNo, Self::Qwen3Reranker, Self::BgeGemma];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rating => "rating",
            Self::YesNo => "yes-no",
            Self::Qwen3Reranker => "qwen3-reranker",
            Self::BgeGemma => "bge-gemma",
        }
    }

    /// The one that a model of that name was trained on; ratings for all others.
    pub fn of_model(name: &str) -> Self {
        let name = name.to_lowercase();
        if name.contains("qwen3-reranker") {
            Self::Qwen3Reranker
        } else if name.contains("bge-reranker-v2-gemma") {
            Self::BgeGemma
        } else {
            Self::Rating
        }
    }

    /// The scale of its scores.
    pub const fn scale(self) -> Scale {
        match self {
            Self::Rating => Scale::Service,
            Self::YesNo | Self::Qwen3Reranker | Self::BgeGemma => Scale::Logit,
        }
    }

    /// How far the golden passages' scores must lie apart: a tenth of the scale of ratings, odds of e to
    /// one of the others.
    pub const fn margin(self) -> f32 {
        1.0
    }

    /// The questions about the golden pair: the relevant passage, then the other.
    pub fn golden(self) -> [Ask; 2] {
        PASSAGES.map(|passage| self.ask(QUERY, passage))
    }

    /// The question about a pair.
    pub fn ask(self, query: &str, passage: &str) -> Ask {
        let (prompt, max_tokens) = match self {
            Self::Rating => (rating(query, passage), 3),
            Self::YesNo => (yes_no(query, passage), 1),
            Self::Qwen3Reranker => (qwen3_reranker(query, passage), 1),
            Self::BgeGemma => (bge_gemma(query, passage), 1),
        };
        Ask { prompt, wanted: Wanted::Tokens, max_tokens }
    }

    /// The score in an answer, or why there is none.
    pub fn read(self, written: &Written) -> Result<f32, String> {
        let first = written.alternatives.first().map(Vec::as_slice).unwrap_or_default();
        let nothing = || format!("the model answers {:?}", shorten(&written.text));
        match self {
            Self::Rating => expected_rating(&written.alternatives)
                .or_else(|| written_rating(&written.text))
                .ok_or_else(nothing),
            Self::YesNo | Self::Qwen3Reranker => {
                log_odds(first).or_else(|| written_yes(&written.text)).ok_or_else(nothing)
            }
            Self::BgeGemma => log_probability(first, "Yes").ok_or_else(nothing),
        }
    }
}

fn rating(query: &str, passage: &str) -> Prompt {
    Prompt::Chat(vec![
        Message::system(
            "Rate how well the document answers the query, from 0 (not at all) to 10 (completely). The \
             answer is that number and nothing else.",
        ),
        Message::user(format!("<Query>: {query}\n<Document>: {passage}")),
    ])
}

fn yes_no(query: &str, passage: &str) -> Prompt {
    Prompt::Chat(vec![
        Message::system(
            "Judge whether the document answers the query. The answer is \"yes\" or \"no\" and nothing \
             else.",
        ),
        Message::user(format!("<Query>: {query}\n<Document>: {passage}")),
    ])
}

/// As on the model card, to the letter.
fn qwen3_reranker(query: &str, passage: &str) -> Prompt {
    Prompt::Raw(format!(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and \
         the Instruct provided. Note that the answer can only be \"yes\" or \"no\".<|im_end|>\n\
         <|im_start|>user\n<Instruct>: Given a web search query, retrieve relevant passages that answer \
         the query\n<Query>: {query}\n<Document>: {passage}<|im_end|>\n<|im_start|>assistant\n\
         <think>\n\n</think>\n\n"
    ))
}

/// As on the model card, to the letter.
fn bge_gemma(query: &str, passage: &str) -> Prompt {
    Prompt::Raw(format!(
        "A: {query}\nB: {passage}\nGiven a query A and a passage B, determine whether the passage \
         contains an answer to the query by providing a prediction of either 'Yes' or 'No'."
    ))
}

/// Σ n·p(n) / Σ p(n) over the numbers from 0 to 10 among the first token's alternatives.
fn expected_rating(alternatives: &[Vec<Alternative>]) -> Option<f32> {
    let first = alternatives.first()?;
    let mut of = [0.0_f64; 11];
    for alternative in first {
        if let Ok(number) = alternative.token.trim().parse::<usize>()
            && number <= 10
        {
            of[number] += f64::from(alternative.logprob).exp();
        }
    }
    let is_likeliest = first.first().is_some_and(|likeliest| likeliest.token.trim() == "1");
    if is_likeliest && let Some(second) = alternatives.get(1) {
        let is_zero = |alternative: &&Alternative| alternative.token.trim() == "0";
        let ten: f64 =
            second.iter().filter(is_zero).map(|zero| f64::from(zero.logprob).exp()).sum();
        of[10] += of[1] * ten;
        of[1] -= of[1] * ten;
    }
    let all: f64 = of.iter().sum();
    // A model that would rather write something else has not rated.
    (all > 0.05).then(|| {
        let sum: f64 = of.iter().enumerate().map(|(number, p)| number as f64 * p).sum();
        (sum / all) as f32
    })
}

/// The first number in a text, if it is one from 0 to 10.
fn written_rating(text: &str) -> Option<f32> {
    let start = text.find(|c: char| c.is_ascii_digit())?;
    let rest = &text[start..];
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let number: f32 = rest[..end].trim_end_matches('.').parse().ok()?;
    (0.0..=10.0).contains(&number).then_some(number)
}

/// The least log-probability that counts: that of a word which is not among the alternatives is at most
/// that of the last of them, and no lower than this.
const LEAST: f32 = -20.0;

/// log p(yes) - log p(no), whatever their case and the space before them.
fn log_odds(first: &[Alternative]) -> Option<f32> {
    let of = |word: &str| -> f64 {
        let same = first.iter().filter(|a| a.token.trim().eq_ignore_ascii_case(word));
        same.map(|alternative| f64::from(alternative.logprob).exp()).sum()
    };
    let (yes, no) = (of("yes"), of("no"));
    if yes + no < 0.01 {
        return None;
    }
    let least = first.last().map_or(LEAST, |last| last.logprob).max(LEAST);
    let log = |p: f64| if p > 0.0 { p.ln() as f32 } else { least };
    Some(log(yes) - log(no))
}

/// A yes or a no at the beginning of a text, as even odds of e² for or against.
fn written_yes(text: &str) -> Option<f32> {
    let word: String = text.trim().chars().take_while(|c| c.is_alphabetic()).collect();
    match word.to_lowercase().as_str() {
        "yes" => Some(2.0),
        "no" => Some(-2.0),
        _ => None,
    }
}

/// The log-probability of exactly that word.
fn log_probability(first: &[Alternative], word: &str) -> Option<f32> {
    let found = first.iter().find(|alternative| alternative.token.trim() == word);
    // Below all that are told of.
    let least = first.last().map(|last| last.logprob);
    found.map(|alternative| alternative.logprob).or(least).map(|logprob| logprob.max(LEAST))
}

fn shorten(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str, tokens: &[&[(&str, f32)]]) -> Written {
        let alternatives = |of: &&[(&str, f32)]| {
            let of = of.iter();
            of.map(|&(token, p)| Alternative { token: token.to_owned(), logprob: p.ln() }).collect()
        };
        let alternatives = tokens.iter().map(alternatives).collect();
        Written { text: text.to_owned(), alternatives }
    }

    #[test]
    fn a_rating_is_an_expectation() {
        let of = |written| Template::Rating.read(&written).unwrap();
        let close = |a: f32, b: f32| assert!((a - b).abs() < 1e-4, "{a} {b}");
        close(of(written("8", &[&[("8", 0.5), (" 6", 0.25), ("x", 0.25)]])), 22.0 / 3.0);
        // 10 in two tokens: what follows the 1 says how much of it is 10.
        let (first, second) = ([("1", 0.8), ("9", 0.2)], [("0", 0.75), (".", 0.25)]);
        close(of(written("10", &[&first, &second])), 0.2 + 6.0 + 1.8);
        // The likeliest is not 1, so what follows says nothing of it.
        close(of(written("90", &[&[("9", 0.8), ("1", 0.2)], &[("0", 1.0)]])), 7.4);
        close(of(written("10", &[&[("10", 1.0)]])), 10.0);
    }

    #[test]
    fn without_probabilities_the_text_counts() {
        let rated = |text| Template::Rating.read(&written(text, &[]));
        assert_eq!(rated("7"), Ok(7.0));
        assert_eq!(rated("Score: 7.5."), Ok(7.5));
        assert!(rated("42").unwrap_err().contains("42"));
        assert!(rated("very").is_err());
        assert_eq!(Template::YesNo.read(&written(" Yes, it does", &[])), Ok(2.0));
        assert_eq!(Template::YesNo.read(&written("no", &[])), Ok(-2.0));
        assert!(Template::YesNo.read(&written("nothing", &[])).is_err());
    }

    #[test]
    fn yes_and_no_are_odds() {
        let first: &[(&str, f32)] = &[("Yes", 0.6), (" yes", 0.1), ("No", 0.1), ("maybe", 0.001)];
        let odds = Template::YesNo.read(&written("Yes", &[first])).unwrap();
        assert!((odds - 7_f32.ln()).abs() < 1e-4);
        let only: &[(&str, f32)] = &[("yes", 0.9), ("x", 0.01)];
        let odds = Template::Qwen3Reranker.read(&written("yes", &[only])).unwrap();
        assert!((odds - 90_f32.ln()).abs() < 1e-4, "no is at most as likely as the last");
        assert!(Template::YesNo.read(&written("", &[&[("the", 0.9)]])).is_err());
    }

    #[test]
    fn trained_models_are_asked_as_they_were_trained() {
        assert_eq!(Template::of_model("Qwen/Qwen3-Reranker-0.6B"), Template::Qwen3Reranker);
        assert_eq!(Template::of_model("bge-reranker-v2-gemma-Q4_K_M"), Template::BgeGemma);
        assert_eq!(Template::of_model("gpt-4o-mini"), Template::Rating);
        let Prompt::Raw(text) = Template::Qwen3Reranker.ask("q", "d").prompt else { panic!() };
        assert!(text.ends_with(
            "<Query>: q\n<Document>: d<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
        ));
    }

    #[test]
    fn questions_about_one_query_begin_alike() {
        for template in [Template::Rating, Template::YesNo, Template::Qwen3Reranker] {
            let text =
                |passage| template.ask("THE QUERY", passage).prompt.texts().collect::<String>();
            let (a, b) = (text("one"), text("other"));
            let common = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
            assert!(a[..common].contains("THE QUERY"), "{}", template.name());
        }
    }
}
