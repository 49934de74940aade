//! Tables for people: columns apart by two spaces, numbers to the right, no lines.

use comfy_table::{CellAlignment, Table, presets};

/// A table with the given headers; the columns from `numbers_from` on are numbers.
pub(crate) fn new<const N: usize>(headers: [&str; N], numbers_from: usize) -> Table {
    dynamic(headers.iter().map(ToString::to_string).collect(), numbers_from)
}

/// [`new`] where the number of columns is not known beforehand.
pub(crate) fn dynamic(headers: Vec<String>, numbers_from: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(headers);
    for (n, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if n >= numbers_from {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Bytes as a person reads them.
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// A text in one line of at most `width` columns of a terminal.
pub(crate) fn shorten(text: &str, width: usize) -> String {
    let line = plain(text);
    if columns(&line) <= width {
        return line;
    }
    let (mut short, mut used) = (String::new(), 0);
    for c in line.chars() {
        used += columns_of(c);
        if used >= width {
            break;
        }
        short.push(c);
    }
    short.push('…');
    short
}

/// The end of a text in one line of at most `width` columns: for paths, whose end says most.
pub(crate) fn shorten_start(text: &str, width: usize) -> String {
    let line = plain(text);
    let mut left = columns(&line);
    if left <= width {
        return line;
    }
    let end = line.chars().skip_while(|c| {
        let drop = left >= width;
        left -= if drop { columns_of(*c) } else { 0 };
        drop
    });
    std::iter::once('…').chain(end).collect()
}

/// A text in one line without what would do something to a terminal: control characters, those that
/// turn the direction of writing, and those that cannot be seen.
pub(crate) fn plain(text: &str) -> String {
    let words = text
        .split_whitespace()
        .map(|word| word.chars().filter(|c| is_text(*c)).collect::<String>());
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// A text in lines of at most `width` columns. Words longer than that are cut.
pub(crate) fn wrap(text: &str, width: usize) -> String {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in plain(text).split(' ') {
        let word = shorten(word, width);
        if !line.is_empty() && columns(&line) + 1 + columns(&word) > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&word);
    }
    lines.push(line);
    lines.join("\n")
}

/// The columns that a text takes on a terminal.
pub(crate) fn columns(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

/// Whether a character shows something and does nothing.
pub(crate) fn is_text(c: char) -> bool {
    !c.is_control() && !is_invisible(c)
}

/// Marks, joiners, tags and controls of the direction of writing (Unicode's general category Cf and
/// what is like it).
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{AD}' | '\u{61C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}'
        | '\u{E0000}'..='\u{E0FFF}')
}

/// The columns of one character: 2 for East Asian wide characters and emoji, 0 for marks that stand
/// on the character before (the ranges of Unicode Standard Annex 11, in coarse blocks).
fn columns_of(c: char) -> usize {
    match u32::from(c) {
        0x300..=0x36F
        | 0x483..=0x489
        | 0x591..=0x5BD
        | 0x610..=0x61A
        | 0x64B..=0x65F
        | 0x1AB0..=0x1AFF
        | 0x1DC0..=0x1DFF
        | 0x20D0..=0x20FF
        | 0xFE00..=0xFE0F
        | 0xFE20..=0xFE2F => 0,
        0x1100..=0x115F
        | 0x2E80..=0x303E
        | 0x3041..=0xA4CF
        | 0xA960..=0xA97F
        | 0xAC00..=0xD7A3
        | 0xF900..=0xFAFF
        | 0xFE30..=0xFE6F
        | 0xFF00..=0xFF60
        | 0xFFE0..=0xFFE6
        | 0x1F300..=0x1F64F
        | 0x1F680..=0x1F6FF
        | 0x1F900..=0x1F9FF
        | 0x1FA70..=0x1FAFF
        | 0x20000..=0x3FFFD => 2,
        _ => 1,
    }
}

/// The table as text, without the spaces that fill its last column.
pub(crate) fn render(table: &Table) -> String {
    let text = table.to_string();
    let lines = text.lines().map(str::trim_end).skip_while(|line| line.is_empty());
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_to_the_columns_of_a_terminal() {
        assert_eq!(shorten("one  two\nthree", 20), "one two three");
        assert_eq!(shorten("one two three", 8), "one two…");
        assert_eq!(shorten("東京都庁舎", 10), "東京都庁舎");
        assert_eq!(shorten("東京都庁舎", 6), "東京…");
        assert_eq!(shorten("cafe\u{301}s", 5), "cafe\u{301}s");
        assert_eq!(shorten_start("a/long/path/guide.md#3", 12), "…/guide.md#3");
        assert_eq!(shorten_start("guide.md#3", 12), "guide.md#3");
        let word = "w".repeat(1000);
        assert_eq!(columns(&shorten(&word, 40)), 40);
        assert_eq!(columns(&shorten_start(&word, 40)), 40);
    }

    #[test]
    fn a_text_is_wrapped_between_words() {
        assert_eq!(wrap("one two three four", 9), "one two\nthree\nfour");
        assert_eq!(wrap("東京 都 庁舎", 7), "東京 都\n庁舎");
        assert_eq!(wrap("", 9), "");
        assert_eq!(wrap("a longestword b", 5), "a\nlong…\nb");
    }

    #[test]
    fn nothing_that_a_document_holds_reaches_the_terminal_but_text() {
        let hostile = "a\u{1b}[31mb\u{7}\u{9b}2J\u{202e}c\u{200b}\u{feff} \u{0}\u{8} d\r\ne";
        assert_eq!(plain(hostile), "a[31mb2Jc d e");
    }
}
