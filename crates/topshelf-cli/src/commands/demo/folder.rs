//! `topshelf demo --folder`: the same story from a folder of one's own, with a question of one's own.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::filling::Filling;
use super::story::{self, Asked};
use super::{DEPTH, LoadedModels, next, print_story};
use crate::args::DemoArguments;
use crate::commands::{cache_dir, display, print_json};
use crate::exit::usage;
use crate::output::{DemoAnswer, IndexTotals};
use crate::progress::Forecast;
use crate::table;

pub(super) fn run(arguments: &DemoArguments, folder: &Path) -> Result<()> {
    let Some(question) = &arguments.query else {
        return Err(usage(format!(
            "--folder needs a question that its documents may answer:\n  \
             topshelf demo --folder {} --query 'how do I ...?'",
            next::quoted(&display(folder))
        )));
    };
    let base = readable(folder)?;
    super::refuse_unanswerable(question)?;
    let dir = match &arguments.index {
        Some(dir) => dir.clone(),
        None => kept_index(&base)?,
    };
    let models = LoadedModels::load()?;
    let filling = Filling::new(&dir, &base, arguments.index.is_some(), &models.embedder)?;
    let paths = [base.clone()];
    let missing = filling.missing(&paths)?;
    let bytes = missing.iter().map(|file| file.bytes).sum();
    let name = table::shorten_start(&display(folder), 40);
    let mut forecast = Forecast::new(format!("indexing {name}"), bytes);
    filling.add(&missing, &mut forecast)?;
    let index = filling.settle(&paths, &forecast)?;
    forecast.finish();
    let totals = index.totals();
    if totals.passages == 0 {
        return Err(usage(format!(
            "nothing in {} could be indexed: Markdown, HTML, plain text, source code, PDF, JSONL and \
             CSV are read",
            display(folder)
        )));
    }
    let parts = models.parts(&index, DEPTH);
    let asked = Asked {
        question,
        passages: totals.passages,
        of: format!("{} documents below {name}", totals.documents),
        answers: None,
    };
    let story = story::tell(&parts, &models.reranker, &asked)?;
    if arguments.format.json {
        return print_json(&DemoAnswer {
            collection: display(folder),
            packages: 0,
            packages_missing: 0,
            totals: IndexTotals::from(&totals),
            evaluation: None,
            resumed: 0,
            example: story.as_json(),
        });
    }
    print_story(&story)?;
    next::print_for_folder(arguments, folder, &dir, question)
}

/// The folder's canonical path, if its entries can be listed.
fn readable(folder: &Path) -> Result<PathBuf> {
    let shown = display(folder);
    let cannot = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => usage(format!("there is no folder {shown}")),
        std::io::ErrorKind::NotADirectory => usage(format!("{shown} is not a folder")),
        _ => usage(format!("cannot read the folder {shown}: {error}")),
    };
    let base = std::fs::canonicalize(folder).map_err(cannot)?;
    if base.is_file() {
        return Err(usage(format!("{shown} is a file; --folder takes the folder in which it is")));
    }
    let mut entries = std::fs::read_dir(&base).map_err(cannot)?;
    if entries.next().is_none() {
        return Err(usage(format!("the folder {shown} is empty")));
    }
    Ok(base)
}

/// Where the index of a folder is kept in Topshelf's cache.
fn kept_index(base: &Path) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    base.hash(&mut hasher);
    let name = base.file_name().unwrap_or_default().to_string_lossy();
    // A name as long as the file system allows leaves no room for what is added to it.
    let name: String = name.chars().take(40).collect();
    Ok(cache_dir()?.join("demo").join(format!("{name}-{:016x}.index", hasher.finish())))
}
