//! From a ranking to an LLM prompt: [`Context`].
//!
//! The best passages in their order, near-duplicates dropped, packed into a token budget, each
//! under a number that the answer can cite. What was left out is kept with the reason.
//!
//! *Near-duplicate*: the Jaccard coefficient of the sets of word 4-grams (single words for
//! shorter texts) reaches the threshold. *Packing* is greedy: a passage that does not fit any
//! more is left out and a later, shorter one may still get in; only when nothing fits at all is
//! the first passage cut, at a word boundary, and marked so.
//!
//! Tokens are counted by a function of the caller's, because only the caller knows the LLM;
//! [`estimate_tokens`] is the default.

use std::collections::HashSet;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::language_model::Message;
use crate::ranking::Ranking;

/// What the LLM is told to do with the sources.
pub const DEFAULT_SYSTEM: &str = "Answer the question from the numbered sources alone. \
Cite each source you use by its number in square brackets, like [1]. \
If the sources do not hold the answer, say so.";

/// Sources and question, as a minijinja template over `question` and `sources`; each source
/// has `number`, `document`, `title`, `trail`, `text`, `score` and `metadata`.
pub const DEFAULT_TEMPLATE: &str = "\
{% for source in sources %}[{{ source.number }}] {{ source.document }}\
{% if source.trail %} | {{ source.trail }}{% endif %}
{{ source.text }}

{% endfor %}Question: {{ question }}";

/// Bytes of a template, at most: what is nested deeper than that allows would overflow the stack.
pub const MAX_TEMPLATE: usize = 8192;

/// Instructions that writing a prompt may take: a thousand sources with all their fields are far below.
const MAX_STEPS: u64 = 2_000_000;

/// How a context is packed and written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContextOptions {
    /// Tokens that the sources may take, headers included.
    pub token_budget: usize,
    /// Jaccard coefficient from which a passage counts as a repetition; above 1 keeps all.
    pub near_duplicate: f64,
    /// The instruction; [`DEFAULT_SYSTEM`] if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The template for sources and question; [`DEFAULT_TEMPLATE`] if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
}

impl Default for ContextOptions {
    fn default() -> Self {
        Self { token_budget: 3000, near_duplicate: 0.8, system: None, template: None }
    }
}

impl ContextOptions {
    /// Whether its numbers mean something.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`], [`Error::Template`].
    pub fn check(&self) -> Result<()> {
        let Self { token_budget, near_duplicate, template, .. } = self;
        if *token_budget == 0 {
            let (what, range) = ("the tokens of the sources", "1 or more");
            return Err(Error::OutOfRange { what, value: "0".to_owned(), range });
        }
        if near_duplicate.is_nan() || *near_duplicate < 0.0 {
            let (what, range) = ("the coefficient of near-duplicates", "0 or more");
            return Err(Error::OutOfRange { what, value: near_duplicate.to_string(), range });
        }
        template.as_deref().map_or(Ok(()), check_length)
    }
}

/// One numbered source.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Source {
    /// The number to cite, from 1.
    pub number: usize,
    /// The passage's id.
    pub passage: String,
    /// The document's id.
    pub document: String,
    /// The document's title.
    pub title: String,
    /// Title and headings above the passage.
    pub trail: String,
    /// Bytes of the document's text.
    pub range: Range<usize>,
    /// The text, cut if `cut` is set.
    pub text: String,
    /// Whether the text was cut to fit the budget.
    pub cut: bool,
    /// The score by which it stood in the ranking.
    pub score: f32,
    /// Tokens it takes, by the caller's count.
    pub tokens: usize,
    /// The document's own fields.
    pub metadata: crate::passage::Metadata,
}

/// A passage that is not among the sources.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LeftOut {
    /// The passage's id.
    pub passage: String,
    /// Why.
    #[serde(flatten)]
    pub reason: LeftOutReason,
}

/// Why a passage is not among the sources.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum LeftOutReason {
    /// It says what a source already says.
    NearDuplicate {
        /// The number of that source.
        of: usize,
    },
    /// It did not fit into what was left of the budget.
    Budget {
        /// Tokens it would have taken.
        tokens: usize,
    },
}

/// Sources for one question, ready to be written as a prompt.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Context {
    /// The question.
    pub question: String,
    /// The sources, best first.
    pub sources: Vec<Source>,
    /// Ranked passages that are not among them.
    pub left_out: Vec<LeftOut>,
    /// Tokens of all sources.
    pub tokens: usize,
    #[serde(skip)]
    system: String,
    #[serde(skip)]
    user: String,
}

/// Tokens of an English text by a rule of thumb: four bytes a token, rounded up.
///
/// ```
/// assert_eq!(topshelf_core::context::estimate_tokens("twelve bytes"), 3);
/// ```
pub fn estimate_tokens(text: &str) -> usize {
    text.len().div_ceil(4)
}

impl Context {
    /// Packs the top of a ranking.
    ///
    /// # Errors
    ///
    /// [`Error::Template`] if the template does not parse or names what there is not.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use topshelf_core::{Context, ContextOptions, Passage, Ranking, Scale, context};
    /// let flea = Arc::new(Passage::standalone("flea.md", "Fleas", "A flea lives up to a year."));
    /// let ranking = Ranking::new("bm25", Scale::Bm25, [(flea, 7.5)])?;
    /// let options = ContextOptions::default();
    /// let packed = Context::pack("How old do fleas get?", &ranking, &options, &context::estimate_tokens)?;
    /// assert!(packed.prompt().contains("[1] flea.md | Fleas\nA flea lives up to a year."));
    /// # Ok::<(), topshelf_core::Error>(())
    /// ```
    pub fn pack(
        question: &str,
        ranking: &Ranking,
        options: &ContextOptions,
        count_tokens: &dyn Fn(&str) -> usize,
    ) -> Result<Self> {
        let (sources, left_out) = choose(ranking, options, count_tokens);
        let template = options.template.as_deref().unwrap_or(DEFAULT_TEMPLATE);
        let user = render(template, question, &sources)?;
        Ok(Self {
            question: question.to_owned(),
            tokens: sources.iter().map(|source| source.tokens).sum(),
            sources,
            left_out,
            system: options.system.as_deref().unwrap_or(DEFAULT_SYSTEM).to_owned(),
            user,
        })
    }

    /// Instruction, sources and question as one text.
    pub fn prompt(&self) -> String {
        if self.system.is_empty() {
            return self.user.clone();
        }
        format!("{}\n\n{}", self.system, self.user)
    }

    /// The same as chat messages: the instruction as `system`, the rest as `user`.
    pub fn messages(&self) -> Vec<Message> {
        let mut messages = Vec::with_capacity(2);
        if !self.system.is_empty() {
            messages.push(Message::system(self.system.clone()));
        }
        messages.push(Message::user(self.user.clone()));
        messages
    }
}

/// Templates beyond [`MAX_TEMPLATE`] are rejected.
fn check_length(template: &str) -> Result<()> {
    if template.len() <= MAX_TEMPLATE {
        return Ok(());
    }
    let reason = format!("it is longer than the {MAX_TEMPLATE} bytes that are accepted");
    Err(Error::Template { reason })
}

fn render(template: &str, question: &str, sources: &[Source]) -> Result<String> {
    let fault = |error: minijinja::Error| Error::Template {
        reason: format!(
            "{error}; it may use `question` and, in a loop over `sources`, number, document, title, trail, text, score, metadata"
        ),
    };
    check_length(template)?;
    let mut environment = minijinja::Environment::empty();
    environment.set_fuel(Some(MAX_STEPS));
    environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    let template = environment.template_from_named_str("prompt", template).map_err(fault)?;
    let sources = minijinja::Value::from(minijinja::value::Serde(sources));
    template.render(minijinja::context! { question, sources }).map_err(fault)
}

fn choose(
    ranking: &Ranking,
    options: &ContextOptions,
    count_tokens: &dyn Fn(&str) -> usize,
) -> (Vec<Source>, Vec<LeftOut>) {
    let mut sources: Vec<Source> = Vec::new();
    let mut shingles: Vec<HashSet<u64>> = Vec::new();
    let mut left_out = Vec::new();
    let mut left = options.token_budget;
    for hit in ranking.hits() {
        let passage = &hit.passage;
        let own = word_grams(&passage.text);
        let repeated =
            shingles.iter().position(|other| jaccard(&own, other) >= options.near_duplicate);
        if let Some(earlier) = repeated {
            let reason = LeftOutReason::NearDuplicate { of: earlier + 1 };
            left_out.push(LeftOut { passage: passage.id.clone(), reason });
            continue;
        }
        let trail = passage.trail();
        let header =
            count_tokens(&format!("[{}] {} | {trail}\n", sources.len() + 1, passage.document));
        let tokens = header + count_tokens(&passage.text);
        if tokens > left {
            let reason = LeftOutReason::Budget { tokens };
            left_out.push(LeftOut { passage: passage.id.clone(), reason });
            continue;
        }
        left -= tokens;
        shingles.push(own);
        sources.push(Source {
            number: sources.len() + 1,
            passage: passage.id.clone(),
            document: passage.document.clone(),
            title: passage.title.clone(),
            trail,
            range: passage.range.clone(),
            text: passage.text.clone(),
            cut: false,
            score: hit.score,
            tokens,
            metadata: passage.metadata.clone(),
        });
    }
    if let (true, Some(first)) = (sources.is_empty(), ranking.hits().first()) {
        let passage = &first.passage;
        let text = cut_to(&passage.text, options.token_budget, count_tokens);
        if !text.is_empty() {
            left_out.retain(|out| out.passage != passage.id);
            sources.push(Source {
                number: 1,
                passage: passage.id.clone(),
                document: passage.document.clone(),
                title: passage.title.clone(),
                trail: passage.trail(),
                range: passage.range.start..passage.range.start + text.len(),
                text: text.to_owned(),
                cut: true,
                score: first.score,
                tokens: count_tokens(text),
                metadata: passage.metadata.clone(),
            });
        }
    }
    (sources, left_out)
}

/// The longest start of `text` that ends at a word and takes at most `budget` tokens.
fn cut_to<'a>(text: &'a str, budget: usize, count_tokens: &dyn Fn(&str) -> usize) -> &'a str {
    let ends: Vec<usize> = text
        .char_indices()
        .filter(|(_, c)| c.is_whitespace())
        .map(|(at, _)| at)
        .chain([text.len()])
        .collect();
    let fitting = ends.partition_point(|end| count_tokens(&text[..*end]) <= budget);
    if fitting == 0 { "" } else { text[..ends[fitting - 1]].trim_end() }
}

/// Hashes of all runs of four words, or of the words themselves in a text of fewer than four.
fn word_grams(text: &str) -> HashSet<u64> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    const GRAM: usize = 4;
    let lower = text.to_lowercase();
    let words: Vec<&str> =
        lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words
        .windows(GRAM.min(words.len()).max(1))
        .map(|gram| {
            let mut hasher = DefaultHasher::new();
            gram.hash(&mut hasher);
            hasher.finish()
        })
        .collect()
}

/// Shared elements by all elements; 0 if both are empty.
fn jaccard(left: &HashSet<u64>, right: &HashSet<u64>) -> f64 {
    let shared = left.intersection(right).count();
    let all = left.len() + right.len() - shared;
    if all == 0 { 0.0 } else { shared as f64 / all as f64 }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::passage::Passage;
    use crate::score::Scale;

    fn ranking(texts: &[&str]) -> Ranking {
        let found = texts.iter().enumerate().map(|(i, text)| {
            (Arc::new(Passage::standalone(format!("p{i}"), "", *text)), -(i as f32))
        });
        Ranking::new("bm25", Scale::Bm25, found).unwrap()
    }

    fn words(text: &str) -> usize {
        text.split_whitespace().count()
    }

    fn pack(texts: &[&str], token_budget: usize) -> Context {
        let options = ContextOptions { token_budget, ..ContextOptions::default() };
        Context::pack("q", &ranking(texts), &options, &words).unwrap()
    }

    #[test]
    fn a_repetition_is_left_out_and_named() {
        let text = "one two three four five six seven eight nine ten";
        let context =
            pack(&[text, "something else entirely is said here", &format!("{text}!")], 1000);
        assert_eq!(context.sources.len(), 2);
        let reason = LeftOutReason::NearDuplicate { of: 1 };
        assert_eq!(context.left_out, [LeftOut { passage: "p2".into(), reason }]);
    }

    #[test]
    fn a_later_shorter_passage_may_still_fit() {
        // The header takes three words: "[1]", the document, "|".
        let context = pack(&["a b c", "d e f g h i j k", "l m"], 12);
        let chosen: Vec<&str> = context.sources.iter().map(|s| s.passage.as_str()).collect();
        assert_eq!(chosen, ["p0", "p2"]);
        assert_eq!(context.tokens, 11);
        assert_eq!(context.left_out[0].reason, LeftOutReason::Budget { tokens: 11 });
    }

    #[test]
    fn the_first_passage_is_cut_if_nothing_fits() {
        let context = pack(&["alpha beta gamma delta"], 2);
        assert_eq!(context.sources[0].text, "alpha beta");
        assert!(context.sources[0].cut);
        assert_eq!(context.sources[0].range, 0..10);
    }

    #[test]
    fn a_wrong_template_is_refused() {
        for template in ["{{ nothing }}", "{% for x in %}", "{{ sources | frobnicate }}"] {
            let options =
                ContextOptions { template: Some(template.into()), ..ContextOptions::default() };
            let error = Context::pack("q", &ranking(&["a"]), &options, &words).unwrap_err();
            assert!(matches!(error, Error::Template { .. }), "{error}");
        }
    }

    #[test]
    fn messages_split_the_prompt() {
        let context = pack(&["alpha"], 100);
        let messages = context.messages();
        assert_eq!(messages[0].content, DEFAULT_SYSTEM);
        assert_eq!(messages[1].content, "[1] p0\nalpha\n\nQuestion: q");
        assert_eq!(context.prompt(), format!("{DEFAULT_SYSTEM}\n\n[1] p0\nalpha\n\nQuestion: q"));
    }
}
