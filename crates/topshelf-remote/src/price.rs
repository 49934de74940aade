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
//! documents. A call that might go beyond what is left is not made. One that fails costs nothing, as
//! vendors have it; one whose price is not told afterwards costs what was guessed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;

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
    /// Makes a call that takes `guess` at most; `call` answers what it gave and what it took, where that
    /// is told. Answers what it gave and what it cost, where a price is known.
    ///
    /// # Errors
    ///
    /// [`RemoteError::Budget`] for a call that is not made, and what `call` answers.
    pub(crate) fn run<T>(
        &self,
        guess: Amount,
        call: impl FnOnce() -> Result<(T, Option<Amount>)>,
    ) -> Result<(T, Option<u64>)> {
        let most = self.price.map_or(0, |price| price.of(guess));
        if let Some(budget) = &self.budget {
            let mut taken = budget.taken();
            if *taken + most > budget.allowed {
                let dollars = |nano: u64| nano as f64 / NANO;
                return Err(RemoteError::Budget {
                    allowed: dollars(budget.allowed),
                    spent: dollars(*taken),
                    next: dollars(most),
                });
            }
            *taken += most;
        }
        let answer = call();
        let cost = match (&answer, self.price) {
            (Err(_), _) => Some(0),
            (Ok((_, told)), Some(price)) => Some(price.of(told.unwrap_or(guess))),
            (Ok(_), None) => None,
        };
        if let Some(budget) = &self.budget {
            let mut taken = budget.taken();
            *taken = *taken - most + cost.unwrap_or(0);
        }
        answer.map(|(value, _)| (value, cost))
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
        let call = |took: Option<Amount>| meter.run(guess, || Ok(((), took)));
        assert_eq!(call(Some(amount(900, 100, 0))).unwrap().1, Some(1_900_000));
        assert_eq!(
            call(None).unwrap().1,
            Some(4_000_000),
            "what was guessed, where nothing is told"
        );
        assert_eq!(
            meter.run(guess, || Err::<((), _), _>(RemoteError::Gone)).unwrap_err().to_string(),
            RemoteError::Gone.to_string()
        );
        assert_eq!(budget.spent(), 5_900_000, "a call that fails costs nothing");
        call(Some(amount(200, 0, 0))).unwrap();
        let mut made = false;
        let refused = meter.run(guess, || {
            made = true;
            Ok(((), None))
        });
        assert!(matches!(refused, Err(RemoteError::Budget { .. })) && !made, "{refused:?}");
        assert!(budget.spent() <= 10_000_000);
    }

    #[test]
    fn without_a_price_nothing_is_known_and_nothing_stops() {
        let meter = Meter::default();
        let ((), cost) = meter.run(amount(1, 1, 1), || Ok(((), None))).unwrap();
        assert_eq!(cost, None);
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
                        let _ = meter.run(amount(1000, 100, 0), || {
                            made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            std::thread::sleep(std::time::Duration::from_millis(1));
                            Ok(((), Some(amount(1000, 100, 0))))
                        });
                    }
                });
            }
        });
        assert_eq!(made.into_inner(), 25);
        assert_eq!(budget.spent(), 50_000_000);
    }
}
