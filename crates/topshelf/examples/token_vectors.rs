//! Topshelf as a contender of `bench/late_interaction`: answers requests, one JSON object a line, on
//! standard input and output.
//!
//! | request | answer |
//! | --- | --- |
//! | `{"prepare": {"data": collection, "folder": into, "model": name or path}}` | `{"passages": n, "vectors": n, "queries": n}`; encodes what is not there yet, for all contenders |
//! | `{"load": {"folder": folder, "tier": tier}}` | `{"load_ms": t, "engine": text}`; makes the index if it is not there |
//! | `{"run": "rerank", "candidates": [[place, ...], ...]}` | `{"ms": [t, ...], "found": [[place, ...], ...]}`: each query's candidates in the new order |
//! | `{"run": "search" or "scan", "depth": n}` | the same of the whole collection, by lists or by a look at each passage; `probes` and `candidates` may be given |
//!
//! A place is a line of `corpus.jsonl`, from 0 on. The folder holds the vectors: `passages.f32` and
//! `queries.f32`, vector after vector, and `vectors.json` with the dimension and how many each text has.
//! Times are of everything but the query's encoding, which all contenders are spared.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use serde_json::{Value, json};
use topshelf::chunk::Chunking;
use topshelf::eval::BeirFolder;
use topshelf::{
    AddOptions, Call, EmbedKind, Index, LateInteraction, LateOptions, LateRetriever, ModelIdentity,
    Models, Passage, Query, RerankOutcome, Reranker, Retriever, Scale, Settings, Store,
    StoredTokens, Tier, TokenEmbedder, TokenVectorInfo, TokenVectors, Writer,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The model whose vectors are compared unless another is named.
const MODEL: &str = "answerdotai/answerai-colbert-small-v1";

/// Passages that are encoded together.
const TOGETHER: usize = 256;

/// Vectors that were made before, by text.
struct Known {
    identity: ModelIdentity,
    dimension: usize,
    vectors: HashMap<String, TokenVectors>,
}

#[async_trait]
impl TokenEmbedder for Known {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    async fn embed_tokens(
        &self,
        _call: &Call,
        _kind: EmbedKind,
        texts: &[&str],
    ) -> topshelf::Result<Vec<TokenVectors>> {
        Ok(texts.iter().filter_map(|text| self.vectors.get(*text).cloned()).collect())
    }
}

/// Only because stored vectors stand in for a reranker: these are all known.
#[async_trait]
impl Reranker for Known {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn scale(&self) -> Scale {
        Scale::MaxSim
    }

    async fn score(
        &self,
        _call: &Call,
        _query: &Query,
        _passages: &[Arc<Passage>],
    ) -> topshelf::Result<Vec<RerankOutcome>> {
        Ok(Vec::new())
    }
}

/// An index with the vectors of one tier.
struct Loaded {
    queries: Vec<Query>,
    passages: Vec<Arc<Passage>>,
    places: HashMap<String, usize>,
    reranker: StoredTokens<Known>,
    index: Index,
    known: Arc<Known>,
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
    if let Some(prepare) = request.get("prepare") {
        let folder = path(prepare, "folder")?;
        let model = prepare["model"].as_str().unwrap_or(MODEL);
        self::prepare(&path(prepare, "data")?, &folder, model)
    } else if let Some(load) = request.get("load") {
        let start = Instant::now();
        let name = load["tier"].as_str().ok_or("load wants a tier")?;
        let tier = Tier::ALL.into_iter().find(|tier| tier.name() == name).ok_or("no such tier")?;
        let own = loaded.insert(Loaded::open(&path(load, "folder")?, tier)?);
        let load_ms = milliseconds(start);
        let engine = &Reranker::identity(&own.reranker).engine;
        Ok(json!({ "load_ms": load_ms, "engine": engine }))
    } else if let Some(run) = request["run"].as_str() {
        loaded.as_ref().ok_or("nothing is loaded yet")?.run(run, request)
    } else {
        Err("unknown request: prepare, load and run are known".into())
    }
}

fn path(of: &Value, key: &str) -> Result<PathBuf> {
    Ok(PathBuf::from(of[key].as_str().ok_or_else(|| format!("{key} is missing"))?))
}

/// An index of the collection's texts, one passage a document, in `dir`.
fn index(folder: &Path, name: &str, vectors: Option<(&Known, Tier)>) -> Result<Index> {
    let dir = folder.join(name);
    if !dir.is_dir() {
        let made = folder.join(format!("{name}.new"));
        let _ = fs::remove_dir_all(&made); // what an interrupted run left
        let info = vectors.map(|(known, tier)| TokenVectorInfo::of(known, tier));
        let chunking = Chunking::Whole;
        let settings = Settings { token_vectors: info, chunking, ..Settings::default() };
        let writer = Writer::create_or_open(&made, &settings)?;
        let models = Models { embedder: None, tokens: vectors.map(|(known, _)| known as _) };
        let corpus = [folder.join("corpus.jsonl")];
        topshelf::add(writer, &corpus, models, &AddOptions::default(), &mut |_| {})?;
        fs::rename(made, &dir)?;
    }
    Ok(Index::open(dir)?)
}

/// The passages in the order of the corpus.
fn passages(folder: &Path, index: &Index) -> Result<Vec<Arc<Passage>>> {
    let mut passages = Vec::new();
    for document in BeirFolder::open(folder)?.corpus()? {
        let found = index.document(&document?.id)?.into_iter().next();
        passages.push(found.ok_or("a document of the corpus is not in the index")?);
    }
    Ok(passages)
}

/// Queries that are judged, in the order of the collection.
fn queries(folder: &Path) -> Result<Vec<(String, String)>> {
    let topics = BeirFolder::open(folder)?.topics("test")?.topics;
    Ok(topics.into_iter().map(|topic| (topic.id, topic.text)).collect())
}

fn prepare(data: &Path, folder: &Path, model: &str) -> Result<Value> {
    fs::create_dir_all(folder.join("qrels"))?;
    for name in ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"] {
        fs::write(folder.join(name), fs::read(data.join(name))?)?;
    }
    let described = folder.join("vectors.json");
    if !described.is_file() {
        let model =
            LateInteraction::from_folder(&Store::open_default()?.find_or_pull(model, &())?)?;
        let passages = passages(folder, &index(folder, "index-words", None)?)?;
        let texts: Vec<String> = passages.iter().map(|passage| passage.model_text()).collect();
        let queries = queries(folder)?;
        let ids: Vec<&String> = queries.iter().map(|(id, _)| id).collect();
        let asked: Vec<&String> = queries.iter().map(|(_, text)| text).collect();
        let of_passages = encode(&model, EmbedKind::Passage, &texts, &folder.join("passages.f32"))?;
        let of_queries = encode(&model, EmbedKind::Query, &asked, &folder.join("queries.f32"))?;
        let identity = TokenEmbedder::identity(&model);
        let text = json!({
            "model": identity, "dimension": model.dimension(), "query_ids": ids,
            "passages": of_passages, "queries": of_queries,
            "documents": passages.iter().map(|passage| &passage.document).collect::<Vec<_>>(),
        });
        fs::write(&described, text.to_string())?;
    }
    let about: Value = serde_json::from_str(&fs::read_to_string(described)?)?;
    let counts: Vec<usize> = serde_json::from_value(about["passages"].clone())?;
    let vectors: usize = counts.iter().sum();
    let queries = about["queries"].as_array().map_or(0, Vec::len);
    Ok(json!({ "passages": counts.len(), "vectors": vectors, "queries": queries }))
}

/// Writes the vectors of texts; the answer is how many each has.
fn encode<T: AsRef<str>>(
    model: &LateInteraction,
    kind: EmbedKind,
    texts: &[T],
    path: &Path,
) -> Result<Vec<usize>> {
    let mut file = std::io::BufWriter::new(fs::File::create(path)?);
    let mut counts = Vec::new();
    for texts in texts.chunks(TOGETHER) {
        for vectors in model.embed(kind, texts)? {
            counts.push(vectors.count());
            for x in &vectors.values {
                file.write_all(&x.to_le_bytes())?;
            }
        }
    }
    file.flush()?;
    Ok(counts)
}

impl Known {
    fn open(
        folder: &Path,
        passages: &[Arc<Passage>],
        queries: &[(String, String)],
    ) -> Result<Self> {
        let about: Value = serde_json::from_str(&fs::read_to_string(folder.join("vectors.json"))?)?;
        let identity = serde_json::from_value(about["model"].clone())?;
        let dimension: usize = serde_json::from_value(about["dimension"].clone())?;
        let mut vectors = HashMap::new();
        let mut read = |name: &str, texts: Vec<String>| -> Result<()> {
            let counts: Vec<usize> = serde_json::from_value(about[name].clone())?;
            let bytes = fs::read(folder.join(format!("{name}.f32")))?;
            let mut words = bytes.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word));
            for (text, count) in texts.into_iter().zip(counts) {
                let values = words.by_ref().take(count * dimension).collect();
                vectors.insert(text, TokenVectors { dimension, values, truncated_tokens: 0 });
            }
            Ok(())
        };
        read("passages", passages.iter().map(|passage| passage.model_text()).collect())?;
        read("queries", queries.iter().map(|(_, text)| text.clone()).collect())?;
        Ok(Self { identity, dimension, vectors })
    }
}

impl Loaded {
    fn open(folder: &Path, tier: Tier) -> Result<Self> {
        let asked = queries(folder)?;
        let passages = passages(folder, &index(folder, "index-words", None)?)?;
        let known = Arc::new(Known::open(folder, &passages, &asked)?);
        let index = index(folder, &format!("index-{}", tier.name()), Some((&known, tier)))?;
        let places = passages.iter().enumerate();
        let places = places.map(|(place, passage)| (passage.document.clone(), place)).collect();
        let queries = asked.iter().map(|(_, text)| Query::new(text));
        Ok(Self {
            queries: queries.collect::<std::result::Result<_, _>>()?,
            passages,
            places,
            reranker: index.stored_tokens(Arc::clone(&known)).ok_or("other vectors")?,
            index,
            known,
        })
    }

    /// All queries, one after the other.
    fn run(&self, run: &str, request: &Value) -> Result<Value> {
        let (mut ms, mut found) = (Vec::new(), Vec::new());
        let candidates: Vec<Vec<usize>> = match run {
            "rerank" => serde_json::from_value(request["candidates"].clone())?,
            _ => Vec::new(),
        };
        let number =
            |key: &str, usual: usize| request[key].as_u64().map_or(usual, |number| number as usize);
        let usual = LateOptions::default();
        let options = match run {
            "scan" => LateOptions::exact(),
            _ => LateOptions {
                probes: number("probes", usual.probes),
                candidates: number("candidates", usual.candidates),
                ..usual
            },
        };
        let model = Arc::clone(&self.known) as Arc<dyn TokenEmbedder>;
        let retriever = self.index.late_interaction(model, options)?;
        let depth = number("depth", 100);
        for (at, query) in self.queries.iter().enumerate() {
            let (time, own) = match run {
                "rerank" => {
                    self.rerank(query, candidates.get(at).ok_or("a list for each query")?)?
                }
                "search" | "scan" => self.find(&retriever, query, depth)?,
                _ => return Err("there are rerank, search and scan".into()),
            };
            ms.push(time);
            found.push(own);
        }
        Ok(json!({ "ms": ms, "found": found }))
    }

    fn rerank(&self, query: &Query, candidates: &[usize]) -> Result<(f64, Vec<usize>)> {
        let passages: Vec<Arc<Passage>> =
            candidates.iter().map(|place| Arc::clone(&self.passages[*place])).collect();
        let start = Instant::now();
        let outcomes = pollster::block_on(self.reranker.score(&Call::new(), query, &passages))?;
        let mut scored = Vec::with_capacity(candidates.len());
        for (place, outcome) in candidates.iter().zip(outcomes) {
            scored.push((outcome?.score, *place));
        }
        scored.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        Ok((milliseconds(start), scored.into_iter().map(|(_, place)| place).collect()))
    }

    fn find(
        &self,
        retriever: &LateRetriever,
        query: &Query,
        depth: usize,
    ) -> Result<(f64, Vec<usize>)> {
        let start = Instant::now();
        let ranking = pollster::block_on(retriever.retrieve(&Call::new(), query, depth))?;
        let time = milliseconds(start);
        let hits = ranking.hits().iter();
        Ok((time, hits.map(|hit| self.places[&hit.passage.document]).collect()))
    }
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}
