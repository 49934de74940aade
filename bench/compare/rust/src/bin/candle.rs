//! candle's BERT in f32 from the dequantised safetensors: batches of eight sorted sequences,
//! padded within the batch, on candle's own threads.

use std::path::Path;

use candle_core::{DType, Device, IndexOp, Tensor};
use candle_nn::{Linear, Module, VarBuilder, linear};
use candle_transformers::models::bert::{BertModel, Config};
use topshelf_bench_peers::{Encoded, Peer, Result, serve};

/// Sequences a tensor.
const BATCH: usize = 8;

struct Candle {
    bert: BertModel,
    pooler: Linear,
    classifier: Linear,
}

impl Candle {
    fn batch(&self, sequences: &[Encoded]) -> Result<Vec<f32>> {
        let width = sequences.iter().map(|sequence| sequence.ids.len()).max().unwrap_or(0);
        let shape = (sequences.len(), width);
        let padded = |values: &dyn Fn(&Encoded) -> Vec<u32>| {
            let rows = sequences.iter().flat_map(|sequence| {
                let mut row = values(sequence);
                row.resize(width, 0);
                row
            });
            Tensor::from_vec(rows.collect::<Vec<u32>>(), shape, &Device::Cpu)
        };
        let ids = padded(&|sequence| sequence.ids.clone())?;
        let types = padded(&|sequence| sequence.types.clone())?;
        let mask = padded(&|sequence| vec![1; sequence.ids.len()])?;
        let hidden = self.bert.forward(&ids, &types, Some(&mask))?;
        let pooled = self.pooler.forward(&hidden.i((.., 0))?.contiguous()?)?.tanh()?;
        Ok(self.classifier.forward(&pooled)?.flatten_all()?.to_vec1()?)
    }
}

impl Peer for Candle {
    /// The number of threads is candle's own, which the variable `RAYON_NUM_THREADS` sets.
    fn load(folder: &Path, _threads: usize) -> Result<Self> {
        let config: Config = serde_json::from_slice(&std::fs::read(folder.join("config.json"))?)?;
        let weights = std::fs::read(folder.join("model.safetensors"))?;
        let weights = VarBuilder::from_buffered_safetensors(weights, DType::F32, &Device::Cpu)?;
        let hidden = config.hidden_size;
        Ok(Self {
            bert: BertModel::load(weights.pp("bert"), &config)?,
            pooler: linear(hidden, hidden, weights.pp("bert.pooler.dense"))?,
            classifier: linear(hidden, 1, weights.pp("classifier"))?,
        })
    }

    fn logits(&self, sequences: &[Encoded]) -> Result<Vec<f32>> {
        let mut logits = Vec::with_capacity(sequences.len());
        for batch in sequences.chunks(BATCH) {
            logits.extend(self.batch(batch)?);
        }
        Ok(logits)
    }
}

fn main() -> Result<()> {
    serve::<Candle>()
}
