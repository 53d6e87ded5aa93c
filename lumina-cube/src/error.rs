//! The errors of this crate. Each message says what is wrong, where, and what to do.

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in `lumina-cube`.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such device, or the program was built without its feature.
    #[error("no GPU: {reason}")]
    NoDevice {
        /// Why, and what to do.
        reason: String,
    },
    /// The device failed, or its driver.
    #[error("the GPU failed while {doing}: {reason}")]
    Device {
        /// What it was doing.
        doing: &'static str,
        /// What the driver said, shortened.
        reason: String,
    },
    /// The device has no memory left.
    #[error("the GPU has no memory for {bytes} bytes more; use a smaller format of weights, or a shorter context")]
    OutOfMemory {
        /// How many bytes were asked for.
        bytes: u64,
    },
    /// Bytes that are no matrix of the shape and format.
    #[error("{found} bytes are no matrix [{rows}, {columns}] in {format}, which takes {expected}")]
    MatrixBytes {
        /// Number of bytes.
        found: usize,
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        columns: usize,
        /// The format.
        format: crate::Format,
        /// Bytes that it takes.
        expected: usize,
    },
    /// Numbers that are no weights of this shape.
    #[error("{found} numbers are no {what} of shape {shape:?}; check the file or the config")]
    Weights {
        /// Which weights.
        what: &'static str,
        /// How many numbers there are.
        found: usize,
        /// The shape.
        shape: Vec<usize>,
    },
}

impl Error {
    /// Whether memory is what lacks.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::OutOfMemory { .. })
    }
}
