//! Read-only memory-mapped files, and typed views of them.
//!
//! Beside the SIMD kernels the only `unsafe` of the project: mapping a file is sound only while
//! nobody changes it. The files that are mapped (vector files of an index, packed weights) are
//! written once under a temporary or new name, synced, and never changed afterwards; removing
//! one leaves existing maps valid on Unix.
//!
//! Views are little-endian as stored; on a big-endian machine [`MappedFile::open`] refuses.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::{Mmap, MmapMut};

/// A file in memory, page-aligned.
pub struct MappedFile {
    map: Mmap,
}

impl MappedFile {
    /// Maps the whole file.
    ///
    /// # Errors
    ///
    /// What the system answers; [`io::ErrorKind::Unsupported`] on a big-endian machine.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        if cfg!(target_endian = "big") {
            return Err(big_endian());
        }
        let file = File::open(path)?;
        // SAFETY: the files that the project maps are never changed after they were written
        // (see the head of this file).
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self { map })
    }

    /// Memory without a file that holds these bytes, page-aligned: the same views of something
    /// that could not be written to disk.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn of_bytes(bytes: &[u8]) -> io::Result<Self> {
        if cfg!(target_endian = "big") {
            return Err(big_endian());
        }
        let mut map = MmapMut::map_anon(bytes.len().max(1))?;
        map[..bytes.len()].copy_from_slice(bytes);
        Ok(Self { map: map.make_read_only()? })
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// `len` signed bytes from byte `at`.
    ///
    /// # Panics
    ///
    /// If they are not all in the file.
    pub fn slice_i8(&self, at: usize, len: usize) -> &[i8] {
        self.view(at, len)
    }

    /// `len` bytes from byte `at`.
    ///
    /// # Panics
    ///
    /// If they are not all in the file.
    pub fn slice_u8(&self, at: usize, len: usize) -> &[u8] {
        self.view(at, len)
    }

    /// `len` 16-bit integers from byte `at`.
    ///
    /// # Panics
    ///
    /// If they are not all in the file or `at` is not a multiple of 2.
    pub fn slice_u16(&self, at: usize, len: usize) -> &[u16] {
        self.view(at, len)
    }

    /// `len` 32-bit integers from byte `at`.
    ///
    /// # Panics
    ///
    /// If they are not all in the file or `at` is not a multiple of 4.
    pub fn slice_i32(&self, at: usize, len: usize) -> &[i32] {
        self.view(at, len)
    }

    /// `len` floats from byte `at`.
    ///
    /// # Panics
    ///
    /// If they are not all in the file or `at` is not a multiple of 4.
    pub fn slice_f32(&self, at: usize, len: usize) -> &[f32] {
        self.view(at, len)
    }

    /// `len` integers from byte `at`.
    ///
    /// # Panics
    ///
    /// If they are not all in the file or `at` is not a multiple of 8.
    pub fn slice_u64(&self, at: usize, len: usize) -> &[u64] {
        self.view(at, len)
    }

    /// Private: `T` is one of the number types above, for which every bit pattern is a value.
    fn view<T: Copy>(&self, at: usize, len: usize) -> &[T] {
        // Wrapping would make a short view of a length that no file has.
        let bytes = len.checked_mul(size_of::<T>()).expect("a length that memory can hold");
        let bytes = &self.map[at..][..bytes];
        // SAFETY: every bit pattern of the number types above is a value of theirs.
        let (before, values, after) = unsafe { bytes.align_to::<T>() };
        assert!(before.is_empty() && after.is_empty(), "a view at an aligned place");
        values
    }
}

fn big_endian() -> io::Error {
    let reason = "mapped files are little-endian; this machine is not";
    io::Error::new(io::ErrorKind::Unsupported, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(bytes: &[u8]) -> MappedFile {
        let path = std::env::temp_dir().join(format!(
            "topshelf-mapped-{}-{}",
            std::process::id(),
            bytes.len()
        ));
        std::fs::write(&path, bytes).unwrap();
        let file = MappedFile::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file
    }

    #[test]
    fn views_are_what_was_written() {
        let mut bytes = 7u64.to_le_bytes().to_vec();
        bytes.extend(1.5f32.to_le_bytes());
        bytes.extend([255, 127]);
        let file = mapped(&bytes);
        assert_eq!(file.slice_u64(0, 1), [7]);
        assert_eq!(file.slice_f32(8, 1), [1.5]);
        assert_eq!(file.slice_i8(12, 2), [-1, 127]);
        assert!(file.slice_f32(8, 0).is_empty());
    }

    #[test]
    #[should_panic(expected = "range end index")]
    fn a_view_beyond_the_end_is_refused() {
        mapped(&[0; 16]).slice_u64(8, 2);
    }

    #[test]
    #[should_panic(expected = "aligned")]
    fn a_misaligned_view_is_refused() {
        mapped(&[0; 24]).slice_u64(4, 1);
    }
}
