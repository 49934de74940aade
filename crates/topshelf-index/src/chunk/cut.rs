//! Cutting what is too long: blocks into sentences or lines, these into words, words into
//! graphemes.
//!
//! Sentences, words and graphemes are those of Unicode Standard Annex 29, so that text without
//! spaces (Chinese, Japanese) is cut as well. A line break within prose is no end of a sentence
//! unless the next line starts with something other than a letter, as the items of a list do.
//!
//! Everything is an iterator: a block of 50 MB costs no more memory than its text, and one copy of
//! it where line breaks in prose are to be ignored.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

use super::BYTES_A_TOKEN;
use super::section::Piece;

/// The longest gap between units whose count is remembered, in bytes.
const SHORT_GAP: usize = 8;

/// A piece of text that is packed whole.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    /// Where it stands, without white space around it.
    pub(super) range: Range<usize>,
    pub(super) tokens: usize,
    pub(super) by_lines: bool,
}

/// Counts and cuts pieces of one text.
pub(super) struct Cutter<'a> {
    text: &'a str,
    count: &'a dyn Fn(&str) -> usize,
    budget: usize,
    /// Counts of the white space between units, of which there are few kinds.
    gaps: RefCell<HashMap<&'a str, usize>>,
}

impl<'a> Cutter<'a> {
    pub(super) fn new(text: &'a str, count: &'a dyn Fn(&str) -> usize, budget: usize) -> Self {
        Self { text, count, budget, gaps: RefCell::default() }
    }

    pub(super) fn budget(&self) -> usize {
        self.budget
    }

    /// The tokens of a range; something beyond the budget, uncounted, if it is very long.
    pub(super) fn tokens(&self, range: &Range<usize>) -> usize {
        let text = &self.text[range.clone()];
        let least = text.len() / BYTES_A_TOKEN;
        if least > self.budget { least } else { (self.count)(text).max(least) }
    }

    /// The tokens of what stands between two units.
    pub(super) fn gap(&self, range: Range<usize>) -> usize {
        if range.is_empty() {
            return 0;
        }
        if range.len() > SHORT_GAP {
            return self.tokens(&range);
        }
        let text = &self.text[range];
        *self.gaps.borrow_mut().entry(text).or_insert_with(|| (self.count)(text))
    }

    /// Whether a heading is too long to be repeated above each passage of its section.
    pub(super) fn is_too_long_for_trail(&self, heading: &Range<usize>) -> bool {
        self.tokens(heading) > self.budget / 4
    }

    /// Hands out the units of a block: the block itself, or what it is cut into. None of them has
    /// more than `room` tokens, but for a single character that does.
    pub(super) fn units(&self, piece: &Piece, room: usize, sink: &mut dyn FnMut(Unit)) {
        let tokens = self.tokens(&piece.range);
        if tokens <= room {
            sink(Unit { range: piece.range.clone(), tokens, by_lines: piece.by_lines });
        } else {
            self.sentences(&piece.range, piece.by_lines, room, sink);
        }
    }

    /// The sentences or lines of a range.
    pub(super) fn sentences(
        &self,
        range: &Range<usize>,
        by_lines: bool,
        room: usize,
        sink: &mut dyn FnMut(Unit),
    ) {
        let text = &self.text[range.clone()];
        let mut one = |sentence: Range<usize>| {
            let tokens = self.tokens(&sentence);
            if tokens <= room {
                sink(Unit { range: sentence, tokens, by_lines });
            } else {
                self.words(&sentence, by_lines, room, sink);
            }
        };
        if by_lines {
            contents(text.split_inclusive('\n'), range.start).for_each(&mut one);
        } else {
            let unwrapped = unwrapped(text);
            contents(unwrapped.split_sentence_bounds(), range.start).for_each(&mut one);
        }
    }

    /// Runs of words within `room`.
    fn words(
        &self,
        sentence: &Range<usize>,
        by_lines: bool,
        room: usize,
        sink: &mut dyn FnMut(Unit),
    ) {
        let mut open: Option<Unit> = None;
        // The sum of many short counts may be well above the count of the whole, so a run that
        // seems full is counted again, until it is nearly so.
        let mut last_count = 0;
        let text = &self.text[sentence.clone()];
        for word in contents(text.split_word_bounds(), sentence.start) {
            let tokens = self.tokens(&word);
            if tokens > room {
                open.take().into_iter().for_each(&mut *sink);
                self.graphemes(&word, by_lines, room, sink);
                continue;
            }
            if let Some(run) = &mut open {
                let added = self.gap(run.range.end..word.start) + tokens;
                let range = run.range.start..word.end;
                if run.tokens + added <= room {
                    *run = Unit { range, tokens: run.tokens + added, by_lines };
                    continue;
                }
                if last_count < room - room / 8 {
                    last_count = self.tokens(&range);
                    if last_count <= room {
                        *run = Unit { range, tokens: last_count, by_lines };
                        continue;
                    }
                }
            }
            last_count = 0;
            let next = Unit { range: word, tokens, by_lines };
            open.replace(next).into_iter().for_each(&mut *sink);
        }
        open.into_iter().for_each(sink);
    }

    /// Runs of graphemes within `room`.
    fn graphemes(
        &self,
        word: &Range<usize>,
        by_lines: bool,
        room: usize,
        sink: &mut dyn FnMut(Unit),
    ) {
        let mut graphemes = self.text[word.clone()].grapheme_indices(true).peekable();
        while let Some((first, _)) = graphemes.next() {
            // As many as there are tokens, for a grapheme is rarely less than a token of a word
            // that is far too long; halved until they fit.
            let longest = first + room * BYTES_A_TOKEN;
            let mut taken = 1;
            while taken < room && graphemes.next_if(|(at, _)| *at < longest).is_some() {
                taken += 1;
            }
            let end = graphemes.peek().map_or(word.len(), |(at, _)| *at);
            self.halves(word.start + first..word.start + end, by_lines, room, sink);
        }
    }

    /// The range, or its halves if it has too many tokens. A grapheme is cut only if it is too
    /// long for any script, as marks heaped on one letter are.
    fn halves(&self, range: Range<usize>, by_lines: bool, room: usize, sink: &mut dyn FnMut(Unit)) {
        let tokens = self.tokens(&range);
        let text = &self.text[range.clone()];
        let middle = if tokens <= room {
            None
        } else if text.graphemes(true).nth(1).is_some() {
            let bound =
                text.grapheme_indices(true).map(|(at, _)| at).find(|at| *at >= text.len() / 2);
            bound.or_else(|| text.grapheme_indices(true).next_back().map(|(at, _)| at))
        } else {
            (text.len() > room * BYTES_A_TOKEN).then(|| text.floor_char_boundary(text.len() / 2))
        };
        match middle.filter(|middle| *middle > 0) {
            Some(middle) => {
                self.halves(range.start..range.start + middle, by_lines, room, sink);
                self.halves(range.start + middle..range.end, by_lines, room, sink);
            }
            None => sink(Unit { range, tokens: tokens.min(room), by_lines }),
        }
    }
}

/// The places of the parts that are not blank, without the white space around them. The parts
/// follow one another from byte `at` on.
fn contents<'t>(
    parts: impl Iterator<Item = &'t str>,
    mut at: usize,
) -> impl Iterator<Item = Range<usize>> {
    parts.filter_map(move |part| {
        let start = at + (part.len() - part.trim_start().len());
        at += part.len();
        let length = part.trim().len();
        (length > 0).then(|| start..start + length)
    })
}

/// The text with spaces for the line breaks before which no sentence ends, all else in its place.
fn unwrapped(text: &str) -> String {
    let mut unwrapped = String::with_capacity(text.len());
    let mut lines = text.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        let continues = lines
            .peek()
            .and_then(|next| next.trim_start().chars().next())
            .is_some_and(char::is_alphabetic);
        if continues {
            let content = line.trim_end_matches(['\r', '\n']);
            unwrapped.push_str(content);
            unwrapped.extend(std::iter::repeat_n(' ', line.len() - content.len()));
        } else {
            unwrapped.push_str(line);
        }
    }
    unwrapped
}
