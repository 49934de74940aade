//! [`ReadingDirectory`]: the folder of the tantivy index, for those who read it and may not write there.
//!
//! tantivy's readers lock a file while they open what `meta.json` names, so that no writer removes it in
//! that moment. To lock a file, tantivy opens it for writing, which a volume that is mounted read-only
//! refuses. A reader needs no more than a shared lock, which keeps a writer's out as well and is taken on a
//! file that is opened for reading, over NFS too. Where there is no file to lock, or no locks, a
//! writer may remove a file between the two steps; then the index is opened again ([`crate::Index::open`]).

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tantivy::directory::error::{DeleteError, LockError, OpenReadError, OpenWriteError};
use tantivy::directory::{
    Directory, DirectoryLock, FileHandle, Lock, MmapDirectory, WatchCallback, WatchHandle, WritePtr,
};

use crate::error::{IndexError, Result};
use crate::state::TEXT_DIR;

/// tantivy's own directory, but for the lock.
#[derive(Debug, Clone)]
struct ReadingDirectory {
    own: MmapDirectory,
    dir: PathBuf,
}

/// Opens the tantivy index of the index in `dir`, which need not be writable.
///
/// # Errors
///
/// [`IndexError::Damaged`], [`IndexError::Tantivy`].
pub(crate) fn open(dir: &Path) -> Result<tantivy::Index> {
    let text = dir.join(TEXT_DIR);
    let open = || {
        let own = MmapDirectory::open(&text)?;
        tantivy::Index::open(ReadingDirectory { own, dir: text.clone() })
    };
    open().map_err(IndexError::opening(dir))
}

impl ReadingDirectory {
    /// The lock on a file that can be read only, as far as there is one.
    fn lock_as_it_is(&self, lock: &Lock) -> io::Result<DirectoryLock> {
        let file = match File::open(self.dir.join(&lock.filepath)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(DirectoryLock::from(Box::new(())));
            }
            Err(error) => return Err(error),
        };
        let _ = file.lock_shared(); // not every file system has locks
        Ok(DirectoryLock::from(Box::new(file)))
    }
}

impl Directory for ReadingDirectory {
    fn acquire_lock(&self, lock: &Lock) -> Result<DirectoryLock, LockError> {
        match self.own.acquire_lock(lock) {
            Err(LockError::IoError(error)) if is_refused(&error) => {
                self.lock_as_it_is(lock).map_err(|error| LockError::IoError(Arc::new(error)))
            }
            locked => locked,
        }
    }

    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        self.own.get_file_handle(path)
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        self.own.delete(path)
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        self.own.exists(path)
    }

    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        self.own.open_write(path)
    }

    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        self.own.atomic_read(path)
    }

    fn atomic_write(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        self.own.atomic_write(path, data)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.own.sync_directory()
    }

    fn watch(&self, callback: WatchCallback) -> tantivy::Result<WatchHandle> {
        self.own.watch(callback)
    }
}

/// Whether the folder may not be written.
fn is_refused(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}
