//! A linear layer that knows where its weight lives.

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor, TensorData};

use super::MappedMatrix;
use super::matmul::matmul_transposed;

/// `x · Wᵀ + b`, with `W` `[outputs, inputs]` as checkpoints store it.
///
/// In inference on a CPU the weight stays in the checkpoint's mapping; on GPUs and in training it is a Burn parameter.
/// Made by [`Loader::linear`](crate::Loader::linear).
#[derive(Module, Debug)]
pub struct Linear {
    weight: Weight,
    bias: Option<Param<Tensor<1>>>,
}

#[derive(Module, Debug)]
pub(crate) enum Weight {
    Tensor(Param<Tensor<2>>),
    Mapped(MappedMatrix),
}

impl Linear {
    pub(crate) fn new(weight: Weight, bias: Option<Param<Tensor<1>>>) -> Self {
        Self { weight, bias }
    }

    /// Applies the layer: `[n, inputs]` → `[n, outputs]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let y = match &self.weight {
            Weight::Tensor(weight) => {
                let weight = weight.val().cast(x.dtype());
                x.matmul(weight.transpose())
            }
            Weight::Mapped(weight) => mapped(x, weight),
        };
        match &self.bias {
            Some(bias) => {
                let bias = bias.val().cast(y.dtype());
                y + bias.unsqueeze()
            }
            None => y,
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
