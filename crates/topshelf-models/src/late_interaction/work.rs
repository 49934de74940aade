//! What is asked of a late-interaction model, in pieces: [`Embedding`], [`Scoring`], [`Explaining`].

use std::sync::Arc;

use topshelf_core::{
    EmbedKind, PassageFailure, RerankOutcome, RerankScore, TokenMatch, TokenVectors,
};
use topshelf_kernels::attention::{pack_keys, packed_keys_len};
use topshelf_kernels::max_sim;

use super::Late;
use crate::encoder::Sequence;
use crate::error::Result;
use crate::portions::Portions;
use crate::queue::{Piecework, Sequences};

/// Why a sequence has no vectors.
const NO_DIRECTION: &str = "it has a vector without a direction";

/// About how many tokens there are of these texts.
fn guess(model: &Late, kind: EmbedKind, texts: &[String]) -> usize {
    let limit = model.limit(kind);
    match (kind, model.mask) {
        (EmbedKind::Query, Some(_)) => limit * texts.len(),
        _ => texts.iter().map(|text| model.loaded.tokenizer.guess(text.len()).min(limit)).sum(),
    }
}

/// Texts on their way to their vectors.
pub(super) struct Embedding {
    model: Arc<Late>,
    kind: EmbedKind,
    texts: Portions,
    /// Of each text.
    truncated: Vec<usize>,
    vectors: Vec<TokenVectors>,
}

impl Embedding {
    pub(super) fn new<T: AsRef<str>>(model: &Arc<Late>, kind: EmbedKind, texts: &[T]) -> Self {
        Self {
            model: Arc::clone(model),
            kind,
            texts: Portions::of(texts.iter().map(|text| text.as_ref().to_owned()).collect()),
            truncated: Vec::with_capacity(texts.len()),
            vectors: vec![TokenVectors::default(); texts.len()],
        }
    }
}

impl Piecework for Embedding {
    type Answer = Vec<TokenVectors>;

    fn guess(&self) -> usize {
        guess(&self.model, self.kind, self.texts.texts())
    }

    fn read(&mut self, room: &mut usize) -> Result<Option<Sequences>> {
        let model = &self.model;
        if !self.texts.read(room, |texts| model.tokenise(self.kind, texts)) {
            return Ok(None);
        }
        let mut all = Vec::with_capacity(self.vectors.len());
        for ids in self.texts.take_ids() {
            let assembled = model.read(self.kind, &ids?);
            self.truncated.push(assembled.truncated_tokens);
            all.push(assembled.sequence);
        }
        Ok(Some(Sequences { all, leading: 0 }))
    }

    fn take(&mut self, index: usize, sequence: &Sequence, rows: &[f32]) -> Result<()> {
        let vectors = self.model.vectors(self.kind, &sequence.ids, rows);
        let failed = || self.model.loaded.failed(format!("text {index}: {NO_DIRECTION}"));
        let truncated_tokens = self.truncated[index];
        self.vectors[index] = TokenVectors { truncated_tokens, ..vectors.ok_or_else(failed)? };
        Ok(())
    }

    fn finish(self) -> Result<Vec<TokenVectors>> {
        Ok(self.vectors)
    }
}

/// Documents on their way to their scores. The query's sequence leads, so that no document's vectors
/// have to be kept. One that cannot be read fails alone.
pub(super) struct Scoring {
    model: Arc<Late>,
    query: String,
    documents: Portions,
    queries: TokenVectors,
    outcomes: Vec<RerankOutcome>,
    /// The place of the outcome of each sequence after the first, and the tokens that were cut off.
    of_sequence: Vec<(usize, usize)>,
    /// A document's vectors as the kernel reads them, and what it works in.
    packed: Vec<f32>,
    best: Vec<f32>,
}

impl Scoring {
    pub(super) fn new(model: &Arc<Late>, query: &str, documents: Vec<String>) -> Self {
        Self {
            model: Arc::clone(model),
            query: query.to_owned(),
            documents: Portions::of(documents),
            queries: TokenVectors::default(),
            outcomes: Vec::new(),
            of_sequence: Vec::new(),
            packed: Vec::new(),
            best: Vec::new(),
        }
    }

    /// The MaxSim of the query with a document of these vectors.
    fn score(&mut self, vectors: &TokenVectors) -> f32 {
        let (count, dimension) = (vectors.count(), vectors.dimension);
        self.packed.resize(packed_keys_len(count, dimension), 0.0);
        pack_keys(&vectors.values, dimension, count, dimension, &mut self.packed);
        max_sim(&self.queries.values, dimension, &self.packed, count, &mut self.best)
    }
}

impl Piecework for Scoring {
    type Answer = Vec<RerankOutcome>;

    fn guess(&self) -> usize {
        guess(&self.model, EmbedKind::Query, std::slice::from_ref(&self.query))
            + guess(&self.model, EmbedKind::Passage, self.documents.texts())
    }

    fn read(&mut self, room: &mut usize) -> Result<Option<Sequences>> {
        let model = &self.model;
        if !self.documents.read(room, |texts| model.tokenise(EmbedKind::Passage, texts)) {
            return Ok(None);
        }
        let query = model.read(EmbedKind::Query, &model.loaded.tokenizer.tokenise(&self.query)?);
        self.queries.truncated_tokens = query.truncated_tokens;
        let mut all = vec![query.sequence];
        for (index, ids) in self.documents.take_ids().into_iter().enumerate() {
            let reason = match ids {
                Ok(ids) => {
                    let assembled = model.read(EmbedKind::Passage, &ids);
                    self.of_sequence.push((index, assembled.truncated_tokens));
                    all.push(assembled.sequence);
                    "it was not read".to_owned()
                }
                Err(error) => error.to_string(),
            };
            self.outcomes.push(Err(PassageFailure { reason }));
        }
        Ok(Some(Sequences { all, leading: 1 }))
    }

    fn take(&mut self, index: usize, sequence: &Sequence, rows: &[f32]) -> Result<()> {
        let kind = if index == 0 { EmbedKind::Query } else { EmbedKind::Passage };
        let vectors = self.model.vectors(kind, &sequence.ids, rows);
        let Some(index) = index.checked_sub(1) else {
            let failed = || self.model.loaded.failed(format!("the query: {NO_DIRECTION}"));
            let truncated_tokens = self.queries.truncated_tokens;
            self.queries = TokenVectors { truncated_tokens, ..vectors.ok_or_else(failed)? };
            self.best = vec![0.0; self.queries.count()];
            return Ok(());
        };
        let (place, truncated_tokens) = self.of_sequence[index];
        let score = vectors.map(|vectors| self.score(&vectors));
        self.outcomes[place] = match score {
            Some(score) if score.is_finite() => Ok(RerankScore {
                truncated_tokens,
                query_truncated_tokens: self.queries.truncated_tokens,
                ..RerankScore::new(score)
            }),
            Some(_) => Err(PassageFailure { reason: "it has no token with a vector".to_owned() }),
            None => Err(PassageFailure { reason: NO_DIRECTION.to_owned() }),
        };
        Ok(())
    }

    fn finish(self) -> Result<Vec<RerankOutcome>> {
        Ok(self.outcomes)
    }
}

/// A query and a passage on their way to the matches between their tokens.
pub(super) struct Explaining {
    model: Arc<Late>,
    query: String,
    passage: String,
    /// Of query and passage.
    ids: [Vec<u32>; 2],
    vectors: [TokenVectors; 2],
    truncated_tokens: usize,
}

impl Explaining {
    pub(super) fn new(model: &Arc<Late>, query: &str, passage: String) -> Self {
        Self {
            model: Arc::clone(model),
            query: query.to_owned(),
            passage,
            ids: Default::default(),
            vectors: Default::default(),
            truncated_tokens: 0,
        }
    }
}

const KINDS: [EmbedKind; 2] = [EmbedKind::Query, EmbedKind::Passage];

impl Piecework for Explaining {
    type Answer = Vec<TokenMatch>;

    fn guess(&self) -> usize {
        let texts = [&self.query, &self.passage];
        let of = |(kind, text)| guess(&self.model, kind, std::slice::from_ref(text));
        KINDS.into_iter().zip(texts).map(of).sum()
    }

    fn read(&mut self, _room: &mut usize) -> Result<Option<Sequences>> {
        let mut all = Vec::with_capacity(KINDS.len());
        for ((kind, text), ids) in
            KINDS.into_iter().zip([&self.query, &self.passage]).zip(&mut self.ids)
        {
            let assembled = self.model.read(kind, &self.model.loaded.tokenizer.tokenise(text)?);
            self.truncated_tokens = assembled.truncated_tokens; // the passage's in the end
            ids.clone_from(&assembled.sequence.ids);
            all.push(assembled.sequence);
        }
        Ok(Some(Sequences { all, leading: 0 }))
    }

    fn take(&mut self, index: usize, sequence: &Sequence, rows: &[f32]) -> Result<()> {
        let vectors = self.model.vectors(KINDS[index], &sequence.ids, rows);
        let failed = || self.model.loaded.failed(NO_DIRECTION.to_owned());
        self.vectors[index] = vectors.ok_or_else(failed)?;
        Ok(())
    }

    /// For each query vector the passage's vector that answers it best.
    fn finish(self) -> Result<Vec<TokenMatch>> {
        let Self { model, passage, ids: [of_query, of_passage], truncated_tokens, .. } = self;
        let [queries, passages] = self.vectors;
        let tokenizer = &model.loaded.tokenizer;
        let mut spans = tokenizer.spans(&passage)?;
        spans.truncate(spans.len() - truncated_tokens);
        let before = tokenizer.single_start() + usize::from(model.passage_marker.is_some());
        let kept: Vec<usize> = (0..of_passage.len())
            .filter(|&place| model.has_vector(EmbedKind::Passage, of_passage[place]))
            .collect();
        let matches = queries.values.chunks_exact(queries.dimension).zip(of_query).filter_map(
            |(vector, id)| {
                let similar =
                    |other: &[f32]| vector.iter().zip(other).map(|(q, d)| q * d).sum::<f32>();
                let all = passages.values.chunks_exact(passages.dimension).map(similar).enumerate();
                let (best, similarity) = all.max_by(|a, b| a.1.total_cmp(&b.1))?;
                let place = kept[best];
                let span = place.checked_sub(before).and_then(|place| spans.get(place).cloned());
                Some(TokenMatch {
                    query: tokenizer.token(id),
                    passage: tokenizer.token(of_passage[place]),
                    span: span.unwrap_or_default(),
                    similarity,
                })
            },
        );
        Ok(matches.collect())
    }
}
