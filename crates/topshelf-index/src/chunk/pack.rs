//! Filling passages with units up to the budget, with an overlap.

use std::collections::VecDeque;
use std::ops::Range;

use super::cut::{Cutter, Unit};

/// A gap between two units of more bytes than this (comments, pictures) is no part of a passage.
const GAP: usize = 200;

/// Fills the passages of one section.
pub(super) struct Packer<'a> {
    cutter: &'a Cutter<'a>,
    /// Tokens of a passage's text.
    room: usize,
    overlap: usize,
    /// The open passage, and its tokens.
    units: VecDeque<Unit>,
    used: usize,
    done: Vec<Range<usize>>,
}

impl<'a> Packer<'a> {
    pub(super) fn new(cutter: &'a Cutter<'a>, room: usize, overlap: usize) -> Self {
        Self { cutter, room, overlap, units: VecDeque::new(), used: 0, done: Vec::new() }
    }

    /// Puts a unit into the open passage, or closes that and opens one with the unit and what it
    /// shares with the passage before.
    pub(super) fn push(&mut self, unit: Unit) {
        if let Some(last) = self.units.back() {
            let gap = last.range.end..unit.range.start;
            let far = gap.len() > GAP;
            let lead = if far { 0 } else { self.cutter.gap(gap) };
            if far || self.used + lead + unit.tokens > self.room {
                let limit = self.room.saturating_sub(unit.tokens + lead).min(self.overlap);
                let (shared, used) = if far { (VecDeque::new(), 0) } else { self.shared(limit) };
                self.close();
                self.used = if shared.is_empty() { 0 } else { used + lead };
                self.units = shared;
            } else {
                self.used += lead;
            }
        }
        self.used += unit.tokens;
        self.units.push_back(unit);
    }

    /// The passages' ranges.
    pub(super) fn finish(mut self) -> Vec<Range<usize>> {
        self.close();
        self.done
    }

    /// The last sentences of the open passage that have no more than `limit` tokens together, and
    /// their tokens. Never all of the passage.
    fn shared(&self, limit: usize) -> (VecDeque<Unit>, usize) {
        let mut shared: VecDeque<Unit> = VecDeque::new();
        let mut used = 0;
        let first = self.units.front().map_or(0, |unit| unit.range.start);
        for unit in self.units.iter().rev() {
            let mut sentences = Vec::new();
            self.cutter.sentences(&unit.range, unit.by_lines, self.room, &mut |sentence| {
                sentences.push(sentence);
            });
            for sentence in sentences.into_iter().rev() {
                let gap = shared
                    .front()
                    .map_or(0, |next| self.cutter.gap(sentence.range.end..next.range.start));
                if used + gap + sentence.tokens > limit || sentence.range.start <= first {
                    return (shared, used);
                }
                used += gap + sentence.tokens;
                shared.push_front(sentence);
            }
        }
        (shared, used)
    }

    fn close(&mut self) {
        if let (Some(first), Some(last)) = (self.units.front(), self.units.back()) {
            self.done.push(first.range.start..last.range.end);
        }
        self.units.clear();
        self.used = 0;
    }
}
