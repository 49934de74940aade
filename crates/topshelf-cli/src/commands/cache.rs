//! The score cache of the command line: where it lies, what it may take, and `topshelf cache`.

use std::env;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use topshelf::cache::disk;
use topshelf::{CacheOptions, ScoreCache};

use super::{cache_dir, print, print_json};
use crate::args::CacheCommand;
use crate::exit::usage;
use crate::output::{ScoreCacheCleared, ScoreCacheStats};

/// MiB that the file may take; 0 for no cache.
const SIZE: &str = "TOPSHELF_SCORE_CACHE";

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
            ))
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
    let mut answer = ScoreCacheStats { path: super::display(&path), entries: 0, bytes: 0, limit };
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
    let options = CacheOptions { disk: Some((file()?, limit)), ..CacheOptions::default() };
    let (cache, trouble) = ScoreCache::open(&options);
    if let Some(trouble) = trouble {
        eprintln!("note: scores are not kept for the next time: {trouble}");
    }
    if let Some(reason) = cache.stats().disk.and_then(|disk| disk.begun_anew) {
        eprintln!("note: the score cache was damaged and begins anew: {reason}");
    }
    Ok(Some(Arc::new(cache)))
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
