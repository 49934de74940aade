//! The pipeline that a command is to use: its options first, then the profile, then the defaults.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use topshelf::tune::profile::FILE_NAME;
use topshelf::tune::setup::{Bm25, FirstStage, Reranking, Retrievers, Step};
use topshelf::{
    Blend, BlendScore, Bm25Options, Fusion, Normalisation, OnFailure, Policy, Profile,
    WindowOptions,
};

use super::display;
use super::spending::Spending;
use crate::args::{
    BlendScoreName, DEFAULT_RERANKER, FirstStage as FirstStageOptions, FusionName, GateOption,
    LongDocuments, ProfileOption, RetrieverName, SecondStageOptions,
};
use crate::exit::usage;

/// Candidates, unless options or profile say otherwise.
const DEPTH: usize = 100;

/// A pipeline in words.
pub(super) struct Chosen {
    pub(super) second_stage: Option<Reranking>,
    pub(super) min_relevance: Option<f32>,
    pub(super) deadline: Option<Duration>,
    /// What happens where no reranker answers.
    pub(super) on_failure: OnFailure,
    /// Whether stored token vectors are left alone.
    pub(super) encode_anew: bool,
    /// What may be spent.
    pub(super) spending: Spending,
    /// The file that took part.
    pub(super) profile: Option<PathBuf>,
    first_stage: Option<FirstStage>,
    /// The collection that the profile was chosen on.
    collection: Option<String>,
}

impl From<RetrieverName> for Retrievers {
    fn from(name: RetrieverName) -> Self {
        match name {
            RetrieverName::Bm25 => Self::Bm25,
            RetrieverName::Dense => Self::Dense,
            RetrieverName::Hybrid => Self::Hybrid,
            RetrieverName::Colbert => Self::Colbert,
            RetrieverName::HybridColbert => Self::HybridColbert,
        }
    }
}

impl Chosen {
    /// Puts options and profile together.
    pub(super) fn of(second: &SecondStageOptions, profile: &ProfileOption) -> Result<Self> {
        Self::with(second, open(profile)?)
    }

    /// [`Self::of`] with a profile that is open, and its path.
    pub(super) fn with(
        second: &SecondStageOptions,
        profile: Option<(Profile, PathBuf)>,
    ) -> Result<Self> {
        let (profile, path) = profile.unzip();
        let second_stage = reranking(second, profile.as_ref())?;
        let SecondStageOptions { min_relevance, deadline, encode_anew, .. } = *second;
        let (first_stage, evidence) = profile.map(|own| (own.first_stage, own.evidence)).unzip();
        let collection = evidence.flatten().map(|evidence| evidence.data);
        Ok(Self {
            second_stage,
            min_relevance,
            deadline,
            on_failure: if second.strict { OnFailure::Fail } else { OnFailure::KeepOrder },
            encode_anew,
            spending: Spending::of(&second.spending)?,
            profile: path,
            first_stage,
            collection,
        })
    }

    /// The first stage. `retriever` is what the command asks for, `has_vectors` whether the index
    /// could do more than words.
    pub(super) fn first_stage(
        &self,
        options: &FirstStageOptions,
        retriever: Option<RetrieverName>,
        depth: Option<usize>,
        has_vectors: bool,
    ) -> FirstStage {
        let tuned = self.first_stage.as_ref();
        let usual = if has_vectors { Retrievers::Hybrid } else { Retrievers::Bm25 };
        let retriever = retriever.map(Retrievers::from);
        let numbers = tuned.and_then(|tuned| tuned.bm25);
        let numbers = numbers.unwrap_or_else(|| {
            let Bm25Options { k1, b, title_weight } = Bm25Options::default();
            Bm25 { k1, b, title_weight }
        });
        FirstStage {
            retriever: retriever.or_else(|| tuned.map(|own| own.retriever)).unwrap_or(usual),
            depth: depth.or_else(|| tuned.map(|tuned| tuned.depth)).unwrap_or(DEPTH),
            fusion: fusion(options).or_else(|| tuned.and_then(|tuned| tuned.fusion.clone())),
            bm25: Some(Bm25 {
                k1: options.k1.unwrap_or(numbers.k1),
                b: options.b.unwrap_or(numbers.b),
                title_weight: options.title_weight.unwrap_or(numbers.title_weight),
            }),
        }
    }

    /// What is to be said of figures that this collection gives.
    pub(super) fn warning_on(&self, data: &str) -> Option<String> {
        self.collection.as_deref().filter(|own| *own == data).map(|_| {
            "the profile was chosen on some of these queries, so these figures flatter it; those that \
             `topshelf tune` told are of the others"
                .to_owned()
        })
    }

    /// When and how the scores of this second stage are used.
    pub(super) fn policy(&self, reranking: &Reranking) -> Policy {
        Policy {
            min_relevance: self.min_relevance,
            deadline: self.deadline,
            on_failure: self.on_failure,
            ..reranking.policy()
        }
    }

    /// The profile's name, for the answer.
    pub(super) fn profile_name(&self) -> Option<String> {
        self.profile.as_deref().map(display)
    }
}

/// A first stage with nothing set.
pub(super) fn plain(retriever: RetrieverName, depth: usize) -> FirstStage {
    FirstStage { retriever: retriever.into(), depth, fusion: None, bm25: None }
}

/// The profile that the options name or the working folder has.
pub(super) fn open(option: &ProfileOption) -> Result<Option<(Profile, PathBuf)>> {
    let path = match &option.profile {
        _ if option.no_profile => return Ok(None),
        Some(path) => path.clone(),
        None if Path::new(FILE_NAME).is_file() => PathBuf::from(FILE_NAME),
        None => return Ok(None),
    };
    Ok(Some((Profile::open(&path)?, path)))
}

fn fusion(options: &FirstStageOptions) -> Option<Fusion> {
    let weighted =
        |normalisation| Fusion::Weighted { normalisation, weights: options.weights.clone() };
    match options.fusion {
        Some(FusionName::MinMax) => Some(weighted(Normalisation::MinMax)),
        Some(FusionName::ZScore) => Some(weighted(Normalisation::ZScore)),
        None if options.rrf_k.is_none() => None,
        Some(FusionName::Rrf) | None => {
            let Fusion::Rrf { k } = Fusion::default() else {
                unreachable!("reciprocal rank fusion is the default")
            };
            Some(Fusion::Rrf { k: options.rrf_k.unwrap_or(k) })
        }
    }
}

/// The second stage; `None` where nothing is reranked.
fn reranking(options: &SecondStageOptions, profile: Option<&Profile>) -> Result<Option<Reranking>> {
    let named = options.rerank.as_deref();
    if named == Some("none") {
        if !options.then.is_empty() {
            return Err(usage("`--then` stands behind a reranker, and `--rerank none` is none"));
        }
        return Ok(None);
    }
    // The policies of a profile were fitted for its own rerankers.
    let of_profile = named.is_none() && options.then.is_empty();
    let profile = profile.filter(|_| of_profile);
    let mut reranking = match profile {
        Some(Profile { second_stage: None, .. }) => return Ok(None),
        Some(Profile { second_stage: Some(tuned), .. }) => tuned.clone(),
        None => {
            let usual = Some(WindowOptions::default());
            Reranking { windows: usual, ..Reranking::by(named.unwrap_or(DEFAULT_RERANKER)) }
        }
    };
    for (model, keep) in &options.then {
        let (model, keep) = (model.clone(), Some(*keep));
        reranking.cascade.push(Step { model, fingerprint: None, keep, early_stop: None });
    }
    match options.long_documents {
        Some(LongDocuments::Head) => reranking.windows = None,
        Some(LongDocuments::Windows) if reranking.windows.is_none() => {
            reranking.windows = Some(WindowOptions::default());
        }
        _ => {}
    }
    if let Some(windows) = &mut reranking.windows {
        windows.most = options.windows.unwrap_or(windows.most);
        windows.tokens = options.window_tokens.unwrap_or(windows.tokens);
    }
    if let Some(weight) = options.blend {
        let rerank = match options.blend_score {
            BlendScoreName::MinMax => BlendScore::MinMax,
            BlendScoreName::Probability => BlendScore::Probability,
        };
        reranking.blend = Some(Blend::new(weight, rerank)?);
    }
    let mut shown = profile.is_some_and(Profile::gate_is_shown);
    match &options.gate {
        Some(GateOption::None) => reranking.gate = None,
        Some(GateOption::Gate(gate)) => {
            (reranking.gate, shown) = (Some(gate.clone()), false);
        }
        None => {}
    }
    if reranking.gate.is_some() && !shown && !options.force {
        return Err(usage(
            "nothing has shown that this gate pays: on many collections no such number tells when \
             reranking can be skipped; `topshelf tune` looks for one on your own judged queries \
             and proves it, and --force uses this one without proof",
        ));
    }
    Ok(Some(reranking))
}
