//! Cross entropy and z-loss as a kernel with gradients.

use std::sync::Arc;

use lumina_kernels::loss::cross_entropy;

use super::kernel::{Array, Gradient, Kernel, View};

/// Means over rows of logits `[n, vocab_size]`.
#[derive(Debug, Clone)]
pub(in crate::ops) struct CrossEntropy {
    pub(in crate::ops) targets: Arc<[u32]>,
}

impl Kernel<1> for CrossEntropy {
    /// The log-sum-exp of each row.
    type Saved = Vec<f32>;

    fn forward(&self, [logits]: [View<'_>; 1]) -> (Array, Vec<f32>) {
        let (entropy, squares, log_sum_exps) = cross_entropy::forward(logits.values, &self.targets);
        (Array { values: vec![entropy, squares], shape: vec![2] }, log_sum_exps)
    }

    fn backward(
        &self,
        [logits]: [View<'_>; 1],
        log_sum_exps: Vec<f32>,
        dy: &[f32],
        _: [bool; 1],
    ) -> [Option<Gradient>; 1] {
        [Some(cross_entropy::backward(logits.values, &self.targets, &log_sum_exps, [dy[0], dy[1]]).into())]
    }
}
