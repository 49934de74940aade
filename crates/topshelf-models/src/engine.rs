//! Which engine runs a model: the native one ([`crate::native`]) where it knows the architecture
//! and can read the weights, otherwise the ONNX runtime ([`crate::onnx`]).
//!
//! | variable | values | unset |
//! | --- | --- | --- |
//! | `TOPSHELF_ENGINE` | `native`, `onnx` | native if it can, else ONNX |
//! | `TOPSHELF_PRECISION` | `int8`, `bf16`, `f32`: of the native engine | `int8` |
//!
//! Falling back is told: the name of the engine, which every answer carries, ends with the reason.
//!
//! The variables are read when a model is loaded; [`Settings`] of the caller's own stand for them,
//! for programs that put several engines side by side.

use crate::encoder::{Encoder, Output, TokenBatch};
use crate::error::{ModelError, Result};
use crate::native::{NativeEncoder, Precision, Refusal};
use crate::onnx::{OnnxEncoder, default_threads};
use crate::spec::ModelFolder;

/// Forces an engine.
const ENGINE_VARIABLE: &str = "TOPSHELF_ENGINE";

/// Sets the precision of the native engine.
const PRECISION_VARIABLE: &str = "TOPSHELF_PRECISION";

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
/// [`ModelError::Unsupported`] if no engine, or not the forced one, can run the model, and what
/// [`OnnxEncoder::load`] says.
pub fn open(folder: &ModelFolder, settings: Settings) -> Result<Box<dyn Encoder>> {
    let Settings { engine: choice, precision, threads } = settings;
    let unsupported = |reason| ModelError::Unsupported { dir: folder.dir.clone(), reason };
    let is_onnx = folder.weights().extension().is_some_and(|ending| ending == "onnx");
    if choice == Choice::Onnx {
        if !is_onnx {
            let reason = "the ONNX runtime reads model.onnx, and the folder has none".to_owned();
            return Err(unsupported(reason));
        }
        return Ok(Box::new(OnnxEncoder::load(folder, threads)?));
    }
    let reason = match NativeEncoder::load(folder, threads, precision) {
        Ok(encoder) => return Ok(Box::new(encoder)),
        Err(Refusal::Failed(error)) => return Err(error),
        Err(Refusal::Unknown(reason)) => reason,
    };
    if choice == Choice::Native || !is_onnx {
        return Err(unsupported(format!("the native engine cannot run it: {reason}")));
    }
    let onnx = OnnxEncoder::load(folder, threads)?;
    let engine = format!("{} (not native: {reason})", onnx.engine());
    Ok(Box::new(Fallback { onnx, engine }))
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
struct Fallback {
    onnx: OnnxEncoder,
    engine: String,
}

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
