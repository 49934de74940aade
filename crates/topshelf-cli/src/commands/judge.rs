//! `topshelf judge`: judgments of a person's own, so that `eval` has something to measure with.
//!
//! For each query the first results of every stage are pooled, as TREC does (Sparck Jones and van
//! Rijsbergen, 1975), so that no stage is measured by what another found alone; shown in an order that
//! follows from their ids and says nothing of the stages; and graded 0, 1 or 2. Each grade is on disk
//! before the next passage is shown, and what is judged is not asked again.
//!
//! Clicks and thumbs that were logged elsewhere become judgments too. A click says that somebody
//! looked, so it is the weakest: a thumb outweighs it, and a grade outweighs both. That nobody clicked
//! says nothing: most people stop reading at the first good result.

pub(super) mod by_model;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use topshelf::eval::Qrels;
use topshelf::setup::NO_RERANKER;
use topshelf::{
    FirstStageSetup, Index, OnFailure, Passage, Pipeline, Query, Retrievers, ScoreCacheUse,
    SecondStageSetup, Setup,
};

use super::{display, pipelines, print, print_json};
use crate::args::JudgeArguments;
use crate::exit::usage;
use crate::output::{Agreed, JudgeAnswer, JudgedByModel};
use crate::say::say;
use crate::table;

/// Characters of a passage that are shown.
const SHOWN: usize = 1200;

const KEYS: &str =
    "2 answers it, 1 helps, 0 does not; s skip, n next query, u undo the last, q quit > ";

/// A folder of judgments: queries.jsonl and qrels/test.tsv, as in a collection without its corpus.
struct Folder {
    root: PathBuf,
    /// Id and text, in the order in which they came.
    queries: Vec<(String, String)>,
    grades: BTreeMap<(String, String), i32>,
}

/// What became of a query.
enum Walked {
    On,
    Quit,
}

pub(super) fn run(arguments: &JudgeArguments) -> Result<()> {
    let mut folder = Folder::open(&arguments.out)?;
    let before = folder.grades.len();
    if let Some(queries) = &arguments.queries {
        folder.add_queries(queries)?;
        folder.save()?;
    }
    let (mut ignored, mut by_model) = (0, None);
    match (&arguments.clicks, &arguments.by) {
        (Some(log), _) => ignored = folder.read_clicks(log)?,
        (None, Some(model)) => {
            folder.has_queries()?;
            folder.save()?;
            by_model = Some(by_model::judge(arguments, model, &folder)?);
        }
        (None, None) => walk(arguments, &mut folder)?,
    }
    folder.save()?;
    let answer = JudgeAnswer {
        folder: display(&folder.root),
        queries: folder.queries.len(),
        judgments: folder.grades.len(),
        added: folder.grades.len().saturating_sub(before),
        ignored,
        by_model,
    };
    if arguments.format.json {
        return print_json(&answer);
    }
    if let Some(JudgedByModel { model, pairs, unreadable, tokens, agreement, .. }) =
        &answer.by_model
    {
        let checked = match agreement {
            Some(Agreed { pairs, equal, kappa, .. }) => format!(
                "on {pairs} pairs that you judged too it agrees in {:.0} % (kappa {kappa:.2})",
                equal * 100.0
            ),
            None => "you have judged none of them, so nobody knows what they are worth; \
                     `topshelf judge` without --by is how"
                .to_owned(),
        };
        return print(&format!(
            "{pairs} pairs judged by {model}, {unreadable} answers without a grade, {tokens} tokens\n\
             {checked}\n\
             topshelf eval --own {} --split {} --index INDEX    measures with them",
            answer.folder,
            by_model::SPLIT
        ));
    }
    print(&format!(
        "{} judgments of {} queries in {}, {} of them new{}\n\
         topshelf eval --own {} --index INDEX    measures with them",
        answer.judgments,
        answer.queries,
        answer.folder,
        answer.added,
        if ignored > 0 { format!("; {ignored} lines said nothing") } else { String::new() },
        answer.folder
    ))
}

/// Asks a person, passage by passage.
fn walk(arguments: &JudgeArguments, folder: &mut Folder) -> Result<()> {
    let Some(index) = &arguments.index else {
        return Err(usage("give --index DIR to judge its passages, or --clicks LOG"));
    };
    folder.has_queries()?;
    let index = Index::open(index)?;
    let pools = Pools::new(arguments, &index)?;
    let mut answers = std::io::stdin().lock().lines();
    let queries = folder.queries.clone();
    for (place, (id, text)) in queries.iter().enumerate() {
        let pool = pools.of(text)?;
        let open: Vec<&Arc<Passage>> =
            pool.iter().filter(|passage| !folder.knows(id, &passage.id)).collect();
        if open.is_empty() {
            continue;
        }
        say!("\nquery {} of {}: {text}", place + 1, queries.len());
        if let Walked::Quit = folder.ask(id, &open, &mut answers)? {
            break;
        }
    }
    Ok(())
}

/// The stages whose results are pooled.
struct Pools {
    pipelines: Vec<Pipeline>,
    each: usize,
}

impl Pools {
    fn new(arguments: &JudgeArguments, index: &Index) -> Result<Self> {
        let each = arguments.pool;
        let stages: &[Retrievers] = if index.settings().embedder.is_some() {
            &[Retrievers::BM25, Retrievers::DENSE, Retrievers::HYBRID]
        } else {
            &[Retrievers::BM25]
        };
        let engine = pipelines::engine(&arguments.spending, ScoreCacheUse::Bypass)?;
        let of_stage = |retrievers: Retrievers, depth| Setup {
            top: each,
            ..Setup::of_first_stage(FirstStageSetup {
                retriever: Some(retrievers),
                depth,
                ..FirstStageSetup::default()
            })
        };
        let mut setups: Vec<Setup> = stages.iter().map(|stage| of_stage(*stage, each)).collect();
        if arguments.rerank != NO_RERANKER
            && let Some(last) = stages.last()
        {
            let second_stage = Some(SecondStageSetup::by(&arguments.rerank));
            let depth = arguments.depth.max(each);
            // A pool is of what each stage finds, so a reranker that fails is an error.
            let on_failure = OnFailure::Fail;
            setups.push(Setup { second_stage, on_failure, ..of_stage(*last, depth) });
        }
        let pipelines = setups.iter().map(|setup| engine.pipeline(index, setup));
        let pipelines = pipelines.collect::<Result<_, _>>()?;
        Ok(Self { pipelines, each })
    }

    /// The first passages of every stage, in an order that says nothing of the stages.
    fn of(&self, text: &str) -> Result<Vec<Arc<Passage>>> {
        let query = Query::new(text)?;
        let mut seen = HashSet::new();
        let mut pool: Vec<(u64, Arc<Passage>)> = Vec::new();
        for pipeline in &self.pipelines {
            let answer = match pipeline.run_blocking(&query) {
                Ok(answer) => answer,
                Err(topshelf::Error::NothingToLookUp { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            for hit in answer.ranking.top(self.each).into_hits() {
                if seen.insert(hit.passage.id.clone()) {
                    pool.push((shuffled(text, &hit.passage.id), hit.passage));
                }
            }
        }
        pool.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.id.cmp(&b.1.id)));
        Ok(pool.into_iter().map(|(_, passage)| passage).collect())
    }
}

/// A number that follows from query and passage and from nothing else: FNV-1a in 64 bits, mixed
/// once more, since neighbouring ids would stay neighbours.
fn shuffled(query: &str, id: &str) -> u64 {
    let bytes = query.bytes().chain([0]).chain(id.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32)
}

impl Folder {
    /// Reads what is there already; nothing is.
    fn open(root: &Path) -> Result<Self> {
        let mut own = Self { root: root.to_owned(), queries: Vec::new(), grades: BTreeMap::new() };
        if own.queries_file().is_file() {
            own.add_queries(&own.queries_file())?;
        }
        // A file without a judgment is one that nothing was written to yet.
        if fs::metadata(own.qrels_file()).is_ok_and(|meta| meta.len() > HEADER.len() as u64) {
            let qrels = Qrels::open(own.qrels_file())?.qrels;
            for (query, documents) in qrels.iter() {
                for (document, grade) in documents {
                    own.grades.insert((query.to_owned(), document.clone()), *grade);
                }
            }
        }
        Ok(own)
    }

    fn has_queries(&self) -> Result<()> {
        if self.queries.is_empty() {
            return Err(usage("there are no queries; give --queries FILE, one a line"));
        }
        Ok(())
    }

    fn queries_file(&self) -> PathBuf {
        self.root.join("queries.jsonl")
    }

    fn qrels_file(&self) -> PathBuf {
        self.root.join("qrels").join("test.tsv")
    }

    fn knows(&self, query: &str, document: &str) -> bool {
        self.grades.contains_key(&(query.to_owned(), document.to_owned()))
    }

    /// The id of a query, which is a new one if its text is new.
    fn query(&mut self, text: &str) -> String {
        let text = text.trim();
        if let Some((id, _)) = self.queries.iter().find(|(_, known)| known == text) {
            return id.clone();
        }
        let taken: HashSet<&str> = self.queries.iter().map(|(id, _)| id.as_str()).collect();
        let mut number = self.queries.len() + 1;
        while taken.contains(format!("q{number}").as_str()) {
            number += 1;
        }
        let id = format!("q{number}");
        self.queries.push((id.clone(), text.to_owned()));
        id
    }

    /// Adds the queries of a file: one a line, as text or as a record with `text` and, if it has
    /// one, `_id` or `id`.
    fn add_queries(&mut self, path: &Path) -> Result<()> {
        let name = display(path);
        let text = fs::read_to_string(path)
            .map_err(|error| usage(format!("cannot read {name}: {error}")))?;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim().trim_start_matches('\u{feff}');
            if line.is_empty() {
                continue;
            }
            if !line.starts_with('{') {
                self.query(line);
                continue;
            }
            let at = || format!("{name}, line {}", number + 1);
            let record: Value = serde_json::from_str(line)
                .map_err(|error| usage(format!("{}: no JSON object: {error}", at())))?;
            let text = record["text"].as_str().or(record["query"].as_str()).map(str::trim);
            let text = text.filter(|text| !text.is_empty());
            let text = text.ok_or_else(|| usage(format!("{}: a query has a text", at())))?;
            let given = ["_id", "id"].iter().find_map(|key| as_id(&record[*key]));
            match given {
                Some(id) if self.queries.iter().any(|(known, _)| *known == id) => {
                    let known = self.queries.iter().find(|(known, _)| *known == id);
                    if known.is_some_and(|(_, known)| known != text) {
                        return Err(usage(format!(
                            "{}: the id {id} is that of another query",
                            at()
                        )));
                    }
                }
                Some(id) => self.queries.push((id, text.to_owned())),
                None => {
                    self.query(text);
                }
            }
        }
        Ok(())
    }

    /// Shows passages and takes grades until the query is through.
    fn ask(
        &mut self,
        query: &str,
        passages: &[&Arc<Passage>],
        answers: &mut impl Iterator<Item = std::io::Result<String>>,
    ) -> Result<Walked> {
        let mut at = 0;
        let mut done: Vec<(usize, String)> = Vec::new();
        while let Some(passage) = passages.get(at) {
            let trail = passage.trail();
            say!(
                "\n[{} of {}] {}{}\n{}",
                at + 1,
                passages.len(),
                passage.id,
                if trail.is_empty() { String::new() } else { format!("  {trail}") },
                table::shorten(&passage.text, SHOWN)
            );
            let answer = loop {
                crate::say::write(KEYS);
                // The end of the input is a wish to stop.
                let Some(line) = answers.next() else { return Ok(Walked::Quit) };
                let line = line.context("cannot read the answer")?;
                match line.trim() {
                    known @ ("0" | "1" | "2" | "s" | "n" | "u" | "q") => break known.to_owned(),
                    other => say!("\"{other}\" is none of them"),
                }
            };
            match answer.as_str() {
                "s" => at += 1,
                "n" => return Ok(Walked::On),
                "q" => return Ok(Walked::Quit),
                "u" => match done.pop() {
                    Some((place, document)) => {
                        self.grades.remove(&(query.to_owned(), document));
                        self.save()?;
                        at = place;
                    }
                    None => say!("nothing of this query is judged yet"),
                },
                grade => {
                    let grade = grade.parse().unwrap_or_default(); // one of 0, 1 and 2
                    self.grades.insert((query.to_owned(), passage.id.clone()), grade);
                    self.save()?;
                    done.push((at, passage.id.clone()));
                    at += 1;
                }
            }
        }
        Ok(Walked::On)
    }

    /// Reads a log of clicks and thumbs; answers how many lines say nothing.
    fn read_clicks(&mut self, path: &Path) -> Result<usize> {
        let name = display(path);
        let text = fs::read_to_string(path)
            .map_err(|error| usage(format!("cannot read {name}: {error}")))?;
        let mut seen: HashMap<(String, String), Seen> = HashMap::new();
        let mut ignored = 0;
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let at = || format!("{name}, line {}", number + 1);
            let record: Value = serde_json::from_str(line.trim().trim_start_matches('\u{feff}'))
                .map_err(|error| usage(format!("{}: no JSON object: {error}", at())))?;
            let query = record["query"].as_str().map(str::trim).filter(|query| !query.is_empty());
            let document =
                ["passage", "document", "id"].iter().find_map(|key| as_id(&record[*key]));
            let (Some(query), Some(document)) = (query, document) else {
                return Err(usage(format!(
                    "{}: a line has a query and a passage, document or id",
                    at()
                )));
            };
            let pair = (self.query(query), document);
            let entry = seen.entry(pair).or_default();
            let grade =
                match &record["grade"] {
                    Value::Null => None,
                    given => Some(given.as_i64().and_then(|g| i32::try_from(g).ok()).ok_or_else(
                        || usage(format!("{}: the grade {given} is not a whole number", at())),
                    )?),
                };
            match (grade, record["thumb"].as_str(), record["clicked"].as_bool()) {
                (Some(grade), ..) => entry.grade = Some(grade),
                (None, Some("up"), _) => entry.thumbs += 1,
                (None, Some("down"), _) => entry.thumbs -= 1,
                (None, None, Some(true)) => entry.clicked = true,
                _ => ignored += 1,
            }
        }
        for (pair, seen) in seen {
            let grade = match (seen.grade, seen.thumbs, seen.clicked) {
                (Some(grade), ..) => grade,
                (None, 1.., _) => 2,
                (None, ..=-1, _) => 0,
                (None, 0, true) => 1,
                (None, 0, false) => continue,
            };
            self.grades.insert(pair, grade);
        }
        Ok(ignored)
    }

    /// Writes both files, each whole or not at all.
    fn save(&self) -> Result<()> {
        let queries: String = self
            .queries
            .iter()
            .map(|(id, text)| json!({ "_id": id, "text": text }).to_string() + "\n")
            .collect();
        let lines = self
            .grades
            .iter()
            .map(|((query, document), grade)| format!("{query}\t{document}\t{grade}\n"));
        let qrels = HEADER.to_owned() + &lines.collect::<String>();
        replace(&self.queries_file(), &queries)?;
        replace(&self.qrels_file(), &qrels)
    }
}

const HEADER: &str = "query-id\tcorpus-id\tscore\n";

/// What a log says of a pair.
#[derive(Default)]
struct Seen {
    grade: Option<i32>,
    /// Ups less downs.
    thumbs: i32,
    clicked: bool,
}

/// An id that may be written as a number.
fn as_id(value: &Value) -> Option<String> {
    match value {
        Value::String(id) if !id.is_empty() => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    }
}

fn replace(path: &Path, content: &str) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(failed)?;
    }
    let new = path.with_extension("new");
    fs::write(&new, content).with_context(failed)?;
    fs::rename(&new, path).with_context(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_becomes_judgments_the_strongest_word_first() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log.jsonl");
        let lines = [
            r#"{"query": "fleas", "id": "a", "clicked": true}"#,
            r#"{"query": "fleas", "id": "b", "clicked": false}"#,
            r#"{"query": " fleas ", "id": "c", "clicked": true}"#,
            r#"{"query": "fleas", "id": "c", "thumb": "down"}"#,
            r#"{"query": "cats", "passage": "d#1", "thumb": "up"}"#,
            r#"{"query": "cats", "passage": "d#1", "grade": 1}"#,
            r#"{"query": "cats", "id": 7, "thumb": "up"}"#,
        ];
        fs::write(&log, lines.join("\r\n")).unwrap();
        let mut folder = Folder::open(&dir.path().join("own")).unwrap();
        assert_eq!(folder.read_clicks(&log).unwrap(), 1);
        folder.save().unwrap();
        let again = Folder::open(&dir.path().join("own")).unwrap();
        let grade =
            |query: &str, id: &str| again.grades.get(&(query.to_owned(), id.to_owned())).copied();
        assert_eq!(again.queries.len(), 2);
        assert_eq!(grade("q1", "a"), Some(1));
        assert_eq!(grade("q1", "b"), None);
        assert_eq!(grade("q1", "c"), Some(0));
        assert_eq!(grade("q2", "d#1"), Some(1));
        assert_eq!(grade("q2", "7"), Some(2));
        fs::write(&log, "{\"query\": \"fleas\"}\n").unwrap();
        let error = folder.read_clicks(&log).unwrap_err();
        assert!(error.to_string().contains("line 1"), "{error}");
    }

    #[test]
    fn neighbours_are_not_shown_together() {
        let mut order: Vec<usize> = (0..20).collect();
        order.sort_by_key(|n| shuffled("fleas", &format!("README.md#{n}")));
        let together = order.windows(2).filter(|w| w[0].abs_diff(w[1]) == 1).count();
        assert!(together < 8, "{order:?}");
    }

    #[test]
    fn undo_takes_the_last_grade_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::open(dir.path()).unwrap();
        let query = folder.query("fleas");
        let passages: Vec<Arc<Passage>> =
            ["a", "b", "c"].map(|id| Arc::new(Passage::standalone(id, "", "text"))).into();
        let passages: Vec<&Arc<Passage>> = passages.iter().collect();
        let answers = ["2", "what?", "1", "u", "0", "s"].map(|line| Ok(line.to_owned()));
        let walked = folder.ask(&query, &passages, &mut answers.into_iter()).unwrap();
        assert!(matches!(walked, Walked::On));
        let again = Folder::open(dir.path()).unwrap();
        let grades: Vec<(&str, i32)> =
            again.grades.iter().map(|((_, id), grade)| (id.as_str(), *grade)).collect();
        assert_eq!(grades, [("a", 2), ("b", 0)]);
    }
}
