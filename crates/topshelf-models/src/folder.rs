//! A model in a folder of the user's own: [`open`].
//!
//! The folder holds the weights, as ONNX (`model.onnx`, or an export under `onnx/`) or as
//! `model.safetensors`, and `tokenizer.json`. What the model is, is read off the configuration files of transformers and
//! sentence-transformers where they are present, and `topshelf.toml` in the folder says what
//! they do not, or otherwise:
//!
//! ```toml
//! family = "bi-encoder"        # or "cross-encoder", "late-interaction"
//! pooling = "mean"             # or "cls"
//! query_prefix = "query: "
//! passage_prefix = "passage: "
//! max_tokens = 512
//! weights = "onnx/model_int8.onnx"
//! tokens = { query_tokens = 32, passage_tokens = 300 }   # late interaction
//! ```
//!
//! The files are hashed at every load, since nothing else tells that a user has replaced one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::describe::{self, Description};
use crate::digest;
use crate::error::{ModelError, Result};
use crate::spec::{
    Family, FileSpec, Golden, ModelFolder, ModelSpec, Pooling, TokenSettings, projection_name,
    weights_name,
};

/// The file in which a user says what the configuration files do not.
const SETTINGS: &str = "topshelf.toml";

/// What a folder's weights are called where there is no choice to make.
const WEIGHTS: &str = "model.onnx";

const TOKENIZER: &str = "tokenizer.json";

/// The content of `topshelf.toml`: the fields of [`ModelSpec`] that a user can state.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    name: Option<String>,
    weights: Option<String>,
    family: Option<Family>,
    description: Option<String>,
    licence: Option<String>,
    language: Option<String>,
    max_tokens: Option<usize>,
    dimension: Option<usize>,
    pooling: Option<Pooling>,
    tokens: Option<TokenSettings>,
    query_prefix: Option<String>,
    passage_prefix: Option<String>,
    golden: Vec<Golden>,
}

/// The model in `dir`.
///
/// [`ModelError::Unsupported`] where a file is missing or where its family or pooling cannot be
/// told, with what to add; [`ModelError::Io`] where a file cannot be read.
pub(crate) fn open(dir: &Path) -> Result<ModelFolder> {
    let dir = std::path::absolute(dir).map_err(|source| io_error(dir, source))?;
    let unsupported = |reason| ModelError::Unsupported { dir: dir.clone(), reason };
    let settings = settings(&dir)?;
    let weights = weights(&dir, settings.weights.as_deref())?;
    if !dir.join(TOKENIZER).is_file() {
        return Err(unsupported(format!(
            "{TOKENIZER} is missing; save it with the tokenizer's save_pretrained()"
        )));
    }
    let description = description(&dir)?;

    let advise = |reason, field| {
        unsupported(format!("{reason}; say it with `{field} = \"…\"` in a file {SETTINGS} there"))
    };
    let family = match settings.family {
        Some(family) => family,
        None => description.family().map_err(|reason| advise(reason, "family"))?,
    };
    let bi_encoder = family == Family::BiEncoder;
    let pooling = match settings.pooling {
        Some(pooling) => Some(pooling),
        None if bi_encoder => {
            Some(description.pooling().map_err(|reason| advise(reason, "pooling"))?)
        }
        None => None,
    };
    let (dense, tokens) = match family {
        Family::LateInteraction => {
            let dense = description.dense().map_err(unsupported)?;
            (dense, Some(settings.tokens.unwrap_or_else(|| description.tokens())))
        }
        _ => (Vec::new(), None),
    };
    let max_tokens = settings
        .max_tokens
        .or_else(|| description.max_tokens())
        .unwrap_or(describe::DEFAULT_MAX_TOKENS);
    let name = settings.name.unwrap_or_else(|| folder_name(&dir));
    let spec = ModelSpec {
        name,
        aliases: Vec::new(),
        family,
        description: settings.description.unwrap_or_else(|| "A model in a folder.".into()),
        licence: settings.licence.unwrap_or_else(|| "NOASSERTION".into()),
        language: settings.language.unwrap_or_else(|| "the language of its training".into()),
        max_tokens,
        dimension: settings
            .dimension
            .or_else(|| bi_encoder.then(|| description.dimension()).flatten()),
        pooling,
        query_prefix: settings.query_prefix.unwrap_or_else(|| description.query_prefix()),
        passage_prefix: settings.passage_prefix.unwrap_or_else(|| description.passage_prefix()),
        config: description.config(),
        files: files(&dir, &weights, &dense)?,
        tokens,
        sources: Vec::new(),
        golden: settings.golden,
    };
    let fingerprint = digest::fingerprint(&spec);
    Ok(ModelFolder { spec, dir, fingerprint })
}

fn settings(dir: &Path) -> Result<Settings> {
    let path = dir.join(SETTINGS);
    match read(&path)? {
        None => Ok(Settings::default()),
        Some(text) => toml::from_str(&text).map_err(|error| ModelError::Unsupported {
            dir: dir.to_owned(),
            reason: format!("{SETTINGS} cannot be read: {error}"),
        }),
    }
}

fn description(dir: &Path) -> Result<Description> {
    let mut description = Description::default();
    for name in describe::FILES {
        if let Some(text) = read(&dir.join(name))? {
            description
                .add(name, &text)
                .map_err(|reason| ModelError::Unsupported { dir: dir.to_owned(), reason })?;
        }
    }
    Ok(description)
}

/// The path of the weights in the folder: what the user says, `model.onnx`, the best of the
/// usual exports, or the only one there is.
fn weights(dir: &Path, stated: Option<&str>) -> Result<String> {
    let unsupported = |reason| ModelError::Unsupported { dir: dir.to_owned(), reason };
    if let Some(stated) = stated {
        return if dir.join(stated).is_file() {
            Ok(stated.to_owned())
        } else {
            Err(unsupported(format!("{SETTINGS} names the weights {stated}, which are not there")))
        };
    }
    let usual = std::iter::once(WEIGHTS).chain(describe::WEIGHTS);
    if let Some(path) = usual.into_iter().find(|path| dir.join(path).is_file()) {
        return Ok(path.to_owned());
    }
    let found = exports(dir);
    match found.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(unsupported(format!(
            "there is no {WEIGHTS} and no model.safetensors in it; save it with the model's \
             save_pretrained(), or export it to ONNX, as with `optimum-cli export onnx`"
        ))),
        several => Err(unsupported(format!(
            "it holds several exports ({}); name one with `weights = \"…\"` in a file {SETTINGS} \
             there",
            several.join(", ")
        ))),
    }
}

/// The ONNX files of the folder and of `onnx/` in it, in order.
fn exports(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for prefix in ["", "onnx/"] {
        let entries = fs::read_dir(dir.join(prefix)).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        found.extend(
            names
                .filter(|name| Path::new(name).extension().is_some_and(|ending| ending == "onnx"))
                .map(|name| format!("{prefix}{name}")),
        );
    }
    found.sort();
    found
}

/// The files that are computed with, hashed.
fn files(dir: &Path, weights: &str, dense: &[String]) -> Result<Vec<FileSpec>> {
    let mut wanted = vec![(weights_name(weights).to_owned(), weights.to_owned())];
    for ending in describe::EXTERNAL_DATA {
        let path = format!("{weights}{ending}");
        if dir.join(&path).is_file() {
            wanted.push((format!("{WEIGHTS}{ending}"), path));
        }
    }
    wanted.push((TOKENIZER.to_owned(), TOKENIZER.to_owned()));
    wanted.extend(dense.iter().enumerate().map(|(n, path)| (projection_name(n), path.clone())));
    let mut files = Vec::with_capacity(wanted.len());
    for (name, path) in wanted {
        let full = dir.join(&path);
        let (sha256, bytes) = digest::of_file(&full).map_err(|source| io_error(&full, source))?;
        let path = (path != name).then_some(path);
        files.push(FileSpec { name, path, sha256, bytes, built_in: false });
    }
    Ok(files)
}

/// The content of a file, or nothing where there is none.
fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io_error(path, source)),
    }
}

fn io_error(path: &Path, source: io::Error) -> ModelError {
    ModelError::Io { what: "cannot read", path: PathBuf::from(path), source }
}

fn folder_name(dir: &Path) -> String {
    dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy().into_owned()
}
