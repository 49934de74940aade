//! What a name stands for: [`RerankerName`], [`LanguageModelName`].
//!
//! | name | stands for |
//! | --- | --- |
//! | `cohere:rerank-v4.0-fast`, `http://host/rerank` | a service ([`Target`]) |
//! | `llm:MODEL@PLACE`, `llm-STRATEGY:MODEL@PLACE` | a language model, asked in a way of [`Strategy`] |
//! | `local` | the default reranker |
//! | anything else | a model of the store, by name or alias, or a folder |

use topshelf_core::DEFAULT_RERANKER;
use topshelf_core::setup::NO_RERANKER;
use topshelf_llm::Strategy;
use topshelf_remote::{Place, Target};

use crate::error::{EngineError, Result};

/// The default reranker, where services are named.
pub const LOCAL: &str = "local";

/// What the name of a reranker stands for.
#[derive(Debug, Clone, PartialEq)]
pub enum RerankerName<'a> {
    /// A language model.
    LanguageModel(Strategy, LanguageModelName<'a>),
    /// A service.
    Service(Target),
    /// A model of the store or a folder.
    Model(&'a str),
}

impl<'a> RerankerName<'a> {
    /// Reads a name.
    ///
    /// # Errors
    ///
    /// [`EngineError::Llm`] for an unknown strategy, [`EngineError::Remote`] for an address that is none,
    /// [`EngineError::NoneIsNoReranker`].
    pub fn parse(name: &'a str) -> Result<Self> {
        if name == NO_RERANKER {
            return Err(EngineError::NoneIsNoReranker);
        }
        if let Some((family, model)) = name.split_once(':') {
            let strategy = match family.strip_prefix("llm") {
                Some("") => Some(Strategy::default()),
                Some(rest) => rest.strip_prefix('-').map(Strategy::named).transpose()?,
                None => None,
            };
            if let Some(strategy) = strategy {
                return Ok(Self::LanguageModel(strategy, LanguageModelName::parse(model)?));
            }
        }
        Ok(match Target::parse(name) {
            Some(target) => Self::Service(target),
            None if name == LOCAL => Self::Model(DEFAULT_RERANKER),
            None => Self::Model(name),
        })
    }
}

/// What the name of a language model stands for: `MODEL@PLACE`, or one that runs in this process.
#[derive(Debug, Clone, PartialEq)]
pub struct LanguageModelName<'a> {
    /// As it was given, and as prices name it.
    pub name: &'a str,
    /// The model.
    pub model: &'a str,
    /// Where it answers; in this process if absent.
    pub place: Option<Place>,
}

impl<'a> LanguageModelName<'a> {
    /// Reads a name. What follows the last @ is the place: a model's name may hold one, an address hardly ever.
    ///
    /// # Errors
    ///
    /// [`EngineError::Remote`] for an address that is none.
    pub fn parse(name: &'a str) -> Result<Self> {
        Ok(match name.rsplit_once('@') {
            Some((model, place)) => Self { name, model, place: Some(Place::parse(place)?) },
            None => Self { name, model: name, place: None },
        })
    }
}
