//! The thread that reads ahead: [`Reader`] sends [`Item`]s while others embed and write.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};
use topshelf_core::Passage;

use super::given::GivenDocument;
use super::{AddOptions, canonical, interrupted};
use crate::chunk::{Chunking, chunk};
use crate::files::{FileEntry, FileTable};
use crate::ingest::{Document, IngestOptions, SkipReason, Skipped, SourceFile, Warning, documents};
use crate::state::Totals;

/// Counted up whenever the same file under the same options gives other passages than before,
/// so that adding again brings indexes of earlier versions up to date.
const READING: u32 = 1;

/// What the reading thread sends.
pub(super) enum Item {
    /// A file begins; what came from it before is replaced.
    Begin {
        path: String,
        /// Whether its content is as recorded, and other options are the reason.
        is_same: bool,
    },
    /// A document of the file that began last, cut.
    Document {
        id: String,
        source: PathBuf,
        passages: Vec<Passage>,
    },
    /// The file that began last ends.
    End(Box<FileEntry>),
    /// A file is as it is in the index; its entry, with the time it has now.
    Unchanged(Box<FileEntry>),
    Skipped(Skipped),
    Warning(Warning),
    /// A file has been dealt with.
    Dealt {
        bytes: u64,
    },
}

/// The thread that reads ahead.
pub(super) struct Reader<'a> {
    pub(super) known: &'a FileTable,
    pub(super) options: &'a AddOptions,
    /// How documents are cut.
    pub(super) chunking: Chunking,
    pub(super) count: &'a (dyn Fn(&str) -> usize + Sync),
    pub(super) stop: &'a AtomicBool,
    pub(super) sender: SyncSender<Item>,
}

/// The receiving side has gone; there is nobody to read for.
struct Gone;

impl Reader<'_> {
    pub(super) fn read_all(&self, sources: Vec<SourceFile>) {
        for source in sources {
            let bytes = source.bytes;
            let read = self.read(&source).and_then(|()| self.send(Item::Dealt { bytes }));
            if read.is_err() {
                return;
            }
        }
    }

    /// Takes documents as a file of its own each.
    pub(super) fn take_all(&self, documents: Vec<GivenDocument>) {
        for document in documents {
            let bytes = document.text.len() as u64;
            let taken = self.take(document).and_then(|()| self.send(Item::Dealt { bytes }));
            if taken.is_err() {
                return;
            }
        }
    }

    fn take(&self, given: GivenDocument) -> Result<(), Gone> {
        let path = given.path();
        let (options, sha256) = (self.digest(), given.digest());
        let same = self.known.get(&path).filter(|known| known.sha256 == sha256);
        if let Some(known) = same.filter(|known| known.options == options) {
            return self.send(Item::Unchanged(Box::new(known.clone())));
        }
        if given.text.trim().is_empty() && given.title.trim().is_empty() {
            let reason = SkipReason::Empty;
            return self.send(Item::Skipped(Skipped { path: given.id.into(), line: None, reason }));
        }
        self.send(Item::Begin { path: path.clone(), is_same: same.is_some() })?;
        let bytes = given.text.len() as u64;
        let id = given.id.clone();
        self.cut(Path::new(&id), given.into())?;
        self.send(Item::End(Box::new(FileEntry {
            path,
            id,
            bytes,
            modified: 0,
            sha256,
            options,
            chunking: Some(self.chunking),
            keys: 0..0,
            totals: Totals::default(),
        })))
    }

    fn digest(&self) -> String {
        options_digest(&self.options.ingest, self.chunking)
    }

    fn send(&self, item: Item) -> Result<(), Gone> {
        if self.stop.load(Ordering::Relaxed) || interrupted(self.options) {
            return Err(Gone);
        }
        self.sender.send(item).map_err(|_| Gone)
    }

    fn read(&self, source: &SourceFile) -> Result<(), Gone> {
        let path = canonical(&source.path);
        let options = self.digest();
        let modified = modified(source);
        let known = self.known.get(&path);
        let is_read_so = |known: &&FileEntry| known.options == options;
        if let Some(known) = known.filter(is_read_so).filter(|known| looks_unchanged(known, source))
        {
            return self.send(Item::Unchanged(Box::new(known.clone())));
        }
        let sha256 = match hash(&source.path) {
            Ok(sha256) => sha256,
            Err(error) => return self.send(Item::Skipped(Skipped::from_io(&source.path, &error))),
        };
        let same = known.filter(|known| known.sha256 == sha256);
        if let Some(known) = same.filter(is_read_so) {
            let entry = FileEntry { modified, bytes: source.bytes, ..known.clone() };
            return self.send(Item::Unchanged(Box::new(entry)));
        }
        self.send(Item::Begin { path: path.clone(), is_same: same.is_some() })?;
        for document in documents(source, &self.options.ingest) {
            match document {
                Ok(document) => self.cut(&source.path, document)?,
                Err(skipped) => self.send(Item::Skipped(skipped))?,
            }
        }
        self.send(Item::End(Box::new(FileEntry {
            path,
            id: source.id.clone(),
            bytes: source.bytes,
            modified,
            sha256,
            options,
            chunking: Some(self.chunking),
            keys: 0..0,
            totals: Totals::default(),
        })))
    }

    fn cut(&self, source: &Path, document: Document) -> Result<(), Gone> {
        for warning in &document.warnings {
            self.send(Item::Warning(warning.clone()))?;
        }
        let passages = match self.chunking {
            Chunking::Passages(options) => chunk(&document, &options, &self.count),
            Chunking::Whole => vec![whole(&document)],
        };
        self.send(Item::Document { id: document.id, source: source.to_owned(), passages })
    }
}

/// The document as its one passage.
fn whole(document: &Document) -> Passage {
    Passage {
        id: format!("{}#0", document.id),
        document: document.id.clone(),
        title: document.title.clone(),
        headings: Vec::new(),
        text: document.text.clone(),
        range: 0..document.text.len(),
        metadata: document.metadata.clone(),
    }
}

/// SHA-256 of a file's content, in hex.
fn hash(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // a string takes all that is written
        text
    })
}

/// When a file was last changed, in nanoseconds since 1970; 0 if that is not known.
fn modified(source: &SourceFile) -> i128 {
    let since = source.modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_nanos() as i128)
}

/// Whether length and time of a file are as recorded.
pub(super) fn looks_unchanged(known: &FileEntry, source: &SourceFile) -> bool {
    let modified = modified(source);
    known.bytes == source.bytes && known.modified == modified && modified != 0
}

/// A digest of the options that change what passages a file gives. Indexes of all formats hold it, so
/// a change of its text reads all of their files again.
pub(super) fn options_digest(ingest: &IngestOptions, chunking: Chunking) -> String {
    let text = format!("{READING} {ingest:?} {:?}", chunking.options());
    hex(&Sha256::digest(text.as_bytes())[..8])
}
