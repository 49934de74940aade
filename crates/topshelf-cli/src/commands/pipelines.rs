//! What the flags of a command ask for: an engine, a profile, a setup.

use std::path::{Path, PathBuf};

use anyhow::Result;
use topshelf::engine::resolve;
use topshelf::tune::profile::FILE_NAME;
use topshelf::{Engine, EngineOptions, Profile, ScoreCacheUse, Setup, SetupPatch, UnprovenGate};

use super::display;
use crate::args::{ProfileOption, SecondStageOptions, SpendingOptions};
use crate::say::say;

/// A profile and the file that it is from.
#[derive(Debug, Clone)]
pub(super) struct NamedProfile {
    pub(super) profile: Profile,
    pub(super) path: PathBuf,
}

impl NamedProfile {
    /// The profile that the flags name or the working folder has.
    pub(super) fn open(option: &ProfileOption) -> Result<Option<Self>> {
        let path = match &option.profile {
            _ if option.no_profile => return Ok(None),
            Some(path) => path.clone(),
            None if Path::new(FILE_NAME).is_file() => PathBuf::from(FILE_NAME),
            None => return Ok(None),
        };
        Ok(Some(Self { profile: Profile::open(&path)?, path }))
    }

    /// Its name, for the answer.
    pub(super) fn name(&self) -> String {
        display(&self.path)
    }

    /// What is to be said of figures that this collection gives.
    pub(super) fn warning_on(&self, data: &str) -> Option<String> {
        let evidence = self.profile.evidence.as_ref().filter(|own| own.data == data);
        evidence.map(|_| {
            "the profile was chosen on some of these queries, so these figures flatter it; those that \
             `topshelf tune` reported are of the others"
                .to_owned()
        })
    }
}

/// The options of the engine that flags of spending make.
pub(super) fn engine_options(spending: &SpendingOptions, cache: ScoreCacheUse) -> EngineOptions {
    EngineOptions {
        home: None,
        score_cache: cache,
        prices: spending.prices.clone(),
        max_cost: spending.max_cost,
    }
}

/// The engine; what is wrong with its score cache is said.
pub(super) fn engine(spending: &SpendingOptions, cache: ScoreCacheUse) -> Result<Engine> {
    let engine = Engine::open(engine_options(spending, cache))?;
    for warning in engine.warnings() {
        say!("note: {warning}");
    }
    Ok(engine)
}

/// The setup that profile and flags make together.
pub(super) fn setup(
    profile: Option<&NamedProfile>,
    patches: &[SetupPatch],
    second: &SecondStageOptions,
) -> Result<Setup> {
    let unproven = if second.force { UnprovenGate::Accept } else { UnprovenGate::Reject };
    let patches: Vec<&SetupPatch> = patches.iter().collect();
    Ok(resolve(profile.map(|own| &own.profile), &patches, unproven)?)
}
