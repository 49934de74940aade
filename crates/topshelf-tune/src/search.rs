//! The search: which of all setups, within which budget. [`tune`].
//!
//! 1. The calibration of each reranker is fitted.
//! 2. For each first stage and each cascade the weight of the blend is fitted.
//! 3. Every first stage at every depth, alone and with every cascade, plain and blended, is tried on
//!    the training half, and the budget chooses: within a time, the best; within a loss, the fastest
//!    whose loss against the best, with a standard error on top, is within it.
//! 4. A gate is sought for the chosen one.
//!
//! Then the held-out half is measured, and nothing is chosen any more.

use std::collections::HashSet;

use topshelf_core::{
    Blend, BlendPolicy, BlendScore, Bm25Options, Calibration, Cascade, CascadeStep, EarlyStop,
    FirstStageSetup, Fusion, Normalisation, Retrievers, SecondStageSetup, Setup, WindowOptions,
};
use topshelf_eval::compare_paired;

use crate::blend::{self, BlendFit, Weight};
use crate::calibration::Scored;
use crate::error::{Result, TuneError};
use crate::gate::{self, GateFit, GateTerms, Seen};
use crate::judged::{Halves, Judged};
use crate::outcome::{
    Against, Check, DepthPoint, Figures, FrontPoint, PerQuery, SEED, Tuned, order,
};
use crate::record::Recording;
use crate::trial::Trial;

/// Setups of the front that are shown.
const FRONT: usize = 12;

/// Survivors that a cascade's dearer reranker reads.
const SURVIVORS: [usize; 2] = [10, 30];

/// What may be spent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Budget {
    /// Milliseconds within which 19 of 20 queries are answered: the best within them.
    Milliseconds(f64),
    /// A share of the best quality, 0 to 1, that may be lost: the fastest within it.
    Loss(f64),
}

/// What is searched, and by what it is chosen.
#[derive(Debug, Clone)]
pub struct TuneOptions {
    /// What may be spent.
    pub budget: Budget,
    /// When a gate pays.
    pub gate: GateTerms,
    /// The risk of a cascade's early stop, 0 to 1.
    pub risk: f32,
    /// Depths that are tried, ascending; at least one.
    pub depths: Vec<usize>,
    /// The numbers of BM25 that the recording was made with, for the profile.
    pub bm25: Bm25Options,
    /// How the rerankers of the recording read long documents, for the profile.
    pub windows: Option<WindowOptions>,
}

impl TuneOptions {
    /// Depths up to `deepest` that are worth trying.
    pub fn depths_to(deepest: usize) -> Vec<usize> {
        let mut depths: Vec<usize> =
            [10, 20, 30, 50, 100, 200].into_iter().filter(|depth| *depth < deepest).collect();
        depths.push(deepest);
        depths
    }

    /// Every first stage that is tried with these retrievers, at every depth.
    pub fn first_stages(&self, has_bm25: bool, has_dense: bool) -> Vec<FirstStageSetup> {
        let mut firsts = Vec::new();
        for depth in &self.depths {
            let mut add = |retriever, fusion| {
                let (retriever, bm25) = (Some(retriever), self.bm25);
                firsts.push(FirstStageSetup { retriever, depth: *depth, fusion, bm25 });
            };
            if has_bm25 {
                add(Retrievers::BM25, None);
            }
            if has_dense {
                add(Retrievers::DENSE, None);
            }
            if has_bm25 && has_dense {
                for fusion in fusions() {
                    add(Retrievers::HYBRID, Some(fusion));
                }
            }
        }
        firsts
    }
}

/// The fusions that are tried; the first is the one that is used untuned.
fn fusions() -> Vec<Fusion> {
    let weighted = |normalisation, weights: &[f32]| Fusion::Weighted {
        normalisation,
        weights: weights.to_vec(),
    };
    vec![
        Fusion::default(),
        Fusion::Rrf { k: 10.0 },
        weighted(Normalisation::MinMax, &[0.5, 0.5]),
        weighted(Normalisation::MinMax, &[0.3, 0.7]),
        weighted(Normalisation::MinMax, &[0.7, 0.3]),
        weighted(Normalisation::ZScore, &[0.5, 0.5]),
    ]
}

/// A setup with how its blend was fitted.
struct Contender {
    setup: Setup,
    weight: Option<(BlendScore, Weight)>,
}

/// What takes part, and the rerankers that gain nothing behind any first stage.
struct Field {
    contenders: Vec<Contender>,
    without_gain: Vec<String>,
}

/// Chooses a setup on the training half and measures it on the other. `progress` is told how many of
/// how many setups have been tried.
///
/// # Errors
///
/// [`TuneError::OverBudget`] where nothing is fast enough, and what fails in a stage or a measure.
pub fn tune(
    recording: &Recording,
    judged: &Judged,
    halves: &Halves,
    options: &TuneOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Tuned> {
    let Halves { training, held_out } = halves;
    let Field { contenders, without_gain } = field(recording, judged, training, options, progress)?;
    let setups: Vec<Setup> = contenders.iter().map(|own| own.setup.clone()).collect();
    let total = setups.len();
    let trials =
        Trial::all(recording, judged, &setups, training, &mut |done| progress(done, total))?;
    let at = choose(&setups, &trials, options.budget)?;
    let Contender { setup: chosen, weight } = &contenders[at];

    // From here on everything is measured on the held-out half; the gate is fitted on the training
    // half once more.
    let try_on = |setup: &Setup| Trial::of(recording, judged, setup, held_out);
    let mut gate = match &chosen.second_stage {
        Some(_) => Some(fit_gate(recording, judged, chosen, halves, options.gate)?),
        None => None,
    };
    let shown = gate.as_ref().filter(|gate| gate.accepted).and_then(|gate| gate.gate.clone());
    // With a gate that finds every query clear, nothing is ever reranked: that is the first stage alone.
    let is_never_open = match &shown {
        Some(gate) => {
            let alone = chosen.clone().without_reranking();
            let candidates = |at: &usize| Ok(recording.replay(&alone, *at, usize::MAX)?.candidates);
            let candidates: Vec<_> = training.iter().map(candidates).collect::<Result<_>>()?;
            candidates.iter().all(|own| gate.look(own).clear)
        }
        None => false,
    };
    let shown = shown.filter(|_| !is_never_open);
    let setup = if is_never_open {
        if let Some(fit) = &mut gate {
            fit.accepted = false;
            "it finds every query clear, so nothing is reranked and the first stage alone is chosen"
                .clone_into(&mut fit.reason);
        }
        chosen.clone().without_reranking()
    } else {
        chosen.clone().with_gate(shown.clone())
    };
    let trial = try_on(&setup)?;
    let before = try_on(&setup.clone().without_reranking())?;
    let ungated = match shown {
        Some(_) => Some(Figures::from(&try_on(chosen)?)),
        None => None,
    };

    let mut baselines = Vec::new();
    for (name, other) in untuned(recording, &setups, options) {
        baselines.push(Against::of(name, &try_on(&other)?, &trial)?);
    }
    let blend = match weight {
        Some((score, Weight { weight, folds })) => Some(BlendFit {
            weight: *weight,
            folds: folds.clone(),
            curve: blend::curve(recording, judged, chosen, *score, held_out)?,
        }),
        None => None,
    };
    let calibration = match &chosen.second_stage {
        Some(reranking) => Scored::of(recording, judged, chosen, held_out)?
            .and_then(|scored| scored.check(&reranking.calibration)),
        None => None,
    };
    let queries = held_out.iter().map(|at| recording.queries[*at].id.clone());
    let figures = before.figures.iter().zip(&trial.figures);
    Ok(Tuned {
        measure: judged.measure.to_string(),
        budget: match options.budget {
            Budget::Milliseconds(budget) => format!("{budget} ms for 19 queries of 20"),
            Budget::Loss(loss) => format!("{} % of {}", loss * 100.0, judged.measure),
        },
        training: training.len(),
        held_out: held_out.len(),
        searched: setups.len(),
        without_gain,
        described: setup.describe(),
        figures: Figures::from(&trial),
        ungated,
        baselines,
        front: front(&setups, &trials, at, &try_on)?,
        depths: depths(chosen, options, &try_on)?,
        blend,
        calibration,
        gate,
        per_query: queries
            .zip(figures)
            .map(|(query, (before, after))| PerQuery { query, before: *before, after: *after })
            .collect(),
        setup,
    })
}

/// Every setup that takes part, its fitted parts fitted on the training half.
fn field(
    recording: &Recording,
    judged: &Judged,
    training: &[usize],
    options: &TuneOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Field> {
    let (has_bm25, has_dense) = recording.has();
    let firsts = options.first_stages(has_bm25, has_dense);
    let deepest = options.depths.iter().copied().max().unwrap_or_default();
    let cascades = cascades(recording, judged, training, &firsts, options)?;
    let mut contenders = Vec::new();
    let at_depth: Vec<&FirstStageSetup> =
        firsts.iter().filter(|first| first.depth == deepest).collect();
    let fits = at_depth.len() * cascades.len() * 2;
    let mut done = 0;
    let mut helped = HashSet::new();
    for first in at_depth {
        // Without reranking the depth is of no consequence.
        let alone = Setup::of_first_stage(first.clone());
        contenders.push(Contender { setup: alone.clone(), weight: None });
        for cascade in &cascades {
            let plain = Setup { second_stage: Some(cascade.clone()), ..alone.clone() };
            let mut variants = vec![(plain.clone(), None)];
            for score in [BlendScore::MinMax, BlendScore::Probability] {
                let (weights, setups): (Vec<f32>, Vec<Setup>) =
                    blend::weighted(&plain, score).into_iter().unzip();
                let trials = Trial::all(recording, judged, &setups, training, &mut |_| {});
                done += 1;
                progress(done, fits);
                // A reranker's scale may have no reading as a probability.
                let trials = match trials {
                    Err(TuneError::Core(topshelf_core::Error::NotAProbability { .. })) => continue,
                    trials => trials?,
                };
                let weight = blend::fit(&weights, &trials);
                // At no weight it is the first stage alone, which is there already.
                if weight.weight > 0.0 {
                    helped.insert(cascade.models());
                    let mut setup = plain.clone();
                    if let Some(reranking) = &mut setup.second_stage {
                        let weight = weight.weight;
                        let blend = Blend { weight, rerank: score };
                        reranking.blend = Some(BlendPolicy::Fixed(blend));
                    }
                    variants.push((setup, Some((score, weight))));
                }
            }
            for (setup, weight) in variants {
                for depth in &options.depths {
                    let (setup, weight) = (setup.clone().at_depth(*depth), weight.clone());
                    contenders.push(Contender { setup, weight });
                }
            }
        }
    }
    let without_gain =
        cascades.iter().map(SecondStageSetup::models).filter(|name| !helped.contains(name));
    Ok(Field { contenders, without_gain: without_gain.collect() })
}

/// Every reranker alone, and every cheaper one before every dearer one.
fn cascades(
    recording: &Recording,
    judged: &Judged,
    training: &[usize],
    firsts: &[FirstStageSetup],
    options: &TuneOptions,
) -> Result<Vec<SecondStageSetup>> {
    let mut deepest = firsts.iter().filter(|first| {
        let untuned = first.fusion.clone().unwrap_or_default() == Fusion::default();
        Some(first.depth) == options.depths.iter().copied().max() && untuned
    });
    // The richest of the first stages stands for all of them where scores are calibrated.
    let Some(first) = deepest.next_back() else { return Ok(Vec::new()) };
    let mut alone = Vec::new();
    for model in &recording.models {
        let mut reranking =
            SecondStageSetup { windows: options.windows, ..SecondStageSetup::by(&model.name) };
        reranking.cascade.first.fingerprint = Some(model.identity.fingerprint.clone());
        let setup =
            Setup { second_stage: Some(reranking.clone()), ..Setup::of_first_stage(first.clone()) };
        reranking.calibration = Scored::of(recording, judged, &setup, training)?
            .map_or_else(Calibration::default, |scored| scored.fit());
        alone.push(reranking);
    }
    let mut all = alone.clone();
    for (cheap, before) in alone.iter().enumerate() {
        for (dear, after) in alone.iter().enumerate().skip(cheap + 1) {
            let pairs = pairs_of_scores(recording, training, (cheap, dear));
            // Where nothing can be learnt the dearer one reads all that it is given.
            let learnt = EarlyStop::fit(&pairs, options.risk).ok();
            for keep in SURVIVORS {
                for early_stop in std::iter::once(None).chain(learnt.map(Some)) {
                    let first = before.cascade.first.clone();
                    let step =
                        CascadeStep { keep: Some(keep), early_stop, ..after.cascade.first.clone() };
                    let cascade = Cascade { first, then: vec![step] };
                    all.push(SecondStageSetup { cascade, ..after.clone() });
                }
            }
        }
    }
    Ok(all)
}

/// Both models' scores of every passage that both scored.
fn pairs_of_scores(
    recording: &Recording,
    training: &[usize],
    (cheap, dear): (usize, usize),
) -> Vec<(f32, f32)> {
    let of = |at: &usize| {
        let own = &recording.queries[*at];
        let passages = own.scored_by(cheap);
        passages.filter_map(move |id| Some((own.score(cheap, id)?, own.score(dear, id)?)))
    };
    training.iter().flat_map(of).collect()
}

/// The place of the setup that the budget chooses.
fn choose(setups: &[Setup], trials: &[Trial], budget: Budget) -> Result<usize> {
    let places = 0..trials.len();
    let by_mean = |a: &usize, b: &usize| trials[*a].mean().total_cmp(&trials[*b].mean());
    let by_time = |a: &usize, b: &usize| trials[*a].mean_ms().total_cmp(&trials[*b].mean_ms());
    // Of equals the simplest.
    let by_parts = |a: &usize, b: &usize| parts(&setups[*a]).cmp(&parts(&setups[*b]));
    match budget {
        Budget::Milliseconds(budget) => {
            let p95 = |at: &usize| trials[*at].percentile_ms(0.95);
            let within = places.clone().filter(|at| p95(at) <= budget);
            // Of equally good ones the faster.
            let best = within.max_by(|a, b| by_mean(a, b).then(by_time(b, a)).then(by_parts(b, a)));
            best.ok_or_else(|| {
                let fastest = places.min_by(|a, b| p95(a).total_cmp(&p95(b))).unwrap_or_default();
                let takes = p95(&fastest);
                TuneError::OverBudget { budget, fastest: setups[fastest].describe(), takes }
            })
        }
        Budget::Loss(loss) => {
            let best = places.clone().max_by(by_mean).ok_or(TuneError::NothingFound)?;
            let allowed = trials[best].mean() * loss;
            // Few queries say little of a loss, and then only what is close to the best is within.
            let within = places.filter(|at| {
                let (mean, error) = trials[*at].loss_against(&trials[best]);
                mean + error <= allowed
            });
            let fastest =
                within.min_by(|a, b| by_time(a, b).then(by_mean(b, a)).then(by_parts(a, b)));
            fastest.ok_or(TuneError::NothingFound)
        }
    }
}

/// How many parts a setup has beside its first stage.
fn parts(setup: &Setup) -> usize {
    setup.second_stage.as_ref().map_or(0, |own| {
        let policies = usize::from(own.blend.is_some()) + usize::from(own.gate.is_some());
        1 + own.cascade.then.len() + policies
    })
}

/// A gate for the chosen setup.
fn fit_gate(
    recording: &Recording,
    judged: &Judged,
    chosen: &Setup,
    halves: &Halves,
    terms: GateTerms,
) -> Result<GateFit> {
    let seen = |queries: &[usize]| -> Result<Seen> {
        let without = chosen.clone().without_reranking();
        let candidates =
            queries.iter().map(|at| Ok(recording.replay(&without, *at, usize::MAX)?.candidates));
        Ok(Seen {
            candidates: candidates.collect::<Result<_>>()?,
            with: Trial::of(recording, judged, chosen, queries)?.figures,
            without: Trial::of(recording, judged, &without, queries)?.figures,
        })
    };
    let retrievers = chosen.first_stage.retrievers();
    gate::fit(retrievers, terms, &seen(&halves.training)?, &seen(&halves.held_out)?)
}

/// What one would use untuned: each retriever, both, each with the first reranker behind it.
fn untuned(recording: &Recording, setups: &[Setup], options: &TuneOptions) -> Vec<(String, Setup)> {
    let deepest = options.depths.iter().copied().max().unwrap_or_default();
    let mut all = Vec::new();
    for setup in setups {
        let FirstStageSetup { depth, fusion, .. } = &setup.first_stage;
        let plain = fusion.clone().unwrap_or_default() == Fusion::default();
        if *depth != deepest || !plain {
            continue;
        }
        let name = setup.first_stage.retrievers().to_string();
        match &setup.second_stage {
            None => all.push((name, setup.clone())),
            Some(reranking) => {
                let first = recording.models.first().map(|model| &model.name);
                let alone = reranking.cascade.then.is_empty() && reranking.blend.is_none();
                if alone && Some(&reranking.cascade.first.model) == first {
                    all.push((format!("{name}+rerank"), setup.clone()));
                }
            }
        }
    }
    all.sort_by_key(|(_, setup)| setup.second_stage.is_some());
    all
}

/// The setups that no other beats in both time and quality on the training half, with their figures
/// on the held-out half; the chosen one is always among them.
fn front(
    setups: &[Setup],
    trials: &[Trial],
    chosen: usize,
    try_on: &impl Fn(&Setup) -> Result<Trial>,
) -> Result<Vec<FrontPoint>> {
    let mut places: Vec<usize> = (0..setups.len()).collect();
    places.sort_by(|a, b| {
        let (a, b) = (&trials[*a], &trials[*b]);
        a.mean_ms().total_cmp(&b.mean_ms()).then(b.mean().total_cmp(&a.mean()))
    });
    let mut best = f64::NEG_INFINITY;
    places.retain(|at| {
        let better = trials[*at].mean() > best;
        best = best.max(trials[*at].mean());
        better || *at == chosen
    });
    // The steps that gain least are left out first; the ends and the chosen one stay.
    while places.len() > FRONT {
        let gain = |at: usize| trials[places[at]].mean() - trials[places[at - 1]].mean();
        let inner = (1..places.len() - 1).filter(|at| places[*at] != chosen);
        let Some(least) = inner.min_by(|a, b| gain(*a).total_cmp(&gain(*b))) else { break };
        places.remove(least);
    }
    let mut points = Vec::new();
    for at in places {
        points.push(FrontPoint {
            described: setups[at].describe(),
            figures: Figures::from(&try_on(&setups[at])?),
            chosen: at == chosen,
            dominated: false,
        });
    }
    let dominated: Vec<bool> = points
        .iter()
        .map(|own| {
            points.iter().any(|other| {
                other.figures.mean > own.figures.mean && other.figures.mean_ms < own.figures.mean_ms
            })
        })
        .collect();
    for (point, dominated) in points.iter_mut().zip(dominated) {
        point.dominated = dominated;
    }
    Ok(points)
}

/// The chosen setup at every depth, against the deepest.
fn depths(
    chosen: &Setup,
    options: &TuneOptions,
    try_on: &impl Fn(&Setup) -> Result<Trial>,
) -> Result<Vec<DepthPoint>> {
    let Some(deepest) = options.depths.iter().copied().max() else { return Ok(Vec::new()) };
    if chosen.second_stage.is_none() {
        return Ok(Vec::new());
    }
    let reference = try_on(&chosen.clone().at_depth(deepest))?;
    let point = |depth: &usize| {
        let trial = try_on(&chosen.clone().at_depth(*depth))?;
        let difference = compare_paired(&reference.figures, &trial.figures, SEED)?;
        let chosen = *depth == chosen.first_stage.depth;
        Ok(DepthPoint { depth: *depth, figures: Figures::from(&trial), difference, chosen })
    };
    options.depths.iter().map(point).collect()
}

/// Runs a tuned pipeline for real on some of the queries, and compares with the replay.
///
/// # Errors
///
/// What a stage answers.
pub fn check(
    pipeline: &topshelf_core::Pipeline,
    recording: &Recording,
    setup: &Setup,
    top: usize,
    queries: &[usize],
    progress: &mut dyn FnMut(usize),
) -> Result<Check> {
    let (mut took, mut foretold, mut same) = (Vec::new(), Vec::new(), 0);
    for (done, at) in queries.iter().enumerate() {
        let start = std::time::Instant::now();
        let answer = pipeline.run_blocking(&recording.queries[*at].query);
        took.push(start.elapsed().as_secs_f64() * 1e3);
        let replayed = recording.replay(setup, *at, top)?;
        foretold.push(replayed.milliseconds);
        same += usize::from(match answer {
            Ok(answer) => order(&answer.ranking, top) == order(&replayed.ranking, top),
            Err(topshelf_core::Error::NothingToLookUp { .. }) => replayed.ranking.is_empty(),
            Err(error) => return Err(error.into()),
        });
        progress(done + 1);
    }
    let summary = |milliseconds: Vec<f64>| Trial {
        figures: Vec::new(),
        pairs: Vec::new(),
        paid: None,
        milliseconds,
    };
    let (took, foretold) = (summary(took), summary(foretold));
    Ok(Check {
        queries: queries.len(),
        same,
        p50_ms: took.percentile_ms(0.5),
        p95_ms: took.percentile_ms(0.95),
        foretold_p50_ms: foretold.percentile_ms(0.5),
        foretold_p95_ms: foretold.percentile_ms(0.95),
    })
}
