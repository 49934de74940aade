//! Matrix products with what follows them in the same pass.

#![allow(unsafe_code)]

pub(crate) mod activation;
pub mod bf16;
pub(crate) mod exp;
pub mod f32;
pub mod grouped;
pub mod i8;
pub(crate) mod tile;

pub use activation::Activation;
use activation::Apply;

use crate::simd::{LANES, Simd};

/// Where a tile of a result goes: row r, vector u at `start + r · stride + 16 · u`.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    start: *mut f32,
    stride: usize,
    /// Elements of a row from `start` on that belong to the result; more are not written.
    room: usize,
}

impl Target {
    /// The tile whose first element is `out[first]`, in a row that ends at `out[end]`.
    ///
    /// # Panics
    ///
    /// Where `rows` rows reach beyond `out`.
    #[inline(always)]
    pub(crate) fn new(
        out: &mut [f32],
        first: usize,
        end: usize,
        (rows, stride): (usize, usize),
    ) -> Self {
        let room = end.saturating_sub(first);
        assert!(room == 0 || first + (rows - 1) * stride + room <= out.len(), "room for a tile");
        Self { start: out.as_mut_ptr().wrapping_add(first), stride, room }
    }

    /// # Safety
    ///
    /// Row `r` is one of those that `new` was told of, and its memory still borrowed.
    #[inline(always)]
    pub(crate) unsafe fn store<S: Simd>(self, s: S, r: usize, u: usize, value: S::F) {
        let place = self.start.wrapping_add(r * self.stride + u * LANES);
        if (u + 1) * LANES <= self.room {
            // SAFETY: sixteen elements of a row of the result.
            s.store(value, unsafe { &mut *place.cast::<[f32; LANES]>() });
        } else if u * LANES < self.room {
            let mut part = [0.0; LANES];
            s.store(value, &mut part);
            // SAFETY: the elements of the row that are left.
            unsafe { part.as_ptr().copy_to_nonoverlapping(place, self.room - u * LANES) };
        }
    }

    /// What was stored there.
    ///
    /// # Safety
    ///
    /// As for `store`; and vector u was stored.
    #[inline(always)]
    unsafe fn load<S: Simd>(self, s: S, r: usize, u: usize) -> S::F {
        let place = self.start.wrapping_add(r * self.stride + u * LANES);
        if (u + 1) * LANES <= self.room {
            // SAFETY: sixteen elements of a row of the result.
            return s.load(unsafe { &*place.cast::<[f32; LANES]>() });
        }
        let mut part = [0.0; LANES];
        let room = self.room.saturating_sub(u * LANES);
        // SAFETY: the elements of the row that are left.
        unsafe { place.copy_to_nonoverlapping(part.as_mut_ptr(), room) };
        s.load(&part)
    }

    /// Applies the activation to a tile that was stored. It is done apart from storing so that the
    /// tile's sums are used up in one straight line and never leave their registers.
    ///
    /// # Safety
    ///
    /// As for `store`, of all vectors of the tile.
    #[inline(always)]
    pub(crate) unsafe fn activate<S: Simd, const ROWS: usize, const UNITS: usize>(
        self,
        s: S,
        activation: impl Apply,
    ) {
        if activation.is_identity() {
            return;
        }
        for r in 0..ROWS {
            for u in 0..UNITS {
                // SAFETY: as the caller vouches.
                unsafe { self.store(s, r, u, activation.apply(s, self.load(s, r, u))) };
            }
        }
    }
}

/// Sixteen elements from `first` on.
#[inline(always)]
pub(crate) fn lanes<T>(values: &[T], first: usize) -> &[T; LANES] {
    values[first..first + LANES].try_into().expect("sixteen elements")
}
