//! Where the score cache lies and how large it is.
//!
//! | variable | says |
//! | --- | --- |
//! | `TOPSHELF_SCORE_CACHE` | MiB that the file may take; 0 for no cache; 256, which is about two million scores, if it is not set |
//! | `TOPSHELF_SHARED_CACHE` | addresses of the shared tier, apart by commas; a variable, since it may hold a password |

use std::env;
use std::path::{Path, PathBuf};

use topshelf_cache::{CacheOptions, SharedOptions};

use crate::error::{EngineError, Result};

/// MiB that the file may take.
pub const SIZE_VARIABLE: &str = "TOPSHELF_SCORE_CACHE";

/// Addresses of the shared tier.
pub const SHARED_VARIABLE: &str = "TOPSHELF_SHARED_CACHE";

const DEFAULT_MIB: u64 = 256;

/// The file of scores in a home folder.
pub fn file(home: &Path) -> PathBuf {
    home.join("cache").join("scores.redb")
}

/// Bytes that the file may take; 0 where the cache is off.
///
/// # Errors
///
/// [`EngineError::Variable`].
pub fn limit() -> Result<u64> {
    let Some(given) = env::var_os(SIZE_VARIABLE) else { return Ok(DEFAULT_MIB << 20) };
    let mib = given.to_str().and_then(|given| given.trim().parse::<u32>().ok());
    let mib = mib.ok_or_else(|| EngineError::Variable {
        variable: SIZE_VARIABLE,
        reason: format!("\"{}\" is not a number of MiB", given.display()),
        expected: "give it a number of MiB, or 0",
    })?;
    Ok(u64::from(mib) << 20)
}

/// The shared tier, if the environment names one.
///
/// # Errors
///
/// [`EngineError::Variable`].
pub fn shared() -> Result<Option<SharedOptions>> {
    let Some(given) = env::var_os(SHARED_VARIABLE).filter(|given| !given.is_empty()) else {
        return Ok(None);
    };
    let wrong = |reason: String| EngineError::Variable {
        variable: SHARED_VARIABLE,
        reason,
        expected: "give it redis://host:6379, or a cluster's nodes with commas",
    };
    let nodes = given.to_str().ok_or_else(|| wrong("it is not a text".to_owned()))?;
    let nodes = nodes.split(',').map(str::trim).filter(|node| !node.is_empty());
    // The error does not repeat the address, which may hold a password.
    Ok(Some(SharedOptions::new(nodes).map_err(|error| wrong(error.to_string()))?))
}

/// How the score cache of a home folder is opened; `None` where it is off.
///
/// # Errors
///
/// [`EngineError::Variable`].
pub fn options(home: &Path) -> Result<Option<CacheOptions>> {
    let limit = limit()?;
    if limit == 0 {
        return Ok(None);
    }
    let disk = Some((file(home), limit));
    Ok(Some(CacheOptions { disk, shared: shared()?, ..CacheOptions::default() }))
}
