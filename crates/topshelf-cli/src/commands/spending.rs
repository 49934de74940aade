//! What rerankers and language models that are paid by use cost, and how much may be spent.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use topshelf::Store;
use topshelf::remote::{Budget, Meter, Prices};

use crate::args::SpendingOptions;
use crate::exit::usage;

/// The file of prices in TOPSHELF_HOME.
const FILE_NAME: &str = "prices.toml";

/// Prices, and the money that one run of the program may spend.
#[derive(Debug, Default)]
pub(super) struct Spending {
    prices: Prices,
    budget: Option<Arc<Budget>>,
}

impl Spending {
    pub(super) fn of(options: &SpendingOptions) -> Result<Self> {
        let own = || Some(Store::open_default().ok()?.root().parent()?.join(FILE_NAME));
        let path = match &options.prices {
            Some(path) => Some(path.clone()),
            None => own().filter(|path: &PathBuf| path.is_file()),
        };
        let prices = match path {
            None => Prices::default(),
            Some(path) => {
                let wrong = |reason: String| {
                    usage(format!("the prices in {} cannot be used: {reason}", path.display()))
                };
                let text =
                    std::fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
                Prices::parse(&text).map_err(wrong)?
            }
        };
        let budget = options.max_cost.map(|dollars| Arc::new(Budget::of_dollars(dollars)));
        Ok(Self { prices, budget })
    }

    /// The meter for calls to the model of that name: as behind `--rerank`, without `llm:`.
    pub(super) fn meter(&self, name: &str) -> Result<Meter> {
        let price = self.prices.of(name);
        if self.budget.is_some() && price.is_none() {
            return Err(usage(format!(
                "--max-cost needs to know what \"{name}\" costs: write [\"{name}\"] with input, output or \
                 search into {FILE_NAME} in TOPSHELF_HOME, or into the file of --prices (0 if it is free)"
            )));
        }
        Ok(Meter { price, budget: self.budget.clone() })
    }
}
