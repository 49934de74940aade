//! What the tests share: an embedder of words, a folder of documents with an index, a generator
//! of texts.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use serde_json::{Value, json};
use topshelf_core::Bm25Options;
use topshelf_core::{
    Blame, Call, EmbedKind, Embedder, Error, Filter, ModelIdentity, Passage, Query, Retriever,
};
use topshelf_index::chunk::Chunking;
use topshelf_index::{
    AddEvent, AddOptions, AddReport, Index, Models, Precision, Result, Settings, Writer, add,
};

/// Numbers of a [`Bag`]'s vectors.
pub(super) const DIMENSION: usize = 64;

/// What a [`Bag`] does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// It fails once it has embedded so many texts.
    FailsAfter(usize),
    /// It leaves out the last vector.
    TooFew,
    /// Its vectors lack a number.
    TooShort,
    /// A number of its vectors is not one.
    NotANumber,
}

/// A bi-encoder of the oldest kind: a bag of words by feature hashing (Weinberger et al. 2009).
/// Each lower-cased word adds or subtracts 1 at one of [`DIMENSION`] places, both chosen by its
/// hash; the sum is scaled to unit length. Texts that share words have a high cosine. Text
/// without words is the zero vector.
pub(super) struct Bag {
    identity: ModelIdentity,
    fault: Fault,
    embedded: AtomicUsize,
}

impl Bag {
    pub(super) fn new() -> Arc<Self> {
        Self::with_fault(Fault::None)
    }

    pub(super) fn with_fault(fault: Fault) -> Arc<Self> {
        let identity = ModelIdentity {
            name: "bag".into(),
            fingerprint: "bag-64".into(),
            engine: "test".into(),
        };
        Arc::new(Self { identity, fault, embedded: AtomicUsize::new(0) })
    }

    /// The same words under the identity of another model.
    pub(super) fn other() -> Arc<Self> {
        let identity = ModelIdentity {
            name: "other".into(),
            fingerprint: "other-64".into(),
            engine: "test".into(),
        };
        Arc::new(Self { identity, fault: Fault::None, embedded: AtomicUsize::new(0) })
    }

    /// Texts embedded so far.
    pub(super) fn embedded(&self) -> usize {
        self.embedded.load(Ordering::Relaxed)
    }

    /// The vector of a text.
    pub(super) fn vector(text: &str) -> Vec<f32> {
        let mut vector = vec![0.0_f32; DIMENSION];
        for word in words(text) {
            let hash = fnv1a(&word);
            let sign = if hash >> 32 & 1 == 0 { 1.0 } else { -1.0 };
            vector[hash as usize % DIMENSION] += sign;
        }
        let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        if norm > 0.0 {
            for x in &mut vector {
                *x /= norm;
            }
        }
        vector
    }
}

fn words(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !c.is_alphanumeric());
    words.filter(|word| !word.is_empty()).map(str::to_lowercase)
}

/// FNV-1a with a final mix, so that the high bits depend on every byte.
fn fnv1a(word: &str) -> u64 {
    let hash = word.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 7
}

#[async_trait]
impl Embedder for Bag {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn dimension(&self) -> usize {
        DIMENSION
    }

    fn max_tokens(&self) -> usize {
        512
    }

    fn count_tokens(&self, text: &str) -> usize {
        words(text).count()
    }

    async fn embed(
        &self,
        _: &Call,
        _kind: EmbedKind,
        texts: &[&str],
    ) -> topshelf_core::Result<Vec<Vec<f32>>> {
        let before = self.embedded.fetch_add(texts.len(), Ordering::Relaxed);
        let mut vectors: Vec<Vec<f32>> = texts.iter().map(|text| Self::vector(text)).collect();
        match self.fault {
            Fault::None => {}
            Fault::FailsAfter(enough) if before + texts.len() <= enough => {}
            Fault::FailsAfter(_) => return Err(Error::stage("bag", Blame::Failure, "it is torn")),
            Fault::TooFew => drop(vectors.pop()),
            Fault::TooShort => vectors.iter_mut().for_each(|vector| vector.truncate(DIMENSION - 1)),
            Fault::NotANumber => vectors.iter_mut().for_each(|vector| vector[0] = f32::NAN),
        }
        Ok(vectors)
    }
}

/// A temporary folder with documents in `docs` and an index in `index`.
pub(super) struct Shelf {
    dir: tempfile::TempDir,
    pub(super) settings: Settings,
    /// Seconds of the last change of a file; each change is later, however fast a test is.
    clock: AtomicU64,
}

impl Shelf {
    /// With vectors of the given precision, by [`Bag`].
    pub(super) fn new(precision: Precision) -> Self {
        Self::with(Settings { precision, ..Settings::with_embedder(&*Bag::new()) })
    }

    /// Without vectors.
    pub(super) fn of_words() -> Self {
        Self::with(Settings::default())
    }

    /// One passage a document, until `settings.chunking` says otherwise.
    pub(super) fn with(settings: Settings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("docs")).unwrap();
        let settings = Settings { chunking: Chunking::Whole, ..settings };
        Self { dir, settings, clock: AtomicU64::new(1_700_000_000) }
    }

    pub(super) fn docs(&self) -> PathBuf {
        self.dir.path().join("docs")
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.dir.path().join("index")
    }

    /// Writes a document, later than all before.
    pub(super) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.docs().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        self.touch(name);
        path
    }

    /// Gives a document a new time of change.
    pub(super) fn touch(&self, name: &str) {
        let seconds = self.clock.fetch_add(1, Ordering::Relaxed);
        let file = File::options().write(true).open(self.docs().join(name)).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    }

    pub(super) fn delete(&self, name: &str) {
        fs::remove_file(self.docs().join(name)).unwrap();
    }

    /// Writes a file of records `{id, title, text}`.
    pub(super) fn write_records<'a>(
        &self,
        name: &str,
        records: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>,
    ) {
        let records = records
            .into_iter()
            .map(|(id, title, text)| json!({"id": id, "title": title, "text": text}));
        self.write_json(name, records);
    }

    pub(super) fn write_json(&self, name: &str, records: impl IntoIterator<Item = Value>) {
        let lines: Vec<String> = records.into_iter().map(|record| record.to_string()).collect();
        self.write(name, &(lines.join("\n") + "\n"));
    }

    /// Ids relative to the folder of documents, cut as the index cuts.
    pub(super) fn options(&self) -> AddOptions {
        AddOptions { relative_to: Some(self.docs()), ..AddOptions::default() }
    }

    pub(super) fn writer(&self) -> Result<Writer> {
        Writer::create_or_open(&self.dir(), &self.settings)
    }

    /// Adds all documents.
    pub(super) fn add(&self) -> AddReport {
        self.try_add(&*Bag::new(), &self.options()).unwrap()
    }

    /// Adds all documents and removes the vanished ones.
    pub(super) fn sync(&self) -> AddReport {
        let options = AddOptions { sync: true, ..self.options() };
        self.try_add(&*Bag::new(), &options).unwrap()
    }

    pub(super) fn try_add(
        &self,
        embedder: &dyn Embedder,
        options: &AddOptions,
    ) -> Result<AddReport> {
        self.try_add_paths(&[self.docs()], embedder, options, &mut |_| {})
    }

    pub(super) fn try_add_paths(
        &self,
        paths: &[PathBuf],
        embedder: &dyn Embedder,
        options: &AddOptions,
        on_event: &mut dyn FnMut(AddEvent<'_>),
    ) -> Result<AddReport> {
        let embedder = self.settings.embedder.is_some().then_some(embedder);
        add(self.writer()?, paths, Models { embedder, tokens: None }, options, on_event)
    }

    pub(super) fn index(&self) -> Index {
        Index::open(self.dir()).unwrap()
    }

    /// What the last commit says of the index.
    pub(super) fn state(&self) -> Value {
        state_of(&self.dir())
    }

    /// Names of the files in the index folder that begin with `prefix`.
    pub(super) fn files(&self, prefix: &str) -> Vec<String> {
        let names = fs::read_dir(self.dir()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names
            .map(|name| name.into_string().unwrap())
            .filter(|n| n.starts_with(prefix))
            .collect();
        names.sort();
        names
    }
}

/// What the last commit of an index says of it.
pub(super) fn state_of(dir: &Path) -> Value {
    let meta = fs::read_to_string(dir.join("text/meta.json")).unwrap();
    let meta: Value = serde_json::from_str(&meta).unwrap();
    serde_json::from_str(meta["payload"].as_str().unwrap()).unwrap()
}

/// Passage ids with scores, best first.
pub(super) type Answer = Vec<(String, f32)>;

pub(super) fn ask(retriever: &dyn Retriever, text: &str, depth: usize) -> Answer {
    ask_query(retriever, &Query::new(text).unwrap(), depth)
}

pub(super) fn ask_where(
    retriever: &dyn Retriever,
    text: &str,
    filter: &str,
    depth: usize,
) -> Answer {
    let query = Query::new(text).unwrap().with_filter(Filter::parse(filter).unwrap());
    ask_query(retriever, &query, depth)
}

fn ask_query(retriever: &dyn Retriever, query: &Query, depth: usize) -> Answer {
    let ranking = pollster::block_on(retriever.retrieve(&Call::new(), query, depth)).unwrap();
    ranking.hits().iter().map(|hit| (hit.passage.id.clone(), hit.score)).collect()
}

/// What an index answers to some queries, by all its retrievers.
pub(super) fn answers(index: &Index, queries: &[&str], depth: usize) -> Vec<Answer> {
    let bm25 = index.bm25(Bm25Options::default());
    let dense = index.settings().embedder.is_some().then(|| index.dense(Bag::new()).unwrap());
    let mut answers = Vec::new();
    for query in queries {
        answers.push(ask(&bm25, query, depth));
        answers.extend(dense.as_ref().map(|dense| ask(dense, query, depth)));
    }
    answers
}

pub(super) fn ids(answer: &Answer) -> Vec<&str> {
    answer.iter().map(|(id, _)| id.as_str()).collect()
}

/// The one passage of a document.
pub(super) fn passage(index: &Index, document: &str) -> Arc<Passage> {
    let mut passages = index.document(document).unwrap();
    assert_eq!(passages.len(), 1, "passages of {document}");
    passages.remove(0)
}

/// Copies a folder with all that is in it.
pub(super) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A text of `length` words out of `vocabulary`, the same for the same seed.
pub(super) fn text(seed: u64, length: usize, vocabulary: u64) -> String {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
    let words: Vec<String> = (0..length)
        .map(|_| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15); // splitmix64
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            format!("w{}", (z ^ (z >> 31)) % vocabulary)
        })
        .collect();
    words.join(" ")
}
