//! The result of a convolution, which threads write row by row.

use crate::memory::SharedOutput;
use crate::simd::LANES;

/// A result `[planes, rows, width]`.
pub(super) struct OutputPlanes<'a> {
    output: SharedOutput<'a>,
    rows: usize,
    width: usize,
}

/// Where [`OutputPlanes::store`] writes.
#[derive(Clone, Copy)]
pub(super) struct OutputPosition {
    pub(super) plane: usize,
    pub(super) row: usize,
    pub(super) column: usize,
}

impl<'a> OutputPlanes<'a> {
    /// `output` is `[planes, rows, width]`.
    pub(super) fn new(output: SharedOutput<'a>, rows: usize, width: usize) -> Self {
        Self { output, rows, width }
    }

    /// Stores a vector of columns of a row, as far as the row has columns.
    ///
    /// # Safety
    ///
    /// The position is one of the output, and no other thread stores to this row of this plane.
    #[inline(always)]
    #[allow(unsafe_code, reason = "threads write disjoint rows of one result")]
    pub(super) unsafe fn store(&self, position: OutputPosition, values: &[f32; LANES]) {
        let OutputPosition { plane, row, column } = position;
        let n = LANES.min(self.width.saturating_sub(column));
        debug_assert!(row < self.rows, "a row of the output");
        let start = (plane * self.rows + row) * self.width + column.min(self.width);
        // SAFETY: the values are in this row, which is the caller's alone.
        unsafe {
            if n == LANES {
                // Of constant length, which takes no call.
                self.output.write(start, values);
            } else {
                self.output.write(start, &values[..n]);
            }
        }
    }
}
