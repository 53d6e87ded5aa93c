//! The update of a linear layer that an adapter brings.

use std::ops::Range;

use burn::module::Module;
use burn::tensor::Tensor;

use super::weight::Weight;

/// `scale · (x · Aᵀ) · Bᵀ`, with `A` `[rank, inputs]` and `B` `[outputs, rank]`: LoRA (arXiv 2106.09685).
///
/// Mirrors `peft/tuners/lora/layer.py::Linear`. The matrices live where other weights do, so mapped ones keep the
/// promise that a row's result does not depend on the batch.
#[derive(Module, Debug)]
pub(crate) struct LowRank {
    a: Weight,
    b: Weight,
    scale: f64,
}

impl LowRank {
    pub(crate) fn new(a: Weight, b: Weight, scale: f64) -> Self {
        Self { a, b, scale }
    }

    /// Some of the outputs: `[n, inputs]` → `[n, outputs.len()]`.
    pub(super) fn forward(&self, x: Tensor<2>, outputs: Range<usize>) -> Tensor<2> {
        let [update] = Weight::products([(&self.b, outputs)], self.a.product(x));
        update * self.scale
    }
}
