//! The LoRA update of a linear layer.

use std::ops::Range;

use super::hidden::Hidden;
use super::weight::{Weight, WeightRows, matmul};

/// `scale · (x · Aᵀ) · Bᵀ`, with `A` `[rank, inputs]` and `B` `[outputs, rank]`: LoRA (arXiv 2106.09685).
///
/// Mirrors `peft/tuners/lora/layer.py::Linear`. The matrices reside where other weights do, so that in host memory
/// a row's result does not depend on the batch.
#[cfg_attr(feature = "burn", derive(burn::module::Module))]
#[derive(Debug)]
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
        let [low] = matmul([self.a.all()], x);
        let [update] = matmul([WeightRows { weight: &self.b, rows: outputs }], &low);
        y.add_scaled(update, self.scale)
    }
}
