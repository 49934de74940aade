//! A reranker by its name, whatever its family: one word changes it.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use topshelf::llm::Strategy;
use topshelf::remote::{HostedReranker, Place, RemoteModel, Target};
use topshelf::{
    CachedReranker, CrossEncoder, Family, Grain, Index, LanguageModel, LateInteraction, LocalModel,
    Reranker, ScoreCache, Store, WindowOptions, Windowed,
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
    if let Some(named) = LlmName::parse(name)? {
        return Ok(computed(named.open()?));
    }
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
        Family::CrossEncoder | Family::BiEncoder | Family::LanguageModel => {
            computed(Arc::new(CrossEncoder::from_folder(&folder)?))
        }
    })
}

/// A language model as a reranker: `llm:MODEL@PLACE`, or `llm-STRATEGY:MODEL@PLACE`.
struct LlmName<'a> {
    strategy: Strategy,
    model: &'a str,
    /// Where it answers; in this process if nothing is said.
    place: Option<Place>,
}

fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf"))
}

impl<'a> LlmName<'a> {
    /// `None` if that is the name of something else.
    fn parse(name: &'a str) -> Result<Option<Self>> {
        let Some((family, rest)) = name.split_once(':') else { return Ok(None) };
        let strategy = match family.strip_prefix("llm") {
            Some("") => Strategy::default(),
            Some(rest) if rest.starts_with('-') => Strategy::named(&rest[1..])?,
            _ => return Ok(None),
        };
        // A model's name may hold an @, an address hardly.
        let (model, place) = match rest.rsplit_once('@') {
            Some((model, place)) => (model, Some(Place::parse(place)?)),
            None => (rest, None),
        };
        Ok(Some(Self { strategy, model, place }))
    }

    fn open(&self) -> Result<Arc<dyn Reranker>> {
        let model: Arc<dyn LanguageModel> = match &self.place {
            Some(place) => Arc::new(RemoteModel::new(self.model, place)?),
            None if is_gguf(Path::new(self.model)) => {
                let path = Path::new(self.model);
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                Arc::new(LocalModel::open(&name, path)?)
            }
            None => {
                let folder = Store::open_default()?.find(self.model)?;
                Arc::new(LocalModel::from_folder(&folder)?)
            }
        };
        Ok(self.strategy.reranker(model))
    }
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
