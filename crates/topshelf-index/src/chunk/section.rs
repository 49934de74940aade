//! Which blocks belong together: the text under one heading, and small sections joined.

use std::ops::Range;

use super::cut::Cutter;
use super::{BlockKind, Document};

/// Sections below this are joined with their neighbour, in tokens.
const SMALL_SECTION: usize = 48;

/// A block's place, and how it is cut if it is too long.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) range: Range<usize>,
    /// Between lines rather than between sentences.
    pub(super) by_lines: bool,
}

/// Text under one heading, or under several small ones of the same parent.
#[derive(Debug)]
pub(super) struct Section {
    /// The headings above the text, outermost first; the section's own last, unless it is joined.
    pub(super) trail: Vec<String>,
    /// The section's own heading; `None` before the first heading and in joined sections.
    heading: Option<Range<usize>>,
    /// Where the heading above the section's own stands; sections that agree in it are siblings,
    /// whatever the names above them.
    parent: Option<usize>,
    /// Joined from several: its headings are among its pieces.
    is_joined: bool,
    pub(super) pieces: Vec<Piece>,
    tokens: usize,
}

impl Section {
    /// A section of a single piece under no heading.
    pub(super) fn of(piece: Piece) -> Self {
        Self {
            trail: Vec::new(),
            heading: None,
            parent: None,
            is_joined: false,
            pieces: vec![piece],
            tokens: 0,
        }
    }
}

/// A heading that is open above a block.
struct Open {
    level: u8,
    text: String,
    range: Range<usize>,
}

/// The sections that have any text, in order.
pub(super) fn sections(document: &Document, cutter: &Cutter<'_>) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    let mut starts_section = true;
    for block in &document.blocks {
        let by_lines = match &block.kind {
            // A heading longer than a trail may be is prose that is marked up as one. Without
            // this its words would be in no passage.
            BlockKind::Heading { level, text } if !cutter.is_too_long_for_trail(&block.range) => {
                while open.last().is_some_and(|above| above.level >= *level) {
                    open.pop();
                }
                open.push(Open { level: *level, text: text.clone(), range: block.range.clone() });
                starts_section = true;
                continue;
            }
            BlockKind::Heading { .. } | BlockKind::Text => false,
            BlockKind::Lines => true,
        };
        let piece = Piece { range: block.range.clone(), by_lines };
        let tokens = cutter.tokens(&piece.range);
        match sections.last_mut() {
            Some(section) if !starts_section => {
                section.pieces.push(piece);
                section.tokens += tokens;
            }
            _ => sections.push(Section {
                trail: open.iter().map(|heading| heading.text.clone()).collect(),
                heading: open.last().map(|heading| heading.range.clone()),
                parent: open.iter().rev().nth(1).map(|heading| heading.range.start),
                is_joined: false,
                pieces: vec![piece],
                tokens,
            }),
        }
        starts_section = false;
    }
    sections
}

/// The sections with small ones joined to the sibling before them, as long as both together are
/// no more than half of the budget.
pub(super) fn joined(sections: Vec<Section>, cutter: &Cutter<'_>) -> Vec<Section> {
    let mut joined: Vec<Section> = Vec::new();
    for section in sections {
        if let Some(last) = joined.last_mut()
            && let Some(heading) = &section.heading
            && last.parent == section.parent
            // What stands before the first heading is nobody's sibling.
            && (last.is_joined || last.heading.is_some())
            && (last.tokens < SMALL_SECTION || section.tokens < SMALL_SECTION)
        {
            let own = last.heading.as_ref().map_or(0, |range| cutter.tokens(range));
            let all = last.tokens + own + cutter.tokens(heading) + section.tokens;
            if all <= cutter.budget() / 2 {
                if let Some(range) = last.heading.take() {
                    last.pieces.insert(0, Piece { range, by_lines: true });
                    last.trail.pop();
                    last.is_joined = true;
                }
                last.pieces.push(Piece { range: heading.clone(), by_lines: true });
                last.pieces.extend(section.pieces);
                last.tokens = all;
                continue;
            }
        }
        joined.push(section);
    }
    joined
}
