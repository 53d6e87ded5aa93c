//! Cross entropy and z-loss as a kernel with gradients.

use std::sync::Arc;

use lumina_kernels::loss::cross_entropy::{self as cpu, CrossEntropyGradients, CrossEntropyOutput};

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
        let CrossEntropyOutput { cross_entropy, z_loss, log_sum_exp } = cpu::forward(logits.values, &self.targets);
        (Array { values: vec![cross_entropy, z_loss], shape: vec![2] }, log_sum_exp)
    }

    fn backward(
        &self,
        [logits]: [View<'_>; 1],
        log_sum_exp: Vec<f32>,
        dy: &[f32],
        _: [bool; 1],
    ) -> [Option<Gradient>; 1] {
        let dy = CrossEntropyGradients { dcross_entropy: dy[0], dz_loss: dy[1] };
        [Some(cpu::backward(logits.values, &self.targets, &log_sum_exp, dy).into())]
    }
}
