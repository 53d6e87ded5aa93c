//! A weight matrix, wherever it lives, and its product with activations.

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor, TensorData};

use super::MappedMatrix;
use super::matmul::matmul_transposed;

/// A matrix `[outputs, inputs]`: a Burn parameter, or in the checkpoint's mapping.
#[derive(Module, Debug)]
pub(crate) enum Weight {
    Tensor(Param<Tensor<2>>),
    Mapped(MappedMatrix),
}

impl Weight {
    /// `x · Wᵀ`: `[n, inputs]` → `[n, outputs]`, in the type of `x`.
    pub(super) fn product(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Tensor(weight) => {
                let weight = weight.val().cast(x.dtype());
                #[cfg(feature = "flex")]
                if let Some(y) = super::flex::linear(&x, &weight) {
                    return y;
                }
                x.matmul(weight.transpose())
            }
            Self::Mapped(weight) => mapped(x, weight),
        }
    }
}

/// Meets Burn at the activations: on a CPU device reading them is a move, not a copy.
fn mapped(x: Tensor<2>, weight: &MappedMatrix) -> Tensor<2> {
    let device = x.device();
    let [n, _] = x.dims();
    let data = x.into_data();
    let x = data.as_slice::<f32>().expect("mapped weights compute in f32, which Compute::check made sure of");
    let y = matmul_transposed(x, weight);
    Tensor::from_data(TensorData::new(y, [n, weight.rows()]), (&device, DType::F32))
}
