//! Which token of a passage answered which token of the query: what `search --explain` shows of late
//! interaction, in colour on a terminal.

use std::io::IsTerminal;
use std::ops::Range;

use topshelf::{Passage, TokenMatch};

/// The colours of the query's tokens, in their order, as ANSI has them: green, yellow, blue, magenta,
/// cyan, red, each bold.
const COLOURS: [u8; 6] = [32, 33, 34, 35, 36, 31];

/// A passage's matches with the query's own words; markers and padding are left out.
pub(super) struct Matches<'a> {
    passage: &'a Passage,
    words: Vec<&'a TokenMatch>,
}

impl<'a> Matches<'a> {
    pub(super) fn new(passage: &'a Passage, all: &'a [TokenMatch]) -> Self {
        // [CLS], <mask>, [unused0]: no word of a vocabulary has both brackets.
        let is_marker = |token: &str| {
            (token.starts_with('[') && token.ends_with(']') && token.len() > 2)
                || (token.starts_with('<') && token.ends_with('>') && token.len() > 2)
        };
        let words = all.iter().filter(|found| !is_marker(&found.query)).collect();
        Self { passage, words }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// One line: `fleas → flea 0.98, live → lifespan 0.93`.
    pub(super) fn line(&self, colour: bool) -> String {
        let pair = |(place, found): (usize, &&TokenMatch)| {
            let TokenMatch { query, passage, similarity, .. } = found;
            paint(&format!("{query} → {passage} {similarity:.2}"), place, colour)
        };
        self.words.iter().enumerate().map(pair).collect::<Vec<_>>().join(", ")
    }

    /// The beginning of the passage's text, in one line, its matches in the colours of their words.
    pub(super) fn text(&self, width: usize, colour: bool) -> String {
        let text = &self.passage.text;
        let end = text.char_indices().nth(width).map_or(text.len(), |(end, _)| end);
        let (mut shown, mut next) = (String::new(), 0);
        for (span, place) in self.spans() {
            if span.start < next || span.end > end {
                continue;
            }
            shown.push_str(&text[next..span.start]);
            shown.push_str(&paint(&text[span.clone()], place, colour));
            next = span.end;
        }
        shown.push_str(&text[next..end]);
        let line = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        if end < text.len() { line + "…" } else { line }
    }

    /// Parts of the passage's text in their order, each with the place of its word.
    fn spans(&self) -> Vec<(Range<usize>, usize)> {
        // The model reads what stands above the passage before it.
        let above = self.passage.model_text().len() - self.passage.text.len();
        let of_word = |(place, found): (usize, &&TokenMatch)| {
            let start = found.span.start.checked_sub(above)?;
            let span = start..found.span.end - above;
            let whole = self.passage.text.get(span.clone()).is_some_and(|part| !part.is_empty());
            whole.then_some((span, place))
        };
        let mut spans: Vec<_> = self.words.iter().enumerate().filter_map(of_word).collect();
        spans.sort_by_key(|(span, place)| (span.start, *place));
        spans
    }
}

/// Whether what is printed is for eyes that see colours (<https://no-color.org>).
pub(super) fn in_colour() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal() && !unwanted
}

fn paint(text: &str, place: usize, colour: bool) -> String {
    if !colour {
        return text.to_owned();
    }
    format!("\x1b[1;{}m{text}\x1b[0m", COLOURS[place % COLOURS.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(query: &str, passage: &str, span: Range<usize>) -> TokenMatch {
        TokenMatch { query: query.into(), passage: passage.into(), span, similarity: 0.97 }
    }

    #[test]
    fn words_are_painted_where_they_stand_below_the_title() {
        let passage = Passage::standalone("p", "On fleas", "A flea lives, as fleas do.");
        let above = "On fleas\n".len();
        let all = [
            found("[CLS]", "[CLS]", 0..0),
            found("fleas", "flea", above + 2..above + 6),
            found("live", "lives", above + 7..above + 12),
            found("on", "on", 0..2),
            found("[MASK]", "flea", above + 2..above + 6),
        ];
        let matches = Matches::new(&passage, &all);
        assert_eq!(matches.text(300, false), passage.text);
        assert_eq!(
            matches.text(300, true),
            "A \x1b[1;32mflea\x1b[0m \x1b[1;33mlives\x1b[0m, as fleas do."
        );
        assert_eq!(matches.text(9, true), "A \x1b[1;32mflea\x1b[0m li…");
        assert_eq!(matches.line(false), "fleas → flea 0.97, live → lives 0.97, on → on 0.97");
        assert!(Matches::new(&passage, &all[..1]).is_empty());
    }
}
