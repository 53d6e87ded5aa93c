//! Sixteen rows of weights, one after the other.

use std::ops::Range;

use super::arithmetic::Arithmetic;
use crate::scratch::{self, Lanes, Use};
use crate::{Format, Matrix};

/// Sixteen rows of a matrix: what becomes the lanes of vectors.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) format: Format,
    pub(super) columns: usize,
    /// 16 rows, of which `len` bytes each, `row_bytes` apart.
    bytes: &'a [u8],
    len: usize,
    row_bytes: usize,
}

impl<'a> Source<'a> {
    const ROWS: usize = Lanes::COUNT;

    /// Rows `first..first + 16` of a matrix that has as many as 16; where it ends sooner, its last 16. Also how many of them lie before
    /// `first`.
    pub(super) fn new(matrix: Matrix<'a>, first: usize) -> (Self, usize) {
        let start = first.min(matrix.rows() - Self::ROWS);
        let row_bytes = matrix.row(start).len();
        let bytes = matrix.row_range(start, Self::ROWS);
        let source = Self { format: matrix.format(), columns: matrix.columns(), bytes, len: row_bytes, row_bytes };
        (source, Self::before(matrix, first))
    }

    /// How many of the rows that [`new`](Self::new) gives lie before `first`.
    pub(super) fn before(matrix: Matrix<'a>, first: usize) -> usize {
        first.saturating_sub(matrix.rows() - Self::ROWS)
    }

    /// The bytes of a row.
    pub(super) fn lane(&self, lane: usize) -> &'a [u8] {
        &self.bytes[lane * self.row_bytes..][..self.len]
    }

    /// Some steps of the rows, as far as there are columns.
    pub(super) fn steps(&self, steps: &Range<usize>, arithmetic: Arithmetic) -> Self {
        let column = |step: usize| (step * arithmetic.step_elements()).min(self.columns);
        let (from, to) = (column(steps.start), column(steps.end));
        let (start, end) = (self.format.bytes_of(from), self.format.bytes_of(to));
        Self { columns: to - from, bytes: &self.bytes[start..], len: end - start, ..*self }
    }

    /// Where rows lie, or would lie, from row `row` on.
    pub(super) fn rows(&self, row: usize) -> Rows {
        Rows { address: self.address(row), row_bytes: self.row_bytes, len: self.len, tile: std::ptr::null() }
    }

    /// Where row `lane` lies, or beyond 16, where it would: what will be wanted next, be it of another matrix, or nothing at all.
    pub(super) fn address(&self, lane: usize) -> *const u8 {
        self.bytes.as_ptr().wrapping_add(lane * self.row_bytes)
    }

    /// Bytes `start..start + BYTES` of every row.
    ///
    /// # Panics
    ///
    /// If rows are shorter, which callers rule out by counting.
    #[inline(always)]
    pub(super) fn blocks<const BYTES: usize>(&self, start: usize) -> Blocks<'a, BYTES> {
        assert!(start + BYTES <= self.len && (Self::ROWS - 1) * self.row_bytes + self.len <= self.bytes.len());
        Blocks { bytes: &self.bytes[start..], row_bytes: self.row_bytes }
    }
}

/// Addresses of rows that will be wanted, which nothing is read from.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) address: *const u8,
    pub(super) row_bytes: usize,
    /// Bytes of a row that will be wanted, or of a share of them all.
    pub(super) len: usize,
    /// Where the tile of activations lies that will be wanted.
    pub(super) tile: *const u32,
}

impl Rows {
    /// The rows from row `row` on.
    pub(super) fn from(self, row: usize) -> Self {
        Self { address: self.get(row), ..self }
    }

    /// Share `index` of `count` of all bytes of so many rows.
    pub(super) fn share(self, rows: usize, index: usize, count: usize) -> Self {
        let at = |index: usize| rows * self.row_bytes * index / count;
        Self { address: self.address.wrapping_add(at(index)), len: at(index + 1) - at(index), ..self }
    }

    /// The address of row `row`.
    pub(super) fn get(self, row: usize) -> *const u8 {
        self.address.wrapping_add(row * self.row_bytes)
    }
}

/// The same `BYTES` bytes of 16 rows, for loads without further checks.
#[derive(Clone, Copy)]
pub(super) struct Blocks<'a, const BYTES: usize> {
    bytes: &'a [u8],
    row_bytes: usize,
}

impl<'a, const BYTES: usize> Blocks<'a, BYTES> {
    /// Bytes `AT..AT + LEN` of row `lane`.
    #[inline(always)]
    pub(super) fn get<const AT: usize, const LEN: usize>(&self, lane: usize) -> &'a [u8; LEN] {
        const { assert!(AT + LEN <= BYTES) };
        assert!(lane < Lanes::COUNT);
        #[allow(unsafe_code, reason = "a check for each load takes longer than the load")]
        // SAFETY: `blocks`, which alone makes these, has seen to it that `BYTES` bytes of each of 16 rows lie in `bytes`, from
        // `lane * row_bytes` on; `AT + LEN` is no more, and `lane` is less than 16.
        unsafe {
            // Within the addressing modes of processors: a row and a multiple of four rows.
            &*self.bytes.as_ptr().add(lane % 4 * self.row_bytes).add(lane / 4 * (4 * self.row_bytes) + AT).cast()
        }
    }
}

/// Calls `work` with a matrix that has at least 16 rows: the given one, or one with copies of its rows behind them.
pub(super) fn with_sixteen<R>(matrix: Matrix<'_>, work: impl FnOnce(Matrix<'_>) -> R) -> R {
    if matrix.rows() >= Lanes::COUNT || matrix.rows() == 0 {
        return work(matrix);
    }
    let row_bytes = matrix.row(0).len();
    let bytes = row_bytes * Lanes::COUNT;
    scratch::with(Use::Rows, bytes.div_ceil(size_of::<Lanes>()), |lanes| {
        let copy = &mut Lanes::bytes_mut(lanes)[..bytes];
        for (lane, to) in copy.chunks_exact_mut(row_bytes).enumerate() {
            to.copy_from_slice(matrix.row(lane % matrix.rows()));
        }
        let copy = Matrix::new(matrix.format(), Lanes::COUNT, matrix.columns(), copy);
        work(copy.expect("sixteen rows of a matrix are a matrix"))
    })
}
