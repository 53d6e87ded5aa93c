//! The errors of this crate.

use crate::Format;

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

/// Mismatches of shapes and formats. They are found before anything is computed.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The length of a row is not a whole number of blocks.
    #[error("a row of {columns} elements cannot be {format}, which stores blocks of {block} elements")]
    PartialBlock {
        /// The format asked for.
        format: Format,
        /// Elements of the row.
        columns: usize,
        /// Elements of a block.
        block: usize,
    },
    /// A matrix has more bytes than `usize` counts.
    #[error("{rows} rows of {columns} elements in {format} are more bytes than this machine can address")]
    TooLarge {
        /// The format asked for.
        format: Format,
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        columns: usize,
    },
    /// The number of bytes is not that of the elements.
    #[error("{rows} rows of {columns} elements in {format} are {expected} bytes, not {found}")]
    Bytes {
        /// The format.
        format: Format,
        /// Rows; 1 where a single row was given.
        rows: usize,
        /// Elements of a row.
        columns: usize,
        /// Bytes of the elements.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// A value that the format cannot hold: NaN, infinite, or beyond the range of `f16`.
    #[error("element {element} of the row is {value}, which {format} cannot hold")]
    Value {
        /// The format asked for.
        format: Format,
        /// Index of the value in its row.
        element: usize,
        /// The value.
        value: f32,
    },
    /// The format is read but not written.
    #[error("{format} can be read but not written; write q8_0 or q4_0 instead")]
    ReadOnly {
        /// The format asked for.
        format: Format,
    },
    /// The number of activations is not a whole number of rows.
    #[error("{found} activations are not a whole number of rows of {columns}")]
    Input {
        /// Activations given.
        found: usize,
        /// Columns of the weights.
        columns: usize,
    },
    /// Matrices that share an input differ in their columns.
    #[error("a matrix has {found} columns where the input has {expected}")]
    Columns {
        /// Columns of the input.
        expected: usize,
        /// Columns of the matrix.
        found: usize,
    },
    /// The system has no memory for more keys and values.
    #[error("the system has no {bytes} bytes more for keys and values; shorten the sequence, or run fewer at once")]
    KvMemory {
        /// Bytes that were asked for.
        bytes: u64,
    },
    /// The memory for a result has another size than the result.
    #[error("a matmul of {n} rows of activations with {rows} rows of weights does not have {found} elements")]
    Output {
        /// Rows of activations.
        n: usize,
        /// Rows of weights.
        rows: usize,
        /// Elements of the memory for the result.
        found: usize,
    },
}
