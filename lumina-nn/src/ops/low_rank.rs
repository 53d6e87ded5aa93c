//! The update of a linear layer that an adapter brings.

use std::ops::Range;

use burn::module::Module;

use super::hidden::Hidden;
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

    /// Adds some outputs' part of the update for `x` `[n, inputs]` to `y` `[n, outputs.len()]`.
    pub(super) fn add(&self, y: Hidden, x: &Hidden, outputs: Range<usize>) -> Hidden {
        let [update] = Weight::products([(&self.b, outputs)], &self.a.product(x));
        y.add_scaled(update, self.scale)
    }
}
