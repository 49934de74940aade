//! Where models lie on this machine: [`Store`].
//!
//! A store is a folder with one folder for each pulled model:
//!
//! ```text
//! ROOT/OWNER--NAME/model.onnx       the files of the model
//! ROOT/OWNER--NAME/tokenizer.json
//! ROOT/OWNER--NAME/model.json       its spec as pulled: lengths and sums of these files
//! ROOT/.lock-OWNER--NAME            held while it is pulled
//! ROOT/.tmp-OWNER--NAME~…/          what an unfinished pull has so far
//! ```
//!
//! ROOT is `$TOPSHELF_HOME/models` if that is set, and `topshelf/models` in the platform's data
//! folder otherwise (`$XDG_DATA_HOME` or `~/.local/share`; `~/Library/Application Support` on
//! macOS; `%LOCALAPPDATA%` on Windows).
//!
//! A model's folder appears whole, by one rename. At every load the lengths of its files are
//! compared with the recorded ones, which finds a file that was cut short; [`Store::verify`]
//! compares their SHA-256, which finds any change. Pulling is in [`crate::pull`].

use std::borrow::Cow;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{MAIN_SEPARATOR, Path, PathBuf};

use crate::catalogue::Catalogue;
use crate::digest;
use crate::error::{ModelError, Result};
use crate::folder;
use crate::pull::{self, PullOptions, PullProgress};
use crate::spec::{ModelFolder, ModelSpec, SourceSpec};

/// The file in which a pulled model's spec is kept.
pub(crate) const RECORD: &str = "model.json";

/// Begins the name of the folder of an unfinished pull.
pub(crate) const UNFINISHED: &str = ".tmp-";

/// Models on this machine.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    catalogue: Cow<'static, Catalogue>,
}

/// One line of the list of models.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// The model.
    pub spec: ModelSpec,
    /// Whether it is on this machine.
    pub state: ModelState,
}

/// Whether a model is on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelState {
    /// All its files are there.
    Pulled {
        /// Their length together.
        bytes: u64,
    },
    /// Nothing of it is there.
    NotPulled,
    /// Something is there that cannot be used.
    Partial {
        /// What is wrong with it.
        reason: String,
    },
}

/// A model all of whose files have been read and compared with their sums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The model.
    pub name: String,
    /// How many files.
    pub files: usize,
    /// Their length together.
    pub bytes: u64,
}

impl Store {
    /// The store of this user.
    ///
    /// [`ModelError::NoHome`] where the environment names no home folder.
    pub fn open_default() -> Result<Self> {
        let root = match variable("TOPSHELF_HOME") {
            Some(home) => Some(PathBuf::from(home)),
            None => data_dir().map(|dir| dir.join("topshelf")),
        };
        let root = root.ok_or(ModelError::NoHome)?.join("models");
        let root = std::path::absolute(&root).map_err(|source| ModelError::Io {
            what: "cannot find",
            path: root,
            source,
        })?;
        Ok(Self::at(root))
    }

    /// The store in that folder, which is created by the first pull.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), catalogue: Cow::Borrowed(Catalogue::builtin()) }
    }

    /// The same store with other known models.
    #[must_use]
    pub fn with_catalogue(mut self, catalogue: Catalogue) -> Self {
        self.catalogue = Cow::Owned(catalogue);
        self
    }

    /// The folder of the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The models that are known by name.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// The known models, then the others that have been pulled, by name.
    ///
    /// ```
    /// # fn main() -> topshelf_models::Result<()> {
    /// use topshelf_models::{Store, store::ModelState};
    ///
    /// let store = Store::at("an/empty/folder");
    /// for listed in store.list()? {
    ///     assert_eq!(listed.state, ModelState::NotPulled);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn list(&self) -> Result<Vec<Listed>> {
        let mut listed: Vec<Listed> = self
            .catalogue
            .models()
            .iter()
            .map(|spec| Listed { spec: spec.clone(), state: self.state(&spec.name) })
            .collect();
        for record in self.records()? {
            if self.catalogue.find(&record.name).is_none() {
                let state = self.state(&record.name);
                listed.push(Listed { spec: record, state });
            }
        }
        Ok(listed)
    }

    /// The model with that name, ready to be loaded. In this order: an existing folder, where
    /// the name has a path separator or begins with a dot; a model of the catalogue by name or
    /// alias; a pulled repository of the hub by `owner/name`.
    ///
    /// [`ModelError::UnknownModel`], [`ModelError::NotPulled`], [`ModelError::Damaged`] where a
    /// file has the wrong length, and for a folder [`ModelError::Unsupported`]. Nothing is
    /// downloaded.
    pub fn find(&self, name: &str) -> Result<ModelFolder> {
        if let Some(dir) = as_folder(name) {
            return folder::open(dir);
        }
        if let Some(spec) = self.catalogue.find(name) {
            return self
                .load(&spec.name)?
                .ok_or_else(|| ModelError::NotPulled { name: spec.name.clone() });
        }
        if pull::is_repository(name)
            && let Some(folder) = self.load(name)?
        {
            return Ok(folder);
        }
        Err(self.unknown(name))
    }

    /// Pulls a model into the store, unless it is there; see [`crate::pull`].
    pub fn pull(
        &self,
        name: &str,
        options: &PullOptions,
        progress: &dyn PullProgress,
    ) -> Result<ModelFolder> {
        let mut folders = self.pull_all(&[name], options, progress)?;
        Ok(folders.remove(0))
    }

    /// Pulls several models, answering their folders in the same order. What lies in one wheel
    /// is downloaded once.
    pub fn pull_all(
        &self,
        names: &[&str],
        options: &PullOptions,
        progress: &dyn PullProgress,
    ) -> Result<Vec<ModelFolder>> {
        pull::pull_all(self, names, options, progress)
    }

    /// The model with that name, pulled if it is known and not there yet.
    ///
    /// A model that is there but damaged is an error and not pulled again, since its files may
    /// be the user's.
    pub fn find_or_pull(&self, name: &str, progress: &dyn PullProgress) -> Result<ModelFolder> {
        match self.find(name) {
            Err(ModelError::NotPulled { name }) => {
                self.pull(&name, &PullOptions::from_env(), progress)
            }
            other => other,
        }
    }

    /// Reads all files of a model and compares them with their recorded SHA-256.
    ///
    /// The errors of [`Store::find`]; [`ModelError::Damaged`] names the first file that differs.
    pub fn verify(&self, name: &str) -> Result<Verified> {
        let folder = self.find(name)?;
        for file in &folder.spec.files {
            let path = folder.dir.join(file.path());
            let (sha256, _) = digest::of_file(&path).map_err(|source| ModelError::Io {
                what: "cannot read",
                path: path.clone(),
                source,
            })?;
            if sha256 != file.sha256 {
                let reason = format!("its SHA-256 is {sha256} instead of {}", file.sha256);
                return Err(ModelError::Damaged { name: folder.spec.name, path, reason });
            }
        }
        let (files, bytes) = (folder.spec.files.len(), folder.spec.bytes());
        Ok(Verified { name: folder.spec.name, files, bytes })
    }

    /// [`Store::verify`] for every model that is there, with its name.
    pub fn verify_all(&self) -> Result<Vec<(String, Result<Verified>)>> {
        let there = self.list()?.into_iter().filter(|listed| listed.state != ModelState::NotPulled);
        Ok(there.map(|listed| (listed.spec.name.clone(), self.verify(&listed.spec.name))).collect())
    }

    /// The folder of a model of that full name, whether it is there or not.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.root.join(folder_name(name))
    }

    /// The model of that full name, if its folder is there.
    pub(crate) fn load(&self, name: &str) -> Result<Option<ModelFolder>> {
        let dir = self.dir(name);
        if !dir.is_dir() {
            return Ok(None);
        }
        let record = dir.join(RECORD);
        let damaged = |path: &Path, reason: String| ModelError::Damaged {
            name: name.to_owned(),
            path: path.to_owned(),
            reason,
        };
        let text = fs::read_to_string(&record)
            .map_err(|error| damaged(&record, format!("it cannot be read ({error})")))?;
        let pulled: ModelSpec = serde_json::from_str(&text)
            .map_err(|error| damaged(&record, format!("it is not a model's record ({error})")))?;
        let spec = self.current(pulled).map_err(|reason| damaged(&record, reason))?;
        for file in &spec.files {
            let path = dir.join(file.path());
            let length = match fs::metadata(&path) {
                Ok(metadata) => metadata.len(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(damaged(&path, "it is missing".into()));
                }
                Err(source) => return Err(ModelError::Io { what: "cannot read", path, source }),
            };
            if length != file.bytes {
                let reason = format!("it has {length} bytes instead of {}", file.bytes);
                return Err(damaged(&path, reason));
            }
        }
        let fingerprint = digest::fingerprint(&spec);
        Ok(Some(ModelFolder { spec, dir, fingerprint }))
    }

    /// What is known of a pulled model today: the catalogue's settings, and the files and the
    /// source as they were pulled. The error is why the record no longer fits the catalogue.
    fn current(&self, pulled: ModelSpec) -> Result<ModelSpec, String> {
        let Some(known) = self.catalogue.find(&pulled.name) else {
            return Ok(pulled);
        };
        let pinned = matches!(pulled.sources.first(), Some(SourceSpec::Pip(_)));
        if pinned && pulled.files != known.files {
            return Err("other files of this model are in the catalogue by now".into());
        }
        Ok(ModelSpec { files: pulled.files, sources: pulled.sources, ..known.clone() })
    }

    fn state(&self, name: &str) -> ModelState {
        match self.load(name) {
            Ok(Some(folder)) => ModelState::Pulled { bytes: folder.spec.bytes() },
            Ok(None) if self.unfinished(name).next().is_some() => {
                ModelState::Partial { reason: "a pull is under way or was interrupted".into() }
            }
            Ok(None) => ModelState::NotPulled,
            Err(error) => ModelState::Partial { reason: error.to_string() },
        }
    }

    /// The folders that unfinished pulls of that model have left or are filling.
    pub(crate) fn unfinished(&self, name: &str) -> impl Iterator<Item = PathBuf> + use<> {
        let prefix = unfinished_prefix(name);
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        entries
            .filter(move |entry| {
                entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix))
            })
            .map(|entry| entry.path())
    }

    /// The records of all models that are there, by name; folders without a readable one are
    /// not the store's.
    fn records(&self) -> Result<Vec<ModelSpec>> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => {
                return Err(ModelError::Io {
                    what: "cannot read",
                    path: self.root.clone(),
                    source,
                });
            }
        };
        let mut records: Vec<ModelSpec> = entries
            .flatten()
            .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
            .filter_map(|entry| fs::read_to_string(entry.path().join(RECORD)).ok())
            .filter_map(|text| serde_json::from_str(&text).ok())
            .collect();
        records.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(records)
    }

    /// The error for a name that means no model, with what might have been meant.
    pub(crate) fn unknown(&self, name: &str) -> ModelError {
        let hint = if let Some(near) = self.catalogue.nearest(name) {
            format!(" (did you mean \"{near}\"?)")
        } else if pull::is_repository(name) {
            "; if it is a repository of the Hugging Face hub, it has to be pulled first".into()
        } else if looks_like_path(name) {
            "; there is no folder of that name".into()
        } else {
            String::new()
        };
        ModelError::UnknownModel { name: name.to_owned(), hint }
    }
}

/// `owner/name` as the name of one folder. The hub allows no `--` inside a name.
pub(crate) fn folder_name(name: &str) -> String {
    name.replace('/', "--")
}

/// How the names of the folders of unfinished pulls of that model begin. No model's name has a
/// tilde, so the models `a` and `a-b` are told apart.
pub(crate) fn unfinished_prefix(name: &str) -> String {
    format!("{UNFINISHED}{}~", folder_name(name))
}

/// The existing folder that a name stands for, if it is written as a path.
pub(crate) fn as_folder(name: &str) -> Option<&Path> {
    let path = Path::new(name);
    (looks_like_path(name) && path.is_dir()).then_some(path)
}

fn looks_like_path(name: &str) -> bool {
    name.starts_with('.') || name.contains(['/', MAIN_SEPARATOR])
}

/// An environment variable that is set to something.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// The folder in which this platform keeps a user's data.
fn data_dir() -> Option<PathBuf> {
    if cfg!(target_os = "windows") {
        return variable("LOCALAPPDATA").map(PathBuf::from);
    }
    if cfg!(target_os = "macos") {
        return env::home_dir().map(|home| home.join("Library/Application Support"));
    }
    // The XDG base directory specification: a relative path is to be ignored.
    let xdg = variable("XDG_DATA_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    xdg.or_else(|| env::home_dir().map(|home| home.join(".local/share")))
}
