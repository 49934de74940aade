//! What a cross-encoder and a bi-encoder share once they are in memory: [`Loaded`].

use std::sync::Arc;

use topshelf_core::ModelIdentity;

use crate::encoder::{Encoder, Output};
use crate::engine::{self, Settings};
use crate::error::{ModelError, Result};
use crate::queue::Queue;
use crate::spec::{Family, ModelFolder, ModelSpec};
use crate::tokenise::TextTokenizer;

/// A model in memory.
pub(crate) struct Loaded {
    pub(crate) spec: ModelSpec,
    pub(crate) identity: ModelIdentity,
    pub(crate) tokenizer: TextTokenizer,
    pub(crate) encoder: Arc<dyn Encoder>,
}

impl Loaded {
    /// Loads tokenizer and weights of a model of the wanted family.
    ///
    /// # Errors
    ///
    /// [`ModelError::WrongFamily`], and what [`TextTokenizer::load`] and [`engine::open`] refuse.
    pub(crate) fn open(folder: &ModelFolder, wanted: Family, settings: Settings) -> Result<Self> {
        let spec = folder.spec.clone();
        if spec.family != wanted {
            return Err(ModelError::WrongFamily {
                name: spec.name,
                found: spec.family.to_string(),
                wanted: wanted.to_string(),
            });
        }
        let tokenizer = TextTokenizer::load(folder)?.with_threads(settings.threads);
        let encoder: Arc<dyn Encoder> = engine::open(folder, settings)?.into();
        let identity = ModelIdentity {
            name: spec.name.clone(),
            fingerprint: folder.fingerprint.clone(),
            engine: encoder.engine().to_owned(),
        };
        Ok(Self { spec, identity, tokenizer, encoder })
    }

    /// The row length of an output that the model must have, `expected` if that is given.
    pub(crate) fn width(
        &self,
        folder: &ModelFolder,
        want: Output,
        expected: Option<usize>,
    ) -> Result<usize> {
        let refused = |reason: String| {
            let dir = folder.dir.clone();
            Err(ModelError::Unsupported { dir, reason })
        };
        let family = self.spec.family;
        match (self.encoder.width(want), expected) {
            (None, _) => {
                let needed = if want == Output::Logits { "logits" } else { "last hidden state" };
                refused(format!("its weights have no output of {needed}, which a {family} needs"))
            }
            (Some(width), Some(expected)) if width != expected => refused(format!(
                "its output has rows of {width}, but a row of {expected} is right for this {family}"
            )),
            (Some(width), _) => Ok(width),
        }
    }

    /// Starts the queue in front of it, for this output.
    pub(crate) fn queue(&self, want: Output) -> Result<Queue> {
        Queue::start(&self.spec.name, Arc::clone(&self.encoder), want)
    }

    /// A failure of the engine on this model.
    pub(crate) fn failed(&self, reason: String) -> ModelError {
        ModelError::Inference { name: self.spec.name.clone(), reason }
    }
}
