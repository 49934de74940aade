//! The tier on disk: restarts, bounds, damage, and a process that is killed while it writes.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use topshelf_cache::{CacheOptions, DiskError, ScoreCache};

use crate::support::{Counting, ask_and_check, numbered, with_cache};

/// Where the process that is to be killed writes.
const VICTIM: &str = "TOPSHELF_TEST_CACHE";

fn options(path: &Path) -> CacheOptions {
    CacheOptions { disk: Some((path.to_owned(), 64 << 20)), ..CacheOptions::default() }
}

fn open(path: &Path) -> Arc<ScoreCache> {
    let (cache, trouble) = ScoreCache::open(&options(path));
    assert!(trouble.is_none(), "{trouble:?}");
    Arc::new(cache)
}

#[test]
fn scores_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/scores.redb");
    assert_eq!(
        ask_and_check(&with_cache(Counting::new(), &open(&path)), "q", &numbered(0..100)),
        0
    );
    let cache = open(&path);
    assert_eq!(ask_and_check(&with_cache(Counting::new(), &cache), "q", &numbered(0..120)), 100);
    let stats = cache.stats();
    assert_eq!((stats.disk_hits, stats.scored), (100, 20));
    // Once in memory, the disk is not asked again.
    assert_eq!(ask_and_check(&with_cache(Counting::new(), &cache), "q", &numbered(0..100)), 100);
    assert_eq!(cache.stats().disk_hits, 100);
}

#[test]
fn the_file_is_bounded_and_keeps_what_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scores.redb");
    let limit = 2 << 20;
    let options = {
        let disk = Some((path.clone(), limit));
        CacheOptions { memory: 1, disk, ..CacheOptions::default() }
    };
    let cache = Arc::new(ScoreCache::open(&options).0);
    let reranker = with_cache(Counting::new(), &cache);
    let favourites = numbered(0..50);
    ask_and_check(&reranker, "q", &favourites);
    for round in 1..60 {
        ask_and_check(&reranker, "q", &numbered(round * 1000..(round + 1) * 1000));
        cache.flush();
        assert_eq!(ask_and_check(&reranker, "q", &favourites), 50, "round {round}");
        cache.flush();
    }
    let disk = cache.stats().disk.unwrap();
    assert_eq!(disk.dropped, 0);
    assert!(disk.entries < 20_000, "{disk:?}");
    assert!(disk.bytes <= limit + limit / 4, "{disk:?}");
    // What was asked for once, long ago, is gone.
    assert_eq!(ask_and_check(&reranker, "q", &numbered(1000..1100)), 0);
}

#[test]
fn a_second_handle_does_without_the_disk_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scores.redb");
    let _first = open(&path);
    let (second, trouble) = ScoreCache::open(&options(&path));
    assert!(matches!(trouble, Some(DiskError::InUse { .. })), "{trouble:?}");
    let second = Arc::new(second);
    let reranker = with_cache(Counting::new(), &second);
    ask_and_check(&reranker, "q", &numbered(0..10));
    assert_eq!(ask_and_check(&reranker, "q", &numbered(0..10)), 10);
}

#[test]
fn a_folder_that_cannot_be_made_costs_the_tier_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a-file");
    std::fs::write(&file, "not a folder").unwrap();
    let (cache, trouble) = ScoreCache::open(&options(&file.join("scores.redb")));
    assert!(matches!(trouble, Some(DiskError::Unusable { .. })), "{trouble:?}");
    ask_and_check(&with_cache(Counting::new(), &Arc::new(cache)), "q", &numbered(0..10));
}

#[test]
fn a_file_that_is_no_cache_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scores.redb");
    for content in [&b"these are not scores"[..], &[0; 5000], &[0xff; 10_000]] {
        std::fs::write(&path, content).unwrap();
        let cache = open(&path);
        assert!(cache.stats().disk.unwrap().begun_anew.is_some());
        let reranker = with_cache(Counting::new(), &cache);
        assert_eq!(ask_and_check(&reranker, "q", &numbered(0..10)), 0);
        drop((cache, reranker));
        let reranker = with_cache(Counting::new(), &open(&path));
        assert_eq!(ask_and_check(&reranker, "q", &numbered(0..10)), 10);
    }
}

/// Bits all over the file are flipped, one file at a time. Whatever the database makes of it, every
/// score is right.
#[test]
fn a_flipped_bit_never_gives_a_wrong_score() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scores.redb");
    ask_and_check(&with_cache(Counting::new(), &open(&path)), "q", &numbered(0..2000));
    let sound = std::fs::read(&path).unwrap();
    let (mut damaged, mut anew, mut out_of_use) = (0, 0, 0);
    for turn in 0..120_usize {
        // The head of the file densely, the rest at places spread over all of it.
        let at = if turn < 40 { turn * 8 } else { turn * 7919 * 131 % sound.len() };
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (turn % 8);
        std::fs::write(&path, &bytes).unwrap();
        let cache = open(&path);
        let reranker = with_cache(Counting::new(), &cache);
        ask_and_check(&reranker, "q", &numbered(0..2000));
        ask_and_check(&reranker, "q", &numbered(5000..5100));
        cache.flush();
        let disk = cache.stats().disk.unwrap();
        damaged += usize::from(disk.damaged > 0);
        anew += usize::from(disk.begun_anew.is_some());
        out_of_use += usize::from(disk.out_of_use.is_some());
    }
    println!("{damaged} with damaged entries, {anew} begun anew, {out_of_use} out of use");
    assert!(damaged + anew + out_of_use > 0);
}

/// Not a test by itself: with [`VICTIM`] set it writes until it is killed.
#[test]
fn victim() {
    let Some(path) = std::env::var_os(VICTIM) else { return };
    let cache = open(Path::new(&path));
    let reranker = with_cache(Counting::new(), &cache);
    for round in 0.. {
        ask_and_check(&reranker, "q", &numbered(round * 100..(round + 1) * 100));
        cache.flush();
        println!("{round}");
    }
}

#[test]
fn killed_while_it_writes_it_leaves_right_scores() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scores.redb");
    let mut survived = 0;
    for turn in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["disk::victim", "--exact", "--nocapture"])
            .env(VICTIM, &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(60 + 37 * turn));
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        let start = Instant::now();
        let cache = open(&path);
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        let disk = cache.stats().disk.unwrap();
        assert_eq!(disk.begun_anew, None, "a crash is no damage");
        let reranker = with_cache(Counting::new(), &cache);
        let known = ask_and_check(&reranker, "q", &numbered(0..2000));
        assert_eq!(cache.stats().disk.unwrap().damaged, 0);
        survived = survived.max(known);
    }
    assert!(survived >= 100, "nothing was written before the process was killed");
}
