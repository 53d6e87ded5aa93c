//! Numbers out of tensors and files.

use burn::tensor::{DType, Tensor};
use lumina_checkpoint::Checkpoint;

use crate::{Error, Result};

/// A tensor's values on the host.
pub(super) fn values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let failed = |error: &dyn std::fmt::Debug| Error::Compute { reason: format!("{error:?}") };
    let data = tensor.try_into_data().map_err(|error| failed(&error))?;
    data.convert_dtype(DType::F32).try_into_vec::<f32>().map_err(|error| failed(&error))
}

/// The floats of a checkpoint's tensor, which must be this many.
pub(super) fn floats(checkpoint: &Checkpoint, name: &str, length: usize) -> Result<Vec<f32>> {
    let broken = |reason: String| Error::TrainingState { file: checkpoint.path().to_owned(), reason };
    let view = checkpoint.get(name).ok_or_else(|| broken(format!("`{name}` is missing")))?;
    let values = view.to_f32()?;
    if values.len() != length {
        return Err(broken(format!("`{name}` has {} numbers, expected {length}", values.len())));
    }
    Ok(values)
}
