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

/// Elements that are what the page is about; navigation and footers have none of them.
const CONTENT: [&str; 3] = ["main", "article", "h1"];

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
            if !CONTENT.contains(&name) || !["nav", "footer"].contains(&dropped.as_str()) {
                *depth += usize::from(dropped == name && !self_closing);
                return;
            }
            self.dropped = None; // it was never closed
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
                // A block inside a heading is the heading, as long as there is nothing before it.
                self.close_block();
                self.heading = level(name).or(self.heading);
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
                } else if level(name).is_some() {
                    self.heading = None;
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
        let by_lines = self.preformatted > 0;
        // The first line's indentation is part of what is preformatted.
        let from_start =
            if by_lines { piece.trim_start_matches(['\r', '\n']) } else { piece.trim_start() };
        let start = self.text.len() - from_start.len();
        let content = from_start.trim_end();
        if content.is_empty() {
            self.text.truncate(self.start);
            return;
        }
        let range = start..start + content.len();
        let kind = match self.heading.take() {
            Some(level) => BlockKind::Heading { level, text: heading_text(content) },
            None if by_lines => BlockKind::Lines,
            None => BlockKind::Text,
        };
        self.text.truncate(range.end);
        self.blocks.push(Block { kind, range });
        self.text.push_str("\n\n");
        self.start = self.text.len();
    }
}

/// A heading in one line, without the sign that documentation generators put behind it as a link.
fn heading_text(content: &str) -> String {
    let line = content.split_whitespace().collect::<Vec<_>>().join(" ");
    line.trim_matches(['¶', '§', ' ']).to_owned()
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

    fn read_text(html: &str) -> Document {
        let source = SourceFile {
            path: "a.html".into(),
            id: "a.html".into(),
            bytes: 0,
            modified: None,
            format: Format::Html,
        };
        read(&source, html)
    }

    fn pieces(document: &Document) -> Vec<&str> {
        document.blocks.iter().map(|block| &document.text[block.range.clone()]).collect()
    }

    #[test]
    fn a_page() {
        let html = "<!doctype html><title>The &amp; page</title><style>p{}</style>\
            <nav><a>Home</a></nav><h1>Head<br>line</h1><p>One <b>bold</b>\n  word.<p>Two\
            <ul><li>item</ul><pre>a\n  b</pre><script>if (a<b) {}</script><table><tr><td>x<td>y</table>";
        let document = read_text(html);
        assert_eq!(document.title, "The & page");
        let pieces = pieces(&document);
        assert_eq!(pieces, ["Head\nline", "One bold word.", "Two", "item", "a\n  b", "x y"]);
        assert_eq!(
            document.blocks[0].kind,
            BlockKind::Heading { level: 1, text: "Head line".into() }
        );
    }
    #[test]
    fn headings_with_blocks_in_them_and_behind_them() {
        let document = read_text(
            "<h1><div>Install</div></h1><h2>Use<a class=headerlink>¶</a></h2><p>Text.</p>\
             <h3></h3><p>More.</p><pre>  indented\n    more\n</pre>",
        );
        assert_eq!(document.title, "Install");
        assert_eq!(
            pieces(&document),
            ["Install", "Use¶", "Text.", "More.", "  indented\n    more"]
        );
        let kinds: Vec<&BlockKind> = document.blocks.iter().map(|block| &block.kind).collect();
        let use_it = BlockKind::Heading { level: 2, text: "Use".into() };
        assert_eq!(kinds[1..], [&use_it, &BlockKind::Text, &BlockKind::Text, &BlockKind::Lines]);
    }

    #[test]
    fn navigation_that_is_never_closed_takes_no_page_with_it() {
        let document = read_text("<body><nav><a>Home</a><main><p>The page.</p></main></body>");
        assert_eq!(pieces(&document), ["The page."]);
    }
}
