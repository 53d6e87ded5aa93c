//! Activations in host memory.

use super::buffer::Buffer;

/// `[n, width]` in host memory.
pub(in crate::ops) struct HostRows {
    pub(in crate::ops) values: Buffer,
    pub(in crate::ops) width: usize,
}

impl HostRows {
    /// `[n, width]` of arbitrary content, in memory of the pool that this came from.
    pub(in crate::ops) fn sibling(&self, width: usize) -> Self {
        Self { values: self.values.pool().get(self.n() * width), width }
    }

    /// Number of rows.
    pub(in crate::ops) fn n(&self) -> usize {
        self.values.len().checked_div(self.width).unwrap_or(0)
    }
}
