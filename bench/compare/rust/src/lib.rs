//! The two Rust peers of the comparison, rten and candle, behind the line protocol that
//! `bench/compare/protocol.py` describes.
//!
//! Each binary implements [`Peer`] and hands it to [`serve`].

use std::cmp::Reverse;
use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use tokenizers::{Tokenizer, TruncationParams, TruncationStrategy};

/// Anything that goes wrong; it becomes the text of the `error` answer.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The window of every model compared here, special tokens included.
const WINDOW: usize = 512;

/// A pair as the model reads it.
pub struct Encoded {
    /// Token ids with special tokens, without padding.
    pub ids: Vec<u32>,
    /// The segment of each token.
    pub types: Vec<u32>,
}

/// A cross-encoder under comparison.
pub trait Peer: Sized {
    /// Loads what lies in `folder` for `threads` threads.
    fn load(folder: &Path, threads: usize) -> Result<Self>;

    /// One logit for each of the sequences, in their order; they come longest first.
    fn logits(&self, sequences: &[Encoded]) -> Result<Vec<f32>>;
}

/// A loaded peer and what it was sent.
struct Session<P> {
    peer: P,
    tokenizer: Tokenizer,
    workloads: HashMap<String, Vec<(String, String)>>,
}

/// Answers requests from standard input until it ends. An error is an answer too.
pub fn serve<P: Peer>() -> Result<()> {
    let mut session: Option<Session<P>> = None;
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let answer = answer(&mut session, &request)
            .unwrap_or_else(|error| json!({ "error": error.to_string() }));
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

fn answer<P: Peer>(session: &mut Option<Session<P>>, request: &Value) -> Result<Value> {
    if let Some(load) = request.get("load") {
        let start = Instant::now();
        let folder = Path::new(load["folder"].as_str().ok_or("load wants a folder")?);
        let threads = load["threads"].as_u64().ok_or("load wants threads")? as usize;
        let loaded = Session {
            peer: P::load(folder, threads)?,
            tokenizer: tokenizer(folder)?,
            workloads: HashMap::new(),
        };
        *session = Some(loaded);
        return Ok(json!({ "load_ms": milliseconds(start) }));
    }
    let session = session.as_mut().ok_or("nothing is loaded yet")?;
    if let Some(name) = request["workload"].as_str() {
        let pairs: Vec<(String, String)> = serde_json::from_value(request["pairs"].clone())?;
        let stored = pairs.len();
        session.workloads.insert(name.to_owned(), pairs);
        return Ok(json!({ "stored": stored }));
    }
    let name = request["run"].as_str().ok_or("not a request this peer knows")?;
    session.run(name)
}

impl<P: Peer> Session<P> {
    /// Tokenises and scores a workload; the time is that of both.
    fn run(&self, name: &str) -> Result<Value> {
        let pairs = self.workloads.get(name).ok_or("no such workload was sent")?;
        let start = Instant::now();
        let encodings =
            self.tokenizer.encode_batch_fast(pairs.clone(), true).map_err(|e| e.to_string())?;
        let sequences: Vec<Encoded> = encodings
            .iter()
            .map(|e| Encoded { ids: e.get_ids().to_vec(), types: e.get_type_ids().to_vec() })
            .collect();
        let mut places: Vec<usize> = (0..sequences.len()).collect();
        places.sort_by_key(|&place| Reverse(sequences[place].ids.len()));
        let mut slots: Vec<Option<Encoded>> = sequences.into_iter().map(Some).collect();
        let sorted: Vec<Encoded> = places.iter().filter_map(|&place| slots[place].take()).collect();
        let logits = self.peer.logits(&sorted)?;
        let mut scores = vec![0.0; logits.len()];
        for (&place, &logit) in places.iter().zip(&logits) {
            scores[place] = logit;
        }
        let ms = milliseconds(start);
        let tokens: usize = sorted.iter().map(|sequence| sequence.ids.len()).sum();
        scores.truncate(5);
        Ok(json!({ "ms": ms, "scores": scores, "tokens": tokens }))
    }
}

fn tokenizer(folder: &Path) -> Result<Tokenizer> {
    let mut tokenizer =
        Tokenizer::from_file(folder.join("tokenizer.json")).map_err(|e| e.to_string())?;
    let truncation = TruncationParams {
        max_length: WINDOW,
        strategy: TruncationStrategy::OnlySecond,
        ..TruncationParams::default()
    };
    tokenizer.with_truncation(Some(truncation)).map_err(|e| e.to_string())?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}
