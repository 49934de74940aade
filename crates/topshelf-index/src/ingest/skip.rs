//! What was not read, and what was read with a loss.

use std::fmt;
use std::path::{Path, PathBuf};

/// The system's number for a link that leads to itself (`ELOOP`), which the standard library gives
/// no stable name.
const TOO_MANY_LINKS: i32 = if cfg!(any(target_os = "linux", target_os = "android")) {
    40
} else if cfg!(windows) {
    1921 // ERROR_CANT_RESOLVE_FILENAME
} else {
    62 // the BSDs, macOS
};

/// A file or a record that was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// The line of the record, from 1; `None` for a whole file.
    pub line: Option<usize>,
    /// Why.
    pub reason: SkipReason,
}

/// Why something was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SkipReason {
    /// The file is larger than is read whole.
    TooLarge {
        /// Its length.
        bytes: u64,
        /// The most that is read.
        limit: u64,
    },
    /// The file is no text of any kind that is known.
    Binary,
    /// There is nothing in it.
    Empty,
    /// The PDF has pages, but no text on them.
    PdfWithoutText,
    /// The PDF cannot be read.
    PdfBroken {
        /// What the reader says.
        reason: String,
    },
    /// Following the link leads back to itself or to a folder above it.
    SymlinkLoop,
    /// The system does not allow reading it.
    Permission,
    /// It is not there.
    NotFound,
    /// A record without a text in the fields that are looked at.
    NoText {
        /// The fields, with commas between them.
        fields: String,
    },
    /// A record that cannot be used.
    BadRecord {
        /// What is wrong with it.
        reason: String,
    },
    /// A document of that id is in the index already, from another file or record.
    DuplicateId {
        /// The id.
        id: String,
    },
    /// Reading failed.
    Unreadable {
        /// The system's answer.
        reason: String,
    },
}

impl Skipped {
    pub(crate) fn new(path: &Path, reason: SkipReason) -> Self {
        Self { path: path.to_owned(), line: None, reason }
    }

    pub(crate) fn record(path: &Path, line: usize, reason: impl Into<String>) -> Self {
        let reason = SkipReason::BadRecord { reason: reason.into() };
        Self { path: path.to_owned(), line: Some(line), reason }
    }

    pub(crate) fn duplicate(path: &Path, id: &str) -> Self {
        Self::new(path, SkipReason::DuplicateId { id: id.to_owned() })
    }

    pub(crate) fn from_io(path: &Path, error: &std::io::Error) -> Self {
        let reason = match error.kind() {
            std::io::ErrorKind::PermissionDenied => SkipReason::Permission,
            std::io::ErrorKind::NotFound => SkipReason::NotFound,
            _ if system_code(error) == Some(TOO_MANY_LINKS) => SkipReason::SymlinkLoop,
            _ => SkipReason::Unreadable { reason: error.to_string() },
        };
        Self::new(path, reason)
    }
}

/// The system's number of an error, also where a library has wrapped it.
fn system_code(error: &std::io::Error) -> Option<i32> {
    error.raw_os_error().or_else(|| {
        let inner = std::error::Error::source(error)?.downcast_ref::<std::io::Error>()?;
        inner.raw_os_error()
    })
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes, limit } => write!(
                f,
                "its {} MB are more than the {} MB that are read; split it",
                bytes / 1_000_000,
                limit / 1_000_000
            ),
            Self::Binary => f.write_str("it is binary, no text; convert it to text first"),
            Self::Empty => f.write_str("it is empty"),
            Self::PdfWithoutText => {
                f.write_str("its pages hold no text, only pictures; run it through OCR first")
            }
            Self::PdfBroken { reason } => write!(f, "it cannot be read as PDF: {reason}"),
            Self::SymlinkLoop => f.write_str(
                "it is a link to a folder above itself or to itself; files there are read where they stand",
            ),
            Self::Permission => f.write_str("there is no permission to read it; allow it or run as its owner"),
            Self::NotFound => f.write_str("it is not there; check the path, or where the link leads"),
            Self::NoText { fields } => {
                write!(f, "the record was left out: it has no text under {fields}")
            }
            Self::BadRecord { reason } => write!(f, "the record was left out: {reason}"),
            Self::DuplicateId { id } => write!(
                f,
                "a document with the id \"{id}\" is in the index already; ids must be unique"
            ),
            Self::Unreadable { reason } => write!(f, "it cannot be read: {reason}"),
        }
    }
}

/// A file or a record that was read with a loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The file.
    pub path: PathBuf,
    /// The line of the record, from 1; `None` for a whole file.
    pub line: Option<usize>,
    /// What was lost.
    pub reason: WarningReason,
}

/// What was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WarningReason {
    /// The encoding was guessed.
    Guessed {
        /// Its name.
        encoding: String,
    },
    /// The file is UTF-8 with damage.
    BrokenUtf8 {
        /// Where the first damaged byte is in the file (in a record: in the field), from 0.
        at: usize,
        /// How many places were damaged.
        places: usize,
    },
    /// The encoding is known or guessed, and some of the bytes are none of its characters.
    Damaged {
        /// Its name.
        encoding: String,
        /// How many characters could not be read.
        places: usize,
    },
    /// Pages of a PDF that could not be read.
    PagesLost {
        /// How many.
        lost: usize,
        /// Of how many.
        pages: usize,
    },
    /// The front matter cannot be read and stands in the text.
    FrontMatter {
        /// What is wrong with it.
        reason: String,
    },
}

impl Warning {
    pub(crate) fn new(path: &Path, reason: WarningReason) -> Self {
        Self { path: path.to_owned(), line: None, reason }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        f.write_str(": ")?;
        match &self.reason {
            WarningReason::Guessed { encoding } => {
                write!(f, "it is not UTF-8 and was read as {encoding}")
            }
            WarningReason::BrokenUtf8 { at, places } => write!(
                f,
                "it is broken UTF-8: {places} places from byte {at} on were read as \u{fffd}"
            ),
            WarningReason::Damaged { encoding, places } => {
                write!(f, "it was read as {encoding}: {places} places were read as \u{fffd}")
            }
            WarningReason::PagesLost { lost, pages } => {
                write!(f, "{lost} of its {pages} pages could not be read and were left out")
            }
            WarningReason::FrontMatter { reason } => {
                write!(f, "its front matter cannot be read and was taken as text: {reason}")
            }
        }
    }
}
