//! The score cache of the command line: where it lies, what it may take, and `topshelf cache`.

use std::env;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use topshelf::cache::disk;
use topshelf::{CacheOptions, ScoreCache, SharedOptions};

use super::{cache_dir, print, print_json};
use crate::args::CacheCommand;
use crate::exit::usage;
use crate::output::{ScoreCacheCleared, ScoreCacheStats, SharedCacheStats};
use crate::say::say;

/// MiB that the file may take; 0 for no cache.
const SIZE: &str = "TOPSHELF_SCORE_CACHE";

/// Addresses of the shared tier, apart by commas. Not an option, since it may hold a password.
const SHARED: &str = "TOPSHELF_SHARED_CACHE";

/// What it may take unless set: two million scores, about.
const DEFAULT_MIB: u64 = 256;

pub(super) fn run(command: CacheCommand) -> Result<()> {
    match command {
        CacheCommand::Stats { format } => {
            let answer = stats()?;
            if format.json {
                return print_json(&answer);
            }
            if answer.limit == 0 {
                return print(&format!("the score cache is off: {SIZE}=0"));
            }
            print(&format!(
                "{}\n{} scores, {:.1} of {} MiB",
                answer.path,
                answer.entries,
                answer.bytes as f64 / f64::from(1 << 20),
                answer.limit >> 20
            ))?;
            match answer.shared {
                Some(SharedCacheStats { nodes, trouble: None }) => {
                    print(&format!("shared: {} answers", nodes.join(", ")))
                }
                Some(SharedCacheStats { nodes, trouble: Some(trouble) }) => {
                    print(&format!("shared: {} does not answer: {trouble}", nodes.join(", ")))
                }
                None => Ok(()),
            }
        }
        CacheCommand::Clear { format } => {
            let path = file()?;
            let bytes = disk::clear(&path)?;
            let answer = ScoreCacheCleared { path: super::display(&path), bytes };
            if format.json {
                return print_json(&answer);
            }
            print(&match bytes {
                0 => format!("there was no {}", answer.path),
                _ => format!("removed {}", answer.path),
            })
        }
    }
}

fn stats() -> Result<ScoreCacheStats> {
    let (path, limit) = (file()?, limit()?);
    let there = path.exists();
    let mut answer = ScoreCacheStats {
        path: super::display(&path),
        entries: 0,
        bytes: 0,
        limit,
        shared: shared()?.filter(|_| limit > 0).map(|shared| {
            let options = CacheOptions { shared: Some(shared), ..CacheOptions::default() };
            let stats = ScoreCache::open(&options).0.ask_shared();
            SharedCacheStats { nodes: stats.nodes, trouble: stats.trouble }
        }),
    };
    if there && limit > 0 {
        let options = CacheOptions { disk: Some((path, limit)), ..CacheOptions::default() };
        let (cache, trouble) = ScoreCache::open(&options);
        if let Some(trouble) = trouble {
            return Err(trouble.into());
        }
        if let Some(disk) = cache.stats().disk {
            (answer.entries, answer.bytes) = (disk.entries, disk.bytes);
        }
    }
    Ok(answer)
}

/// Opens the score cache; `None` where it is switched off. What is wrong with its file is told.
pub(super) fn open() -> Result<Option<Arc<ScoreCache>>> {
    let limit = limit()?;
    if limit == 0 {
        return Ok(None);
    }
    let options =
        CacheOptions { disk: Some((file()?, limit)), shared: shared()?, ..CacheOptions::default() };
    let (cache, trouble) = ScoreCache::open(&options);
    if let Some(trouble) = trouble {
        say!("note: scores are not kept for the next time: {trouble}");
    }
    if let Some(reason) = cache.stats().disk.and_then(|disk| disk.begun_anew) {
        say!("note: the score cache was damaged and starts again: {reason}");
    }
    Ok(Some(Arc::new(cache)))
}

/// The shared tier, if there is to be one.
fn shared() -> Result<Option<SharedOptions>> {
    let Some(given) = env::var_os(SHARED).filter(|given| !given.is_empty()) else {
        return Ok(None);
    };
    let nodes = given.to_str().ok_or_else(|| usage(format!("{SHARED} is not a text")))?;
    let nodes = nodes.split(',').map(str::trim).filter(|node| !node.is_empty());
    let options = SharedOptions::new(nodes).map_err(|error| {
        usage(format!(
            "{SHARED}: {error}; give it redis://host:6379, or a cluster's nodes with commas"
        ))
    })?;
    Ok(Some(options))
}

fn file() -> Result<PathBuf> {
    Ok(cache_dir()?.join("scores.redb"))
}

fn limit() -> Result<u64> {
    let Some(given) = env::var_os(SIZE) else { return Ok(DEFAULT_MIB << 20) };
    let mib = given.to_str().and_then(|given| given.trim().parse::<u32>().ok());
    let mib = mib.ok_or_else(|| {
        usage(format!("{SIZE} is {}; give it a number of MiB, or 0", given.display()))
    })?;
    Ok(u64::from(mib) << 20)
}
