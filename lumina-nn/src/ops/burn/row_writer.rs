//! An activation that is written a band of rows at a time.

use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

use super::kernel::Constant;

/// An activation `[batch, channels, height, width]` that is written a band of rows at a time, so that no more than a
/// band is there besides.
pub(super) struct RowWriter {
    shape: [usize; 4],
    written: Written,
}

enum Written {
    /// On the CPU backend, whose own zeros take their memory twice for a moment.
    Host(Vec<f32>, Device),
    Burn(Box<Tensor<4>>),
}

impl RowWriter {
    /// All zeros, of `height` rows; the other sizes, type and device are those of `band`.
    pub(super) fn new(height: usize, band: &Tensor<4>) -> Self {
        let [batch, channels, _, width] = band.dims();
        let shape = [batch, channels, height, width];
        let written = match Constant::unrecorded(band) {
            Some(_) => Written::Host(lumina_kernels::memory::zeros(shape.iter().product()), band.device()),
            None => Written::Burn(Box::new(Tensor::zeros(shape, (&band.device(), band.dtype())))),
        };
        Self { shape, written }
    }

    /// Writes the rows `rows`, which `band` `[batch, channels, rows.len(), width]` has.
    #[must_use]
    pub(super) fn write(self, rows: Range<usize>, band: Tensor<4>) -> Self {
        let [batch, channels, height, width] = self.shape;
        let written = match (self.written, Constant::unrecorded(&band)) {
            (Written::Host(mut values, device), Some(band)) => {
                let planes = values.par_chunks_exact_mut((height * width).max(1));
                planes.zip(band.values().par_chunks_exact((rows.len() * width).max(1))).for_each(|(plane, band)| {
                    plane[rows.start * width..rows.end * width].copy_from_slice(band);
                });
                Written::Host(values, device)
            }
            (written, _) => {
                let tensor = Self { shape: self.shape, written }.finish();
                Written::Burn(Box::new(tensor.slice_assign([0..batch, 0..channels, rows, 0..width], band)))
            }
        };
        Self { shape: self.shape, written }
    }

    /// The activation.
    pub(super) fn finish(self) -> Tensor<4> {
        match self.written {
            Written::Host(values, device) => Tensor::from_data(TensorData::new(values, self.shape), &device),
            Written::Burn(tensor) => *tensor,
        }
    }
}

/// Whether a tensor is in `f32` on the CPU backend and records no gradients: where the CPU kernels compute.
pub(super) fn is_on_cpu<const D: usize>(tensor: &Tensor<D>) -> bool {
    Constant::unrecorded(tensor).is_some()
}
