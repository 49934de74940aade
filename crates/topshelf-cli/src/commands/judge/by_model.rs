//! An LLM judges first: a start for those who have no hour, and never a person's word.
//!
//! Its grades go into a split of their own, `qrels/llm.tsv`, together with those that a person gave,
//! which go before them. Who judged, and how far the model agreed with the person on pairs that both
//! judged, stands in `qrels/llm.json`, and every command that measures with the split says so. A model
//! does not judge what it reranked itself: it would agree with itself.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use topshelf::eval::Qrels;
use topshelf::remote::ChatModel;
use topshelf::remote::grade::{self, PROMPT, agreement};
use topshelf::{Index, Passage};

use super::{Folder, HEADER, Pools, replace};
use crate::args::JudgeArguments;
use crate::commands::display;
use crate::exit::usage;
use crate::output::{Agreed, JudgedByModel};
use crate::progress::Progress;

/// The split that a model judged.
pub(in crate::commands) const SPLIT: &str = "llm";

/// Where the endpoint and its key are, unless an option says.
const ENDPOINT: &str = "TOPSHELF_LLM_ENDPOINT";
const KEY: &str = "TOPSHELF_LLM_KEY";

/// Questions that are under way at a time.
const AT_ONCE: usize = 4;

/// Grades after which what is there is written.
const SAVE_EVERY: usize = 20;

/// What is known of the judgments of the split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::commands) struct Record {
    /// Who judged.
    model: String,
    endpoint: String,
    /// Which question was asked.
    prompt: String,
    /// Pairs that it judged.
    pairs: usize,
    /// Answers without a grade.
    unreadable: usize,
    tokens: u64,
    agreement: Option<Agreed>,
}

/// A pair to be judged.
struct Pair {
    query: String,
    text: String,
    passage: Arc<Passage>,
    /// What a person said of it.
    by_hand: Option<i32>,
}

/// Lets the model judge all pooled pairs that it has not judged.
pub(super) fn judge(
    arguments: &JudgeArguments,
    model: &str,
    folder: &Folder,
) -> Result<JudgedByModel> {
    if is_same(model, &arguments.rerank) {
        return Err(usage(format!(
            "{model} would judge what it reranked itself, and agree with itself; judge with another \
             model, or rerank with another"
        )));
    }
    let Some(index) = &arguments.index else {
        return Err(usage("give --index DIR, whose passages are to be judged"));
    };
    let endpoint = match &arguments.endpoint {
        Some(endpoint) => endpoint.clone(),
        None => std::env::var(ENDPOINT).map_err(|_| {
            usage(format!(
                "where is {model}? Give --endpoint URL or set {ENDPOINT}, for instance \
                 http://localhost:11434/v1"
            ))
        })?,
    };
    let chat = ChatModel::new(&endpoint, model, std::env::var(KEY).ok())?;
    let mut split = Split::open(&folder.root, &chat)?;
    let index = Index::open(index)?;
    let pools = Pools::new(arguments, &index)?;
    let mut pairs = Vec::new();
    for (query, text) in &folder.queries {
        for passage in pools.of(text)? {
            let key = (query.clone(), passage.id.clone());
            let by_hand = folder.grades.get(&key).copied();
            if !split.by_model.contains_key(&key) {
                pairs.push(Pair { query: query.clone(), text: text.clone(), passage, by_hand });
            }
        }
    }
    // Those that a person judged come first: what the others are worth hangs on them.
    pairs.sort_by_key(|pair| pair.by_hand.is_none());
    split.ask(&chat, pairs, folder)?;
    split.save(folder)?;
    let Record { pairs, unreadable, tokens, agreement, .. } = split.record;
    let model = model.to_owned();
    Ok(JudgedByModel { model, split: SPLIT.to_owned(), pairs, unreadable, tokens, agreement })
}

/// What the model said so far.
struct Split {
    qrels: PathBuf,
    grades: PathBuf,
    json: PathBuf,
    record: Record,
    by_model: BTreeMap<(String, String), i32>,
}

impl Split {
    fn open(root: &Path, chat: &ChatModel) -> Result<Self> {
        let folder = root.join("qrels");
        let (qrels, json) = (folder.join("llm.tsv"), folder.join("llm.json"));
        // The model's own grades, apart from a person's, so that the two can be compared again.
        let grades = root.join("llm-grades.tsv");
        let mut own = Self {
            qrels,
            grades,
            json,
            record: Record {
                model: chat.model().to_owned(),
                endpoint: chat.address().to_owned(),
                prompt: PROMPT.to_owned(),
                pairs: 0,
                unreadable: 0,
                tokens: 0,
                agreement: None,
            },
            by_model: BTreeMap::new(),
        };
        let Some(known) = record_of(root)? else { return Ok(own) };
        if !is_same(&known.model, chat.model()) || known.prompt != PROMPT {
            return Err(usage(format!(
                "{} was judged by {} ({}); go on with that model, or remove {} to begin anew",
                display(&own.qrels),
                known.model,
                known.prompt,
                display(&own.json)
            )));
        }
        (own.record.tokens, own.record.unreadable) = (known.tokens, known.unreadable);
        if fs::metadata(&own.grades).is_ok_and(|meta| meta.len() > HEADER.len() as u64) {
            for (query, documents) in Qrels::open(&own.grades)?.qrels.iter() {
                for (document, grade) in documents {
                    own.by_model.insert((query.to_owned(), document.clone()), *grade);
                }
            }
        }
        Ok(own)
    }

    /// Asks about each pair, several at a time, and writes what is there now and then.
    fn ask(&mut self, chat: &ChatModel, pairs: Vec<Pair>, folder: &Folder) -> Result<()> {
        let total = pairs.len();
        let mut progress = Progress::new("judging", Some(total as u64), "pairs");
        let queue = Mutex::new(VecDeque::from(pairs));
        let (told, answers) = channel();
        let outcome = std::thread::scope(|scope| {
            for _ in 0..AT_ONCE.min(total) {
                let (queue, told) = (&queue, told.clone());
                scope.spawn(move || {
                    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    while let Some(pair) = next() {
                        let graded = grade::grade(chat, &pair.text, &pair.passage.model_text());
                        if told.send((pair, graded)).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(told);
            for (done, (pair, graded)) in answers.iter().enumerate() {
                let graded = match graded {
                    Ok(graded) => graded,
                    Err(error) => {
                        // The others end after the question that they are at.
                        queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
                        return Err(error);
                    }
                };
                self.record.tokens += graded.tokens;
                match graded.grade {
                    Some(grade) => {
                        self.by_model.insert((pair.query, pair.passage.id.clone()), grade);
                    }
                    None => self.record.unreadable += 1,
                }
                if done % SAVE_EVERY == 0 {
                    // What cannot be written now is tried again at the end, and told there.
                    let _ = self.save(folder);
                }
                progress.set(done as u64 + 1);
            }
            Ok(())
        });
        progress.finish();
        if outcome.is_err() {
            self.save(folder)?; // what was paid for stays
        }
        Ok(outcome?)
    }

    /// Writes the split: a person's grades, and the model's where a person gave none.
    fn save(&mut self, folder: &Folder) -> Result<()> {
        let both: Vec<(i32, i32)> = self
            .by_model
            .iter()
            .filter_map(|(pair, grade)| Some((*grade, *folder.grades.get(pair)?)))
            .collect();
        self.record.agreement = agreement(&both).map(|agreed| Agreed {
            pairs: agreed.pairs,
            equal: agreed.equal,
            kappa: agreed.kappa,
            kappa_relevant: agreed.kappa_relevant,
        });
        let mut merged = self.by_model.clone();
        merged.extend(folder.grades.clone());
        self.record.pairs = merged.len() - folder.grades.len();
        let lines = |grades: &BTreeMap<(String, String), i32>| {
            let lines = grades
                .iter()
                .map(|((query, document), grade)| format!("{query}\t{document}\t{grade}\n"));
            HEADER.to_owned() + &lines.collect::<String>()
        };
        let record = serde_json::to_string_pretty(&self.record).context("cannot write JSON")?;
        // The record first: judgments of which nobody says whose they are must not exist.
        replace(&self.json, &(record + "\n"))?;
        replace(&self.grades, &lines(&self.by_model))?;
        replace(&self.qrels, &lines(&merged))
    }
}

/// What is known of the split that a model judged, in a folder of judgments.
pub(in crate::commands) fn record_of(root: &Path) -> Result<Option<Record>> {
    let path = root.join("qrels").join("llm.json");
    if !path.is_file() {
        return Ok(None);
    }
    let name = display(&path);
    let text =
        fs::read_to_string(&path).map_err(|error| usage(format!("cannot read {name}: {error}")))?;
    let record = serde_json::from_str(&text)
        .map_err(|error| usage(format!("{name} is not what `topshelf judge` wrote: {error}")))?;
    Ok(Some(record))
}

impl Record {
    /// What a reader of figures that rest on these judgments has to know.
    pub(in crate::commands) fn warning(&self) -> String {
        let Self { model, pairs, agreement, .. } = self;
        let checked = match agreement {
            Some(Agreed { pairs, equal, kappa, kappa_relevant }) => format!(
                "on {pairs} pairs that a person judged too it agrees in {:.0} % (kappa {kappa:.2}, of \
                 relevant or not {kappa_relevant:.2})",
                equal * 100.0
            ),
            None => {
                "no person has judged any of them, so nobody knows what they are worth".to_owned()
            }
        };
        format!("{pairs} of these judgments are by the model {model}; {checked}")
    }

    /// Refuses to measure a reranker by its own judgments.
    pub(in crate::commands) fn check<'a>(
        &self,
        rerankers: impl IntoIterator<Item = &'a str>,
    ) -> Result<()> {
        match rerankers.into_iter().find(|name| is_same(name, &self.model)) {
            Some(name) => Err(usage(format!(
                "{name} cannot be measured by its own judgments, with which it agrees; use those of a \
                 person, or of another model"
            ))),
            None => Ok(()),
        }
    }
}

/// Whether two names are of one model, however they are written: `llm:Qwen/Qwen3-4B`, `qwen3-4b`.
fn is_same(one: &str, other: &str) -> bool {
    let bare = |name: &str| {
        let name = name.trim().to_lowercase();
        name.rsplit(['/', ':']).next().map(str::to_owned)
    };
    bare(one) == bare(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_model_has_many_names() {
        assert!(is_same("llm:Qwen/Qwen3-4B", "qwen3-4b"));
        assert!(!is_same("qwen3-4b", "qwen3-8b"));
    }
}
