//! Cross entropy and z-loss.

use burn::tensor::{Int, Tensor};

use super::burn::CrossEntropy;
use super::burn::kernel::{Operand, operands, run};

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
