//! Documents to passages: [`chunk()`].
//!
//! A passage is a contiguous piece of one section. Blocks (paragraphs, list items, tables, code)
//! are packed whole up to the token budget; a block beyond the budget is cut between sentences, a
//! sentence between words, a word between characters. Neighbouring passages of one section share
//! whole sentences up to the overlap. Small sections under one parent are joined, their headings
//! then standing in the text, so that a changelog's two-line entries do not become passages each.
//!
//! The budget holds for what a model reads: the heading trail and the text. The trail counts with
//! at most a quarter of the budget. Tokens are counted block by block and added, so that the time
//! is linear in the document; the count of the whole may differ by a token or two at the seams.

use std::ops::Range;

use topshelf_core::Passage;
use unicode_segmentation::UnicodeSegmentation;

use crate::ingest::{BlockKind, Document};

/// Sections below this are joined with their neighbour, in tokens.
const SMALL_SECTION: usize = 48;

/// A gap between two blocks of more bytes than this (comments, pictures) is no part of a passage.
const GAP: usize = 200;

/// A token is taken to have at most this many bytes: a vocabulary may count a blob of any length
/// as one unknown token.
const BYTES_A_TOKEN: usize = 16;

/// How documents are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkOptions {
    /// Tokens of a passage, heading trail included.
    pub max_tokens: usize,
    /// Tokens that neighbouring passages of one section share, at most.
    pub overlap_tokens: usize,
}

impl Default for ChunkOptions {
    fn default() -> Self {
        Self { max_tokens: 256, overlap_tokens: 32 }
    }
}

/// Cuts a document into passages, in the order of the text. `count_tokens` counts as the model
/// that will read them does, without special tokens.
///
/// Every passage's text is exactly the bytes of its range; a document of nothing but headings is
/// one passage of them; an empty document has none.
pub fn chunk(
    document: &Document,
    options: &ChunkOptions,
    count_tokens: &dyn Fn(&str) -> usize,
) -> Vec<Passage> {
    let cutter = Cutter {
        text: &document.text,
        count: count_tokens,
        budget: options.max_tokens.max(1),
        overlap: options.overlap_tokens.min(options.max_tokens / 2),
    };
    let mut sections = cutter.sections(document);
    if sections.is_empty()
        && let (Some(first), Some(last)) = (document.blocks.first(), document.blocks.last())
    {
        // Nothing but headings.
        let range = first.range.start..last.range.end;
        sections.push(Section { trail: Vec::new(), heading: None, pieces: vec![range], tokens: 0 });
    }
    let mut passages = Vec::new();
    for section in cutter.joined(sections) {
        for range in cutter.cut(document, &section) {
            passages.push(Passage {
                id: format!("{}#{}", document.id, passages.len()),
                document: document.id.clone(),
                title: document.title.clone(),
                headings: section.trail.clone(),
                text: document.text[range.clone()].to_owned(),
                range,
                metadata: document.metadata.clone(),
            });
        }
    }
    passages
}

/// Blocks under one heading.
struct Section {
    /// The headings above, the section's own last.
    trail: Vec<String>,
    heading: Option<Range<usize>>,
    pieces: Vec<Range<usize>>,
    tokens: usize,
}

/// A piece that is packed whole.
#[derive(Clone)]
struct Unit {
    range: Range<usize>,
    tokens: usize,
}

struct Cutter<'a> {
    text: &'a str,
    count: &'a dyn Fn(&str) -> usize,
    budget: usize,
    overlap: usize,
}

impl Cutter<'_> {
    fn tokens(&self, range: &Range<usize>) -> usize {
        let text = &self.text[range.clone()];
        (self.count)(text).max(text.len() / BYTES_A_TOKEN)
    }

    /// The sections that have any text.
    fn sections(&self, document: &Document) -> Vec<Section> {
        let mut sections = Vec::new();
        let mut headings: Vec<(u8, String)> = Vec::new();
        let mut open = Section { trail: Vec::new(), heading: None, pieces: Vec::new(), tokens: 0 };
        for block in &document.blocks {
            match &block.kind {
                BlockKind::Heading { level, text } => {
                    while headings.last().is_some_and(|(above, _)| above >= level) {
                        headings.pop();
                    }
                    headings.push((*level, text.clone()));
                    let trail = headings.iter().map(|(_, text)| text.clone()).collect();
                    let heading = Some(block.range.clone());
                    let next = Section { trail, heading, pieces: Vec::new(), tokens: 0 };
                    let done = std::mem::replace(&mut open, next);
                    if !done.pieces.is_empty() {
                        sections.push(done);
                    }
                }
                BlockKind::Text => {
                    open.tokens += self.tokens(&block.range);
                    open.pieces.push(block.range.clone());
                }
            }
        }
        if !open.pieces.is_empty() {
            sections.push(open);
        }
        sections
    }

    /// The sections with small ones joined to the sibling before them.
    fn joined(&self, sections: Vec<Section>) -> Vec<Section> {
        let mut joined: Vec<Section> = Vec::new();
        for section in sections {
            if let Some(last) = joined.last_mut()
                && let Some(heading) = &section.heading
            {
                let parent = section.trail.split_last().map_or(&[][..], |(_, above)| above);
                let is_joined = last.heading.is_none() && !last.trail.is_empty();
                let siblings = if is_joined {
                    last.trail == parent
                } else {
                    last.trail.split_last().map_or(&[][..], |(_, above)| above) == parent
                        && last.heading.is_some()
                };
                let own_heading = last.heading.as_ref().map_or(0, |range| self.tokens(range));
                let all = last.tokens + own_heading + self.tokens(heading) + section.tokens;
                let small = last.tokens < SMALL_SECTION || section.tokens < SMALL_SECTION;
                // A joined section without a parent could not be told from the text before the
                // first heading, so top-level sections are left alone.
                if siblings && small && !parent.is_empty() && all <= self.budget / 2 {
                    if let Some(own) = last.heading.take() {
                        last.pieces.insert(0, own);
                    }
                    last.trail = parent.to_vec();
                    last.pieces.push(heading.clone());
                    last.pieces.extend(section.pieces);
                    last.tokens = all;
                    continue;
                }
            }
            joined.push(section);
        }
        joined
    }

    /// The ranges of a section's passages.
    fn cut(&self, document: &Document, section: &Section) -> Vec<Range<usize>> {
        let trail = Passage {
            id: String::new(),
            document: String::new(),
            title: document.title.clone(),
            headings: section.trail.clone(),
            text: String::new(),
            range: 0..0,
            metadata: topshelf_core::Metadata::new(),
        }
        .trail();
        let budget = self.budget - (self.count)(&trail).min(self.budget / 4);
        let mut packer =
            Packer { cutter: self, budget, units: Vec::new(), used: 0, done: Vec::new() };
        for piece in &section.pieces {
            let tokens = self.tokens(piece);
            if tokens <= budget {
                packer.push(Unit { range: piece.clone(), tokens });
            } else {
                for unit in self.sentences(piece, budget) {
                    packer.push(unit);
                }
            }
        }
        packer.flush();
        packer.done
    }

    /// The sentences of a piece; one beyond the budget in pieces of words.
    fn sentences(&self, piece: &Range<usize>, budget: usize) -> Vec<Unit> {
        let mut units = Vec::new();
        for sentence in self.pieces_of(piece, |text| text.split_sentence_bounds()) {
            let tokens = self.tokens(&sentence);
            if tokens <= budget {
                units.push(Unit { range: sentence, tokens });
            } else {
                self.words(&sentence, budget, &mut units);
            }
        }
        units
    }

    /// Runs of words within the budget; a word beyond it in pieces of characters.
    fn words(&self, sentence: &Range<usize>, budget: usize, units: &mut Vec<Unit>) {
        let mut run: Option<Unit> = None;
        for word in self.pieces_of(sentence, |text| text.split_word_bounds()) {
            let tokens = self.tokens(&word);
            if tokens > budget {
                units.extend(run.take());
                // A character is rarely more than a token.
                let characters: Vec<Range<usize>> =
                    self.pieces_of(&word, |text| text.graphemes(true));
                units.extend(characters.chunks(budget).map(|few| Unit {
                    range: few[0].start..few[few.len() - 1].end,
                    tokens: budget,
                }));
                continue;
            }
            match &mut run {
                Some(open) if open.tokens + tokens <= budget => {
                    open.range.end = word.end;
                    open.tokens += tokens;
                }
                _ => units.extend(run.replace(Unit { range: word, tokens })),
            }
        }
        units.extend(run);
    }

    /// The parts into which `split` cuts a range, without blank ones and without the white space
    /// around them.
    fn pieces_of<'t, I>(
        &'t self,
        range: &Range<usize>,
        split: impl Fn(&'t str) -> I,
    ) -> Vec<Range<usize>>
    where
        I: Iterator<Item = &'t str>,
    {
        let mut at = range.start;
        let mut parts = Vec::new();
        for part in split(&self.text[range.clone()]) {
            let lead = part.len() - part.trim_start().len();
            let content = part.trim().len();
            if content > 0 {
                parts.push(at + lead..at + lead + content);
            }
            at += part.len();
        }
        parts
    }
}

/// Fills passages with units.
struct Packer<'a> {
    cutter: &'a Cutter<'a>,
    budget: usize,
    units: Vec<Unit>,
    used: usize,
    done: Vec<Range<usize>>,
}

impl Packer<'_> {
    fn push(&mut self, unit: Unit) {
        if let Some(last) = self.units.last() {
            let far = unit.range.start - last.range.end > GAP;
            if far || self.used + unit.tokens > self.budget {
                let shared = if far { Vec::new() } else { self.shared(self.budget - unit.tokens) };
                self.flush();
                self.used = shared.iter().map(|unit| unit.tokens).sum();
                self.units = shared;
            }
        }
        self.used += unit.tokens;
        self.units.push(unit);
    }

    /// The last whole sentences of the open passage, within the overlap and `room`; never all of
    /// the passage.
    fn shared(&self, room: usize) -> Vec<Unit> {
        let limit = self.cutter.overlap.min(room);
        let Some(last) = self.units.last() else { return Vec::new() };
        let mut shared = Vec::new();
        let mut used = 0;
        let first = self.units.first().map_or(0, |unit| unit.range.start);
        for sentence in self.cutter.sentences(&last.range, self.budget).into_iter().rev() {
            if used + sentence.tokens > limit || sentence.range.start <= first {
                break;
            }
            used += sentence.tokens;
            shared.insert(0, sentence);
        }
        shared
    }

    fn flush(&mut self) {
        if let (Some(first), Some(last)) = (self.units.first(), self.units.last()) {
            self.done.push(first.range.start..last.range.end);
        }
        self.units.clear();
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ingest::{Format, IngestOptions, SourceFile, documents};

    fn words(text: &str) -> usize {
        text.split_whitespace().count()
    }

    fn markdown(text: &str) -> Document {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("doc.md");
        std::fs::write(&path, text).unwrap();
        let source = SourceFile {
            path,
            id: "doc.md".into(),
            bytes: text.len() as u64,
            modified: None,
            format: Format::Markdown,
        };
        documents(&source, &IngestOptions::default()).next().unwrap().unwrap()
    }

    fn cut(text: &str, max_tokens: usize, overlap_tokens: usize) -> Vec<Passage> {
        chunk(&markdown(text), &ChunkOptions { max_tokens, overlap_tokens }, &words)
    }

    #[test]
    fn sections_are_not_mixed_and_carry_their_trail() {
        let long = "word ".repeat(60);
        let text = format!(
            "# Guide\n\nIntro {long}\n\n## Install\n\nInstall {long}\n\n## Use\n\nUse {long}\n"
        );
        let passages = cut(&text, 100, 0);
        let trails: Vec<String> = passages.iter().map(Passage::trail).collect();
        assert_eq!(trails, ["Guide", "Guide > Install", "Guide > Use"]);
        assert!(passages[1].text.starts_with("Install word"));
        assert_eq!(passages[2].id, "doc.md#2");
    }

    #[test]
    fn small_sections_of_one_parent_are_joined() {
        let text = "# Changes\n\n## 1.1\n\n### Added\n\n- one thing\n\n### Fixed\n\n- another\n\n## 1.0\n\n- first\n";
        let passages = cut(text, 100, 0);
        assert_eq!(passages[0].trail(), "Changes > 1.1");
        assert_eq!(passages[0].text, "### Added\n\n- one thing\n\n### Fixed\n\n- another");
        assert_eq!(passages[1].trail(), "Changes > 1.0");
    }

    #[test]
    fn a_long_paragraph_is_cut_between_sentences_with_overlap() {
        let text = "One two three. Four five six. Seven eight nine. Ten eleven twelve.";
        let passages = cut(text, 7, 3);
        let texts: Vec<&str> = passages.iter().map(|passage| passage.text.as_str()).collect();
        // The title, "doc", takes one word of the seven.
        assert_eq!(
            texts,
            [
                "One two three. Four five six.",
                "Four five six. Seven eight nine.",
                "Seven eight nine. Ten eleven twelve."
            ]
        );
    }

    #[test]
    fn headings_alone_are_one_passage() {
        let passages = cut("# One\n\n## Two\n", 100, 0);
        assert_eq!(passages.len(), 1);
        assert_eq!(passages[0].text, "# One\n\n## Two");
    }

    #[test]
    fn text_without_spaces_and_blobs_are_cut() {
        let chinese = "跳蚤可以活一年".repeat(100);
        let count = |text: &str| text.chars().count();
        let options = ChunkOptions { max_tokens: 50, overlap_tokens: 5 };
        let passages = chunk(&markdown(&chinese), &options, &count);
        assert!(passages.len() >= 14 && passages.iter().all(|p| count(&p.text) <= 50));
        let blob = "A".repeat(100_000);
        let passages = chunk(&markdown(&blob), &options, &words);
        assert!(passages.iter().all(|p| p.text.len() <= 50 * BYTES_A_TOKEN), "{}", passages.len());
    }

    proptest! {
        #[test]
        fn passages_are_slices_in_order_within_the_budget_and_lose_nothing(
            parts in proptest::collection::vec(
                prop_oneof![
                    "[a-z]{1,8}( [a-zä]{1,8}){0,30}[.]",
                    "#{1,4} [a-z]{1,6}",
                    "- [a-z]{1,5} [a-z]{1,5}",
                    "[日本語字]{1,40}",
                ],
                0..25,
            ),
            max_tokens in 8usize..60,
            overlap_tokens in 0usize..12,
        ) {
            let text = parts.join("\n\n");
            prop_assume!(!text.trim().is_empty());
            let document = markdown(&text);
            let passages = chunk(&document, &ChunkOptions { max_tokens, overlap_tokens }, &words);
            let mut covered = vec![false; document.text.len()];
            let mut last = 0;
            for passage in &passages {
                prop_assert_eq!(&passage.text, &document.text[passage.range.clone()]);
                prop_assert!(passage.range.start >= last);
                last = passage.range.start;
                prop_assert!(words(&passage.text) <= max_tokens, "{:?}", passage.text);
                covered[passage.range.clone()].fill(true);
            }
            for block in &document.blocks {
                if block.kind == BlockKind::Text {
                    let lost = block.range.clone().find(|at| {
                        !covered[*at] && !document.text.as_bytes()[*at].is_ascii_whitespace()
                    });
                    prop_assert_eq!(lost, None);
                }
            }
        }
    }
}
