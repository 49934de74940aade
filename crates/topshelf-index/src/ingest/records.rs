//! JSONL and CSV: a document for each record, read one after the other whatever the file's size.
//!
//! A record's id is `id` or `_id`, otherwise the file's id, `#` and the record's line; its title
//! is `title`; its text is the field named in the options, otherwise the first of
//! [`TEXT_FIELDS`]. All other fields are metadata. A JSON string by itself is a text, and a CSV
//! without a text column becomes lines of `column: value`.
//!
//! A record that cannot be used is told with its line, and the next ones are read.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use serde_json::Value;
use topshelf_core::Metadata;

use super::skip::{SkipReason, Skipped, Warning, WarningReason};
use super::text::{Style, blocks};
use super::{Document, IngestOptions, SourceFile, decode};

/// Where a record's text is looked for.
pub const TEXT_FIELDS: [&str; 5] = ["text", "content", "body", "passage", "contents"];

/// Where a record's id is looked for.
const ID_FIELDS: [&str; 2] = ["_id", "id"];

/// How far the CSV reader reads ahead of the record that it answers, at most, in bytes.
const READ_AHEAD: u64 = 1 << 16;

type Documents<'a> = Box<dyn Iterator<Item = Result<Document, Skipped>> + 'a>;

fn failed<'a>(skipped: Skipped) -> Documents<'a> {
    Box::new(std::iter::once(Err(skipped)))
}

pub(super) fn jsonl<'a>(source: &'a SourceFile, options: &'a IngestOptions) -> Documents<'a> {
    match decode::open(&source.path) {
        Ok((reader, told)) => Box::new(Lines {
            reader: BufReader::new(reader),
            line: 0,
            maker: Maker { source, options, told },
        }),
        Err(error) => failed(Skipped::from_io(&source.path, &error)),
    }
}

/// The lines of a JSONL file.
struct Lines<'a> {
    reader: BufReader<Box<dyn Read>>,
    line: usize,
    maker: Maker<'a>,
}

impl Iterator for Lines<'_> {
    type Item = Result<Document, Skipped>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let limit = self.maker.options.max_record_bytes;
            let mut bytes = Vec::new();
            let read = self.reader.by_ref().take(limit as u64 + 1).read_until(b'\n', &mut bytes);
            self.line += 1;
            match read {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(Err(Skipped::from_io(&self.maker.source.path, &error))),
            }
            if bytes.len() > limit {
                let skipped = self.maker.bad(self.line, too_long(limit));
                // The rest of the line, unread into memory.
                while !bytes.ends_with(b"\n") {
                    bytes.clear();
                    match self.reader.by_ref().take(1 << 20).read_until(b'\n', &mut bytes) {
                        Ok(0) | Err(_) => break,
                        Ok(_) => {}
                    }
                }
                return Some(Err(skipped));
            }
            if !bytes.trim_ascii().is_empty() {
                return Some(self.maker.of_json(self.line, &bytes));
            }
        }
    }
}

fn too_long(limit: usize) -> String {
    format!("it is longer than {} MB", limit as f64 / 1e6)
}

/// Makes documents of records.
struct Maker<'a> {
    source: &'a SourceFile,
    options: &'a IngestOptions,
    /// What is to be told of the file's encoding, with its first document.
    told: Option<WarningReason>,
}

impl Maker<'_> {
    fn bad(&self, line: usize, reason: impl Into<String>) -> Skipped {
        Skipped::record(&self.source.path, line, reason)
    }

    fn of_json(&mut self, line: usize, bytes: &[u8]) -> Result<Document, Skipped> {
        let text = String::from_utf8_lossy(bytes);
        let document = match serde_json::from_str(text.trim()) {
            Ok(Value::Object(fields)) => self.of_fields(line, fields, Style::Prose)?,
            Ok(Value::String(text)) if !text.trim().is_empty() => {
                self.document(line, text, Style::Prose)
            }
            Ok(Value::String(_)) => return Err(self.bad(line, "its text is empty")),
            Ok(_) => return Err(self.bad(line, "it is neither an object nor a string")),
            Err(error) => return Err(self.bad(line, format!("it is not JSON: {error}"))),
        };
        Ok(self.telling(line, document, decode::broken(bytes)))
    }

    fn document(&self, line: usize, text: String, style: Style) -> Document {
        Document {
            id: format!("{}#{line}", self.source.id),
            title: String::new(),
            metadata: Metadata::new(),
            blocks: blocks(&text, style),
            text,
            warnings: Vec::new(),
        }
    }

    /// The document that a record's fields make.
    fn of_fields(
        &self,
        line: usize,
        mut fields: Metadata,
        style: Style,
    ) -> Result<Document, Skipped> {
        let named = self.options.text_field.as_deref();
        let key = match named {
            Some(name) => Some(name),
            None => {
                TEXT_FIELDS.into_iter().find(|name| fields.get(*name).is_some_and(Value::is_string))
            }
        };
        let Some(Value::String(text)) = key.and_then(|key| fields.remove(key)) else {
            let fields = named.map_or_else(|| TEXT_FIELDS.join(", "), str::to_owned);
            let (path, line) = (self.source.path.clone(), Some(line));
            return Err(Skipped { path, line, reason: SkipReason::NoText { fields } });
        };
        let mut document = self.document(line, text, style);
        match ID_FIELDS.into_iter().find_map(|name| fields.remove(name)) {
            Some(Value::String(id)) if !id.is_empty() => document.id = id,
            Some(Value::Number(id)) => document.id = id.to_string(),
            _ => {}
        }
        if let Some(Value::String(title)) = fields.get_mut("title") {
            document.title = std::mem::take(title);
            fields.remove("title");
        }
        if document.text.trim().is_empty() && document.title.trim().is_empty() {
            return Err(self.bad(line, "its text is empty"));
        }
        document.metadata = fields;
        Ok(document)
    }

    /// The document with what is to be told of its bytes and, once, of the file's encoding.
    fn telling(
        &mut self,
        line: usize,
        mut document: Document,
        lossy: Option<WarningReason>,
    ) -> Document {
        let path = &self.source.path;
        document.warnings.extend(self.told.take().map(|reason| Warning::new(path, reason)));
        document
            .warnings
            .extend(lossy.map(|reason| Warning { line: Some(line), ..Warning::new(path, reason) }));
        document
    }
}

pub(super) fn csv<'a>(source: &'a SourceFile, options: &'a IngestOptions) -> Documents<'a> {
    let (reader, told) = match decode::open(&source.path) {
        Ok(opened) => opened,
        Err(error) => return failed(Skipped::from_io(&source.path, &error)),
    };
    let limit = options.max_record_bytes as u64 + READ_AHEAD;
    let allowed = Rc::new(Cell::new(limit));
    let mut bounded = BufReader::new(Bounded { reader, read: 0, allowed: Rc::clone(&allowed) });
    let delimiter = match bounded.fill_buf() {
        Ok(head) => delimiter(source, head),
        Err(error) => return failed(Skipped::from_io(&source.path, &error)),
    };
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(bounded);
    let maker = Maker { source, options, told };
    let header = match reader.byte_headers() {
        Ok(header) => header,
        Err(error) => return failed(maker.bad(1, reason(&error, options.max_record_bytes))),
    };
    let columns: Vec<String> =
        header.iter().map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect();
    let text_column = match options.text_field.as_deref() {
        Some(name) if !columns.iter().any(|column| column == name) => {
            let columns = columns.join(", ");
            return failed(maker.bad(1, format!("there is no column {name}, only {columns}")));
        }
        Some(name) => Some(name),
        None => TEXT_FIELDS.into_iter().find(|name| columns.iter().any(|column| column == name)),
    };
    Box::new(Rows { reader, record: csv::ByteRecord::new(), columns, text_column, allowed, maker })
}

/// What separates the columns: tabs in `.tsv`; elsewhere what the header has, a comma before a
/// semicolon (which spreadsheets write where the comma is the decimal point) before a tab.
fn delimiter(source: &SourceFile, head: &[u8]) -> u8 {
    let is_tsv =
        source.path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tsv"));
    let header = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let candidates: &[u8] = if is_tsv { b"\t" } else { b",;\t" };
    candidates.iter().copied().find(|byte| header.contains(byte)).unwrap_or(candidates[0])
}

/// The records of a CSV file.
struct Rows<'a> {
    reader: csv::Reader<BufReader<Bounded>>,
    record: csv::ByteRecord,
    columns: Vec<String>,
    /// The column of the text; all columns are if `None`.
    text_column: Option<&'a str>,
    allowed: Rc<Cell<u64>>,
    maker: Maker<'a>,
}

impl Iterator for Rows<'_> {
    type Item = Result<Document, Skipped>;

    fn next(&mut self) -> Option<Self::Item> {
        let limit = self.maker.options.max_record_bytes;
        let at = self.reader.position().byte();
        self.allowed.set(at + limit as u64 + READ_AHEAD);
        match self.reader.read_byte_record(&mut self.record) {
            Ok(false) => None,
            Ok(true) => {
                let line = self.record.position().map_or(0, |at| at.line() as usize);
                if self.record.as_slice().len() > limit {
                    return Some(Err(self.maker.bad(line, too_long(limit))));
                }
                Some(self.document(line))
            }
            Err(error) => {
                let at = error.position().or(self.record.position());
                let line = at.unwrap_or(self.reader.position()).line() as usize;
                Some(Err(self.maker.bad(line, reason(&error, limit))))
            }
        }
    }
}

impl Rows<'_> {
    fn document(&mut self, line: usize) -> Result<Document, Skipped> {
        let mut fields = Metadata::new();
        let mut lines = String::new();
        let mut lossy = None;
        for (name, value) in self.columns.iter().zip(&self.record) {
            let text = String::from_utf8_lossy(value);
            lossy = lossy.or_else(|| decode::broken(value));
            let is_own = name == "title" || ID_FIELDS.contains(&name.as_str());
            if self.text_column.is_none() && !is_own && !text.trim().is_empty() {
                lines.extend([name.as_str(), ": ", &text, "\n"]);
            }
            let is_text = is_own || self.text_column == Some(name);
            let value = if is_text { text.into_owned().into() } else { typed(&text) };
            fields.insert(name.clone(), value);
        }
        let style = if self.text_column.is_some() {
            Style::Prose
        } else {
            fields.insert(TEXT_FIELDS[0].to_owned(), lines.trim_end().into());
            Style::Lines
        };
        let document = self.maker.of_fields(line, fields, style)?;
        Ok(self.maker.telling(line, document, lossy))
    }
}

/// What is wrong with a record, as far as the reader knows.
fn reason(error: &csv::Error, limit: usize) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("it has {len} fields where the header has {expected_len}")
        }
        csv::ErrorKind::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            let too_long = too_long(limit);
            format!("{too_long}, as if a quotation mark were left open; nothing after it was read")
        }
        _ => error.to_string(),
    }
}

/// A reader that stops with an error beyond the bytes allowed, so that a quotation mark left open
/// does not take the rest of a large file into memory.
struct Bounded {
    reader: Box<dyn Read>,
    read: u64,
    allowed: Rc<Cell<u64>>,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read >= self.allowed.get() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let length = self.reader.read(buffer)?;
        self.read += length as u64;
        Ok(length)
    }
}

/// A cell as the number or truth value that it is written as. What a number would not be written
/// back as, such as a postal code with a leading zero, is text.
fn typed(cell: &str) -> Value {
    let text = cell.trim();
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_padded = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
    if digits.starts_with(|c: char| c.is_ascii_digit()) && !is_padded {
        if let Ok(number) = text.parse::<i64>() {
            return number.into();
        }
        // More digits than a floating-point number holds are an identifier.
        let is_exact = digits.bytes().filter(u8::is_ascii_digit).count() <= 17;
        if let Ok(number) = text.parse::<f64>()
            && number.is_finite()
            && is_exact
        {
            return number.into();
        }
    }
    match text {
        "true" | "TRUE" | "True" => Value::Bool(true),
        "false" | "FALSE" | "False" => Value::Bool(false),
        _ => cell.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::{Format, SkipReason, documents};

    fn read(
        name: &str,
        content: impl AsRef<[u8]>,
        options: &IngestOptions,
    ) -> Vec<Result<Document, Skipped>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let format = Format::of(&path).unwrap().unwrap();
        let id = name.to_owned();
        let source = SourceFile { path, id, bytes: 0, modified: None, format };
        documents(&source, options).collect()
    }

    fn reasons(read: &[Result<Document, Skipped>]) -> Vec<(Option<usize>, String)> {
        let skipped = read.iter().filter_map(|read| read.as_ref().err());
        skipped
            .map(|skipped| match &skipped.reason {
                SkipReason::BadRecord { reason } => (skipped.line, reason.clone()),
                SkipReason::NoText { .. } => (skipped.line, skipped.reason.to_string()),
                other => (skipped.line, other.to_string()),
            })
            .collect()
    }

    #[test]
    fn json_lines_good_and_bad() {
        let content =
            b"\xef\xbb\xbf{\"_id\": \"a\", \"title\": \"T\", \"text\": \"x\", \"year\": 1}\n\n\
            \"a bare text\"\n{\"id\": 7, \"body\": \"b\"}\n{\"text\": \"\"}\n[1]\n{\"text\": 5}\n\
            {\"text\": \n{\"text\": \"caf\xc3\xa9 \xff\"}\n{\"title\": \"only\", \"text\": \"\"}";
        let read = read("r.jsonl", content, &IngestOptions::default());
        let good: Vec<&Document> = read.iter().flatten().collect();
        let brief: Vec<(&str, &str, &str)> =
            good.iter().map(|d| (d.id.as_str(), d.title.as_str(), d.text.as_str())).collect();
        assert_eq!(
            brief,
            [
                ("a", "T", "x"),
                ("r.jsonl#3", "", "a bare text"),
                ("7", "", "b"),
                ("r.jsonl#9", "", "café \u{fffd}"),
                ("r.jsonl#10", "only", ""),
            ]
        );
        assert_eq!(good[0].metadata, serde_json::from_str("{\"year\": 1}").unwrap());
        let told = good[3].warnings[0].to_string();
        assert!(told.contains("line 9: it is broken UTF-8: 1 places from byte 16"), "{told}");
        let lines: Vec<Option<usize>> = reasons(&read).iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [Some(5), Some(6), Some(7), Some(8)]);
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over() {
        let options = IngestOptions { max_record_bytes: 20, ..IngestOptions::default() };
        let content = format!("\"short\"\n\"{}\"\n\"after\"\n", "x".repeat(5000));
        let read = read("r.jsonl", content, &options);
        let texts: Vec<&str> = read.iter().flatten().map(|d| d.text.as_str()).collect();
        assert_eq!(texts, ["short", "after"]);
        assert_eq!(reasons(&read)[0].0, Some(2));
    }

    #[test]
    fn columns_are_fields() {
        let content =
            "id,title,text,year,open,code\n1,T,\"one, two\",2024,true,007\n2,U,x,1.5,no,1\n";
        let read = read("r.csv", content, &IngestOptions::default());
        let first = read[0].as_ref().unwrap();
        assert_eq!((first.id.as_str(), first.title.as_str()), ("1", "T"));
        assert_eq!(first.text, "one, two");
        let metadata = "{\"year\": 2024, \"open\": true, \"code\": \"007\"}";
        assert_eq!(first.metadata, serde_json::from_str(metadata).unwrap());
        assert_eq!(read[1].as_ref().unwrap().metadata["year"], 1.5);
    }

    #[test]
    fn columns_without_a_text_are_lines_of_it() {
        let options = IngestOptions::default();
        for (name, content) in
            [("r.csv", "name;town\nAda;London\n"), ("r.tsv", "name\ttown\nAda\tLondon\n")]
        {
            let read = read(name, content, &options);
            let document = read[0].as_ref().unwrap();
            assert_eq!(document.text, "name: Ada\ntown: London");
            assert_eq!(document.id, format!("{name}#2"));
            assert_eq!(document.metadata["town"], "London");
        }
        let options = IngestOptions { text_field: Some("story".into()), ..options };
        let told = reasons(&read("r.csv", "name,town\nAda,London\n", &options));
        assert_eq!(told, [(Some(1), "there is no column story, only name, town".to_owned())]);
    }

    #[test]
    fn bad_records_of_csv_are_told() {
        let rows = read("r.csv", "id,text\n1,a\n2\n3,c\n", &IngestOptions::default());
        assert_eq!(rows.iter().flatten().count(), 2);
        let told = "it has 1 fields where the header has 2".to_owned();
        assert_eq!(reasons(&rows), [(Some(3), told)]);
        let options = IngestOptions { max_record_bytes: 1000, ..IngestOptions::default() };
        let open = format!("id,text\n1,a\n2,\"{}\n", "left open\n".repeat(50_000));
        let rows = read("r.csv", open, &options);
        assert_eq!(rows.iter().flatten().count(), 1);
        let told = reasons(&rows);
        assert!(told.len() == 1 && told[0].1.contains("quotation mark"), "{told:?}");
    }

    #[test]
    fn spreadsheets_in_legacy_encodings() {
        let (content, ..) = encoding_rs::WINDOWS_1252.encode("id;text\n1;Größe\n2;café\n");
        let read = read("r.csv", content, &IngestOptions::default());
        let texts: Vec<&str> = read.iter().flatten().map(|d| d.text.as_str()).collect();
        assert_eq!(texts, ["Größe", "café"]);
        let warnings = read.iter().flatten().flat_map(|d| &d.warnings);
        assert_eq!(warnings.count(), 1);
    }
}
