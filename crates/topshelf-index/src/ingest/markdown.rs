//! Markdown (CommonMark with tables), with YAML (`---`) or TOML (`+++`) front matter.
//!
//! Blocks are ranges of the source, so markup stays in their text. Comments, definitions of
//! references, rules, and paragraphs of nothing but pictures and links to pictures (badges) are
//! in no block.

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};
use serde_json::Value;
use topshelf_core::Metadata;

use super::skip::{Warning, WarningReason};
use super::{Block, BlockKind, Document, SourceFile, stem};

pub(super) fn read(source: &SourceFile, text: String) -> Document {
    let mut warnings = Vec::new();
    let (body, metadata) = match front_matter(&text) {
        Some((body, Ok(metadata))) => (body, metadata),
        Some((_, Err(reason))) => {
            warnings.push(Warning::new(&source.path, WarningReason::FrontMatter { reason }));
            (0, Metadata::new())
        }
        None => (0, Metadata::new()),
    };
    let blocks = blocks(&text, body);
    let own = metadata.get("title").and_then(Value::as_str).map(str::to_owned);
    let first = blocks.iter().find_map(|block| match &block.kind {
        BlockKind::Heading { level: 1, text } => Some(text.clone()),
        _ => None,
    });
    let title = own.or(first).unwrap_or_else(|| stem(source));
    Document { id: source.id.clone(), title, metadata, text, blocks, warnings }
}

/// Where the body starts, and the fields before it or why they cannot be read.
fn front_matter(text: &str) -> Option<(usize, Result<Metadata, String>)> {
    let fence = text.get(..3).filter(|fence| ["---", "+++"].contains(fence))?;
    let start = text.find('\n')? + 1;
    if text[3..start].trim() != "" {
        return None;
    }
    let mut at = start;
    for line in text[start..].split_inclusive('\n') {
        if line.trim_end() == fence {
            let fields = &text[start..at];
            let parsed = if fence == "---" {
                serde_norway::from_str::<Value>(fields).map_err(|error| error.to_string())
            } else {
                toml::from_str::<Value>(fields).map_err(|error| error.message().to_owned())
            };
            return match parsed {
                Ok(Value::Object(fields)) => Some((at + line.len(), Ok(fields))),
                Ok(Value::Null) => Some((at + line.len(), Ok(Metadata::new()))),
                // A rule at the top and another below it, with prose between them.
                Ok(_) => None,
                Err(reason) => Some((at + line.len(), Err(reason))),
            };
        }
        at += line.len();
    }
    None
}

/// The blocks of the text from byte `body` on.
fn blocks(text: &str, body: usize) -> Vec<Block> {
    let mut blocks = Vec::new();
    let options = Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES;
    let mut heading: Option<String> = None;
    // Inside a block of its own (a paragraph, a list, ...), events are only looked at for words.
    let mut depth = 0;
    let mut has_words = false;
    let mut in_picture = 0;
    for (event, range) in Parser::new_ext(&text[body..], options).into_offset_iter() {
        let range = body + range.start..body + range.end;
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(level)) => {
                let title = heading.take().unwrap_or_default();
                let title = title.split_whitespace().collect::<Vec<_>>().join(" ");
                if !title.is_empty() {
                    let kind = BlockKind::Heading { level: number(level), text: title };
                    blocks.push(Block { kind, range: trimmed(text, range) });
                }
            }
            Event::Start(Tag::Image { .. }) => in_picture += 1,
            Event::End(TagEnd::Image) => in_picture -= 1,
            Event::Start(tag) if is_block(&tag) => {
                // Items of a list are blocks of their own, so that a long list can be cut.
                if depth == 0 && !matches!(tag, Tag::List(_)) {
                    has_words = false;
                }
                depth += i32::from(!matches!(tag, Tag::List(_)));
            }
            Event::End(end) if is_block_end(end) => {
                depth -= i32::from(!matches!(end, TagEnd::List(_)));
                if depth == 0 && !matches!(end, TagEnd::List(_)) && has_words {
                    blocks.push(Block { kind: BlockKind::Text, range: trimmed(text, range) });
                }
            }
            Event::Text(words) | Event::Code(words) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&words);
                }
                has_words |= in_picture == 0 && !words.trim().is_empty();
            }
            Event::SoftBreak | Event::HardBreak => {
                if let Some(heading) = &mut heading {
                    heading.push(' ');
                }
            }
            // HTML with words in it counts; a comment or a lone tag does not.
            Event::Html(html) | Event::InlineHtml(html) => {
                has_words |= words_of_html(&html);
            }
            _ => {}
        }
    }
    blocks
}

fn number(level: HeadingLevel) -> u8 {
    level as u8
}

fn is_block(tag: &Tag<'_>) -> bool {
    matches!(
        tag,
        Tag::Paragraph
            | Tag::BlockQuote(_)
            | Tag::CodeBlock(_)
            | Tag::HtmlBlock
            | Tag::List(_)
            | Tag::Item
            | Tag::Table(_)
            | Tag::FootnoteDefinition(_)
    )
}

fn is_block_end(end: TagEnd) -> bool {
    matches!(
        end,
        TagEnd::Paragraph
            | TagEnd::BlockQuote(_)
            | TagEnd::CodeBlock
            | TagEnd::HtmlBlock
            | TagEnd::List(_)
            | TagEnd::Item
            | TagEnd::Table
            | TagEnd::FootnoteDefinition
    )
}

fn words_of_html(html: &str) -> bool {
    let html = html.trim();
    if html.starts_with("<!--") {
        return html.split_once("-->").is_some_and(|(_, rest)| words_of_html(rest));
    }
    let mut in_tag = false;
    html.chars().any(|c| {
        match c {
            '<' => in_tag = true,
            '>' => in_tag = false,
            _ => return !in_tag && c.is_alphanumeric(),
        }
        false
    })
}

/// The range without white space around it.
pub(super) fn trimmed(text: &str, range: std::ops::Range<usize>) -> std::ops::Range<usize> {
    let piece = &text[range.clone()];
    let start = range.start + (piece.len() - piece.trim_start().len());
    start..start + piece.trim().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::Format;

    fn read_text(text: &str) -> Document {
        let source = SourceFile {
            path: "guide.md".into(),
            id: "guide.md".into(),
            bytes: text.len() as u64,
            modified: None,
            format: Format::Markdown,
        };
        read(&source, text.to_owned())
    }

    fn pieces(document: &Document) -> Vec<&str> {
        document.blocks.iter().map(|block| &document.text[block.range.clone()]).collect()
    }

    #[test]
    fn blocks_of_all_kinds() {
        let document = read_text(
            "# The `guide`\n\n[![badge](b.svg)](x)\n\nFirst *paragraph*\nof two lines.\n\n\
             <!-- a comment -->\n\n- one\n- two\n  - nested\n\n```rust\nlet a = 1;\n\nlet b = 2;\n```\n\n\
             | a | b |\n|---|---|\n| 1 | 2 |\n\n> quoted\n\n---\n\n## Next\n\n[ref]: http://x\n",
        );
        assert_eq!(document.title, "The guide");
        assert_eq!(
            pieces(&document),
            [
                "# The `guide`",
                "First *paragraph*\nof two lines.",
                "- one",
                "- two\n  - nested",
                "```rust\nlet a = 1;\n\nlet b = 2;\n```",
                "| a | b |\n|---|---|\n| 1 | 2 |",
                "> quoted",
                "## Next",
            ]
        );
    }

    #[test]
    fn front_matter_of_both_kinds() {
        let yaml = read_text("---\ntitle: Fleas\nyear: 2024\ntags: [a, b]\n---\nText.\n");
        assert_eq!(yaml.title, "Fleas");
        assert_eq!(yaml.metadata["year"], 2024);
        assert_eq!(pieces(&yaml), ["Text."]);
        let toml = read_text("+++\ntitle = \"Fleas\"\n+++\n\nText.\n");
        assert_eq!((toml.title.as_str(), pieces(&toml)), ("Fleas", vec!["Text."]));
        let broken = read_text("---\ntitle: [unclosed\n---\nText.\n");
        assert!(matches!(broken.warnings[0].reason, WarningReason::FrontMatter { .. }));
        let rule = read_text("---\n\nProse between rules.\n\n---\n");
        assert!(rule.warnings.is_empty() && rule.metadata.is_empty());
    }
}
