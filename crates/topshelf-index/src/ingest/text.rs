//! Plain text and source code: paragraphs are what blank lines separate.
//!
//! In prose, a single line underlined with `===` or `---` (and overlined too, if one likes) is a
//! heading, as in reStructuredText. Source code and data are cut between lines and have no
//! headings: a row of dashes there is a comment's ornament or a separator.

use std::ops::Range;

use super::{Block, BlockKind, Document, SourceFile, stem};

/// Extensions of files that are prose; whatever else is text is source code, configuration, logs.
const PROSE: [&str; 9] = ["", "txt", "text", "rst", "adoc", "asciidoc", "org", "tex", "textile"];

/// What a text is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Sentences, under underlined headings.
    Prose,
    /// Sentences.
    Paragraphs,
    /// Lines.
    Lines,
}

pub(super) fn read(source: &SourceFile, text: String) -> Document {
    let extension = source.path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let style = if PROSE.contains(&extension.as_str()) { Style::Prose } else { Style::Lines };
    let blocks = blocks(&text, style);
    Document {
        id: source.id.clone(),
        title: stem(source),
        metadata: topshelf_core::Metadata::new(),
        text,
        blocks,
        warnings: Vec::new(),
    }
}

/// The paragraphs and, in prose, the underlined headings of a text.
pub(super) fn blocks(text: &str, style: Style) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    // The lines of the open paragraph: the first, the last, and how many.
    let mut open: Option<(Range<usize>, Range<usize>, usize)> = None;
    let kind = if style == Style::Lines { BlockKind::Lines } else { BlockKind::Text };
    let paragraph = |(first, last, _): (Range<usize>, Range<usize>, usize)| Block {
        kind: kind.clone(),
        range: first.start..last.end,
    };
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let line_range = at..at + line.trim_end().len();
        at += line.len();
        if line_range.is_empty() {
            blocks.extend(open.take().map(paragraph));
            continue;
        }
        let Some((first, last, lines)) = open.take() else {
            open = Some((line_range.clone(), line_range, 1));
            continue;
        };
        let level = underline(&text[line_range.clone()]).filter(|level| {
            let overline = || underline(&text[first.clone()]) == Some(*level);
            style == Style::Prose
                && underline(&text[last.clone()]).is_none()
                && (lines == 1 || (lines == 2 && overline()))
        });
        match level {
            Some(level) => {
                let text = text[last].trim().to_owned();
                let range = first.start..line_range.end;
                blocks.push(Block { kind: BlockKind::Heading { level, text }, range });
            }
            None => open = Some((first, line_range, lines + 1)),
        }
    }
    blocks.extend(open.map(paragraph));
    blocks
}

fn underline(line: &str) -> Option<u8> {
    let all = |c: u8| line.len() >= 3 && line.bytes().all(|other| other == c);
    if all(b'=') {
        Some(1)
    } else if all(b'-') {
        Some(2)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str, style: Style) -> Vec<(Option<&str>, BlockKind)> {
        let blocks = blocks(text, style);
        blocks.into_iter().map(|block| (text.get(block.range), block.kind)).collect()
    }

    #[test]
    fn paragraphs_and_underlined_headings() {
        let text = "Title\n=====\n\nfirst\nline two\n\n\nsecond\n---------\nthird\n";
        let heading = |level, text: &str| BlockKind::Heading { level, text: text.into() };
        assert_eq!(
            pieces(text, Style::Prose),
            [
                (Some("Title\n====="), heading(1, "Title")),
                (Some("first\nline two"), BlockKind::Text),
                (Some("second\n---------"), heading(2, "second")),
                (Some("third"), BlockKind::Text),
            ]
        );
        assert_eq!(
            pieces("=====\n Top\n=====\nx", Style::Prose),
            [(Some("=====\n Top\n====="), heading(1, "Top")), (Some("x"), BlockKind::Text)]
        );
        assert_eq!(pieces("----\n----\n", Style::Prose), [(Some("----\n----"), BlockKind::Text)]);
    }

    #[test]
    fn code_has_lines_and_no_headings() {
        let text = "a: 1\n---\nb: 2\n\n    c: 3\n";
        assert_eq!(
            pieces(text, Style::Lines),
            [(Some("a: 1\n---\nb: 2"), BlockKind::Lines), (Some("    c: 3"), BlockKind::Lines)]
        );
    }
}
