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
//! made of, as byte ranges of that text. For Markdown, plain text, JSONL and CSV the text is the
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

use std::fs;
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
    /// Anything else: a paragraph, a list item, a table, code.
    Text,
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
    if source.bytes > options.max_file_bytes {
        return Err(skip(SkipReason::TooLarge {
            bytes: source.bytes,
            limit: options.max_file_bytes,
        }));
    }
    let bytes = fs::read(&source.path).map_err(|error| Skipped::from_io(&source.path, &error))?;
    if source.format == Format::Pdf {
        return pdf::read(source, &bytes);
    }
    let (text, lossy) = decode::decode(bytes);
    let mut document = match source.format {
        Format::Markdown => markdown::read(source, text),
        Format::Html => html::read(source, &text),
        _ => text::read(source, text),
    };
    if let Some(reason) = lossy {
        document.warnings.push(Warning::new(&source.path, reason));
    }
    if document.text.trim().is_empty() {
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
mod tests {
    use super::*;

    #[test]
    fn a_title_that_says_nothing_gets_the_folder_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("parser-2.1");
        std::fs::create_dir(&folder).unwrap();
        let title = |name: &str, content: &str| {
            let path = folder.join(name);
            std::fs::write(&path, content).unwrap();
            let options = IngestOptions::default();
            let source = walk(&[path], &options).remove(0).unwrap();
            documents(&source, &options).next().unwrap().unwrap().title
        };
        assert_eq!(title("CHANGELOG.md", "# Changelog\n\n- x\n"), "parser-2.1 Changelog");
        assert_eq!(title("README.md", "No heading.\n"), "parser-2.1 README");
        assert_eq!(title("guide.md", "# Writing parsers\n\nx\n"), "Writing parsers");
    }
}
