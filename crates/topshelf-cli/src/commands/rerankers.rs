//! A reranker by its name, whatever its family: one word changes it.

use std::sync::Arc;

use anyhow::Result;
use topshelf::remote::{HostedReranker, Target};
use topshelf::{
    CachedReranker, CrossEncoder, Family, Index, LateInteraction, Reranker, ScoreCache, Store,
    WindowOptions, Windowed,
};

use crate::args::DEFAULT_RERANKER;

/// A reranker that was loaded.
pub(super) struct Loaded {
    pub(super) model: Arc<dyn Reranker>,
    /// Whether scoring a passage is so cheap that looking its score up, or reading a part of it only,
    /// saves nothing: its vectors are stored.
    is_stored: bool,
}

/// What stands for the default reranker where services are named.
const LOCAL: &str = "local";

/// Loads the reranker of that name, alias or folder, or names the service. Late interaction uses the token vectors of the
/// index, if one is given that has those of the model.
pub(super) fn open(name: &str, index: Option<&Index>) -> Result<Loaded> {
    let computed = |model: Arc<dyn Reranker>| Loaded { model, is_stored: false };
    if let Some(target) = Target::parse(name) {
        return Ok(computed(Arc::new(HostedReranker::new(target)?)));
    }
    let name = if name == LOCAL { DEFAULT_RERANKER } else { name };
    let folder = Store::open_default()?.find(name)?;
    Ok(match folder.spec.family {
        Family::LateInteraction => {
            let model = Arc::new(LateInteraction::from_folder(&folder)?);
            match index.and_then(|index| index.stored_tokens(Arc::clone(&model))) {
                Some(stored) => Loaded { model: Arc::new(stored), is_stored: true },
                None => computed(model),
            }
        }
        // One that is none says so.
        Family::CrossEncoder | Family::BiEncoder => {
            computed(Arc::new(CrossEncoder::from_folder(&folder)?))
        }
    })
}

impl Loaded {
    /// Puts cache and windows around the model, where they are of use.
    pub(super) fn behind(
        &self,
        windows: Option<WindowOptions>,
        cache: Option<&Arc<ScoreCache>>,
    ) -> Result<Arc<dyn Reranker>> {
        let model = Arc::clone(&self.model);
        if self.is_stored {
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
