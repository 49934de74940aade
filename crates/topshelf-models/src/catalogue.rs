//! The models that Topshelf knows by name: [`Catalogue`], read from `catalogue.toml`.
//!
//! The file is part of the binary. It says for each model what it is, where its files can be
//! had, the SHA-256 of each, and golden pairs. Names and aliases are matched without regard to
//! case. What of it lies on this machine is the business of [`crate::store`].

use std::sync::OnceLock;

use serde::Deserialize;

use crate::error::{ModelError, Result};
use crate::spec::{Family, ModelSpec};

/// The catalogue that is part of the binary.
const BUILTIN: &str = include_str!("../catalogue.toml");

/// A name this far off, as a share of its length, is still taken for a slip.
const NEAR: f64 = 0.4;

/// Models by name, in the order of the file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    defaults: Defaults,
    models: Vec<ModelSpec>,
}

/// The names of the models that are used when none is named.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Defaults {
    cross_encoder: String,
    bi_encoder: String,
    #[serde(default)]
    late_interaction: Option<String>,
}

impl Catalogue {
    /// The catalogue that is part of the binary.
    ///
    /// ```
    /// use topshelf_models::{Catalogue, Family};
    ///
    /// let catalogue = Catalogue::builtin();
    /// let model = catalogue.find("MiniLM-L12").expect("an alias, in any case");
    /// assert_eq!(model.name, "cross-encoder/ms-marco-MiniLM-L12-v2");
    /// assert_eq!(model.family, Family::CrossEncoder);
    /// ```
    ///
    /// # Panics
    ///
    /// Never: a test reads the file that is part of the binary.
    pub fn builtin() -> &'static Self {
        static CATALOGUE: OnceLock<Catalogue> = OnceLock::new();
        CATALOGUE.get_or_init(|| {
            Self::parse(BUILTIN).expect("catalogue.toml is part of the binary and a test reads it")
        })
    }

    /// Reads a catalogue in the form of `catalogue.toml`.
    ///
    /// [`ModelError::Catalogue`] where it cannot be read, where two models share a name, or
    /// where a default is missing.
    pub fn parse(text: &str) -> Result<Self> {
        let catalogue: Self = toml::from_str(text)
            .map_err(|error| ModelError::Catalogue { reason: error.to_string() })?;
        catalogue.check()?;
        Ok(catalogue)
    }

    /// Every name means one model, and the defaults exist and have the family they stand for.
    fn check(&self) -> Result<()> {
        let fault = |reason: String| Err(ModelError::Catalogue { reason });
        let mut names: Vec<String> = self.names().map(|(name, _)| name.to_lowercase()).collect();
        names.sort_unstable();
        if let Some([name, _]) = names.array_windows().find(|[left, right]| left == right) {
            return fault(format!("the name \"{name}\" stands for two models"));
        }
        let late = self.defaults.late_interaction.as_ref();
        let defaults = [
            (&self.defaults.cross_encoder, Family::CrossEncoder),
            (&self.defaults.bi_encoder, Family::BiEncoder),
        ];
        for (name, family) in
            defaults.into_iter().chain(late.map(|name| (name, Family::LateInteraction)))
        {
            match self.find(name) {
                Some(spec) if spec.family == family => {}
                Some(_) => return fault(format!("the default \"{name}\" is not a {family}")),
                None => return fault(format!("the default \"{name}\" is not among the models")),
            }
        }
        Ok(())
    }

    /// All models, in the order of the file.
    pub fn models(&self) -> &[ModelSpec] {
        &self.models
    }

    /// The model with that name or alias, in any case.
    pub fn find(&self, name: &str) -> Option<&ModelSpec> {
        self.names().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, spec)| spec)
    }

    /// The model of that family that is used when none is named.
    pub fn default_for(&self, family: Family) -> Option<&ModelSpec> {
        match family {
            Family::CrossEncoder => self.find(&self.defaults.cross_encoder),
            Family::BiEncoder => self.find(&self.defaults.bi_encoder),
            Family::LateInteraction => self.find(self.defaults.late_interaction.as_ref()?),
            // One of a size that everybody wants there is not.
            Family::LanguageModel => None,
        }
    }

    /// The known name that `name` is probably a slip of.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        let wanted = name.to_lowercase();
        self.names()
            .map(|(known, _)| (edit_distance(&wanted, &known.to_lowercase()), known))
            .filter(|&(distance, known)| {
                distance as f64 <= NEAR * known.chars().count().max(wanted.chars().count()) as f64
            })
            .min_by_key(|&(distance, _)| distance)
            .map(|(_, known)| known)
    }

    /// Every name and alias with its model.
    fn names(&self) -> impl Iterator<Item = (&str, &ModelSpec)> {
        self.models.iter().flat_map(|spec| {
            std::iter::once(spec.name.as_str())
                .chain(spec.aliases.iter().map(String::as_str))
                .map(move |name| (name, spec))
        })
    }
}

/// The Levenshtein distance: the fewest characters inserted, removed or replaced that turn one
/// into the other, by the row-by-row recurrence.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{HubSource, SourceSpec};

    #[test]
    fn the_builtin_catalogue_is_sound() {
        let catalogue = Catalogue::parse(BUILTIN).expect("it can be read");
        for spec in catalogue.models() {
            assert!(spec.name.split_once('/').is_some(), "{} has an owner", spec.name);
            let wanted: &[&str] = match spec.family {
                Family::LanguageModel => &["model.gguf"],
                _ => &["model.onnx", "tokenizer.json"],
            };
            for &wanted in wanted {
                assert!(spec.files.iter().any(|file| file.name == wanted), "{}", spec.name);
            }
            for file in &spec.files {
                assert_eq!(file.sha256.len(), 64, "{}", spec.name);
                assert!(file.bytes > 0, "{}", spec.name);
            }
            assert!(!spec.golden.is_empty(), "{}: golden pairs", spec.name);
            assert_eq!(
                spec.family == Family::LateInteraction,
                spec.tokens.is_some(),
                "{}",
                spec.name
            );
            assert_eq!(spec.family == Family::BiEncoder, spec.pooling.is_some(), "{}", spec.name);
            for source in &spec.sources {
                if let SourceSpec::Hub(HubSource { paths, sha256, .. }) = source {
                    assert_eq!(paths.len(), spec.files.len(), "{}", spec.name);
                    assert!(sha256.is_empty() || sha256.len() == paths.len(), "{}", spec.name);
                }
            }
        }
    }

    #[test]
    fn names_are_found_in_any_case_and_near_names_are_guessed() {
        let catalogue = Catalogue::builtin();
        assert_eq!(catalogue.find("baai/BGE-small-EN-v1.5"), catalogue.find("bge-small"));
        assert!(catalogue.find("bge").is_none());
        assert_eq!(catalogue.nearest("bge-smal"), Some("bge-small"));
        assert_eq!(
            catalogue.nearest("cross-encoder/ms-marco-MiniLM-L-12-v2"),
            Some("cross-encoder/ms-marco-MiniLM-L12-v2")
        );
        assert_eq!(catalogue.nearest("something-else-entirely"), None);
    }

    #[test]
    fn defaults_have_the_family_they_stand_for() {
        let catalogue = Catalogue::builtin();
        for family in [Family::CrossEncoder, Family::BiEncoder, Family::LateInteraction] {
            assert_eq!(catalogue.default_for(family).map(|spec| spec.family), Some(family));
        }
    }

    #[test]
    fn faults_of_a_catalogue_are_named() {
        let twice = BUILTIN.replace("\"bge-small\"", "\"MINILM-l12\"");
        let error = Catalogue::parse(&twice).unwrap_err().to_string();
        assert!(error.contains("\"minilm-l12\" stands for two models"), "{error}");

        let default =
            BUILTIN.replace("bi-encoder = \"BAAI/bge-small-en-v1.5\"", "bi-encoder = \"x\"");
        let error = Catalogue::parse(&default).unwrap_err().to_string();
        assert!(error.contains("the default \"x\" is not among the models"), "{error}");

        let error = Catalogue::parse("models = 3").unwrap_err().to_string();
        assert!(error.contains("models"), "{error}");
    }

    #[test]
    fn edit_distance_counts_single_characters() {
        for (left, right, distance) in [
            ("", "", 0),
            ("abc", "abc", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("ä", "a", 1),
        ] {
            assert_eq!(edit_distance(left, right), distance, "{left} {right}");
            assert_eq!(edit_distance(right, left), distance, "{right} {left}");
        }
    }
}
