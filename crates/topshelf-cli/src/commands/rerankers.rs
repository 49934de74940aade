//! A reranker by its name, whatever its family: one word changes it.

use std::sync::Arc;

use anyhow::Result;
use topshelf::{CrossEncoder, Family, LateInteraction, Reranker, Store};

/// Loads the reranker of that name, alias or folder.
pub(super) fn open(name: &str) -> Result<Arc<dyn Reranker>> {
    let folder = Store::open_default()?.find(name)?;
    Ok(match folder.spec.family {
        Family::LateInteraction => Arc::new(LateInteraction::from_folder(&folder)?),
        // One that is none says so.
        Family::CrossEncoder | Family::BiEncoder => Arc::new(CrossEncoder::from_folder(&folder)?),
    })
}
