//! [`Engine`]: what pipelines share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use topshelf_cache::ScoreCache;
use topshelf_models::Store;

use crate::error::Result;
use crate::models::Models;
use crate::scores;
use crate::serving::ServedModels;
use crate::spending::Spending;
use crate::stages::Stages;

/// Where an engine finds things, and what it may spend.
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// The folder of models, scores and prices; `$TOPSHELF_HOME` or the platform's if absent.
    pub home: Option<PathBuf>,
    /// Whether scores of earlier calls are used.
    pub score_cache: ScoreCacheUse,
    /// The file of prices; `prices.toml` of the home folder, where it is, if absent.
    pub prices: Option<PathBuf>,
    /// USD that all pipelines together may spend; without limit if absent.
    pub max_cost: Option<f64>,
}

/// Whether scores of earlier calls are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ScoreCacheUse {
    /// They are, and new ones are kept.
    #[default]
    Use,
    /// Every pair is scored.
    Bypass,
}

/// Builds pipelines, and holds what they share: loaded models, kept scores, prices and the budget. Clones are
/// the same engine.
///
/// ```no_run
/// # fn main() -> Result<(), topshelf_engine::EngineError> {
/// use topshelf_core::{Query, Setup};
/// use topshelf_engine::{Engine, EngineOptions};
/// let engine = Engine::open(EngineOptions::default())?;
/// let index = engine.index("docs.index")?;
/// let pipeline = engine.pipeline(&index.now(), &Setup::default())?;
/// let answer = pipeline.run_blocking(&Query::new("How long do fleas live?")?)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    /// Of these models.
    stages: Arc<Stages>,
    /// The models that may be named; any of the store if absent.
    served: Option<Arc<ServedModels>>,
}

/// What clones of an engine have in common.
struct Shared {
    home: Option<PathBuf>,
    cache: Option<Arc<ScoreCache>>,
    spending: Spending,
    models: Models,
    warnings: Vec<String>,
}

impl Engine {
    /// An engine that loads models of the store as they are named.
    ///
    /// # Errors
    ///
    /// [`crate::EngineError::Prices`] and [`crate::EngineError::Variable`]. A score cache that cannot be opened
    /// is a [warning](Self::warnings), since it costs time and no answer.
    pub fn open(options: EngineOptions) -> Result<Self> {
        let EngineOptions { home, score_cache, prices, max_cost } = options;
        let home = match home {
            Some(home) => Some(home),
            // Services and models in folders need no home.
            None => Store::open_default()
                .ok()
                .and_then(|store| store.root().parent().map(Path::to_owned)),
        };
        let budget = Spending::budget_of(max_cost);
        let spending = Spending::open(prices.as_deref(), home.as_deref(), budget)?;
        let mut warnings = Vec::new();
        let cache = match (score_cache, &home) {
            (ScoreCacheUse::Use, Some(home)) => open_cache(home, &mut warnings)?,
            _ => None,
        };
        let shared = Shared { home, cache, spending, models: Models::default(), warnings };
        Ok(Self::of(shared))
    }

    fn of(shared: Shared) -> Self {
        Self { shared: Arc::new(shared), stages: Arc::default(), served: None }
    }

    /// The same scores and budget, with prices read again and no model in memory: for a program that reads its
    /// models again.
    ///
    /// # Errors
    ///
    /// As [`Self::open`], for the prices.
    pub fn afresh(&self, options: &EngineOptions) -> Result<Self> {
        let (home, budget) = (self.shared.home.clone(), self.shared.spending.budget());
        Ok(Self::of(Shared {
            spending: Spending::open(options.prices.as_deref(), home.as_deref(), budget)?,
            home,
            cache: self.shared.cache.clone(),
            models: Models::default(),
            warnings: Vec::new(),
        }))
    }

    /// The same engine, of which only these models can be named.
    #[must_use]
    pub fn serving(&self, served: ServedModels) -> Self {
        let served = Some(Arc::new(served));
        Self { shared: Arc::clone(&self.shared), stages: Arc::default(), served }
    }

    /// What went wrong while it was opened without being an error.
    pub fn warnings(&self) -> &[String] {
        &self.shared.warnings
    }

    /// The store of models.
    ///
    /// # Errors
    ///
    /// [`topshelf_models::ModelError::NoHome`].
    pub fn store(&self) -> Result<Store> {
        Ok(match &self.shared.home {
            Some(home) => Store::at(home.join("models")),
            None => Store::open_default()?,
        })
    }

    pub(crate) fn cache(&self) -> Option<&Arc<ScoreCache>> {
        self.shared.cache.as_ref()
    }

    pub(crate) fn spending(&self) -> &Spending {
        &self.shared.spending
    }

    pub(crate) fn models(&self) -> &Models {
        &self.shared.models
    }

    pub(crate) fn stages(&self) -> &Stages {
        &self.stages
    }

    pub(crate) fn served(&self) -> Option<&ServedModels> {
        self.served.as_deref()
    }
}

fn open_cache(home: &Path, warnings: &mut Vec<String>) -> Result<Option<Arc<ScoreCache>>> {
    let Some(options) = scores::options(home)? else { return Ok(None) };
    let (cache, trouble) = ScoreCache::open(&options);
    if let Some(trouble) = trouble {
        warnings.push(format!("scores are not kept for the next time: {trouble}"));
    }
    if let Some(reason) = cache.stats().disk.and_then(|disk| disk.begun_anew) {
        warnings.push(format!("the score cache was damaged and starts again: {reason}"));
    }
    Ok(Some(Arc::new(cache)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::EngineError;
    use crate::serving::ServedNames;

    fn options(home: &Path) -> EngineOptions {
        EngineOptions {
            home: Some(home.to_owned()),
            score_cache: ScoreCacheUse::Bypass,
            prices: None,
            max_cost: Some(1.0),
        }
    }

    #[test]
    fn prices_are_read_again_and_the_budget_is_the_same() {
        let home = tempfile::tempdir().unwrap();
        let engine = Engine::open(options(home.path())).unwrap();
        assert!(engine.spending().meter("m").is_err());
        std::fs::write(home.path().join("prices.toml"), "[m]\ninput = 1.0\n").unwrap();
        let again = engine.afresh(&options(home.path())).unwrap();
        let budget = again.spending().meter("m").unwrap().budget.unwrap();
        assert!(Arc::ptr_eq(&budget, &engine.spending().budget().unwrap()));
    }

    #[test]
    fn a_fixed_set_of_models_stays_fixed() {
        let home = tempfile::tempdir().unwrap();
        let engine = Engine::open(options(home.path())).unwrap();
        let none = ServedModels::load(&engine, &ServedNames::default()).unwrap();
        let served = engine.serving(none);
        for name in ["minilm-l12", "/etc/passwd", "http://127.0.0.1:9/rerank", "llm:m@openai"] {
            let refused = served.reranker(name).err().unwrap();
            assert!(matches!(refused, EngineError::NotServed { .. }), "{refused}");
        }
        // Also what an index asks for that has changed since it was opened.
        let refused = served.bi_encoder("bge-small").err().unwrap();
        assert!(matches!(refused, EngineError::NotLoaded { .. }), "{refused}");
        let refused = served.late_interaction("colbert").err().unwrap();
        assert!(matches!(refused, EngineError::NotLoaded { .. }), "{refused}");
    }
}
