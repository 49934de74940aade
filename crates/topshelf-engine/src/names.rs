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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_kind() {
        let of = |name: &'static str| RerankerName::parse(name).unwrap();
        assert_eq!(of("local"), RerankerName::Model(DEFAULT_RERANKER));
        assert_eq!(of("C:/models/mine"), RerankerName::Model("C:/models/mine"));
        assert!(matches!(of("cohere:rerank-v3.5"), RerankerName::Service(_)));
        assert!(matches!(of("http://127.0.0.1:9/rerank"), RerankerName::Service(_)));
        let RerankerName::LanguageModel(_, model) = of("llm-rounds:a@b@http://h/v1") else {
            panic!("it is a language model")
        };
        assert_eq!((model.model, model.place.is_some()), ("a@b", true));
    }

    #[test]
    fn what_is_no_reranker_is_rejected() {
        for name in ["none", "llm-bubble:m", "llm:m@nowhere"] {
            assert!(RerankerName::parse(name).is_err(), "{name}");
        }
        // A name that only begins like one is a model's.
        assert_eq!(RerankerName::parse("llmx:m").unwrap(), RerankerName::Model("llmx:m"));
    }
}
