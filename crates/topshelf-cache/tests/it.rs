//! The score cache with callers in threads, with real files, and with a process that is killed.

#[path = "it/callers.rs"]
mod callers;
#[path = "it/disk.rs"]
mod disk;
#[path = "it/support.rs"]
mod support;
