//! Models from the Hugging Face hub, through `hf-hub` and the cache that all of Hugging Face's
//! tools share.
//!
//! A file that lies in the cache needs no network. Otherwise the hub is asked which commit the
//! revision stands for and which files it has, and all files are taken from that commit, into
//! the cache; the store gets a hard link, or a copy where the cache is on another disk.
//!
//! The cache names a large file's content by its SHA-256 (the hub's own sum), so that what lies
//! under such a name is checked even where the catalogue does not pin it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use super::{Failure, HubSettings, PullProgress, write_error, wrong_sum};
use crate::describe::{self, Description};
use crate::digest;
use crate::error::ModelError;
use crate::spec::{
    Family, FileSpec, HubSource, ModelSpec, SourceSpec, projection_name, weights_name,
};

const TOKENIZER: &str = "tokenizer.json";

/// The branch that is meant where none is named.
const MAIN: &str = "main";

/// The hub as seen while one model is pulled.
pub(super) struct Hub<'a> {
    name: &'a str,
    settings: &'a HubSettings,
    cache: Cache,
    api: Api,
    progress: &'a dyn PullProgress,
}

/// A repository at one commit.
struct Snapshot {
    repo: String,
    commit: String,
    /// The paths of its files, as far as they are known.
    paths: Vec<String>,
}

impl<'a> Hub<'a> {
    pub(super) fn new(
        name: &'a str,
        settings: &'a HubSettings,
        progress: &'a dyn PullProgress,
    ) -> Result<Self, Failure> {
        let Some(dir) = &settings.cache else {
            return Err(Failure::Unavailable(
                "there is no home folder for the hub's cache; set HF_HOME to a folder".into(),
            ));
        };
        let dir = std::path::absolute(dir).map_err(|source| write_error(dir, source))?;
        let cache = Cache::new(dir);
        let api = ApiBuilder::from_cache(cache.clone())
            .with_endpoint(settings.endpoint.clone())
            .with_token(settings.token.clone())
            .with_progress(false)
            .build()
            .map_err(|error| Failure::Unavailable(error.to_string()))?;
        Ok(Self { name, settings, cache, api, progress })
    }

    /// Brings the files of a catalogued model into the folder `into`. The answer is its spec
    /// with the lengths and sums of these files.
    pub(super) fn known(
        &self,
        spec: &ModelSpec,
        source: &HubSource,
        into: &Path,
    ) -> Result<ModelSpec, Failure> {
        let HubSource { repo, revision, paths, sha256 } = source;
        let snapshot = match self.cached_snapshot(repo, revision) {
            Some(snapshot) if paths.iter().all(|path| snapshot.paths.contains(path)) => snapshot,
            _ => self.snapshot(repo, revision)?,
        };
        let mut files = Vec::with_capacity(paths.len());
        for (index, (file, path)) in spec.files.iter().zip(paths).enumerate() {
            let brought = self.bring(&snapshot, path, &file.name, into)?;
            if let Some(pinned) = sha256.get(index).filter(|pinned| **pinned != brought.sha256) {
                let from = source.to_string();
                return Err(wrong_sum(self.name, &from, path, &brought.sha256, pinned).into());
            }
            files.push(brought);
        }
        let source = HubSource {
            repo: repo.clone(),
            revision: snapshot.commit,
            paths: paths.clone(),
            sha256: files.iter().map(|file| file.sha256.clone()).collect(),
        };
        Ok(ModelSpec { files, sources: vec![SourceSpec::Hub(source)], ..spec.clone() })
    }

    /// Brings the files of the repository that has the model's name into the folder `into`, and
    /// answers what its configuration files say it is.
    pub(super) fn repository(&self, into: &Path) -> Result<ModelSpec, Failure> {
        let snapshot = self.snapshot(self.name, MAIN)?;
        let refuse = |reason: String| {
            Failure::Fatal(ModelError::Pull {
                name: self.name.to_owned(),
                from: format!("{} on the Hugging Face hub", self.name),
                reason,
            })
        };
        let has = |path: &str| snapshot.paths.iter().any(|known| known == path);
        let weights = describe::WEIGHTS.into_iter().find(|path| has(path)).ok_or_else(|| {
            refuse(format!(
                "it has no ONNX export ({}); export it, as with `optimum-cli export onnx`, and \
                 use that folder",
                describe::WEIGHTS.join(", ")
            ))
        })?;
        if !has(TOKENIZER) {
            return Err(refuse(format!("it has no {TOKENIZER}")));
        }

        let mut description = Description::default();
        for name in describe::FILES.into_iter().filter(|name| has(name)) {
            let path = self.file(&snapshot, name)?;
            let text = fs::read_to_string(&path).map_err(|source| write_error(&path, source))?;
            description.add(name, &text).map_err(refuse)?;
        }
        let family = description.family().map_err(refuse)?;
        let bi_encoder = family == Family::BiEncoder;
        let pooling = if bi_encoder { Some(description.pooling().map_err(refuse)?) } else { None };

        let mut wanted = vec![(weights.to_owned(), weights_name(weights).to_owned())];
        for ending in describe::EXTERNAL_DATA {
            let path = format!("{weights}{ending}");
            if has(&path) {
                // The ONNX file refers to it by the name it has there.
                let name = path.rsplit('/').next().unwrap_or(&path).to_owned();
                wanted.push((path, name));
            }
        }
        wanted.push((TOKENIZER.to_owned(), TOKENIZER.to_owned()));
        let late = family == Family::LateInteraction;
        if late {
            let dense = description.dense().map_err(refuse)?.into_iter().enumerate();
            wanted.extend(dense.map(|(n, path)| (path, projection_name(n))));
        }
        let mut files = Vec::with_capacity(wanted.len());
        for (path, name) in &wanted {
            files.push(self.bring(&snapshot, path, name, into)?);
        }
        let source = HubSource {
            repo: snapshot.repo,
            revision: snapshot.commit,
            paths: wanted.into_iter().map(|(path, _)| path).collect(),
            sha256: files.iter().map(|file| file.sha256.clone()).collect(),
        };
        Ok(ModelSpec {
            name: self.name.to_owned(),
            aliases: Vec::new(),
            family,
            description: format!("{weights} of a repository on the Hugging Face hub."),
            licence: "NOASSERTION".into(),
            language: "the language of its training".into(),
            max_tokens: description.max_tokens().unwrap_or(describe::DEFAULT_MAX_TOKENS),
            dimension: if bi_encoder { description.dimension() } else { None },
            pooling,
            tokens: late.then(|| description.tokens()),
            query_prefix: description.query_prefix(),
            passage_prefix: description.passage_prefix(),
            config: description.config(),
            files,
            sources: vec![SourceSpec::Hub(source)],
            golden: Vec::new(),
        })
    }

    /// The repository as the hub has it now, or as the cache has it where the hub is out of
    /// reach, which is told.
    fn snapshot(&self, repo: &str, revision: &str) -> Result<Snapshot, Failure> {
        let reason = if self.settings.offline {
            "HF_HUB_OFFLINE is set".to_owned()
        } else {
            self.progress.step(&format!("asking the hub for {repo}"));
            match self.api_repo(repo, revision).info() {
                Ok(info) => {
                    let paths = info.siblings.into_iter().map(|file| file.rfilename).collect();
                    return Ok(Snapshot { repo: repo.to_owned(), commit: info.sha, paths });
                }
                Err(error) => explain(&error),
            }
        };
        match self.cached_snapshot(repo, revision) {
            Some(snapshot) => {
                self.progress.step(&format!("using the hub's cache on this machine: {reason}"));
                Ok(snapshot)
            }
            None => Err(Failure::Unavailable(format!(
                "{reason}, and the hub's cache on this machine does not have it"
            ))),
        }
    }

    /// The repository as the cache has it.
    fn cached_snapshot(&self, repo: &str, revision: &str) -> Option<Snapshot> {
        let root = self.cache.path().join(repository(repo, revision).folder_name());
        let reference = fs::read_to_string(root.join("refs").join(revision));
        let commit = reference.map_or_else(|_| revision.to_owned(), |text| text.trim().to_owned());
        let dir = root.join("snapshots").join(&commit);
        let mut paths = Vec::new();
        list_files(&dir, "", &mut paths);
        (!paths.is_empty()).then(|| Snapshot { repo: repo.to_owned(), commit, paths })
    }

    /// The path of one file of a snapshot in the cache, downloaded if it is not there.
    fn file(&self, snapshot: &Snapshot, path: &str) -> Result<PathBuf, Failure> {
        let cached = self
            .cache
            .repo(repository(&snapshot.repo, &snapshot.commit))
            .pointer_path(&snapshot.commit)
            .join(path);
        if cached.is_file() {
            return Ok(cached);
        }
        if self.settings.offline {
            return Err(Failure::Unavailable(format!(
                "HF_HUB_OFFLINE is set, and the hub's cache on this machine does not have {path}"
            )));
        }
        self.progress.step(&format!("downloading {path} of {}", snapshot.repo));
        let counter = Counter { progress: self.progress, done: 0, total: 0 };
        self.api_repo(&snapshot.repo, &snapshot.commit)
            .download_with_progress(path, counter)
            .map_err(|error| Failure::Unavailable(format!("{path}: {}", explain(&error))))
    }

    /// Puts one file of a snapshot under `name` into the folder `into`.
    fn bring(
        &self,
        snapshot: &Snapshot,
        path: &str,
        name: &str,
        into: &Path,
    ) -> Result<FileSpec, Failure> {
        let pointer = self.file(snapshot, path)?;
        // The cache points to the content by a symbolic link.
        let content = pointer.canonicalize().map_err(|source| write_error(&pointer, source))?;
        let target = into.join(name);
        let failed = |source| write_error(&target, source);
        if fs::hard_link(&content, &target).is_err() {
            fs::copy(&content, &target).map_err(failed)?;
        }
        let (sha256, bytes) = digest::of_file(&target).map_err(failed)?;
        File::open(&target).and_then(|file| file.sync_all()).map_err(failed)?;
        if let Some(stated) = stated_sum(&content).filter(|stated| *stated != sha256) {
            let from = format!("{} on the Hugging Face hub", snapshot.repo);
            // A wrong file would be found in the cache again and again.
            let cached = content.display();
            let file = format!("{path} (remove {cached} from the hub's cache)");
            return Err(wrong_sum(self.name, &from, &file, &sha256, &stated).into());
        }
        Ok(FileSpec { name: name.to_owned(), path: None, sha256, bytes, built_in: false })
    }

    fn api_repo(&self, repo: &str, revision: &str) -> ApiRepo {
        self.api.repo(repository(repo, revision))
    }
}

fn repository(repo: &str, revision: &str) -> Repo {
    Repo::with_revision(repo.to_owned(), RepoType::Model, revision.to_owned())
}

/// The SHA-256 by which the cache names a large file's content; small ones have another name.
fn stated_sum(content: &Path) -> Option<String> {
    let name = content.file_name()?.to_str()?;
    let sum = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    sum.then(|| name.to_lowercase())
}

/// The paths of all files under a folder, with `/`.
fn list_files(dir: &Path, prefix: &str, paths: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        // Follows the link from snapshot to content; one that leads nowhere is no file.
        if path.is_dir() {
            list_files(&path, &format!("{name}/"), paths);
        } else if path.is_file() {
            paths.push(name);
        }
    }
}

/// What a failure of the hub means and what to do.
fn explain(error: &ApiError) -> String {
    let text = error.to_string();
    let status = |code: &str| text.contains(&format!("status: {code}"));
    if status("401") || status("403") || status("404") {
        format!(
            "there is no such file or repository, or it is private or gated ({text}); for those, \
             accept its terms on its page and set HF_TOKEN"
        )
    } else if status("429") || status("5") {
        format!("the hub does not serve now ({text}); try again later")
    } else if matches!(error, ApiError::IoError(_) | ApiError::LockAcquisition(_)) {
        format!("writing to the hub's cache failed ({text})")
    } else {
        format!(
            "the hub could not be reached ({text}); check the network, or set a mirror in \
             HF_ENDPOINT"
        )
    }
}

/// Counts the bytes of one file.
struct Counter<'a> {
    progress: &'a dyn PullProgress,
    done: u64,
    total: u64,
}

impl hf_hub::api::Progress for Counter<'_> {
    fn init(&mut self, size: usize, _filename: &str) {
        self.done = 0;
        self.total = size as u64;
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        self.progress.bytes(self.done, self.total);
    }

    fn finish(&mut self) {
        self.progress.bytes(self.total, self.total);
    }
}
