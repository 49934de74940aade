//! A few passages about animals in memory: an index, its two retrievers, and a bi-encoder without a model.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use topshelf_core::filter::Subject;
use topshelf_core::{
    Blame, Bm25Options, Call, EmbedKind, Embedder, Error, ModelIdentity, Passage, Query, Ranking,
    Result, Retriever, Scale,
};
use topshelf_server::{
    AddedDocuments, Document, IndexCard, ModelCard, ModelRole, RemovedDocuments, ServeError,
};

use super::rerankers::{identity, overlap, words};

/// Words of a passage of middle length.
const MEAN_WORDS: f32 = 7.0;

/// Numbers of a vector.
const DIMENSION: usize = 4;

/// Tokens of a text that the bi-encoder reads, its two markers included.
const MAX_TOKENS: usize = 12;

/// An index in memory. A document is one passage.
#[derive(Debug, Clone)]
pub(crate) struct FakeIndex {
    name: &'static str,
    passages: Vec<Arc<Passage>>,
    generation: u64,
    writable: bool,
}

/// Finds passages by the words that they share with the query: their number, times what the options of BM25
/// make of it, which is 1 for the default ones.
struct ByWords(Vec<Arc<Passage>>, Bm25Options);

/// Finds passages by the cosine of their letters and the query's.
struct ByLetters(Vec<Arc<Passage>>);

/// Counts letters: a vector of length 1 for each text.
pub(crate) struct FakeEmbedder(ModelIdentity);

/// The index that can be changed.
pub(crate) fn animals() -> FakeIndex {
    let english = |year: u32| json!({"lang": "en", "year": year});
    let passages = vec![
        passage(
            "fleas.md#0",
            &["Fleas", "Life span"],
            "An adult flea may live a hundred days.",
            english(2024),
        ),
        passage(
            "fleas.md#1",
            &["Fleas", "Food"],
            "A flea drinks the blood of cats and dogs.",
            english(2024),
        ),
        passage("cats.md#0", &["Cats"], "Cats live for fifteen years.", english(2019)),
        passage("dogs.md#0", &["Dogs"], "Dogs sleep for half of the day.", english(2020)),
        passage(
            "hafen.md#0",
            &["Häfen"],
            "Schiffe löschen Kaffee im Hafen.",
            json!({"lang": "de"}),
        ),
    ];
    FakeIndex { name: "animals", passages, generation: 1, writable: true }
}

/// The index that cannot be changed.
pub(crate) fn archive() -> FakeIndex {
    let text = "A flea of the last century.";
    let passages = vec![passage("old.md#0", &["Old"], text, json!({"lang": "en"}))];
    FakeIndex { name: "archive", passages, generation: 7, writable: false }
}

fn passage(id: &str, headings: &[&str], text: &str, metadata: Value) -> Arc<Passage> {
    let mut passage = Passage::standalone(id, headings[0], text);
    id.split('#').next().unwrap_or(id).clone_into(&mut passage.document);
    passage.headings = headings[1..].iter().map(|heading| (*heading).to_owned()).collect();
    if let Value::Object(fields) = metadata {
        passage.metadata = fields;
    }
    Arc::new(passage)
}

impl FakeIndex {
    pub(crate) fn name(&self) -> &str {
        self.name
    }

    pub(crate) fn card(&self) -> IndexCard {
        let mut documents: Vec<&str> =
            self.passages.iter().map(|own| own.document.as_str()).collect();
        documents.dedup();
        IndexCard {
            name: self.name.to_owned(),
            documents: documents.len() as u64,
            passages: self.passages.len() as u64,
            embedder: self.writable.then(|| "letters".to_owned()),
            token_vectors: None,
            generation: self.generation,
            writable: self.writable,
        }
    }

    pub(crate) fn by_words(&self, options: Bm25Options) -> impl Retriever + 'static {
        ByWords(self.passages.clone(), options)
    }

    pub(crate) fn by_letters(&self) -> impl Retriever + 'static {
        ByLetters(self.passages.clone())
    }

    /// Adds documents. One without text is skipped; the id `full disk` fails, and `bomb` panics.
    pub(crate) fn add(
        &mut self,
        documents: Vec<Document>,
    ) -> std::result::Result<AddedDocuments, ServeError> {
        self.check_writable()?;
        let (mut added, mut replaced, mut unchanged, mut skipped) = (0, 0, 0, Vec::new());
        for document in documents {
            let Document { id, title, text, metadata } = document;
            assert!(id != "bomb", "the index has exploded");
            if id == "full disk" {
                return Err(Error::stage("index", Blame::Failure, "no space is left").into());
            }
            if text.trim().is_empty() {
                let message = "it has no text".to_owned();
                skipped.push(topshelf_server::answer::Notice { path: id, message });
                continue;
            }
            let new = passage(&format!("{id}#0"), &[&title], &text, Value::Object(metadata));
            match self.passages.iter().position(|own| own.document == id) {
                None => {
                    added += 1;
                    self.passages.push(new);
                }
                Some(place) if self.passages[place] == new => unchanged += 1,
                Some(place) => {
                    replaced += 1;
                    self.passages[place] = new;
                }
            }
        }
        self.generation += u64::from(added + replaced > 0);
        Ok(AddedDocuments { added, replaced, unchanged, skipped, index: self.card() })
    }

    pub(crate) fn remove(
        &mut self,
        ids: &[String],
    ) -> std::result::Result<RemovedDocuments, ServeError> {
        self.check_writable()?;
        let is_known = |id: &&String| self.passages.iter().any(|own| own.document == **id);
        let (known, unknown): (Vec<&String>, Vec<&String>) = ids.iter().partition(is_known);
        let (removed, unknown) = (known.len(), unknown.into_iter().cloned().collect());
        self.passages.retain(|own| !ids.contains(&own.document));
        self.generation += u64::from(removed > 0);
        Ok(RemovedDocuments { removed, unknown, index: self.card() })
    }

    fn check_writable(&self) -> std::result::Result<(), ServeError> {
        if self.writable {
            return Ok(());
        }
        Err(ServeError::ReadOnly { index: self.name.to_owned() })
    }
}

/// The passages that satisfy the query's filter.
fn allowed<'a>(
    passages: &'a [Arc<Passage>],
    query: &'a Query,
) -> impl Iterator<Item = &'a Arc<Passage>> {
    passages.iter().filter(|own| {
        let subject =
            Subject { document: &own.document, title: &own.title, metadata: &own.metadata };
        query.filter().is_none_or(|filter| filter.matches(subject))
    })
}

impl ByWords {
    fn score(&self, query: &str, passage: &Passage) -> f32 {
        let (text, all) = (words(&passage.text), words(&passage.model_text()));
        let in_text = overlap(query, &text) as f32;
        let above = overlap(query, &all) as f32 - in_text;
        let factor = |Bm25Options { k1, b, .. }| {
            let length = text.len() as f32 / MEAN_WORDS;
            (k1 + 1.0) / (1.0 - b + b * length)
        };
        let factor = factor(self.1) / factor(Bm25Options::default());
        (in_text + self.1.title_weight * above) * factor
    }
}

#[async_trait]
impl Retriever for ByWords {
    fn name(&self) -> &'static str {
        "bm25"
    }

    async fn retrieve(&self, _: &Call, query: &Query, depth: usize) -> Result<Ranking> {
        if words(query.text()).is_empty() {
            return Err(Error::NothingToLookUp {
                retriever: "bm25".to_owned(),
                query: query.shortened(),
                reason: "it has no word".to_owned(),
            });
        }
        let found = allowed(&self.0, query).filter_map(|passage| {
            let score = self.score(query.text(), passage);
            (score > 0.0).then(|| (Arc::clone(passage), score))
        });
        Ok(Ranking::new("bm25", Scale::Bm25, found)?.top(depth))
    }
}

#[async_trait]
impl Retriever for ByLetters {
    fn name(&self) -> &'static str {
        "dense"
    }

    async fn retrieve(&self, _: &Call, query: &Query, depth: usize) -> Result<Ranking> {
        let asked = vector(EmbedKind::Query, query.text());
        let found = allowed(&self.0, query).map(|passage| {
            let own = vector(EmbedKind::Passage, &passage.text);
            let cosine = asked.iter().zip(&own).map(|(left, right)| left * right).sum();
            (Arc::clone(passage), cosine)
        });
        Ok(Ranking::new("dense", Scale::Cosine, found)?.top(depth))
    }
}

/// Counts of the letters by their place in the alphabet, brought to length 1; a query also has one more of
/// the first kind.
fn vector(kind: EmbedKind, text: &str) -> Vec<f32> {
    let mut counts = [0.0_f32; DIMENSION];
    if kind == EmbedKind::Query {
        counts[0] += 1.0;
    }
    for letter in text.bytes().filter(u8::is_ascii_alphabetic) {
        counts[usize::from(letter) % DIMENSION] += 1.0;
    }
    let length = counts.iter().map(|count| count * count).sum::<f32>().sqrt().max(1.0);
    counts.iter().map(|count| count / length).collect()
}

impl FakeEmbedder {
    pub(crate) fn new() -> Self {
        Self(identity("letters"))
    }

    pub(crate) fn card(&self) -> ModelCard {
        ModelCard {
            name: self.0.name.clone(),
            aliases: vec!["text-embedding-3-small".to_owned()],
            role: ModelRole::Embedder,
            family: "bi-encoder".to_owned(),
            fingerprint: self.0.fingerprint.clone(),
            engine: self.0.engine.clone(),
            max_tokens: Some(MAX_TOKENS),
            dimension: Some(DIMENSION),
        }
    }
}

#[async_trait]
impl Embedder for FakeEmbedder {
    fn identity(&self) -> &ModelIdentity {
        &self.0
    }

    fn dimension(&self) -> usize {
        DIMENSION
    }

    fn max_tokens(&self) -> usize {
        MAX_TOKENS
    }

    fn count_tokens(&self, text: &str) -> usize {
        words(text).len()
    }

    async fn embed(&self, _: &Call, kind: EmbedKind, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        if texts.contains(&"a bomb") {
            return Err(Error::stage("letters", Blame::Failure, "it has exploded"));
        }
        Ok(texts.iter().map(|text| vector(kind, text)).collect())
    }
}
