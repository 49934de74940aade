//! PDF: the text on its pages.
//!
//! The extractor is young and may panic on files it does not understand; it runs on a thread of
//! its own, so that a panic is an error of this file and nothing more.

use topshelf_core::Metadata;

use super::skip::{SkipReason, Skipped};
use super::text::blocks;
use super::{Document, SourceFile, stem};

/// The name of the thread, by which a program's panic hook can tell that a panic is dealt with.
pub const THREAD: &str = "pdf text";

/// Nested objects are followed by recursion.
const STACK: usize = 64 << 20;

pub(super) fn read(source: &SourceFile, bytes: &[u8]) -> Result<Document, Skipped> {
    let skip = |reason| Skipped::new(&source.path, reason);
    let pages = extract(bytes).map_err(|reason| skip(SkipReason::PdfBroken { reason }))?;
    let pages: Vec<String> = pages.iter().map(|page| joined(page)).collect();
    let text = pages.join("\n\n").trim().to_owned();
    if text.is_empty() {
        return Err(skip(SkipReason::PdfWithoutText));
    }
    Ok(Document {
        id: source.id.clone(),
        title: stem(source),
        metadata: Metadata::new(),
        blocks: blocks(&text),
        text,
        warnings: Vec::new(),
    })
}

fn extract(bytes: &[u8]) -> Result<Vec<String>, String> {
    let work = || pdf_extract::extract_text_from_mem_by_pages(bytes);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(THREAD.to_owned()).stack_size(STACK);
        let thread = thread.spawn_scoped(scope, work).map_err(|error| error.to_string())?;
        match thread.join() {
            Ok(pages) => pages.map_err(|error| error.to_string()),
            Err(_) => Err("the extractor does not understand it".to_owned()),
        }
    })
}

/// A page with the words joined that a line end cut.
fn joined(page: &str) -> String {
    let mut text = String::with_capacity(page.len());
    for line in page.lines() {
        let line = line.trim_end();
        let continues = text.strip_suffix('-').is_some_and(|before| {
            before.ends_with(char::is_lowercase) && line.starts_with(char::is_lowercase)
        });
        if continues {
            text.pop();
        } else if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(line);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_cut_at_line_ends_are_joined() {
        assert_eq!(joined("a hyphen-\nated word\nnot A-\nB"), "a hyphenated word\nnot A-\nB");
    }
}
