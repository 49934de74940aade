//! Long documents: a reranker with a small window reads the parts that matter.
//!
//! A cross-encoder reads a few hundred tokens. Of a document that is longer, the usual way is to read
//! its head and nothing else, and an answer further down is never seen. [`Windowed`] cuts such a
//! document into overlapping windows that fit, picks the most promising by a cheap score, lets the
//! reranker score those, and gives the document the best of them (or the mean of the best few). The
//! bytes of the winning window come back with the score.
//!
//! The cheap score is BM25 without length normalisation, since windows are of one length:
//!
//! ```text
//! score(w) = Σ over the query's words t  idf(t) · tf(t, w) / (tf(t, w) + 1.2)
//! idf(t)   = ln(1 + (N - df(t) + 0.5) / (df(t) + 0.5))
//! ```
//!
//! with `N` windows of all long documents of the call, `df(t)` of which hold `t`. Words are compared
//! in lower case and without a final `s`. The head is always among the chosen: it says what a
//! document is about.
//!
//! Documents that fit are passed on as they are, in the same call. What of a document lies in no
//! chosen window is reported as not read.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::call::Call;
use crate::error::{Error, Result};
use crate::passage::{Metadata, Passage, Query};
use crate::score::Scale;
use crate::stage::{Grain, ModelIdentity, RerankOutcome, RerankScore, Reranker, TokenMatch};

/// Tokens that a model puts around and between query and passage, at most.
const MARKERS: usize = 4;

/// The share of the room that a window is to fill: tokens are not spread evenly over a text.
const FILLED: f64 = 0.9;

/// The share of a window after which the next begins.
const STEP: f64 = 0.75;

/// How fast repetitions of a word saturate.
const K1: f64 = 1.2;

/// How long documents are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowOptions {
    /// Windows of a document that the reranker reads, at most; 1 or more.
    pub most: usize,
    /// Tokens of a window, at most; what fits beside the query, if that is less. 1 or more.
    pub tokens: usize,
    /// How their scores become the document's.
    pub pool: WindowPool,
}

/// How the scores of windows become the document's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowPool {
    /// The best window's.
    Max,
    /// The mean of the best so many; of all, if there are fewer.
    MeanOfBest(usize),
}

impl Default for WindowOptions {
    /// Four windows of 128 tokens, which are together what a window of the usual 512 holds, and the
    /// best of them counts (docs/decisions/0006-windows.md has the measurement).
    fn default() -> Self {
        Self { most: 4, tokens: 128, pool: WindowPool::Max }
    }
}

/// A reranker that reads long documents by their best windows; see the [module](self).
#[derive(Clone)]
pub struct Windowed {
    inner: Arc<dyn Reranker>,
    options: WindowOptions,
    /// The inner one's, with the options in the fingerprint, since they change a document's score.
    identity: ModelIdentity,
}

/// What goes to the reranker: a passage, or a window of one.
struct Piece {
    passage: Arc<Passage>,
    /// The passage's place among those asked for.
    of: usize,
    /// Where the window lies in the passage's text; `None` for the whole.
    span: Option<Range<usize>>,
}

impl Windowed {
    /// Reads long documents by windows, each document by at most `options.most`.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] for no windows, or the mean of none.
    pub fn new(inner: Arc<dyn Reranker>, options: WindowOptions) -> Result<Self> {
        let WindowOptions { most, tokens, pool } = options;
        if most == 0 || tokens == 0 || pool == WindowPool::MeanOfBest(0) {
            let (what, range) = ("a number of windows or of their tokens", "1 or more");
            return Err(Error::OutOfRange { what, value: "0".to_owned(), range });
        }
        let pool = match pool {
            WindowPool::Max => "max".to_owned(),
            WindowPool::MeanOfBest(best) => format!("mean-{best}"),
        };
        let mut identity = inner.identity().clone();
        identity.fingerprint = format!("{}+windows-{most}-{tokens}-{pool}", identity.fingerprint);
        Ok(Self { inner, options, identity })
    }

    /// The passages as pieces, and for each how many of its tokens lie in none of its pieces; `None`
    /// if all passages fit.
    fn pieces(
        &self,
        query: &Query,
        passages: &[Arc<Passage>],
        limit: usize,
    ) -> Option<(Vec<Piece>, Vec<usize>)> {
        let of_query = self.inner.count_tokens(query.text()).min(limit / 2);
        let room = limit.saturating_sub(of_query + MARKERS);
        let windows: Vec<Option<Long>> =
            passages.iter().map(|passage| self.windows(passage, room)).collect();
        if windows.iter().all(Option::is_none) {
            return None;
        }
        let texts = windows.iter().zip(passages).flat_map(|(long, passage)| {
            let spans = long.iter().flat_map(|long| &long.spans);
            spans.map(|span| &passage.text[span.clone()])
        });
        let mut scores = cheap_scores(query.text(), texts).into_iter();
        let (mut pieces, mut unread) = (Vec::new(), vec![0; passages.len()]);
        for (of, (long, passage)) in windows.into_iter().zip(passages).enumerate() {
            let Some(long) = long else {
                pieces.push(Piece { passage: Arc::clone(passage), of, span: None });
                continue;
            };
            let scores: Vec<f64> = scores.by_ref().take(long.spans.len()).collect();
            let chosen = choose(&scores, self.options.most);
            let read = covered(chosen.iter().map(|place| &long.spans[*place]));
            unread[of] = (passage.text.len() - read) * long.tokens / passage.text.len();
            for place in chosen {
                let span = long.spans[place].clone();
                let passage = Arc::new(window(passage, &span));
                pieces.push(Piece { passage, of, span: Some(span) });
            }
        }
        Some((pieces, unread))
    }

    /// The windows of a passage; `None` if it fits into the room.
    fn windows(&self, passage: &Passage, room: usize) -> Option<Long> {
        // A token is a byte at least, so most passages need not be counted.
        let above = passage.trail();
        if passage.text.len() + above.len() < room {
            return None;
        }
        let tokens = self.inner.count_tokens(&passage.text);
        let of_trail = if above.is_empty() { 0 } else { self.inner.count_tokens(&above) + 1 };
        if tokens + of_trail <= room || tokens == 0 {
            return None;
        }
        // A trail that leaves less than half is cut by the model, as it would be without windows.
        let room = room.saturating_sub(of_trail).max(room / 2).clamp(1, self.options.tokens);
        let bytes = passage.text.len() as f64 * room as f64 / tokens as f64 * FILLED;
        Some(Long { spans: cut(&passage.text, (bytes as usize).max(1)), tokens })
    }
}

/// A passage that does not fit.
struct Long {
    /// Its windows, from the first byte to the last.
    spans: Vec<Range<usize>>,
    /// Its tokens.
    tokens: usize,
}

/// The passage with nothing but these bytes of its text.
fn window(passage: &Passage, span: &Range<usize>) -> Passage {
    let start = passage.range.start + span.start;
    Passage {
        id: passage.id.clone(),
        document: passage.document.clone(),
        title: passage.title.clone(),
        headings: passage.headings.clone(),
        text: passage.text[span.clone()].to_owned(),
        range: start..start + span.len(),
        metadata: Metadata::new(),
    }
}

/// Overlapping windows of about so many bytes, between white space where there is some.
fn cut(text: &str, bytes: usize) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let mut start = 0;
    loop {
        let end = boundary(text, start + bytes, start);
        spans.push(start..end);
        if end == text.len() {
            return spans;
        }
        let next = boundary(text, start + (bytes as f64 * STEP) as usize, start);
        // Always onwards, even through a text without white space.
        start = if next > start { next } else { end };
    }
}

/// The end of the last word before `at`, or the last character boundary, behind `start`.
fn boundary(text: &str, at: usize, start: usize) -> usize {
    if at >= text.len() {
        return text.len();
    }
    let mut at = text.floor_char_boundary(at);
    if at <= start {
        at = text.ceil_char_boundary(start + 1);
    }
    let words = text[start..at].rfind(char::is_whitespace).map(|space| start + space);
    // A word longer than half of the window is cut.
    words.filter(|end| *end > start + (at - start) / 2).unwrap_or(at)
}

/// The cheap score of each window.
fn cheap_scores<'t>(query: &str, windows: impl Iterator<Item = &'t str>) -> Vec<f64> {
    let asked: HashSet<String> = words(query).collect();
    let counts: Vec<HashMap<String, usize>> = windows
        .map(|window| {
            let mut counts = HashMap::new();
            for word in words(window).filter(|word| asked.contains(word)) {
                *counts.entry(word).or_default() += 1;
            }
            counts
        })
        .collect();
    let n = counts.len() as f64;
    let weights: HashMap<&str, f64> = asked
        .iter()
        .map(|word| {
            let df = counts.iter().filter(|counts| counts.contains_key(word)).count() as f64;
            (word.as_str(), ((n - df + 0.5) / (df + 0.5)).ln_1p())
        })
        .collect();
    counts
        .iter()
        .map(|counts| {
            // In the order of the words, so that the sum is the same every time.
            let mut counts: Vec<(&String, &usize)> = counts.iter().collect();
            counts.sort();
            let gain = |(word, tf): (&String, &usize)| {
                let tf = *tf as f64;
                weights[word.as_str()] * tf / (tf + K1)
            };
            counts.into_iter().map(gain).sum()
        })
        .collect()
}

/// Words in lower case, without a final `s`.
fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(|word| {
        let word = word.to_lowercase();
        word.strip_suffix('s').filter(|stem| stem.len() > 2).map(str::to_owned).unwrap_or(word)
    })
}

/// The places of the head and of the best others, at most `most`, in the order of the text.
fn choose(scores: &[f64], most: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (1..scores.len()).collect();
    places.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    let best_is_elsewhere = most == 1 && places.first().is_some_and(|at| scores[*at] > scores[0]);
    if best_is_elsewhere {
        return vec![places[0]];
    }
    places.truncate(most.saturating_sub(1));
    places.push(0);
    places.sort_unstable();
    places
}

/// Bytes that lie in at least one of the spans, which begin in ascending order.
fn covered<'s>(spans: impl Iterator<Item = &'s Range<usize>>) -> usize {
    let (mut sum, mut to) = (0, 0);
    for span in spans {
        sum += span.end.saturating_sub(span.start.max(to));
        to = to.max(span.end);
    }
    sum
}

#[async_trait]
impl Reranker for Windowed {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn scale(&self) -> Scale {
        self.inner.scale()
    }

    fn grain(&self) -> Grain {
        self.inner.grain()
    }

    fn max_tokens(&self) -> Option<usize> {
        None
    }

    fn count_tokens(&self, text: &str) -> usize {
        self.inner.count_tokens(text)
    }

    async fn explain(
        &self,
        call: &Call,
        query: &Query,
        passage: &Arc<Passage>,
    ) -> Result<Vec<TokenMatch>> {
        self.inner.explain(call, query, passage).await
    }

    async fn score(
        &self,
        call: &Call,
        query: &Query,
        passages: &[Arc<Passage>],
    ) -> Result<Vec<RerankOutcome>> {
        let pieces = self.inner.max_tokens().and_then(|max| self.pieces(query, passages, max));
        let Some((pieces, unread)) = pieces else {
            return self.inner.score(call, query, passages).await;
        };
        let texts: Vec<Arc<Passage>> = pieces.iter().map(|p| Arc::clone(&p.passage)).collect();
        let outcomes = self.inner.score(call, query, &texts).await?;
        if outcomes.len() != pieces.len() {
            let stage = self.identity().name.clone();
            let (expected, got) = (pieces.len(), outcomes.len());
            return Err(Error::ScoreCount { stage, expected, got });
        }
        let mut of_passage: Vec<Vec<(&Piece, RerankOutcome)>> = Vec::new();
        of_passage.resize_with(passages.len(), Vec::new);
        for (piece, outcome) in pieces.iter().zip(outcomes) {
            of_passage[piece.of].push((piece, outcome));
        }
        Ok(of_passage
            .into_iter()
            .zip(unread)
            .map(|(scored, unread)| self.pooled(scored, unread))
            .collect())
    }
}

impl Windowed {
    /// The outcome of a document from those of its pieces. One that could not be scored is left out;
    /// if none could, the first says why.
    fn pooled(&self, pieces: Vec<(&Piece, RerankOutcome)>, unread: usize) -> RerankOutcome {
        let mut scored = Vec::with_capacity(pieces.len());
        let mut failure = None;
        for (piece, outcome) in pieces {
            match outcome {
                Ok(score) => scored.push((piece, score)),
                Err(reason) => failure = failure.or(Some(reason)),
            }
        }
        scored.sort_by(|a, b| b.1.score.total_cmp(&a.1.score));
        let Some((best, score)) = scored.first() else {
            return Err(failure.unwrap_or_else(|| unreachable!("every passage has a piece")));
        };
        if best.span.is_none() {
            return Ok(*score);
        }
        let counted = match self.options.pool {
            WindowPool::Max => 1,
            WindowPool::MeanOfBest(best) => best.min(scored.len()),
        };
        let sum: f64 = scored[..counted].iter().map(|(_, s)| f64::from(s.score)).sum();
        Ok(RerankScore {
            score: (sum / counted as f64) as f32,
            truncated_tokens: unread
                + scored.iter().map(|(_, s)| s.truncated_tokens).sum::<usize>(),
            query_truncated_tokens: score.query_truncated_tokens,
            cached: scored.iter().all(|(_, s)| s.cached),
            span: best.span.as_ref().map(|span| (span.start, span.end)),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stage::PassageFailure;

    /// Reads ten words, counted as tokens; scores how many of the query's words they hold.
    struct TenWords(ModelIdentity);

    impl TenWords {
        fn shared() -> Arc<dyn Reranker> {
            Arc::new(Self(ModelIdentity {
                name: "ten".into(),
                fingerprint: String::new(),
                engine: String::new(),
            }))
        }
    }

    #[async_trait]
    impl Reranker for TenWords {
        fn identity(&self) -> &ModelIdentity {
            &self.0
        }

        fn scale(&self) -> Scale {
            Scale::Logit
        }

        fn max_tokens(&self) -> Option<usize> {
            Some(10 + 1 + MARKERS)
        }

        fn count_tokens(&self, text: &str) -> usize {
            text.split_whitespace().count()
        }

        async fn score(
            &self,
            _: &Call,
            q: &Query,
            passages: &[Arc<Passage>],
        ) -> Result<Vec<RerankOutcome>> {
            let score = |passage: &Arc<Passage>| {
                let read: Vec<&str> = passage.text.split_whitespace().take(10).collect();
                if read.contains(&"broken") {
                    return Err(PassageFailure { reason: "broken".into() });
                }
                Ok(RerankScore {
                    truncated_tokens: passage.text.split_whitespace().count() - read.len(),
                    ..RerankScore::new(read.iter().filter(|word| **word == q.text()).count() as f32)
                })
            };
            Ok(passages.iter().map(score).collect())
        }
    }

    fn score(options: WindowOptions, text: &str) -> RerankOutcome {
        let windowed = Windowed::new(TenWords::shared(), options).unwrap();
        let passages = [
            Arc::new(Passage::standalone("long", "", text)),
            Arc::new(Passage::standalone("short", "", "a flea")),
        ];
        let query = Query::new("flea").unwrap();
        let outcomes = pollster::block_on(windowed.score(&Call::new(), &query, &passages)).unwrap();
        let short = outcomes[1].as_ref().unwrap();
        assert_eq!((short.score, short.span, short.truncated_tokens), (1.0, None, 0));
        outcomes.into_iter().next().unwrap()
    }

    /// A hundred words, of which the given ones are others.
    fn hundred(others: &[(usize, &str)]) -> String {
        let word = |n| others.iter().find(|(at, _)| *at == n).map_or("word", |(_, word)| word);
        (0..100).map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_stands_far_down_is_found_and_pointed_at() {
        let text = hundred(&[(60, "Fleas,"), (61, "flea")]);
        let scored = score(WindowOptions::default(), &text).unwrap();
        assert_eq!(scored.score.to_bits(), 1_f32.to_bits());
        let (start, end) = scored.span.unwrap();
        assert!(text[start..end].contains("flea"), "{}", &text[start..end]);
        // Four windows of nine words or so overlap a little.
        assert!((60..80).contains(&scored.truncated_tokens), "{}", scored.truncated_tokens);
        let head = WindowOptions { most: 1, ..WindowOptions::default() };
        assert_eq!(score(head, &hundred(&[])).unwrap().span.unwrap().0, 0);
    }

    #[test]
    fn the_mean_of_the_best_asks_for_more_than_one_place() {
        let once = hundred(&[(60, "flea")]);
        let pool = WindowPool::MeanOfBest(2);
        let scored = score(WindowOptions { pool, most: 8, tokens: 10 }, &once).unwrap();
        assert!(scored.score < 1.0 + 1e-6);
        assert!(
            Windowed::new(TenWords::shared(), WindowOptions { most: 0, tokens: 10, pool }).is_err()
        );
    }

    #[test]
    fn a_window_that_fails_does_not_take_the_document_with_it() {
        let some = hundred(&[(2, "broken"), (60, "flea")]);
        assert!(score(WindowOptions::default(), &some).is_ok());
        let all = ["broken"; 100].join(" ");
        assert_eq!(score(WindowOptions::default(), &all).unwrap_err().reason, "broken");
    }

    proptest! {
        #[test]
        fn windows_cover_the_text_and_end_between_characters(
            text in "[a-z äß日本\n]{1,400}",
            bytes in 1_usize..120,
        ) {
            let spans = cut(&text, bytes);
            prop_assert_eq!(covered(spans.iter()), text.len());
            prop_assert!(spans.windows(2).all(|w| w[0].start < w[1].start));
            for span in spans {
                prop_assert!(text.get(span.clone()).is_some());
                // A character may be longer than the window.
                prop_assert!(span.len() <= bytes.max(4), "{:?}", span);
            }
        }
    }
}
