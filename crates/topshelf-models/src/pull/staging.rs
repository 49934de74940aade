//! A model's folder appears in the store whole or not at all.
//!
//! Files are written to a temporary folder inside the store, so on the same file system, and
//! synced; one rename puts the folder in its place. A process that dies before leaves the
//! temporary folder, which the next pull of the model removes. [`Lock`] makes the pulls of one
//! model follow each other; the system releases it when its holder dies.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{PullProgress, write_error};
use crate::error::{ModelError, Result};
use crate::spec::ModelSpec;
use crate::store::{RECORD, Store, folder_name, unfinished_prefix};

/// The right to pull one model, among all processes.
///
/// The file of the lock stays: removing it would let two processes lock two files of one name.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits until no other process pulls the model. Creates the store.
    pub(super) fn take(root: &Path, name: &str, progress: &dyn PullProgress) -> Result<Self> {
        fs::create_dir_all(root).map_err(|source| write_error(root, source))?;
        let path = root.join(format!(".lock-{}", folder_name(name)));
        let failed = |source| ModelError::Io { what: "cannot lock", path: path.clone(), source };
        let file =
            File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress.step(&format!("waiting for another process that pulls {name}"));
                file.lock().map_err(failed)?;
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        Ok(Self { _file: file })
    }
}

/// Removes what interrupted pulls of the model have left; its lock is held.
pub(super) fn remove_leftovers(store: &Store, name: &str) -> Result<()> {
    for dir in store.unfinished(name) {
        fs::remove_dir_all(&dir).map_err(|source| ModelError::Io {
            what: "cannot remove the leftovers of an interrupted pull in",
            path: dir,
            source,
        })?;
    }
    Ok(())
}

/// A temporary folder of the store that belongs to one model; removed when dropped.
pub(super) fn temporary(store: &Store, name: &str) -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix(&unfinished_prefix(name))
        .tempdir_in(store.root())
        .map_err(|source| write_error(store.root(), source))
}

/// A model's folder in the making.
pub(super) struct Staging {
    temporary: TempDir,
    dir: PathBuf,
    place: PathBuf,
}

impl Staging {
    /// A new empty folder for the model.
    pub(super) fn new(store: &Store, name: &str) -> Result<Self> {
        let temporary = temporary(store, name)?;
        // The temporary folder is private to the user; the one inside has the usual rights.
        let dir = temporary.path().join("model");
        fs::create_dir(&dir).map_err(|source| write_error(&dir, source))?;
        Ok(Self { temporary, dir, place: store.dir(name) })
    }

    /// Where the files go.
    pub(super) fn path(&self) -> &Path {
        &self.dir
    }

    /// Writes the record, syncs, and puts the folder in its place. One that is there already is
    /// moved aside first, so a crash between the two renames leaves no model rather than half.
    pub(super) fn finish(self, spec: &ModelSpec) -> Result<()> {
        let record = self.dir.join(RECORD);
        let failed = |source| write_error(&record, source);
        let mut file = File::create(&record).map_err(failed)?;
        serde_json::to_writer_pretty(&mut file, spec).map_err(|error| failed(error.into()))?;
        file.write_all(b"\n").and_then(|()| file.sync_all()).map_err(failed)?;
        sync_folder(&self.dir)?;

        if self.place.exists() {
            let aside = self.temporary.path().join("replaced");
            fs::rename(&self.place, aside).map_err(|source| write_error(&self.place, source))?;
        }
        fs::rename(&self.dir, &self.place).map_err(|source| write_error(&self.place, source))?;
        if let Some(root) = self.place.parent() {
            sync_folder(root)?;
        }
        Ok(())
    }
}

/// Makes the names in a folder durable, where the platform has a call for it.
fn sync_folder(dir: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(dir)
            .and_then(|folder| folder.sync_all())
            .map_err(|source| write_error(dir, source))?;
    }
    Ok(())
}
