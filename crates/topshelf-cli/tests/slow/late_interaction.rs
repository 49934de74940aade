//! Late interaction over stored vectors: what each tier costs in quality and time, beside the vectors
//! as they are and beside the cross-encoder.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::json;
use topshelf::chunk::Chunking;
use topshelf::eval::{BeirFolder, Measure, Qrels, Run, evaluate};
use topshelf::{
    AddOptions, Call, CrossEncoder, EmbedKind, Index, LateInteraction, LateOptions, ModelIdentity,
    Models, Passage, Query, RerankOutcome, RerankScore, Reranker, Result, Retriever, Scale,
    Settings, Tier, TokenEmbedder, TokenVectorInfo, TokenVectors, Writer,
};

use super::{root, run};

/// Queries of which the cross-encoder reads all candidates, for its time and its figure.
const CROSS_ENCODED: usize = 43;

/// The model, which encodes each text once.
struct Remembered {
    model: LateInteraction,
    known: Mutex<HashMap<(EmbedKind, String), TokenVectors>>,
}

impl Remembered {
    fn known(&self, kind: EmbedKind, text: &str) -> Option<TokenVectors> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&(kind, text.to_owned())).cloned()
    }
}

#[async_trait]
impl TokenEmbedder for Remembered {
    fn identity(&self) -> &ModelIdentity {
        TokenEmbedder::identity(&self.model)
    }

    fn dimension(&self) -> usize {
        self.model.dimension()
    }

    async fn embed_tokens(
        &self,
        call: &Call,
        kind: EmbedKind,
        texts: &[&str],
    ) -> Result<Vec<TokenVectors>> {
        let new: Vec<&str> =
            texts.iter().copied().filter(|text| self.known(kind, text).is_none()).collect();
        if !new.is_empty() {
            let vectors = self.model.embed_tokens(call, kind, &new).await?;
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.extend(new.iter().map(|text| (kind, (*text).to_owned())).zip(vectors));
        }
        Ok(texts.iter().filter_map(|text| self.known(kind, text)).collect())
    }
}

/// MaxSim of the vectors as they are, in f64.
#[async_trait]
impl Reranker for Remembered {
    fn identity(&self) -> &ModelIdentity {
        TokenEmbedder::identity(&self.model)
    }

    fn scale(&self) -> Scale {
        Scale::MaxSim
    }

    async fn score(
        &self,
        call: &Call,
        query: &Query,
        passages: &[Arc<Passage>],
    ) -> Result<Vec<RerankOutcome>> {
        let queries = self.embed_tokens(call, EmbedKind::Query, &[query.text()]).await?;
        let texts: Vec<String> = passages.iter().map(|passage| passage.model_text()).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let vectors = self.embed_tokens(call, EmbedKind::Passage, &texts).await?;
        let score = |passage: &TokenVectors| RerankScore::new(max_sim(&queries[0], passage));
        Ok(vectors.iter().map(|passage| Ok(score(passage))).collect())
    }
}

fn max_sim(queries: &TokenVectors, passage: &TokenVectors) -> f32 {
    let product = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let best = |query: &[f32]| {
        let all = passage.values.chunks(passage.dimension).map(|vector| product(query, vector));
        all.fold(f64::NEG_INFINITY, f64::max)
    };
    queries.values.chunks(queries.dimension).map(best).sum::<f64>() as f32
}

/// Judged queries of msmarco-dl19 with BM25's first hundred.
struct Collection {
    qrels: Qrels,
    topics: Vec<(String, Query, Vec<Arc<Passage>>)>,
}

fn collection() -> Option<Collection> {
    let folder = root().join("../shared/data/msmarco-dl19");
    if !folder.is_dir() {
        println!("../shared/data is not here: nothing to rerank");
        return None;
    }
    let run = Run::open(folder.join("runs/bm25-top100.trec")).expect("a run");
    let folder = BeirFolder::open(&folder).expect("a collection");
    let topics = folder.topics("test").expect("topics");
    let corpus = folder.corpus().expect("a corpus");
    let corpus: HashMap<String, String> = corpus
        .map(|document| document.map(|document| (document.id, document.text)).expect("a document"))
        .collect();
    let of_topic = |topic: topshelf::eval::Topic| {
        let documents = run.documents(&topic.id).iter();
        let passage = |id: &String| Arc::new(Passage::standalone(id, "", &corpus[id]));
        let passages = documents.map(|document| passage(&document.id)).collect();
        (topic.id, Query::new(&topic.text).expect("a query"), passages)
    };
    Some(Collection {
        qrels: topics.qrels,
        topics: topics.topics.into_iter().map(of_topic).collect(),
    })
}

/// nDCG@10 of a reranker over the first topics, and how long it took for each.
fn rerank(
    name: &str,
    reranker: &dyn Reranker,
    collection: &Collection,
    topics: usize,
) -> (f64, Vec<Duration>) {
    let (mut run, mut times) = (Run::new(name), Vec::new());
    for (id, query, passages) in collection.topics.iter().take(topics) {
        let start = Instant::now();
        let outcomes =
            pollster::block_on(reranker.score(&Call::new(), query, passages)).expect("scores");
        times.push(start.elapsed());
        let lines = passages.iter().zip(outcomes).map(|(passage, outcome)| {
            (passage.id.clone(), f64::from(outcome.expect("a score").score))
        });
        run.insert(id, lines).expect("a ranking");
    }
    let measure = Measure::parse_list("nDCG@10").expect("a measure");
    let evaluation = evaluate(&collection.qrels, &run, &measure).expect("figures");
    (evaluation.mean(measure[0]).expect("a figure"), times)
}

/// The best ten of the whole index for each topic, and how long it took to find them.
fn find(
    index: &Index,
    model: &Arc<Remembered>,
    options: LateOptions,
    collection: &Collection,
) -> (Vec<Vec<String>>, Vec<Duration>) {
    let model = Arc::clone(model) as Arc<dyn TokenEmbedder>;
    let late = index.late_interaction(model, options).expect("token vectors");
    let of_topic = |(_, query, _): &(String, Query, Vec<Arc<Passage>>)| {
        let start = Instant::now();
        let found = pollster::block_on(late.retrieve(&Call::new(), query, 10)).expect("a ranking");
        let time = start.elapsed();
        (found.into_hits().into_iter().map(|hit| hit.passage.id.clone()).collect(), time)
    };
    collection.topics.iter().map(of_topic).unzip()
}

fn median(times: &[Duration]) -> f64 {
    let mut times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 2]
}

#[test]
fn stored_vectors_keep_the_order_and_take_no_time() {
    let Some(collection) = collection() else { return };
    if !super::pace::affords("late interaction on msmarco-dl19", 750_000) {
        return;
    }
    run(&["models", "pull", "minilm-l12", "colbert"]);
    let model = LateInteraction::load("colbert").expect("a model");
    let model = Arc::new(Remembered { model, known: Mutex::default() });
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let corpus = scratch.path().join("corpus.jsonl");
    let passages = collection.topics.iter().flat_map(|(.., passages)| passages);
    let passages: BTreeMap<&str, &str> =
        passages.map(|passage| (passage.id.as_str(), passage.text.as_str())).collect();
    let lines = passages.iter().map(|(id, text)| json!({ "_id": id, "text": text }).to_string());
    std::fs::write(&corpus, lines.collect::<Vec<_>>().join("\n")).expect("a corpus");

    let mut tiers = BTreeMap::new();
    for tier in Tier::ALL {
        let dir = scratch.path().join(tier.name());
        let info = TokenVectorInfo::of(model.as_ref(), tier);
        let chunking = Chunking::Whole;
        let settings = Settings { token_vectors: Some(info), chunking, ..Settings::default() };
        let writer = Writer::create_or_open(&dir, &settings).expect("an index");
        let models = Models { embedder: None, tokens: Some(model.as_ref()) };
        let paths = [corpus.clone()];
        topshelf::add(writer, &paths, models, &AddOptions::default(), &mut |_| {}).expect("added");
        tiers.insert(tier.name(), Index::open(&dir).expect("an index"));
    }
    // Queries are known from here on, so that what follows is the time of the passages.
    let encoding: Vec<Duration> = collection
        .topics
        .iter()
        .map(|(_, query, _)| {
            let start = Instant::now();
            let _ = model.model.embed(EmbedKind::Query, &[query.text()]).expect("vectors");
            start.elapsed()
        })
        .collect();
    let all = collection.topics.len();
    let (exact, _) = rerank("f32", model.as_ref(), &collection, all);
    println!("late interaction: nDCG@10 {exact:.4} of the vectors as they are");
    // ONNX Runtime on the same file gives 0.7087, in batches of one.
    assert!((exact - 0.7087).abs() <= 0.004, "{exact}");
    println!("late interaction: {:.2} ms to encode a query", median(&encoding));
    let mut int8 = f64::NAN;
    for (tier, most) in [("f16", 0.002), ("int8", 0.002), ("4bit", 0.005), ("2bit", 0.015)] {
        let index = &tiers[tier];
        let stored = index.stored_tokens(Arc::clone(&model)).expect("stored vectors");
        let (figure, times) = rerank(tier, &stored, &collection, all);
        let kept = index.stats().expect("figures").tokens.expect("token vectors");
        println!(
            "late interaction: {tier} nDCG@10 {figure:.4}, {:.1} bytes a vector, {:.3} ms for {} \
             passages",
            kept.bytes_per_vector,
            median(&times),
            collection.topics[0].2.len()
        );
        assert!((figure - exact).abs() <= most, "{tier}: {figure} and {exact}");
        if tier == "int8" {
            int8 = median(&times);
        }
        let (right, looking) = find(index, &model, LateOptions::exact(), &collection);
        let (found, listed) = find(index, &model, LateOptions::default(), &collection);
        let shared = |(a, b): (&Vec<String>, &Vec<String>)| {
            a.iter().filter(|id| b.contains(id)).count() as f64 / b.len() as f64
        };
        let shared = found.iter().zip(&right).map(shared).sum::<f64>() / right.len() as f64;
        println!(
            "late interaction: {tier} finds {shared:.4} of the best 10 by lists, {:.2} ms; by a look \
             at each passage {:.2} ms",
            median(&listed),
            median(&looking)
        );
        assert!(shared > 0.95, "{tier}: {shared}");
    }
    // Twice what is aimed at: the machine has other guests.
    assert!(int8 < 2.0, "{int8} ms");
    let cross = CrossEncoder::load("minilm-l12").expect("a model");
    let (figure, times) = rerank("cross-encoder", &cross, &collection, CROSS_ENCODED);
    let ratio = median(&times) / (median(&encoding) + int8);
    println!(
        "late interaction: the cross-encoder nDCG@10 {figure:.4}, {:.0} ms; int8 with the query's \
         encoding is {ratio:.0} times as fast",
        median(&times)
    );
    assert!(ratio > 30.0, "{ratio}");
}
