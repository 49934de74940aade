//! Files to documents: finding, decoding, extracting.
//!
//! | for | see |
//! | --- | --- |
//! | which files there are | [`walk()`] |
//! | what kind of file it is | [`Format`] |
//! | bytes to text | `decode` |
//! | one reader for each format | `markdown`, `html`, `text`, `pdf`, `records` |
//!
//! A reader answers [`Document`]s: decoded text, and the blocks (paragraphs, headings, ...) it is
//! made of, as byte ranges of that text, in order and apart from one another. For Markdown, plain text, JSONL and CSV the text is the
//! source's own; for HTML and PDF it is what was extracted.
//!
//! What cannot be read is a [`Skipped`], what is read with a loss is a [`Warning`]; both name the
//! file and the reason, and neither stops the rest.

mod decode;
mod format;
mod html;
mod markdown;
mod pdf;
mod records;
mod skip;
mod text;
mod walk;

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::PathBuf;
use std::time::SystemTime;

use topshelf_core::Metadata;

pub use format::Format;
pub use pdf::THREAD as PDF_THREAD;
pub use records::TEXT_FIELDS;
pub use skip::{SkipReason, Skipped, Warning, WarningReason};
pub use walk::walk;

/// How files are found and read.
#[derive(Debug, Clone)]
pub struct IngestOptions {
    /// The largest file that is read whole. JSONL and CSV are streamed and have no such bound,
    /// only [`Self::max_record_bytes`].
    pub max_file_bytes: u64,
    /// The longest line of JSONL, the longest record of CSV.
    pub max_record_bytes: usize,
    /// The key of the text in records; the first of `text`, `content`, `body`, `passage`,
    /// `contents` if `None`.
    pub text_field: Option<String>,
}

impl Default for IngestOptions {
    fn default() -> Self {
        Self { max_file_bytes: 50_000_000, max_record_bytes: 16_000_000, text_field: None }
    }
}

/// A file that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its path as given, with `/` between parts: the id of its document.
    pub id: String,
    /// Its length.
    pub bytes: u64,
    /// When it was last changed.
    pub modified: Option<SystemTime>,
    /// What kind of file it is.
    pub format: Format,
}

/// What was read from a file or a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The file's id, or the record's own.
    pub id: String,
    /// Its title; empty where it has none.
    pub title: String,
    /// Its own fields.
    pub metadata: Metadata,
    /// The decoded text that ranges point into.
    pub text: String,
    /// The pieces of the text, in its order.
    pub blocks: Vec<Block>,
    /// What was lost on the way.
    pub warnings: Vec<Warning>,
}

/// A piece of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What it is.
    pub kind: BlockKind,
    /// Where it stands in the text.
    pub range: Range<usize>,
}

/// What a block is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockKind {
    /// A heading of level 1 (outermost) to 6.
    Heading {
        /// The level.
        level: u8,
        /// Its text without markup.
        text: String,
    },
    /// Prose, cut between sentences if it is too long: a paragraph, a list item, a quotation.
    Text,
    /// What is cut between lines if it is too long: code, a table, the columns of a record.
    Lines,
}

/// The pieces of a text that comes from no file: paragraphs, and headings as they are underlined.
pub(crate) fn prose(text: &str) -> Vec<Block> {
    text::blocks(text, text::Style::Prose)
}

/// Reads the documents of a file: one, or one for each record.
pub fn documents<'a>(
    source: &'a SourceFile,
    options: &'a IngestOptions,
) -> Box<dyn Iterator<Item = Result<Document, Skipped>> + 'a> {
    match source.format {
        Format::Jsonl => records::jsonl(source, options),
        Format::Csv => records::csv(source, options),
        Format::Markdown | Format::Html | Format::Text | Format::Pdf => {
            Box::new(std::iter::once(whole(source, options)))
        }
    }
}

/// Reads a file that is one document.
fn whole(source: &SourceFile, options: &IngestOptions) -> Result<Document, Skipped> {
    let skip = |reason| Skipped::new(&source.path, reason);
    let limit = options.max_file_bytes;
    let mut bytes = Vec::new();
    // The file may have grown since it was found.
    File::open(&source.path)
        .and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut bytes))
        .map_err(|error| Skipped::from_io(&source.path, &error))?;
    if bytes.len() as u64 > limit {
        let bytes = source.bytes.max(bytes.len() as u64);
        return Err(skip(SkipReason::TooLarge { bytes, limit }));
    }
    if source.format == Format::Pdf {
        return pdf::read(source, &bytes);
    }
    let is_html = source.format == Format::Html;
    let declared = if is_html { decode::declared_by_html(&bytes) } else { None };
    let (text, lossy) = decode::decode(bytes, declared);
    let mut document = match source.format {
        Format::Markdown => markdown::read(source, text),
        Format::Html => html::read(source, &text),
        _ => text::read(source, text),
    };
    if let Some(reason) = lossy {
        document.warnings.push(Warning::new(&source.path, reason));
    }
    // Of a file with nothing but comments or pictures there is nothing to index either.
    if document.blocks.is_empty() {
        return Err(skip(SkipReason::Empty));
    }
    document.title = telling(document.title, source);
    Ok(document)
}

/// Titles that do not say of what.
const GENERIC_TITLES: [&str; 12] = [
    "readme",
    "changelog",
    "change log",
    "changes",
    "history",
    "releases",
    "release notes",
    "index",
    "contributing",
    "license",
    "overview",
    "introduction",
];

/// The title, behind the name of the file's folder if by itself it says nothing: passages of
/// `parser-2.1/CHANGELOG.md` should be found by "parser".
fn telling(title: String, source: &SourceFile) -> String {
    if !GENERIC_TITLES.contains(&title.trim().to_lowercase().as_str()) {
        return title;
    }
    let folder = source.path.parent().and_then(|folder| folder.file_name());
    match folder {
        Some(folder) => format!("{} {title}", folder.to_string_lossy()),
        None => title,
    }
}

/// The file's name without its extension: the title of last resort.
fn stem(source: &SourceFile) -> String {
    source.path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
