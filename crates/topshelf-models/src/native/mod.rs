//! The native engine: an encoder for packed, ragged batches of short sequences, on the kernels of
//! [`topshelf_kernels`].
//!
//! | for | see |
//! | --- | --- |
//! | what is computed, for all families in one description | `architecture`, read from `config.json` by `config` |
//! | a checkpoint's weights under one set of names | `checkpoint`, filled by `names` from `safetensors` or `onnx_weights` |
//! | the packed weights, in memory or mapped from a file | `image`, `packed`, `model` |
//! | which thread computes which rows, and where | `plan`, `team`, `cores` |
//! | the forward pass | `forward`, with `attention`, and `rotary` and `relative` positions |
//!
//! **No padding anywhere.** All tokens of a call lie end to end; matrix products see rows, and only
//! attention knows where sequences begin.
//!
//! **Same sequence, same bits.** Activations are rounded row by row, sums have one order, and rows
//! are shared out so that it stays so (`plan`): a sequence's result does not depend on its
//! neighbours, their order, or the number of threads. Nor does it depend on the instruction set
//! within what [`topshelf_kernels`] promises.
//!
//! **Buffers** are the encoder's own and are used again; once they have grown to the longest call,
//! a call allocates little beyond its answer.

mod architecture;
mod attention;
mod buffer;
pub(crate) mod checkpoint;
mod config;
mod cores;
#[cfg(test)]
mod families;
mod forward;
pub(crate) mod image;
mod model;
pub(crate) mod names;
mod onnx_weights;
mod packed;
mod plan;
mod relative;
pub(crate) mod rotary;
pub(crate) mod safetensors;
pub(crate) mod team;

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};
use topshelf_kernels::Isa;
use topshelf_kernels::gemm::Activation;
/// What the machine could do at most, to state the engine's speed as a share of it.
pub use topshelf_kernels::peak;

use self::architecture::{Architecture, HeadPooling};
use self::attention::Shared;
use self::forward::{Member, Pass, Wanted};
use self::image::Image;
use self::model::{Model, function};
use self::packed::Operand;
pub use self::packed::Precision;
use self::plan::Plan;
use self::team::Team;
use crate::digest;
use crate::encoder::{Encoder, Output, TokenBatch};
use crate::error::{ModelError, Result};
use crate::spec::ModelFolder;
use crate::worker::panicked;

/// Changes when an image's content does for the same weights.
const IMAGE_VERSION: u32 = 1;

/// About 40 ms of work for a thread.
const TOKENS_PER_THREAD: usize = 1024;

/// A model that runs on the project's own kernels.
pub struct NativeEncoder {
    name: String,
    engine: String,
    model: Model,
    team: Team,
    /// One call at a time has them.
    buffers: Mutex<Buffers>,
}

struct Buffers {
    members: Vec<Mutex<Member>>,
    shared: Shared,
    head: HeadBuffers,
}

#[derive(Default)]
struct HeadBuffers {
    operand: Operand,
    pooled: Vec<f32>,
    dense: Vec<f32>,
}

/// Why a model does not run natively.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// This engine does not know it; another may.
    Unknown(String),
    /// It cannot be used at all.
    Failed(ModelError),
}

impl NativeEncoder {
    /// Loads the model of the folder: its packed image, or its weights, which are then packed and
    /// kept beside them.
    pub(crate) fn load(
        folder: &ModelFolder,
        threads: usize,
        precision: Precision,
    ) -> Result<Self, Refusal> {
        let config = folder.spec.config.as_ref().ok_or_else(|| {
            Refusal::Unknown("it has no config.json, so its architecture is not known".to_owned())
        })?;
        let architecture = config::read(config).map_err(Refusal::Unknown)?;
        let weights = folder.weights();
        let path = folder.dir.join(format!("topshelf-{}.image", precision.name()));
        let made_of = made_of(folder, config, precision);
        let image = match Image::open(&path, &made_of) {
            Ok(image) => image,
            Err(_) => pack(&weights, &architecture, config, precision, &made_of, &path)?,
        };
        let model = Model::of(image, architecture, precision).map_err(Refusal::Unknown)?;
        let isa = Isa::detect().map_or_else(|error| error.to_string(), |isa| isa.to_string());
        let engine = format!("topshelf-{} {} {isa}", env!("CARGO_PKG_VERSION"), precision.name());
        let failed = |reason| {
            let name = folder.spec.name.clone();
            Refusal::Failed(ModelError::Inference { name, reason })
        };
        let team = Team::start(threads.max(1)).map_err(failed)?;
        let buffers = Mutex::new(Buffers {
            members: (0..team.threads()).map(|_| Mutex::default()).collect(),
            shared: Shared::new(team.threads()),
            head: HeadBuffers::default(),
        });
        Ok(Self { name: folder.spec.name.clone(), engine, model, team, buffers })
    }

    fn failed(&self, reason: String) -> ModelError {
        ModelError::Inference { name: self.name.clone(), reason }
    }

    /// Whether the batch is within the model's tables.
    fn check(&self, batch: &TokenBatch) -> Result<()> {
        let lengths = batch.cu_seqlens().windows(2).map(|ends| ends[1] - ends[0]);
        let longest = self.model.architecture.max_positions.unwrap_or(usize::MAX);
        for (i, length) in lengths.enumerate() {
            if length == 0 {
                let reason = "a sequence without tokens cannot be encoded".to_owned();
                return Err(self.failed(reason));
            }
            if length > longest {
                return Err(self.failed(format!(
                    "sequence {i} has {length} tokens, and the model has positions for {longest}"
                )));
            }
        }
        let windows = self.model.architecture.blocks.iter().filter_map(|block| block.window);
        let window = windows.min().unwrap_or(usize::MAX);
        for (i, (ends, &attended)) in
            batch.cu_seqlens().windows(2).zip(batch.attended()).enumerate()
        {
            if (ends[1] - ends[0]) - attended > window {
                return Err(self.failed(format!(
                    "the last tokens of sequence {i} would attend to nothing: only its first \
                     {attended} are attended to, and the model's window is {window}"
                )));
            }
        }
        let words = self.model.embeddings.word.rows();
        if let Some(id) = batch.ids().iter().find(|&&id| id as usize >= words) {
            return Err(self.failed(format!(
                "token {id} is not in the model's vocabulary of {words}; the tokenizer is of \
                 another model"
            )));
        }
        let types = self.model.embeddings.token_type.map_or(usize::MAX, |table| table.rows());
        if let Some(id) = batch.type_ids().iter().find(|&&id| id as usize >= types) {
            return Err(self.failed(format!(
                "token type {id} is not known to the model, which has {types}; the tokenizer is \
                 of another model"
            )));
        }
        Ok(())
    }

    /// The last states that are wanted, in the order of the batch.
    fn states(&self, buffers: &Buffers, batch: &TokenBatch, wanted: Wanted) -> Result<Vec<f32>> {
        let plan = Plan::new(batch.cu_seqlens(), batch.attended(), self.team.threads());
        self.team
            .run(|share, barrier| {
                let mut member =
                    buffers.members[share].lock().unwrap_or_else(PoisonError::into_inner);
                member.start();
                let pass = Pass {
                    model: &self.model,
                    batch,
                    shared: &buffers.shared,
                    barrier,
                    wanted,
                    share,
                };
                plan.groups.iter().try_for_each(|group| pass.run(group, &mut member))
            })
            .map_err(|panic| panicked(&self.name, panic.as_ref()))?;
        Ok(self.collect(buffers, batch, &plan, wanted))
    }

    /// Puts the members' states in the order of the batch.
    fn collect(
        &self,
        buffers: &Buffers,
        batch: &TokenBatch,
        plan: &Plan,
        wanted: Wanted,
    ) -> Vec<f32> {
        let hidden = self.model.architecture.hidden;
        let rows = if wanted == Wanted::All { batch.ids().len() } else { batch.len() };
        let mut states = Vec::with_capacity(rows * hidden);
        let mut taken = vec![0; buffers.members.len()];
        for group in &plan.groups {
            for (share, (own, taken)) in group.shares.iter().zip(&mut taken).enumerate() {
                let rows = match wanted {
                    Wanted::All => own.rows,
                    Wanted::First => own.spans.iter().filter(|span| span.first == 0).count(),
                };
                let member = buffers.members[share].lock().unwrap_or_else(PoisonError::into_inner);
                states.extend_from_slice(&member.out[*taken * hidden..][..rows * hidden]);
                *taken += rows;
            }
        }
        states
    }

    /// The classification head over all sequences.
    fn logits(&self, buffers: &mut Buffers, batch: &TokenBatch) -> Result<Vec<f32>> {
        let (Some(head), Some(kind)) = (&self.model.head, self.model.architecture.head) else {
            return Err(self.failed("its weights have no classification head".to_owned()));
        };
        let hidden = self.model.architecture.hidden;
        let pooled = match kind.pooling {
            HeadPooling::First => self.states(buffers, batch, Wanted::First)?,
            HeadPooling::Mean => {
                let states = self.states(buffers, batch, Wanted::All)?;
                means(&states, batch.cu_seqlens(), hidden)
            }
        };
        let (image, own) = (&self.model.image, &mut buffers.head);
        own.pooled = pooled;
        if let Some(dense) = &head.dense {
            own.operand.set(Precision::F32, &own.pooled, hidden);
            own.dense.resize(own.pooled.len(), 0.0);
            dense.apply(
                image,
                &own.operand,
                &own.pooled,
                function(kind.activation),
                &mut own.dense,
            );
            std::mem::swap(&mut own.pooled, &mut own.dense);
        }
        if let Some(norm) = &head.norm {
            norm.apply(image, &mut own.pooled, &[]);
        }
        own.operand.set(Precision::F32, &own.pooled, hidden);
        let mut logits = vec![0.0; batch.len() * self.model.architecture.labels];
        let (operand, pooled) = (&own.operand, &own.pooled);
        head.classifier.apply(image, operand, pooled, Activation::Identity, &mut logits);
        Ok(logits)
    }
}

impl Encoder for NativeEncoder {
    fn engine(&self) -> &str {
        &self.engine
    }

    fn width(&self, want: Output) -> Option<usize> {
        match want {
            Output::Logits => self.model.head.as_ref().map(|_| self.model.architecture.labels),
            Output::Cls | Output::Hidden => Some(self.model.architecture.hidden),
        }
    }

    fn token_budget(&self) -> usize {
        TOKENS_PER_THREAD * self.team.threads()
    }

    fn encode(&self, batch: &TokenBatch, want: Output) -> Result<Vec<f32>> {
        self.check(batch)?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        match want {
            Output::Logits => self.logits(&mut buffers, batch),
            Output::Cls => self.states(&buffers, batch, Wanted::First),
            Output::Hidden => self.states(&buffers, batch, Wanted::All),
        }
    }
}

/// The mean state of each sequence.
fn means(states: &[f32], cu_seqlens: &[usize], hidden: usize) -> Vec<f32> {
    let mut means = vec![0.0; (cu_seqlens.len() - 1) * hidden];
    for (mean, ends) in means.chunks_exact_mut(hidden).zip(cu_seqlens.windows(2)) {
        for row in states[ends[0] * hidden..ends[1] * hidden].chunks_exact(hidden) {
            for (sum, value) in mean.iter_mut().zip(row) {
                *sum += value;
            }
        }
        for sum in mean {
            *sum /= (ends[1] - ends[0]) as f32;
        }
    }
    means
}

/// What an image is made of: a change of any of it makes another image.
fn made_of(folder: &ModelFolder, config: &serde_json::Value, precision: Precision) -> String {
    let mut hash = Sha256::new();
    hash.update(config.to_string());
    for file in &folder.spec.files {
        hash.update([0]);
        hash.update(&file.name);
        hash.update([0]);
        hash.update(&file.sha256);
    }
    format!("{IMAGE_VERSION} {} {}", precision.name(), digest::hex(&hash.finalize()))
}

/// Reads the weights and packs them.
fn pack(
    weights: &Path,
    architecture: &Architecture,
    config: &serde_json::Value,
    precision: Precision,
    made_of: &str,
    path: &Path,
) -> Result<Image, Refusal> {
    let model_type = config["model_type"].as_str().unwrap_or_default();
    let checkpoint = names::read(weights, architecture, model_type).map_err(Refusal::Unknown)?;
    model::pack(&checkpoint, architecture, precision, made_of, path).map_err(|source| {
        let path = path.to_owned();
        Refusal::Failed(ModelError::Io { what: "cannot keep packed weights in", path, source })
    })
}
