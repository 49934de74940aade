//! What kind of file it is, by its name and its first bytes.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The kinds of files that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Markdown, with YAML or TOML front matter.
    Markdown,
    /// HTML.
    Html,
    /// Plain text, source code, configuration.
    Text,
    /// PDF with text in it.
    Pdf,
    /// One JSON value a line.
    Jsonl,
    /// Comma- or tab-separated values with a header.
    Csv,
}

/// Bytes looked at.
const HEAD: usize = 8192;

/// More control characters than one in this many, and it is no text.
const CONTROL_SHARE: usize = 20;

/// How files begin that are no text even where they have no control characters: pictures,
/// archives, compressed files, programs. None of it is how a text could begin.
const MAGIC: [&[u8]; 8] = [
    b"\x89PNG",
    b"\xff\xd8\xff", // JPEG
    b"PK\x03\x04",   // zip, and all office documents
    b"\x1f\x8b",     // gzip
    b"\xfd7zXZ",
    b"\x28\xb5\x2f\xfd", // Zstandard
    b"7z\xbc\xaf",
    b"\x7fELF",
];

impl Format {
    /// The format of a file; `None` if it is binary.
    ///
    /// # Errors
    ///
    /// What the system answers when its beginning cannot be read.
    pub(crate) fn of(path: &Path) -> std::io::Result<Option<Self>> {
        let mut head = Vec::with_capacity(HEAD);
        File::open(path)?.take(HEAD as u64).read_to_end(&mut head)?;
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        // What is named so but damaged at its start the reader will tell.
        if head.starts_with(b"%PDF-") || extension == "pdf" {
            return Ok(Some(Self::Pdf));
        }
        if is_binary(&head) {
            return Ok(None);
        }
        Ok(Some(match extension.as_str() {
            "md" | "markdown" | "mdown" | "mkd" | "mdx" => Self::Markdown,
            "html" | "htm" | "xhtml" => Self::Html,
            "jsonl" | "ndjson" => Self::Jsonl,
            "csv" | "tsv" => Self::Csv,
            "txt" | "rst" | "adoc" | "org" => Self::Text,
            "json" | "" if looks_like_jsonl(&head) => Self::Jsonl,
            _ if looks_like_html(&head) => Self::Html,
            // README and CHANGELOG without an extension are Markdown by custom.
            "" if looks_like_markdown(&head) => Self::Markdown,
            _ => Self::Text,
        }))
    }
}

fn is_binary(head: &[u8]) -> bool {
    if MAGIC.iter().any(|magic| head.starts_with(magic)) {
        return true;
    }
    if head.starts_with(&[0xFF, 0xFE]) || head.starts_with(&[0xFE, 0xFF]) {
        return false; // UTF-16 with its mark
    }
    // Escape is in Japanese of the encoding ISO-2022-JP and in coloured logs.
    let control =
        |byte: &&u8| **byte < 0x20 && !matches!(**byte, b'\t' | b'\n' | b'\r' | 0x0C | 0x1B);
    head.contains(&0) || head.iter().filter(control).count() * CONTROL_SHARE > head.len()
}

fn looks_like_html(head: &[u8]) -> bool {
    let text = String::from_utf8_lossy(head).trim_start().to_lowercase();
    text.starts_with("<!doctype html") || text.starts_with("<html")
}

fn looks_like_markdown(head: &[u8]) -> bool {
    let text = String::from_utf8_lossy(head);
    text.starts_with("# ") || text.contains("\n# ") || text.contains("\n## ")
}

/// Whether the first line is a JSON object by itself and another one begins after it.
fn looks_like_jsonl(head: &[u8]) -> bool {
    let mut lines = head.split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    first.starts_with(b"{")
        && lines.next().is_some_and(|second| second.starts_with(b"{"))
        && serde_json::from_slice::<serde::de::IgnoredAny>(first).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, content: &[u8]) -> Option<Format> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        Format::of(&path).unwrap()
    }

    #[test]
    fn by_name_and_by_content() {
        assert_eq!(of("a.md", b"x"), Some(Format::Markdown));
        assert_eq!(of("a.rs", b"fn main() {}"), Some(Format::Text));
        assert_eq!(of("README", b"# Title\n"), Some(Format::Markdown));
        assert_eq!(of("page", b"<!DOCTYPE html><p>x"), Some(Format::Html));
        assert_eq!(of("a.txt", b"%PDF-1.4\n\x00"), Some(Format::Pdf));
        assert_eq!(of("a.pdf", b"\x00\x00"), Some(Format::Pdf));
        assert_eq!(of("a.tsv", b"a\tb\n"), Some(Format::Csv));
        assert_eq!(of("a.json", b"{\"a\": 1}\n{\"a\": 2}\n"), Some(Format::Jsonl));
        assert_eq!(of("a.json", b"{\n\"a\": 1}\n"), Some(Format::Text));
        assert_eq!(of("a.md", b"\x7fELF\x00\x00"), None);
        assert_eq!(of("a.bin", &[1, 2, 3, 4, 5, 6]), None);
        assert_eq!(of("a.txt", b"\x28\xb5\x2f\xfd$ text"), None);
        assert_eq!(of("utf16.txt", b"\xff\xfea\x00b\x00"), Some(Format::Text));
        assert_eq!(of("empty", b""), Some(Format::Text));
    }
}
