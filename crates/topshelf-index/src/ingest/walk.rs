//! Which files there are below the given paths.
//!
//! `.gitignore` and `.ignore` files are respected, in and outside of repositories; hidden files
//! are passed over unless they are named; links are followed, and one that leads back to a folder
//! above itself is told. The order is that of the paths, whatever the file system answers, and a
//! file that is reached twice is listed once.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use ignore::{Error, WalkBuilder};

use super::format::Format;
use super::skip::{SkipReason, Skipped};
use super::{IngestOptions, SourceFile};

/// The files below `paths` that can be read, and what was passed over for a reason.
pub fn walk(paths: &[PathBuf], options: &IngestOptions) -> Vec<Result<SourceFile, Skipped>> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    for path in paths {
        let entries = WalkBuilder::new(path)
            .follow_links(true)
            .require_git(false)
            .sort_by_file_path(Path::cmp)
            .build();
        for entry in entries {
            match entry {
                Ok(entry) if entry.file_type().is_some_and(|kind| kind.is_file()) => {
                    if seen.insert(canonical(entry.path())) {
                        found.push(source(entry.path(), options));
                    }
                }
                Ok(entry) if entry.file_type().is_some_and(|kind| kind.is_dir()) => {}
                Ok(entry) => {
                    let reason = "it is no regular file (a pipe, a socket, a device)".to_owned();
                    let reason = SkipReason::Unreadable { reason };
                    found.push(Err(Skipped::new(entry.path(), reason)));
                }
                Err(error) => found.push(Err(skipped(&error, path))),
            }
        }
    }
    found
}

fn canonical(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn source(path: &Path, options: &IngestOptions) -> Result<SourceFile, Skipped> {
    let io = |error: std::io::Error| Skipped::from_io(path, &error);
    let metadata = std::fs::metadata(path).map_err(io)?;
    let bytes = metadata.len();
    if bytes == 0 {
        return Err(Skipped::new(path, SkipReason::Empty));
    }
    let format = Format::of(path).map_err(io)?;
    let format = format.ok_or_else(|| Skipped::new(path, SkipReason::Binary))?;
    if bytes > options.max_file_bytes && !matches!(format, Format::Jsonl | Format::Csv) {
        let reason = SkipReason::TooLarge { bytes, limit: options.max_file_bytes };
        return Err(Skipped::new(path, reason));
    }
    let id = path.to_string_lossy().replace('\\', "/");
    let id = id.strip_prefix("./").unwrap_or(&id).to_owned();
    Ok(SourceFile { path: path.to_owned(), id, bytes, modified: metadata.modified().ok(), format })
}

fn skipped(error: &Error, root: &Path) -> Skipped {
    let mut path = root.to_owned();
    let mut inner = error;
    loop {
        match inner {
            Error::WithPath { path: at, err } => {
                at.clone_into(&mut path);
                inner = err;
            }
            Error::WithDepth { err, .. } | Error::WithLineNumber { err, .. } => inner = err,
            Error::Loop { child, .. } => return Skipped::new(child, SkipReason::SymlinkLoop),
            Error::Io(io) => return Skipped::from_io(&path, io),
            other => {
                let reason = SkipReason::Unreadable { reason: other.to_string() };
                return Skipped::new(&path, reason);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_hidden_and_repeated_files() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        write(".gitignore", "build/\n");
        write("b.md", "b");
        write("a/z.txt", "z");
        write("build/out.txt", "out");
        write(".hidden.md", "hidden");
        write("empty.md", "");
        let paths = [dir.path().to_owned(), dir.path().join("b.md")];
        let found = walk(&paths, &IngestOptions::default());
        let names = found.iter().map(|found| match found {
            Ok(source) => source.path.strip_prefix(dir.path()).unwrap().display().to_string(),
            Err(skipped) => skipped.to_string().rsplit('/').next().unwrap().to_owned(),
        });
        assert_eq!(names.collect::<Vec<_>>(), ["a/z.txt", "b.md", "empty.md: it is empty"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_loop_of_links_is_told_and_left() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.md"), "a").unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("sub/up")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("broken")).unwrap();
        std::os::unix::fs::symlink("itself", dir.path().join("itself")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        let found = walk(&[dir.path().to_owned()], &IngestOptions::default());
        assert_eq!(found.iter().filter(|found| found.is_ok()).count(), 1);
        let reasons: Vec<&SkipReason> =
            found.iter().filter_map(|f| f.as_ref().err()).map(|s| &s.reason).collect();
        let loops = reasons.iter().filter(|reason| ***reason == SkipReason::SymlinkLoop).count();
        assert_eq!((loops, reasons.len()), (2, 4), "{reasons:?}");
        assert!(reasons.contains(&&SkipReason::NotFound), "{reasons:?}");
        let special = |reason: &&&SkipReason| matches!(reason, SkipReason::Unreadable { .. });
        assert_eq!(reasons.iter().filter(special).count(), 1, "{reasons:?}");
    }
}
