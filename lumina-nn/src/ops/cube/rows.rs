//! Activations on a GPU.

use lumina_cube::{Buffer, Gpu};

use crate::Result;

/// `[n, width]` in `f32` on a GPU.
pub(in crate::ops) struct GpuRows {
    pub(in crate::ops) gpu: Gpu,
    pub(in crate::ops) values: Buffer,
    pub(in crate::ops) width: usize,
}

impl GpuRows {
    /// These values, on the device of the activations.
    pub(in crate::ops) fn with(&self, values: Buffer, width: usize) -> Self {
        Self { gpu: self.gpu.clone(), values, width }
    }

    /// Number of rows.
    pub(in crate::ops) fn n(&self) -> usize {
        self.values.len().checked_div(self.width).unwrap_or(0)
    }

    /// The values, once they are computed.
    pub(in crate::ops) fn read(&self) -> Result<Vec<f32>> {
        Ok(self.gpu.read_f32(&self.values)?)
    }
}
