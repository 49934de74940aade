//! The tier on disk: scores that survive a restart, in one [redb](https://docs.rs/redb) file.
//!
//! * **Bounded.** There are two generations. New entries go into the young one; when it holds half of
//!   what is allowed, the old one is dropped and the young one becomes it. An entry that is found in
//!   the old one is written into the young one again, so what is used stays and what is not goes.
//! * **Never in the way.** Answers do not wait for the disk: a thread of its own writes, many entries
//!   in one transaction, and when it cannot keep up, entries are dropped and counted.
//! * **Crash-safe.** A transaction is there or is not (redb commits by switching a root); the file
//!   that a crash left is opened without reading all of it.
//! * **Damage.** Each entry is sealed ([`crate::entry`]); one that does not open counts as missing.
//!   A file that cannot be opened is thrown away and begun anew, which is said in the
//!   [`DiskStats`]. After an error of reading or writing (a full disk, a page that has rotted) the tier
//!   stays out of use until the next start; a rotten file is removed then.
//! * **One process at a time.** redb locks the file; a second process does without this tier and
//!   says so.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTableMetadata, TableDefinition, TableError,
};
use serde::Serialize;

use crate::entry::{BYTES, Entry};
use crate::key::PairKey;

/// Bytes that an entry takes in the file: 48 of its own, the tree around it, and the room that a
/// half-filled page leaves. Measured: 200,000 entries make a file of 17.8 MB, 89 bytes each; dropping a
/// generation takes a few pages more.
const ENTRY_BYTES: u64 = 112;

/// Least bytes of a tier: below, the file's own pages are all of it.
pub const LEAST_BYTES: u64 = 1 << 20;

/// Bytes that redb may keep in memory.
const PAGE_CACHE: usize = 8 << 20;

/// Batches of entries that wait to be written; more are dropped.
const QUEUE: usize = 256;

/// Entries in one transaction, about.
const TRANSACTION: usize = 10_000;

type Table = TableDefinition<'static, &'static [u8; 32], &'static [u8; BYTES]>;
const YOUNG: Table = TableDefinition::new("young");
const OLD: Table = TableDefinition::new("old");

/// Why the tier is not there. It is no reason to fail: the cache does without it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// Another process has it open.
    #[error("{path} is in use by another process")]
    InUse {
        /// The file.
        path: String,
    },
    /// The file or its folder cannot be made, opened or removed.
    #[error("{path}: {reason}")]
    Unusable {
        /// The file.
        path: String,
        /// What the system or the database says.
        reason: String,
    },
}

/// What is in the tier.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DiskStats {
    /// The file.
    pub path: String,
    /// Its bytes.
    pub bytes: u64,
    /// What it may take.
    pub limit: u64,
    /// Entries in it.
    pub entries: u64,
    /// Entries that were read and were not what was written.
    pub damaged: u64,
    /// Entries that were not written because the disk did not keep up.
    pub dropped: u64,
    /// Why the file was begun anew, if it was.
    pub begun_anew: Option<String>,
    /// Why the tier is out of use, if it is.
    pub out_of_use: Option<String>,
}

/// The tier on disk.
pub(crate) struct Disk {
    shared: Arc<Shared>,
    /// Gone only while dropping.
    queue: Option<SyncSender<Message>>,
    writer: Option<JoinHandle<()>>,
}

enum Message {
    Insert(Vec<(PairKey, Entry)>),
    /// Answers once all before it is written.
    Flush(SyncSender<()>),
}

struct Shared {
    /// Gone only while dropping.
    database: Option<Database>,
    path: PathBuf,
    limit: u64,
    begun_anew: Option<String>,
    out_of_use: OnceLock<Trouble>,
    damaged: AtomicU64,
    dropped: AtomicU64,
}

impl Disk {
    /// Opens the file of that path or makes it; `limit` is what it may take, in bytes, and is
    /// [`LEAST_BYTES`] if it is less.
    pub(crate) fn open(path: &Path, limit: u64) -> Result<Self, DiskError> {
        let shown = || path.display().to_string();
        let unusable = |reason: String| DiskError::Unusable { path: shown(), reason };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| unusable(error.to_string()))?;
        }
        let mut begun_anew = None;
        let database = match open(path) {
            Ok(database) => database,
            Err(Fault::InUse) => return Err(DiskError::InUse { path: shown() }),
            Err(Fault::Io(reason)) => return Err(unusable(reason)),
            Err(Fault::Damaged(reason)) => {
                fs::remove_file(path).map_err(|error| unusable(error.to_string()))?;
                begun_anew = Some(reason);
                open(path).map_err(|fault| unusable(fault.reason()))?
            }
        };
        let shared = Arc::new(Shared {
            database: Some(database),
            path: path.to_owned(),
            limit: limit.max(LEAST_BYTES),
            begun_anew,
            out_of_use: OnceLock::new(),
            damaged: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        let (queue, messages) = sync_channel(QUEUE);
        let own = Arc::clone(&shared);
        let writer = std::thread::Builder::new()
            .name("topshelf-cache".to_owned())
            .spawn(move || own.write_all(&messages))
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Self { shared, queue: Some(queue), writer: Some(writer) })
    }

    /// The entries of those keys that are there.
    pub(crate) fn get(&self, keys: &[PairKey]) -> Vec<(PairKey, Entry)> {
        let shared = &self.shared;
        if keys.is_empty() || shared.out_of_use.get().is_some() {
            return Vec::new();
        }
        let found = guarded(|| shared.read(keys)).unwrap_or_else(|trouble| {
            shared.give_up(trouble);
            Found::default()
        });
        shared.damaged.fetch_add(found.damaged, Ordering::Relaxed);
        if !found.aging.is_empty() {
            self.insert(found.aging);
        }
        found.entries
    }

    /// Leaves entries to be written.
    pub(crate) fn insert(&self, entries: Vec<(PairKey, Entry)>) {
        let count = entries.len() as u64;
        if count == 0 || self.shared.out_of_use.get().is_some() {
            return;
        }
        let Some(queue) = &self.queue else { return };
        match queue.try_send(Message::Insert(entries)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.shared.dropped.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    /// Waits until all that was left to be written is.
    pub(crate) fn flush(&self) {
        let (done, is_done) = sync_channel(1);
        if let Some(queue) = &self.queue
            && queue.send(Message::Flush(done)).is_ok()
        {
            // An error says that the writer is gone, and so is what it had to write.
            let _ = is_done.recv();
        }
    }

    pub(crate) fn stats(&self) -> DiskStats {
        let shared = &self.shared;
        DiskStats {
            path: shared.path.display().to_string(),
            bytes: fs::metadata(&shared.path).map_or(0, |meta| meta.len()),
            limit: shared.limit,
            entries: guarded(|| shared.entries()).unwrap_or_default(),
            damaged: shared.damaged.load(Ordering::Relaxed),
            dropped: shared.dropped.load(Ordering::Relaxed),
            begun_anew: shared.begun_anew.clone(),
            out_of_use: shared.out_of_use.get().map(|trouble| trouble.reason().to_owned()),
        }
    }
}

impl Drop for Disk {
    /// Waits for what was left to be written.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            // It answers nothing, and a panic in it has been told as the tier's end.
            let _ = writer.join();
        }
    }
}

/// Why the tier is out of use.
#[derive(Clone)]
enum Trouble {
    /// The system refused to read or write: a full disk, a folder that is gone.
    System(String),
    /// The file is not what was written. It is of no use to the next start either.
    Rotten(String),
}

impl Trouble {
    fn reason(&self) -> &str {
        match self {
            Self::System(reason) | Self::Rotten(reason) => reason,
        }
    }
}

/// Removes the file of a cache, and answers its bytes; 0 if there was none.
///
/// # Errors
///
/// [`DiskError::InUse`] while a process has it open, [`DiskError::Unusable`] if it cannot be removed.
pub fn clear(path: &Path) -> Result<u64, DiskError> {
    let shown = || path.display().to_string();
    let Ok(meta) = fs::metadata(path) else { return Ok(0) };
    if let Err(Fault::InUse) = open(path).map(drop) {
        return Err(DiskError::InUse { path: shown() });
    }
    fs::remove_file(path)
        .map_err(|error| DiskError::Unusable { path: shown(), reason: error.to_string() })?;
    Ok(meta.len())
}

/// What reading gave.
#[derive(Default)]
struct Found {
    entries: Vec<(PairKey, Entry)>,
    /// Those of them that only the old generation has.
    aging: Vec<(PairKey, Entry)>,
    damaged: u64,
}

impl Shared {
    /// The most entries of a generation.
    fn generation(&self) -> u64 {
        self.limit / ENTRY_BYTES / 2
    }

    fn give_up(&self, trouble: Trouble) {
        // The first trouble is the one that matters.
        let _ = self.out_of_use.set(trouble);
    }

    fn database(&self) -> Result<&Database, redb::Error> {
        self.database.as_ref().ok_or(redb::Error::DatabaseClosed)
    }

    fn read(&self, keys: &[PairKey]) -> Result<Found, redb::Error> {
        let transaction = self.database()?.begin_read()?;
        let mut found = Found::default();
        let mut missing: Vec<PairKey> = keys.to_vec();
        for (generation, aging) in [(YOUNG, false), (OLD, true)] {
            let table = match transaction.open_table(generation) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            let mut still = Vec::new();
            for key in missing {
                match table.get(key.as_bytes())? {
                    Some(bytes) => match Entry::open(&key, bytes.value()) {
                        Some(entry) => {
                            found.entries.push((key, entry));
                            if aging {
                                found.aging.push((key, entry));
                            }
                        }
                        None => found.damaged += 1,
                    },
                    None => still.push(key),
                }
            }
            missing = still;
        }
        Ok(found)
    }

    fn entries(&self) -> Result<u64, redb::Error> {
        let transaction = self.database()?.begin_read()?;
        let mut sum = 0;
        for generation in [YOUNG, OLD] {
            match transaction.open_table(generation) {
                Ok(table) => sum += table.len()?,
                Err(TableError::TableDoesNotExist(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(sum)
    }

    /// The writer's life.
    fn write_all(&self, messages: &Receiver<Message>) {
        while let Ok(message) = messages.recv() {
            let (mut entries, mut waiting) = (Vec::new(), Vec::new());
            let mut next = Some(message);
            while let Some(message) = next {
                match message {
                    Message::Insert(more) => entries.extend(more),
                    Message::Flush(done) => waiting.push(done),
                }
                next = if entries.len() < TRANSACTION { messages.try_recv().ok() } else { None };
            }
            if !entries.is_empty() && self.out_of_use.get().is_none() {
                let written = guarded(|| self.write(&entries));
                if let Err(trouble) = written {
                    self.dropped.fetch_add(entries.len() as u64, Ordering::Relaxed);
                    self.give_up(trouble);
                }
            }
            for done in waiting {
                // Whoever asked may have gone away.
                let _ = done.send(());
            }
        }
    }

    fn write(&self, entries: &[(PairKey, Entry)]) -> Result<(), redb::Error> {
        let mut transaction = self.database()?.begin_write()?;
        // So that the file that a crash leaves opens at once.
        transaction.set_quick_repair(true);
        let full = {
            let mut young = transaction.open_table(YOUNG)?;
            for (key, entry) in entries {
                young.insert(key.as_bytes(), &entry.seal(key))?;
            }
            young.len()? >= self.generation()
        };
        if full {
            transaction.delete_table(OLD)?;
            transaction.rename_table(YOUNG, OLD)?;
        }
        transaction.commit()?;
        Ok(())
    }
}

impl Drop for Shared {
    /// Closes the file, which writes what is left to write and so meets the same rot; a rotten file
    /// is removed, so that the next start begins anew instead of stumbling again.
    fn drop(&mut self) {
        let database = self.database.take();
        let closed = catch_unwind(AssertUnwindSafe(|| drop(database)));
        if closed.is_err() || matches!(self.out_of_use.get(), Some(Trouble::Rotten(_))) {
            // If it cannot be removed, the next start finds out for itself.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Why a file does not open.
enum Fault {
    InUse,
    Io(String),
    Damaged(String),
}

impl Fault {
    fn reason(self) -> String {
        match self {
            Self::InUse => "in use by another process".to_owned(),
            Self::Io(reason) | Self::Damaged(reason) => reason,
        }
    }
}

fn open(path: &Path) -> Result<Database, Fault> {
    let opened = catch_unwind(|| Database::builder().set_cache_size(PAGE_CACHE).create(path));
    match opened {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => Err(Fault::InUse),
        Ok(Err(DatabaseError::Storage(redb::StorageError::Io(error))))
            if error.kind() != std::io::ErrorKind::InvalidData
                && error.kind() != std::io::ErrorKind::UnexpectedEof =>
        {
            Err(Fault::Io(error.to_string()))
        }
        Ok(Err(error)) => Err(Fault::Damaged(error.to_string())),
        Err(_) => Err(Fault::Damaged("the file makes no sense".to_owned())),
    }
}

/// Runs work on the database. A rotten page can make it panic.
fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, Trouble> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error @ redb::Error::Corrupted(_))) => Err(Trouble::Rotten(error.to_string())),
        Ok(Err(error)) => Err(Trouble::System(error.to_string())),
        Err(_) => Err(Trouble::Rotten("the file has a page that makes no sense".to_owned())),
    }
}
