//! `index add` ended at any moment, by SIGKILL and by Ctrl-C: the index is the old one or the
//! new one, whole.

#![cfg(unix)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::program::{copy_folder, models, run, topshelf, write};

/// Kills with and without vectors.
const ROUNDS: u32 = 25;

/// Longer than this no add may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// A document's id and its text.
type Contents = BTreeMap<String, String>;

/// When the program is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// So long after its start.
    After(Duration),
    /// So long after it has begun to write what the commit will make visible.
    Committing(Duration),
}

/// The generator splitmix64, so that a failing round can be had again.
struct Random(u64);

impl Random {
    /// A number from 0 to 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Writes `docs/NUMBER.md` for each number; every document has the word "harbour" in it.
fn write_documents(dir: &Path, numbers: std::ops::Range<u32>, version: &str) {
    for number in numbers {
        let mut text = format!("# Log {number}, {version}\n\n");
        for day in 0..4 {
            let _ = write!(
                text,
                "Day {day}: ship {} left the harbour, {version} cargo, at {} o'clock. ",
                number * 7 + day,
                (number + day) % 24
            );
        }
        write(dir, &format!("docs/{number}.md"), text);
    }
}

/// The folder `docs` in its new state, and `old.index` over its old one: some files have changed
/// since, some are new, some have vanished.
fn prepare(dir: &Path, embed: &str) -> (Contents, Contents) {
    write_documents(dir, 0..30, "old");
    run(dir, &["index", "add", "docs", "--index", "old.index", "--embed", embed]).success();
    write_documents(dir, 0..10, "altered");
    write_documents(dir, 30..60, "new");
    for number in 20..30 {
        fs::remove_file(dir.join(format!("docs/{number}.md"))).unwrap();
    }
    let old = contents(dir, "old.index");
    copy_folder(&dir.join("old.index"), &dir.join("new.index"));
    run(dir, &add("new.index")).success();
    let new = contents(dir, "new.index");
    assert_eq!((old.len(), new.len()), (30, 50));
    (old, new)
}

fn add(index: &str) -> [&str; 6] {
    ["index", "add", "docs", "--sync", "--index", index]
}

/// What the index finds, after all of it has been compared with its checksums.
fn contents(dir: &Path, index: &str) -> Contents {
    let stats = run(dir, &["index", "stats", "--index", index, "--check", "--json"]).json();
    assert_eq!(stats["check"]["checksums"], true);
    let search = ["search", "harbour", "--index", index, "--retriever", "bm25", "--rerank", "none"];
    let found = run(dir, &[&search[..], &["--top", "100", "--json"]].concat()).json();
    let text = |value: &serde_json::Value| value.as_str().expect("it is a text").to_owned();
    let hits = found["hits"].as_array().expect("there are hits");
    let documents: Contents =
        hits.iter().map(|hit| (text(&hit["document"]), text(&hit["text"]))).collect();
    assert_eq!(documents.len(), hits.len(), "each document is found once");
    assert_eq!(stats["totals"]["documents"], documents.len(), "{stats}");
    documents
}

/// The files that commits make visible.
fn state_files(index: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(index).expect("the index is there");
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("files-") || name.starts_with("vectors-")).collect()
}

/// Starts `index add`.
fn start_adding(dir: &Path, index: &str) -> Child {
    let mut command = topshelf(dir, &add(index));
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts")
}

/// Waits until the program begins to write what its commit will make visible, or ends.
fn wait_for_commit(child: &mut Child, index: &Path, before: &BTreeSet<String>) {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() && state_files(index).is_subset(before) {
        assert!(start.elapsed() < PATIENCE, "nothing is ever written");
        thread::sleep(Duration::from_micros(100));
    }
}

/// How long an undisturbed add takes up to its commit, and from there on: the quickest of three.
fn durations(dir: &Path) -> (Duration, Duration) {
    let once = |round: u32| {
        let name = format!("timed-{round}.index");
        let index = dir.join(&name);
        copy_folder(&dir.join("old.index"), &index);
        let before = state_files(&index);
        let start = Instant::now();
        let mut child = start_adding(dir, &name);
        wait_for_commit(&mut child, &index, &before);
        let writing = start.elapsed();
        assert!(child.wait().unwrap().success());
        (writing, start.elapsed().saturating_sub(writing))
    };
    let all = (0..3).map(once);
    all.min_by_key(|(writing, committing)| *writing + *committing).expect("there are three")
}

/// Kills `index add` at one moment after the other. The index must be the old or the new one
/// each time; then it is added to again, which must give the new one.
fn kill_often(embed: &str, seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (old, new) = prepare(dir, embed);
    let (writing, committing) = durations(dir);
    let clean = state_files(&dir.join("new.index")).len();

    let mut random = Random(seed);
    let (mut killed, mut kept) = (0, 0);
    for round in 0..ROUNDS {
        // A random moment in each slice of a whole add and a little longer, and every other
        // round in a slice of the commit, which is short.
        let slice = 1.1 * (f64::from(round) + 2.0 * random.next()) / f64::from(ROUNDS);
        let moment = if round % 2 == 0 {
            Moment::After((writing + committing).mul_f64(slice))
        } else {
            Moment::Committing(committing.mul_f64(slice))
        };
        let name = format!("{round}.index");
        let index = dir.join(&name);
        copy_folder(&dir.join("old.index"), &index);
        let before = state_files(&index);
        let mut child = start_adding(dir, &name);
        match moment {
            Moment::After(pause) => thread::sleep(pause),
            Moment::Committing(pause) => {
                wait_for_commit(&mut child, &index, &before);
                thread::sleep(pause);
            }
        }
        let _ = child.kill(); // it may have ended already
        let status = child.wait().unwrap();
        assert!(status.success() || status.signal() == Some(9), "round {round}: {status}");

        let found = contents(dir, &name);
        let what = format!("round {round} of seed {seed}, killed at {moment:?}, {status}");
        assert!(found == old || found == new, "{what}: {found:#?}");
        assert!(!status.success() || found == new, "{what}: it ended well but is the old one");
        killed += u32::from(!status.success());
        kept += u32::from(found == old);
        if embed == "none" || round % 5 == 0 {
            run(dir, &add(&name)).success();
            assert_eq!(contents(dir, &name), new, "added again after {what}");
            assert_eq!(state_files(&index).len(), clean, "files are left over after {what}");
        }
        fs::remove_dir_all(&index).unwrap();
    }
    println!(
        "{embed}: {killed} of {ROUNDS} killed, {kept} left the old index; an add writes for \
         {writing:?} and commits for {committing:?}"
    );
    assert!(killed >= ROUNDS / 4, "only {killed} of {ROUNDS} were killed before they ended");
    assert!(kept > 0, "none was killed before its commit");
}

#[test]
fn killed_while_adding_words() {
    kill_often("none", 1);
}

#[test]
fn killed_while_adding_words_and_vectors() {
    models();
    kill_often("bge-small", 2);
}

#[test]
fn interrupted_by_ctrl_c() {
    models();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (old, new) = prepare(dir, "bge-small");
    copy_folder(&dir.join("old.index"), &dir.join("i"));
    let before = state_files(&dir.join("i"));
    // More work than can be done before the signal arrives.
    write_documents(dir, 60..400, "new");
    let mut command = topshelf(dir, &add("i"));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().expect("it is piped"));
    let mut said = String::new();
    stderr.read_line(&mut said).unwrap();
    assert_eq!(said, "indexing and embedding ...\n"); // said after the program listens for Ctrl-C
    let sent = Command::new("sh").arg("-c").arg(format!("kill -INT {}", child.id())).status();
    assert!(sent.unwrap().success());
    let start = Instant::now();
    stderr.read_to_string(&mut said).unwrap();
    let status = child.wait().unwrap();
    assert!(start.elapsed() < Duration::from_secs(10), "it took {:?} to stop", start.elapsed());
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(said.contains("stopping; the index stays as it was"), "{said}");
    assert!(said.contains("interrupted; the index is as it was before"), "{said}");
    assert_eq!(contents(dir, "i"), old);
    assert_eq!(state_files(&dir.join("i")), before, "nothing is left over");

    for number in 60..400 {
        fs::remove_file(dir.join(format!("docs/{number}.md"))).unwrap();
    }
    run(dir, &add("i")).success();
    assert_eq!(contents(dir, "i"), new);
}
