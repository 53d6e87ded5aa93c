//! A weight matrix in the bytes of a file.

use crate::{Error, Format, Result};

/// A borrowed matrix `[rows, columns]` of weights: row by row without padding, at any alignment.
///
/// ```
/// use lumina_kernels::{Format, Matrix};
///
/// let bytes = [0u8; 3 * 18];
/// let w = Matrix::new(Format::Q4_0, 3, 32, &bytes)?;
/// assert_eq!((w.rows(), w.columns(), w.row(2).len()), (3, 32, 18));
/// assert!(Matrix::new(Format::Q4_0, 4, 32, &bytes).is_err());
/// # Ok::<(), lumina_kernels::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    format: Format,
    rows: usize,
    columns: usize,
    row_bytes: usize,
    bytes: &'a [u8],
}

impl<'a> Matrix<'a> {
    /// The matrix in `bytes`.
    ///
    /// # Errors
    ///
    /// If `columns` is not a whole number of blocks, or `bytes` has another length than the matrix.
    pub fn new(format: Format, rows: usize, columns: usize, bytes: &'a [u8]) -> Result<Self> {
        let expected = format.matrix_bytes(rows, columns)?;
        if bytes.len() != expected {
            return Err(Error::Bytes { format, rows, columns, expected, found: bytes.len() });
        }
        Ok(Self { format, rows, columns, row_bytes: format.row_bytes(columns)?, bytes })
    }

    /// The format of the elements.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Number of rows: outputs of a linear layer.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns: inputs of a linear layer.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// All bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The bytes of row `row`; empty if there is no such row.
    pub fn row(&self, row: usize) -> &'a [u8] {
        self.row_range(row, 1)
    }

    /// Rows `first..first + count`, as far as there are rows, as a matrix: for example the head's rows of the candidate
    /// tokens.
    pub fn rows_from(&self, first: usize, count: usize) -> Self {
        let first = first.min(self.rows);
        let rows = count.min(self.rows - first);
        Self { rows, bytes: self.row_range(first, rows), ..*self }
    }

    /// The bytes of rows `first..first + count`, as far as there are rows.
    pub(crate) fn row_range(&self, first: usize, count: usize) -> &'a [u8] {
        let first = first.min(self.rows);
        let end = first.saturating_add(count).min(self.rows);
        &self.bytes[first * self.row_bytes..end * self.row_bytes]
    }
}

impl std::fmt::Debug for Matrix<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Matrix")
            .field("format", &self.format)
            .field("rows", &self.rows)
            .field("columns", &self.columns)
            .finish_non_exhaustive()
    }
}
