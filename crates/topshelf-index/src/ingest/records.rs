//! JSONL and CSV: a document for each record.
//!
//! A record's id is `id` or `_id`, otherwise the file's id, `#` and the record's line; its title
//! is `title`; its text is the field named in the options, otherwise the first of
//! [`TEXT_FIELDS`]. All other fields are metadata. A JSON string by itself is a text, and a CSV
//! without a text column becomes lines of `column: value`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use serde_json::Value;
use topshelf_core::Metadata;

use super::skip::Skipped;
use super::text::blocks;
use super::{Document, IngestOptions, SourceFile};

/// Where a record's text is looked for.
pub const TEXT_FIELDS: [&str; 5] = ["text", "content", "body", "passage", "contents"];

type Documents<'a> = Box<dyn Iterator<Item = Result<Document, Skipped>> + 'a>;

pub(super) fn jsonl<'a>(source: &'a SourceFile, options: &'a IngestOptions) -> Documents<'a> {
    let file = match File::open(&source.path) {
        Ok(file) => file,
        Err(error) => {
            return Box::new(std::iter::once(Err(Skipped::from_io(&source.path, &error))));
        }
    };
    Box::new(Lines { reader: BufReader::new(file), line: 0, source, options })
}

/// The lines of a JSONL file; a bad one is told and the next ones are read.
struct Lines<'a> {
    reader: BufReader<File>,
    line: usize,
    source: &'a SourceFile,
    options: &'a IngestOptions,
}

impl Iterator for Lines<'_> {
    type Item = Result<Document, Skipped>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let limit = self.options.max_record_bytes;
            let mut bytes = Vec::new();
            let read = self.reader.by_ref().take(limit as u64 + 1).read_until(b'\n', &mut bytes);
            self.line += 1;
            match read {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(Err(Skipped::from_io(&self.source.path, &error))),
            }
            let bad =
                |reason: String| Some(Err(Skipped::record(&self.source.path, self.line, reason)));
            if bytes.len() > limit {
                let skipped = bad(format!("it is longer than {} MB", limit / 1_000_000));
                // The rest of the line, unread into memory.
                while !bytes.ends_with(b"\n") {
                    bytes.clear();
                    match self.reader.by_ref().take(1 << 20).read_until(b'\n', &mut bytes) {
                        Ok(0) | Err(_) => break,
                        Ok(_) => {}
                    }
                }
                return skipped;
            }
            let Ok(text) = std::str::from_utf8(&bytes) else {
                return bad("it is not UTF-8".to_owned());
            };
            let text = text.trim_start_matches('\u{feff}').trim();
            if text.is_empty() {
                continue;
            }
            return match serde_json::from_str(text) {
                Ok(Value::Object(fields)) => Some(self.record(fields)),
                Ok(Value::String(text)) => Some(Ok(document(self.source, self.line, text))),
                Ok(_) => bad("it is neither an object nor a string".to_owned()),
                Err(error) => bad(format!("it is not JSON: {error}")),
            };
        }
    }
}

impl Lines<'_> {
    fn record(&self, fields: Metadata) -> Result<Document, Skipped> {
        from_fields(self.source, self.options, self.line, fields)
    }
}

fn document(source: &SourceFile, line: usize, text: String) -> Document {
    Document {
        id: format!("{}#{line}", source.id),
        title: String::new(),
        metadata: Metadata::new(),
        blocks: blocks(&text),
        text,
        warnings: Vec::new(),
    }
}

/// The document that a record's fields make.
fn from_fields(
    source: &SourceFile,
    options: &IngestOptions,
    line: usize,
    mut fields: Metadata,
) -> Result<Document, Skipped> {
    let named = options.text_field.as_deref();
    let key = match named {
        Some(name) => fields.contains_key(name).then_some(name),
        None => {
            TEXT_FIELDS.into_iter().find(|name| fields.get(*name).is_some_and(Value::is_string))
        }
    };
    let Some(Value::String(text)) = key.and_then(|key| fields.remove(key)) else {
        let wanted = named.map_or_else(|| TEXT_FIELDS.join(", "), str::to_owned);
        let reason = format!("it has no text under {wanted}; name the field with --text-field");
        return Err(Skipped::record(&source.path, line, reason));
    };
    let mut document = document(source, line, text);
    let id = fields.remove("_id").or_else(|| fields.remove("id"));
    match id {
        Some(Value::String(id)) if !id.is_empty() => document.id = id,
        Some(Value::Number(id)) => document.id = id.to_string(),
        _ => {}
    }
    if let Some(Value::String(title)) = fields.get("title") {
        document.title.clone_from(title);
        fields.remove("title");
    }
    if document.text.trim().is_empty() && document.title.trim().is_empty() {
        return Err(Skipped::record(&source.path, line, "its text is empty"));
    }
    document.metadata = fields;
    Ok(document)
}

pub(super) fn csv<'a>(source: &'a SourceFile, options: &'a IngestOptions) -> Documents<'a> {
    let fail = |skipped: Skipped| -> Documents<'a> { Box::new(std::iter::once(Err(skipped))) };
    let file = match File::open(&source.path) {
        Ok(file) => file,
        Err(error) => return fail(Skipped::from_io(&source.path, &error)),
    };
    let tabs = source.path.extension().is_some_and(|extension| extension == "tsv");
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(if tabs { b'\t' } else { b',' })
        .flexible(false)
        .from_reader(BufReader::new(file));
    let header = match reader.headers() {
        Ok(header) => header.clone(),
        Err(error) => return fail(Skipped::record(&source.path, 1, error.to_string())),
    };
    let header: Vec<String> =
        header.iter().map(|name| name.trim_start_matches('\u{feff}').trim().to_owned()).collect();
    let has_text = match &options.text_field {
        Some(name) => header.contains(name),
        None => TEXT_FIELDS.iter().any(|name| header.iter().any(|column| column == name)),
    };
    let records = reader.into_records().map(move |record| {
        let record = record.map_err(|error| {
            let line = error.position().map_or(0, |at| at.line() as usize);
            Skipped::record(&source.path, line, error.to_string())
        })?;
        let line = record.position().map_or(0, |at| at.line() as usize);
        if record.as_slice().len() > options.max_record_bytes {
            return Err(Skipped::record(&source.path, line, "it is too long"));
        }
        let mut fields = Metadata::new();
        let mut lines = String::new();
        for (name, value) in header.iter().zip(record.iter()) {
            if has_text {
                let is_text = match &options.text_field {
                    Some(field) => field == name,
                    None => TEXT_FIELDS.contains(&name.as_str()),
                };
                let text = is_text || ["title", "id", "_id"].contains(&name.as_str());
                fields.insert(name.clone(), if text { value.into() } else { typed(value) });
            } else {
                fields.insert(name.clone(), typed(value));
                if !value.trim().is_empty() && !["id", "_id", "title"].contains(&name.as_str()) {
                    lines.extend([name.as_str(), ": ", value, "\n"]);
                }
            }
        }
        if !has_text {
            let key = options.text_field.as_deref().unwrap_or(TEXT_FIELDS[0]);
            fields.insert(key.to_owned(), lines.trim_end().into());
        }
        from_fields(source, options, line, fields)
    });
    Box::new(records)
}

/// A cell as the number or truth value that it reads as.
fn typed(cell: &str) -> Value {
    let text = cell.trim();
    if let Ok(number) = text.parse::<i64>() {
        return number.into();
    }
    match text {
        "true" | "TRUE" | "True" => Value::Bool(true),
        "false" | "FALSE" | "False" => Value::Bool(false),
        _ => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => number.into(),
            _ => cell.into(),
        },
    }
}
