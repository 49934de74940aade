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
    let own = match metadata.get("title") {
        Some(Value::String(title)) if !title.trim().is_empty() => Some(title.trim().to_owned()),
        Some(Value::Number(title)) => Some(title.to_string()),
        _ => None,
    };
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
                toml::from_str::<toml::Table>(fields)
                    .map(|table| json(toml::Value::Table(table)))
                    .map_err(|error| error.message().to_owned())
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

/// TOML as JSON; dates, which JSON has not, as text.
fn json(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(truth) => truth.into(),
        toml::Value::Datetime(date) => date.to_string().into(),
        toml::Value::Array(values) => values.into_iter().map(json).collect(),
        toml::Value::Table(table) => {
            Value::Object(table.into_iter().map(|(key, value)| (key, json(value))).collect())
        }
    }
}

/// The blocks of the text from byte `body` on: what stands by itself, and each item of a list, so
/// that a long list can be cut.
fn blocks(text: &str, body: usize) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Open> = None;
    // How many blocks are around an event. Lists are none: their items are.
    let mut depth = 0;
    let mut in_picture = 0;
    let options = Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES;
    for (event, range) in Parser::new_ext(&text[body..], options).into_offset_iter() {
        match event {
            Event::Start(Tag::Image { .. }) => in_picture += 1,
            Event::End(TagEnd::Image) => in_picture -= 1,
            Event::Start(tag) if is_block(&tag) => {
                if depth == 0 {
                    open = Some(Open::new(&tag));
                }
                depth += 1;
            }
            Event::End(end) if is_block_end(end) => {
                depth -= 1;
                if depth == 0
                    && let Some(kind) = open.take().and_then(Open::kind)
                {
                    let range = trimmed(text, body + range.start..body + range.end);
                    blocks.push(Block { kind, range });
                }
            }
            event => {
                if let Some(open) = &mut open {
                    open.take_in(&event, in_picture > 0);
                }
            }
        }
    }
    blocks
}

/// A block while its events are read.
struct Open {
    heading: Option<HeadingLevel>,
    by_lines: bool,
    has_words: bool,
    /// The words of a heading.
    words: String,
    /// The markup of HTML in it.
    html: String,
}

impl Open {
    fn new(tag: &Tag<'_>) -> Self {
        let heading = if let Tag::Heading { level, .. } = tag { Some(*level) } else { None };
        let by_lines = matches!(tag, Tag::CodeBlock(_) | Tag::Table(_) | Tag::HtmlBlock);
        Self { heading, by_lines, has_words: false, words: String::new(), html: String::new() }
    }

    fn take_in(&mut self, event: &Event<'_>, in_picture: bool) {
        match event {
            Event::Text(words) | Event::Code(words) => {
                self.has_words |= !in_picture && !words.trim().is_empty();
                if self.heading.is_some() {
                    self.words.push_str(words);
                }
            }
            Event::SoftBreak | Event::HardBreak => self.words.push(' '),
            Event::Html(html) | Event::InlineHtml(html) => self.html.push_str(html),
            _ => {}
        }
    }

    /// What kind of block it is; `None` if there are no words in it.
    fn kind(self) -> Option<BlockKind> {
        if let Some(level) = self.heading {
            let text = self.words.split_whitespace().collect::<Vec<_>>().join(" ");
            return (!text.is_empty()).then(|| BlockKind::Heading { level: number(level), text });
        }
        // HTML with words in it counts; a comment or a lone tag does not.
        let has_words = self.has_words || words_of_html(&self.html);
        has_words.then_some(if self.by_lines { BlockKind::Lines } else { BlockKind::Text })
    }
}

fn number(level: HeadingLevel) -> u8 {
    level as u8
}

fn is_block(tag: &Tag<'_>) -> bool {
    matches!(
        tag,
        Tag::Heading { .. }
            | Tag::Paragraph
            | Tag::BlockQuote(_)
            | Tag::CodeBlock(_)
            | Tag::HtmlBlock
            | Tag::Item
            | Tag::Table(_)
            | Tag::FootnoteDefinition(_)
    )
}

fn is_block_end(end: TagEnd) -> bool {
    matches!(
        end,
        TagEnd::Heading(_)
            | TagEnd::Paragraph
            | TagEnd::BlockQuote(_)
            | TagEnd::CodeBlock
            | TagEnd::HtmlBlock
            | TagEnd::Item
            | TagEnd::Table
            | TagEnd::FootnoteDefinition
    )
}

/// Whether there is anything to read in a piece of HTML outside of its tags and comments.
fn words_of_html(html: &str) -> bool {
    let mut rest = html;
    while let Some((before, markup)) = rest.split_once('<') {
        if before.contains(char::is_alphanumeric) {
            return true;
        }
        let end = if markup.starts_with("!--") { "-->" } else { ">" };
        match markup.split_once(end) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.contains(char::is_alphanumeric)
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
        let toml = read_text("+++\ntitle = \"Fleas\"\ndate = 2024-05-01\n+++\n\nText.\n");
        assert_eq!(toml.metadata["date"], "2024-05-01");
        assert_eq!((toml.title.as_str(), pieces(&toml)), ("Fleas", vec!["Text."]));
        let broken = read_text("---\ntitle: [unclosed\n---\nText.\n");
        assert!(matches!(broken.warnings[0].reason, WarningReason::FrontMatter { .. }));
        let rule = read_text("---\n\nProse between rules.\n\n---\n");
        assert!(rule.warnings.is_empty() && rule.metadata.is_empty());
    }
    #[test]
    fn comments_of_many_lines_and_headings_within_other_blocks() {
        let document = read_text(
            "<!--\nwords in\n\na comment\n-->\n\n> # Quoted heading\n> and text\n\n\
             - # Item heading\n  text\n\n<div align=\"center\">\n<img src=\"x\">\n</div>\n\n\
             <p>\nHTML with words\n</p>\n\n# Real\n",
        );
        assert_eq!(document.title, "Real");
        assert_eq!(
            pieces(&document),
            [
                "> # Quoted heading\n> and text",
                "- # Item heading\n  text",
                "<p>\nHTML with words\n</p>",
                "# Real"
            ]
        );
    }
}
