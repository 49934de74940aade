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

/// The first `width` characters of a text in one line.
pub(crate) fn shorten(text: &str, width: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= width {
        return line;
    }
    let mut short: String = line.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// The table as text, without the spaces that fill its last column.
pub(crate) fn render(table: &Table) -> String {
    let text = table.to_string();
    let lines = text.lines().map(str::trim_end).skip_while(|line| line.is_empty());
    lines.collect::<Vec<_>>().join("\n")
}
