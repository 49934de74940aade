//! Token vectors: stored in each tier, extended, removed, damaged; and MaxSim over them.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use topshelf_core::{
    Call, EmbedKind, ModelIdentity, Passage, Query, RerankOutcome, RerankScore, Reranker,
    Retriever, Scale, TokenEmbedder, TokenVectors,
};
use topshelf_index::{
    AddOptions, Index, IndexError, LateOptions, Models, Settings, Tier, TokenVectorInfo, Writer,
    add,
};

use super::support::{Shelf, text};

const DIMENSION: usize = 32;

/// A late-interaction model of words: each has a direction of its own, and all lie near one another,
/// as those of the real ones do.
pub(super) struct Words {
    identity: ModelIdentity,
    /// Passages encoded so far.
    encoded: AtomicUsize,
}

impl Words {
    pub(super) fn new(name: &str) -> Arc<Self> {
        let identity = ModelIdentity {
            name: name.to_owned(),
            fingerprint: format!("{name}-{DIMENSION}"),
            engine: "test".to_owned(),
        };
        Arc::new(Self { identity, encoded: AtomicUsize::new(0) })
    }

    fn vector(word: &str) -> Vec<f32> {
        let mut state = word.bytes().fold(0x9e37_79b9_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut vector: Vec<f32> = (0..DIMENSION)
            .map(|i| {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                let own = (state >> 40) as f32 / (1 << 24) as f32 - 0.5;
                own + if i % 3 == 0 { 0.6 } else { 0.2 }
            })
            .collect();
        let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        for x in &mut vector {
            *x /= norm;
        }
        vector
    }

    fn vectors(text: &str) -> TokenVectors {
        let values = text.split_whitespace().flat_map(Self::vector).collect();
        TokenVectors { dimension: DIMENSION, values, truncated_tokens: 0 }
    }

    /// MaxSim in f64, from the words themselves.
    fn exact(query: &str, passage: &str) -> f64 {
        let (queries, passages) = (Self::vectors(query), Self::vectors(passage));
        let product = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let best = |query: &[f32]| {
            let all = passages.values.chunks(DIMENSION).map(|vector| product(query, vector));
            all.fold(f64::NEG_INFINITY, f64::max)
        };
        queries.values.chunks(DIMENSION).map(best).sum()
    }
}

#[async_trait]
impl TokenEmbedder for Words {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn dimension(&self) -> usize {
        DIMENSION
    }

    async fn embed_tokens(
        &self,
        _: &Call,
        kind: EmbedKind,
        texts: &[&str],
    ) -> topshelf_core::Result<Vec<TokenVectors>> {
        if kind == EmbedKind::Passage {
            self.encoded.fetch_add(texts.len(), Ordering::Relaxed);
        }
        Ok(texts.iter().map(|text| Self::vectors(text)).collect())
    }
}

#[async_trait]
impl Reranker for Words {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn scale(&self) -> Scale {
        Scale::MaxSim
    }

    async fn score(
        &self,
        _: &Call,
        query: &Query,
        passages: &[Arc<Passage>],
    ) -> topshelf_core::Result<Vec<RerankOutcome>> {
        let score = |passage: &Arc<Passage>| {
            RerankScore::new(Self::exact(query.text(), &passage.model_text()) as f32)
        };
        Ok(passages.iter().map(|passage| Ok(score(passage))).collect())
    }
}

pub(super) fn settings(tier: Tier) -> Settings {
    let info = TokenVectorInfo::of(&*Words::new("words"), tier);
    Settings { token_vectors: Some(info), ..Settings::default() }
}

pub(super) fn shelf(tier: Tier, documents: std::ops::Range<u64>) -> Shelf {
    let shelf = Shelf::with(settings(tier));
    for n in documents {
        shelf.write(&format!("{n}.txt"), &text(n, 5, 120));
    }
    shelf
}

/// Brings the index up to date with the folder.
pub(super) fn bring(shelf: &Shelf) -> Result<(), IndexError> {
    let writer = Writer::create_or_open(&shelf.dir(), &shelf.settings)?;
    let words = Words::new("words");
    let models = Models { embedder: None, tokens: Some(&*words) };
    let options = AddOptions { sync: true, ..shelf.options() };
    add(writer, &[shelf.docs()], models, &options, &mut |_| {}).map(|_| ())
}

/// Each document's score, and the exact one.
fn scores(index: &Index, query: &str, documents: std::ops::Range<u64>) -> Vec<(f64, f64)> {
    let words = Words::new("words");
    let stored = index.stored_tokens(Arc::clone(&words)).unwrap();
    let passages = passages(index, documents);
    let query = Query::new(query).unwrap();
    let outcomes = pollster::block_on(stored.score(&Call::new(), &query, &passages)).unwrap();
    assert_eq!(words.encoded.load(Ordering::Relaxed), 0, "all are stored");
    let pairs = outcomes.into_iter().zip(&passages);
    let both = pairs.map(|(outcome, passage)| {
        let exact = Words::exact(query.text(), &passage.model_text());
        (f64::from(outcome.unwrap().score), exact)
    });
    both.collect()
}

fn passages(index: &Index, documents: std::ops::Range<u64>) -> Vec<Arc<Passage>> {
    documents.flat_map(|n| index.document(&format!("{n}.txt")).unwrap()).collect()
}

const QUERY: &str = "w1 w2 w30 w77 unheard";

fn worst(scores: &[(f64, f64)]) -> f64 {
    scores.iter().map(|(got, exact)| (got - exact).abs()).fold(0.0, f64::max)
}

#[test]
fn each_tier_is_as_near_as_its_bits_allow() {
    let mut sizes = Vec::new();
    for (tier, bound) in
        [(Tier::F16, 0.002), (Tier::Int8, 0.01), (Tier::FourBits, 0.06), (Tier::TwoBits, 0.4)]
    {
        let shelf = shelf(tier, 0..80);
        bring(&shelf).unwrap();
        let index = shelf.index();
        index.verify().unwrap();
        let found = worst(&scores(&index, QUERY, 0..80));
        assert!(found < bound, "{}: {found}", tier.name());
        let stats = index.stats().unwrap().tokens.unwrap();
        sizes.push(stats.bytes_per_vector);
        assert_eq!(stats.drift(), None);
    }
    assert!(sizes.windows(2).all(|pair| pair[0] > pair[1]), "{sizes:?}");
}

#[test]
fn later_passages_are_stored_against_what_was_learnt() {
    for tier in Tier::ALL {
        let shelf = shelf(tier, 0..40);
        bring(&shelf).unwrap();
        let codebooks = || shelf.files("tokens-codebook");
        let before = codebooks();
        assert_eq!(before.len(), 1);
        for n in 40..60 {
            shelf.write(&format!("{n}.txt"), &text(n, 5, 120));
        }
        shelf.delete("3.txt");
        bring(&shelf).unwrap();
        assert_eq!(codebooks(), before);
        let index = shelf.index();
        index.verify().unwrap();
        assert!(worst(&scores(&index, QUERY, 40..60)) < 0.5, "{}", tier.name());
        let stats = index.stats().unwrap().tokens.unwrap();
        assert_eq!(stats.drift().is_some(), tier != Tier::F16);
        assert!(stats.drift().is_none_or(|drift| drift < 3.0), "{:?}", stats.drift());
        // When most is gone, files are written anew without it.
        for n in (0..50).filter(|n| *n != 3) {
            shelf.delete(&format!("{n}.txt"));
        }
        bring(&shelf).unwrap();
        let index = shelf.index();
        index.verify().unwrap();
        assert!(worst(&scores(&index, QUERY, 50..60)) < 0.5);
        assert!(index.stats().unwrap().tokens.unwrap().vectors < stats.vectors / 2);
    }
}

#[test]
fn what_is_not_stored_is_encoded_and_other_models_get_nothing() {
    let shelf = shelf(Tier::Int8, 0..20);
    bring(&shelf).unwrap();
    let index = shelf.index();
    let words = Words::new("words");
    let stored = index.stored_tokens(Arc::clone(&words)).unwrap();
    let passage = Arc::new(Passage::standalone("p", "", "words that nobody indexed"));
    let query = Query::new("nobody indexed").unwrap();
    let outcomes = pollster::block_on(stored.score(&Call::new(), &query, &[passage])).unwrap();
    let score = outcomes[0].as_ref().unwrap().score;
    assert!((score - 2.0).abs() < 1e-4, "{score}");
    assert_eq!(words.encoded.load(Ordering::Relaxed), 1);
    assert!(index.stored_tokens(Words::new("others")).is_none());
    // An index keeps its model and its tier.
    for other in [settings(Tier::TwoBits), Settings::default()] {
        let error = Writer::create_or_open(&shelf.dir(), &other).err().unwrap();
        assert!(matches!(error, IndexError::SettingFixed { .. }), "{error}");
    }
    let writer = Writer::open(&shelf.dir()).unwrap();
    let error =
        add(writer, &[shelf.docs()], Models::default(), &AddOptions::default(), &mut |_| {});
    assert!(matches!(error, Err(IndexError::EmbedderMismatch { .. })));
}

#[test]
fn a_dimension_that_the_small_tiers_cannot_take_is_told() {
    let shelf = Shelf::with(settings(Tier::Int8));
    let mut odd = shelf.settings.clone();
    odd.token_vectors.as_mut().unwrap().dimension = 30;
    let error = Writer::create_or_open(&shelf.dir(), &odd).err().unwrap();
    assert!(matches!(error, IndexError::TokenDimension { dimension: 30 }), "{error}");
    let odd = settings(Tier::Int8).token_vectors.unwrap().reduced_to(Some(10));
    let odd = Settings { token_vectors: Some(odd), ..Settings::default() };
    let error = Writer::create_or_open(&Shelf::of_words().dir(), &odd).err().unwrap();
    assert!(matches!(error, IndexError::TokenDimension { dimension: 10 }), "{error}");
}

/// Every byte of the files of token vectors is under a checksum, and a file that is cut is told when
/// the index is opened.
#[test]
fn damage_is_told() {
    let shelf = shelf(Tier::FourBits, 0..10);
    bring(&shelf).unwrap();
    for name in shelf.files("tokens-") {
        let path = shelf.dir().join(&name);
        let whole = fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(whole.len() / 97 + 1) {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            fs::write(&path, &flipped).unwrap();
            let told = Index::open(shelf.dir()).and_then(|index| {
                // A damaged file may give wrong scores until it is verified, but never a panic.
                scores_whatever(&index);
                finds_whatever(&index);
                index.verify()
            });
            assert!(told.is_err(), "{name} at {at}");
        }
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(Index::open(shelf.dir()).is_err(), "{name}");
        fs::write(&path, &whole).unwrap();
    }
    shelf.index().verify().unwrap();
}

fn finds_whatever(index: &Index) {
    let options = LateOptions { probes: 2, candidates: 1, scan_up_to: 0 };
    let late = index.late_interaction(Words::new("words"), options).unwrap();
    let _ = pollster::block_on(late.retrieve(&Call::new(), &Query::new(QUERY).unwrap(), 1));
}

fn scores_whatever(index: &Index) {
    let stored = index.stored_tokens(Words::new("words")).unwrap();
    let passages = passages(index, 0..10);
    let _ = pollster::block_on(stored.score(&Call::new(), &Query::new(QUERY).unwrap(), &passages));
}
