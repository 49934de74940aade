//! What calls cost, and a budget that is not gone beyond: [`Prices`], [`Budget`], [`Meter`].
//!
//! Prices are the user's, in a file of TOML; none come with the program, because they change:
//!
//! ```toml
//! ["gpt-4.1-mini@openai"]      # USD for a million tokens read, and written
//! input = 0.40
//! output = 1.60
//! ["cohere:rerank-v4.0-fast"]  # USD for a thousand searches
//! search = 2.00
//! ["voyage:rerank-2.5"]
//! input = 0.05
//! ```
//!
//! Money is counted in nanodollars (10⁻⁹ USD), so that sums are exact.
//!
//! **A budget is reserved before a call and settled after it.** What a call will take is guessed from
//! above: a token for every three bytes, all tokens that may be written, a search for every hundred
//! documents. A call that might go beyond what is left is not made. One that is refused costs nothing, as
//! vendors have it; one that broke off after something was answered costs what was told until then; one
//! that was answered, or may have been, without a word of what it took costs what was guessed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use topshelf_core::Usage;

use crate::error::{RemoteError, Result};

/// Nanodollars of a dollar.
const NANO: f64 = 1e9;

/// Bytes that are guessed to be a token, from below.
const BYTES_PER_TOKEN: usize = 3;

/// Documents of a search, at most.
const DOCUMENTS_PER_SEARCH: usize = 100;

/// What one model costs.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// USD for a million tokens that are read.
    #[serde(default)]
    pub input: f64,
    /// USD for a million tokens that are written.
    #[serde(default)]
    pub output: f64,
    /// USD for a thousand searches.
    #[serde(default)]
    pub search: f64,
}

/// What a call took, or might take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// Tokens read.
    pub input: u64,
    /// Tokens written.
    pub output: u64,
    /// Searches.
    pub searches: u64,
}

impl Amount {
    /// What was read and written where an answer broke off after so many bytes of it, from above. What
    /// was told meanwhile may be of its beginning only.
    pub(crate) fn broken_off(self, guess: Self, bytes: usize) -> Self {
        let input = if self.input > 0 { self.input } else { guess.input };
        let output = self.output.max(bytes.div_ceil(BYTES_PER_TOKEN) as u64);
        Self { input, output: output.min(guess.output), ..self }
    }

    /// What a call with so many bytes of text and documents takes at most.
    pub(crate) fn guess(bytes: usize, max_output: usize, documents: usize) -> Self {
        Self {
            input: bytes.div_ceil(BYTES_PER_TOKEN) as u64,
            output: max_output as u64,
            searches: documents.div_ceil(DOCUMENTS_PER_SEARCH) as u64,
        }
    }
}

impl Price {
    /// In nanodollars.
    pub fn of(&self, amount: Amount) -> u64 {
        let tokens = amount.input as f64 * self.input + amount.output as f64 * self.output;
        let dollars = tokens / 1e6 + amount.searches as f64 * self.search / 1e3;
        (dollars * NANO).round() as u64
    }
}

/// What models cost, by their names.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(transparent)]
pub struct Prices(BTreeMap<String, Price>);

impl Prices {
    /// Reads the file's text; the error says where it is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let prices: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        for (name, Price { input, output, search }) in &prices.0 {
            if [input, output, search].iter().any(|price| !price.is_finite() || **price < 0.0) {
                return Err(format!("a price of \"{name}\" is no number of 0 or more"));
            }
        }
        Ok(prices)
    }

    /// The price of the model of that name.
    pub fn of(&self, name: &str) -> Option<Price> {
        self.0.get(name).copied()
    }
}

/// Money that may be spent, shared by all who spend it.
#[derive(Debug)]
pub struct Budget {
    /// Nanodollars.
    allowed: u64,
    /// Nanodollars that are spent or reserved.
    taken: Mutex<u64>,
}

impl Budget {
    /// So many USD.
    pub fn of_dollars(dollars: f64) -> Self {
        Self { allowed: (dollars.max(0.0) * NANO).round() as u64, taken: Mutex::new(0) }
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, u64> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nanodollars that were spent, those of calls that are out included.
    pub fn spent(&self) -> u64 {
        *self.taken()
    }
}

/// Counts what calls to one model cost.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    /// What it costs, if that is known.
    pub price: Option<Price>,
    /// What may be spent, if there is a limit.
    pub budget: Option<Arc<Budget>>,
}

impl Meter {
    /// Makes a call that takes `guess` at most. `call` notes what it took as soon as that is told, so
    /// that it is paid for also if it fails after that. [`RemoteError::Budget`] is the answer of a call that
    /// is not made.
    pub(crate) fn run<T>(
        &self,
        guess: Amount,
        call: impl FnOnce(&mut Option<Amount>) -> Result<T>,
    ) -> Settled<T> {
        let most = self.price.map_or(0, |price| price.of(guess));
        if let Some(budget) = &self.budget {
            let mut taken = budget.taken();
            if *taken + most > budget.allowed {
                let dollars = |nano: u64| nano as f64 / NANO;
                let error = RemoteError::Budget {
                    allowed: dollars(budget.allowed),
                    spent: dollars(*taken),
                    next: dollars(most),
                };
                return Settled { answer: Err(error), told: None, cost: None };
            }
            *taken += most;
        }
        let mut told = None;
        let answer = call(&mut told);
        let is_free = told.is_none() && answer.as_ref().is_err_and(|error| !error.is_after_work());
        let price = self.price.filter(|_| !is_free);
        let cost = price.map(|price| price.of(told.unwrap_or(guess)));
        if let Some(budget) = &self.budget {
            let mut taken = budget.taken();
            *taken = *taken - most + cost.unwrap_or(0);
        }
        Settled { answer, told, cost }
    }
}

/// A call that was made and paid.
#[derive(Debug)]
pub(crate) struct Settled<T> {
    pub(crate) answer: Result<T>,
    /// What it took, where that was told.
    told: Option<Amount>,
    /// What it cost, in nanodollars; `None` where no price is known, or nothing was to pay.
    pub(crate) cost: Option<u64>,
}

impl<T> Settled<T> {
    /// As it is counted.
    pub(crate) fn usage(&self) -> Usage {
        let Amount { input, output, searches } = self.told.unwrap_or_default();
        Usage {
            calls: u64::from(self.answer.is_ok() || self.told.is_some()),
            input_tokens: input,
            output_tokens: output,
            searches,
            cost: self.cost,
            ..Usage::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICE: Price = Price { input: 1.0, output: 10.0, search: 2.0 };

    fn amount(input: u64, output: u64, searches: u64) -> Amount {
        Amount { input, output, searches }
    }

    #[test]
    fn prices_are_read_and_multiplied() {
        let prices = Prices::parse("[\"m@openai\"]\ninput = 0.4\noutput = 1.6\n").unwrap();
        assert_eq!(prices.of("m@openai").unwrap().of(amount(1_000_000, 500_000, 0)), 1_200_000_000);
        assert_eq!(prices.of("other"), None);
        assert_eq!(PRICE.of(amount(0, 0, 3)), 6_000_000);
        for text in ["[m]\ninput = -1.0", "[m]\nprompt = 1.0", "[m]\ninput = nan", "[m"] {
            assert!(Prices::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_budget_stops_before_it_is_passed() {
        let budget = Arc::new(Budget::of_dollars(0.01));
        let meter = Meter { price: Some(PRICE), budget: Some(Arc::clone(&budget)) };
        let guess = amount(1000, 300, 0); // 0.004
        let call = |took: Option<Amount>| {
            meter.run(guess, |told| {
                *told = took;
                Ok(())
            })
        };
        assert_eq!(call(Some(amount(900, 100, 0))).cost, Some(1_900_000));
        assert_eq!(call(None).cost, Some(4_000_000), "what was guessed, where nothing is told");
        let gone = meter.run(guess, |_| Err::<(), _>(RemoteError::Gone));
        assert!(matches!(gone.answer, Err(RemoteError::Gone)) && gone.usage().is_none());
        assert_eq!(budget.spent(), 5_900_000, "a call that is not answered costs nothing");
        call(Some(amount(200, 0, 0))).answer.unwrap();
        let mut made = false;
        let refused = meter.run(guess, |_| {
            made = true;
            Ok(())
        });
        assert!(matches!(refused.answer, Err(RemoteError::Budget { .. })) && !made, "{refused:?}");
        assert!(budget.spent() <= 10_000_000);
    }

    #[test]
    fn a_call_that_breaks_off_costs_what_was_answered() {
        let budget = Arc::new(Budget::of_dollars(1.0));
        let meter = Meter { price: Some(PRICE), budget: Some(Arc::clone(&budget)) };
        let guess = amount(1000, 300, 0);
        let broken = || RemoteError::Unexpected { endpoint: "e".into(), reason: "cut".into() };
        let settled = meter.run(guess, |told| {
            *told = Some(amount(0, 1, 0).broken_off(guess, 60));
            Err::<(), _>(broken())
        });
        let usage = settled.usage();
        assert_eq!((usage.calls, usage.input_tokens, usage.output_tokens), (1, 1000, 20));
        assert_eq!((usage.cost, budget.spent()), (Some(1_200_000), 1_200_000));
        // An answer that nobody can read was paid for, and nothing is known of it but the guess.
        let settled = meter.run(guess, |_| Err::<(), _>(broken()));
        assert_eq!((settled.usage().calls, settled.cost), (0, Some(4_000_000)));
        assert_eq!(amount(5, 400, 0).broken_off(guess, 9999), amount(5, 300, 0));
    }

    #[test]
    fn without_a_price_nothing_is_known_and_nothing_stops() {
        let meter = Meter::default();
        assert_eq!(meter.run(amount(1, 1, 1), |_| Ok(())).cost, None);
    }

    #[test]
    fn many_at_once_do_not_pass_it_either() {
        let budget = Arc::new(Budget::of_dollars(0.05));
        let meter = Meter { price: Some(PRICE), budget: Some(Arc::clone(&budget)) };
        let made = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let _ = meter.run(amount(1000, 100, 0), |told| {
                            made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            std::thread::sleep(std::time::Duration::from_millis(1));
                            *told = Some(amount(1000, 100, 0));
                            Ok(())
                        });
                    }
                });
            }
        });
        assert_eq!(made.into_inner(), 25);
        assert_eq!(budget.spent(), 50_000_000);
    }
}
