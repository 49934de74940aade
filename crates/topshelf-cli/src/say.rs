//! Words to the person at the terminal, on standard error.
//!
//! A line that cannot be written (the reader of a pipe has gone, a disk is full) is left out: words cost no
//! answer. `eprintln!` would panic there, so this crate does not use it. Texts and names of files are a
//! stranger's, so characters that do something to a terminal are left out too.

use std::io::Write as _;

use crate::table::is_text;

/// Writes text to standard error, without what controls a terminal.
pub(crate) fn write(text: &str) {
    let text: String = text.chars().filter(|c| is_text(*c) || matches!(c, '\n' | '\t')).collect();
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// Writes a line to standard error, as `eprintln!` does, without what controls a terminal.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::say::write(&format!("{}\n", format_args!($($text)*)))
    };
}

pub(crate) use say;
