//! `topshelf index`: adding, removing, looking.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use anyhow::Result;
use topshelf::chunk::{ChunkOptions, Chunking};
use topshelf::ingest::{IngestOptions, SkipReason};
use topshelf::{
    AddEvent, AddOptions, AddReport, Embedder, Index, IndexError, Models, OtherChunking, Precision,
    Settings, Writer, check, graph,
};

use super::{bare_engine, display, interrupt_flag, print, print_json, token_model};
use crate::args::{AddArguments, DEFAULT_EMBEDDER, IndexCommand, VectorPrecision};
use crate::exit::usage;
use crate::output::{
    GraphRecall, IndexAdded, IndexCheck, IndexChunking, IndexRemoved, IndexStats, IndexTotals,
    IndexedFile, Notice, TokenVectorsKept,
};
use crate::progress::Progress;
use crate::say::say;
use crate::table;

/// Stored vectors that `--check` searches for, and how many neighbours it compares.
const CHECK_QUERIES: usize = 200;
const CHECK_DEPTH: usize = 10;

pub(super) fn run(command: IndexCommand) -> Result<()> {
    match command {
        IndexCommand::Add(arguments) => add(&arguments),
        IndexCommand::Remove { paths, index, format } => {
            let (files_removed, totals) = topshelf::remove(Writer::open(&index)?, &paths)?;
            let removed = IndexRemoved { files_removed, totals: IndexTotals::from(&totals) };
            if format.json {
                return print_json(&removed);
            }
            let IndexTotals { documents, passages } = removed.totals;
            print(&format!(
                "removed {files_removed} files; {documents} documents in {passages} passages are left"
            ))
        }
        IndexCommand::Stats { index, files, check, format } => {
            stats(&index, files, check, format.json)
        }
    }
}

impl From<VectorPrecision> for Precision {
    fn from(precision: VectorPrecision) -> Self {
        match precision {
            VectorPrecision::Int8 => Self::Int8,
            VectorPrecision::F32 => Self::F32,
        }
    }
}

fn add(arguments: &AddArguments) -> Result<()> {
    // An index that is there keeps its own settings unless asked otherwise, so that adding
    // again needs no options.
    let own = match Index::open(&arguments.index) {
        Ok(index) => Some(index.settings().clone()),
        Err(IndexError::Missing { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let chunking = chunking(arguments, own.as_ref().map(|own| own.chunking))?;
    // A wrong path should be told before a model is loaded.
    for path in &arguments.paths {
        if std::fs::symlink_metadata(path).is_err() {
            return Err(IndexError::NoSuchPath { path: path.clone() }.into());
        }
    }
    let own_embedder = own.as_ref().map(|own| {
        own.embedder.as_ref().map_or("none".to_owned(), |embedder| embedder.identity.name.clone())
    });
    let name = arguments.embed.clone().or(own_embedder);
    let name = name.unwrap_or_else(|| DEFAULT_EMBEDDER.to_owned());
    let engine = bare_engine()?;
    let embedder = if name == "none" { None } else { Some(engine.bi_encoder(&name)?) };
    let own_tokens = own.as_ref().and_then(|own| own.token_vectors.as_ref());
    let tokens = token_model(&engine, &arguments.tokens, own_tokens)?;
    if let (Some(own), Some(now)) = (&own, chunking)
        && own.chunking != now
    {
        say!(
            "note: the index changes from {} to {now}: what is added from now on is cut that way, \
             documents that are not added again stay as they are",
            own.chunking
        );
    }
    let base = own.unwrap_or_default();
    let settings = Settings {
        language: arguments.language.unwrap_or(base.language),
        precision: arguments.vectors.map_or(base.precision, Precision::from),
        embedder: embedder.as_deref().and_then(|e| Settings::with_embedder(e).embedder),
        token_vectors: tokens.as_ref().map(|(info, _)| info.clone()),
        graph_from: arguments.graph_from.unwrap_or(base.graph_from),
        chunking: chunking.unwrap_or(base.chunking),
    };
    let writer = Writer::create_or_open(&arguments.index, &settings)?;
    let options = AddOptions {
        ingest: IngestOptions {
            max_file_bytes: arguments.max_file_size.saturating_mul(1_000_000),
            text_field: arguments.text_field.clone(),
            ..IngestOptions::default()
        },
        chunking,
        relative_to: None,
        sync: arguments.sync,
        interrupt: Some(interrupt_flag()?),
    };
    let models = Models {
        embedder: embedder.as_deref().map(|embedder| embedder as &dyn Embedder),
        tokens: tokens.as_ref().map(|(_, model)| model.as_ref() as _),
    };
    let report = add_with_progress(writer, &arguments.paths, models, &options)?;
    if arguments.format.json {
        return print_json(&added(&report));
    }
    print(&summary(&report))
}

/// The flag that would let it in.
fn hint(reason: &SkipReason) -> &'static str {
    match reason {
        SkipReason::TooLarge { .. } => " (--max-file-size raises the limit)",
        SkipReason::NoText { .. } => " (--text-field names the field)",
        _ => "",
    }
}

/// How documents are to be cut, if the arguments say anything of it; what they leave out is as the
/// index has it.
fn chunking(arguments: &AddArguments, own: Option<Chunking>) -> Result<Option<Chunking>> {
    if arguments.whole {
        return Ok(Some(Chunking::Whole));
    }
    let (chunk, overlap) = (arguments.chunk, arguments.overlap);
    if chunk.is_none() && overlap.is_none() {
        return Ok(None);
    }
    if own == Some(Chunking::Whole) && chunk.is_none() {
        return Err(usage(
            "the index does not cut documents, so --overlap needs --chunk, the length of its passages",
        ));
    }
    let base = own.and_then(Chunking::options).unwrap_or_default();
    let max_tokens = chunk.unwrap_or(base.max_tokens);
    let overlap_tokens = overlap.unwrap_or(base.overlap_tokens);
    let most = max_tokens / 2;
    if overlap_tokens > most {
        let fault = match (overlap, chunk) {
            (Some(overlap), Some(chunk)) => {
                format!("--overlap {overlap} is more than half of --chunk {chunk}; take")
            }
            (Some(overlap), None) => format!(
                "--overlap {overlap} is more than half of a passage of the index, which has \
                 {max_tokens} tokens; take"
            ),
            (None, _) => format!(
                "--chunk {max_tokens} is less than twice the overlap of {overlap_tokens} tokens; \
                 take a longer one, or also --overlap"
            ),
        };
        return Err(usage(format!("{fault} {most} or less")));
    }
    Ok(Some(Chunking::Passages(ChunkOptions { max_tokens, overlap_tokens })))
}

/// Adds files, shows progress, and names on standard error what was skipped.
pub(super) fn add_with_progress(
    writer: Writer,
    paths: &[PathBuf],
    models: Models<'_>,
    options: &AddOptions,
) -> Result<AddReport> {
    let what = if models.embedder.is_some() || models.tokens.is_some() {
        "indexing and embedding"
    } else {
        "indexing"
    };
    super::WRITING.store(true, Ordering::Relaxed);
    let mut progress = Progress::new(what, None, "kB");
    // Bytes of files that are done, and of the documents of the one that is being read.
    let (mut in_files, mut in_documents) = (0, 0);
    let report = topshelf::add(writer, paths, models, options, &mut |event| match event {
        AddEvent::Found { bytes, .. } => progress.set_total(bytes.div_ceil(1000)),
        AddEvent::Document { bytes, .. } => {
            in_documents += bytes;
            progress.set((in_files + in_documents).div_ceil(1000));
        }
        AddEvent::File { bytes } => {
            in_files += bytes;
            in_documents = 0;
            progress.set(in_files.div_ceil(1000));
        }
        AddEvent::Skipped(skipped) => {
            progress.line(&format!("skipped: {skipped}{}", hint(&skipped.reason)));
        }
        AddEvent::Warning(warning) => progress.line(&format!("warning: {warning}")),
        _ => {}
    });
    super::WRITING.store(false, Ordering::Relaxed);
    progress.finish();
    Ok(report?)
}

fn added(report: &AddReport) -> IndexAdded {
    IndexAdded {
        files_added: report.files_added,
        files_updated: report.files_updated,
        files_recut: report.files_recut,
        files_unchanged: report.files_unchanged,
        files_removed: report.files_removed,
        documents: report.documents,
        passages: report.passages,
        skipped: report
            .skipped
            .iter()
            .map(|skipped| Notice { path: display(&skipped.path), message: skipped.to_string() })
            .collect(),
        warnings: report
            .warnings
            .iter()
            .map(|warning| Notice { path: display(&warning.path), message: warning.to_string() })
            .collect(),
        totals: IndexTotals::from(&report.totals),
        chunking: report.chunking.into(),
        chunking_before: report.chunking_before.map(IndexChunking::from),
        other_chunking: report.other_chunking.into(),
        milliseconds: report.milliseconds,
    }
}

fn summary(report: &AddReport) -> String {
    let AddReport { files_added, files_updated, files_unchanged, files_removed, .. } = report;
    let recut = match report.files_recut {
        0 => String::new(),
        n => format!(" ({n} of them have the same content and were read or cut otherwise before)"),
    };
    let mut text = format!(
        "{files_added} files added, {files_updated} updated{recut}, {files_unchanged} unchanged, \
         {files_removed} removed, {} skipped in {:.1} s\n\
         the index holds {} documents in {} passages",
        report.skipped.len(),
        report.milliseconds / 1e3,
        report.totals.documents,
        report.totals.passages,
    );
    if report.totals.passages == 0 {
        text.push_str("; nothing can be found in it yet");
    }
    let other = other_chunking(&report.other_chunking);
    if !other.is_empty() {
        let (chunking, other) = (report.chunking, other.join("; "));
        let _ = write!(text, "\nit cuts into {chunking}; {other}"); // a string takes all
    }
    text
}

/// What is in the index and not cut as the index cuts now, if anything is.
fn other_chunking(other: &OtherChunking) -> Vec<String> {
    let OtherChunking { files, documents, unrecorded_files } = other;
    let mut lines = Vec::new();
    if *files > 0 {
        lines.push(format!(
            "{files} files ({documents} documents) are cut otherwise until they are added again"
        ));
    }
    if *unrecorded_files > 0 {
        lines.push(format!(
            "an older version added {unrecorded_files} files and did not record how they are cut; \
             adding them again cuts them so"
        ));
    }
    lines
}

fn token_vectors(stats: &topshelf::Stats) -> Option<TokenVectorsKept> {
    let (info, tokens) = (stats.settings.token_vectors.as_ref()?, stats.tokens.as_ref()?);
    Some(TokenVectorsKept {
        model: info.identity.name.clone(),
        tier: info.tier.name().to_owned(),
        dimension: info.stored_dimension(),
        vectors: tokens.vectors,
        bytes_per_vector: tokens.bytes_per_vector,
        centroids: tokens.centroids,
        drift: tokens.drift(),
    })
}

fn stats(dir: &std::path::Path, files: bool, check: bool, json: bool) -> Result<()> {
    let index = Index::open(dir)?;
    let stats = index.stats()?;
    let listing = files.then(|| index.files()).transpose()?.map(|entries| {
        let file = |entry: topshelf::FileEntry| IndexedFile {
            id: entry.id,
            path: entry.path,
            documents: entry.totals.documents,
            passages: entry.totals.passages,
        };
        entries.into_iter().map(file).collect()
    });
    let check = if check {
        index.verify()?;
        let recall = check::recall(&index, CHECK_QUERIES, CHECK_DEPTH)?.map(|recall| GraphRecall {
            queries: recall.queries,
            depth: recall.depth,
            mean: recall.mean,
            worst: recall.worst,
        });
        Some(IndexCheck { checksums: true, recall })
    } else {
        None
    };
    let answer = IndexStats {
        index: display(dir),
        format: stats.format,
        files: stats.files,
        totals: IndexTotals::from(&stats.totals),
        bytes: stats.bytes,
        language: stats.settings.language.name().to_owned(),
        chunking: stats.settings.chunking.into(),
        other_chunking: stats.other_chunking.into(),
        embedder: stats.settings.embedder.as_ref().map(|e| e.identity.name.clone()),
        vectors: stats.settings.precision.name().to_owned(),
        removed_vectors: stats.removed_vectors,
        graph_vectors: stats.graph_vectors,
        token_vectors: token_vectors(&stats),
        listing,
        check,
    };
    if json {
        return print_json(&answer);
    }
    let mut rows = table::new(["", ""], 9);
    let mut row = |what: &str, value: String| {
        rows.add_row([what.to_owned(), value]);
    };
    row("index", answer.index);
    row("files", answer.files.to_string());
    row("documents", answer.totals.documents.to_string());
    row("passages", answer.totals.passages.to_string());
    row("size", table::bytes(answer.bytes));
    row("language", answer.language);
    row("cut into", stats.settings.chunking.to_string());
    for line in other_chunking(&stats.other_chunking) {
        row("", line);
    }
    match answer.embedder {
        Some(embedder) => {
            row("bi-encoder", format!("{embedder}, vectors as {}", answer.vectors));
            let search = match answer.graph_vectors {
                0 => "exact: every vector is looked at".to_owned(),
                n => format!("by a neighbour graph over {n} vectors"),
            };
            row("dense search", search);
        }
        None if answer.token_vectors.is_some() => {
            row("bi-encoder", "none: only bm25 and colbert can search it".to_owned());
        }
        None => row("bi-encoder", "none: only bm25 can search it".to_owned()),
    }
    if let Some(tokens) = &answer.token_vectors {
        row("token vectors", tokens.describe());
    }
    if let Some(check) = &answer.check {
        row("checksums", "all as written".to_owned());
        row(
            "recall",
            match &check.recall {
                None => format!(
                    "1 (exact; a graph comes from {} passages on)",
                    stats.settings.graph_from.min(graph::DEFAULT_FROM)
                ),
                Some(recall) => format!(
                    "{:.4} of the exact top {} over {} stored vectors, worst {:.2}",
                    recall.mean, recall.depth, recall.queries, recall.worst
                ),
            },
        );
    }
    print(&table::render(&rows))?;
    if let Some(listing) = answer.listing {
        let mut rows = table::new(["file", "documents", "passages"], 1);
        for file in listing {
            rows.add_row([file.id, file.documents.to_string(), file.passages.to_string()]);
        }
        print(&format!("\n{}", table::render(&rows)))?;
    }
    Ok(())
}
