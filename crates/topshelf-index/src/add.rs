//! Files into an index: [`add()`], and out of it: [`remove`]; documents without a file likewise:
//! [`add_documents`], [`remove_documents`].
//!
//! One thread walks, reads and cuts files; the calling thread embeds passages in batches and
//! writes them. A bounded channel between the two keeps the model busy while the next files are
//! read, and memory bounded whatever the size of a file.
//!
//! Adding again is updating. A file whose length and time are as recorded is not read; one whose
//! content hash is as recorded keeps its passages; any other replaces what came from it before. So does
//! one that was read or cut with other options: what is added is afterwards cut as the index cuts.
//! Nothing shows until all is done.

mod given;
mod reader;
mod report;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use topshelf_core::{
    Call, EmbedKind, Embedder, ModelIdentity, Passage, TokenEmbedder, TokenVectors,
};

pub use self::given::{GivenDocument, add_documents, remove_documents};
use self::reader::{Item, Reader, looks_unchanged, options_digest};
pub use self::report::{AddReport, OtherChunking};
use crate::chunk::Chunking;
use crate::error::{IndexError, Result};
use crate::files::{FileEntry, FileTable};
use crate::ingest::{IngestOptions, SkipReason, Skipped, SourceFile, Warning, walk};
use crate::state::{Settings, Totals};
use crate::writer::Writer;

/// Passages that are embedded together. The model sorts them by length and forms its own
/// batches; this bounds memory and sets how often progress is seen.
const EMBED_TOGETHER: usize = 64;

/// Read but unwritten documents, at most.
const READ_AHEAD: usize = 256;

/// The models that passages are encoded with.
#[derive(Clone, Copy, Default)]
pub struct Models<'a> {
    /// For dense retrieval.
    pub embedder: Option<&'a dyn Embedder>,
    /// For late interaction over stored vectors.
    pub tokens: Option<&'a dyn TokenEmbedder>,
}

/// How files are added.
#[derive(Debug, Clone, Default)]
pub struct AddOptions {
    /// How files are found and read.
    pub ingest: IngestOptions,
    /// How documents are cut, now and from now on; `None` cuts them as the index does. What is in the
    /// index and not added again stays as it is.
    pub chunking: Option<Chunking>,
    /// Documents below this folder get ids relative to it, instead of paths as given.
    pub relative_to: Option<PathBuf>,
    /// Also remove files of the index that are no longer under the given paths.
    pub sync: bool,
    /// Set to true to stop; the index is then left as it was.
    pub interrupt: Option<Arc<AtomicBool>>,
}

impl AddOptions {
    /// Whether [`add()`] to an index with these settings would leave `source` as the entry of its path
    /// has it, without reading it: length, time and options are as recorded. For those who add files
    /// in portions and want to know how much there is to do.
    pub fn is_up_to_date(
        &self,
        settings: &Settings,
        entry: &FileEntry,
        source: &SourceFile,
    ) -> bool {
        let chunking = self.chunking.unwrap_or(settings.chunking);
        entry.options == options_digest(&self.ingest, chunking) && looks_unchanged(entry, source)
    }
}

/// What [`add()`] tells while it works.
#[derive(Debug)]
#[non_exhaustive]
pub enum AddEvent<'a> {
    /// The paths have been walked.
    Found {
        /// Files to look at.
        files: usize,
        /// Their bytes.
        bytes: u64,
    },
    /// A file has been dealt with.
    File {
        /// Its length.
        bytes: u64,
    },
    /// A document of the file that is being read has been embedded and written.
    Document {
        /// Its passages.
        passages: usize,
        /// Bytes of its text.
        bytes: u64,
    },
    /// Something was not indexed.
    Skipped(&'a Skipped),
    /// Something was indexed, but not quite as it stands.
    Warning(&'a Warning),
    /// All files are read; the index is being written.
    Committing,
}

/// Adds files and folders, or brings them up to date, and commits.
///
/// The models must be those the index was made with, and `None` exactly where it has none.
///
/// # Errors
///
/// [`IndexError::NoSuchPath`] before anything is done; [`IndexError::Interrupted`];
/// [`IndexError::EmbedderMismatch`]; [`IndexError::Embed`] and the errors of
/// [`Writer::commit`]. After any of them the index is as it was.
pub fn add(
    mut writer: Writer,
    paths: &[PathBuf],
    models: Models<'_>,
    options: &AddOptions,
    on_event: &mut dyn FnMut(AddEvent<'_>),
) -> Result<AddReport> {
    let start = Instant::now();
    let mut report = begin(&mut writer, models, options)?;
    for path in paths {
        if std::fs::symlink_metadata(path).is_err() {
            return Err(IndexError::NoSuchPath { path: path.clone() });
        }
    }
    let known = writer.files().clone();
    let mut sources = Vec::new();
    // What cannot be read for the moment keeps its place in the index, a folder's files with it.
    let mut unread: Vec<PathBuf> = Vec::new();
    for found in walk(paths, &options.ingest) {
        match found {
            Ok(mut source) => {
                let base = options.relative_to.as_ref();
                if let Some(relative) = base.and_then(|base| source.path.strip_prefix(base).ok()) {
                    source.id = relative.to_string_lossy().replace('\\', "/");
                }
                sources.push(source);
            }
            Err(skipped) => {
                let path = canonical(&skipped.path);
                if is_unusable(&skipped.reason) && writer.remove_file(&path) {
                    report.files_removed += 1;
                } else if matches!(
                    skipped.reason,
                    SkipReason::Permission | SkipReason::Unreadable { .. }
                ) {
                    unread.push(path.into());
                }
                note_skipped(skipped, &mut report, on_event);
            }
        }
    }
    let bytes = sources.iter().map(|source| source.bytes).sum();
    on_event(AddEvent::Found { files: sources.len(), bytes });
    if options.sync {
        // Before anything is added: the documents may have moved to another file.
        let found: HashSet<String> = sources.iter().map(|source| canonical(&source.path)).collect();
        for path in paths {
            for file in writer.files().under(Path::new(&canonical(path))) {
                let kept = found.contains(&file)
                    || unread.iter().any(|unread| Path::new(&file).starts_with(unread));
                if !kept && writer.remove_file(&file) {
                    report.files_removed += 1;
                }
            }
        }
    }
    let read = |reader: &Reader<'_>| reader.read_all(sources);
    write_and_commit(writer, &known, models, options, read, Told { report, on_event, start })
}

/// Refuses models that are not the index's own and numbers out of bounds. From here on the writer cuts
/// as the options say.
fn begin(writer: &mut Writer, models: Models<'_>, options: &AddOptions) -> Result<AddReport> {
    models.check(writer)?;
    let before = writer.settings().chunking;
    let chunking = options.chunking.unwrap_or(before);
    writer.set_chunking(chunking)?;
    let chunking_before = (chunking != before).then_some(before);
    Ok(AddReport { chunking, chunking_before, ..AddReport::default() })
}

/// What is known of an addition before it is read, and who hears of the rest.
struct Told<'a> {
    report: AddReport,
    on_event: &'a mut dyn FnMut(AddEvent<'_>),
    start: Instant,
}

/// Writes what a thread reads beside this one, and commits it.
fn write_and_commit(
    mut writer: Writer,
    known: &FileTable,
    models: Models<'_>,
    options: &AddOptions,
    read: impl FnOnce(&Reader<'_>) + Send,
    told: Told<'_>,
) -> Result<AddReport> {
    let Told { mut report, on_event, start } = told;
    let count = |text: &str| match models.embedder {
        Some(embedder) => embedder.count_tokens(text),
        None => topshelf_core::context::estimate_tokens(text),
    };
    let stop = AtomicBool::new(false);
    let (sender, receiver) = sync_channel(READ_AHEAD);
    std::thread::scope(|scope| {
        let chunking = writer.settings().chunking;
        let reader = Reader { known, options, chunking, count: &count, stop: &stop, sender };
        scope.spawn(move || read(&reader));
        let written = write_all(&mut writer, &receiver, models, options, &mut report, on_event);
        stop.store(true, Ordering::Relaxed);
        drop(receiver); // unblocks the reader, whose sends now fail
        written
    })?;
    if interrupted(options) {
        return Err(IndexError::Interrupted);
    }
    on_event(AddEvent::Committing);
    // With nothing changed there is nothing to commit: adding again costs nothing.
    let changed = writer.is_reconfigured() || writer.files() != known;
    report.other_chunking = OtherChunking::among(writer.files().iter(), report.chunking);
    report.totals = if changed { writer.commit()? } else { writer.totals() };
    report.milliseconds = start.elapsed().as_secs_f64() * 1e3;
    Ok(report)
}

/// Removes files and folders from the index and commits. Answers how many files were removed
/// and what is left.
///
/// # Errors
///
/// [`IndexError::NotIndexed`] for a path from which nothing came; the index is then as it was.
/// Otherwise the errors of [`Writer::commit`].
pub fn remove(mut writer: Writer, paths: &[PathBuf]) -> Result<(usize, Totals)> {
    let mut removed = 0;
    let known = writer.files().clone();
    for path in paths {
        // An empty path is no folder that everything is below.
        let empty = path.as_os_str().is_empty();
        let mut files = if empty { Vec::new() } else { known.under(Path::new(&canonical(path))) };
        if files.is_empty() {
            // The file may be gone from the disk, or may have been added from elsewhere.
            let id = path.to_string_lossy().replace('\\', "/");
            let id = id.trim_start_matches("./").trim_end_matches('/');
            let below = format!("{id}/");
            let is_named = |file: &&FileEntry| {
                !id.is_empty() && (file.id == id || file.id.starts_with(&below))
            };
            files = known.iter().filter(is_named).map(|file| file.path.clone()).collect();
        }
        if files.is_empty() {
            return Err(IndexError::NotIndexed { path: path.clone() });
        }
        removed += files.iter().filter(|file| writer.remove_file(file)).count();
    }
    Ok((removed, writer.commit()?))
}

impl Models<'_> {
    /// Refuses models that are not the index's own.
    fn check(&self, writer: &Writer) -> Result<()> {
        let settings = writer.settings();
        let own = settings.embedder.as_ref().map(|own| &own.identity);
        same_model(own, self.embedder.map(Embedder::identity))?;
        let own = settings.token_vectors.as_ref().map(|own| &own.identity);
        same_model(own, self.tokens.map(TokenEmbedder::identity))
    }
}

fn same_model(own: Option<&ModelIdentity>, given: Option<&ModelIdentity>) -> Result<()> {
    let fingerprint = |identity: &ModelIdentity| identity.fingerprint.clone();
    if own.map(fingerprint) == given.map(fingerprint) {
        return Ok(());
    }
    let name = |identity: Option<&ModelIdentity>| {
        identity.map_or("none", |identity| identity.name.as_str()).to_owned()
    };
    Err(IndexError::EmbedderMismatch { expected: name(own), given: name(given) })
}

fn interrupted(options: &AddOptions) -> bool {
    options.interrupt.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// The path by which a file is known whatever the folder one stands in; the path made absolute
/// if the file is not there.
fn canonical(path: &Path) -> String {
    let path = std::fs::canonicalize(path)
        .or_else(|_| std::path::absolute(path))
        .unwrap_or_else(|_| path.to_owned());
    path.to_string_lossy().into_owned()
}

/// Whether a file is there but cannot be indexed. It loses its place in the index, for what is
/// indexed is no longer what the file holds.
fn is_unusable(reason: &SkipReason) -> bool {
    matches!(
        reason,
        SkipReason::TooLarge { .. }
            | SkipReason::Binary
            | SkipReason::Empty
            | SkipReason::PdfWithoutText
            | SkipReason::PdfBroken { .. }
    )
}

fn note_skipped(skipped: Skipped, report: &mut AddReport, on_event: &mut dyn FnMut(AddEvent<'_>)) {
    on_event(AddEvent::Skipped(&skipped));
    report.skipped.push(skipped);
}

/// A file whose documents are being written.
struct Current {
    path: String,
    replaces: bool,
    /// Whether its content is that of what it replaces.
    is_same: bool,
    first_key: u64,
    totals: Totals,
}

/// Takes what the reader sends, embeds and writes it.
fn write_all(
    writer: &mut Writer,
    receiver: &Receiver<Item>,
    models: Models<'_>,
    options: &AddOptions,
    report: &mut AddReport,
    on_event: &mut dyn FnMut(AddEvent<'_>),
) -> Result<()> {
    let mut current: Option<Current> = None;
    loop {
        // Collect items until there are passages enough to embed together.
        let mut items = Vec::new();
        let mut passages = 0;
        while passages < EMBED_TOGETHER {
            let Ok(item) = receiver.recv() else { break };
            if let Item::Document { passages: more, .. } = &item {
                passages += more.len();
            }
            items.push(item);
        }
        if interrupted(options) {
            return Err(IndexError::Interrupted);
        }
        if items.is_empty() {
            return Ok(());
        }
        let texts = texts_of(&items);
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mut vectors = embed(writer, models.embedder, &texts)?.into_iter();
        let mut tokens = embed_tokens(writer, models.tokens, &texts)?.into_iter();
        for item in items {
            match item {
                Item::Begin { path, is_same } => {
                    let replaces = writer.remove_file(&path);
                    let (first_key, totals) = (writer.next_key(), Totals::default());
                    current = Some(Current { path, replaces, is_same, first_key, totals });
                }
                Item::Document { id, source, passages } => {
                    let own: Vec<Vec<f32>> = vectors.by_ref().take(passages.len()).collect();
                    let of_tokens: Vec<TokenVectors> =
                        tokens.by_ref().take(passages.len()).collect();
                    let Some(file) = &mut current else { continue };
                    if writer.has_document(&id, &file.path)? {
                        let skipped = Skipped::duplicate(&source, &id);
                        note_skipped(skipped, report, on_event);
                        continue;
                    }
                    writer.note_document(&id);
                    for (n, passage) in passages.iter().enumerate() {
                        let vector = own.get(n).map(Vec::as_slice);
                        let tokens = of_tokens.get(n);
                        let (title, text) =
                            writer.add_passage(&file.path, passage, vector, tokens)?;
                        file.totals.title_terms += title;
                        file.totals.text_terms += text;
                    }
                    file.totals.documents += 1;
                    file.totals.passages += passages.len() as u64;
                    report.documents += 1;
                    report.passages += passages.len() as u64;
                    let bytes = passages.iter().map(|passage| passage.text.len() as u64).sum();
                    on_event(AddEvent::Document { passages: passages.len(), bytes });
                }
                Item::End(mut entry) => {
                    let Some(file) = current.take() else { continue };
                    if file.totals.documents == 0 {
                        report.files_removed += usize::from(file.replaces);
                        continue;
                    }
                    if file.replaces {
                        report.files_updated += 1;
                        report.files_recut += usize::from(file.is_same);
                    } else {
                        report.files_added += 1;
                    }
                    entry.keys = file.first_key..writer.next_key();
                    entry.totals = file.totals;
                    writer.record_file(*entry, true);
                }
                Item::Unchanged(entry) => {
                    report.files_unchanged += 1;
                    writer.record_file(*entry, false);
                }
                Item::Skipped(skipped) => note_skipped(skipped, report, on_event),
                Item::Warning(warning) => {
                    on_event(AddEvent::Warning(&warning));
                    report.warnings.push(warning);
                }
                Item::Dealt { bytes } => on_event(AddEvent::File { bytes }),
            }
        }
    }
}

/// The texts of all passages among the items, in their order.
fn texts_of(items: &[Item]) -> Vec<String> {
    let passages = items.iter().filter_map(|item| match item {
        Item::Document { passages, .. } => Some(passages),
        _ => None,
    });
    passages.flatten().map(Passage::model_text).collect()
}

fn fault(source: topshelf_core::Error) -> IndexError {
    IndexError::Embed { source }
}

/// The vector of each text; none without an embedder.
fn embed(
    writer: &Writer,
    embedder: Option<&dyn Embedder>,
    texts: &[&str],
) -> Result<Vec<Vec<f32>>> {
    let (Some(embedder), Some(own)) = (embedder, &writer.settings().embedder) else {
        return Ok(Vec::new());
    };
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    let call = Call::new();
    let vectors = embedder.embed(&call, EmbedKind::Passage, texts);
    let vectors = pollster::block_on(vectors).map_err(fault)?;
    own.check(texts.len(), &vectors).map_err(fault)?;
    Ok(vectors)
}

/// The token vectors of each text; none without a model for them.
fn embed_tokens(
    writer: &Writer,
    model: Option<&dyn TokenEmbedder>,
    texts: &[&str],
) -> Result<Vec<TokenVectors>> {
    let (Some(model), Some(own)) = (model, &writer.settings().token_vectors) else {
        return Ok(Vec::new());
    };
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    let call = Call::new();
    let vectors = model.embed_tokens(&call, EmbedKind::Passage, texts);
    let vectors = pollster::block_on(vectors).map_err(fault)?;
    own.check(texts.len(), &vectors).map_err(fault)?;
    Ok(vectors)
}
