//! Sixteen rows of weights: what becomes the lanes of vectors.

use std::ops::Range;

use super::arithmetic::Arithmetic;
use crate::scratch::{self, Lanes, Purpose};
#[cfg(target_arch = "x86_64")]
use crate::simd::prefetch::{LINE, prefetch};
use crate::{Format, Matrix};

/// Sixteen consecutive rows of a matrix, or a range of their columns.
#[derive(Clone, Copy)]
pub(super) struct WeightRows<'a> {
    pub(super) format: Format,
    pub(super) columns: usize,
    /// From the first row on. Each row has `len` bytes, `row_bytes` after the one before.
    bytes: &'a [u8],
    len: usize,
    row_bytes: usize,
}

impl<'a> WeightRows<'a> {
    const COUNT: usize = Lanes::COUNT;

    /// Rows `first..first + 16` of a matrix with at least 16; near its end the last 16, of which
    /// [`rows_before`](Self::rows_before) lie before `first`.
    pub(super) fn new(matrix: Matrix<'a>, first: usize) -> Self {
        let start = first.min(matrix.rows() - Self::COUNT);
        let row_bytes = matrix.row(start).len();
        let bytes = matrix.row_range(start, Self::COUNT);
        Self { format: matrix.format(), columns: matrix.columns(), bytes, len: row_bytes, row_bytes }
    }

    /// How many of the rows that [`new`](Self::new) returns lie before `first`.
    pub(super) fn rows_before(matrix: Matrix<'a>, first: usize) -> usize {
        first.saturating_sub(matrix.rows() - Self::COUNT)
    }

    /// The bytes of a row.
    pub(super) fn row(&self, row: usize) -> &'a [u8] {
        &self.bytes[row * self.row_bytes..][..self.len]
    }

    /// A range of steps of the rows, as far as there are columns.
    pub(super) fn steps(&self, steps: &Range<usize>, arithmetic: Arithmetic) -> Self {
        let column = |step: usize| (step * arithmetic.step_elements()).min(self.columns);
        let (from, to) = (column(steps.start), column(steps.end));
        let (start, end) = (self.format.bytes_of(from), self.format.bytes_of(to));
        Self { columns: to - from, bytes: &self.bytes[start..], len: end - start, ..*self }
    }

    /// The addresses of rows from row `row` on, to prefetch them.
    pub(super) fn prefetch_from(&self, row: usize) -> PrefetchRows {
        PrefetchRows { address: self.address(row), row_bytes: self.row_bytes, len: self.len, tile: std::ptr::null() }
    }

    /// The address of row `row`. Beyond 16 it is the address that the row would have, which may be in another matrix,
    /// or outside of any memory.
    pub(super) fn address(&self, row: usize) -> *const u8 {
        self.bytes.as_ptr().wrapping_add(row * self.row_bytes)
    }

    /// Bytes `start..start + BYTES` of every row.
    ///
    /// # Panics
    ///
    /// If rows are shorter, which callers rule out by counting.
    #[inline(always)]
    pub(super) fn blocks<const BYTES: usize>(&self, start: usize) -> RowBlocks<'a, BYTES> {
        assert!(start + BYTES <= self.len && (Self::COUNT - 1) * self.row_bytes + self.len <= self.bytes.len());
        RowBlocks { bytes: &self.bytes[start..], row_bytes: self.row_bytes }
    }
}

/// Addresses to prefetch. Nothing is read from them.
#[derive(Clone, Copy)]
pub(super) struct PrefetchRows {
    /// Of the first row of weights.
    pub(super) address: *const u8,
    /// Distance between rows.
    pub(super) row_bytes: usize,
    /// Bytes of a row, or of a share of all rows.
    pub(super) len: usize,
    /// Of the next tile of activations.
    pub(super) tile: *const u32,
}

impl PrefetchRows {
    /// The rows from row `row` on.
    pub(super) fn at_row(self, row: usize) -> Self {
        Self { address: self.row(row), ..self }
    }

    /// Share `index` of `count` equal shares of all bytes of `rows` rows.
    pub(super) fn share(self, rows: usize, index: usize, count: usize) -> Self {
        let at = |index: usize| rows * self.row_bytes * index / count;
        Self { address: self.address.wrapping_add(at(index)), len: at(index + 1) - at(index), ..self }
    }

    /// Prefetches [`len`](Self::len) bytes from the first row on.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn prefetch(self) {
        (0..self.len).step_by(LINE).for_each(|byte| prefetch(self.address, byte));
    }

    /// The address of row `row`.
    pub(super) fn row(self, row: usize) -> *const u8 {
        self.address.wrapping_add(row * self.row_bytes)
    }
}

/// The same `BYTES` bytes of 16 rows, for loads without further checks.
#[derive(Clone, Copy)]
pub(super) struct RowBlocks<'a, const BYTES: usize> {
    bytes: &'a [u8],
    row_bytes: usize,
}

impl<'a, const BYTES: usize> RowBlocks<'a, BYTES> {
    /// Bytes `AT..AT + LEN` of row `row`.
    #[inline(always)]
    pub(super) fn get<const AT: usize, const LEN: usize>(&self, row: usize) -> &'a [u8; LEN] {
        const { assert!(AT + LEN <= BYTES) };
        assert!(row < Lanes::COUNT);
        #[allow(unsafe_code, reason = "a check for each load takes longer than the load")]
        // SAFETY: only `WeightRows::blocks` makes these. It checks that `bytes` has `BYTES` bytes of each of 16 rows,
        // from `row * row_bytes` on. `AT + LEN` is no more than `BYTES`, and `row` is less than 16, by the lines above.
        unsafe {
            // For the addressing modes of processors: a row and a multiple of four rows.
            &*self.bytes.as_ptr().add(row % 4 * self.row_bytes).add(row / 4 * (4 * self.row_bytes) + AT).cast()
        }
    }
}

/// Calls `work` with a matrix that has at least 16 rows: the given one, or a copy with its rows repeated.
pub(super) fn with_min_rows<R>(matrix: Matrix<'_>, work: impl FnOnce(Matrix<'_>) -> R) -> R {
    if matrix.rows() >= Lanes::COUNT || matrix.rows() == 0 {
        return work(matrix);
    }
    let row_bytes = matrix.row(0).len();
    let bytes = row_bytes * Lanes::COUNT;
    scratch::with(Purpose::Rows, bytes.div_ceil(size_of::<Lanes>()), |lanes| {
        let copy = &mut Lanes::bytes_mut(lanes)[..bytes];
        for (row, to) in copy.chunks_exact_mut(row_bytes).enumerate() {
            to.copy_from_slice(matrix.row(row % matrix.rows()));
        }
        let copy = Matrix::new(matrix.format(), Lanes::COUNT, matrix.columns(), copy);
        work(copy.expect("sixteen rows of a matrix are a matrix"))
    })
}
