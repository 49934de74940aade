//! [`Setup`]: a pipeline in words, as a profile keeps it and the search varies it.

use std::fmt::Write as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use topshelf_core::{
    Blend, Calibration, EarlyStop, Fusion, Gate, PipelineBuilder, Policy, Reranker, Result,
    SecondStage, WindowOptions,
};

/// Which retrievers take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retrievers {
    /// By words.
    Bm25,
    /// By meaning.
    Dense,
    /// Words and meaning, fused.
    Hybrid,
    /// By tokens: late interaction over the stored vectors.
    Colbert,
    /// Words and tokens, fused.
    HybridColbert,
}

impl Retrievers {
    /// `bm25`, `dense`, `hybrid`, `colbert`, `hybrid-colbert`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bm25 => "bm25",
            Self::Dense => "dense",
            Self::Hybrid => "hybrid",
            Self::Colbert => "colbert",
            Self::HybridColbert => "hybrid-colbert",
        }
    }

    /// Whether the words are looked up.
    pub fn by_words(self) -> bool {
        matches!(self, Self::Bm25 | Self::Hybrid | Self::HybridColbert)
    }

    /// Whether the meaning is looked up.
    pub fn by_meaning(self) -> bool {
        matches!(self, Self::Dense | Self::Hybrid)
    }

    /// Whether the tokens are looked up.
    pub fn by_tokens(self) -> bool {
        matches!(self, Self::Colbert | Self::HybridColbert)
    }

    /// Whether two rankings become one.
    pub fn fuses(self) -> bool {
        matches!(self, Self::Hybrid | Self::HybridColbert)
    }
}

/// A pipeline in words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// Where candidates come from.
    pub first_stage: FirstStage,
    /// What reorders them; absent where nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_stage: Option<Reranking>,
}

/// Where candidates come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirstStage {
    /// Which retrievers.
    pub retriever: Retrievers,
    /// Candidates that each fetches and that are reranked.
    pub depth: usize,
    /// How two rankings become one; without a meaning for one retriever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fusion: Option<Fusion>,
    /// The numbers of BM25; the retriever's own where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bm25: Option<Bm25>,
}

/// The numbers of BM25.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bm25 {
    /// How slowly repetitions of a word saturate.
    pub k1: f32,
    /// How much long passages are held back, 0 to 1.
    pub b: f32,
    /// What a word in title or headings counts, where one in the text counts 1.
    pub title_weight: f32,
}

/// What reorders the candidates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reranking {
    /// The rerankers, cheapest first; at least one.
    pub cascade: Vec<Step>,
    /// How documents longer than a reranker's window are read; their head where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windows: Option<WindowOptions>,
    /// Keeps part of the first stage's score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blend: Option<Blend>,
    /// How a score becomes a probability.
    #[serde(default)]
    pub calibration: Calibration,
    /// Skips reranking where the first stage is clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
}

/// One reranker of a cascade.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The name by which it is loaded; several with commas between them stand in for one another.
    pub model: String,
    /// Which model it was when this was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// How many of the best it reads; all, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<usize>,
    /// When it ends before the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<EarlyStop>,
}

impl Setup {
    /// Sets depth, fusion and second stage of a pipeline whose retrievers are set already.
    ///
    /// # Errors
    ///
    /// What `reranker` answers for the name of one, and numbers that mean nothing.
    pub fn apply<E: From<topshelf_core::Error>>(
        &self,
        builder: PipelineBuilder,
        reranker: impl FnMut(&str) -> Result<Arc<dyn Reranker>, E>,
    ) -> Result<PipelineBuilder, E> {
        let FirstStage { depth, fusion, .. } = &self.first_stage;
        let builder = builder.depth(*depth).fusion(fusion.clone().unwrap_or_default());
        Ok(match &self.second_stage {
            Some(reranking) => builder.second_stage(reranking.second_stage(reranker)?),
            None => builder,
        })
    }

    /// One line for a person: `hybrid rrf(k=60), 50 deep, reranked by minilm, blend(0.45 min-max)`.
    pub fn describe(&self) -> String {
        let FirstStage { retriever, depth, fusion, .. } = &self.first_stage;
        let mut text = retriever.name().to_owned();
        if retriever.fuses() {
            let _ = write!(text, " {}", fusion.clone().unwrap_or_default().describe()); // a string takes all
        }
        let Some(reranking) = &self.second_stage else { return text };
        let _ = write!(text, ", {depth} deep, reranked by {}", reranking.models());
        if let Some(blend) = &reranking.blend {
            let _ = write!(text, ", {}", blend.describe());
        }
        if let Some(gate) = &reranking.gate {
            let _ = write!(text, ", unless {} >= {:.4}", gate.signal, gate.threshold);
        }
        text
    }

    /// The same with a gate.
    #[must_use]
    pub fn with_gate(mut self, gate: Option<Gate>) -> Self {
        if let Some(reranking) = &mut self.second_stage {
            reranking.gate = gate;
        }
        self
    }

    /// The same at another depth.
    #[must_use]
    pub fn at_depth(mut self, depth: usize) -> Self {
        self.first_stage.depth = depth;
        self
    }

    /// The same with nothing that reorders.
    #[must_use]
    pub fn without_reranking(mut self) -> Self {
        self.second_stage = None;
        self
    }
}

/// Adds the named rerankers as those that stand in for the last step's.
fn stand_ins<E>(
    stage: SecondStage,
    names: &str,
    reranker: &mut impl FnMut(&str) -> Result<Arc<dyn Reranker>, E>,
) -> Result<SecondStage, E> {
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
    let mut stage = stage;
    for name in names {
        stage = stage.or(reranker(name)?);
    }
    Ok(stage)
}

impl Reranking {
    /// One reranker over all candidates, no policy.
    pub fn by(model: impl Into<String>) -> Self {
        let step = Step { model: model.into(), fingerprint: None, keep: None, early_stop: None };
        Self {
            cascade: vec![step],
            windows: None,
            blend: None,
            calibration: Calibration::default(),
            gate: None,
        }
    }

    /// The models' names without their owners, cheapest first.
    pub fn models(&self) -> String {
        let named = self.cascade.iter().map(|step| {
            let name = step.model.rsplit('/').next().unwrap_or(&step.model);
            match (step.keep, step.early_stop) {
                (None, _) => name.to_owned(),
                (Some(keep), None) => format!("{name} ({keep})"),
                (Some(keep), Some(stop)) => {
                    format!("{name} ({keep}, ends early at a risk of {:.0} %)", stop.risk * 100.0)
                }
            }
        });
        named.collect::<Vec<_>>().join(" then ")
    }

    /// The second stage, its rerankers loaded by `reranker`.
    ///
    /// # Errors
    ///
    /// What `reranker` answers, and numbers that mean nothing; [`topshelf_core::Error::OutOfRange`]
    /// where there is no reranker.
    pub fn second_stage<E: From<topshelf_core::Error>>(
        &self,
        mut reranker: impl FnMut(&str) -> Result<Arc<dyn Reranker>, E>,
    ) -> Result<SecondStage, E> {
        let [first, others @ ..] = self.cascade.as_slice() else {
            let (what, range) = ("the number of rerankers of a second stage", "1 or more");
            let error = topshelf_core::Error::OutOfRange { what, value: "0".to_owned(), range };
            return Err(error.into());
        };
        // Names with commas between them stand in for one another.
        let (named, spare) = first.model.split_once(',').unwrap_or((&first.model, ""));
        let mut stage = SecondStage::new(reranker(named.trim())?);
        stage = stand_ins(stage, spare, &mut reranker)?;
        for step in others {
            let keep = step.keep.unwrap_or(usize::MAX);
            let (named, spare) = step.model.split_once(',').unwrap_or((&step.model, ""));
            stage = stage.then(reranker(named.trim())?, keep, step.early_stop)?;
            stage = stand_ins(stage, spare, &mut reranker)?;
        }
        Ok(stage.with_policy(self.policy())?)
    }

    /// When and how scores are used.
    pub fn policy(&self) -> Policy {
        Policy {
            gate: self.gate.clone(),
            blend: self.blend,
            calibration: self.calibration.clone(),
            ..Policy::default()
        }
    }
}
