//! Memory for a result that is written in parts.

use burn::tensor::{Tensor, TensorData};

use super::burn::kernel::Constant;

/// Zeros of a shape, of the type and on the device of `like`.
///
/// On the CPU backend Burn's own zeros take their memory twice for a moment; these do not.
pub fn zeros<const D: usize>(shape: [usize; D], like: &Tensor<D>) -> Tensor<D> {
    match Constant::unrecorded(like) {
        Some(_) => Tensor::from_data(TensorData::new(vec![0.0f32; shape.iter().product()], shape), &like.device()),
        None => Tensor::zeros(shape, (&like.device(), like.dtype())),
    }
}
