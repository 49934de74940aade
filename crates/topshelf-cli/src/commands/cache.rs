//! `topshelf cache`: what is in the score cache, and emptying it.

use anyhow::Result;
use topshelf::cache::disk;
use topshelf::engine::scores::{self, SIZE_VARIABLE};
use topshelf::{CacheOptions, ScoreCache};

use super::{home_dir, print, print_json};
use crate::args::CacheCommand;
use crate::output::{ScoreCacheCleared, ScoreCacheStats, SharedCacheStats};

pub(super) fn run(command: CacheCommand) -> Result<()> {
    match command {
        CacheCommand::Stats { format } => {
            let answer = stats()?;
            if format.json {
                return print_json(&answer);
            }
            if answer.limit == 0 {
                return print(&format!("the score cache is off: {SIZE_VARIABLE}=0"));
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
            let path = scores::file(&home_dir()?);
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
    let (path, limit) = (scores::file(&home_dir()?), scores::limit()?);
    let there = path.exists();
    let mut answer = ScoreCacheStats {
        path: super::display(&path),
        entries: 0,
        bytes: 0,
        limit,
        shared: scores::shared()?.filter(|_| limit > 0).map(|shared| {
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
