//! rten on the int8 ONNX file, the way its measurements favour: one sequence a tensor, as many
//! sequences at once as there are threads, each on a pool of one thread. A sequence that is alone
//! gets all threads.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rten::{Model, ModelOptions, NodeId, RunOptions, ThreadPool, Value, ValueOrView};
use topshelf_bench_peers::{Encoded, Peer, Result, serve};

struct Rten {
    model: Model,
    inputs: [NodeId; 3],
    output: NodeId,
    lanes: Vec<Arc<ThreadPool>>,
    wide: Arc<ThreadPool>,
}

impl Rten {
    fn logit(
        &self,
        sequence: &Encoded,
        pool: &Arc<ThreadPool>,
    ) -> std::result::Result<f32, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let length = sequence.ids.len();
        let data = [
            sequence.ids.iter().map(|&id| id as i32).collect(),
            vec![1; length],
            sequence.types.iter().map(|&id| id as i32).collect::<Vec<i32>>(),
        ];
        let inputs = self
            .inputs
            .into_iter()
            .zip(data)
            .map(|(node, values)| {
                let value = Value::from_shape([1, length], values).map_err(|e| text(&e))?;
                Ok((node, ValueOrView::from(value)))
            })
            .collect::<std::result::Result<Vec<_>, String>>()?;
        let options = RunOptions::default().with_thread_pool(Some(Arc::clone(pool)));
        let outputs =
            self.model.run(inputs, &[self.output], Some(options)).map_err(|e| text(&e))?;
        match outputs.into_iter().next() {
            Some(Value::FloatTensor(tensor)) => {
                tensor.into_data().first().copied().ok_or_else(|| "an empty output".to_owned())
            }
            _ => Err("the output is not a tensor of f32".to_owned()),
        }
    }
}

impl Peer for Rten {
    fn load(folder: &Path, threads: usize) -> Result<Self> {
        let model = ModelOptions::with_all_ops()
            .prepack_weights(true)
            .load_file(folder.join("model.onnx"))?;
        let node = |name: &str| model.node_id(name);
        let inputs = [node("input_ids")?, node("attention_mask")?, node("token_type_ids")?];
        let output = node("logits")?;
        Ok(Self {
            inputs,
            output,
            lanes: (0..threads).map(|_| Arc::new(ThreadPool::with_num_threads(1))).collect(),
            wide: Arc::new(ThreadPool::with_num_threads(threads)),
            model,
        })
    }

    fn logits(&self, sequences: &[Encoded]) -> Result<Vec<f32>> {
        if let [only] = sequences {
            return Ok(vec![self.logit(only, &self.wide)?]);
        }
        let next = AtomicUsize::new(0);
        let lane = |pool: &Arc<ThreadPool>| {
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(sequence) = sequences.get(index) else { return Ok(done) };
                done.push((index, self.logit(sequence, pool)?));
            }
        };
        let lanes: Vec<std::result::Result<Vec<(usize, f32)>, String>> =
            std::thread::scope(|scope| {
                let running: Vec<_> =
                    self.lanes.iter().map(|pool| scope.spawn(|| lane(pool))).collect();
                running
                    .into_iter()
                    .map(|lane| lane.join().unwrap_or_else(|_| Err("a lane panicked".to_owned())))
                    .collect()
            });
        let mut logits = vec![0.0; sequences.len()];
        for lane in lanes {
            for (index, logit) in lane? {
                logits[index] = logit;
            }
        }
        Ok(logits)
    }
}

fn main() -> Result<()> {
    serve::<Rten>()
}
