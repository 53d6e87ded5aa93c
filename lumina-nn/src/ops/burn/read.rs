//! Reading tensors back: the one place where a device's failure is met.

use burn::tensor::Tensor;

use crate::{Error, Result};

/// The values of a tensor in `f32`, row-major. On a CPU device it is a move, where this is the only handle.
///
/// # Errors
/// [`Error::Device`] with what the backend reported.
pub fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let data = tensor.try_into_data().map_err(Error::device)?;
    data.convert::<f32>().try_into_vec::<f32>().map_err(Error::device)
}
