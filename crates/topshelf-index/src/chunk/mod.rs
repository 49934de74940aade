//! Documents to passages: [`chunk()`].
//!
//! A passage is a contiguous piece of one section. Blocks (paragraphs, list items, tables, code)
//! are packed whole up to the token budget; a block beyond the budget is cut between sentences or
//! lines, a sentence between words, a word between graphemes. Neighbouring passages of one section
//! share whole sentences up to the overlap. Small sections under one parent are joined, their
//! headings then standing in the text, so that a changelog's two-line entries do not become
//! passages each.
//!
//! | for | see |
//! | --- | --- |
//! | how long passages are, what an index remembers of it | [`ChunkOptions`], [`Chunking`] |
//! | which blocks belong together | `section` |
//! | cutting what is too long | `cut` |
//! | filling passages up to the budget | `pack` |
//!
//! **Budget.** It holds for what a model reads, the heading trail and the text
//! ([`Passage::model_text`]). Of a trail beyond a quarter of the budget the outer headings are left
//! out; whatever the title, half of the budget is the text's.
//!
//! **Counting.** Pieces are counted once and added, with the white space between them, so that the
//! time is linear in the document. The sum is at least the count of the whole for every tokenizer
//! that cuts at white space and punctuation first (WordPiece, Unigram, byte-level BPE). What is
//! longer than 16 bytes for each token of the budget is beyond it without being counted, so no
//! tokenizer is ever given a file of 50 MB.

mod cut;
mod options;
mod pack;
mod section;

use topshelf_core::Passage;

use crate::ingest::{BlockKind, Document};
use cut::Cutter;
use pack::Packer;
use section::{Piece, Section};

pub use options::{ChunkOptions, Chunking};

/// A token is taken to have at most this many bytes: a vocabulary may count a blob of any length
/// as one unknown token.
const BYTES_A_TOKEN: usize = 16;

/// Cuts a document into passages, in the order of the text. `count_tokens` counts as the model
/// that will read them does, without special tokens. Options that no index takes give passages all
/// the same: of one token at least, with an overlap of half of them at most.
///
/// Every passage's text is exactly the bytes of its range. A document of nothing but headings is
/// one passage of them (more if they are beyond the budget), one of nothing but a title is one
/// passage without text, and one of neither has none. A heading with nothing below it in a document
/// that has text is in no passage.
///
/// ```
/// use topshelf_index::chunk::{ChunkOptions, chunk};
/// use topshelf_index::ingest::{IngestOptions, documents, walk};
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("fleas.md");
/// std::fs::write(&path, "# Fleas\n\n## Life\n\nA flea lives for a year.\n")?;
/// let options = IngestOptions::default();
/// for source in walk(&[path], &options).into_iter().flatten() {
///     for document in documents(&source, &options).flatten() {
///         let words = |text: &str| text.split_whitespace().count();
///         let passages = chunk(&document, &ChunkOptions::default(), &words);
///         assert_eq!(passages[0].trail(), "Fleas > Life");
///         assert_eq!(passages[0].text, "A flea lives for a year.");
///     }
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn chunk(
    document: &Document,
    options: &ChunkOptions,
    count_tokens: &dyn Fn(&str) -> usize,
) -> Vec<Passage> {
    let budget = options.max_tokens.max(1);
    let overlap = options.overlap_tokens.min(budget / 2);
    let cutter = Cutter::new(&document.text, count_tokens, budget);
    let mut passages = Vec::new();
    for section in sections(document, &cutter) {
        let (headings, trail_tokens) = fitted(&document.title, section.trail, budget, count_tokens);
        let room = budget.saturating_sub(trail_tokens).max(budget.div_ceil(2));
        let mut packer = Packer::new(&cutter, room, overlap);
        for piece in &section.pieces {
            cutter.units(piece, room, &mut |unit| packer.push(unit));
        }
        for range in packer.finish() {
            passages.push(Passage {
                id: format!("{}#{}", document.id, passages.len()),
                document: document.id.clone(),
                title: document.title.clone(),
                headings: headings.clone(),
                text: document.text[range.clone()].to_owned(),
                range,
                metadata: document.metadata.clone(),
            });
        }
    }
    if passages.is_empty() && !document.title.trim().is_empty() {
        // A record that has only a title is found by it.
        let mut passage = Passage::standalone(format!("{}#0", document.id), &document.title, "");
        passage.document.clone_from(&document.id);
        passage.metadata.clone_from(&document.metadata);
        passages.push(passage);
    }
    passages
}

/// The sections with text, small ones joined; all headings as one section where there is no text.
fn sections(document: &Document, cutter: &Cutter<'_>) -> Vec<Section> {
    let sections = section::sections(document, cutter);
    match (document.blocks.first(), document.blocks.last()) {
        (Some(first), Some(last)) if sections.is_empty() => {
            let range = first.range.start..last.range.end;
            vec![Section::of(Piece { range, by_lines: true })]
        }
        _ => section::joined(sections, cutter),
    }
}

/// As many of the innermost headings as fit into a quarter of the budget together with the title,
/// at least one, and the tokens of that trail.
fn fitted(
    title: &str,
    mut headings: Vec<String>,
    budget: usize,
    count: &dyn Fn(&str) -> usize,
) -> (Vec<String>, usize) {
    let mut probe = Passage::standalone("", title, "");
    loop {
        probe.headings = headings;
        let line = probe.trail();
        let tokens = if line.is_empty() { 0 } else { count(&format!("{line}\n")) };
        headings = std::mem::take(&mut probe.headings);
        if tokens <= budget / 4 || headings.len() <= 1 {
            return (headings, tokens);
        }
        headings.remove(0);
    }
}

#[cfg(test)]
mod tests;
