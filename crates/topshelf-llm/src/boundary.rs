//! [`Boundary`]: comparisons at the boundary of the top only.
//!
//! Comparing all pairs takes n² calls. What decides whether an answer gets to see a passage is only on
//! which side of the top's boundary it lies, so only candidates near it are compared, and the others
//! stay where they are.
//!
//! * **Pairs** (Qin et al., "Large Language Models are Effective Text Rankers with Pairwise Ranking
//!   Prompting", 2023): each candidate just above the boundary against each just below, both ways
//!   around, since models favour the one that stands first. Both probabilities are added up; then those
//!   in the band are ordered by their mean, ties as they were.
//! * **Sets** (Zhuang et al., "A Setwise Approach", 2024): which of those in the band is the best; it is
//!   taken out, and the others are asked about again, until the places above the boundary are filled.
//!
//! **Budget.** What a question will take is counted before it is asked; one that would go beyond the
//! budget of tokens is not, and nothing after it. Pairs are asked in the order of their distance, the
//! nearest to the boundary first.

use std::sync::Arc;

use async_trait::async_trait;
use topshelf_core::{
    Ask, Blame, Call, Error, Grain, LanguageModel, ModelIdentity, Passage, Query, RerankOutcome,
    Reranker, Result, Scale, Usage, Written,
};

use crate::letters::{best_letter, by_letters};
use crate::listwise::scores;
use crate::{STAGE, cut};

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// Two at a time.
    Pairs,
    /// All of the band.
    Sets,
}

/// Where, and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoundaryOptions {
    /// How many make the top.
    pub top: usize,
    /// Candidates on each side of its boundary that take part: 1 to 10.
    pub reach: usize,
    /// Tokens of a passage that are read, at most.
    pub passage_tokens: usize,
    /// Tokens that all questions about a query may take, those that are written included.
    pub budget: usize,
}

impl Default for BoundaryOptions {
    /// The top ten, five on each side, 20,000 tokens.
    fn default() -> Self {
        Self { top: 10, reach: 5, passage_tokens: 300, budget: 20_000 }
    }
}

/// A language model that compares.
pub struct Boundary {
    model: Arc<dyn LanguageModel>,
    comparison: Comparison,
    options: BoundaryOptions,
    identity: ModelIdentity,
}

impl Boundary {
    /// The model, asked in this way. A reach out of its range is brought into it.
    pub fn new(
        model: Arc<dyn LanguageModel>,
        comparison: Comparison,
        options: BoundaryOptions,
    ) -> Self {
        let options = BoundaryOptions { reach: options.reach.clamp(1, 10), ..options };
        let mut identity = model.identity().clone();
        identity.fingerprint = format!("{} {comparison:?} {options:?}", identity.fingerprint);
        Self { model, comparison, options, identity }
    }

    /// What a question takes, more or less.
    fn tokens(&self, ask: &Ask) -> usize {
        ask.max_tokens + ask.prompt.texts().map(|text| self.model.count_tokens(text)).sum::<usize>()
    }

    /// The answers to all of these questions.
    async fn ask(&self, call: &Call, asks: &[Ask]) -> Result<Vec<Written>> {
        let written = self.model.write(call, asks).await?;
        if written.len() != asks.len() {
            let (stage, expected) = (STAGE.to_owned(), asks.len());
            return Err(Error::ScoreCount { stage, expected, got: written.len() });
        }
        let of = |written: std::result::Result<Written, _>| {
            written.map_err(|failure| Error::stage(STAGE, Blame::Failure, failure))
        };
        written.into_iter().map(of).collect()
    }

    /// The order of the band's texts, of which the first `above` lie above the boundary.
    async fn pairs(
        &self,
        call: &Call,
        query: &str,
        band: &[&str],
        above: usize,
    ) -> Result<Vec<usize>> {
        let mut pairs: Vec<(usize, usize)> =
            (0..above).flat_map(|a| (above..band.len()).map(move |b| (a, b))).collect();
        pairs.sort_by_key(|(a, b)| b - a);
        let mut left = self.options.budget;
        let mut asks = Vec::new();
        for (asked, &(a, b)) in pairs.iter().enumerate() {
            let both =
                [(a, b), (b, a)].map(|(a, b)| best_letter(query, [band[a], band[b]].into_iter()));
            let tokens: usize = both.iter().map(|ask| self.tokens(ask)).sum();
            if tokens > left {
                pairs.truncate(asked);
                break;
            }
            left -= tokens;
            asks.extend(both);
        }
        let written = self.ask(call, &asks).await?;
        // What each won, of how many comparisons.
        let mut won = vec![(0.0_f64, 0_usize); band.len()];
        for (&(a, b), both) in pairs.iter().zip(written.chunks_exact(2)) {
            let first = (first_wins(&both[0]) + 1.0 - first_wins(&both[1])) / 2.0;
            for (place, share) in [(a, first), (b, 1.0 - first)] {
                won[place].0 += share;
                won[place].1 += 1;
            }
        }
        // One that was not compared keeps its side.
        let mean = |place: usize| match won[place] {
            (_, 0) => f64::from(u8::from(place < above)),
            (sum, count) => sum / count as f64,
        };
        let mut order: Vec<usize> = (0..band.len()).collect();
        order.sort_by(|&a, &b| mean(b).total_cmp(&mean(a)));
        Ok(order)
    }

    /// The same by asking for the best of those that are left.
    async fn sets(
        &self,
        call: &Call,
        query: &str,
        band: &[&str],
        above: usize,
    ) -> Result<Vec<usize>> {
        let mut left = self.options.budget;
        let mut rest: Vec<usize> = (0..band.len()).collect();
        let mut order = Vec::with_capacity(band.len());
        while order.len() < above && rest.len() > 1 {
            let ask = best_letter(query, rest.iter().map(|&place| band[place]));
            let tokens = self.tokens(&ask);
            if tokens > left {
                break;
            }
            left -= tokens;
            let written = self.ask(call, std::slice::from_ref(&ask)).await?;
            let best = by_letters(&written[0], rest.len());
            if best.repairs >= rest.len() {
                call.spend(Usage::of_repair()); // none of them is named
            }
            order.push(rest.remove(best.places[0]));
        }
        order.extend(rest);
        Ok(order)
    }
}

/// The probability that the first of two is the better one; a half where nothing is told of either.
fn first_wins(written: &Written) -> f64 {
    let of = |letter: &str| -> f64 {
        let same =
            |a: &&topshelf_core::Alternative| a.token.trim().trim_start_matches('[') == letter;
        let first = written.alternatives.first().into_iter().flatten();
        first.filter(same).map(|alternative| f64::from(alternative.logprob).exp()).sum()
    };
    let (a, b) = (of("A"), of("B"));
    if a + b > 0.0 {
        return a / (a + b);
    }
    match written.text.trim().trim_start_matches('[').chars().next() {
        Some('A') => 1.0,
        Some('B') => 0.0,
        _ => 0.5,
    }
}

#[async_trait]
impl Reranker for Boundary {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn scale(&self) -> Scale {
        Scale::Rank
    }

    fn grain(&self) -> Grain {
        Grain::List
    }

    fn count_tokens(&self, text: &str) -> usize {
        self.model.count_tokens(text)
    }

    async fn score(
        &self,
        call: &Call,
        query: &Query,
        passages: &[Arc<Passage>],
    ) -> Result<Vec<RerankOutcome>> {
        let BoundaryOptions { top, reach, passage_tokens, .. } = self.options;
        let (start, end) = (top.saturating_sub(reach), passages.len().min(top + reach));
        let mut places: Vec<usize> = (0..passages.len()).collect();
        let mut truncated = vec![0; passages.len()];
        if end > top {
            let texts: Vec<String> =
                passages[start..end].iter().map(|passage| passage.model_text()).collect();
            let mut band = Vec::with_capacity(texts.len());
            for (text, truncated) in texts.iter().zip(&mut truncated[start..]) {
                let (text, dropped) = cut(text, passage_tokens);
                band.push(text);
                *truncated = dropped;
            }
            let above = top - start;
            let order = match self.comparison {
                Comparison::Pairs => self.pairs(call, query.text(), &band, above).await?,
                Comparison::Sets => self.sets(call, query.text(), &band, above).await?,
            };
            for (place, from) in places[start..end].iter_mut().zip(order) {
                *place = start + from;
            }
        }
        Ok(scores(&places, &truncated))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use topshelf_core::{Alternative, PassageFailure};

    use super::*;

    /// Prefers what is worth more, and whatever stands first a little.
    struct Biased {
        identity: ModelIdentity,
        tokens: Mutex<usize>,
    }

    #[async_trait]
    impl LanguageModel for Biased {
        fn identity(&self) -> &ModelIdentity {
            &self.identity
        }

        async fn write(
            &self,
            call: &Call,
            asks: &[Ask],
        ) -> Result<Vec<std::result::Result<Written, PassageFailure>>> {
            let answer = |ask: &Ask| {
                let read: usize = ask.prompt.texts().map(|text| self.count_tokens(text)).sum();
                *self.tokens.lock().unwrap() += read + ask.max_tokens;
                let text: String = ask.prompt.texts().skip(1).collect();
                let passages = text
                    .lines()
                    .filter_map(|line| line.strip_prefix('[')?.split_once("] worth "))
                    .map(|(label, worth)| (label.to_owned(), worth.parse::<f32>().unwrap()));
                let mut scored: Vec<Alternative> = passages
                    .map(|(token, worth)| {
                        let first = if token == "A" { 1.5 } else { 0.0 };
                        Alternative { token, logprob: worth + first - 100.0 }
                    })
                    .collect();
                scored.sort_by(|a, b| b.logprob.total_cmp(&a.logprob));
                call.spend(Usage { calls: 1, ..Usage::default() });
                Ok(Written { text: scored[0].token.clone(), alternatives: vec![scored] })
            };
            Ok(asks.iter().map(answer).collect())
        }
    }

    fn run(
        comparison: Comparison,
        options: BoundaryOptions,
        worths: &[usize],
    ) -> (Vec<usize>, u64, usize) {
        let text = |text: &str| text.to_owned();
        let identity =
            ModelIdentity { name: text("m"), fingerprint: text("m"), engine: String::new() };
        let model = Arc::new(Biased { identity, tokens: Mutex::new(0) });
        let boundary = Boundary::new(Arc::clone(&model) as _, comparison, options);
        let passage = |(i, worth): (usize, &usize)| {
            Arc::new(Passage::standalone(i.to_string(), "", format!("worth {worth}")))
        };
        let passages: Vec<_> = worths.iter().enumerate().map(passage).collect();
        let query = Query::new("worth").unwrap();
        let call = Call::new();
        let outcomes = pollster::block_on(boundary.score(&call, &query, &passages)).unwrap();
        let mut scored: Vec<_> = outcomes.iter().flatten().map(|s| s.score).zip(worths).collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        let tokens = *model.tokens.lock().unwrap();
        (scored.into_iter().map(|(_, worth)| *worth).collect(), call.spent().calls, tokens)
    }

    #[test]
    fn only_the_band_is_compared_and_the_better_ones_cross_the_boundary() {
        let options = BoundaryOptions { top: 4, reach: 2, ..BoundaryOptions::default() };
        let worths = [1, 2, 9, 3, 8, 4, 50, 60];
        let (ranked, calls, _) = run(Comparison::Pairs, options, &worths);
        assert_eq!((ranked[..2].to_vec(), ranked[6..].to_vec()), (vec![1, 2], vec![50, 60]));
        assert_eq!((&ranked[2..4], calls), (&[9, 8][..], 8), "both ways around");
        let (ranked, calls, _) = run(Comparison::Sets, options, &worths);
        assert_eq!((ranked, calls), (vec![1, 2, 9, 8, 3, 4, 50, 60], 2));
    }

    #[test]
    fn nothing_is_asked_where_all_are_in_the_top_or_nothing_is_left_to_spend() {
        for comparison in [Comparison::Pairs, Comparison::Sets] {
            let (ranked, calls, _) = run(comparison, BoundaryOptions::default(), &[1, 2, 3]);
            assert_eq!((ranked, calls), (vec![1, 2, 3], 0));
            let worths: Vec<usize> = (0..20).collect();
            let none = BoundaryOptions { budget: 0, ..BoundaryOptions::default() };
            assert_eq!(run(comparison, none, &worths), (worths.clone(), 0, 0));
            for budget in [500, 1000, 3000] {
                let options = BoundaryOptions { budget, ..BoundaryOptions::default() };
                let (_, calls, tokens) = run(comparison, options, &worths);
                assert!(
                    calls > 0 && tokens <= budget,
                    "{calls} calls, {tokens} of {budget} tokens"
                );
            }
        }
    }
}
