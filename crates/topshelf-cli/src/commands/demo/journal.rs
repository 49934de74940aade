//! The journal of a measurement: what has been measured stands on disk, so that a measurement that
//! was interrupted goes on where it was.
//!
//! ```text
//! {"journal":2,"program":"0.1.0","index":"5be1…","depth":30,…}        what is measured, and with what
//! {"query":"q001","systems":[{"milliseconds":0.61,"answer":{…}},…]}   one line a question
//! ```
//!
//! A line is written with one call when its question has been measured. A process that is killed
//! leaves at most a cut last line, which the next one drops. A journal of anything else (another
//! program, index, model, depth or number of processors) is begun again. One process at a time holds
//! the lock of the file. Links are not followed: what is found in the place of the file is removed
//! unless it is a regular file.

use std::fs::{self, File, TryLockError};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use topshelf::{ModelIdentity, Report, Scale};

use crate::exit::usage;

/// Counted up with every change of the lines.
const FORMAT: u32 = 2;

/// The largest journal that is read: ten times one of the whole collection.
const LARGEST: u64 = 64 << 20;

/// Milliseconds that a question can have taken: up to eleven days.
const TIMES: std::ops::Range<f64> = 0.0..1e9;

/// What is measured, and with what. Figures of different heads do not belong together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Head {
    journal: u32,
    /// The version of this program.
    program: String,
    /// A hash of the files of the index and of how they were read.
    pub(super) index: String,
    /// A hash of the questions.
    pub(super) questions: String,
    pub(super) systems: Vec<String>,
    pub(super) depth: usize,
    pub(super) embedder: ModelIdentity,
    pub(super) reranker: ModelIdentity,
    /// Times depend on them.
    processors: usize,
}

impl Head {
    /// Of a measurement by this program on this machine.
    pub(super) fn new(
        index: String,
        questions: String,
        systems: Vec<String>,
        depth: usize,
        embedder: ModelIdentity,
        reranker: ModelIdentity,
    ) -> Self {
        Self {
            journal: FORMAT,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            index,
            questions,
            systems,
            depth,
            embedder,
            reranker,
            processors: std::thread::available_parallelism().map_or(0, usize::from),
        }
    }
}

/// What was measured of one question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Measured {
    pub(super) query: String,
    /// In the order of [`Head::systems`].
    pub(super) systems: Vec<SystemAnswer>,
}

/// What one system answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SystemAnswer {
    pub(super) milliseconds: f64,
    /// `None` where the question has nothing to look up.
    pub(super) answer: Option<RecordedAnswer>,
}

/// An answer without the texts of its passages, which are in the index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct RecordedAnswer {
    pub(super) ranking: RecordedRanking,
    pub(super) candidates: RecordedRanking,
    pub(super) report: Report,
}

/// A ranking of passages by their ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct RecordedRanking {
    pub(super) stage: String,
    pub(super) scale: Scale,
    /// Id, score, probability of relevance.
    pub(super) hits: Vec<(String, f32, Option<f32>)>,
}

/// An open journal.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
}

/// What opening a journal found.
pub(super) struct Opened {
    pub(super) journal: Journal,
    pub(super) measured: Vec<Measured>,
    /// What was found and cannot be used, in words.
    pub(super) notice: Option<String>,
}

impl Journal {
    /// Where the journal of an index is: beside its folder.
    pub(super) fn path_of(index: &Path) -> PathBuf {
        let mut name = index.file_name().unwrap_or_default().to_os_string();
        name.push(".measured.jsonl");
        index.with_file_name(name)
    }

    /// Opens the journal of a measurement of these questions, or begins it.
    ///
    /// # Errors
    ///
    /// Where it cannot be read or written, and where another process has it open.
    pub(super) fn open(path: &Path, head: &Head, questions: &[&str]) -> Result<Opened> {
        let found = fs::symlink_metadata(path).ok();
        let is_there = found.as_ref().is_some_and(fs::Metadata::is_file);
        if found.as_ref().is_some_and(fs::Metadata::is_dir) {
            return Err(usage(format!(
                "the folder {} is where the measurement is kept; remove it, or name another --index",
                path.display()
            )));
        }
        if found.is_some() && !is_there {
            fs::remove_file(path)
                .with_context(|| format!("{} is in the place of a file", path.display()))?;
        }
        let file = File::options()
            .create_new(!is_there) // which follows no link
            .read(true)
            .write(true)
            .open(path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(usage(format!(
                    "another process is measuring and writes {}; wait until it has finished",
                    path.display()
                )));
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        let found = read(&file, head, questions)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let mut journal = Self { path: path.to_owned(), file };
        journal.cut(found.good).with_context(|| journal.cannot_write())?;
        if found.good == 0 {
            journal.write(head)?;
        }
        Ok(Opened { journal, measured: found.measured, notice: found.notice })
    }

    /// Keeps the first bytes, and writes behind them from here on.
    fn cut(&mut self, bytes: u64) -> std::io::Result<()> {
        self.file.set_len(bytes)?;
        self.file.seek(SeekFrom::End(0)).map(drop)
    }

    /// Forgets all that was measured.
    pub(super) fn begin_again(&mut self, head: &Head) -> Result<()> {
        self.cut(0).with_context(|| self.cannot_write())?;
        self.write(head)
    }

    /// Adds what was measured of a question.
    pub(super) fn add(&mut self, measured: &Measured) -> Result<()> {
        self.write(measured)
    }

    fn write(&mut self, line: &impl Serialize) -> Result<()> {
        let mut bytes = serde_json::to_vec(line).with_context(|| self.cannot_write())?;
        bytes.push(b'\n');
        self.file.write_all(&bytes).with_context(|| self.cannot_write())
    }

    fn cannot_write(&self) -> String {
        format!("cannot write {}", self.path.display())
    }
}

/// What a journal holds.
struct Found {
    measured: Vec<Measured>,
    /// Bytes up to the end of the last line that can be used.
    good: u64,
    notice: Option<String>,
}

/// Reads a journal up to its first line that cannot be used.
fn read(file: &File, head: &Head, questions: &[&str]) -> std::io::Result<Found> {
    let nothing = |notice: Option<&str>| Found {
        measured: Vec::new(),
        good: 0,
        notice: notice.map(ToOwned::to_owned),
    };
    let length = file.metadata()?.len();
    if length == 0 {
        return Ok(nothing(None));
    }
    if length > LARGEST {
        return Ok(nothing(Some(
            "an earlier measurement is too large to be read; it is made again",
        )));
    }
    let mut reader = BufReader::new(file.take(LARGEST));
    let mut line = Vec::new();
    let mut good = reader.read_until(b'\n', &mut line)? as u64;
    let own = serde_json::from_slice::<Head>(&line).is_ok_and(|found| found == *head);
    if !own || !line.ends_with(b"\n") {
        return Ok(nothing(Some(
            "an earlier measurement is of another index, program, model or machine; it is made again",
        )));
    }
    let mut measured: Vec<Measured> = Vec::new();
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(Found { measured, good, notice: None });
        }
        let next = serde_json::from_slice::<Measured>(&line).ok().filter(|next| {
            line.ends_with(b"\n")
                && next.systems.len() == head.systems.len()
                && next.systems.iter().all(|system| TIMES.contains(&system.milliseconds))
                && questions.contains(&next.query.as_str())
                && !measured.iter().any(|known| known.query == next.query)
        });
        let Some(next) = next else {
            let notice = Some(format!(
                "the measurement was cut off after {} questions; it goes on from there",
                measured.len()
            ));
            return Ok(Found { measured, good, notice });
        };
        good += read as u64;
        measured.push(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: &[&str] = &["q1", "q2", "q3"];

    fn head(depth: usize) -> Head {
        let model = |name: &str| ModelIdentity {
            name: name.to_owned(),
            fingerprint: "f".to_owned(),
            engine: "e".to_owned(),
        };
        let (index, questions) = ("i".to_owned(), "q".to_owned());
        Head::new(index, questions, vec!["bm25".to_owned()], depth, model("b"), model("c"))
    }

    fn measured(query: &str) -> Measured {
        let hits = vec![("a#0".to_owned(), 0.1_f32, Some(0.25)), ("b#1".to_owned(), -3.0, None)];
        let ranking = RecordedRanking { stage: "bm25".to_owned(), scale: Scale::Bm25, hits };
        let report =
            Report { retrievers: Vec::new(), fusion: None, second_stage: None, milliseconds: 1.5 };
        let answer = RecordedAnswer { candidates: ranking.clone(), ranking, report };
        let systems = vec![SystemAnswer { milliseconds: 1.5, answer: Some(answer) }];
        Measured { query: query.to_owned(), systems }
    }

    /// A journal with these questions in it.
    fn written(path: &Path, queries: &[&str]) -> Vec<u8> {
        let mut opened = Journal::open(path, &head(30), ASKED).unwrap();
        for query in queries {
            opened.journal.add(&measured(query)).unwrap();
        }
        fs::read(path).unwrap()
    }

    /// The questions in a journal, and what is said of it.
    fn opened(path: &Path, depth: usize) -> (Vec<String>, Option<String>) {
        let Opened { measured, notice, .. } = Journal::open(path, &head(depth), ASKED).unwrap();
        (measured.into_iter().map(|measured| measured.query).collect(), notice)
    }

    #[test]
    fn it_goes_on_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = Journal::path_of(&dir.path().join("demo.index"));
        assert!(path.ends_with("demo.index.measured.jsonl"));
        written(&path, &["q1", "q2"]);
        let mut again = Journal::open(&path, &head(30), ASKED).unwrap();
        assert_eq!(
            (again.measured.as_slice(), again.notice),
            (&[measured("q1"), measured("q2")][..], None)
        );
        again.journal.add(&measured("q3")).unwrap();
        drop(again.journal);
        assert_eq!(opened(&path, 30), (vec!["q1".into(), "q2".into(), "q3".into()], None));
    }

    #[test]
    fn a_cut_line_is_dropped_wherever_it_was_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let whole = written(&path, &["q1", "q2"]);
        let lines: Vec<usize> =
            whole.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(n, _)| n + 1).collect();
        for cut in 1..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let complete = lines.iter().filter(|end| **end <= cut).count();
            let (queries, notice) = opened(&path, 30);
            assert_eq!(queries.len(), complete.saturating_sub(1), "cut at {cut}");
            assert_eq!(notice.is_some(), !lines.contains(&cut), "cut at {cut}: {notice:?}");
            let kept = lines[complete.max(1) - 1];
            assert_eq!(fs::read(&path).unwrap(), whole[..kept], "cut at {cut}");
        }
    }

    #[test]
    fn what_stands_behind_a_damaged_line_is_measured_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let whole = String::from_utf8(written(&path, &["q1", "q2", "q3"])).unwrap();
        for (good, bad) in [
            ("\"q2\"", "\"q2"),
            ("\"q2\"", "\"q1\""),
            ("\"q2\"", "\"q9\""),
            ("\"milliseconds\":1.5,\"answer\"", "\"milliseconds\":-1,\"answer\""),
            ("\"milliseconds\":1.5,\"answer\"", "\"milliseconds\":1e300,\"answer\""),
            ("\"systems\":[{", "\"systems\":[],\"x\":[{"),
        ] {
            let place = whole.find("\"q2\"").unwrap();
            let damaged = format!("{}{}", &whole[..place], whole[place..].replacen(good, bad, 1));
            fs::write(&path, damaged).unwrap();
            let (queries, notice) = opened(&path, 30);
            assert_eq!(queries, ["q1"], "{bad}");
            assert!(notice.unwrap().contains("cut off after 1 questions"));
        }
    }

    #[test]
    fn one_of_something_else_is_begun_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        written(&path, &["q1"]);
        let (queries, notice) = opened(&path, 100);
        assert_eq!(queries.len(), 0);
        assert!(notice.unwrap().contains("it is made again"));
        assert_eq!(opened(&path, 100), (Vec::new(), None));
        fs::write(&path, "not a journal at all").unwrap();
        assert!(opened(&path, 30).1.is_some());
        fs::write(&path, [0xFF; 100]).unwrap();
        assert!(opened(&path, 30).1.is_some());
        File::create(&path).unwrap().set_len(LARGEST + 1).unwrap();
        assert!(opened(&path, 30).1.unwrap().contains("too large"));
    }

    #[test]
    fn two_processes_do_not_write_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let _first = Journal::open(&path, &head(30), ASKED).unwrap();
        let error = Journal::open(&path, &head(30), ASKED).err().unwrap().to_string();
        assert!(error.contains("another process is measuring"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_replaced_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, precious) = (dir.path().join("journal"), dir.path().join("precious"));
        fs::write(&precious, "precious").unwrap();
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        written(&path, &["q1"]);
        assert_eq!(fs::read(&precious).unwrap(), b"precious");
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
    }
}
