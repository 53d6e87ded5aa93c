//! Sixteen rows of weights, one after the other.

use crate::scratch::{self, Lanes, Use};
use crate::{Format, Matrix};

/// Sixteen rows of a matrix: what becomes the lanes of vectors.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) format: Format,
    pub(super) columns: usize,
    /// The bytes of exactly 16 rows.
    bytes: &'a [u8],
    row_bytes: usize,
    /// What lies behind them: as a rule, what will be wanted next.
    behind: &'a [u8],
}

impl<'a> Source<'a> {
    const ROWS: usize = Lanes::COUNT;

    /// Rows `first..first + 16` of a matrix that has as many as 16; where it ends sooner, its last 16. Also how many of them lie before
    /// `first`.
    pub(super) fn new(matrix: Matrix<'a>, first: usize) -> (Self, usize) {
        let start = first.min(matrix.rows() - Self::ROWS);
        let source = Self {
            format: matrix.format(),
            columns: matrix.columns(),
            bytes: matrix.row_range(start, Self::ROWS),
            row_bytes: matrix.row(start).len(),
            behind: matrix.row_range(start + Self::ROWS, Self::ROWS),
        };
        (source, first - start)
    }

    /// The bytes of a row.
    pub(super) fn lane(&self, lane: usize) -> &'a [u8] {
        &self.bytes[lane * self.row_bytes..][..self.row_bytes]
    }

    /// As many bytes as `lanes` rows have, after rows `..lane`: what will be wanted next.
    pub(super) fn after(&self, lane: usize, lanes: usize) -> &'a [u8] {
        let bytes = if lane < Self::ROWS { &self.bytes[lane * self.row_bytes..] } else { self.behind };
        &bytes[..bytes.len().min(lanes * self.row_bytes)]
    }

    /// Bytes `start..start + BYTES` of every row.
    ///
    /// # Panics
    ///
    /// If rows are shorter, which callers rule out by counting.
    #[inline(always)]
    pub(super) fn blocks<const BYTES: usize>(&self, start: usize) -> Blocks<'a, BYTES> {
        assert!(start + BYTES <= self.row_bytes && self.bytes.len() == Self::ROWS * self.row_bytes);
        Blocks { bytes: &self.bytes[start..], row_bytes: self.row_bytes }
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
            &*self.bytes.as_ptr().add(lane * self.row_bytes + AT).cast()
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
