//! Numbers out of tensors and files.

use burn::tensor::Tensor;
use lumina_checkpoint::Checkpoint;

use crate::{Error, Result};

/// A tensor's values on the host.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    Ok(lumina_nn::ops::read(tensor)?)
}

/// The floats of a checkpoint's tensor, which must be this many.
pub(crate) fn floats(checkpoint: &Checkpoint, name: &str, length: usize) -> Result<Vec<f32>> {
    let broken = |reason: String| Error::TrainingState { file: checkpoint.path().to_owned(), reason };
    let view = checkpoint.get(name).ok_or_else(|| broken(format!("`{name}` is missing")))?;
    let values = view.to_f32()?;
    if values.len() != length {
        return Err(broken(format!("`{name}` has {} numbers, expected {length}", values.len())));
    }
    Ok(values)
}
