//! What services and language models cost, and how much may be spent.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use topshelf_remote::{Budget, Meter, Prices};

use crate::error::{EngineError, Result};

/// The file of prices in the home folder.
pub const PRICES_FILE: &str = "prices.toml";

/// Prices, and the money that all pipelines of an engine may spend together.
#[derive(Debug, Default)]
pub(crate) struct Spending {
    prices: Prices,
    budget: Option<Arc<Budget>>,
}

impl Spending {
    /// The budget of that many USD.
    pub(crate) fn budget_of(max_cost: Option<f64>) -> Option<Arc<Budget>> {
        max_cost.map(|dollars| Arc::new(Budget::of_dollars(dollars)))
    }

    /// The budget, with what was spent of it.
    pub(crate) fn budget(&self) -> Option<Arc<Budget>> {
        self.budget.clone()
    }

    /// Reads the prices of `file`, or of the one in `home` if there is one.
    pub(crate) fn open(
        file: Option<&Path>,
        home: Option<&Path>,
        budget: Option<Arc<Budget>>,
    ) -> Result<Self> {
        let own = || home.map(|home| home.join(PRICES_FILE)).filter(|path| path.is_file());
        let prices = match file.map(PathBuf::from).or_else(own) {
            None => Prices::default(),
            Some(path) => {
                let read = std::fs::read_to_string(&path).map_err(|error| error.to_string());
                let prices = read.and_then(|text| Prices::parse(&text));
                prices.map_err(|reason| EngineError::Prices { path, reason })?
            }
        };
        Ok(Self { prices, budget })
    }

    /// The meter for calls to the model of that name: as rerankers are named, without `llm:`.
    pub(crate) fn meter(&self, name: &str) -> Result<Meter> {
        let price = self.prices.of(name);
        if self.budget.is_some() && price.is_none() {
            return Err(EngineError::UnknownPrice { model: name.to_owned() });
        }
        Ok(Meter { price, budget: self.budget.clone() })
    }
}
