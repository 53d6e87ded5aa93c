//! Cross entropy and z-loss, with gradients.

use std::sync::Arc;

use burn::tensor::{Int, Tensor};
use lumina_kernels::loss::cross_entropy::{self as cpu, CrossEntropyGradients, CrossEntropyOutput};

use super::kernel::{Array, Gradient, Kernel, Operand, View, operands, run};

/// Mean cross entropy of logits `[n, vocab_size]` with `targets` `[n]`, in nats, and the mean square of the log-sum-exp
/// of each row, together `[2]`. `None` where there are no targets, or not one below `vocab_size` for each row.
pub fn cross_entropy(logits: Tensor<2>, targets: &[u32]) -> Option<Tensor<1>> {
    let [n, vocab_size] = logits.dims();
    if n == 0 || targets.len() != n || targets.iter().any(|&target| target as usize >= vocab_size) {
        return None;
    }
    let means = match operands([Operand::of(&logits)]) {
        Some(operands) => run(CrossEntropy { targets: targets.into() }, operands),
        None => {
            let targets: Vec<i32> = targets.iter().map(|&target| target as i32).collect();
            let targets = Tensor::<1, Int>::from_data(targets.as_slice(), &logits.device());
            let max = logits.clone().detach().max_dim(1);
            let log_sum_exp = (logits.clone() - max.clone()).exp().sum_dim(1).log() + max;
            let target_logits = logits.gather(1, targets.reshape([n, 1]));
            let cross_entropy = (log_sum_exp.clone() - target_logits).mean();
            Tensor::cat(vec![cross_entropy, log_sum_exp.square().mean()], 0)
        }
    };
    Some(means)
}

/// Means over rows of logits `[n, vocab_size]`.
#[derive(Debug, Clone)]
struct CrossEntropy {
    targets: Arc<[u32]>,
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
