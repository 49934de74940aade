//! next-plaid behind the protocol of `crates/topshelf/examples/token_vectors.rs`: the same vectors, the
//! same requests.
//!
//! | request | answer |
//! | --- | --- |
//! | `{"load": {"folder": folder, "bits": n}}` | `{"load_ms": t, "engine": text}`; makes the index if it is not there |
//! | `{"run": "rerank", "candidates": [[place, ...], ...]}` | `{"ms": [t, ...], "found": [[place, ...], ...]}`, by a search that is confined to the candidates |
//! | `{"run": "rerank-f32", "candidates": ...}` | the same by `maxsim_score` of the vectors as they are, one thread |
//! | `{"run": "search", "depth": n}` | the same of the whole collection, with the parameters that are usual |

use std::error::Error;
use std::fs;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use ndarray::Array2;
use next_plaid::maxsim::maxsim_score;
use next_plaid::{IndexConfig, MmapIndex, SearchParameters};
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Loaded {
    index: MmapIndex,
    passages: Vec<Array2<f32>>,
    queries: Vec<Array2<f32>>,
}

fn main() -> Result<()> {
    let mut loaded = None;
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let answer = answer(&mut loaded, &request)
            .unwrap_or_else(|error| json!({ "error": error.to_string() }));
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

fn answer(loaded: &mut Option<Loaded>, request: &Value) -> Result<Value> {
    if let Some(load) = request.get("load") {
        let start = Instant::now();
        let folder = PathBuf::from(load["folder"].as_str().ok_or("load wants a folder")?);
        let bits = load["bits"].as_u64().ok_or("load wants bits")? as usize;
        *loaded = Some(Loaded::open(&folder, bits)?);
        return Ok(json!({ "load_ms": milliseconds(start), "engine": "next-plaid" }));
    }
    let run = request["run"].as_str().ok_or("unknown request: load and run are known")?;
    loaded.as_ref().ok_or("nothing is loaded yet")?.run(run, request)
}

impl Loaded {
    fn open(folder: &Path, bits: usize) -> Result<Self> {
        let about: Value = serde_json::from_str(&fs::read_to_string(folder.join("vectors.json"))?)?;
        let dimension: usize = serde_json::from_value(about["dimension"].clone())?;
        let read = |name: &str| -> Result<Vec<Array2<f32>>> {
            let counts: Vec<usize> = serde_json::from_value(about[name].clone())?;
            let bytes = fs::read(folder.join(format!("{name}.f32")))?;
            let mut words = bytes.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word));
            let texts = counts.into_iter().map(|count| {
                let values = words.by_ref().take(count * dimension).collect();
                Array2::from_shape_vec((count, dimension), values)
            });
            Ok(texts.collect::<std::result::Result<_, _>>()?)
        };
        let (passages, queries) = (read("passages")?, read("queries")?);
        let dir = folder.join(format!("next-plaid-{bits}"));
        let name = |dir: &Path| dir.to_str().map(str::to_owned).ok_or("a path in UTF-8");
        if !dir.is_dir() {
            let made = folder.join(format!("next-plaid-{bits}.new"));
            let _ = fs::remove_dir_all(&made); // what an interrupted run left
            let config = IndexConfig { nbits: bits, ..IndexConfig::default() };
            MmapIndex::create_with_kmeans(&passages, &name(&made)?, &config)?;
            fs::rename(made, &dir)?;
        }
        let index = MmapIndex::load(&name(&dir)?)?;
        Ok(Self { index, passages, queries })
    }

    /// All queries, one after the other.
    fn run(&self, run: &str, request: &Value) -> Result<Value> {
        let candidates: Vec<Vec<i64>> = match run {
            "search" => Vec::new(),
            _ => serde_json::from_value(request["candidates"].clone())?,
        };
        let depth = request["depth"].as_u64().unwrap_or(100) as usize;
        let (mut ms, mut found) = (Vec::new(), Vec::new());
        for (at, query) in self.queries.iter().enumerate() {
            let of = || candidates.get(at).ok_or("a list for each query");
            let (time, own) = match run {
                "search" => self.search(query, depth)?,
                "rerank" => self.rerank(query, of()?)?,
                "rerank-f32" => self.rerank_f32(query, of()?),
                _ => return Err("there are rerank, rerank-f32 and search".into()),
            };
            ms.push(time);
            found.push(own);
        }
        Ok(json!({ "ms": ms, "found": found }))
    }

    fn search(&self, query: &Array2<f32>, depth: usize) -> Result<(f64, Vec<i64>)> {
        let parameters = SearchParameters { top_k: depth, ..SearchParameters::default() };
        let start = Instant::now();
        let found = self.index.search(query, &parameters, None)?;
        Ok((milliseconds(start), found.passage_ids))
    }

    fn rerank(&self, query: &Array2<f32>, candidates: &[i64]) -> Result<(f64, Vec<i64>)> {
        let parameters = SearchParameters {
            top_k: candidates.len(),
            n_full_scores: 4 * candidates.len(), // a quarter of them is scored
            centroid_score_threshold: None,
            ..SearchParameters::default()
        };
        let start = Instant::now();
        let found = self.index.search(query, &parameters, Some(candidates))?;
        Ok((milliseconds(start), found.passage_ids))
    }

    fn rerank_f32(&self, query: &Array2<f32>, candidates: &[i64]) -> (f64, Vec<i64>) {
        let start = Instant::now();
        let score = |place: &i64| {
            (maxsim_score(&query.view(), &self.passages[*place as usize].view()), *place)
        };
        let mut scored: Vec<(f32, i64)> = candidates.iter().map(score).collect();
        scored.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        (milliseconds(start), scored.into_iter().map(|(_, place)| place).collect())
    }
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}
