//! A reranker by its name, whatever its family: one word changes it.

use std::sync::Arc;

use anyhow::Result;
use topshelf::llm::Strategy;
use topshelf::remote::{HostedReranker, Target};
use topshelf::{
    CachedReranker, CrossEncoder, Family, Grain, Index, LateInteraction, QueueStats, Reranker,
    ScoreCache, Store, WindowOptions, Windowed,
};

use super::language_model::ModelName;
use super::spending::Spending;
use crate::args::DEFAULT_RERANKER;

/// A reranker that was loaded.
pub(super) struct Loaded {
    pub(super) model: Arc<dyn Reranker>,
    /// What kind of reranker it is, in a word.
    pub(super) family: &'static str,
    /// What waits for it, if it runs here on the native engine's queue.
    pub(super) queue: Option<Arc<QueueStats>>,
    /// Whether scoring a passage is so cheap that looking its score up, or reading a part of it only,
    /// saves nothing: its vectors are stored.
    is_stored: bool,
}

/// What stands for the default reranker where services are named.
pub(super) const LOCAL: &str = "local";

/// Loads the reranker of that name, alias or folder, or names the service. Late interaction uses the token vectors of the
/// index, if one is given that has those of the model.
pub(super) fn open(name: &str, index: Option<&Index>, spending: &Spending) -> Result<Loaded> {
    let computed =
        |family, model: Arc<dyn Reranker>| Loaded { model, family, queue: None, is_stored: false };
    if let Some(model) = of_language_model(name, spending)? {
        return Ok(computed("language-model", model));
    }
    if let Some(target) = Target::parse(name) {
        let model = HostedReranker::new(target, spending.meter(name)?)?;
        return Ok(computed("service", Arc::new(model)));
    }
    let name = if name == LOCAL { DEFAULT_RERANKER } else { name };
    let folder = Store::open_default()?.find(name)?;
    Ok(match folder.spec.family {
        Family::LateInteraction => {
            let model = Arc::new(LateInteraction::from_folder(&folder)?);
            let (family, queue) = ("late-interaction", Some(model.queue()));
            match index.and_then(|index| index.stored_tokens(Arc::clone(&model))) {
                Some(stored) => Loaded { model: Arc::new(stored), family, queue, is_stored: true },
                None => Loaded { model, family, queue, is_stored: false },
            }
        }
        // One that is none says so.
        Family::CrossEncoder | Family::BiEncoder | Family::LanguageModel => {
            let model = CrossEncoder::from_folder(&folder)?;
            let queue = Some(model.queue());
            Loaded { model: Arc::new(model), family: "cross-encoder", queue, is_stored: false }
        }
    })
}

/// The language model of a name such as `llm:MODEL@PLACE` or `llm-STRATEGY:MODEL@PLACE` as a reranker;
/// `None` if that is the name of something else.
fn of_language_model(name: &str, spending: &Spending) -> Result<Option<Arc<dyn Reranker>>> {
    let Some((family, model)) = name.split_once(':') else { return Ok(None) };
    let strategy = match family.strip_prefix("llm") {
        Some("") => Strategy::default(),
        Some(rest) if rest.starts_with('-') => Strategy::named(&rest[1..])?,
        _ => return Ok(None),
    };
    Ok(Some(strategy.reranker(ModelName::parse(model)?.open(spending)?)))
}

impl Loaded {
    /// Puts cache and windows around the model, where they are of use.
    pub(super) fn behind(
        &self,
        windows: Option<WindowOptions>,
        cache: Option<&Arc<ScoreCache>>,
    ) -> Result<Arc<dyn Reranker>> {
        let model = Arc::clone(&self.model);
        if self.is_stored || model.grain() == Grain::List {
            return Ok(model);
        }
        // The cache stands behind the windows, and so keeps the score of each.
        let model = match cache {
            Some(cache) => Arc::new(CachedReranker::new(model, Arc::clone(cache))),
            None => model,
        };
        Ok(match windows {
            Some(windows) => Arc::new(Windowed::new(model, windows)?),
            None => model,
        })
    }
}
