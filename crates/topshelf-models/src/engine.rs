//! Which engine runs a model: the native one ([`crate::native`]) where it knows the architecture
//! and can read the weights, otherwise the ONNX runtime (`crate::onnx`), in builds that have it.
//!
//! | variable | values | unset |
//! | --- | --- | --- |
//! | `TOPSHELF_ENGINE` | `native`, `onnx` | native if it can, else ONNX |
//! | `TOPSHELF_PRECISION` | `int8`, `bf16`, `f32`: of the native engine | `int8` |
//! | `TOPSHELF_THREADS` | a positive number | as many as the system offers |
//!
//! The ONNX runtime is the feature `onnx`, off by default: the native engine runs every model of the
//! catalogue, and the runtime takes a twelfth of the whole build (decision 12). A build without it
//! rejects what the native engine cannot run, with the reason. A build with it falls back, and the name
//! of the engine, which every answer carries, ends with the reason.
//!
//! The variables are read when a model is loaded; [`Settings`] of the caller's own stand for them,
//! for programs that put several engines side by side.

use crate::encoder::Encoder;
#[cfg(feature = "onnx")]
use crate::encoder::{Output, TokenBatch};
use crate::error::{ModelError, Result};
use crate::native::{NativeEncoder, Precision, Refusal};
#[cfg(feature = "onnx")]
use crate::onnx::OnnxEncoder;
use crate::spec::ModelFolder;

/// Forces an engine.
const ENGINE_VARIABLE: &str = "TOPSHELF_ENGINE";

/// Sets the precision of the native engine.
const PRECISION_VARIABLE: &str = "TOPSHELF_PRECISION";

/// Sets the number of threads; anything but a positive number counts as unset.
const THREADS_VARIABLE: &str = "TOPSHELF_THREADS";

/// The number of threads a model runs on: `TOPSHELF_THREADS`, or what the system offers.
pub fn default_threads() -> usize {
    std::env::var(THREADS_VARIABLE)
        .ok()
        .and_then(|value| value.trim().parse().ok())
        .filter(|&threads| threads > 0)
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Which engine may run a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The native engine alone.
    Native,
    /// The ONNX runtime alone.
    Onnx,
    /// The native engine if it can, else the ONNX runtime.
    Either,
}

/// How a model is to be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// On which engine.
    pub engine: Choice,
    /// The precision of the native engine; the ONNX runtime takes what is in the file.
    pub precision: Precision,
    /// On how many threads; 0 counts as 1.
    pub threads: usize,
}

impl Settings {
    /// What the environment says.
    ///
    /// # Errors
    ///
    /// [`ModelError::Setting`] for a variable whose value means nothing.
    pub fn from_env() -> Result<Self> {
        let engine = setting(ENGINE_VARIABLE, "native, onnx", |value| match value {
            "" => Some(Choice::Either),
            "native" => Some(Choice::Native),
            "onnx" => Some(Choice::Onnx),
            _ => None,
        })?;
        let precision = setting(PRECISION_VARIABLE, "int8, bf16, f32", |value| match value {
            "" => Some(Precision::default()),
            other => Precision::named(other),
        })?;
        Ok(Self { engine, precision, threads: default_threads() })
    }
}

/// Loads the model's weights into the engine that it gets.
///
/// # Errors
///
/// [`ModelError::Unsupported`] if no engine of this build, or not the forced one, can run the model;
/// [`ModelError::Io`] and [`ModelError::Damaged`] for weights that cannot be read.
pub fn open(folder: &ModelFolder, settings: Settings) -> Result<Box<dyn Encoder>> {
    let Settings { engine: choice, precision, threads } = settings;
    if choice == Choice::Onnx {
        return open_onnx(folder, threads, None);
    }
    match NativeEncoder::load(folder, threads, precision) {
        Ok(encoder) => Ok(Box::new(encoder)),
        Err(Refusal::Failed(error)) => Err(error),
        Err(Refusal::Unknown(reason)) if choice == Choice::Either && has_onnx_file(folder) => {
            open_onnx(folder, threads, Some(reason))
        }
        Err(Refusal::Unknown(reason)) => {
            Err(unsupported(folder, format!("the native engine cannot run it: {reason}")))
        }
    }
}

fn has_onnx_file(folder: &ModelFolder) -> bool {
    folder.weights().extension().is_some_and(|ending| ending == "onnx")
}

fn unsupported(folder: &ModelFolder, reason: String) -> ModelError {
    ModelError::Unsupported { dir: folder.dir.clone(), reason }
}

/// The ONNX runtime, forced or because the native engine cannot run the model.
#[cfg(feature = "onnx")]
fn open_onnx(
    folder: &ModelFolder,
    threads: usize,
    not_native: Option<String>,
) -> Result<Box<dyn Encoder>> {
    if !has_onnx_file(folder) {
        let reason = "the ONNX runtime reads model.onnx, and the folder has none";
        return Err(unsupported(folder, reason.to_owned()));
    }
    let onnx = OnnxEncoder::load(folder, threads)?;
    let Some(reason) = not_native else { return Ok(Box::new(onnx)) };
    let engine = format!("{} (not native: {reason})", onnx.engine());
    Ok(Box::new(Fallback { onnx, engine }))
}

/// This build has no ONNX runtime.
#[cfg(not(feature = "onnx"))]
fn open_onnx(
    folder: &ModelFolder,
    _threads: usize,
    not_native: Option<String>,
) -> Result<Box<dyn Encoder>> {
    let not_native = not_native
        .map_or_else(String::new, |reason| format!("the native engine cannot run it: {reason}; "));
    let reason = format!("{not_native}this build has no ONNX runtime (the Cargo feature `onnx`)");
    Err(unsupported(folder, reason))
}

/// The meaning of a variable's value; unset is empty.
pub(crate) fn setting<T>(
    variable: &'static str,
    known: &'static str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<T> {
    let value = std::env::var(variable).unwrap_or_default();
    read(value.trim()).ok_or(ModelError::Setting { variable, value, known })
}

/// The ONNX runtime, with the reason why it was taken in its name.
#[cfg(feature = "onnx")]
struct Fallback {
    onnx: OnnxEncoder,
    engine: String,
}

#[cfg(feature = "onnx")]
impl Encoder for Fallback {
    fn engine(&self) -> &str {
        &self.engine
    }

    fn width(&self, want: Output) -> Option<usize> {
        self.onnx.width(want)
    }

    fn token_budget(&self) -> usize {
        self.onnx.token_budget()
    }

    fn encode(&self, batch: &TokenBatch, want: Output) -> Result<Vec<f32>> {
        self.onnx.encode(batch, want)
    }
}
