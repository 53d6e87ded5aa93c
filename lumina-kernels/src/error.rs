//! The errors of this crate: what was given, and what was expected.

use crate::Format;

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong in `lumina-kernels`: all of it is known before any arithmetic begins.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A row is no whole number of blocks.
    #[error("a row of {columns} elements cannot be {format}, which stores blocks of {block} elements")]
    PartialBlock {
        /// The format asked for.
        format: Format,
        /// Elements of the row.
        columns: usize,
        /// Elements of a block.
        block: usize,
    },
    /// A matrix has more bytes than an address space.
    #[error("{rows} rows of {columns} elements in {format} are more bytes than this machine can address")]
    TooLarge {
        /// The format asked for.
        format: Format,
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        columns: usize,
    },
    /// The bytes are not those of so many elements.
    #[error("{rows} rows of {columns} elements in {format} are {expected} bytes, not {found}")]
    Bytes {
        /// The format.
        format: Format,
        /// Rows; 1 where a single row was given.
        rows: usize,
        /// Elements of a row.
        columns: usize,
        /// Bytes that they take.
        expected: usize,
        /// Bytes that were given.
        found: usize,
    },
    /// A value that the format cannot hold: not a number, infinite, or beyond the range of `f16`.
    #[error("element {element} of the row is {value}, which {format} cannot hold")]
    Value {
        /// The format asked for.
        format: Format,
        /// Place of the value in its row.
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
    /// Activations are no whole number of rows.
    #[error("{found} activations are no whole number of rows of {columns}")]
    Input {
        /// Activations that were given.
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
    /// The place for the result has another size than the result.
    #[error("the product of {n} rows of activations with {rows} rows of weights has not {found} elements")]
    Output {
        /// Rows of activations.
        n: usize,
        /// Rows of weights.
        rows: usize,
        /// Elements of the place for the result.
        found: usize,
    },
}
