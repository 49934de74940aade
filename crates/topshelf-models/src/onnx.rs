//! The [`Encoder`] over ONNX files, by the `rten` runtime.
//!
//! It runs any transformer encoder exported with `input_ids` (and, as the file has them,
//! `attention_mask` and `token_type_ids`) to `logits` or to a last hidden state.
//!
//! **One sequence a tensor.** The int8 files in use are *dynamically* quantised: at run time each
//! matrix product rounds its input to 8 bits with one scale for the whole tensor,
//! `scale = (max(x, 0) - min(x, 0)) / 255` (ONNX operator `DynamicQuantizeLinear`). With several
//! sequences in a tensor that scale, and so every score, would depend on the neighbours and on
//! the padding. So each sequence is a tensor of its own and several run at once, one thread each;
//! `src/batch.rs` has the figures, by which this is also the fastest way. A sequence that is
//! alone gets all threads, with the same bits.
//!
//! **Agreement with ONNX Runtime** on the same file and the same sequence is not exact, and cannot
//! be. Two correct runtimes differ in the last bit of an f32 sum; where such a bit lies on the
//! edge between two of the 255 steps, the 8-bit value moves by a whole step, and the twelve layers
//! that follow carry it on. Each runtime differs from itself in the same way, as soon as its graph
//! optimisations add up in another order. The 200 pairs of `tests/data/pairs.json`, logits between
//! -11.3 and 8.6 and cosines between 0.25 and 0.86, largest and mean absolute difference:
//!
//! | | logit | cosine |
//! | --- | --- | --- |
//! | ONNX Runtime 1.32, optimisations off against on | 0.31, 0.011 | 0.0075, 0.0008 |
//! | rten, optimisations off against on | 0.49, 0.015 | not measured |
//! | rten (on, as here) against ONNX Runtime (off) | 0.50, 0.017 | 0.0111, 0.0019 |
//! | rten (on, as here) against ONNX Runtime (on) | 0.48, 0.020 | 0.0111, 0.0017 |
//!
//! The tests hold this module to 0.8 and 0.05, and to 0.02 and 0.003. The differences have no
//! direction (their mean is 0.001).
//!
//! **CPU.** On x86 without AVX-512 VNNI, int8 is multiplied with `vpmaddubsw`, which saturates at
//! 16 bits. A file quantised over the full range (-127 to 127, as ms-marco-MiniLM-L12-v2 is) then
//! loses a little more: against ONNX Runtime with VNNI the same 200 logits differ by up to 0.55,
//! mean 0.18. A file of reduced range (-64 to 64, as bge-small-en-v1.5 is) does not.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rten::{
    LoadErrorKind, Model, ModelOptions, NodeId, RunOptions, ThreadPool, Value, ValueOrView,
};
use rten_tensor::prelude::*;

use crate::encoder::{Encoder, Output, TokenBatch};
use crate::error::{ModelError, Result};
use crate::spec::ModelFolder;
use crate::worker::panicked;

/// Names the engine in records.
const ENGINE: &str = "rten-0.27";

/// About a fifth of a second of work for a thread.
const TOKENS_PER_THREAD: usize = 1024;

/// An output of the file: its node and the length of its rows.
#[derive(Debug, Clone, Copy)]
struct Head {
    node: NodeId,
    width: usize,
}

/// A model from an ONNX file.
pub struct OnnxEncoder {
    name: String,
    model: Model,
    inputs: Vec<(Input, NodeId)>,
    logits: Option<Head>,
    hidden: Option<Head>,
    /// One thread each: several sequences at once.
    lanes: Vec<Arc<ThreadPool>>,
    /// All threads together: one sequence.
    wide: Arc<ThreadPool>,
}

/// The inputs that can be served.
#[derive(Debug, Clone, Copy)]
enum Input {
    Ids,
    Mask,
    Types,
}

impl OnnxEncoder {
    /// Loads `model.onnx` of the folder and runs it once on two tokens, to see that it runs and
    /// what comes out.
    ///
    /// # Errors
    ///
    /// [`ModelError::Io`] if the file cannot be read, [`ModelError::Damaged`] if it is not whole,
    /// [`ModelError::Unsupported`] if it has operators, inputs or outputs that cannot be served.
    pub fn load(folder: &ModelFolder, threads: usize) -> Result<Self> {
        let threads = threads.max(1);
        let path = folder.weights();
        let name = folder.spec.name.clone();
        let model = load_model(&path, folder)?;
        let unsupported = |reason: String| {
            let dir = folder.dir.clone();
            ModelError::Unsupported { dir, reason }
        };
        let inputs = served_inputs(&model).map_err(unsupported)?;
        let mut encoder = Self {
            name,
            model,
            inputs,
            logits: None,
            hidden: None,
            lanes: (0..threads).map(|_| Arc::new(ThreadPool::with_num_threads(1))).collect(),
            wide: Arc::new(ThreadPool::with_num_threads(threads)),
        };
        (encoder.logits, encoder.hidden) = catch_unwind(AssertUnwindSafe(|| encoder.probe()))
            .unwrap_or_else(|panic| Err(panicked(&folder.spec.name, panic.as_ref()).to_string()))
            .map_err(unsupported)?;
        Ok(encoder)
    }

    /// Finds the outputs by running two tokens.
    fn probe(&self) -> std::result::Result<(Option<Head>, Option<Head>), String> {
        let nodes = self.model.output_ids();
        let values = self
            .run((&[0, 0], &[0, 0]), 2, nodes, &self.wide)
            .map_err(|error| format!("model.onnx does not run: {error}"))?;
        let (mut logits, mut hidden) = (Vec::new(), Vec::new());
        for (&node, value) in nodes.iter().zip(&values) {
            let output = self.model.node_info(node).and_then(|info| info.name()).unwrap_or("");
            match (value, value.shape().as_slice()) {
                (Value::FloatTensor(_), &[1, width]) => logits.push((output, Head { node, width })),
                (Value::FloatTensor(_), &[1, 2, width]) => {
                    hidden.push((output, Head { node, width }));
                }
                _ => {}
            }
        }
        let named = |heads: &[(&str, Head)], names: &[&str]| {
            names
                .iter()
                .find_map(|name| heads.iter().find(|(output, _)| output == name))
                .map(|found| found.1)
        };
        // A row for each sequence is a classification head only if it says so or if there is
        // nothing else: exports of bi-encoders have pooled vectors of the same shape.
        let only_head = (hidden.is_empty() && logits.len() == 1).then(|| logits[0].1);
        let logits = named(&logits, &["logits"]).or(only_head);
        let hidden = named(&hidden, &["last_hidden_state", "token_embeddings"])
            .or_else(|| hidden.first().map(|found| found.1));
        if logits.is_none() && hidden.is_none() {
            return Err(
                "model.onnx has neither an output `logits` of shape [batch, n] nor a last \
                        hidden state of shape [batch, tokens, n]"
                    .to_owned(),
            );
        }
        Ok((logits, hidden))
    }

    fn run(
        &self,
        (ids, type_ids): (&[u32], &[u32]),
        attended: usize,
        outputs: &[NodeId],
        pool: &Arc<ThreadPool>,
    ) -> std::result::Result<Vec<Value>, String> {
        let shape = [1, ids.len()];
        let inputs = self
            .inputs
            .iter()
            .map(|&(input, node)| {
                let data: Vec<i32> = match input {
                    Input::Ids => ids.iter().map(|&id| id as i32).collect(),
                    Input::Mask => {
                        (0..ids.len()).map(|place| i32::from(place < attended)).collect()
                    }
                    Input::Types => type_ids.iter().map(|&id| id as i32).collect(),
                };
                let value = Value::from_shape(shape, data).map_err(|error| error.to_string())?;
                Ok((node, ValueOrView::from(value)))
            })
            .collect::<std::result::Result<Vec<_>, String>>()?;
        let options = RunOptions::default().with_thread_pool(Some(Arc::clone(pool)));
        self.model.run(inputs, outputs, Some(options)).map_err(|error| error.to_string())
    }

    /// The rows of a sequence of the batch.
    fn rows(
        &self,
        batch: &TokenBatch,
        index: usize,
        want: Output,
        head: Head,
        pool: &Arc<ThreadPool>,
    ) -> std::result::Result<Vec<f32>, String> {
        let (ids, type_ids) = batch.sequence(index);
        if ids.is_empty() {
            return Err("a sequence without tokens cannot be encoded".to_owned());
        }
        let attended = batch.attended()[index];
        if attended < ids.len() && !self.has_mask() {
            return Err(
                "model.onnx has no input `attention_mask`, which this sequence needs".to_owned()
            );
        }
        let value = self.run((ids, type_ids), attended, &[head.node], pool)?.pop();
        let Some(Value::FloatTensor(tensor)) = value else {
            return Err("the output is not a tensor of f32".to_owned());
        };
        let mut data = tensor.into_data();
        let rows = if want == Output::Logits { 1 } else { ids.len() };
        if data.len() != rows * head.width {
            return Err(format!(
                "{} numbers came out where {rows} rows of {} are right",
                data.len(),
                head.width
            ));
        }
        if want == Output::Cls {
            data.truncate(head.width);
        }
        Ok(data)
    }

    fn has_mask(&self) -> bool {
        self.inputs.iter().any(|(input, _)| matches!(input, Input::Mask))
    }

    fn head(&self, want: Output) -> Option<Head> {
        match want {
            Output::Logits => self.logits,
            Output::Cls | Output::Hidden => self.hidden,
        }
    }

    fn failed(&self, reason: String) -> ModelError {
        ModelError::Inference { name: self.name.clone(), reason }
    }
}

impl Encoder for OnnxEncoder {
    fn engine(&self) -> &str {
        ENGINE
    }

    fn width(&self, want: Output) -> Option<usize> {
        self.head(want).map(|head| head.width)
    }

    fn token_budget(&self) -> usize {
        TOKENS_PER_THREAD * self.lanes.len()
    }

    fn encode(&self, batch: &TokenBatch, want: Output) -> Result<Vec<f32>> {
        let head = self
            .head(want)
            .ok_or_else(|| self.failed(format!("model.onnx has no output for {want:?}")))?;
        if batch.len() == 1 {
            return self
                .rows(batch, 0, want, head, &self.wide)
                .map_err(|reason| self.failed(reason));
        }
        let next = AtomicUsize::new(0);
        let lane = |pool: &Arc<ThreadPool>| {
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= batch.len() {
                    return Ok(done);
                }
                match self.rows(batch, index, want, head, pool) {
                    Ok(rows) => done.push((index, rows)),
                    Err(reason) => {
                        next.store(batch.len(), Ordering::Relaxed); // the others can stop
                        return Err(self.failed(reason));
                    }
                }
            }
        };
        let lanes = std::thread::scope(|scope| {
            let running: Vec<_> = self
                .lanes
                .iter()
                .take(batch.len())
                .map(|pool| scope.spawn(|| lane(pool)))
                .collect();
            running
                .into_iter()
                .map(|lane| lane.join().unwrap_or_else(|panic| resume_unwind(panic)))
                .collect::<Result<Vec<_>>>()
        })?;
        let mut by_sequence = vec![Vec::new(); batch.len()];
        for (index, rows) in lanes.into_iter().flatten() {
            by_sequence[index] = rows;
        }
        Ok(by_sequence.concat())
    }
}

fn load_model(path: &Path, folder: &ModelFolder) -> Result<Model> {
    let unsupported = |reason: String| {
        let dir = folder.dir.clone();
        ModelError::Unsupported { dir, reason }
    };
    // Opened first for the system's own words: a missing file, a missing permission.
    std::fs::File::open(path).map_err(|source| ModelError::Io {
        what: "cannot read",
        path: path.to_owned(),
        source,
    })?;
    // Packed weights cost the file's size in memory and give a quarter more speed.
    let loaded =
        catch_unwind(|| ModelOptions::with_all_ops().prepack_weights(true).load_file(path));
    let damaged = |reason: String| {
        let name = folder.spec.name.clone();
        ModelError::Damaged { name, path: path.to_owned(), reason }
    };
    match loaded {
        Ok(Ok(model)) => Ok(model),
        Ok(Err(error)) => match error.kind() {
            LoadErrorKind::IoError | LoadErrorKind::ParseError => Err(damaged(error.to_string())),
            _ => Err(unsupported(format!("model.onnx does not load: {error}"))),
        },
        Err(panic) => Err(damaged(panicked(&folder.spec.name, panic.as_ref()).to_string())),
    }
}

/// The nodes of the inputs, if all can be served.
fn served_inputs(model: &Model) -> std::result::Result<Vec<(Input, NodeId)>, String> {
    let inputs = model
        .input_ids()
        .iter()
        .map(|&node| {
            let name = model.node_info(node).and_then(|info| info.name()).unwrap_or("");
            match name {
                "input_ids" => Ok((Input::Ids, node)),
                "attention_mask" => Ok((Input::Mask, node)),
                "token_type_ids" => Ok((Input::Types, node)),
                other => Err(format!(
                    "model.onnx wants an input `{other}`; input_ids, attention_mask and \
                     token_type_ids can be given"
                )),
            }
        })
        .collect::<std::result::Result<Vec<_>, String>>()?;
    if !inputs.iter().any(|(input, _)| matches!(input, Input::Ids)) {
        return Err("model.onnx has no input `input_ids`; it is no text encoder".to_owned());
    }
    Ok(inputs)
}
