//! A linear layer that knows where its weight lives.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::low_rank::LowRank;
use super::weight::Weight;

/// `x · Wᵀ + b`, with `W` `[outputs, inputs]` as checkpoints store it, plus the update of an adapter where there is one.
///
/// In inference on a CPU the weights stay in the checkpoint's mapping; on GPUs and in training they are Burn parameters.
/// Made by [`Loader::linear`](crate::Loader::linear).
#[derive(Module, Debug)]
pub struct Linear {
    weight: Weight,
    bias: Option<Param<Tensor<1>>>,
    low_rank: Option<LowRank>,
}

impl Linear {
    pub(crate) fn new(weight: Weight, bias: Option<Param<Tensor<1>>>, low_rank: Option<LowRank>) -> Self {
        Self { weight, bias, low_rank }
    }

    /// Applies the layer: `[n, inputs]` → `[n, outputs]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        // First, so that the product with the weight has the only handle on `x`, and moves it.
        let update = self.low_rank.as_ref().map(|low_rank| low_rank.forward(x.clone()));
        let mut y = self.weight.product(x);
        if let Some(bias) = &self.bias {
            let bias = bias.val().cast(y.dtype());
            y = y + bias.unsqueeze();
        }
        match update {
            Some(update) => y + update,
            None => y,
        }
    }
}
