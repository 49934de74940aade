//! A language model by its name: `MODEL@PLACE`, or one that runs in this process.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use topshelf::remote::{Place, RemoteModel};
use topshelf::{LanguageModel, LocalModel, Store};

use super::spending::Spending;

/// What a name says.
pub(super) struct ModelName<'a> {
    name: &'a str,
    model: &'a str,
    /// Where it answers; in this process if nothing is said.
    place: Option<Place>,
}

impl<'a> ModelName<'a> {
    /// Reads a name. What stands behind the last @ is the place: a model's name may hold one, an address
    /// hardly.
    pub(super) fn parse(name: &'a str) -> Result<Self> {
        Ok(match name.rsplit_once('@') {
            Some((model, place)) => Self { name, model, place: Some(Place::parse(place)?) },
            None => Self { name, model: name, place: None },
        })
    }

    /// Loads the model, or makes ready to ask it.
    pub(super) fn open(&self, spending: &Spending) -> Result<Arc<dyn LanguageModel>> {
        let path = Path::new(self.model);
        Ok(match &self.place {
            Some(place) => {
                let meter = spending.meter(self.name)?;
                Arc::new(RemoteModel::new(self.model, place, meter)?)
            }
            None if is_gguf(path) => {
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                Arc::new(LocalModel::open(&name, path)?)
            }
            None => {
                let folder = Store::open_default()?.find(self.model)?;
                Arc::new(LocalModel::from_folder(&folder)?)
            }
        })
    }
}

fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf"))
}
