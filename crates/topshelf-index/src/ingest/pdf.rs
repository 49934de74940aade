//! PDF: the text on its pages.
//!
//! The extractor panics on what it does not understand, and calls itself for each form that is
//! drawn within a form. So it runs on a thread of its own, which a panic hook knows by its name; each
//! page is read by itself, so that a panic costs that page and no more; and a page whose parents or
//! forms lead back to themselves, which would overflow the stack and end the program, is left out.

use std::collections::HashMap;
use std::panic::{self, AssertUnwindSafe};
use std::thread;

use pdf_extract::content::Content;
use pdf_extract::{
    Dictionary, Document as Pdf, Object, ObjectId, PlainTextOutput, output_doc_page,
};
use topshelf_core::Metadata;

use super::skip::{SkipReason, Skipped, Warning, WarningReason};
use super::text::{Style, blocks};
use super::{Document, SourceFile, stem};

/// The longest first line that is taken for a title, in characters.
const TITLE_CHARS: usize = 120;

/// The most nodes from a page up to the root of the tree of pages.
const PAGE_DEPTH: usize = 256;

/// The most forms within one another, and the most that are drawn on a page.
const FORM_DEPTH: usize = 32;
const FORMS: usize = 100_000;

/// The name of the thread, by which a program's panic hook can tell that a panic is dealt with.
pub const THREAD: &str = "pdf text";

/// The thread's stack, in bytes: nested objects are followed by recursion.
const STACK: usize = 64 << 20;

pub(super) fn read(source: &SourceFile, bytes: &[u8]) -> Result<Document, Skipped> {
    let skip = |reason| Skipped::new(&source.path, reason);
    let pages = extract(bytes).map_err(|reason| skip(SkipReason::PdfBroken { reason }))?;
    let lost = pages.iter().filter(|page| page.is_none()).count();
    if lost == pages.len() {
        let reason = "none of its pages can be read".to_owned();
        return Err(skip(SkipReason::PdfBroken { reason }));
    }
    let mut warnings = Vec::new();
    if lost > 0 {
        let reason = WarningReason::PagesLost { lost, pages: pages.len() };
        warnings.push(Warning::new(&source.path, reason));
    }
    let pages: Vec<String> = pages.iter().flatten().map(|page| joined(page)).collect();
    let text = pages.join("\n\n").trim().to_owned();
    if text.is_empty() {
        return Err(skip(SkipReason::PdfWithoutText));
    }
    Ok(Document {
        id: source.id.clone(),
        title: first_line(&text).map_or_else(|| stem(source), str::to_owned),
        metadata: Metadata::new(),
        blocks: blocks(&text, Style::Paragraphs),
        text,
        warnings,
    })
}

/// The first line, if it can be a title: short, with letters, and no sentence.
fn first_line(text: &str) -> Option<&str> {
    let line = text.lines().next()?.trim();
    let is_title = line.chars().count() <= TITLE_CHARS
        && line.chars().filter(|c| c.is_alphabetic()).count() >= 3
        && !line.ends_with(['.', ',', ';', ':', '-']);
    is_title.then_some(line)
}

/// The text of each page; `None` where it cannot be read.
fn extract(bytes: &[u8]) -> Result<Vec<Option<String>>, String> {
    thread::scope(|scope| {
        let builder = thread::Builder::new().name(THREAD.to_owned()).stack_size(STACK);
        let reading = builder
            .spawn_scoped(scope, || extract_here(bytes))
            .map_err(|error| format!("no thread to read it on: {error}"))?;
        reading.join().unwrap_or_else(|_| Err("its structure is not understood".to_owned()))
    })
}

fn extract_here(bytes: &[u8]) -> Result<Vec<Option<String>>, String> {
    let mut pdf = Pdf::load_mem(bytes).map_err(|error| error.to_string())?;
    if pdf.is_encrypted() {
        pdf.decrypt("")
            .map_err(|error| format!("it is encrypted ({error}); save it without a password"))?;
    }
    let pages = pdf.get_pages();
    if pages.is_empty() {
        return Err("it has no pages".to_owned());
    }
    let text_of = |(number, page)| {
        let read = panic::catch_unwind(AssertUnwindSafe(|| {
            if !is_bounded(&pdf, page) {
                return None;
            }
            let mut text = String::new();
            let mut output = PlainTextOutput::new(&mut text);
            output_doc_page(&pdf, &mut output, number).ok()?;
            Some(text)
        }));
        read.ok().flatten()
    };
    Ok(pages.into_iter().map(text_of).collect())
}

/// Whether a page's parents and the forms drawn on it come to an end.
fn is_bounded(pdf: &Pdf, page: ObjectId) -> bool {
    let mut resources = None;
    let mut node = pdf.get_dictionary(page).ok();
    for _ in 0..PAGE_DEPTH {
        let Some(dictionary) = node else {
            let content = pdf.get_page_content(page).unwrap_or_default();
            let mut forms = Forms { pdf, path: Vec::new(), known: HashMap::new() };
            return resources.is_none_or(|own| forms.drawn_by(&content, own).is_some());
        };
        resources = resources.or_else(|| pdf.get_dict_in_dict(dictionary, b"Resources").ok());
        let parent = dictionary.get(b"Parent").and_then(Object::as_reference);
        node = parent.and_then(|id| pdf.get_dictionary(id)).ok();
    }
    false
}

/// Counts the forms that are drawn.
struct Forms<'a> {
    pdf: &'a Pdf,
    /// The forms that are being drawn, outermost first.
    path: Vec<ObjectId>,
    known: HashMap<ObjectId, usize>,
}

impl Forms<'_> {
    /// How many forms a content draws, with those that these draw in turn; `None` if one draws
    /// itself, or they are too many or too deep.
    fn drawn_by(&mut self, content: &[u8], resources: &Dictionary) -> Option<usize> {
        let Ok(content) = Content::decode(content) else { return Some(0) };
        let mut drawn = 0;
        let draws = content.operations.iter().filter(|operation| operation.operator == "Do");
        for name in draws.filter_map(|operation| operation.operands.first()?.as_name().ok()) {
            let forms = self.pdf.get_dict_in_dict(resources, b"XObject");
            let form = forms.and_then(|forms| forms.get(name)).and_then(Object::as_reference);
            if let Ok(form) = form {
                drawn += 1 + self.drawn_by_form(form, resources)?;
            }
            if drawn > FORMS {
                return None;
            }
        }
        Some(drawn)
    }

    fn drawn_by_form(&mut self, form: ObjectId, outer: &Dictionary) -> Option<usize> {
        if self.path.contains(&form) || self.path.len() >= FORM_DEPTH {
            return None;
        }
        let Ok(stream) = self.pdf.get_object(form).and_then(Object::as_stream) else {
            return Some(0);
        };
        let own = self.pdf.get_dict_in_dict(&stream.dict, b"Resources").ok();
        // What a form without resources draws depends on where it is drawn.
        if own.is_some()
            && let Some(known) = self.known.get(&form)
        {
            return Some(*known);
        }
        let content = stream.decompressed_content().unwrap_or_else(|_| stream.content.clone());
        self.path.push(form);
        let drawn = self.drawn_by(&content, own.unwrap_or(outer));
        self.path.pop();
        if let (Some(_), Some(drawn)) = (own, drawn) {
            self.known.insert(form, drawn);
        }
        drawn
    }
}

/// A page with the words joined that a line end cut.
fn joined(page: &str) -> String {
    let mut text = String::with_capacity(page.len());
    for line in page.lines() {
        let line = line.trim_end();
        let continues = text.strip_suffix('-').is_some_and(|before| {
            before.ends_with(char::is_lowercase) && line.starts_with(char::is_lowercase)
        });
        if continues {
            text.pop();
        } else if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(line);
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::ingest::Format;

    /// A PDF of the given page contents in Helvetica, with offsets as they should be. A form that
    /// draws itself can be drawn as `/Loop Do`.
    pub(in crate::ingest) fn pdf(pages: &[&str]) -> Vec<u8> {
        let kids: Vec<String> = (0..pages.len()).map(|n| format!("{} 0 R", 5 + 2 * n)).collect();
        let kids = kids.join(" ");
        let resources = "<< /Font << /F1 3 0 R >> /XObject << /Loop 4 0 R >> >>";
        let mut objects = vec![
            "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
            format!("<< /Type /Pages /Kids [{kids}] /Count {} >>", pages.len()),
            "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_owned(),
            format!(
                "<< /Type /XObject /Subtype /Form /BBox [0 0 1 1] /Resources {resources} \
                 /Length 8 >>\nstream\n/Loop Do\nendstream"
            ),
        ];
        for (n, page) in pages.iter().enumerate() {
            objects.push(format!(
                "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 300] /Contents {} 0 R \
                 /Resources {resources} >>",
                6 + 2 * n
            ));
            let length = page.len();
            objects.push(format!("<< /Length {length} >>\nstream\n{page}\nendstream"));
        }
        let mut file = "%PDF-1.4\n".to_owned();
        let mut table = format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1);
        for (n, object) in objects.iter().enumerate() {
            let _ = writeln!(table, "{:010} 00000 n ", file.len()); // a string takes all
            let _ = writeln!(file, "{} 0 obj\n{object}\nendobj", n + 1);
        }
        let start = file.len();
        let size = objects.len() + 1;
        let _ = writeln!(
            file,
            "{table}trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF"
        );
        file.into_bytes()
    }

    /// A page with a line of text.
    pub(in crate::ingest) fn line(text: &str) -> String {
        format!("BT /F1 12 Tf 20 200 Td ({text}) Tj ET")
    }

    fn read_bytes(bytes: &[u8]) -> Result<Document, Skipped> {
        let source = SourceFile {
            path: "report.pdf".into(),
            id: "report.pdf".into(),
            bytes: bytes.len() as u64,
            modified: None,
            format: Format::Pdf,
        };
        read(&source, bytes)
    }

    #[test]
    fn pages_of_text() {
        let (first, second) = (line("Fleas and cats"), line("They jump far."));
        let document = read_bytes(&pdf(&[&first, &second])).unwrap();
        assert_eq!(document.text, "Fleas and cats\n\nThey jump far.");
        assert_eq!(document.title, "Fleas and cats");
        assert_eq!(document.blocks.len(), 2);
        assert_eq!(read_bytes(&pdf(&[&line("A sentence.")])).unwrap().title, "report");
    }

    #[test]
    fn pages_without_text_and_broken_files() {
        let reason = |bytes: &[u8]| read_bytes(bytes).unwrap_err().reason;
        assert_eq!(reason(&pdf(&["0 0 10 10 re f"])), SkipReason::PdfWithoutText);
        let broken = |bytes: &[u8]| matches!(reason(bytes), SkipReason::PdfBroken { .. });
        assert!(broken(b"%PDF-1.4\nnothing more"));
        assert!(broken(&pdf(&[])));
        assert!(broken(&pdf(&["BT /F9 12 Tf (no such font) Tj ET"])));
    }

    #[test]
    fn a_page_that_cannot_be_read_is_told_and_the_others_are_read() {
        let good = line("Readable");
        let bytes = pdf(&[&good, "BT /F9 12 Tf (no such font) Tj ET", "/Loop Do", &good]);
        let document = read_bytes(&bytes).unwrap();
        assert_eq!(document.text, "Readable\n\nReadable");
        let told: Vec<&WarningReason> = document.warnings.iter().map(|w| &w.reason).collect();
        assert_eq!(told, [&WarningReason::PagesLost { lost: 2, pages: 4 }]);
    }

    #[test]
    fn words_cut_at_line_ends_are_joined() {
        assert_eq!(joined("a hyphen-\nated word\nnot A-\nB"), "a hyphenated word\nnot A-\nB");
    }
}
