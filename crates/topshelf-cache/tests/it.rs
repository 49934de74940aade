//! The score cache with callers in threads, with real files, and with a process that is killed.

#[path = "it/callers.rs"]
mod callers;
#[path = "it/disk.rs"]
mod disk;
#[cfg(feature = "shared-tests")]
#[path = "it/shared.rs"]
mod shared;
#[path = "it/support.rs"]
mod support;
