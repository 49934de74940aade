//! Reports as one web page each: no script, no font, nothing from a network.
//!
//! [`mod@evaluated`] writes that of `eval`, [`mod@tuned`] that of `tune`; both draw with [`chart`] on a
//! [`page`], and [`spent`] tells what it cost. They read nothing but the answer that `--json` prints, so the two cannot differ.

mod chart;
mod evaluated;
mod page;
mod spent;
mod tuned;

use std::path::Path;

use anyhow::Result;

pub(crate) use evaluated::evaluated;
pub(crate) use tuned::tuned;

use crate::exit::usage;

/// Writes a page.
pub(crate) fn save(html: &str, path: &Path) -> Result<()> {
    std::fs::write(path, html)
        .map_err(|error| usage(format!("cannot write the report {}: {error}", path.display())))
}
