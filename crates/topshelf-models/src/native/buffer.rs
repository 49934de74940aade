//! [`Buffer`]: memory that the forward pass writes to, call after call.

use std::fmt;
use std::ops::{Deref, DerefMut};

use aligned_vec::{AVec, ConstAlign};

/// The longest vectors of any instruction set, and the cache lines of most processors. The
/// allocator's own alignment is 16 bytes, with which nearly every such vector lies in two lines;
/// that took 3 percent of a call's time.
const ALIGNMENT: usize = 64;

/// Elements from the start of a cache line on. It grows to what is needed once and is used again.
pub(crate) struct Buffer<T>(AVec<T, ConstAlign<ALIGNMENT>>);

impl<T: Copy + Default> Buffer<T> {
    /// The first `length` elements, whatever they are; the buffer grows to that and never shrinks, so
    /// that nothing is filled again from call to call.
    pub(crate) fn at_least(&mut self, length: usize) -> &mut [T] {
        if self.0.len() < length {
            self.resize(length);
        }
        &mut self.0[..length]
    }

    /// Keeps the first `length` elements; what is missing is 0.
    pub(crate) fn resize(&mut self, length: usize) {
        self.0.resize(length, T::default());
    }

    /// Makes it `length` times 0.
    pub(crate) fn fill_with_zeros(&mut self, length: usize) {
        self.0.clear();
        self.resize(length);
    }

    /// Makes it a copy of `values`.
    pub(crate) fn copy_from(&mut self, values: &[T]) {
        self.0.clear();
        self.0.extend_from_slice(values);
    }
}

impl<T> Default for Buffer<T> {
    fn default() -> Self {
        Self(AVec::new(ALIGNMENT))
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<T> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("length", &self.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_at_a_line_and_keeps_what_it_holds() {
        let mut buffer = Buffer::<f32>::default();
        for length in [1, 7, 40, 5000] {
            buffer.at_least(length)[length - 1] = length as f32;
            assert_eq!(buffer.as_ptr() as usize % ALIGNMENT, 0);
        }
        assert_eq!((buffer[0], buffer[6], buffer[39], buffer[4999]), (1.0, 7.0, 40.0, 5000.0));
        assert_eq!(buffer.at_least(3).len(), 3);
        assert_eq!(buffer.len(), 5000);
        buffer.fill_with_zeros(2);
        assert_eq!(buffer[..], [0.0, 0.0]);
        buffer.copy_from(&[3.0]);
        buffer.resize(2);
        assert_eq!(buffer[..], [3.0, 0.0]);
    }
}
