//! Language models in this process: [`LocalModel`], over decoders in GGUF files.
//!
//! | for | see |
//! | --- | --- |
//! | what is in a file | `gguf` |
//! | text to ids, conversations to text | `vocabulary` |
//! | the packed weights | `weights` |
//! | the forward pass, caches of keys and values | `forward` |
//!
//! **What reranking needs is what is fast here.** Questions about one query begin alike: what they have
//! in common is read once. They are read side by side in large batches, and of the answer only as many
//! tokens are computed as are wanted: for a score one to three. An order of n passages is held to be one:
//! of each number only what is left to decide is computed, and everything between the numbers is given.

mod forward;
mod gguf;
mod vocabulary;
mod weights;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use topshelf_core::{
    Alternative, Ask, Call, LanguageModel, Message, ModelIdentity, PassageFailure, Prompt, Tell,
    Usage, Wanted, Written,
};
use topshelf_kernels::{Isa, top_k};

use self::forward::{Decoder, Prefix, SHARED, Sequence};
use self::gguf::Gguf;
use self::vocabulary::Vocabulary;
use crate::digest;
use crate::engine::default_threads;
use crate::error::{ModelError, Result};
use crate::golden;
use crate::spec::{Family, ModelFolder, ModelSpec};
use crate::worker::Worker;

/// The name of this stage in errors.
const STAGE: &str = "rerank";

/// Tokens that a conversation may have, at most; models that can read more would need more memory.
const CONTEXT: usize = 16_384;

/// Tokens, beside a common beginning, whose keys and values are in memory at once.
const BATCH: usize = 4096;

/// Alternatives that are told of a token, as endpoints do.
const ALTERNATIVES: usize = 20;

/// A language model that runs on this machine.
pub struct LocalModel {
    inner: Arc<Inner>,
    worker: Worker,
    identity: ModelIdentity,
}

struct Inner {
    name: String,
    decoder: Decoder,
    vocabulary: Vocabulary,
    context: usize,
    /// The beginning that the last questions had in common: the next may have it too.
    known: Mutex<Option<(Vec<u32>, Prefix)>>,
}

type Outcome = std::result::Result<Written, PassageFailure>;

impl LocalModel {
    /// The model in a GGUF file. At the first time its weights are packed, which takes some seconds,
    /// and kept beside it where the folder can be written to.
    ///
    /// # Errors
    ///
    /// [`ModelError::Io`] if it cannot be read, [`ModelError::Unsupported`] if it cannot be run.
    pub fn open(name: &str, path: &Path) -> Result<Self> {
        let dir = path.to_owned();
        let unsupported = |reason| ModelError::Unsupported { dir: dir.clone(), reason };
        let content = content(path).map_err(|source| ModelError::Io {
            what: "cannot read",
            path: dir.clone(),
            source,
        })?;
        let gguf = Gguf::open(path).map_err(unsupported)?;
        let vocabulary = Vocabulary::of(&gguf).map_err(unsupported)?;
        let threads = default_threads();
        let decoder = Decoder::open(path, gguf, &content, CONTEXT, threads).map_err(unsupported)?;
        let context = decoder.shape.context.min(CONTEXT);
        let isa = Isa::detect().map_err(|error| unsupported(error.to_string()))?;
        let identity = ModelIdentity {
            name: format!("llm:{name}"),
            fingerprint: format!("decoder 1 {content}"),
            engine: format!("native decoder int8 {isa}"),
        };
        let name = name.to_owned();
        let worker = Worker::start(&name)?;
        let known = Mutex::default();
        let inner = Arc::new(Inner { name, decoder, vocabulary, context, known });
        Ok(Self { inner, worker, identity })
    }
}

impl LocalModel {
    /// The model of a folder of the store.
    ///
    /// # Errors
    ///
    /// [`ModelError::WrongFamily`] for one of another family, [`ModelError::Golden`] if it does not
    /// answer what is known of it, and as [`Self::open`].
    pub fn from_folder(folder: &ModelFolder) -> Result<Self> {
        let ModelSpec { name, family, .. } = &folder.spec;
        if *family != Family::LanguageModel {
            return Err(ModelError::WrongFamily {
                name: name.clone(),
                found: family.to_string(),
                wanted: Family::LanguageModel.to_string(),
            });
        }
        let model = Self::open(name, &folder.weights())?;
        golden::check(folder, &model.identity.engine, |golden| {
            let prompt = Prompt::Chat(vec![Message::user(golden.query.clone())]);
            let ask = Ask { prompt, wanted: Wanted::Tokens, max_tokens: 1 };
            let token = golden.passage.clone();
            let inner = Arc::clone(&model.inner);
            model.worker.run_blocking(move |call| {
                let written = inner.write(&[ask], call)?.pop();
                let first = written.into_iter().flatten().flat_map(|written| written.alternatives);
                let found = first.flatten().find(|alternative| alternative.token == token);
                Ok(found.map_or(f32::NEG_INFINITY, |alternative| alternative.logprob))
            })
        })?;
        Ok(model)
    }
}

/// Tells one file's content from another's: its length, its first MiB, and a page of every MiB after.
fn content(path: &Path) -> std::io::Result<String> {
    const STEP: u64 = 1 << 20;
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut hash = Sha256::new();
    hash.update(length.to_le_bytes());
    let mut at = 0;
    while at < length {
        let wanted = if at == 0 { STEP } else { 4096 };
        file.seek(SeekFrom::Start(at))?;
        let mut page = Vec::new();
        std::io::copy(&mut (&mut file).take(wanted), &mut page)?;
        hash.update(&page);
        at += STEP;
    }
    Ok(digest::hex(&hash.finalize()))
}

/// A question on its way.
struct Job {
    place: usize,
    ids: Vec<u32>,
    wanted: Wanted,
    max_tokens: usize,
}

/// What is being written.
struct Draft {
    place: usize,
    wanted: Wanted,
    left: usize,
    written: Vec<u32>,
    alternatives: Vec<Vec<Alternative>>,
    /// Of an order: what is left, and the digits of the number that is being written.
    remaining: Vec<String>,
    digits: String,
    read: usize,
    is_done: bool,
}

impl Inner {
    fn inference(&self, reason: String) -> ModelError {
        ModelError::Inference { name: self.name.clone(), reason }
    }

    fn write(&self, asks: &[Ask], call: &Call) -> Result<Vec<Outcome>> {
        let fail = |reason: String| Err(PassageFailure { reason });
        let mut outcomes: Vec<Outcome> =
            asks.iter().map(|_| fail("it was not asked".into())).collect();
        let mut jobs = Vec::with_capacity(asks.len());
        for (place, ask) in asks.iter().enumerate() {
            match self.job(place, ask)? {
                Ok(job) => jobs.push(job),
                Err(failure) => outcomes[place] = Err(failure),
            }
        }
        let mut rest = jobs.as_slice();
        while !rest.is_empty() {
            let (run, common) = alike(rest);
            let prefix = self.beginning(&rest[0].ids[..common], run, call)?;
            let (of_run, others) = rest.split_at(run);
            let mut of_run = of_run;
            while !of_run.is_empty() {
                let mut tokens = 0;
                let fitting = of_run.iter().take_while(|job| {
                    tokens += job.ids.len() - common + job.max_tokens;
                    tokens <= BATCH
                });
                let (batch, after) = of_run.split_at(fitting.count().max(1));
                for (place, written) in self.batch(batch, prefix.as_ref(), common, call)? {
                    outcomes[place] = Ok(written);
                }
                of_run = after;
            }
            rest = others;
        }
        Ok(outcomes)
    }

    /// A question as ids, or why it cannot be asked.
    fn job(&self, place: usize, ask: &Ask) -> Result<std::result::Result<Job, PassageFailure>> {
        let ids = self.vocabulary.encode(&ask.prompt).map_err(|reason| self.inference(reason))?;
        let Ask { wanted, max_tokens, .. } = *ask;
        let (tokens, context) = (ids.len() + max_tokens, self.context);
        if ids.is_empty() || tokens > context {
            let reason =
                format!("{tokens} tokens do not fit into the {context} that the model reads");
            return Ok(Err(PassageFailure { reason }));
        }
        Ok(Ok(Job { place, ids, wanted, max_tokens }))
    }

    /// One answer, told as it is written.
    fn stream(&self, ask: &Ask, tell: &Tell, call: &Call) -> Result<Written> {
        let job = self.job(0, ask)?.map_err(|failure| self.inference(failure.reason))?;
        let mut draft = self.draft(&job);
        draft.read = job.ids.len();
        let capacity = job.ids.len() + job.max_tokens;
        let mut sequences = [Sequence::new(&self.decoder, None, capacity)];
        let mut next = job.ids;
        let mut told = String::new();
        while !draft.is_done {
            let logits = self.append(&mut sequences, &[&next], true, call)?.pop();
            next = self.advance(&mut draft, &logits.unwrap_or_default())?;
            let text = self.vocabulary.text(&draft.written);
            // Half of a character is told with its other half.
            if !text.ends_with(char::REPLACEMENT_CHARACTER)
                && let Some(new) = text.strip_prefix(&told)
                && !new.is_empty()
            {
                tell(new);
                told = text;
            }
        }
        Ok(self.written(draft, call))
    }

    /// Keys and values of a beginning, computed or known, where more than one question has it.
    fn beginning(&self, ids: &[u32], run: usize, call: &Call) -> Result<Option<Prefix>> {
        if ids.is_empty() {
            return Ok(None);
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, prefix)) = known.as_ref().filter(|(of, _)| of == ids) {
            return Ok(Some(prefix.clone()));
        }
        debug_assert!(run > 1, "one alone has nothing in common");
        let mut sequences = [Sequence::new(&self.decoder, None, ids.len())];
        self.append(&mut sequences, &[ids], false, call)?;
        let [sequence] = sequences;
        let prefix = sequence.into_prefix();
        *known = Some((ids.to_vec(), prefix.clone()));
        Ok(Some(prefix))
    }

    fn append(
        &self,
        sequences: &mut [Sequence],
        tokens: &[&[u32]],
        is_wanted: bool,
        call: &Call,
    ) -> Result<Vec<Vec<f32>>> {
        /// Why it ended.
        enum Ended {
            Gone,
            Failed(String),
        }
        impl From<String> for Ended {
            fn from(reason: String) -> Self {
                Self::Failed(reason)
            }
        }
        let check = || {
            if call.is_withdrawn() { Err(Ended::Gone) } else { Ok(()) }
        };
        self.decoder.append(sequences, tokens, is_wanted, check).map_err(|ended| match ended {
            // The error ends the work and is never seen.
            Ended::Gone => self.inference("the caller went away".to_owned()),
            Ended::Failed(reason) => self.inference(reason),
        })
    }

    /// Answers questions side by side, the first `common` tokens of which are in the prefix.
    fn batch(
        &self,
        jobs: &[Job],
        prefix: Option<&Prefix>,
        common: usize,
        call: &Call,
    ) -> Result<Vec<(usize, Written)>> {
        let mut drafts: Vec<Draft> = jobs.iter().map(|job| self.draft(job)).collect();
        let starts = self.order_start();
        let mut next: Vec<Vec<u32>> = jobs
            .iter()
            .map(|job| {
                let mut ids = job.ids[common..].to_vec();
                if matches!(job.wanted, Wanted::Permutation(_)) {
                    ids.extend(&starts);
                }
                ids
            })
            .collect();
        let mut sequences: Vec<Sequence> = next
            .iter()
            .zip(jobs)
            .map(|(ids, job)| Sequence::new(&self.decoder, prefix, ids.len() + job.max_tokens))
            .collect();
        for (draft, ids) in drafts.iter_mut().zip(&next) {
            draft.read = ids.len();
        }
        // What they have in common is counted with the first.
        if let Some(first) = drafts.first_mut() {
            first.read += common;
        }
        while drafts.iter().any(|draft| !draft.is_done) {
            let tokens: Vec<&[u32]> = next.iter().map(Vec::as_slice).collect();
            let logits = self.append(&mut sequences, &tokens, true, call)?;
            let active: Vec<usize> = (0..drafts.len()).filter(|&i| !next[i].is_empty()).collect();
            for (i, logits) in active.into_iter().zip(logits) {
                next[i] = self.advance(&mut drafts[i], &logits)?;
            }
        }
        Ok(drafts.into_iter().map(|draft| (draft.place, self.written(draft, call))).collect())
    }

    /// The answer; what it took is spent on the call.
    fn written(&self, draft: Draft, call: &Call) -> Written {
        call.spend(Usage {
            calls: 1,
            input_tokens: draft.read as u64,
            output_tokens: draft.written.len() as u64,
            ..Usage::default()
        });
        let text = self.vocabulary.text(&draft.written);
        Written { text, alternatives: draft.alternatives }
    }

    fn draft(&self, job: &Job) -> Draft {
        let count = match job.wanted {
            Wanted::Permutation(count) => count,
            Wanted::Text | Wanted::Tokens => 0,
        };
        Draft {
            place: job.place,
            wanted: job.wanted,
            left: job.max_tokens,
            written: match job.wanted {
                Wanted::Permutation(_) => self.order_start(),
                Wanted::Text | Wanted::Tokens => Vec::new(),
            },
            alternatives: Vec::new(),
            remaining: (1..=count).map(|number| number.to_string()).collect(),
            digits: String::new(),
            read: 0,
            is_done: job.max_tokens == 0,
        }
    }

    /// What an order begins with.
    fn order_start(&self) -> Vec<u32> {
        self.vocabulary.plain("[").unwrap_or_default()
    }

    /// Takes what comes next from the logits; answers the tokens that the model is to read then, none
    /// when it is done.
    fn advance(&self, draft: &mut Draft, logits: &[f32]) -> Result<Vec<u32>> {
        if let Wanted::Permutation(_) = draft.wanted {
            return self.advance_order(draft, logits);
        }
        if draft.wanted == Wanted::Tokens {
            draft.alternatives.push(self.alternatives(logits));
        }
        let best = largest(logits, 0..logits.len() as u32).unwrap_or_default();
        draft.left -= 1;
        if self.vocabulary.ends.contains(&best) {
            draft.is_done = true;
            return Ok(Vec::new());
        }
        draft.written.push(best);
        if draft.left == 0 {
            draft.is_done = true;
            return Ok(Vec::new());
        }
        Ok(vec![best])
    }

    /// The next digit of a number that is left, or its end and what stands before the next.
    fn advance_order(&self, draft: &mut Draft, logits: &[f32]) -> Result<Vec<u32>> {
        let ids = |text: &str| self.vocabulary.plain(text).map_err(|reason| self.inference(reason));
        let plain = |text: &str| ids(text).map(|ids| ids.first().copied().unwrap_or_default());
        // What may follow, and its token.
        let mut choices: Vec<(char, u32)> = Vec::new();
        for number in &draft.remaining {
            let Some(rest) = number.strip_prefix(draft.digits.as_str()) else { continue };
            let c = rest.chars().next().unwrap_or(']');
            if !choices.iter().any(|(known, _)| *known == c) {
                choices.push((c, plain(&c.to_string())?));
            }
        }
        let best = largest(logits, choices.iter().map(|(_, id)| *id));
        let Some(&(c, id)) = choices.iter().find(|(_, id)| Some(*id) == best) else {
            draft.is_done = true;
            return Ok(Vec::new());
        };
        let mut read = Vec::new();
        if c != ']' {
            draft.digits.push(c);
            read.push(id);
            let is_prefix = |number: &&String| number.starts_with(draft.digits.as_str());
            // Whether the number ends here is decided by the model only where it is open.
            if draft.remaining.iter().filter(is_prefix).count() > 1
                || !draft.remaining.contains(&draft.digits)
            {
                draft.written.push(id);
                return Ok(read);
            }
        }
        let digits = std::mem::take(&mut draft.digits);
        draft.remaining.retain(|number| *number != digits);
        match draft.remaining.as_slice() {
            // The last needs no model.
            [last] => {
                read.extend(ids(&format!("] > [{last}]"))?);
                draft.written.extend(&read);
                draft.is_done = true;
                Ok(Vec::new())
            }
            [] => {
                read.extend(ids("]")?);
                draft.written.extend(&read);
                draft.is_done = true;
                Ok(Vec::new())
            }
            _ => {
                read.extend(ids("] > [")?);
                draft.written.extend(&read);
                Ok(read)
            }
        }
    }

    /// The likeliest tokens with the logarithms of their probabilities.
    fn alternatives(&self, logits: &[f32]) -> Vec<Alternative> {
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|&x| f64::from((x - most).exp())).sum();
        let norm = most + sum.ln() as f32;
        let of = |(id, logit): (usize, f32)| Alternative {
            token: self.vocabulary.text(&[id as u32]),
            logprob: logit - norm,
        };
        top_k(logits, ALTERNATIVES, |_| true).into_iter().map(of).collect()
    }
}

/// How many of the first jobs begin alike, and with how many tokens: a multiple of [`SHARED`], shorter
/// than each of them; 0 for one alone.
fn alike(jobs: &[Job]) -> (usize, usize) {
    let same = |a: &[u32], b: &[u32]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let first = &jobs[0].ids;
    let (mut run, mut common) = (1, first.len() - 1);
    for job in &jobs[1..] {
        let with = same(first, &job.ids).min(job.ids.len() - 1);
        // Others begin here if they have clearly less in common.
        if run > 1 && with * 5 < common * 4 {
            break;
        }
        (run, common) = (run + 1, common.min(with));
    }
    if run == 1 { (1, 0) } else { (run, common / SHARED * SHARED) }
}

/// The one of these tokens with the largest logit, the first among equals.
fn largest(logits: &[f32], of: impl IntoIterator<Item = u32>) -> Option<u32> {
    let mut best: Option<(u32, f32)> = None;
    for id in of {
        let logit = *logits.get(id as usize)?;
        if best.is_none_or(|(_, most)| logit > most) {
            best = Some((id, logit));
        }
    }
    best.map(|(id, _)| id)
}

#[async_trait]
impl LanguageModel for LocalModel {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn context_tokens(&self) -> Option<usize> {
        Some(self.inner.context)
    }

    fn count_tokens(&self, text: &str) -> usize {
        self.inner.vocabulary.count(text)
    }

    async fn write(&self, call: &Call, asks: &[Ask]) -> topshelf_core::Result<Vec<Outcome>> {
        let (inner, asks) = (Arc::clone(&self.inner), asks.to_vec());
        let outcomes = self.worker.run(call, move |call| inner.write(&asks, call)).await;
        outcomes.map_err(|error| error.into_stage(STAGE))
    }

    async fn stream(&self, call: &Call, ask: &Ask, tell: Tell) -> topshelf_core::Result<Written> {
        let (inner, ask) = (Arc::clone(&self.inner), ask.clone());
        let written = self.worker.run(call, move |call| inner.stream(&ask, &tell, call)).await;
        written.map_err(|error| error.into_stage(STAGE))
    }
}
