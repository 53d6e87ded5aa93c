//! A linear layer that knows where its weight lives.

use std::ops::Range;

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::low_rank::LowRank;
use super::weight::Weight;

/// `x · Wᵀ + b`, with `W` `[outputs, inputs]` as checkpoints store it, plus the update of an adapter where there is one.
///
/// In inference on a CPU the weights stay in the checkpoint's mapping, or are narrowed beside it; on GPUs and in training
/// they are Burn parameters. Made by [`Loader::linear`](crate::Loader::linear).
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
        let [y] = Self::forward_all([self], x);
        y
    }

    /// Applies several layers to one input, `[n, inputs]` → `[n, outputs]` each: on a CPU the input is prepared once,
    /// and threads meet once. The results are those of [`Linear::forward`].
    pub fn forward_all<const N: usize>(layers: [&Self; N], x: Tensor<2>) -> [Tensor<2>; N] {
        Self::apply(layers.map(|layer| (layer, 0..layer.weight.outputs())), x)
    }

    /// Some of the outputs alone, `[n, inputs]` → `[n, outputs.len()]`, at the price of those: with weights that kernels
    /// read they are what [`Linear::forward`] gives, to the bit. Outputs that the layer does not have are left out.
    pub fn forward_some(&self, x: Tensor<2>, outputs: Range<usize>) -> Tensor<2> {
        let end = outputs.end.min(self.weight.outputs());
        let [y] = Self::apply([(self, outputs.start.min(end)..end)], x);
        y
    }

    fn apply<const N: usize>(layers: [(&Self, Range<usize>); N], x: Tensor<2>) -> [Tensor<2>; N] {
        // First, so that the product with the weights has the only handle on `x`, and moves it.
        let updates = layers.each_ref().map(|(layer, outputs)| {
            layer.low_rank.as_ref().map(|low_rank| low_rank.forward(x.clone(), outputs.clone()))
        });
        let weights = layers.each_ref().map(|(layer, outputs)| (&layer.weight, outputs.clone()));
        let mut updates = updates.into_iter();
        let mut layers = layers.into_iter();
        Weight::products(weights, x).map(|mut y| {
            if let Some((layer, outputs)) = layers.next()
                && let Some(bias) = &layer.bias
            {
                let all = bias.val();
                let is_whole = outputs.len() == layer.weight.outputs();
                let bias = if is_whole { all } else { all.narrow(0, outputs.start, outputs.len()) };
                y = y.clone() + bias.cast(y.dtype()).unsqueeze();
            }
            match updates.next().flatten() {
                Some(update) => y + update,
                None => y,
            }
        })
    }
}
