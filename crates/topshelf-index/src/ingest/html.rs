//! HTML: its text, without scripts, styles and navigation.
//!
//! The document's text is what is extracted; ranges point into that. Block elements separate
//! paragraphs, white space is folded except in `<pre>`, entities are decoded.

use html5gum::{Token, Tokenizer, emitters::default::DefaultEmitter};
use topshelf_core::Metadata;

use super::{Block, BlockKind, Document, SourceFile, stem};

/// Elements whose content is not text of the page.
const DROPPED: [&str; 11] = [
    "script", "style", "template", "noscript", "svg", "nav", "footer", "iframe", "select",
    "button", "math",
];

/// Elements that stand within a line.
const INLINE: [&str; 26] = [
    "a", "abbr", "b", "bdi", "bdo", "cite", "code", "data", "del", "dfn", "em", "font", "i", "img",
    "ins", "kbd", "label", "mark", "q", "s", "small", "span", "strong", "sub", "sup", "u",
];

pub(super) fn read(source: &SourceFile, html: &str) -> Document {
    let mut page = Page::default();
    let mut emitter = DefaultEmitter::default();
    emitter.naively_switch_states(true); // what is in a script is no markup
    let mut tokenizer = Tokenizer::new_with_emitter(html, emitter);
    // A text in a string cannot fail to be read.
    while let Some(Ok(token)) = tokenizer.next() {
        match token {
            Token::StartTag(tag) => {
                page.start(&String::from_utf8_lossy(&tag.name), tag.self_closing);
            }
            Token::EndTag(tag) => page.end(&String::from_utf8_lossy(&tag.name)),
            Token::String(text) => page.text(&String::from_utf8_lossy(&text)),
            _ => {}
        }
    }
    page.close_block();
    let title = page.title.split_whitespace().collect::<Vec<_>>().join(" ");
    let first = page.blocks.iter().find_map(|block| match &block.kind {
        BlockKind::Heading { level: 1, text } => Some(text.clone()),
        _ => None,
    });
    let title = if title.is_empty() { first.unwrap_or_else(|| stem(source)) } else { title };
    Document {
        id: source.id.clone(),
        title,
        metadata: Metadata::new(),
        text: page.text,
        blocks: page.blocks,
        warnings: Vec::new(),
    }
}

/// A page while it is read.
#[derive(Default)]
struct Page {
    text: String,
    blocks: Vec<Block>,
    title: String,
    /// Where the open block starts in `text`.
    start: usize,
    heading: Option<u8>,
    in_title: bool,
    /// The element whose content is dropped, and how often it is open.
    dropped: Option<(String, usize)>,
    preformatted: usize,
}

impl Page {
    fn start(&mut self, name: &str, self_closing: bool) {
        if let Some((dropped, depth)) = &mut self.dropped {
            *depth += usize::from(dropped == name && !self_closing);
            return;
        }
        if DROPPED.contains(&name) && !self_closing {
            self.close_block();
            self.dropped = Some((name.to_owned(), 1));
            return;
        }
        match name {
            "title" => self.in_title = true,
            "pre" => {
                self.close_block();
                self.preformatted += 1;
            }
            "br" => self.text.push('\n'),
            "td" | "th" => self.text.push(' '),
            _ if INLINE.contains(&name) => {}
            _ => {
                self.close_block();
                self.heading = level(name);
            }
        }
    }

    fn end(&mut self, name: &str) {
        if let Some((dropped, depth)) = &mut self.dropped {
            if dropped == name {
                *depth -= 1;
                if *depth == 0 {
                    self.dropped = None;
                }
            }
            return;
        }
        match name {
            "title" => self.in_title = false,
            "td" | "th" => self.text.push(' '),
            _ if INLINE.contains(&name) => {}
            _ => {
                self.close_block();
                if name == "pre" {
                    self.preformatted = self.preformatted.saturating_sub(1);
                }
            }
        }
    }

    fn text(&mut self, text: &str) {
        if self.in_title {
            self.title.push_str(text);
        } else if self.dropped.is_some() {
        } else if self.preformatted > 0 {
            self.text.push_str(text);
        } else {
            for c in text.chars() {
                if !c.is_whitespace() {
                    self.text.push(c);
                } else if !self.text.ends_with(char::is_whitespace) {
                    self.text.push(' ');
                }
            }
        }
    }

    /// Ends the open block, if there is anything in it.
    fn close_block(&mut self) {
        let piece = &self.text[self.start..];
        let lead = piece.len() - piece.trim_start().len();
        let content = piece.trim();
        let heading = self.heading.take();
        if content.is_empty() {
            self.text.truncate(self.start);
            return;
        }
        let range = self.start + lead..self.start + lead + content.len();
        let kind = match heading {
            Some(level) => BlockKind::Heading { level, text: content.replace('\n', " ") },
            None => BlockKind::Text,
        };
        self.text.truncate(range.end);
        self.blocks.push(Block { kind, range });
        self.text.push_str("\n\n");
        self.start = self.text.len();
    }
}

/// The level of `h1` to `h6`.
fn level(name: &str) -> Option<u8> {
    let level = name.strip_prefix('h')?.parse().ok()?;
    (1..=6).contains(&level).then_some(level)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::Format;

    #[test]
    fn a_page() {
        let html = "<!doctype html><title>The &amp; page</title><style>p{}</style>\
            <nav><a>Home</a></nav><h1>Head<br>line</h1><p>One <b>bold</b>\n  word.<p>Two\
            <ul><li>item</ul><pre>a\n  b</pre><script>if (a<b) {}</script><table><tr><td>x<td>y</table>";
        let source = SourceFile {
            path: "a.html".into(),
            id: "a.html".into(),
            bytes: 0,
            modified: None,
            format: Format::Html,
        };
        let document = read(&source, html);
        assert_eq!(document.title, "The & page");
        let pieces: Vec<&str> =
            document.blocks.iter().map(|block| &document.text[block.range.clone()]).collect();
        assert_eq!(pieces, ["Head\nline", "One bold word.", "Two", "item", "a\n  b", "x y"]);
        assert_eq!(
            document.blocks[0].kind,
            BlockKind::Heading { level: 1, text: "Head line".into() }
        );
    }
}
