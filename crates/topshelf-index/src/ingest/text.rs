//! Plain text and source code: paragraphs are what blank lines separate.
//!
//! A line underlined with `===` or `---` is a heading, as in reStructuredText.

use super::{Block, BlockKind, Document, SourceFile, stem};

pub(super) fn read(source: &SourceFile, text: String) -> Document {
    let blocks = blocks(&text);
    Document {
        id: source.id.clone(),
        title: stem(source),
        metadata: topshelf_core::Metadata::new(),
        text,
        blocks,
        warnings: Vec::new(),
    }
}

/// The paragraphs and underlined headings of a text.
pub(super) fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open: Option<std::ops::Range<usize>> = None;
    let mut lines_in_open = 0;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let start = at;
        at += line.len();
        let content = line.trim_end();
        if content.trim_start().is_empty() {
            blocks.extend(open.take().map(paragraph));
            lines_in_open = 0;
            continue;
        }
        if let (Some(level), Some(range), 1) = (underline(content), &open, lines_in_open) {
            let text = text[range.clone()].trim().to_owned();
            let range = range.start..start + content.len();
            blocks.push(Block { kind: BlockKind::Heading { level, text }, range });
            (open, lines_in_open) = (None, 0);
            continue;
        }
        let first = open.as_ref().map_or(start, |range| range.start);
        open = Some(first..start + content.len());
        lines_in_open += 1;
    }
    blocks.extend(open.map(paragraph));
    blocks
}

fn paragraph(range: std::ops::Range<usize>) -> Block {
    Block { kind: BlockKind::Text, range }
}

fn underline(line: &str) -> Option<u8> {
    let all = |c: char| line.len() >= 3 && line.chars().all(|other| other == c);
    if all('=') {
        Some(1)
    } else if all('-') {
        Some(2)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_and_underlined_headings() {
        let text = "Title\n=====\n\nfirst\nline two\n\n\nsecond\n";
        let blocks = blocks(text);
        let pieces: Vec<&str> = blocks.iter().map(|block| &text[block.range.clone()]).collect();
        assert_eq!(pieces, ["Title\n=====", "first\nline two", "second"]);
        let heading = BlockKind::Heading { level: 1, text: "Title".into() };
        assert_eq!(blocks[0].kind, heading);
    }
}
