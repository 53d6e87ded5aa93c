//! A matrix and where its product goes.

use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::Matrix;
use crate::scratch::Lanes;

/// A matrix and the place of its product with activations.
#[derive(Debug)]
pub struct Product<'a> {
    weight: Matrix<'a>,
    out: NonNull<f32>,
    len: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

#[allow(unsafe_code, reason = "threads write disjoint parts of one result")]
// SAFETY: it is a `&mut [f32]`, which may go to another thread.
unsafe impl Send for Product<'_> {}

#[allow(unsafe_code, reason = "threads write disjoint parts of one result")]
// SAFETY: behind a shared reference the only access to the floats is `set`, private to the products, whose tasks write disjoint
// parts; the caller has no access meanwhile, as the products take `&mut` of this and this holds the borrow of the floats.
unsafe impl Sync for Product<'_> {}

impl<'a> Product<'a> {
    /// `out` is `[n, rows]`, for `n` rows of activations.
    pub fn new(weight: Matrix<'a>, out: &'a mut [f32]) -> Self {
        let len = out.len();
        Self { weight, out: NonNull::from(out).cast(), len, borrow: PhantomData }
    }

    pub(super) fn weight(&self) -> Matrix<'a> {
        self.weight
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn clear(&mut self) {
        #[allow(unsafe_code, reason = "the slice was taken apart in `new`")]
        // SAFETY: the parts of the slice that `new` was given, whose borrow is still held; `&mut self` makes this the only access.
        let out = unsafe { std::slice::from_raw_parts_mut(self.out.as_ptr(), self.len) };
        out.fill(0.0);
    }

    /// Writes the bits of results for activation row `row`, from weight row `first` on, as far as there are weight rows. No two tasks may
    /// do so for the same place.
    pub(super) fn set(&self, row: usize, first: usize, bits: &[u32]) {
        let rows = self.weight.rows();
        let count = bits.len().min(rows.saturating_sub(first));
        if count == 0 {
            return;
        }
        let start = row * rows + first;
        assert!(start + count <= self.len, "the length of results was checked");
        #[allow(unsafe_code, reason = "threads write disjoint parts of one result")]
        // SAFETY: within the slice, by the line above; no other task writes here, and nobody reads before all have ended. `u32` and
        // `f32` have one layout, and every pattern is an `f32`.
        unsafe {
            let to = self.out.as_ptr().add(start);
            if let Ok(bits) = <&[u32; Lanes::COUNT]>::try_from(bits)
                && count == Lanes::COUNT
            {
                // Of a known length, which takes no call.
                to.cast::<[u32; Lanes::COUNT]>().write_unaligned(*bits);
            } else {
                std::ptr::copy_nonoverlapping(bits.as_ptr().cast(), to, count);
            }
        }
    }
}
