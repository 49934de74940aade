//! Lines of a text file with their numbers, for every reader of this crate.
//!
//! Tolerates what editors leave behind: a byte order mark at the start, Windows line ends, no
//! line end at the end, lines of white space only (skipped, but counted). Refuses bytes that are
//! not UTF-8, naming the line. One buffer is reused, so a file of any size costs its longest line.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::error::{EvalError, Result};

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Opens `path` for reading lines.
pub(crate) fn open(path: &Path) -> Result<BufReader<File>> {
    File::open(path).map(BufReader::new).map_err(|e| EvalError::io(path.display().to_string(), e))
}

/// A reader of numbered lines. `file` names the input in errors.
pub(crate) struct Lines<R> {
    reader: R,
    file: String,
    number: usize,
    buffer: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(reader: R, file: impl Into<String>) -> Self {
        Self { reader, file: file.into(), number: 0, buffer: Vec::new() }
    }

    /// The name of the input.
    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    /// The next line that is not blank, with its number from 1; `None` at the end. After
    /// [`EvalError::NotUtf8`] the next call goes on with the next line.
    pub(crate) fn next_line(&mut self) -> Result<Option<(usize, &str)>> {
        loop {
            self.buffer.clear();
            let read = self
                .reader
                .read_until(b'\n', &mut self.buffer)
                .map_err(|e| EvalError::io(self.file.as_str(), e))?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            if self.number == 1 && self.buffer.starts_with(BYTE_ORDER_MARK) {
                self.buffer.drain(..BYTE_ORDER_MARK.len());
            }
            while self.buffer.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
                self.buffer.pop();
            }
            if !self.buffer.iter().all(u8::is_ascii_whitespace) {
                break;
            }
        }
        match std::str::from_utf8(&self.buffer) {
            Ok(line) => Ok(Some((self.number, line))),
            Err(_) => Err(EvalError::NotUtf8 { file: self.file.clone(), line: self.number }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_blank_lines_and_marks_are_dropped() {
        let mut lines = Lines::new("\u{feff}a b\r\n\r\n  \nc".as_bytes(), "x");
        assert_eq!(lines.next_line().unwrap(), Some((1, "a b")));
        assert_eq!(lines.next_line().unwrap(), Some((4, "c")));
        assert_eq!(lines.next_line().unwrap(), None);
    }

    #[test]
    fn a_line_that_is_not_utf8_is_named_and_passed() {
        let mut lines = Lines::new(&b"a\n\xff\nb\n"[..], "x");
        assert_eq!(lines.next_line().unwrap(), Some((1, "a")));
        assert!(matches!(lines.next_line(), Err(EvalError::NotUtf8 { line: 2, .. })));
        assert_eq!(lines.next_line().unwrap(), Some((3, "b")));
    }
}
