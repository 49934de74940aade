//! Every stage asked once for every query, and replayed as often as one likes.
//!
//! A [`Recording`] holds, for each query, what the retrievers found and what the rerankers said of
//! every passage that some setup would ask them about. To replay it is to run a setup on it: the
//! real fusion, the real second stage with all its policies, over a reranker that looks its answers
//! up. Times are replayed, too: a retriever's as it was measured; a reranker's as the bytes that it
//! would read times the pace that was measured on a sample of queries, without any cache. So is what it
//! costs ([`crate::rate`]).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use topshelf_core::{
    Call, Error, FirstStageSetup, ModelIdentity, Passage, Query, Ranking, RerankOutcome, Reranker,
    Retriever, RetrieverKind, Scale, Setup,
};

use crate::error::{Result, TuneError};
use crate::rate::{Paid, Rate};

/// Queries on which a reranker's pace is measured.
const TIMED: usize = 12;

/// Candidates of each that are scored for it.
const TIMED_DEPTH: usize = 30;

/// Bytes of a passage beyond which it does not take longer: no reranker reads more windows.
const LONGEST: usize = 16_384;

/// The stages that a setup may be made of.
#[derive(Clone, Default)]
pub struct Stages {
    /// By words.
    pub bm25: Option<Arc<dyn Retriever>>,
    /// By meaning.
    pub dense: Option<Arc<dyn Retriever>>,
    /// The rerankers, cheapest first.
    pub rerankers: Vec<Contender>,
}

/// A reranker that may take part.
#[derive(Clone)]
pub struct Contender {
    /// The name by which it is loaded.
    pub name: String,
    /// The reranker, behind a cache if there is one.
    pub reranker: Arc<dyn Reranker>,
    /// The same without a cache, for its pace.
    pub bare: Arc<dyn Reranker>,
}

/// What all stages answered.
pub struct Recording {
    pub(crate) queries: Vec<Recorded>,
    pub(crate) models: Vec<Model>,
}

/// What they answered to one query.
pub(crate) struct Recorded {
    pub(crate) id: String,
    pub(crate) query: Query,
    /// At each depth, since what stands at the cut may be decided by a tie.
    bm25: BTreeMap<usize, Found>,
    dense: BTreeMap<usize, Found>,
    /// For each model, by passage.
    scores: Vec<Arc<HashMap<String, RerankOutcome>>>,
}

struct Found {
    ranking: Ranking,
    milliseconds: f64,
}

/// A reranker that was asked.
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) identity: ModelIdentity,
    scale: Scale,
    rate: Rate,
}

/// One query's way through a setup.
pub(crate) struct Replayed {
    pub(crate) candidates: Ranking,
    pub(crate) ranking: Ranking,
    /// How long it would have taken.
    pub(crate) milliseconds: f64,
    /// Pairs that a reranker would have scored.
    pub(crate) pairs: usize,
    /// What they would have cost, where rerankers are paid by use.
    pub(crate) paid: Option<Paid>,
}

/// Asks the stages, each query twice: the retrievers first, then the rerankers. `first_stages` says
/// which candidates will be wanted; `progress` is told how many of the two times as many are done.
///
/// # Errors
///
/// What a stage answers, save that a query of which a retriever can look nothing up finds nothing;
/// [`TuneError::NothingFound`] if that is so of all.
pub async fn record(
    stages: &Stages,
    queries: &[(String, Query)],
    first_stages: &[FirstStageSetup],
    progress: &mut (dyn FnMut(usize) + Send),
) -> Result<Recording> {
    let depths: BTreeSet<usize> = first_stages.iter().map(|first| first.depth).collect();
    let mut recorded = Vec::with_capacity(queries.len());
    let mut known = HashMap::new();
    for (id, query) in queries {
        let own = Recorded {
            id: id.clone(),
            query: query.clone(),
            bm25: find(stages.bm25.as_deref(), query, &depths, &mut known).await?,
            dense: find(stages.dense.as_deref(), query, &depths, &mut known).await?,
            scores: Vec::new(),
        };
        recorded.push(own);
        progress(recorded.len());
    }
    if recorded.iter().all(|query| query.deepest().all(Ranking::is_empty)) {
        return Err(TuneError::NothingFound);
    }
    let mut models = Vec::new();
    for contender in &stages.rerankers {
        let identity = contender.reranker.identity().clone();
        let (name, scale) = (contender.name.clone(), contender.reranker.scale());
        let call = Call::new();
        let rate = rate(&call, contender.bare.as_ref(), &recorded).await;
        let rate = rate.map_err(|error| after_spending(error, &call))?;
        models.push(Model { name, identity, scale, rate });
    }
    for (done, own) in recorded.iter_mut().enumerate() {
        let passages = own.wanted(first_stages)?;
        for contender in &stages.rerankers {
            let call = Call::new();
            let scoring = contender.reranker.score(&call, &own.query, &passages);
            let outcomes = scoring.await.map_err(|error| error.after_spending(call.spent()))?;
            if outcomes.len() != passages.len() {
                let (stage, expected) = (contender.name.clone(), passages.len());
                return Err(Error::ScoreCount { stage, expected, got: outcomes.len() }.into());
            }
            let ids = passages.iter().map(|passage| passage.id.clone());
            own.scores.push(Arc::new(ids.zip(outcomes).collect()));
        }
        progress(queries.len() + done + 1);
    }
    Ok(Recording { queries: recorded, models })
}

/// The same with what was spent before it.
fn after_spending(error: TuneError, call: &Call) -> TuneError {
    match error {
        TuneError::Core(error) => TuneError::Core(error.after_spending(call.spent())),
        other => other,
    }
}

/// What a retriever finds at each depth. Passages that are `known` are kept once.
async fn find(
    retriever: Option<&dyn Retriever>,
    query: &Query,
    depths: &BTreeSet<usize>,
    known: &mut HashMap<String, Arc<Passage>>,
) -> Result<BTreeMap<usize, Found>> {
    let mut at_depths = BTreeMap::new();
    let Some(retriever) = retriever else { return Ok(at_depths) };
    for depth in depths {
        let start = Instant::now();
        let ranking = match retriever.retrieve(&Call::new(), query, *depth).await {
            Ok(ranking) => ranking,
            Err(Error::NothingToLookUp { .. }) => {
                Ranking::new(retriever.name(), Scale::Rank, std::iter::empty())?
            }
            Err(error) => return Err(error.into()),
        };
        let milliseconds = start.elapsed().as_secs_f64() * 1e3;
        let scale = ranking.scale();
        let found = ranking.into_hits().into_iter().map(|hit| {
            let id = hit.passage.id.clone();
            (Arc::clone(known.entry(id).or_insert(hit.passage)), hit.score)
        });
        let ranking = Ranking::new(retriever.name(), scale, found.collect::<Vec<_>>())?;
        at_depths.insert(*depth, Found { ranking, milliseconds });
    }
    Ok(at_depths)
}

/// What it takes: the median time of a byte over a sample of queries, and what is paid for them all.
async fn rate(call: &Call, reranker: &dyn Reranker, queries: &[Recorded]) -> Result<Rate> {
    let (mut rate, mut paces) = (Rate::default(), Vec::new());
    let step = queries.len().div_ceil(TIMED).max(1);
    for query in queries.iter().step_by(step) {
        let hits = query.deepest().flat_map(|ranking| ranking.hits().iter().take(TIMED_DEPTH));
        let passages: Vec<Arc<Passage>> = hits.map(|hit| Arc::clone(&hit.passage)).collect();
        if passages.is_empty() {
            continue;
        }
        let bytes: usize = passages.iter().map(|passage| bytes(&query.query, passage)).sum();
        let part = call.part();
        reranker.score(&part, &query.query, &passages).await?;
        paces.push(part.began().elapsed().as_secs_f64() * 1e3 / bytes as f64);
        rate.learn(bytes, passages.len(), part.spent());
    }
    paces.sort_by(f64::total_cmp);
    rate.pace = paces.get(paces.len() / 2).copied().unwrap_or_default();
    Ok(rate)
}

fn bytes(query: &Query, passage: &Passage) -> usize {
    query.text().len() + passage.text.len().min(LONGEST)
}

impl Recorded {
    /// What each retriever found at the greatest depth.
    fn deepest(&self) -> impl Iterator<Item = &Ranking> {
        let deepest = [&self.bm25, &self.dense].map(BTreeMap::last_key_value);
        deepest.into_iter().flatten().map(|(_, found)| &found.ranking)
    }

    /// The candidates of a first stage and the milliseconds that it takes.
    fn candidates(&self, first: &FirstStageSetup) -> Result<(Ranking, f64)> {
        let retrievers = first.retrievers();
        if retrievers.contains(RetrieverKind::Colbert) {
            return Err(TuneError::NothingFound); // it is not asked
        }
        let of = |wanted: bool, found: &BTreeMap<usize, Found>| {
            let found = found.get(&first.depth).filter(|_| wanted)?;
            Some((found.ranking.clone(), found.milliseconds))
        };
        let found = [
            of(retrievers.contains(RetrieverKind::Bm25), &self.bm25),
            of(retrievers.contains(RetrieverKind::Dense), &self.dense),
        ];
        let (mut rankings, times): (Vec<Ranking>, Vec<f64>) = found.into_iter().flatten().unzip();
        let ranking = match (retrievers.are_fused(), rankings.pop()) {
            (true, Some(last)) => {
                rankings.push(last);
                first.fusion.clone().unwrap_or_default().fuse(rankings)?
            }
            (_, Some(only)) => only,
            (_, None) => return Err(TuneError::NothingFound),
        };
        // At most: they are asked together, and share the processors.
        Ok((ranking.top(first.depth), times.iter().sum()))
    }

    /// Every passage that is a candidate in one of the first stages, once.
    fn wanted(&self, first_stages: &[FirstStageSetup]) -> Result<Vec<Arc<Passage>>> {
        let (mut wanted, mut seen) = (Vec::new(), HashSet::new());
        for first in first_stages {
            for hit in self.candidates(first)?.0.into_hits() {
                if seen.insert(hit.passage.id.clone()) {
                    wanted.push(hit.passage);
                }
            }
        }
        Ok(wanted)
    }

    /// The passages that a model was asked about.
    pub(crate) fn scored_by(&self, model: usize) -> impl Iterator<Item = &str> {
        self.scores.get(model).into_iter().flat_map(|scores| scores.keys().map(String::as_str))
    }

    /// What a model said of a passage; `None` if it was not asked or could not score it.
    pub(crate) fn score(&self, model: usize, passage: &str) -> Option<f32> {
        let outcome = self.scores.get(model)?.get(passage)?;
        outcome.as_ref().ok().map(|scored| scored.score)
    }
}

impl Recording {
    /// The ids of the queries, in their order.
    pub fn ids(&self) -> Vec<String> {
        self.queries.iter().map(|query| query.id.clone()).collect()
    }

    /// The pairs that were scored, over all rerankers.
    pub fn pairs(&self) -> usize {
        let scores = self.queries.iter().flat_map(|query| &query.scores);
        scores.map(|scores| scores.len()).sum()
    }

    /// The place of a model.
    pub(crate) fn model(&self, name: &str) -> Result<usize> {
        self.models.iter().position(|model| model.name == name).ok_or_else(|| {
            let problem = format!("the reranker {name} was not recorded");
            Error::stage("tune", topshelf_core::Blame::Caller, problem).into()
        })
    }

    /// Whether words and whether meanings were looked up.
    pub(crate) fn has(&self) -> (bool, bool) {
        let has = |found: fn(&Recorded) -> bool| self.queries.iter().any(found);
        (has(|query| !query.bm25.is_empty()), has(|query| !query.dense.is_empty()))
    }

    /// The scale of a model's scores.
    pub(crate) fn scale(&self, model: usize) -> Scale {
        self.models[model].scale
    }

    /// Runs a setup for one query, of whose answer the first `top` matter.
    pub(crate) fn replay(&self, setup: &Setup, query: usize, top: usize) -> Result<Replayed> {
        let own = &self.queries[query];
        let (candidates, mut milliseconds) = own.candidates(&setup.first_stage)?;
        let spent = Arc::new(Mutex::new(Spent::default()));
        let Some(stage) = self.second_stage(setup, query, &spent)? else {
            let ranking = candidates.clone();
            return Ok(Replayed { candidates, ranking, milliseconds, pairs: 0, paid: None });
        };
        let call = Call::new();
        let run = stage.run(&call, &own.query, &candidates, top);
        let (ranking, report) = pollster::block_on(run)?;
        let spent = *spent.lock().unwrap_or_else(PoisonError::into_inner);
        milliseconds += spent.milliseconds;
        let pairs = report.rerankers.iter().map(|ran| ran.pairs).sum();
        Ok(Replayed { candidates, ranking, milliseconds, pairs, paid: spent.paid })
    }

    fn second_stage(
        &self,
        setup: &Setup,
        query: usize,
        spent: &Arc<Mutex<Spent>>,
    ) -> Result<Option<topshelf_core::SecondStage>> {
        setup.second_stage(|name| -> Result<Arc<dyn Reranker>> {
            let at = self.model(name)?;
            let Model { identity, scale, rate, .. } = &self.models[at];
            Ok(Arc::new(Replay {
                identity: identity.clone(),
                scale: *scale,
                rate: *rate,
                scores: Arc::clone(&self.queries[query].scores[at]),
                spent: Arc::clone(spent),
            }))
        })
    }
}

/// A reranker that says again what another one said.
struct Replay {
    identity: ModelIdentity,
    scale: Scale,
    rate: Rate,
    scores: Arc<HashMap<String, RerankOutcome>>,
    /// What the other one would have taken.
    spent: Arc<Mutex<Spent>>,
}

/// What rerankers would have taken for a query.
#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    milliseconds: f64,
    paid: Option<Paid>,
}

#[async_trait]
impl Reranker for Replay {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn scale(&self) -> Scale {
        self.scale
    }

    async fn score(
        &self,
        _: &Call,
        query: &Query,
        passages: &[Arc<Passage>],
    ) -> topshelf_core::Result<Vec<RerankOutcome>> {
        let read: usize = passages.iter().map(|passage| bytes(query, passage)).sum();
        {
            let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
            spent.milliseconds += self.rate.pace * read as f64;
            if let Some(paid) = self.rate.foretell(read, passages.len()) {
                spent.paid = Some(spent.paid.unwrap_or_default().and(paid));
            }
        }
        let known = |passage: &Arc<Passage>| {
            self.scores.get(&passage.id).cloned().ok_or_else(|| {
                let problem = format!("the recording has no score of passage \"{}\"", passage.id);
                Error::stage("tune", topshelf_core::Blame::Failure, problem)
            })
        };
        passages.iter().map(known).collect()
    }
}
