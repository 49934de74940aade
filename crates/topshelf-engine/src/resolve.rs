//! Profile and patches to a setup: [`resolve()`].

use topshelf_core::{GateChoice, Setup, SetupPatch};
use topshelf_tune::Profile;

use crate::error::{EngineError, Result};

/// What is done with a gate that nothing has shown to pay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UnprovenGate {
    /// It is an error.
    #[default]
    Reject,
    /// It is used; the report says what it did.
    Accept,
}

/// The setup of a profile, or the default one, with the patches laid over it in their order.
///
/// # Errors
///
/// As [`Setup::with`]; [`EngineError::UnprovenGate`] for a gate that is not from a profile with evidence for it.
pub fn resolve(
    profile: Option<&Profile>,
    patches: &[&SetupPatch],
    unproven: UnprovenGate,
) -> Result<Setup> {
    let base = profile.map_or_else(Setup::default, |own| own.setup.clone());
    let setup = base.with_all(patches)?;
    let is_new = patches.iter().any(|patch| matches!(patch.gate, Some(GateChoice::Gate(_))));
    let is_proven = !is_new && profile.is_none_or(Profile::gate_is_shown);
    let has_gate = setup.second_stage.as_ref().is_some_and(|own| own.gate.is_some());
    if has_gate && !is_proven && unproven == UnprovenGate::Reject {
        return Err(EngineError::UnprovenGate);
    }
    Ok(setup)
}
