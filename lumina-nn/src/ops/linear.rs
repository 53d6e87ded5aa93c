//! A linear layer.

use std::ops::Range;

use super::hidden::{Activation, Hidden};
use super::low_rank::LowRank;
use super::values::Values;
use super::weight::{Weight, WeightRows, matmul};

/// `x · Wᵀ + b`, with `W` `[outputs, inputs]` as checkpoints store it, plus the update of an adapter where there is
/// one.
///
/// In inference on a CPU the weight is memory-mapped, or quantised on the heap; in training it is a parameter of Burn:
/// see [`Residence`](crate::Residence) and [`Weights`](crate::Weights). Made by
/// [`Loader::linear`](crate::Loader::linear).
#[cfg_attr(feature = "burn", derive(burn::module::Module))]
#[derive(Debug)]
pub struct Linear {
    weight: Weight,
    bias: Option<Values<1>>,
    low_rank: Option<LowRank>,
}

impl Linear {
    pub(crate) fn new(weight: Weight, bias: Option<Values<1>>, low_rank: Option<LowRank>) -> Self {
        Self { weight, bias, low_rank }
    }

    /// Applies the layer: `[n, inputs]` → `[n, outputs]`.
    pub fn forward(&self, x: &Hidden) -> Hidden {
        let [y] = Self::forward_all([self], x);
        y
    }

    /// Applies several layers to one input, `[n, inputs]` → `[n, outputs]` each. On a CPU the input is converted once,
    /// and threads are started once. The results are those of [`Linear::forward`].
    pub fn forward_all<const N: usize>(layers: [&Self; N], x: &Hidden) -> [Hidden; N] {
        Self::apply(layers.map(|layer| (layer, 0..layer.weight.outputs())), x)
    }

    /// Some of the outputs, `[n, inputs]` → `[n, outputs.len()]`, at the cost of those alone. With weights in host
    /// memory they are those of [`Linear::forward`] to the bit. Outputs that the layer does not have are left out.
    pub fn forward_some(&self, x: &Hidden, outputs: Range<usize>) -> Hidden {
        let end = outputs.end.min(self.weight.outputs());
        let [y] = Self::apply([(self, outputs.start.min(end)..end)], x);
        y
    }

    fn apply<const N: usize>(layers: [(&Self, Range<usize>); N], x: &Hidden) -> [Hidden; N] {
        let weights =
            layers.each_ref().map(|(layer, outputs)| WeightRows { weight: &layer.weight, rows: outputs.clone() });
        let mut layers = layers.into_iter();
        matmul(weights, x).map(|mut y| {
            let Some((layer, outputs)) = layers.next() else { return y };
            if let Some(bias) = &layer.bias {
                y = add_bias(y, bias, outputs.clone());
            }
            match &layer.low_rank {
                Some(low_rank) => low_rank.add(y, x, outputs),
                None => y,
            }
        })
    }
}

/// Adds some outputs' part of a bias to each row.
fn add_bias(y: Hidden, bias: &Values<1>, outputs: Range<usize>) -> Hidden {
    match (y.0, bias.slice()) {
        (Activation::Host(mut y), Some(bias)) => {
            for row in y.values.chunks_exact_mut(y.width.max(1)) {
                row.iter_mut().zip(&bias[outputs.clone()]).for_each(|(y, bias)| *y += bias);
            }
            y.into()
        }
        #[cfg(feature = "cube")]
        (Activation::Gpu(y), _) if let Some(bias) = bias.buffer() => {
            // Some outputs begin where they may, and parts of buffers do not: then they are picked one by one.
            let bias = if outputs.len() == bias.len() {
                bias.clone()
            } else {
                let outputs: Vec<u32> = outputs.map(|output| output as u32).collect();
                lumina_cube::embedding::select(&y.gpu, bias, 1, &y.gpu.upload(&outputs))
            };
            y.with(lumina_cube::elementwise::add_scaled(&y.gpu, &y.values, &bias, 1.0), y.width).into()
        }
        (y, _) => in_tensors!(y => super::burn::add_bias(Hidden(y), bias, outputs)),
    }
}
