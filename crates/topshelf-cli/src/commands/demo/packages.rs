//! `topshelf demo` without a folder: documentation that cargo keeps, one question, then all of them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use topshelf::eval::{Measure, Qrels};
use topshelf::ingest::SourceFile;
use topshelf::tune::Unit;
use topshelf::{Embedder, Index};

use super::conclusion::thousands;
use super::filling::Filling;
use super::journal::{Head, Journal};
use super::measurement::{self, Outcome};
use super::questions::{self, Question};
use super::sources::{Extent, Sources, registry};
use super::story::{self, Asked, Story};
use super::verdict;
use super::{DEPTH, LoadedModels, next, print_story, width};
use crate::args::DemoArguments;
use crate::commands::collection::{self, Judged, System};
use crate::commands::{cache_dir, display, print, print_json};
use crate::output::{DemoAnswer, EvalAnswer, IndexTotals};
use crate::progress::{Forecast, in_words};
use crate::table;

/// Candidates that are reranked with `--full`.
const FULL_DEPTH: usize = 100;

/// Bytes of the files that are indexed before the first question is asked.
const FIRST_PART: u64 = 240_000;

/// Bytes of a passage, until it is known how many there are.
const PASSAGE: u64 = 500;

const SYSTEMS: [&str; 4] = ["bm25", "dense", "hybrid", "hybrid+rerank"];

/// What is shown: the collection, and how deep it is reranked.
struct Demo<'a> {
    arguments: &'a DemoArguments,
    extent: Extent,
    depth: usize,
    sources: Sources,
    questions: Vec<Question>,
    dir: PathBuf,
    models: LoadedModels,
    begun: Instant,
}

pub(super) fn run(arguments: &DemoArguments) -> Result<()> {
    let begun = Instant::now();
    let (extent, depth, kept) = if arguments.full {
        (Extent::All, FULL_DEPTH, "demo-full.index")
    } else {
        (Extent::Questions, DEPTH, "demo.index")
    };
    let questions = questions::all()?;
    let sources = Sources::find(&registry(arguments)?, extent, &questions::files(&questions))?;
    if let Some(question) = &arguments.query {
        super::refuse_unanswerable(question)?;
    }
    let dir = match &arguments.index {
        Some(dir) => dir.clone(),
        None => cache_dir()?.join(kept),
    };
    let models = LoadedModels::load()?;
    Demo { arguments, extent, depth, sources, questions, dir, models, begun }.run()
}

impl Demo<'_> {
    fn run(&self) -> Result<()> {
        let is_given = self.arguments.index.is_some();
        let (base, embedder) = (&self.sources.base, &self.models.embedder);
        let filling = Filling::new(&self.dir, base, is_given, embedder)?;
        let example = questions::example(&self.questions, &self.sources);
        let package = example.map_or("", Question::package);
        let (files, first) = self.sources.starting_at(package, FIRST_PART);
        let first: HashSet<&Path> = files[..first].iter().map(PathBuf::as_path).collect();
        let missing = filling.missing(&files)?;
        let (soon, later): (Vec<SourceFile>, Vec<SourceFile>) =
            missing.into_iter().partition(|file| first.contains(file.path.as_path()));
        let bytes: u64 = soon.iter().chain(&later).map(|file| file.bytes).sum();
        let questions = self.questions.iter().filter(|q| q.can_be_answered(&self.sources)).count();
        let asking = questions as u64 * self.depth as u64 * PASSAGE;
        let what = if bytes == 0 { "opening the index" } else { "indexing a first part" };
        let mut forecast = Forecast::new(what, bytes + asking);

        filling.add(&soon, &mut forecast)?;
        // Who asks a question of his own wants the answer of all, and so does a program.
        let is_early = bytes > 0 && self.arguments.query.is_none() && !self.arguments.format.json;
        if is_early {
            let index = Index::open(&self.dir)?;
            let of = format!("a first part of {}", self.describe());
            let story = self.story(&index, example, of)?;
            forecast.suspend(|| print_story(&story))?;
            let left =
                forecast.left().map_or(String::new(), |left| format!(", {}", in_words(left)));
            let next = format!(
                "One question proves little. Next: {questions} that were judged by hand{left}. Ctrl-C is \
                 safe: the next run goes on from there."
            );
            forecast.line(&table::wrap(&next, width()));
        }
        if !later.is_empty() {
            forecast.step("indexing the rest");
            filling.add(&later, &mut forecast)?;
        }
        let index = filling.settle(&files, &forecast)?;
        let mut story = None;
        if !is_early {
            let whole = self.story(&index, example, self.describe())?;
            if !self.arguments.format.json {
                forecast.suspend(|| print_story(&whole))?;
            }
            story = Some(whole);
        }
        self.measure(&index, story.as_ref(), forecast)
    }

    fn describe(&self) -> String {
        self.extent.describe(self.sources.packages)
    }

    /// Asks the question to be shown: the user's, or one with a judged answer.
    fn story(&self, index: &Index, example: Option<&Question>, of: String) -> Result<Story> {
        let parts = self.models.parts(index, self.depth);
        let passages = index.totals().passages;
        let asked = match (&self.arguments.query, example) {
            (Some(question), _) => Asked { question, passages, of, answers: None },
            (None, Some(example)) => {
                let answers = Some(questions::grades(index, &self.sources, example)?);
                Asked { question: &example.text, passages, of, answers }
            }
            (None, None) => {
                let text = self.questions.first().map_or("", |question| &question.text);
                Asked { question: text, passages, of, answers: None }
            }
        };
        story::tell(&parts, &self.models.reranker, &asked)
    }

    /// Asks all questions that can be judged, and prints the figures.
    fn measure(&self, index: &Index, story: Option<&Story>, mut forecast: Forecast) -> Result<()> {
        let (qrels, judged) = questions::judgments(index, &self.sources, &self.questions)?;
        let (evaluation, resumed) = if judged.is_empty() {
            (None, 0)
        } else {
            let (evaluation, resumed) = self.evaluate(index, &qrels, &judged, &mut forecast)?;
            (Some(evaluation), resumed)
        };
        forecast.finish();
        let Sources { packages, missing, .. } = self.sources;
        let totals = IndexTotals::from(&index.totals());
        if let Some(story) = story.filter(|_| self.arguments.format.json) {
            return print_json(&DemoAnswer {
                collection: self.describe(),
                packages,
                packages_missing: missing,
                totals,
                evaluation,
                resumed,
                example: story.as_json(),
            });
        }
        let mut lines = vec![table::wrap(
            &format!(
                "{} passages of {} documents: {}",
                thousands(totals.passages),
                thousands(totals.documents),
                self.describe()
            ),
            width(),
        )];
        if missing > 0 {
            lines.push(format!(
                "({missing} packages of Cargo.lock are not on this machine: other platforms, tests)"
            ));
        }
        match evaluation {
            Some(evaluation) => {
                let warnings = evaluation.warnings.iter();
                lines.extend(warnings.map(|warning| table::wrap(&format!("note: {warning}"), width())));
                lines.extend(self.resumed_note(resumed, evaluation.queries));
                lines.push(verdict::as_text(&evaluation, &self.measures()?, width()));
                lines.push(format!(
                    "In this run the models read {} tokens in {:.0} s.\n",
                    thousands(self.models.tokens()),
                    self.begun.elapsed().as_secs_f64()
                ));
            }
            None => lines.push(format!(
                "note: nothing is measured: these packages answer none of the {} judged questions\n",
                self.questions.len()
            )),
        }
        print(&lines.join("\n"))?;
        next::print_for_packages(self.arguments, &self.dir)
    }

    fn resumed_note(&self, resumed: usize, queries: usize) -> Option<String> {
        if resumed < queries {
            let text = format!(
                "note: {resumed} of the {queries} questions were measured by an earlier run, times included"
            );
            return (resumed > 0).then_some(text);
        }
        Some(format!(
            "note: all questions were measured by an earlier run, times included; remove\n      {} to measure again",
            table::plain(&display(&Journal::path_of(&self.dir)))
        ))
    }

    fn measures(&self) -> Result<Vec<Measure>> {
        let names = format!("nDCG@10,success@1,success@3,MRR@10,recall@{}", self.depth);
        Ok(Measure::parse_list(&names)?)
    }

    /// The figures, and how many questions were measured before.
    fn evaluate(
        &self,
        index: &Index,
        qrels: &Qrels,
        judged: &[Judged],
        forecast: &mut Forecast,
    ) -> Result<(EvalAnswer, usize)> {
        let LoadedModels { embedder, reranker, .. } = &self.models;
        let reranker = &reranker.model;
        let systems = SYSTEMS.map(System::parse).into_iter().collect::<Result<Vec<_>>>()?;
        let head = Head::new(
            measurement::hash_of_index(index)?,
            measurement::hash_of_questions(judged),
            systems.iter().map(System::name).collect(),
            self.depth,
            embedder.identity().clone(),
            reranker.identity().clone(),
        );
        let bytes: u64 = index.files()?.iter().map(|file| file.bytes).sum();
        let passage = bytes.checked_div(index.totals().passages).unwrap_or(PASSAGE).max(1);
        let parts = self.models.parts(index, self.depth);
        let Outcome { answered, resumed } = measurement::run(
            &parts,
            &systems,
            judged,
            (&Journal::path_of(&self.dir), &head),
            (forecast, self.depth as u64 * passage),
        )?;
        let measures = self.measures()?;
        let (systems, differences) =
            collection::measure(&answered, qrels, &measures, 1, Unit::Passage)?;
        let evaluation = EvalAnswer {
            data: "demo".to_owned(),
            queries: judged.len(),
            depth: Some(self.depth),
            embedder: Some(embedder.identity().name.clone()),
            reranker: Some(reranker.identity().name.clone()),
            measure: measures.first().map(ToString::to_string).unwrap_or_default(),
            systems,
            differences,
            warnings: questions::left_out(&self.questions, judged),
            profile: None,
        };
        Ok((evaluation, resumed))
    }
}
