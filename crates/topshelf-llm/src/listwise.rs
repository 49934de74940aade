//! [`Listwise`]: a language model that orders many passages at once.
//!
//! | [`Ordering`] | asks | source |
//! | --- | --- | --- |
//! | `Written` | for the whole order of a window; windows slide from the last candidates to the first, so that a good one is carried up | Sun et al., "Is ChatGPT Good at Search?" (RankGPT), 2023 |
//! | `FirstToken` | for the best one's letter; the order is that of the letters' probabilities in the first token | Reddy et al., "FIRST", 2024 |
//! | `Rounds` | for the best one's letter in small groups, dealt anew each round; what each passage is worth over all of them is fitted | `readings.rs` |
//! | `Tournament` | for the order of groups; each one's better half goes on until one group is left | after Chen et al., "TourRank", 2024 |
//!
//! A window that slides over n candidates by half of its size w takes about 2n/w calls, one after the
//! other; the rounds of a tournament take n/w, n/2w, … calls, those of a round at once. Rounds of groups
//! of g read all n passages each, in n/g calls, all rounds at once.

use std::fmt::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use topshelf_core::{
    Ask, Blame, Call, Error, Grain, LanguageModel, Message, ModelIdentity, Passage, Prompt, Query,
    RerankOutcome, RerankScore, Reranker, Result, Scale, Usage, Wanted, Written,
};

use crate::letters::{LETTERS, best_letter, by_letters, letter_logs};
use crate::permutation::{self, Order};
use crate::readings::{Reading, deal, worths};
use crate::{STAGE, cut};

/// How the order of a window is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ordering {
    /// The model writes it; windows slide.
    Written,
    /// By the probabilities of the first token; windows slide.
    FirstToken,
    /// By the probabilities of the first token in groups, each passage in so many of them.
    Rounds(usize),
    /// The model writes it; the better half of each group goes on.
    Tournament,
}

/// How much is ordered at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowOptions {
    /// Passages in a window or group: 2 to 26.
    pub size: usize,
    /// How far a window slides: 1 to its size.
    pub step: usize,
    /// Tokens of a passage that are read, at most.
    pub passage_tokens: usize,
}

impl Default for WindowOptions {
    /// RankGPT's 20 and 10, and 300 words of each.
    fn default() -> Self {
        Self { size: 20, step: 10, passage_tokens: 300 }
    }
}

impl WindowOptions {
    /// Groups of five, as small models can tell apart.
    pub fn of_groups() -> Self {
        Self { size: 5, step: 5, ..Self::default() }
    }
}

/// A language model that orders.
pub struct Listwise {
    model: Arc<dyn LanguageModel>,
    ordering: Ordering,
    options: WindowOptions,
    identity: ModelIdentity,
}

impl Listwise {
    /// The model, asked in this way. Sizes out of their range are brought into it.
    pub fn new(model: Arc<dyn LanguageModel>, ordering: Ordering, options: WindowOptions) -> Self {
        let size = options.size.clamp(2, LETTERS.len());
        let options = WindowOptions { size, step: options.step.clamp(1, size), ..options };
        let mut identity = model.identity().clone();
        identity.fingerprint = format!("{} {ordering:?} {options:?}", identity.fingerprint);
        Self { model, ordering, options, identity }
    }

    /// Tokens of a passage so that a window of them fits into what the model reads.
    fn passage_tokens(&self) -> usize {
        /// For instruction, query and answer.
        const REST: usize = 512;
        let fitting = |context: usize| context.saturating_sub(REST) / self.options.size;
        let most = self.model.context_tokens().map_or(usize::MAX, fitting);
        self.options.passage_tokens.min(most).max(16)
    }

    /// Asks about several groups at once.
    async fn ask(&self, asked: &Asked<'_>, groups: &[Vec<usize>]) -> Result<Vec<Written>> {
        let asks: Vec<Ask> = groups
            .iter()
            .map(|group| {
                let texts = group.iter().map(|&place| asked.texts[place]);
                match self.ordering {
                    Ordering::FirstToken | Ordering::Rounds(_) => best_letter(asked.query, texts),
                    Ordering::Written | Ordering::Tournament => whole_order(asked.query, texts),
                }
            })
            .collect();
        let written = self.model.write(asked.call, &asks).await?;
        if written.len() != asks.len() {
            let (stage, expected) = (STAGE.to_owned(), asks.len());
            return Err(Error::ScoreCount { stage, expected, got: written.len() });
        }
        // Without one window there is no order at all.
        let of = |written: std::result::Result<Written, _>| {
            written.map_err(|failure| Error::stage(STAGE, Blame::Failure, failure))
        };
        written.into_iter().map(of).collect()
    }

    /// Orders several groups at once: places within each.
    async fn order(&self, asked: &Asked<'_>, groups: &[Vec<usize>]) -> Result<Vec<Order>> {
        let written = self.ask(asked, groups).await?;
        let read = |(written, group): (Written, &Vec<usize>)| {
            let order = match self.ordering {
                Ordering::FirstToken | Ordering::Rounds(_) => by_letters(&written, group.len()),
                Ordering::Written | Ordering::Tournament => {
                    permutation::read(&written.text, group.len())
                }
            };
            if order.repairs > 0 {
                asked.call.spend(Usage::of_repair());
            }
            order
        };
        Ok(written.into_iter().zip(groups).map(read).collect())
    }

    /// All places, best first, by what each is worth over all rounds.
    async fn weigh(&self, asked: &Asked<'_>, rounds: usize) -> Result<Vec<usize>> {
        let count = asked.texts.len();
        let dealt = (0..rounds.max(1)).flat_map(|round| deal(count, self.options.size, round));
        // One alone has nothing beside which it is better.
        let groups: Vec<Vec<usize>> = dealt.filter(|group| group.len() > 1).collect();
        let written = self.ask(asked, &groups).await?;
        let mut readings = Vec::with_capacity(groups.len());
        for (written, group) in written.iter().zip(groups) {
            match letter_logs(written, group.len()) {
                Some(logs) => readings.push(Reading { group, logs }),
                // A model that names none of them has said nothing of this group.
                None => asked.call.spend(Usage::of_repair()),
            }
        }
        let worths = worths(count, &readings);
        let mut places: Vec<usize> = (0..count).collect();
        places.sort_by(|&a, &b| worths[b].total_cmp(&worths[a]));
        Ok(places)
    }

    /// All places, best first.
    async fn slide(&self, asked: &Asked<'_>) -> Result<Vec<usize>> {
        let mut places: Vec<usize> = (0..asked.texts.len()).collect();
        let mut end = places.len();
        loop {
            let start = end.saturating_sub(self.options.size);
            let group = places[start..end].to_vec();
            let order = self.order(asked, std::slice::from_ref(&group)).await?;
            for (place, from) in places[start..end].iter_mut().zip(&order[0].places) {
                *place = group[*from];
            }
            if start == 0 {
                return Ok(places);
            }
            end -= self.options.step;
        }
    }

    /// All places, best first.
    async fn compete(&self, asked: &Asked<'_>) -> Result<Vec<usize>> {
        let mut alive: Vec<usize> = (0..asked.texts.len()).collect();
        // Those of later rounds first.
        let mut out: Vec<usize> = Vec::new();
        loop {
            let count = alive.len().div_ceil(self.options.size).max(1);
            // Dealt out like cards, so that the likely ones do not meet at once.
            let groups: Vec<Vec<usize>> = (0..count)
                .map(|g| alive.iter().copied().skip(g).step_by(count).collect())
                .collect();
            let orders = self.order(asked, &groups).await?;
            let ordered: Vec<Vec<usize>> = orders
                .iter()
                .zip(&groups)
                .map(|(order, group)| order.places.iter().map(|&from| group[from]).collect())
                .collect();
            if let [all] = ordered.as_slice() {
                return Ok(all.iter().copied().chain(out).collect());
            }
            let half = |group: &Vec<usize>| group.len().div_ceil(2);
            alive =
                in_turns(&ordered.iter().map(|group| &group[..half(group)]).collect::<Vec<_>>());
            out.splice(
                0..0,
                in_turns(&ordered.iter().map(|group| &group[half(group)..]).collect::<Vec<_>>()),
            );
        }
    }
}

/// The first of each, the second of each, and so on.
fn in_turns(groups: &[&[usize]]) -> Vec<usize> {
    let longest = groups.iter().map(|group| group.len()).max().unwrap_or_default();
    (0..longest)
        .flat_map(|i| groups.iter().filter_map(move |group| group.get(i).copied()))
        .collect()
}

/// What is asked about, and on whose account.
struct Asked<'a> {
    call: &'a Call,
    query: &'a str,
    texts: Vec<&'a str>,
}

fn whole_order<'a>(query: &str, texts: impl ExactSizeIterator<Item = &'a str>) -> Ask {
    let count = texts.len();
    let mut passages = String::new();
    for (place, text) in texts.enumerate() {
        let _ = write!(passages, "[{}] {text}\n\n", place + 1);
    }
    let prompt = Prompt::Chat(vec![
        Message::system(
            "You order passages by how well they answer a search query. You answer with the numbers \
             of all passages, the most relevant first, as in [2] > [1] > [3], and nothing else.",
        ),
        Message::user(format!(
            "Query: {query}\n\n{count} passages, each after its number:\n\n{passages}\
             Query: {query}\n\nOrder all {count} passages by how relevant they are to the query, the most \
             relevant first. Each number stands in the order once."
        )),
    ]);
    // "[17] > " takes five tokens at most where digits stand alone.
    Ask { prompt, wanted: Wanted::Permutation(count), max_tokens: 16 + 7 * count }
}

#[async_trait]
impl Reranker for Listwise {
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
        if passages.is_empty() {
            return Ok(Vec::new());
        }
        let tokens = self.passage_tokens();
        let texts: Vec<String> = passages.iter().map(|passage| passage.model_text()).collect();
        let (texts, truncated): (Vec<&str>, Vec<usize>) =
            texts.iter().map(|text| cut(text, tokens)).unzip();
        let asked = Asked { call, query: query.text(), texts };
        let places = match self.ordering {
            Ordering::Tournament => self.compete(&asked).await?,
            Ordering::Rounds(rounds) => self.weigh(&asked, rounds).await?,
            Ordering::Written | Ordering::FirstToken => self.slide(&asked).await?,
        };
        Ok(scores(&places, &truncated))
    }
}

/// Scores that order so: 1 for the first, down to 1/n.
pub(crate) fn scores(places: &[usize], truncated: &[usize]) -> Vec<RerankOutcome> {
    let count = places.len();
    let mut scores = vec![0.0; count];
    for (rank, &place) in places.iter().enumerate() {
        scores[place] = (count - rank) as f32 / count as f32;
    }
    let outcome = |(score, &truncated_tokens)| {
        Ok(RerankScore { truncated_tokens, ..RerankScore::new(score) })
    };
    scores.into_iter().zip(truncated).map(outcome).collect()
}

#[cfg(test)]
mod tests {
    use topshelf_core::Alternative;

    use super::*;

    /// Knows the right order: that of the numbers in the passages, the highest first.
    struct Oracle(ModelIdentity);

    #[async_trait]
    impl LanguageModel for Oracle {
        fn identity(&self) -> &ModelIdentity {
            &self.0
        }

        async fn write(
            &self,
            call: &Call,
            asks: &[Ask],
        ) -> Result<Vec<std::result::Result<Written, topshelf_core::PassageFailure>>> {
            let answer = |ask: &Ask| {
                let text: String = ask.prompt.texts().skip(1).collect();
                let passages: Vec<(String, usize)> = text
                    .lines()
                    .filter_map(|line| line.strip_prefix('[')?.split_once("] worth "))
                    .map(|(label, worth)| (label.to_owned(), worth.parse().unwrap()))
                    .collect();
                let mut sorted = passages.clone();
                sorted.sort_by_key(|(_, worth)| std::cmp::Reverse(*worth));
                call.spend(Usage { calls: 1, ..Usage::default() });
                if matches!(ask.wanted, Wanted::Permutation(_)) {
                    let order: Vec<_> =
                        sorted.iter().map(|(label, _)| format!("[{label}]")).collect();
                    return Ok(Written { text: order.join(" > "), ..Written::default() });
                }
                let alternative = |(rank, (label, _)): (usize, &(String, usize))| Alternative {
                    token: label.clone(),
                    logprob: -(rank as f32) - 0.5,
                };
                let alternatives = vec![sorted.iter().enumerate().map(alternative).collect()];
                Ok(Written { text: sorted[0].0.clone(), alternatives })
            };
            Ok(asks.iter().map(answer).collect())
        }
    }

    fn rank(reranker: &dyn Reranker, worths: &[usize]) -> (Vec<usize>, Usage) {
        let passage = |(i, worth): (usize, &usize)| {
            Arc::new(Passage::standalone(i.to_string(), "", format!("worth {worth}")))
        };
        let passages: Vec<_> = worths.iter().enumerate().map(passage).collect();
        let query = Query::new("worth").unwrap();
        let call = Call::new();
        let outcomes = pollster::block_on(reranker.score(&call, &query, &passages)).unwrap();
        let scores = outcomes.into_iter().map(|outcome| outcome.unwrap().score);
        let mut scored: Vec<_> = scores.zip(worths).collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        (scored.into_iter().map(|(_, worth)| *worth).collect(), call.spent())
    }

    fn oracle() -> Arc<dyn LanguageModel> {
        let text = |text: &str| text.to_owned();
        Arc::new(Oracle(ModelIdentity {
            name: text("oracle"),
            fingerprint: text("oracle"),
            engine: String::new(),
        }))
    }

    #[test]
    fn the_best_come_up_from_the_very_end() {
        // The best ten lie at the end of a hundred.
        let worths: Vec<usize> = (0..100).map(|i| (i * 37) % 89 + i).collect();
        let mut best = worths.clone();
        best.sort_unstable_by(|a, b| b.cmp(a));
        for (ordering, calls) in
            [(Ordering::Written, 9), (Ordering::FirstToken, 9), (Ordering::Tournament, 11)]
        {
            let listwise = Listwise::new(oracle(), ordering, WindowOptions::default());
            let (ranked, usage) = rank(&listwise, &worths);
            assert_eq!(ranked.len(), 100);
            // A tournament may send away one of the ten that met all the others.
            let exact = if ordering == Ordering::Tournament { 5 } else { 10 };
            assert_eq!(ranked[..exact], best[..exact], "{ordering:?}");
            assert_eq!((usage.calls, usage.repaired), (calls, 0), "{ordering:?}");
        }
    }

    /// Prefers what is worth more, and by far whatever stands first.
    struct Partial(ModelIdentity);

    #[async_trait]
    impl LanguageModel for Partial {
        fn identity(&self) -> &ModelIdentity {
            &self.0
        }

        async fn write(
            &self,
            call: &Call,
            asks: &[Ask],
        ) -> Result<Vec<std::result::Result<Written, topshelf_core::PassageFailure>>> {
            let answer = |ask: &Ask| {
                let text: String = ask.prompt.texts().skip(1).collect();
                let shown = text.lines().filter_map(|line| {
                    let (label, worth) = line.strip_prefix('[')?.split_once("] worth ")?;
                    Some((label.to_owned(), worth.parse::<f32>().unwrap()))
                });
                let mut told: Vec<Alternative> = shown
                    .enumerate()
                    .map(|(place, (token, worth))| {
                        let logprob = worth / 10.0 - 4.0 * place as f32 - 20.0;
                        Alternative { token, logprob }
                    })
                    .collect();
                told.sort_by(|a, b| b.logprob.total_cmp(&a.logprob));
                call.spend(Usage { calls: 1, ..Usage::default() });
                Ok(Written { text: told[0].token.clone(), alternatives: vec![told] })
            };
            Ok(asks.iter().map(answer).collect())
        }
    }

    #[test]
    fn rounds_see_through_a_model_that_favours_what_stands_first() {
        let worths: Vec<usize> = (0..20).map(|i| (i * 7) % 20).collect();
        let partial: Arc<dyn LanguageModel> = Arc::new(Partial(oracle().identity().clone()));
        let of_groups = WindowOptions::of_groups();
        let rounds = Listwise::new(Arc::clone(&partial), Ordering::Rounds(2), of_groups);
        let (ranked, usage) = rank(&rounds, &worths);
        assert_eq!(ranked, (0..20).rev().collect::<Vec<_>>());
        assert_eq!((usage.calls, usage.repaired), (8, 0));
        assert_eq!(rank(&rounds, &worths), (ranked.clone(), usage), "the same every time");
        // One window of all in one order keeps the order that it was shown.
        let first = Listwise::new(partial, Ordering::FirstToken, WindowOptions::default());
        assert_eq!(rank(&first, &worths).0, worths);
        // One alone is not asked about, and a model without probabilities votes.
        assert_eq!(rank(&rounds, &[7]), (vec![7], Usage::default()));
        let votes = Listwise::new(Arc::new(Votes(oracle())), Ordering::Rounds(8), of_groups);
        assert_eq!(rank(&votes, &worths).0[0], 19);
    }

    /// One whose probabilities are not told.
    struct Votes(Arc<dyn LanguageModel>);

    #[async_trait]
    impl LanguageModel for Votes {
        fn identity(&self) -> &ModelIdentity {
            self.0.identity()
        }

        async fn write(
            &self,
            call: &Call,
            asks: &[Ask],
        ) -> Result<Vec<std::result::Result<Written, topshelf_core::PassageFailure>>> {
            let mut written = self.0.write(call, asks).await?;
            written.iter_mut().flatten().for_each(|written| written.alternatives.clear());
            Ok(written)
        }
    }

    #[test]
    fn few_passages_take_one_call() {
        for ordering in [Ordering::Written, Ordering::FirstToken, Ordering::Tournament] {
            let listwise = Listwise::new(oracle(), ordering, WindowOptions::default());
            let (ranked, usage) = rank(&listwise, &[3, 9, 4]);
            assert_eq!((ranked, usage.calls), (vec![9, 4, 3], 1));
            assert_eq!(rank(&listwise, &[7]).0, [7]);
        }
    }
}
