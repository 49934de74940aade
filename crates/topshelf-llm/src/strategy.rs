//! [`Strategy`]: how a language model is asked, by name.

use std::sync::Arc;

use topshelf_core::{LanguageModel, Reranker};

use crate::boundary::{Boundary, BoundaryOptions, Comparison};
use crate::error::{LlmError, Result};
use crate::listwise::{Listwise, Ordering, WindowOptions};
use crate::pointwise::Pointwise;
use crate::template::Template;

/// The names of all strategies. Behind `rounds` may stand how many: `rounds-4`.
pub const NAMES: [&str; 9] = [
    "pointwise",
    "yes-no",
    "listwise",
    "first",
    "rounds",
    "tournament",
    "pairwise",
    "setwise",
    "rating",
];

/// Rounds unless asked otherwise. In the first, those that the stage before put first stand first, so that
/// what a model says of places speaks for that order; more rounds take it out.
const ROUNDS: usize = 1;

/// Rounds at most; each reads all passages.
const MOST_ROUNDS: usize = 16;

/// How a language model is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Strategy {
    /// About each passage, as its name says it was trained; else for a rating.
    #[default]
    Pointwise,
    /// About each passage, in this way.
    With(Template),
    /// For the order of windows of passages.
    Listwise(Ordering),
    /// For comparisons at the boundary of the top.
    Boundary(Comparison),
}

impl Strategy {
    /// The strategy of that name.
    ///
    /// # Errors
    ///
    /// [`LlmError::Strategy`] if there is none.
    pub fn named(name: &str) -> Result<Self> {
        Ok(match name {
            "pointwise" => Self::Pointwise,
            "rating" => Self::With(Template::Rating),
            "yes-no" => Self::With(Template::YesNo),
            "listwise" => Self::Listwise(Ordering::Written),
            "first" => Self::Listwise(Ordering::FirstToken),
            "rounds" => Self::Listwise(Ordering::Rounds(ROUNDS)),
            "tournament" => Self::Listwise(Ordering::Tournament),
            "pairwise" => Self::Boundary(Comparison::Pairs),
            "setwise" => Self::Boundary(Comparison::Sets),
            _ => {
                let rounds = name.strip_prefix("rounds-").and_then(|rounds| rounds.parse().ok());
                match rounds.filter(|rounds| (1..=MOST_ROUNDS).contains(rounds)) {
                    Some(rounds) => Self::Listwise(Ordering::Rounds(rounds)),
                    None => return Err(LlmError::Strategy { name: name.to_owned() }),
                }
            }
        })
    }

    /// The reranker that asks the model in this way.
    pub fn reranker(self, model: Arc<dyn LanguageModel>) -> Arc<dyn Reranker> {
        match self {
            Self::Pointwise => {
                let template = Template::of_model(&model.identity().name);
                Arc::new(Pointwise::new(model, template))
            }
            Self::With(template) => Arc::new(Pointwise::new(model, template)),
            Self::Listwise(ordering) => {
                let options = match ordering {
                    Ordering::Rounds(_) => WindowOptions::of_groups(),
                    Ordering::Written | Ordering::FirstToken | Ordering::Tournament => {
                        WindowOptions::default()
                    }
                };
                Arc::new(Listwise::new(model, ordering, options))
            }
            Self::Boundary(comparison) => {
                Arc::new(Boundary::new(model, comparison, BoundaryOptions::default()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_strategy() {
        for name in NAMES {
            Strategy::named(name).unwrap();
        }
        let four = Strategy::named("rounds-4").unwrap();
        assert_eq!(four, Strategy::Listwise(Ordering::Rounds(4)));
        for name in ["bubble", "rounds-0", "rounds-99", "rounds-"] {
            let error = Strategy::named(name).unwrap_err().to_string();
            assert!(error.contains(&format!("{name:?}")) && error.contains("setwise"), "{error}");
        }
    }
}
